//! Recording: the ids of a result and what made it come into the lake in one commit.
//!
//! ```text
//! lease `record` ─▶ newest version ─▶ is the version read still kept? ─▶ put files ─▶ put the commit
//!                        ▲                                                               │ lost the race
//!                        └──────────────── is the lease still held? ◀────────────────────┘
//! ```
//!
//! An erasure holds the same lease, so it neither runs between the files and their commit nor misses a list. It ends all
//! versions before its own: a result that was read before it is refused, because it may hold what was erased.
//!
//! Nothing is visible before the commit. A recording whose id is there already is not made again.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::attempts::Attempts;
use crate::lake::commit::Action;
use crate::lake::file::Columns;
use crate::lake::lease::{Lease, Purpose};
use crate::lake::lists::{Recording, is_list_name, schema};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::rewrite::TARGET_ROWS;
use crate::lake::{Inner, Lake, layout, put, rings};
use crate::model::{ObjectId, Stream};
use crate::policy::RecordKey;

/// How often a lease that another recording holds is asked for, and how long between: twenty seconds in all.
const LEASE_TRIES: u32 = 80;
const LEASE_WAIT: Duration = Duration::from_millis(250);

/// What a recording came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Id of the recording.
    pub id: String,
    /// Its address, `list@number`.
    pub address: String,
    /// Ids recorded.
    pub count: u64,
    /// The version of the lake that holds it.
    pub version: u64,
}

impl Lake {
    /// Makes the id of a new recording.
    #[must_use]
    pub fn new_recording_id(&self) -> String {
        layout::new_uuid(self.0.clock.as_ref()).to_string()
    }

    /// Records a ticket list: its ids in the order of the result, each once. Count and number are filled in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a name that no list can have; [`ErrorKind::Conflict`] when the version that was read has
    /// ended meanwhile, when an erasure is at work, or when other writers won every attempt;
    /// [`ErrorKind::Unavailable`] when the store fails: the recording may then have been made or not, and the same
    /// recording once more is right in both cases.
    pub async fn record(&self, recording: Recording, ids: &[ObjectId], holder: &str) -> Result<Recorded> {
        if !is_list_name(&recording.list) {
            return Err(wrong_name(&recording.list));
        }
        let mut lease = self.lease_for_recording(holder).await?;
        let recording = Recording { count: ids.len() as u64, ..recording };
        let outcome = record_under(&self.0, Arc::new(recording), ids, &mut lease).await;
        let released = lease.release().await;
        let recorded = outcome?;
        released?;
        Ok(recorded)
    }

    /// Takes the lease, and waits while another recording has it.
    pub(in crate::lake) async fn lease_for_recording(&self, holder: &str) -> Result<Lease> {
        let mut tries = 1;
        loop {
            let Self(lake) = self;
            match Lease::take(Arc::clone(&lake.store), Arc::clone(&lake.clock), Purpose::Record, holder).await {
                Err(error) if error.kind() == ErrorKind::Conflict && tries < LEASE_TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(lease) => {
                    if let Err(error) = rings::check(lake).await {
                        // It ends by itself if it cannot be given back.
                        let _ = lease.release().await;
                        return Err(error);
                    }
                    return Ok(lease);
                }
            }
            self.0.clock.sleep(LEASE_WAIT).await;
        }
    }
}

/// Refuses a name that no list can have.
pub(crate) fn wrong_name(name: &str) -> Error {
    Error::config("a ticket list cannot have this name").with_context("name", name).with_hint(
        "a name has letters, digits, `_`, `-`, `.` and `/`, begins with a letter, and holds no id; give one as --record=NAME",
    )
}

async fn record_under(
    lake: &Arc<Inner>,
    recording: Arc<Recording>,
    ids: &[ObjectId],
    lease: &mut Lease,
) -> Result<Recorded> {
    let mut attempts = Attempts::begin(lake).await?;
    let mut files: Option<Vec<Arc<DataFile>>> = None;
    loop {
        let base = attempts.base();
        if let Some(known) = base.lists.iter().find(|known| known.id == recording.id) {
            return Ok(recorded(base, known));
        }
        check_version(lake, &recording).await?;
        if files.is_none() {
            files = Some(put_files(lake, &recording, ids).await?);
        }
        let mut actions = Vec::new();
        let columns = schema();
        if base.tables.get(&Stream::TicketLists).is_none_or(|table| table.schema != columns) {
            actions.push(Action::Declare(Stream::TicketLists, columns));
        }
        let of_list = base.lists.iter().filter(|known| known.list == recording.list);
        let number = of_list.map(|known| known.number).max().unwrap_or(0) + 1;
        let recording = Recording { number, ..Recording::clone(&recording) };
        actions.push(Action::List(Arc::new(recording.clone())));
        actions.extend(files.iter().flatten().map(|file| {
            let file = DataFile { pseudonyms: base.pseudonym_version(), ..DataFile::clone(file) };
            Action::Add(Stream::TicketLists, Arc::new(file))
        }));
        if let Some(manifest) = attempts.put(actions).await? {
            return Ok(recorded(&manifest, &recording));
        }
        // Without it, an erasure may have deleted the files.
        lease.renew().await?;
    }
}

fn recorded(manifest: &Manifest, recording: &Recording) -> Recorded {
    Recorded {
        id: recording.id.clone(),
        address: recording.address(),
        count: recording.count,
        version: manifest.version,
    }
}

/// Refuses a result of a version that has ended.
async fn check_version(lake: &Inner, recording: &Recording) -> Result<()> {
    let oldest = lake.log.oldest().await?;
    if oldest <= recording.lake_version.max(1) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, "the version that the list was read from has ended meanwhile")
        .with_context("version", recording.lake_version)
        .with_context("oldest", oldest)
        .with_hint("nothing was recorded, because what was erased may be in it; run the query again"))
}

/// Puts the ids, sorted, as the files of the recording.
async fn put_files(lake: &Arc<Inner>, recording: &Arc<Recording>, ids: &[ObjectId]) -> Result<Vec<Arc<DataFile>>> {
    let mut rows: Vec<(ObjectId, u32)> = ids.iter().copied().zip(1..).collect();
    rows.sort_unstable();
    let parameters = recording.parameters_json();
    let mut files = Vec::new();
    for part in rows.chunks(lake.rows_per_file.clamp(1, TARGET_ROWS)) {
        let key = |(id, _): &(ObjectId, u32)| RecordKey { id: *id, updated_at_ms: None, rev: None, deleted: false };
        let rows = ListRows {
            schema: schema(),
            recording: Arc::clone(recording),
            parameters: parameters.clone(),
            keys: part.iter().map(key).collect(),
            positions: part.iter().map(|(_, position)| *position).collect(),
        };
        let file = put::put_columns(lake, Stream::TicketLists, Arc::from(""), rows).await?;
        files.push(Arc::new(DataFile { recording: Some(recording.id.as_str().into()), ..file }));
    }
    Ok(files)
}

/// Rows of one file: they are made here of ids and of what the recording says, and of nothing else.
struct ListRows {
    schema: SchemaRef,
    recording: Arc<Recording>,
    parameters: String,
    keys: Vec<RecordKey>,
    positions: Vec<u32>,
}

impl Columns for ListRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn keys(&self) -> &[RecordKey] {
        &self.keys
    }

    fn column(&self, index: usize, rows: impl Iterator<Item = usize>) -> Result<ArrayRef> {
        let Recording { id, list, recorded_ms, lake_version, sql_digest, .. } = self.recording.as_ref();
        let text =
            |text: &str, rows: usize| Arc::new(StringArray::from_iter_values((0..rows).map(|_| text))) as ArrayRef;
        let name = self.schema.field(index).name().as_str();
        Ok(match name {
            "list" => text(list, rows.count()),
            "recording" => text(id, rows.count()),
            "sql_digest" => text(sql_digest, rows.count()),
            "parameters" => text(&self.parameters, rows.count()),
            "recorded_at" => {
                let times = TimestampMillisecondArray::from_value(*recorded_ms, rows.count());
                Arc::new(times.with_timezone("UTC"))
            }
            "lake_version" => {
                Arc::new(Int64Array::from_value(i64::try_from(*lake_version).unwrap_or(i64::MAX), rows.count()))
            }
            "position" => Arc::new(rows.map(|row| i64::from(self.positions[row])).collect::<Int64Array>()),
            "ticket_id" => Arc::new(StringArray::from_iter_values(rows.map(|row| self.keys[row].id.to_string()))),
            _ => return Err(Error::internal("column of the ticket lists has no values").with_context("column", name)),
        })
    }
}
