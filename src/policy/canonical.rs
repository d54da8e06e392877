//! The canonical text of a method: one form for the digest, the metadata of columns and `DESCRIBE`, which can be read back.
//!
//! ```text
//! keep    truncate(to=day)    bucket(bounds=[0,10,100])    restrict(after=pseudonymize,domain="two words")
//! ```
//!
//! Arguments stand in the order of their names. A value of letters, digits and `_ . + - * :` stands as it is, any other as a
//! JSON string; a list is a JSON array of strings and numbers.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::schema::{Argument, MethodText};

/// Writes a method.
pub(super) fn write(method: &MethodText) -> String {
    let mut out = method.name.clone();
    for (number, (name, argument)) in method.arguments.iter().enumerate() {
        let start = if number == 0 { '(' } else { ',' };
        // Writing to a string does not fail.
        let _ = write!(out, "{start}{name}=");
        match argument {
            Argument::One(value) if !value.is_empty() && value.chars().all(is_bare) => out.push_str(value),
            Argument::One(value) => {
                let _ = write!(out, "{}", Value::from(value.as_str()));
            }
            Argument::List(values) => {
                out.push('[');
                for (number, value) in values.iter().enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    let number = serde_json::from_str::<serde_json::Number>(value);
                    let _ = if number.is_ok_and(|number| number.to_string() == *value) {
                        write!(out, "{comma}{value}")
                    } else {
                        write!(out, "{comma}{}", Value::from(value.as_str()))
                    };
                }
                out.push(']');
            }
        }
    }
    if !method.arguments.is_empty() {
        out.push(')');
    }
    out
}

/// Reads what [`write()`] wrote; `None` for any other text.
pub(super) fn read(text: &str) -> Option<MethodText> {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let (name, mut rest) = match text.split_once('(') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let mut method = MethodText { name: name.to_owned(), arguments: BTreeMap::new() };
    if !is_name(name) {
        return None;
    }
    while let Some(arguments) = rest {
        let (name, value) = arguments.split_once('=').filter(|(name, _)| is_name(name))?;
        let (argument, behind) = read_value(value)?;
        if method.arguments.insert(name.to_owned(), argument).is_some() {
            return None;
        }
        rest = match behind.strip_prefix(',') {
            Some(more) => Some(more),
            None if behind == ")" => None,
            None => return None,
        };
    }
    Some(method)
}

/// Reads one value, and returns what stands behind it.
fn read_value(text: &str) -> Option<(Argument, &str)> {
    if !text.starts_with(['"', '[']) {
        let end = text.find(|c| !is_bare(c)).unwrap_or(text.len());
        return (end > 0).then(|| (Argument::One(text[..end].to_owned()), &text[end..]));
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    let behind = text.get(values.byte_offset()..)?;
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let argument = match &value {
        Value::Array(items) => Argument::List(items.iter().map(one).collect::<Option<_>>()?),
        single => Argument::One(one(single)?),
    };
    Some((argument, behind))
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | '*' | ':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_texts_are_not_read() {
        for text in [
            "",
            "(",
            "keep(",
            "keep()",
            "Keep",
            "keep(a)",
            "keep(a=)",
            "keep(a=b",
            "keep(a=b,)",
            "keep(a=b)c",
            "keep(a=b,a=c)",
            "keep(a=[b])",
            "keep(a=[null])",
            "keep(a=[[1]])",
            "keep(a=\"b)",
            "keep(a=b c)",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn method_reads_what_it_writes(
            name in "[a-z_]{1,8}",
            ones in prop::collection::btree_map("[a-m_]{1,6}", any::<String>().prop_map(Argument::One), 0..3),
            lists in prop::collection::btree_map(
                "[n-z]{1,6}", prop::collection::vec(".{0,6}|[a-z]{1,3}|[1-9][0-9]{0,3}", 0..4).prop_map(Argument::List), 0..3),
        ) {
            let method = MethodText { name, arguments: ones.into_iter().chain(lists).collect() };
            prop_assert_eq!(read(&write(&method)), Some(method));
        }
    }
}
