//! Columns, types and classes, as `schemas/*.toml` declare them.
//!
//! One file per stream, named after its table; a stream without a file is not extracted:
//!
//! ```toml
//! stream = "tickets"
//!
//! [[column]]
//! name = "first_response_ms"
//! path = "attributes.firstResponse.time"   # keys from the record's root; a number is an index into an array
//! type = "int"                             # text int float bool timestamp text_list; any for what is dropped
//! unit = "ms"
//! class = "internal"                       # public internal personal content
//! method = "keep"                          # or { name = "truncate", to = "day" }
//! description = "Time from the first message to the first response."
//!
//! [[custom]]
//! pattern = "*Num"                         # one attribute by name, or one `*` at the start or the end
//! class = "internal"
//!
//! [[pattern]]                              # part of every `scrub` of the file
//! name = "order"                           # stored as `[order]` in place of what matches
//! regex = "ORD-[0-9]{6}"
//! description = "Order number."
//! ```
//!
//! A method is `keep` where nothing is written and the class is `public` or `internal`; for `personal` and `content` it
//! must be written. A column of type `any` is always dropped and covers everything below its path that no other column
//! names. The text of a method is kept as written: what it means is `policy`'s.
//!
//! The key column of the stream must be declared as text at `id`; incremental streams also need `updated_at`, `rev` and
//! `deleted`, by which a newer revision of a record supersedes an older one. `ticket_times`, whose records never change,
//! needs `updated_at` alone, at `attributes.createdAt`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::Stream;

mod read;

/// The declarations of every stream.
#[derive(Debug, Clone)]
pub struct Schemas {
    tables: BTreeMap<Stream, Arc<TableSchema>>,
}

impl Schemas {
    /// Reads every `*.toml` of a folder.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the folder cannot be read or has no such file, or a declaration is
    /// wrong: the first wrong one, with its file and line.
    pub fn load(folder: &Path) -> Result<Self> {
        let failed = |path: &Path, source: std::io::Error| {
            Error::config("failed to read the schemas").with_context("path", path.display()).with_source(source)
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|source| failed(folder, source))? {
            let path = entry.map_err(|source| failed(folder, source))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(Error::config("folder has no schema file")
                .with_context("folder", folder.display())
                .with_hint("`counterfoil init` writes the built-in ones: tickets.toml, customers.toml and so on"));
        }
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let text = std::fs::read_to_string(&path).map_err(|source| failed(&path, source))?;
            files.push((path.display().to_string(), text));
        }
        Self::from_files(files.iter().map(|(file, text)| (file.as_str(), text.as_str())))
    }

    /// Reads the declarations that the program ships with.
    ///
    /// # Errors
    ///
    /// None that a test of this crate would let through.
    pub fn builtin() -> Result<Self> {
        Self::from_files(BUILTIN)
    }

    /// Reads declarations from file names (or paths) and texts.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) for the first wrong declaration.
    pub fn from_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut tables = BTreeMap::new();
        for (file, text) in files {
            let table = read::table(file, text)?;
            tables.insert(table.stream, Arc::new(table));
        }
        Ok(Self { tables })
    }

    /// Returns one stream's declarations.
    pub fn table(&self, stream: Stream) -> Option<&Arc<TableSchema>> {
        self.tables.get(&stream)
    }

    /// Returns the streams that are declared.
    pub fn streams(&self) -> impl Iterator<Item = Stream> + '_ {
        self.tables.keys().copied()
    }
}

/// File name and text of each declaration file that the program ships with (`init` writes them).
pub const BUILTIN: [(&str, &str); 9] = [
    ("tickets.toml", include_str!("../schemas/tickets.toml")),
    ("customers.toml", include_str!("../schemas/customers.toml")),
    ("users.toml", include_str!("../schemas/users.toml")),
    ("teams.toml", include_str!("../schemas/teams.toml")),
    ("tags.toml", include_str!("../schemas/tags.toml")),
    ("queues.toml", include_str!("../schemas/queues.toml")),
    ("brands.toml", include_str!("../schemas/brands.toml")),
    ("slas.toml", include_str!("../schemas/slas.toml")),
    ("schedules.toml", include_str!("../schemas/schedules.toml")),
];

/// File name and text of each declaration file of a stream that is off unless someone adds it (`init` writes them with the
/// extension `.off`, which is to be removed).
pub const OPTIONAL: [(&str, &str); 1] = [("ticket_times.toml", include_str!("../schemas/ticket_times.toml"))];

/// The declared columns of one stream.
#[derive(Debug)]
pub struct TableSchema {
    /// The stream.
    pub stream: Stream,
    /// The file they were read from, for messages.
    pub file: String,
    /// Columns by position.
    pub columns: Vec<Column>,
    /// Custom attributes by name or pattern (`*Num`), expanded to columns with the source's definitions at each run.
    pub custom: Vec<CustomRule>,
    /// Patterns for `scrub`.
    pub patterns: Vec<Pattern>,
}

/// A declared column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Name in SQL.
    pub name: String,
    /// Keys from the record's root, e.g. `["attributes", "firstResponse", "time"]`.
    pub path: Vec<String>,
    /// Type.
    pub column_type: ColumnType,
    /// Unit, e.g. `ms`, where the type does not say it.
    pub unit: Option<String>,
    /// Class.
    pub class: Class,
    /// Method as written.
    pub method: MethodText,
    /// Description, shown by `DESCRIBE`.
    pub description: String,
    /// Line of the declaration in its file, from 1.
    pub line: usize,
}

/// A rule over custom attributes.
#[derive(Debug, Clone)]
pub struct CustomRule {
    /// Name, or pattern with one `*` at its start or end.
    pub pattern: String,
    /// Class.
    pub class: Class,
    /// Method as written.
    pub method: MethodText,
    /// Description of the columns it makes, where the source's definition gives no display name.
    pub description: Option<String>,
    /// Line of the declaration in its file, from 1.
    pub line: usize,
}

impl CustomRule {
    /// Tells whether the rule names one attribute, without a `*`.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        !self.pattern.contains('*')
    }

    /// Tells whether the rule covers an attribute.
    #[must_use]
    pub fn covers(&self, attribute: &str) -> bool {
        match (self.pattern.strip_prefix('*'), self.pattern.strip_suffix('*')) {
            (Some(end), _) => attribute.ends_with(end),
            (None, Some(start)) => attribute.starts_with(start),
            (None, None) => attribute == self.pattern,
        }
    }
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8 text (`Utf8`).
    Text,
    /// `Int64`.
    Int,
    /// `Float64`.
    Float,
    /// `Boolean`.
    Bool,
    /// `Timestamp(Millisecond, "UTC")`, from ISO-8601 text.
    Timestamp,
    /// `List<Utf8>`.
    TextList,
    /// Any JSON value, dropped: it covers all below its path that no other column names.
    Any,
}

impl ColumnType {
    const ALL: [Self; 7] = [Self::Text, Self::Int, Self::Float, Self::Bool, Self::Timestamp, Self::TextList, Self::Any];

    /// Returns the name in schema files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Timestamp => "timestamp",
            Self::TextList => "text_list",
            Self::Any => "any",
        }
    }
}

/// How sensitive a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// May be shown to anyone.
    Public,
    /// For the organisation.
    Internal,
    /// About a person.
    Personal,
    /// What people wrote.
    Content,
}

impl Class {
    const ALL: [Self; 4] = [Self::Public, Self::Internal, Self::Personal, Self::Content];

    /// Returns the name in schema files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Personal => "personal",
            Self::Content => "content",
        }
    }
}

/// A method as written: its name and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodText {
    /// Name, e.g. `truncate`.
    pub name: String,
    /// Arguments by name, e.g. `to = "day"`.
    pub arguments: BTreeMap<String, Argument>,
}

/// An argument of a method, numbers as they are written.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// A string or a number.
    One(String),
    /// An array of them.
    List(Vec<String>),
}

/// A pattern of the file's own, which is part of every `scrub` in it.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Name, which is stored in place of what it matches: `[name]`.
    pub name: String,
    /// Regular expression.
    pub regex: String,
    /// Description.
    pub description: String,
    /// Line of the declaration in its file, from 1.
    pub line: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_declares_every_stream_under_its_file_name() {
        let schemas = Schemas::from_files(BUILTIN.into_iter().chain(OPTIONAL)).unwrap();
        assert!(schemas.streams().eq(Stream::ALL));
        assert!(Schemas::builtin().unwrap().table(Stream::TicketTimes).is_none(), "off unless someone adds it");
        for (file, _) in BUILTIN.into_iter().chain(OPTIONAL) {
            assert!(file.trim_end_matches(".toml").parse::<Stream>().is_ok(), "{file}");
        }
    }

    #[test]
    fn folder_is_read_and_an_empty_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Schemas::load(folder.path()).unwrap_err();
        assert!(error.to_string().starts_with("folder has no schema file (folder: "), "{error}");
        assert!(Schemas::load(&folder.path().join("absent")).is_err());

        std::fs::write(folder.path().join("notes.txt"), "not read").unwrap();
        std::fs::write(folder.path().join("tags.toml"), BUILTIN[4].1).unwrap();
        let schemas = Schemas::load(folder.path()).unwrap();
        assert!(schemas.streams().eq([Stream::Tags]));
        let table = schemas.table(Stream::Tags).unwrap();
        assert!(table.file.ends_with("tags.toml"));
        assert_eq!(table.columns[0].name, "tag_id");
    }

    #[test]
    fn custom_rule_covers_by_name_prefix_or_suffix() {
        let rule = |pattern: &str| CustomRule {
            pattern: pattern.to_owned(),
            class: Class::Internal,
            method: MethodText { name: "keep".to_owned(), arguments: BTreeMap::new() },
            description: None,
            line: 1,
        };
        for (pattern, attribute, covered) in [
            ("tierStr", "tierStr", true),
            ("tierStr", "xtierStr", false),
            ("*Str", "tierStr", true),
            ("*Str", "tierNum", false),
            ("tier*", "tierNum", true),
            ("tier*", "aTier", false),
            ("*", "anything", true),
        ] {
            assert_eq!(rule(pattern).covers(attribute), covered, "{pattern} {attribute}");
        }
    }
}
