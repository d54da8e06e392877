//! E-mail addresses, plain and written out.

use super::cells::{IDEOGRAPH, LETTER, at, before, is_word};

const OPEN: &[u8] = b"([{<";
const CLOSE: &[u8] = b")]}>";
const AT_WORDS: [&[u8]; 5] = [b"at", b"@", b"arroba", b"arobase", b"chiocciola"];
const DOT_WORDS: [&[u8]; 5] = [b"dot", b"punkt", b"punto", b"point", b"."];
/// Endings that a bare `name at example dot com` must have, since its words are plain English.
const ENDINGS: [&[u8]; 22] = [
    b"com", b"org", b"net", b"edu", b"gov", b"io", b"co", b"de", b"fr", b"es", b"it", b"nl", b"uk", b"eu", b"br",
    b"in", b"ca", b"us", b"example", b"test", b"invalid", b"info",
];
const PICTURES: [&[u8]; 6] = [b"png", b"jpg", b"jpeg", b"gif", b"svg", b"webp"];
const MAX_LOCAL: usize = 64;
const MAX_DOMAIN: usize = 254;

/// Finds the address whose at-sign, or word for it, begins at `index`.
pub(super) fn find(cells: &[u8], index: usize, from: usize) -> Option<(usize, usize)> {
    let (sign_start, sign_end, is_bare) = sign(cells, index)?;
    let start = local(cells, sign_start, from)?;
    let end = domain(cells, sign_end, is_bare)?;
    Some((start, end))
}

/// Reads an at-sign and the spaces around it; the last value tells a bare word.
fn sign(cells: &[u8], index: usize) -> Option<(usize, usize, bool)> {
    match at(cells, index) {
        b'@' => {
            let start = if before(cells, index) == b' ' { index - 1 } else { index };
            let end = if at(cells, index + 1) == b' ' { index + 2 } else { index + 1 };
            Some((start, end, false))
        }
        b'%' if at(cells, index + 1) == b'4' && at(cells, index + 2) == b'0' => Some((index, index + 3, false)),
        open if OPEN.contains(&open) => {
            let inner = skip_spaces(cells, index + 1);
            let end = AT_WORDS.iter().find_map(|word| literal(cells, inner, word))?;
            let end = skip_spaces(cells, end);
            if !CLOSE.contains(&at(cells, end)) {
                return None;
            }
            let start = if before(cells, index) == b' ' { index - 1 } else { index };
            Some((start, skip_spaces(cells, end + 1), false))
        }
        b' ' => {
            let end = AT_WORDS.iter().filter(|word| **word != b"@").find_map(|word| literal(cells, index + 1, word))?;
            (at(cells, end) == b' ').then_some((index, end + 1, true))
        }
        _ => None,
    }
}

fn local(cells: &[u8], end: usize, from: usize) -> Option<usize> {
    let last = before(cells, end);
    if last == b'"' && end >= 2 {
        let limit = from.max(end.saturating_sub(MAX_LOCAL));
        return (limit..end - 1).rev().find(|at| cells[*at] == b'"').filter(|start| end - start > 2);
    }
    let takes_ideographs = last == IDEOGRAPH;
    let is_local = |cell: u8| {
        cell.is_ascii_alphanumeric()
            || cell == LETTER
            || (takes_ideographs && cell == IDEOGRAPH)
            || b"._%+-'&~#!$".contains(&cell)
    };
    let mut start = end;
    while start > from && is_local(cells[start - 1]) {
        start -= 1;
    }
    // Quotes, dashes and dots that stand before the address are of the sentence.
    while start < end && !(is_word(cells[start]) || cells[start] == IDEOGRAPH || cells[start] == b'_') {
        start += 1;
    }
    (start < end && last != b'.').then_some(start)
}

fn domain(cells: &[u8], start: usize, is_bare: bool) -> Option<usize> {
    let takes_ideographs = at(cells, start) == IDEOGRAPH;
    let is_label = |cell: u8| {
        cell.is_ascii_alphanumeric() || cell == LETTER || cell == b'-' || (takes_ideographs && cell == IDEOGRAPH)
    };
    let mut label = start;
    let mut found = None;
    let mut has_word = false;
    loop {
        let mut end = label;
        while end < cells.len() && end - start < MAX_DOMAIN && is_label(cells[end]) {
            end += 1;
        }
        if end == label || cells[label] == b'-' {
            break;
        }
        if label > start {
            let name = cells[label..end].to_ascii_lowercase();
            let trimmed = name.iter().rposition(|cell| *cell != b'-').map_or(0, |last| last + 1);
            let is_ending =
                trimmed >= 2 && (!name[..trimmed].iter().any(u8::is_ascii_digit) || name.starts_with(b"xn--"));
            let is_known = ENDINGS.contains(&&name[..trimmed]);
            let is_picture = PICTURES.contains(&&name[..trimmed]) && cells[start].is_ascii_digit();
            if is_ending && !is_picture && (!is_bare || (has_word && is_known)) {
                found = Some(label + trimmed);
            }
        }
        match dot(cells, end) {
            Some((next, is_word)) => {
                has_word |= is_word;
                label = next;
            }
            None => break,
        }
    }
    found
}

/// Reads a dot or a word for it; returns where the next label begins.
fn dot(cells: &[u8], index: usize) -> Option<(usize, bool)> {
    if at(cells, index) == b'.' {
        return Some((index + 1, false));
    }
    let open = skip_spaces(cells, index);
    if OPEN.contains(&at(cells, open)) {
        let inner = skip_spaces(cells, open + 1);
        let end = DOT_WORDS.iter().find_map(|word| literal(cells, inner, word))?;
        let end = skip_spaces(cells, end);
        return CLOSE.contains(&at(cells, end)).then(|| (skip_spaces(cells, end + 1), true));
    }
    if open == index {
        return None;
    }
    let end = DOT_WORDS[..4].iter().find_map(|word| literal(cells, open, word))?;
    (at(cells, end) == b' ').then_some((end + 1, true))
}

/// Skips one or two spaces.
fn skip_spaces(cells: &[u8], index: usize) -> usize {
    (index..index + 2).find(|index| at(cells, *index) != b' ').unwrap_or(index + 2)
}

fn literal(cells: &[u8], index: usize, word: &[u8]) -> Option<usize> {
    let found = cells.get(index..index + word.len())?;
    found.eq_ignore_ascii_case(word).then_some(index + word.len())
}
