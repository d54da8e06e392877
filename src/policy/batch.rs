//! Rows that went through the policy, and the keys of their records.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{filter_record_batch, interleave};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::error::{Error, Result};
use crate::model::{ObjectId, Stream};

/// What identifies one revision of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// Id.
    pub id: ObjectId,
    /// `attributes.updatedAt` in milliseconds since 1970.
    pub updated_at_ms: Option<i64>,
    /// `attributes.rev`.
    pub rev: Option<i64>,
    /// `attributes.deleted`.
    pub deleted: bool,
}

/// Rows that went through the policy; only this module can make one, and the lake takes nothing else.
#[derive(Debug, Clone)]
pub struct RedactedBatch {
    stream: Stream,
    policy: Arc<str>,
    keys: Arc<[RecordKey]>,
    batch: RecordBatch,
    pseudonyms: Option<u32>,
}

impl RedactedBatch {
    /// Makes a batch of what a decoder of this module's parent decoded.
    pub(super) fn new(stream: Stream, policy: Arc<str>, keys: Arc<[RecordKey]>, batch: RecordBatch) -> Self {
        Self { stream, policy, keys, batch, pseudonyms: None }
    }

    /// Says of which version the pseudonyms in it are.
    pub(super) fn with_pseudonyms(self, version: Option<u32>) -> Self {
        Self { pseudonyms: version, ..self }
    }

    /// Returns the version of the pseudonyms in it; `None` when it holds none.
    pub fn pseudonyms(&self) -> Option<u32> {
        self.pseudonyms
    }

    /// Returns the stream.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Returns the digest of the policy that made it.
    pub fn policy(&self) -> &Arc<str> {
        &self.policy
    }

    /// Returns the rows' keys, by position.
    pub fn keys(&self) -> &[RecordKey] {
        &self.keys
    }

    /// Returns the rows.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// Keeps the rows whose `mask` is true.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the mask has another length than the batch.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self> {
        if mask.len() != self.keys.len() {
            return Err(Error::internal("mask has another length than the batch")
                .with_context("mask", mask.len())
                .with_context("rows", self.keys.len()));
        }
        let batch = filter_record_batch(&self.batch, mask).map_err(|error| columnar("filter", self.stream, error))?;
        let keys = self.keys.iter().zip(mask).filter(|(_, is_kept)| *is_kept == Some(true)).map(|(key, _)| *key);
        let (stream, policy) = (self.stream, Arc::clone(&self.policy));
        Ok(Self { stream, policy, keys: keys.collect(), batch, pseudonyms: self.pseudonyms })
    }

    /// Returns the bytes of memory that the rows take; columns without a value share theirs and do not count.
    pub fn memory_bytes(&self) -> usize {
        let columns = self.batch.columns().iter().filter(|column| column.null_count() < column.len());
        columns.map(Array::get_array_memory_size).sum::<usize>() + self.keys.len() * size_of::<RecordKey>()
    }
}

/// Rows of several batches of one stream in the order of id, `updated_at` and `rev`.
///
/// Values stay where they were decoded: a column is put into this order when it is asked for, and takes memory only then.
#[derive(Debug, Clone)]
pub struct SortedRows {
    stream: Stream,
    policy: Arc<str>,
    schema: SchemaRef,
    parts: Arc<[RecordBatch]>,
    keys: Vec<RecordKey>,
    /// Where each row stands: batch, row.
    places: Vec<(usize, usize)>,
    pseudonyms: Option<u32>,
}

impl SortedRows {
    /// Sorts the rows of batches of one stream, policy, schema and version of pseudonyms; rows with equal keys stay in the order of the batches.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when there is no batch, or they are not of one stream, policy, schema and
    /// version of pseudonyms.
    pub fn try_new(batches: &[RedactedBatch]) -> Result<Self> {
        let first = batches.first().ok_or_else(|| Error::internal("no batch to join"))?;
        let pseudonyms = batches.iter().find_map(|batch| batch.pseudonyms);
        for other in batches {
            if other.pseudonyms.is_some() && other.pseudonyms != pseudonyms {
                return Err(Error::internal("batches with pseudonyms of different versions cannot be joined")
                    .with_context("stream", other.stream));
            }
            if other.stream != first.stream
                || other.policy != first.policy
                || other.batch.schema() != first.batch.schema()
            {
                return Err(Error::internal("batches of different streams, policies or schemas cannot be joined")
                    .with_context("first", first.stream)
                    .with_context("other", other.stream));
            }
        }
        let rows = batches
            .iter()
            .enumerate()
            .flat_map(|(part, batch)| batch.keys.iter().enumerate().map(move |(row, key)| (*key, (part, row))));
        let mut rows: Vec<(RecordKey, (usize, usize))> = rows.collect();
        rows.sort_by_key(|(key, _)| (key.id, key.updated_at_ms, key.rev));
        let (keys, places) = rows.into_iter().unzip();
        Ok(Self {
            stream: first.stream,
            policy: Arc::clone(&first.policy),
            schema: first.batch.schema(),
            parts: batches.iter().map(|batch| batch.batch.clone()).collect(),
            keys,
            places,
            pseudonyms,
        })
    }

    /// Returns the stream.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Returns the digest of the policy that made the rows.
    pub fn policy(&self) -> &Arc<str> {
        &self.policy
    }

    /// Returns the version of the pseudonyms in the rows; `None` when they hold none.
    pub fn pseudonyms(&self) -> Option<u32> {
        self.pseudonyms
    }

    /// Returns the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the rows' keys, in their order.
    pub fn keys(&self) -> &[RecordKey] {
        &self.keys
    }

    /// Keeps the rows whose `mask` is true.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the mask has another length than there are rows.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self> {
        if mask.len() != self.keys.len() {
            return Err(Error::internal("mask has another length than there are rows")
                .with_context("mask", mask.len())
                .with_context("rows", self.keys.len()));
        }
        let kept = mask.values().set_indices();
        let (keys, places) = kept.map(|row| (self.keys[row], self.places[row])).unzip();
        Ok(Self { keys, places, ..self.clone_without_rows() })
    }

    /// Puts rows of a column (by its position in the schema) into one array.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when there is no such column or row, or the values do not fit one array:
    /// more than 2 GiB of text.
    pub fn column(&self, index: usize, rows: impl Iterator<Item = usize>) -> Result<ArrayRef> {
        let places: Option<Vec<(usize, usize)>> = rows.map(|row| self.places.get(row).copied()).collect();
        let (Some(places), Some(field)) = (places, self.schema.fields().get(index)) else {
            return Err(Error::internal("column or row is not there").with_context("column", index));
        };
        // Most columns of most pages hold nothing.
        if self.parts.iter().all(|part| part.column(index).null_count() == part.num_rows()) {
            return Ok(new_null_array(field.data_type(), places.len()));
        }
        let values: Vec<&dyn Array> = self.parts.iter().map(|part| part.column(index).as_ref()).collect();
        interleave(&values, &places).map_err(|error| columnar("sort", self.stream, error))
    }

    fn clone_without_rows(&self) -> Self {
        Self {
            stream: self.stream,
            policy: Arc::clone(&self.policy),
            schema: Arc::clone(&self.schema),
            parts: Arc::clone(&self.parts),
            keys: Vec::new(),
            places: Vec::new(),
            pseudonyms: self.pseudonyms,
        }
    }
}

/// Arrow's errors at this point are of sizes and types, and say nothing of values.
pub(super) fn columnar(step: &'static str, stream: Stream, error: ArrowError) -> Error {
    Error::internal(format!("failed to {step} redacted columns")).with_context("stream", stream).with_source(error)
}
