//! Checks SQL files against the present schema: every file is planned, none is run.
//!
//! All that is wrong comes in one go: every line of a header, every parameter, and every table, column and function
//! that is not there.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::query::fault::Fault;
use crate::query::library::{self, QueryFile};
use crate::query::session::Session;

/// One thing that is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file.
    pub path: String,
    /// Line from 1, where known.
    pub line: Option<u64>,
    /// Column from 1, where known.
    pub column: Option<u64>,
    /// What is wrong.
    pub message: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
}

impl Problem {
    fn new(path: &str, fault: Fault) -> Self {
        let Fault { message, line, column, hint, .. } = fault;
        Self { path: path.to_owned(), line, column, message, hint }
    }

    /// A file or a folder whose bytes cannot be read; the error names the path once more than is needed.
    fn unreadable(path: String, error: &Error) -> Self {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let hint = error.hint().map(ToOwned::to_owned);
        Self { path, line: None, column: None, message: format!("{}{cause}", error.message()), hint }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for part in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{part}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Checks every `.sql` file under each of the paths, each file once, and holds all their names against one another.
///
/// Returns how many files there are and what is wrong with them.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when one of the paths itself cannot be read.
pub async fn check_paths(session: &Session, paths: &[&Path]) -> Result<(usize, Vec<Problem>)> {
    paths_of(session, paths, false).await
}

/// As [`check_paths`], and asks that each file give a ticket list: that its first column be `ticket_id`.
///
/// # Errors
///
/// As [`check_paths`].
pub async fn check_ticket_lists(session: &Session, paths: &[&Path]) -> Result<(usize, Vec<Problem>)> {
    paths_of(session, paths, true).await
}

/// Checks SQL texts, each with the path that problems call it.
pub async fn check_texts(session: &Session, texts: &[(&str, &str)]) -> Vec<Problem> {
    texts_of(session, texts, false).await
}

async fn paths_of(session: &Session, paths: &[&Path], ids: bool) -> Result<(usize, Vec<Problem>)> {
    let mut seen = BTreeSet::new();
    let mut texts = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        let found = library::sql_files(path)?;
        problems.extend(found.unreadable.into_iter().map(|(path, error)| Problem::unreadable(path, &error)));
        for file in found.files {
            // A folder and a file in it may both be given.
            if !seen.insert(fs::canonicalize(&file).unwrap_or_else(|_| file.clone())) {
                continue;
            }
            let shown = file.display().to_string();
            match library::read_text(&file) {
                Ok(sql) => texts.push((shown, sql)),
                Err(error) => problems.push(Problem::unreadable(shown, &error)),
            }
        }
    }
    let texts: Vec<(&str, &str)> = texts.iter().map(|(path, sql)| (path.as_str(), sql.as_str())).collect();
    problems.extend(texts_of(session, &texts, ids).await);
    Ok((seen.len(), problems))
}

async fn texts_of(session: &Session, texts: &[(&str, &str)], ids: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names: Vec<(String, &str)> = Vec::new();
    for (path, sql) in texts {
        let (file, faults) = QueryFile::read_all(path, sql);
        let is_header_right = faults.is_empty();
        problems.extend(faults.into_iter().map(|fault| Problem::new(path, fault)));
        match names.iter().find(|(name, _)| *name == file.name) {
            Some((name, other)) => problems.push(Problem::new(path, library::same_name(name, other))),
            None => names.push((file.name.clone(), path)),
        }
        match session.survey(&file, is_header_right).await {
            Ok(false) if ids => {
                let fault = Fault::new("the first column is not `ticket_id`")
                    .with_hint("select `ticket_id` first, or check without --ids");
                problems.push(Problem::new(path, fault));
            }
            Ok(_) => {}
            Err(faults) => problems.extend(faults.into_iter().map(|fault| Problem::new(path, fault))),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{ManualClock, SharedClock};
    use crate::query::session::QuerySettings;
    use crate::query::session::tests::tickets;

    #[tokio::test]
    async fn problems_name_file_line_column_and_the_nearest_name() {
        let clock: SharedClock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let session = Session::with_tables(vec![tickets()], &QuerySettings::default(), &clock).unwrap();
        let right = "-- name: right\n-- param since: timestamp\n-- max_age: 1h\nSELECT ticket_id FROM tickets WHERE updated_at > $since";
        for (sql, place, message, hint) in [
            ("SELECT ticket_id,\n  reopn_count FROM tickets", "a.sql:2:3", "no column `reopn_count`", "`reopen_count`"),
            ("SELECT ticket_id\nFROM tickts", "a.sql:2:6", "no table `tickts`", "`tickets`"),
            ("SELECT\n sampel_key(1, ticket_id) FROM tickets", "a.sql:2:2", "no function `sampel_key`", "`sample_key`"),
            ("SELECT ticket_id\nFROM tickets WERE x", "a.sql:2:19", "not valid SQL", ""),
            ("-- nam: x\nSELECT 1", "a.sql:1", "unknown header key `nam`", "`name`"),
            ("-- param n: int = 1\nSELECT 1", "a.sql:1", "`$n` is not used", ""),
            ("-- param n: int = 'x'\nSELECT $n", "a.sql:1", "is not of type int", ""),
            ("-- param n: int = (SELECT 1)\nSELECT $n", "a.sql:1", "default of parameter `n`", ""),
            (
                "-- param since: int = 1\nSELECT $since,\n $sinc",
                "a.sql:3:2",
                "parameter `$sinc` is not declared",
                "`since`",
            ),
            ("SELECT tag_names(ticket_id) FROM tickets", "a.sql", "tag_names takes a list of ids", ""),
            ("-- name: right\nSELECT 1", "a.sql", "the name `right` is already taken by right.sql", ""),
            ("-- only: a comment\nSELECT 1", "a.sql:1", "unknown header key `only`", ""),
            ("-- nothing\n", "a.sql", "no statement", ""),
        ] {
            let problems = check_texts(&session, &[("right.sql", right), ("a.sql", sql)]).await;
            assert_eq!(problems.len(), 1, "{sql}: {problems:?}");
            let text = problems[0].to_string();
            assert!(text.starts_with(&format!("{place}: ")), "{sql}: {text}");
            assert!(text.contains(message), "{sql}: {text}");
            let given = problems[0].hint.clone().unwrap_or_default();
            assert!(given.contains(hint), "{sql}: {given}");
        }
    }

    #[tokio::test]
    async fn all_that_is_wrong_with_a_file_is_told_in_one_go() {
        let clock: SharedClock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let session = Session::with_tables(vec![tickets()], &QuerySettings::default(), &clock).unwrap();
        let wrong = "-- param since: timestamp = 5
-- param rows: int = 1.5
-- param unused: text
-- param later: int = $rows + $sinse
-- complete_through: $since - $untl
SELECT ticket_id, reopn_count, sampel_key('a', stats) AS key
FROM (SELECT ticket_id, reopn_count, stats FROM tickets WHERE updatd_at >= $since)
WHERE reopn_count > $rows AND $later > 0 AND status = $stat
ORDER BY lenth(ticket_id), reopn_count";
        let problems = check_texts(&session, &[("a.sql", wrong)]).await;
        let said: Vec<(String, &str)> =
            problems.iter().map(|each| (each.to_string(), each.hint.as_deref().unwrap_or_default())).collect();
        for (index, (place, message, hint)) in [
            ("a.sql:1", "the default of parameter `since` is not of type timestamp", "it is of type int"),
            ("a.sql:2", "the default of parameter `rows` is not of type int", ""),
            ("a.sql:3", "parameter `unused` is declared but `$unused` is not used", ""),
            ("a.sql:4", "the default of parameter `later` is wrong: `$sinse` is not declared above it", "`since`"),
            ("a.sql:5", "complete_through is wrong: parameter `$untl` is not declared", "-- param untl"),
            ("a.sql:6:32", "no function `sampel_key`", "`sample_key`"),
            ("a.sql:7:25", "no column `reopn_count`", "`reopen_count`"),
            ("a.sql:7:38", "no column `stats`", "`status`"),
            ("a.sql:7:63", "no column `updatd_at`", "`updated_at`"),
            ("a.sql:8:46", "no column `status`", "`stats`"),
            ("a.sql:8:55", "parameter `$stat` is not declared", "-- param stat"),
            ("a.sql:9:10", "no function `lenth`", "`length`"),
        ]
        .into_iter()
        .enumerate()
        {
            let (text, given) = said.get(index).unwrap_or_else(|| panic!("{message} is not in {said:#?}"));
            assert!(text.starts_with(&format!("{place}: {message}")), "{place}: {message}, but {said:#?}");
            assert!(given.contains(hint), "{hint} is not in {given}");
        }
        assert_eq!(said.len(), 12, "{said:#?}");
    }

    #[tokio::test]
    async fn every_table_that_is_not_there_and_every_wrong_line_of_a_header_is_told() {
        let clock: SharedClock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let session = Session::with_tables(vec![tickets()], &QuerySettings::default(), &clock).unwrap();
        let tables = "WITH own AS (SELECT 1 AS one)
SELECT * FROM own, tickts, users, generate_series(1, 2), tickets
WHERE ticket_id NOT IN (SELECT ticket_id FROM lists) AND status = $status";
        let header = "-- nam: x\n-- max_age: soon\n-- param n: integer = 1\nSELECT $n, reopn_count FROM tickets";
        let right = "SELECT one FROM (SELECT 1 AS one)";
        let problems = check_texts(&session, &[("a.sql", tables), ("b.sql", header), ("c.sql", right)]).await;
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "a.sql:2:20: no table `tickts`",
                "a.sql:2:28: the lake has no table `users` yet",
                "a.sql:3:47: no table `lists`",
                "a.sql:3:67: parameter `$status` is not declared",
                "b.sql:1: unknown header key `nam`",
                "b.sql:2: max_age `soon` is not a duration",
                "b.sql:3: parameter `n` has the unknown type `integer`",
                "b.sql:4:12: no column `reopn_count`",
            ]
        );
    }

    #[tokio::test]
    async fn ticket_lists_are_asked_for_by_name_only() {
        let clock: SharedClock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let session = Session::with_tables(vec![tickets()], &QuerySettings::default(), &clock).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (list, other) = (folder.path().join("list.sql"), folder.path().join("other.sql"));
        fs::write(&list, "SELECT ticket_id, status FROM tickets").unwrap();
        fs::write(&other, "SELECT status, ticket_id FROM tickets").unwrap();
        let paths = [list.as_path(), other.as_path()];
        assert_eq!(check_paths(&session, &paths).await.unwrap(), (2, Vec::new()));
        let (_, problems) = check_ticket_lists(&session, &paths).await.unwrap();
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said, [format!("{}: the first column is not `ticket_id`", other.display())]);
    }

    #[tokio::test]
    async fn paths_are_checked_once_each_and_share_one_set_of_names() {
        let clock: SharedClock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let session = Session::with_tables(vec![tickets()], &QuerySettings::default(), &clock).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (left, right) = (folder.path().join("left"), folder.path().join("right"));
        for (path, bytes) in [
            (left.join("a.sql"), &b"SELECT 1"[..]),
            (right.join("b.sql"), b"-- name: a\nSELECT 1"),
            (right.join("c.sql"), b"SELECT '\xff'"),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let again = left.join("../left/a.sql");
        let (files, problems) = check_paths(&session, &[&left, &again, &right]).await.unwrap();
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!((files, said.len()), (3, 2), "{said:?}");
        let unreadable = format!("{}: failed to read the SQL file: ", right.join("c.sql").display());
        assert!(said[0].starts_with(&unreadable), "{said:?}");
        let (b, a) = (right.join("b.sql"), left.join("a.sql"));
        assert_eq!(said[1], format!("{}: the name `a` is already taken by {}", b.display(), a.display()));
    }

    #[tokio::test]
    async fn lake_before_its_first_extract_is_told_to_extract() {
        let clock: SharedClock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let session = Session::with_tables(Vec::new(), &QuerySettings::default(), &clock).unwrap();
        for table in ["tickets", "slas", "ticket_versions", "customer_versions"] {
            let sql = format!("SELECT *\nFROM {table}");
            let problems = check_texts(&session, &[("a.sql", &sql), ("b.sql", &sql)]).await;
            let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let message = format!("2:6: the lake has no table `{table}` yet");
            assert_eq!(said, [format!("a.sql:{message}"), format!("b.sql:{message}")]);
            assert!(problems.iter().all(|problem| problem.hint.as_deref() == Some("run `counterfoil extract`")));
        }
        let problems = check_texts(&session, &[("a.sql", "SELECT * FROM tickts")]).await;
        assert_eq!((problems[0].message.as_str(), problems[0].hint.as_deref()), ("no table `tickts`", None));
    }
}
