//! Wrapping anew: files and log move under the primary key of the ring, without being encrypted again.
//!
//! ```text
//! old object: │ body │ tail under ring-1 │  ─▶  new object: │ same body │ tail under ring-2 │  ─▶  commit: remove, add
//! old index:  │ header under ring-1 │ blocks │ ─▶ │ header under ring-2 │ same blocks │
//! log:        … commit under ring-1               ─▶  commit and snapshot under ring-2
//! ```
//!
//! A file keeps its own key, its rows and their places, so bitmaps are carried over as they are when the commit is made, also
//! those that another writer set meanwhile. One file at a time is in memory. A commit is made after some files, so that what
//! was done stays done; what a crash leaves behind are objects that no commit names.
//!
//! A file with restricted columns has further keys in its encrypted footer, so it is rewritten instead, which takes the right to
//! those columns; it is moved too when an older key of the restricted ring wraps them.
//!
//! The old objects stay until versions that name them have expired and `gc` has deleted them: until then, destroying the old
//! key makes those versions unreadable.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::error::{Error, Result};
use crate::keys::{KeyRing, Right};
use crate::lake::attempts::Attempts;
use crate::lake::commit::Action;
use crate::lake::lease::Lease;
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::protection::{self, key_of_file, sealed_by};
use crate::lake::rewrite::{self, History, Replaced, Source};
use crate::lake::{Inner, Lake, WRITER, index, layout, restricted, store, tail};
use crate::model::Stream;

/// Files of one commit: each renews the lease too.
const FILES_PER_COMMIT: usize = 32;

/// What was wrapped anew, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Data files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the newest version of the log needed an older key.
    pub log: bool,
    /// The newest version, afterwards.
    pub version: u64,
}

/// A file under the primary key that is to take the place of one under an older key.
struct Renewed {
    stream: Stream,
    old: String,
    new: DataFile,
}

impl Lake {
    /// Tells what [`rewrap_files`](Self::rewrap_files) would do.
    ///
    /// # Errors
    ///
    /// Those of reading the log and the files' tails.
    pub async fn plan_rewrap(&self) -> Result<Rewrapped> {
        let primary = self.0.ring.primary_id()?;
        let manifest = self.latest().await?;
        let mut plan = Rewrapped { version: manifest.version, ..Rewrapped::default() };
        for file in manifest.tables.values().flat_map(|table| &table.files) {
            if needs_rewrap(&self.0, file, &primary).await? {
                plan.files += 1;
                plan.bytes += file.bytes;
            }
        }
        let log = protection::log_keys(&self.0).await?;
        plan.log = log.needed(manifest.version).into_iter().any(|id| *id != primary);
        Ok(plan)
    }

    /// Wraps every file of the newest version anew whose key an older ring key wraps, and moves the log's newest version under
    /// the primary key.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when a file is damaged, [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have its key enabled,
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when other writers won every attempt to commit or took the lease over.
    pub async fn rewrap_files(&self, lease: &mut Lease) -> Result<Rewrapped> {
        let primary = self.0.ring.primary_id()?;
        let manifest = self.latest().await?;
        let mut done = Rewrapped { version: manifest.version, ..Rewrapped::default() };
        let mut renewed = Vec::new();
        for file in manifest.tables.values().flat_map(|table| &table.files) {
            // Before anything is done: without the right, an older key could not be told to be free.
            if file.restricted_key.is_some() && needs_rewrap(&self.0, file, &primary).await? {
                restricted::check_rewritable(&self.0.ring, file)?;
            }
        }
        for (stream, table) in &manifest.tables {
            for file in &table.files {
                if !needs_rewrap(&self.0, file, &primary).await? {
                    continue;
                }
                lease.renew().await?;
                if file.restricted_key.is_some() {
                    let source = Source::whole(file);
                    let change = rewrite::rewrite(&self.0, *stream, &[source], History::Kept).await?;
                    if let Replaced::Done(manifest) = rewrite::replace(&self.0, &[change]).await? {
                        done.version = manifest.version;
                        done.files += 1;
                        done.bytes += file.bytes;
                    }
                    continue;
                }
                renewed.push(Renewed {
                    stream: *stream,
                    old: file.path.clone(),
                    new: put(&self.0, *stream, file).await?,
                });
                done.files += 1;
                done.bytes += file.bytes;
                if renewed.len() >= FILES_PER_COMMIT {
                    done.version = commit(&self.0, &renewed, true).await?.version;
                    renewed.clear();
                }
            }
        }
        if !renewed.is_empty() {
            done.version = commit(&self.0, &renewed, true).await?.version;
        }
        self.rewrap_log(&primary, &mut done).await?;
        Ok(done)
    }

    /// Makes a version and its snapshot under the primary key, when reading the newest one takes another key.
    async fn rewrap_log(&self, primary: &str, done: &mut Rewrapped) -> Result<()> {
        let log = protection::log_keys(&self.0).await?;
        let mut manifest = self.latest().await?;
        let is_old = |id: Option<&String>| id.is_some_and(|id| id != primary);
        done.log = log.needed(manifest.version).into_iter().any(|id| id != primary);
        let (commit_key, snapshot_key) = (log.commits.get(&manifest.version), log.snapshots.get(&manifest.version));
        if manifest.version == 0 || (!done.log && !is_old(commit_key)) {
            return Ok(());
        }
        if is_old(commit_key) || is_old(snapshot_key) {
            // Objects of the log are never changed: a version that says nothing new stands under the new key.
            manifest = commit(&self.0, &[], false).await?;
        }
        let id = layout::new_uuid(self.0.clock.as_ref()).to_string();
        self.0.log.write_snapshot(&manifest, id, WRITER.to_owned()).await?;
        done.version = manifest.version;
        done.log = true;
        Ok(())
    }
}

/// Tells whether a file, or its index, needs a key that is not the primary one.
async fn needs_rewrap(lake: &Inner, file: &DataFile, primary: &str) -> Result<bool> {
    let missing = |path: &str| Error::data("data file is missing").with_context("file", path);
    let key = key_of_file(lake, file).await?.ok_or_else(|| missing(&file.path))?;
    let restricted = lake.ring.restricted().map(KeyRing::primary_id).transpose()?;
    let is_older = |of: &Arc<str>| {
        lake.ring.right(of) == Right::Held && restricted.as_ref().is_some_and(|restricted| **restricted != **of)
    };
    if key != primary || file.restricted_key.as_ref().is_some_and(is_older) {
        return Ok(true);
    }
    let Some(index) = file.index_path() else { return Ok(false) };
    let key = sealed_by(lake, &Path::from(index.as_str())).await?.ok_or_else(|| missing(&index))?;
    Ok(key != primary)
}

/// Puts a copy of a file, and of its index, under the primary key.
async fn put(lake: &Inner, stream: Stream, file: &DataFile) -> Result<DataFile> {
    let to = layout::new_data_file(stream, lake.clock.as_ref());
    let whole = read(lake, &file.path, file.bytes).await?;
    let body = whole.slice(..whole.len() - usize::try_from(file.tail_bytes).unwrap_or(whole.len()));
    let old_tail = whole.slice(body.len()..);
    let (new_tail, mut entry) = match tail::rewrapped(file, &old_tail, &lake.ring, &to)? {
        Some(renewed) => renewed,
        None => (old_tail, DataFile { path: to.clone(), ..file.clone() }),
    };
    let index = match (file.index, file.index_path()) {
        (Some(size), Some(path)) => {
            let bytes = read(lake, &path, size.bytes).await?;
            let (bytes, size) = index::reseal(&bytes, file, &lake.ring, &to)?;
            entry.index = Some(size);
            Some(bytes)
        }
        _ => None,
    };
    store_object(lake, &to, [body, new_tail].into_iter().collect()).await?;
    if let Some(bytes) = index {
        store_object(lake, &layout::index_of(&to), bytes.into()).await?;
    }
    Ok(entry)
}

async fn read(lake: &Inner, path: &str, bytes: u64) -> Result<Bytes> {
    let whole = store::read(lake.store.as_ref(), &Path::from(path), bytes).await?;
    let wrong = |message: &str| {
        Error::data(message).with_context("file", path).with_hint("restore it from a backup of the lake")
    };
    let whole = whole.ok_or_else(|| wrong("data file is missing"))?;
    if whole.len() as u64 == bytes { Ok(whole) } else { Err(wrong("data file is shorter than the manifest says")) }
}

async fn store_object(lake: &Inner, path: &str, payload: PutPayload) -> Result<()> {
    let object = Path::from(path);
    lake.store.put(&object, payload).await.map(drop).map_err(|error| store::failed("write", &object, error))
}

/// Commits files in place of others; a file that has gone meanwhile is left out. Without files a version that changes nothing
/// is made, unless `or_nothing`.
async fn commit(lake: &Inner, renewed: &[Renewed], or_nothing: bool) -> Result<Arc<Manifest>> {
    let mut attempts = Attempts::begin(lake).await?;
    loop {
        let base = attempts.base();
        let mut actions = Vec::new();
        for Renewed { stream, old, new } in renewed {
            let files = base.tables.get(stream).map_or(&[][..], |table| &table.files);
            let Some(present) = files.iter().find(|file| file.path == *old) else { continue };
            let file = DataFile {
                superseded: present.superseded.clone(),
                tombstones: present.tombstones.clone(),
                ..new.clone()
            };
            actions.push(Action::Remove(*stream, old.clone()));
            actions.push(Action::Add(*stream, Arc::new(file)));
        }
        if actions.is_empty() && or_nothing {
            return Ok(Arc::clone(base));
        }
        if let Some(manifest) = attempts.put(actions).await? {
            return Ok(manifest);
        }
    }
}
