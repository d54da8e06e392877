//! `manifest.json`: what a folder of results holds, for the programs that load it and for the next feed.
//!
//! One JSON object, written last and in one step, so that it never names a result that is not there whole. It holds no value
//! of a row. Fields of version 1; a reader ignores the ones that it does not know, a version that it does not know it refuses:
//!
//! | field | meaning |
//! |---|---|
//! | `counterfoil_feed` | version of this form, 1 |
//! | `written_at` | when the feed ended, ISO 8601 UTC |
//! | `now` | what `now()` was in every query |
//! | `lake`, `lake_version` | id of the lake, and the one version that every query read |
//! | `policy` | digest of the policy in force, where the lake has one |
//! | `format` | form of the results: `parquet`, `csv`, `json`, `ndjson` or `arrow` |
//! | `results` | one object for each query of the library, and for each file that a query left here before |
//!
//! and of each result:
//!
//! | field | meaning |
//! |---|---|
//! | `name` | name of the query |
//! | `outcome` | `written`; `unchanged`: the rows are those that the file has, which was left alone; `failed`: the query; `skipped`: parameters have no value; `orphaned`: the library has no such query any more, or other forms are written now |
//! | `file` | the result that lies in the folder, of an earlier feed where this one failed; absent where there is none |
//! | `file.path` | name in the folder |
//! | `file.rows`, `file.bytes`, `file.sha256` | size and digest (hex) of the file |
//! | `file.rows_digest` | digest of names, types and rows (hex); keyed by the ring where the file is encrypted |
//! | `file.keys` | ids of the ring keys that open it, the ring's and then the restricted ring's; absent in the clear |
//! | `file.sql_digest` | SHA-256 of the SQL file, as `lists` name it |
//! | `file.parameters` | `name`, `type` and `default` (the SQL expression, evaluated at `file.now`) of each parameter |
//! | `file.lake_version`, `file.policy`, `file.now` | what the rows were last computed from |
//! | `file.written_at` | when the file was written |
//! | `error.kind`, `error.exit_code` | why it failed, in the words and numbers of the command line |
//! | `needs` | parameters without a value, of what was skipped |

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::query::sink::file::Replacement;

/// Name of the manifest in its folder.
pub const MANIFEST: &str = "manifest.json";

const VERSION: u32 = 1;

/// The manifest of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the form.
    pub counterfoil_feed: u32,
    /// When the feed ended.
    pub written_at: String,
    /// What `now()` was.
    pub now: String,
    /// Id of the lake.
    pub lake: String,
    /// Version that every query read.
    pub lake_version: u64,
    /// Digest of the policy in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Form of the results.
    pub format: String,
    /// What became of each query, by name.
    pub results: Vec<Entry>,
}

/// What became of one query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the query.
    pub name: String,
    /// What became of it.
    pub outcome: FeedOutcome,
    /// The result that lies in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<ResultFile>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Parameters without a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
}

/// What became of a query of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeedOutcome {
    /// A new file took the place of the older one.
    Written,
    /// The rows are those that the file has.
    Unchanged,
    /// The query failed; an older file stays.
    Failed,
    /// Parameters have no value; an older file stays.
    Skipped,
    /// No query of the library writes this file any more.
    Orphaned,
}

impl FeedOutcome {
    /// Returns the word of the manifest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Orphaned => "orphaned",
        }
    }
}

/// A result in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFile {
    /// Name in the folder.
    pub path: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Digest of names, types and rows, hex; empty where a type cannot be digested.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rows_digest: String,
    /// Ids of the ring keys that open it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// SHA-256 of the SQL file, hex.
    pub sql_digest: String,
    /// The parameters, in the order of the header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Defaulted>,
    /// Version of the lake that the rows were last computed from.
    pub lake_version: u64,
    /// Digest of the policy of that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What `now()` was.
    pub now: String,
    /// When the file was written.
    pub written_at: String,
}

/// A parameter, which has its default in a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaulted {
    /// Name.
    pub name: String,
    /// Type, as headers write it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The SQL expression of the header.
    pub default: String,
}

/// Why a query failed; its message may quote what no manifest should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Kind of the error.
    pub kind: String,
    /// Exit code of the kind.
    pub exit_code: u8,
}

/// What is read first of a manifest.
#[derive(Deserialize)]
struct Version {
    counterfoil_feed: u32,
}

impl Record {
    /// Reads the manifest of a folder, where it has one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) for a file of that name that is not a manifest of a version
    /// that this program knows: it would be lost.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        let refused = |message: &str| {
            Error::config(message)
                .with_context("file", path.display())
                .with_hint("give another folder to --out-dir, or move the file away: then every result is written anew")
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(refused("failed to read the manifest of the folder").with_source(cause)),
        };
        match serde_json::from_slice::<Version>(&bytes) {
            Ok(Version { counterfoil_feed: VERSION }) => {}
            Ok(Version { counterfoil_feed }) => {
                return Err(refused("the manifest of the folder has a form that this program does not know")
                    .with_context("version", counterfoil_feed));
            }
            Err(_) => return Err(refused("the folder has a manifest.json that is no manifest of a feed")),
        }
        let record = serde_json::from_slice::<Self>(&bytes);
        record.map(Some).map_err(|cause| refused("the manifest of the folder is damaged").with_source(cause))
    }

    /// Finds the file of a name that the folder held when the manifest was written.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&ResultFile> {
        self.results.iter().filter_map(|entry| entry.file.as_ref()).find(|file| file.path == path)
    }

    /// Writes the manifest in one step.
    pub(super) fn write(mut self, folder: &Path, prefix: &str) -> Result<()> {
        self.counterfoil_feed = VERSION;
        self.results.sort_by(|a, b| a.name.cmp(&b.name));
        let text = serde_json::to_string_pretty(&self)
            .map_err(|cause| Error::internal("failed to write the manifest as JSON").with_source(cause))?;
        let mut replacement = Replacement::begin(&folder.join(MANIFEST), prefix)?;
        replacement.write_bytes(text.as_bytes())?;
        replacement.write_bytes(b"\n")?;
        replacement.commit()
    }

    /// Lists what lies in the folder and is written by no query of these names any more.
    pub(super) fn orphans(&self, folder: &Path, paths: &HashSet<String>) -> Vec<Entry> {
        let entries = self.results.iter().filter_map(|entry| Some((entry, entry.file.as_ref()?)));
        let orphans = entries.filter(|(_, file)| {
            // The manifest is a file that anybody may have written: it names files of its own folder, or none.
            let is_name = Path::new(&file.path).file_name().is_some_and(|name| name == file.path.as_str());
            is_name && !paths.contains(&file.path) && folder.join(&file.path).is_file()
        });
        orphans
            .map(|(entry, file)| Entry {
                name: entry.name.clone(),
                outcome: FeedOutcome::Orphaned,
                file: Some(file.clone()),
                error: None,
                needs: Vec::new(),
            })
            .collect()
    }
}
