//! The log: which version follows which, and how a new one is put.
//!
//! ```text
//! 1.commit 2.commit … 20.commit 20.snapshot 21.commit 22.commit
//!                               └─── opening reads these ────┘
//! ```
//!
//! A version exists when its commit object does, and `PutMode::Create` decides which of two writers makes it: the other
//! one starts again from the new version. Nothing in the log is ever changed. A snapshot only saves reading: it is written
//! after the commit it repeats, and an extract does not fail because its snapshot did.
//!
//! The commits must be without gaps and reach the newest snapshot. That the newest commits were taken away together
//! cannot be seen from the log alone: the machine's own mark tells, where there is one.
//!
//! Old versions are expired by naming the oldest that is kept:
//!
//! ```text
//! 41.commit … 57.commit 57.snapshot 57.start 58.commit …
//! └─ leftovers ─┘       └── the log begins here: its snapshot, and an empty object that says so
//! ```
//!
//! The snapshot is put and read back first, then the `start`, which is the moment at which all older versions end
//! together; only then are they deleted, oldest first. Objects below the newest `start` are leftovers, whatever they are:
//! of a deletion that was cut off, or of a writer that slept while the log moved on and then made a version that had been
//! deleted. Such a writer finds the `start` after its put, and has lost the race.

mod kept;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

pub(super) use self::kept::Kept;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyRing;
use crate::lake::commit::{self, Action, Commit};
use crate::lake::lease::LEASE_DURATION;
use crate::lake::manifest::Manifest;
use crate::lake::mark::{Mark, Terms};
use crate::lake::{layout, store};

/// Versions between two snapshots: opening reads at most this many commits, and a snapshot costs one write in twenty.
const SNAPSHOT_EVERY: u64 = 20;

/// Commits read at once.
const READS: usize = 16;

/// Bytes of a sealed object beyond what it holds: header, nonce, tag.
const SEAL_LIMIT_BYTES: u64 = 1 << 10;

/// Times that a reading starts again while versions are being expired under it.
const ATTEMPTS: usize = 5;

/// The log of one lake.
#[derive(Debug)]
pub(super) struct Log {
    store: Arc<dyn ObjectStore>,
    ring: KeyRing,
    newest: Mutex<Known>,
    /// The version and id of the newest commit that was read or made.
    tip: Mutex<Option<(u64, String)>>,
    mark: Option<Mark>,
    pub(super) snapshot_every: u64,
}

/// The newest version that this process has seen.
#[derive(Debug, Clone, Default)]
struct Known {
    manifest: Arc<Manifest>,
    snapshot: u64,
}

/// Versions of the objects in the log, ascending.
#[derive(Debug, Default)]
struct Listing {
    /// The version that the listing follows; 0 for a full one.
    after: u64,
    /// The oldest version that is kept; 0 where the listing does not show it.
    start: u64,
    commits: Vec<u64>,
    snapshots: Vec<u64>,
}

/// What came of a commit.
#[derive(Debug)]
pub(super) enum Appended {
    /// The version is ours.
    Done(Arc<Manifest>),
    /// Another writer made that version.
    Lost,
}

impl Log {
    pub(super) fn new(store: Arc<dyn ObjectStore>, ring: KeyRing) -> Self {
        Self {
            store,
            ring,
            newest: Mutex::default(),
            tip: Mutex::default(),
            mark: None,
            snapshot_every: SNAPSHOT_EVERY,
        }
    }

    /// Remembers the newest version outside the lake, and refuses a log that fell behind it.
    pub(super) fn set_mark(&mut self, mark: Option<Mark>) {
        self.mark = mark;
    }

    /// Reads the newest version.
    pub(super) async fn latest(&self) -> Result<Arc<Manifest>> {
        self.again(|| self.read_latest().boxed()).await
    }

    async fn read_latest(&self) -> Result<Arc<Manifest>> {
        let known = self.known();
        // Before the listing, which then cannot be older than what other processes on this machine have marked.
        let marked = self.marked().await?;
        let listing = self.list(known.manifest.version).await?;
        // A listing from the start again: the known version is no more.
        let known = if listing.after == 0 {
            match listing.newest() {
                0 => known,
                version => self.rebuild(&listing, version).await?,
            }
        } else {
            let tail = self.replay(&known.manifest, &listing, listing.newest()).await?;
            Known { manifest: tail, snapshot: listing.snapshots.last().copied().unwrap_or(known.snapshot) }
        };
        if known.manifest.version == 0 || known.manifest.version > self.known().manifest.version {
            self.check_mark(marked, &listing).await?;
            self.raise_mark(known.manifest.version).await?;
        }
        self.learn(&known);
        Ok(known.manifest)
    }

    /// Takes the log as it is: the mark is set to its newest version, which must be `version`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the newest version is another, or when no mark is kept.
    pub(super) async fn accept(&self, version: u64) -> Result<()> {
        let Some(mark) = &self.mark else {
            return Err(Error::config("no high-water mark is kept on this machine")
                .with_hint("name a folder for it: `state` under [lake]"));
        };
        let newest = self.list(0).await?.newest();
        if newest != version {
            return Err(Error::config("the lake's newest version is another")
                .with_context("asked", version)
                .with_context("newest", newest));
        }
        let commit = if newest == 0 { String::new() } else { self.read_commit(newest).await?.id };
        mark.accept(newest, commit).await
    }

    async fn marked(&self) -> Result<Option<Terms>> {
        match &self.mark {
            Some(mark) => mark.read().await,
            None => Ok(None),
        }
    }

    /// Refuses a log that is not a continuation of what this machine has seen.
    async fn check_mark(&self, marked: Option<Terms>, listing: &Listing) -> Result<()> {
        let (Some(mark), Some(terms)) = (&self.mark, marked) else { return Ok(()) };
        let newest = listing.newest();
        mark.check_newest(&terms, newest)?;
        // A commit that has expired cannot be compared; the newest never expires.
        if listing.commits.contains(&terms.version) {
            mark.check_commit(&terms, &self.commit_id(terms.version).await?, newest)?;
        }
        Ok(())
    }

    /// Remembers a version that was read or made.
    async fn raise_mark(&self, version: u64) -> Result<()> {
        let Some(mark) = self.mark.as_ref().filter(|_| version > 0) else { return Ok(()) };
        mark.raise(version, self.commit_id(version).await?).await;
        Ok(())
    }

    /// Returns the id of a version's commit; that of the newest is known when its commit was read.
    async fn commit_id(&self, version: u64) -> Result<String> {
        let tip = self.tip.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match tip {
            Some((known, id)) if known == version => Ok(id),
            _ => Ok(self.read_commit(version).await?.id),
        }
    }

    /// Reads a version.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is no such version, or it is not kept any more.
    pub(super) async fn at_version(&self, version: u64) -> Result<Arc<Manifest>> {
        let known = self.known();
        if version == 0 || version == known.manifest.version {
            return Ok(if version == 0 { Arc::default() } else { known.manifest });
        }
        self.again(move || self.read_version(version).boxed()).await
    }

    async fn read_version(&self, version: u64) -> Result<Arc<Manifest>> {
        let marked = self.marked().await?;
        let listing = self.list(0).await?;
        self.check_mark(marked, &listing).await?;
        let newest = listing.newest();
        if version > newest {
            return Err(Error::config("the lake has no such version")
                .with_context("version", version)
                .with_context("newest", newest));
        }
        if version < listing.start {
            return Err(Error::config("the version is not kept any more")
                .with_context("version", version)
                .with_context("oldest", listing.start)
                .with_hint("the setting `lake.keep_versions` says how long versions are kept"));
        }
        Ok(self.rebuild(&listing, version).await?.manifest)
    }

    /// Reads the newest version committed at or before a time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the lake, or what is kept of it, is younger than that.
    pub(super) async fn at_time(&self, time_ms: i64) -> Result<Arc<Manifest>> {
        self.again(move || self.read_time(time_ms).boxed()).await
    }

    async fn read_time(&self, time_ms: i64) -> Result<Arc<Manifest>> {
        let latest = self.read_latest().await?;
        if latest.version == 0 || latest.committed_ms <= time_ms {
            return Ok(latest);
        }
        // Commit times never go back, so the log can be searched by halves: `low` is early enough, `high` too late.
        let listing = self.list(0).await?;
        let below = listing.start - 1;
        let (mut low, mut high) = (below, latest.version);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.read_commit(middle).await?.committed_ms <= time_ms { low = middle } else { high = middle }
        }
        if low == below {
            let message =
                if below == 0 { "the lake has no version that old" } else { "no version that old is kept any more" };
            return Err(Error::config(message)
                .with_context("asked", Stamp(time_ms))
                .with_context("oldest", Stamp(self.read_commit(high).await?.committed_ms))
                .with_context("version", high));
        }
        Ok(self.rebuild(&listing, low).await?.manifest)
    }

    /// Reads the commits of the newest versions, newest first, at most `limit` of them.
    pub(super) async fn newest_commits(&self, limit: u64) -> Result<Vec<Commit>> {
        self.again(move || self.read_newest_commits(limit).boxed()).await
    }

    async fn read_newest_commits(&self, limit: u64) -> Result<Vec<Commit>> {
        let listing = self.list(0).await?;
        let newest = listing.newest();
        let oldest = listing.start.max((newest + 1).saturating_sub(limit));
        let reads: Vec<_> = (oldest..=newest).rev().map(|version| self.read_commit(version).boxed()).collect();
        stream::iter(reads).buffered(READS).try_collect().await
    }

    /// Reads one version's commit.
    pub(super) async fn read_commit(&self, version: u64) -> Result<Commit> {
        let commit = self.read(layout::commit(version), format!("commit/{version}"), version).await?;
        self.see(&commit);
        Ok(commit)
    }

    fn see(&self, commit: &Commit) {
        let mut tip = self.tip.lock().unwrap_or_else(PoisonError::into_inner);
        if tip.as_ref().is_none_or(|(version, _)| commit.version > *version) {
            *tip = Some((commit.version, commit.id.clone()));
        }
    }

    /// Reads the snapshot of a version.
    pub(super) async fn read_snapshot(&self, version: u64) -> Result<Commit> {
        self.read(layout::snapshot(version), format!("snapshot/{version}"), version).await
    }

    /// Reads, and starts again when versions were expired meanwhile: what was listed is gone then, and not lost.
    async fn again<'a, T>(&self, read: impl Fn() -> BoxFuture<'a, Result<T>>) -> Result<T> {
        let mut start = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match read().await {
                Err(error) if error.kind() == ErrorKind::Data && attempts < ATTEMPTS => error,
                ended => return ended,
            };
            // Once in any case; after that only while the log's start moves.
            let now = self.scan(0).await?.start;
            if start.is_some_and(|start| start == now) {
                return Err(error);
            }
            start = Some(now);
        }
    }

    /// Puts the commit that follows `base`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when a data file that it adds has been removed as unused since it was put.
    pub(super) async fn append(&self, base: &Arc<Manifest>, commit: Commit) -> Result<Appended> {
        let (version, id) = (commit.version, commit.id.clone());
        self.expect_files(&commit).await?;
        let sealed = self.ring.seal_object(&format!("commit/{version}"), &commit.encode()?)?;
        let mut next = Manifest::clone(base);
        // What a reader would refuse must not be written.
        next.apply(commit)
            .map_err(|error| Error::internal("refused to write a commit that does not apply").with_source(error))?;
        let object = layout::commit(version);
        if !store::create(self.store.as_ref(), &object, Bytes::from(sealed)).await? {
            // A store may answer a repeated request for a put that had worked: then the commit there is this one.
            let present = self.find(&object, &format!("commit/{version}"), version).await?;
            if present.is_none_or(|present| present.id != id) {
                return Ok(Appended::Lost);
            }
        }
        if self.scan(version).await?.start > version {
            // The version had been made, and expired, since `base` was read.
            let _ = self.store.delete(&object).await;
            return Ok(Appended::Lost);
        }
        let manifest = Arc::new(next);
        self.learn(&Known { manifest: Arc::clone(&manifest), snapshot: self.known().snapshot });
        if let Some(mark) = &self.mark {
            mark.raise(version, id).await;
        }
        Ok(Appended::Done(manifest))
    }

    /// Writes a snapshot when one is due; a failure is only reported, since a later one serves as well.
    pub(super) async fn snapshot_if_due(&self, manifest: &Manifest, id: String, writer: String) {
        if manifest.version < self.known().snapshot + self.snapshot_every {
            return;
        }
        match self.write_snapshot(manifest, id, writer).await {
            Ok(()) => {
                let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
                newest.snapshot = newest.snapshot.max(manifest.version);
            }
            Err(error) => {
                tracing::warn!(version = manifest.version, error = %error, "failed to write a snapshot of the log");
            }
        }
    }

    /// Writes a snapshot of a version, unless it has one.
    pub(super) async fn write_snapshot(&self, manifest: &Manifest, id: String, writer: String) -> Result<()> {
        let version = manifest.version;
        let plain = manifest.to_snapshot(id, writer).encode()?;
        let sealed = self.ring.seal_object(&format!("snapshot/{version}"), &plain)?;
        // Another writer's snapshot of the version says the same.
        store::create(self.store.as_ref(), &layout::snapshot(version), Bytes::from(sealed)).await.map(drop)
    }

    fn known(&self) -> Known {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, seen: &Known) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.snapshot = newest.snapshot.max(seen.snapshot);
        if seen.manifest.version > newest.manifest.version {
            newest.manifest = Arc::clone(&seen.manifest);
        }
    }

    /// Looks for the files that a commit adds, where they were put long enough ago for a lease to have ended since: an
    /// erasure may have run meanwhile, and it deletes what no version names.
    async fn expect_files(&self, commit: &Commit) -> Result<()> {
        let lease_ms = i64::try_from(LEASE_DURATION.as_millis()).unwrap_or(i64::MAX);
        for action in &commit.actions {
            let Action::Add(_, file) = action else { continue };
            let is_fresh = layout::made_ms(&file.path)
                .is_some_and(|made_ms| commit.committed_ms.saturating_sub(made_ms) < lease_ms);
            if is_fresh {
                continue;
            }
            let object = Path::from(file.path.as_str());
            match self.store.head(&object).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "a data file was removed as unused before it was committed",
                    )
                    .with_context("file", &file.path)
                    .with_hint("this process stood still for long; run it again"));
                }
                Err(error) => return Err(store::failed("find", &object, error)),
            }
        }
        Ok(())
    }

    /// Lists what follows a version, or all when that version is no more.
    async fn list(&self, after: u64) -> Result<Listing> {
        let mut listing = self.scan(after).await?;
        if after > 0 && listing.start > after + 1 {
            listing = self.scan(0).await?;
        }
        self.settle(&mut listing).await?;
        Ok(listing)
    }

    async fn scan(&self, after: u64) -> Result<Listing> {
        let folder = Path::from(layout::LOG);
        let mut listing = Listing { after, ..Listing::default() };
        let offset = layout::commit(after);
        let mut objects = self.store.list_with_offset(Some(&folder), &offset);
        while let Some(object) = objects.try_next().await.map_err(|error| store::failed("list", &folder, error))? {
            match layout::log_version(&object.location) {
                Some((version, "commit")) if version > after => listing.commits.push(version),
                Some((version, "snapshot")) => listing.snapshots.push(version),
                Some((version, "start")) => listing.start = listing.start.max(version),
                _ => {}
            }
        }
        if after == 0 {
            listing.start = listing.start.max(1);
        }
        listing.commits.retain(|version| *version >= listing.start);
        listing.snapshots.retain(|version| *version >= listing.start);
        listing.commits.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }

    /// Tells commits that were put while the objects were listed from commits that were lost.
    ///
    /// The listing may show a commit and not the one before it, if both were put meanwhile. Then the earlier one exists
    /// by now, and leaving out both gives the version that was the newest when the listing began.
    async fn settle(&self, listing: &mut Listing) -> Result<()> {
        if let Some((at, missing)) = listing.gap() {
            self.expect_commit(missing).await?;
            listing.commits.truncate(at);
        }
        let newest = listing.newest();
        if let Some(snapshot) = listing.snapshots.last().copied().filter(|snapshot| *snapshot > newest) {
            self.expect_commit(snapshot).await?;
            listing.snapshots.retain(|snapshot| *snapshot <= newest);
        }
        Ok(())
    }

    async fn expect_commit(&self, version: u64) -> Result<()> {
        self.read_object(&layout::commit(version)).await?.map(drop).ok_or_else(|| gone(version))
    }

    /// Makes a version from the newest snapshot at or below it and the commits since.
    async fn rebuild(&self, listing: &Listing, version: u64) -> Result<Known> {
        let snapshot = listing.snapshots.iter().copied().rfind(|snapshot| *snapshot <= version).unwrap_or(0);
        let base = if snapshot == 0 && listing.start > 1 {
            return Err(Error::data("the snapshot that the log begins with is missing")
                .with_context("object", layout::snapshot(listing.start))
                .with_hint("restore the object from a backup"));
        } else if snapshot == 0 {
            Arc::default()
        } else {
            let commit = self.read(layout::snapshot(snapshot), format!("snapshot/{snapshot}"), snapshot).await?;
            let named = |error: Error| error.with_context("object", layout::snapshot(snapshot));
            Arc::new(Manifest::from_snapshot(commit).map_err(named)?)
        };
        Ok(Known { manifest: self.replay(&base, listing, version).await?, snapshot })
    }

    /// Applies the commits after `base` up to `version`.
    async fn replay(&self, base: &Arc<Manifest>, listing: &Listing, version: u64) -> Result<Arc<Manifest>> {
        if version <= base.version {
            return Ok(Arc::clone(base));
        }
        if let Some(first) = listing.commits.iter().find(|commit| **commit > base.version)
            && *first != base.version + 1
        {
            return Err(gone(base.version + 1));
        }
        let mut manifest = Manifest::clone(base);
        // Collected, because a stream that borrows through a closure makes this future hard to send between threads.
        let reads: Vec<_> = (base.version + 1..=version).map(|version| self.read_commit(version).boxed()).collect();
        let mut commits = stream::iter(reads).buffered(READS);
        while let Some(commit) = commits.try_next().await? {
            let object = layout::commit(commit.version);
            manifest.apply(commit).map_err(|error| error.with_context("object", object))?;
        }
        Ok(Arc::new(manifest))
    }

    async fn read(&self, object: Path, purpose: String, version: u64) -> Result<Commit> {
        self.find(&object, &purpose, version)
            .await?
            .ok_or_else(|| Error::data("an object is missing from the log").with_context("object", &object))
    }

    async fn find(&self, object: &Path, purpose: &str, version: u64) -> Result<Option<Commit>> {
        let Some(sealed) = self.read_object(object).await? else { return Ok(None) };
        let plain = self.ring.open_object(purpose, &sealed).map_err(|error| {
            let kind = if error.kind() == ErrorKind::Denied { ErrorKind::Denied } else { ErrorKind::Data };
            Error::new(kind, "failed to decrypt an object of the log").with_context("object", object).with_source(error)
        })?;
        let commit = Commit::decode(object.as_ref(), &plain)?;
        if commit.version != version {
            return Err(Error::data("an object of the log is of another version")
                .with_context("object", object)
                .with_context("version", commit.version));
        }
        Ok(Some(commit))
    }

    async fn read_object(&self, object: &Path) -> Result<Option<Bytes>> {
        store::read(self.store.as_ref(), object, commit::PLAIN_LIMIT_BYTES + SEAL_LIMIT_BYTES).await
    }
}

fn gone(version: u64) -> Error {
    Error::data("a commit is missing from the log")
        .with_context("object", layout::commit(version))
        .with_hint("restore the object from a backup")
}

impl Listing {
    /// Returns the newest version, 0 when there is none.
    fn newest(&self) -> u64 {
        self.commits.last().copied().unwrap_or(self.after)
    }

    /// Returns the first version that is missing among the commits, and how many of them come before it.
    fn gap(&self) -> Option<(usize, u64)> {
        let first = if self.after == 0 { self.start } else { self.after + 1 };
        if self.commits.is_empty() {
            // A lake without a version has no start of its own either.
            return (self.after == 0 && self.start > 1).then_some((0, first));
        }
        (first..).zip(&self.commits).position(|(expected, found)| expected != *found).map(|at| (at, first + at as u64))
    }
}

/// A time as messages print it.
struct Stamp(i64);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::lake::run::RunRecord;

    struct Setting {
        store: Arc<dyn ObjectStore>,
        ring: KeyRing,
    }

    impl Setting {
        /// A log of `versions` commits; version v is committed at 1000 v and adds the run `v`.
        async fn new(versions: u64) -> Self {
            let setting = Self { store: Arc::new(InMemory::new()), ring: KeyRing::generate("lake-a", 0).unwrap() };
            let log = setting.log();
            for version in 1..=versions {
                let base = log.latest().await.unwrap();
                let Appended::Done(manifest) = log.append(&base, commit(version)).await.unwrap() else {
                    panic!("lost")
                };
                log.snapshot_if_due(&manifest, String::new(), String::new()).await;
            }
            setting
        }

        fn log(&self) -> Log {
            Log::new(Arc::clone(&self.store), self.ring.clone())
        }

        async fn names(&self) -> Vec<String> {
            let objects = self.store.list(None).map_ok(|object| object.location.filename().unwrap().to_owned());
            objects.try_collect().await.unwrap()
        }

        async fn bytes(&self, object: &Path) -> Vec<u8> {
            self.store.get(object).await.unwrap().bytes().await.unwrap().to_vec()
        }

        async fn put(&self, object: &Path, bytes: Vec<u8>) {
            self.store.put(object, bytes.into()).await.unwrap();
        }
    }

    fn commit(version: u64) -> Commit {
        let run = RunRecord { id: version.to_string(), ..RunRecord::default() };
        Commit {
            version,
            id: format!("commit {version}"),
            committed_ms: 1000 * version as i64,
            writer: "test".to_owned(),
            policy: None,
            actions: vec![Action::Run(Arc::new(run))],
        }
    }

    fn runs(manifest: &Manifest) -> usize {
        manifest.runs.len()
    }

    #[tokio::test]
    async fn empty_log_is_version_zero() {
        let log = Setting::new(0).await.log();
        assert_eq!(log.latest().await.unwrap().version, 0);
        assert_eq!(log.at_time(0).await.unwrap().version, 0);
        assert_eq!(log.at_version(1).await.unwrap_err().kind(), ErrorKind::Config);
    }

    #[tokio::test]
    async fn snapshots_come_every_twenty_versions_and_equal_the_replay() {
        let setting = Setting::new(43).await;
        let snapshots = setting.names().await.into_iter().filter(|name| name.ends_with(".snapshot"));
        assert_eq!(snapshots.collect::<Vec<_>>(), ["00000000000000000020.snapshot", "00000000000000000040.snapshot"]);
        let with = setting.log().latest().await.unwrap();
        for version in [20, 40] {
            setting.store.delete(&layout::snapshot(version)).await.unwrap();
        }
        let without = setting.log().latest().await.unwrap();
        assert_eq!((with.version, runs(&with)), (43, 43));
        assert_eq!(with, without);
    }

    #[tokio::test]
    async fn opening_reads_the_snapshot_and_the_commits_since() {
        let setting = Setting::new(43).await;
        // Unreadable, so whoever reads them fails.
        for version in 1..=40 {
            setting.put(&layout::commit(version), Vec::new()).await;
        }
        assert_eq!(runs(setting.log().latest().await.unwrap().as_ref()), 43);
        assert_eq!(runs(setting.log().at_version(41).await.unwrap().as_ref()), 41);
        assert_eq!(setting.log().at_version(39).await.unwrap_err().kind(), ErrorKind::Data);
    }

    #[tokio::test]
    async fn every_version_and_time_is_found() {
        let log = Setting::new(45).await.log();
        for warm in [false, true] {
            for version in 0..=45 {
                let manifest = log.at_version(version).await.unwrap();
                assert_eq!((manifest.version, runs(&manifest)), (version, version as usize), "warm: {warm}");
            }
            for (time_ms, version) in [(1000, 1), (1999, 1), (2000, 2), (20_500, 20), (44_999, 44), (i64::MAX, 45)] {
                assert_eq!(log.at_time(time_ms).await.unwrap().version, version, "{time_ms}");
            }
            let error = log.at_time(999).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("oldest: 1970-01-01T00:00:01Z"), "{error}");
        }
    }

    #[tokio::test]
    async fn reader_sees_what_others_commit() {
        let setting = Setting::new(19).await;
        let (reader, writer) = (setting.log(), setting.log());
        for version in 20..=24 {
            assert_eq!(reader.latest().await.unwrap().version, version - 1);
            let base = writer.latest().await.unwrap();
            let Appended::Done(manifest) = writer.append(&base, commit(version)).await.unwrap() else { panic!("lost") };
            writer.snapshot_if_due(&manifest, String::new(), String::new()).await;
        }
        assert_eq!(runs(reader.latest().await.unwrap().as_ref()), 24);
    }

    #[tokio::test]
    async fn second_writer_of_a_version_loses_and_a_repeated_put_is_recognized() {
        let setting = Setting::new(1).await;
        let (first, second) = (setting.log(), setting.log());
        let base = first.latest().await.unwrap();
        assert!(matches!(first.append(&base, commit(2)).await.unwrap(), Appended::Done(_)));
        assert!(matches!(second.append(&base, commit(2)).await.unwrap(), Appended::Done(_)), "the same id");
        let other = Commit { id: "other".to_owned(), ..commit(2) };
        assert!(matches!(second.append(&base, other).await.unwrap(), Appended::Lost));
    }

    #[tokio::test]
    async fn commit_that_does_not_apply_is_not_written() {
        let setting = Setting::new(1).await;
        let log = setting.log();
        let base = log.latest().await.unwrap();
        assert_eq!(log.append(&base, commit(3)).await.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(setting.names().await.len(), 1);
    }

    #[tokio::test]
    async fn failed_snapshot_is_made_up_for() {
        let setting = Setting::new(20).await;
        setting.store.delete(&layout::snapshot(20)).await.unwrap();
        let log = setting.log();
        let base = log.latest().await.unwrap();
        let Appended::Done(manifest) = log.append(&base, commit(21)).await.unwrap() else { panic!("lost") };
        log.snapshot_if_due(&manifest, String::new(), String::new()).await;
        assert!(setting.names().await.contains(&"00000000000000000021.snapshot".to_owned()));
    }

    #[tokio::test]
    async fn tampering_is_a_data_error_naming_the_object() {
        let foreign = KeyRing::generate("lake-b", 0).unwrap();
        for object in [layout::commit(22), layout::snapshot(20)] {
            let setting = Setting::new(23).await;
            let whole = setting.bytes(&object).await;
            let other = setting.bytes(&layout::commit(21)).await;
            let plain = commit(22).encode().unwrap();
            let mut cases = vec![
                ("empty", Vec::new()),
                ("another version's commit", other),
                ("plaintext", plain.clone()),
                ("another lake's", foreign.seal_object("commit/22", &plain).unwrap()),
                ("sealed for another purpose", setting.ring.seal_object("commit/2", &plain).unwrap()),
            ];
            for end in [1, whole.len() / 2, whole.len() - 1] {
                cases.push(("truncated", whole[..end].to_vec()));
            }
            for place in (0..whole.len()).step_by(7) {
                let mut flipped = whole.clone();
                flipped[place] ^= 0x10;
                cases.push(("flipped bit", flipped));
            }
            for (name, bytes) in cases {
                setting.put(&object, bytes).await;
                let error = setting.log().latest().await.unwrap_err();
                // A flipped bit in the key's id names a key that the ring does not have.
                let denied = name == "flipped bit" || name == "another lake's";
                assert!(
                    error.kind() == ErrorKind::Data || denied && error.kind() == ErrorKind::Denied,
                    "{name}: {error:?}"
                );
                assert!(error.to_string().contains(object.as_ref()), "{name}: {error}");
            }
            setting.put(&object, whole).await;
            assert_eq!(setting.log().latest().await.unwrap().version, 23);
        }
    }

    #[tokio::test]
    async fn swapped_commits_are_found() {
        let setting = Setting::new(3).await;
        let (second, third) = (setting.bytes(&layout::commit(2)).await, setting.bytes(&layout::commit(3)).await);
        setting.put(&layout::commit(2), third).await;
        setting.put(&layout::commit(3), second).await;
        assert_eq!(setting.log().latest().await.unwrap_err().kind(), ErrorKind::Data);
    }

    #[tokio::test]
    async fn missing_commit_is_a_data_error_naming_it() {
        for (missing, versions) in [(1, 3), (2, 3), (22, 24), (40, 40), (5, 24)] {
            let setting = Setting::new(versions).await;
            setting.store.delete(&layout::commit(missing)).await.unwrap();
            let error = setting.log().latest().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().contains(layout::commit(missing).as_ref()), "{error}");
        }
    }

    #[tokio::test]
    async fn foreign_names_in_the_log_are_ignored() {
        let setting = Setting::new(2).await;
        for name in ["log/note.txt", "log/3.commit", "log/00000000000000000003.commit.tmp", "log/.commit"] {
            setting.put(&Path::from(name), vec![1]).await;
        }
        assert_eq!(setting.log().latest().await.unwrap().version, 2);
    }

    /// A log that keeps its mark in a folder.
    fn marked(setting: &Setting, folder: &std::path::Path) -> Log {
        let mut log = setting.log();
        log.set_mark(Some(Mark::new(folder, "lake-a")));
        log
    }

    async fn mark_of(folder: &std::path::Path) -> Option<u64> {
        Mark::new(folder, "lake-a").read().await.unwrap().map(|terms| terms.version)
    }

    #[tokio::test]
    async fn log_that_fell_behind_the_mark_is_refused_until_it_is_accepted() {
        for (left, versions) in [(3, 5), (0, 5), (20, 22), (22, 23)] {
            let (setting, state) = (Setting::new(versions).await, tempfile::tempdir().unwrap());
            marked(&setting, state.path()).latest().await.unwrap();
            assert_eq!(mark_of(state.path()).await, Some(versions));
            for version in left + 1..=versions {
                setting.store.delete(&layout::commit(version)).await.unwrap();
                let _ = setting.store.delete(&layout::snapshot(version)).await;
            }
            let log = marked(&setting, state.path());
            for error in [log.latest().await.unwrap_err(), log.at_version(1).await.unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Data);
                assert!(error.to_string().contains("rolled back"), "{error}");
                assert!(error.to_string().contains(&format!("newest: {left}, seen: {versions}")), "{error}");
                assert!(error.hint().unwrap().contains(&format!("accept-rollback {left}`")), "{error:?}");
            }
            assert_eq!(setting.log().latest().await.unwrap().version, left, "nobody else knows");
            assert_eq!(log.accept(versions).await.unwrap_err().kind(), ErrorKind::Config);
            log.accept(left).await.unwrap();
            assert_eq!(marked(&setting, state.path()).latest().await.unwrap().version, left);
        }
    }

    #[tokio::test]
    async fn other_history_is_refused_at_the_mark_and_above_it() {
        for further in [0, 1, 3, 20] {
            let (setting, state) = (Setting::new(4).await, tempfile::tempdir().unwrap());
            marked(&setting, state.path()).latest().await.unwrap();
            setting.store.delete(&layout::commit(4)).await.unwrap();
            // A writer that has no mark goes on from the older version.
            let writer = setting.log();
            for version in 4..=4 + further {
                let base = writer.latest().await.unwrap();
                let other = Commit { id: format!("other {version}"), ..commit(version) };
                let Appended::Done(manifest) = writer.append(&base, other).await.unwrap() else { panic!("lost") };
                writer.snapshot_if_due(&manifest, String::new(), String::new()).await;
            }
            let error = marked(&setting, state.path()).latest().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().contains("another history"), "{error}");
            assert!(error.to_string().contains("version: 4, seen: commit 4, found: other 4"), "{error}");
            marked(&setting, state.path()).accept(4 + further).await.unwrap();
            marked(&setting, state.path()).latest().await.unwrap();
        }
    }

    #[tokio::test]
    async fn mark_follows_what_is_committed_and_what_is_read() {
        let (setting, state, other) =
            (Setting::new(3).await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (writer, reader) = (marked(&setting, state.path()), marked(&setting, other.path()));
        reader.latest().await.unwrap();
        for version in 4..=25 {
            let base = writer.latest().await.unwrap();
            let Appended::Done(manifest) = writer.append(&base, commit(version)).await.unwrap() else { panic!("lost") };
            writer.snapshot_if_due(&manifest, String::new(), String::new()).await;
            assert_eq!(mark_of(state.path()).await, Some(version));
        }
        assert_eq!(mark_of(other.path()).await, Some(3));
        assert_eq!(reader.latest().await.unwrap().version, 25);
        assert_eq!(mark_of(other.path()).await, Some(25));
        // At a snapshot no commit is read but the one that is compared.
        for (version, folder) in [(20, tempfile::tempdir().unwrap()), (25, tempfile::tempdir().unwrap())] {
            for version in version + 1..=25 {
                setting.store.delete(&layout::commit(version)).await.unwrap();
            }
            for _ in 0..2 {
                assert_eq!(marked(&setting, folder.path()).latest().await.unwrap().version, version);
            }
            assert_eq!(mark_of(folder.path()).await, Some(version));
            for version in version + 1..=25 {
                setting
                    .put(
                        &layout::commit(version),
                        setting
                            .ring
                            .seal_object(&format!("commit/{version}"), &commit(version).encode().unwrap())
                            .unwrap(),
                    )
                    .await;
            }
        }
    }

    #[tokio::test]
    async fn expired_commit_of_the_mark_is_no_rollback() {
        let (setting, state) = (Setting::new(20).await, tempfile::tempdir().unwrap());
        marked(&setting, state.path()).latest().await.unwrap();
        let writer = setting.log();
        for version in 21..=24 {
            let base = writer.latest().await.unwrap();
            assert!(matches!(writer.append(&base, commit(version)).await.unwrap(), Appended::Done(_)));
        }
        writer.write_snapshot(&writer.latest().await.unwrap(), String::new(), String::new()).await.unwrap();
        for version in 1..=22 {
            setting.store.delete(&layout::commit(version)).await.unwrap();
        }
        setting.store.delete(&layout::snapshot(20)).await.unwrap();
        store::create(setting.store.as_ref(), &layout::start(24), Bytes::new()).await.unwrap();
        assert_eq!(marked(&setting, state.path()).latest().await.unwrap().version, 24);
        assert_eq!(mark_of(state.path()).await, Some(24));
    }

    #[tokio::test]
    async fn damaged_mark_stops_before_the_log_is_believed() {
        let (setting, state) = (Setting::new(2).await, tempfile::tempdir().unwrap());
        std::fs::write(state.path().join("lake-a.mark"), "{").unwrap();
        let error = marked(&setting, state.path()).latest().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(setting.log().accept(2).await.unwrap_err().kind(), ErrorKind::Config, "no mark is kept");
        marked(&setting, state.path()).accept(2).await.unwrap();
        assert_eq!(marked(&setting, state.path()).latest().await.unwrap().version, 2);
    }
}
