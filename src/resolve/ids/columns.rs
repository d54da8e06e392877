//! Ids in one column of a CSV file, read byte by byte: no row has to fit into memory.

use std::io::BufRead;

use super::{COLUMN, Ids, failed};
use crate::error::{Error, Result};

/// What may stand between columns, where the file does not say it.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// How much of a value is read: an id in quotes, and enough of anything else to name it.
const READ_BYTES: usize = 256;

/// The layout of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    delimiter: u8,
    position: usize,
    /// How many columns the header has.
    pub(super) count: usize,
}

/// One row, as far as it matters.
#[derive(Default)]
struct Row {
    value: Vec<u8>,
    columns: usize,
    is_blank: bool,
    is_open: bool,
    breaks: u64,
}

impl Columns {
    /// Finds the column of the ids in a header; `declared` is the delimiter that the file names.
    pub(super) fn of_header(line: &[u8], declared: Option<u8>) -> Option<Self> {
        DELIMITERS.into_iter().filter(|known| declared.is_none_or(|byte| byte == *known)).chain(declared).find_map(
            |delimiter| {
                let mut names = Vec::new();
                let mut layout = Self { delimiter, position: 0, count: 0 };
                loop {
                    let row = layout.row(&mut &line[..]).ok()??;
                    names.push(row.value);
                    layout.position += 1;
                    if layout.position >= row.columns {
                        break;
                    }
                }
                let position =
                    names.iter().position(|name| name.trim_ascii().eq_ignore_ascii_case(COLUMN.as_bytes()))?;
                Some(Self { delimiter, position, count: names.len() })
            },
        )
    }

    /// Adds the ids of the rows below a header, whose first has the line `first`.
    pub(super) fn read(self, ids: &mut Ids, name: &str, first: u64, mut text: impl BufRead) -> Result<()> {
        let mut line = first;
        while let Some(row) = self.row(&mut text).map_err(|source| failed(name, line, source))? {
            let wrong = |what: &str| Error::config(what).with_context("file", name).with_context("line", line);
            if row.is_open {
                return Err(wrong("a quote is not closed"));
            }
            if row.columns <= self.position && !row.is_blank {
                return Err(wrong("row has no `ticket_id`")
                    .with_context("columns", row.columns)
                    .with_context("columns of the header", self.count));
            }
            if !row.is_blank {
                ids.add_text(name, line, &row.value)?;
            }
            line += row.breaks;
        }
        Ok(())
    }

    /// Reads one row, or nothing at the end.
    fn row(self, text: &mut impl BufRead) -> std::io::Result<Option<Row>> {
        let mut row = Row { is_blank: true, columns: 1, ..Row::default() };
        let (mut is_quoted, mut was_quote, mut is_start, mut has_any) = (false, false, true, false);
        loop {
            let buffer = text.fill_buf()?;
            let Some(byte) = buffer.first().copied() else {
                row.is_open = is_quoted && !was_quote;
                return Ok(has_any.then_some(row));
            };
            text.consume(1);
            has_any = true;
            row.breaks += u64::from(byte == b'\n');
            let wanted = row.columns == self.position + 1 && row.value.len() < READ_BYTES;
            if is_quoted {
                match (byte, was_quote) {
                    (b'"', false) => was_quote = true,
                    (b'"', true) => {
                        was_quote = false;
                        row.value.extend(wanted.then_some(byte));
                    }
                    (_, false) => row.value.extend(wanted.then_some(byte)),
                    // The quote before was the closing one.
                    (_, true) => (is_quoted, was_quote) = (false, false),
                }
                if is_quoted {
                    continue;
                }
            } else if byte == b'"' && is_start {
                (is_quoted, is_start, row.is_blank) = (true, false, false);
                continue;
            }
            if byte == b'\n' {
                return Ok(Some(row));
            }
            if byte == self.delimiter {
                row.columns += 1;
                (is_start, row.is_blank) = (true, false);
                continue;
            }
            if !byte.is_ascii_whitespace() {
                (is_start, row.is_blank) = (false, false);
            }
            row.value.extend(wanted.then_some(byte));
        }
    }
}
