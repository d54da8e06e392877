//! Restatement: what must happen to stored columns so that they hold only what the policy allows now.
//!
//! ```text
//! stored column (its metadata: path, method) ─┬─ the rule for its path, now ─▶ Step ─▶ values as the policy allows them
//!                                             └─ no rule ────────────────────▶ Remove
//! ```
//!
//! Two methods compare by what their values tell. One shows *less* than another when its value can be made of the other's,
//! whatever the original was: then stored values are restated ([`Step::Apply`]), and come out as the new method would have
//! made them of the originals. One shows *more* when it is the other way round: then what is stored stays, and the rest is at the
//! source ([`Step::Widened`]). Of any other two each shows something that the other hides: the values go
//! ([`Step::Empty`]) and come back with a full extract.
//!
//! | stored | shows no less than |
//! |---|---|
//! | `keep` | everything |
//! | any text method | `mask` |
//! | `truncate(chars=N)` | fewer characters |
//! | `truncate(to=hour)` | day, week, month; `to=day`: week, month (weeks and months cut each other) |
//! | `bucket` | a subset of the bounds, a multiple of the width, bounds that are multiples of the width |
//! | `scrub` | `scrub` of more kinds and patterns, but see below |
//! | a method | the same one, or one that shows less, behind `restrict` |
//!
//! Widths with a fraction are compared as floats are divided: a value that lies within a rounding error of a bound may
//! come out in the range beside the one that the original would have had.
//!
//! A scrub may cut into what one of more kinds would have found: a phone number inside a card's. Its texts go as well, though
//! the rule shows less, since a rest of the card could stay.
//!
//! A stored method that this program cannot read tells nothing: only `keep` shows no less. A column under a name that is
//! declared for another path is emptied, since its values are another field's. Restating what was restated changes nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, StringArray, StringBuilder,
    TimestampMillisecondArray, new_null_array,
};
use arrow::datatypes::{
    DataType, Field, FieldRef, Float64Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType,
};

use crate::error::{Error, Result};
use crate::model::Stream;
use crate::policy::Policy;
use crate::policy::bucket::Bucket;
use crate::policy::custom::{self, attribute_at};
use crate::policy::definitions::{Definitions, column_type};
use crate::policy::method::{Grain, Mask, Method, ScrubRule, TextStep};
use crate::policy::plan::{Kind, Steps, metadata};
use crate::policy::rules::TableRules;
use crate::policy::scalar;
use crate::secret::PseudonymKeys;

/// What becomes of one stored column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is as the policy has it.
    Same,
    /// It goes: dropped, or declared no more.
    Remove,
    /// Its values are made by the new method, of what is stored.
    Apply,
    /// Its values become null, since they show what is hidden now and the new ones cannot be made of them.
    Empty,
    /// It stays as it is and shows less than the policy allows.
    Widened,
}

/// What must happen to the columns of a file.
pub struct Restatement {
    schema: SchemaRef,
    columns: Vec<Restated>,
    missing: Vec<String>,
}

struct Restated {
    name: String,
    step: Step,
    /// The policy's method, in its canonical text; `drop` where it has none.
    method: String,
    /// What makes the values of [`Step::Apply`].
    kind: Option<Kind>,
}

impl Policy {
    /// Tells what must happen to stored columns; their metadata say what they hold.
    ///
    /// `definitions` are the source's, with the columns of the lake ([`Definitions::hold`]); `keys` make the pseudonyms of what
    /// was not pseudonymized before.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the stream is not declared, or a declared column has another type.
    pub fn restate(
        &self,
        stream: Stream,
        definitions: &Definitions,
        stored: &Schema,
        keys: &PseudonymKeys,
    ) -> Result<Restatement> {
        let rules = self.rules_of(stream)?;
        rules.check_held(stored)?;
        let mut steps = Steps::new(keys);
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for field in stored.fields() {
            let mut restated =
                Restated { name: field.name().clone(), step: Step::Remove, method: "drop".to_owned(), kind: None };
            if let Some(rule) = rule_for(rules, definitions, field)? {
                restated.method = rule.method.canonical();
                restated.step = if rule.is_of_this_path { step(field, &restated.method) } else { Step::Empty };
                if restated.step == Step::Apply
                    && let Some(stored_type) = column_type(field.data_type())
                {
                    restated.kind = steps.kind(stored_type, &rule.method)?;
                }
                fields.push(described(field, &rule, &restated));
            }
            columns.push(restated);
        }
        let is_stored = |name: &str, path: &[String], data_type: &DataType| {
            stored.fields().iter().zip(&columns).filter(|(_, restated)| restated.step != Step::Remove).any(
                |(field, _)| {
                    field.name() == name
                        || attribute_at(path).is_some()
                            && field.data_type() == data_type
                            && field.metadata().get("path").is_some_and(|stored| *stored == path.join("."))
                },
            )
        };
        let mut missing = Vec::new();
        for column in rules.columns_with(definitions)? {
            let Some(kind) = steps.kind(column.column_type, &column.method)? else { continue };
            if !is_stored(&column.name, &column.path, &kind.data_type()) {
                missing.push(column.name);
            }
        }
        Ok(Restatement { schema: Arc::new(Schema::new(fields)), columns, missing })
    }
}

/// The rule for a stored column.
struct Rule {
    method: Method,
    class: &'static str,
    is_of_this_path: bool,
    /// All metadata, for a column that a person declares.
    metadata: Option<HashMap<String, String>>,
}

/// Finds the rule for a stored column; `None` when nothing of it is to be stored.
fn rule_for(rules: &TableRules, definitions: &Definitions, field: &Field) -> Result<Option<Rule>> {
    let path = field.metadata().get("path");
    if let Some(column) = rules.columns.iter().find(|column| column.name == *field.name()) {
        let rule = Rule {
            method: column.method.clone(),
            class: column.class.name(),
            is_of_this_path: path.is_none_or(|path| *path == column.path.join(".")),
            metadata: Some(metadata(column)),
        };
        return Ok(Some(rule).filter(|rule| rule.method != Method::Drop));
    }
    let rule = custom::rule_of_column(rules, definitions.of(rules.stream), field)?;
    Ok(rule.map(|(method, class)| Rule { method, class: class.name(), is_of_this_path: true, metadata: None }))
}

/// Decides what becomes of a column that the policy stores.
fn step(field: &Field, method: &str) -> Step {
    match compare_methods(field.metadata().get("method").map_or("", String::as_str), method) {
        Shows::Same => Step::Same,
        Shows::Less if is_cut(field, method) => Step::Empty,
        Shows::Less => Step::Apply,
        Shows::More => Step::Widened,
        Shows::Other => Step::Empty,
    }
}

/// Tells whether a scrub has cut into what another scrub looks for.
fn is_cut(field: &Field, method: &str) -> bool {
    let stored = field.metadata().get("method").and_then(|stored| Method::read_canonical(stored));
    let now = Method::read_canonical(method);
    let (Some(stored), Some(now)) = (stored, now) else { return false };
    matches!((stored.inner(), now.inner()), (Method::Scrub(stored), Method::Scrub(now)) if stored != now)
}

/// Describes a column as it is afterwards.
fn described(field: &FieldRef, rule: &Rule, restated: &Restated) -> FieldRef {
    let mut metadata = rule.metadata.clone().unwrap_or_else(|| field.metadata().clone());
    metadata.insert("class".to_owned(), rule.class.to_owned());
    let stored = field.metadata().get("method").filter(|_| restated.step == Step::Widened);
    metadata.insert("method".to_owned(), stored.unwrap_or(&restated.method).clone());
    Arc::new(field.as_ref().clone().with_metadata(metadata))
}

impl Restatement {
    /// Returns the columns afterwards: the stored ones in their order, less those that are removed.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns what becomes of each stored column, by its position: name, step, and the policy's method for it.
    pub fn steps(&self) -> impl Iterator<Item = (&str, &Step, &str)> {
        self.columns.iter().map(|column| (column.name.as_str(), &column.step, column.method.as_str()))
    }

    /// Returns the names of the columns for which one of some steps is to be taken.
    pub fn names(&self, steps: &[Step]) -> Vec<&str> {
        self.columns.iter().filter(|column| steps.contains(&column.step)).map(|column| column.name.as_str()).collect()
    }

    /// Returns the columns that the policy stores and these lack; a custom attribute that was defined later is one, too.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Tells whether something that is stored must go.
    pub fn is_narrowing(&self) -> bool {
        !self.names(&[Step::Remove, Step::Apply, Step::Empty]).is_empty()
    }

    /// Tells whether something shows less than the policy allows: only a full extract brings the rest.
    pub fn is_widening(&self) -> bool {
        !self.missing.is_empty() || !self.names(&[Step::Widened, Step::Empty]).is_empty()
    }

    /// Restates values of a stored column, by its position among the stored ones.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when there is no such column, or it is to be removed.
    pub fn column(&self, index: usize, values: ArrayRef) -> Result<ArrayRef> {
        let column = self.columns.get(index).filter(|column| column.step != Step::Remove);
        let column =
            column.ok_or_else(|| Error::internal("column is not to be restated").with_context("column", index))?;
        match column.step {
            Step::Empty => Ok(new_null_array(values.data_type(), values.len())),
            Step::Apply => match &column.kind {
                Some(kind) => apply(kind, &values).ok_or_else(|| {
                    Error::internal("column has another type than its method takes")
                        .with_context("column", &column.name)
                        .with_context("type", values.data_type())
                }),
                None => Err(Error::internal("column has a type of no method").with_context("column", &column.name)),
            },
            _ => Ok(values),
        }
    }
}

impl fmt::Debug for Restatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps().collect();
        f.debug_struct("Restatement").field("steps", &steps).field("missing", &self.missing).finish_non_exhaustive()
    }
}

/// Makes the values that a column stores; `None` when they are of another type.
fn apply(kind: &Kind, values: &ArrayRef) -> Option<ArrayRef> {
    Some(match kind {
        Kind::Text(step) => Arc::new(texts(step, values.as_string_opt::<i32>()?)),
        Kind::TextList(step) => {
            let lists = values.as_list_opt::<i32>()?;
            let DataType::List(item) = lists.data_type() else { return None };
            let items = texts(step, lists.values().as_string_opt::<i32>()?);
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, Arc::new(items), nulls).ok()?)
        }
        Kind::Int(Some(bucket)) => {
            let old = values.as_primitive_opt::<Int64Type>()?;
            Arc::new(old.iter().map(|value| bucket.int(value?)).collect::<Int64Array>())
        }
        Kind::Float(Some(bucket)) => {
            let old = values.as_primitive_opt::<Float64Type>()?;
            Arc::new(old.iter().map(|value| bucket.float(value?)).collect::<Float64Array>())
        }
        Kind::Timestamp(Some(grain)) => {
            let old = values.as_primitive_opt::<TimestampMillisecondType>()?;
            let new = old.iter().map(|value| Some(scalar::truncate(value?, *grain)));
            let new = new.collect::<TimestampMillisecondArray>();
            Arc::new(new.with_timezone_opt(old.timezone()))
        }
        // The values stay, under another key.
        Kind::Int(None) | Kind::Float(None) | Kind::Bool | Kind::Timestamp(None) => Arc::clone(values),
    })
}

fn texts(step: &TextStep, values: &StringArray) -> StringArray {
    let mut builder = StringBuilder::with_capacity(values.len(), values.value_data().len());
    let mut written = String::new();
    for value in values {
        builder.append_option(value.map(|value| step.apply(value, &mut written)));
    }
    builder.finish()
}

/// What one method shows of an original, against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// The same.
    Same,
    /// Less: its values can be made of the other's.
    Less,
    /// More: the other's values can be made of its.
    More,
    /// Something that the other hides, and the other something that it hides.
    Other,
}

impl Shows {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (same, Self::Same) | (Self::Same, same) => same,
            (one, other) if one == other => one,
            _ => Self::Other,
        }
    }
}

/// Tells what the method `to` shows against the method `from`, both in their canonical text.
pub(super) fn compare_methods(from: &str, to: &str) -> Shows {
    if from == to {
        return Shows::Same;
    }
    match (Method::read_canonical(from), Method::read_canonical(to)) {
        (Some(from), Some(to)) => {
            let restricted = match (from.is_restricted(), to.is_restricted()) {
                (false, true) => Shows::Less,
                (true, false) => Shows::More,
                _ => Shows::Same,
            };
            compare(from.inner(), to.inner()).and(restricted)
        }
        (_, Some(Method::Keep)) => Shows::More,
        (_, Some(Method::Drop)) | (Some(Method::Keep), _) => Shows::Less,
        _ => Shows::Other,
    }
}

fn compare(from: &Method, to: &Method) -> Shows {
    if from == to {
        Shows::Same
    } else if is_made_of(to, from) {
        Shows::Less
    } else if is_made_of(from, to) {
        Shows::More
    } else {
        Shows::Other
    }
}

/// Tells whether the values of one method can be made of those of another.
fn is_made_of(less: &Method, more: &Method) -> bool {
    use Method::{Bucket, Drop, Keep, Mask, Pseudonymize, Scrub, TruncateText, TruncateTime};
    match (more, less) {
        (_, Drop)
        | (Keep, _)
        | (Mask(_) | Pseudonymize { .. } | TruncateText { .. } | Scrub(_), Mask(self::Mask::All)) => true,
        (TruncateText { chars: more }, TruncateText { chars: less }) => less <= more,
        (TruncateTime(more), TruncateTime(less)) => is_coarser(*less, *more),
        (Bucket(more), Bucket(less)) => is_wider(less, more),
        (Scrub(more), Scrub(less)) => replaces_more(less, more),
        _ => false,
    }
}

fn is_coarser(coarse: Grain, fine: Grain) -> bool {
    match fine {
        Grain::Hour => true,
        Grain::Day => coarse != Grain::Hour,
        Grain::Week | Grain::Month => coarse == fine,
    }
}

/// Tells whether each range of one bucket is made of whole ranges of another.
fn is_wider(wide: &Bucket, narrow: &Bucket) -> bool {
    let is_multiple = |number: f64, width: f64| (number / width).fract() == 0.0;
    match (narrow, wide) {
        (Bucket::Width(narrow), Bucket::Width(wide)) => is_multiple(*wide, *narrow),
        (Bucket::Width(narrow), Bucket::Bounds(bounds)) => bounds.iter().all(|bound| is_multiple(*bound, *narrow)),
        (Bucket::Bounds(narrow), Bucket::Bounds(wide)) => wide.iter().all(|bound| narrow.contains(bound)),
        // The last range has no end.
        (Bucket::Bounds(_), Bucket::Width(_)) => false,
    }
}

fn replaces_more(more: &ScrubRule, less: &ScrubRule) -> bool {
    less.kinds.iter().all(|kind| more.kinds.contains(kind))
        && less.patterns.iter().all(|pattern| more.patterns.contains(pattern))
}

#[cfg(test)]
mod tests;
