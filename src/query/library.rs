//! The query library: the SQL files of a folder, and those that are shipped.
//!
//! A file is identified by the name in its header, or by its file name where the header has none. Its digest is
//! SHA-256 over its bytes: two runs with the same digest, parameters and lake version have the same result.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest;

use crate::error::{Error, Result};
use crate::query::fault::{Fault, did_you_mean};
use crate::query::header::{self, CompleteThrough, Parameter};

/// The shipped SQL files: file name and text.
pub const BUILTIN: [(&str, &str); 20] = [
    ("agent_weekly.sql", include_str!("../../queries/agent_weekly.sql")),
    ("backlog_age.sql", include_str!("../../queries/backlog_age.sql")),
    ("customers_many_open.sql", include_str!("../../queries/customers_many_open.sql")),
    ("first_response_business.sql", include_str!("../../queries/first_response_business.sql")),
    ("first_response_misses.sql", include_str!("../../queries/first_response_misses.sql")),
    ("low_satisfaction_long_handling.sql", include_str!("../../queries/low_satisfaction_long_handling.sql")),
    ("many_agents.sql", include_str!("../../queries/many_agents.sql")),
    ("qa_sample_new.sql", include_str!("../../queries/qa_sample_new.sql")),
    ("qa_sample_per_agent.sql", include_str!("../../queries/qa_sample_per_agent.sql")),
    ("qa_sample_shortfall.sql", include_str!("../../queries/qa_sample_shortfall.sql")),
    ("refunds.sql", include_str!("../../queries/refunds.sql")),
    ("reopened_vip.sql", include_str!("../../queries/reopened_vip.sql")),
    ("repeat_contacts.sql", include_str!("../../queries/repeat_contacts.sql")),
    ("sla_breaches.sql", include_str!("../../queries/sla_breaches.sql")),
    ("stale_snoozes.sql", include_str!("../../queries/stale_snoozes.sql")),
    ("tag_co_occurrence.sql", include_str!("../../queries/tag_co_occurrence.sql")),
    ("tagged.sql", include_str!("../../queries/tagged.sql")),
    ("unanswered.sql", include_str!("../../queries/unanswered.sql")),
    ("unassigned_backlog.sql", include_str!("../../queries/unassigned_backlog.sql")),
    ("weekly_volume_by_channel.sql", include_str!("../../queries/weekly_volume_by_channel.sql")),
];

/// One SQL file with what its header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryFile {
    /// Path as given, or `-e` for SQL of the command line.
    pub path: String,
    /// Name, from the header or the file name.
    pub name: String,
    /// Description, empty where the header has none.
    pub description: String,
    /// Declared parameters, in order.
    pub params: Vec<Parameter>,
    /// How old the lake may be.
    pub max_age: Option<Duration>,
    /// How far the lake must be complete.
    pub complete_through: Option<CompleteThrough>,
    /// The whole text, header included, so that line numbers are those of the file.
    pub sql: String,
    /// SHA-256 of the text without a byte order mark, 64 hex digits.
    pub digest: String,
}

impl QueryFile {
    /// Reads an SQL text; `path` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Query`](crate::error::ErrorKind::Query) with path and line when the header is wrong.
    pub fn parse(path: &str, sql: &str) -> Result<Self> {
        Self::read(path, sql).map_err(|fault| fault.into_error(path))
    }

    /// Reads SQL given on the command line.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn inline(sql: &str) -> Result<Self> {
        Self::parse("-e", sql)
    }

    /// Loads one file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when it cannot be read, otherwise as [`parse`](Self::parse).
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&path.display().to_string(), &read_text(path)?)
    }

    pub(super) fn read(path: &str, sql: &str) -> Result<Self, Fault> {
        let (file, mut faults) = Self::read_all(path, sql);
        if faults.is_empty() { Ok(file) } else { Err(faults.swap_remove(0)) }
    }

    /// Reads what is right of a file's header, and all that is wrong with it.
    pub(super) fn read_all(path: &str, sql: &str) -> (Self, Vec<Fault>) {
        // Editors of one platform begin a file with a byte order mark, which the parser would take for a word.
        let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
        let (header, faults) = header::parse_all(sql);
        let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let file = Self {
            path: path.to_owned(),
            name: header.name.or(stem).unwrap_or_else(|| path.to_owned()),
            description: header.description,
            params: header.params,
            max_age: header.max_age,
            complete_through: header.complete_through,
            sql: sql.to_owned(),
            digest: hex(digest::digest(&digest::SHA256, sql.as_bytes()).as_ref()),
        };
        (file, faults)
    }
}

/// The SQL files of a folder, sorted by path, names distinct; files that cannot be read are kept with the reason.
#[derive(Debug, Default)]
pub struct Library {
    files: Vec<QueryFile>,
    broken: Vec<Broken>,
}

/// A file that cannot be read, or whose name an earlier file has.
#[derive(Debug)]
pub struct Broken {
    /// Path of the file or folder.
    pub path: String,
    /// Why it is not in the library.
    pub error: Error,
    /// The name in its header, where that much can be read.
    pub(super) name: Option<String>,
}

impl Broken {
    /// Repeats the error, for another place that ends with it.
    pub(super) fn error(&self) -> Error {
        again(&self.error)
    }

    fn is_called(&self, name: &str) -> bool {
        let stem = Path::new(&self.path).file_stem();
        self.path == name || self.name.as_deref() == Some(name) || stem.is_some_and(|stem| stem == name)
    }
}

impl Library {
    /// Loads every `.sql` file under a folder; a file that is wrong does not hide the others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when the folder itself cannot be read.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut library = Self::default();
        let found = sql_files(folder).map_err(|error| {
            let hint = "`counterfoil init` makes the library and writes the shipped queries";
            if folder.exists() { error } else { error.with_hint(hint) }
        })?;
        for path in found.files {
            let shown = path.display().to_string();
            match read_text(&path) {
                Ok(sql) => library.add(&shown, &sql),
                Err(error) => library.broken.push(Broken { path: shown, error, name: None }),
            }
        }
        library.broken.extend(found.unreadable.into_iter().map(|(path, error)| Broken { path, error, name: None }));
        Ok(library)
    }

    /// Reads the shipped files.
    ///
    /// # Errors
    ///
    /// None in a build whose tests pass: the shipped headers are right.
    pub fn builtin() -> Result<Self> {
        let mut library = Self::default();
        for (path, sql) in BUILTIN {
            library.add(path, sql);
        }
        match library.broken.pop() {
            Some(broken) => Err(broken.error),
            None => Ok(library),
        }
    }

    /// Returns the files.
    #[must_use]
    pub fn files(&self) -> &[QueryFile] {
        &self.files
    }

    /// Returns what could not be read, and why.
    #[must_use]
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// Finds a file by its name, or loads it by its path.
    ///
    /// # Errors
    ///
    /// The file's own when it is broken; [`ErrorKind::Config`](crate::error::ErrorKind::Config) when there is none, with
    /// the nearest names.
    pub fn find(&self, name: &str) -> Result<QueryFile> {
        if let Some(file) = self.files.iter().find(|file| file.name == name || file.path == name) {
            return Ok(file.clone());
        }
        if let Some(broken) = self.broken.iter().find(|broken| broken.is_called(name)) {
            return Err(again(&broken.error));
        }
        let path = Path::new(name);
        if path.is_file() {
            return QueryFile::load(path);
        }
        Err(Error::config(format!("no query `{name}`")).with_hint(self.way_to(name)))
    }

    /// Says what to write instead of a name that is not there.
    fn way_to(&self, name: &str) -> String {
        let bare = name.strip_suffix(".sql").unwrap_or(name);
        let bare = bare.rsplit('/').next().unwrap_or(bare);
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        let near = did_you_mean(bare, names.iter().copied())
            .or_else(|| (!names.is_empty()).then(|| format!("the library has {}", names.join(", "))));
        let unread = match self.broken.len() {
            0 => None,
            1 => Some("1 file could not be read, `counterfoil check` says why".to_owned()),
            count => Some(format!("{count} files could not be read, `counterfoil check` says why")),
        };
        match (near, unread) {
            (Some(near), Some(unread)) => format!("{near}; {unread}"),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => "the library is empty; `counterfoil init` writes the shipped queries".to_owned(),
        }
    }

    fn add(&mut self, path: &str, sql: &str) {
        let fault = match QueryFile::read(path, sql) {
            Ok(file) => match self.files.iter().find(|other| other.name == file.name) {
                Some(other) => same_name(&file.name, &other.path),
                None => return self.files.push(file),
            },
            Err(fault) => fault,
        };
        let name = header::name_of(sql).map(ToOwned::to_owned);
        self.broken.push(Broken { path: path.to_owned(), error: fault.into_error(path), name });
    }
}

pub(super) fn same_name(name: &str, other: &str) -> Fault {
    Fault::new(format!("the name `{name}` is already taken by {other}"))
        .with_hint("give one of the two files another `-- name:`")
}

/// Repeats an error that stays where it is.
fn again(error: &Error) -> Error {
    let mut repeated = Error::new(error.kind(), error.to_string());
    if let Some(hint) = error.hint() {
        repeated = repeated.with_hint(hint);
    }
    match std::error::Error::source(error) {
        Some(cause) => repeated.with_source(cause.to_string()),
        None => repeated,
    }
}

/// What lies under a path.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The `.sql` files, sorted.
    pub(super) files: Vec<PathBuf>,
    /// Folders below the path that could not be read.
    pub(super) unreadable: Vec<(String, Error)>,
}

/// Lists the `.sql` files under a folder, or the file itself; hidden entries are left out.
pub(super) fn sql_files(root: &Path) -> Result<Found> {
    if root.is_file() {
        return Ok(Found { files: vec![root.to_owned()], ..Found::default() });
    }
    let mut found = Found::default();
    let mut folders = Vec::new();
    list(root, &mut folders, &mut found.files)?;
    while let Some(next) = folders.pop() {
        if let Err(error) = list(&next, &mut folders, &mut found.files) {
            found.unreadable.push((next.display().to_string(), error));
        }
    }
    found.files.sort();
    found.unreadable.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Sorts one folder's entries into folders and files.
fn list(folder: &Path, folders: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |cause: std::io::Error| {
        let is_absent = cause.kind() == std::io::ErrorKind::NotFound;
        let message = if is_absent { "no such file or folder" } else { "failed to read the folder of SQL files" };
        Error::config(message).with_context("path", folder.display()).with_source(cause)
    };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // The entry's own type, so that a linked folder cannot make a loop.
        if entry.file_type().map_err(unreadable)?.is_dir() {
            folders.push(path);
        } else if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    Ok(())
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|cause| {
        Error::config("failed to read the SQL file").with_context("file", path.display()).with_source(cause)
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, sql) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, sql).unwrap();
        }
        folder
    }

    #[test]
    fn folder_loads_recursively_sorted_and_skips_other_files() {
        let folder = folder(&[
            ("b.sql", "SELECT 1"),
            ("a/z.sql", "-- name: first\nSELECT 1"),
            ("notes.txt", "-- nmae: x"),
            (".hidden/x.sql", "-- nmae: x"),
        ]);
        let library = Library::load(folder.path()).unwrap();
        let names: Vec<&str> = library.files().iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["first", "b"]);
    }

    #[test]
    fn broken_files_answer_for_themselves_and_the_others_work() {
        let folder = folder(&[
            ("a.sql", "SELECT 1"),
            ("b.sql", "-- name: a\nSELECT 2"),
            ("c.sql", "-- name: refunds\n-- max_agee: 1h\nSELECT 3"),
            ("d.sql", "SELECT 4"),
        ]);
        fs::write(folder.path().join("e.sql"), b"SELECT '\xff'").unwrap();
        let library = Library::load(folder.path()).unwrap();
        let names: Vec<&str> = library.files().iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a", "d"]);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let broken: Vec<&str> = library.broken().iter().map(|broken| broken.path.as_str()).collect();
        assert_eq!(broken, [path("b.sql"), path("c.sql"), path("e.sql")]);

        assert!(library.find("a").unwrap().sql.contains("SELECT 1"));
        assert_eq!(library.find("d").unwrap().name, "d");
        let unknown_key = format!("{}:2: unknown header key `max_agee`", path("c.sql"));
        let taken = format!("{}: the name `a` is already taken by {}", path("b.sql"), path("a.sql"));
        for (name, message, kind, hint) in [
            ("refunds", &unknown_key, ErrorKind::Query, Some("did you mean `max_age`?")),
            ("c", &unknown_key, ErrorKind::Query, Some("did you mean `max_age`?")),
            (&path("c.sql"), &unknown_key, ErrorKind::Query, Some("did you mean `max_age`?")),
            ("b", &taken, ErrorKind::Query, Some("give one of the two files another `-- name:`")),
            (&path("b.sql"), &taken, ErrorKind::Query, Some("give one of the two files another `-- name:`")),
            ("e", &format!("failed to read the SQL file (file: {})", path("e.sql")), ErrorKind::Config, None),
        ] {
            let error = library.find(name).unwrap_err();
            assert_eq!((&error.to_string(), error.kind(), error.hint()), (message, kind, hint), "{name}");
        }
        let error = library.find("nothing_like_it").unwrap_err();
        let hint = "the library has a, d; 3 files could not be read, `counterfoil check` says why";
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Config, Some(hint)));
    }

    #[test]
    fn library_without_a_whole_file_says_so_and_without_a_folder_is_an_error() {
        let wrong = folder(&[("a.sql", "-- nmae: a\nSELECT 1")]);
        let error = Library::load(wrong.path()).unwrap().find("zzz").unwrap_err();
        assert_eq!(error.hint(), Some("1 file could not be read, `counterfoil check` says why"));
        let error = Library::load(folder(&[]).path()).unwrap().find("zzz").unwrap_err();
        assert_eq!(error.hint(), Some("the library is empty; `counterfoil init` writes the shipped queries"));

        let error = Library::load(&wrong.path().join("absent")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().starts_with("no such file or folder (path: "), "{error}");
        assert_eq!(error.hint(), Some("`counterfoil init` makes the library and writes the shipped queries"));
    }

    #[test]
    fn find_takes_names_and_paths_and_names_the_nearest() {
        let folder = folder(&[("reopened_vip.sql", "SELECT 1"), ("other.sql", "SELECT 1")]);
        let library = Library::load(folder.path()).unwrap();
        assert_eq!(library.find("reopened_vip").unwrap().name, "reopened_vip");
        let path = folder.path().join("other.sql");
        assert_eq!(Library::default().find(path.to_str().unwrap()).unwrap().name, "other");
        let error = library.find("queries/reopend_vip.sql").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.hint(), Some("did you mean `reopened_vip`?"));
    }

    #[test]
    fn digest_is_sha_256_of_the_bytes() {
        let file = QueryFile::inline("abc").unwrap();
        assert_eq!(QueryFile::inline("\u{feff}abc").unwrap(), file);
        assert_eq!(file.digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn shipped_files_have_a_name_equal_to_the_file_and_a_description() {
        for file in Library::builtin().unwrap().files() {
            assert_eq!(format!("{}.sql", file.name), file.path);
            assert!(file.description.ends_with('.'), "{}", file.path);
            assert!(file.params.iter().all(|param| param.default.is_some()), "{}", file.path);
        }
    }
}
