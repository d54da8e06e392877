//! `parquet`: row groups as they fill, then the footer; encrypted under the ring unless plain text is asked for.
//!
//! A row group has at most [`ROW_GROUP_ROWS`] rows, and fewer where they are wide: what a group takes in memory is bounded
//! by [`GROUP_BYTES`] and one batch. A file that is not written to its end has no footer and does not open.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::portable::Portable;
use super::{Encoder, Format, Protection};
use crate::error::{Error, Result};
use crate::lake::file::ROW_GROUP_ROWS;
use crate::lake::sealed::{Seal, Sealing};

/// Encoded bytes at which a row group is closed before it has all its rows: far above what a list of tickets takes.
const GROUP_BYTES: usize = 32 << 20;

/// As the lake's own files: higher levels take longer and gain little on rows of tickets.
const ZSTD_LEVEL: i32 = 1;

/// Writes one file.
pub(super) struct Parquet {
    portable: Portable,
    protection: Protection,
    /// Made with the first batch, which tells how the columns are best encoded.
    file: Option<Open>,
    rows: u64,
}

struct Open {
    writer: ArrowWriter<Vec<u8>>,
    sealing: Option<Sealing>,
}

impl Parquet {
    pub(super) fn new(schema: &SchemaRef, protection: &Protection) -> Self {
        let portable = Portable::new(schema, Format::Parquet);
        Self { portable, protection: protection.clone(), file: None, rows: 0 }
    }

    fn open(&mut self, first: Option<&RecordBatch>) -> Result<&mut Open> {
        if self.file.is_none() {
            self.file = Some(Open::try_new(self.portable.schema(), &self.protection, first)?);
        }
        self.file.as_mut().ok_or_else(|| Error::internal("a Parquet file was opened and is not there"))
    }
}

impl Open {
    fn try_new(schema: &SchemaRef, protection: &Protection, first: Option<&RecordBatch>) -> Result<Self> {
        let sealing = match protection {
            Protection::Plain => None,
            Protection::Sealed(seal) => Some(Seal::new_file(seal, schema, first)?),
        };
        let properties = match &sealing {
            Some(sealing) => sealing.properties.clone(),
            None => plain().map_err(failed)?,
        };
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties)).map_err(failed)?;
        Ok(Self { writer, sealing })
    }
}

impl Encoder for Parquet {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<bool> {
        let batch = self.portable.batch(batch)?;
        let writer = &mut self.open(Some(&batch))?.writer;
        writer.write(&batch).map_err(failed)?;
        if writer.in_progress_size() >= GROUP_BYTES {
            writer.flush().map_err(failed)?;
        }
        out.append(writer.inner_mut());
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(u64, Vec<String>)> {
        let Open { writer, sealing } = self.open(None)?;
        let metadata = writer.finish().map_err(failed)?;
        writer.sync().map_err(|cause| failed(ParquetError::from(cause)))?;
        let end = writer.inner_mut();
        if let Some(sealing) = sealing {
            sealing.check(&metadata, end)?;
        }
        out.append(end);
        Ok((self.rows, Vec::new()))
    }
}

fn plain() -> Result<WriterProperties, ParquetError> {
    Ok(WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("counterfoil ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build())
}

fn failed(cause: ParquetError) -> Error {
    match cause {
        ParquetError::NYI(_) | ParquetError::ArrowError(_) => {
            Error::query("a column of the result has a type that Parquet files do not have")
                .with_source(cause)
                .with_hint("CAST the column to a text or a number, or use --format json")
        }
        _ => Error::internal("failed to write the result as Parquet").with_source(cause),
    }
}
