//! Rules in words: methods and classes as people say them, and values that are made up to show them.

use serde_json::{Value, json};

use super::INVENTED_ID;
use crate::schema::{Class, ColumnType};

/// Says what a method leaves of a value; `method` is its canonical text.
pub(super) fn method(method: &str) -> String {
    let (name, arguments) = parts(method);
    let argument = |name: &str| arguments.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    match (name, argument("as"), argument("keep_last"), argument("to"), argument("chars")) {
        ("keep", ..) => "stored as it is".to_owned(),
        ("drop", ..) => "not stored: it is skipped while the page is read".to_owned(),
        ("mask", Some("email"), ..) => "masked: the first letter and the domain of the address stay".to_owned(),
        ("mask", Some("phone"), ..) => "masked: the last two digits stay".to_owned(),
        ("mask", _, Some(last), ..) => format!("masked: the last {last} characters stay"),
        ("mask", ..) => "masked: only that there is a value can be seen".to_owned(),
        ("pseudonymize", ..) => format!(
            "replaced by a pseudonym: equal values of the domain `{}` get equal ones, and nobody gets back without the key",
            argument("domain").unwrap_or("table.column")
        ),
        ("truncate", _, _, Some(to), _) => format!("cut to the start of its {to} (UTC)"),
        ("truncate", .., Some(chars)) => format!("cut to its first {chars} characters"),
        ("bucket", ..) => match (argument("bounds"), argument("width")) {
            (Some(bounds), _) => format!("only the range is stored that it falls into; ranges begin at {bounds}"),
            (_, Some(width)) => format!("only the range is stored that it falls into; ranges are {width} wide"),
            _ => "only the range is stored that it falls into".to_owned(),
        },
        ("scrub", ..) => "addresses, numbers and the like in the text are replaced by their kind".to_owned(),
        ("restrict", ..) => {
            let second = "under a second key; whoever does not have it reads NULL";
            match argument("after") {
                Some(after) => {
                    let rest: Vec<String> = arguments
                        .iter()
                        .filter(|(name, _)| name != "after")
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect();
                    format!("{}; and {second}", self::method(&format!("{after}({})", rest.join(","))))
                }
                None => format!("stored {second}"),
            }
        }
        _ => format!("stored through {method}"),
    }
}

/// Splits a canonical text into the name and its arguments; brackets and quotes hold together what is inside.
pub(super) fn parts(method: &str) -> (&str, Vec<(String, String)>) {
    let Some((name, rest)) = method.split_once('(') else { return (method, Vec::new()) };
    let rest = rest.strip_suffix(')').unwrap_or(rest);
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    let mut arguments = vec![String::new()];
    for letter in rest.chars() {
        match letter {
            '"' if !is_escaped => is_quoted = !is_quoted,
            '[' if !is_quoted => depth += 1,
            ']' if !is_quoted => depth = depth.saturating_sub(1),
            ',' if !is_quoted && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
        if let Some(last) = arguments.last_mut() {
            last.push(letter);
        }
    }
    let named = |text: String| {
        let (name, value) = text.split_once('=')?;
        let value = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
        Some((name.to_owned(), value))
    };
    (name, arguments.into_iter().filter_map(named).collect())
}

/// Says what a class means.
pub(super) const fn class(class: Class) -> &'static str {
    match class {
        Class::Public => "may be shown to anyone",
        Class::Internal => "for the organisation",
        Class::Personal => "about a person",
        Class::Content => "what people wrote",
    }
}

/// Makes up a value for a column: it shows what its method does, and is nobody's.
pub(super) fn example(path: &str, column_type: ColumnType, method: &str) -> Value {
    if path == "id" {
        return json!(INVENTED_ID);
    }
    let text = || {
        let (name, arguments) = parts(method);
        let has = |value: &str| arguments.iter().any(|(_, known)| known == value);
        let path = path.to_lowercase();
        if name == "scrub" || has("scrub") {
            "Please call +1 212 555 0123 or write to zoe@example.com"
        } else if has("email") || path.contains("email") {
            "zoe@example.com"
        } else if has("phone") || path.contains("phone") {
            "+1 212 555 0123"
        } else if arguments.iter().any(|(name, _)| name == "keep_last") {
            "4000001234567890"
        } else {
            "an invented text"
        }
    };
    match column_type {
        ColumnType::Text => json!(text()),
        ColumnType::TextList => json!([text()]),
        ColumnType::Int => json!(1_234),
        ColumnType::Float => json!(1_234.5),
        ColumnType::Bool => json!(true),
        ColumnType::Timestamp => json!("2026-10-30T13:37:42.500Z"),
        ColumnType::Any => json!({ "anything": "inside" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_words_of_its_own() {
        for (canonical, words) in [
            ("keep", "stored as it is"),
            ("drop", "not stored"),
            ("mask", "masked: only that there is a value"),
            ("mask(as=email)", "the first letter and the domain"),
            ("mask(as=phone)", "the last two digits"),
            ("mask(keep_last=4)", "the last 4 characters"),
            ("pseudonymize(domain=email)", "domain `email`"),
            ("truncate(to=day)", "start of its day"),
            ("truncate(chars=3)", "first 3 characters"),
            ("bucket(bounds=[0,10,100])", "ranges begin at [0,10,100]"),
            ("bucket(width=10)", "ranges are 10 wide"),
            ("scrub(kinds=[\"email\",\"phone\"])", "replaced by their kind"),
            ("restrict", "stored under a second key"),
            (
                "restrict(after=mask,as=email)",
                "masked: the first letter and the domain of the address stay; and under a second key",
            ),
            ("later(x=1)", "stored through later(x=1)"),
        ] {
            let found = method(canonical);
            assert!(found.contains(words), "{canonical}: {found}");
        }
    }

    #[test]
    fn arguments_are_split_outside_of_brackets_and_quotes() {
        let of = |text: &str| parts(text).1.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>();
        assert_eq!(of("a(b=[1,2],c=\"x,\\\"y\",d=z)"), ["b:[1,2]", "c:x,\"y", "d:z"]);
        assert_eq!(of("keep"), [""; 0]);
    }
}
