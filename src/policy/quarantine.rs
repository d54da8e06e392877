//! Quarantine: fields that were seen and not stored as declared, by name, type and count, never by value.
//!
//! Names come from the source's records, where a map may be keyed by what people typed. So a name is reported only if it looks
//! like an attribute's name (a letter, then at most 63 letters, digits, `_` and `-`, and not a record's id); any other counts
//! under `*`. A single plain word passes; it can only come from the record's top, its attributes or an object that has declared
//! columns inside, since undeclared objects are not entered. Under `*` are also names beyond the first [`MAX_NAMES`], which bounds memory.

use std::collections::HashMap;

use crate::model::ObjectId;
use crate::policy::json::Value;

const MAX_NAMES: usize = 2_000;

/// A field that was seen and not stored as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Path, e.g. `attributes.custom.noteTxt`.
    pub path: String,
    /// JSON type of its values: `text`, `number`, `bool`, `array`, `object`.
    pub json_type: &'static str,
    /// Why nothing was stored.
    pub reason: Reason,
    /// How often it was seen.
    pub count: u64,
}

/// Why nothing of a field was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Nothing declares it.
    Undeclared,
    /// Its value has another type than its column, or is out of the type's range.
    Mismatch,
    /// The source marks it sensitive, and no declaration names it: patterns do not keep such an attribute.
    Sensitive,
}

impl Reason {
    /// Returns the reason's name as reports print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Undeclared => "undeclared",
            Self::Mismatch => "mismatch",
            Self::Sensitive => "sensitive",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonType {
    Text,
    Number,
    Bool,
    Array,
    Object,
}

impl JsonType {
    const ALL: [Self; 5] = [Self::Text, Self::Number, Self::Bool, Self::Array, Self::Object];

    /// Tells the type of a value; `None` for `null`.
    pub(super) fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Bool),
            Value::Number(_) => Some(Self::Number),
            Value::Text(_) => Some(Self::Text),
            Value::Array => Some(Self::Array),
            Value::Object => Some(Self::Object),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// Counts by type: of finished pages, and of the page at work.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    kept: [u64; 5],
    page: [u64; 5],
}

/// The counters of a decoder.
#[derive(Debug)]
pub(super) struct Counts {
    /// By branch: names that are not declared there, each with its number in `undeclared`.
    names: Vec<HashMap<Box<str>, usize>>,
    undeclared: Vec<(String, Count)>,
    columns: Vec<Count>,
    branches: Vec<Count>,
}

impl Counts {
    pub(super) fn new(columns: usize, branches: usize) -> Self {
        Self {
            names: vec![HashMap::new(); branches],
            undeclared: Vec::new(),
            columns: vec![Count::default(); columns],
            branches: vec![Count::default(); branches],
        }
    }

    /// Returns the number of an undeclared name; it allocates when the name is new.
    pub(super) fn name(&mut self, branch: usize, branch_path: &str, name: &str) -> usize {
        if let Some(number) = self.names[branch].get(name) {
            return *number;
        }
        let name = if self.undeclared.len() < MAX_NAMES && is_attribute_name(name) { name } else { "*" };
        if let Some(number) = self.names[branch].get(name) {
            return *number;
        }
        let number = self.undeclared.len();
        let path = if branch_path.is_empty() { name.to_owned() } else { format!("{branch_path}.{name}") };
        self.undeclared.push((path, Count::default()));
        self.names[branch].insert(name.into(), number);
        number
    }

    pub(super) fn undeclared(&mut self, number: usize, json_type: JsonType) {
        self.undeclared[number].1.page[json_type as usize] += 1;
    }

    pub(super) fn column_mismatch(&mut self, column: usize, json_type: JsonType) {
        self.columns[column].page[json_type as usize] += 1;
    }

    pub(super) fn branch_mismatch(&mut self, branch: usize, json_type: JsonType) {
        self.branches[branch].page[json_type as usize] += 1;
    }

    /// Ends a page: its counts are kept, or forgotten with its rows.
    pub(super) fn end_page(&mut self, is_kept: bool) {
        let undeclared = self.undeclared.iter_mut().map(|(_, count)| count);
        for count in undeclared.chain(&mut self.columns).chain(&mut self.branches) {
            for (kept, page) in count.kept.iter_mut().zip(&mut count.page) {
                *kept += if is_kept { *page } else { 0 };
                *page = 0;
            }
        }
    }

    /// Lists what was counted, by path.
    pub(super) fn list<'a>(
        &'a self,
        column_paths: impl Iterator<Item = &'a str>,
        branch_paths: impl Iterator<Item = &'a str>,
    ) -> Vec<Quarantined> {
        let undeclared = self.undeclared.iter().map(|(path, count)| (path.as_str(), Reason::Undeclared, count));
        let columns = column_paths.zip(&self.columns).map(|(path, count)| (path, Reason::Mismatch, count));
        let branches = branch_paths.zip(&self.branches).map(|(path, count)| (path, Reason::Mismatch, count));
        let mut list: Vec<Quarantined> = undeclared
            .chain(columns)
            .chain(branches)
            .flat_map(|(path, reason, count)| {
                JsonType::ALL.into_iter().map(move |json_type| Quarantined {
                    path: path.to_owned(),
                    json_type: json_type.name(),
                    reason,
                    count: count.kept[json_type as usize],
                })
            })
            .filter(|quarantined| quarantined.count > 0)
            .collect();
        list.sort_by(|a, b| (&a.path, a.reason, a.json_type).cmp(&(&b.path, b.reason, b.json_type)));
        list
    }
}

/// Tells whether a name may be reported: it looks like an attribute's, and not like a value.
pub(super) fn is_attribute_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && ObjectId::from_hex(name.as_bytes()).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_values_count_under_a_star() {
        for (name, shown) in [
            ("noteTxt", true),
            ("shopify-orders", true),
            ("zoe@example.com", false),
            ("Zoe Doe", false),
            ("+12125550123", false),
            ("Zoë", false),
            ("a8228e05d4e96711004eccb7", false),
            ("", false),
        ] {
            assert_eq!(is_attribute_name(name), shown, "{name}");
        }
    }

    #[test]
    fn counts_of_a_failed_page_are_forgotten_and_names_are_bounded() {
        let mut counts = Counts::new(1, 1);
        let number = counts.name(0, "attributes", "x");
        counts.undeclared(number, JsonType::Text);
        counts.end_page(true);
        counts.undeclared(number, JsonType::Text);
        counts.column_mismatch(0, JsonType::Object);
        counts.end_page(false);
        let list = counts.list(["id"].into_iter(), [""].into_iter());
        assert_eq!(
            list,
            [Quarantined { path: "attributes.x".to_owned(), json_type: "text", reason: Reason::Undeclared, count: 1 }]
        );

        for n in 0..MAX_NAMES + 50 {
            counts.name(0, "attributes", &format!("name{n}"));
        }
        assert!(counts.undeclared.len() <= MAX_NAMES + 1);
    }
}
