//! The digest of a result: equal where names, types and rows are, however they came in batches.
//!
//! Rows are taken in Arrow's row format, whose bytes tell values apart. A result that the SQL sorts is digested in its order.
//! Without ORDER BY the order is an accident of the plan, and the digest is the sum of the digests of the rows, which no
//! order changes. Another version of this program may digest otherwise: then every result is written once more.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use ring::digest::{Context, SHA256, digest};

use crate::error::{Error, Result};
use crate::query::session::Rows;
use crate::query::sink::{Format, portable::Portable};

/// Takes the rows of one result as they pass.
#[derive(Clone)]
pub(super) struct RowsDigest(Arc<Mutex<State>>);

struct State {
    portable: Portable,
    /// None for types that have no row format.
    converter: Option<RowConverter>,
    is_ordered: bool,
    ordered: Context,
    sum: [u64; 4],
    rows: u64,
}

impl RowsDigest {
    pub(super) fn new(schema: &SchemaRef, is_ordered: bool) -> Self {
        let portable = Portable::new(schema, Format::Arrow);
        let fields: Vec<SortField> =
            portable.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::supports_fields(&fields).then(|| RowConverter::new(fields).ok()).flatten();
        let mut ordered = Context::new(&SHA256);
        for field in portable.schema().fields() {
            update(&mut ordered, field.name().as_bytes());
            update(&mut ordered, field.data_type().to_string().as_bytes());
        }
        Self(Arc::new(Mutex::new(State { portable, converter, is_ordered, ordered, sum: [0; 4], rows: 0 })))
    }

    /// Returns the same rows, which are digested as they are read.
    pub(super) fn observe(&self, rows: Rows) -> Rows {
        let (schema, path) = (rows.schema(), rows.path().to_owned());
        let digest = self.clone();
        let stream = rows.into_inner().map(move |batch| {
            let batch = batch?;
            digest.take(&batch).map_err(|error| DataFusionError::External(Box::new(error)))?;
            Ok(batch)
        });
        Rows::new(Box::pin(RecordBatchStreamAdapter::new(schema, stream)), path)
    }

    pub(super) fn take(&self, batch: &RecordBatch) -> Result<()> {
        let failed = |cause: ArrowError| Error::internal("failed to digest the rows of a result").with_source(cause);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { portable, converter: Some(converter), is_ordered, ordered, sum, rows: count } = &mut *state else {
            return Ok(());
        };
        let batch = portable.batch(batch)?;
        if batch.num_columns() > 0 {
            let rows = converter.convert_columns(batch.columns()).map_err(failed)?;
            for row in &rows {
                if *is_ordered {
                    update(ordered, row.as_ref());
                } else {
                    add(sum, digest(&SHA256, row.as_ref()).as_ref());
                }
            }
        }
        *count += batch.num_rows() as u64;
        Ok(())
    }

    /// Returns the digest of all rows; none where a column has a type that cannot be digested.
    pub(super) fn finish(&self) -> Option<[u8; 32]> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.converter.as_ref()?;
        let mut context = state.ordered.clone();
        update(&mut context, &state.rows.to_le_bytes());
        for part in state.sum {
            update(&mut context, &part.to_le_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Some(bytes)
    }
}

/// Adds the length before the bytes, so that two values are never taken for two others.
fn update(context: &mut Context, bytes: &[u8]) {
    context.update(&(bytes.len() as u64).to_le_bytes());
    context.update(bytes);
}

fn add(sum: &mut [u64; 4], digest: &[u8]) {
    for (part, bytes) in sum.iter_mut().zip(digest.as_chunks::<8>().0) {
        *part = part.wrapping_add(u64::from_le_bytes(*bytes));
    }
}
