//! Names of generated columns: an attribute keeps the column that it has in the lake.
//!
//! 1. A column of the lake that holds the attribute with the same type stays its column.
//! 2. An attribute that the lake holds with another type gets a second column: the name of its first one and the new type
//!    (`custom_tier`, `custom_tier_num`). The first one keeps its rows, and is its column again if the type comes back.
//! 3. A new attribute is named `custom_` and its name in snake case without its suffix of type. Where two attributes differ
//!    in the suffix alone, `Str` has the short name and the others keep their suffix.
//! 4. A name that is taken gives way to the one with the suffix, then to numbers, in the order of the attributes' names.
//!
//! Of rule 3 and 4 the result depends on the set of attributes only, never on the order of an answer; attributes whose names
//! differ in case alone are different ones and are numbered. Rule 1 makes it stay so when the set grows.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::policy::definitions::Held;
use crate::policy::rules::CUSTOM_PATH;
use crate::schema::ColumnType;

/// What the name of every generated column begins with.
const PREFIX: &str = "custom_";

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

/// Splits an attribute's name before its suffix of type; a name that is all suffix has none.
pub(super) fn suffix(attribute: &str) -> Option<(&str, ColumnType)> {
    SUFFIXES.into_iter().find_map(|(suffix, column_type)| {
        attribute.strip_suffix(suffix).filter(|stem| !stem.is_empty()).map(|stem| (stem, column_type))
    })
}

/// Returns the attribute that a column of the lake was made of, if a rule made it.
pub(super) fn attribute_of(held: &Held) -> Option<&str> {
    let path = held.path.as_deref().filter(|_| held.name.starts_with(PREFIX))?;
    CUSTOM_PATH.into_iter().try_fold(path, |rest, key| rest.strip_prefix(key)?.strip_prefix('.'))
}

/// Returns the columns of the lake that were made of an attribute, oldest first.
pub(super) fn columns_of<'a>(held: &'a [Held], attribute: &'a str) -> impl Iterator<Item = &'a Held> {
    held.iter().filter(move |column| attribute_of(column) == Some(attribute))
}

/// Names the columns of attributes, given with the types that they have now.
///
/// `declared` are the names that schema files give, `held` the columns that the lake has.
pub(super) fn column_names<'a>(
    attributes: &BTreeMap<&'a str, ColumnType>,
    declared: &HashSet<String>,
    held: &[Held],
) -> BTreeMap<&'a str, String> {
    let mut names = Names { taken: declared.clone(), held, given: BTreeMap::new() };
    for (attribute, column_type) in attributes {
        let same = columns_of(held, attribute)
            .find(|column| column.column_type == Some(*column_type) && !declared.contains(&column.name));
        if let Some(same) = same {
            names.give(attribute, same.name.clone());
        }
    }
    for (attribute, column_type) in attributes {
        let first = columns_of(held, attribute).next();
        if let Some(first) = first.filter(|_| !names.given.contains_key(attribute)) {
            let base = format!("{}_{}", first.name, type_suffix(*column_type));
            names.find(attribute, *column_type, [base.clone()], &base);
        }
    }

    let short = |attribute: &'a str| snake_case(suffix(attribute).map_or(attribute, |(stem, _)| stem));
    let is_plain = |attribute: &str| attribute.ends_with("Str") || suffix(attribute).is_none();
    let plain: BTreeSet<String> =
        attributes.keys().filter(|attribute| is_plain(attribute)).map(|attribute| short(attribute)).collect();
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    for attribute in attributes.keys().filter(|attribute| !is_plain(attribute)) {
        *others.entry(short(attribute)).or_default() += 1;
    }
    // Plain names first, so that a number never pushes one of them aside.
    for of_plain in [true, false] {
        for (attribute, column_type) in attributes.iter().filter(|(attribute, _)| is_plain(attribute) == of_plain) {
            if names.given.contains_key(attribute) {
                continue;
            }
            let short = short(attribute);
            let is_alone = of_plain || !plain.contains(&short) && others.get(&short) == Some(&1);
            let full = format!("{PREFIX}{}", snake_case(attribute));
            let base = if is_alone { format!("{PREFIX}{short}") } else { full.clone() };
            let is_held = held.iter().any(|column| column.name == base);
            names.find(attribute, *column_type, [base.clone()].into_iter().chain(is_held.then_some(full)), &base);
        }
    }
    names.given
}

struct Names<'a, 'h> {
    taken: HashSet<String>,
    held: &'h [Held],
    given: BTreeMap<&'a str, String>,
}

impl<'a> Names<'a, '_> {
    fn give(&mut self, attribute: &'a str, name: String) {
        self.taken.insert(name.clone());
        self.given.insert(attribute, name);
    }

    /// Gives the first free one of some names, or the first free number behind `base`.
    fn find(
        &mut self,
        attribute: &'a str,
        column_type: ColumnType,
        candidates: impl IntoIterator<Item = String>,
        base: &str,
    ) {
        let numbered = (2..).map(|number: u32| format!("{base}_{number}"));
        let free = candidates.into_iter().chain(numbered).find(|name| self.is_free(name, column_type));
        if let Some(name) = free {
            self.give(attribute, name);
        }
    }

    fn is_free(&self, name: &str, column_type: ColumnType) -> bool {
        // A column whose attribute was not noted, in a lake of an older program, goes to whom the name falls to.
        let is_open = |held: &Held| held.path.is_none() && held.column_type == Some(column_type);
        !self.taken.contains(name) && self.held.iter().find(|held| held.name == name).is_none_or(is_open)
    }
}

/// Returns what the name of a column ends with when its attribute has changed to a type.
fn type_suffix(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Text | ColumnType::Any => "text",
        ColumnType::Int | ColumnType::Float => "num",
        ColumnType::Bool => "bool",
        ColumnType::Timestamp => "at",
        ColumnType::TextList => "list",
    }
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
    use proptest::prelude::*;

    use super::*;

    fn types<'a>(attributes: &[&'a str]) -> BTreeMap<&'a str, ColumnType> {
        attributes.iter().map(|name| (*name, suffix(name).map_or(ColumnType::Text, |(_, of_type)| of_type))).collect()
    }

    fn names(attributes: &[&str], declared: &[&str], held: &[Held]) -> Vec<String> {
        let declared = declared.iter().map(|name| (*name).to_owned()).collect();
        let names = column_names(&types(attributes), &declared, held);
        attributes.iter().map(|attribute| names[attribute].clone()).collect()
    }

    fn held(columns: &[(&str, &str, ColumnType)]) -> Vec<Held> {
        let column = |(name, attribute, of_type): &(&str, &str, ColumnType)| Held {
            name: (*name).to_owned(),
            path: Some(format!("attributes.custom.{attribute}")),
            column_type: Some(*of_type),
        };
        columns.iter().map(column).collect()
    }

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
        for (attributes, expected) in [
            (&["refundAmountNum", "tierStr"][..], &["custom_refund_amount", "custom_tier"][..]),
            (&["tierNum", "tierStr"], &["custom_tier_num", "custom_tier"]),
            (&["scoreAt", "scoreNum"], &["custom_score_at", "custom_score_num"]),
            (&["TierStr", "tierStr"], &["custom_tier", "custom_tier_2"]),
            (&["takenStr"], &["custom_taken_2"]),
            (&["Str", "plain"], &["custom_str", "custom_plain"]),
        ] {
            assert_eq!(names(attributes, &["custom_taken"], &[]), expected);
        }
    }

    #[test]
    fn columns_of_the_lake_stay_with_their_attributes_whatever_is_defined_beside_them() {
        use ColumnType::{Float, Text, Timestamp};
        for (in_lake, attributes, expected) in [
            // A new attribute that would have had the short name does not take it.
            (
                held(&[("custom_tier", "tierNum", Float)]),
                &["tierNum", "tierStr"][..],
                &["custom_tier", "custom_tier_str"][..],
            ),
            (
                held(&[("custom_score", "scoreNum", Float)]),
                &["scoreAt", "scoreNum"],
                &["custom_score_at", "custom_score"],
            ),
            // Nor does one that differs in case alone, before or after it in the order of names.
            (held(&[("custom_tier", "tierStr", Text)]), &["TierStr", "tierStr"], &["custom_tier_str", "custom_tier"]),
            (held(&[("custom_tier", "TierStr", Text)]), &["TierStr", "tierStr"], &["custom_tier", "custom_tier_str"]),
            // What is left alone keeps its long name.
            (held(&[("custom_due_at", "dueAt", Timestamp)]), &["dueAt"], &["custom_due_at"]),
            // A column of an attribute that is defined no more is not given away.
            (held(&[("custom_area", "areaNum", Float)]), &["areaStr"], &["custom_area_str"]),
            // A column that a person declared once is not a generated one.
            (held(&[("tier", "tierStr", Text)]), &["tierStr"], &["custom_tier"]),
        ] {
            assert_eq!(names(attributes, &[], &in_lake), expected);
        }
        let taken = held(&[("custom_tier", "tierStr", Text)]);
        assert_eq!(names(&["tierStr"], &["custom_tier"], &taken), ["custom_tier_text"], "a declaration goes first");
    }

    #[test]
    fn changed_type_gets_a_column_of_its_own_and_the_first_one_back_with_its_type() {
        use ColumnType::{Float, Text, TextList};
        let tier = |of_type| BTreeMap::from([("tierStr", of_type)]);
        let name = |of_type, held: &[Held]| column_names(&tier(of_type), &HashSet::new(), held)["tierStr"].clone();
        let first = held(&[("custom_tier", "tierStr", Text)]);
        assert_eq!(name(Float, &first), "custom_tier_num");
        assert_eq!(name(TextList, &first), "custom_tier_list");
        let second = held(&[("custom_tier", "tierStr", Text), ("custom_tier_num", "tierStr", Float)]);
        assert_eq!(name(Float, &second), "custom_tier_num");
        assert_eq!(name(Text, &second), "custom_tier");
        assert_eq!(name(TextList, &second), "custom_tier_list");
        let other = held(&[("custom_tier", "tierStr", Text), ("custom_tier_num", "tierNum", Float)]);
        assert_eq!(name(Float, &other), "custom_tier_num_2");
    }

    #[test]
    fn lake_that_did_not_note_attributes_keeps_its_names() {
        let old = |of_type| [Held { name: "custom_tier".to_owned(), path: None, column_type: Some(of_type) }];
        assert_eq!(names(&["tierStr"], &[], &old(ColumnType::Text)), ["custom_tier"]);
        assert_eq!(names(&["tierStr"], &[], &old(ColumnType::Float)), ["custom_tier_str"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn names_are_distinct_and_never_change_as_attributes_come_and_go(
            sets in prop::collection::vec(
                prop::collection::btree_map("(a|A|b|ab|a_b)(Str|Num|At|Tree|Id|)(_2)?", 0usize..4, 0..8), 1..5),
        ) {
            let of = [ColumnType::Text, ColumnType::Float, ColumnType::Bool, ColumnType::TextList];
            let mut in_lake: Vec<Held> = Vec::new();
            for set in &sets {
                let now = set.iter().map(|(name, of_type)| (name.as_str(), of[*of_type])).collect();
                let names = column_names(&now, &HashSet::new(), &in_lake);
                prop_assert_eq!(names.len(), now.len());
                prop_assert_eq!(names.values().collect::<BTreeSet<_>>().len(), now.len());
                for (attribute, name) in &names {
                    let path = format!("attributes.custom.{attribute}");
                    let column = Held { name: name.clone(), path: Some(path), column_type: Some(now[attribute]) };
                    match in_lake.iter().find(|held| held.name == *name) {
                        Some(known) => prop_assert_eq!(known, &column),
                        None => in_lake.push(column),
                    }
                }
                prop_assert_eq!(column_names(&now, &HashSet::new(), &in_lake), names);
            }
        }
    }
}
