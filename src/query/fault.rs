//! What is wrong with an SQL file, and where: the one place that turns the engine's errors into ours.
//!
//! An [`Error`] of this crate that travelled through the engine (from a scan) keeps its kind. Values quoted by the
//! engine's cast and parse errors come from rows, so they are blanked: errors carry no personal values.

use std::error::Error as StdError;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use crate::error::{Error, ErrorKind};
use crate::model::Stream;
use crate::schema::OPTIONAL;

/// The tables of a lake that keep every revision.
const VERSIONS: [&str; 2] = ["ticket_versions", "customer_versions"];

/// A fault of an SQL file before it becomes an [`Error`].
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) line: Option<u64>,
    pub(super) column: Option<u64>,
    pub(super) hint: Option<String>,
    /// The name that is not there, if that is what is wrong.
    pub(super) missing: Option<Box<Missing>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// A name that is not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missing {
    Table,
    Column { table: Option<String>, name: String },
    Function(String),
}

/// What a fault may name as near: the text it lies in and the tables there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) sql: &'a str,
    pub(super) tables: &'a [String],
}

impl Fault {
    /// Makes a fault of kind [`ErrorKind::Query`].
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Query,
            message: message.into(),
            line: None,
            column: None,
            hint: None,
            missing: None,
            source: None,
        }
    }

    pub(super) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    pub(super) fn at(mut self, position: Option<(u64, u64)>) -> Self {
        if let Some((line, column)) = position {
            self.line = Some(line);
            self.column = Some(column);
        }
        self
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn missing(mut self, missing: Missing) -> Self {
        self.missing = Some(Box::new(missing));
        self
    }

    pub(super) fn with_nearest<'n>(self, wanted: &str, known: impl IntoIterator<Item = &'n str>) -> Self {
        match did_you_mean(wanted, known) {
            Some(hint) => self.with_hint(hint),
            None => self,
        }
    }

    /// Takes over the hint and the kind of another fault.
    pub(super) fn hinted_as(mut self, other: Self) -> Self {
        self.kind = other.kind;
        self.hint = other.hint;
        self
    }

    /// Turns the fault into an error that starts with `path:line:column`.
    pub(super) fn into_error(self, path: &str) -> Error {
        let place = match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{path}:{line}:{column}"),
            (Some(line), None) => format!("{path}:{line}"),
            _ => path.to_owned(),
        };
        let mut error = Error::new(self.kind, format!("{place}: {}", self.message));
        if let Some(hint) = self.hint {
            error = error.with_hint(hint);
        }
        if let Some(source) = self.source {
            error = error.with_source(source);
        }
        error
    }

    /// Reads an error of the engine.
    pub(super) fn from_engine(error: &DataFusionError, place: Place<'_>) -> Self {
        let position = error
            .diagnostic()
            .and_then(|diagnostic| diagnostic.span)
            .map(|span| (span.start.line, span.start.column))
            .filter(|(line, _)| *line > 0);
        let fault = read(error, place);
        if fault.line.is_none() || position.is_some() { fault.at(position) } else { fault }
    }
}

fn read(error: &DataFusionError, place: Place<'_>) -> Fault {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => read(inner, place),
        DataFusionError::Shared(inner) => read(inner, place),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => Fault::from_engine(first, place),
            None => Fault::new("the engine failed without a reason").with_kind(ErrorKind::Internal),
        },
        DataFusionError::External(inner) => external(inner.as_ref(), place),
        DataFusionError::ArrowError(inner, _) => arrow(inner, place),
        DataFusionError::ParquetError(inner) => {
            if let parquet::errors::ParquetError::External(cause) = inner.as_ref() {
                return external(cause.as_ref(), place);
            }
            Fault::new(format!("failed to read a data file: {inner}")).with_kind(ErrorKind::Data)
        }
        DataFusionError::ObjectStore(inner) => {
            Fault::new(format!("failed to read from the store: {inner}")).with_kind(ErrorKind::Unavailable)
        }
        DataFusionError::IoError(inner) => {
            if let Some(own) = inner.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
                return own_fault(own);
            }
            Fault::new(format!("failed to read or write: {inner}")).with_kind(ErrorKind::Unavailable)
        }
        DataFusionError::SQL(inner, _) => syntax(&inner.to_string()),
        DataFusionError::SchemaError(inner, _) => schema(inner, place),
        DataFusionError::Plan(text) => planning(text, place),
        DataFusionError::NotImplemented(text) => Fault::new(format!("not supported: {}", one_line(text))),
        DataFusionError::ResourcesExhausted(text) => {
            // Names of operators and sizes, for whoever looks for the one that wanted too much.
            tracing::debug!(engine = %one_line(text), "out of memory");
            Fault::new("needs more memory than query.memory allows").with_hint(
                "raise query.memory, select fewer columns, or narrow the rows before ORDER BY, GROUP BY and joins",
            )
        }
        DataFusionError::Execution(text) => {
            Fault::new(format!("failed while running: {}", blank_quoted(&one_line(text))))
        }
        DataFusionError::Internal(text) => {
            Fault::new(format!("the engine failed: {}", one_line(text))).with_kind(ErrorKind::Internal)
        }
        DataFusionError::ExecutionJoin(inner) => {
            Fault::new(format!("a task of the engine ended early: {inner}")).with_kind(ErrorKind::Internal)
        }
        other => Fault::new(one_line(&other.strip_backtrace())),
    }
}

fn external(cause: &(dyn StdError + Send + Sync + 'static), place: Place<'_>) -> Fault {
    if let Some(own) = cause.downcast_ref::<Error>() {
        return own_fault(own);
    }
    if let Some(engine) = cause.downcast_ref::<DataFusionError>() {
        return read(engine, place);
    }
    if let Some(error) = cause.downcast_ref::<ArrowError>() {
        return arrow(error, place);
    }
    // Someone else's wrapper around an error of ours still tells what to do.
    let mut next = cause.source();
    while let Some(inner) = next {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return own_fault(own);
        }
        next = inner.source();
    }
    Fault::new(format!("failed to read: {}", one_line(&cause.to_string()))).with_kind(ErrorKind::Unavailable)
}

fn own_fault(own: &Error) -> Fault {
    let mut fault = Fault::new(own.to_string()).with_kind(own.kind());
    fault.hint = own.hint().map(ToOwned::to_owned);
    // The cause cannot be moved out of a shared error; its text keeps the chain readable.
    fault.source = own.source().map(|cause| cause.to_string().into());
    fault
}

fn arrow(error: &ArrowError, place: Place<'_>) -> Fault {
    match error {
        ArrowError::ExternalError(cause) => external(cause.as_ref(), place),
        // Spill files are written through arrow, which wraps what our writer says.
        ArrowError::IoError(_, cause) => match cause.get_ref() {
            Some(inner) => external(inner, place),
            None => Fault::new(format!("failed to read or write: {cause}")).with_kind(ErrorKind::Unavailable),
        },
        ArrowError::DivideByZero => {
            Fault::new("divides by zero").with_hint("NULLIF(divisor, 0) turns a zero into NULL")
        }
        other => Fault::new(format!("failed while running: {}", blank_quoted(&one_line(&other.to_string())))),
    }
}

/// Reads a parser's message, which ends in `at Line: L, Column: C` where the place is known.
fn syntax(text: &str) -> Fault {
    let text = one_line(text);
    let bare = text.strip_prefix("sql parser error: ").unwrap_or(&text);
    let Some((message, place)) = bare.rsplit_once(" at Line: ") else {
        return Fault::new(format!("not valid SQL: {bare}"));
    };
    let position = place
        .split_once(", Column: ")
        .and_then(|(line, column)| Some((line.trim().parse().ok()?, column.trim().parse().ok()?)));
    Fault::new(format!("not valid SQL: {message}")).at(position)
}

fn schema(error: &SchemaError, place: Place<'_>) -> Fault {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let message = match &field.relation {
                Some(relation) => format!("no column `{}` in `{}`", field.name, relation.table()),
                None => format!("no column `{}`", field.name),
            };
            let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            let table = field.relation.as_ref().map(|relation| relation.table().to_owned());
            let missing = Missing::Column { table, name: field.name.clone() };
            Fault::new(message).at(locate(place.sql, &field.name)).with_nearest(&field.name, names).missing(missing)
        }
        SchemaError::AmbiguousReference { field } => {
            Fault::new(format!("column `{}` is in more than one table", field.name))
                .at(locate(place.sql, &field.name))
                .with_hint(format!("write the table before it, as in `tickets.{}`", field.name))
        }
        SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
            Fault::new(format!("two columns are called `{name}`")).with_hint("give one of them another name with AS")
        }
    }
}

fn planning(text: &str, place: Place<'_>) -> Fault {
    let text = one_line(text);
    if let Some(name) = between(&text, "table '", "' not found") {
        return no_table(name.rsplit('.').next().unwrap_or(name), place);
    }
    if let Some(name) = between(&text, "Invalid function '", "'") {
        let fault = Fault::new(format!("no function `{name}`")).at(locate(place.sql, name));
        let fault = fault.missing(Missing::Function(name.to_owned()));
        return match between(&text, "Did you mean '", "'") {
            Some(near) => fault.with_hint(format!("did you mean `{near}`?")),
            None => fault,
        };
    }
    Fault::new(text)
}

/// Tells that a table is not there: not yet, or not at all.
pub(super) fn no_table(table: &str, place: Place<'_>) -> Fault {
    let at = locate(place.sql, table);
    let is_known = Stream::ALL.into_iter().map(Stream::table).chain(VERSIONS).any(|known| known == table);
    if is_known && !place.tables.iter().any(|present| present == table) {
        // A table that has to be asked for is not there because nobody did.
        let hint = match OPTIONAL.iter().find(|(file, _)| file.trim_end_matches(".toml") == table) {
            Some((file, _)) => {
                format!("it is optional: declare it in schemas/{file}, then run `counterfoil extract`")
            }
            None => "run `counterfoil extract`".to_owned(),
        };
        return Fault::new(format!("the lake has no table `{table}` yet"))
            .at(at)
            .with_hint(hint)
            .missing(Missing::Table);
    }
    Fault::new(format!("no table `{table}`"))
        .at(at)
        .with_nearest(table, place.tables.iter().map(String::as_str))
        .missing(Missing::Table)
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}

/// Finds the line and column (from 1) of the first whole word `word` outside comments.
pub(super) fn locate(sql: &str, word: &str) -> Option<(u64, u64)> {
    if word.is_empty() {
        return None;
    }
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    for (index, line) in sql.lines().enumerate() {
        let code = line.split("--").next().unwrap_or_default();
        for (at, _) in code.match_indices(word) {
            let before = code[..at].chars().next_back();
            let after = code[at + word.len()..].chars().next();
            if !before.is_some_and(is_word) && !after.is_some_and(is_word) {
                return Some((index as u64 + 1, code[..at].chars().count() as u64 + 1));
            }
        }
    }
    None
}

/// Names up to three known words near the one that was written.
pub(super) fn did_you_mean<'n>(wanted: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let mut near: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup_by_key(|(_, name)| *name);
    let names: Vec<String> = near.into_iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("did you mean {one}?")),
        [first @ .., last] => Some(format!("did you mean {} or {last}?", first.join(", "))),
    }
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

fn blank_quoted(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    for (index, part) in text.split('\'').enumerate() {
        if index > 0 {
            blanked.push('\'');
        }
        blanked.push_str(if index % 2 == 1 { "…" } else { part });
    }
    blanked
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NOWHERE: Place<'static> = Place { sql: "", tables: &[] };

    #[test]
    fn own_error_keeps_its_kind_through_every_wrapper_of_the_engine() {
        for wrap in [
            (|error| DataFusionError::External(Box::new(error))) as fn(Error) -> DataFusionError,
            |error| DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(Box::new(error))), None),
            |error| DataFusionError::Shared(Arc::new(DataFusionError::External(Box::new(error)))),
            |error| DataFusionError::External(Box::new(error)).context("while scanning"),
            |error| DataFusionError::ParquetError(Box::new(parquet::errors::ParquetError::External(Box::new(error)))),
            |error| DataFusionError::IoError(std::io::Error::other(error)),
        ] {
            for kind in [ErrorKind::Data, ErrorKind::Denied, ErrorKind::Unavailable] {
                let wrapped = wrap(Error::new(kind, "tail of data/tickets/1.parquet").with_hint("restore it"));
                let error = Fault::from_engine(&wrapped, NOWHERE).into_error("a.sql");
                assert_eq!(error.kind(), kind);
                assert_eq!(error.to_string(), "a.sql: tail of data/tickets/1.parquet");
                assert_eq!(error.hint(), Some("restore it"));
            }
        }
    }

    #[test]
    fn values_of_rows_are_blanked_in_cast_errors() {
        let cast = ArrowError::CastError("Cannot cast string 'jo@example.com' to value of Int64 type".to_owned());
        let error = Fault::from_engine(&DataFusionError::ArrowError(Box::new(cast), None), NOWHERE).into_error("a.sql");
        assert!(!error.to_string().contains("jo@"), "{error}");
        assert!(error.to_string().contains("Int64"), "{error}");
    }

    #[test]
    fn words_are_located_outside_comments_and_longer_words() {
        let sql = "-- name: x\nSELECT ticket_ids,\n  ticket_id FROM t";
        assert_eq!(locate(sql, "ticket_id"), Some((3, 3)));
        assert_eq!(locate(sql, "name"), None);
    }

    #[test]
    fn nearest_words_come_best_first_and_far_ones_not_at_all() {
        let known = ["reopen_count", "message_count", "status"];
        assert_eq!(
            did_you_mean("reopens_count", known).as_deref().map(|hint| hint.contains("`reopen_count`")),
            Some(true)
        );
        assert_eq!(did_you_mean("zzz", known), None);
    }
}
