//! Erasure: a customer or a ticket leaves the lake, with everything that names it.
//!
//! ```text
//! search every kept version ─▶ rewrite without the rows ─▶ commit ─▶ expire all older versions ─▶ delete their objects
//!        │                                                                                              │
//!        └── nothing found and nothing left over: no change          every kept file searched again ◀───┘ ─▶ receipt
//! ```
//!
//! **What goes.** A customer's row and its tickets: a ticket goes as a whole when any version of it names the customer. The
//! times spent on those tickets, and those that name the customer. Values of other rows that hold one of these ids, in any
//! column of texts, become null. Ids in the records of runs go. Older versions end, because their commits hold ids as bounds
//! of files. Ids leave the recorded ticket lists, though not the access records (`lake/accesses.rs` says why), and SQL and parameters of a recording that hold one are blanked. Every data file that no version names is deleted whatever its age, because all leases are held, so that
//! no extract has files in progress.
//!
//! An id that only a ticket list holds any more, because retention took the ticket, is not known to be the customer's: erase
//! such tickets by their ids.
//!
//! **Crashes.** The rewrite is one commit. Whatever is cut off after it is completed by the same erasure once more: it finds the
//! rows in older versions, or only objects that nothing names, and goes on from there. It commits a version of its own even when no row
//! is left, so that a writer that slept meanwhile loses its race and looks for its files again.
//!
//! **What it cannot reach**: copies that others hold. Backups of the lake, versions that an object store keeps of deleted
//! objects, exported results of queries. And the source: a later extract brings the customer back, unless the source has
//! erased it too. Erase at the source first.
//!
//! A receipt has the ids that were asked for, and counts: no other personal value.

mod traces;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use roaring::RoaringBitmap;
use serde::Serialize;

pub(super) use self::traces::Traces;

use crate::error::{Error, Result};
use crate::lake::commit::Action;
use crate::lake::expire::Expire;
use crate::lake::lease::{Lease, Purpose, release_all, renew_all};
use crate::lake::lists::Recording;
use crate::lake::log::Kept;
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::rewrite::{self, History, Replaced, Rewritten, Source};
use crate::lake::run::RunRecord;
use crate::lake::scan::WholeFile;
use crate::lake::{Inner, Lake, WRITER, restricted};
use crate::model::{ObjectId, Stream};
use crate::policy::{pseudonym, pseudonym_domain};

/// Columns that say whose a row is, in whatever table.
const CUSTOMER: &str = "customer_id";
const TICKET: &str = "ticket_id";

/// Times that an erasure plans anew when files left their table under it.
const ATTEMPTS: usize = 3;

/// What is to be erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EraseRequest {
    /// Customers, with their tickets.
    pub customers: BTreeSet<ObjectId>,
    /// Tickets.
    pub tickets: BTreeSet<ObjectId>,
    /// What the column of a ticket's customer holds in place of these customers' ids, where the policy changes them:
    /// masks, say. Pseudonyms are found without.
    pub customer_values: BTreeSet<String>,
}

/// What an erasure did to one table, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ErasedTable {
    /// The table.
    pub table: String,
    /// Rows erased from the newest version, of all revisions.
    pub rows: u64,
    /// Rows in files that only older versions consist of.
    pub rows_of_older_versions: u64,
    /// Values of other rows that named what was erased, and are null now.
    pub values: u64,
    /// Files rewritten.
    pub files_rewritten: u64,
    /// Files of which no row was left.
    pub files_removed: u64,
}

/// What an erasure would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErasePlan {
    /// Tables that hold something of it.
    pub tables: Vec<ErasedTable>,
    /// Records of runs that name something of it.
    pub runs: u64,
    /// Recordings of ticket lists whose SQL or parameters name something of it.
    pub recordings: u64,
    /// Versions that would end.
    pub versions: u64,
    /// Objects that no version names already, and that would be deleted.
    pub unused_objects: u64,
}

/// The record of an erasure, to be kept: counts, and the ids that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Form of the receipt: 1.
    pub format: u32,
    /// Id of the lake.
    pub lake: String,
    /// When it was completed.
    pub erased_at: String,
    /// Program and version.
    pub program: String,
    /// Customers that were asked for.
    pub customers: Vec<String>,
    /// Tickets that were asked for.
    pub tickets: Vec<String>,
    /// Tables that held something of it.
    pub tables: Vec<ErasedTable>,
    /// Records of runs that named something of it.
    pub runs: u64,
    /// Recordings of ticket lists whose SQL or parameters named something of it.
    pub recordings: u64,
    /// Versions that ended.
    pub versions_expired: u64,
    /// Objects deleted: commits, snapshots, data files, indexes.
    pub objects_deleted: u64,
    /// Version of the lake now.
    pub version: u64,
    /// Data files that the lake consists of now; each was searched and holds none of it.
    pub files_searched: u64,
    /// Live tickets whose customer was deleted or merged in the source and that were not followed yet: they may belong to a
    /// customer that was asked for without naming it.
    pub tickets_not_followed: u64,
}

impl Receipt {
    /// Tells whether nothing was there to erase.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.runs == 0 && self.recordings == 0
    }
}

impl fmt::Display for ErasePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(
                f,
                "{}: {} rows, {} rows of older versions, {} values in other rows, {} files to rewrite, {} to remove",
                table.table,
                table.rows,
                table.rows_of_older_versions,
                table.values,
                table.files_rewritten,
                table.files_removed
            )?;
        }
        if self.runs > 0 {
            writeln!(f, "runs: {} records name something of it", self.runs)?;
        }
        if self.recordings > 0 {
            writeln!(f, "ticket lists: SQL or parameters of {} recordings name something of it", self.recordings)?;
        }
        if self.versions > 0 {
            writeln!(f, "versions: {} would end; time travel begins anew", self.versions)?;
        }
        if self.unused_objects > 0 {
            writeln!(f, "objects: {} that no version names would be deleted", self.unused_objects)?;
        }
        Ok(())
    }
}

/// What is looked for; grows by the tickets of the customers.
struct Wanted {
    customers: HashSet<ObjectId>,
    tickets: HashSet<ObjectId>,
    traces: Traces,
}

/// What one file holds of it.
#[derive(Default)]
struct Found {
    rows: RoaringBitmap,
    /// Values of rows that stay.
    values: u64,
}

/// What all kept versions hold of it.
struct Search {
    wanted: Arc<Wanted>,
    kept: Kept,
    tables: BTreeMap<Stream, ErasedTable>,
    /// Files of the newest version that are to be rewritten, or removed where all rows go.
    sources: Vec<(Stream, Source)>,
    /// Files that hold nothing of it.
    clean: HashSet<String>,
    runs: Vec<RunRecord>,
    /// Recordings of the newest version, told anew.
    lists: Vec<Recording>,
    /// Recordings that any kept version tells of with something of it.
    recordings: u64,
    not_followed: u64,
}

impl Search {
    fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.runs.is_empty() && self.recordings == 0
    }
}

impl Lake {
    /// Tells what an erasure would do, and changes nothing.
    ///
    /// # Errors
    ///
    /// Those of [`erase`](Self::erase), but for the leases.
    pub async fn plan_erasure(&self, request: &EraseRequest) -> Result<ErasePlan> {
        let search = self.search(request, &mut []).await?;
        let versions = if search.is_empty() { 0 } else { self.plan_expiry(Expire::AllButNewest).await?.versions + 1 };
        Ok(ErasePlan {
            runs: search.runs.len() as u64,
            recordings: search.recordings,
            tables: search.tables.into_values().collect(),
            versions,
            unused_objects: self.unused(None).await?.objects(),
        })
    }

    /// Erases customers and tickets from every version, and deletes what held them; `holder` is shown to whoever is refused
    /// the leases meanwhile.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when another process extracts or tidies up;
    /// [`Config`](crate::error::ErrorKind::Config) when the policy changes the ids of customers so that their tickets cannot be
    /// told; [`Data`](crate::error::ErrorKind::Data) when a kept version or a file cannot be read: it cannot be searched then.
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store fails: the same erasure once more completes it.
    pub async fn erase(&self, request: &EraseRequest, holder: &str) -> Result<Receipt> {
        let mut leases = vec![self.lease(Purpose::Maintenance, holder).await?];
        let outcome = async {
            for purpose in [Purpose::Extract, Purpose::Record] {
                leases.push(self.lease(purpose, holder).await?);
            }
            self.erase_under(request, &mut leases).await
        }
        .await;
        let released = release_all(leases).await;
        let receipt = outcome?;
        released?;
        Ok(receipt)
    }

    async fn erase_under(&self, request: &EraseRequest, leases: &mut [Lease]) -> Result<Receipt> {
        let mut search = self.search(request, leases).await?;
        let is_left_over = !self.unused(None).await?.data.is_empty();
        if !search.is_empty() || is_left_over {
            let mut attempt = 1;
            while !self.commit_erasure(&search, leases).await? {
                attempt += 1;
                if attempt > ATTEMPTS {
                    return Err(Error::new(
                        crate::error::ErrorKind::Conflict,
                        "files were rewritten by another process at each attempt to erase",
                    )
                    .with_hint("run it again"));
                }
                search = self.search(request, leases).await?;
            }
        }
        renew_all(leases).await?;
        let expire = if search.is_empty() { Expire::Before(i64::MIN) } else { Expire::AllButNewest };
        let expiry = self.expire(expire).await?;
        renew_all(leases).await?;
        let unused = self.unused(None).await?;
        let deleted = self.delete_garbage(&unused).await?;
        let newest = self.verify_erasure(&search, leases).await?;
        let texts = |ids: &BTreeSet<ObjectId>| ids.iter().map(ToString::to_string).collect();
        Ok(Receipt {
            format: 1,
            lake: self.0.id.clone(),
            erased_at: format!("{:.3}", self.0.clock.now()),
            program: WRITER.to_owned(),
            customers: texts(&request.customers),
            tickets: texts(&request.tickets),
            runs: search.runs.len() as u64,
            recordings: search.recordings,
            tables: search.tables.into_values().collect(),
            versions_expired: expiry.versions,
            objects_deleted: expiry.objects + deleted,
            version: newest.version,
            files_searched: newest.tables.values().map(|table| table.files.len() as u64).sum(),
            tickets_not_followed: search.not_followed,
        })
    }

    /// Rewrites what holds it, and commits; tells whether all files were still there.
    async fn commit_erasure(&self, search: &Search, leases: &mut [Lease]) -> Result<bool> {
        let Self(lake) = self;
        let mut changes = Vec::new();
        for (stream, source) in &search.sources {
            renew_all(leases).await?;
            changes.push(if source.dropped.len() == source.file.rows {
                Rewritten::dropping(*stream, vec![Arc::clone(&source.file)])
            } else {
                let (sources, traces) = (std::slice::from_ref(source), search.wanted.traces.clone());
                rewrite::rewrite_without(lake, *stream, sources, History::Kept, traces).await?
            });
        }
        renew_all(leases).await?;
        let runs = |_: &Manifest| {
            let told = search.runs.iter().map(|run| Action::Run(Arc::new(run.clone())));
            let lists = search.lists.iter().map(|recording| Action::List(Arc::new(recording.clone())));
            let told: Vec<Action> = told.chain(lists).collect();
            // Without any, a version is made all the same.
            (!told.is_empty()).then_some(told)
        };
        match rewrite::replace_with(lake, &changes, runs).await? {
            Replaced::Done(_) => Ok(true),
            Replaced::Gone => Ok(false),
        }
    }

    /// Searches all kept versions.
    async fn search(&self, request: &EraseRequest, leases: &mut [Lease]) -> Result<Search> {
        let Self(lake) = self;
        let kept = lake.log.kept().await?;
        for (_, file) in kept.files.values() {
            // What cannot be read cannot be searched.
            restricted::check_rewritable(&lake.ring, file)?;
        }
        let files = |stream: Stream| kept.files.values().filter(move |(of, _)| *of == stream).map(|(_, file)| file);
        let newest: HashSet<&str> =
            kept.newest.tables.values().flat_map(|table| &table.files).map(|file| file.path.as_str()).collect();

        let customers: HashSet<ObjectId> = request.customers.iter().copied().collect();
        let mut texts: HashSet<String> = request.customer_values.iter().cloned().collect();
        if !customers.is_empty() {
            let in_force = kept.newest.pseudonym_version();
            for file in [Stream::Tickets, Stream::TicketTimes].into_iter().flat_map(files) {
                self.add_pseudonyms(file, in_force, &customers, !request.customer_values.is_empty(), &mut texts)?;
            }
        }
        let by_customer = Traces::new(customers.clone(), texts.clone());
        let mut tickets: HashSet<ObjectId> = request.tickets.iter().copied().collect();

        // Customers that are no more in the source, to tell which tickets were not followed.
        let mut gone = HashSet::new();
        if !by_customer.is_empty() {
            for file in files(Stream::Customers).filter(|file| newest.contains(file.path.as_str())) {
                let counting = &file.tombstones - &file.superseded;
                if !counting.is_empty() {
                    let keys = WholeFile::fetch(&lake.store, &lake.ring, file).await?.keys(CUSTOMER)?;
                    gone.extend(counting.iter().filter_map(|row| keys.get(row as usize)).map(|key| key.id));
                }
            }
        }
        let mut not_followed = 0;
        for file in files(Stream::Tickets).filter(|_| !by_customer.is_empty()) {
            renew_all(leases).await?;
            let held = WholeFile::fetch(&lake.store, &lake.ring, file).await?;
            let Some(owners) = held.column(CUSTOMER, &all_rows(file))? else { continue };
            let rows = by_customer.rows(&owners);
            if !rows.is_empty() {
                let keys = held.keys(TICKET)?;
                tickets.extend(rows.iter().filter_map(|row| keys.get(*row as usize)).map(|key| key.id));
            }
            if newest.contains(file.path.as_str()) && !gone.is_empty() && *owners.data_type() == DataType::Utf8 {
                let dead = &file.superseded | &file.tombstones;
                let owners = (0_u32..).zip(owners.as_string::<i32>().iter());
                let of_gone = owners.filter(|(row, owner)| {
                    let owner = owner.and_then(|owner| ObjectId::from_hex(owner.as_bytes()));
                    !dead.contains(*row)
                        && owner.is_some_and(|owner| gone.contains(&owner) && !customers.contains(&owner))
                });
                not_followed += of_gone.count() as u64;
            }
        }

        let ids: HashSet<ObjectId> = customers.union(&tickets).copied().collect();
        let named = Traces::new(ids.clone(), texts.clone());
        let told = |recording: &Arc<Recording>| recording.without(|text| named.names(text));
        // Files hold the parameters of their recording as one text.
        let mut recordings = BTreeSet::new();
        for recording in kept.lists.iter().filter(|recording| told(recording).is_some()) {
            recordings.insert(recording.id.as_str());
            if !recording.parameters.is_empty() {
                texts.insert(recording.parameters_json());
            }
        }
        let recordings = recordings.len() as u64;
        let lists: Vec<Recording> = kept.newest.lists.iter().filter_map(told).collect();
        let traces = Traces::new(ids, texts);
        let wanted = Arc::new(Wanted { customers, tickets, traces });
        let mut tables: BTreeMap<Stream, ErasedTable> = BTreeMap::new();
        let mut sources = Vec::new();
        let mut clean = HashSet::new();
        for (path, (stream, _)) in &kept.files {
            renew_all(leases).await?;
            // Of a file of the newest version, the entry of that version: more of its rows are superseded by then.
            let present = kept.newest.tables.get(stream);
            let present = present.and_then(|table| table.files.iter().find(|file| file.path == *path));
            let (_, file) = &kept.files[path];
            let found = search_file(lake, *stream, present.unwrap_or(file), &wanted).await?;
            if found.rows.is_empty() && found.values == 0 {
                clean.insert(path.clone());
                continue;
            }
            let table = tables
                .entry(*stream)
                .or_insert_with(|| ErasedTable { table: stream.to_string(), ..ErasedTable::default() });
            let Some(file) = present else {
                table.rows_of_older_versions += found.rows.len();
                // A file that holds nothing but values of it counts too: its versions end.
                continue;
            };
            table.rows += found.rows.len();
            table.values += found.values;
            let counter =
                if found.rows.len() == file.rows { &mut table.files_removed } else { &mut table.files_rewritten };
            *counter += 1;
            sources.push((*stream, Source { file: Arc::clone(file), dropped: found.rows }));
        }
        let runs = kept.newest.runs.iter().filter_map(|run| without(run, &wanted.traces)).collect();
        Ok(Search { wanted, kept, tables, sources, clean, runs, lists, recordings, not_followed })
    }

    /// Adds what a file holds in place of the customers' ids.
    fn add_pseudonyms(
        &self,
        file: &DataFile,
        in_force: u32,
        customers: &HashSet<ObjectId>,
        is_given: bool,
        texts: &mut HashSet<String>,
    ) -> Result<()> {
        let Ok(column) = file.schema.field_with_name(CUSTOMER) else { return Ok(()) };
        let method = column.metadata().get("method").map_or("keep", String::as_str);
        match pseudonym_domain(column) {
            None if method == "keep" || method == "restrict" || is_given => Ok(()),
            Some(domain) => {
                // Files that only older versions name hold pseudonyms of older keys.
                for version in 1..=in_force {
                    let keys = self.0.ring.pseudonym_keys(version)?;
                    texts.extend(customers.iter().map(|id| pseudonym(&keys, &domain, &id.to_string())));
                }
                Ok(())
            }
            None => Err(Error::config("the policy changes the ids of customers, so their tickets cannot be told")
                .with_context("column", CUSTOMER)
                .with_context("method", method)
                .with_hint("give what the column holds for the customer as --customer-value, or erase tickets by id")),
        }
    }

    /// Searches what the lake consists of now, and looks for objects that should be gone.
    async fn verify_erasure(&self, search: &Search, leases: &mut [Lease]) -> Result<Arc<Manifest>> {
        let Self(lake) = self;
        let left = |what: &'static str, object: &str| {
            Error::internal("the erasure left something behind")
                .with_context("left", what)
                .with_context("object", object)
                .with_hint("run it again; if it stays, report it")
        };
        let kept = lake.log.kept().await?;
        for (path, (stream, file)) in &kept.files {
            let (min, max) = file.key_range()?;
            let is_bound = |id| match stream {
                Stream::Tickets | Stream::TicketLists => search.wanted.tickets.contains(&id),
                Stream::Customers => search.wanted.customers.contains(&id),
                _ => false,
            };
            if is_bound(min) || is_bound(max) {
                return Err(left("a bound of a file", path));
            }
            // What was searched before and holds nothing has not changed: its bytes are pinned.
            if !search.clean.contains(path) {
                renew_all(leases).await?;
                let found = search_file(lake, *stream, file, &search.wanted).await?;
                if !found.rows.is_empty() || found.values > 0 {
                    return Err(left("rows of a file", path));
                }
            }
        }
        if kept.newest.runs.iter().any(|run| without(run, &search.wanted.traces).is_some()) {
            return Err(left("the record of a run", "log"));
        }
        let mut recordings = kept.lists.iter();
        if let Some(recording) =
            recordings.find(|known| known.without(|text| search.wanted.traces.names(text)).is_some())
        {
            return Err(left("the record of a ticket list", &recording.id));
        }
        if let Some(object) = self.unnamed().await?.first() {
            return Err(left("an object that no version names", object));
        }
        if let (false, Some(object)) = (search.is_empty(), lake.log.leftovers().await?.first()) {
            return Err(left("an object of the log", object.as_ref()));
        }
        debug_assert!(search.kept.newest.version <= kept.newest.version, "versions only grow");
        Ok(kept.newest)
    }
}

fn all_rows(file: &DataFile) -> Vec<u32> {
    (0..u32::try_from(file.rows).unwrap_or(u32::MAX)).collect()
}

/// Finds the rows of a file that are to go, and counts the values of the others that name what is to go.
async fn search_file(lake: &Inner, stream: Stream, file: &Arc<DataFile>, wanted: &Arc<Wanted>) -> Result<Found> {
    // Who looked at a ticket can be told after it is gone: only its id stays.
    if stream == Stream::Accesses {
        return Ok(Found::default());
    }
    let held = WholeFile::fetch(&lake.store, &lake.ring, file).await?;
    let wanted = Arc::clone(wanted);
    let searching = tokio::task::spawn_blocking(move || search_columns(&held, stream, &wanted));
    searching.await.map_err(|error| Error::internal("failed to search a data file").with_source(error))?
}

fn search_columns(held: &WholeFile, stream: Stream, wanted: &Wanted) -> Result<Found> {
    let key_column = stream.key_column();
    let mut found = Found::default();
    let is_wanted = |id: ObjectId| match stream {
        Stream::Tickets | Stream::TicketLists => wanted.tickets.contains(&id),
        Stream::Customers => wanted.customers.contains(&id),
        _ => wanted.traces.has(id),
    };
    let keys = (0_u32..).zip(held.keys(key_column)?);
    found.rows.extend(keys.filter(|(_, key)| is_wanted(key.id)).map(|(row, _)| row));
    let rows = all_rows(held.file());
    let mut mentions = Vec::new();
    for field in held.file().schema.fields().iter().filter(|field| field.name() != key_column) {
        let is_text = match field.data_type() {
            DataType::Utf8 => true,
            DataType::List(item) => *item.data_type() == DataType::Utf8,
            _ => false,
        };
        if !is_text {
            continue;
        }
        let Some(values) = held.column(field.name(), &rows)? else { continue };
        let named = wanted.traces.rows(&values);
        if matches!(field.name().as_str(), CUSTOMER | TICKET) {
            // The row belongs to it.
            found.rows.extend(named);
        } else {
            mentions.extend(named);
        }
    }
    found.values = mentions.into_iter().filter(|row| !found.rows.contains(*row)).count() as u64;
    Ok(found)
}

/// Tells a run anew without the ids, if it names one.
fn without(run: &RunRecord, traces: &Traces) -> Option<RunRecord> {
    let names = |id: &Option<String>| id.as_deref().is_some_and(|id| traces.names(id));
    let rejected = run.streams.iter().flat_map(|stream| &stream.rejected_records);
    if !rejected.into_iter().any(|record| names(&record.id)) {
        return None;
    }
    let mut told = run.clone();
    for record in told.streams.iter_mut().flat_map(|stream| &mut stream.rejected_records) {
        if names(&record.id) {
            record.id = None;
            record.updated_at_ms = None;
        }
    }
    Some(told)
}

#[cfg(test)]
mod tests;
