//! Finds the rows that a change supersedes, by reading little.
//!
//! The manifest's bounds tell which files can hold a wanted id, and the index of such a file where it stands
//! ([`index`](crate::lake::index)). Of a file without an index the statistics of its row groups are asked (files are sorted
//! by key), and the columns of the key and of the revision are read.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use futures::TryStreamExt;
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use roaring::RoaringBitmap;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::lake::index::{self, Entry, Wanted};
use crate::lake::manifest::DataFile;
use crate::lake::scan::MetadataCache;
use crate::lake::scan::reader::{Access, PinnedReader};
use crate::model::ObjectId;

/// Column of the time of a record's last change.
pub(in crate::lake) const UPDATED_AT: &str = "updated_at";

/// Column of a record's revision.
pub(in crate::lake) const REV: &str = "rev";

/// Files that are asked at once: on a store far away each costs a round trip or two.
const FILES_AT_ONCE: usize = 16;

/// What the files that are asked at once take of memory, in KiB.
const ROOM_KIB: u32 = 16 << 10;

/// A row of a data file whose id was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundKey {
    /// Position in the file.
    pub position: u32,
    /// Id.
    pub id: ObjectId,
    /// `updated_at` in milliseconds since 1970, where the table has it.
    pub updated_at_ms: Option<i64>,
    /// `rev`, where the table has it.
    pub rev: Option<i64>,
    /// Whether the row is the tombstone of a deleted record.
    pub deleted: bool,
    /// Whether a newer revision superseded the row already.
    pub superseded: bool,
}

/// Finds the rows of a file whose ids are wanted, in the order of their positions.
///
/// # Errors
///
/// [`Data`](crate::error::ErrorKind::Data) when the file or its index is missing, damaged or not the one that the manifest
/// names; [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have its key;
/// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store does not answer.
pub async fn find_keys<S: BuildHasher>(
    store: &Arc<dyn ObjectStore>,
    cache: &MetadataCache,
    ring: &KeyRing,
    file: &Arc<DataFile>,
    key_column: &str,
    wanted: &HashSet<ObjectId, S>,
) -> Result<Vec<FoundKey>> {
    let access = Access { store: Arc::clone(store), ring: ring.clone(), cache: cache.clone() };
    find(access, file, key_column, &Wanted::new(wanted.iter().copied()), &RoaringBitmap::new()).await
}

/// Finds the rows of some files that count, superseded by none, and whose ids are wanted; each with the place of its file, in
/// no order.
///
/// Files are asked side by side on all threads: where there are many, opening objects and decrypting are what takes time.
///
/// # Errors
///
/// Those of [`find_keys`].
pub(in crate::lake) async fn find_counting(
    access: &Access,
    files: &[Arc<DataFile>],
    key_column: &'static str,
    ids: impl Iterator<Item = ObjectId>,
) -> Result<Vec<(usize, FoundKey)>> {
    let wanted = Arc::new(Wanted::new(ids));
    let mut waiting = Vec::new();
    for (place, file) in files.iter().enumerate().filter(|(_, file)| file.superseded.len() < file.rows) {
        if !wanted.within(file)?.is_empty() {
            waiting.push((place, Arc::clone(file)));
        }
    }
    let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
    let mut waiting = waiting.into_iter();
    let mut asked = JoinSet::new();
    let mut found = Vec::new();
    loop {
        while asked.len() < FILES_AT_ONCE
            && let Some((place, file)) = waiting.next()
        {
            let (access, wanted, room) = (access.clone(), Arc::clone(&wanted), Arc::clone(&room));
            asked.spawn(async move {
                let _room = room.acquire_many(room_kib(&file)).await;
                let rows = find(access, &file, key_column, &wanted, &file.superseded).await?;
                Ok::<_, Error>((place, rows))
            });
        }
        let Some(answer) = asked.join_next().await else { return Ok(found) };
        let (place, rows) = answer.map_err(|error| Error::internal("a look-up broke off").with_source(error))??;
        found.extend(rows.into_iter().map(|row| (place, row)));
    }
}

/// The memory that a look-up may take: the header of an index as it comes and as it is kept, or the key columns of a row group.
fn room_kib(file: &DataFile) -> u32 {
    let kib = file.index.map_or(ROOM_KIB / 8, |index| u32::try_from(index.header_bytes >> 9).unwrap_or(ROOM_KIB));
    kib.clamp(1, ROOM_KIB)
}

/// Finds the rows of a file that have one of these ids, less those in `skipped`.
async fn find(
    access: Access,
    file: &Arc<DataFile>,
    key_column: &str,
    wanted: &Wanted,
    skipped: &RoaringBitmap,
) -> Result<Vec<FoundKey>> {
    let found = match file.index {
        Some(size) => index::look_up(&access, (file, size), wanted, skipped).await?,
        None => find_in_columns(access, file, key_column, wanted, skipped).await?,
    };
    let key = |(position, entry): (u32, Entry)| FoundKey {
        position,
        id: entry.id,
        updated_at_ms: entry.updated_at_ms,
        rev: entry.rev,
        deleted: file.tombstones.contains(position),
        superseded: file.superseded.contains(position),
    };
    Ok(found.into_iter().map(key).collect())
}

/// Finds rows in a file without an index, by its key columns.
async fn find_in_columns(
    access: Access,
    file: &Arc<DataFile>,
    key_column: &str,
    wanted: &Wanted,
    skipped: &RoaringBitmap,
) -> Result<Vec<(u32, Entry)>> {
    let places = wanted.within(file)?;
    let ids: Vec<ObjectId> = wanted.ids().skip(places.start).take(places.len()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |cause: ParquetError| located(cause, file);
    let reader = PinnedReader::new(access, Arc::clone(file));
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
    let schema = builder.metadata().file_metadata().schema_descr_ptr();
    let Some(key_leaf) = schema.columns().iter().position(|leaf| leaf.path().parts() == [key_column]) else {
        return Err(Error::data("data file has no key column")
            .with_context("file", &file.path)
            .with_context("column", key_column));
    };

    // Row groups that can hold a wanted id, each with the position of its first row.
    let mut first = 0u64;
    let mut groups = Vec::new();
    let mut positions = Vec::new();
    for (number, group) in builder.metadata().row_groups().iter().enumerate() {
        let rows = group.num_rows().unsigned_abs();
        let bounds = bounds_of(group, key_leaf);
        let from = ids.partition_point(|id| bounds.0.is_some_and(|min| *id < min));
        if ids.get(from).is_some_and(|id| is_inside(bounds, *id)) {
            groups.push(number);
            positions.push(first..first + rows);
        }
        first += rows;
    }
    if groups.is_empty() {
        return Ok(Vec::new());
    }

    let mask = ProjectionMask::columns(&schema, [key_column, UPDATED_AT, REV]);
    let mut stream = builder.with_projection(mask).with_row_groups(groups).build().map_err(failed)?;
    let mut positions = positions.into_iter().flatten();
    let mut found = Vec::new();
    while let Some(batch) = stream.try_next().await.map_err(failed)? {
        let columns = Columns::try_new(&batch, key_column).ok_or_else(|| {
            Error::data("key columns of the data file have unknown types").with_context("file", &file.path)
        })?;
        for (row, position) in (0..batch.num_rows()).zip(&mut positions) {
            let Some(id) = columns.id(row) else { continue };
            if !wanted.contains(id) || skipped.contains(position as u32) {
                continue;
            }
            let (updated_at_ms, rev) = (value(columns.updated_at.as_ref(), row), value(columns.rev.as_ref(), row));
            found.push((position as u32, Entry { id, updated_at_ms, rev }));
        }
    }
    Ok(found)
}

/// Keeps the kind of an error of ours that went through the decoder; every other failure of a decoder means damage.
pub(super) fn located(cause: ParquetError, file: &DataFile) -> Error {
    match cause {
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => damaged(&file.path).with_source(other),
        },
        other => damaged(&file.path).with_source(other),
    }
}

/// The error of a file that does not decode.
pub(super) fn damaged(path: &str) -> Error {
    Error::data("failed to decode the data file")
        .with_context("file", path)
        .with_hint("the file was damaged or tampered with: restore it from a backup of the lake")
}

/// The columns that tell revisions apart; those that a small table does not have are absent.
pub(super) struct Columns {
    ids: ArrayRef,
    pub(super) updated_at: Option<ArrayRef>,
    pub(super) rev: Option<ArrayRef>,
}

impl Columns {
    pub(super) fn try_new(batch: &RecordBatch, key_column: &str) -> Option<Self> {
        let instant = DataType::Timestamp(TimeUnit::Millisecond, None);
        let ids = cast(batch.column_by_name(key_column)?, &DataType::Utf8).ok()?;
        let updated_at = match batch.column_by_name(UPDATED_AT) {
            Some(column) => Some(cast(&cast(column, &instant).ok()?, &DataType::Int64).ok()?),
            None => None,
        };
        let rev = match batch.column_by_name(REV) {
            Some(column) => Some(cast(column, &DataType::Int64).ok()?),
            None => None,
        };
        Some(Self { ids, updated_at, rev })
    }

    pub(super) fn id(&self, row: usize) -> Option<ObjectId> {
        let ids = self.ids.as_string::<i32>();
        if ids.is_null(row) { None } else { id(ids.value(row).as_bytes()) }
    }
}

pub(super) fn value(column: Option<&ArrayRef>, row: usize) -> Option<i64> {
    let column = column?.as_primitive::<Int64Type>();
    if column.is_null(row) { None } else { Some(column.value(row)) }
}

fn id(text: &[u8]) -> Option<ObjectId> {
    ObjectId::from_hex(text)
}

fn bounds_of(group: &RowGroupMetaData, key_leaf: usize) -> (Option<ObjectId>, Option<ObjectId>) {
    let statistics = group.columns().get(key_leaf).and_then(|chunk| chunk.statistics());
    (
        statistics.and_then(|statistics| statistics.min_bytes_opt()).and_then(id),
        statistics.and_then(|statistics| statistics.max_bytes_opt()).and_then(id),
    )
}

/// An unknown bound excludes nothing.
fn is_inside((min, max): (Option<ObjectId>, Option<ObjectId>), id: ObjectId) -> bool {
    min.is_none_or(|min| min <= id) && max.is_none_or(|max| id <= max)
}
