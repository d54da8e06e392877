//! Stand-in until the real one lands: what must happen to stored columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMillisecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMillisecondType};

use crate::error::Result;
use crate::model::Stream;
use crate::policy::Policy;
use crate::policy::definitions::Definitions;
use crate::policy::method::{Grain, Mask, Method, TextStep};
use crate::policy::scalar;

/// What becomes of one stored column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stays.
    Same,
    /// Goes.
    Remove,
    /// The new method is applied.
    Apply,
    /// Values become null.
    Empty,
    /// Shows less than allowed.
    Widened,
}

/// What must happen to the columns of a file.
pub struct Restatement {
    schema: SchemaRef,
    columns: Vec<(String, Step, Option<Method>, String)>,
    missing: Vec<String>,
}

/// How a method compares with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    Same,
    Less,
    More,
    Other,
}

fn rank(method: &str) -> (u8, u8) {
    match method {
        "keep" => (0, 0),
        "truncate(to=hour)" => (1, 1),
        "truncate(to=day)" => (1, 2),
        "truncate(to=month)" => (1, 3),
        "mask" => (9, 0),
        "mask(as=email)" => (3, 0),
        _ => (4, 0),
    }
}

pub(super) fn compare_methods(from: &str, to: &str) -> Shows {
    if from == to {
        return Shows::Same;
    }
    let (from, to) = (rank(from), rank(to));
    if from.0 == to.0 || from.0 == 0 || to.0 == 9 {
        return if from < to { Shows::Less } else { Shows::More };
    }
    if to.0 == 0 || from.0 == 9 { Shows::More } else { Shows::Other }
}

impl Policy {
    /// Tells what must happen.
    ///
    /// # Errors
    ///
    /// As of a decoder.
    pub fn restate(&self, stream: Stream, definitions: &Definitions, stored: &Schema) -> Result<Restatement> {
        let columns = self.rules_of(stream)?.columns_with(definitions)?;
        let mut fields: Vec<Arc<Field>> = Vec::new();
        let mut steps = Vec::new();
        for field in stored.fields() {
            let rule = columns.iter().find(|column| column.name == *field.name() && column.method != Method::Drop);
            let stored = field.metadata().get("method").cloned().unwrap_or_default();
            let Some(rule) = rule else {
                steps.push((field.name().clone(), Step::Remove, None, "drop".to_owned()));
                continue;
            };
            let method = rule.method.canonical();
            let step = match compare_methods(&stored, &method) {
                Shows::Same => Step::Same,
                Shows::Less if matches!(rule.method, Method::TruncateTime(_) | Method::Mask(Mask::All)) => Step::Apply,
                Shows::Less | Shows::Other => Step::Empty,
                Shows::More => Step::Widened,
            };
            let mut metadata = field.metadata().clone();
            if step != Step::Widened {
                metadata.insert("method".to_owned(), method.clone());
            }
            fields.push(Arc::new(field.as_ref().clone().with_metadata(metadata)));
            steps.push((field.name().clone(), step, Some(rule.method.clone()), method));
        }
        let missing = columns.iter().filter(|column| column.method != Method::Drop);
        let missing =
            missing.filter(|column| stored.field_with_name(&column.name).is_err()).map(|column| column.name.clone());
        Ok(Restatement { schema: Arc::new(Schema::new(fields)), missing: missing.collect(), columns: steps })
    }
}

impl Restatement {
    /// The columns afterwards.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What becomes of each stored column: name, step, method.
    pub fn steps(&self) -> impl Iterator<Item = (&str, &Step, &str)> {
        self.columns.iter().map(|(name, step, _, method)| (name.as_str(), step, method.as_str()))
    }

    /// Declared columns that the file lacks.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Whether something stored must go.
    pub fn is_narrowing(&self) -> bool {
        self.columns.iter().any(|(_, step, ..)| matches!(step, Step::Remove | Step::Apply | Step::Empty))
    }

    /// Restates values.
    ///
    /// # Errors
    ///
    /// None.
    pub fn column(&self, index: usize, values: ArrayRef) -> Result<ArrayRef> {
        let (_, step, method, _) = &self.columns[index];
        Ok(match (step, method) {
            (Step::Empty | Step::Remove, _) => new_null_array(values.data_type(), values.len()),
            (Step::Apply, Some(Method::TruncateTime(grain))) => {
                let grain: Grain = *grain;
                let old = values.as_primitive::<TimestampMillisecondType>();
                let new: TimestampMillisecondArray =
                    old.iter().map(|value| value.map(|value| scalar::truncate(value, grain))).collect();
                Arc::new(new.with_timezone("UTC"))
            }
            (Step::Apply, Some(Method::Mask(mask))) if *values.data_type() == DataType::Utf8 => {
                let step = TextStep::Mask(*mask);
                let mut out = String::new();
                let new: StringArray = values
                    .as_string::<i32>()
                    .iter()
                    .map(|value| value.map(|value| step.apply(value, &mut out).to_owned()))
                    .collect();
                Arc::new(new)
            }
            _ => values,
        })
    }
}
