//! Texts that leave nothing behind: cleared when they are dropped, and where they stood before they grew.

use std::fmt;
use std::ops::Deref;

use zeroize::Zeroize as _;

/// A text that is put together of pieces.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Words(String);

impl Words {
    /// Makes room for so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Joins pieces.
    pub(super) fn of(pieces: &[&str]) -> Self {
        Self(pieces.concat())
    }

    /// Joins what there is of pieces, with something between each two.
    pub(super) fn joined<'p>(pieces: impl IntoIterator<Item = &'p str>, between: &str) -> Self {
        let mut words = Self::default();
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            if !words.is_empty() {
                words.push(between);
            }
            words.push(piece);
        }
        words
    }

    /// Appends a piece.
    pub(super) fn push(&mut self, piece: &str) {
        push(&mut self.0, piece);
    }

    /// Appends a character.
    pub(super) fn push_char(&mut self, character: char) {
        self.push(character.encode_utf8(&mut [0; 4]));
    }
}

/// Appends to a text that its owner clears; where it has to move, the old place is cleared as well.
pub(super) fn push(text: &mut String, piece: &str) {
    let needed = text.len() + piece.len();
    if needed > text.capacity() {
        let mut wider = String::with_capacity(needed.max(2 * text.capacity()));
        wider.push_str(text);
        std::mem::replace(text, wider).zeroize();
    }
    text.push_str(piece);
}

impl Deref for Words {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Write for Words {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.push(piece);
        Ok(())
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn pieces_are_joined_however_often_the_text_moves() {
        let mut words = Words::with_room(1);
        for number in 0..100 {
            write!(words, "{number}").unwrap();
            words.push_char('é');
        }
        let pieces: Vec<&str> = words.split_terminator('é').collect();
        assert_eq!(pieces, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(&*Words::joined(["a", "", "b"], ", "), "a, b");
        assert_eq!(&*Words::of(&["<", "x", ">"]), "<x>");
    }
}
