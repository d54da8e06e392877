//! Business schedules: hours of the week in a time zone, and holidays, which are served beside them.
//!
//! Four: the default with a break at noon, one with nights that pass midnight as two intervals, one that never closes, and
//! one that was deleted. A holiday is a day of its schedule's time zone, told as instants; one is not enabled.

use super::ids::Namer;
use super::staff::{Record, begin, finish};

const DAY_MS: i64 = 86_400_000;

/// Name, time zone, hours, the first and the number of its holidays.
const SCHEDULES: [(&str, &str, &str, u64, u64); 4] = [
    (
        "Support Europe",
        "Europe/Berlin",
        r#"{"0":null,"1":[[480,720],[780,1020]],"2":[[480,720],[780,1020]],"3":[[480,720],[780,1020]],"4":[[480,720],[780,1020]],"5":[[480,900]],"6":null}"#,
        0,
        3,
    ),
    (
        "Voice line",
        "America/New_York",
        r#"{"0":null,"1":[[1200,1440]],"2":[[0,240],[1200,1440]],"3":[[0,240],[1200,1440]],"4":[[0,240],[1200,1440]],"5":[[0,240],[1200,1440]],"6":[[0,240]]}"#,
        3,
        2,
    ),
    (
        "Around the clock",
        "UTC",
        r#"{"0":[[0,1440]],"1":[[0,1440]],"2":[[0,1440]],"3":[[0,1440]],"4":[[0,1440]],"5":[[0,1440]],"6":[[0,1440]]}"#,
        5,
        0,
    ),
    ("Old hours", "Europe/Berlin", r#"{"1":[[540,1020]],"2":[[540,1020]]}"#, 5, 0),
];

/// Name, start, end, whether it counts.
const HOLIDAYS: [(&str, &str, &str, bool); 5] = [
    ("Labour day", "2026-04-30T22:00:00.000Z", "2026-05-01T21:59:59.999Z", true),
    ("Christmas", "2026-12-23T23:00:00.000Z", "2026-12-26T22:59:59.999Z", true),
    ("Moving day", "2026-06-10T22:00:00.000Z", "2026-06-11T21:59:59.999Z", false),
    ("Thanksgiving", "2026-11-26T05:00:00.000Z", "2026-11-27T04:59:59.999Z", true),
    ("New year", "2027-01-01T05:00:00.000Z", "2027-01-02T04:59:59.999Z", true),
];

/// Makes the schedules and all of their holidays.
pub(super) fn make(namer: &Namer, founded: i64) -> (Vec<Record>, Vec<Record>) {
    let schedules = (0_u64..).zip(SCHEDULES);
    let schedules = schedules.map(|(number, told)| schedule(namer, number, told, founded)).collect();
    let holidays = (0_u64..).zip(HOLIDAYS).map(|(number, told)| holiday(namer, number, told, founded)).collect();
    (schedules, holidays)
}

fn schedule(namer: &Namer, number: u64, told: (&str, &str, &str, u64, u64), founded: i64) -> Record {
    let (name, timezone, hours, first, count) = told;
    let created = founded + number as i64 * DAY_MS;
    let id = namer.schedule(number);
    let deleted = number == 3;
    let mut json = begin("schedule", id);
    json.text("name", name).text("timezone", timezone).flag("default", number == 0).raw("hours", hours);
    json.flag("deleted", deleted).time_or_null("deletedAt", deleted.then_some(created + 90 * DAY_MS));
    json.time("createdAt", created).time("updatedAt", created + 90 * DAY_MS).time("modifiedAt", created + 90 * DAY_MS);
    json.end_object().object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
    let named: Vec<String> = (first..first + count)
        .map(|number| format!(r#"{{"type":"holiday","id":"{}"}}"#, namer.holiday(number)))
        .collect();
    json.object("holidays").raw("data", &format!("[{}]", named.join(","))).end_object();
    json.end_object().object("links").link("self", "/v1/schedules/", id, "").end_object().end_object();
    Record { id, json: json.into_bytes(), deleted }
}

fn holiday(namer: &Namer, number: u64, told: (&str, &str, &str, bool), founded: i64) -> Record {
    let (name, start, end, enabled) = told;
    let mut json = begin("holiday", namer.holiday(number));
    json.text("name", name).text("startDate", start).text("endDate", end).flag("enabled", enabled);
    json.time("createdAt", founded).time("updatedAt", founded);
    finish(&mut json, namer, "/v1/holidays/", namer.holiday(number))
}
