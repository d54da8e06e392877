//! Reconciliation: what the source has and has not, against what the lake has and has not.
//!
//! An incremental run hears of what changes, and of deletions only when the source marks them. What is simply gone, and
//! what an earlier run missed without noticing, shows when all ids are compared:
//!
//! ```text
//! sweep ─┬─▶ only in the lake ──▶ asked for by id ─┬─▶ not there, or marked deleted ─▶ tombstone (`gone`)
//!        │                                         └─▶ there ─▶ stays (`hidden`), its newest revision stored
//!        └─▶ only at the source ─▶ asked for by id ──▶ stored (`missing`)
//! ```
//!
//! Nothing gets a tombstone because a list left it out: only a source that was asked for the record itself and does not
//! have it makes it gone. And when all or more than half of a table should be gone, that is not believed: a credential that
//! lost its rights, or one of another organisation, looks just like that.

use std::collections::HashSet;

use arrow::array::BooleanArray;

use crate::error::{Error, ErrorKind, Result};
use crate::extract::lookup::{Answer, LookUp, RecordSource};
use crate::extract::plan::{Plan, RangeSet};
use crate::extract::sweep::{self, Bounds, Differences, IdQuery, IdSource, Ids};
use crate::extract::{Event, Run, commit};
use crate::kustomer::{Client, Endpoint, SearchObject, SearchRequest};
use crate::lake::manifest::{Manifest, Watermark};
use crate::lake::run::{Reconciled, StreamRun};
use crate::lake::{RowCounts, Transaction};
use crate::model::{ObjectId, Stream};
use crate::policy::{Decoder, Definitions, IdPage, RecordKey, RedactedBatch};

/// So many records may be gone of any table of which something is left.
const ALWAYS_BELIEVED: u64 = 1_000;

/// A table of so many records may be gone as a whole.
const MAY_ALL_BE_GONE: u64 = 10;

/// Later than any `updated_at`: the year 2100.
const END_OF_TIME_MS: i64 = 4_102_444_800_000;

impl Run<'_> {
    /// Compares all ids of a stream, and mends what differs.
    pub(super) async fn reconcile(&mut self, stream: Stream, definitions: &Definitions) -> Result<()> {
        let manifest = self.lake.latest().await?;
        let watermark = manifest.watermarks.get(&stream).cloned().unwrap_or_default();
        let Some(until_ms) = watermark.complete_through_ms else {
            tracing::warn!(%stream, "nothing is complete yet, so nothing can be reconciled");
            self.note(stream, |run| run.complete = false);
            return Ok(());
        };
        let source = SearchIds { client: self.client, object: object(stream) };
        let bounds = self.bounds(&source, &watermark, until_ms).await?;
        let promised = manifest.tables.get(&stream).map_or(0, |table| table.files.iter().map(|f| f.live_rows()).sum());
        let progress = self.progress;
        progress.on(Event::Promised { stream, promised });
        let ids = self.lake.live_ids(&manifest, stream)?;
        let (client, mut before) = (self.client, self.client.ledger());
        let received = |records| {
            progress.on(Event::Received { stream, records });
            let ledger = client.ledger();
            for (reason, wait) in ledger.since(&before).waited {
                progress.on(Event::Waited { reason, wait });
            }
            before = ledger;
        };
        let mut found = sweep::compare(&source, ids, &bounds, received).await?;

        let mut figures = Reconciled { swept: found.swept, unproven: found.unproven, ..Reconciled::default() };
        let not_listed = found.only_lake.len() as u64;
        let is_another = found.witnesses.is_empty() && not_listed > MAY_ALL_BE_GONE;
        if is_another || not_listed > (found.live / 2).max(ALWAYS_BELIEVED) {
            tracing::error!(
                %stream, live = found.live, not_listed,
                "source lists none or less than half of what the lake holds, which is not believed: \
                 check that the credential has all its roles and is one of this organisation"
            );
            figures.unproven += 1;
            found.only_lake.clear();
        }
        let decoder = self.decoder(stream, definitions)?;
        let witnesses = std::mem::take(&mut found.witnesses);
        let mut look_up = LookUp::new(ById::new(self.client, stream, decoder.fork()), witnesses);
        self.bury_what_is_gone(&manifest, &decoder, &found, &mut look_up, &mut figures).await?;
        self.fetch_what_is_missing(&manifest, (stream, until_ms), &found, &mut look_up, &mut figures).await?;
        tracing::info!(
            %stream, swept = figures.swept, gone = figures.gone, missing = figures.missing, hidden = figures.hidden,
            unproven = figures.unproven, "reconciled"
        );
        self.note(stream, |run| {
            run.complete &= figures.unproven == 0;
            run.reconciled = Some(figures);
        });
        Ok(())
    }

    /// Returns what is to be swept: all that the lake should hold.
    async fn bounds(&self, source: &SearchIds<'_>, watermark: &Watermark, until_ms: i64) -> Result<Bounds> {
        let mut all = RangeSet::default();
        all.add(0, until_ms);
        let all = Plan { ranges: all, target_ms: until_ms, complete_from_ms: None };
        let archived = all.archived(self.client.source_now().as_millisecond()).hull();
        let updated_from = watermark.complete_from_ms;
        // The walk before has learned it.
        let page_size = self.caps.page_size();
        let mut bounds = Bounds {
            until_ms,
            updated_from,
            archive_until_ms: None,
            page_size,
            reach_rows: self.caps.reach_rows(page_size),
            concurrency: self.settings.concurrency,
        };
        if let Some(created) = archived {
            let probe = IdQuery { created, updated_from, archive: true, page: 1, page_size: 1 };
            let answer = source.ids(&probe).await.map_err(|error| {
                error.with_hint(
                    "the archive (records not updated for two years) does not answer, and without it nothing can be \
                     said of them: grant org.user.search.read",
                )
            })?;
            bounds.archive_until_ms = (answer.total > 0).then_some(created.1);
        }
        Ok(bounds)
    }

    /// Asks for what the lake alone holds; writes tombstones of what is not there.
    async fn bury_what_is_gone(
        &mut self,
        manifest: &Manifest,
        decoder: &Decoder,
        found: &Differences,
        look_up: &mut LookUp<ById<'_>>,
        figures: &mut Reconciled,
    ) -> Result<()> {
        let stream = look_up.source().stream;
        for ids in found.only_lake.chunks(LookUp::<ById<'_>>::batch()) {
            let known = look_up.look_up(ids).await?;
            let deleted = known.found.iter().filter(|record| record.deleted).count();
            figures.gone += (known.gone.len() + deleted) as u64;
            figures.hidden += (known.found.len() - deleted + known.undecoded.len()) as u64;
            let mut transaction = self.lake.transaction().under(self.policy);
            for rows in known.rows {
                transaction.append(rows);
            }
            if let Some(rows) = self.tombstones(manifest, (stream, decoder), known.gone).await? {
                transaction.append(rows);
            }
            self.commit(stream, transaction, ids.len()).await?;
        }
        Ok(())
    }

    /// Asks for what the source alone lists, and stores it.
    async fn fetch_what_is_missing(
        &mut self,
        manifest: &Manifest,
        (stream, until_ms): (Stream, i64),
        found: &Differences,
        look_up: &mut LookUp<ById<'_>>,
        figures: &mut Reconciled,
    ) -> Result<()> {
        // Ids later than the range may belong to records that were created in it, and are held.
        let listed: HashSet<ObjectId> = found.only_source.iter().copied().collect();
        let held = self.lake.newest_keys(manifest, stream, &listed).await?;
        let held: HashSet<ObjectId> = held.into_iter().filter(|key| !key.deleted).map(|key| key.id).collect();
        let missing: Vec<ObjectId> = found.only_source.iter().copied().filter(|id| !held.contains(id)).collect();
        for ids in missing.chunks(LookUp::<ById<'_>>::batch()) {
            let known = look_up.look_up(ids).await?;
            let live = known.found.iter().filter(|record| !record.deleted);
            // What changed since the range was walked comes with the next run anyway.
            let is_due = |record: &&RecordKey| record.updated_at_ms.is_none_or(|at| at < until_ms);
            figures.missing += live.clone().filter(is_due).count() as u64;
            figures.unproven += known.undecoded.len() as u64;
            let wanted: HashSet<ObjectId> = live.map(|record| record.id).collect();
            let mut transaction = self.lake.transaction().under(self.policy);
            for rows in known.rows {
                transaction.correct(only(&rows, |key| wanted.contains(&key.id) && !key.deleted)?);
            }
            self.commit(stream, transaction, ids.len()).await?;
        }
        Ok(())
    }

    /// Makes tombstones of the records among `gone` that live in the lake.
    pub(super) async fn tombstones(
        &self,
        manifest: &Manifest,
        (stream, decoder): (Stream, &Decoder),
        gone: Vec<ObjectId>,
    ) -> Result<Option<RedactedBatch>> {
        let gone: HashSet<ObjectId> = gone.into_iter().collect();
        let mut keys = self.lake.newest_keys(manifest, stream, &gone).await?;
        keys.retain(|key| !key.deleted);
        if keys.is_empty() {
            return Ok(None);
        }
        self.policy.tombstones(stream, &decoder.schema(), &keys).map(Some)
    }

    /// Commits, and counts what was written as the stream's.
    pub(super) async fn commit(&mut self, stream: Stream, transaction: Transaction, rows: usize) -> Result<()> {
        let summary = transaction.commit().await?;
        let counts = summary.streams.iter().filter(|(committed, _)| *committed == stream);
        let counts: Vec<RowCounts> = counts.map(|(_, counts)| *counts).collect();
        // Records that were only asked about are not part of what the run saw again.
        self.note(stream, |run| {
            for counts in counts {
                commit::add_counts(run, RowCounts { unchanged: 0, ..counts });
            }
        });
        self.progress.on(Event::Committed { version: summary.version, rows: rows as u64 });
        Ok(())
    }

    /// Changes a stream's figures.
    pub(super) fn note(&mut self, stream: Stream, change: impl FnOnce(&mut StreamRun)) {
        let streams = &mut self.record.streams;
        if let Some(run) = streams.iter_mut().find(|run| run.stream == stream.table()) {
            change(run);
        }
    }
}

/// Keeps the rows whose keys fit.
pub(super) fn only(rows: &RedactedBatch, fits: impl Fn(&RecordKey) -> bool) -> Result<RedactedBatch> {
    let mask: Vec<bool> = rows.keys().iter().map(fits).collect();
    rows.filter(&BooleanArray::from(mask))
}

const fn object(stream: Stream) -> SearchObject {
    if matches!(stream, Stream::Tickets) { SearchObject::Conversation } else { SearchObject::Customer }
}

/// Searches for ids.
struct SearchIds<'a> {
    client: &'a Client,
    object: SearchObject,
}

impl SearchIds<'_> {
    fn decode(body: &[u8], query: &IdQuery) -> Result<Ids> {
        let page = IdPage::decode(body)?;
        if page.timed_out {
            return Err(Error::unavailable("search timed out at the source and gave a part of its page"));
        }
        let Some(total) = page.total else {
            return Err(Error::data("search answer has no `meta.total`, without which nothing can be proven"));
        };
        if page.ids.is_empty() && page.rejected == 0 && total > 0 && query.page == 1 {
            return Err(Error::data("search answer promises records and holds none").with_context("total", total));
        }
        Ok(Ids { total, ids: page.ids })
    }
}

impl IdSource for SearchIds<'_> {
    async fn ids(&self, query: &IdQuery) -> Result<Ids> {
        let mut builder = SearchRequest::builder(self.object)
            .created_between(query.created.0, query.created.1)?
            .ids_only()
            .archive(query.archive)
            .page(query.page, query.page_size);
        if let Some(from_ms) = query.updated_from {
            builder = builder.updated_between(from_ms, END_OF_TIME_MS)?;
        }
        let request = builder.build();
        let mut failed = 0;
        loop {
            let body = self.client.search(&request).await?;
            let error = match Self::decode(&body, query) {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            failed += 1;
            if !self.client.back_off(request.endpoint(), failed, error.message()).await {
                return Err(Error::unavailable("source keeps sending pages that cannot be used")
                    .with_context("endpoint", request.endpoint())
                    .with_context("host", self.client.host())
                    .with_context("attempts", failed)
                    .with_source(error));
            }
        }
    }
}

/// Asks for records by their ids.
pub(super) struct ById<'a> {
    client: &'a Client,
    stream: Stream,
    decoder: Decoder,
}

impl<'a> ById<'a> {
    pub(super) fn new(client: &'a Client, stream: Stream, decoder: Decoder) -> Self {
        Self { client, stream, decoder }
    }
}

impl RecordSource for ById<'_> {
    type Rows = RedactedBatch;

    async fn records(&mut self, ids: &[ObjectId]) -> Result<Answer<RedactedBatch>> {
        let (endpoint, mut path) = match self.stream {
            Stream::Tickets => (Endpoint::Conversations, String::from("/v1/conversations/")),
            _ => (Endpoint::Customers, String::from("/v1/customers/")),
        };
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        path.push_str(&texts.join(","));
        let mut failed = 0;
        loop {
            let body = match self.client.get_optional(endpoint, &path).await {
                Ok(Some(body)) => body,
                Ok(None) => return Ok(Answer::NotFound),
                Err(error) if ids.len() > 1 && matches!(error.kind(), ErrorKind::Internal | ErrorKind::Data) => {
                    return Ok(Answer::Refused);
                }
                Err(error) => return Err(error),
            };
            let error = match self.decoder.push_page(&body) {
                Ok(summary) => {
                    let came = |id: &&ObjectId| summary.records.iter().any(|record| record.id == **id);
                    // One without an id may be any of those that are absent.
                    let undecoded = if summary.rejected.iter().any(|rejected| rejected.id.is_none()) {
                        ids.iter().filter(|id| !came(id)).copied().collect()
                    } else {
                        summary.rejected.iter().filter_map(|rejected| rejected.id).collect()
                    };
                    return Ok(Answer::Found { undecoded, rows: self.decoder.finish()?, records: summary.records });
                }
                Err(error) if error.kind() == ErrorKind::Data => error,
                Err(error) => return Err(error),
            };
            failed += 1;
            if !self.client.back_off(endpoint, failed, error.message()).await {
                return Err(Error::unavailable("source keeps sending records that cannot be used")
                    .with_context("endpoint", endpoint)
                    .with_context("host", self.client.host())
                    .with_context("attempts", failed)
                    .with_source(error));
            }
        }
    }
}
