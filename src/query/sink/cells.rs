//! Columns as text: what `table`, `csv` and `ids` write in a cell, and instants for JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::json::EncoderOptions;
use arrow::json::writer::make_encoder;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use jiff::Timestamp;

use crate::error::{Error, Result};

/// Turns an array into text, one value per row; NULL stays NULL, nested values become JSON.
pub(super) fn text(array: &ArrayRef) -> Result<StringArray> {
    try_text(array).map_err(failed)
}

/// Replaces instants by text wherever they stand, lists and structures included.
pub(super) fn instants_as_text(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    let mut fields = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let column = replace_instants(column).map_err(failed)?;
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(failed)
}

pub(super) fn failed(cause: ArrowError) -> Error {
    Error::internal("failed to write a value as text").with_source(cause)
}

fn try_text(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
        }
        DataType::Dictionary(_, value) => try_text(&cast(array, value)?),
        DataType::Null => Ok(StringArray::new_null(array.len())),
        DataType::Timestamp(_, _) => Ok(instants(array)),
        kind if kind.is_nested() => json_text(&replace_instants(array)?),
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
            (0..array.len())
                .map(|row| if array.is_null(row) { Ok(None) } else { formatter.value(row).try_to_string().map(Some) })
                .collect()
        }
    }
}

fn json_text(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    let field: FieldRef = Arc::new(Field::new("value", array.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, array.as_ref(), &options)?;
    let mut bytes = Vec::new();
    (0..array.len())
        .map(|row| {
            if array.is_null(row) {
                return Ok(None);
            }
            bytes.clear();
            encoder.encode(row, &mut bytes);
            String::from_utf8(bytes.clone())
                .map(Some)
                .map_err(|cause| ArrowError::JsonError(format!("not UTF-8: {cause}")))
        })
        .collect()
}

fn replace_instants(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Timestamp(_, _) => Arc::new(instants(array)),
        DataType::Dictionary(_, value) => replace_instants(&cast(array, value)?)?,
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let values = replace_instants(lists.values())?;
            let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            Arc::new(ListArray::try_new(item, lists.offsets().clone(), values, lists.nulls().cloned())?)
        }
        DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => replace_instants(&cast(array, &DataType::List(Arc::clone(item)))?)?,
        DataType::Struct(fields) => {
            let structure = array.as_struct();
            let columns = structure.columns().iter().map(replace_instants).collect::<Result<Vec<_>, _>>()?;
            let fields: Fields = fields
                .iter()
                .zip(&columns)
                .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
                .collect();
            Arc::new(StructArray::try_new_with_length(fields, columns, structure.nulls().cloned(), structure.len())?)
        }
        _ => Arc::clone(array),
    })
}

/// Writes instants as `2026-01-31T09:00:00.000Z`; a time without a zone is UTC, as everywhere in the lake.
fn instants(array: &ArrayRef) -> StringArray {
    let at = |row: usize| -> Option<Timestamp> {
        if array.is_null(row) {
            return None;
        }
        match array.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => {
                Timestamp::from_second(array.as_primitive::<TimestampSecondType>().value(row)).ok()
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Timestamp::from_millisecond(array.as_primitive::<TimestampMillisecondType>().value(row)).ok()
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Timestamp::from_microsecond(array.as_primitive::<TimestampMicrosecondType>().value(row)).ok()
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Timestamp::from_nanosecond(i128::from(array.as_primitive::<TimestampNanosecondType>().value(row))).ok()
            }
            _ => None,
        }
    };
    (0..array.len()).map(|row| at(row).map(|time| format!("{time:.3}"))).collect()
}
