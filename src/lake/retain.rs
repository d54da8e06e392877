//! Retention: what is older than the settings allow leaves the lake.
//!
//! - `keep_history`: superseded rows whose `updated_at` is older go; live rows and tombstones stay.
//! - `keep_tickets`: tickets whose newest `updated_at` is older go with all their versions, and with the times that agents
//!   spent on them. The watermark of the tickets says from where they are complete, and moves up to the cut in the same
//!   commit, so that a query can tell what it does not see and a reconciliation does not fetch them again.
//! - `keep_lists`: recordings of ticket lists that were made earlier go, the newest of a list too.
//! - `keep_accesses`: rows of the access records go when the call began (rows `asked`) or ended (rows `delivered`) earlier. It
//!   is asked for apart from the others, because who looked at a ticket may have to be told when the ticket has gone.
//! - `keep_versions`: older versions of the lake end, see [`expire`](crate::lake::expire).
//!
//! Nothing goes by default but old versions. A file whose rows all go leaves its table without being rewritten. Rows are out
//! of every version that is made from now on; versions before it still hold them until they end, and their files until
//! they are collected as garbage.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, TimestampMillisecondType};
use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::lake::accesses;
use crate::lake::commit::Action;
use crate::lake::expire::{Expire, Expiry};
use crate::lake::lease::{Lease, Purpose, release_all, renew_all};
use crate::lake::manifest::{DataFile, Manifest, Watermark};
use crate::lake::rewrite::{self, History, Replaced, Rewritten, Source};
use crate::lake::scan::WholeFile;
use crate::lake::{Inner, Lake};
use crate::model::{ObjectId, Stream};

/// How long old versions are kept by default: a month of time travel.
pub const DEFAULT_KEEP_VERSIONS: Duration = Duration::from_hours(30 * 24);

/// Times that a retention plans anew when files left their table under it.
const ATTEMPTS: usize = 3;

/// What is kept for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainSettings {
    /// Superseded rows, by their `updated_at`. Default: for ever. Less forgets what tickets were before.
    pub keep_history: Option<Duration>,
    /// Tickets, by their newest `updated_at`. Default: for ever. Less makes old tickets leave the lake.
    pub keep_tickets: Option<Duration>,
    /// Recordings of ticket lists, by when they were made. Default: for ever. Less forgets which tickets a list had.
    pub keep_lists: Option<Duration>,
    /// Rows of the access records, by `accessed_at`. Default: for ever. Less forgets who looked at which tickets.
    pub keep_accesses: Option<Duration>,
    /// Versions of the lake. Default 30 days. Less frees storage sooner; more lets queries look further back.
    pub keep_versions: Duration,
}

impl Default for RetainSettings {
    fn default() -> Self {
        Self {
            keep_history: None,
            keep_tickets: None,
            keep_lists: None,
            keep_accesses: None,
            keep_versions: DEFAULT_KEEP_VERSIONS,
        }
    }
}

/// What a retention does to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetainedTable {
    /// Superseded rows that go by their age.
    pub history_rows: u64,
    /// Rows of tickets that go as a whole.
    pub ticket_rows: u64,
    /// Files to be rewritten.
    pub files_rewritten: u64,
    /// Files of which no row is left.
    pub files_removed: u64,
}

/// What a retention did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetainPlan {
    /// Tables of which rows go.
    pub tables: BTreeMap<Stream, RetainedTable>,
    /// Tickets that go.
    pub tickets: u64,
    /// Recordings of ticket lists that go, as `list@number`.
    pub recordings: Vec<String>,
    /// Rows of the access records that go.
    pub accesses: u64,
    /// From where the tickets are complete afterwards, milliseconds since 1970, when that moves.
    pub complete_from_ms: Option<i64>,
    /// The version that was made; absent in a plan, and when no row went.
    pub version: Option<u64>,
    /// Versions that end.
    pub expiry: Expiry,
}

impl fmt::Display for RetainPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (stream, table) in &self.tables {
            writeln!(
                f,
                "{stream}: {} superseded rows, {} rows of old tickets, {} files to rewrite, {} to remove",
                table.history_rows, table.ticket_rows, table.files_rewritten, table.files_removed
            )?;
        }
        if !self.recordings.is_empty() {
            writeln!(f, "ticket_lists: the recordings {}", self.recordings.join(", "))?;
        }
        if self.accesses > 0 {
            writeln!(f, "accesses: {} rows of old access records", self.accesses)?;
        }
        if let Some(from_ms) = self.complete_from_ms {
            let from = jiff::Timestamp::from_millisecond(from_ms).unwrap_or(jiff::Timestamp::MIN);
            writeln!(f, "tickets: {} not updated since {from:.3}; complete from there", self.tickets)?;
        }
        if self.expiry.versions > 0 {
            writeln!(f, "versions: {} before version {}", self.expiry.versions, self.expiry.oldest)?;
        }
        Ok(())
    }
}

/// A plan with the rows that go.
#[derive(Default)]
struct Drops {
    plan: RetainPlan,
    sources: Vec<(Stream, Source)>,
    /// Ids of the recordings that go.
    recordings: Vec<String>,
}

impl Lake {
    /// Tells what a retention would do, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when a file is damaged; [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store does not answer.
    pub async fn plan_retention(&self, settings: &RetainSettings) -> Result<RetainPlan> {
        let drops = self.drops(settings, &mut []).await?;
        let expiry = self.plan_expiry(self.cut(settings)).await?;
        Ok(RetainPlan { expiry, ..drops.plan })
    }

    /// Drops what is older than the settings allow, and ends old versions; `holder` is shown to whoever is refused the
    /// leases meanwhile. Where old tickets go, no extract may run beside it: it would set the watermark back.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when another process holds a lease; those of
    /// [`plan_retention`](Self::plan_retention). What was committed before stays, and repeating it completes it.
    pub async fn retain(&self, settings: &RetainSettings, holder: &str) -> Result<RetainPlan> {
        let mut leases = vec![self.lease(Purpose::Maintenance, holder).await?];
        let outcome = self.retain_under(settings, holder, &mut leases).await;
        let released = release_all(leases).await;
        let plan = outcome?;
        released?;
        Ok(plan)
    }

    /// Does the same under the lease for maintenance, and takes the other one as far as it needs it.
    pub(super) async fn retain_under(
        &self,
        settings: &RetainSettings,
        holder: &str,
        leases: &mut Vec<Lease>,
    ) -> Result<RetainPlan> {
        if settings.keep_tickets.is_some() {
            leases.push(self.lease(Purpose::Extract, holder).await?);
        }
        let mut plan = RetainPlan::default();
        for _ in 0..ATTEMPTS {
            let drops = self.drops(settings, leases).await?;
            if drops.sources.is_empty() && drops.recordings.is_empty() {
                break;
            }
            if let Some(version) = self.drop_rows(&drops, leases).await? {
                plan = RetainPlan { version: Some(version), ..drops.plan };
                break;
            }
        }
        renew_all(leases).await?;
        let expiry = self.expire(self.cut(settings)).await?;
        Ok(RetainPlan { expiry, ..plan })
    }

    fn cut(&self, settings: &RetainSettings) -> Expire {
        Expire::Before(before(&self.0, settings.keep_versions))
    }

    /// Commits a version without the rows; `None` when a file had left its table.
    async fn drop_rows(&self, drops: &Drops, leases: &mut [Lease]) -> Result<Option<u64>> {
        let Self(lake) = self;
        let mut changes = Vec::new();
        for (stream, source) in &drops.sources {
            renew_all(leases).await?;
            changes.push(if source.dropped.len() == source.file.rows {
                Rewritten::dropping(*stream, vec![Arc::clone(&source.file)])
            } else {
                rewrite::rewrite(lake, *stream, std::slice::from_ref(source), History::Kept).await?
            });
        }
        renew_all(leases).await?;
        let from_ms = drops.plan.complete_from_ms;
        let more = |base: &Manifest| {
            let is_there = |id: &&String| base.lists.iter().any(|known| known.id == **id);
            let gone = drops.recordings.iter().filter(is_there).cloned().map(Action::Unlist);
            Some(moved(base, from_ms).into_iter().chain(gone).collect())
        };
        match rewrite::replace_with(lake, &changes, more).await? {
            Replaced::Done(manifest) => Ok(Some(manifest.version)),
            Replaced::Gone => Ok(None),
        }
    }

    /// Finds the rows that go.
    async fn drops(&self, settings: &RetainSettings, leases: &mut [Lease]) -> Result<Drops> {
        let Self(lake) = self;
        let manifest = lake.log.latest().await?;
        let mut rows: BTreeMap<(Stream, &str), (RoaringBitmap, RoaringBitmap)> = BTreeMap::new();
        let files = |stream: Stream| manifest.tables.get(&stream).map_or(&[][..], |table| &table.files);

        if let Some(keep) = settings.keep_history {
            let cut_ms = before(lake, keep);
            for stream in Stream::ALL.into_iter().filter(|stream| stream.is_incremental()) {
                for file in files(stream).iter().filter(|file| !file.superseded.is_empty() && reaches(file, cut_ms)) {
                    renew_all(leases).await?;
                    let old = old_rows(lake, stream, file, cut_ms).await?;
                    let old: RoaringBitmap = old.iter().map(|(row, _)| *row).collect();
                    rows.entry((stream, &file.path)).or_default().0 = old & &file.superseded;
                }
            }
        }

        let mut leaving = HashSet::new();
        if let Some(keep) = settings.keep_tickets {
            let cut_ms = before(lake, keep);
            let stream = Stream::Tickets;
            let old = || files(stream).iter().filter(|file| reaches(file, cut_ms));
            for file in old().filter(|file| file.superseded.len() < file.rows) {
                renew_all(leases).await?;
                let counting = old_rows(lake, stream, file, cut_ms).await?;
                let counting = counting.into_iter().filter(|(row, _)| !file.superseded.contains(*row));
                leaving.extend(counting.map(|(_, id)| id));
            }
            // The newest revision of each is older than the cut, so the others are too.
            for file in old().filter(|_| !leaving.is_empty()) {
                renew_all(leases).await?;
                let gone = old_rows(lake, stream, file, cut_ms).await?;
                let gone = gone.into_iter().filter(|(_, id)| leaving.contains(id)).map(|(row, _)| row);
                rows.entry((stream, &file.path)).or_default().1 = gone.collect();
            }
            for file in files(Stream::TicketTimes).iter().filter(|_| !leaving.is_empty()) {
                renew_all(leases).await?;
                let gone = times_of(lake, file, &leaving).await?;
                rows.entry((Stream::TicketTimes, &file.path)).or_default().1 = gone;
            }
        }

        let mut drops = Drops::default();
        if let Some(keep) = settings.keep_lists {
            let cut_ms = before(lake, keep);
            for recording in manifest.lists.iter().filter(|recording| recording.recorded_ms < cut_ms) {
                drops.recordings.push(recording.id.clone());
                drops.plan.recordings.push(recording.address());
            }
            let is_of = |file: &Arc<DataFile>| {
                file.recording.as_deref().is_some_and(|id| drops.recordings.iter().any(|gone| gone == id))
            };
            for file in files(Stream::TicketLists).iter().filter(|file| is_of(file)) {
                let dropped = (0..u32::try_from(file.rows).unwrap_or(u32::MAX)).collect();
                drops.sources.push((Stream::TicketLists, Source { file: Arc::clone(file), dropped }));
            }
        }
        if let Some(keep) = settings.keep_accesses {
            self.drop_accesses(&manifest, before(lake, keep), leases, &mut drops).await?;
        }
        for ((stream, path), (history, tickets)) in rows {
            let history = history - &tickets;
            let dropped = &history | &tickets;
            let Some(file) = files(stream).iter().find(|file| file.path == path) else { continue };
            if dropped.is_empty() {
                continue;
            }
            let table = drops.plan.tables.entry(stream).or_default();
            table.history_rows += history.len();
            table.ticket_rows += tickets.len();
            let counter =
                if dropped.len() == file.rows { &mut table.files_removed } else { &mut table.files_rewritten };
            *counter += 1;
            drops.sources.push((stream, Source { file: Arc::clone(file), dropped }));
        }
        drops.plan.tickets = leaving.len() as u64;
        if !leaving.is_empty() {
            drops.plan.complete_from_ms = settings.keep_tickets.map(|keep| before(lake, keep));
        }
        Ok(drops)
    }

    /// Finds the access records from before the cut.
    async fn drop_accesses(
        &self,
        manifest: &Manifest,
        cut_ms: i64,
        leases: &mut [Lease],
        drops: &mut Drops,
    ) -> Result<()> {
        let files = manifest.tables.get(&Stream::Accesses).map_or(&[][..], |table| &table.files);
        for file in files {
            renew_all(leases).await?;
            let dropped = old_accesses(&self.0, file, cut_ms).await?;
            if !dropped.is_empty() {
                drops.plan.accesses += dropped.len();
                drops.sources.push((Stream::Accesses, Source { file: Arc::clone(file), dropped }));
            }
        }
        Ok(())
    }
}

/// Returns the time that lies so long before now.
fn before(lake: &Inner, keep: Duration) -> i64 {
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    lake.clock.now().as_millisecond().saturating_sub(keep_ms)
}

/// Tells whether a file has rows from before the cut.
fn reaches(file: &DataFile, cut_ms: i64) -> bool {
    file.updated_ms.is_some_and(|(oldest, _)| oldest < cut_ms)
}

/// Moves the watermark of the tickets up, if it is not there yet.
fn moved(base: &Manifest, from_ms: Option<i64>) -> Option<Action> {
    let (from_ms, watermark) = from_ms.zip(base.watermarks.get(&Stream::Tickets))?;
    let is_later = watermark.complete_from_ms.is_none_or(|present| present < from_ms);
    let moved = Watermark { complete_from_ms: Some(from_ms), ..watermark.clone() };
    is_later.then_some(Action::Watermark(Stream::Tickets, moved))
}

/// Finds the rows of a file whose `updated_at` lies before the cut, with their ids. Rows without one are of no age.
async fn old_rows(lake: &Inner, stream: Stream, file: &Arc<DataFile>, cut_ms: i64) -> Result<Vec<(u32, ObjectId)>> {
    let held = WholeFile::fetch(&lake.store, &lake.ring, file).await?;
    blocking(move || {
        let keys = (0_u32..).zip(held.keys(stream.key_column())?);
        let old = keys.filter(|(_, key)| key.updated_at_ms.is_some_and(|updated_ms| updated_ms < cut_ms));
        Ok(old.map(|(row, key)| (row, key.id)).collect())
    })
    .await
}

/// Finds the access records of a file that are from before the cut.
async fn old_accesses(lake: &Inner, file: &Arc<DataFile>, cut_ms: i64) -> Result<RoaringBitmap> {
    let held = WholeFile::fetch(&lake.store, &lake.ring, file).await?;
    let rows: Vec<u32> = (0..u32::try_from(file.rows).unwrap_or(u32::MAX)).collect();
    let column = blocking(move || held.column(accesses::ACCESSED_AT, &rows)).await?;
    let times = column.as_deref().and_then(|times| times.as_primitive_opt::<TimestampMillisecondType>());
    let Some(times) = times else { return Ok(RoaringBitmap::new()) };
    let old = (0_u32..).zip(times.iter()).filter(|(_, at_ms)| at_ms.is_some_and(|at_ms| at_ms < cut_ms));
    Ok(old.map(|(row, _)| row).collect())
}

/// Finds the times that were spent on tickets.
async fn times_of(lake: &Inner, file: &Arc<DataFile>, tickets: &HashSet<ObjectId>) -> Result<RoaringBitmap> {
    let held = WholeFile::fetch(&lake.store, &lake.ring, file).await?;
    let rows: Vec<u32> = (0..u32::try_from(file.rows).unwrap_or(u32::MAX)).collect();
    let column = blocking(move || held.column(Stream::Tickets.key_column(), &rows)).await?;
    let Some(ids) = column.filter(|ids| *ids.data_type() == DataType::Utf8) else { return Ok(RoaringBitmap::new()) };
    let ids = (0_u32..).zip(ids.as_string::<i32>().iter());
    let of_tickets = ids
        .filter(|(_, id)| id.and_then(|id| ObjectId::from_hex(id.as_bytes())).is_some_and(|id| tickets.contains(&id)));
    Ok(of_tickets.map(|(row, _)| row).collect())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Error::internal("failed to look through a data file").with_source(error))?
}

#[cfg(test)]
mod tests;
