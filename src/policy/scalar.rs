//! JSON scalars: the raw text of one value to a text, a number or a time.
//!
//! The raw text was checked by the JSON reader. A lone surrogate, which JavaScript leaves where it cuts a text inside a pair,
//! becomes U+FFFD: one odd value must not stop a run.

use std::str::FromStr;

use jiff::Timestamp;

use crate::policy::json::Text;
use crate::policy::method::Grain;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Reads a string; without escapes it is borrowed.
pub(super) fn text<'a>(text: Text<'a>, scratch: &'a mut String) -> &'a str {
    if !text.has_escape {
        return text.raw;
    }
    scratch.clear();
    // The reader has checked the escapes.
    let _ = unescape(text.raw, scratch);
    scratch
}

fn unescape(inner: &str, out: &mut String) -> Option<()> {
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = u32::from_str_radix(rest.get(..4)?, 16).ok()?;
                rest = &rest[4..];
                match low_surrogate(unit, rest) {
                    Some(low) => {
                        rest = &rest[6..];
                        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?
                    }
                    None => char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            other => char::from(*other),
        });
    }
    out.push_str(rest);
    Some(())
}

/// Finds the second half of a pair whose first half is `unit`.
fn low_surrogate(unit: u32, rest: &str) -> Option<u32> {
    if !(0xd800..0xdc00).contains(&unit) {
        return None;
    }
    let low = u32::from_str_radix(rest.strip_prefix("\\u")?.get(..4)?, 16).ok()?;
    (0xdc00..0xe000).contains(&low).then_some(low)
}

/// Reads a whole number, also one that is written as `3.0` or `3e2`.
pub(super) fn int(raw: &str) -> Option<i64> {
    if let Ok(int) = raw.parse() {
        return Some(int);
    }
    // Below 2^63 a float without fraction is an integer.
    let float = float(raw)?;
    let is_integer = raw.contains(['.', 'e', 'E']) && float.fract() == 0.0 && float.abs() < 9_223_372_036_854_775_808.0;
    is_integer.then_some(float as i64)
}

/// Reads a finite number.
pub(super) fn float(raw: &str) -> Option<f64> {
    raw.parse().ok().filter(|float: &f64| float.is_finite() && !raw.starts_with(char::is_alphabetic))
}

/// Reads an ISO-8601 instant as milliseconds since 1970.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    if let Some(milliseconds) = fixed_timestamp(text.as_bytes()) {
        return Some(milliseconds);
    }
    Timestamp::from_str(text).ok().map(|timestamp| {
        // Rounds towards the past on both sides of 1970.
        timestamp.as_nanosecond().div_euclid(1_000_000) as i64
    })
}

/// Reads `2016-11-09T02:46:29.789Z`, the form of nearly every time of the source.
fn fixed_timestamp(text: &[u8]) -> Option<i64> {
    let text: &[u8; 24] = text.try_into().ok()?;
    if (text[4], text[7], text[10], text[13], text[16], text[19], text[23])
        != (b'-', b'-', b'T', b':', b':', b'.', b'Z')
    {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .try_fold(0i64, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, ms) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 23)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(days_since_1970(year, month, day) * DAY_MS + hour * HOUR_MS + minute * 60_000 + second * 1_000 + ms)
}

/// Counts days in the Gregorian calendar, with years that start in March so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// Returns the start of the hour, day, week (Monday) or month that an instant lies in, in UTC.
pub(super) fn truncate(milliseconds: i64, grain: Grain) -> i64 {
    let days = milliseconds.div_euclid(DAY_MS);
    match grain {
        Grain::Hour => milliseconds.div_euclid(HOUR_MS) * HOUR_MS,
        Grain::Day => days * DAY_MS,
        // 1970 began on a Thursday.
        Grain::Week => (days - (days + 3).rem_euclid(7)) * DAY_MS,
        Grain::Month => {
            let date = Timestamp::from_millisecond(milliseconds)
                .map(|timestamp| jiff::tz::TimeZone::UTC.to_datetime(timestamp).date());
            // Every instant of a column was read by `timestamp`, whose range is jiff's.
            date.map_or(days, |date| days + 1 - i64::from(date.day())) * DAY_MS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_with_escapes_and_lone_surrogates() {
        for (raw, expected) in [
            ("plain", "plain"),
            ("", ""),
            (r#"a\"b\\c\/d\b\f\n\r\t"#, "a\"b\\c/d\u{8}\u{c}\n\r\t"),
            (r"Zo\u00eb", "Zoë"),
            (r"\ud83d\ude00!", "😀!"),
            (r"cut \ud83d", "cut \u{fffd}"),
            (r"\ude00\ud83dx", "\u{fffd}\u{fffd}x"),
            (r"\ud83d\u0041", "\u{fffd}A"),
        ] {
            let has_escape = raw.contains('\\');
            assert_eq!(text(Text { raw, has_escape }, &mut String::new()), expected, "{raw}");
        }
    }

    #[test]
    fn whole_numbers_are_read_also_as_floats() {
        for (raw, expected) in [
            ("3", Some(3)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("3.0", Some(3)),
            ("3e2", Some(300)),
            ("3.5", None),
            ("1e19", None),
            ("1e999", None),
            ("\"3\"", None),
            ("true", None),
        ] {
            assert_eq!(int(raw), expected, "{raw}");
        }
        assert_eq!((float("2.5e-1"), float("1e999"), float("\"1\"")), (Some(0.25), None, None));
    }

    #[test]
    fn instants_are_read_in_both_forms() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2016-11-09T02:46:29.789Z", Some(1_478_659_589_789)),
            ("2016-11-06T13:54:29-05:00", Some(1_478_458_469_000)),
            ("2016-11-06T18:54:29Z", Some(1_478_458_469_000)),
            ("2000-02-29T00:00:00.000Z", Some(951_782_400_000)),
            ("1900-02-29T00:00:00.000Z", None),
            ("2016-13-01T00:00:00.000Z", None),
            ("2016-11-09T24:00:00.000Z", None),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("+99999-01-01T00:00:00Z", None),
            ("2016-11-09", None),
            ("", None),
            ("é016-11-09T02:46:29.789Z", None),
        ] {
            assert_eq!(timestamp(text), expected, "{text}");
        }
    }

    #[test]
    fn fixed_form_agrees_with_the_general_one() {
        let mut at = -62_000_000_000_000i64;
        while at < 250_000_000_000_000 {
            let text = format!("{:.3}", Timestamp::from_millisecond(at).unwrap());
            assert_eq!(text.len(), 24);
            assert_eq!(fixed_timestamp(text.as_bytes()), Some(at), "{text}");
            at += 86_399_999 * 307;
        }
    }

    #[test]
    fn truncation_goes_to_the_start_in_utc() {
        for (text, hour, day, week, month) in [
            (
                "2024-02-29T23:59:59.999Z",
                "2024-02-29T23:00:00.000Z",
                "2024-02-29T00:00:00.000Z",
                "2024-02-26T00:00:00.000Z",
                "2024-02-01T00:00:00.000Z",
            ),
            (
                "1969-12-31T01:30:00.000Z",
                "1969-12-31T01:00:00.000Z",
                "1969-12-31T00:00:00.000Z",
                "1969-12-29T00:00:00.000Z",
                "1969-12-01T00:00:00.000Z",
            ),
        ] {
            let at = timestamp(text).unwrap();
            for (grain, start) in [(Grain::Hour, hour), (Grain::Day, day), (Grain::Week, week), (Grain::Month, month)] {
                assert_eq!(truncate(at, grain), timestamp(start).unwrap(), "{text} {grain:?}");
                assert_eq!(truncate(truncate(at, grain), grain), truncate(at, grain));
            }
        }
    }
}
