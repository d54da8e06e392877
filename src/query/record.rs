//! Recording a run: its ids are taken from the rows on their way to the sink, and what was bound is written down.
//!
//! ```text
//! Session ─▶ Rows ─▶ Recorder ─▶ Rows ─▶ sink
//!                       └─ ids, in memory ─▶ Lake::record, when the sink has written everything
//! ```
//!
//! The first column is `ticket_id` and each value is a record id: whatever else a column of that name may hold never gets
//! into a list. A ticket that stands in several rows is recorded once, at its first place. Sixteen bytes a row are held until
//! the end.
//!
//! A sink that shows only the first rows stops reading; the rest is then read for the recording alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};

use crate::error::{Error, Result};
use crate::lake::lists::{RecordedParameter, RecordedValue, Recording};
use crate::model::{ObjectId, Stream};
use crate::query::header::{Parameter, ParameterType};
use crate::query::library::QueryFile;
use crate::query::parameters::Arguments;
use crate::query::session::{Plan, Rows};

/// Takes the ids out of rows that pass.
pub struct Recorder {
    path: String,
    shared: Arc<Mutex<Passing>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The rows, which the sink and the recorder read, and what was taken of them.
struct Passing {
    rows: SendableRecordBatchStream,
    ids: Vec<(ObjectId, u32)>,
    has_ended: bool,
}

/// The ids of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Each ticket once, in the order of the result.
    pub ids: Vec<ObjectId>,
    /// Rows of tickets that stood in an earlier row.
    pub repeated: u64,
}

impl Recorder {
    /// Refuses a result that is no ticket list.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Query`](crate::error::ErrorKind::Query) naming the columns.
    pub fn check(plan: &Plan, path: &str) -> Result<()> {
        let key = Stream::Tickets.key_column();
        if plan.is_ticket_list() {
            return Ok(());
        }
        let names: Vec<&str> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
        Err(Error::query(format!(
            "{path}: a result is recorded by `{key}` as its first column; the columns are {}",
            names.join(", ")
        ))
        .with_hint(format!("SELECT `{key}` first, or run it without --record")))
    }

    /// Wraps rows; the rows that are returned are the same.
    #[must_use]
    pub fn new(rows: Rows) -> (Self, Rows) {
        let path = rows.path().to_owned();
        let passing = Passing { rows: rows.into_inner(), ids: Vec::new(), has_ended: false };
        let shared = Arc::new(Mutex::new(passing));
        let rows = reading(&shared, &path);
        (Self { path, shared }, rows)
    }

    /// Reads what the sink left, and returns the ids of the whole result.
    ///
    /// # Errors
    ///
    /// Those of [`Rows::next`].
    pub async fn finish(self) -> Result<Taken> {
        let Self { path, shared } = self;
        let mut left = reading(&shared, &path);
        while left.next().await?.is_some() {}
        let mut ids = std::mem::take(&mut lock(&shared).ids);
        let rows = ids.len();
        ids.sort_unstable();
        ids.dedup_by_key(|(id, _)| *id);
        ids.sort_unstable_by_key(|(_, place)| *place);
        let repeated = (rows - ids.len()) as u64;
        Ok(Taken { ids: ids.into_iter().map(|(id, _)| id).collect(), repeated })
    }
}

/// Makes rows that are taken down as they are read.
fn reading(shared: &Arc<Mutex<Passing>>, path: &str) -> Rows {
    let schema = lock(shared).rows.schema();
    let shared = Arc::clone(shared);
    let passed = stream::poll_fn(move |context| {
        let mut passing = lock(&shared);
        if passing.has_ended {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(passing.rows.poll_next_unpin(context));
        Poll::Ready(passing.take(next))
    });
    Rows::new(Box::pin(RecordBatchStreamAdapter::new(schema, passed)), path)
}

/// A panic of a reader has ended the query already.
fn lock(shared: &Mutex<Passing>) -> MutexGuard<'_, Passing> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

type Next = Option<Result<RecordBatch, DataFusionError>>;

impl Passing {
    /// Takes the ids of the next batch.
    fn take(&mut self, next: Next) -> Next {
        let Some(Ok(batch)) = next else {
            self.has_ended = true;
            return next;
        };
        match self.take_ids(&batch) {
            Ok(()) => Some(Ok(batch)),
            Err(error) => {
                self.has_ended = true;
                Some(Err(DataFusionError::External(Box::new(error))))
            }
        }
    }

    fn take_ids(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(column) = batch.columns().first() else { return Ok(()) };
        let wrong = |what: &str, row: usize| {
            // The value itself may be anything: it is not told.
            Error::query(format!("{what} in row {} of the result, so it is not recorded", row + 1))
                .with_hint("select `ticket_id` as it stands in the table `tickets`, or run it without --record")
        };
        let texts = texts(column).ok_or_else(|| wrong("`ticket_id` is not a text", self.ids.len()))?;
        for text in texts.as_string::<i32>() {
            let row = self.ids.len();
            let text = text.ok_or_else(|| wrong("`ticket_id` is NULL", row))?;
            let id =
                ObjectId::from_hex(text.as_bytes()).ok_or_else(|| wrong("`ticket_id` is not a ticket's id", row))?;
            let place = u32::try_from(row).map_err(|_| wrong("there are more rows than a list can have", row))?;
            self.ids.push((id, place));
        }
        Ok(())
    }
}

/// Returns a column of texts of any form as plain texts.
fn texts(column: &ArrayRef) -> Option<ArrayRef> {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match column.data_type() {
        DataType::Null => {}
        DataType::Dictionary(_, value) if is_text(value) => {}
        kind if is_text(kind) => {}
        _ => return None,
    }
    cast(column, &DataType::Utf8).ok()
}

/// Writes down what was bound.
///
/// # Errors
///
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a value that has no text.
pub fn recorded(bound: &[(&Parameter, ScalarValue)]) -> Result<Vec<RecordedParameter>> {
    let written = |(parameter, value): &(&Parameter, ScalarValue)| {
        let failed = |cause| {
            Error::internal("failed to write a parameter down").with_context("name", &parameter.name).with_source(cause)
        };
        let text = |value: &ScalarValue| -> Result<Option<String>> {
            match value.cast_to(&DataType::Utf8).map_err(failed)? {
                ScalarValue::Utf8(text) => Ok(text),
                _ => Ok(None),
            }
        };
        let value = match value {
            value if value.is_null() => RecordedValue::Null,
            ScalarValue::List(list) => {
                let items = list.value(0);
                let item = |row| ScalarValue::try_from_array(&items, row).map_err(failed).and_then(|item| text(&item));
                RecordedValue::List((0..items.len()).map(item).collect::<Result<_>>()?)
            }
            value => text(value)?.map_or(RecordedValue::Null, RecordedValue::Text),
        };
        Ok(RecordedParameter { name: parameter.name.clone(), kind: parameter.kind.name().to_owned(), value })
    };
    bound.iter().map(written).collect()
}

/// Reads the query of a recording back, with the values that were bound.
///
/// # Errors
///
/// [`ErrorKind::Query`](crate::error::ErrorKind::Query) when this program does not understand it any more.
pub fn replay(recording: &Recording) -> Result<(QueryFile, Arguments)> {
    let address = recording.address();
    let file = QueryFile::parse(&address, &recording.sql)?;
    let mut values = BTreeMap::new();
    for RecordedParameter { name, kind, value } in &recording.parameters {
        let wrong = || Error::query(format!("{address}: the parameter `{name}` cannot be read as {kind}"));
        let kind: ParameterType = kind.parse().map_err(|()| wrong())?;
        let kind = kind.arrow_type();
        let typed = match (value, &kind) {
            (RecordedValue::Null, kind) => ScalarValue::try_from(kind).map_err(|_| wrong())?,
            (RecordedValue::Text(text), kind) => {
                let typed = ScalarValue::from(text.as_str()).cast_to(kind).map_err(|_| wrong())?;
                if typed.is_null() {
                    return Err(wrong());
                }
                typed
            }
            (RecordedValue::List(items), DataType::List(item)) => {
                let texts: Vec<ScalarValue> = items.iter().map(|text| ScalarValue::Utf8(text.clone())).collect();
                let list = ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8));
                list.cast_to(&DataType::List(Arc::clone(item))).map_err(|_| wrong())?
            }
            (RecordedValue::List(_), _) => return Err(wrong()),
        };
        values.insert(name.clone(), typed);
    }
    Ok((file, Arguments::of_values(values)))
}

#[cfg(test)]
mod tests;
