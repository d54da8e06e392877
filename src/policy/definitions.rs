//! Definitions of custom attributes, as the source answers them: names, types and marks, no values.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::Stream;

/// Definitions of custom attributes, by stream.
#[derive(Debug, Default)]
pub struct Definitions {
    streams: BTreeMap<Stream, BTreeMap<String, Definition>>,
    none: BTreeMap<String, Definition>,
}

/// What the source says about one attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) json_type: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) is_multi: bool,
    pub(super) is_sensitive: bool,
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
        for (attribute, property) in answer.data.attributes.properties {
            let text = |name: &str| property.get(name).and_then(Value::as_str).map(str::to_owned);
            let is_true = |name: &str| property.get(name).and_then(Value::as_bool) == Some(true);
            let is_multi = is_true("multi") || is_true("array") || text("type").as_deref() == Some("array");
            // A mark of an unknown form is taken as set.
            let is_sensitive =
                !matches!(property.get("hasSensitiveAttributes"), None | Some(Value::Null | Value::Bool(false)));
            let definition =
                Definition { json_type: text("type"), display_name: text("displayName"), is_multi, is_sensitive };
            definitions.insert(attribute, definition);
        }
        Ok(())
    }

    pub(super) fn of(&self, stream: Stream) -> &BTreeMap<String, Definition> {
        self.streams.get(&stream).unwrap_or(&self.none)
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
    properties: BTreeMap<String, Value>,
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
            "oddStr":null}}}}"#;
        let mut definitions = Definitions::default();
        definitions.add(Stream::Tickets, page).unwrap();
        let found = definitions.of(Stream::Tickets);
        assert_eq!(found.len(), 5);
        assert_eq!(found["tierStr"].display_name.as_deref(), Some("Tier"));
        assert!(found["ordersId"].is_multi && !found["tierStr"].is_multi);
        assert!(found["ssnStr"].is_sensitive && !found["openStr"].is_sensitive && !found["oddStr"].is_sensitive);
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
