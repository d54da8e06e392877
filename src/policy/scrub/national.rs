//! National ids of people: by check digit, and where that proves little, only after a word that says so.

use super::cells::{at, before, begins, ends, is_word};
use super::context::says;
use super::number::luhn;
use super::phone::follows_group;

const SSN: &[&str] = &["ssn", "social sec", "social"];
const NINO: &[&str] = &["nino", "ni number", "ni no", "national insurance", "insurance n"];
const PAN: &[&str] = &["pan", "permanent account", "income tax"];
const SIN: &[&str] = &["sin", "social insurance", "assurance sociale", "nas"];
const BSN: &[&str] = &["bsn", "burgerservice", "sofi"];
const AADHAAR: &[&str] = &["aadhaar", "aadhar", "uidai", "uid", "आधार"];
const CPF: &[&str] = &["cpf"];
const STEUER: &[&str] = &["steuer", "idnr", "tax id", "tin", "identifikationsnummer"];
const PESEL: &[&str] = &["pesel"];
const MAX: usize = 18;

/// Returns the end of a national id that starts at a cell; `byte` is its place in the text.
pub(super) fn find(cells: &[u8], start: usize, text: &str, byte: impl Fn() -> usize) -> Option<usize> {
    if !begins(cells, start) || before(cells, start) == b'+' || follows_group(cells, start) {
        return None;
    }
    // Letters and digits with one separator between them at most, and every end on the way.
    let mut code = [0u8; MAX];
    let mut shape = [0u8; 2 * MAX];
    let (mut count, mut width, mut index) = (0, 0, start);
    let mut found = None;
    while count < MAX {
        let cell = at(cells, index);
        if cell.is_ascii_alphanumeric() {
            code[count] = cell.to_ascii_uppercase();
            count += 1;
            shape[width] = if cell.is_ascii_digit() { b'9' } else { b'A' };
        } else if b" -./+".contains(&cell) && width > 0 && is_word(at(cells, index + 1)) && is_word(cells[index - 1]) {
            shape[width] = cell;
        } else {
            break;
        }
        width += 1;
        index += 1;
        if count >= 8
            && cell.is_ascii_alphanumeric()
            && !is_word(at(cells, index))
            && ends(cells, index)
            && !goes_on(cells, index)
        {
            let is_called = || width == count && count == 11 && says(text, byte(), super::context::PHONE);
            if is_id(&code[..count], &shape[..width], |words| says(text, byte(), words)) && !is_called() {
                found = Some(index);
            }
        }
        if width == 2 * MAX {
            break;
        }
    }
    found
}

/// Tells whether a further group of four digits follows: the row is a longer number.
fn goes_on(cells: &[u8], end: usize) -> bool {
    at(cells, end) == b' ' && (1..=4).all(|place: usize| at(cells, end + place).is_ascii_digit())
}

fn is_id(code: &[u8], shape: &[u8], says: impl Fn(&[&str]) -> bool) -> bool {
    let letters = code.iter().filter(|c| c.is_ascii_alphabetic()).count();
    let mut number = [0u8; MAX];
    for (place, c) in code.iter().enumerate() {
        number[place] = if c.is_ascii_digit() { c - b'0' } else { 0 };
    }
    let number = &number[..code.len()];
    let plain = shape.len() == code.len();
    match (code.len(), letters) {
        // A prefix that is never issued is a person's mistake, not another number.
        (9, 3) => is_shape_of_nino(code) && says(NINO),
        (9, 1) => dni(code),
        (9, 2) => nie(code),
        (9, 0) => {
            (shape == b"999-99-9999" || shape == b"999 99 9999" || plain) && ssn(number) && says(SSN)
                || luhn(number) && says(SIN)
                || eleven(number) && says(BSN)
        }
        (10, 6) => {
            code[..5].iter().all(u8::is_ascii_alphabetic)
                && code[9].is_ascii_alphabetic()
                && code[3] == b'P'
                && says(PAN)
        }
        (10, 0) => matches!(shape, b"999999-9999" | b"999999+9999") && is_date(number, 2, 4) && luhn(number),
        (12, 0) if matches!(shape, b"99999999-9999") => is_date(number, 4, 6) && luhn(&number[2..]),
        (11, 0) => {
            (shape == b"999.999.999-99" || says(CPF)) && cpf(number)
                || (plain || shape == b"99 999 999 999" || says(STEUER)) && steuer(number)
                || shape == b"99.99.99-999.99" && belgian(number)
                || pesel(number) && says(PESEL)
        }
        (12, 0) => {
            (matches!(shape, b"9999 9999 9999" | b"9999-9999-9999") || says(AADHAAR))
                && number[0] >= 2
                && verhoeff(number)
        }
        (13, 0) => shape == b"999.9999.9999.99" && number[..3] == [7, 5, 6] && ean(number),
        (15, 0 | 1) => nir(code),
        (16, 9..=16) => codice(code),
        (18, 0 | 1) => plain && chinese(code, number),
        _ => false,
    }
}

fn ssn(number: &[u8]) -> bool {
    let value = |range: &[u8]| range.iter().fold(0u32, |value, digit| value * 10 + u32::from(*digit));
    !matches!(value(&number[..3]), 0 | 666 | 900..) && value(&number[3..5]) != 0 && value(&number[5..]) != 0
}

fn is_shape_of_nino(code: &[u8]) -> bool {
    code[..2].iter().all(u8::is_ascii_alphabetic)
        && code[2..8].iter().all(u8::is_ascii_digit)
        && (b'A'..=b'D').contains(&code[8])
}

const DNI_LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";

fn dni(code: &[u8]) -> bool {
    code[..8].iter().all(u8::is_ascii_digit) && DNI_LETTERS[remainder(&code[..8], 23) as usize] == code[8]
}

fn nie(code: &[u8]) -> bool {
    let Some(first) = b"XYZ".iter().position(|c| *c == code[0]) else { return false };
    let mut plain = [0u8; 8];
    plain.copy_from_slice(&code[..8]);
    plain[0] = b'0' + first as u8;
    plain.iter().all(u8::is_ascii_digit) && DNI_LETTERS[remainder(&plain, 23) as usize] == code[8]
}

fn remainder(code: &[u8], by: u64) -> u64 {
    code.iter().fold(0, |rest, c| (rest * 10 + u64::from(c.wrapping_sub(b'0') % 10)) % by)
}

/// The test of eleven of the Netherlands.
fn eleven(number: &[u8]) -> bool {
    let sum: i32 = number
        .iter()
        .enumerate()
        .map(|(place, digit)| i32::from(*digit) * if place == 8 { -1 } else { 9 - place as i32 })
        .sum();
    sum % 11 == 0 && sum != 0
}

fn steuer(number: &[u8]) -> bool {
    let mut counts = [0; 10];
    for digit in &number[..10] {
        counts[usize::from(*digit)] += 1;
    }
    let repeated = counts.iter().filter(|count| **count > 1).count();
    if number[0] == 0 || repeated != 1 || counts.iter().any(|count| *count > 3) {
        return false;
    }
    let product = number[..10].iter().fold(10u32, |product, digit| {
        let sum = (u32::from(*digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == u32::from(number[10])
}

fn cpf(number: &[u8]) -> bool {
    let check = |count: usize| {
        let sum: u32 = number[..count]
            .iter()
            .enumerate()
            .map(|(place, digit)| u32::from(*digit) * (count as u32 + 1 - place as u32))
            .sum();
        sum * 10 % 11 % 10 == u32::from(number[count])
    };
    number.iter().any(|digit| *digit != number[0]) && check(9) && check(10)
}

fn belgian(number: &[u8]) -> bool {
    let value = number[..9].iter().fold(0u64, |value, digit| value * 10 + u64::from(*digit));
    let check = u64::from(number[9]) * 10 + u64::from(number[10]);
    97 - value % 97 == check || 97 - (2_000_000_000 + value) % 97 == check
}

fn pesel(number: &[u8]) -> bool {
    let sum: u32 =
        number.iter().zip([1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]).map(|(digit, weight)| u32::from(*digit) * weight).sum();
    sum.is_multiple_of(10)
}

fn ean(number: &[u8]) -> bool {
    let sum: u32 =
        number.iter().enumerate().map(|(place, digit)| u32::from(*digit) * if place % 2 == 0 { 1 } else { 3 }).sum();
    sum.is_multiple_of(10)
}

fn is_date(number: &[u8], month: usize, day: usize) -> bool {
    let two = |at: usize| number[at] * 10 + number[at + 1];
    (1..=12).contains(&two(month)) && (1..=31).contains(&two(day))
}

fn nir(code: &[u8]) -> bool {
    let mut digits = [0u8; 15];
    digits.copy_from_slice(code);
    // Corsica counts as 19 and 18.
    match (code[5], code[6]) {
        (b'2', b'A') => digits[6] = b'9',
        (b'2', b'B') => digits[6] = b'8',
        _ => {}
    }
    if matches!(&code[5..7], b"2A" | b"2B") {
        digits[5] = b'1';
    }
    let month = remainder(&digits[3..5], 100);
    digits.iter().all(u8::is_ascii_digit)
        && matches!(digits[0], b'1' | b'2')
        && matches!(month, 1..=12 | 20..=42 | 50..=99)
        && 97 - remainder(&digits[..13], 97) == remainder(&digits[13..], 100)
}

fn codice(code: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let is_digit = |c: &u8| c.is_ascii_digit() || b"LMNPQRSTUV".contains(c);
    let fits = code[..6].iter().all(u8::is_ascii_alphabetic)
        && [6, 7, 9, 10, 12, 13, 14].iter().all(|place| is_digit(&code[*place]))
        && b"ABCDEHLMPRST".contains(&code[8])
        && code[11].is_ascii_alphabetic()
        && code[15].is_ascii_alphabetic();
    let sum: u32 = code[..15]
        .iter()
        .enumerate()
        .map(|(place, c)| {
            let value = u32::from(if c.is_ascii_digit() { c - b'0' } else { c - b'A' });
            if place % 2 == 0 { ODD[value as usize] } else { value }
        })
        .sum();
    fits && (sum % 26) as u8 + b'A' == code[15]
}

fn chinese(code: &[u8], number: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: u32 = number.iter().zip(WEIGHTS).map(|(digit, weight)| u32::from(*digit) * weight).sum();
    code[..17].iter().all(u8::is_ascii_digit)
        && is_date(number, 10, 12)
        && matches!(&code[6..8], b"19" | b"20")
        && b"10X98765432"[(sum % 11) as usize] == code[17]
}

fn verhoeff(number: &[u8]) -> bool {
    const SHIFT: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let product = |a: u8, b: u8| match (a / 5, b / 5) {
        (0, 0) => (a + b) % 5,
        (0, _) => (a + b) % 5 + 5,
        (_, 0) => (a + 5 - b) % 5 + 5,
        _ => (a + 5 - b) % 5,
    };
    let check = number.iter().rev().enumerate().fold(0, |check, (place, digit)| {
        let shifted = (0..place % 8).fold(*digit, |digit, _| SHIFT[usize::from(digit)]);
        product(check, shifted)
    });
    check == 0
}
