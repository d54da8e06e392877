//! Phone numbers: by the form in which they are written, and plain ones by a word before them.

use super::cells::{at, before, begins, ends, is_word};
use super::context::{self, says};

/// Country codes with one or two digits; all others have three.
const ONE_OR_TWO: [u32; 46] = [
    1, 7, 20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60,
    61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
];
const MAX_DIGITS: usize = 15;
const MAX_GROUPS: usize = 9;

/// Returns the end of a phone number that starts at a cell, which is a digit, `+` or `(`.
pub(super) fn find(cells: &[u8], start: usize, text: &str, byte: impl Fn() -> usize) -> Option<usize> {
    let first = at(cells, start);
    let last = before(cells, start);
    let is_plus = first == b'+' || (first == b'(' && at(cells, start + 1) == b'+');
    let is_glued = if first.is_ascii_digit() {
        !begins(cells, start) || matches!(last, b'+' | b'$') || follows_group(cells, start)
    } else {
        is_word(last) || last == b'+'
    };
    if is_glued {
        return None;
    }
    let run = Run::read(cells, start, is_plus)?;
    // A bracket around the whole number is of the sentence.
    if first == b'(' && cells[run.ends[0] - 1] != b')' {
        return None;
    }
    let said = || says(text, byte(), context::PHONE);
    let is_code = || context::is_code(text, byte(), context::PHONE);
    // The longest reading that is one.
    (0..run.groups).rev().find_map(|group| {
        let end = run.ends[group];
        let number = &run.digits[..run.counts[group]];
        let fits = ends(cells, end) || is_extension(cells, end);
        let is_phone = fits
            && (run.is_international(group, is_plus) && (is_plus || !is_code())
                || (run.is_national(group, first == b'(') && !is_code())
                || ((7..=13).contains(&number.len()) && run.is_spoken(group) && said() && !is_code()));
        is_phone.then(|| extension(cells, end))
    })
}

/// Tells whether a place is in the midst of a longer row of groups, which means something else as a whole.
pub(super) fn follows_group(cells: &[u8], start: usize) -> bool {
    before(cells, start) == b' ' && start >= 2 && cells[start - 2].is_ascii_digit()
}

/// Groups of digits and their separators, from one start.
struct Run {
    digits: [u8; MAX_DIGITS],
    /// Ends of the groups, as cells.
    ends: [usize; MAX_GROUPS],
    /// Digits up to the end of each group.
    counts: [usize; MAX_GROUPS],
    groups: usize,
    /// The separators, one for each group after the first.
    marks: [u8; MAX_GROUPS],
}

impl Run {
    fn read(cells: &[u8], start: usize, is_plus: bool) -> Option<Self> {
        let mut run = Self {
            digits: [0; MAX_DIGITS],
            ends: [0; MAX_GROUPS],
            counts: [0; MAX_GROUPS],
            groups: 0,
            marks: [0; MAX_GROUPS],
        };
        let mut index = start;
        let mut count = 0;
        let mut is_open = at(cells, start) == b'(';
        while at(cells, index) == b'+'
            || at(cells, index) == b'('
            || (is_plus && at(cells, index) == b' ' && index < start + 2)
        {
            index += 1;
            if index > start + 3 {
                return None;
            }
        }
        while run.groups < MAX_GROUPS {
            let from = count;
            while at(cells, index).is_ascii_digit() {
                if count == MAX_DIGITS {
                    // A longer number is none of these.
                    if from > 0 && run.groups > 0 {
                        return Some(run);
                    }
                    return None;
                }
                run.digits[count] = cells[index] - b'0';
                count += 1;
                index += 1;
            }
            if count == from {
                break;
            }
            let closes = is_open && at(cells, index) == b')';
            is_open &= !closes;
            run.ends[run.groups] = index + usize::from(closes);
            run.counts[run.groups] = count;
            run.groups += 1;
            // Up to three separators, of which one is not a space.
            let mut width = 0;
            let mut mark = 0;
            while width < 3 && b" -./()~".contains(&at(cells, index + width)) {
                let cell = cells[index + width];
                is_open |= cell == b'(';
                if cell != b' ' || mark == 0 {
                    mark = cell;
                }
                width += 1;
            }
            if width == 0 || !at(cells, index + width).is_ascii_digit() || run.groups == MAX_GROUPS {
                break;
            }
            run.marks[run.groups] = mark;
            index += width;
        }
        (run.groups > 0).then_some(run)
    }

    fn length(&self, group: usize) -> usize {
        self.counts[group] - if group == 0 { 0 } else { self.counts[group - 1] }
    }

    fn is_international(&self, group: usize, is_plus: bool) -> bool {
        let number = &self.digits[..self.counts[group]];
        let number = match number {
            _ if is_plus => number,
            // Dialled: 00, or the American 011.
            [0, 0, rest @ ..] if rest.len() >= 9 => rest,
            [0, 1, 1, rest @ ..] if rest.len() >= 10 && self.length(0) == 3 => rest,
            _ => return false,
        };
        // A lone digit at the end counts something else.
        if group > 0 && self.length(group) == 1 && self.marks[group] == b' ' {
            return false;
        }
        let lead = |count: usize| number.iter().take(count).fold(0, |lead, digit| lead * 10 + u32::from(*digit));
        if number.first() == Some(&1) {
            return number.len() == 11 && number[1] >= 2;
        }
        let is_country = ONE_OR_TWO.contains(&lead(1))
            || ONE_OR_TWO.contains(&lead(2))
            || matches!(lead(3), 210..=299 | 350..=389 | 420..=429 | 500..=509 | 590..=599 | 670..=699 | 800..=899 | 960..=999);
        is_country && (8..=MAX_DIGITS).contains(&number.len()) && (number.len() <= 13 || group == 0)
    }

    /// The forms in which numbers of one country are written.
    fn is_national(&self, group: usize, is_open: bool) -> bool {
        let number = &self.digits[..self.counts[group]];
        let mut lengths = [0; MAX_GROUPS];
        for (place, length) in lengths.iter_mut().enumerate().take(group + 1) {
            *length = self.length(place);
        }
        let lengths = &lengths[..=group];
        let is_exchange = |area: &[u8]| area[0] >= 2 && area[3] >= 2;
        match lengths {
            [3, 3, 4] | [3, 7] if number[0] != 0 => {
                number[0] >= 2 && (is_exchange(number) || is_open) && (lengths.len() == 3 || is_open)
            }
            [1, 3, 3, 4] => number[0] == 1 && is_exchange(&number[1..]),
            [5, 5] => number[0] >= 6 && self.marks[1] != b'.',
            [11] => matches!(number, [1, 3..=9, ..]) || matches!(number, [0, 7, ..] | [0, 1, 5..=7, ..]),
            [12] => matches!(number, [0, 1, 5..=7, ..]),
            [10] => matches!(number, [0, 4 | 6 | 7, ..]),
            [3, 4, 4] if matches!(number, [1, 3..=9, ..]) => true,
            [2, 4 | 5, 4] if is_open => true,
            [2..=5, ..] if number.first() == Some(&0) && number[1] != 0 => {
                (9..=12).contains(&number.len()) && group > 0 && lengths.iter().skip(1).all(|length| *length >= 2)
            }
            [2..=5, ..] if is_open => (8..=12).contains(&number.len()) && group > 0,
            _ => false,
        }
    }

    /// Groups as one says them after `call me on`.
    fn is_spoken(&self, group: usize) -> bool {
        (group == 0 || self.length(group) > 1) && self.length(0) <= 13
    }
}

fn is_extension(cells: &[u8], end: usize) -> bool {
    extension(cells, end) > end
}

/// Takes an extension in: `x12`, `ext. 12`.
fn extension(cells: &[u8], end: usize) -> usize {
    let mut index = end;
    while matches!(at(cells, index), b' ' | b',') && index < end + 2 {
        index += 1;
    }
    let word = [&b"extension"[..], b"ext.", b"ext", b"x", b"durchwahl", b"poste"]
        .into_iter()
        .find(|word| cells.get(index..index + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word)));
    let Some(word) = word else { return end };
    index += word.len();
    while matches!(at(cells, index), b' ' | b':') && index < end + 16 {
        index += 1;
    }
    let count = cells[index.min(cells.len())..].iter().take(6).take_while(|cell| cell.is_ascii_digit()).count();
    if (1..=5).contains(&count) && !is_word(at(cells, index + count)) { index + count } else { end }
}
