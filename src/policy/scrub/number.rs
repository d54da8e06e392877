//! Payment cards and IBANs, and the look-alikes that are neither a phone's number nor a person's.

use super::cells::{at, before, begins, digits, ends, is_word};

/// Countries of the IBAN registry and the length of theirs.
const IBAN_LENGTHS: &[u8] = b"AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24\
FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24\
ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24\
TR26UA29VA22VG24XK20YE30";

/// Returns the end of an IBAN that starts at a cell.
pub(super) fn iban(cells: &[u8], start: usize) -> Option<usize> {
    let head = cells.get(start..start + 2)?;
    if !head.iter().all(u8::is_ascii_alphabetic) {
        return None;
    }
    let country = [head[0].to_ascii_uppercase(), head[1].to_ascii_uppercase()];
    let row = IBAN_LENGTHS.as_chunks::<4>().0.iter().find(|row| row[..2] == country)?;
    let length = usize::from(row[2] - b'0') * 10 + usize::from(row[3] - b'0');
    let glued = before(cells, start);
    let follows_word = start >= 4 && cells[start - 4..start].eq_ignore_ascii_case(b"iban");
    if !follows_word && (is_word(glued) || glued == b'_') {
        return None;
    }
    let mut code = [0u8; 34];
    let mut count = 0;
    let mut index = start;
    let mut gap = 0;
    while count < length {
        let cell = at(cells, index);
        if cell.is_ascii_alphanumeric() {
            code[count] = cell.to_ascii_uppercase();
            count += 1;
            gap = 0;
        } else if b" -.\n".contains(&cell) && gap == 0 && count >= 2 {
            gap += 1;
        } else {
            return None;
        }
        index += 1;
    }
    if is_word(at(cells, index)) || !code[2].is_ascii_digit() || !code[3].is_ascii_digit() {
        return None;
    }
    let rest = code[4..length].iter().chain(&code[..4]).fold(0u32, |rest, c| match c {
        b'0'..=b'9' => (rest * 10 + u32::from(c - b'0')) % 97,
        _ => (rest * 100 + u32::from(c - b'A') + 10) % 97,
    });
    (rest == 1).then_some(index)
}

/// Returns the end of a card number that starts at a cell, and whether only a word before it makes it one.
pub(super) fn card(cells: &[u8], start: usize) -> Option<(usize, bool)> {
    if !begins(cells, start) || before(cells, start) == b'+' {
        return None;
    }
    let mut number = [0u8; 19];
    let mut count = 0;
    let mut groups = [0usize; 19];
    let mut group = 0;
    let mut index = start;
    let mut found = None;
    loop {
        let cell = at(cells, index);
        if cell.is_ascii_digit() {
            if count == 19 {
                break;
            }
            number[count] = cell - b'0';
            count += 1;
            groups[group] += 1;
            index += 1;
            if !at(cells, index).is_ascii_digit()
                && ends(cells, index)
                && is_grouped(&groups[..=group])
                && let Some(needs_word) = issuer(&number[..count], group > 0).filter(|_| luhn(&number[..count]))
            {
                found = Some((index, needs_word));
            }
            continue;
        }
        // One separator, or a dash or dot between spaces.
        let width = match (cell, at(cells, index + 1), at(cells, index + 2)) {
            (b' ', b'-' | b'.', b' ') => 3,
            (b' ' | b'-' | b'.' | b'/', ..) => 1,
            _ => break,
        };
        let width = if width == 1 && cell == b' ' && at(cells, index + 1) == b' ' { 2 } else { width };
        if group == 18 || !at(cells, index + width).is_ascii_digit() {
            break;
        }
        group += 1;
        index += width;
    }
    found
}

/// Tells whether people write a card's number in such groups.
fn is_grouped(groups: &[usize]) -> bool {
    groups.len() == 1
        || groups.iter().all(|group| *group == 1)
        || (groups.len() <= 8 && groups.iter().all(|group| *group >= 2))
}

/// Finds the issuer's range; the value tells whether the number needs a word of context, being short of digits or common.
fn issuer(number: &[u8], is_grouped: bool) -> Option<bool> {
    let lead = |count: usize| number.iter().take(count).fold(0u32, |lead, digit| lead * 10 + u32::from(*digit));
    let length = number.len();
    match (lead(1), lead(2), lead(4), length) {
        (4, _, _, 16 | 19)
        | (_, 51..=55, _, 16)
        | (_, _, 2200..=2204 | 2221..=2720 | 9792, 16)
        | (_, 34 | 37, _, 15)
        | (_, _, 3528..=3589, 16..=19) => Some(false),
        (4, _, _, 13) => Some(true),
        (_, 36 | 38 | 39, _, 14..=19) | (_, _, 3000..=3059, 14..=19) => Some(length != 14 && length != 16),
        (_, 81 | 82, _, 16..=19) | (_, 50 | 56..=58 | 60..=69, _, 12..=19) => Some(length != 16 && !is_grouped),
        _ => None,
    }
}

pub(super) fn luhn(number: &[u8]) -> bool {
    let sum: u32 = number.iter().rev().enumerate().fold(0, |sum, (place, digit)| {
        let digit = u32::from(*digit);
        sum + if place % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
    });
    sum.is_multiple_of(10) && number.iter().any(|digit| *digit != 0)
}

/// Tells whether a card's number stands anywhere in a URL.
pub(super) fn has_card(cells: &[u8]) -> bool {
    (0..cells.len()).any(|start| {
        cells[start].is_ascii_digit() && !before(cells, start).is_ascii_alphanumeric() && {
            let length = cells[start..].iter().take(20).take_while(|cell| cell.is_ascii_digit()).count();
            (15..=16).contains(&length)
                && digits::<19>(&cells[start..start + length]).is_some_and(|(number, count)| {
                    luhn(&number[..count]) && issuer(&number[..count], false) == Some(false)
                })
        }
    })
}

/// Returns the end of a date, time, IP address or UUID that starts at a cell: what digits mean there is settled.
pub(super) fn look_alike(cells: &[u8], start: usize) -> Option<usize> {
    if is_word(before(cells, start)) || before(cells, start) == b'-' && start > 1 && is_word(cells[start - 2]) {
        return None;
    }
    [uuid, date, address, time]
        .into_iter()
        .find_map(|find| find(cells, start))
        .filter(|end| !is_word(at(cells, *end)) || at(cells, *end) == b'T')
}

fn uuid(cells: &[u8], start: usize) -> Option<usize> {
    let code = cells.get(start..start + 36)?;
    let fits = code.iter().enumerate().all(|(place, cell)| match place {
        8 | 13 | 18 | 23 => *cell == b'-',
        _ => cell.is_ascii_hexdigit(),
    });
    fits.then_some(start + 36)
}

fn date(cells: &[u8], start: usize) -> Option<usize> {
    let (first, after) = read(cells, start)?;
    let mark = at(cells, after);
    if !b"-./".contains(&mark) {
        return None;
    }
    let (second, after_second) = read(cells, after + 1)?;
    if at(cells, after_second) != mark {
        return None;
    }
    let (third, end) = read(cells, after_second + 1)?;
    let (lengths, is_day) = ((after - start, end - after_second - 1), |day: u32| (1..=31).contains(&day));
    let is_year = |year: u32| (1900..2100).contains(&year);
    let fits = match lengths {
        (4, 1 | 2) => is_year(first) && (1..=12).contains(&second) && is_day(third),
        (1 | 2, 4) => is_year(third) && is_day(first) && is_day(second),
        (1 | 2, 2) => is_day(first) && is_day(second) && after_second - after <= 3,
        _ => false,
    };
    let next = at(cells, end);
    let goes_on = next == mark && at(cells, end + 1).is_ascii_digit()
        || (lengths.1 == 2
            && lengths.0 < 4
            && b" -./".contains(&next)
            && at(cells, end + 1).is_ascii_digit()
            && at(cells, end + 3) != b':');
    (fits && !goes_on && !at(cells, end).is_ascii_digit()).then_some(end)
}

fn time(cells: &[u8], start: usize) -> Option<usize> {
    let (hour, after) = read(cells, start)?;
    let (minute, end) = read(cells, after + 1)?;
    (at(cells, after) == b':' && hour < 24 && minute < 60 && after - start <= 2 && end - after == 3).then_some(end)
}

fn address(cells: &[u8], start: usize) -> Option<usize> {
    let mut index = start;
    for part in 0..4 {
        if part > 0 {
            if at(cells, index) != b'.' {
                return None;
            }
            index += 1;
        }
        let (number, end) = read(cells, index)?;
        if number > 255 || end - index > 3 {
            return None;
        }
        index = end;
    }
    // A fifth part makes it something else, such as a phone number in pairs.
    if at(cells, index) == b'.' && at(cells, index + 1).is_ascii_digit() {
        return None;
    }
    Some(index)
}

/// Reads up to four digits.
fn read(cells: &[u8], start: usize) -> Option<(u32, usize)> {
    let count = cells.get(start..)?.iter().take(5).take_while(|cell| cell.is_ascii_digit()).count();
    let number = cells[start..start + count].iter().fold(0, |number, cell| number * 10 + u32::from(cell - b'0'));
    (1..=4).contains(&count).then_some((number, start + count))
}
