//! Rules that can never match, and fields that two rules claim: refused before the first request.
//!
//! A rule that matches nothing is a mistake in writing, and one that hides another: whoever wrote it believes that a field is
//! masked. Refused is what no record of the source can have, whatever it defines:
//!
//! * a path that does not begin with a key of a record, or goes on below a value that is never an object;
//! * a value where a record always has an object (`attributes`, `relationships`);
//! * an element of an array beyond the 256th, which the decoder does not count to;
//! * a key inside a custom attribute whose suffix says that it is no object;
//! * a custom rule by name for an attribute that a column reads.
//!
//! A pattern over custom attributes is never shadowed by other rules: what goes before it is longer or a single name, and
//! leaves names that only the pattern covers. The same pattern twice is refused where the file is read.

use crate::error::{Error, did_you_mean};
use crate::policy::custom::attribute_at;
use crate::policy::method::Place;
use crate::policy::names::suffix;
use crate::policy::rules::CUSTOM_PATH;
use crate::schema::{Column, ColumnType, TableSchema};

/// The keys of a record.
const RECORD_KEYS: [&str; 6] = ["id", "type", "attributes", "relationships", "links", "meta"];

/// Finds the rules of a table that can never match: what to refuse, columns first.
pub(super) fn problems(schema: &TableSchema) -> Vec<Error> {
    let columns = schema.columns.iter().filter_map(|column| {
        let (message, hint) = check_path(column).err()?;
        Some(never(schema, column, message).with_hint(hint))
    });
    let named = schema.custom.iter().filter(|rule| rule.is_by_name());
    let custom = named.filter_map(|rule| {
        let column = schema.columns.iter().find(|column| attribute_at(&column.path) == Some(&rule.pattern))?;
        let place = Place { file: schema.file.clone(), line: rule.line, kind: "pattern", name: rule.pattern.clone() };
        Some(place.wrong("two rules for one field: this one can never match").with_hint(format!(
            "column `{}` on line {} reads the attribute and goes first: remove one of them",
            column.name, column.line
        )))
    });
    columns.chain(custom).collect()
}

fn never(schema: &TableSchema, column: &Column, message: &str) -> Error {
    Place { file: schema.file.clone(), line: column.line, kind: "column", name: column.name.clone() }
        .wrong(message)
        .with_context("path", column.path.join("."))
}

/// Checks a column's path; what is wrong and the way out.
fn check_path(column: &Column) -> Result<(), (&'static str, String)> {
    let path: Vec<&str> = column.path.iter().map(String::as_str).collect();
    let keys = path.as_slice();
    for key in keys.iter().skip(1).filter(|key| key.bytes().all(|byte| byte.is_ascii_digit() || byte == b'+')) {
        match key.parse::<u8>() {
            Ok(index) if index.to_string() == *key => {}
            Ok(index) => return Err(("index is not written in its one form", format!("write `{index}`"))),
            Err(_) => {
                let hint = "an index goes up to 255: name an element nearer to the start, or the array as `text_list`";
                return Err(("path can never match: the array is not read so far", hint.to_owned()));
            }
        }
    }
    let (first, below) = keys.split_first().map_or(("", keys), |(first, below)| (*first, below));
    if !RECORD_KEYS.contains(&first) {
        let hint = format!("{}; most fields stand in `attributes`", did_you_mean(first, RECORD_KEYS));
        return Err(("path can never match: a record has no such key", hint));
    }
    match (first, below) {
        ("id" | "type", []) if !matches!(column.column_type, ColumnType::Text | ColumnType::Any) => {
            return Err(("path can never match: the value is a text", "write `type = \"text\"`".to_owned()));
        }
        ("id" | "type", [_, ..]) => {
            return Err((
                "path can never match: there is nothing inside a text",
                format!("write `path = \"{first}\"`"),
            ));
        }
        _ => {}
    }
    let is_object = match (first, below) {
        ("attributes" | "relationships" | "links" | "meta", []) => true,
        _ => keys == CUSTOM_PATH,
    };
    if is_object && column.column_type != ColumnType::Any {
        let hint = match (first, below) {
            ("attributes", [_]) => "declare attributes one by one, or by `[[custom]]` rules".to_owned(),
            _ => "declare what is inside, or give it the type `any` to drop it".to_owned(),
        };
        return Err(("path can never match: the value is always an object", hint));
    }
    check_inside_attribute(&column.path)
}

/// Checks what a path names inside a custom attribute. One that holds several values is an array, whatever its suffix; a tree
/// is left alone.
fn check_inside_attribute(path: &[String]) -> Result<(), (&'static str, String)> {
    let Some(attribute) = attribute_at(path).filter(|attribute| !attribute.ends_with("Tree")) else { return Ok(()) };
    let inside = &path[CUSTOM_PATH.len() + 1..];
    let is_element = matches!(inside, [index] if index.parse::<u8>().is_ok());
    if suffix(attribute).is_none() || inside.is_empty() || is_element {
        return Ok(());
    }
    let hint = format!("write `path = \"{}.{attribute}\"`", CUSTOM_PATH.join("."));
    Err(("path can never match: there is nothing inside an attribute of this suffix", hint))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::error::Result;
    use crate::model::Stream;
    use crate::policy::Policy;
    use crate::schema::Schemas;

    const HEAD: &str = "stream = \"tags\"\n[[column]]\nname = \"tag_id\"\npath = \"id\"\ntype = \"text\"\nclass = \"internal\"\ndescription = \"Id.\"\n";

    fn compile(tail: &str) -> Result<Policy> {
        Policy::compile(&Schemas::from_files([("tags.toml", format!("{HEAD}{tail}").as_str())])?)
    }

    fn column(path: &str, column_type: &str) -> String {
        let method = if column_type == "any" { "drop" } else { "keep" };
        format!(
            "[[column]]\nname = \"x\"\npath = \"{path}\"\ntype = \"{column_type}\"\nclass = \"internal\"\nmethod = \"{method}\"\ndescription = \"D.\"\n"
        )
    }

    #[test]
    fn path_that_no_record_has_is_refused_with_the_way_out() {
        for (path, column_type, message, hint) in [
            (
                "attribute.name",
                "text",
                "a record has no such key",
                "did you mean `attributes`?; most fields stand in `attributes`",
            ),
            (
                "subject",
                "text",
                "a record has no such key",
                "known are: id, type, attributes, relationships, links, meta; most fields stand in `attributes`",
            ),
            ("type.name", "text", "there is nothing inside a text", "write `path = \"type\"`"),
            ("type", "int", "the value is a text", "write `type = \"text\"`"),
            (
                "attributes",
                "text",
                "the value is always an object",
                "declare what is inside, or give it the type `any` to drop it",
            ),
            (
                "attributes.custom",
                "text",
                "the value is always an object",
                "declare attributes one by one, or by `[[custom]]` rules",
            ),
            (
                "attributes.emails.256.email",
                "text",
                "the array is not read so far",
                "an index goes up to 255: name an element nearer to the start, or the array as `text_list`",
            ),
            (
                "attributes.custom.tierNum.value",
                "int",
                "there is nothing inside an attribute of this suffix",
                "write `path = \"attributes.custom.tierNum\"`",
            ),
            (
                "attributes.custom.orderId.0.id",
                "text",
                "there is nothing inside an attribute of this suffix",
                "write `path = \"attributes.custom.orderId\"`",
            ),
        ] {
            let error = compile(&column(path, column_type)).unwrap_err();
            let place = format!("file: tags.toml, line: 8, column: x, path: {path}");
            assert_eq!(error.to_string(), format!("path can never match: {message} ({place})"));
            assert_eq!(error.hint(), Some(hint), "{path}");
        }
        let error = compile(&column("attributes.emails.00.email", "text")).unwrap_err();
        assert_eq!(
            (error.message(), error.hint()),
            ("index is not written in its one form", Some("write `0`")),
            "two such paths would be one field"
        );
    }

    #[test]
    fn path_that_a_record_can_have_is_not_refused() {
        for (path, column_type) in [
            ("type", "text"),
            ("type", "any"),
            ("attributes", "any"),
            ("attributes.custom", "any"),
            ("attributes.emails.255.email", "text"),
            ("attributes.256th", "text"),
            ("attributes.custom.tierNum", "text"),
            ("attributes.custom.orderId.0", "text"),
            ("attributes.custom.pathTree.leaf", "text"),
            ("attributes.custom.plain.inside", "text"),
            ("relationships.customer", "any"),
            ("relationships.customer", "text"),
            ("relationships.customer.links.self", "text"),
            ("relationships.messages.data.0.id", "text"),
            ("links.self", "text"),
            ("meta.score", "float"),
        ] {
            assert!(compile(&column(path, column_type)).is_ok(), "{path}");
        }
    }

    #[test]
    fn rule_by_name_for_an_attribute_that_a_column_reads_is_refused() {
        let rule = "[[custom]]\npattern = \"plain\"\nclass = \"internal\"\n";
        for path in ["attributes.custom.plain", "attributes.custom.plain.inside"] {
            let error = compile(&format!("{}{rule}", column(path, "text"))).unwrap_err();
            assert_eq!(
                error.to_string(),
                "two rules for one field: this one can never match (file: tags.toml, line: 15, pattern: plain)"
            );
            assert_eq!(
                error.hint(),
                Some("column `x` on line 8 reads the attribute and goes first: remove one of them")
            );
        }
        let other = rule.replace("plain", "plain*");
        assert!(compile(&format!("{}{other}", column("attributes.custom.plain", "text"))).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

        #[test]
        fn every_pattern_decides_over_some_attribute(
            patterns in prop::collection::btree_set(r"\*|[ab]{1,3}\*|\*[ab]{1,3}|[ab]{1,3}", 1..8)
                .prop_map(|patterns| patterns.into_iter().collect::<Vec<_>>())
                .prop_shuffle(),
        ) {
            let rule = |pattern: &String| format!("[[custom]]\npattern = \"{pattern}\"\nclass = \"internal\"\n");
            let rules = patterns.iter().map(rule).collect::<Vec<_>>().concat();
            let policy = compile(&rules).unwrap();
            for pattern in &patterns {
                let attribute = pattern.replace('*', "zzz");
                let rule = policy.rule_of_attribute(Stream::Tags, &attribute).unwrap().unwrap();
                prop_assert_eq!(&rule.name, pattern);
            }
        }
    }
}
