//! What can be said of the rules by reading them, beside the shipped ones and the names that the lake knows.

use regex::Regex;

use super::{Finding, Severity};
use crate::cli::policy::Ground;
use crate::cli::policy::find::{Rule, attribute_of, column_of_attribute, covering};
use crate::error::Result;
use crate::model::Stream;
use crate::schema::{
    Argument, BUILTIN, Class, Column, ColumnType, CustomRule, MethodText, OPTIONAL, Pattern, Schemas, TableSchema,
};

/// Ids as they stand in records and texts: of tickets, and of what other systems make.
const IDS: [&str; 3] = ["58228e05d4e96711004eccb7", "5f3a1c9be4b0a72d9c1e8f60", "0198d2a0-6c1e-7000-8000-00000000a001"];

/// Columns by which a newer revision supersedes an older one; nothing but `keep` is allowed there.
const REPLICATION: [&str; 3] = ["updated_at", "rev", "deleted"];

pub(super) fn check(ground: &Ground) -> Result<Vec<Finding>> {
    let shipped = Schemas::from_files(BUILTIN.into_iter().chain(OPTIONAL))?;
    let mut findings = Vec::new();
    for stream in ground.schemas.streams() {
        let Some(table) = ground.schemas.table(stream) else { continue };
        let checked = Table { ground, declared: table, shipped: shipped.table(stream).map(AsRef::as_ref) };
        for column in &table.columns {
            findings.extend(checked.kept(column));
            findings.extend(checked.joins(column));
        }
        for (place, rule) in table.custom.iter().enumerate() {
            findings.extend(checked.kept_custom(rule));
            findings.extend(checked.overlaps(place, rule));
            findings.extend(checked.keys(rule));
            findings.extend(checked.unused(rule));
        }
        findings.extend(table.patterns.iter().filter_map(|pattern| checked.ids(pattern)));
    }
    Ok(findings)
}

struct Table<'a> {
    ground: &'a Ground,
    declared: &'a TableSchema,
    shipped: Option<&'a TableSchema>,
}

/// Makes a finding at a rule.
pub(super) fn finding(rule: &Rule, severity: Severity, name: &'static str, message: String, hint: String) -> Finding {
    Finding { file: rule.file.clone(), line: rule.line, severity, name, message, hint }
}

impl Table<'_> {
    fn stream(&self) -> Stream {
        self.declared.stream
    }

    fn kept(&self, column: &Column) -> Option<Finding> {
        let is_kept = column.method.name == "keep" && column.class >= Class::Personal;
        let is_key = column.name == self.stream().key_column() || REPLICATION.contains(&column.name.as_str());
        if !is_kept || is_key {
            return None;
        }
        let is_same =
            |known: &&Column| known.path == column.path && known.class == column.class && known.method == column.method;
        let shipped = self.shipped.and_then(|shipped| shipped.columns.iter().find(is_same));
        let severity = if shipped.is_some() { Severity::Note } else { Severity::Warning };
        Some(finding(
            &Rule::of_column(self.declared, column),
            severity,
            "kept",
            format!("{} column `{}` is stored as it is", column.class.name(), column.name),
            match shipped {
                Some(_) => "so the shipped schemas have it; mask, pseudonymize or drop it if your rules ask for more".to_owned(),
                None => "give it a method (mask, pseudonymize, truncate, drop), or the class that it has if it is about nobody".to_owned(),
            },
        ))
    }

    fn kept_custom(&self, rule: &CustomRule) -> Option<Finding> {
        (rule.method.name == "keep" && rule.class >= Class::Personal).then(|| {
            finding(
                &Rule::of_custom(self.declared, rule),
                Severity::Warning,
                "kept",
                format!("{} attributes of `{}` are stored as they are", rule.class.name(), rule.pattern),
                "give the rule a method (mask, pseudonymize, truncate, drop), or the class that they have".to_owned(),
            )
        })
    }

    /// Tells whether the shipped declarations have a rule as it is.
    fn is_shipped(&self, rule: &CustomRule) -> bool {
        let is_same = |known: &CustomRule| {
            known.pattern == rule.pattern && known.class == rule.class && known.method == rule.method
        };
        self.shipped.is_some_and(|shipped| shipped.custom.iter().any(is_same))
    }

    /// Finds the rules behind this one that may cover the same attribute.
    fn overlaps(&self, place: usize, rule: &CustomRule) -> Vec<Finding> {
        let known = self.ground.attributes(self.stream());
        let mut findings = Vec::new();
        for other in self.declared.custom.iter().skip(place + 1) {
            let is_own = !(self.is_shipped(rule) && self.is_shipped(other));
            let differs = other.method != rule.method || other.class != rule.class;
            let Some(example) = shared(rule, other).filter(|_| is_own && differs) else { continue };
            let example = known.iter().find(|name| rule.covers(name) && other.covers(name)).unwrap_or(&example);
            // What of the two goes first, whatever a third one may say.
            let of_two = |of: &CustomRule| of.pattern == rule.pattern || of.pattern == other.pattern;
            let order: Vec<&CustomRule> =
                covering(self.declared, example).into_iter().filter(|of| of_two(of)).collect();
            let [winner, loser] = order.as_slice() else { continue };
            findings.push(finding(
                &Rule::of_custom(self.declared, loser),
                Severity::Note,
                "overlap",
                format!("`{}` and `{}` both cover `{example}`", loser.pattern, winner.pattern),
                format!(
                    "`{}` (line {}) goes first: a rule by name before a pattern, a longer pattern before a shorter one, then the \
                     first in the file",
                    winner.pattern, winner.line
                ),
            ));
        }
        findings
    }

    /// Finds a pattern that takes from ids what joins need.
    fn keys(&self, rule: &CustomRule) -> Option<Finding> {
        if rule.is_by_name() || !breaks_joins(&rule.method) {
            return None;
        }
        let is_id = |name: &str| name.ends_with("Id") || name.ends_with("Ids");
        let decides = |name: &str| {
            let is_declared = column_of_attribute(self.declared, name).is_some();
            !is_declared && covering(self.declared, name).first().is_some_and(|first| first.pattern == rule.pattern)
        };
        let known = self.ground.attributes(self.stream());
        let id = known.into_iter().find(|name| is_id(name) && decides(name));
        let id = id.or_else(|| Some("orderId".to_owned()).filter(|name| decides(name)))?;
        Some(finding(
            &Rule::of_custom(self.declared, rule),
            Severity::Warning,
            "keys",
            format!(
                "pattern `{}` covers ids such as `{id}`: what `{}` leaves of them joins with nothing",
                rule.pattern, rule.method.name
            ),
            "write a rule `*Id` with `keep`, or pseudonymize with one `domain` in every table that joins on it"
                .to_owned(),
        ))
    }

    /// Finds a pattern for `scrub` that takes ids for what it looks for.
    fn ids(&self, pattern: &Pattern) -> Option<Finding> {
        let matcher = Regex::new(&pattern.regex).ok()?;
        let id = IDS.into_iter().find(|id| matcher.is_match(id))?;
        let rule =
            Rule { file: self.declared.file.clone(), line: pattern.line, kind: "pattern", name: pattern.name.clone() };
        Some(finding(
            &rule,
            Severity::Warning,
            "keys",
            format!("pattern `{}` for scrub matches ids of records such as `{id}`", pattern.name),
            "make it narrower, with `\\b` at both ends or a longer fixed part: ids in a text are what it is looked up by".to_owned(),
        ))
    }

    /// Finds a column of ids that joins with nothing any more.
    fn joins(&self, column: &Column) -> Option<Finding> {
        let is_id = column.name.ends_with("_id") || column.name.ends_with("_ids");
        let is_own = column.path.first().is_some_and(|first| first == "relationships") || {
            let known = Stream::ALL.map(Stream::key_column);
            known.iter().any(|key| column.name.strip_suffix('s').unwrap_or(&column.name).ends_with(key))
        };
        (is_id && is_own && breaks_joins(&column.method)).then(|| {
            finding(
                &Rule::of_column(self.declared, column),
                Severity::Warning,
                "keys",
                format!(
                    "column `{}` holds ids of records: what `{}` leaves of them joins with nothing",
                    column.name, column.method.name
                ),
                "keep it, or pseudonymize it with one `domain` in every table that joins on it".to_owned(),
            )
        })
    }

    fn unused(&self, rule: &CustomRule) -> Option<Finding> {
        let place = Rule::of_custom(self.declared, rule);
        let known = self.ground.attributes(self.stream());
        // The shipped rules are there for what an organisation may define.
        if known.is_empty() || known.iter().any(|name| rule.covers(name)) || self.is_shipped(rule) {
            return None;
        }
        if !rule.is_by_name() {
            return Some(finding(
                &place,
                Severity::Note,
                "unused",
                format!("pattern `{}` covers no attribute that the source defines", rule.pattern),
                "it may stay: it decides over what is defined later".to_owned(),
            ));
        }
        let near = crate::error::nearest(&rule.pattern, known.iter().map(String::as_str));
        Some(finding(
            &place,
            Severity::Warning,
            "unknown-attribute",
            format!("the source defines no attribute `{}`", rule.pattern),
            near.map_or_else(
                || "remove the rule, or correct its name".to_owned(),
                |near| format!("did you mean `{near}`?"),
            ),
        ))
    }
}

/// Tells whether ids are no more than marks after a method: equal ones of two tables do not stay equal.
fn breaks_joins(method: &MethodText) -> bool {
    let name = match method.arguments.get("after") {
        Some(Argument::One(after)) if method.name == "restrict" => after,
        _ => &method.name,
    };
    match name.as_str() {
        "mask" | "truncate" | "scrub" => true,
        "pseudonymize" => !method.arguments.contains_key("domain"),
        _ => false,
    }
}

/// Makes up the name of an attribute that both rules cover, if there can be one.
fn shared(one: &CustomRule, other: &CustomRule) -> Option<String> {
    let literal = |rule: &CustomRule| rule.pattern.trim_matches('*').to_owned();
    let (first, second) = (literal(one), literal(other));
    // Of a prefix and a suffix the two together; of two of a kind the longer one; of a name the name.
    let candidates = [first.clone(), second.clone(), format!("{first}{second}"), format!("{second}{first}")];
    candidates.into_iter().find(|name| !name.is_empty() && one.covers(name) && other.covers(name))
}

/// The paths that a shipped policy declares of a stream.
pub(super) fn shipped_paths(stream: Stream) -> Result<Vec<(String, ColumnType)>> {
    let shipped = Schemas::from_files(BUILTIN.into_iter().chain(OPTIONAL))?;
    let columns = shipped.table(stream).map(|table| table.columns.as_slice()).unwrap_or_default();
    Ok(columns.iter().map(|column| (column.path.join("."), column.column_type)).collect())
}

/// Tells whether a path is one of the known ones, inside one that holds anything, or around one.
pub(super) fn is_known(path: &str, known: &[(String, ColumnType)]) -> bool {
    let is_inside = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    attribute_of(path).is_some()
        || known.iter().any(|(known, of)| {
            known == path || is_inside(known, path) || (*of == ColumnType::Any && is_inside(path, known))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str) -> CustomRule {
        CustomRule {
            pattern: pattern.to_owned(),
            class: Class::Internal,
            method: MethodText { name: "keep".to_owned(), arguments: std::collections::BTreeMap::new() },
            description: None,
            line: 1,
        }
    }

    #[test]
    fn rules_overlap_where_one_attribute_may_have_both() {
        for (one, other, expected) in [
            ("*Str", "tierStr", Some("tierStr")),
            ("*Str", "tier*", Some("tierStr")),
            ("tier*", "tierS*", Some("tierS")),
            ("*", "*Num", Some("Num")),
            ("*Str", "*Num", None),
            ("tier*", "order*", None),
            ("tierStr", "tierNum", None),
        ] {
            let found = shared(&rule(one), &rule(other));
            assert_eq!(found.as_deref(), expected, "{one} {other}");
        }
    }

    #[test]
    fn path_is_known_when_declared_inside_of_anything_or_around_something() {
        let known = [("attributes.a.b".to_owned(), ColumnType::Text), ("attributes.any".to_owned(), ColumnType::Any)];
        for (path, expected) in [
            ("attributes.a.b", true),
            ("attributes.a", true),
            ("attributes.any.thing", true),
            ("attributes.custom.tierStr", true),
            ("attributes.a.b.c", false),
            ("attributes.an", false),
            ("attributes.ab", false),
        ] {
            assert_eq!(is_known(path, &known), expected, "{path}");
        }
    }
}
