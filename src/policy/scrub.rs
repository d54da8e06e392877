//! Free text: what names a person in it is replaced by its kind.
//!
//! | kind | what is found |
//! |---|---|
//! | `url` | links with a token or a person in them; `scrub/link.rs` writes down which |
//! | `email` | addresses, also `name (at) example (dot) com`, full-width and of other scripts |
//! | `iban` | the countries of the registry, by length and checksum, grouped or not, in either case |
//! | `card` | 12 to 19 digits in an issuer's range that pass Luhn; short and rare ones only after a word such as *card* |
//! | `national-id` | by check digit: German Steuer-ID, French NIR, Spanish DNI and NIE, Italian codice fiscale, Indian Aadhaar, Brazilian CPF, Swiss AHV, Swedish, Belgian and Chinese numbers; after a word that says so: US SSN, UK NINO, Canadian SIN, Dutch BSN, Indian PAN, Polish PESEL |
//! | `phone` | international and national forms; a plain run of digits only after a word such as *call* |
//! | own patterns | `[[pattern]]` of the schema file, by regular expression over the text as it is |
//!
//! The table's order is the precedence: what one kind took, none below it sees. Matches of own patterns that overlap others
//! become one with them, under the pattern's name, so that no rest of either stays. Links that stay, dates, times, IP
//! addresses and UUIDs are closed to numbers.
//!
//! # Invariants
//!
//! Scrubbing a scrubbed text changes nothing: placeholders are walls, and a text is scanned again until nothing is found.
//! One that does not come to rest within [`MAX_PASSES`] is replaced as a whole. A scan is linear in the text. A text without
//! digits, at-signs and links costs one pass over its bytes; buffers are kept per thread.
//!
//! # Limits
//!
//! Names of people and postal addresses are not found, nor are numbers spelled in words, plain runs of digits without a word
//! before them, user names, and passwords. `[text]` stands for a text that had to go as a whole.

use std::cell::RefCell;

use regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};

mod address;
mod cells;
mod context;
mod link;
mod national;
mod number;
mod phone;

use cells::{Cells, Span, at};

/// The kinds that are known, all of which a scrub replaces unless it names some.
pub(super) const KINDS: [&str; 6] = ["email", "phone", "card", "iban", "national-id", "url"];

const EMAIL: usize = 0;
const PHONE: usize = 1;
const CARD: usize = 2;
const IBAN: usize = 3;
const NATIONAL: usize = 4;
const URL: usize = 5;
/// More passes than any text that people write needs.
const MAX_PASSES: usize = 8;
const WHOLE: &str = "[text]";
const REGEX_BYTES: usize = 1 << 20;

/// A compiled scrub.
#[derive(Debug)]
pub(super) struct Scrub {
    enabled: [bool; 6],
    /// Placeholders: of the kinds, then of the own patterns.
    labels: Vec<String>,
    patterns: Vec<Regex>,
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    cells: Cells,
    spans: Vec<Span>,
    next: String,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scrub {
    /// Compiles the kinds and the patterns (name, regular expression) of a schema file.
    pub(super) fn compile(kinds: &[String], patterns: &[(String, String)]) -> Result<Self> {
        let mut labels: Vec<String> = KINDS.iter().map(|kind| format!("[{kind}]")).collect();
        labels.extend(patterns.iter().map(|(name, _)| format!("[{name}]")));
        let patterns = patterns.iter().map(|(name, regex)| own(name, regex, &labels)).collect::<Result<_>>()?;
        Ok(Self { enabled: KINDS.map(|kind| kinds.iter().any(|wanted| wanted == kind)), labels, patterns })
    }

    /// Writes the scrubbed text; `false`, and nothing written, where there is nothing to replace.
    pub(super) fn write(&self, value: &str, out: &mut String) -> bool {
        if self.patterns.is_empty() && !may_match(value) {
            return false;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let from = out.len();
            if !self.pass(value, scratch, out) {
                scratch.cells.shrink();
                return false;
            }
            let mut passes = 1;
            let mut next = std::mem::take(&mut scratch.next);
            loop {
                next.clear();
                if !self.pass(&out[from..], scratch, &mut next) {
                    break;
                }
                out.truncate(from);
                passes += 1;
                if passes == MAX_PASSES {
                    out.push_str(WHOLE);
                    break;
                }
                out.push_str(&next);
            }
            next.shrink_to(1 << 16);
            scratch.next = next;
            scratch.cells.shrink();
            true
        })
    }

    /// Scans once; writes the text with what was found replaced.
    fn pass(&self, text: &str, scratch: &mut Scratch, out: &mut String) -> bool {
        let Scratch { cells, spans, .. } = scratch;
        spans.clear();
        cells.fill(text);
        self.wall_placeholders(text, cells);
        if !self.patterns.is_empty() {
            self.find_own(text, cells, spans);
        }
        if may_match(text) {
            self.find(text, cells, spans);
        }
        if spans.is_empty() {
            return false;
        }
        spans.sort_unstable_by_key(|span| (span.start, span.end));
        let mut written = 0;
        let mut index = 0;
        while index < spans.len() {
            let Span { start, mut end, mut label } = spans[index];
            index += 1;
            while let Some(next) = spans.get(index).filter(|next| next.start < end) {
                end = end.max(next.end);
                label = if label.max(next.label) >= KINDS.len() { label.max(next.label) } else { label };
                index += 1;
            }
            let (from, to) = cells.range(text, start, end);
            out.push_str(&text[written..from]);
            out.push_str(&self.labels[label]);
            written = to;
        }
        out.push_str(&text[written..]);
        true
    }

    fn wall_placeholders(&self, text: &str, cells: &mut Cells) {
        for (open, _) in text.match_indices('[') {
            let label =
                self.labels.iter().map(String::as_str).chain([WHOLE]).find(|label| text[open..].starts_with(label));
            if let Some(label) = label {
                cells.wall(cells.cell_at(open), cells.cell_at(open + label.len()));
            }
        }
    }

    /// Runs the own patterns over the text between placeholders.
    fn find_own(&self, text: &str, cells: &Cells, spans: &mut Vec<Span>) {
        let mut from = 0;
        let mut rest = text.match_indices('[');
        loop {
            let wall = rest.find_map(|(open, _)| {
                let mut labels = self.labels.iter().map(String::as_str).chain([WHOLE]);
                labels.find(|label| text[open..].starts_with(label)).map(|label| (open, open + label.len()))
            });
            let part = &text[from..wall.map_or(text.len(), |(open, _)| open)];
            for (place, pattern) in self.patterns.iter().enumerate() {
                for found in pattern.find_iter(part).filter(|found| !found.is_empty()) {
                    let (start, end) = (cells.cell_at(from + found.start()), cells.cell_at(from + found.end()));
                    if start < end {
                        spans.push(Span { start, end, label: KINDS.len() + place });
                    }
                }
            }
            match wall {
                Some((_, end)) => from = end,
                None => return,
            }
        }
    }

    fn find(&self, text: &str, cells: &mut Cells, spans: &mut Vec<Span>) {
        self.find_links(cells, spans);
        self.find_numbers(text, cells, spans);
    }

    /// Finds links and addresses, then closes what stays to numbers.
    fn find_links(&self, cells: &mut Cells, spans: &mut Vec<Span>) {
        let mut index = 0;
        let mut from = 0;
        let mut kept = Vec::new();
        while index < cells.bytes.len() {
            if matches!(cells.bytes[index], b':' | b'w' | b'W' | b'?')
                && let Some(link) = link::find(&cells.bytes, index, from)
            {
                if link.is_secret && self.enabled[URL] {
                    spans.push(Span { start: link.start, end: link.end, label: URL });
                    cells.wall(link.start, link.end);
                    from = link.end;
                } else if !link.is_secret {
                    kept.push((link.start, link.end));
                }
                index = if link.is_secret && !self.enabled[URL] { index + 1 } else { link.end.max(index + 1) };
                continue;
            }
            index += 1;
        }
        index = 0;
        from = 0;
        while self.enabled[EMAIL] && index < cells.bytes.len() {
            if matches!(cells.bytes[index], b'@' | b'%' | b'(' | b'[' | b'{' | b'<' | b' ')
                && let Some((start, end)) = address::find(&cells.bytes, index, from)
            {
                spans.push(Span { start, end, label: EMAIL });
                cells.wall(start, end);
                index = end;
                from = end;
                continue;
            }
            index += 1;
        }
        for (start, end) in kept {
            cells.wall(start, end);
        }
    }

    fn find_numbers(&self, text: &str, cells: &mut Cells, spans: &mut Vec<Span>) {
        let mut each = |cells: &mut Cells, label: usize, find: &dyn Fn(&Cells, usize) -> Option<usize>| {
            let mut index = 0;
            while index < cells.bytes.len() {
                let cell = cells.bytes[index];
                let is_start = cell.is_ascii_alphanumeric() || cell == b'+' || cell == b'(';
                match if is_start { find(cells, index) } else { None } {
                    Some(end) => {
                        if label < KINDS.len() {
                            spans.push(Span { start: index, end, label });
                        }
                        cells.wall(index, end);
                        index = end;
                    }
                    None => index += 1,
                }
            }
        };
        let digit = |cells: &Cells, index: usize| at(&cells.bytes, index).is_ascii_digit();
        let byte = |cells: &Cells, index: usize| cells.range(text, index, index + 1).0;
        if self.enabled[IBAN] {
            each(cells, IBAN, &|cells, index| number::iban(&cells.bytes, index));
        }
        each(cells, KINDS.len(), &|cells, index| number::look_alike(&cells.bytes, index));
        if self.enabled[CARD] {
            each(cells, CARD, &|cells, index| {
                let (end, needs_word) = number::card(&cells.bytes, index).filter(|_| digit(cells, index))?;
                (!needs_word || context::says(text, byte(cells, index), context::CARD)).then_some(end)
            });
        }
        if self.enabled[NATIONAL] {
            each(cells, NATIONAL, &|cells, index| national::find(&cells.bytes, index, text, || byte(cells, index)));
        }
        if self.enabled[PHONE] {
            each(cells, PHONE, &|cells, index| {
                if at(&cells.bytes, index).is_ascii_alphabetic() {
                    return None;
                }
                phone::find(&cells.bytes, index, text, || byte(cells, index))
            });
        }
    }
}

/// Compiles an own pattern, or tells why it cannot be used.
fn own(name: &str, pattern: &str, labels: &[String]) -> Result<Regex> {
    let wrong = |message: &str, hint: &str| Error::config(message).with_context("pattern", name).with_hint(hint);
    let regex =
        RegexBuilder::new(pattern).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build().map_err(|error| {
            match error {
                regex::Error::CompiledTooBig(_) => {
                    wrong("pattern is too large", "repeat less (`{1,20}`), or use narrower classes")
                }
                error => {
                    // The pattern and a pointer into it stand above the last line, which says what is wrong.
                    let told = error.to_string();
                    let last = told.lines().last().unwrap_or_default();
                    wrong("pattern does not compile", last.strip_prefix("error: ").unwrap_or(last))
                }
            }
        })?;
    if regex.is_match("") {
        return Err(wrong(
            "pattern matches the empty text",
            "write `+` where there is `*`, so that it needs a character",
        ));
    }
    if let Some(label) = labels.iter().map(String::as_str).chain([WHOLE]).find(|label| regex.is_match(label)) {
        return Err(wrong("pattern matches a placeholder", "narrow it, e.g. with a digit that it must have")
            .with_context("placeholder", label));
    }
    Ok(regex)
}

/// Tells whether a text has anything that a scanner begins with: digits, an at-sign or a word for it, a link.
fn may_match(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut digits = 0;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                if digits >= 4 {
                    return true;
                }
            }
            b'@' | b'?' | b'[' | b'{' | b'(' | b'<' => return true,
            b':' if matches!(cells::at(bytes, index + 1), b'/' | b'a'..=b'z' | b'A'..=b'Z') => return true,
            b'w' | b'W' if matches!(cells::at(bytes, index + 1), b'w' | b'W') => return true,
            b'd' | b'D' | b'p' | b'P' if cells::before(bytes, index) == b' ' => {
                let word = &bytes[index..bytes.len().min(index + 4)];
                if [&b"dot "[..], b"punk", b"punt", b"poin"].iter().any(|dot| dot.eq_ignore_ascii_case(word)) {
                    return true;
                }
            }
            0xc0.. => {
                if let Some(c) = text[index..].chars().next() {
                    let folded = cells::fold(c);
                    if folded.is_some_and(|cell| {
                        matches!(cell, b'0'..=b'9' | b'@' | b'?' | b':' | b'(' | b'[' | b'<' | b'w' | b'W')
                    }) {
                        return true;
                    }
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests;
