//! A transaction: rows, watermarks and runs that become visible together.
//!
//! ```text
//! append, replace ─▶ sort, newest revision per id ─▶ merge against the manifest ─▶ put files ─▶ put the commit
//!                                                        ▲                                        │ lost the race
//!                                                        └──────────── newer manifest ◀───────────┘
//! ```
//!
//! Nothing is visible before the commit object is there, and it is put last. What a crash leaves behind are data files
//! that no commit names. Work that is repeated finds its rows and leaves them out, so repeating is always safe.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::BooleanArray;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::attempts::Attempts;
use crate::lake::commit::Action;
use crate::lake::manifest::{DataFile, Manifest, TableState, Watermark, union};
use crate::lake::merge::{self, Incoming};
use crate::lake::quarantine::{Quarantine, Seen};
use crate::lake::run::RunRecord;
use crate::lake::{Inner, put, restricted};
use crate::model::{ObjectId, Stream};
use crate::policy::{Policy, RedactedBatch, Rules};

/// One atomic change of rows, watermarks and runs. Nothing is visible before [`commit`](Self::commit).
pub struct Transaction {
    lake: Arc<Inner>,
    tables: BTreeMap<Stream, Pending>,
    watermarks: BTreeMap<Stream, Watermark>,
    runs: Vec<RunRecord>,
    policy: Option<Arc<Rules>>,
    quarantine: Vec<(Stream, Seen)>,
}

/// Rows of one stream that wait for the commit.
#[derive(Default)]
struct Pending {
    whole: bool,
    batches: Vec<RedactedBatch>,
    /// Ids whose rows supersede what is there of the same revision too.
    corrected: HashSet<ObjectId>,
}

impl fmt::Debug for Transaction {
    /// Prints how much there is: rows may be personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |pending: &Pending| pending.batches.iter().map(|rows| rows.keys().len()).sum::<usize>();
        f.debug_struct("Transaction")
            .field("rows", &self.tables.iter().map(|(stream, pending)| (stream, rows(pending))).collect::<Vec<_>>())
            .field("watermarks", &self.watermarks)
            .field("runs", &self.runs.len())
            .finish_non_exhaustive()
    }
}

/// What a commit did, per stream where rows were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitSummary {
    /// The version, or the present one when nothing was to be committed.
    pub version: u64,
    /// Rows written, per stream.
    pub streams: Vec<(Stream, RowCounts)>,
}

/// Counts of rows of one stream in one commit; of several revisions of an id in one transaction only the newest counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Written, new ids.
    pub inserted: u64,
    /// Written, superseding an older revision.
    pub updated: u64,
    /// Left out, the same already, or older than what is there.
    pub unchanged: u64,
    /// Written as tombstones.
    pub deleted: u64,
}

impl Transaction {
    pub(super) fn new(lake: Arc<Inner>) -> Self {
        Self {
            lake,
            tables: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            runs: Vec::new(),
            policy: None,
            quarantine: Vec::new(),
        }
    }

    /// Names the writer's policy in the commit; the lake keeps its rules.
    #[must_use]
    pub fn under(self, policy: &Policy) -> Self {
        Self { policy: Some(Arc::clone(policy.rules())), ..self }
    }

    /// Upserts rows: newer revisions supersede, unchanged ones (same `rev`, `updated_at`, policy and columns) are left out.
    ///
    /// A batch without rows still records the table's columns.
    pub fn append(&mut self, rows: RedactedBatch) {
        self.tables.entry(rows.stream()).or_default().batches.push(rows);
    }

    /// Upserts rows that were read by id just now and differ from what the lake has, though their revision may be the same.
    ///
    /// They supersede rows of the same `updated_at` and `rev`, tombstones too, and give way to later ones like any other.
    /// That they differ is the caller's knowledge: a row that does not is written again.
    pub fn correct(&mut self, rows: RedactedBatch) {
        let pending = self.tables.entry(rows.stream()).or_default();
        pending.corrected.extend(rows.keys().iter().map(|key| key.id));
        pending.batches.push(rows);
    }

    /// Replaces a whole small table, unless it is the same already.
    ///
    /// Rows of the stream given before are dropped; rows appended afterwards join the new table.
    pub fn replace(&mut self, rows: RedactedBatch) {
        self.tables.insert(rows.stream(), Pending { whole: true, batches: vec![rows], ..Pending::default() });
    }

    /// Moves a watermark.
    pub fn set_watermark(&mut self, stream: Stream, watermark: Watermark) {
        self.watermarks.insert(stream, watermark);
    }

    /// Adds a run's record (the newest of an id counts).
    pub fn record_run(&mut self, run: RunRecord) {
        self.runs.push(run);
    }

    /// Adds fields that were seen and not stored to the stream's quarantine.
    pub fn quarantine(&mut self, stream: Stream, seen: Seen) {
        self.quarantine.push((stream, seen));
    }

    /// Commits; an empty transaction makes no version.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when a column changes its type; [`Conflict`](crate::error::ErrorKind::Conflict) when other writers won every
    /// attempt, or pseudonyms were rotated since the rows were made; [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store fails: the commit may then have been made or not, and
    /// repeating the work is right in both cases.
    pub async fn commit(self) -> Result<CommitSummary> {
        let Self { lake, tables, watermarks, runs, policy, quarantine } = self;
        let mut tables = tables
            .into_iter()
            .map(|(stream, pending)| TableChange::try_new(stream, pending))
            .collect::<Result<Vec<_>>>()?;
        let mut attempts = Attempts::begin(&lake).await?.under(policy);
        loop {
            let base = attempts.base();
            let mut actions = Vec::new();
            let mut summary = CommitSummary { version: base.version, streams: Vec::new() };
            for table in &mut tables {
                table.check_pseudonyms(base)?;
                let counts = table.plan(&lake, base.tables.get(&table.stream), &mut actions).await?;
                summary.streams.push((table.stream, counts));
            }
            plan_records(base, &watermarks, &runs, &mut actions);
            plan_quarantine(base, &quarantine, &mut actions);
            if actions.is_empty() {
                return Ok(summary);
            }
            if let Some(manifest) = attempts.put(actions).await? {
                summary.version = manifest.version;
                return Ok(summary);
            }
        }
    }
}

fn plan_records(
    base: &Manifest,
    watermarks: &BTreeMap<Stream, Watermark>,
    runs: &[RunRecord],
    actions: &mut Vec<Action>,
) {
    let moved = watermarks.iter().filter(|(stream, to)| base.watermarks.get(stream) != Some(to));
    actions.extend(moved.map(|(stream, to)| Action::Watermark(*stream, to.clone())));
    for (place, run) in runs.iter().enumerate() {
        let told_again = runs[place + 1..].iter().any(|later| later.id == run.id);
        let known = base.runs.iter().rev().any(|known| known.as_ref() == run);
        if !told_again && !known {
            actions.push(Action::Run(Arc::new(run.clone())));
        }
    }
}

/// Adds what runs saw to the quarantine, where that changes anything.
fn plan_quarantine(base: &Manifest, quarantine: &[(Stream, Seen)], actions: &mut Vec<Action>) {
    for (stream, seen) in quarantine {
        let before = base.quarantine.get(stream).map(|kept| Quarantine::clone(kept)).unwrap_or_default();
        // Definitions are the longest part, and nearly always the same.
        let attributes = seen.attributes.clone().filter(|attributes| *attributes != before.attributes);
        let seen = Seen { attributes, ..seen.clone() };
        let mut after = before.clone();
        after.apply(&seen);
        if after != before {
            actions.push(Action::Quarantine(*stream, Arc::new(seen)));
        }
    }
}

/// The change of one table, kept over attempts.
struct TableChange {
    stream: Stream,
    whole: bool,
    incoming: Incoming,
    /// What was encoded and put by an earlier attempt, with the rows it holds.
    written: Option<(BooleanArray, Vec<Arc<DataFile>>)>,
    /// Version of pseudonyms in force.
    pseudonyms: u32,
}

impl TableChange {
    fn try_new(stream: Stream, pending: Pending) -> Result<Self> {
        let incoming = Incoming::try_new(&pending.batches)?.with_corrected(pending.corrected);
        Ok(Self { stream, whole: pending.whole, incoming, written: None, pseudonyms: 1 })
    }

    /// Adds the actions that bring the table from `state` to where it should be; puts the files they name.
    async fn plan(&mut self, lake: &Inner, state: Option<&TableState>, actions: &mut Vec<Action>) -> Result<RowCounts> {
        if self.whole {
            self.plan_whole(lake, state, actions).await
        } else {
            self.plan_merge(lake, state, actions).await
        }
    }

    /// Refuses rows whose pseudonyms would join with none of the lake.
    fn check_pseudonyms(&mut self, base: &Manifest) -> Result<()> {
        self.pseudonyms = base.pseudonym_version();
        match self.incoming.rows().pseudonyms() {
            Some(version) if version != self.pseudonyms => Err(Error::new(
                ErrorKind::Conflict,
                "pseudonyms were rotated since this process read the lake; nothing was changed",
            )
            .with_context("table", self.stream)
            .with_context("version of these rows", version)
            .with_context("in force", self.pseudonyms)
            .with_hint("start it again: it goes on from the last commit, with the new key")),
            _ => Ok(()),
        }
    }

    async fn plan_merge(
        &mut self,
        lake: &Inner,
        state: Option<&TableState>,
        actions: &mut Vec<Action>,
    ) -> Result<RowCounts> {
        self.declare(state.filter(|table| !table.files.is_empty()), state, actions)?;
        let files = state.map_or(&[][..], |table| &table.files);
        let merged = merge::merge(&lake.store, &lake.look_ups, &lake.ring, files, &self.incoming).await?;
        let superseded = merged.superseded.into_iter().filter(|(_, rows)| !rows.is_empty());
        actions.extend(superseded.map(|(path, rows)| Action::Supersede(self.stream, path, rows)));
        let added = self.write(lake, merged.kept, None).await?;
        actions.extend(added.into_iter().map(|file| Action::Add(self.stream, file)));
        Ok(merged.counts)
    }

    async fn plan_whole(
        &mut self,
        lake: &Inner,
        state: Option<&TableState>,
        actions: &mut Vec<Action>,
    ) -> Result<RowCounts> {
        let rows = self.incoming.rows().keys().len();
        let mut content = self.incoming.content()?;
        if restricted::columns(self.incoming.rows().schema()).next().is_some() {
            // Whoever reads the log and not the columns could guess at their values by it.
            content = lake.ring.blinded(&content)?;
        }
        let files = state.map_or(&[][..], |table| &table.files);
        let same = |file: &Arc<DataFile>| file.content == Some(content) && file.superseded.is_empty();
        let held: u64 = files.iter().map(|file| file.rows).sum();
        if state.is_some() && held == rows as u64 && files.iter().all(same) {
            // Descriptions may have changed all the same.
            self.declare(state.filter(|table| !table.files.is_empty()), state, actions)?;
            return Ok(RowCounts { unchanged: rows as u64, ..RowCounts::default() });
        }
        let old = merge::merge(&lake.store, &lake.look_ups, &lake.ring, files, &self.incoming).await?;
        actions.extend(files.iter().map(|file| Action::Remove(self.stream, file.path.clone())));
        self.declare(None, state, actions)?;
        let added = self.write(lake, BooleanArray::from(vec![true; rows]), Some(content)).await?;
        actions.extend(added.into_iter().map(|file| Action::Add(self.stream, file)));
        Ok(old.counts)
    }

    /// Declares the columns, if the table does not have them as they are: `kept` is what they are joined with.
    fn declare(
        &self,
        kept: Option<&TableState>,
        present: Option<&TableState>,
        actions: &mut Vec<Action>,
    ) -> Result<()> {
        let columns = Arc::clone(self.incoming.rows().schema());
        let joined = match kept {
            None => columns,
            Some(table) => Arc::new(union(&table.schema, &columns).map_err(|change| {
                Error::config("a column has another type than in the lake")
                    .with_context("table", self.stream)
                    .with_context("column", change.column)
                    .with_context("lake", change.table)
                    .with_context("now", change.rows)
                    .with_hint("declare the new type under a new column name")
            })?),
        };
        if present.is_none_or(|table| table.schema != joined) {
            actions.push(Action::Declare(self.stream, joined));
        }
        Ok(())
    }

    /// Encodes and puts the rows that `kept` marks, unless an earlier attempt has put the very same.
    async fn write(
        &mut self,
        lake: &Inner,
        kept: BooleanArray,
        content: Option<[u8; 32]>,
    ) -> Result<Vec<Arc<DataFile>>> {
        if let Some((rows, files)) = &self.written
            && *rows == kept
        {
            let of_now = |file: &Arc<DataFile>| DataFile { pseudonyms: self.pseudonyms, ..DataFile::clone(file) };
            return Ok(files.iter().map(|file| Arc::new(of_now(file))).collect());
        }
        let mut files = Vec::new();
        for part in parts(&kept, lake.rows_per_file) {
            let rows = self.incoming.rows().filter(&part)?;
            files.push(Arc::new(DataFile { content, pseudonyms: self.pseudonyms, ..put::put_rows(lake, rows).await? }));
        }
        self.written = Some((kept, files.clone()));
        Ok(files)
    }
}

/// Splits the marked rows into masks of at most `limit` rows each.
fn parts(kept: &BooleanArray, limit: usize) -> Vec<BooleanArray> {
    let marked: Vec<usize> = kept.values().set_indices().collect();
    marked
        .chunks(limit.max(1))
        .map(|rows| {
            let mut part = vec![false; kept.len()];
            for row in rows {
                part[*row] = true;
            }
            BooleanArray::from(part)
        })
        .collect()
}
