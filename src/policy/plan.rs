//! The plan of one stream: the tree of paths, the columns behind it and their Arrow schema, shared by its decoders.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::Result;
use crate::model::Stream;
use crate::policy::bucket::Bucket;
use crate::policy::method::{Grain, Method, ScrubRule, TextStep};
use crate::policy::pseudonym::{Pseudonymizer, holds_pseudonyms};
use crate::policy::rules::{CUSTOM_PATH, CompiledColumn};
use crate::policy::scrub::Scrub;
use crate::policy::tree::{Leaf, Tree};
use crate::schema::ColumnType;
use crate::secret::PseudonymKeys;

/// Everything that a decoder of one stream needs and does not change.
pub(super) struct Plan {
    pub(super) stream: Stream,
    pub(super) policy: Arc<str>,
    pub(super) schema: SchemaRef,
    pub(super) tree: Tree,
    pub(super) columns: Vec<ColumnPlan>,
    /// Version of the pseudonyms that it makes, if it makes any.
    pub(super) pseudonyms: Option<u32>,
}

/// Where a record names its organisation.
const ORGANISATION_PATH: [&str; 4] = ["relationships", "org", "data", "id"];

/// A column that is stored.
pub(super) struct ColumnPlan {
    /// Path, for reports.
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) role: Role,
}

/// How values become stored values.
#[derive(Clone)]
pub(super) enum Kind {
    Text(TextStep),
    TextList(TextStep),
    Int(Option<Bucket>),
    Float(Option<Bucket>),
    Bool,
    Timestamp(Option<Grain>),
}

/// What a column says about its record's identity and revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    None,
    Id,
    UpdatedAt,
    Rev,
    Deleted,
}

impl Plan {
    pub(super) fn try_new(
        stream: Stream,
        policy: Arc<str>,
        declared: &[CompiledColumn],
        keys: &PseudonymKeys,
    ) -> Result<Self> {
        let mut steps = Steps::new(keys);
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        let mut paths = Vec::with_capacity(declared.len());
        for column in declared {
            let Some(kind) = steps.kind(column.column_type, &column.method)? else {
                paths.push((column.path.as_slice(), Leaf::Drop));
                continue;
            };
            paths.push((column.path.as_slice(), Leaf::Column(columns.len())));
            fields.push(field(stream, column, &kind));
            columns.push(ColumnPlan { path: column.path.join("."), kind, role: role(stream, column) });
        }
        // Behind the declared paths: a column of the organisation's id stays one.
        let organisation = ORGANISATION_PATH.map(str::to_owned);
        paths.push((organisation.as_slice(), Leaf::Organisation));
        let schema = Arc::new(Schema::new(fields));
        Ok(Self {
            stream,
            policy,
            pseudonyms: holds_pseudonyms(&schema).then(|| keys.version()),
            schema,
            tree: Tree::new(paths.into_iter(), &[&CUSTOM_PATH]),
            columns,
        })
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("stream", &self.stream).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Makes what runs of methods; scrubs are compiled once.
pub(super) struct Steps<'k> {
    keys: &'k PseudonymKeys,
    scrubs: Vec<(ScrubRule, Arc<Scrub>)>,
}

impl<'k> Steps<'k> {
    pub(super) fn new(keys: &'k PseudonymKeys) -> Self {
        Self { keys, scrubs: Vec::new() }
    }

    /// Makes what becomes of the values of a column; `None` when nothing of it is stored.
    pub(super) fn kind(&mut self, column_type: ColumnType, method: &Method) -> Result<Option<Kind>> {
        // What is under the second key differs where it is stored, not in how it is made.
        let method = method.inner();
        if *method == Method::Drop {
            return Ok(None);
        }
        let bucket = if let Method::Bucket(bucket) = method { Some(bucket.clone()) } else { None };
        let grain = if let Method::TruncateTime(grain) = method { Some(*grain) } else { None };
        Ok(match column_type {
            ColumnType::Text => Some(Kind::Text(self.text(method)?)),
            ColumnType::TextList => Some(Kind::TextList(self.text(method)?)),
            ColumnType::Int => Some(Kind::Int(bucket)),
            ColumnType::Float => Some(Kind::Float(bucket)),
            ColumnType::Bool => Some(Kind::Bool),
            ColumnType::Timestamp => Some(Kind::Timestamp(grain)),
            ColumnType::Any => None,
        })
    }

    /// Makes what is done to a text.
    pub(super) fn text(&mut self, method: &Method) -> Result<TextStep> {
        Ok(match method {
            Method::Mask(mask) => TextStep::Mask(*mask),
            Method::Pseudonymize { domain } => TextStep::Pseudonymize(Box::new(Pseudonymizer::new(self.keys, domain))),
            Method::TruncateText { chars } => TextStep::Truncate { chars: *chars },
            Method::Scrub(rule) => TextStep::Scrub(self.scrub(rule)?),
            Method::Restrict(inner) => self.text(inner)?,
            Method::Keep | Method::Drop | Method::TruncateTime(_) | Method::Bucket(_) => TextStep::Keep,
        })
    }

    fn scrub(&mut self, rule: &ScrubRule) -> Result<Arc<Scrub>> {
        if let Some((_, scrub)) = self.scrubs.iter().find(|(known, _)| known == rule) {
            return Ok(Arc::clone(scrub));
        }
        let scrub = rule.engine()?;
        self.scrubs.push((rule.clone(), Arc::clone(&scrub)));
        Ok(scrub)
    }
}

impl Kind {
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Text(_) => DataType::Utf8,
            Self::TextList(_) => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            Self::Int(_) => DataType::Int64,
            Self::Float(_) => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Timestamp(_) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        }
    }
}

fn field(stream: Stream, column: &CompiledColumn, kind: &Kind) -> Field {
    let is_key = column.name == stream.key_column();
    Field::new(&column.name, kind.data_type(), !is_key).with_metadata(metadata(column))
}

/// Describes a column as the lake keeps it.
pub(super) fn metadata(column: &CompiledColumn) -> HashMap<String, String> {
    let mut metadata = HashMap::from([
        ("class".to_owned(), column.class.name().to_owned()),
        ("method".to_owned(), column.method.canonical()),
        ("description".to_owned(), column.description.clone()),
        ("path".to_owned(), column.path.join(".")),
    ]);
    if let Some(unit) = &column.unit {
        metadata.insert("unit".to_owned(), unit.clone());
    }
    metadata
}

fn role(stream: Stream, column: &CompiledColumn) -> Role {
    match (column.name.as_str(), column.column_type) {
        (name, _) if name == stream.key_column() => Role::Id,
        ("updated_at", ColumnType::Timestamp) => Role::UpdatedAt,
        ("rev", ColumnType::Int) => Role::Rev,
        ("deleted", ColumnType::Bool) => Role::Deleted,
        _ => Role::None,
    }
}
