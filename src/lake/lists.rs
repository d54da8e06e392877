//! Ticket lists: what a query found when it was recorded, as a table of the lake.
//!
//! ```text
//! ids of a run ─▶ sorted ─▶ data/ticket_lists/<uuid>.parquet ─┐
//! SQL, parameters, clock, version read ─▶ Recording ──────────┴─▶ one commit: list + add ─▶ table `ticket_lists`
//! ```
//!
//! A recording is one run of one query under a name; a name has as many recordings as runs were recorded under it, and they
//! never change. Ids are all that is stored of the result. Files have the columns of `schema`, most of them the same in
//! every row: so a file is read by other programs without the manifest, and a filter is answered by the manifest without the
//! file. A file is sorted by `ticket_id` and holds ids of one recording; a long list has several files.
//!
//! The record of a recording stands in the log ([`Recording`]), with all that is needed to run the query again:
//!
//! ```text
//! { "id": "<uuid-v7>", "list": "vip_week", "number": 3, "recorded_ms": 1763820000000,
//!   "sql": "<the whole file>", "sql_digest": "<SHA-256, hex>",
//!   "parameters": [{"name": "since", "type": "timestamp", "value": "2025-11-01T00:00:00Z"}, …],
//!   "now": "2025-11-22T14:00:00.123456789Z", "lake_version": 41, "policy": "<digest, hex>", "count": 1204 }
//! ```
//!
//! `number` counts the recordings of a list from 1 on, and goes on where older ones were forgotten, as long as one of them is left.
//! `value` is the bound value as text, an array of texts for a list, null for NULL; defaults stand there as they were
//! evaluated. `now` is what `now()` gave. `count` is the number of ids that were recorded; fewer rows in the files mean that
//! tickets were erased since.
//!
//! **Lifecycle.** Lists are in versions, garbage, verification, keys and compaction like every table. An erasure takes the
//! ids out, and blanks what SQL and parameters say of them. Retention forgets recordings by their age, and only by that.

mod record;
mod table;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

pub use self::record::Recorded;
pub(crate) use self::record::wrong_name;
pub(super) use self::table::table;

/// Longest name of a list, in bytes.
const NAME_BYTES: usize = 128;

/// An id has as many hex digits: a name that holds so many in a row might name a record.
const ID_DIGITS: usize = 24;

/// The record of one recorded run of a query; see the module's description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// Its id, a UUID of version 7.
    pub id: String,
    /// Name of the list.
    pub list: String,
    /// Its number in the list, from 1; the commit gives it.
    pub number: u64,
    /// When, milliseconds since 1970.
    pub recorded_ms: i64,
    /// The whole SQL text, header included; empty where an erasure took it.
    pub sql: String,
    /// SHA-256 of the SQL text, hex.
    pub sql_digest: String,
    /// The parameters as they were bound, in the order of the header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<RecordedParameter>,
    /// What `now()` gave, ISO 8601 with nanoseconds.
    pub now: String,
    /// Version of the lake that was read.
    pub lake_version: u64,
    /// Digest of the policy of that version, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Ids recorded.
    pub count: u64,
}

/// A parameter with the value that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedParameter {
    /// Name, without the `$`.
    pub name: String,
    /// Type as headers write it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value.
    pub value: RecordedValue,
}

/// A value as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RecordedValue {
    /// NULL, or what an erasure took.
    #[default]
    Null,
    /// One value.
    Text(String),
    /// A list.
    List(Vec<Option<String>>),
}

impl Recording {
    /// Returns the address of the recording, `list@number`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}@{}", self.list, self.number)
    }

    /// Writes the parameters as one JSON object: numbers and truth values bare, everything else as text.
    #[must_use]
    pub fn parameters_json(&self) -> String {
        let mut object = serde_json::Map::new();
        for RecordedParameter { name, kind, value } in &self.parameters {
            let item = kind.trim_end_matches("[]");
            let json = |text: &String| match item {
                "int" | "double" | "bool" => {
                    serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::from(text.as_str()))
                }
                _ => serde_json::Value::from(text.as_str()),
            };
            let value = match value {
                RecordedValue::Null => serde_json::Value::Null,
                RecordedValue::Text(text) => json(text),
                RecordedValue::List(items) => items.iter().map(|item| item.as_ref().map(json)).collect(),
            };
            object.insert(name.clone(), value);
        }
        serde_json::Value::Object(object).to_string()
    }

    /// Tells the recording anew without the texts that name something; `None` when none does.
    pub(super) fn without(&self, names: impl Fn(&str) -> bool) -> Option<Self> {
        let mut told = self.clone();
        if names(&told.sql) {
            told.sql = String::new();
        }
        for parameter in &mut told.parameters {
            let is_named = match &parameter.value {
                RecordedValue::Null => false,
                RecordedValue::Text(text) => names(text),
                RecordedValue::List(items) => items.iter().flatten().any(|item| names(item)),
            };
            if is_named {
                parameter.value = RecordedValue::Null;
            }
        }
        (told != *self).then_some(told)
    }
}

/// Tells whether a list can have this name: letters, digits, `_`, `-`, `.` and `/`, beginning with a letter or `_`, and
/// nothing that could be an id.
#[must_use]
pub fn is_list_name(name: &str) -> bool {
    let is_first = |first: char| first.is_alphabetic() || first == '_';
    let is_part = |part: char| part.is_alphanumeric() || matches!(part, '_' | '-' | '.' | '/');
    let holds_id = name.split(|part: char| !part.is_ascii_hexdigit()).any(|run| run.len() >= ID_DIGITS);
    name.len() <= NAME_BYTES && name.starts_with(is_first) && name.chars().all(is_part) && !holds_id
}

/// The columns of the table, and of each of its files.
pub(super) fn schema() -> SchemaRef {
    let column = |name: &str, data_type: DataType, description: &str| {
        let metadata = [("class", "internal"), ("method", "keep"), ("description", description)];
        let metadata = metadata.map(|(key, text)| (key.to_owned(), text.to_owned()));
        Field::new(name, data_type, name != "ticket_id").with_metadata(metadata.into())
    };
    let instant = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        column("list", DataType::Utf8, "Name of the ticket list"),
        column("recording", DataType::Utf8, "Id of the recording: one run of the list's query"),
        column("recorded_at", instant, "When it was recorded"),
        column("lake_version", DataType::Int64, "Version of the lake that the query read"),
        column("sql_digest", DataType::Utf8, "SHA-256 of the SQL text, hex"),
        column("parameters", DataType::Utf8, "The query's parameters as they were bound, a JSON object"),
        column("position", DataType::Int64, "Place of the ticket in the result, from 1; erased tickets leave gaps"),
        column("ticket_id", DataType::Utf8, "Id of the ticket"),
    ]))
}

#[cfg(test)]
mod tests;
