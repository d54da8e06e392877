//! `json` and `ndjson`: objects with every column, NULL written out.

use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::record_batch::RecordBatch;

use super::{Encoder, cells};
use crate::error::Result;

/// Writes one array, or one object per line.
#[derive(Debug)]
pub(super) struct Json {
    is_array: bool,
    rows: u64,
}

impl Json {
    pub(super) fn array() -> Self {
        Self { is_array: true, rows: 0 }
    }

    pub(super) fn lines() -> Self {
        Self { is_array: false, rows: 0 }
    }
}

impl Encoder for Json {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<bool> {
        let batch = cells::instants_as_text(batch)?;
        if !self.is_array {
            write_lines(&batch, out)?;
            self.rows += batch.num_rows() as u64;
            return Ok(true);
        }
        let mut lines = Vec::new();
        write_lines(&batch, &mut lines)?;
        // JSON escapes line ends inside texts, so that a line is a row.
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            out.extend_from_slice(if self.rows == 0 { b"[\n" } else { b",\n" });
            out.extend_from_slice(line);
            self.rows += 1;
        }
        Ok(true)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(u64, Vec<String>)> {
        if self.is_array {
            out.extend_from_slice(if self.rows == 0 { b"[]\n" } else { b"\n]\n" });
        }
        Ok((self.rows, Vec::new()))
    }
}

fn write_lines(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
    writer.write(batch).map_err(cells::failed)?;
    writer.finish().map_err(cells::failed)
}
