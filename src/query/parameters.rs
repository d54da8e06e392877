//! Arguments of a query: texts of the command line turned into typed values.
//!
//! A value is bound to its placeholder `$name` as a literal of the plan. No text of a caller ever becomes SQL; only the
//! default, which the file's author wrote, is an SQL expression, and it must be constant.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;

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
        Error::config(format!("parameter `{name}` of {} is not of type {kind}: `{text}`", file.name))
            .with_hint(format!("for example -p '{name}={}'", kind.example()))
    })
}

fn typed(kind: ParameterType, text: &str) -> Option<ScalarValue> {
    let trimmed = text.trim();
    match kind {
        ParameterType::Text => Some(ScalarValue::from(text)),
        ParameterType::Int => trimmed.parse::<i64>().ok().map(ScalarValue::from),
        ParameterType::Double => trimmed.parse::<f64>().ok().filter(|value| value.is_finite()).map(ScalarValue::from),
        ParameterType::Bool => trimmed.parse::<bool>().ok().map(ScalarValue::from),
        ParameterType::Date | ParameterType::Timestamp | ParameterType::Interval => {
            let cast = ScalarValue::from(trimmed).cast_to(&kind.arrow_type()).ok()?;
            (!cast.is_null()).then_some(cast)
        }
        ParameterType::TextList => {
            let items = items(trimmed)?
                .into_iter()
                .map(|item| match item {
                    serde_json::Value::String(text) => Some(text),
                    _ => None,
                })
                .collect::<Option<Vec<String>>>()?;
            Some(list(Arc::new(StringArray::from(items))))
        }
        ParameterType::IntList => {
            let items = items(trimmed)?
                .into_iter()
                .map(|item| match item {
                    serde_json::Value::String(text) => text.parse().ok(),
                    other => other.as_i64(),
                })
                .collect::<Option<Vec<i64>>>()?;
            Some(list(Arc::new(Int64Array::from(items))))
        }
    }
}

/// Splits a list: a JSON array, which any item can be written in, or items between commas.
fn items(text: &str) -> Option<Vec<serde_json::Value>> {
    if text.starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    if text.is_empty() {
        return Some(Vec::new());
    }
    Some(text.split(',').map(|item| serde_json::Value::from(item.trim())).collect())
}

fn list(items: ArrayRef) -> ScalarValue {
    SingleRowListArrayBuilder::new(items).build_list_scalar()
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
