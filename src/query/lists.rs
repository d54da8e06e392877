//! Recorded ticket lists as people name and ask them.
//!
//! | address | recording |
//! |---|---|
//! | `vip` | the newest of the list |
//! | `vip@latest` | the same |
//! | `vip@2` | the second that was recorded |
//! | `vip@2026-11-01` or `vip@2026-11-01T08:30:00Z` | the newest that was recorded at or before that time; a day begins at midnight UTC |
//!
//! What a recording holds is asked for in SQL on the table `ticket_lists`, with the recording's id as a parameter.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::lake::lists::Recording;
use crate::lake::manifest::Manifest;
use crate::model::{ObjectId, Stream};
use crate::query::fault::did_you_mean;
use crate::query::library::QueryFile;
use crate::query::parameters::Arguments;

/// Finds the recording of an address.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when there is no such list, with the nearest names, or no such
/// recording of it, with those that there are.
pub fn find<'m>(manifest: &'m Manifest, address: &str) -> Result<&'m Arc<Recording>> {
    let (name, which) = address.rsplit_once('@').unwrap_or((address, "latest"));
    let of_list = of_list(manifest, name)?;
    let found = if which == "latest" {
        of_list.last()
    } else if let Ok(number) = which.parse::<u64>() {
        of_list.iter().find(|recording| recording.number == number)
    } else if let Some(at_ms) = instant(which) {
        of_list.iter().rev().find(|recording| recording.recorded_ms <= at_ms)
    } else {
        return Err(Error::config("a recording is named by its number, a time, or `latest`")
            .with_context("address", address)
            .with_hint(format!("e.g. {name}@1, {name}@latest, {name}@2026-11-01 or {name}@2026-11-01T08:30:00Z")));
    };
    found.copied().ok_or_else(|| {
        let first = of_list.first().map_or_else(String::new, |recording| recording.address());
        let last = of_list.last().map_or_else(String::new, |recording| recording.address());
        Error::config("the list has no such recording").with_context("address", address).with_hint(format!(
            "its recordings are {first} to {last}; `counterfoil lists ls {name}` shows when each was made"
        ))
    })
}

/// Returns the recordings of a list, oldest first.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when there is none, with the nearest names.
pub fn of_list<'m>(manifest: &'m Manifest, name: &str) -> Result<Vec<&'m Arc<Recording>>> {
    let of_list: Vec<&Arc<Recording>> = manifest.lists.iter().filter(|recording| recording.list == name).collect();
    if !of_list.is_empty() {
        return Ok(of_list);
    }
    let mut names: Vec<&str> = manifest.lists.iter().map(|recording| recording.list.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let hint = match did_you_mean(name, names.iter().copied()) {
        Some(hint) => hint,
        None if names.is_empty() => "nothing was recorded yet: `counterfoil query FILE --record`".to_owned(),
        None => format!("the lists are {}", names.join(", ")),
    };
    Err(Error::config(format!("no ticket list `{name}`")).with_hint(hint))
}

fn instant(text: &str) -> Option<i64> {
    let time = text.parse::<Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse());
    time.ok().map(Timestamp::as_millisecond)
}

/// The tickets of a recording in the order of its result: `ticket_id`, `position`.
///
/// # Errors
///
/// None in a build whose tests pass: the SQL is right.
pub fn tickets(recording: &Recording) -> Result<(QueryFile, Arguments)> {
    asked(
        "-- param recording: text
         SELECT ticket_id, position FROM ticket_lists WHERE recording = $recording ORDER BY position",
        [("recording", recording.id.as_str())],
    )
}

/// How two recordings differ: `ticket_id`, `change` (`added`, `removed` or `kept`), for the changes that are asked for.
///
/// # Errors
///
/// As [`tickets`].
pub fn difference(before: &Recording, after: &Recording, changes: &[&str]) -> Result<(QueryFile, Arguments)> {
    let (file, mut arguments) = asked(
        "-- param before: text
         -- param after: text
         -- param changes: text[]
         SELECT ticket_id, change FROM (
           SELECT coalesce(a.ticket_id, b.ticket_id) AS ticket_id,
             CASE WHEN b.ticket_id IS NULL THEN 'added' WHEN a.ticket_id IS NULL THEN 'removed' ELSE 'kept' END AS change
           FROM (SELECT ticket_id FROM ticket_lists WHERE recording = $after) AS a
           FULL JOIN (SELECT ticket_id FROM ticket_lists WHERE recording = $before) AS b ON a.ticket_id = b.ticket_id)
         WHERE array_has($changes, change) ORDER BY change, ticket_id",
        [("before", before.id.as_str()), ("after", after.id.as_str())],
    )?;
    let changes: Vec<ScalarValue> = changes.iter().map(|change| ScalarValue::from(*change)).collect();
    let changes = ScalarValue::List(ScalarValue::new_list_nullable(&changes, &DataType::Utf8));
    arguments.set("changes", changes);
    Ok((file, arguments))
}

/// How many tickets are in both recordings: `kept`.
///
/// # Errors
///
/// As [`tickets`].
pub fn kept(before: &Recording, after: &Recording) -> Result<(QueryFile, Arguments)> {
    asked(
        "-- param before: text
         -- param after: text
         SELECT count(*) AS kept FROM ticket_lists WHERE recording = $after
           AND ticket_id IN (SELECT ticket_id FROM ticket_lists WHERE recording = $before)",
        [("before", before.id.as_str()), ("after", after.id.as_str())],
    )
}

/// Returns how many tickets a recording holds now: fewer than were recorded where some were erased.
#[must_use]
pub fn held(manifest: &Manifest, recording: &Recording) -> u64 {
    let table = manifest.tables.get(&Stream::TicketLists);
    let files = table.map_or(&[][..], |table| &table.files);
    let of_recording = files.iter().filter(|file| file.recording.as_deref() == Some(recording.id.as_str()));
    of_recording.map(|file| file.rows).sum()
}

/// Where a ticket stands in recordings: `recording`, `position`.
///
/// # Errors
///
/// As [`tickets`].
pub fn places(ticket: ObjectId) -> Result<(QueryFile, Arguments)> {
    asked(
        "-- param ticket: text
         SELECT recording, position FROM ticket_lists WHERE ticket_id = $ticket",
        [("ticket", ticket.to_string().as_str())],
    )
}

fn asked<const N: usize>(sql: &str, texts: [(&str, &str); N]) -> Result<(QueryFile, Arguments)> {
    let lines: Vec<&str> = sql.lines().map(str::trim_start).collect();
    let file = QueryFile::parse("lists", &lines.join("\n"))?;
    let values = texts.map(|(name, text)| (name.to_owned(), ScalarValue::from(text)));
    Ok((file, Arguments::of_values(values.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn manifest() -> Manifest {
        let recording = |list: &str, number: u64, recorded: &str| {
            let recorded_ms = recorded.parse::<Timestamp>().unwrap().as_millisecond();
            Arc::new(Recording { list: list.to_owned(), number, recorded_ms, ..Recording::default() })
        };
        let lists = vec![
            recording("vip", 2, "2026-11-01T10:00:00Z"),
            recording("other", 1, "2026-11-01T11:00:00Z"),
            recording("vip", 3, "2026-11-02T10:00:00Z"),
        ];
        Manifest { lists, ..Manifest::default() }
    }

    #[test]
    fn addresses_find_their_recording() {
        for (address, number) in [
            ("vip", 3),
            ("vip@latest", 3),
            ("vip@2", 2),
            ("vip@2026-11-02", 2),
            ("vip@2026-11-02T10:00:00Z", 3),
            ("vip@2030-01-01", 3),
        ] {
            assert_eq!(find(&manifest(), address).unwrap().number, number, "{address}");
        }
    }

    #[test]
    fn addresses_without_a_recording_say_what_there_is() {
        for (address, message, hint) in [
            ("vip_", "no ticket list `vip_`", "did you mean `vip`?"),
            ("x", "no ticket list `x`", "the lists are other, vip"),
            ("vip@1", "the list has no such recording", "its recordings are vip@2 to vip@3"),
            ("vip@2026-10-01", "the list has no such recording", "vip@2 to vip@3"),
            ("vip@then", "a recording is named by its number, a time, or `latest`", "vip@1, vip@latest"),
        ] {
            let error = find(&manifest(), address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(message), "{address}: {error}");
            assert!(error.hint().unwrap().contains(hint), "{address}: {:?}", error.hint());
        }
        let error = find(&Manifest::default(), "x").unwrap_err();
        assert!(error.hint().unwrap().contains("nothing was recorded yet"));
    }
}
