//! What is known of custom attributes when a run begins: the source's definitions and the columns that the lake has.
//!
//! Both are names, types and marks, no values. The lake's columns tell which attribute each one belongs to (the `path` in
//! their metadata), so that an attribute keeps its column whatever is defined beside it later.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::Stream;
use crate::policy::names::columns_of;
use crate::policy::quarantine::{self, Quarantined, Reason};
use crate::policy::rules::CUSTOM_PATH;
use crate::schema::ColumnType;

/// Attributes of a stream that are told by name.
const MAX_ATTRIBUTES: usize = 2_000;

/// Definitions of custom attributes, and the columns that the lake has, by stream.
#[derive(Debug, Default)]
pub struct Definitions {
    streams: BTreeMap<Stream, BTreeMap<String, Definition>>,
    none: BTreeMap<String, Definition>,
    held: BTreeMap<Stream, Vec<Held>>,
}

/// What the source says about one attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) json_type: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) is_multi: bool,
    pub(super) is_sensitive: bool,
}

/// A column that a table of the lake has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) name: String,
    /// Where its values stood in a record; unknown for columns of lakes that did not note it.
    pub(super) path: Option<String>,
    /// Its type, where schema files can name it.
    pub(super) column_type: Option<ColumnType>,
}

impl Held {
    pub(super) fn of(field: &Field) -> Self {
        Self {
            name: field.name().clone(),
            path: field.metadata().get("path").cloned(),
            column_type: column_type(field.data_type()),
        }
    }
}

impl Definitions {
    /// Adds the answer of `GET /v1/metadata/{conversation|customer}`.
    ///
    /// A second answer for a stream replaces the definitions of the same name. Deleted definitions stay: old records hold
    /// their values.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the answer is not JSON of the documented form; the error gives the
    /// position only.
    pub fn add(&mut self, stream: Stream, page: &[u8]) -> Result<()> {
        let answer: Answer = serde_json::from_slice(page).map_err(|error| {
            Error::data("answer is not a set of attribute definitions")
                .with_context("stream", stream)
                .with_context("line", error.line())
                .with_context("column", error.column())
                .with_hint("the source answered something else than `data.attributes.properties`: try again")
        })?;
        let definitions = self.streams.entry(stream).or_default();
        for (attribute, property) in answer.data.attributes.properties.unwrap_or_default() {
            let text = |name: &str| property.get(name).and_then(Value::as_str).map(str::to_owned);
            let is_true = |name: &str| property.get(name).and_then(Value::as_bool) == Some(true);
            let is_multi = is_true("multi") || is_true("array") || text("type").as_deref() == Some("array");
            // A mark of an unknown form is taken as set.
            let is_sensitive =
                !matches!(property.get("hasSensitiveAttributes"), None | Some(Value::Null | Value::Bool(false)));
            // Times are texts that a format marks.
            let json_type = text("format").filter(|format| format.starts_with("date")).or_else(|| text("type"));
            let definition = Definition { json_type, display_name: text("displayName"), is_multi, is_sensitive };
            definitions.insert(attribute, definition);
        }
        Ok(())
    }

    /// Takes note of the columns that a table of the lake has; an earlier note of the table is replaced.
    pub fn hold(&mut self, stream: Stream, columns: &Schema) {
        let held = columns.fields().iter().map(|field| Held::of(field));
        self.held.insert(stream, held.collect());
    }

    /// Takes note of attributes that the source defined earlier, by name and mark, with the types that the lake has them in.
    ///
    /// What [`hold`](Self::hold) says of the lake's columns must have been told before.
    pub fn recall(&mut self, stream: Stream, attributes: &BTreeMap<String, bool>) {
        let held = self.held.get(&stream).map_or(&[][..], Vec::as_slice);
        let recalled = attributes.iter().map(|(name, is_sensitive)| {
            let column = columns_of(held, name).last().and_then(|column| column.column_type);
            let json_type = match column {
                Some(ColumnType::Int | ColumnType::Float) => Some("number"),
                Some(ColumnType::Bool) => Some("boolean"),
                Some(ColumnType::Timestamp) => Some("date-time"),
                Some(ColumnType::Text) => Some("string"),
                _ => None,
            };
            let is_multi = column == Some(ColumnType::TextList);
            let json_type = json_type.map(str::to_owned);
            (name.clone(), Definition { json_type, display_name: None, is_multi, is_sensitive: *is_sensitive })
        });
        let recalled: Vec<_> = recalled.collect();
        self.streams.entry(stream).or_default().extend(recalled);
    }

    /// Tells which custom attributes the source defines, and which of them it marks sensitive; nothing where it was not asked.
    ///
    /// Names that do not look like an attribute's are left out, and so are those beyond a bound.
    #[must_use]
    pub fn attributes(&self, stream: Stream) -> Option<BTreeMap<String, bool>> {
        let named = self.streams.get(&stream)?.iter().filter(|(name, _)| quarantine::is_attribute_name(name));
        Some(named.take(MAX_ATTRIBUTES).map(|(name, told)| (name.clone(), told.is_sensitive)).collect())
    }

    /// Gives fields that nothing declares the reason `sensitive` where the source marks them so.
    pub fn mark_sensitive(&self, stream: Stream, fields: &mut [Quarantined]) {
        for field in fields.iter_mut().filter(|field| field.reason == Reason::Undeclared) {
            let attribute = CUSTOM_PATH
                .into_iter()
                .try_fold(field.path.as_str(), |rest, key| rest.strip_prefix(key)?.strip_prefix('.'));
            if attribute.and_then(|name| self.of(stream).get(name)).is_some_and(|told| told.is_sensitive) {
                field.reason = Reason::Sensitive;
            }
        }
    }

    pub(super) fn of(&self, stream: Stream) -> &BTreeMap<String, Definition> {
        self.streams.get(&stream).unwrap_or(&self.none)
    }

    pub(super) fn held(&self, stream: Stream) -> &[Held] {
        self.held.get(&stream).map_or(&[], Vec::as_slice)
    }
}

/// Returns the declared type that is stored as an Arrow type; nothing for one that no declaration makes.
#[must_use]
pub fn column_type(stored: &DataType) -> Option<ColumnType> {
    match stored {
        DataType::Utf8 => Some(ColumnType::Text),
        DataType::Int64 => Some(ColumnType::Int),
        DataType::Float64 => Some(ColumnType::Float),
        DataType::Boolean => Some(ColumnType::Bool),
        DataType::Timestamp(TimeUnit::Millisecond, Some(zone)) if zone.as_ref() == "UTC" => Some(ColumnType::Timestamp),
        DataType::List(item) if *item.data_type() == DataType::Utf8 => Some(ColumnType::TextList),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    /// Absent or null where nothing was ever defined.
    #[serde(default)]
    properties: Option<BTreeMap<String, Value>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_marks_are_read_and_deleted_ones_stay() {
        let page = br#"{"data":{"type":"metadata","id":"conversation","attributes":{"properties":{
            "tierStr":{"type":"string","displayName":"Tier","enumeration":["a"]},
            "ordersId":{"type":"string","multi":true,"deletedAt":"2020-01-01T00:00:00Z"},
            "ssnStr":{"type":"string","hasSensitiveAttributes":{"pii":true}},
            "openStr":{"type":"string","hasSensitiveAttributes":false,"multi":null},
            "since":{"type":"string","format":"date-time"},
            "oddStr":null}}}}"#;
        let mut definitions = Definitions::default();
        definitions.add(Stream::Tickets, page).unwrap();
        let found = definitions.of(Stream::Tickets);
        assert_eq!(found.len(), 6);
        assert_eq!(found["since"].json_type.as_deref(), Some("date-time"));
        assert_eq!(found["tierStr"].display_name.as_deref(), Some("Tier"));
        assert!(found["ordersId"].is_multi && !found["tierStr"].is_multi);
        assert!(found["ssnStr"].is_sensitive && !found["openStr"].is_sensitive && !found["oddStr"].is_sensitive);
        assert!(definitions.of(Stream::Customers).is_empty());
        for none in [&b"{\"data\":{\"attributes\":{}}}"[..], b"{\"data\":{\"attributes\":{\"properties\":null}}}"] {
            definitions.add(Stream::Customers, none).unwrap();
        }
        assert!(definitions.of(Stream::Customers).is_empty());
    }

    #[test]
    fn other_answers_are_refused_without_repeating_them() {
        for page in [&b"{\"data\":{\"secret\":1}}"[..], b"{\"data\":[\"secret\"]}", b"secret", b""] {
            let error = Definitions::default().add(Stream::Tickets, page).unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
