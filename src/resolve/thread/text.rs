//! People's text on a terminal: made harmless, measured in columns, wrapped.
//!
//! A ticket's text was written by a stranger. A terminal obeys what is in it: escape sequences move the cursor, set the
//! clipboard or change the title, and marks of direction show words in another order than they have. So nothing but
//! printing characters, spaces and line breaks passes; what is replaced leaves a sign, what never has a width goes.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::words::Words;

/// Columns between tab stops.
const TAB: usize = 4;

/// What stands for a character that would drive the terminal and has no picture of its own.
const REPLACED: char = '\u{fffd}';

/// Returns `text` without anything that a terminal obeys; breaks of all kinds become `\n`.
pub(super) fn harmless(text: &str) -> Words {
    let mut out = Words::with_room(text.len() + text.len() / 8 + 16);
    let mut characters = text.chars().peekable();
    let mut column = 0;
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{b}' | '\u{c}' => {
                out.push("\n");
                column = 0;
                continue;
            }
            '\r' => {
                if characters.peek() != Some(&'\n') {
                    out.push("\n");
                    column = 0;
                }
                continue;
            }
            '\t' => {
                for _ in 0..TAB - column % TAB {
                    out.push(" ");
                }
                column += TAB - column % TAB;
                continue;
            }
            // The pictures of control characters stand in their order.
            '\0'..='\u{1f}' => out.push_char(char::from_u32(0x2400 + character as u32).unwrap_or(REPLACED)),
            '\u{7f}' => out.push_char('\u{2421}'),
            // C1 controls, and what overrides the direction of others' words.
            '\u{80}'..='\u{9f}' | '\u{202d}' | '\u{202e}' => out.push_char(REPLACED),
            _ if is_unseen(character) => continue,
            other => out.push_char(other),
        }
        column += character.width().unwrap_or(1);
    }
    out
}

/// Characters that have no width and no place in a thread: marks of direction, joiners of words, fillers, tags.
const fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202c}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Returns `text` harmless and on one line.
pub(super) fn on_one_line(text: &str) -> Words {
    let line = harmless(text);
    if line.contains('\n') { Words::joined(line.split_whitespace(), " ") } else { line }
}

/// Returns the columns that a harmless line takes.
pub(super) fn columns(line: &str) -> usize {
    line.width()
}

/// Calls `put` with each line of a harmless text, none wider than `width` columns.
///
/// Lines break between words; a word that is wider than a line is broken where the line ends. What begins with spaces keeps
/// them, runs of blank lines become one.
pub(super) fn wrapped(text: &str, width: usize, mut put: impl FnMut(&str)) {
    let width = width.max(2);
    let mut is_blank = true;
    for paragraph in text.trim_matches('\n').split('\n') {
        let paragraph = paragraph.trim_end();
        if paragraph.is_empty() {
            if !is_blank {
                put("");
            }
            is_blank = true;
            continue;
        }
        is_blank = false;
        lines(paragraph, width, &mut put);
    }
}

/// Breaks one paragraph.
fn lines(paragraph: &str, width: usize, put: &mut impl FnMut(&str)) {
    let words = paragraph.trim_start_matches(' ');
    let indent = (paragraph.len() - words.len()).min(width / 2);
    let mut rest = &paragraph[paragraph.len() - words.len() - indent..];
    loop {
        let fits = fitting(rest, width);
        if fits == rest.len() {
            break;
        }
        // A space at the end of the line is not wider than the line.
        let end = if rest[fits..].starts_with(' ') {
            fits
        } else {
            match rest[..fits].trim_end_matches(' ').rfind(' ') {
                Some(space) if !rest[..space].trim_start().is_empty() => space,
                _ => fits,
            }
        };
        put(rest[..end].trim_end());
        rest = rest[end..].trim_start_matches(' ');
    }
    if !rest.is_empty() {
        put(rest);
    }
}

/// Returns how many bytes fit into `width` columns: at least one character, and no mark without the letter it stands on.
fn fitting(text: &str, width: usize) -> usize {
    let mut used = 0;
    let mut fits = 0;
    for (at, character) in text.char_indices() {
        // The sign for a picture makes a narrow character a wide one.
        used += if character == '\u{fe0f}' { 1 } else { character.width().unwrap_or(0) };
        if used > width && at > 0 {
            break;
        }
        fits = at + character.len_utf8();
    }
    fits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        harmless(text).to_owned()
    }

    fn broken(text: &str, width: usize) -> Vec<String> {
        let mut lines = Vec::new();
        wrapped(text, width, |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn what_drives_a_terminal_is_shown_and_not_obeyed() {
        for (text, expected) in [
            ("a\u{1b}[31mred\u{1b}]52;c;eA==\u{7}", "a␛[31mred␛]52;c;eA==␇"),
            ("\u{9b}2J\u{90}q\u{9c}", "�2J�q�"),
            ("a\u{8}\u{8}b\u{7f}\0", "a␈␈b␡␀"),
            ("gpj.\u{202e}exe\u{202c}", "gpj.�exe"),
            ("\u{feff}a\u{200b}b\u{ad}c\u{2066}d\u{2069}\u{200f}\u{e0041}", "abcd"),
            ("one\r\ntwo\rthree\u{85}four\u{2028}five\u{c}six", "one\ntwo\nthree\nfour\nfive\nsix"),
            ("a\tb\n\tc", "a   b\n    c"),
            ("ж é e\u{301} 日本 👩\u{200d}🚀 سلام", "ж é e\u{301} 日本 👩\u{200d}🚀 سلام"),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
        assert_eq!(&*on_one_line("a\r\n  b\u{1b}c\n"), "a b␛c");
    }

    #[test]
    fn lines_break_between_words_and_inside_of_long_ones() {
        for (text, width, expected) in [
            ("one two three", 7, vec!["one two", "three"]),
            ("one two three", 9, vec!["one two", "three"]),
            ("one two three", 13, vec!["one two three"]),
            ("abcdefghij kl", 4, vec!["abcd", "efgh", "ij", "kl"]),
            ("日本語のテキスト", 6, vec!["日本語", "のテキ", "スト"]),
            ("日本語", 5, vec!["日本", "語"]),
            ("  - item of a list", 10, vec!["  - item", "of a list"]),
            ("\n\na\n\n\n\nb\n\n", 10, vec!["a", "", "b"]),
            ("e\u{301}e\u{301}e\u{301}", 2, vec!["e\u{301}e\u{301}", "e\u{301}"]),
            ("", 10, vec![]),
        ] {
            assert_eq!(broken(text, width), expected, "{text:?} at {width}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends_in_lines_of_the_width_that_drive_nothing(text in any::<String>(), width in 2..60_usize) {
            let shown = shown(&text);
            prop_assert!(shown.chars().all(|each| each == '\n' || !each.is_control()));
            let turns = |each: char| matches!(each, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            prop_assert!(!shown.contains(turns), "{shown:?}");
            let lines = broken(&shown, width);
            prop_assert!(lines.iter().all(|line| columns(line) <= width), "{lines:?}");
            let words = |text: &str| text.chars().filter(|each| !each.is_whitespace()).collect::<String>();
            prop_assert_eq!(words(&lines.concat()), words(&shown));
        }

        #[test]
        fn any_mixture_of_wide_and_narrow_words_keeps_the_width(text in "[a日é👩\u{200d}\u{301} \n\u{1b}]{0,80}", width in 2..20_usize) {
            let lines = broken(&shown(&text), width);
            prop_assert!(lines.iter().all(|line| columns(line) <= width), "{lines:?}");
        }
    }
}
