//! The ticket ids that are asked for: from arguments, files, standard input and recorded lists, in their order, each once.
//!
//! What a file holds is seen from its first line that says something:
//!
//! | first line | what it is | what `query` writes it |
//! |---|---|---|
//! | an id, or `ticket_id` alone | an id a line; blank lines and those that begin with `#` are skipped | `--format ids` |
//! | columns, one of them `ticket_id` | CSV with commas, semicolons or tabs; quoted values may hold any of them and line breaks | `--format csv` |
//! | `{…` | an object a line, with `ticket_id` | `--format ndjson` |
//! | `[…` | one array of ids, or of objects with `ticket_id` | `--format json` |
//!
//! A byte order mark, either end of line and the first line `sep=;` that spreadsheets write are taken.
//!
//! Everything is checked before the first request: one wrong id stops the run while it has cost nothing. Files are read as
//! they come, so a million ids take the memory of the ids. An error names the line, and of its text only what may be an id.

mod columns;
mod json;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use self::columns::Columns;
use crate::error::{Error, Result};
use crate::model::ObjectId;

/// The longest line that is read as text; an id with many columns is far below.
const LONGEST_LINE_BYTES: u64 = 64 * 1024;

/// How much of a wrong id is repeated in its error.
const SHOWN_CHARACTERS: usize = 40;

/// The name of the column that holds the ids.
const COLUMN: &str = "ticket_id";

/// Collects ids from several places.
#[derive(Debug, Default)]
pub struct Ids {
    ordered: Vec<ObjectId>,
    seen: HashSet<ObjectId>,
    repeated: u64,
}

impl Ids {
    /// Adds one id, unless it is already there.
    pub fn add(&mut self, id: ObjectId) {
        if self.seen.insert(id) {
            self.ordered.push(id);
        } else {
            self.repeated += 1;
        }
    }

    /// Returns how often an id was named that was there already.
    #[must_use]
    pub const fn repeated(&self) -> u64 {
        self.repeated
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
            return self.add_from("standard input", io::stdin().lock());
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| {
            Error::config("failed to open the list of ids").with_context("file", &name).with_source(source)
        })?;
        self.add_from(&name, BufReader::new(file))
    }

    /// Adds the ids of a text in any of the forms above; `name` says in errors where it comes from.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) with line and text when something is not an id.
    pub fn add_from(&mut self, name: &str, mut text: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        let mut declared = None;
        for number in 1_u64.. {
            if !read_line(name, number, &mut text, &mut line)? {
                return Ok(());
            }
            if number == 1 {
                if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
                    return Err(Error::config("the list of ids is UTF-16")
                        .with_context("file", name)
                        .with_hint("save it as CSV UTF-8"));
                }
                if line.starts_with(b"\xef\xbb\xbf") {
                    line.drain(..3);
                }
            }
            let first = line.trim_ascii();
            if first.is_empty() || first.starts_with(b"#") {
                continue;
            }
            if let (None, [b's', b'e', b'p', b'=', delimiter]) = (declared, first) {
                declared = Some(*delimiter);
                continue;
            }
            let is_json = first.starts_with(b"[") || first.starts_with(b"{");
            let is_array = first.starts_with(b"[");
            let columns = if is_json { None } else { Columns::of_header(&line, declared) };
            if is_json || columns.is_none() {
                let text = Cursor::new(line).chain(text);
                return if is_json {
                    json::read(self, name, number, is_array, text)
                } else {
                    self.add_lines(name, number, text)
                };
            }
            return match columns {
                Some(columns) if columns.count > 1 => columns.read(self, name, number + 1, text),
                _ => self.add_lines(name, number + 1, text),
            };
        }
        Ok(())
    }

    /// Adds the ids of lines, an id a line; the first has the number `first`.
    fn add_lines(&mut self, name: &str, first: u64, mut lines: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        for number in first.. {
            if !read_line(name, number, &mut lines, &mut line)? {
                break;
            }
            if line.len() as u64 == LONGEST_LINE_BYTES && !line.ends_with(b"\n") {
                return Err(Error::config("line is too long for a list of ids")
                    .with_context("file", name)
                    .with_context("line", number));
            }
            let text = line.trim_ascii();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            if text.iter().any(|byte| b",;\t".contains(byte)) {
                return Err(Error::config("line has columns, and no header says which of them has the ids")
                    .with_context("file", name)
                    .with_context("line", number)
                    .with_hint("name the column `ticket_id` in the first line"));
            }
            self.add_text(name, number, text)?;
        }
        Ok(())
    }

    /// Adds the id that a text is, with or without quotes.
    fn add_text(&mut self, name: &str, line: u64, text: &[u8]) -> Result<()> {
        let text = text.trim_ascii();
        let bare = text.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(text);
        let id = ObjectId::from_hex(bare.trim_ascii()).ok_or_else(|| {
            wrong_id(&String::from_utf8_lossy(bare)).with_context("file", name).with_context("line", line)
        })?;
        self.add(id);
        Ok(())
    }

    /// Returns the ids, each once, in the order of their first naming.
    #[must_use]
    pub fn into_vec(self) -> Vec<ObjectId> {
        self.ordered
    }
}

/// Reads a line, or as much of it as a line may have; tells whether there was one.
fn read_line(name: &str, number: u64, lines: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    let length = lines.take(LONGEST_LINE_BYTES).read_until(b'\n', line);
    Ok(length.map_err(|source| failed(name, number, source))? > 0)
}

fn failed(name: &str, line: u64, source: io::Error) -> Error {
    Error::config("failed to read the list of ids")
        .with_context("file", name)
        .with_context("line", line)
        .with_source(source)
}

/// The error of a text that is no id. Of a line that may be about a person only what may be meant as an id is repeated.
fn wrong_id(text: &str) -> Error {
    let shown: String = match text.trim() {
        "" => "(empty)".to_owned(),
        text if text.contains(['@', ' ']) => "(not shown)".to_owned(),
        text => text.chars().take(SHOWN_CHARACTERS).collect(),
    };
    Error::config("not a ticket id, which has 24 hex digits").with_context("id", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "58228e05d4e96711004eccb7";
    const B: &str = "58210c3db0f09110006b7953";

    fn read_bytes(text: &[u8]) -> Result<Vec<String>> {
        let mut ids = Ids::default();
        // A small buffer lets every place of the text fall between two reads.
        ids.add_from("list", BufReader::with_capacity(5, text))?;
        Ok(ids.into_vec().iter().map(ToString::to_string).collect())
    }

    fn read(text: &str) -> Result<Vec<String>> {
        read_bytes(text.as_bytes())
    }

    #[test]
    fn lists_of_every_form_are_read_in_order_and_once() {
        for (case, text) in [
            ("plain", format!("{B}\n{A}\n")),
            ("comments, blanks, spaces and no end of line", format!("# why\n\n  {B} \r\n#\n{A}")),
            ("repeated", format!("{B}\n{A}\n{B}\n{}\n", A.to_uppercase())),
            ("quoted", format!("\"{B}\"\n\"{A}\"\n")),
            ("header", format!("ticket_id\n{B}\n# a comment\n\n{A}\n")),
            ("byte order mark and columns", format!("\u{feff}ticket_id,name\n{B},\"x, y\"\n\"{A}\",é\n")),
            ("quoted header after a comment", format!("# list\n\"ticket_id\",n\n{B},1\n{A},2\n")),
            ("another column, CRLF, blank rows", format!("n,TICKET_ID,x\r\n1,{B},\r\n\r\n2, {A} ,y\r\n\r\n")),
            ("last column without an end", format!("n,ticket_id\n,{B}\n,{A}")),
            (
                "semicolons as a spreadsheet writes them",
                format!("\u{feff}sep=;\r\nname;\"ticket_id\"\r\nx;{B}\r\n\"y;z\";{A}\r\n"),
            ),
            ("another delimiter that is declared", format!("sep=|\nname|ticket_id\nx|{B}\ny|{A}\n")),
            ("tabs", format!("name\tticket_id\nx, y\t{B}\nz\t{A}\n")),
            (
                "line breaks and quotes in values",
                format!("t,ticket_id\n\"a\nticket, \"\"x\"\"\n\",{B}\n\"\"\"\",\"{A}\"\n"),
            ),
            ("array", format!(" [\"{B}\",\n\"{A}\"]\n")),
            (
                "array of objects",
                format!("[{{\"n\":[1,{{}}],\"ticket_id\":\"{B}\"}},{{\"ticket_id\":\"{A}\",\"x\":null}}]"),
            ),
            ("objects", format!("{{\"ticket_id\":\"{B}\",\"n\":\"\\n\"}}\n\n{{\"ticket_id\":\"{A}\"}}\n")),
            ("objects after a comment", format!("# x\n{{\"ticket\\u005fid\":\"{B}\"}}\r\n{{\"ticket_id\":\"{A}\"}}")),
        ] {
            assert_eq!(read(&text).unwrap(), [B, A], "{case}");
        }
        for empty in ["", "# nothing\n\n", "ticket_id\n", "n,ticket_id\r\n", "[]", "\u{feff}"] {
            assert!(read(empty).unwrap().is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn wrong_line_is_named_with_its_text() {
        for (text, line, shown) in [
            (format!("{A}\n58228e05\n"), "line: 2", "id: 58228e05,"),
            (format!("ticket_id,mail\n\n{A},x\nnope,ann@acme.example\n"), "line: 4", "id: nope,"),
            (format!("{A}\nticket_id\n"), "line: 2", "id: ticket_id,"),
            ("\u{1b}[2J\n".to_owned(), "line: 1", "u{1b}"),
            ("ann@acme.example\n".to_owned(), "line: 1", "id: (not shown),"),
            (format!("mail,ticket_id\n\"x\n\ny\",{A}\nann@acme.example,\n"), "line: 5", "id: (empty),"),
            (format!("ticket_id,mail\n{A},x\nann@acme.example\n"), "line: 3", "id: (not shown),"),
            (format!("mail,ticket_id\nx,{A}\nann@acme.example\n"), "line: 3", "columns: 1,"),
            (format!("x,ticket_id\n\"ann@acme.example,{A}\n"), "line: 2", "quote"),
            (format!("# x\n[\"{A}\",\n\"nope\"]"), "line: 3", "id: nope,"),
            (format!("[\"{A}\",\n7]"), "line: 2", "neither"),
            (format!("[\"{A}\",\n"), "line: 2", "neither"),
            (format!("[\"{A}\"]\n\"acme\""), "line: 2", "neither"),
            (
                format!("{{\"ticket_id\":\"{A}\"}}\n{{\"ticket_id\":\"nope\",\"mail\":\"acme\"}}\n"),
                "line: 2",
                "id: nope,",
            ),
            ("{\"mail\":\"ann@acme.example\"}\n".to_owned(), "line: 1", "no `ticket_id`"),
            ("{\"ticket_id\":null}\n".to_owned(), "line: 1", "no `ticket_id`"),
            ("{\"ticket_id\":{\"acme\":1}}\n".to_owned(), "line: 1", "neither"),
        ] {
            let error = read(&text).unwrap_err();
            let message = format!("{error},");
            assert!(message.contains(line) && message.contains(shown), "{text:?}: {message}");
            assert!(!message.contains("acme") && !message.contains('\u{1b}'), "{message}");
            let shown = format!("{error:?}");
            assert!(!shown.contains("acme"), "{shown}");
        }
        let error = read(&format!("{A},x\n")).unwrap_err();
        assert!(error.to_string().contains("no header") && error.hint().unwrap().contains("`ticket_id`"), "{error:?}");
        assert!(read(&"5".repeat(100_000)).unwrap_err().to_string().contains("too long"));
        let wide: Vec<u8> = "ticket_id\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let error = read_bytes(&[&b"\xff\xfe"[..], &wide].concat()).unwrap_err();
        assert!(error.hint().unwrap().contains("UTF-8"), "{error:?}");
    }

    #[test]
    fn arguments_and_lines_share_one_order() {
        let mut ids = Ids::default();
        ids.add_arguments(&[A]).unwrap();
        ids.add_from("list", format!("{B}\n{A}\n").as_bytes()).unwrap();
        assert_eq!(ids.repeated(), 1);
        assert_eq!(ids.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>(), [A, B]);
        assert!(Ids::default().add_arguments(&["zzz"]).unwrap_err().to_string().contains("id: zzz"));
    }

    #[test]
    fn array_on_one_long_line_is_read() {
        let mut text = "[".to_owned();
        for number in 0..10_000 {
            let _ = write!(text, "{}\"{number:024x}\"", if number == 0 { "" } else { "," });
        }
        text.push(']');
        assert_eq!(read(&text).unwrap().len(), 10_000);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in any::<Vec<u8>>(), form in 0..4_usize) {
            let start = ["", "x,ticket_id\n", "[", "{\"ticket_id\":"][form];
            drop(read_bytes(&[start.as_bytes(), &text].concat()));
        }

        #[test]
        fn ids_of_a_table_are_found_among_any_values(
            rows in proptest::collection::vec((any::<[u8; 12]>(), "[a,;\t\"\n é]{0,12}"), 0..20),
            delimiter in prop_oneof![Just(','), Just(';'), Just('\t')],
            line_end in prop_oneof![Just("\n"), Just("\r\n")],
        ) {
            let mut text = format!("note{delimiter}ticket_id{delimiter}more{line_end}");
            let mut expected: Vec<String> = Vec::new();
            for (id, value) in rows {
                let id = ObjectId::from_bytes(id).to_string();
                let value = value.replace('"', "\"\"");
                let _ = write!(text, "\"{value}\"{delimiter}{id}{delimiter}\"{value}\"{line_end}");
                if !expected.contains(&id) {
                    expected.push(id);
                }
            }
            prop_assert_eq!(read(&text).unwrap(), expected);
        }
    }
}
