//! The lake: every ticket's metadata, encrypted, in versions, on an object store.
//!
//! ```text
//! RedactedBatch ─▶ Transaction ─▶ data files ─▶ commit ─▶ log ─▶ Manifest (one version) ─▶ tables for DataFusion
//!                                 (encrypted Parquet)  (sealed, PutMode::Create)
//! ```
//!
//! What holds:
//! - **Only redacted rows come in**: [`Transaction::append`] takes [`RedactedBatch`](crate::policy::RedactedBatch) and
//!   nothing else. **Only ciphertext goes out**: data files and log are encrypted, and there is no other write path.
//! - **A commit is one step**: rows, watermarks and runs of a transaction become visible together or not at all, and on
//!   a local disk what was committed survives a power cut.
//! - **A version never changes**: a [`Manifest`] says which rows of which files it consists of, and readers stay on one.
//! - **Damage is found**: every object is authenticated under its name, and the log names the digest of each data file.
//!
//! - **A log that is put back is noticed** where this machine has seen a newer one: see `lake/mark.rs`.
//!
//! What does not: on a machine that never saw the lake, an older state of the whole log passes for the newest.
//!
//! The objects are listed in `lake/layout.rs`; the form of a commit stands in `lake/commit.rs`, of a data file in `lake/file.rs`,
//! of its index in `lake/index.rs`.

pub mod accesses;
mod apply;
mod attempts;
mod commit;
mod compact;
mod engines;
mod erase;
mod expire;
pub mod file;
mod gc;
mod index;
mod layout;
mod lease;
pub mod lists;
mod live;
mod log;
mod maintain;
pub mod manifest;
mod mark;
mod merge;
mod protection;
mod pseudonyms;
mod put;
pub mod quarantine;
mod restricted;
mod retain;
mod rewrap;
mod rewrite;
mod rings;
pub mod run;
pub mod scan;
pub mod sealed;
mod store;
mod tables;
mod tail;
mod transaction;
pub mod verify;

#[cfg(test)]
mod simulation;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use datafusion::catalog::TableProvider;
use futures::TryStreamExt;
use object_store::ObjectStore;

pub use self::apply::{
    ApplyOutcome, ApplyPlan, ApplyReport, ApplySettings, ColumnSurvey, OlderVersions, Survey, TableSurvey,
};
pub use self::compact::{CompactOutcome, CompactPlan, CompactReport, CompactSettings, CompactTask};
pub use self::erase::{ErasePlan, EraseRequest, ErasedTable, Receipt};
pub use self::expire::{Expire, Expiry};
pub use self::gc::{DEFAULT_GC_AFTER, Garbage};
pub use self::lease::{Holder, LEASE_DURATION, Lease, Purpose};
pub use self::live::LiveIds;
pub use self::maintain::{MaintainReport, MaintainSettings};
pub use self::protection::{Protected, ProtectedFiles, Protection};
pub use self::pseudonyms::{PseudonymColumn, PseudonymPlan, PseudonymTable, RotatedPseudonyms};
pub use self::retain::{DEFAULT_KEEP_VERSIONS, RetainPlan, RetainSettings, RetainedTable};
pub use self::rewrap::Rewrapped;
pub use self::store::StoreSettings;
pub use self::transaction::{CommitSummary, RowCounts, Transaction};

use crate::clock::SharedClock;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyRing, RootKey};
use crate::lake::commit::Action;
use crate::lake::layout::Claim;
use crate::lake::log::Log;
use crate::lake::manifest::{Manifest, TableState};
use crate::lake::mark::Mark;
use crate::lake::scan::{MetadataCache, View};
use crate::lake::store::Missing;
use crate::model::Stream;

/// Rows of a data file at most: its decoded columns stay within some hundred megabytes while it is written.
const ROWS_PER_FILE: usize = 1_000_000;

/// Metadata of a few files, for looking up ids: what was asked for last is what the next commit asks for.
const LOOK_UP_BYTES: usize = 1 << 20;

/// What commits name as their writer.
const WRITER: &str = concat!("counterfoil ", env!("CARGO_PKG_VERSION"));

/// An open lake. Cheap to clone.
#[derive(Clone)]
pub struct Lake(Arc<Inner>);

/// What an open lake consists of.
struct Inner {
    url: String,
    id: String,
    store: Arc<dyn ObjectStore>,
    ring: KeyRing,
    clock: SharedClock,
    cache: MetadataCache,
    /// For looking up ids while rows are merged: a writer asks many files once.
    look_ups: MetadataCache,
    log: Log,
    rows_per_file: usize,
    /// Whether it was said which columns this process does not read.
    is_told: AtomicBool,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lake").field("url", &self.0.url).field("id", &self.0.id).finish_non_exhaustive()
    }
}

/// One version in the lake's history: counts only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSummary {
    /// Version, from 1.
    pub version: u64,
    /// When it was committed, milliseconds since 1970.
    pub committed_ms: i64,
    /// Program and version that wrote it.
    pub writer: String,
    /// Data files added.
    pub files_added: u64,
    /// Data files removed.
    pub files_removed: u64,
    /// Rows in the added files.
    pub rows_added: u64,
    /// Rows of older files that no longer count.
    pub rows_superseded: u64,
    /// Runs whose record it carries.
    pub runs: Vec<String>,
}

#[cfg(test)]
impl Lake {
    /// Makes files and snapshots come sooner.
    fn with_limits(mut self, rows_per_file: usize, snapshot_every: u64) -> Self {
        let inner = Arc::get_mut(&mut self.0).unwrap();
        inner.rows_per_file = rows_per_file;
        inner.log.snapshot_every = snapshot_every;
        self
    }
}

impl Lake {
    /// Makes a new lake, with a new key ring wrapped by `root`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is a lake already, which is not touched, or when the store cannot keep one;
    /// [`ErrorKind::Conflict`] when another process makes one at the same moment.
    pub async fn create(settings: &StoreSettings, root: &RootKey, clock: SharedClock) -> Result<Self> {
        let (store, shown) = store::open(settings, Missing::Create)?;
        store::probe(store.as_ref(), clock.as_ref()).await.map_err(|error| error.with_context("url", &shown))?;
        Ok(Self::create_on(store, &shown, root, clock).await?.with_mark(settings))
    }

    /// Opens a lake.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is none; [`ErrorKind::Denied`] when `root` is not its root key;
    /// [`ErrorKind::Data`] when it is damaged or of a newer format.
    pub async fn open(settings: &StoreSettings, root: &RootKey, clock: SharedClock) -> Result<Self> {
        let (store, shown) = store::open(settings, Missing::Refuse)?;
        Ok(Self::open_on(store, &shown, root, clock).await?.with_mark(settings))
    }

    /// Keeps the high-water mark in the folder that the settings name.
    fn with_mark(mut self, settings: &StoreSettings) -> Self {
        if settings.state.is_none() {
            tracing::debug!("there is no folder for a high-water mark: a log that is rolled back would not be noticed");
        }
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            let mark = settings.state.as_deref().map(|folder| Mark::new(folder, &inner.id));
            inner.log.set_mark(mark);
        }
        self
    }

    /// Makes a new lake on a store; `url` is its name in messages.
    pub async fn create_on(store: Arc<dyn ObjectStore>, url: &str, root: &RootKey, clock: SharedClock) -> Result<Self> {
        let exists = || {
            Error::config("there is a lake already")
                .with_context("url", url)
                .with_hint("open it, or choose another place")
        };
        let claim = Claim::new(clock.as_ref());
        let claim = match Claim::get(store.as_ref()).await? {
            Some(claim) => claim,
            None if claim.put(store.as_ref()).await? => claim,
            // Another maker was faster, or the store told a put that worked as a failed one.
            None => Claim::get(store.as_ref())
                .await?
                .ok_or_else(|| Error::data("lake.json has gone").with_context("url", url))?,
        };
        match ring_version(store.as_ref()).await? {
            Some(_) => return Err(exists()),
            None => refuse_without_ring(store.as_ref(), url).await?,
        }
        let ring = KeyRing::generate(&claim.id, clock.now().as_millisecond())?;
        let sealed = Bytes::from(ring.seal(root).await?);
        // A root key that seals and does not open would make a lake that can be filled once and never read.
        KeyRing::open(&claim.id, ring.version(), &sealed, root).await?;
        let object = layout::ring(ring.version());
        if !store::create(store.as_ref(), &object, sealed.clone()).await?
            && layout::read_ring(store.as_ref(), ring.version()).await? != Some(sealed)
        {
            return Err(
                Error::new(ErrorKind::Conflict, "another process has just made a lake here").with_context("url", url)
            );
        }
        Ok(Self::new(store, url, claim.id, ring, clock))
    }

    /// Opens the lake on a store; `url` is its name in messages.
    pub async fn open_on(store: Arc<dyn ObjectStore>, url: &str, root: &RootKey, clock: SharedClock) -> Result<Self> {
        let named = |error: Error| error.with_context("url", url);
        let Some(claim) = Claim::get(store.as_ref()).await.map_err(named)? else {
            return Err(named(match ring_version(store.as_ref()).await? {
                None => store::no_lake(),
                Some(_) => Error::data("lake.json is missing beside the lake's key ring")
                    .with_hint("restore it from a copy of the lake: the keys are bound to the id in it"),
            }));
        };
        let Some(version) = ring_version(store.as_ref()).await? else {
            refuse_without_ring(store.as_ref(), url).await?;
            return Err(named(store::no_lake()));
        };
        let sealed = layout::read_ring(store.as_ref(), version).await?;
        let sealed = sealed.ok_or_else(|| named(Error::data("the key ring has gone while it was opened")))?;
        let ring = KeyRing::open(&claim.id, version, &sealed, root).await?;
        Ok(Self::new(store, url, claim.id, ring, clock))
    }

    fn new(store: Arc<dyn ObjectStore>, url: &str, id: String, ring: KeyRing, clock: SharedClock) -> Self {
        let log = Log::new(Arc::clone(&store), ring.clone());
        Self(Arc::new(Inner {
            url: url.to_owned(),
            id,
            store,
            ring,
            clock,
            cache: MetadataCache::default(),
            look_ups: MetadataCache::with_capacity(LOOK_UP_BYTES),
            log,
            rows_per_file: ROWS_PER_FILE,
            is_told: AtomicBool::new(false),
        }))
    }

    /// Returns where the lake is, as messages print it.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Returns the lake's id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Returns the key ring.
    pub fn ring(&self) -> &KeyRing {
        &self.0.ring
    }

    /// Reads the newest version.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Data`] naming the object when the log is damaged or has a gap.
    pub async fn latest(&self) -> Result<Arc<Manifest>> {
        self.0.log.latest().await
    }

    /// Reads an older version.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is no such version, or it is not kept any more.
    pub async fn at_version(&self, version: u64) -> Result<Arc<Manifest>> {
        self.0.log.at_version(version).await
    }

    /// Reads the newest version committed at or before a time (milliseconds since 1970).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when all versions that are kept are younger.
    pub async fn at_time(&self, time_ms: i64) -> Result<Arc<Manifest>> {
        self.0.log.at_time(time_ms).await
    }

    /// Takes a log that this machine knew newer, or otherwise, as it is: `version` must be its newest.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the newest version is another, or when no high-water mark is kept.
    pub async fn accept_rollback(&self, version: u64) -> Result<()> {
        self.0.log.accept(version).await
    }

    /// Lists the newest versions, newest first, at most `limit` of them.
    pub async fn history(&self, limit: usize) -> Result<Vec<VersionSummary>> {
        let commits = self.0.log.newest_commits(limit as u64).await?;
        Ok(commits.into_iter().map(VersionSummary::of).collect())
    }

    /// Begins an atomic change.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(Arc::clone(&self.0))
    }

    /// Returns a table of one version for DataFusion: `tickets` (live rows), `ticket_versions` (all), `customers`, …, `runs`,
    /// `quarantine`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Query`] for a name that the version does not know.
    pub fn table(&self, manifest: &Arc<Manifest>, name: &str) -> Result<Arc<dyn TableProvider>> {
        if name == tables::RUNS {
            return tables::runs(manifest);
        }
        if name == tables::QUARANTINE {
            return tables::quarantine(manifest);
        }
        if name == Stream::TicketLists.table() {
            let store = Arc::clone(&self.0.store);
            return lists::table(store, self.0.ring.clone(), self.0.cache.clone(), manifest);
        }
        if name == Stream::Accesses.table() {
            let empty = || TableState { schema: accesses::schema(), files: Vec::new() };
            let table = manifest.tables.get(&Stream::Accesses).cloned().unwrap_or_else(empty);
            let store = Arc::clone(&self.0.store);
            return scan::provider(store, self.0.ring.clone(), self.0.cache.clone(), name, &table, View::Versions);
        }
        let found = tables::find(name).and_then(|(stream, view)| Some((manifest.tables.get(&stream)?, view)));
        let Some((table, view)) = found else {
            return Err(Error::query("the lake has no such table")
                .with_context("table", name)
                .with_context("version", manifest.version)
                .with_hint(format!("its tables are {}", tables::names(manifest).join(", "))));
        };
        restricted::tell(&self.0, manifest);
        let store = Arc::clone(&self.0.store);
        scan::provider(store, self.0.ring.clone(), self.0.cache.clone(), name, table, view)
    }

    /// Lists the tables that [`table`](Self::table) knows at this version.
    pub fn table_names(manifest: &Manifest) -> Vec<String> {
        tables::names(manifest)
    }

    /// Returns who holds a lease now; nobody when it is free or has expired.
    pub async fn lease_holder(&self, purpose: Purpose) -> Result<Option<Holder>> {
        lease::holder(self.0.store.as_ref(), purpose, self.0.clock.now().as_millisecond()).await
    }

    /// Tells whether this process may change the lake, and whether its store keeps writers apart: makes an object beside
    /// the leases, tries to make it again, and removes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] without the right, [`ErrorKind::Unavailable`] when the store does not answer,
    /// [`ErrorKind::Config`] when it takes a second object of a name.
    pub async fn check_writable(&self) -> Result<()> {
        store::probe(self.0.store.as_ref(), self.0.clock.as_ref()).await
    }

    /// Takes a lease; a second holder is refused with [`Conflict`](crate::error::ErrorKind::Conflict), and so is a process whose
    /// key ring is not the newest any more.
    pub async fn lease(&self, purpose: Purpose, holder: &str) -> Result<Lease> {
        let lease = Lease::take(Arc::clone(&self.0.store), Arc::clone(&self.0.clock), purpose, holder).await?;
        if let Err(error) = rings::check(&self.0).await {
            // It ends by itself if it cannot be given back.
            let _ = lease.release().await;
            return Err(error);
        }
        Ok(lease)
    }
}

impl VersionSummary {
    fn of(commit: commit::Commit) -> Self {
        let mut summary = Self {
            version: commit.version,
            committed_ms: commit.committed_ms,
            writer: commit.writer,
            files_added: 0,
            files_removed: 0,
            rows_added: 0,
            rows_superseded: 0,
            runs: Vec::new(),
        };
        for action in commit.actions {
            match action {
                Action::Add(_, file) => {
                    summary.files_added += 1;
                    summary.rows_added += file.rows;
                }
                Action::Remove(..) => summary.files_removed += 1,
                Action::Supersede(_, _, rows) => summary.rows_superseded += rows.len(),
                Action::Run(run) => summary.runs.push(run.id.clone()),
                Action::List(_)
                | Action::Unlist(_)
                | Action::Policy(_)
                | Action::Pseudonyms(_)
                | Action::Declare(..)
                | Action::Redeclare(..)
                | Action::Watermark(..)
                | Action::Quarantine(..) => {}
            }
        }
        summary
    }
}

/// Returns the version of the newest key ring.
async fn ring_version(store: &dyn ObjectStore) -> Result<Option<u32>> {
    Ok(rings::versions(store).await?.last().copied())
}

/// Refuses a root that has a log and no key ring: making a new ring there would hide that the old one was lost.
async fn refuse_without_ring(store: &dyn ObjectStore, url: &str) -> Result<()> {
    let folder = object_store::path::Path::from(layout::LOG);
    let first = store.list(Some(&folder)).try_next().await.map_err(|error| store::failed("list", &folder, error))?;
    if first.is_none() {
        return Ok(());
    }
    Err(Error::data("the lake has a log and no key ring")
        .with_context("url", url)
        .with_hint("restore `keys/` from a backup; without it the lake cannot be decrypted"))
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::lake::manifest::Watermark;
    use crate::lake::quarantine::{Seen, SeenField};
    use crate::lake::run::{RunRecord, StreamRun};
    use crate::lake::simulation::{clock, root};

    fn memory() -> Arc<dyn ObjectStore> {
        Arc::new(InMemory::new())
    }

    async fn open(store: &Arc<dyn ObjectStore>) -> Result<Lake> {
        Lake::open_on(Arc::clone(store), "test:", &root(1), clock()).await
    }

    async fn create(store: &Arc<dyn ObjectStore>) -> Result<Lake> {
        Lake::create_on(Arc::clone(store), "test:", &root(1), clock()).await
    }

    async fn names(store: &Arc<dyn ObjectStore>) -> Vec<String> {
        store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn lake_in_a_folder_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::create(&StoreSettings::new("file:a/lake", folder.path()), &root(1), clock()).await.unwrap();
        let mut change = lake.transaction();
        change.set_watermark(Stream::Tickets, Watermark { complete_through_ms: Some(5), ..Watermark::default() });
        assert_eq!(change.commit().await.unwrap().version, 1);
        let again = Lake::open(&StoreSettings::new("file:a/lake", folder.path()), &root(1), clock()).await.unwrap();
        assert_eq!((again.id(), again.url()), (lake.id(), lake.url()));
        assert_eq!(again.latest().await.unwrap(), lake.latest().await.unwrap());
        assert!(!format!("{lake:?}").contains("ring"));
    }

    #[tokio::test]
    async fn place_without_a_lake_says_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = Lake::open(&StoreSettings::new("file:.", folder.path()), &root(1), clock()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.hint().unwrap().contains("counterfoil init"));
    }

    #[tokio::test]
    async fn second_lake_in_a_place_is_refused_and_touches_nothing() {
        let store = memory();
        let lake = create(&store).await.unwrap();
        let before = names(&store).await;
        assert_eq!(before, ["keys/ring-00000001", "lake.json"]);
        assert_eq!(create(&store).await.unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(names(&store).await, before);
        assert_eq!(open(&store).await.unwrap().id(), lake.id());
    }

    #[tokio::test]
    async fn lake_that_was_half_made_is_finished_by_the_next_maker() {
        let store = memory();
        Claim::new(clock().as_ref()).put(store.as_ref()).await.unwrap();
        assert_eq!(open(&store).await.unwrap_err().kind(), ErrorKind::Config);
        let made = create(&store).await.unwrap();
        assert_eq!(open(&store).await.unwrap().id(), made.id());
    }

    #[tokio::test]
    async fn one_of_many_makers_wins() {
        let store = memory();
        let makers = (0..8).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { create(&store).await })
        });
        let made: Vec<_> =
            futures::future::join_all(makers).await.into_iter().filter_map(|made| made.unwrap().ok()).collect();
        assert_eq!(made.len(), 1);
        assert_eq!(open(&store).await.unwrap().id(), made[0].id());
    }

    #[tokio::test]
    async fn wrong_root_key_is_denied() {
        let store = memory();
        create(&store).await.unwrap();
        let error = Lake::open_on(store, "test:", &root(2), clock()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
    }

    #[tokio::test]
    async fn lost_key_ring_is_reported_and_never_replaced() {
        let store = memory();
        let lake = create(&store).await.unwrap();
        let mut change = lake.transaction();
        change.record_run(RunRecord::default());
        change.commit().await.unwrap();
        store.delete(&layout::ring(1)).await.unwrap();
        for error in [open(&store).await.unwrap_err(), create(&store).await.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().contains("no key ring"), "{error}");
        }
        assert!(!names(&store).await.contains(&"keys/ring-00000001".to_owned()));
    }

    #[tokio::test]
    async fn damaged_or_newer_lake_json_is_a_data_error() {
        for (text, part) in [
            (r#"{"format":2,"shape":"other"}"#, "format"),
            (r#"{"format":0,"id":"x"}"#, "format"),
            ("", "lake.json"),
            (r#"{"format":1}"#, "lake.json"),
        ] {
            let store = memory();
            create(&store).await.unwrap();
            store.put(&layout::lake(), text.into()).await.unwrap();
            let error = open(&store).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{text}");
            assert!(error.to_string().contains(part), "{error}");
        }
        let store = memory();
        let (first, second) = (create(&store).await.unwrap(), Claim::new(clock().as_ref()));
        store.put(&layout::lake(), serde_json::to_vec(&second).unwrap().into()).await.unwrap();
        let error = open(&store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "ring of lake {}", first.id());
    }

    #[tokio::test]
    async fn watermarks_and_runs_make_versions_and_repeating_them_does_not() {
        let lake = create(&memory()).await.unwrap();
        let change = |run: &str| {
            let mut change = lake.transaction();
            change.set_watermark(Stream::Tickets, Watermark { target_ms: Some(9), ..Watermark::default() });
            change.record_run(RunRecord { id: run.to_owned(), outcome: "running".to_owned(), ..RunRecord::default() });
            change
        };
        assert_eq!(lake.transaction().commit().await.unwrap().version, 0);
        assert_eq!(change("a").commit().await.unwrap().version, 1);
        assert_eq!(change("a").commit().await.unwrap().version, 1);
        assert_eq!(change("b").commit().await.unwrap().version, 2);
        let mut twice = lake.transaction();
        twice.record_run(RunRecord { id: "a".to_owned(), outcome: "failed".to_owned(), ..RunRecord::default() });
        twice.record_run(RunRecord { id: "a".to_owned(), outcome: "complete".to_owned(), ..RunRecord::default() });
        assert_eq!(twice.commit().await.unwrap().version, 3);
        let runs = &lake.latest().await.unwrap().runs;
        let seen: Vec<_> = runs.iter().map(|run| (run.id.as_str(), run.outcome.as_str())).collect();
        assert_eq!(seen, [("a", "complete"), ("b", "running")]);
        let history = lake.history(2).await.unwrap();
        assert_eq!(history.iter().map(|version| version.version).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(history[0].runs, ["a"]);
    }

    #[tokio::test]
    async fn quarantine_is_kept_over_versions_and_what_changes_nothing_makes_none() {
        let store = memory();
        let lake = create(&store).await.unwrap();
        let field = SeenField {
            path: "attributes.x".to_owned(),
            json_type: "text".to_owned(),
            reason: "undeclared".to_owned(),
            count: 3,
            first_ms: 1,
            last_ms: 1,
            run: "a".to_owned(),
        };
        let attributes = Some([("tierStr".to_owned(), false)].into());
        let change = |fields: &[SeenField], whole| {
            let mut change = lake.transaction();
            let seen = Seen { whole, fields: fields.to_vec(), attributes: attributes.clone(), ..Seen::default() };
            change.quarantine(Stream::Tickets, seen);
            change
        };
        let field = std::slice::from_ref(&field);
        assert_eq!(change(field, true).commit().await.unwrap().version, 1);
        assert_eq!(change(field, true).commit().await.unwrap().version, 1);
        assert_eq!(change(&[], false).commit().await.unwrap().version, 1);
        assert_eq!(change(field, false).commit().await.unwrap().version, 2);
        let manifest = open(&store).await.unwrap().latest().await.unwrap();
        let kept = &manifest.quarantine[&Stream::Tickets];
        assert_eq!(kept.fields.values().map(|count| count.count).collect::<Vec<_>>(), [6]);
        assert_eq!(kept.attributes, attributes.clone().unwrap());
        assert_eq!(change(&[], true).commit().await.unwrap().version, 3);
        assert!(lake.latest().await.unwrap().quarantine[&Stream::Tickets].fields.is_empty());
    }

    #[tokio::test]
    async fn runs_table_has_a_row_per_run_and_stream() {
        let lake = create(&memory()).await.unwrap();
        let mut change = lake.transaction();
        let streams = ["tickets", "customers"].map(|stream| StreamRun {
            stream: stream.to_owned(),
            promised: 7,
            complete: true,
            ..StreamRun::default()
        });
        change.record_run(RunRecord {
            id: "a".to_owned(),
            started_ms: 1_760_000_000_000,
            streams: streams.to_vec(),
            requests: [("x".to_owned(), 2), ("y".to_owned(), 3)].into(),
            ..RunRecord::default()
        });
        change.record_run(RunRecord { id: "b".to_owned(), outcome: "failed".to_owned(), ..RunRecord::default() });
        change.commit().await.unwrap();
        let manifest = lake.latest().await.unwrap();
        let session = datafusion::prelude::SessionContext::new();
        session.register_table("runs", lake.table(&manifest, "runs").unwrap()).unwrap();
        let query =
            "SELECT run_id, stream, promised, complete, requests_total, ended_at, started_at FROM runs ORDER BY 1, 2";
        let rows = session.sql(query).await.unwrap().collect().await.unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        let cells: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("| a") || line.starts_with("| b"))
            .map(|line| line.replace(' ', ""))
            .collect();
        assert_eq!(
            cells,
            [
                "|a|customers|7|true|5||2025-10-09T08:53:20Z|",
                "|a|tickets|7|true|5||2025-10-09T08:53:20Z|",
                "|b||||0||1970-01-01T00:00:00Z|"
            ]
        );
    }

    #[tokio::test]
    async fn unknown_table_lists_the_known() {
        let lake = create(&memory()).await.unwrap();
        for name in ["tickets", "ticket_versions", "tag_versions", "secrets"] {
            let error = lake.table(&lake.latest().await.unwrap(), name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Query);
            assert_eq!(error.hint(), Some("its tables are runs, quarantine, ticket_lists, accesses"), "{name}");
        }
    }
}
