//! Sinks: the rows of a query in the form that was asked for, batch by batch, in bounded memory.
//!
//! | format | form |
//! |---|---|
//! | `table` | for people: fits the terminal, shows the first rows, says what it cut; a file gets everything |
//! | `ids` | one id per line, for `resolve` and other programs |
//! | `csv` | header, quoting of RFC 4180, lines end with LF; lists as JSON text; NULL is an empty field |
//! | `json` | one array of objects, NULL written out |
//! | `ndjson` | one object per line |
//! | `arrow` | the stream format of Arrow IPC |
//! | `parquet` | row groups of 65,536 rows at most; encrypted under the lake's ring unless plain text is asked for |
//!
//! Instants are ISO 8601 in UTC with milliseconds in every format that is text, and of their own type in the others
//! (`query/sink/portable.rs`). Every batch is flushed, so that the first rows come early; of `parquet`, every row group.
//! A reader that goes away ends the query without an error.

mod arrow;
mod cells;
mod csv;
pub(super) mod file;
mod ids;
mod json;
mod origin;
mod parquet;
pub(super) mod portable;
mod table;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use ::arrow::datatypes::SchemaRef;
use ::arrow::record_batch::RecordBatch;

pub(super) use self::origin::restricted_columns;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::sealed::Seal;
use crate::query::fault::did_you_mean;
use crate::query::session::{Plan, Rows};

/// The form in which rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Aligned columns for people; a terminal gets the first rows, as wide as it is.
    #[default]
    Table,
    /// One id per line, from the first column, for `resolve` and other programs.
    Ids,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON array with an object per row.
    Json,
    /// One JSON object per line.
    Ndjson,
    /// The stream format of Arrow IPC.
    Arrow,
    /// Parquet, encrypted unless plain text is asked for ([`Protection`]).
    Parquet,
}

impl Format {
    /// Every format, in the order in which errors list them.
    pub const ALL: [Self; 7] =
        [Self::Table, Self::Ids, Self::Csv, Self::Json, Self::Ndjson, Self::Arrow, Self::Parquet];

    /// Returns the name that `--format` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Ids => "ids",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// Tells whether a terminal could not show it.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Arrow | Self::Parquet)
    }

    /// Refuses a binary format on a terminal.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) with the way out.
    pub fn check_terminal(self, is_terminal: bool) -> Result<()> {
        if !(is_terminal && self.is_binary()) {
            return Ok(());
        }
        Err(Error::config(format!("{self} is binary, and standard output is a terminal"))
            .with_hint(format!("add -o FILE.{self}, or pipe it to a program that reads {self}")))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let hint = did_you_mean(text, names).unwrap_or_else(|| format!("the formats are {}", names.join(", ")));
            Error::config(format!("unknown format `{text}`")).with_hint(hint)
        })
    }
}

/// Chooses the format: the one asked for, else the one that the file's extension names, else a table if there is no file.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) for a name that is no format, and for a file whose extension
/// names none when no format is asked for: a program that reads the file must not find a table cut for people in it.
pub fn format_for(asked: Option<&str>, file: Option<&Path>) -> Result<Format> {
    if let Some(name) = asked {
        return name.parse();
    }
    let Some(file) = file else { return Ok(Format::Table) };
    let extension = file.extension().map(|extension| extension.to_string_lossy()).unwrap_or_default();
    Ok(match extension.to_lowercase().as_str() {
        "csv" => Format::Csv,
        "json" => Format::Json,
        "ndjson" | "jsonl" => Format::Ndjson,
        "ids" => Format::Ids,
        "arrow" | "arrows" => Format::Arrow,
        "parquet" => Format::Parquet,
        unknown => {
            let message = match unknown {
                "" => "the output file has no extension that names its format".to_owned(),
                _ => format!("no format has the extension `.{extension}`"),
            };
            return Err(Error::config(message).with_context("file", file.display()).with_hint(
                "add --format csv (or ids, json, ndjson, arrow, parquet, table), or end the name in .csv, .ids, .json, \
                     .ndjson, .jsonl, .arrow or .parquet",
            ));
        }
    })
}

/// How a table is laid out; other formats write every row and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Columns of the terminal; without it a table is as wide as its content.
    pub width: Option<u16>,
    /// Rows shown at most; default 1,000. They are held in memory to measure the columns. `usize::MAX` shows every row,
    /// and of every text 32,767 characters; otherwise 1,000.
    pub max_rows: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self { width: None, max_rows: 1_000 }
    }
}

/// How writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All that was to be written was written.
    Complete,
    /// The reader closed its end first.
    ReaderGone,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Rows written.
    pub rows: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What the reader should know (rows or columns that were cut), for standard error.
    pub notes: Vec<String>,
}

/// One format's way to write batches.
trait Encoder: Send {
    /// Appends a batch to `out`; `false` asks for no more batches.
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<bool>;

    /// Appends what comes after the last batch, and returns the rows written in all and the notes.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(u64, Vec<String>)>;
}

/// Whether a file that can be encrypted is. Only `parquet` can; every other format is plain text or plain binary.
#[derive(Debug, Clone)]
pub enum Protection {
    /// In the clear, because somebody asked for it.
    Plain,
    /// Encrypted under the ring of the lake.
    Sealed(Seal),
}

impl Protection {
    /// Chooses how the result of a plan is protected: under the ring of the lake, unless plain text was asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when plain text is asked of a format that is never anything
    /// else; [`ErrorKind::Denied`](crate::error::ErrorKind::Denied) when the ring has no key to encrypt under.
    pub fn choose(format: Format, is_plaintext: bool, plan: &Plan, lake: &Lake) -> Result<Self> {
        check_plaintext(format, is_plaintext)?;
        if format != Format::Parquet || is_plaintext {
            return Ok(Self::Plain);
        }
        let seal = lake.seal(plan.restricted_columns()?);
        seal.key_ids()?;
        Ok(Self::Sealed(seal))
    }
}

/// Refuses `--plaintext` where it says nothing: who writes it believes that the other formats are encrypted.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) with the way out.
pub fn check_plaintext(format: Format, is_plaintext: bool) -> Result<()> {
    if !is_plaintext || format == Format::Parquet {
        return Ok(());
    }
    Err(Error::config(format!("--plaintext belongs to parquet; {format} is never encrypted"))
        .with_hint("leave --plaintext out, or add --format parquet for a file that is encrypted without it"))
}

/// The form in which rows are written, and how the bytes are protected.
#[derive(Debug, Clone)]
pub struct Sink {
    format: Format,
    layout: Layout,
    protection: Option<Protection>,
}

impl Sink {
    /// Writes in a format; `parquet` needs a [`Protection`] besides.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, layout: Layout::default(), protection: None }
    }

    /// Lays tables out.
    #[must_use]
    pub fn with_layout(mut self, layout: &Layout) -> Self {
        self.layout = layout.clone();
        self
    }

    /// Says whether what can be encrypted is.
    #[must_use]
    pub fn with_protection(mut self, protection: Protection) -> Self {
        self.protection = Some(protection);
        self
    }

    /// Writes the rows of a query.
    ///
    /// # Errors
    ///
    /// As [`write`](fn@write).
    pub async fn write(&self, mut rows: Rows, out: &mut (dyn Write + Send)) -> Result<Written> {
        self.write_with(&mut rows, out, &|cause| unwritten(None, cause)).await
    }

    /// Writes the rows of a query to a file: a temporary file beside it takes its place when all is written.
    ///
    /// # Errors
    ///
    /// As [`to_file`].
    pub async fn to_file(&self, rows: Rows, path: &Path) -> Result<Written> {
        file::write(self, rows, path).await
    }

    async fn write_with(
        &self,
        rows: &mut Rows,
        out: &mut (dyn Write + Send),
        failed: &(dyn Fn(&io::Error) -> Error + Sync),
    ) -> Result<Written> {
        let mut encoder = self.encoder(&rows.schema(), rows.path())?;
        let mut bytes = Vec::new();
        let mut wants_more = true;
        while wants_more {
            let Some(batch) = rows.next().await? else { break };
            wants_more = encoder.batch(&batch, &mut bytes)?;
            if !pass_on(&mut bytes, out).map_err(|cause| failed(&cause))? {
                return Ok(gone());
            }
        }
        let (rows, notes) = encoder.end(&mut bytes)?;
        if !pass_on(&mut bytes, out).map_err(|cause| failed(&cause))? {
            return Ok(gone());
        }
        Ok(Written { rows, outcome: Outcome::Complete, notes })
    }

    fn encoder(&self, schema: &SchemaRef, path: &str) -> Result<Box<dyn Encoder>> {
        if matches!(self.format, Format::Json | Format::Ndjson | Format::Parquet) {
            check_names(schema, self.format, path)?;
        }
        Ok(match self.format {
            Format::Table => Box::new(table::Table::new(schema, &self.layout)),
            Format::Ids => Box::new(ids::Ids::try_new(schema, path)?),
            Format::Csv => Box::new(csv::Csv::new(schema)),
            Format::Json => Box::new(json::Json::array()),
            Format::Ndjson => Box::new(json::Json::lines()),
            Format::Arrow => Box::new(arrow::Arrow::try_new(schema)?),
            Format::Parquet => match &self.protection {
                Some(protection) => Box::new(parquet::Parquet::new(schema, protection)),
                // Nothing is written in the clear because somebody forgot to say how.
                None => return Err(Error::internal("a Parquet file was asked for without its protection")),
            },
        })
    }
}

/// Refuses two columns of one name where the form tells columns by name only.
fn check_names(schema: &SchemaRef, format: Format, path: &str) -> Result<()> {
    let mut names = HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        None => Ok(()),
        Some(field) => Err(Error::query(format!(
            "{path}: two columns are called `{}`, which {format} cannot tell apart",
            field.name()
        ))
        .with_hint("give one of them another name with AS")),
    }
}

/// Writes the rows of a query.
///
/// # Errors
///
/// The query's own; [`ErrorKind::Query`](crate::error::ErrorKind::Query) when `ids` is asked of rows without an id, or two
/// columns have one name in a form of objects; [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) when `out`
/// fails other than by a reader gone.
pub async fn write(rows: Rows, format: Format, layout: &Layout, out: &mut (dyn Write + Send)) -> Result<Written> {
    Sink::new(format).with_layout(layout).write(rows, out).await
}

/// Writes the rows of a query to a file: a temporary file beside it takes its place when all is written.
///
/// A failure leaves an older file as it was and no temporary file; `query/sink/file.rs` says the rest.
///
/// # Errors
///
/// As [`write`](fn@write); [`ErrorKind::Config`](crate::error::ErrorKind::Config) when the path is a folder or no file
/// can be made there, [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) when writing fails.
pub async fn to_file(rows: Rows, format: Format, layout: &Layout, path: &Path) -> Result<Written> {
    Sink::new(format).with_layout(layout).to_file(rows, path).await
}

fn gone() -> Written {
    // How many rows the reader took before it left is not known.
    Written { rows: 0, outcome: Outcome::ReaderGone, notes: Vec::new() }
}

/// Writes and flushes; `false` when nobody reads any more.
fn pass_on(bytes: &mut Vec<u8>, out: &mut (dyn Write + Send)) -> io::Result<bool> {
    if bytes.is_empty() {
        return Ok(true);
    }
    let written = out.write_all(bytes).and_then(|()| out.flush());
    bytes.clear();
    match written {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// A write that failed; `path` is the file's, where there is one.
fn unwritten(path: Option<&Path>, cause: &io::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};

    let (what, hint) = match cause.kind() {
        StorageFull => (Some("the disk is full"), "free room there, or write to another disk"),
        QuotaExceeded => (Some("the quota of the disk is used up"), "free room there, or write to another disk"),
        FileTooLarge => (Some("the file grew past the limit of file sizes"), "raise `ulimit -f`, or narrow the rows"),
        _ => (None, ""),
    };
    let subject = if path.is_some() { "failed to write the output file" } else { "failed to write the result" };
    let message = what.map_or_else(|| subject.to_owned(), |what| format!("{subject}: {what}"));
    let mut error = Error::unavailable(message);
    if let Some(path) = path {
        error = error.with_context("file", path.display());
    }
    if what.is_some() {
        error = error.with_hint(hint);
    }
    // The cause itself may name the temporary file, which the caller never heard of.
    error.with_source(io::Error::from(cause.kind()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::clock::{ManualClock, SharedClock};
    use crate::error::ErrorKind;
    use crate::query::library::QueryFile;
    use crate::query::parameters::Arguments;
    use crate::query::session::{QuerySettings, Session};

    pub(super) async fn rows(sql: &str) -> Rows {
        let clock: SharedClock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let settings = QuerySettings { partitions: 1, batch_rows: 2, ..QuerySettings::default() };
        let session = Session::with_tables(Vec::new(), &settings, &clock).unwrap();
        let plan = session.plan(&QueryFile::inline(sql).unwrap(), &Arguments::default()).await.unwrap();
        session.stream(&plan).await.unwrap()
    }

    async fn written(sql: &str, format: Format, layout: &Layout) -> Result<(String, Written)> {
        let mut out = Vec::new();
        let written = write(rows(sql).await, format, layout, &mut out).await?;
        Ok((String::from_utf8(out).unwrap(), written))
    }

    pub(super) const MIXED: &str = "SELECT * FROM (VALUES
        ('t1', 1, 1.5, true, TIMESTAMP '2026-01-31T09:00:00.1239', ['a', NULL], 'say \"hi\", twice'),
        ('t2', NULL, NULL, NULL, NULL, NULL, NULL),
        ('t3', -7, 2.0, false, TIMESTAMP '1969-12-31T23:59:59.999', [], 'line\nend'))
        AS t (ticket_id, n, x, b, at, tags, text)";

    #[tokio::test]
    async fn csv_quotes_and_tells_empty_from_null() {
        let (text, end) = written(MIXED, Format::Csv, &Layout::default()).await.unwrap();
        let expected = "ticket_id,n,x,b,at,tags,text\n\
             t1,1,1.5,true,2026-01-31T09:00:00.123Z,\"[\"\"a\"\",null]\",\"say \"\"hi\"\", twice\"\n\
             t2,,,,,,\n\
             t3,-7,2.0,false,1969-12-31T23:59:59.999Z,[],\"line\nend\"\n";
        assert_eq!(text, expected);
        assert_eq!(end, Written { rows: 3, outcome: Outcome::Complete, notes: Vec::new() });
        let (text, _) = written("SELECT '' AS a, NULL AS b", Format::Csv, &Layout::default()).await.unwrap();
        assert_eq!(text, "a,b\n\"\",\n");
        let (text, _) = written("SELECT 1 AS a WHERE false", Format::Csv, &Layout::default()).await.unwrap();
        assert_eq!(text, "a\n");
    }

    #[tokio::test]
    async fn json_and_ndjson_are_read_back_with_nulls_and_instants() {
        let (text, _) = written(MIXED, Format::Json, &Layout::default()).await.unwrap();
        let array: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(array[0]["at"], "2026-01-31T09:00:00.123Z");
        assert_eq!(array[0]["tags"], serde_json::json!(["a", null]));
        assert_eq!(array[1]["n"], serde_json::Value::Null);
        assert!(array[1].as_object().unwrap().contains_key("n"));
        assert_eq!(array[2]["text"], "line\nend");
        assert_eq!(array.as_array().unwrap().len(), 3);
        let (lines, end) = written(MIXED, Format::Ndjson, &Layout::default()).await.unwrap();
        let objects: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(serde_json::Value::from(objects), array);
        assert_eq!(end.rows, 3);
        let (empty, _) = written("SELECT 1 AS a WHERE false", Format::Json, &Layout::default()).await.unwrap();
        assert_eq!(empty, "[]\n");
    }

    #[tokio::test]
    async fn instants_inside_lists_and_structures_are_iso_8601_too() {
        let sql =
            "SELECT [TIMESTAMP '2026-01-31T09:00:00'] AS a, named_struct('t', TIMESTAMP '2026-01-31T09:00:00') AS b";
        let (text, _) = written(sql, Format::Ndjson, &Layout::default()).await.unwrap();
        assert_eq!(text, "{\"a\":[\"2026-01-31T09:00:00.000Z\"],\"b\":{\"t\":\"2026-01-31T09:00:00.000Z\"}}\n");
        let (text, _) = written(sql, Format::Csv, &Layout::default()).await.unwrap();
        assert!(text.contains("[\"\"2026-01-31T09:00:00.000Z\"\"]"), "{text}");
    }

    #[tokio::test]
    async fn ids_are_one_per_line_and_need_an_id_column() {
        let (text, end) = written(MIXED, Format::Ids, &Layout::default()).await.unwrap();
        assert_eq!(text, "t1\nt2\nt3\n");
        assert_eq!(end.rows, 3);
        let sql = "SELECT * FROM (VALUES ('c1'), (NULL)) AS t (customer_id)";
        let (text, end) = written(sql, Format::Ids, &Layout::default()).await.unwrap();
        assert_eq!((text.as_str(), end.notes.len()), ("c1\n", 1));
        for (sql, hint) in [
            ("SELECT 1 AS n, 't1' AS ticket_id", "put `ticket_id` first"),
            ("SELECT 'x' AS status", "SELECT `ticket_id` first"),
            ("SELECT 1 AS ticket_id", "put `ticket_id` first"),
            ("SELECT 'c1' AS customer_id, 2 AS n", "SELECT `ticket_id` first"),
        ] {
            let error = written(sql, Format::Ids, &Layout::default()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Query, "{sql}");
            assert!(error.hint().unwrap().contains(hint), "{sql}: {error:?}");
        }
        let error = written("SELECT 'a\nb' AS ticket_id", Format::Ids, &Layout::default()).await.unwrap_err();
        assert!(error.to_string().contains("control character"), "{error}");
    }

    #[tokio::test]
    async fn table_fits_every_width_and_says_what_it_cut() {
        let sql = "SELECT 'abcdefghijklmnopqrstuvwx' AS ticket_id, 12 AS n, repeat('größe 世界 ', 30) AS text, NULL AS nothing";
        for (width, left_out) in [(20, 3), (26, 3), (30, 2), (40, 1), (44, 1), (60, 0), (80, 0), (200, 0)] {
            let layout = Layout { width: Some(width), ..Layout::default() };
            let (text, end) = written(sql, Format::Table, &layout).await.unwrap();
            // Three rows: header, rule, one row; a wide character takes two columns.
            assert_eq!(text.lines().count(), 3, "{text}");
            for line in text.lines() {
                let columns: usize =
                    line.chars().map(|c| if ('\u{4e00}'..='\u{9fff}').contains(&c) { 2 } else { 1 }).sum();
                // The id is wider than the narrowest terminal, and whole all the same.
                assert!(columns <= usize::from(width.max(24)), "{columns} > {width}:\n{text}");
            }
            assert!(text.lines().nth(2).unwrap().starts_with("abcdefghijklmnopqrstuvwx"), "{text}");
            let names = ["n", "text", "nothing"][3 - left_out..].join(", ");
            let note =
                format!("columns left out, the terminal is too narrow for them: {names}; --format csv writes all");
            assert_eq!(end.notes.contains(&note), left_out > 0, "{width}: {:?}", end.notes);
            let has_text = left_out < 2;
            assert_eq!(end.notes.iter().any(|note| note.contains("cut to fit")), has_text, "{width}: {:?}", end.notes);
        }
    }

    #[tokio::test]
    async fn table_aligns_numbers_right_and_shows_nulls() {
        let sql = "SELECT * FROM (VALUES ('a', 1), (NULL, 1000)) AS t (name, n)";
        let (text, end) = written(sql, Format::Table, &Layout::default()).await.unwrap();
        assert_eq!(text, "name     n\n──────────\na        1\nNULL  1000\n");
        assert_eq!(end.notes, Vec::<String>::new());
    }

    #[tokio::test]
    async fn table_stops_at_its_rows_and_says_so() {
        let sql = "SELECT value FROM generate_series(1, 100)";
        for (max_rows, shown, is_cut) in [(3, 3, true), (100, 100, false), (0, 0, true)] {
            let layout = Layout { max_rows, ..Layout::default() };
            let (text, end) = written(sql, Format::Table, &layout).await.unwrap();
            assert_eq!((text.lines().count(), end.rows), (shown + 2, shown as u64));
            assert_eq!(!end.notes.is_empty(), is_cut, "{max_rows}");
        }
    }

    #[tokio::test]
    async fn table_shows_a_plan_line_by_line() {
        let (text, _) = written("EXPLAIN SELECT 1 AS one", Format::Table, &Layout::default()).await.unwrap();
        assert!(!text.contains("\\n"), "{text}");
        assert!(text.lines().count() > 4, "{text}");
    }

    #[tokio::test]
    async fn table_gives_a_terminal_no_escape_sequence() {
        let sql = "SELECT chr(27) || '[2J' || chr(7) AS text";
        let (text, _) = written(sql, Format::Table, &Layout::default()).await.unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
        assert!(text.contains("\\u{1b}[2J\\u{7}"), "{text:?}");
    }

    /// Takes some bytes, then fails.
    struct Failing {
        room: usize,
        kind: io::ErrorKind,
        writes: Arc<Mutex<usize>>,
    }

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            *self.writes.lock().unwrap() += 1;
            if self.room == 0 {
                return Err(self.kind.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn reader_that_goes_away_ends_every_format_without_an_error() {
        for format in Format::ALL {
            let writes = Arc::new(Mutex::new(0));
            let mut out = Failing { room: 10, kind: io::ErrorKind::BrokenPipe, writes: Arc::clone(&writes) };
            let sql = "SELECT CAST(value AS varchar) AS ticket_id FROM generate_series(1, 1000000)";
            let sink = Sink::new(format).with_protection(Protection::Plain);
            let end = sink.write(rows(sql).await, &mut out).await.unwrap();
            assert_eq!(end.outcome, Outcome::ReaderGone, "{format}");
            assert!(*writes.lock().unwrap() < 20, "{format} wrote on after the reader had gone");
        }
    }

    #[tokio::test]
    async fn full_disk_is_an_error_and_leaves_the_older_file() {
        let mut out = Failing { room: 0, kind: io::ErrorKind::StorageFull, writes: Arc::default() };
        let error = write(rows(MIXED).await, Format::Csv, &Layout::default(), &mut out).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.csv");
        fs::write(&path, "older").unwrap();
        let failing = "SELECT 1 / (value - 50) AS n FROM generate_series(1, 100)";
        let error = to_file(rows(failing).await, Format::Csv, &Layout::default(), &path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Query);
        assert_eq!(fs::read_to_string(&path).unwrap(), "older");
        to_file(rows("SELECT 1 AS n").await, Format::Csv, &Layout::default(), &path).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "n\n1\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file stayed");
    }

    #[test]
    fn binary_is_refused_on_a_terminal_and_plaintext_where_nothing_is_encrypted() {
        for format in Format::ALL {
            assert!(format.check_terminal(false).is_ok());
            let refused = format.check_terminal(true).err();
            assert_eq!(refused.is_some(), matches!(format, Format::Arrow | Format::Parquet), "{format}");
            if let Some(error) = refused {
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(error.hint().unwrap().contains(&format!("-o FILE.{format}")), "{error:?}");
            }
            assert!(check_plaintext(format, false).is_ok());
            assert_eq!(check_plaintext(format, true).is_ok(), format == Format::Parquet);
        }
    }

    #[tokio::test]
    async fn two_columns_of_one_name_are_refused_where_only_names_tell_them_apart() {
        let sql = "SELECT a.n, b.n FROM (SELECT 1 AS n) AS a, (SELECT 2 AS n) AS b";
        for format in Format::ALL {
            let sink = Sink::new(format).with_protection(Protection::Plain);
            let outcome = sink.write(rows(sql).await, &mut Vec::new()).await;
            match format {
                Format::Json | Format::Ndjson | Format::Parquet => {
                    let error = outcome.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Query);
                    assert!(error.message().contains("two columns are called `n`"), "{error}");
                }
                Format::Ids => assert!(outcome.is_err()),
                _ => assert_eq!(outcome.unwrap().rows, 1),
            }
        }
    }

    #[tokio::test]
    async fn full_disk_names_the_file_and_the_way_out() {
        for (kind, words) in [
            (io::ErrorKind::StorageFull, "the disk is full"),
            (io::ErrorKind::QuotaExceeded, "quota"),
            (io::ErrorKind::FileTooLarge, "limit of file sizes"),
        ] {
            let mut out = Failing { room: 5, kind, writes: Arc::default() };
            let error = Sink::new(Format::Csv).write(rows(MIXED).await, &mut out).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.message().contains(words) && error.hint().is_some(), "{error:?}");
        }
        #[cfg(target_os = "linux")]
        for format in Format::ALL {
            let sink = Sink::new(format).with_protection(Protection::Plain);
            let error = sink.to_file(rows(MIXED).await, Path::new("/dev/full")).await.unwrap_err();
            assert_eq!(error.to_string(), "failed to write the output file: the disk is full (file: /dev/full)");
            assert!(error.hint().unwrap().contains("free room"), "{error:?}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn new_file_is_its_owners_and_a_replaced_one_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.csv");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        Sink::new(Format::Csv).to_file(rows("SELECT 1 AS n").await, &path).await.unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        Sink::new(Format::Csv).to_file(rows("SELECT 2 AS n").await, &path).await.unwrap();
        assert_eq!((mode(), fs::read_to_string(&path).unwrap().as_str()), (0o644, "n\n2\n"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn pipes_links_and_folders_are_not_replaced() {
        use std::os::unix::fs::FileTypeExt as _;

        let one = "SELECT 1 AS n";
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // A pipe with an end of its own, so that opening it for writing does not wait for a reader.
        let mut reader = File::options().read(true).write(true).open(&pipe).unwrap();
        to_file(rows(one).await, Format::Csv, &Layout::default(), &pipe).await.unwrap();
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        let mut bytes = [0; 4];
        io::Read::read_exact(&mut reader, &mut bytes).unwrap();
        assert_eq!(&bytes, b"n\n1\n");

        let (file, link) = (folder.path().join("file.csv"), folder.path().join("link.csv"));
        fs::write(&file, "older").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        to_file(rows(one).await, Format::Csv, &Layout::default(), &link).await.unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "n\n1\n");

        let error = to_file(rows(one).await, Format::Csv, &Layout::default(), folder.path()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[tokio::test]
    async fn writing_can_move_between_threads() {
        let rows = rows("SELECT 1 AS n").await;
        let task = tokio::spawn(async move {
            let mut out = Vec::new();
            write(rows, Format::Csv, &Layout::default(), &mut out).await.map(|end| (end.rows, out))
        });
        assert_eq!(task.await.unwrap().unwrap(), (1, b"n\n1\n".to_vec()));
    }

    #[tokio::test]
    async fn output_in_a_place_that_takes_no_file_is_a_usage_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "older").unwrap();
        for place in ["absent/list.csv", "file/list.csv"] {
            let path = folder.path().join(place);
            let error = to_file(rows("SELECT 1 AS n").await, Format::Csv, &Layout::default(), &path).await.unwrap_err();
            let message = format!("the folder of the output file does not exist (file: {})", path.display());
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Config, message));
            assert!(!format!("{error:?}").contains(".counterfoil-"), "{error:?}");
        }
        for (cause, kind) in [
            (io::ErrorKind::PermissionDenied, ErrorKind::Config),
            (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::Config),
            (io::ErrorKind::StorageFull, ErrorKind::Unavailable),
            (io::ErrorKind::Other, ErrorKind::Unavailable),
        ] {
            let error = file::unmade(Path::new("out/list.csv"), &io::Error::new(cause, "/tmp/.counterfoil-x"));
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().ends_with("(file: out/list.csv)"), "{error}");
            assert!(!format!("{error:?}").contains(".counterfoil-"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn table_in_a_file_has_every_row_and_column_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        let wide = "SELECT repeat('x', 30000) AS a, repeat('y', 32767) AS b, repeat('z', 9000) AS c";
        let layout = Layout { width: Some(40), max_rows: 10 };
        let end = to_file(rows(wide).await, Format::Table, &layout, &path).await.unwrap();
        assert_eq!((end.rows, end.notes), (1, Vec::new()));
        let expected = format!("{}  {}  {}\n", "x".repeat(30_000), "y".repeat(32_767), "z".repeat(9_000));
        assert!(fs::read_to_string(&path).unwrap().ends_with(&expected));
        let longer = to_file(rows("SELECT repeat('x', 32768) AS a").await, Format::Table, &layout, &path);
        assert_eq!(longer.await.unwrap().notes, ["some texts are cut to fit (…)"]);

        let sql = "SELECT value, repeat('x', 2000) AS text, 'end' AS last FROM generate_series(1, 1200)";
        let end = to_file(rows(sql).await, Format::Table, &layout, &path).await.unwrap();
        assert_eq!((end.rows, end.notes), (1_200, Vec::new()));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1_202);
        let row = format!(" {}  end", "x".repeat(2_000));
        assert!(text.lines().skip(2).all(|line| line.ends_with(&row)), "{}", text.lines().nth(2).unwrap());
    }

    #[test]
    fn format_comes_from_the_name_then_the_extension_then_is_a_table() {
        assert_eq!(format_for(None, None).unwrap(), Format::Table);
        for (asked, file, format) in [
            (Some("ids"), "a.csv", Format::Ids),
            (Some("table"), "a.txt", Format::Table),
            (Some("csv"), "a", Format::Csv),
            (None, "a.CSV", Format::Csv),
            (None, "a.b.jsonl", Format::Ndjson),
            (None, "a.arrow", Format::Arrow),
            (None, "out/a.Parquet", Format::Parquet),
        ] {
            assert_eq!(format_for(asked, Some(Path::new(file))).unwrap(), format, "{file}");
        }
        let error = format_for(Some("jsn"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.hint().unwrap().contains("`json`"), "{error:?}");
    }

    #[test]
    fn file_whose_extension_names_no_format_is_refused() {
        for (file, message) in [
            ("x.txt", "no format has the extension `.txt` (file: x.txt)"),
            ("out/x.Feather", "no format has the extension `.Feather` (file: out/x.Feather)"),
            ("x", "the output file has no extension that names its format (file: x)"),
            ("x.", "the output file has no extension that names its format (file: x.)"),
            (".csv", "the output file has no extension that names its format (file: .csv)"),
        ] {
            let error = format_for(None, Some(Path::new(file))).unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Config, message.to_owned()));
            assert!(
                error.hint().is_some_and(|hint| hint.contains("--format csv") && hint.contains(".csv")),
                "{error:?}"
            );
        }
    }
}
