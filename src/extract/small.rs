//! The small streams, read whole: users, teams, tags, queues, brands, SLAs, business schedules.
//!
//! Their lists tell no total. `links.next` ends them, and so does an empty page, for `next` was seen to point past the end.
//!
//! They change rarely, so a run reads only those that are due: not read within `small_every`, or under another policy. When a
//! list was read last stands in the records of the lake's runs.
//!
//! A stream that is dispensable ([`Stream::is_dispensable`]) and that the credential may not read is left out, aloud. Schedules
//! whose holidays a list does not tell are asked for one by one.

use std::collections::HashSet;

use arrow::array::BooleanArray;

use crate::error::{Error, ErrorKind, Result};
use crate::extract::ExtractSettings;
use crate::extract::plan::millis;
use crate::extract::prove::Proof;
use crate::kustomer::{Client, Endpoint};
use crate::lake::manifest::Manifest;
use crate::lake::run::StreamRun;
use crate::model::{ObjectId, Stream};
use crate::policy::{Decoder, PageSummary, RedactedBatch, lacking_holidays};

/// A whole small stream.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) rows: RedactedBatch,
    pub(super) run: StreamRun,
}

/// Why a stream was not read and the run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// The source has no such list.
    Absent,
    /// The credential may not read it.
    Denied,
}

/// Tells whether a stream is to be read: it was not within the time that the settings give, or not by this policy.
pub(super) fn is_due(
    stream: Stream,
    manifest: &Manifest,
    policy: &str,
    settings: &ExtractSettings,
    now_ms: i64,
) -> bool {
    if settings.full || !manifest.tables.contains_key(&stream) {
        return true;
    }
    let read = manifest.runs.iter().rev().find(|run| {
        let mut streams = run.streams.iter();
        streams.any(|read| read.stream == stream.table() && read.complete)
    });
    // A run of the future shows that a clock was wrong, and nothing else.
    read.is_none_or(|run| {
        run.policy != policy || !(0..millis(settings.small_every)).contains(&(now_ms - run.started_ms))
    })
}

/// Reads a stream whole, or tells why not.
///
/// A page number is no cursor, and an empty page may be a fault: a list of several pages, and one that is shorter than the
/// `held_rows` of the lake, is read again until two readings in a row are the same.
pub(super) async fn read(
    client: &Client,
    stream: Stream,
    decoder: &mut Decoder,
    held_rows: u64,
) -> Result<Result<Whole, Unread>> {
    let Some((endpoint, first)) = list(stream) else { return Ok(Err(Unread::Absent)) };
    let mut received = 0;
    let mut before: Option<Proof> = None;
    for _ in 0..READINGS {
        let reading = match pages(client, stream, endpoint, first, decoder).await? {
            Ok(reading) => reading,
            Err(unread) => return Ok(Err(unread)),
        };
        received += reading.received;
        let is_short = reading.proof.distinct < held_rows.max(1);
        let is_doubtful = reading.pages > 1 || is_short;
        let is_confirmed = before.as_ref().is_some_and(|before| before.hex() == reading.proof.hex());
        if !is_doubtful || is_confirmed {
            return Ok(Ok(whole(stream, reading, received)));
        }
        before = Some(reading.proof);
    }
    Err(Error::unavailable("list of the source differs each time it is read")
        .with_context("stream", stream)
        .with_context("readings", READINGS)
        .with_hint("it is being changed: try again when that has ended"))
}

/// Readings of a list that may differ.
const READINGS: u32 = 4;

/// One reading of a list.
struct Reading {
    rows: RedactedBatch,
    proof: Proof,
    received: u64,
    pages: usize,
}

async fn pages(
    client: &Client,
    stream: Stream,
    endpoint: Endpoint,
    first: &str,
    decoder: &mut Decoder,
) -> Result<Result<Reading, Unread>> {
    let mut visited = HashSet::new();
    let mut next = Some(first.to_owned());
    let mut received = 0;
    while let Some(path) = next {
        let summary = match page(client, stream, endpoint, &path, decoder).await? {
            Ok((summary, lacking)) => {
                complete(client, stream, endpoint, &lacking, decoder).await?;
                summary
            }
            Err(unread) if visited.is_empty() => {
                match unread {
                    Unread::Absent => tracing::warn!(%stream, "source has no such list; the table stays as it is"),
                    Unread::Denied => tracing::warn!(%stream, "list may not be read; the table stays as it is"),
                }
                return Ok(Err(unread));
            }
            Err(_) => {
                return Err(
                    Error::data("list of the source ends in a page that is not there").with_context("stream", stream)
                );
            }
        };
        received += summary.records.len() as u64;
        visited.insert(path);
        next = summary.next.filter(|_| !summary.records.is_empty());
        if next.as_ref().is_some_and(|next| visited.contains(next)) {
            return Err(Error::data("list of the source links back to a page that was read")
                .with_context("stream", stream)
                .with_context("pages", visited.len()));
        }
    }
    let rows = decoder.finish()?;
    let mut ids = HashSet::new();
    let mut proof = Proof::default();
    // Of a record that moved between pages while they were read the last one is the newest.
    let mut keep: Vec<bool> = rows.keys().iter().rev().map(|key| ids.insert(key.id)).collect();
    keep.reverse();
    let rows = rows.filter(&BooleanArray::from(keep))?;
    for key in rows.keys() {
        proof.add(key);
    }
    Ok(Ok(Reading { rows, proof, received, pages: visited.len() }))
}

/// Asks one by one for the schedules whose holidays a list did not tell; what comes last of a record is what stays.
async fn complete(
    client: &Client,
    stream: Stream,
    endpoint: Endpoint,
    lacking: &[ObjectId],
    decoder: &mut Decoder,
) -> Result<()> {
    for id in lacking {
        let path = format!("/v1/schedules/{id}?include=holidays");
        match page(client, stream, endpoint, &path, decoder).await? {
            Ok((_, lacking)) if lacking.is_empty() => {}
            Ok(_) | Err(_) => tracing::warn!(%stream, %id, "holidays of the schedule are not told: it has none here"),
        }
    }
    Ok(())
}

fn whole(stream: Stream, reading: Reading, received: u64) -> Whole {
    let Reading { rows, proof, .. } = reading;
    let run = StreamRun {
        stream: stream.table().to_owned(),
        promised: proof.distinct,
        received,
        distinct: proof.distinct,
        complete: true,
        digest: proof.hex(),
        ..StreamRun::default()
    };
    Whole { rows, run }
}

/// Returns where a small stream's list begins, at the largest page that the API documents.
pub(super) const fn list(stream: Stream) -> Option<(Endpoint, &'static str)> {
    Some(match stream {
        Stream::Users => (Endpoint::Users, "/v1/users?page=1&pageSize=500"),
        Stream::Teams => (Endpoint::Teams, "/v1/teams?page=1&pageSize=500"),
        Stream::Tags => (Endpoint::Tags, "/v1/tags?page=1&pageSize=100"),
        Stream::Queues => (Endpoint::Queues, "/v1/routing/queues?page=1&pageSize=100"),
        Stream::Brands => (Endpoint::Brands, "/v1/brands?page=1&pageSize=100"),
        Stream::Slas => (Endpoint::Slas, "/v1/slas?page=1&pageSize=100"),
        Stream::Schedules => (Endpoint::Schedules, "/v1/schedules?include=holidays&page=1&pageSize=100"),
        Stream::Tickets | Stream::Customers | Stream::TicketTimes | Stream::TicketLists | Stream::Accesses => {
            return None;
        }
    })
}

/// Reads a page, and lists the schedules whose holidays it does not tell.
async fn page(
    client: &Client,
    stream: Stream,
    endpoint: Endpoint,
    path: &str,
    decoder: &mut Decoder,
) -> Result<Result<(PageSummary, Vec<ObjectId>), Unread>> {
    let mut failed = 0;
    loop {
        let body = match client.get_optional(endpoint, path).await {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(Err(Unread::Absent)),
            Err(error) if error.kind() == ErrorKind::Denied && stream.is_dispensable() => {
                tracing::debug!(%stream, %error, "refused");
                return Ok(Err(Unread::Denied));
            }
            Err(error) => return Err(error),
        };
        let error = match decoder.push_page(&body) {
            Ok(summary) => {
                let lacking = if stream == Stream::Schedules { lacking_holidays(&body) } else { Vec::new() };
                return Ok(Ok((summary, lacking)));
            }
            Err(error) if error.kind() == ErrorKind::Data => error,
            Err(error) => return Err(error),
        };
        failed += 1;
        if !client.back_off(endpoint, failed, error.message()).await {
            return Err(Error::unavailable("source keeps sending pages that cannot be used")
                .with_context("endpoint", endpoint)
                .with_context("attempts", failed)
                .with_source(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::lake::manifest::TableState;
    use crate::lake::run::RunRecord;

    fn manifest(runs: &[(&str, i64, bool)]) -> Manifest {
        let run = |(policy, started_ms, complete): &(&str, i64, bool)| RunRecord {
            started_ms: *started_ms,
            policy: (*policy).to_owned(),
            streams: vec![StreamRun { stream: "tags".to_owned(), complete: *complete, ..StreamRun::default() }],
            ..RunRecord::default()
        };
        let table = TableState { schema: Arc::new(Schema::empty()), files: Vec::new() };
        Manifest {
            tables: [(Stream::Tags, table.clone()), (Stream::Teams, table)].into(),
            runs: runs.iter().map(|told| Arc::new(run(told))).collect(),
            ..Manifest::default()
        }
    }

    #[test]
    fn list_is_due_until_it_was_read_whole_by_this_policy_within_the_time() {
        let every = |small_every| ExtractSettings { small_every, ..ExtractSettings::default() };
        let second = || every(Duration::from_secs(1));
        let full = ExtractSettings { full: true, ..second() };
        for (runs, settings, now_ms, expected) in [
            (&[][..], second(), 5_000, true),
            (&[("p", 4_001, true)], second(), 5_000, false),
            (&[("p", 4_000, true)], second(), 5_000, true),
            (&[("p", 4_500, false)], second(), 5_000, true),
            (&[("old", 4_500, true)], second(), 5_000, true),
            (&[("p", 4_500, true), ("p", 4_900, false)], second(), 5_000, false),
            (&[("p", 4_500, true), ("other", 4_900, true)], second(), 5_000, true),
            (&[("p", 5_001, true)], second(), 5_000, true),
            (&[("p", 4_900, true)], full, 5_000, true),
            (&[("p", 5_000, true)], every(Duration::ZERO), 5_000, true),
        ] {
            assert_eq!(is_due(Stream::Tags, &manifest(runs), "p", &settings, now_ms), expected, "{runs:?}");
        }
        let read = manifest(&[("p", 4_900, true)]);
        assert!(is_due(Stream::Teams, &read, "p", &second(), 5_000), "another list was not read");
        assert!(is_due(Stream::Users, &read, "p", &second(), 5_000), "a table that is not there is due");
    }
}
