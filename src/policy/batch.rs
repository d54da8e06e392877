//! Rows that went through the policy, and the keys of their records.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
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
}

impl RedactedBatch {
    /// Makes a batch of what a decoder of this module's parent decoded.
    pub(super) fn new(stream: Stream, policy: Arc<str>, keys: Arc<[RecordKey]>, batch: RecordBatch) -> Self {
        Self { stream, policy, keys, batch }
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
        Ok(Self { stream: self.stream, policy: Arc::clone(&self.policy), keys: keys.collect(), batch })
    }

    /// Joins batches of one stream and schema, sorted by id, then `updated_at`, then `rev`.
    ///
    /// Rows with equal keys stay in the order of the batches.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when there is no batch, or they are not of one stream, policy and schema.
    pub fn concat_sorted(batches: &[Self]) -> Result<Self> {
        let first = batches.first().ok_or_else(|| Error::internal("no batch to join"))?;
        let stream = first.stream;
        for other in batches {
            if other.stream != stream || other.policy != first.policy || other.batch.schema() != first.batch.schema() {
                return Err(Error::internal("batches of different streams, policies or schemas cannot be joined")
                    .with_context("first", stream)
                    .with_context("other", other.stream));
            }
        }
        let keys: Vec<RecordKey> = batches.iter().flat_map(|batch| batch.keys.iter().copied()).collect();
        let batch = match batches {
            [single] => single.batch.clone(),
            _ => concat_batches(&first.batch.schema(), batches.iter().map(|batch| &batch.batch))
                .map_err(|error| columnar("join", stream, error))?,
        };
        let order = |key: &RecordKey| (key.id, key.updated_at_ms, key.rev);
        let policy = Arc::clone(&first.policy);
        if keys.is_sorted_by_key(order) {
            return Ok(Self { stream, policy, keys: keys.into(), batch });
        }
        let mut rows: Vec<u32> = (0..keys.len() as u32).collect();
        rows.sort_by_key(|row| order(&keys[*row as usize]));
        let sorted = rows.iter().map(|row| keys[*row as usize]).collect();
        let batch =
            take_record_batch(&batch, &UInt32Array::from(rows)).map_err(|error| columnar("sort", stream, error))?;
        Ok(Self { stream, policy, keys: sorted, batch })
    }
}

/// Arrow's errors at this point are of sizes and types, and say nothing of values.
pub(super) fn columnar(step: &'static str, stream: Stream, error: ArrowError) -> Error {
    Error::internal(format!("failed to {step} redacted columns")).with_context("stream", stream).with_source(error)
}
