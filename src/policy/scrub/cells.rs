//! A text as the scanners see it: one ASCII byte per character that counts.
//!
//! Digits of every script, full-width forms, dashes, spaces and at-signs become their ASCII twin; characters without width
//! (soft hyphen, joiners, direction marks) are left out, so that they cannot split a number. Other letters become
//! [`LETTER`], or [`IDEOGRAPH`] where a script writes without spaces; all else becomes [`OTHER`]. What is decided
//! becomes [`WALL`], which no scanner crosses.

/// A letter outside ASCII.
pub(super) const LETTER: u8 = 0x80;
/// A letter of a script that writes without spaces, next to which a word can begin.
pub(super) const IDEOGRAPH: u8 = 0x81;
/// Any other character outside ASCII.
pub(super) const OTHER: u8 = 0x82;
/// A place that is taken, or that holds nothing for the scanners to come.
pub(super) const WALL: u8 = 0xff;

/// First digits of the scripts' decimal systems, each followed by nine more.
const ZEROS: [u32; 18] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0e50, 0x0ed0,
    0x0f20, 0x1040, 0x17e0, 0x1810,
];

/// A match: cells and the index of its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) label: usize,
}

/// The folded text, and where each cell stands in the text itself.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) bytes: Vec<u8>,
    /// Byte offsets of the cells' characters; empty where cells and bytes are the same.
    starts: Vec<usize>,
}

impl Cells {
    pub(super) fn fill(&mut self, text: &str) {
        self.bytes.clear();
        self.starts.clear();
        if text.is_ascii() {
            self.bytes.extend_from_slice(text.as_bytes());
            return;
        }
        for (at, c) in text.char_indices() {
            if let Some(cell) = fold(c) {
                self.bytes.push(cell);
                self.starts.push(at);
            }
        }
    }

    /// Returns the byte range of cells in the text.
    pub(super) fn range(&self, text: &str, start: usize, end: usize) -> (usize, usize) {
        if self.starts.is_empty() || start >= end {
            return (start, end);
        }
        let last = self.starts[end - 1];
        let width = text[last..].chars().next().map_or(0, char::len_utf8);
        (self.starts[start], last + width)
    }

    /// Returns the first cell at or after a byte of the text.
    pub(super) fn cell_at(&self, byte: usize) -> usize {
        if self.starts.is_empty() { byte } else { self.starts.partition_point(|start| *start < byte) }
    }

    pub(super) fn wall(&mut self, start: usize, end: usize) {
        self.bytes[start..end].fill(WALL);
    }

    /// Gives back what an unusually long text needed.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to(1 << 16);
        self.starts.shrink_to(1 << 16);
    }
}

/// Folds a character; `None` where it has no width.
pub(super) fn fold(c: char) -> Option<u8> {
    if c.is_ascii() {
        return Some(c as u8);
    }
    let code = u32::from(c);
    Some(match code {
        0x00ad
        | 0x034f
        | 0x061c
        | 0x180e
        | 0x200b..=0x200f
        | 0x202a..=0x202e
        | 0x2060..=0x2069
        | 0x20e3
        | 0xfe00..=0xfe0f
        | 0xfeff
        | 0xe_0000..=0xe_01ef => return None,
        0x00a0 | 0x1680 | 0x2000..=0x200a | 0x202f | 0x205f | 0x3000 => b' ',
        0x2010..=0x2015 | 0x2212 | 0xfe58 | 0xfe63 => b'-',
        0x2024 | 0x3002 | 0xfe52 | 0xff61 => b'.',
        0x2044 | 0x2215 => b'/',
        0x2019 => b'\'',
        0xfe6b => b'@',
        0xff01..=0xff5e => (code - 0xff01) as u8 + b'!',
        0x1_d7ce..=0x1_d7ff => ((code - 0x1_d7ce) % 10) as u8 + b'0',
        _ => match ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code)) {
            Some(zero) => (code - zero) as u8 + b'0',
            None if is_ideograph(code) => IDEOGRAPH,
            None if c.is_alphanumeric() => LETTER,
            // Accents that stand as characters of their own belong to the letter before.
            None if (0x0300..0x0370).contains(&code) => LETTER,
            None => OTHER,
        },
    })
}

fn is_ideograph(code: u32) -> bool {
    matches!(code, 0x0e00..=0x0eff | 0x1100..=0x11ff | 0x3040..=0x30ff | 0x3400..=0x9fff | 0xac00..=0xd7ff | 0x2_0000..=0x3_ffff)
}

pub(super) fn at(cells: &[u8], index: usize) -> u8 {
    cells.get(index).copied().unwrap_or(WALL)
}

/// Returns the cell before an index.
pub(super) fn before(cells: &[u8], index: usize) -> u8 {
    if index == 0 { WALL } else { at(cells, index - 1) }
}

pub(super) fn is_word(cell: u8) -> bool {
    cell.is_ascii_alphanumeric() || cell == LETTER
}

/// Tells whether a code can begin here: no word, and no longer code, runs into it.
pub(super) fn begins(cells: &[u8], index: usize) -> bool {
    let last = before(cells, index);
    if is_word(last) || last == b'_' {
        return false;
    }
    let glues = matches!(last, b'-' | b'.' | b'/' | b',' | b'#' | b'\\' | b'*');
    !(glues && (index < 2 || is_word(before(cells, index - 1)) || matches!(last, b'#' | b'*')) && index > 0)
}

/// Tells whether a code can end here.
pub(super) fn ends(cells: &[u8], index: usize) -> bool {
    let next = at(cells, index);
    if is_word(next) || matches!(next, b'_' | b'@') {
        return false;
    }
    let after = at(cells, index + 1);
    match next {
        b'-' | b'/' => !is_word(after),
        b'.' | b',' | b':' => !after.is_ascii_digit(),
        b'%' => false,
        _ => true,
    }
}

/// Copies up to `N` digits of a range, past its separators; `None` where there are more.
pub(super) fn digits<const N: usize>(cells: &[u8]) -> Option<([u8; N], usize)> {
    let mut found = [0; N];
    let mut count = 0;
    for cell in cells.iter().filter(|cell| cell.is_ascii_digit()) {
        *found.get_mut(count)? = cell - b'0';
        count += 1;
    }
    Some((found, count))
}
