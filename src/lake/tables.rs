//! The tables of a version: which names there are, and the tables of runs and of what is in quarantine.
//!
//! | name | rows |
//! |---|---|
//! | `tickets`, `customers` | live rows of the stream, once a schema was recorded |
//! | `users`, `teams`, `tags`, … | every row that the source listed last, those that it marks as deleted too: old tickets name them |
//! | `ticket_versions`, `customer_versions` | every revision and tombstone |
//! | `runs` | one per run and stream, from the manifest |
//! | `ticket_lists` | one per ticket of each recording of a ticket list (`lake/lists.rs`) |
//! | `accesses` | one per ticket and phase of each call of `resolve` and `attachment` (`lake/accesses.rs`) |
//! | `quarantine` | one per field that was seen and not stored, from the manifest: names and counts |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, Int64Builder, MapBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::lake::manifest::Manifest;
use crate::lake::run::{Reconciled, RunRecord, StreamRun};
use crate::lake::scan::View;
use crate::model::Stream;

/// The table of runs.
pub(super) const RUNS: &str = "runs";

/// The table of fields that were seen and not stored.
pub(super) const QUARANTINE: &str = "quarantine";

/// Returns the name of the table of all revisions, for the streams that have one.
const fn versions_table(stream: Stream) -> Option<&'static str> {
    match stream {
        Stream::Tickets => Some("ticket_versions"),
        Stream::Customers => Some("customer_versions"),
        _ => None,
    }
}

/// Finds the stream and the view behind a name.
pub(super) fn find(name: &str) -> Option<(Stream, View)> {
    Stream::ALL.into_iter().find_map(|stream| {
        if stream.table() == name {
            Some((stream, if stream.is_incremental() { View::Live } else { View::Versions }))
        } else {
            (versions_table(stream) == Some(name)).then_some((stream, View::Versions))
        }
    })
}

/// Lists the names that a version knows.
pub(super) fn names(manifest: &Manifest) -> Vec<String> {
    let streams = manifest.tables.keys().filter(|stream| !stream.is_own());
    let named = streams.flat_map(|stream| [Some(stream.table()), versions_table(*stream)]).flatten();
    named.chain([RUNS, QUARANTINE]).chain(Stream::OWN.map(Stream::table)).map(str::to_owned).collect()
}

/// Makes the table of runs: one row per run and stream, one without a stream for a run that reached none.
pub(super) fn runs(manifest: &Manifest) -> Result<Arc<dyn TableProvider>> {
    let nothing = [None];
    let rows: Vec<Row<'_>> = manifest
        .runs
        .iter()
        .flat_map(|run| {
            let streams: Vec<Option<&StreamRun>> = run.streams.iter().map(Some).collect();
            let streams = if streams.is_empty() { nothing.to_vec() } else { streams };
            streams.into_iter().map(move |stream| Row { run, stream })
        })
        .collect();
    let count = |of: fn(&StreamRun) -> u64| numbers(rows.iter().map(|row| row.stream.map(of)));
    let found = |of: fn(Reconciled) -> u64| {
        numbers(rows.iter().map(|row| row.stream.and_then(|stream| stream.reconciled).map(of)))
    };
    let columns: [(&str, &str, ArrayRef); 29] = [
        ("run_id", "Id of the run", texts(rows.iter().map(|row| Some(row.run.id.as_str())))),
        ("started_at", "Start", times(rows.iter().map(|row| Some(row.run.started_ms)))),
        ("ended_at", "End", times(rows.iter().map(|row| row.run.ended_ms))),
        ("outcome", "complete, incomplete or failed", texts(rows.iter().map(|row| Some(row.run.outcome.as_str())))),
        (
            "stream",
            "Table of the stream",
            texts(rows.iter().map(|row| row.stream.map(|stream| stream.stream.as_str()))),
        ),
        ("segments", "Segments walked", count(|stream| stream.segments)),
        ("promised", "Records that the source promised", count(|stream| stream.promised)),
        ("received", "Records received, with repetitions", count(|stream| stream.received)),
        ("distinct_records", "Distinct records received", count(|stream| stream.distinct)),
        ("inserted", "Rows of new records", count(|stream| stream.inserted)),
        ("updated", "Rows that superseded others", count(|stream| stream.updated)),
        ("unchanged", "Records left out because nothing changed", count(|stream| stream.unchanged)),
        ("deleted", "Tombstones", count(|stream| stream.deleted)),
        (
            "complete",
            "Whether all segments were proven complete",
            Arc::new(rows.iter().map(|row| row.stream.map(|stream| stream.complete)).collect::<BooleanArray>()),
        ),
        ("rejected", "Records that did not decode and were kept out", count(|stream| stream.rejected)),
        (
            "holes",
            "What is not proven, as intervals of updated_at; none when complete",
            Arc::new(rows.iter().map(|row| row.stream.and_then(holes)).collect::<StringArray>()),
        ),
        ("swept", "Ids that a reconciliation compared", found(|found| found.swept)),
        ("gone", "Records that a reconciliation found gone", found(|found| found.gone)),
        ("missing", "Records that a reconciliation found missing, and fetched", found(|found| found.missing)),
        ("moved", "Tickets that followed a merged customer", count(|stream| stream.moved)),
        (
            "requests_total",
            "Requests of the run, all streams",
            numbers(rows.iter().map(|row| Some(row.run.requests.values().sum()))),
        ),
        (
            "waited_ms",
            "Time the run waited for the budget, milliseconds",
            numbers(rows.iter().map(|row| Some(row.run.waited_ms))),
        ),
        ("expected", "Records in the range when the stream began", count(|stream| stream.expected)),
        ("quarantined", "Fields seen and not stored as declared", count(|stream| stream.quarantined)),
        ("requests", "Requests of the run by endpoint", counts(rows.iter().map(|row| &row.run.requests))?),
        (
            "requests_planned",
            "Requests by endpoint that the run expected to need",
            counts(rows.iter().map(|row| &row.run.planned))?,
        ),
        ("waits_ms", "Time the run waited by reason, milliseconds", counts(rows.iter().map(|row| &row.run.waits_ms))?),
        (
            "requests_failed",
            "Requests of the run that gave nothing, by cause",
            counts(rows.iter().map(|row| &row.run.failed))?,
        ),
        (
            "received_bytes",
            "Bytes of bodies that the run received, by endpoint",
            counts(rows.iter().map(|row| &row.run.received_bytes))?,
        ),
    ];
    table(columns)
}

/// Makes the table of fields that were seen and not stored: one row per stream, path, type and reason.
pub(super) fn quarantine(manifest: &Manifest) -> Result<Arc<dyn TableProvider>> {
    let kept = || {
        let streams = manifest.quarantine.iter();
        streams.flat_map(|(stream, kept)| kept.fields.iter().map(move |(key, count)| (stream, key, count)))
    };
    table([
        ("stream", "Table of the stream", texts(kept().map(|(stream, ..)| Some(stream.table())))),
        (
            "path",
            "Where the field stands in a record; * for what may not be named",
            texts(kept().map(|(_, key, _)| Some(key.path.as_str()))),
        ),
        (
            "json_type",
            "JSON type of its values: text, number, bool, array, object",
            texts(kept().map(|(_, key, _)| Some(key.json_type.as_str()))),
        ),
        (
            "reason",
            "Why nothing was stored: undeclared, mismatch (another type than declared), sensitive (marked by the source)",
            texts(kept().map(|(_, key, _)| Some(key.reason.as_str()))),
        ),
        ("count", "How often it was seen", numbers(kept().map(|(.., count)| Some(count.count)))),
        ("first_seen", "First run that saw it", times(kept().map(|(.., count)| Some(count.first_ms)))),
        ("last_seen", "Last run that saw it", times(kept().map(|(.., count)| Some(count.last_ms)))),
        ("run_id", "Id of the last run that saw it", texts(kept().map(|(.., count)| Some(count.run.as_str())))),
    ])
}

/// Makes a table of columns, each with its name and description.
fn table<const N: usize>(columns: [(&str, &str, ArrayRef); N]) -> Result<Arc<dyn TableProvider>> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, description, values)| {
            let metadata = [("description".to_owned(), (*description).to_owned())].into();
            Field::new(*name, values.data_type().clone(), true).with_metadata(metadata)
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let values = columns.into_iter().map(|(_, _, values)| values).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), values).map_err(|error| failed(error.into()))?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).map_err(|error| failed(error.into()))?))
}

struct Row<'a> {
    run: &'a RunRecord,
    stream: Option<&'a StreamRun>,
}

/// Writes a stream's holes as ISO 8601 intervals `from/to`, from including, to excluding, with `; ` between them.
fn holes(stream: &StreamRun) -> Option<String> {
    let time = |ms: i64| Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"));
    let holes = stream.holes_ms.iter().map(|(from, to)| format!("{}/{}", time(*from), time(*to)));
    (!stream.holes_ms.is_empty()).then(|| holes.collect::<Vec<_>>().join("; "))
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn numbers(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.map(|value| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))).collect::<Int64Array>())
}

/// Makes a column of maps: names to counts.
fn counts<'a>(values: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> Result<ArrayRef> {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for counts in values {
        for (name, count) in counts {
            maps.keys().append_value(name);
            maps.values().append_value(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        maps.append(true).map_err(|error| failed(error.into()))?;
    }
    Ok(Arc::new(maps.finish()))
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::internal("failed to make a table of the manifest").with_source(error)
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
}
