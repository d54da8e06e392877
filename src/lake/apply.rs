//! Applying a policy: what is stored becomes what the present policy allows.
//!
//! ```text
//! files of another policy ─▶ restate by the present one ─▶ nothing is forbidden: left as they are
//!                                    │
//!                                    └▶ tasks of a few files ─▶ one commit each ─▶ columns that no file has leave the table
//!                                                                      └▶ older versions end, if asked for
//! ```
//!
//! **Which files.** Those that were made under another policy, history files too, and of which a stored column shows what is
//! forbidden now. Each becomes one file with the same rows in the same order, less the columns that are to go; the policy says
//! what of a column stays ([`Policy::restate`]). What the policy shows more of than before stays as it is: the values for it
//! are at the source, and come with a full extract.
//!
//! **The policy of a rewritten file** is the present one only where its rows are what the present policy would have made of
//! their records. Where they lack something (a value that was emptied, a column or a custom rule that was added or widened since)
//! the digest of the policy that made them stays in front, joined by `+`, so that a merge does not take such a row for current:
//! a full extract writes it anew though its revision is the same. An emptied column is marked as such in the manifest's
//! schema of the file (metadata `emptied`).
//!
//! **Columns of a table.** A column leaves the table's schema when the policy stores it no more and no file of the newest
//! version has it; until then it stays. Queries of older versions still know it.
//!
//! **Older versions** name the files as they were, until they end. Ending them is asked for on its own, because time travel
//! begins anew with it; then files that no version names go at once, whatever their age, which is why an extract may not run
//! beside it.
//!
//! **Crashes.** Each task is a commit: a crash loses one, and the next run finds what is left. Rows that an extract
//! supersedes meanwhile are superseded in the new files. A file that has left its table is dropped from the plan, and the
//! next round plans anew.
//!
//! A table that no schema declares any more is named and left alone: nothing says what of it is still wanted, and a file that
//! was moved away by mistake must not empty a lake.

mod survey;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use serde::Serialize;

pub use self::survey::{ColumnSurvey, Survey, TableSurvey};

use self::survey::{Surveyed, View, Work};
use crate::error::Result;
use crate::lake::commit::Action;
use crate::lake::expire::{Expire, Expiry};
use crate::lake::lease::{Lease, Purpose, release_all, renew_all};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::rewrite::{self, Replaced, Source};
use crate::lake::{Inner, Lake};
use crate::model::Stream;
use crate::policy::{Definitions, Policy, Step};
use crate::secret::PseudonymKeys;

/// Plans in one run at most: the first does the work, the others what was changed meanwhile.
const ROUNDS: usize = 8;

/// How a policy is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplySettings {
    /// One table only; all of them by default.
    pub table: Option<Stream>,
    /// Whether older versions end afterwards where they still hold what is forbidden. Default: no.
    pub expire: bool,
    /// Files of one commit at most. Default 32. More make fewer versions, and a crash loses more work.
    pub task_files: usize,
    /// Bytes of one commit's files at most, unless a single file has more. Default 256 MiB. They are read and written one file
    /// after the other, so memory holds one.
    pub task_bytes: u64,
}

impl Default for ApplySettings {
    fn default() -> Self {
        Self { table: None, expire: false, task_files: 32, task_bytes: 256 << 20 }
    }
}

/// What older versions still hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OlderVersions {
    /// Files that hold what is forbidden, and that only versions before the newest consist of.
    pub files: u64,
    /// Versions before the newest that are kept.
    pub versions: u64,
}

/// What applying a policy would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyPlan {
    /// What is stored against the policy.
    pub survey: Survey,
    /// Columns that would leave their table without a file being rewritten.
    pub columns: Vec<(Stream, String)>,
    /// What older versions hold already.
    pub older: OlderVersions,
}

/// What one task did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyOutcome {
    /// The table's stream.
    pub stream: Stream,
    /// Version that it made.
    pub version: u64,
    /// Files rewritten.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
}

/// What applying a policy did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// Tasks that were committed.
    pub done: Vec<ApplyOutcome>,
    /// Tasks that were dropped because another process had changed their files.
    pub dropped: u64,
    /// Columns that left their table.
    pub columns: Vec<(Stream, String)>,
    /// What older versions hold still.
    pub older: OlderVersions,
    /// The versions that ended, if that was asked for.
    pub expiry: Option<Expiry>,
    /// Data files and indexes that were deleted after it.
    pub deleted: u64,
}

impl ApplyPlan {
    /// Tells whether there is nothing to do, older versions aside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.survey.is_forbidden() && self.columns.is_empty()
    }
}

impl fmt::Display for ApplyPlan {
    /// Prints a line per table, and a line per column below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in self.survey.tables.iter().filter(|table| table.files > 0) {
            writeln!(f, "{}: {} files, {} rows, {} bytes", table.table, table.files, table.rows, table.bytes)?;
            for column in &table.columns {
                writeln!(f, "  {}: {} ({} files)", column.column, column.becomes, column.files)?;
            }
        }
        for (stream, column) in &self.columns {
            writeln!(f, "{stream}: column {column} leaves the table, no file has it")?;
        }
        Ok(())
    }
}

impl Lake {
    /// Tells how what a version holds stands to a policy; reads no file.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when a declared column has another type than in the lake.
    pub fn survey(&self, manifest: &Manifest, policy: &Policy) -> Result<Survey> {
        Ok(self.surveyed(manifest, policy, None)?.survey)
    }

    /// Tells what [`apply_policy`](Self::apply_policy) would do, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when a kept version cannot be read.
    pub async fn plan_policy(&self, policy: &Policy, settings: &ApplySettings) -> Result<ApplyPlan> {
        let manifest = self.latest().await?;
        let survey = self.surveyed(&manifest, policy, settings.table)?.survey;
        let columns = leaving(&redeclared(&manifest, policy, &self.keys_of(&manifest)?, settings.table)?);
        Ok(ApplyPlan { survey, columns, older: self.older(policy, settings.table).await? })
    }

    /// Rewrites the files of the newest version that hold what the policy forbids; `holder` is shown to whoever is refused
    /// the maintenance lease meanwhile, and the extract's where older versions are to end.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when another process holds a lease;
    /// [`Data`](crate::error::ErrorKind::Data) when a file is damaged; [`Unavailable`](crate::error::ErrorKind::Unavailable)
    /// when the store does not answer. What was committed before stays, and repeating it completes it.
    pub async fn apply_policy(
        &self,
        policy: &Policy,
        settings: &ApplySettings,
        holder: &str,
        mut progress: impl FnMut(&ApplyOutcome) + Send,
    ) -> Result<ApplyReport> {
        let mut leases = vec![self.lease(Purpose::Maintenance, holder).await?];
        let outcome = self.apply_under(policy, settings, holder, &mut leases, &mut progress).await;
        let released = release_all(leases).await;
        let report = outcome?;
        released?;
        Ok(report)
    }

    async fn apply_under(
        &self,
        policy: &Policy,
        settings: &ApplySettings,
        holder: &str,
        leases: &mut Vec<Lease>,
        progress: &mut (impl FnMut(&ApplyOutcome) + Send),
    ) -> Result<ApplyReport> {
        let Self(lake) = self;
        if settings.expire {
            for purpose in [Purpose::Extract, Purpose::Record] {
                leases.push(self.lease(purpose, holder).await?);
            }
        }
        let mut report = ApplyReport::default();
        for _ in 0..ROUNDS {
            let work = self.surveyed(lake.log.latest().await?.as_ref(), policy, settings.table)?.work;
            if work.is_empty() {
                break;
            }
            for task in tasks(work, settings) {
                match run_task(lake, policy, &task, leases).await? {
                    Some(outcome) => {
                        progress(&outcome);
                        report.done.push(outcome);
                    }
                    None => report.dropped += 1,
                }
            }
        }
        renew_all(leases).await?;
        report.columns = self.redeclare(policy, settings.table).await?;
        report.older = self.older(policy, settings.table).await?;
        if settings.expire && report.older.files > 0 {
            renew_all(leases).await?;
            report.expiry = Some(self.expire(Expire::AllButNewest).await?);
            renew_all(leases).await?;
            report.deleted = self.delete_garbage(&self.unused(None).await?).await?;
            report.older = self.older(policy, settings.table).await?;
        }
        Ok(report)
    }

    /// Takes columns out of tables that no file has and that the policy stores no more, and describes the others as they are
    /// stored now; returns which went.
    async fn redeclare(&self, policy: &Policy, only: Option<Stream>) -> Result<Vec<(Stream, String)>> {
        let manifest = self.0.log.latest().await?;
        let keys = self.keys_of(&manifest)?;
        let planned = redeclared(&manifest, policy, &keys, only)?;
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        // A table that cannot be described in a later version is left as it is: the next run does it.
        let more = |base: &Manifest| {
            let tables = redeclared(base, policy, &keys, only).unwrap_or_default();
            Some(tables.into_iter().map(|(stream, table)| Action::Redeclare(stream, table.schema)).collect())
        };
        rewrite::replace_under(&self.0, Some(policy), &[], more).await?;
        Ok(leaving(&planned))
    }

    /// Returns the keys of the pseudonyms in force.
    fn keys_of(&self, manifest: &Manifest) -> Result<PseudonymKeys> {
        self.0.ring.pseudonym_keys(manifest.pseudonym_version())
    }

    fn surveyed(&self, manifest: &Manifest, policy: &Policy, only: Option<Stream>) -> Result<Surveyed> {
        Surveyed::of(manifest, policy, &self.keys_of(manifest)?, only)
    }

    /// Counts the files that only older versions consist of and that hold what is forbidden.
    async fn older(&self, policy: &Policy, only: Option<Stream>) -> Result<OlderVersions> {
        let kept = self.0.log.kept().await?;
        let keys = self.keys_of(&kept.newest)?;
        let present: HashSet<&str> =
            kept.newest.tables.values().flat_map(|table| &table.files).map(|file| file.path.as_str()).collect();
        let mut views: BTreeMap<Stream, View<'_>> = BTreeMap::new();
        let mut older = OlderVersions::default();
        for (path, (stream, file)) in &kept.files {
            let is_left_out = only.is_some_and(|only| only != *stream) || !policy.streams().contains(stream);
            if is_left_out || present.contains(path.as_str()) {
                continue;
            }
            let view = match views.entry(*stream) {
                std::collections::btree_map::Entry::Occupied(view) => view.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(View::new(&kept.newest, policy, &keys, *stream))
                }
            };
            older.files += u64::from(view.of(file)?.is_some_and(|stand| stand.is_forbidden()));
        }
        if older.files > 0 {
            older.versions = kept.newest.version - kept.oldest;
        }
        Ok(older)
    }
}

/// Rewrites the files of one task; `None` when one of them had left the table.
async fn run_task(lake: &Inner, policy: &Policy, task: &[Work], leases: &mut [Lease]) -> Result<Option<ApplyOutcome>> {
    let Some(stream) = task.first().map(|work| work.stream) else { return Ok(None) };
    let mut changes = Vec::with_capacity(task.len());
    for work in task {
        renew_all(leases).await?;
        changes.push(rewrite::restate(lake, stream, &[Source::whole(&work.file)], &work.restated).await?);
    }
    renew_all(leases).await?;
    let bytes_after = changes.iter().flat_map(rewrite::Rewritten::files).map(|file| file.bytes).sum();
    let sum = |of: fn(&DataFile) -> u64| task.iter().map(|work| of(&work.file)).sum();
    match rewrite::replace_under(lake, Some(policy), &changes, |_| Some(Vec::new())).await? {
        Replaced::Gone => Ok(None),
        Replaced::Done(manifest) => Ok(Some(ApplyOutcome {
            stream,
            version: manifest.version,
            files: task.len() as u64,
            rows: sum(|file| file.rows),
            bytes_before: sum(|file| file.bytes),
            bytes_after,
        })),
    }
}

/// Deals work out to tasks, each of one table.
fn tasks(work: Vec<Work>, settings: &ApplySettings) -> Vec<Vec<Work>> {
    let mut tasks: Vec<Vec<Work>> = Vec::new();
    let mut bytes = 0;
    for work in work {
        bytes += work.file.bytes;
        match tasks.last_mut() {
            Some(task)
                if task.len() < settings.task_files.max(1)
                    && bytes <= settings.task_bytes
                    && task.iter().all(|other| other.stream == work.stream) =>
            {
                task.push(work);
            }
            _ => {
                bytes = work.file.bytes;
                tasks.push(vec![work]);
            }
        }
    }
    tasks
}

/// The columns that a table is to have, and those that leave it.
struct Redeclared {
    schema: SchemaRef,
    leaving: Vec<String>,
}

/// Tells which tables are to be described anew.
fn redeclared(
    manifest: &Manifest,
    policy: &Policy,
    keys: &PseudonymKeys,
    only: Option<Stream>,
) -> Result<Vec<(Stream, Redeclared)>> {
    let declared = policy.streams();
    let mut tables = Vec::new();
    for (stream, table) in &manifest.tables {
        if only.is_some_and(|only| only != *stream) || !declared.contains(stream) {
            continue;
        }
        let mut definitions = Definitions::default();
        definitions.hold(*stream, &table.schema);
        let restatement = policy.restate(*stream, &definitions, &table.schema, keys)?;
        let mut fields = Vec::new();
        let mut leaving = Vec::new();
        let mut is_changed = false;
        for ((column, step, _), field) in restatement.steps().zip(table.schema.fields()) {
            let is_held = || table.files.iter().any(|file| file.schema.field_with_name(column).is_ok());
            match (step, restatement.schema().field_with_name(column)) {
                (Step::Remove, _) if !is_held() => leaving.push(column.to_owned()),
                (Step::Apply | Step::Empty, Ok(after)) => {
                    is_changed = true;
                    fields.push(Arc::new(after.clone()));
                }
                _ => fields.push(Arc::clone(field)),
            }
        }
        if is_changed || !leaving.is_empty() {
            let schema = Arc::new(Schema::new_with_metadata(fields, table.schema.metadata().clone()));
            tables.push((*stream, Redeclared { schema, leaving }));
        }
    }
    Ok(tables)
}

fn leaving(tables: &[(Stream, Redeclared)]) -> Vec<(Stream, String)> {
    let of = |(stream, table): &(Stream, Redeclared)| {
        table.leaving.iter().map(|column| (*stream, column.clone())).collect::<Vec<_>>()
    };
    tables.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests;
