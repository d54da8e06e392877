//! Feeds: every query of the library as a file in one folder, for BI tools that load files.
//!
//! ```text
//! library ─▶ each query with its defaults, one version of the lake ─▶ DIR/<name>.<format>   (temporary file, rename)
//!                                                                  └▶ DIR/manifest.json     (last, in one step)
//! ```
//!
//! - A result whose rows are those of the file that is there is not written again: its time of change stays, and nobody
//!   loads it twice. An encrypted file is written anew when the ring has another primary key.
//! - A query that fails does not stop the others: its older result stays, and the manifest says that it failed. The feed ends
//!   with the lowest exit code of the queries that failed (an internal error before a wrong setting, before an absent store,
//!   before a missing right, before damage, before wrong SQL, before stale data).
//! - A query whose parameters do not all have defaults is skipped, which is no failure.
//! - Files of queries that the library does not have any more are named as orphaned and never deleted.
//! - Two feeds into one folder do not mix: the second ends with [`ErrorKind::Conflict`] and changes nothing.
//!
//! A feed that is interrupted leaves results that are newer than the manifest, each of them whole; the next feed sees by
//! their digests that the manifest does not speak of them, and writes them again.

mod digest;
mod record;

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};

use self::digest::RowsDigest;
pub use self::record::{Defaulted, Entry, Failure, FeedOutcome, MANIFEST, Record, ResultFile};
use crate::clock::SharedClock;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::lake::manifest::Manifest;
use crate::query::library::{Library, QueryFile};
use crate::query::parameters::Arguments;
use crate::query::session::Session;
use crate::query::sink::file::Replacement;
use crate::query::sink::{self, Format, Protection, Sink};

/// Begins the names of a feed's temporary files; what a killed feed left is deleted by the next.
const PREFIX: &str = ".counterfoil-feed-";

/// Held while a feed runs; it stays, empty.
const LOCK: &str = ".counterfoil.lock";

/// Where results go, and in which form.
#[derive(Debug, Clone)]
pub struct Destination {
    folder: PathBuf,
    format: Format,
    is_plaintext: bool,
    limit: Option<Duration>,
}

/// What a feed did.
#[derive(Debug)]
pub struct FeedReport {
    /// The manifest as it was written.
    pub record: Record,
    /// Why queries failed, by name.
    pub failures: Vec<(String, Error)>,
}

impl FeedReport {
    /// Counts the results of an outcome.
    #[must_use]
    pub fn count(&self, outcome: FeedOutcome) -> usize {
        self.record.results.iter().filter(|entry| entry.outcome == outcome).count()
    }

    /// Returns the error that the feed ends with: of the kind with the lowest exit code among the queries that failed.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        let kind = self.failures.iter().map(|(_, error)| error.kind()).min_by_key(|kind| kind.exit_code())?;
        let names: Vec<&str> = self.failures.iter().map(|(name, _)| name.as_str()).collect();
        let queries = self.record.results.len() - self.count(FeedOutcome::Orphaned);
        let error = Error::new(kind, format!("{} of {queries} queries of the library failed", names.len()));
        Some(error.with_context("failed", names.join(", ")).with_hint("their older results stay as they were"))
    }
}

impl Destination {
    /// Chooses a folder and a form.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a form that no program loads, and for plain text where nothing is encrypted.
    pub fn try_new(folder: impl Into<PathBuf>, format: Format, is_plaintext: bool) -> Result<Self> {
        if matches!(format, Format::Table | Format::Ids) {
            return Err(Error::config(format!("--all does not write {format}"))
                .with_hint("add --format parquet or --format csv (or json, ndjson, arrow)"));
        }
        sink::check_plaintext(format, is_plaintext)?;
        Ok(Self { folder: folder.into(), format, is_plaintext, limit: None })
    }

    /// Bounds the time of each query: one that takes longer fails, and the others go on.
    #[must_use]
    pub fn with_limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// Makes the folder where it is missing, and holds it.
    fn open(&self) -> Result<File> {
        let unusable = |cause: std::io::Error| {
            Error::config("the folder of results cannot be used")
                .with_context("folder", self.folder.display())
                .with_hint("give a folder to --out-dir that you may write to")
                .with_source(cause)
        };
        if !self.folder.is_dir() {
            fs::create_dir(&self.folder).map_err(unusable)?;
        }
        let lock = File::options().create(true).append(true).open(self.folder.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "another feed writes into the folder; nothing was changed",
                )
                .with_context("folder", self.folder.display())
                .with_hint("wait until it ends, or give another folder to --out-dir"));
            }
            Err(TryLockError::Error(cause)) => return Err(unusable(cause)),
        }
        for entry in fs::read_dir(&self.folder).map_err(unusable)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // What cannot be deleted does no harm.
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(lock)
    }
}

/// Writes the result of every query of the library whose parameters have defaults, then the manifest.
///
/// # Errors
///
/// [`ErrorKind::Config`] when the folder cannot be used or has a `manifest.json` of something else, [`ErrorKind::Conflict`]
/// when another feed writes into it, [`ErrorKind::Unavailable`] when the manifest cannot be written. What happens to single
/// queries is in the report ([`FeedReport::error`]).
pub async fn run(
    library: &Library,
    session: &Session,
    (lake, manifest): (&Lake, &Arc<Manifest>),
    destination: &Destination,
    clock: &SharedClock,
) -> Result<FeedReport> {
    let lock = destination.open()?;
    let older = Record::read(&destination.folder)?;
    let feed = Feed { session, lake, manifest, destination, clock, older: older.as_ref() };
    let mut report = FeedReport { record: feed.record(), failures: Vec::new() };
    let mut paths = HashSet::new();
    for file in library.files() {
        let path = feed.path(&file.name);
        let is_first = paths.insert(path.to_lowercase());
        feed.result(file, path, is_first, &mut report).await;
    }
    for broken in library.broken() {
        let stem = Path::new(&broken.path).file_stem().unwrap_or_default().to_string_lossy();
        // A file that claims the name of another one has no result of its own.
        let name = broken.name.as_deref().filter(|name| !paths.contains(&feed.path(name).to_lowercase()));
        let path = feed.path(name.unwrap_or(&stem));
        let kept = if paths.insert(path.to_lowercase()) { feed.kept(&path) } else { None };
        let name = name.unwrap_or(&stem).to_owned();
        report.failed(name, kept, broken.error());
    }
    let paths = report.record.results.iter().filter_map(|entry| entry.file.as_ref());
    let paths: HashSet<String> = paths.map(|file| file.path.clone()).collect();
    if let Some(older) = &older {
        report.record.results.extend(older.orphans(&destination.folder, &paths));
    }
    report.record.written_at = clock.now().to_string();
    report.record.clone().write(&destination.folder, PREFIX)?;
    drop(lock);
    Ok(report)
}

impl FeedReport {
    fn push(&mut self, name: String, outcome: FeedOutcome, file: Option<ResultFile>) -> &mut Entry {
        let results = &mut self.record.results;
        let at = results.len();
        results.push(Entry { name, outcome, file, error: None, needs: Vec::new() });
        &mut results[at]
    }

    fn failed(&mut self, name: String, kept: Option<ResultFile>, error: Error) {
        let failure = Failure { kind: error.kind().name().to_owned(), exit_code: error.kind().exit_code() };
        self.push(name.clone(), FeedOutcome::Failed, kept).error = Some(failure);
        self.failures.push((name, error));
    }
}

/// What the results of one feed have in common.
struct Feed<'a> {
    session: &'a Session,
    lake: &'a Lake,
    manifest: &'a Manifest,
    destination: &'a Destination,
    clock: &'a SharedClock,
    older: Option<&'a Record>,
}

impl Feed<'_> {
    fn record(&self) -> Record {
        Record {
            counterfoil_feed: 0,
            written_at: String::new(),
            now: self.session.now().to_string(),
            lake: self.lake.id().to_owned(),
            lake_version: self.manifest.version,
            policy: self.policy(),
            format: self.destination.format.name().to_owned(),
            results: Vec::new(),
        }
    }

    fn policy(&self) -> Option<String> {
        self.manifest.policy.as_deref().map(ToOwned::to_owned)
    }

    fn path(&self, name: &str) -> String {
        format!("{name}.{}", self.destination.format)
    }

    /// Returns what an earlier feed says of a file that is still there.
    fn kept(&self, path: &str) -> Option<ResultFile> {
        let file = self.older?.file(path)?;
        self.destination.folder.join(path).is_file().then(|| file.clone())
    }

    /// Runs one query, and adds what became of it.
    async fn result(&self, file: &QueryFile, path: String, is_first: bool, report: &mut FeedReport) {
        if !is_first {
            let message = format!("{}: another query has the name `{}` but for capital letters", file.path, file.name);
            let error =
                Error::query(message).with_hint("give one of them another `-- name:`: both are one file on some disks");
            return report.failed(file.name.clone(), None, error);
        }
        if path == MANIFEST {
            let error =
                Error::query(format!("{}: a query called `{}` would replace the manifest", file.path, file.name));
            return report.failed(file.name.clone(), None, error.with_hint("give it another `-- name:`"));
        }
        let kept = self.kept(&path);
        let needs = file.params.iter().filter(|parameter| parameter.default.is_none());
        let needs: Vec<String> = needs.map(|parameter| parameter.name.clone()).collect();
        if !needs.is_empty() {
            report.push(file.name.clone(), FeedOutcome::Skipped, kept).needs = needs;
            return;
        }
        let outcome = tokio::select! {
            outcome = self.write(file, path, kept.as_ref()) => outcome,
            error = self.too_late() => Err(error),
        };
        match outcome {
            Ok((outcome, written)) => {
                report.push(file.name.clone(), outcome, Some(written));
            }
            Err(error) => report.failed(file.name.clone(), kept, error),
        }
    }

    /// Waits until a query has taken too long; without a limit, for ever.
    async fn too_late(&self) -> Error {
        let Some(limit) = self.destination.limit else { return std::future::pending().await };
        self.clock.sleep(limit).await;
        Error::query("the query took longer than it may")
            .with_context("limit", format!("{limit:?}"))
            .with_hint("narrow its rows, or give it more time with --timeout or the setting query.timeout")
    }

    async fn write(
        &self,
        file: &QueryFile,
        path: String,
        older: Option<&ResultFile>,
    ) -> Result<(FeedOutcome, ResultFile)> {
        let Destination { folder, format, is_plaintext, .. } = self.destination;
        let plan = self.session.plan(file, &Arguments::parse(file, &[])?).await?;
        let protection = Protection::choose(*format, *is_plaintext, &plan, self.lake)?;
        let rows = self.session.stream(&plan).await?;
        let digest = RowsDigest::new(&rows.schema(), plan.is_ordered());
        let sink = Sink::new(*format).with_protection(protection.clone());
        let place = folder.join(&path);
        let mut replacement = Replacement::begin(&place, PREFIX)?;
        let written = replacement.write(&sink, &mut digest.observe(rows)).await?;
        let (rows_digest, keys) = match (&protection, digest.finish()) {
            (_, None) => (String::new(), Vec::new()),
            (Protection::Plain, Some(digest)) => (hex(&digest), Vec::new()),
            (Protection::Sealed(seal), Some(digest)) => (hex(&seal.blinded(&digest)?), seal.key_ids()?),
        };
        let parameters = file.params.iter().map(|parameter| Defaulted {
            name: parameter.name.clone(),
            kind: parameter.kind.name().to_owned(),
            default: parameter.default.clone().unwrap_or_default(),
        });
        let mut result = ResultFile {
            path,
            rows: written.rows,
            bytes: 0,
            sha256: String::new(),
            rows_digest,
            keys,
            sql_digest: file.digest.clone(),
            parameters: parameters.collect(),
            lake_version: self.manifest.version,
            policy: self.policy(),
            now: self.session.now().to_string(),
            written_at: self.clock.now().to_string(),
        };
        if let Some(older) = older
            && !older.rows_digest.is_empty()
            && (&older.rows_digest, &older.keys) == (&result.rows_digest, &result.keys)
            && File::open(&place)
                .and_then(|file| sized_digest(&file))
                .is_ok_and(|found| found == (older.bytes, older.sha256.clone()))
        {
            (result.bytes, result.sha256) = (older.bytes, older.sha256.clone());
            result.written_at.clone_from(&older.written_at);
            return Ok((FeedOutcome::Unchanged, result));
        }
        (result.bytes, result.sha256) = sized_digest(replacement.file()).map_err(|cause| {
            Error::unavailable("failed to read what was written")
                .with_context("file", place.display())
                .with_source(cause)
        })?;
        replacement.commit()?;
        Ok((FeedOutcome::Written, result))
    }
}

/// Returns the length of a file and its SHA-256.
fn sized_digest(mut file: &File) -> std::io::Result<(u64, String)> {
    file.seek(SeekFrom::Start(0))?;
    let mut context = Context::new(&SHA256);
    let (mut buffer, mut bytes) = (vec![0; 1 << 16], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hex(context.finish().as_ref())));
        }
        context.update(&buffer[..read]);
        bytes += read as u64;
    }
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
mod tests;
