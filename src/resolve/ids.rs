//! The ticket ids that are asked for: from arguments, files and standard input, in their order, each once.
//!
//! ```text
//! ticket_id,agent          an optional header: then the first CSV column counts
//! # reopened last week     comments and blank lines are skipped
//! 58228e05d4e96711004eccb7
//! ```
//!
//! Everything is checked before the first request: one wrong id stops the run while it has cost nothing.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::ObjectId;

/// The longest line that is read; an id with a few columns is far below.
const LONGEST_LINE_BYTES: u64 = 64 * 1024;

/// How much of a wrong id is repeated in its error.
const SHOWN_CHARACTERS: usize = 40;

/// Collects ids from several places.
#[derive(Debug, Default)]
pub struct Ids {
    ordered: Vec<ObjectId>,
    seen: HashSet<ObjectId>,
}

impl Ids {
    /// Adds one id, unless it is already there.
    pub fn add(&mut self, id: ObjectId) {
        if self.seen.insert(id) {
            self.ordered.push(id);
        }
    }

    /// Adds the ids of the command line.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when one is not an id.
    pub fn add_arguments<T: AsRef<str>>(&mut self, arguments: &[T]) -> Result<()> {
        for argument in arguments {
            let text = argument.as_ref();
            self.add(ObjectId::from_hex(text.as_bytes()).ok_or_else(|| wrong_id(text))?);
        }
        Ok(())
    }

    /// Adds the ids of a file, or of standard input when `path` is `-`.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the file cannot be read or holds something that is not an id.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        if path == Path::new("-") {
            return self.add_lines("standard input", io::stdin().lock());
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| {
            Error::config("failed to open the list of ids").with_context("file", &name).with_source(source)
        })?;
        self.add_lines(&name, BufReader::new(file))
    }

    /// Adds the ids of lines; `name` says in errors where they come from.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) with line and text when a line is not an id.
    pub fn add_lines(&mut self, name: &str, mut lines: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        let mut columns = false;
        let mut first = true;
        for number in 1_u64.. {
            line.clear();
            let length = lines.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line).map_err(|source| {
                Error::config("failed to read the list of ids").with_context("file", name).with_source(source)
            })?;
            if length == 0 {
                break;
            }
            if length as u64 == LONGEST_LINE_BYTES && !line.ends_with(b"\n") {
                return Err(Error::config("line is too long for a list of ids")
                    .with_context("file", name)
                    .with_context("line", number));
            }
            let bytes = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
            let text = bytes.trim_ascii();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let column = text.split(|byte| *byte == b',').next().map_or(text, unquoted);
            if std::mem::take(&mut first) && column.eq_ignore_ascii_case(b"ticket_id") {
                columns = true;
                continue;
            }
            let id = if columns { column } else { text };
            let Some(id) = ObjectId::from_hex(id) else {
                let error =
                    wrong_id(&String::from_utf8_lossy(column)).with_context("file", name).with_context("line", number);
                return Err(if !columns && text.contains(&b',') {
                    error.with_hint("a CSV file needs a header whose first column is `ticket_id`")
                } else {
                    error
                });
            };
            self.add(id);
        }
        Ok(())
    }

    /// Returns the ids, each once, in the order of their first naming.
    #[must_use]
    pub fn into_vec(self) -> Vec<ObjectId> {
        self.ordered
    }
}

fn unquoted(column: &[u8]) -> &[u8] {
    let column = column.trim_ascii();
    column.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(column)
}

fn wrong_id(text: &str) -> Error {
    let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    Error::config("not a ticket id, which has 24 hex digits").with_context("id", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "58228e05d4e96711004eccb7";
    const B: &str = "58210c3db0f09110006b7953";

    fn read(text: &str) -> Result<Vec<String>> {
        let mut ids = Ids::default();
        ids.add_lines("list", text.as_bytes())?;
        Ok(ids.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_are_read_in_order_and_once() {
        for (case, text) in [
            ("plain", format!("{B}\n{A}\n")),
            ("comments, blanks, spaces and no end of line", format!("# why\n\n  {B} \r\n#\n{A}")),
            ("repeated", format!("{B}\n{A}\n{B}\n{}\n", A.to_uppercase())),
            ("header", format!("ticket_id\n{B}\n{A}\n")),
            ("byte order mark and columns", format!("\u{feff}ticket_id,name\n{B},\"x, y\"\n\"{A}\",é\n")),
            ("quoted header after a comment", format!("# list\n\"ticket_id\",n\n{B},1\n{A},2\n")),
        ] {
            assert_eq!(read(&text).unwrap(), [B, A], "{case}");
        }
        assert!(read("# nothing\n\n").unwrap().is_empty());
    }

    #[test]
    fn wrong_line_is_named_with_its_text() {
        for (text, line, shown) in [
            (format!("{A}\n58228e05\n"), "line: 2", "id: 58228e05,"),
            (format!("ticket_id,mail\n\n{A},x\nnope,ann@acme.example\n"), "line: 4", "id: nope,"),
            (format!("{A}\nticket_id\n"), "line: 2", "id: ticket_id,"),
            ("\u{1b}[2J\n".to_owned(), "line: 1", "u{1b}"),
        ] {
            let error = read(&text).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(line) && message.contains(shown), "{message}");
            assert!(!message.contains("acme") && !message.contains('\u{1b}'), "{message}");
        }
        let error = read(&format!("{A},x\n")).unwrap_err();
        assert!(error.hint().unwrap().contains("header"), "{error:?}");
        assert!(read(&"5".repeat(100_000)).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn arguments_and_lines_share_one_order() {
        let mut ids = Ids::default();
        ids.add_arguments(&[A]).unwrap();
        ids.add_lines("list", format!("{B}\n{A}\n").as_bytes()).unwrap();
        assert_eq!(ids.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>(), [A, B]);
        assert!(Ids::default().add_arguments(&["zzz"]).unwrap_err().to_string().contains("id: zzz"));
    }
}
