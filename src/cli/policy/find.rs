//! Which declarations a name means: a column, a path, or a custom attribute.
//!
//! `tickets.status`, `status`, `attributes.status`, `tierStr`, `attributes.custom.tierStr` and `custom_tier` all name fields;
//! a name without its table is looked for in every table, so it may mean several.

use arrow::datatypes::Field;

use super::Ground;
use crate::error::Result;
use crate::model::Stream;
use crate::policy::column_type;
use crate::schema::{Class, Column, ColumnType, CustomRule, TableSchema};

/// Where custom attributes stand in a record.
pub(super) const CUSTOM: &str = "attributes.custom.";

/// A field, and what the policy says of it.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) stream: Stream,
    /// The column that holds it, where one does.
    pub(super) column: Option<String>,
    pub(super) path: String,
    pub(super) column_type: ColumnType,
    pub(super) class: Class,
    /// Canonical text of the method.
    pub(super) method: String,
    pub(super) description: String,
    pub(super) rule: Rule,
    /// Rules that cover the field too and do not decide over it, each with the reason.
    pub(super) others: Vec<(Rule, &'static str)>,
    /// Why nothing is stored though the rule would store it.
    pub(super) refused: Option<&'static str>,
}

/// A rule and its place.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) file: String,
    pub(super) line: usize,
    /// `column` or `custom`.
    pub(super) kind: &'static str,
    /// Name of the column, or the pattern.
    pub(super) name: String,
}

impl Rule {
    pub(super) fn of_column(table: &TableSchema, column: &Column) -> Self {
        Self { file: table.file.clone(), line: column.line, kind: "column", name: column.name.clone() }
    }

    pub(super) fn of_custom(table: &TableSchema, rule: &CustomRule) -> Self {
        Self { file: table.file.clone(), line: rule.line, kind: "custom", name: rule.pattern.clone() }
    }

    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// Returns the rules that cover an attribute, the one that decides first: by name, then the longest pattern, of equal ones
/// the first in the file.
pub(super) fn covering<'a>(table: &'a TableSchema, attribute: &str) -> Vec<&'a CustomRule> {
    let mut rules: Vec<&CustomRule> = table.custom.iter().filter(|rule| rule.covers(attribute)).collect();
    rules.sort_by_key(|rule| (!rule.is_by_name(), std::cmp::Reverse(rule.pattern.len())));
    rules
}

/// Returns the column that reads an attribute, or something inside of it.
pub(super) fn column_of_attribute<'a>(table: &'a TableSchema, attribute: &str) -> Option<&'a Column> {
    table.columns.iter().find(|column| {
        let mut keys = column.path.iter().map(String::as_str);
        keys.next() == Some("attributes") && keys.next() == Some("custom") && keys.next() == Some(attribute)
    })
}

/// Returns an attribute's name, where a path is that of one.
pub(super) fn attribute_of(path: &str) -> Option<&str> {
    path.strip_prefix(CUSTOM).filter(|name| !name.is_empty() && !name.contains('.'))
}

impl Ground {
    /// Finds what a name means, table by table; a custom attribute in the tables that the lake knows it of, if it does.
    pub(super) fn find(&self, name: &str) -> Result<Vec<Subject>> {
        let found = self.find_in_all(name, false)?;
        if found.is_empty() { self.find_in_all(name, true) } else { Ok(found) }
    }

    fn find_in_all(&self, name: &str, is_guess: bool) -> Result<Vec<Subject>> {
        let mut found = Vec::new();
        for stream in self.schemas.streams() {
            let Some(table) = self.schemas.table(stream) else { continue };
            let in_table = name.split_once('.').filter(|(first, _)| *first == stream.table()).map(|(_, rest)| rest);
            let named_table = name.split_once('.').is_some_and(|(first, _)| first.parse::<Stream>().is_ok());
            match in_table {
                Some(rest) => found.extend(self.find_in(table, rest, true)?),
                None if named_table => {}
                None => found.extend(self.find_in(table, name, is_guess)?),
            }
        }
        Ok(found)
    }

    fn find_in(&self, table: &TableSchema, name: &str, is_certain: bool) -> Result<Option<Subject>> {
        let stored = self.stored(table.stream)?;
        let is_named = |column: &&Column| column.name == name || column.path.join(".") == name;
        if let Some(column) = table.columns.iter().find(is_named) {
            return Ok(Some(column_subject(table, column, stored.field_with_name(&column.name).ok())));
        }
        // A generated column by its name.
        let path_of = |field: &Field| field.metadata().get("path").cloned().unwrap_or_default();
        let generated = stored.fields().iter().find(|field| field.name() == name).map(|field| path_of(field));
        let path = generated.unwrap_or_else(|| name.to_owned());
        let attribute = attribute_of(&path).or_else(|| (!path.contains('.')).then_some(path.as_str()));
        if let Some(attribute) = attribute {
            if let Some(column) = column_of_attribute(table, attribute) {
                return Ok(Some(column_subject(table, column, stored.field_with_name(&column.name).ok())));
            }
            let is_known = self.knows_attribute(table.stream, attribute);
            if is_known.unwrap_or(true) || is_certain {
                let path = format!("{CUSTOM}{attribute}");
                let field = stored.fields().iter().find(|field| path_of(field) == path).map(AsRef::as_ref);
                return self.attribute(table, attribute, field);
            }
        }
        // What stands inside something that is dropped whole.
        let above = table.columns.iter().filter(|column| column.column_type == ColumnType::Any);
        let above =
            above.filter(|column| name.strip_prefix(&column.path.join(".")).is_some_and(|rest| rest.starts_with('.')));
        let deepest = above.max_by_key(|column| column.path.len());
        Ok(deepest.map(|column| Subject { path: name.to_owned(), column: None, ..column_subject(table, column, None) }))
    }

    /// Tells whether the lake knows a custom attribute; nothing where it knows none at all.
    pub(super) fn knows_attribute(&self, stream: Stream, attribute: &str) -> Option<bool> {
        let known = self.attributes(stream);
        (!known.is_empty()).then(|| known.iter().any(|name| name == attribute))
    }

    /// Lists the custom attributes that the lake knows of a stream: defined at the source, stored, or in quarantine.
    pub(super) fn attributes(&self, stream: Stream) -> Vec<String> {
        let quarantine = self.quarantine(stream);
        let mut known: Vec<String> =
            quarantine.map(|kept| kept.attributes.keys().cloned().collect()).unwrap_or_default();
        let paths = quarantine.into_iter().flat_map(|kept| kept.fields.keys().map(|key| key.path.as_str()));
        known.extend(paths.filter_map(attribute_of).filter(|name| *name != "*").map(str::to_owned));
        if let Some(table) = self.manifest().and_then(|manifest| manifest.tables.get(&stream)) {
            let paths = table.schema.fields().iter().filter_map(|field| field.metadata().get("path"));
            known.extend(paths.filter_map(|path| attribute_of(path)).map(str::to_owned));
        }
        known.sort();
        known.dedup();
        known
    }

    /// Tells whether the source marks a field sensitive; nothing where nobody asked.
    pub(super) fn is_sensitive(&self, stream: Stream, path: &str) -> Option<bool> {
        self.quarantine(stream)?.attributes.get(attribute_of(path)?).copied()
    }

    /// Returns the method of a rule over custom attributes, in canonical text.
    pub(super) fn written(&self, stream: Stream, rule: &CustomRule) -> Result<String> {
        let views = self.policy.custom_rules(stream)?;
        let view = views.into_iter().find(|view| view.line == rule.line);
        Ok(view.map_or_else(|| rule.method.name.clone(), |view| view.method))
    }

    fn attribute(&self, table: &TableSchema, attribute: &str, stored: Option<&Field>) -> Result<Option<Subject>> {
        let rules = covering(table, attribute);
        let Some(rule) = rules.first().copied() else { return Ok(None) };
        let path = format!("{CUSTOM}{attribute}");
        let is_sensitive = self.is_sensitive(table.stream, &path) == Some(true);
        let would_store = rule.method.name != "drop";
        let refused = match stored {
            None if would_store && is_sensitive && !rule.is_by_name() => Some(
                "the source marks it sensitive, and a pattern does not keep what is: only a rule with its full name does",
            ),
            None if would_store && self.knows_attribute(table.stream, attribute) == Some(true) => {
                Some("the method of its rule does not fit its type, or the source does not define it")
            }
            _ => None,
        };
        let why = |other: &CustomRule| match (rule.is_by_name(), rule.pattern.len() > other.pattern.len()) {
            (true, _) => "a rule by name decides before a pattern",
            (false, true) => "a longer pattern decides before a shorter one",
            (false, false) => "of equal ones the first in the file decides",
        };
        Ok(Some(Subject {
            stream: table.stream,
            column: stored.map(|field| field.name().clone()),
            column_type: stored.and_then(|field| column_type(field.data_type())).unwrap_or(ColumnType::Text),
            class: rule.class,
            method: match stored.and_then(|field| field.metadata().get("method").cloned()) {
                Some(method) => method,
                None if refused.is_some() => "drop".to_owned(),
                None => self.written(table.stream, rule)?,
            },
            description: stored
                .and_then(|field| field.metadata().get("description").cloned())
                .or_else(|| rule.description.clone())
                .unwrap_or_default(),
            rule: Rule::of_custom(table, rule),
            others: rules.iter().skip(1).map(|other| (Rule::of_custom(table, other), why(other))).collect(),
            refused,
            path,
        }))
    }
}

/// Says what is told of a declared column; `stored` is the column as it is stored.
fn column_subject(table: &TableSchema, column: &Column, stored: Option<&Field>) -> Subject {
    let path = column.path.join(".");
    let others = attribute_of(&path).map(|attribute| covering(table, attribute)).unwrap_or_default();
    let why = "a column decides over its path before any rule over custom attributes";
    Subject {
        stream: table.stream,
        column: stored.map(|field| field.name().clone()),
        column_type: column.column_type,
        class: column.class,
        method: stored
            .and_then(|field| field.metadata().get("method").cloned())
            .unwrap_or_else(|| column.method.name.clone()),
        description: column.description.clone(),
        rule: Rule::of_column(table, column),
        others: others.into_iter().map(|rule| (Rule::of_custom(table, rule), why)).collect(),
        refused: None,
        path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schemas;

    const RULES: &str = r#"
stream = "tags"
[[column]]
name = "tag_id"
path = "id"
type = "text"
class = "internal"
description = "Id."
[[column]]
name = "area"
path = "attributes.custom.areaStr"
type = "text"
class = "internal"
description = "Area."
[[custom]]
pattern = "*Str"
class = "personal"
method = "mask"
[[custom]]
pattern = "tier*"
class = "internal"
[[custom]]
pattern = "tie*"
class = "internal"
[[custom]]
pattern = "a*"
class = "internal"
[[custom]]
pattern = "ssnStr"
class = "personal"
method = { name = "mask", keep_last = 2 }
"#;

    fn ground() -> Ground {
        Ground::new(Schemas::from_files([("tags.toml", RULES)]).unwrap(), None).unwrap()
    }

    #[test]
    fn rule_that_is_told_first_is_the_one_that_decides() {
        let ground = ground();
        let table = ground.schemas.table(Stream::Tags).unwrap();
        for attribute in ["tierStr", "tieStr", "ssnStr", "tierNum", "aStr", "a", "none"] {
            let told = covering(table, attribute).first().map(|rule| rule.line);
            let decides = ground.policy.rule_of_attribute(Stream::Tags, attribute).unwrap().map(|view| view.line);
            assert_eq!(told, decides, "{attribute}");
        }
    }

    #[test]
    fn names_are_understood_with_and_without_their_table() {
        let ground = ground();
        for (name, line, method, others) in [
            ("tag_id", Some(3), "keep", 0),
            ("tags.tag_id", Some(3), "keep", 0),
            ("tickets.tag_id", None, "", 0),
            ("attributes.custom.areaStr", Some(9), "keep", 2),
            ("areaStr", Some(9), "keep", 2),
            ("tierStr", Some(19), "keep", 2),
            ("tags.ssnStr", Some(28), "mask(keep_last=2)", 1),
            ("attributes.custom.ssnStr", Some(28), "mask(keep_last=2)", 1),
            ("attributes.none", None, "", 0),
            ("none", None, "", 0),
            ("", None, "", 0),
            (".", None, "", 0),
            ("tags.", None, "", 0),
        ] {
            let found = ground.find(name).unwrap();
            let found = found.first();
            assert_eq!(found.map(|subject| subject.rule.line), line, "{name}");
            if let Some(subject) = found {
                assert_eq!((subject.method.as_str(), subject.others.len()), (method, others), "{name}");
            }
        }
    }
}
