//! A data file that is held whole, as it is stored, of which columns are decoded one at a time.
//!
//! It is trusted no further than a scan trusts it: the bytes have the manifest's length, the tail is opened through its pin,
//! and the modules of each column chunk are checked before the decoder sees any. What is held is ciphertext.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::concat;
use bytes::Bytes;
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use crate::error::{Error, Result};
use crate::keys::{KeyRing, Right};
use crate::lake::file::open_tail;
use crate::lake::manifest::DataFile;
use crate::lake::restricted;
use crate::lake::scan::MetadataCache;
use crate::lake::scan::find::{Columns, REV, UPDATED_AT, damaged, located, value};
use crate::lake::scan::reader::{Access, Object, check_chunks};
use crate::policy::RecordKey;

/// Rows of a batch while keys are read.
const BATCH_ROWS: usize = 8_192;

/// A data file in memory, encrypted.
pub(in crate::lake) struct WholeFile {
    file: Arc<DataFile>,
    ring: KeyRing,
    bytes: Bytes,
    reader: ArrowReaderMetadata,
}

impl WholeFile {
    /// Reads a file and checks what can be checked before it is decoded.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the file is missing, damaged or not the one that the manifest pins;
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have its key;
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store does not answer.
    pub(in crate::lake) async fn fetch(
        store: &Arc<dyn ObjectStore>,
        ring: &KeyRing,
        file: &Arc<DataFile>,
    ) -> Result<Self> {
        // Each file is read once: a cache would only hold what is not asked for again.
        let access = Access { store: Arc::clone(store), ring: ring.clone(), cache: MetadataCache::with_capacity(0) };
        let range = 0..file.bytes;
        let bytes =
            access.ranges(Object::data_file(file), std::slice::from_ref(&range)).await?.pop().unwrap_or_default();
        let tail = usize::try_from(file.tail_bytes).ok().and_then(|tail| bytes.len().checked_sub(tail));
        let tail = tail.ok_or_else(|| damaged(&file.path))?;
        let metadata = open_tail(file, &bytes.slice(tail..), ring)?;
        check_chunks(file, &metadata, &range, &bytes)?;
        let reader = ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new());
        let reader = reader.map_err(|cause| located(cause, file))?;
        Ok(Self { file: Arc::clone(file), ring: ring.clone(), bytes, reader })
    }

    /// Returns the entry by which it was read.
    pub(in crate::lake) fn file(&self) -> &Arc<DataFile> {
        &self.file
    }

    /// Decodes the keys of all rows, in their order.
    pub(in crate::lake) fn keys(&self, key_column: &str) -> Result<Vec<RecordKey>> {
        let mask = ProjectionMask::columns(self.reader.parquet_schema(), [key_column, UPDATED_AT, REV]);
        let builder = self.builder().with_projection(mask).with_batch_size(BATCH_ROWS);
        let mut keys = Vec::with_capacity(self.rows());
        for batch in self.decode(builder)? {
            let columns = Columns::try_new(&batch, key_column).ok_or_else(|| damaged(&self.file.path))?;
            for row in 0..batch.num_rows() {
                keys.push(RecordKey {
                    id: columns.id(row).ok_or_else(|| damaged(&self.file.path))?,
                    updated_at_ms: value(columns.updated_at.as_ref(), row),
                    rev: value(columns.rev.as_ref(), row),
                    deleted: u32::try_from(keys.len()).is_ok_and(|row| self.file.tombstones.contains(row)),
                });
            }
        }
        if keys.len() == self.rows() { Ok(keys) } else { Err(damaged(&self.file.path)) }
    }

    /// Decodes rows (ascending) of a column; `None` where the file lacks it, its statistics say that it holds nothing, or the
    /// key of its restricted columns was destroyed.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) for a restricted column whose key the ring does not have: a caller that took
    /// its values for null would lose them.
    pub(in crate::lake) fn column(&self, name: &str, rows: &[u32]) -> Result<Option<ArrayRef>> {
        let Some((first, last)) = rows.first().zip(rows.last()) else { return Ok(None) };
        let Ok(root) = self.reader.schema().index_of(name) else { return Ok(None) };
        if let Some(key) = &self.file.restricted_key
            && restricted::columns(&self.file.schema).any(|column| column == name)
        {
            restricted::check_rewritable(&self.ring, &self.file)?;
            if self.ring.right(key) == Right::Destroyed {
                return Ok(None);
            }
        }
        let mut groups = Vec::new();
        let mut offset = None;
        let mut held = 0;
        let mut seen = 0;
        for (index, group) in self.metadata().row_groups().iter().enumerate() {
            let next = seen + usize::try_from(group.num_rows()).unwrap_or_default();
            if (*first as usize) < next && seen <= *last as usize {
                groups.push(index);
                offset.get_or_insert(seen);
                held += next - seen;
            }
            seen = next;
        }
        if self.is_null(root, &groups) {
            return Ok(None);
        }
        let offset = offset.unwrap_or_default();
        let runs = rows.chunk_by(|left, right| left + 1 == *right);
        let runs = runs.map(|run| run[0] as usize - offset..run[0] as usize - offset + run.len());
        let builder = self
            .builder()
            .with_projection(ProjectionMask::roots(self.reader.parquet_schema(), [root]))
            .with_row_groups(groups)
            .with_row_selection(RowSelection::from_consecutive_ranges(runs, held))
            .with_batch_size(rows.len());
        let parts: Vec<ArrayRef> =
            self.decode(builder)?.iter().filter_map(|batch| batch.columns().first()).map(Arc::clone).collect();
        let whole = match parts.as_slice() {
            [one] => Arc::clone(one),
            parts => {
                let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
                concat(&parts).map_err(|cause| damaged(&self.file.path).with_source(cause))?
            }
        };
        if whole.len() == rows.len() { Ok(Some(whole)) } else { Err(damaged(&self.file.path)) }
    }

    /// Tells whether the statistics say that a flat column has no value in these row groups.
    fn is_null(&self, root: usize, groups: &[usize]) -> bool {
        let schema = self.reader.parquet_schema();
        let mut leaves = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == root);
        let (Some(leaf), None) = (leaves.next(), leaves.next()) else { return false };
        // Within a list, nulls count entries and not rows.
        if schema.column(leaf).max_rep_level() > 0 {
            return false;
        }
        let nulls = |group: &RowGroupMetaData| group.column(leaf).statistics()?.null_count_opt();
        let groups = groups.iter().map(|group| self.metadata().row_group(*group));
        groups.into_iter().all(|group| nulls(group) == u64::try_from(group.num_rows()).ok())
    }

    /// Runs the decoder; its failures and its panics mean that the file is damaged.
    fn decode(&self, builder: ParquetRecordBatchReaderBuilder<Bytes>) -> Result<Vec<arrow::array::RecordBatch>> {
        let run = || {
            let reader: ParquetRecordBatchReader = builder.build()?;
            reader.collect::<Result<Vec<_>, _>>().map_err(ParquetError::from)
        };
        match std::panic::catch_unwind(AssertUnwindSafe(run)) {
            Ok(decoded) => decoded.map_err(|cause| located(cause, &self.file)),
            Err(_) => Err(Error::with_context(damaged(&self.file.path), "cause", "the decoder stopped")),
        }
    }

    fn builder(&self) -> ParquetRecordBatchReaderBuilder<Bytes> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.reader.clone())
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.reader.metadata()
    }

    fn rows(&self) -> usize {
        usize::try_from(self.file.rows).unwrap_or(usize::MAX)
    }
}
