//! `arrow`: the stream format of Arrow IPC, which PyArrow, Polars and DuckDB read batch by batch.

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;

use super::portable::Portable;
use super::{Encoder, Format};
use crate::error::{Error, Result};

/// Writes the schema, then each batch as it comes, then the mark of the end, by which a stream that was cut is known.
pub(super) struct Arrow {
    portable: Portable,
    writer: StreamWriter<Vec<u8>>,
    rows: u64,
}

impl Arrow {
    pub(super) fn try_new(schema: &SchemaRef) -> Result<Self> {
        let portable = Portable::new(schema, Format::Arrow);
        let writer = StreamWriter::try_new(Vec::new(), portable.schema()).map_err(failed)?;
        Ok(Self { portable, writer, rows: 0 })
    }
}

impl Encoder for Arrow {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<bool> {
        self.writer.write(&self.portable.batch(batch)?).map_err(failed)?;
        out.append(self.writer.get_mut());
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(u64, Vec<String>)> {
        self.writer.finish().map_err(failed)?;
        out.append(self.writer.get_mut());
        Ok((self.rows, Vec::new()))
    }
}

fn failed(cause: ArrowError) -> Error {
    Error::internal("failed to write the result as an Arrow stream").with_source(cause)
}
