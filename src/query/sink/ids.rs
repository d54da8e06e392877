//! `ids`: one id per line, nothing else.

use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::{Encoder, cells};
use crate::error::{Error, Result};
use crate::model::Stream;

/// Writes the first column, which is `ticket_id` or the only column and an id.
#[derive(Debug)]
pub(super) struct Ids {
    path: String,
    rows: u64,
    without_id: u64,
}

impl Ids {
    pub(super) fn try_new(schema: &SchemaRef, path: &str) -> Result<Self> {
        let key = Stream::Tickets.key_column();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let fits = match schema.fields().as_ref() {
            [only] if names[0] != key => is_text(only) && (names[0] == "id" || names[0].ends_with("_id")),
            [first, ..] => is_text(first) && names[0] == key,
            [] => false,
        };
        if fits {
            return Ok(Self { path: path.to_owned(), rows: 0, without_id: 0 });
        }
        let error = Error::query(format!(
            "{path}: the format ids needs `{key}` as the first column, or a single column of ids; the columns are {}",
            names.join(", ")
        ));
        Err(error.with_hint(if names.contains(&key) {
            format!("put `{key}` first in the SELECT, or use --format csv")
        } else {
            format!("SELECT `{key}` first, or use --format csv")
        }))
    }
}

fn is_text(field: &Field) -> bool {
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => matches!(value.as_ref(), DataType::Utf8 | DataType::LargeUtf8),
        _ => false,
    }
}

impl Encoder for Ids {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<bool> {
        let ids = cells::text(batch.column(0))?;
        for id in &ids {
            match id {
                Some(id) if id.bytes().any(|byte| byte.is_ascii_control()) => {
                    return Err(Error::query(format!("{}: an id holds a control character", self.path))
                        .with_hint("select the id itself, unchanged, or use --format json"));
                }
                Some(id) if !id.is_empty() => {
                    out.extend_from_slice(id.as_bytes());
                    out.push(b'\n');
                    self.rows += 1;
                }
                _ => self.without_id += 1,
            }
        }
        Ok(true)
    }

    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(u64, Vec<String>)> {
        let notes = match self.without_id {
            0 => Vec::new(),
            count => vec![format!("{count} rows had no id and were left out")],
        };
        Ok((self.rows, notes))
    }
}
