//! A JSON reader over one page in memory: tokens where they stand, and values that are passed over without being read.
//!
//! A decoder that keeps a part of each record spends its time on what it drops. So nothing is copied here and no string is
//! unescaped: a text is the slice between its quotes, and a value that is skipped costs one look at each of its bytes, eight
//! at a time inside strings. The page is checked to be UTF-8 once, at the beginning.
//!
//! The grammar is that of RFC 8259 without exceptions, also inside what is skipped: half a page must not pass for a whole
//! one. Nesting is bounded by memory alone, because skipping keeps its own stack. Lone surrogates in escapes are let through, as
//! JavaScript lets them: see [`scalar`](super::scalar).

/// Reads one page.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The containers that [`skip`](Self::skip) is inside of; kept for its memory.
    stack: Vec<Container>,
}

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It ends before its JSON does.
    Truncated,
    /// It is no JSON.
    Syntax,
}

/// A value that was met: scalars whole, of the others the opening bracket, whose content is still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    Text(Text<'a>),
    Array,
    Object,
}

/// A string as it is written, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a str,
    pub(super) has_escape: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

impl<'a> Reader<'a> {
    /// Begins a page.
    pub(super) fn try_new(page: &'a [u8]) -> Result<Self, Flaw> {
        match std::str::from_utf8(page) {
            Ok(text) => Ok(Self { text, at: 0, stack: Vec::new() }),
            // Cut inside a character.
            Err(error) if error.error_len().is_none() => Err(Flaw::Truncated),
            Err(_) => Err(Flaw::Syntax),
        }
    }

    /// Returns line and column of where it reads, from 1.
    pub(super) fn position(&self) -> (usize, usize) {
        let read = &self.text.as_bytes()[..self.at.min(self.text.len())];
        let lines = read.split(|byte| *byte == b'\n').count();
        let line_start = read.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        (lines, read.len() - line_start + 1)
    }

    /// Reads a value, of a container only its bracket.
    pub(super) fn value(&mut self) -> Result<Value<'a>, Flaw> {
        Ok(match self.peek()? {
            b'"' => Value::Text(self.text()?),
            b'{' => {
                self.at += 1;
                Value::Object
            }
            b'[' => {
                self.at += 1;
                Value::Array
            }
            b't' => {
                self.literal("true")?;
                Value::Bool(true)
            }
            b'f' => {
                self.literal("false")?;
                Value::Bool(false)
            }
            b'n' => {
                self.literal("null")?;
                Value::Null
            }
            _ => Value::Number(self.number()?),
        })
    }

    /// Reads the next key of the object that was entered, or its end; `is_first` begins as true.
    pub(super) fn key(&mut self, is_first: &mut bool) -> Result<Option<Text<'a>>, Flaw> {
        if !self.more(is_first, b'}')? {
            return Ok(None);
        }
        if self.peek()? != b'"' {
            return Err(Flaw::Syntax);
        }
        let key = self.text()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// Reads the next key of the object that was entered where it is this one, written without white space (`"id":`); reads
    /// nothing where it is not.
    pub(super) fn key_is(&mut self, is_first: &mut bool, written: &[u8]) -> bool {
        let rest = &self.text.as_bytes()[self.at..];
        let rest = if *is_first { Some(rest) } else { rest.strip_prefix(b",") };
        let found = !written.is_empty() && rest.is_some_and(|rest| rest.starts_with(written));
        if found {
            self.at += usize::from(!*is_first) + written.len();
            *is_first = false;
        }
        found
    }

    /// Tells whether the array that was entered has another element, or reads its end; `is_first` begins as true.
    pub(super) fn element(&mut self, is_first: &mut bool) -> Result<bool, Flaw> {
        self.more(is_first, b']')
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self) -> Result<(), Flaw> {
        let value = self.value()?;
        self.skip_rest(value)
    }

    /// Passes over what of a value was not read yet: the content of a container.
    pub(super) fn skip_rest(&mut self, value: Value<'a>) -> Result<(), Flaw> {
        self.stack.clear();
        let mut is_first = true;
        self.enter(value);
        while let Some(container) = self.stack.last() {
            let has_more = match container {
                Container::Array => self.more(&mut is_first, b']')?,
                Container::Object => self.key(&mut is_first)?.is_some(),
            };
            if has_more {
                let value = self.value()?;
                is_first = self.enter(value);
            } else {
                self.stack.pop();
                is_first = false;
            }
        }
        Ok(())
    }

    /// Tells whether a container that was entered has nothing in it, and reads no further.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Flaw> {
        Ok(matches!(self.peek()?, b'}' | b']'))
    }

    /// Marks where it reads, to come back to with [`back`](Self::back).
    pub(super) fn mark(&self) -> usize {
        self.at
    }

    /// Goes back to a mark.
    pub(super) fn back(&mut self, mark: usize) {
        self.at = mark;
    }

    /// Reads the end of the page.
    pub(super) fn end(&mut self) -> Result<(), Flaw> {
        match self.peek() {
            Err(_) => Ok(()),
            Ok(_) => Err(Flaw::Syntax),
        }
    }

    fn enter(&mut self, value: Value<'a>) -> bool {
        match value {
            Value::Array => self.stack.push(Container::Array),
            Value::Object => self.stack.push(Container::Object),
            _ => return false,
        }
        true
    }

    fn more(&mut self, is_first: &mut bool, end: u8) -> Result<bool, Flaw> {
        let byte = self.peek()?;
        if byte == end {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::take(is_first) {
            if byte != b',' {
                return Err(Flaw::Syntax);
            }
            self.at += 1;
        }
        Ok(true)
    }

    /// Returns the next byte that is no white space.
    fn peek(&mut self) -> Result<u8, Flaw> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(Flaw::Truncated),
            }
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Flaw> {
        if self.peek()? != wanted {
            return Err(Flaw::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), Flaw> {
        let rest = &self.text.as_bytes()[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(if word.as_bytes().starts_with(rest) { Flaw::Truncated } else { Flaw::Syntax })
    }

    /// Reads a string from its opening quote on.
    fn text(&mut self) -> Result<Text<'a>, Flaw> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut has_escape = false;
        loop {
            at += plain_length(&bytes[at.min(bytes.len())..]);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    // Quotes are characters of their own, so this is inside no other.
                    return Ok(Text { raw: self.text.get(start..at).unwrap_or_default(), has_escape });
                }
                Some(b'\\') => {
                    has_escape = true;
                    at += escape_length(&bytes[at..]).inspect_err(|_| self.at = at)?;
                }
                Some(_) => {
                    self.at = at;
                    return Err(Flaw::Syntax);
                }
                None => {
                    self.at = at;
                    return Err(Flaw::Truncated);
                }
            }
        }
    }

    fn number(&mut self) -> Result<&'a str, Flaw> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
        let digits = |at: usize| {
            let length = bytes[at.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            match (length, bytes.get(at)) {
                (0, None) => Err(Flaw::Truncated),
                (0, Some(_)) => Err(Flaw::Syntax),
                (length, _) => Ok(length),
            }
        };
        at += if bytes.get(at) == Some(&b'0') { 1 } else { digits(at)? };
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            at += digits(at)?;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            at += digits(at)?;
        }
        self.at = at;
        Ok(self.text.get(start..at).unwrap_or_default())
    }
}

/// Counts the bytes before the first that is a quote, a backslash or a control character.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let chunk = u64::from_le_bytes(*chunk);
        // The highest bit of each byte that is below a bound, or zero; bytes above 0x7f are never.
        let control = chunk.wrapping_sub(ONES * 0x20) & !chunk;
        let quote = (chunk ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES) & !(chunk ^ (ONES * u64::from(b'"')));
        let escape = (chunk ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES) & !(chunk ^ (ONES * u64::from(b'\\')));
        let found = (control | quote | escape) & HIGHS;
        if found != 0 {
            // A borrow reaches only the bytes behind the first that was found.
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let is_plain = |byte: &&u8| **byte >= 0x20 && **byte != b'"' && **byte != b'\\';
    chunks.len() * 8 + rest.iter().take_while(is_plain).count()
}

fn escape_length(bytes: &[u8]) -> Result<usize, Flaw> {
    match bytes.get(1) {
        None => Err(Flaw::Truncated),
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => {
            let digits = bytes[2..].iter().take(4).take_while(|byte| byte.is_ascii_hexdigit()).count();
            match digits {
                4 => Ok(6),
                digits if digits + 2 == bytes.len() => Err(Flaw::Truncated),
                _ => Err(Flaw::Syntax),
            }
        }
        Some(_) => Err(Flaw::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::policy::scalar;

    fn skipped(text: &[u8]) -> Result<(), Flaw> {
        let mut reader = Reader::try_new(text)?;
        reader.skip()?;
        reader.end()
    }

    /// Reads a value whole, as a decoder that keeps all would.
    fn whole(reader: &mut Reader<'_>) -> Result<Json, Flaw> {
        let text = |text: Text<'_>| scalar::text(text, &mut String::new()).to_owned();
        Ok(match reader.value()? {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Number(number) => serde_json::from_str(number).unwrap(),
            Value::Text(value) => Json::String(text(value)),
            Value::Array => {
                let (mut items, mut is_first) = (Vec::new(), true);
                while reader.element(&mut is_first)? {
                    items.push(whole(reader)?);
                }
                Json::Array(items)
            }
            Value::Object => {
                let (mut members, mut is_first) = (serde_json::Map::new(), true);
                while let Some(key) = reader.key(&mut is_first)? {
                    members.insert(text(key), whole(reader)?);
                }
                Json::Object(members)
            }
        })
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<i64>().prop_map(Json::from),
            any::<i32>().prop_map(|eighths| Json::from(f64::from(eighths) / 8.0)),
            any::<String>().prop_map(Json::String),
            "[ -~]{0,40}".prop_map(Json::String),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
                prop::collection::vec((any::<String>(), inner), 0..6).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_is_read_as_it_was_written(value in json(), is_pretty: bool) {
            let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut reader = Reader::try_new(text.as_bytes()).unwrap();
            prop_assert_eq!(&whole(&mut reader).unwrap(), &value);
            reader.end().unwrap();
            skipped(text.as_bytes()).unwrap();
        }

        #[test]
        fn every_cut_is_seen(value in json(), at in any::<prop::sample::Index>()) {
            let text = format!("[{value}]");
            let cut = at.index(text.len());
            prop_assert_eq!(skipped(&text.as_bytes()[..cut]), Err(Flaw::Truncated));
        }

        #[test]
        fn changed_bytes_are_judged_as_by_another_reader(
            value in json(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
        ) {
            let mut text = value.to_string().into_bytes();
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            // The other reader refuses numbers that no float holds and lone surrogates only where it builds values.
            let other = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok() && std::str::from_utf8(&text).is_ok();
            prop_assert_eq!(skipped(&text).is_ok(), other, "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn grammar_has_no_exceptions() {
        for good in [
            "0",
            "-0",
            "10",
            "1.5e+10",
            "-2E-3",
            " [ ] ",
            "{}",
            r#"{"a":1,"a":2}"#,
            r#""\u00e9\/\ud83d""#,
            "\"é\u{7f}\"",
            "[[],[[]],{}]",
        ] {
            assert_eq!(skipped(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:2}",
            "tru",
            "nul1",
            "'a'",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "[1]]",
            "}",
            "",
            "NaN",
            "\u{feff}1",
            "1;",
        ] {
            assert!(skipped(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(skipped(b"\"\xff\""), Err(Flaw::Syntax));
        assert_eq!(skipped(b"\"\xc3"), Err(Flaw::Truncated));
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert_eq!(skipped(deep.as_bytes()), Ok(()));
    }

    #[test]
    fn position_counts_lines_and_columns() {
        let mut reader = Reader::try_new(b"{\n \"a\": x}").unwrap();
        assert_eq!(skipped(b"{\n \"a\": x}"), Err(Flaw::Syntax));
        assert!(reader.skip().is_err());
        assert_eq!(reader.position(), (2, 7));
    }
}
