//! Column builders of one page: values in, through their method, aligned by row.
//!
//! A column is not told that a record lacks it. It appends the nulls that it owes when its next value comes, and at the end of
//! the page, so that absent fields cost nothing and duplicate keys cannot shift rows: the first value of a row stays.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMillisecondBuilder,
};

use crate::model::ObjectId;
use crate::policy::batch::RecordKey;
use crate::policy::json::{Flaw, Reader, Value};
use crate::policy::plan::{ColumnPlan, Kind, Role};
use crate::policy::quarantine::JsonType;
use crate::policy::scalar;

/// A column of the page at work.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    values: Values,
    rows: usize,
    /// Rows and bytes of text of the page before: this one will need about as much.
    last: (usize, usize),
}

#[derive(Debug)]
enum Values {
    Text(StringBuilder),
    TextList(ListBuilder<StringBuilder>),
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Timestamp(TimestampMillisecondBuilder),
}

/// The key of the record at work, as far as it was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PartialKey {
    pub(super) id: Option<ObjectId>,
    pub(super) updated_at_ms: Option<i64>,
    pub(super) rev: Option<i64>,
    pub(super) deleted: bool,
    pub(super) organisation: Option<ObjectId>,
}

impl PartialKey {
    pub(super) fn complete(self) -> Option<RecordKey> {
        Some(RecordKey { id: self.id?, updated_at_ms: self.updated_at_ms, rev: self.rev, deleted: self.deleted })
    }
}

/// Buffers that texts are unescaped and written into, those of dropped values too: debug output does not show them.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) read: String,
    written: String,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl ColumnBuilder {
    pub(super) fn new(kind: &Kind) -> Self {
        let values = match kind {
            Kind::Text(_) => Values::Text(StringBuilder::new()),
            Kind::TextList(_) => Values::TextList(ListBuilder::new(StringBuilder::new())),
            Kind::Int(_) => Values::Int(Int64Builder::new()),
            Kind::Float(_) => Values::Float(Float64Builder::new()),
            Kind::Bool => Values::Bool(BooleanBuilder::new()),
            Kind::Timestamp(_) => Values::Timestamp(TimestampMillisecondBuilder::new().with_timezone("UTC")),
        };
        Self { values, rows: 0, last: (0, 0) }
    }

    /// Reads the value of a row and stores it; returns the JSON type of a value that the column cannot hold.
    pub(super) fn push(
        &mut self,
        row: usize,
        plan: &ColumnPlan,
        reader: &mut Reader<'_>,
        key: &mut PartialKey,
        scratch: &mut Scratch,
    ) -> Result<Option<JsonType>, Flaw> {
        let value = reader.value()?;
        // `{}` and `[]` stand for "no value" wherever the source has none.
        let is_empty = match value {
            Value::Null => true,
            Value::Object => reader.is_at_end()?,
            Value::Array => !matches!(self.values, Values::TextList(_)) && reader.is_at_end()?,
            _ => false,
        };
        if is_empty || self.rows > row {
            reader.skip_rest(value)?;
            return Ok(None);
        }
        if self.rows == 0 {
            self.reserve();
        }
        self.pad(row);
        self.rows = row + 1;
        let is_stored = match value {
            Value::Array => self.push_list(plan, reader, scratch)?,
            value => self.push_scalar(plan, value, key, scratch),
        };
        if is_stored {
            return Ok(None);
        }
        self.append_nulls(1);
        reader.skip_rest(value)?;
        Ok(JsonType::of(value))
    }

    /// Makes room at once, so that columns do not grow through sizes that are thrown away.
    fn reserve(&mut self) {
        let (rows, bytes) = self.last;
        match &mut self.values {
            Values::Text(builder) => *builder = StringBuilder::with_capacity(rows, bytes),
            Values::TextList(builder) => {
                *builder = ListBuilder::with_capacity(StringBuilder::with_capacity(rows, bytes), rows);
            }
            Values::Int(builder) => *builder = Int64Builder::with_capacity(rows),
            Values::Float(builder) => *builder = Float64Builder::with_capacity(rows),
            Values::Bool(builder) => *builder = BooleanBuilder::with_capacity(rows),
            Values::Timestamp(builder) => {
                *builder = TimestampMillisecondBuilder::with_capacity(rows).with_timezone("UTC");
            }
        }
    }

    fn push_scalar(
        &mut self,
        plan: &ColumnPlan,
        value: Value<'_>,
        key: &mut PartialKey,
        scratch: &mut Scratch,
    ) -> bool {
        match (&mut self.values, &plan.kind, value) {
            (Values::Text(builder), Kind::Text(step), Value::Text(text)) => {
                let text = scalar::text(text, &mut scratch.read);
                if plan.role == Role::Id {
                    let Some(id) = ObjectId::from_hex(text.as_bytes()) else { return false };
                    key.id = Some(id);
                    // Ids of either case are one id: the table holds one form.
                    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                        builder.append_value(text.to_ascii_lowercase());
                        return true;
                    }
                }
                builder.append_value(step.apply(text, &mut scratch.written));
            }
            (Values::Int(builder), Kind::Int(bucket), Value::Number(number)) => {
                let Some(int) = scalar::int(number) else { return false };
                if plan.role == Role::Rev {
                    key.rev = Some(int);
                }
                builder.append_option(bucket.as_ref().map_or(Some(int), |bucket| bucket.int(int)));
            }
            (Values::Float(builder), Kind::Float(bucket), Value::Number(number)) => {
                let Some(float) = scalar::float(number) else { return false };
                builder.append_option(bucket.as_ref().map_or(Some(float), |bucket| bucket.float(float)));
            }
            (Values::Bool(builder), Kind::Bool, Value::Bool(is_true)) => {
                if plan.role == Role::Deleted {
                    key.deleted = is_true;
                }
                builder.append_value(is_true);
            }
            (Values::Timestamp(builder), Kind::Timestamp(grain), Value::Text(text)) => {
                let Some(instant) = scalar::timestamp(scalar::text(text, &mut scratch.read)) else { return false };
                if plan.role == Role::UpdatedAt {
                    key.updated_at_ms = Some(instant);
                }
                builder.append_value(grain.map_or(instant, |grain| scalar::truncate(instant, grain)));
            }
            _ => return false,
        }
        true
    }

    /// Stores a list whole, or leaves the reader where it was when an element is neither text nor null: half a list would
    /// read as a whole one.
    fn push_list(&mut self, plan: &ColumnPlan, reader: &mut Reader<'_>, scratch: &mut Scratch) -> Result<bool, Flaw> {
        let (Values::TextList(builder), Kind::TextList(step)) = (&mut self.values, &plan.kind) else {
            return Ok(false);
        };
        let start = reader.mark();
        let mut is_first = true;
        while reader.element(&mut is_first)? {
            if !matches!(reader.value()?, Value::Text(_) | Value::Null) {
                reader.back(start);
                return Ok(false);
            }
        }
        reader.back(start);
        let values = builder.values();
        let mut is_first = true;
        while reader.element(&mut is_first)? {
            match reader.value()? {
                Value::Text(text) => {
                    let text = scalar::text(text, &mut scratch.read);
                    values.append_value(step.apply(text, &mut scratch.written));
                }
                _ => values.append_null(),
            }
        }
        builder.append(true);
        Ok(true)
    }

    /// Appends the nulls that are owed up to a row.
    fn pad(&mut self, rows: usize) {
        if self.rows < rows {
            self.append_nulls(rows - self.rows);
            self.rows = rows;
        }
    }

    fn append_nulls(&mut self, count: usize) {
        match &mut self.values {
            Values::Text(builder) => builder.append_nulls(count),
            Values::TextList(builder) => builder.append_nulls(count),
            Values::Int(builder) => builder.append_nulls(count),
            Values::Float(builder) => builder.append_nulls(count),
            Values::Bool(builder) => builder.append_nulls(count),
            Values::Timestamp(builder) => builder.append_nulls(count),
        }
    }

    /// Takes the values of a page of so many rows and leaves the builder empty; nothing when no row had a value.
    pub(super) fn finish(&mut self, rows: usize) -> Option<ArrayRef> {
        if self.rows == 0 {
            return None;
        }
        self.pad(rows);
        self.rows = 0;
        let bytes = match &mut self.values {
            Values::Text(builder) => builder.values_slice().len(),
            Values::TextList(builder) => builder.values().values_slice().len(),
            _ => 0,
        };
        self.last = (rows, bytes + bytes / 8);
        Some(match &mut self.values {
            Values::Text(builder) => Arc::new(builder.finish()),
            Values::TextList(builder) => Arc::new(builder.finish()),
            Values::Int(builder) => Arc::new(builder.finish()),
            Values::Float(builder) => Arc::new(builder.finish()),
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) => Arc::new(builder.finish()),
        })
    }
}
