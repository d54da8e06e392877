//! Vectors over changes of the clock, and a comparison with counting minute by minute.

use proptest::prelude::*;

use super::*;

const OFFICE: [&str; 5] =
    ["mon 09:00-17:00", "tue 09:00-17:00", "wed 09:00-17:00", "thu 09:00-17:00", "fri 09:00-17:00"];
const EVERY_NIGHT: [&str; 7] = [
    "sun 22:00-06:00",
    "mon 22:00-06:00",
    "tue 22:00-06:00",
    "wed 22:00-06:00",
    "thu 22:00-06:00",
    "fri 22:00-06:00",
    "sat 22:00-06:00",
];

fn seconds(calendar: &Calendar, from: &str, to: &str) -> i64 {
    let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
    calendar.between_ms(ms(from), ms(to)) / 1_000
}

#[test]
fn office_hours_equal_the_written_down_vectors() {
    let berlin = Calendar::try_new("Europe/Berlin", OFFICE, ["2026-05-01/2026-05-01"]).unwrap();
    for (from, to, expected) in [
        // A winter day is 08:00 to 16:00 UTC, a summer day 07:00 to 15:00.
        ("2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z", 28_800),
        ("2026-01-05T07:59:59Z", "2026-01-05T08:00:01Z", 1),
        ("2026-07-06T07:00:00Z", "2026-07-06T07:00:30Z", 30),
        ("2026-07-06T15:00:00Z", "2026-07-07T07:00:00Z", 0),
        // A week with and without the change of the clock on Sunday, 2026-03-29.
        ("2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z", 4 * 3_600 + 5 * 3_600),
        ("2026-03-23T00:00:00Z", "2026-03-30T00:00:00Z", 40 * 3_600),
        // Saturday and Sunday.
        ("2026-01-10T00:00:00Z", "2026-01-11T23:00:00Z", 0),
        // Friday, 1 May, is a holiday.
        ("2026-04-30T14:00:00Z", "2026-05-04T08:00:00Z", 3_600 + 3_600),
        ("2026-05-01T08:00:00Z", "2026-05-01T12:00:00Z", 0),
        ("2026-05-01T10:00:00Z", "2026-05-04T07:00:10Z", 10),
        ("2026-01-06T00:00:00Z", "2026-01-05T00:00:00Z", -28_800),
        ("2026-01-05T12:00:00Z", "2026-01-05T12:00:00Z", 0),
        // Before and after what is known of time zones.
        ("1960-01-04T00:00:00Z", "1960-01-05T00:00:00Z", 28_800),
        ("2300-01-01T00:00:00Z", "2300-01-08T00:00:00Z", 40 * 3_600),
    ] {
        assert_eq!(seconds(&berlin, from, to), expected, "{from} to {to}");
    }
}

#[test]
fn night_shift_is_shorter_in_spring_and_longer_in_autumn() {
    let new_york = Calendar::try_new("America/New_York", EVERY_NIGHT, []).unwrap();
    // 2026-03-08 skips 02:00 to 03:00, 2026-11-01 repeats 01:00 to 02:00.
    for (from, to, expected) in [
        ("2026-03-06T17:00:00Z", "2026-03-07T17:00:00Z", 8 * 3_600),
        ("2026-03-07T17:00:00Z", "2026-03-08T16:00:00Z", 7 * 3_600),
        ("2026-10-31T16:00:00Z", "2026-11-01T17:00:00Z", 9 * 3_600),
        ("2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", 3_600),
    ] {
        assert_eq!(seconds(&new_york, from, to), expected, "{from} to {to}");
    }
}

#[test]
fn intervals_that_overlap_or_touch_count_once_and_saturday_night_reaches_sunday() {
    let hours = ["mon 09:00-12:00", "mon 12:00-13:00", "mon 11:00-12:30", "sat 23:00-01:00", "wed 00:00-24:00"];
    let calendar = Calendar::try_new("UTC", hours, []).unwrap();
    assert_eq!(seconds(&calendar, "2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"), (4 + 2 + 24) * 3_600);
    assert_eq!(seconds(&calendar, "2026-01-10T23:30:00Z", "2026-01-11T02:00:00Z"), 90 * 60);
    let never = Calendar::try_new("UTC", [], []).unwrap();
    assert_eq!(seconds(&never, "2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), 0);
}

#[test]
fn holidays_that_overlap_are_taken_off_once_and_end_with_their_last_minute() {
    let holidays = [
        "2026-01-06T00:00:00.000Z/2026-01-06T23:59:59.999Z",
        "2026-01-06T12:00:00Z/2026-01-07T12:00:00Z",
        "2026-01-06/2026-01-06",
        "2026-01-09T00:00:00Z/2026-01-08T00:00:00Z",
    ];
    let calendar = Calendar::try_new("UTC", OFFICE, holidays).unwrap();
    assert_eq!(seconds(&calendar, "2026-01-05T00:00:00Z", "2026-01-10T00:00:00Z"), (40 - 8 - 3) * 3_600);
    let tuesdays = |holidays: &[&str]| {
        let calendar = Calendar::try_new("UTC", ["tue 00:00-24:00"], holidays.iter().copied()).unwrap();
        calendar.between_ms(0, i64::MAX)
    };
    assert_eq!(tuesdays(&[]) - tuesdays(&holidays[..1]), 24 * 3_600_000);
}

#[test]
fn what_cannot_be_read_is_named() {
    for (timezone, hours, holiday, named) in [
        ("Mars/Olympus", "mon 09:00-17:00", "2026-01-01/2026-01-01", "Mars/Olympus"),
        ("UTC", "monday 09:00-17:00", "2026-01-01/2026-01-01", "monday 09:00-17:00"),
        ("UTC", "mon 09:00-24:01", "2026-01-01/2026-01-01", "mon 09:00-24:01"),
        ("UTC", "mon 09:60-17:00", "2026-01-01/2026-01-01", "mon 09:60-17:00"),
        ("UTC", "mon 9-17", "2026-01-01/2026-01-01", "mon 9-17"),
        ("UTC", "mon 09:00-17:00", "2026-01-01", "2026-01-01"),
        ("UTC", "mon 09:00-17:00", "2026-01-01/soon", "2026-01-01/soon"),
    ] {
        let wrong = Calendar::try_new(timezone, [hours], [holiday]).unwrap_err();
        assert!(wrong.contains(named), "{wrong}");
    }
}

#[test]
fn extreme_instants_do_not_overflow() {
    let always: Vec<String> = DAYS.iter().map(|day| format!("{day} 00:00-24:00")).collect();
    let calendar = Calendar::try_new("Asia/Kolkata", always.iter().map(String::as_str), []).unwrap();
    assert_eq!(calendar.between_ms(i64::MIN, i64::MAX), 2 * REACH_MS);
    assert_eq!(calendar.between_ms(i64::MAX, i64::MIN), -2 * REACH_MS);
}

/// Counts business minutes one by one, from what the words of the schedule say.
fn minute_by_minute(
    zone: &TimeZone,
    hours: &[(usize, usize, usize)],
    holidays: &[(i64, i64)],
    from: i64,
    to: i64,
) -> i64 {
    let open = |minute: i64| {
        if holidays.iter().any(|(start, end)| (*start..*end).contains(&minute)) {
            return false;
        }
        let at = Timestamp::from_second(minute * 60).unwrap().to_zoned(zone.clone());
        let day = at.weekday().to_sunday_zero_offset() as usize;
        let clock = at.hour() as usize * 60 + at.minute() as usize;
        hours.iter().any(|(on, start, end)| {
            let overnight = end <= start;
            (day == *on && clock >= *start && (overnight || clock < *end))
                || (overnight && day == (*on + 1) % 7 && clock < *end)
        })
    };
    (from..to).filter(|minute| open(*minute)).count() as i64 * 60_000
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn business_time_equals_counting_minute_by_minute(
        zone in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia",
        ]),
        hours in prop::collection::vec((0_usize..7, 0_usize..1_440, 0_usize..=1_440), 0..8),
        // From 2011, when Apia left out a day, to 2027; up to forty days.
        from in 21_600_000_i64..30_000_000,
        minutes in 0_i64..57_600,
        holidays in prop::collection::vec((0_i64..57_600, 0_i64..5_000), 0..4),
    ) {
        let told: Vec<String> = hours
            .iter()
            .map(|(day, start, end)| {
                format!("{} {:02}:{:02}-{:02}:{:02}", DAYS[*day], start / 60, start % 60, end / 60, end % 60)
            })
            .collect();
        let closed: Vec<(i64, i64)> = holidays.iter().map(|(start, length)| (from + start, from + start + length)).collect();
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let written: Vec<String> = closed.iter().map(|(start, end)| format!("{}/{}", at(*start), at(*end))).collect();
        let calendar =
            Calendar::try_new(zone, told.iter().map(String::as_str), written.iter().map(String::as_str)).unwrap();
        let bundled = TimeZoneDatabase::bundled().get(zone).unwrap();
        let expected = minute_by_minute(&bundled, &hours, &closed, from, from + minutes);
        prop_assert_eq!(calendar.between_ms(from * 60_000, (from + minutes) * 60_000), expected);
        prop_assert_eq!(calendar.between_ms((from + minutes) * 60_000, from * 60_000), -expected);
    }

    #[test]
    fn business_time_of_two_stretches_is_that_of_both_together(
        a in -3_000_000_000_000_i64..9_000_000_000_000,
        b in -3_000_000_000_000_i64..9_000_000_000_000,
        c in -3_000_000_000_000_i64..9_000_000_000_000,
    ) {
        let calendar = Calendar::try_new("Europe/Berlin", EVERY_NIGHT, ["2026-12-24/2026-12-26"]).unwrap();
        prop_assert_eq!(calendar.between_ms(a, b) + calendar.between_ms(b, c), calendar.between_ms(a, c));
        prop_assert!(calendar.between_ms(a, b).abs() <= (b - a).abs());
    }
}
