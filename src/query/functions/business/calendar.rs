//! A calendar: one business schedule, prepared so that business time between two instants costs no loop.
//!
//! ```text
//! business time before t = open time by the week before t  -  what holidays take of it before t
//!                          │                                  │
//!                          ├ spans of one UTC offset each,     └ closed intervals, sorted and apart, each with the open
//!                          │ with the open time before them      time that it and the earlier ones take
//!                          └ a week of 10,080 minutes, with the
//!                            open minutes before each
//! ```
//!
//! An instant is business time when the clock on the wall of the schedule's time zone stands in its hours: an hour that the
//! spring change skips counts nothing, one that the autumn change repeats counts twice. Time zones are those that are compiled
//! into the program, so that every machine answers the same. Their changes are known from 1970 to 2199; outside of these years
//! the offset at the nearer end is taken.
//!
//! # Forms in the table `schedules`
//!
//! * `hours`: a list of `mon 09:00-17:30`, the day in its first three letters, times to the minute, up to `24:00`. An interval
//!   that ends at or before its start ends on the day after. Intervals that overlap or touch count once.
//! * `holidays`: a list of `START/END`, both instants (`2026-12-25T05:00:00.000Z`) or both dates (`2026-12-25`, which are whole
//!   days of the schedule's time zone). The end belongs to the holiday; it is rounded up to a whole minute, for sources
//!   write a day's end as `23:59:59.999`.

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: usize = 24 * 60;
const WEEK_MINUTES: usize = 7 * DAY_MINUTES;
const WEEK_MS: i64 = WEEK_MINUTES as i64 * MINUTE_MS;

/// 1970-01-01 was a Thursday: this much earlier a Sunday began.
const WEEK_SHIFT_MS: i64 = 4 * DAY_MINUTES as i64 * MINUTE_MS;

/// 1970-01-01 and 2200-01-01.
const KNOWN_MS: (i64, i64) = (0, 7_258_118_400_000);

/// Instants beyond are taken as these, the years -5,000 and 9,000 or so: sums of milliseconds cannot overflow.
const REACH_MS: i64 = 220_000_000_000_000;

/// Days as `hours` names them, Sunday first as the source counts them.
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A business schedule, ready to be asked.
#[derive(Debug)]
pub struct Calendar {
    /// Per minute of the week, and one past its end: how many minutes before it are open.
    open_before: Vec<u16>,
    spans: Vec<Span>,
    closures: Vec<Closure>,
}

/// A stretch of time with one offset from UTC, up to the next span.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the unit stands in the name")]
struct Span {
    start_ms: i64,
    offset_ms: i64,
    /// Open time from the first span's start to this one's start.
    open_ms: i64,
    /// Open time of the week's count at this span's start, which is taken off.
    base_ms: i64,
}

/// A holiday.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the unit stands in the name")]
struct Closure {
    start_ms: i64,
    end_ms: i64,
    /// Open time by the week before its start.
    open_at_start_ms: i64,
    /// Open time that the earlier closures take.
    taken_before_ms: i64,
    /// Open time that this one takes.
    taken_ms: i64,
}

impl Calendar {
    /// Prepares a schedule of its time zone's IANA name, its hours and its holidays.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for a sentence that began with the schedule.
    pub fn try_new<'a>(
        timezone: &str,
        hours: impl IntoIterator<Item = &'a str>,
        holidays: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let zone = TimeZoneDatabase::bundled()
            .get(timezone)
            .map_err(|_| format!("has the time zone `{timezone}`, which is not known"))?;
        let mut calendar = Self { open_before: open_before(hours)?, spans: Vec::new(), closures: Vec::new() };
        calendar.spans = calendar.spans(&zone);
        let mut closed = Vec::new();
        for holiday in holidays {
            closed.push(
                closed_ms(holiday, &zone).ok_or_else(|| format!("has the holiday `{holiday}`, which is not read"))?,
            );
        }
        calendar.closures = calendar.closures(closed);
        Ok(calendar)
    }

    /// Returns the business time between two instants in milliseconds; it is negative where the second is the earlier.
    #[must_use]
    pub fn between_ms(&self, from_ms: i64, to_ms: i64) -> i64 {
        self.before_ms(to_ms) - self.before_ms(from_ms)
    }

    /// Business time before an instant, from a fixed one.
    fn before_ms(&self, at_ms: i64) -> i64 {
        let at_ms = at_ms.clamp(-REACH_MS, REACH_MS);
        let open_ms = self.open_ms(at_ms);
        let later = self.closures.partition_point(|closure| closure.start_ms <= at_ms);
        let taken_ms = match later.checked_sub(1).and_then(|last| self.closures.get(last)) {
            None => 0,
            Some(closure) if closure.end_ms <= at_ms => closure.taken_before_ms + closure.taken_ms,
            Some(closure) => closure.taken_before_ms + open_ms - closure.open_at_start_ms,
        };
        open_ms - taken_ms
    }

    /// Open time by the week before an instant, holidays included.
    fn open_ms(&self, at_ms: i64) -> i64 {
        let later = self.spans.partition_point(|span| span.start_ms <= at_ms);
        let span = &self.spans[later.saturating_sub(1)];
        span.open_ms + self.week_ms(at_ms + span.offset_ms) - span.base_ms
    }

    /// Open time before a time on the wall, counted over whole weeks from a Sunday.
    fn week_ms(&self, wall_ms: i64) -> i64 {
        let shifted_ms = wall_ms + WEEK_SHIFT_MS;
        let in_week_ms = shifted_ms.rem_euclid(WEEK_MS);
        let minute = (in_week_ms / MINUTE_MS) as usize;
        let before = i64::from(self.open_before[minute]);
        let is_open = self.open_before[minute + 1] > self.open_before[minute];
        let started_ms = if is_open { in_week_ms % MINUTE_MS } else { 0 };
        let weekly = i64::from(self.open_before[WEEK_MINUTES]);
        (shifted_ms.div_euclid(WEEK_MS) * weekly + before) * MINUTE_MS + started_ms
    }

    fn spans(&self, zone: &TimeZone) -> Vec<Span> {
        let (first_ms, last_ms) = KNOWN_MS;
        let first = Timestamp::UNIX_EPOCH;
        let changes = zone.following(first).map(|change| (change.timestamp().as_millisecond(), change.offset()));
        let known = std::iter::once((first_ms, zone.to_offset(first)))
            .chain(changes.take_while(|(start_ms, _)| *start_ms < last_ms));
        let mut spans: Vec<Span> = Vec::new();
        for (start_ms, offset) in known {
            let offset_ms = offset_ms(offset);
            let open_ms =
                spans.last().map_or(0, |last| last.open_ms + self.week_ms(start_ms + last.offset_ms) - last.base_ms);
            spans.push(Span { start_ms, offset_ms, open_ms, base_ms: self.week_ms(start_ms + offset_ms) });
        }
        spans
    }

    fn closures(&self, mut closed: Vec<(i64, i64)>) -> Vec<Closure> {
        closed.retain(|(start_ms, end_ms)| start_ms < end_ms);
        closed.sort_unstable();
        let mut closures: Vec<Closure> = Vec::new();
        for (start_ms, end_ms) in closed {
            // Holidays may overlap: what an earlier one covers is not taken twice.
            let start_ms = closures.last().map_or(start_ms, |last| start_ms.max(last.end_ms));
            if start_ms >= end_ms {
                continue;
            }
            let open_at_start_ms = self.open_ms(start_ms);
            let taken_before_ms = closures.last().map_or(0, |last| last.taken_before_ms + last.taken_ms);
            let taken_ms = self.open_ms(end_ms) - open_at_start_ms;
            closures.push(Closure { start_ms, end_ms, open_at_start_ms, taken_before_ms, taken_ms });
        }
        closures
    }
}

fn offset_ms(offset: Offset) -> i64 {
    i64::from(offset.seconds()) * 1_000
}

/// Counts the open minutes before each minute of the week.
fn open_before<'a>(hours: impl IntoIterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let mut is_open = vec![false; WEEK_MINUTES];
    for interval in hours {
        let (start, minutes) =
            interval_minutes(interval).ok_or_else(|| format!("has the hours `{interval}`, which are not read"))?;
        for minute in start..start + minutes {
            is_open[minute % WEEK_MINUTES] = true;
        }
    }
    let mut counted = 0;
    let mut open_before = Vec::with_capacity(WEEK_MINUTES + 1);
    open_before.push(0);
    for is_open in is_open {
        counted += u16::from(is_open);
        open_before.push(counted);
    }
    Ok(open_before)
}

/// Reads `mon 09:00-17:30` as the minute of the week at its start, and its length.
fn interval_minutes(interval: &str) -> Option<(usize, usize)> {
    let (day, times) = interval.trim().split_once(' ')?;
    let day = DAYS.iter().position(|known| day.eq_ignore_ascii_case(known))?;
    let (start, end) = times.split_once('-')?;
    let (start, end) = (clock_minutes(start)?, clock_minutes(end)?);
    let minutes = if end > start { end - start } else { end + DAY_MINUTES - start };
    Some((day * DAY_MINUTES + start, minutes))
}

fn clock_minutes(text: &str) -> Option<usize> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (usize, usize) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

/// Reads `START/END` as milliseconds since 1970, the end rounded up and excluded.
fn closed_ms(holiday: &str, zone: &TimeZone) -> Option<(i64, i64)> {
    let (start, end) = holiday.split_once('/')?;
    let (start, end) = (start.trim(), end.trim());
    if let (Ok(start), Ok(end)) = (start.parse::<Timestamp>(), end.parse::<Timestamp>()) {
        let (start_ms, end_ms) = (start.as_millisecond(), end.as_millisecond());
        let past = end_ms.rem_euclid(MINUTE_MS);
        return Some((start_ms, if past == 0 { end_ms } else { end_ms - past + MINUTE_MS }));
    }
    let (start, end): (Date, Date) = (start.parse().ok()?, end.parse().ok()?);
    let midnight_ms = |date: Date| Some(date.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond());
    Some((midnight_ms(start)?, midnight_ms(end.checked_add(1.day()).ok()?)?))
}

#[cfg(test)]
mod tests;
