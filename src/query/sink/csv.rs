//! `csv`: a header line, then rows, quoted as RFC 4180 says.

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::{Encoder, cells};
use crate::error::Result;

/// Writes CSV; the header comes even when there are no rows.
#[derive(Debug)]
pub(super) struct Csv {
    header: Vec<u8>,
    rows: u64,
}

impl Csv {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let mut header = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                header.push(b',');
            }
            push_field(&mut header, field.name());
        }
        header.push(b'\n');
        Self { header, rows: 0 }
    }
}

impl Encoder for Csv {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<bool> {
        out.append(&mut self.header);
        let columns = batch.columns().iter().map(cells::text).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                if !column.is_null(row) {
                    push_field(out, column.value(row));
                } else if columns.len() == 1 {
                    // A row of one empty field would be an empty line, which readers skip.
                    out.extend_from_slice(b"\"\"");
                }
            }
            out.push(b'\n');
        }
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(u64, Vec<String>)> {
        out.append(&mut self.header);
        Ok((self.rows, Vec::new()))
    }
}

/// Appends a field, quoted when it must be; an empty text is quoted, so that it differs from NULL.
fn push_field(out: &mut Vec<u8>, text: &str) {
    let plain = !text.is_empty()
        && !text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'))
        && !text.starts_with(' ')
        && !text.ends_with(' ');
    if plain {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
