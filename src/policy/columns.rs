//! Column builders of one page: values in, through their method, aligned by row.
//!
//! A column is not told that a record lacks it. It appends the nulls that it owes when its next value comes, and at the end of
//! the page, so that absent fields cost nothing and duplicate keys cannot shift rows: the first value of a row stays.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMillisecondBuilder,
};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::ObjectId;
use crate::policy::batch::RecordKey;
use crate::policy::method::TextStep;
use crate::policy::plan::{ColumnPlan, Kind, Role};
use crate::policy::quarantine::JsonType;
use crate::policy::scalar;

/// A column of the page at work.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    values: Values,
    rows: usize,
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

/// Buffers that texts are unescaped and written into.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    read: String,
    written: String,
}

impl ColumnBuilder {
    pub(super) fn new(kind: &Kind) -> Self {
        let values = match kind {
            Kind::Text(_) => Values::Text(StringBuilder::new()),
            Kind::TextList(_) => Values::TextList(ListBuilder::new(StringBuilder::new())),
            Kind::Int => Values::Int(Int64Builder::new()),
            Kind::Float => Values::Float(Float64Builder::new()),
            Kind::Bool => Values::Bool(BooleanBuilder::new()),
            Kind::Timestamp(_) => Values::Timestamp(TimestampMillisecondBuilder::new().with_timezone("UTC")),
        };
        Self { values, rows: 0 }
    }

    /// Stores the value of a row, or returns the JSON type of a value that the column cannot hold.
    pub(super) fn push(
        &mut self,
        row: usize,
        plan: &ColumnPlan,
        raw: &str,
        key: &mut PartialKey,
        scratch: &mut Scratch,
    ) -> Result<(), JsonType> {
        if self.rows > row {
            return Ok(());
        }
        self.pad(row);
        self.rows = row + 1;
        let Some(json_type) = JsonType::of(raw) else {
            self.append_nulls(1);
            return Ok(());
        };
        if self.try_push(plan, raw, json_type, key, scratch) {
            return Ok(());
        }
        self.append_nulls(1);
        if is_empty_container(raw) { Ok(()) } else { Err(json_type) }
    }

    fn try_push(
        &mut self,
        plan: &ColumnPlan,
        raw: &str,
        json_type: JsonType,
        key: &mut PartialKey,
        scratch: &mut Scratch,
    ) -> bool {
        match (&mut self.values, &plan.kind, json_type) {
            (Values::Text(builder), Kind::Text(step), JsonType::Text) => {
                let Some(text) = scalar::text(raw, &mut scratch.read) else { return false };
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
            (Values::Int(builder), Kind::Int, JsonType::Number) => {
                let Some(int) = scalar::int(raw) else { return false };
                if plan.role == Role::Rev {
                    key.rev = Some(int);
                }
                builder.append_value(int);
            }
            (Values::Float(builder), Kind::Float, JsonType::Number) => {
                let Some(float) = scalar::float(raw) else { return false };
                builder.append_value(float);
            }
            (Values::Bool(builder), Kind::Bool, JsonType::Bool) => {
                let is_true = raw.starts_with('t');
                if plan.role == Role::Deleted {
                    key.deleted = is_true;
                }
                builder.append_value(is_true);
            }
            (Values::Timestamp(builder), Kind::Timestamp(grain), JsonType::Text) => {
                let text = scalar::text(raw, &mut scratch.read);
                let Some(instant) = text.and_then(scalar::timestamp) else { return false };
                if plan.role == Role::UpdatedAt {
                    key.updated_at_ms = Some(instant);
                }
                builder.append_value(grain.map_or(instant, |grain| scalar::truncate(instant, grain)));
            }
            (Values::TextList(builder), Kind::TextList(step), JsonType::Array) => {
                return push_list(builder, step, raw, scratch);
            }
            _ => return false,
        }
        true
    }

    /// Appends the nulls that are owed up to a row.
    pub(super) fn pad(&mut self, rows: usize) {
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

    /// Takes the page's values and leaves the builder empty.
    pub(super) fn finish(&mut self) -> ArrayRef {
        self.rows = 0;
        match &mut self.values {
            Values::Text(builder) => Arc::new(builder.finish()),
            Values::TextList(builder) => Arc::new(builder.finish()),
            Values::Int(builder) => Arc::new(builder.finish()),
            Values::Float(builder) => Arc::new(builder.finish()),
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}

/// `{}` and `[]` stand for "no value" wherever the source has none.
fn is_empty_container(raw: &str) -> bool {
    let inner = raw
        .strip_prefix('{')
        .and_then(|inner| inner.strip_suffix('}'))
        .or_else(|| raw.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')));
    inner.is_some_and(|inner| inner.trim_ascii().is_empty())
}

/// Appends one list, or nothing when an element is neither text nor null: half a list would read as a whole one.
fn push_list(builder: &mut ListBuilder<StringBuilder>, step: &TextStep, raw: &str, scratch: &mut Scratch) -> bool {
    let mut is_texts = true;
    let mut read = serde_json::Deserializer::from_str(raw);
    let each = Elements(|element: &str| is_texts &= matches!(JsonType::of(element), None | Some(JsonType::Text)));
    if read.deserialize_seq(each).is_err() || !is_texts {
        return false;
    }
    let values = builder.values();
    let mut read = serde_json::Deserializer::from_str(raw);
    let each = Elements(|element: &str| match scalar::text(element, &mut scratch.read) {
        Some(text) => values.append_value(step.apply(text, &mut scratch.written)),
        None => values.append_null(),
    });
    let is_read = read.deserialize_seq(each).is_ok();
    builder.append(is_read);
    true
}

/// Visits the raw texts of an array's elements.
struct Elements<F>(F);

impl<'de, F: FnMut(&str)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            (self.0)(element.get());
        }
        Ok(())
    }
}
