//! What a terminal is shown of a text that came from outside: it cannot be driven by it.
//!
//! Control characters (line ends and tabs apart), marks that turn the direction of writing, and bytes that are no UTF-8
//! become `�`. Files and pipes get every byte as it is.

use std::io::{self, Write};

use zeroize::Zeroizing;

/// Standard output, and whether it is a terminal.
pub(super) struct Shown<W> {
    inner: W,
    is_terminal: bool,
    /// The beginning of a character whose end has not come yet.
    begun: Zeroizing<Vec<u8>>,
}

impl<W: Write> Shown<W> {
    pub(super) fn new(inner: W, is_terminal: bool) -> Self {
        Self { inner, is_terminal, begun: Zeroizing::default() }
    }
}

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_terminal {
            return self.inner.write(bytes);
        }
        let mut all = Zeroizing::new(Vec::with_capacity(self.begun.len() + bytes.len()));
        all.extend_from_slice(&self.begun);
        all.extend_from_slice(bytes);
        self.begun.clear();
        let mut text = Zeroizing::new(String::with_capacity(3 * all.len()));
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.extend(chunk.valid().chars().filter_map(harmless));
            let is_cut = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            if is_cut && chunks.peek().is_none() {
                self.begun.extend_from_slice(chunk.invalid());
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.inner.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.begun.is_empty() {
            self.begun.clear();
            self.inner.write_all("\u{fffd}".as_bytes())?;
        }
        self.inner.flush()
    }
}

/// Returns what stands for a character, which is nothing for a carriage return: lines end without it.
fn harmless(each: char) -> Option<char> {
    match each {
        '\n' | '\t' => Some(each),
        '\r' => None,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(char::REPLACEMENT_CHARACTER)
        }
        each if each.is_control() => Some(char::REPLACEMENT_CHARACTER),
        each => Some(each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]], is_terminal: bool) -> Vec<u8> {
        let mut out = Shown::new(Vec::new(), is_terminal);
        for piece in pieces {
            out.write_all(piece).unwrap();
        }
        out.flush().unwrap();
        out.inner
    }

    #[test]
    fn terminal_is_not_driven_and_pipe_gets_every_byte() {
        let text = "grüße\t1\r\n\u{1b}[2J\u{9b}2J\u{202e}x\u{7f}".as_bytes();
        let all = [text, b"\xff\x80\xe2\x82ok\xe2\x82"].concat();
        assert_eq!(shown(&[&all], false), all);
        let expected = "grüße\t1\n\u{fffd}[2J\u{fffd}2J\u{fffd}x\u{fffd}\u{fffd}\u{fffd}\u{fffd}ok\u{fffd}";
        // However the bytes are cut, the same is shown.
        for size in 1..=all.len() {
            let pieces: Vec<&[u8]> = all.chunks(size).collect();
            assert_eq!(String::from_utf8(shown(&pieces, true)).unwrap(), expected, "{size}");
        }
    }
}
