//! `business_seconds(from, to, schedule)`: how long a wait was in business hours.
//!
//! The schedule is named by its id or its name in the table `schedules`; `default` is the source's default schedule, unless one
//! bears that name. Of schedules with one name the one that is not deleted counts, then the default, then the smallest id.
//! The answer is in whole seconds, cut towards zero, negative where `to` is before `from`, and NULL where an argument is NULL.
//!
//! A schedule that is written into the query and is not there is an error, for a misspelled name would be NULL in every row; in
//! a column of schedules an unknown one is NULL in its row, as with the names of what was deleted. One that is there but
//! cannot be read (see [`calendar`] for the forms) is an error in both.

pub mod calendar;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMillisecondType};
use datafusion::common::{DataFusionError, ScalarValue, exec_err, plan_err};
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, nearest};
use crate::query::functions::business::calendar::Calendar;
use crate::query::functions::sample::is_text;

/// The function's name in SQL.
pub(super) const NAME: &str = "business_seconds";

/// The columns of `schedules` that it reads, the id first.
pub(super) const COLUMNS: [&str; 7] = ["schedule_id", "name", "timezone", "hours", "holidays", "is_default", "deleted"];

/// What means the source's default schedule.
const DEFAULT: &str = "default";

/// The schedules of one session, unset until they are read.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    pub(super) read: OnceCell<Known>,
}

/// Schedules by id and by name.
#[derive(Debug, Default)]
pub(super) struct Known {
    calendars: HashMap<String, Result<Arc<Calendar>, String>>,
}

/// A row of `schedules`.
#[derive(Debug)]
struct Schedule {
    id: String,
    name: Option<String>,
    is_default: bool,
    is_deleted: bool,
    calendar: Result<Arc<Calendar>, String>,
}

impl Known {
    /// Reads the schedules of batches with [`COLUMNS`], or those of them that there are.
    pub(super) fn of(batches: &[RecordBatch]) -> EngineResult<Self> {
        let mut schedules = Vec::new();
        for batch in batches {
            rows(batch, &mut schedules)?;
        }
        schedules.sort_by_key(|schedule| (schedule.is_deleted, Reverse(schedule.is_default), schedule.id.clone()));
        let mut calendars = HashMap::new();
        for schedule in &schedules {
            calendars.insert(schedule.id.clone(), schedule.calendar.clone());
        }
        for schedule in &schedules {
            if let Some(name) = &schedule.name {
                calendars.entry(name.clone()).or_insert_with(|| schedule.calendar.clone());
            }
        }
        if let Some(schedule) = schedules.iter().find(|schedule| schedule.is_default && !schedule.is_deleted) {
            calendars.entry(DEFAULT.to_owned()).or_insert_with(|| schedule.calendar.clone());
        }
        Ok(Self { calendars })
    }

    /// Finds a schedule; nothing when there is none.
    fn find(&self, wanted: &str) -> EngineResult<Option<&Calendar>> {
        match self.calendars.get(wanted) {
            None => Ok(None),
            Some(Ok(calendar)) => Ok(Some(calendar)),
            Some(Err(wrong)) => Err(external(
                Error::new(ErrorKind::Query, format!("business schedule `{wanted}` {wrong}"))
                    .with_hint("SELECT * FROM schedules shows what the source gave"),
            )),
        }
    }

    fn unknown(&self, wanted: &str) -> DataFusionError {
        let error = Error::new(ErrorKind::Query, format!("no business schedule has the id or the name `{wanted}`"));
        let error = match nearest(wanted, self.calendars.keys().map(String::as_str)) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None if self.calendars.is_empty() => error
                .with_hint("the lake holds no schedules: `counterfoil extract` reads them where the credential may"),
            None => error.with_hint("SELECT schedule_id, name FROM schedules lists them"),
        };
        external(error)
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn rows(batch: &RecordBatch, schedules: &mut Vec<Schedule>) -> EngineResult<()> {
    let column = |name: &str, kind: &DataType| -> EngineResult<ArrayRef> {
        Ok(match batch.column_by_name(name) {
            Some(column) => cast(column, kind)?,
            None => new_null_array(kind, batch.num_rows()),
        })
    };
    let [ids, names, zones] = ["schedule_id", "name", "timezone"].map(|name| column(name, &DataType::Utf8));
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let [hours, holidays] = ["hours", "holidays"].map(|name| column(name, &list));
    let [defaults, deleted] = ["is_default", "deleted"].map(|name| column(name, &DataType::Boolean));
    let (ids, names, zones, hours, holidays, defaults, deleted) =
        (ids?, names?, zones?, hours?, holidays?, defaults?, deleted?);
    let text = |column: &ArrayRef, row: usize| {
        let column = column.as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let texts = |column: &ArrayRef, row: usize| {
        let column = column.as_list::<i32>();
        let values = column.is_valid(row).then(|| column.value(row))?;
        Some(values.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>())
    };
    let flag = |column: &ArrayRef, row: usize| column.as_boolean().is_valid(row) && column.as_boolean().value(row);
    for row in 0..batch.num_rows() {
        let Some(id) = text(&ids, row) else { continue };
        let calendar = match (text(&zones, row), texts(&hours, row)) {
            (None, _) => Err("has no time zone".to_owned()),
            (_, None) => Err("has no hours that are understood".to_owned()),
            (Some(zone), Some(hours)) => {
                let holidays = texts(&holidays, row).unwrap_or_default();
                Calendar::try_new(&zone, hours.iter().map(String::as_str), holidays.iter().map(String::as_str))
                    .map(Arc::new)
            }
        };
        let (is_default, is_deleted) = (flag(&defaults, row), flag(&deleted, row));
        schedules.push(Schedule { id, name: text(&names, row), is_default, is_deleted, calendar });
    }
    Ok(())
}

/// The SQL function.
pub(super) struct BusinessSeconds {
    signature: Signature,
    schedules: Arc<Schedules>,
}

impl BusinessSeconds {
    pub(super) fn new(schedules: Arc<Schedules>) -> Self {
        Self { signature: Signature::user_defined(Volatility::Stable), schedules }
    }
}

impl PartialEq for BusinessSeconds {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.schedules, &other.schedules)
    }
}

impl Eq for BusinessSeconds {}

impl Hash for BusinessSeconds {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl fmt::Debug for BusinessSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusinessSeconds")
    }
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

impl ScalarUDFImpl for BusinessSeconds {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> EngineResult<DataType> {
        Ok(DataType::Int64)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> EngineResult<Vec<DataType>> {
        let [from, to, schedule] = arg_types else {
            return plan_err!("{NAME} takes two instants and a schedule, not {} arguments", arg_types.len());
        };
        for kind in [from, to] {
            let fits = matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) || is_text(kind);
            if !fits {
                return plan_err!("{NAME} takes a timestamp, not {kind}");
            }
        }
        if !is_text(schedule) {
            return plan_err!("{NAME} takes the id or the name of a schedule as a text, not {schedule}");
        }
        Ok(vec![instant(), instant(), DataType::Utf8])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let [from, to, schedule] = args.args.as_slice() else {
            return plan_err!("{NAME} takes two instants and a schedule");
        };
        let Some(known) = self.schedules.read.get() else {
            return exec_err!("{NAME} cannot be used in a default: schedules are read with the query");
        };
        let is_scalar = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let (from, to) = (from.to_array(rows)?, to.to_array(rows)?);
        let instants = |array: &ArrayRef| cast(array, &instant());
        let (from, to) = (instants(&from)?, instants(&to)?);
        let stretches = from
            .as_primitive::<TimestampMillisecondType>()
            .iter()
            .zip(to.as_primitive::<TimestampMillisecondType>().iter())
            .map(|(from, to)| Some((from?, to?)));
        let seconds: Int64Array = match schedule {
            ColumnarValue::Scalar(wanted) => match wanted.try_as_str().flatten() {
                None => Int64Array::new_null(rows),
                Some(wanted) => {
                    let calendar = known.find(wanted)?.ok_or_else(|| known.unknown(wanted))?;
                    stretches.map(|stretch| stretch.map(|(from, to)| calendar.between_ms(from, to) / 1_000)).collect()
                }
            },
            ColumnarValue::Array(wanted) => {
                let wanted = cast(wanted, &DataType::Utf8)?;
                // Neighbours mostly have the same schedule.
                let mut last: Option<(&str, Option<&Calendar>)> = None;
                let wanted = wanted.as_string::<i32>();
                let mut seconds = Int64Array::builder(rows);
                for (stretch, wanted) in stretches.zip(wanted.iter()) {
                    let (Some((from, to)), Some(wanted)) = (stretch, wanted) else {
                        seconds.append_null();
                        continue;
                    };
                    let calendar = match last {
                        Some((name, calendar)) if name == wanted => calendar,
                        _ => known.find(wanted)?,
                    };
                    last = Some((wanted, calendar));
                    seconds.append_option(calendar.map(|calendar| calendar.between_ms(from, to) / 1_000));
                }
                seconds.finish()
            }
        };
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&seconds, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(seconds)))
    }
}
