//! What an answer's headers say about the budget, and what time it is at the source.
//!
//! ```text
//! x-ratelimit-limit       requests a window            1000      (what follows a comma or semicolon is left out)
//! x-ratelimit-remaining   what is left of them         17
//! x-ratelimit-reset       when the window ends         epoch seconds, epoch milliseconds, or seconds from now
//! retry-after             when to come back            seconds, or an HTTP date
//! date                    the source's own time        an HTTP date
//! ```
//!
//! Only the first three are documented, and only as numbers. A header that is missing, no number, negative or absurd is as if
//! it were absent. Moments are turned into lengths of time by the source's own clock, so that a machine whose time is
//! wrong waits as long as one whose time is right.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// A reset or `Retry-After` further away than this is absurd and ignored: the source's windows have a minute.
pub(super) const LONGEST_RESET: Duration = Duration::from_mins(3);

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What an answer says about the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) limit: Option<u32>,
    pub(super) remaining: Option<u32>,
    pub(super) reset: Option<Reset>,
    pub(super) retry_after: Option<Duration>,
}

/// The end of the server's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reset {
    /// By the source's clock, milliseconds since 1970: names the window.
    pub(super) at_ms: i64,
    /// How far ahead it was when the answer came.
    pub(super) ahead: Duration,
}

impl Headers {
    /// Reads the headers of an answer that came when it was `source_now` at the source and `now` here.
    ///
    /// A `Date` may come from something between, such as a cache: where its time makes a header absurd, ours is tried.
    pub(super) fn read(headers: &HeaderMap, source_now: Option<Timestamp>, now: Timestamp) -> Self {
        let now_ms = source_now.unwrap_or(now).as_millisecond();
        let until = |at_ms: i64| {
            [now_ms, now.as_millisecond()].into_iter().find_map(|now_ms| {
                let ahead = Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).ok()?);
                (!ahead.is_zero() && ahead <= LONGEST_RESET).then_some(ahead)
            })
        };
        let reset = number(headers, &RESET).and_then(|reset| {
            let at_ms = match reset {
                reset if reset <= LONGEST_RESET.as_secs_f64() => now_ms.saturating_add(millis(reset * 1_000.0)),
                reset if reset < 1e11 => millis(reset * 1_000.0),
                reset => millis(reset),
            };
            Some(Reset { at_ms, ahead: until(at_ms)? })
        });
        let retry_after = match number(headers, &RETRY_AFTER) {
            Some(seconds) => until(now_ms.saturating_add(millis(seconds * 1_000.0))),
            None => date(headers, &RETRY_AFTER).and_then(|date| until(date.as_millisecond())),
        };
        Self {
            limit: number(headers, &LIMIT).filter(|limit| (1.0..1e7).contains(limit)).map(|limit| limit as u32),
            remaining: number(headers, &REMAINING).map(|remaining| remaining.min(1e7) as u32),
            reset,
            retry_after,
        }
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<f64> {
    let text = headers.get(name)?.to_str().ok()?;
    let number = text.split([',', ';']).next()?.trim().parse::<f64>().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    Some(rfc2822::parse(headers.get(name)?.to_str().ok()?).ok()?.timestamp())
}

/// Saturates: what is beyond any date is absurd later on.
fn millis(number: f64) -> i64 {
    number.ceil() as i64
}

/// Returns the source's own time, to the second.
pub(super) fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    date(headers, &DATE)
}

/// The source's clock against this machine's steady one, learned from the `Date` of its answers.
///
/// A `Date` has whole seconds and was written while the request was under way, so each answer gives two bounds, and many
/// give close ones.
#[derive(Debug, Default)]
pub(super) struct SourceClock {
    /// What must be added to the steady clock, at least and at most, in milliseconds.
    bounds: Option<(i64, i64)>,
}

impl SourceClock {
    /// Learns from the `Date` of an answer to a request that was `sent` and `answered` then.
    pub(super) fn learn(&mut self, date: Timestamp, sent: Duration, answered: Duration) {
        let date_ms = date.as_millisecond();
        let seen = (date_ms - steady(answered), date_ms + 1_000 - steady(sent));
        self.bounds = match self.bounds {
            Some((least, most)) if least.max(seen.0) <= most.min(seen.1) => Some((least.max(seen.0), most.min(seen.1))),
            // One of the two clocks was set, or both have drifted apart.
            _ => Some(seen),
        };
    }

    /// Returns the source's time at a moment of the steady clock, rather too early than too late.
    pub(super) fn at(&self, moment: Duration) -> Option<Timestamp> {
        let (least, _) = self.bounds?;
        Timestamp::from_millisecond(least.saturating_add(steady(moment))).ok()
    }

    /// Returns the source's most likely time at a moment of the steady clock.
    pub(super) fn likely_at(&self, moment: Duration) -> Option<Timestamp> {
        let (least, most) = self.bounds?;
        Timestamp::from_millisecond((least + (most - least) / 2).saturating_add(steady(moment))).ok()
    }
}

fn steady(moment: Duration) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_SECOND: i64 = 1_800_000_000;

    fn read(pairs: &[(&'static str, &str)]) -> Headers {
        let map = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Headers::read(&map, None, Timestamp::from_second(NOW_SECOND).unwrap())
    }

    #[test]
    fn moments_are_measured_by_the_clock_of_the_source_unless_it_is_absurd() {
        let map: HeaderMap = [("x-ratelimit-reset".parse().unwrap(), (NOW_SECOND + 20).to_string().parse().unwrap())]
            .into_iter()
            .collect();
        let second = |second| Timestamp::from_second(NOW_SECOND + second).unwrap();
        for (source, here, ahead_s) in [(5, 0, 15), (0, 5, 20), (-90_000, 5, 15), (0, 90_000, 20)] {
            let read = Headers::read(&map, Some(second(source)), second(here));
            assert_eq!(read.reset.unwrap().ahead, Duration::from_secs(ahead_s), "{source} {here}");
        }
    }

    #[test]
    fn reset_is_read_in_each_of_its_three_shapes() {
        let cases = [
            ((NOW_SECOND + 20).to_string(), 20_000),
            (format!("{}.5", NOW_SECOND + 20), 20_500),
            ((NOW_SECOND * 1_000 + 20_250).to_string(), 20_250),
            ("45".to_owned(), 45_000),
            (" 0.5 ".to_owned(), 500),
        ];
        for (text, ahead_ms) in cases {
            let reset = read(&[("x-ratelimit-reset", &text)]).reset.unwrap();
            assert_eq!(reset.ahead, Duration::from_millis(ahead_ms), "{text}");
            assert_eq!(reset.at_ms, NOW_SECOND * 1_000 + ahead_ms as i64, "{text}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (text, wait) in [
            ("12", Some(Duration::from_secs(12))),
            ("1.5", Some(Duration::from_millis(1_500))),
            ("Fri, 15 Jan 2027 08:00:30 GMT", Some(Duration::from_secs(30))),
            ("Fri, 15 Jan 2027 07:00:00 GMT", None),
            ("Sat, 16 Jan 2027 08:00:00 GMT", None),
            ("0", None),
            ("-3", None),
            ("1e30", None),
            ("99999999", None),
            ("soon", None),
        ] {
            assert_eq!(read(&[("retry-after", text)]).retry_after, wait, "{text}");
        }
    }

    #[test]
    fn headers_that_make_no_sense_are_as_if_absent() {
        let cases = [
            ("x-ratelimit-reset", "soon".to_owned()),
            ("x-ratelimit-reset", "-5".to_owned()),
            ("x-ratelimit-reset", "0".to_owned()),
            ("x-ratelimit-reset", "NaN".to_owned()),
            ("x-ratelimit-reset", "1e300".to_owned()),
            ("x-ratelimit-reset", "3600".to_owned()),
            ("x-ratelimit-reset", (NOW_SECOND + 86_400).to_string()),
            ("x-ratelimit-reset", (NOW_SECOND - 1).to_string()),
            ("x-ratelimit-limit", "0".to_owned()),
            ("x-ratelimit-limit", "-100".to_owned()),
            ("x-ratelimit-limit", "1e9".to_owned()),
            ("x-ratelimit-remaining", "-1".to_owned()),
            ("x-ratelimit-remaining", "many".to_owned()),
        ];
        for (name, value) in cases {
            assert_eq!(read(&[(name, &value)]), Headers::default(), "{name}: {value}");
        }
        assert_eq!(read(&[("x-ratelimit-limit", "1000, 1000;w=60")]).limit, Some(1_000));
    }

    proptest! {
        #[test]
        fn source_time_is_never_taken_for_later_than_it_is(
            offset_ms in -100_000_000_i64..100_000_000,
            answers in prop::collection::vec((0_u64..5_000, 0_u64..1_500, 0_u64..1_500), 1..40),
        ) {
            let mut clock = SourceClock::default();
            let mut now_ms = 0;
            for (pause, before, after) in answers {
                let sent_ms = now_ms + pause;
                now_ms = sent_ms + before + after;
                let source_ms = NOW_SECOND * 1_000 + offset_ms + (sent_ms + before) as i64;
                let date = Timestamp::from_second(source_ms.div_euclid(1_000)).unwrap();
                clock.learn(date, Duration::from_millis(sent_ms), Duration::from_millis(now_ms));
                let truth_ms = source_ms + after as i64;
                let known_ms = clock.at(Duration::from_millis(now_ms)).unwrap().as_millisecond();
                prop_assert!(known_ms <= truth_ms && known_ms > truth_ms - 3_000, "{known_ms} of {truth_ms}");
            }
        }
    }
}
