//! What one version of the lake holds.
//!
//! A [`Manifest`] is the state that the commits up to a version add up to. It is all that a scan needs: a plan can be
//! rebuilt from it in another process.
//!
//! A commit is checked while it is applied (a path twice, a position past the rows, a file of unknown columns), by the
//! writer before it is put and by each reader after it was opened: a manifest that exists is consistent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::lake::commit::{Action, Commit};
use crate::lake::lists::Recording;
use crate::lake::quarantine::Quarantine;
use crate::lake::run::RunRecord;
use crate::lake::{index, layout, restricted};
use crate::model::{ObjectId, Stream};
use crate::policy::{Rules, holds_pseudonyms};

/// Runs that a manifest holds: the one that comes after them takes the place of the oldest.
pub const KEPT_RUNS: usize = 1_000;

/// The state of the lake at one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// Version, from 1; 0 is the empty lake.
    pub version: u64,
    /// When it was committed, milliseconds since 1970.
    pub committed_ms: i64,
    /// Tables by stream.
    pub tables: BTreeMap<Stream, TableState>,
    /// How far each incremental stream is complete.
    pub watermarks: BTreeMap<Stream, Watermark>,
    /// The newest runs, [`KEPT_RUNS`] at most, oldest first.
    pub runs: Vec<Arc<RunRecord>>,
    /// Version of the pseudonyms in force, once they were rotated: see [`pseudonym_version`](Self::pseudonym_version).
    pub pseudonyms: Option<u32>,
    /// Digest of the policy of the newest commit that had one.
    pub policy: Option<Arc<str>>,
    /// The rules that files, the newest run or the newest commit with a policy name, by digest.
    pub policies: BTreeMap<String, Arc<Rules>>,
    /// Fields that were seen and not stored, by stream.
    pub quarantine: BTreeMap<Stream, Arc<Quarantine>>,
    /// Recordings of ticket lists, oldest first.
    pub lists: Vec<Arc<Recording>>,
}

/// A table: its columns (the union over its history) and files.
#[derive(Debug, Clone, PartialEq)]
pub struct TableState {
    /// Columns; field metadata carries `unit`, `class`, `method` and `description`.
    pub schema: SchemaRef,
    /// Data files, oldest first.
    pub files: Vec<Arc<DataFile>>,
}

/// One immutable Parquet file, with the rows of it that no longer count.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Path under the lake's root, `data/<table>/<uuid>.parquet`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// SHA-256 of the file's tail: from the first byte of the footer's crypto metadata to the end.
    pub pin: [u8; 32],
    /// Length of that tail in bytes.
    pub tail_bytes: u64,
    /// Smallest key (record id as text).
    pub min_key: String,
    /// Largest key.
    pub max_key: String,
    /// Smallest and largest `updated_at`, milliseconds since 1970, where the table has it.
    pub updated_ms: Option<(i64, i64)>,
    /// Smallest and largest `created_at` that is stored, milliseconds since 1970, where the table has such a column: ids
    /// come in the order of creation, so that a filter by it leaves most files alone.
    pub created_ms: Option<(i64, i64)>,
    /// Digest of the policy that made it, hex; several joined by `+` where later policies restated what is stored, and rows
    /// still lack what the last of them would store.
    pub policy: Arc<str>,
    /// Columns of the file; each is a column of the table, of the same type.
    pub schema: SchemaRef,
    /// SHA-256 over the whole table's rows, where the table was replaced as a whole: how a replacement by the same
    /// rows is recognized.
    pub content: Option<[u8; 32]>,
    /// The first and the last version in which rows of the file came into the lake; files that are joined span theirs. It is
    /// absent only until the commit that adds the file is applied.
    pub appended: Option<(u64, u64)>,
    /// Version of pseudonyms that was in force when it was written: that of its own, where it holds any.
    pub pseudonyms: u32,
    /// Rows (positions in the file) that a newer revision has superseded.
    pub superseded: RoaringBitmap,
    /// Rows (positions in the file) that are tombstones of deleted records.
    pub tombstones: RoaringBitmap,
    /// The index of ids that stands beside the file, where it has one.
    pub index: Option<IndexSize>,
    /// The key of the restricted ring that wraps the key of the file's restricted columns, where it has any.
    pub restricted_key: Option<Arc<str>>,
    /// The recording whose ids it holds: there is one exactly in the table of ticket lists.
    pub recording: Option<Arc<str>>,
}

/// How long a file's index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IndexSize {
    /// The sealed header, which stands first.
    pub header_bytes: u64,
    /// The whole object.
    pub bytes: u64,
}

impl Default for DataFile {
    fn default() -> Self {
        Self {
            path: String::new(),
            bytes: 0,
            rows: 0,
            pin: [0; 32],
            tail_bytes: 0,
            min_key: String::new(),
            max_key: String::new(),
            updated_ms: None,
            created_ms: None,
            policy: Arc::from(""),
            schema: Arc::new(Schema::empty()),
            content: None,
            appended: None,
            pseudonyms: 1,
            superseded: RoaringBitmap::new(),
            tombstones: RoaringBitmap::new(),
            index: None,
            restricted_key: None,
            recording: None,
        }
    }
}

impl DataFile {
    /// Returns how many rows are neither superseded nor tombstones.
    #[must_use]
    pub fn live_rows(&self) -> u64 {
        self.rows.saturating_sub((&self.superseded | &self.tombstones).len())
    }

    /// Returns the path of the index, where the file has one.
    #[must_use]
    pub fn index_path(&self) -> Option<String> {
        self.index.map(|_| layout::index_of(&self.path))
    }

    /// Returns the smallest and the largest key.
    pub(super) fn key_range(&self) -> Result<(ObjectId, ObjectId)> {
        let range = ObjectId::from_hex(self.min_key.as_bytes()).zip(ObjectId::from_hex(self.max_key.as_bytes()));
        range.filter(|(min, max)| min <= max).ok_or_else(|| {
            Error::data("the keys of a data file are not a range of record ids").with_context("file", &self.path)
        })
    }

    fn check(&self, stream: Stream) -> Result<()> {
        let wrong =
            |message| Err(Error::data(message).with_context("file", &self.path).with_context("rows", self.rows));
        if !layout::is_data_file(stream, &self.path) {
            return wrong("the path of a data file is not one of its table");
        }
        if self.rows == 0 || self.rows > u64::from(u32::MAX) {
            return wrong("a data file has no rows, or more than positions can count");
        }
        if self.appended.is_some_and(|(first, last)| first > last) {
            return wrong("the rows of a data file came in before they came");
        }
        if self.tail_bytes > self.bytes {
            return wrong("the tail of a data file is longer than the file");
        }
        if [&self.superseded, &self.tombstones].iter().any(|rows| !fits(rows, self.rows)) {
            return wrong("a row position lies beyond a data file's rows");
        }
        if self.restricted_key.is_some() != restricted::columns(&self.schema).next().is_some() {
            return wrong("a data file has restricted columns without a key for them, or such a key without columns");
        }
        if self.recording.is_some() != (stream == Stream::TicketLists) {
            return wrong("a data file of ticket lists names no recording, or one of another table does");
        }
        if self.index.is_some_and(|index| !index::is_size_of(index, self.rows)) {
            return wrong("the length of a data file's index does not go with its rows");
        }
        self.key_range().map(drop)
    }
}

fn fits(positions: &RoaringBitmap, rows: u64) -> bool {
    positions.max().is_none_or(|last| u64::from(last) < rows)
}

/// How far a stream is complete.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Watermark {
    /// Every record whose `updated_at` lies before this is in the lake, milliseconds since 1970.
    pub complete_through_ms: Option<i64>,
    /// Where that begins, when a first run was told to leave older records out; from the beginning when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_from_ms: Option<i64>,
    /// End of the range that an unfinished run was walking.
    pub target_ms: Option<i64>,
    /// The parts `[from, to)` of that range which are still to be walked.
    pub remaining_ms: Vec<(i64, i64)>,
}

impl Manifest {
    /// Returns the version of the pseudonyms in force: every pseudonym in its files is of this version.
    #[must_use]
    pub fn pseudonym_version(&self) -> u32 {
        self.pseudonyms.unwrap_or(1)
    }

    /// Applies the next commit; after an error the manifest is not to be used.
    pub(super) fn apply(&mut self, commit: Commit) -> Result<()> {
        if commit.version != self.version + 1 {
            return Err(Error::data("a commit does not follow the version before it")
                .with_context("version", commit.version)
                .with_context("before", self.version));
        }
        if commit.committed_ms < self.committed_ms {
            return Err(
                Error::data("a commit is older than the version before it").with_context("version", commit.version)
            );
        }
        self.apply_actions(commit)
    }

    /// Makes the manifest that a snapshot describes.
    pub(super) fn from_snapshot(snapshot: Commit) -> Result<Self> {
        let mut manifest = Self::default();
        manifest.apply_actions(snapshot)?;
        Ok(manifest)
    }

    /// Describes the manifest as the commit that makes it out of nothing.
    pub(super) fn to_snapshot(&self, id: String, writer: String) -> Commit {
        // Files that follow are checked against the version of pseudonyms.
        let mut actions: Vec<Action> = self.pseudonyms.map(Action::Pseudonyms).into_iter().collect();
        let policies = self.policies.values().map(|rules| Action::Policy(Arc::clone(rules)));
        actions.extend(policies);
        // Files of the ticket lists are checked against them.
        actions.extend(self.lists.iter().map(|recording| Action::List(Arc::clone(recording))));
        for (stream, table) in &self.tables {
            actions.push(Action::Declare(*stream, Arc::clone(&table.schema)));
            actions.extend(table.files.iter().map(|file| Action::Add(*stream, Arc::clone(file))));
        }
        actions.extend(self.watermarks.iter().map(|(stream, to)| Action::Watermark(*stream, to.clone())));
        actions.extend(self.runs.iter().map(|run| Action::Run(Arc::clone(run))));
        let quarantine = self.quarantine.iter();
        actions.extend(quarantine.map(|(stream, kept)| Action::Quarantine(*stream, Arc::new(kept.to_seen()))));
        let policy = self.policy.clone();
        Commit { version: self.version, id, committed_ms: self.committed_ms, writer, policy, actions }
    }

    /// Refuses files that a new version of pseudonyms has left behind.
    fn check_pseudonyms(&self) -> Result<()> {
        let in_force = self.pseudonym_version();
        self.tables.values().flat_map(|table| &table.files).try_for_each(|file| check_pseudonyms(file, in_force))
    }

    fn apply_actions(&mut self, commit: Commit) -> Result<()> {
        let (version, pseudonyms) = (commit.version, self.pseudonyms);
        if commit.policy.is_some() {
            self.policy = commit.policy;
        }
        let mut changes = Changes { manifest: self, version, places: HashMap::new(), gone: HashMap::new() };
        for action in commit.actions {
            changes.apply(action).map_err(|error| error.with_context("version", version))?;
        }
        changes.settle_all();
        if self.pseudonyms != pseudonyms {
            self.check_pseudonyms().map_err(|error| error.with_context("version", version))?;
        }
        self.version = version;
        self.committed_ms = commit.committed_ms;
        self.forget_policies();
        Ok(())
    }

    /// Forgets the rules that nothing names any more; that the present ones stay needs no look at the files.
    fn forget_policies(&mut self) {
        let is_present = |digest: &str| self.policy.as_deref() == Some(digest);
        if self.policies.keys().all(|digest| is_present(digest)) {
            return;
        }
        let files = self.tables.values().flat_map(|table| &table.files);
        let mut named: HashSet<&str> = files.flat_map(|file| file.policy.split('+')).collect();
        named.extend(self.policy.as_deref());
        named.extend(self.runs.last().map(|run| run.policy.as_str()));
        self.policies.retain(|digest, _| named.contains(digest.as_str()));
    }
}

/// Refuses a file whose pseudonyms are not of the version in force.
fn check_pseudonyms(file: &DataFile, in_force: u32) -> Result<()> {
    if file.pseudonyms == in_force || !holds_pseudonyms(&file.schema) {
        return Ok(());
    }
    Err(Error::data("the pseudonyms of a data file are not of the version in force")
        .with_context("file", &file.path)
        .with_context("pseudonyms", file.pseudonyms)
        .with_context("in force", in_force))
}

/// A manifest under change, with the place of each file by its path.
struct Changes<'a> {
    manifest: &'a mut Manifest,
    version: u64,
    places: HashMap<Stream, HashMap<String, usize>>,
    /// Places of files that have left their table and still stand in its list: to close each gap at once would take as many
    /// steps as there are files.
    gone: HashMap<Stream, HashSet<usize>>,
}

impl Changes<'_> {
    fn apply(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Policy(rules) => {
                self.manifest.policies.insert(rules.digest.clone(), rules);
                Ok(())
            }
            Action::Declare(stream, columns) => self.declare(stream, columns),
            Action::Redeclare(stream, columns) => self.redeclare(stream, columns),
            Action::Add(stream, file) => self.add(stream, file),
            Action::Remove(stream, path) => self.remove(stream, &path),
            Action::Supersede(stream, path, rows) => self.supersede(stream, &path, &rows),
            Action::Pseudonyms(to) => {
                let present = self.manifest.pseudonym_version();
                if to <= present {
                    return Err(Error::data("pseudonyms go back to a version")
                        .with_context("in force", present)
                        .with_context("to", to));
                }
                self.manifest.pseudonyms = Some(to);
                Ok(())
            }
            Action::Watermark(stream, to) => {
                self.manifest.watermarks.insert(stream, to);
                Ok(())
            }
            Action::Run(run) => {
                let runs = &mut self.manifest.runs;
                // A run that is told anew is nearly always the newest.
                if let Some(known) = runs.iter_mut().rev().find(|known| known.id == run.id) {
                    *known = run;
                } else {
                    runs.push(run);
                    if runs.len() > KEPT_RUNS {
                        runs.remove(0);
                    }
                }
                Ok(())
            }
            Action::List(recording) => {
                let lists = &mut self.manifest.lists;
                match lists.iter_mut().find(|known| known.id == recording.id) {
                    Some(known) => *known = recording,
                    None => lists.push(recording),
                }
                Ok(())
            }
            Action::Unlist(id) => self.unlist(&id),
            Action::Quarantine(stream, seen) => {
                Arc::make_mut(self.manifest.quarantine.entry(stream).or_default()).apply(&seen);
                Ok(())
            }
        }
    }

    fn unlist(&mut self, id: &str) -> Result<()> {
        self.settle(Stream::TicketLists);
        let table = self.manifest.tables.get(&Stream::TicketLists);
        let files = table.map_or(&[][..], |table| &table.files);
        if let Some(file) = files.iter().find(|file| file.recording.as_deref() == Some(id)) {
            return Err(Error::data("a recording is forgotten that a data file holds the ids of")
                .with_context("file", &file.path)
                .with_context("recording", id));
        }
        self.manifest.lists.retain(|known| known.id != id);
        Ok(())
    }

    fn declare(&mut self, stream: Stream, columns: SchemaRef) -> Result<()> {
        self.settle(stream);
        let table = self.manifest.tables.get_mut(&stream);
        // Without files nothing holds the old columns.
        if let Some(table) = table.filter(|table| !table.files.is_empty()) {
            let union = union(&table.schema, &columns).map_err(|change| {
                Error::data("a column changes its type")
                    .with_context("table", stream)
                    .with_context("column", change.column)
            })?;
            table.schema = Arc::new(union);
        } else {
            self.manifest.tables.insert(stream, TableState { schema: columns, files: Vec::new() });
        }
        Ok(())
    }

    fn redeclare(&mut self, stream: Stream, columns: SchemaRef) -> Result<()> {
        self.settle(stream);
        let table = self.table(stream)?;
        for file in &table.files {
            if let Some(column) = missing_column(&columns, &file.schema) {
                return Err(Error::data("a table gives up a column that a data file has")
                    .with_context("file", &file.path)
                    .with_context("column", column.name()));
            }
        }
        table.schema = columns;
        Ok(())
    }

    fn add(&mut self, stream: Stream, mut file: Arc<DataFile>) -> Result<()> {
        file.check(stream)?;
        check_pseudonyms(&file, self.manifest.pseudonym_version())?;
        if let Some(id) = file.recording.as_deref()
            && !self.manifest.lists.iter().any(|known| known.id == id)
        {
            return Err(Error::data("a data file holds the ids of a recording that is not there")
                .with_context("file", &file.path)
                .with_context("recording", id));
        }
        if file.appended.is_none() {
            Arc::make_mut(&mut file).appended = Some((self.version, self.version));
        }
        let table = self.table(stream)?;
        if let Some(column) = missing_column(&table.schema, &file.schema) {
            return Err(Error::data("a data file has a column that its table has not")
                .with_context("file", &file.path)
                .with_context("column", column.name()));
        }
        let next = table.files.len();
        if self.places(stream)?.insert(file.path.clone(), next).is_some() {
            return Err(Error::data("a data file is added twice").with_context("file", &file.path));
        }
        self.table(stream)?.files.push(file);
        Ok(())
    }

    fn remove(&mut self, stream: Stream, path: &str) -> Result<()> {
        let place = self.place(stream, path)?;
        self.places(stream)?.remove(path);
        self.gone.entry(stream).or_default().insert(place);
        Ok(())
    }

    /// Takes the files that have left a table out of its list.
    fn settle(&mut self, stream: Stream) {
        let Some(gone) = self.gone.remove(&stream) else { return };
        if let Some(table) = self.manifest.tables.get_mut(&stream) {
            let mut places = 0..;
            table.files.retain(|_| places.next().is_none_or(|place| !gone.contains(&place)));
        }
        // Later files have moved up.
        self.places.remove(&stream);
    }

    fn settle_all(&mut self) {
        let streams: Vec<Stream> = self.gone.keys().copied().collect();
        for stream in streams {
            self.settle(stream);
        }
    }

    fn supersede(&mut self, stream: Stream, path: &str, rows: &RoaringBitmap) -> Result<()> {
        let place = self.place(stream, path)?;
        let file = &mut self.table(stream)?.files[place];
        if !fits(rows, file.rows) {
            return Err(Error::data("a row position lies beyond a data file's rows")
                .with_context("file", path)
                .with_context("rows", file.rows));
        }
        Arc::make_mut(file).superseded |= rows;
        Ok(())
    }

    fn table(&mut self, stream: Stream) -> Result<&mut TableState> {
        let table = self.manifest.tables.get_mut(&stream);
        table.ok_or_else(|| Error::data("a commit changes a table that was not declared").with_context("table", stream))
    }

    fn places(&mut self, stream: Stream) -> Result<&mut HashMap<String, usize>> {
        if !self.places.contains_key(&stream) {
            let files = &self.table(stream)?.files;
            let places = files.iter().enumerate().map(|(place, file)| (file.path.clone(), place)).collect();
            self.places.insert(stream, places);
        }
        Ok(self.places.entry(stream).or_default())
    }

    fn place(&mut self, stream: Stream, path: &str) -> Result<usize> {
        let place = self.places(stream)?.get(path).copied();
        place.ok_or_else(|| {
            Error::data("a commit changes a data file that is not in its table").with_context("file", path)
        })
    }
}

/// A column that has one type in a table and another in new rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TypeChange {
    /// The column.
    pub(super) column: String,
    /// Its type in the table.
    pub(super) table: DataType,
    /// Its type in the rows.
    pub(super) rows: DataType,
}

/// Joins the columns of a table with those of new rows.
///
/// The table's order stays and new columns follow. A column that either side lacks is nullable. Metadata (descriptions,
/// methods) is the rows', because it is newer.
pub(super) fn union(table: &Schema, rows: &Schema) -> Result<Schema, TypeChange> {
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(table.fields().len());
    for field in table.fields() {
        let Ok(newer) = rows.field_with_name(field.name()) else {
            fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            continue;
        };
        if !field.data_type().equals_datatype(newer.data_type()) {
            return Err(TypeChange {
                column: field.name().clone(),
                table: field.data_type().clone(),
                rows: newer.data_type().clone(),
            });
        }
        fields.push(Arc::new(newer.clone().with_nullable(field.is_nullable() || newer.is_nullable())));
    }
    let added = rows.fields().iter().filter(|field| table.field_with_name(field.name()).is_err());
    fields.extend(added.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
    Ok(Schema::new_with_metadata(fields, table.metadata().clone()))
}

/// Finds a column of `rows` that `schema` does not have of the same type.
pub(super) fn missing_column<'a>(schema: &Schema, rows: &'a Schema) -> Option<&'a Field> {
    let is_same = |known: &Field, column: &Field| {
        known.name() == column.name() && known.data_type().equals_datatype(column.data_type())
    };
    // Nearly always it stands at the same place: to search for each of some hundred columns takes long for many files.
    let has = |place: usize, column: &Field| {
        schema.fields().get(place).is_some_and(|known| is_same(known, column))
            || schema.fields().iter().any(|known| is_same(known, column))
    };
    rows.fields().iter().enumerate().find(|(place, column)| !has(*place, column)).map(|(_, column)| column.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::lake::quarantine::Seen;

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect();
        Arc::new(Schema::new(fields))
    }

    fn two_columns() -> SchemaRef {
        schema(&[("ticket_id", DataType::Utf8), ("rev", DataType::Int64)])
    }

    fn path(number: u8) -> String {
        format!("data/tickets/0198d2a0-0000-7000-8000-0000000000{number:02x}.parquet")
    }

    fn file(number: u8, rows: u64) -> DataFile {
        DataFile {
            path: path(number),
            rows,
            min_key: "000000000000000000000001".to_owned(),
            max_key: "0000000000000000000000ff".to_owned(),
            schema: two_columns(),
            ..DataFile::default()
        }
    }

    fn commit(version: u64, actions: Vec<Action>) -> Commit {
        Commit { version, id: version.to_string(), committed_ms: 5, writer: String::new(), policy: None, actions }
    }

    fn add(file: DataFile) -> Action {
        Action::Add(Stream::Tickets, Arc::new(file))
    }

    fn supersede(number: u8, rows: &[u32]) -> Action {
        Action::Supersede(Stream::Tickets, path(number), rows.iter().copied().collect())
    }

    fn base() -> Manifest {
        let mut manifest = Manifest::default();
        let actions = vec![
            Action::Declare(Stream::Tickets, two_columns()),
            add(file(1, 10)),
            add(file(2, 10)),
            supersede(1, &[3]),
            supersede(1, &[3, 9]),
            Action::Watermark(Stream::Tickets, Watermark { complete_through_ms: Some(1), ..Watermark::default() }),
            Action::Run(Arc::new(RunRecord { id: "a".to_owned(), ..RunRecord::default() })),
            Action::Run(Arc::new(RunRecord { id: "b".to_owned(), ..RunRecord::default() })),
            Action::Run(Arc::new(RunRecord {
                id: "a".to_owned(),
                outcome: "complete".to_owned(),
                ..RunRecord::default()
            })),
            Action::Quarantine(
                Stream::Tickets,
                Arc::new(Seen { attributes: Some([("tierStr".to_owned(), false)].into()), ..Seen::default() }),
            ),
        ];
        manifest.apply(commit(1, actions)).unwrap();
        manifest
    }

    #[test]
    fn actions_add_up() {
        let manifest = base();
        let files = &manifest.tables[&Stream::Tickets].files;
        assert_eq!(files.iter().map(|file| file.live_rows()).collect::<Vec<_>>(), [8, 10]);
        assert_eq!(
            manifest.runs.iter().map(|run| (run.id.as_str(), run.outcome.as_str())).collect::<Vec<_>>(),
            [("a", "complete"), ("b", "")]
        );
        let mut next = manifest.clone();
        next.apply(commit(2, vec![Action::Remove(Stream::Tickets, path(1)), supersede(2, &[0]), add(file(1, 4))]))
            .unwrap();
        let files = &next.tables[&Stream::Tickets].files;
        assert_eq!(
            files.iter().map(|file| (file.path.clone(), file.live_rows())).collect::<Vec<_>>(),
            [(path(2), 9), (path(1), 4)]
        );
        assert_eq!(manifest.tables[&Stream::Tickets].files[0].live_rows(), 8, "a version never changes");
    }

    #[test]
    fn snapshot_makes_the_same_manifest() {
        let manifest = base();
        let snapshot = manifest.to_snapshot("id".to_owned(), "writer".to_owned());
        let decoded = Commit::decode("s", &snapshot.encode().unwrap()).unwrap();
        assert_eq!(Manifest::from_snapshot(decoded).unwrap(), manifest);
    }

    #[test]
    fn inconsistent_commits_are_data_errors() {
        let foreign = "data/customers/0198d2a0-0000-7000-8000-000000000009.parquet".to_owned();
        let wide = schema(&[("ticket_id", DataType::Utf8), ("secret", DataType::Utf8)]);
        let retyped = schema(&[("rev", DataType::Utf8)]);
        let cases = [
            ("file added twice", 2, vec![add(file(1, 1))]),
            ("file added twice in one commit", 2, vec![add(file(3, 1)), add(file(3, 1))]),
            ("position beyond rows", 2, vec![supersede(2, &[10])]),
            ("tombstone beyond rows", 2, vec![add(DataFile { tombstones: [1].into_iter().collect(), ..file(3, 1) })]),
            ("unknown file superseded", 2, vec![supersede(3, &[0])]),
            ("unknown file removed", 2, vec![Action::Remove(Stream::Tickets, path(3))]),
            ("removed file superseded", 2, vec![Action::Remove(Stream::Tickets, path(1)), supersede(1, &[0])]),
            ("undeclared table", 2, vec![Action::Remove(Stream::Tags, path(1))]),
            ("undeclared column", 2, vec![add(DataFile { schema: wide, ..file(3, 1) })]),
            ("column of another type", 2, vec![add(DataFile { schema: Arc::clone(&retyped), ..file(3, 1) })]),
            ("declared of another type", 2, vec![Action::Declare(Stream::Tickets, retyped)]),
            ("path of another table", 2, vec![add(DataFile { path: foreign, ..file(3, 1) })]),
            (
                "path that climbs",
                2,
                vec![add(DataFile { path: "data/tickets/../../x.parquet".to_owned(), ..file(3, 1) })],
            ),
            (
                "index longer than its rows",
                2,
                vec![add(DataFile { index: Some(IndexSize { header_bytes: 100, bytes: 1 << 40 }), ..file(3, 1) })],
            ),
            ("no rows", 2, vec![add(file(3, 0))]),
            ("more rows than positions", 2, vec![add(file(3, 1 << 32))]),
            ("keys that are no ids", 2, vec![add(DataFile { min_key: "a".to_owned(), ..file(3, 1) })]),
            ("keys that are no range", 2, vec![add(DataFile { min_key: "f".repeat(24), ..file(3, 1) })]),
            ("version skipped", 3, vec![]),
            ("version repeated", 1, vec![]),
        ];
        for (name, version, actions) in cases {
            let error = base().apply(commit(version, actions)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{name}: {error}");
        }
        let earlier = Commit { committed_ms: 4, ..commit(2, vec![]) };
        assert_eq!(base().apply(earlier).unwrap_err().kind(), ErrorKind::Data);
    }

    #[test]
    fn union_keeps_the_order_and_makes_missing_columns_nullable() {
        let table = schema(&[("id", DataType::Utf8), ("old", DataType::Int64)]);
        let rows = schema(&[("new", DataType::Boolean), ("id", DataType::Utf8)]);
        let union = union(&table, &rows).unwrap();
        let columns: Vec<_> = union.fields().iter().map(|field| (field.name().as_str(), field.is_nullable())).collect();
        assert_eq!(columns, [("id", false), ("old", true), ("new", true)]);
        assert_eq!(super::union(&union, &rows).unwrap(), union, "joining again changes nothing");
        let change = super::union(&table, &schema(&[("old", DataType::Utf8)])).unwrap_err();
        assert_eq!(change, TypeChange { column: "old".to_owned(), table: DataType::Int64, rows: DataType::Utf8 });
    }

    #[test]
    fn table_without_files_takes_columns_of_any_type() {
        let mut manifest = base();
        let retyped = schema(&[("rev", DataType::Utf8)]);
        let removed = [path(1), path(2)].map(|path| Action::Remove(Stream::Tickets, path));
        let declared = Action::Declare(Stream::Tickets, Arc::clone(&retyped));
        manifest.apply(commit(2, removed.into_iter().chain([declared]).collect())).unwrap();
        assert_eq!(manifest.tables[&Stream::Tickets].schema, retyped);
    }
}
