//! Merging rows into a table: which of them are new, which supersede what, which are there already.
//!
//! A revision is newer than another of the same id by `updated_at`, then `rev`, then by being a tombstone, so that a
//! search index that lags behind a deletion does not bring the record back. The order does not depend on which came
//! first: the same records in any order and any number of transactions end in the same live rows. Corrections are the
//! exception: rows read by id, which is later than any index, supersede the same revision, so that a record whose
//! tombstone was a mistake comes back, and a ticket that moved without a new revision moves here too.
//!
//! Ids are looked up in the files whose key range can hold them, by the index of each ([`index`](crate::lake::index)).

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::row::{RowConverter, SortField};
use object_store::ObjectStore;
use ring::digest::{Context, SHA256};
use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::lake::manifest::{DataFile, missing_column};
use crate::lake::scan::{self, Access, MetadataCache};
use crate::lake::transaction::RowCounts;
use crate::model::ObjectId;
use crate::policy::{RecordKey, RedactedBatch, SortedRows};

/// Rows of one stream in key order, each id once.
pub(super) struct Incoming {
    rows: SortedRows,
    /// Ids whose rows are known to differ from those of the same revision.
    corrected: HashSet<ObjectId>,
}

impl Incoming {
    /// Joins batches of one stream and keeps the newest revision of each id.
    pub(super) fn try_new(batches: &[RedactedBatch]) -> Result<Self> {
        let rows = SortedRows::try_new(batches)?;
        let newest = newest_per_id(rows.keys());
        let rows = if newest.true_count() == newest.len() { rows } else { rows.filter(&newest)? };
        Ok(Self { rows, corrected: HashSet::new() })
    }

    /// Names the ids whose rows supersede those of the same revision too.
    pub(super) fn with_corrected(self, corrected: HashSet<ObjectId>) -> Self {
        Self { corrected, ..self }
    }

    pub(super) fn rows(&self) -> &SortedRows {
        &self.rows
    }

    /// Computes the SHA-256 of the rows by value: policy, column names and types, then each row.
    ///
    /// Values are taken in Arrow's row format, so that it does not matter how the arrays came about.
    pub(super) fn content(&self) -> Result<[u8; 32]> {
        let failed = |error| Error::internal("failed to digest a table's rows").with_source(error);
        let mut digest = Context::new(&SHA256);
        let mut update = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        update(self.rows.policy().as_bytes());
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (index, field) in self.rows.schema().fields().iter().enumerate() {
            update(field.name().as_bytes());
            update(field.data_type().to_string().as_bytes());
            fields.push(SortField::new(field.data_type().clone()));
            columns.push(self.rows.column(index, 0..self.rows.keys().len())?);
        }
        let rows = RowConverter::new(fields).and_then(|converter| converter.convert_columns(&columns));
        let rows = rows.map_err(failed)?;
        for (row, key) in rows.iter().zip(self.rows.keys()) {
            update(row.as_ref());
            // Not every table shows its revision and its tombstones as columns.
            update(&[u8::from(key.deleted)]);
            update(&key.rev.unwrap_or(i64::MIN).to_le_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        Ok(bytes)
    }
}

/// What a merge comes to.
pub(super) struct Merged {
    /// The incoming rows that are to be written.
    pub(super) kept: BooleanArray,
    /// Rows that no longer count, by path of their file.
    pub(super) superseded: BTreeMap<String, RoaringBitmap>,
    /// What happened to the incoming rows.
    pub(super) counts: RowCounts,
}

/// Compares incoming rows with those of a table's files.
pub(super) async fn merge(
    store: &Arc<dyn ObjectStore>,
    cache: &MetadataCache,
    ring: &KeyRing,
    files: &[Arc<DataFile>],
    incoming: &Incoming,
) -> Result<Merged> {
    let rows = &incoming.rows;
    let ids: Vec<ObjectId> = rows.keys().iter().map(|key| key.id).collect();
    let access = Access { store: Arc::clone(store), ring: ring.clone(), cache: cache.clone() };
    let found = scan::find_counting(&access, files, rows.stream().key_column(), ids.iter().copied()).await?;
    let mut present: HashMap<ObjectId, Vec<Present>> = HashMap::new();
    let mut current: HashMap<usize, bool> = HashMap::new();
    for (place, row) in found {
        let file = &files[place];
        let is_current = || file.policy == *rows.policy() && missing_column(&file.schema, rows.schema()).is_none();
        let current = *current.entry(place).or_insert_with(is_current);
        let key = RecordKey { id: row.id, updated_at_ms: row.updated_at_ms, rev: row.rev, deleted: row.deleted };
        present.entry(row.id).or_default().push(Present { file: place, position: row.position, key, current });
    }
    let mut merged = Merged {
        kept: BooleanArray::from(Vec::<bool>::new()),
        superseded: BTreeMap::new(),
        counts: RowCounts::default(),
    };
    let mut kept = Vec::with_capacity(ids.len());
    for key in rows.keys() {
        let old = present.get(&key.id).map_or(&[][..], Vec::as_slice);
        let is_corrected = incoming.corrected.contains(&key.id);
        let keep = old.iter().all(|old| old.gives_way_to(key) || (is_corrected && old.is_no_later_than(key)));
        kept.push(keep);
        merged.counts.add(key, keep, !old.is_empty());
        for old in old.iter().filter(|_| keep) {
            merged.superseded.entry(files[old.file].path.clone()).or_default().insert(old.position);
        }
    }
    merged.kept = BooleanArray::from(kept);
    Ok(merged)
}

/// A row of the table that counts.
struct Present {
    file: usize,
    position: u32,
    key: RecordKey,
    /// Whether its file was made by the same policy and has all columns of the incoming rows.
    current: bool,
}

impl Present {
    fn gives_way_to(&self, incoming: &RecordKey) -> bool {
        match revision_order(&self.key, incoming) {
            Ordering::Less => true,
            Ordering::Greater => false,
            // Without any revision nothing shows that the record is the same.
            Ordering::Equal => !self.current || (incoming.rev.is_none() && incoming.updated_at_ms.is_none()),
        }
    }

    /// Tells whether the revision is the same or an earlier one, deleted or not.
    fn is_no_later_than(&self, incoming: &RecordKey) -> bool {
        (self.key.updated_at_ms, self.key.rev) <= (incoming.updated_at_ms, incoming.rev)
    }
}

impl RowCounts {
    fn add(&mut self, key: &RecordKey, kept: bool, known: bool) {
        let count = match (kept, key.deleted, known) {
            (false, ..) => &mut self.unchanged,
            (true, true, _) => &mut self.deleted,
            (true, false, true) => &mut self.updated,
            (true, false, false) => &mut self.inserted,
        };
        *count += 1;
    }
}

fn revision_order(left: &RecordKey, right: &RecordKey) -> Ordering {
    let revision = |key: &RecordKey| (key.updated_at_ms, key.rev, key.deleted);
    revision(left).cmp(&revision(right))
}

/// Marks the newest revision of each id; keys of one id stand side by side.
fn newest_per_id(keys: &[RecordKey]) -> BooleanArray {
    let mut newest = vec![false; keys.len()];
    let mut start = 0;
    for same in keys.chunk_by(|left, right| left.id == right.id) {
        // Of equal revisions the last.
        let best = (0..same.len()).max_by(|left, right| revision_order(&same[*left], &same[*right]));
        newest[start + best.unwrap_or(0)] = true;
        start += same.len();
    }
    BooleanArray::from(newest)
}
