//! The plan of one stream: the tree of paths, the columns behind it and their Arrow schema, shared by its decoders.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use ring::hmac;

use crate::model::Stream;
use crate::policy::method::{Grain, Method, Pseudonymizer, TextStep};
use crate::policy::rules::{CUSTOM_PATH, CompiledColumn};
use crate::policy::tree::{Leaf, Tree};
use crate::schema::ColumnType;
use crate::secret::PseudonymKey;

/// Everything that a decoder of one stream needs and does not change.
pub(super) struct Plan {
    pub(super) stream: Stream,
    pub(super) policy: Arc<str>,
    pub(super) schema: SchemaRef,
    pub(super) tree: Tree,
    pub(super) columns: Vec<ColumnPlan>,
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
    Int,
    Float,
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
    pub(super) fn new(stream: Stream, policy: Arc<str>, declared: &[CompiledColumn], key: &PseudonymKey) -> Self {
        let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, key.key.expose());
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        let mut paths = Vec::with_capacity(declared.len());
        for column in declared {
            let Some(kind) = Kind::new(column, &hmac_key, key.version) else {
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
        Self {
            stream,
            policy,
            schema: Arc::new(Schema::new(fields)),
            tree: Tree::new(paths.into_iter(), &[&CUSTOM_PATH]),
            columns,
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("stream", &self.stream).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Kind {
    fn new(column: &CompiledColumn, key: &hmac::Key, version: u32) -> Option<Self> {
        let step = match &column.method {
            Method::Drop => return None,
            Method::Keep | Method::TruncateTime(_) => TextStep::Keep,
            Method::Mask(mask) => TextStep::Mask(*mask),
            Method::Pseudonymize { domain } => {
                TextStep::Pseudonymize(Box::new(Pseudonymizer::new(key, version, domain)))
            }
            Method::TruncateText { chars } => TextStep::Truncate { chars: *chars },
        };
        let grain = if let Method::TruncateTime(grain) = column.method { Some(grain) } else { None };
        match column.column_type {
            ColumnType::Text => Some(Self::Text(step)),
            ColumnType::TextList => Some(Self::TextList(step)),
            ColumnType::Int => Some(Self::Int),
            ColumnType::Float => Some(Self::Float),
            ColumnType::Bool => Some(Self::Bool),
            ColumnType::Timestamp => Some(Self::Timestamp(grain)),
            ColumnType::Any => None,
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Text(_) => DataType::Utf8,
            Self::TextList(_) => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Timestamp(_) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        }
    }
}

fn field(stream: Stream, column: &CompiledColumn, kind: &Kind) -> Field {
    let mut metadata = HashMap::from([
        ("class".to_owned(), column.class.name().to_owned()),
        ("method".to_owned(), column.method.canonical()),
        ("description".to_owned(), column.description.clone()),
        ("path".to_owned(), column.path.join(".")),
    ]);
    if let Some(unit) = &column.unit {
        metadata.insert("unit".to_owned(), unit.clone());
    }
    let is_key = column.name == stream.key_column();
    Field::new(&column.name, kind.data_type(), !is_key).with_metadata(metadata)
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
