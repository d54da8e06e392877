//! What each key of the two rings protects: which files and log objects cannot be read without it, and of which files the
//! restricted columns cannot.
//!
//! Nothing is decrypted for it but the log: a data file names its key in its tail, an index and an object of the log in their
//! first bytes. Files that the newest version does not name (those of earlier versions, and what a crash left) count too:
//! they become as unreadable.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{OBJECT_HEADER_BYTES, object_key_id};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::{Inner, Lake, file, layout, store, tail};
use crate::model::Stream;

/// Objects looked at side by side.
const READS: usize = 16;

/// What the keys of a lake protect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protection {
    /// The newest version; nothing when the log cannot be read with the ring.
    pub version: Option<u64>,
    /// By the key's id.
    pub keys: BTreeMap<String, Protected>,
}

/// What one key protects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protected {
    /// Files of the newest version, by table.
    pub tables: BTreeMap<Stream, ProtectedFiles>,
    /// Files and indexes that the newest version does not name.
    pub other_files: u64,
    /// Their bytes.
    pub other_bytes: u64,
    /// Commits of the log.
    pub commits: u64,
    /// Snapshots of the log.
    pub snapshots: u64,
    /// Versions that can be read with this key only, as ranges from and to.
    pub versions: Vec<(u64, u64)>,
}

/// Files of one table that one key protects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProtectedFiles {
    /// Files.
    pub files: u64,
    /// Rows that are neither superseded nor tombstones.
    pub live_rows: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Protection {
    /// Returns what a key protects: nothing, when it is not there.
    #[must_use]
    pub fn of(&self, id: &str) -> Protected {
        self.keys.get(id).cloned().unwrap_or_default()
    }

    /// Tells whether the newest version cannot be read without a key.
    #[must_use]
    pub fn needs(&self, id: &str) -> bool {
        let Some(protected) = self.keys.get(id) else { return false };
        match self.version {
            // A log that cannot be read tells nothing of what is not needed.
            None => true,
            Some(version) => {
                !protected.tables.is_empty() || protected.versions.iter().any(|(_, to)| *to >= version && version > 0)
            }
        }
    }
}

impl Protected {
    /// Returns how many files of the newest version the key protects, and their bytes.
    #[must_use]
    pub fn live_files(&self) -> (u64, u64) {
        self.tables.values().fold((0, 0), |(files, bytes), table| (files + table.files, bytes + table.bytes))
    }
}

impl Lake {
    /// Finds out what each key of the ring protects.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Data`] for a file or an object of the log that names no key; those of the store.
    pub async fn protection(&self) -> Result<Protection> {
        let manifest = match self.latest().await {
            Ok(manifest) => Some(manifest),
            Err(error) if error.kind() == ErrorKind::Denied => None,
            Err(error) => return Err(error),
        };
        let mut protection =
            Protection { version: manifest.as_ref().map(|manifest| manifest.version), ..Protection::default() };
        let log = log_keys(&self.0).await?;
        for (id, is_snapshot) in
            log.commits.values().map(|id| (id, false)).chain(log.snapshots.values().map(|id| (id, true)))
        {
            let protected = protection.keys.entry(id.clone()).or_default();
            if is_snapshot { protected.snapshots += 1 } else { protected.commits += 1 }
        }
        for (id, versions) in log.versions() {
            protection.keys.entry(id).or_default().versions = versions;
        }
        self.count_files(manifest.as_deref(), &mut protection).await?;
        self.count_restricted(manifest.as_deref(), &mut protection).await?;
        Ok(protection)
    }

    /// Counts the files of which keys of the restricted ring protect columns: the manifests name them. Files that no kept version
    /// names are not counted.
    async fn count_restricted(&self, manifest: Option<&Manifest>, protection: &mut Protection) -> Result<()> {
        let Some(manifest) = manifest else { return Ok(()) };
        if self.restricted_version().await?.is_none() {
            return Ok(());
        }
        let kept = match self.0.log.kept().await {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == ErrorKind::Denied => None,
            Err(error) => return Err(error),
        };
        let mut live = HashSet::new();
        for (stream, table) in &manifest.tables {
            for file in &table.files {
                live.insert(file.path.as_str());
                let Some(key) = &file.restricted_key else { continue };
                let table = protection.keys.entry(key.to_string()).or_default().tables.entry(*stream).or_default();
                table.files += 1;
                table.live_rows += file.live_rows();
                table.bytes += file.bytes;
            }
        }
        for (_, file) in kept.iter().flat_map(|kept| kept.files.values()) {
            if let Some(key) = file.restricted_key.as_ref().filter(|_| !live.contains(file.path.as_str())) {
                let protected = protection.keys.entry(key.to_string()).or_default();
                protected.other_files += 1;
                protected.other_bytes += file.bytes;
            }
        }
        Ok(())
    }

    async fn count_files(&self, manifest: Option<&Manifest>, protection: &mut Protection) -> Result<()> {
        let mut live: HashMap<&str, (Stream, &Arc<DataFile>)> = HashMap::new();
        for (stream, table) in manifest.iter().flat_map(|manifest| &manifest.tables) {
            live.extend(table.files.iter().map(|file| (file.path.as_str(), (*stream, file))));
        }
        let folder = Path::from(layout::DATA);
        let listed = self.0.store.list(Some(&folder)).try_collect::<Vec<ObjectMeta>>().await;
        let listed = listed.map_err(|error| store::failed("list", &folder, error))?;
        // Collected, because a stream that borrows through a closure makes this future hard to send between threads.
        let looks: Vec<_> = listed.iter().map(|object| key_of_object(&self.0, object).boxed()).collect();
        let mut keys = stream::iter(looks).buffered(READS);
        let mut objects = listed.iter();
        while let Some(key) = keys.try_next().await? {
            let (Some(object), Some(key)) = (objects.next(), key) else { continue };
            let protected = protection.keys.entry(key).or_default();
            let path = object.location.as_ref();
            let data_file = path.strip_suffix(".index").map(|stem| format!("{stem}.parquet"));
            if let Some((stream, file)) = live.get(data_file.as_deref().unwrap_or(path)) {
                let table = protected.tables.entry(*stream).or_default();
                table.bytes += object.size;
                if data_file.is_none() {
                    table.files += 1;
                    table.live_rows += file.live_rows();
                }
            } else {
                protected.other_files += 1;
                protected.other_bytes += object.size;
            }
        }
        Ok(())
    }
}

/// Returns the id of the ring key that an object under `data/` needs; nothing for an object of another kind, or one that is
/// gone meanwhile.
async fn key_of_object(lake: &Inner, object: &ObjectMeta) -> Result<Option<String>> {
    match object.location.extension() {
        Some("parquet") => {}
        Some("index") => return sealed_by(lake, &object.location).await,
        _ => return Ok(None),
    }
    let from = object.size.saturating_sub(file::TRAILER_BYTES as u64);
    let Some(trailer) = range(lake, &object.location, from, object.size).await? else { return Ok(None) };
    let length = file::tail_bytes(&trailer).filter(|length| *length <= object.size);
    let Some(length) = length else {
        return Err(tail::damaged(object.location.as_ref()));
    };
    key_of_tail(lake, &object.location, object.size, length).await
}

/// Returns the id of the ring key that wraps a data file of the manifest.
pub(super) async fn key_of_file(lake: &Inner, file: &DataFile) -> Result<Option<String>> {
    key_of_tail(lake, &Path::from(file.path.as_str()), file.bytes, file.tail_bytes).await
}

async fn key_of_tail(lake: &Inner, path: &Path, bytes: u64, tail_bytes: u64) -> Result<Option<String>> {
    let from = bytes - tail_bytes;
    let Some(start) = range(lake, path, from, bytes.min(from + tail::CRYPTO_BYTES)).await? else { return Ok(None) };
    tail::key_id(path.as_ref(), &start).map(Some)
}

/// Returns the id of the ring key that sealed an object; nothing when it is gone.
pub(super) async fn sealed_by(lake: &Inner, path: &Path) -> Result<Option<String>> {
    let Some(start) = range(lake, path, 0, OBJECT_HEADER_BYTES).await? else { return Ok(None) };
    let damaged = || {
        Error::data("object of the lake is damaged or was tampered with")
            .with_context("object", path)
            .with_hint("restore it from a backup of the lake")
    };
    object_key_id(&start).map(Some).ok_or_else(damaged)
}

async fn range(lake: &Inner, path: &Path, from: u64, to: u64) -> Result<Option<Bytes>> {
    match lake.store.get_range(path, from..to).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(store::failed("read", path, error)),
    }
}

/// The keys that sealed the objects of the log, by version.
#[derive(Debug, Default)]
pub(super) struct LogKeys {
    pub(super) commits: BTreeMap<u64, String>,
    pub(super) snapshots: BTreeMap<u64, String>,
}

impl LogKeys {
    /// Returns the keys without which a version cannot be read: those of its snapshot and of the commits since.
    pub(super) fn needed(&self, version: u64) -> Vec<&String> {
        let snapshot = self.snapshots.range(..=version).next_back();
        let after = snapshot.map_or(0, |(snapshot, _)| *snapshot);
        let commits = self.commits.range(after.saturating_add(1)..).take_while(|(commit, _)| **commit <= version);
        snapshot.into_iter().chain(commits).map(|(_, id)| id).collect()
    }

    /// Returns which versions need each key, as ranges.
    fn versions(&self) -> BTreeMap<String, Vec<(u64, u64)>> {
        let mut found: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for version in self.commits.keys().copied() {
            let mut needed = self.needed(version);
            needed.sort_unstable();
            needed.dedup();
            for id in needed {
                let ranges = found.entry(id.clone()).or_default();
                match ranges.last_mut().filter(|(_, to)| to + 1 == version) {
                    Some((_, to)) => *to = version,
                    None => ranges.push((version, version)),
                }
            }
        }
        found
    }
}

/// Reads which keys sealed the objects of the log.
pub(super) async fn log_keys(lake: &Inner) -> Result<LogKeys> {
    let folder = Path::from(layout::LOG);
    let listed = lake.store.list(Some(&folder)).map_ok(|object| object.location).try_collect::<Vec<Path>>().await;
    let mut listed = listed.map_err(|error| store::failed("list", &folder, error))?;
    // Where the log begins is said by an empty object, which no key seals.
    listed.retain(|path| matches!(layout::log_version(path), Some((_, "commit" | "snapshot"))));
    let looks: Vec<_> = listed.iter().map(|path| sealed_by(lake, path).boxed()).collect();
    let mut ids = stream::iter(looks).buffered(READS);
    let mut paths = listed.iter();
    let mut keys = LogKeys::default();
    while let Some(id) = ids.try_next().await? {
        let (Some(path), Some(id)) = (paths.next(), id) else { continue };
        match layout::log_version(path) {
            Some((version, "commit")) => drop(keys.commits.insert(version, id)),
            Some((version, "snapshot")) => drop(keys.snapshots.insert(version, id)),
            _ => {}
        }
    }
    Ok(keys)
}
