//! Custom attributes: rules over names become columns, with the source's definitions at each run.
//!
//! An attribute's type is told by its suffix (`Str`, `Txt`, `Url`, `Id`, `Tree`: text; `Num`: float; `At`: timestamp; `Bool`:
//! bool), or by its definition where the suffix says nothing; one that may hold several values is a `text_list`. Definitions
//! that were deleted still make a column, since old records hold values.
//!
//! A column is named `custom_` and the attribute's name in snake case without its suffix. Where two attributes differ in the
//! suffix alone, `Str` has the short name and the others keep their suffix; names that still collide are numbered in the order
//! of the attributes' names. All of it depends on the set of attributes only, never on the order of an answer.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::error::Result;
use crate::model::Stream;
use crate::policy::definitions::Definition;
use crate::policy::method::{Method, Place};
use crate::policy::rules::{CUSTOM_PATH, CompiledColumn, TableRules, check_content};
use crate::schema::{ColumnType, CustomRule};

const SUFFIXES: [(&str, ColumnType); 8] = [
    ("Str", ColumnType::Text),
    ("Txt", ColumnType::Text),
    ("Url", ColumnType::Text),
    ("Tree", ColumnType::Text),
    ("Num", ColumnType::Float),
    ("Bool", ColumnType::Bool),
    ("At", ColumnType::Timestamp),
    ("Id", ColumnType::Text),
];

/// Checks what can be known of a rule before the definitions are.
pub(super) fn check_rule(stream: Stream, file: &str, rule: &CustomRule) -> Result<()> {
    let place = place(file, rule);
    let method = Method::compile(&rule.method, &format!("{stream}.{}", rule.pattern), &place)?;
    match suffix(&rule.pattern) {
        Some((_, column_type)) => {
            method.check_fits(column_type, &place)?;
            check_content(rule.class, column_type, &method, &place)
        }
        None => check_content(rule.class, ColumnType::Text, &method, &place),
    }
}

/// Makes the columns of a table's custom rules.
pub(super) fn expand(rules: &TableRules, definitions: &BTreeMap<String, Definition>) -> Result<Vec<CompiledColumn>> {
    let undefined = Definition::default();
    let mut covered: BTreeMap<&str, (&Definition, &CustomRule)> = BTreeMap::new();
    for rule in rules.custom.iter().filter(|rule| rule.is_by_name()) {
        covered.insert(&rule.pattern, (definitions.get(&rule.pattern).unwrap_or(&undefined), rule));
    }
    for (attribute, definition) in definitions {
        // A longer pattern decides; of equal ones the first, hence the reversed order.
        let rule =
            rules.custom.iter().rev().filter(|rule| rule.covers(attribute)).max_by_key(|rule| rule.pattern.len());
        if let Some(rule) = rule
            && (!definition.is_sensitive || rule.method.name == "drop")
        {
            covered.entry(attribute).or_insert((definition, rule));
        }
    }
    covered.retain(|attribute, _| !is_declared(rules, attribute));

    let names = column_names(&covered.keys().copied(), &rules.names());
    let mut columns = Vec::with_capacity(covered.len());
    for (attribute, (definition, rule)) in covered {
        let Some(name) = names.get(attribute) else { continue };
        let mut place = place(&rules.file, rule);
        let column_type = column_type(attribute, definition);
        let method = Method::compile(&rule.method, &format!("{}.{name}", rules.stream), &place)?;
        if !rule.is_by_name() {
            place.name = format!("{} ({attribute})", rule.pattern);
        }
        method.check_fits(column_type, &place)?;
        check_content(rule.class, column_type, &method, &place)?;
        let shown = definition.display_name.as_deref().or(rule.description.as_deref());
        columns.push(CompiledColumn {
            name: name.clone(),
            path: CUSTOM_PATH.into_iter().chain([attribute]).map(str::to_owned).collect(),
            column_type,
            unit: None,
            class: rule.class,
            method,
            description: match shown {
                Some(shown) => format!("Custom attribute {attribute}: {shown}"),
                None => format!("Custom attribute {attribute}"),
            },
        });
    }
    Ok(columns)
}

fn place(file: &str, rule: &CustomRule) -> Place {
    Place { file: file.to_owned(), line: rule.line, kind: "pattern", name: rule.pattern.clone() }
}

/// Tells whether a column reads the attribute or something inside it.
fn is_declared(rules: &TableRules, attribute: &str) -> bool {
    rules.columns.iter().any(|column| {
        column.path.len() > CUSTOM_PATH.len()
            && column.path[..CUSTOM_PATH.len()] == CUSTOM_PATH
            && column.path[CUSTOM_PATH.len()] == attribute
    })
}

/// Splits a name before its suffix of type; a name that is all suffix has none.
fn suffix(attribute: &str) -> Option<(&str, ColumnType)> {
    SUFFIXES.into_iter().find_map(|(suffix, column_type)| {
        attribute.strip_suffix(suffix).filter(|stem| !stem.is_empty()).map(|stem| (stem, column_type))
    })
}

fn column_type(attribute: &str, definition: &Definition) -> ColumnType {
    let single = match (suffix(attribute), definition.json_type.as_deref()) {
        (Some((_, column_type)), _) => column_type,
        (None, Some("number" | "integer")) => ColumnType::Float,
        (None, Some("boolean")) => ColumnType::Bool,
        (None, Some("date" | "datetime" | "date-time")) => ColumnType::Timestamp,
        _ => ColumnType::Text,
    };
    if definition.is_multi { ColumnType::TextList } else { single }
}

fn column_names<'a>(
    attributes: &(impl Iterator<Item = &'a str> + Clone),
    declared: &HashSet<String>,
) -> BTreeMap<&'a str, String> {
    let short = |attribute: &'a str| snake_case(suffix(attribute).map_or(attribute, |(stem, _)| stem));
    let is_plain = |attribute: &str| attribute.ends_with("Str") || suffix(attribute).is_none();
    let plain: BTreeSet<String> = attributes.clone().filter(|attribute| is_plain(attribute)).map(short).collect();
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    for attribute in attributes.clone().filter(|attribute| !is_plain(attribute)) {
        *others.entry(short(attribute)).or_default() += 1;
    }

    let mut taken = declared.clone();
    let mut names = BTreeMap::new();
    // Plain names first, so that a number never pushes one of them aside.
    for of_plain in [true, false] {
        for attribute in attributes.clone().filter(|attribute| is_plain(attribute) == of_plain) {
            let short = short(attribute);
            let is_alone = of_plain || !plain.contains(&short) && others.get(&short) == Some(&1);
            let base = format!("custom_{}", if is_alone { short } else { snake_case(attribute) });
            let mut name = base.clone();
            let mut number = 1;
            while !taken.insert(name.clone()) {
                number += 1;
                name = format!("{base}_{number}");
            }
            names.insert(attribute, name);
        }
    }
    names
}

/// Writes `refundAmount` as `refund_amount`, `URLPath` as `url_path`.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        if !letter.is_alphanumeric() {
            if !snake.ends_with('_') && !snake.is_empty() {
                snake.push('_');
            }
            continue;
        }
        let after_lower = index > 0 && (letters[index - 1].is_lowercase() || letters[index - 1].is_numeric());
        let before_lower = index > 0
            && letters[index - 1].is_uppercase()
            && letters.get(index + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (after_lower || before_lower) && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    let trimmed = snake.trim_end_matches('_').len();
    snake.truncate(trimmed);
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_names_become_snake_case() {
        for (name, snake) in [
            ("tier", "tier"),
            ("refundAmount", "refund_amount"),
            ("URLPath", "url_path"),
            ("orderID", "order_id"),
            ("step2Done", "step2_done"),
            ("with-dash_and", "with_dash_and"),
            ("a__b", "a_b"),
            ("Größe", "größe"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn names_lose_their_suffix_unless_they_collide() {
        let declared = HashSet::from(["custom_taken".to_owned()]);
        for (attributes, expected) in [
            (&["refundAmountNum", "tierStr"][..], &["custom_refund_amount", "custom_tier"][..]),
            (&["tierNum", "tierStr"], &["custom_tier_num", "custom_tier"]),
            (&["scoreAt", "scoreNum"], &["custom_score_at", "custom_score_num"]),
            (&["TierStr", "tierStr"], &["custom_tier", "custom_tier_2"]),
            (&["takenStr"], &["custom_taken_2"]),
            (&["Str", "plain"], &["custom_str", "custom_plain"]),
        ] {
            let names = column_names(&attributes.iter().copied(), &declared);
            let found: Vec<&str> = attributes.iter().map(|attribute| names[attribute].as_str()).collect();
            assert_eq!(found, expected);
            let mut unique: Vec<&str> = found;
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), attributes.len());
        }
    }
}
