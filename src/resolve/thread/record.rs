//! A resource's JSON as a thread reads it: leniently, because what is absent or of another type is simply not shown.

use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroize as _;

use super::words::Words;

/// One resource; its texts are cleared when it is dropped.
pub(super) struct Record(Value);

impl Record {
    /// Reads JSON; what is none has nothing in it.
    pub(super) fn of(json: &str) -> Self {
        Self(serde_json::from_str(json).unwrap_or_default())
    }

    /// Returns what a JSON pointer leads to, unless that is null or nothing.
    pub(super) fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer).filter(|value| !value.is_null())
    }

    /// Returns the first of these attributes that is a text with something in it.
    pub(super) fn text(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .filter_map(|name| self.at(&format!("/attributes/{name}"))?.as_str())
            .find(|text| !text.trim().is_empty())
    }

    /// Returns the first of these attributes that is a time.
    pub(super) fn time(&self, names: &[&str]) -> Option<Timestamp> {
        names.iter().find_map(|name| self.at(&format!("/attributes/{name}"))?.as_str()?.parse().ok())
    }

    /// Tells whether an attribute is true.
    pub(super) fn is(&self, name: &str) -> bool {
        self.at(&format!("/attributes/{name}")) == Some(&Value::Bool(true))
    }

    /// Returns the id that a relationship names.
    pub(super) fn related(&self, name: &str) -> Option<&str> {
        self.at(&format!("/relationships/{name}/data/id"))?.as_str()
    }

    /// Returns the addresses of an attribute that may be a text, an object with an address, or an array of either.
    pub(super) fn addresses(&self, name: &str) -> Words {
        let mut found = Words::default();
        if let Some(value) = self.at(&format!("/attributes/{name}")) {
            add_addresses(value, &mut found);
        }
        found
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        clear(&mut self.0);
    }
}

fn add_addresses(value: &Value, found: &mut Words) {
    let mut add = |pieces: &[&str]| {
        if !found.is_empty() {
            found.push(", ");
        }
        for piece in pieces {
            found.push(piece);
        }
    };
    match value {
        Value::String(text) if !text.trim().is_empty() => add(&[text.trim()]),
        Value::Array(items) => items.iter().for_each(|item| add_addresses(item, found)),
        Value::Object(entries) => {
            let text = |name: &str| entries.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
            let address = ["email", "phone", "address", "username", "id"].into_iter().find_map(text);
            match (text("name"), address) {
                (Some(name), Some(address)) => add(&[name, " <", address, ">"]),
                (Some(one), None) | (None, Some(one)) => add(&[one]),
                (None, None) => {}
            }
        }
        _ => {}
    }
}

fn clear(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(clear),
        Value::Object(entries) => entries.values_mut().for_each(clear),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form() {
        for (value, expected) in [
            (r#""a@x.example""#, "a@x.example"),
            (r#"{"email":"a@x.example","name":"Ann"}"#, "Ann <a@x.example>"),
            (r#"[{"email":"a@x.example"},"b@x.example",null,7,[{"phone":"+49"}]]"#, "a@x.example, b@x.example, +49"),
            (r#"{"mailboxHash":""}"#, ""),
            ("null", ""),
            (r#"[{"name":"Ann"}]"#, "Ann"),
        ] {
            let record = Record::of(&format!(r#"{{"attributes":{{"to":{value}}}}}"#));
            assert_eq!(&*record.addresses("to"), expected, "{value}");
        }
    }

    #[test]
    fn records_of_any_shape_are_read() {
        for json in
            ["", "[]", "{}", r#"{"attributes":[],"relationships":"x"}"#, r#"{"attributes":{"a":{},"b":7,"c":" "}}"#]
        {
            let record = Record::of(json);
            assert_eq!(
                (record.text(&["a", "b", "c"]), record.time(&["a", "b"]), record.related("x")),
                (None, None, None)
            );
            assert!(!record.is("a"));
        }
    }
}
