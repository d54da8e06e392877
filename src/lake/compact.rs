//! Compaction: many small files become few large ones, and superseded rows move out of the way of live scans.
//!
//! ```text
//! small files, newest first ─▶ as many as weigh twice their heaviest ─▶ runs of at most the target ─▶ one file each
//! files with many superseded rows ─▶ live rows │ history files (all rows superseded), small ones joined likewise
//! ```
//!
//! **How often a row is rewritten.** Files are joined only where the joined file has at least twice the rows of each, so a row
//! is rewritten at most once per doubling, from the size of a commit up to the target: some ten times in its life. A file of
//! a quarter of the target is full and left alone, unless a tenth of its rows is superseded; moving those out costs ten rows for each.
//!
//! **Which files.** Those of one policy and the same columns, in the order in which their rows came in, so that the ranges of
//! `updated_at` stay narrow and filters on time still skip files. Tables that are replaced as a whole are left as they are.
//!
//! **Beside others.** Each task commits on its own: a crash loses one task, and the next run plans anew. What an extract
//! supersedes meanwhile is carried over; when a file has left the table, the task is dropped. Old files stay for readers of
//! older versions until they are collected as garbage. One process at a time compacts, under the maintenance lease, which
//! saves work: two that compact at once would both be right, and one of them would find its files gone.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::lake::lease::{Lease, Purpose};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::rewrite::{self, History, Replaced, Source};
use crate::lake::{Inner, Lake, restricted};
use crate::model::Stream;

/// Plans in one run at most. The second does what the first brought about, such as joining new history files; the last ones
/// find nothing.
const ROUNDS: usize = 8;

/// From this part of the target on a file is full: a quarter, so that the files of a first extract are left as they are.
const FULL_PART: u64 = 4;

/// Superseded rows are moved from this part of the target on: fewer cost a scan less than a file of their own.
const SMALLEST_HISTORY: u64 = 256;

/// When files are joined, and up to which size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactSettings {
    /// One table only; all of them by default.
    pub table: Option<Stream>,
    /// Rows of a joined file at most. Default 262,144: four row groups. More makes fewer files, of which each is rewritten at a
    /// higher cost.
    pub target_rows: u64,
    /// Bytes that are joined at once at most. Default 32 MiB: they are held in memory, encrypted. Less makes smaller files.
    pub target_bytes: u64,
    /// Files that are joined at once at most. Default 128: what describes each is held in memory too, some
    /// hundred kilobytes.
    pub max_files: usize,
    /// Superseded rows of a file, in hundredths, above which they move to a history file. Default 10. Less rewrites sooner;
    /// more leaves scans more rows to skip.
    pub superseded_percent: u64,
}

impl Default for CompactSettings {
    fn default() -> Self {
        Self {
            table: None,
            target_rows: rewrite::TARGET_ROWS as u64,
            target_bytes: 32 << 20,
            max_files: 128,
            superseded_percent: 10,
        }
    }
}

/// What a compaction would do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CompactPlan {
    /// Groups of files that become one file each, or two where their history moves out.
    pub tasks: Vec<CompactTask>,
}

/// Files of one table that are rewritten together.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactTask {
    /// The table's stream.
    pub stream: Stream,
    /// The files, by the age of their rows.
    pub files: Vec<Arc<DataFile>>,
    /// Whether superseded rows go to a file of their own.
    pub moves_history: bool,
}

/// What a compaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Tasks that were committed.
    pub done: Vec<CompactOutcome>,
    /// Tasks that were dropped because another process had changed their files.
    pub dropped: u64,
}

/// What one task did, in counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactOutcome {
    /// The table's stream.
    pub stream: Stream,
    /// Version that it made.
    pub version: u64,
    /// Files before.
    pub files_before: u64,
    /// Files after.
    pub files_after: u64,
    /// Rows, which are as many before and after.
    pub rows: u64,
    /// Superseded rows that stand in history files now and did not before.
    pub rows_moved: u64,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
}

impl CompactPlan {
    /// Tells whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Keeps the tables where the work is worth a run that nobody asked for: at least `files` small files, or a full file
    /// with superseded rows to move out.
    fn keep_due(mut self, files: usize, settings: &CompactSettings) -> Self {
        let is_due = |stream: Stream| {
            let tasks = || self.tasks.iter().filter(|task| task.stream == stream);
            tasks().map(|task| task.files.len()).sum::<usize>() >= files
                || tasks().flat_map(|task| &task.files).any(|file| is_full(file, settings))
        };
        let due: Vec<Stream> =
            Stream::ALL.into_iter().chain([Stream::Accesses]).filter(|stream| is_due(*stream)).collect();
        self.tasks.retain(|task| due.contains(&task.stream));
        self
    }
}

impl CompactTask {
    /// Returns the rows that are rewritten.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Returns the bytes that are read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Returns the superseded rows that move to a history file.
    #[must_use]
    pub fn rows_moved(&self) -> u64 {
        if self.moves_history { self.files.iter().map(|file| file.superseded.len()).sum() } else { 0 }
    }
}

impl fmt::Display for CompactTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.len();
        let (rows, bytes, moved) = (self.rows(), self.bytes(), self.rows_moved());
        write!(f, "{}: {files} files, {rows} rows, {bytes} bytes", self.stream)?;
        if moved > 0 { write!(f, ", {moved} superseded rows to a history file") } else { Ok(()) }
    }
}

impl fmt::Display for CompactPlan {
    /// Prints a line per task, and the paths of its files below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for task in &self.tasks {
            writeln!(f, "{task}")?;
            for file in &task.files {
                writeln!(f, "  {}  {} rows, {} superseded", file.path, file.rows, file.superseded.len())?;
            }
        }
        Ok(())
    }
}

impl Lake {
    /// Plans what a compaction of this version would do; reads and changes nothing.
    #[must_use]
    pub fn plan_compaction(manifest: &Manifest, settings: &CompactSettings) -> CompactPlan {
        let mut tasks = Vec::new();
        for (stream, table) in &manifest.tables {
            if settings.table.is_some_and(|only| only != *stream) {
                continue;
            }
            for files in groups(&table.files) {
                plan_group(*stream, &files, settings, &mut tasks);
            }
        }
        CompactPlan { tasks }
    }

    /// Compacts until a plan is empty; `holder` is shown to whoever is refused the maintenance lease meanwhile.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when another process holds the lease, or has taken it over;
    /// [`Data`](crate::error::ErrorKind::Data) when a file is damaged; [`Unavailable`](crate::error::ErrorKind::Unavailable)
    /// when the store does not answer. What was committed before stays, and is right.
    pub async fn compact(
        &self,
        settings: &CompactSettings,
        holder: &str,
        mut progress: impl FnMut(&CompactOutcome) + Send,
    ) -> Result<CompactReport> {
        let mut lease = self.lease(Purpose::Maintenance, holder).await?;
        let outcome = run(&self.0, settings, None, &mut lease, &mut progress).await;
        let released = lease.release().await;
        let report = outcome?;
        released?;
        Ok(report)
    }
}

/// Takes out what this process cannot rewrite, and says so at the first round: nobody asked for it, so it is no failure.
fn leave_restricted(lake: &Inner, plan: &mut CompactPlan, round: usize) {
    let mut left = 0;
    plan.tasks.retain(|task| {
        let is_rewritable = task.files.iter().all(|file| restricted::is_rewritable(&lake.ring, file));
        left += if is_rewritable { 0 } else { task.files.len() };
        is_rewritable
    });
    if left > 0 && round == 0 {
        tracing::warn!(
            files = left,
            "files with restricted columns are not joined: this process does not have their key"
        );
    }
}

/// Compacts under a lease that the caller holds; with `due_files`, only tables where that many files are to be joined.
pub(super) async fn run(
    lake: &Inner,
    settings: &CompactSettings,
    due_files: Option<usize>,
    lease: &mut Lease,
    progress: &mut (impl FnMut(&CompactOutcome) + Send),
) -> Result<CompactReport> {
    let mut report = CompactReport::default();
    for round in 0..ROUNDS {
        let mut plan = Lake::plan_compaction(lake.log.latest().await?.as_ref(), settings);
        // Once begun, a run leaves nothing that the next one would do at once.
        if let (0, Some(files)) = (round, due_files) {
            plan = plan.keep_due(files, settings);
        } else if due_files.is_some() {
            plan.tasks.retain(|task| report.done.iter().any(|done| done.stream == task.stream));
        }
        if due_files.is_some() {
            leave_restricted(lake, &mut plan, round);
        }
        if plan.is_empty() {
            break;
        }
        for task in plan.tasks {
            lease.renew().await?;
            match run_task(lake, &task).await? {
                Some(outcome) => {
                    progress(&outcome);
                    report.done.push(outcome);
                }
                None => report.dropped += 1,
            }
        }
    }
    Ok(report)
}

/// Tells whether a run that nobody asked for has something to do.
pub(super) fn is_due(manifest: &Manifest, settings: &CompactSettings, due_files: usize) -> bool {
    !Lake::plan_compaction(manifest, settings).keep_due(due_files, settings).is_empty()
}

/// Rewrites the files of one task; `None` when one of them had left the table.
pub(super) async fn run_task(lake: &Inner, task: &CompactTask) -> Result<Option<CompactOutcome>> {
    let sources: Vec<Source> = task.files.iter().map(Source::whole).collect();
    let history = if task.moves_history { History::Apart } else { History::Kept };
    let change = rewrite::rewrite(lake, task.stream, &sources, history).await?;
    let (files_after, bytes_after) = (change.files().len() as u64, change.files().iter().map(|file| file.bytes).sum());
    let Replaced::Done(manifest) = rewrite::replace(lake, &[change]).await? else { return Ok(None) };
    Ok(Some(CompactOutcome {
        stream: task.stream,
        version: manifest.version,
        files_before: task.files.len() as u64,
        files_after,
        rows: task.rows(),
        rows_moved: task.rows_moved(),
        bytes_before: task.bytes(),
        bytes_after,
    }))
}

/// Sorts a table's files into those that may be joined: one policy, the same columns, and either history or not; each group by
/// the age of its rows.
fn groups(files: &[Arc<DataFile>]) -> Vec<Vec<Arc<DataFile>>> {
    let mut groups: Vec<Vec<Arc<DataFile>>> = Vec::new();
    for file in files.iter().filter(|file| file.content.is_none()) {
        let joins = |group: &&mut Vec<Arc<DataFile>>| {
            group.first().is_some_and(|one| is_history(one) == is_history(file) && rewrite::is_alike(one, file))
        };
        match groups.iter_mut().find(joins) {
            Some(group) => group.push(Arc::clone(file)),
            None => groups.push(vec![Arc::clone(file)]),
        }
    }
    for group in &mut groups {
        // The order of the commits; files of one commit stay as they are.
        group.sort_by_key(|file| file.appended.map(|(first, last)| (last, first)));
    }
    groups
}

fn plan_group(stream: Stream, files: &[Arc<DataFile>], settings: &CompactSettings, tasks: &mut Vec<CompactTask>) {
    let (full, small): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|file| is_full(file, settings));
    let (older, joined) = small.split_at(small.len() - joined(&small));
    let mut runs = runs(joined, settings);
    runs.extend(full.into_iter().chain(older.iter().cloned()).map(|file| vec![file]));
    for files in runs {
        let (rows, superseded): (u64, u64) =
            files.iter().fold((0, 0), |(rows, gone), file| (rows + file.rows, gone + file.superseded.len()));
        let is_history = files.iter().all(|file| is_history(file));
        let moves_history = !is_history
            && superseded * 100 > rows * settings.superseded_percent
            && superseded * SMALLEST_HISTORY >= settings.target_rows;
        if files.len() > 1 || moves_history {
            tasks.push(CompactTask { stream, files, moves_history });
        }
    }
}

/// Counts how many of the newest small files are to be joined: as many as have twice the rows of the largest among them.
fn joined(small: &[Arc<DataFile>]) -> usize {
    let (mut rows, mut largest, mut count) = (0, 0, 0);
    for (number, file) in small.iter().rev().enumerate() {
        rows += file.rows;
        largest = largest.max(file.rows);
        if rows >= 2 * largest && number > 0 {
            count = number + 1;
        }
    }
    count
}

/// Cuts files into runs that are rewritten together: whatever is cut off before the last is full, or nearly.
fn runs(files: &[Arc<DataFile>], settings: &CompactSettings) -> Vec<Vec<Arc<DataFile>>> {
    let mut runs: Vec<Vec<Arc<DataFile>>> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    for file in files {
        rows += file.rows;
        bytes += file.bytes;
        match runs.last_mut() {
            Some(run)
                if rows <= settings.target_rows
                    && bytes <= settings.target_bytes
                    && run.len() < settings.max_files.max(2) =>
            {
                run.push(Arc::clone(file));
            }
            _ => {
                runs.push(vec![Arc::clone(file)]);
                (rows, bytes) = (file.rows, file.bytes);
            }
        }
    }
    runs
}

/// Tells whether all rows of a file are superseded.
fn is_history(file: &DataFile) -> bool {
    file.superseded.len() == file.rows
}

/// Tells whether a file is large enough to stay as it is.
fn is_full(file: &DataFile, settings: &CompactSettings) -> bool {
    file.rows * FULL_PART >= settings.target_rows || file.bytes * FULL_PART >= settings.target_bytes
}
