//! What a change of policy changes: two sets of rules, compared rule by rule.
//!
//! A rule is narrowed when it lets less be stored than before, and widened when it lets more. Where neither holds, because
//! each form shows something that the other hides, it is changed, which counts as both: what is stored shows what is hidden
//! now, and the new form cannot be had from it.
//!
//! Custom rules are compared by what decides: an attribute that a rule covers falls to another rule when the first one goes,
//! so a pattern is compared with whatever covers all that it covers. A rule that says what a broader one says already
//! changes nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::form::{AttributeRule, Rules, RulesOfTable};
use super::restate::{Shows, compare_methods};

/// Where custom attributes stand in a record.
const CUSTOM: &str = "attributes.custom.";

/// One rule that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// The table.
    pub table: String,
    /// The column, or the pattern of custom attributes.
    pub rule: String,
    /// Whether it is a pattern.
    pub is_custom: bool,
    /// Its method before, in the canonical text; absent when nothing was declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its method now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Which way it goes.
    pub direction: Direction,
}

/// Which way a rule goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Less is stored.
    Narrowed,
    /// More is stored.
    Widened,
    /// Something else is stored.
    Changed,
    /// Something is stored of which nothing was.
    Added,
    /// Nothing is stored any more.
    Removed,
    /// The same is stored under another class.
    Reclassed,
}

impl RuleChange {
    /// Tells whether what was stored may show what is hidden now.
    #[must_use]
    pub fn is_narrowing(&self) -> bool {
        matches!(self.direction, Direction::Narrowed | Direction::Changed | Direction::Removed)
    }

    /// Tells whether rows that were stored before lack what would be stored now.
    #[must_use]
    pub fn is_widening(&self) -> bool {
        matches!(self.direction, Direction::Widened | Direction::Changed | Direction::Added)
    }
}

impl fmt::Display for RuleChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = |method: &Option<String>| method.clone().unwrap_or_else(|| "not declared".to_owned());
        let kind = if self.is_custom { "custom " } else { "" };
        write!(
            f,
            "{} {kind}{} {}: {} -> {}",
            self.table,
            self.rule,
            self.direction.name(),
            method(&self.from),
            method(&self.to)
        )
    }
}

impl Direction {
    /// Returns the word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Narrowed => "narrowed",
            Self::Widened => "widened",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Reclassed => "reclassed",
        }
    }
}

/// Compares two sets of rules; what differs, by table, declared columns before custom rules.
///
/// A table that only one of them declares is all its rules, added or removed.
#[must_use]
pub fn compare(before: &Rules, now: &Rules) -> Vec<RuleChange> {
    let tables: BTreeSet<&str> = before.tables.iter().chain(&now.tables).map(|rules| rules.table.as_str()).collect();
    let none = RulesOfTable::default();
    let of = |rules: &'_ Rules, table: &str| rules.table(table).cloned().unwrap_or_else(|| none.clone());
    tables.into_iter().flat_map(|table| compare_tables(table, &of(before, table), &of(now, table))).collect()
}

/// Compares the rules of one table.
fn compare_tables(table: &str, before: &RulesOfTable, now: &RulesOfTable) -> Vec<RuleChange> {
    let mut changes = Vec::new();
    let mut names: Vec<&str> = before.columns.iter().map(|column| column.name.as_str()).collect();
    names.extend(now.columns.iter().map(|column| column.name.as_str()).filter(|name| !has(before, name)));
    for name in names {
        let find = |rules: &'_ RulesOfTable| rules.columns.iter().find(|column| column.name == name).cloned();
        let (from, to) = (find(before), find(now));
        let class = |column: &Option<super::form::ColumnRule>| column.as_ref().map(|column| column.class.clone());
        let method = |column: &Option<super::form::ColumnRule>| column.as_ref().map(|column| column.method.clone());
        let is_moved = from.as_ref().zip(to.as_ref()).is_some_and(|(from, to)| {
            (&from.path, &from.column_type) != (&to.path, &to.column_type)
                && !(from.method == "drop" && to.method == "drop")
        });
        let direction = if is_moved {
            Some(moved(method(&from).as_deref(), method(&to).as_deref()))
        } else {
            direction(method(&from).as_deref(), method(&to).as_deref(), class(&from) != class(&to))
        };
        if let Some(direction) = direction {
            changes.push(RuleChange {
                table: table.to_owned(),
                rule: name.to_owned(),
                is_custom: false,
                from: method(&from),
                to: method(&to),
                direction,
            });
        }
    }
    let patterns = before.custom.iter().chain(&now.custom).map(|rule| rule.pattern.as_str());
    let mut told = BTreeSet::new();
    for pattern in patterns.filter(|pattern| told.insert(*pattern)) {
        let (from, to) = (deciding(before, pattern), deciding(now, pattern));
        let class = from.as_ref().map(|rule| &rule.class) != to.as_ref().map(|rule| &rule.class);
        let (from, to) = (from.map(|rule| rule.method), to.map(|rule| rule.method));
        if let Some(direction) = direction(from.as_deref(), to.as_deref(), class) {
            let (table, rule) = (table.to_owned(), pattern.to_owned());
            changes.push(RuleChange { table, rule, is_custom: true, from, to, direction });
        }
    }
    changes
}

fn has(rules: &RulesOfTable, name: &str) -> bool {
    rules.columns.iter().any(|column| column.name == name)
}

/// A column of another field, or of another type: what is stored under its name is not what would be.
fn moved(from: Option<&str>, to: Option<&str>) -> Direction {
    let drops = |method: Option<&str>| method.is_none_or(|method| method == "drop");
    match (drops(from), drops(to)) {
        (true, false) => Direction::Added,
        (false, true) => Direction::Removed,
        _ => Direction::Changed,
    }
}

fn direction(from: Option<&str>, to: Option<&str>, is_reclassed: bool) -> Option<Direction> {
    let stored = |method: Option<&'_ str>| method.filter(|method| *method != "drop").map(str::to_owned);
    match (stored(from), stored(to)) {
        (None, None) => None,
        (None, Some(_)) => Some(Direction::Added),
        (Some(_), None) => Some(Direction::Removed),
        (Some(from), Some(to)) => match compare_methods(&from, &to) {
            Shows::Same => is_reclassed.then_some(Direction::Reclassed),
            Shows::Less => Some(Direction::Narrowed),
            Shows::More => Some(Direction::Widened),
            Shows::Other => Some(Direction::Changed),
        },
    }
}

/// Finds the rule that decides over all that a pattern covers: the column of the attribute, the pattern's own rule, or the
/// narrowest one that covers it whole.
fn deciding(rules: &RulesOfTable, pattern: &str) -> Option<AttributeRule> {
    let declared = rules.columns.iter().find(|column| column.path.strip_prefix(CUSTOM) == Some(pattern));
    if let Some(column) = declared {
        let (class, method) = (column.class.clone(), column.method.clone());
        return Some(AttributeRule { pattern: pattern.to_owned(), class, method });
    }
    // The last of equal ones is taken, hence the reversed order.
    let covering = rules.custom.iter().rev().filter(|rule| covers(&rule.pattern, pattern));
    covering.max_by_key(|rule| (!rule.pattern.contains('*'), rule.pattern.len())).cloned()
}

/// Tells whether one pattern covers all that another covers.
fn covers(broad: &str, narrow: &str) -> bool {
    if broad == narrow {
        return true;
    }
    match (broad.strip_prefix('*'), broad.strip_suffix('*')) {
        (Some(end), _) => !narrow.ends_with('*') && narrow.trim_start_matches('*').ends_with(end),
        (None, Some(start)) => !narrow.starts_with('*') && narrow.trim_end_matches('*').starts_with(start),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::form::ColumnRule;

    fn rules(columns: &[(&str, &str)], custom: &[(&str, &str)]) -> Rules {
        let columns = columns.iter().map(|(name, method)| ColumnRule {
            name: (*name).to_owned(),
            path: format!("attributes.{name}"),
            column_type: "text".to_owned(),
            class: "internal".to_owned(),
            method: (*method).to_owned(),
        });
        let custom = custom.iter().map(|(pattern, method)| AttributeRule {
            pattern: (*pattern).to_owned(),
            class: "internal".to_owned(),
            method: (*method).to_owned(),
        });
        let table = RulesOfTable { table: "tickets".to_owned(), columns: columns.collect(), custom: custom.collect() };
        Rules { digest: "x".to_owned(), tables: vec![table] }
    }

    fn directions(before: &Rules, now: &Rules) -> Vec<(String, Direction)> {
        compare(before, now).into_iter().map(|change| (change.rule, change.direction)).collect()
    }

    #[test]
    fn columns_go_their_way_and_what_stays_is_not_told() {
        for (from, to, direction) in [
            ("keep", "keep", None),
            ("drop", "drop", None),
            ("keep", "drop", Some(Direction::Removed)),
            ("drop", "keep", Some(Direction::Added)),
            ("keep", "mask", Some(Direction::Narrowed)),
            ("mask", "keep", Some(Direction::Widened)),
            ("keep", "truncate(to=day)", Some(Direction::Narrowed)),
            ("truncate(to=day)", "truncate(to=month)", Some(Direction::Narrowed)),
            ("truncate(to=month)", "truncate(to=hour)", Some(Direction::Widened)),
            ("mask(as=email)", "pseudonymize(domain=a)", Some(Direction::Changed)),
        ] {
            let found = directions(&rules(&[("a", from)], &[]), &rules(&[("a", to)], &[]));
            let expected: Vec<_> = direction.map(|direction| ("a".to_owned(), direction)).into_iter().collect();
            assert_eq!(found, expected, "{from} to {to}");
        }
        assert_eq!(directions(&rules(&[("a", "keep")], &[]), &rules(&[], &[])), [("a".to_owned(), Direction::Removed)]);
        assert_eq!(directions(&rules(&[], &[]), &rules(&[("a", "drop")], &[])), []);
    }

    #[test]
    fn column_of_another_field_or_class_is_told() {
        let before = rules(&[("a", "keep")], &[]);
        let mut now = before.clone();
        now.tables[0].columns[0].class = "personal".to_owned();
        assert_eq!(directions(&before, &now), [("a".to_owned(), Direction::Reclassed)]);
        now.tables[0].columns[0].path = "attributes.b".to_owned();
        let changes = compare(&before, &now);
        assert_eq!(changes[0].direction, Direction::Changed);
        assert!(changes[0].is_narrowing() && changes[0].is_widening());
        assert_eq!(changes[0].to_string(), "tickets a changed: keep -> keep");
    }

    #[test]
    fn patterns_are_compared_by_what_decides() {
        type Custom = &'static [(&'static str, &'static str)];
        type Case = (Custom, Custom, Vec<(&'static str, Direction)>);
        let cases: [Case; 7] = [
            (&[("*Num", "keep")], &[("*Num", "drop")], vec![("*Num", Direction::Removed)]),
            (&[], &[("*Num", "keep")], vec![("*Num", Direction::Added)]),
            // A drop that goes lets the broader rule decide.
            (&[("*Num", "keep"), ("feeNum", "drop")], &[("*Num", "keep")], vec![("feeNum", Direction::Added)]),
            (&[("*Num", "keep")], &[("*Num", "keep"), ("feeNum", "drop")], vec![("feeNum", Direction::Removed)]),
            // It says what was said.
            (&[("*Num", "keep")], &[("*Num", "keep"), ("feeNum", "keep")], vec![]),
            (&[("*", "keep")], &[("*Str", "mask"), ("*", "keep")], vec![("*Str", Direction::Narrowed)]),
            (&[("fee*", "keep")], &[("*Num", "keep")], vec![("fee*", Direction::Removed), ("*Num", Direction::Added)]),
        ];
        for (before, now, expected) in cases {
            let found = directions(&rules(&[], before), &rules(&[], now));
            let expected: Vec<_> = expected.into_iter().map(|(rule, to)| (rule.to_owned(), to)).collect();
            assert_eq!(found, expected, "{before:?} to {now:?}");
        }
    }

    #[test]
    fn table_that_goes_is_all_its_rules() {
        let before = rules(&[("a", "keep"), ("b", "drop")], &[("*Num", "keep")]);
        let gone = Rules { digest: "y".to_owned(), tables: Vec::new() };
        let found: Vec<_> = directions(&before, &gone);
        assert_eq!(found, [("a".to_owned(), Direction::Removed), ("*Num".to_owned(), Direction::Removed)]);
        assert!(compare(&gone, &before).iter().all(RuleChange::is_widening));
        assert_eq!(compare(&before, &before), []);
    }
}
