//! Arguments of a query: texts of the command line turned into typed values.
//!
//! A value is bound to its placeholder `$name` as a literal of the plan. No text of a caller ever becomes SQL; only the
//! default, which the file's author wrote, is an SQL expression, and it must be constant.
//!
//! | type        | how a value is written                                                                       |
//! |-------------|----------------------------------------------------------------------------------------------|
//! | `text`      | as it is, blanks included                                                                    |
//! | `int`       | decimal, 64 bits, signed                                                                     |
//! | `double`    | decimal, with an exponent or without; neither infinite nor NaN                               |
//! | `bool`      | `true` or `false`                                                                            |
//! | `date`      | `2026-01-31`                                                                                 |
//! | `timestamp` | `2026-01-31`, `2026-01-31T09:00:00Z` or with an offset, `+01:00`; UTC without one            |
//! | `interval`  | numbers and units, `7 days` or `1 month 12 hours`                                            |
//! | a list      | items between commas, `a,b`, each without the blanks around it, or a JSON array, which can hold any item: `["a,b", "c"]`; an empty text and `[]` are the empty list |

use std::collections::BTreeMap;

use datafusion::common::ScalarValue;

use crate::error::{Error, Result};
use crate::query::fault::did_you_mean;
use crate::query::header::{Parameter, ParameterType};
use crate::query::library::QueryFile;

/// The values given for a file's parameters; the others take their defaults when the file is planned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arguments {
    values: BTreeMap<String, ScalarValue>,
}

impl Arguments {
    /// Checks given texts against a file's parameters.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) for an unknown or repeated name, a text that is not of the
    /// type, and a parameter without a value and without a default.
    pub fn parse(file: &QueryFile, given: &[(String, String)]) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (name, text) in given {
            let Some(parameter) = file.params.iter().find(|parameter| &parameter.name == name) else {
                return Err(unknown(file, name));
            };
            if values.insert(name.clone(), value(file, parameter, text)?).is_some() {
                return Err(Error::config(format!("parameter `{name}` of {} is given twice", file.name)));
            }
        }
        for parameter in &file.params {
            if parameter.default.is_none() && !values.contains_key(&parameter.name) {
                let Parameter { name, kind, .. } = parameter;
                return Err(Error::config(format!("{} needs the parameter `{name}` ({kind})", file.name))
                    .with_hint(format!("add -p {name}=VALUE, for example -p '{name}={}'", kind.example())));
            }
        }
        Ok(Self { values })
    }

    /// Makes arguments in which every parameter without a default is NULL, to plan a file without running it.
    pub(super) fn nulls(file: &QueryFile) -> Result<Self> {
        let mut values = BTreeMap::new();
        for parameter in file.params.iter().filter(|parameter| parameter.default.is_none()) {
            let null = ScalarValue::try_from(&parameter.kind.arrow_type())
                .map_err(|cause| Error::internal("no NULL of a parameter's type").with_source(cause))?;
            values.insert(parameter.name.clone(), null);
        }
        Ok(Self { values })
    }

    /// Makes arguments of values that are typed already, as they were bound before.
    #[must_use]
    pub fn of_values(values: BTreeMap<String, ScalarValue>) -> Self {
        Self { values }
    }

    /// Sets a value that is typed already.
    pub(super) fn set(&mut self, name: &str, value: ScalarValue) {
        self.values.insert(name.to_owned(), value);
    }

    /// Returns the value given for a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ScalarValue> {
        self.values.get(name)
    }
}

fn unknown(file: &QueryFile, name: &str) -> Error {
    let error = Error::config(format!("{} has no parameter `{name}`", file.name));
    let names: Vec<&str> = file.params.iter().map(|parameter| parameter.name.as_str()).collect();
    match did_you_mean(name, names.iter().copied()) {
        Some(hint) => error.with_hint(hint),
        None if names.is_empty() => error.with_hint("it has no parameters"),
        None => error.with_hint(format!("its parameters are {}", names.join(", "))),
    }
}

fn value(file: &QueryFile, parameter: &Parameter, text: &str) -> Result<ScalarValue> {
    let Parameter { name, kind, .. } = parameter;
    typed(*kind, text).ok_or_else(|| {
        let list = if kind.item().is_some() { "; a JSON array can be given too" } else { "" };
        Error::config(format!("parameter `{name}` of {} is not of type {kind}: `{text}`", file.name))
            .with_hint(format!("for example -p '{name}={}'{list}", kind.example()))
    })
}

fn typed(kind: ParameterType, text: &str) -> Option<ScalarValue> {
    let trimmed = text.trim();
    match kind {
        ParameterType::Text => Some(ScalarValue::from(text)),
        ParameterType::Int => trimmed.parse::<i64>().ok().map(ScalarValue::from),
        ParameterType::Double => trimmed.parse::<f64>().ok().filter(|value| value.is_finite()).map(ScalarValue::from),
        ParameterType::Bool => trimmed.parse::<bool>().ok().map(ScalarValue::from),
        // The engine reads a time where a day is asked for and drops what is after it.
        ParameterType::Date if trimmed.len() != "2026-01-31".len() => None,
        // And takes a number without a unit for months.
        ParameterType::Interval if trimmed.rsplit(' ').next().is_some_and(|last| last.parse::<f64>().is_ok()) => None,
        ParameterType::Date | ParameterType::Timestamp | ParameterType::Interval => {
            let cast = ScalarValue::from(trimmed).cast_to(&kind.arrow_type()).ok()?;
            (!cast.is_null()).then_some(cast)
        }
        _ => {
            let item = kind.item()?;
            let items = items(trimmed, item)?.iter().map(|text| typed(item, text)).collect::<Option<Vec<_>>>()?;
            Some(ScalarValue::List(ScalarValue::new_list_nullable(&items, &item.arrow_type())))
        }
    }
}

/// Splits a list: a JSON array, which any item can be written in, or items between commas.
fn items(text: &str, kind: ParameterType) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    if !text.starts_with('[') {
        return Some(text.split(',').map(|item| item.trim().to_owned()).collect());
    }
    let array: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let text_of = |item| match item {
        serde_json::Value::String(text) => Some(text),
        // A number among texts is more likely a slip than a text.
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) if kind != ParameterType::Text => {
            Some(item.to_string())
        }
        _ => None,
    };
    array.into_iter().map(text_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn file(header: &str) -> QueryFile {
        QueryFile::parse("q.sql", &format!("{header}\nSELECT 1")).unwrap()
    }

    fn given(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn texts_become_values_of_the_declared_type() {
        for (kind, text, expected) in [
            ("text", " a'b ", " a'b "),
            ("int", "-3", "-3"),
            ("double", "0.5", "0.5"),
            ("bool", "true", "true"),
            ("date", "2026-01-31", "2026-01-31"),
            ("timestamp", "2026-01-31T01:00:00+01:00", "1769817600000"),
            ("timestamp", "2026-01-31", "1769817600000"),
            ("interval", "7 days", "IntervalMonthDayNano { months: 0, days: 7, nanoseconds: 0 }"),
            ("text[]", "a, b", "[a, b]"),
            ("text[]", r#"["a,b"]"#, "[a,b]"),
            ("text[]", "", "[]"),
            ("int[]", "1,2", "[1, 2]"),
            ("int[]", "[3]", "[3]"),
            ("int[]", "[]", "[]"),
            ("int[]", "[\"3\"]", "[3]"),
            ("double", "1e3", "1000"),
            ("double[]", "0.5, 1", "[0.5, 1.0]"),
            ("bool[]", "true,false", "[true, false]"),
            ("bool[]", "[true]", "[true]"),
            ("date[]", "2026-01-31,2026-02-01", "[2026-01-31, 2026-02-01]"),
            ("timestamp[]", "2026-01-31", "[2026-01-31T00:00:00Z]"),
            ("interval[]", "7 days,1 month", "[7 days, 1 mons]"),
        ] {
            let file = file(&format!("-- param x: {kind}"));
            let arguments = Arguments::parse(&file, &given(&[("x", text)])).unwrap();
            let value = arguments.get("x").unwrap();
            assert_eq!(value.data_type(), file.params[0].kind.arrow_type(), "{kind} {text}");
            assert_eq!(value.to_string(), expected, "{kind} {text}");
        }
    }

    #[test]
    fn texts_of_another_type_are_refused_with_text_and_type() {
        for (kind, text) in [
            ("int", "1.5"),
            ("int", ""),
            ("double", "NaN"),
            ("bool", "yes"),
            ("date", "31.1.2026"),
            ("timestamp", "yesterday"),
            ("interval", "a week"),
            ("int[]", "1,b"),
            ("text[]", "[1]"),
            ("text[]", "[\"a\""),
            ("int", "9223372036854775808"),
            ("double", "inf"),
            ("date", "2026-01-31T09:00:00Z"),
            ("date", "2026-02-30"),
            ("date", "2026-01-31x"),
            ("timestamp", "2026-01-31T25:00:00Z"),
            ("timestamp", ""),
            ("interval", ""),
            ("interval", "7"),
            ("interval", "1 day 7"),
            ("bool", "1"),
            ("int[]", "1,"),
            ("int[]", "[null]"),
            ("int[]", "[[1]]"),
            ("int[]", "[1.5]"),
            ("bool[]", "[1]"),
            ("date[]", "2026-01-31,soon"),
            ("double[]", "1;2"),
        ] {
            let error = Arguments::parse(&file(&format!("-- param x: {kind}")), &given(&[("x", text)])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.message(), format!("parameter `x` of q is not of type {kind}: `{text}`"));
        }
    }

    #[test]
    fn missing_unknown_and_repeated_parameters_are_refused() {
        let file = file("-- param since: timestamp\n-- param rows: int = 5");
        let error = Arguments::parse(&file, &[]).unwrap_err();
        assert_eq!(error.message(), "q needs the parameter `since` (timestamp)");
        assert!(error.hint().unwrap().contains("-p since=VALUE"));
        let error = Arguments::parse(&file, &given(&[("sinse", "x")])).unwrap_err();
        assert_eq!(error.message(), "q has no parameter `sinse`");
        assert_eq!(error.hint(), Some("did you mean `since`?"));
        let error = Arguments::parse(&file, &given(&[("rows", "1"), ("rows", "2")])).unwrap_err();
        assert!(error.message().contains("given twice"));
    }
}
