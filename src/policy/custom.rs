//! Custom attributes: rules over names become columns, with the source's definitions at each run.
//!
//! An attribute's type is told by its suffix (`Str`, `Txt`, `Url`, `Id`, `Tree`: text; `Num`: float; `At`: timestamp; `Bool`:
//! bool), or by its definition where the suffix says nothing or the definition contradicts it, since the definition is what
//! records are checked against; one that may hold several values is a `text_list`. Definitions that were deleted still make
//! a column, since old records hold values, and so do those that the lake knows and the source lists no more.
//!
//! What columns are called stands in `policy/names.rs`.
//!
//! # When the source changes
//!
//! No change at the source stops a run: only people write rules, so only rules can be wrong. A new attribute that a rule
//! covers becomes a column. One whose type changed gets a second column. One whose type its rule cannot be applied to (a
//! mask over numbers) makes no column: its values are dropped, and reported like those of any undeclared field.
//! [`AttributeChange`] says which.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::Field;

use crate::error::Result;
use crate::policy::definitions::{Definition, Held};
use crate::policy::method::{Defaults, Method, Place};
use crate::policy::names::{attribute_of, column_names, columns_of, suffix};
use crate::policy::rules::{CUSTOM_PATH, CompiledColumn, TableRules, check_content};
use crate::schema::{Class, ColumnType, CustomRule, TableSchema};

/// What is new about a custom attribute, against the columns that the lake has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeChange {
    /// The attribute's name at the source.
    pub attribute: String,
    /// Its type now, as schema files name it.
    pub now: &'static str,
    /// What became of it.
    pub change: Change,
}

/// What became of a custom attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A rule covers it that did not before, or it was defined since: its column is new.
    Added {
        /// The column.
        column: String,
    },
    /// It had another type: what comes now goes to a new column, the old one keeps what it has.
    Retyped {
        /// The column from now on.
        column: String,
        /// The column of the old type.
        before: String,
        /// The old type, as schema files name it.
        was: &'static str,
    },
    /// Its rule's method does not fit its type: nothing of it is stored.
    LeftOut {
        /// The rule's pattern.
        pattern: String,
    },
}

/// The columns of a table's custom rules, and what of them is new.
#[derive(Debug, Default)]
pub(super) struct Expansion {
    pub(super) columns: Vec<CompiledColumn>,
    pub(super) changes: Vec<AttributeChange>,
}

/// Checks what can be known of a rule before the definitions are, and returns its method in canonical text.
pub(super) fn check_rule(schema: &TableSchema, rule: &CustomRule) -> Result<String> {
    let place = place(&schema.file, rule);
    let method = Method::compile(&rule.method, Defaults { domain: "", patterns: &schema.patterns }, &place)?;
    let told = suffix(&rule.pattern).map(|(_, column_type)| column_type);
    if let Some(column_type) = told {
        method.check_fits(column_type, &place)?;
    }
    check_content(rule.class, told.unwrap_or(ColumnType::Text), &method, &place)?;
    method.check_scrub(&place)?;
    Ok(method.canonical())
}

/// Makes the columns of a table's custom rules; `held` are the columns that the lake has.
pub(super) fn expand(
    rules: &TableRules,
    definitions: &BTreeMap<String, Definition>,
    held: &[Held],
) -> Result<Expansion> {
    let covered = covered(rules, definitions, held);
    let types = covered.iter().map(|(attribute, (column_type, ..))| (*attribute, *column_type)).collect();
    let names = column_names(&types, &rules.names(), held);
    let mut expansion = Expansion::default();
    for (attribute, (column_type, definition, rule)) in covered {
        let Some(name) = names.get(attribute) else { continue };
        let place = place(&rules.file, rule);
        let method = method_of(rules, rule, name)?;
        let fits = method
            .check_fits(column_type, &place)
            .and_then(|()| check_content(rule.class, column_type, &method, &place));
        let change = if fits.is_err() {
            Some(Change::LeftOut { pattern: rule.pattern.clone() })
        } else {
            change(attribute, name, held).filter(|_| method != Method::Drop)
        };
        if let Some(change) = change {
            expansion.changes.push(AttributeChange {
                attribute: attribute.to_owned(),
                now: column_type.name(),
                change,
            });
        }
        if fits.is_err() {
            continue;
        }
        let shown = definition.and_then(|definition| definition.display_name.as_deref());
        expansion.columns.push(CompiledColumn {
            name: name.clone(),
            path: CUSTOM_PATH.into_iter().chain([attribute]).map(str::to_owned).collect(),
            column_type,
            unit: None,
            class: rule.class,
            method,
            description: match shown.or(rule.description.as_deref()) {
                Some(shown) => format!("Custom attribute {attribute}: {shown}"),
                None => format!("Custom attribute {attribute}"),
            },
            line: rule.line,
        });
    }
    Ok(expansion)
}

/// Compiles the method that a rule has for a column that it makes.
pub(super) fn method_of(rules: &TableRules, rule: &CustomRule, column: &str) -> Result<Method> {
    let domain = format!("{}.{column}", rules.stream);
    let defaults = Defaults { domain: &domain, patterns: &rules.patterns };
    Method::compile(&rule.method, defaults, &place(&rules.file, rule))
}

/// A covered attribute's type, definition and rule.
type Covered<'a> = (ColumnType, Option<&'a Definition>, &'a CustomRule);

/// Finds the attributes that rules cover: those that are defined, those that the lake has, those that rules name.
fn covered<'a>(
    rules: &'a TableRules,
    definitions: &'a BTreeMap<String, Definition>,
    held: &'a [Held],
) -> BTreeMap<&'a str, Covered<'a>> {
    let named = rules.custom.iter().filter(|rule| rule.is_by_name()).map(|rule| rule.pattern.as_str());
    let defined = definitions.keys().map(String::as_str);
    let known: BTreeSet<&str> = named.chain(defined).chain(held.iter().filter_map(attribute_of)).collect();
    let mut covered = BTreeMap::new();
    for attribute in known.into_iter().filter(|attribute| !is_declared(rules, attribute)) {
        let definition = definitions.get(attribute);
        let Some(rule) = rule_of(rules, attribute) else { continue };
        let is_sensitive = definition.is_some_and(|definition| definition.is_sensitive);
        if is_sensitive && !rule.is_by_name() && rule.method.name != "drop" {
            continue;
        }
        covered.insert(attribute, (column_type(attribute, definition, held), definition, rule));
    }
    covered
}

/// Returns the method and the class that the rules have for a stored column of a custom attribute; `None` when they store
/// nothing of it, or the column is not one that a rule made.
pub(super) fn rule_of_column(
    rules: &TableRules,
    definitions: &BTreeMap<String, Definition>,
    field: &Field,
) -> Result<Option<(Method, Class)>> {
    let held = Held::of(field);
    let (Some(attribute), Some(column_type)) = (attribute_of(&held), held.column_type) else { return Ok(None) };
    let Some(rule) = rule_of(rules, attribute).filter(|_| !is_declared(rules, attribute)) else { return Ok(None) };
    let is_sensitive = definitions.get(attribute).is_some_and(|definition| definition.is_sensitive);
    let method = method_of(rules, rule, field.name())?;
    let place = place(&rules.file, rule);
    let fits = method.check_fits(column_type, &place);
    let fits = fits.and_then(|()| check_content(rule.class, column_type, &method, &place)).is_ok();
    let is_stored = fits && method != Method::Drop && (rule.is_by_name() || !is_sensitive);
    Ok(is_stored.then_some((method, rule.class)))
}

/// Finds the rule that decides over an attribute: one by name, else the longest pattern, of equal ones the first.
pub(super) fn rule_of<'a>(rules: &'a TableRules, attribute: &str) -> Option<&'a CustomRule> {
    // The last of equal ones is taken, hence the reversed order.
    let covering = rules.custom.iter().rev().filter(|rule| rule.covers(attribute));
    covering.max_by_key(|rule| (rule.is_by_name(), rule.pattern.len()))
}

/// Tells what is new about an attribute; of a table that the lake does not have yet nothing is.
fn change(attribute: &str, name: &str, held: &[Held]) -> Option<Change> {
    if held.is_empty() || held.iter().any(|column| column.name == name) {
        return None;
    }
    let column = name.to_owned();
    Some(match columns_of(held, attribute).last() {
        Some(before) => Change::Retyped {
            column,
            before: before.name.clone(),
            was: before.column_type.map_or("another", ColumnType::name),
        },
        None => Change::Added { column },
    })
}

fn place(file: &str, rule: &CustomRule) -> Place {
    Place { file: file.to_owned(), line: rule.line, kind: "pattern", name: rule.pattern.clone() }
}

/// Tells whether a column reads the attribute or something inside it.
pub(super) fn is_declared(rules: &TableRules, attribute: &str) -> bool {
    rules.columns.iter().any(|column| attribute_at(&column.path) == Some(attribute))
}

/// Returns the custom attribute that a path leads to or into.
pub(super) fn attribute_at(path: &[String]) -> Option<&str> {
    let (above, below) = path.split_at_checked(CUSTOM_PATH.len())?;
    below.first().filter(|_| above == CUSTOM_PATH).map(String::as_str)
}

fn column_type(attribute: &str, definition: Option<&Definition>, held: &[Held]) -> ColumnType {
    use ColumnType::{Bool, Float, Text, TextList, Timestamp};
    let told = suffix(attribute).map(|(_, column_type)| column_type);
    // What the source defines no more stays what it was last.
    let before = || columns_of(held, attribute).last().and_then(|column| column.column_type);
    let single = match (definition.map(|definition| definition.json_type.as_deref()), told) {
        (None, _) => before().or(told).unwrap_or(Text),
        (Some(Some("number" | "integer")), _) => Float,
        (Some(Some("boolean")), _) => Bool,
        // Times are texts in records, so either suffix may go with either definition.
        (Some(Some("string" | "date" | "datetime" | "date-time")), Some(told @ (Text | Timestamp))) => told,
        (Some(Some("date" | "datetime" | "date-time")), _) => Timestamp,
        (Some(Some("string")), _) => Text,
        (Some(_), Some(told)) => told,
        (Some(_), None) => before().unwrap_or(Text),
    };
    if definition.is_some_and(|definition| definition.is_multi) { TextList } else { single }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Stream;
    use crate::policy::definitions::Definitions;
    use crate::policy::rules::TableRules;
    use crate::schema::Schemas;

    const RULES: &str = r#"
stream = "tags"
[[column]]
name = "tag_id"
path = "id"
type = "text"
class = "internal"
description = "Id."
[[custom]]
pattern = "*"
class = "internal"
[[custom]]
pattern = "*Str"
class = "personal"
method = "mask"
[[custom]]
pattern = "*Txt"
class = "content"
method = "drop"
"#;

    fn rules() -> TableRules {
        let schemas = Schemas::from_files([("tags.toml", RULES)]).unwrap();
        TableRules::compile(schemas.table(Stream::Tags).unwrap()).unwrap()
    }

    fn defined(properties: &str) -> Definitions {
        let mut definitions = Definitions::default();
        let page = format!(r#"{{"data":{{"attributes":{{"properties":{{{properties}}}}}}}}}"#);
        definitions.add(Stream::Tags, page.as_bytes()).unwrap();
        definitions
    }

    fn held(columns: &[(&str, &str, ColumnType)]) -> Vec<Held> {
        let column = |(name, path, of_type): &(&str, &str, ColumnType)| Held {
            name: (*name).to_owned(),
            path: Some((*path).to_owned()),
            column_type: Some(*of_type),
        };
        columns.iter().map(column).collect()
    }

    fn columns(expansion: &Expansion) -> Vec<String> {
        expansion.columns.iter().map(|column| format!("{} {}", column.name, column.column_type.name())).collect()
    }

    fn of(properties: &str, held: &[Held]) -> Expansion {
        expand(&rules(), defined(properties).of(Stream::Tags), held).unwrap()
    }

    #[test]
    fn suffix_tells_the_type_unless_the_definition_contradicts_it() {
        for (attribute, definition, expected) in [
            ("a", r#"{"type":"string"}"#, "custom_a text"),
            ("a", r#"{"type":"string","format":"date-time"}"#, "custom_a timestamp"),
            ("a", "null", "custom_a text"),
            ("aNum", r#"{"type":"number"}"#, "custom_a float"),
            ("aNum", "{}", "custom_a float"),
            ("aNum", r#"{"type":"string"}"#, "custom_a text"),
            ("aAt", r#"{"type":"string"}"#, "custom_a timestamp"),
            ("aId", r#"{"type":"string","format":"date"}"#, "custom_a text"),
            ("aId", r#"{"type":"string","multi":true}"#, "custom_a text_list"),
            ("aBool", r#"{"type":"boolean"}"#, "custom_a bool"),
            ("aBool", r#"{"type":"object"}"#, "custom_a bool"),
        ] {
            assert_eq!(
                columns(&of(&format!("\"{attribute}\":{definition}"), &[])),
                [expected],
                "{attribute} {definition}"
            );
        }
    }

    #[test]
    fn rule_that_does_not_fit_the_type_of_an_attribute_leaves_it_out_and_says_so() {
        let found = of(r#""aStr":{"type":"number"},"bTxt":{"type":"number"},"cNum":{"type":"number"}"#, &[]);
        assert_eq!(columns(&found), ["custom_b float", "custom_c float"]);
        let left_out = Change::LeftOut { pattern: "*Str".to_owned() };
        assert_eq!(found.changes, [AttributeChange { attribute: "aStr".to_owned(), now: "float", change: left_out }]);
    }

    #[test]
    fn attribute_that_the_lake_has_stays_a_column_when_nothing_defines_it() {
        let in_lake = held(&[
            ("tag_id", "id", ColumnType::Text),
            ("custom_a", "attributes.custom.a", ColumnType::Bool),
            ("custom_b", "attributes.custom.bNum", ColumnType::Float),
            ("custom_b_text", "attributes.custom.bNum", ColumnType::Text),
            ("custom_c", "attributes.c", ColumnType::Text),
        ]);
        let found = of("", &in_lake);
        assert_eq!(columns(&found), ["custom_a bool", "custom_b_text text"]);
        assert_eq!(found.changes, []);
    }

    #[test]
    fn sensitive_attribute_is_no_column_of_a_pattern_even_where_the_lake_has_one() {
        let in_lake = held(&[("custom_a", "attributes.custom.a", ColumnType::Text)]);
        let found = of(r#""a":{"type":"string","hasSensitiveAttributes":true}"#, &in_lake);
        assert_eq!(columns(&found), [""; 0]);
    }

    #[test]
    fn new_and_changed_attributes_are_told_once() {
        let in_lake =
            held(&[("tag_id", "id", ColumnType::Text), ("custom_a", "attributes.custom.a", ColumnType::Text)]);
        let properties = r#""a":{"type":"number"},"b":{"type":"boolean"},"cTxt":{"type":"string"}"#;
        let found = of(properties, &in_lake);
        assert_eq!(columns(&found), ["custom_a_num float", "custom_b bool", "custom_c text"]);
        let retyped = Change::Retyped { column: "custom_a_num".to_owned(), before: "custom_a".to_owned(), was: "text" };
        let added = Change::Added { column: "custom_b".to_owned() };
        assert_eq!(
            found.changes,
            [
                AttributeChange { attribute: "a".to_owned(), now: "float", change: retyped },
                AttributeChange { attribute: "b".to_owned(), now: "bool", change: added },
            ]
        );
        let mut later = in_lake;
        later.extend(held(&[
            ("custom_a_num", "attributes.custom.a", ColumnType::Float),
            ("custom_b", "attributes.custom.b", ColumnType::Bool),
        ]));
        assert_eq!(of(properties, &later).changes, []);
    }
}
