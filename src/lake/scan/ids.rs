//! The ids of a file's rows, in their order, a batch at a time.
//!
//! Only the columns that are asked for are decoded, so that walking the ids of a large table costs little memory and
//! little of the store.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::keys::{KeyRing, Right};
use crate::lake::manifest::DataFile;
use crate::lake::restricted;
use crate::lake::scan::MetadataCache;
use crate::lake::scan::find::located;
use crate::lake::scan::reader::{Access, PinnedReader};
use crate::model::ObjectId;

/// Rows of a batch: their texts take some 100 KB.
const BATCH_ROWS: usize = 4_096;

/// Reads the ids of one file's rows, less those that are excluded, and with each the value of another id column.
pub struct FileIds {
    file: Arc<DataFile>,
    columns: Vec<String>,
    batches: ParquetRecordBatchStream<PinnedReader>,
    excluded: RoaringBitmap,
    position: u32,
    ready: std::vec::IntoIter<(ObjectId, Option<ObjectId>)>,
}

impl FileIds {
    /// Opens a file; `second` is the other column, which a file may lack.
    ///
    /// # Errors
    ///
    /// Those of [`find_keys`](crate::lake::scan::find_keys), and [`Denied`](crate::error::ErrorKind::Denied) for a `second` that
    /// is restricted where the ring does not have its key.
    pub async fn open(
        store: &Arc<dyn ObjectStore>,
        cache: &MetadataCache,
        ring: &KeyRing,
        file: &Arc<DataFile>,
        (key_column, second): (&str, Option<&str>),
        excluded: RoaringBitmap,
    ) -> Result<Self> {
        let second = match (&file.restricted_key, second) {
            (Some(key), Some(name)) if restricted::columns(&file.schema).any(|column| column == name) => {
                restricted::check_rewritable(ring, file)?;
                (ring.right(key) != Right::Destroyed).then_some(name)
            }
            _ => second,
        };
        let access = Access { store: Arc::clone(store), ring: ring.clone(), cache: cache.clone() };
        let reader = PinnedReader::new(access, Arc::clone(file));
        let failed = |cause| located(cause, file);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let columns: Vec<String> = [key_column].into_iter().chain(second).map(str::to_owned).collect();
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        Ok(Self { file: Arc::clone(file), columns, batches, excluded, position: 0, ready: Vec::new().into_iter() })
    }

    /// Returns the next row's id, and the id in the other column where it holds one.
    pub async fn next(&mut self) -> Result<Option<(ObjectId, Option<ObjectId>)>> {
        loop {
            if let Some(row) = self.ready.next() {
                return Ok(Some(row));
            }
            let Some(batch) = self.batches.try_next().await.map_err(|cause| located(cause, &self.file))? else {
                return Ok(None);
            };
            let texts: Vec<Option<ArrayRef>> = self
                .columns
                .iter()
                .map(|name| batch.column_by_name(name).and_then(|column| cast(column, &DataType::Utf8).ok()))
                .collect();
            let id = |column: usize, row: usize| {
                let texts = texts.get(column)?.as_ref()?.as_string::<i32>();
                if texts.is_null(row) { None } else { ObjectId::from_hex(texts.value(row).as_bytes()) }
            };
            let mut ready = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                if !self.excluded.contains(self.position) {
                    let key = id(0, row).ok_or_else(|| {
                        Error::data("data file has a row without a record id")
                            .with_context("file", &self.file.path)
                            .with_context("row", self.position)
                    })?;
                    ready.push((key, id(1, row)));
                }
                self.position += 1;
            }
            self.ready = ready.into_iter();
        }
    }
}
