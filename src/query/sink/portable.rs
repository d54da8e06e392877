//! The types in which binary formats are written: those that other engines have too.
//!
//! How the engine keeps a column (dictionaries, views, runs) may change between versions and plans, and is no business of
//! who reads the result: values are written as themselves. Parquet besides has no seconds and no intervals of its own, and
//! few engines read its nanoseconds: instants become milliseconds and microseconds, intervals text.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use super::{Format, cells};
use crate::error::{Error, Result};

/// Turns batches of a result into portable ones.
#[derive(Debug)]
pub(in crate::query) struct Portable {
    schema: SchemaRef,
}

impl Portable {
    pub(in crate::query) fn new(schema: &SchemaRef, format: Format) -> Self {
        let fields = schema.fields().iter().map(|field| portable_field(field, format)).collect::<Fields>();
        // Units, classes and descriptions are the lake's: a file says no more than it must.
        Self { schema: Arc::new(Schema::new(fields)) }
    }

    pub(in crate::query) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(in crate::query) fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.schema.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, column)| portable(column, field)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|cause| Error::internal("failed to put the result into portable types").with_source(cause))
    }
}

fn portable(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    if matches!(column.data_type(), DataType::Interval(_)) {
        return Ok(Arc::new(cells::text(column)?));
    }
    cast(column, field.data_type()).map_err(|cause| {
        Error::internal("failed to put a column into a portable type")
            .with_context("column", field.name())
            .with_context("type", column.data_type())
            .with_source(cause)
    })
}

fn portable_field(field: &FieldRef, format: Format) -> FieldRef {
    // Always nullable, so that the types of a result do not depend on how it was planned.
    Arc::new(Field::new(field.name(), portable_type(field.data_type(), format), true))
}

fn portable_type(data_type: &DataType, format: Format) -> DataType {
    let inner = |field: &FieldRef| portable_field(field, format);
    match data_type {
        DataType::Dictionary(_, value) => portable_type(value, format),
        DataType::RunEndEncoded(_, value) => portable_type(value.data_type(), format),
        DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(inner(item))
        }
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(inner(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(unit, zone) if format == Format::Parquet => {
            let unit = match unit {
                TimeUnit::Second | TimeUnit::Millisecond => TimeUnit::Millisecond,
                TimeUnit::Microsecond | TimeUnit::Nanosecond => TimeUnit::Microsecond,
            };
            DataType::Timestamp(unit, zone.clone())
        }
        DataType::Interval(_) if format == Format::Parquet => DataType::Utf8,
        other => other.clone(),
    }
}
