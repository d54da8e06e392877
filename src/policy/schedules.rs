//! Business schedules: what the source nests, as lists of texts that a table can hold.
//!
//! Known from the reference of the API (core resources, "Business schedules"; read as of 2026): `GET /v1/schedules` with the role
//! `org.permission.schedule.read` or `org.user.schedule.read`; attributes `name`, `timezone` (IANA), `default` (one schedule
//! has it), `deleted`, `deletedAt`, and
//!
//! ```text
//! "hours": { "0": null, "1": [[480, 720], [780, 1020]], … "6": null }     0 is Sunday; [start, end] in minutes after midnight
//! ```
//!
//! Known from the source's own chat SDKs: holidays stand beside the record when `include=holidays` is asked for, as objects of
//! type `holiday` with `name`, `startDate`, `endDate` (both instants, and the end belongs to it) and `enabled`.
//!
//! Assumed: that a record names its holidays in `relationships.holidays.data`, that `include` works for the list as for one
//! schedule, and that a list page without `included` holds no holidays' dates, so that such schedules must be asked for one by
//! one ([`lacking_holidays`]). Holidays that stand inside the attributes are read as well. What is shaped otherwise stays as
//! it came and goes the way of every value that does not fit its column: into quarantine, by name.
//!
//! Written: `attributes.hours` as `["mon 08:00-12:00", …]`, `attributes.holidays` as `["START/END", …]` of those that are
//! enabled, in the words of the source; `query::functions::business` reads them. A holiday that is named and not told leaves
//! `holidays` out. Nothing else of what is included is kept, names of holidays neither.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::ObjectId;

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Rewrites a page of schedules; nothing when it is no such page, which the decoder then says in its own words.
pub(super) fn flatten(page: &[u8]) -> Option<Vec<u8>> {
    let mut page: Value = serde_json::from_slice(page).ok()?;
    let included = page.as_object_mut()?.remove("included");
    let holidays = told_holidays(included.as_ref());
    for record in records(&mut page) {
        flatten_record(record, &holidays);
    }
    serde_json::to_vec(&page).ok()
}

/// Lists the schedules of a page that name holidays of which the page does not tell the dates.
#[must_use]
pub fn lacking_holidays(page: &[u8]) -> Vec<ObjectId> {
    let Ok(mut page) = serde_json::from_slice::<Value>(page) else { return Vec::new() };
    let holidays = told_holidays(page.get("included"));
    let lacking = |record: &Value| {
        let named = named_holidays(record)?;
        let is_told = record["attributes"]["holidays"].is_array() || named.iter().all(|id| holidays.contains_key(*id));
        if is_told { None } else { ObjectId::from_hex(record["id"].as_str()?.as_bytes()) }
    };
    records(&mut page).into_iter().filter_map(|record| lacking(record)).collect()
}

fn records(page: &mut Value) -> Vec<&mut Value> {
    match page.get_mut("data") {
        Some(Value::Array(records)) => records.iter_mut().collect(),
        Some(record @ Value::Object(_)) => vec![record],
        _ => Vec::new(),
    }
}

/// Reads what is included: the texts of holidays by id, empty ones for those that are not enabled.
fn told_holidays(included: Option<&Value>) -> BTreeMap<String, String> {
    let included = included.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let told = included.iter().filter(|record| record["type"] == "holiday").filter_map(|record| {
        let id = record["id"].as_str()?.to_owned();
        Some((id, holiday(record["attributes"].as_object()?)?))
    });
    told.collect()
}

/// Lists the ids in `relationships.holidays`; nothing when it is not there.
fn named_holidays(record: &Value) -> Option<Vec<&str>> {
    let named = record["relationships"]["holidays"]["data"].as_array()?;
    named.iter().map(|named| named["id"].as_str()).collect()
}

fn flatten_record(record: &mut Value, holidays: &BTreeMap<String, String>) {
    let related = named_holidays(record)
        .and_then(|named| named.into_iter().map(|id| holidays.get(id).cloned()).collect::<Option<Vec<_>>>());
    let Some(attributes) = record.get_mut("attributes").and_then(Value::as_object_mut) else { return };
    if let Some(hours) = attributes.get("hours").and_then(Value::as_object).and_then(hours) {
        attributes.insert("hours".to_owned(), hours.into());
    }
    let own = attributes
        .get("holidays")
        .and_then(Value::as_array)
        .and_then(|own| own.iter().map(|one| holiday(one.as_object()?)).collect::<Option<Vec<_>>>());
    if let Some(told) = own.or(related) {
        let enabled: Vec<String> = told.into_iter().filter(|holiday| !holiday.is_empty()).collect();
        attributes.insert("holidays".to_owned(), enabled.into());
    }
}

/// Writes the hours of a week; nothing when one of them is not understood.
fn hours(week: &Map<String, Value>) -> Option<Vec<String>> {
    let mut written = Vec::new();
    for day in week.keys() {
        day.parse::<usize>().ok().filter(|day| *day < DAYS.len())?;
    }
    for (number, day) in DAYS.iter().enumerate() {
        let intervals = match week.get(&number.to_string()) {
            None | Some(Value::Null) => continue,
            Some(intervals) => intervals.as_array()?,
        };
        for interval in intervals {
            let [start, end] = interval.as_array()?.as_slice() else { return None };
            let (start, end) = (start.as_u64()?, end.as_u64()?);
            if start >= end || end > 24 * 60 {
                return None;
            }
            written.push(format!("{day} {:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60));
        }
    }
    Some(written)
}

/// Writes a holiday, or an empty one when it is not enabled; nothing when it has no start or end.
fn holiday(attributes: &Map<String, Value>) -> Option<String> {
    let told = |name: &str| attributes.get(name).and_then(Value::as_str);
    let (start, end) = (told("startDate")?, told("endDate")?);
    // A slash would part them.
    let is_plain = !start.contains('/') && !end.contains('/');
    let is_enabled = attributes.get("enabled").and_then(Value::as_bool).unwrap_or(true);
    is_plain.then(|| if is_enabled { format!("{start}/{end}") } else { String::new() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "58228e05d4e96711004eccb7";
    const OTHER: &str = "58228e05d4e96711004eccb8";

    fn record(attributes: &Value, holidays: &[&str]) -> Value {
        let named: Vec<Value> = holidays.iter().map(|id| json!({"type": "holiday", "id": id})).collect();
        json!({"type": "schedule", "id": ID, "attributes": attributes, "relationships": {"holidays": {"data": named}}})
    }

    fn holiday(id: &str, attributes: &Value) -> Value {
        json!({"type": "holiday", "id": id, "attributes": attributes})
    }

    fn flattened(page: &Value) -> Value {
        let flat = flatten(page.to_string().as_bytes()).unwrap();
        serde_json::from_slice(&flat).unwrap()
    }

    #[test]
    fn week_of_minutes_becomes_a_list_of_texts() {
        let week = json!({"hours": {"0": null, "1": [[480, 720], [780, 1020]], "3": [], "6": [[0, 1440]]}});
        let page = flattened(&json!({"data": [record(&week, &[])]}));
        let expected = json!(["mon 08:00-12:00", "mon 13:00-17:00", "sat 00:00-24:00"]);
        assert_eq!(page["data"][0]["attributes"]["hours"], expected);
        assert_eq!(page["data"][0]["attributes"]["holidays"], json!([]), "that it names none is known");
    }

    #[test]
    fn hours_of_another_shape_stay_as_they_came() {
        for hours in [
            json!({"1": [[480]]}),
            json!({"1": [[480, 1441]]}),
            json!({"1": [[480, 480]]}),
            json!({"1": [["08:00", "17:00"]]}),
            json!({"mon": [[480, 1020]]}),
            json!({"7": [[480, 1020]]}),
            json!({"1": "all day"}),
            json!("09:00-17:00"),
        ] {
            let page = flattened(&json!({"data": record(&json!({"hours": hours}), &[])}));
            assert_eq!(page["data"]["attributes"]["hours"], hours);
        }
    }

    #[test]
    fn holidays_beside_the_records_are_written_into_those_that_name_them() {
        let new_year = json!({"name": "New year", "startDate": "2026-01-01T05:00:00.000Z",
            "endDate": "2026-01-02T04:59:59.999Z", "enabled": true});
        let off = json!({"name": "Off", "startDate": "2026-05-01T00:00:00Z", "endDate": "2026-05-02T00:00:00Z", "enabled": false});
        let included = json!([holiday(ID, &new_year), holiday(OTHER, &off), {"type": "user", "id": ID}]);
        let page = json!({"data": [record(&json!({}), &[ID, OTHER])], "included": included});
        let flat = flattened(&page);
        let expected = json!(["2026-01-01T05:00:00.000Z/2026-01-02T04:59:59.999Z"]);
        assert_eq!(flat["data"][0]["attributes"]["holidays"], expected);
        assert!(!flat.to_string().contains("New year"));
        assert!(lacking_holidays(page.to_string().as_bytes()).is_empty());
        let inside = json!({"data": [record(&json!({"holidays": [new_year]}), &[])]});
        assert_eq!(flattened(&inside)["data"][0]["attributes"]["holidays"], expected);
    }

    #[test]
    fn holidays_that_are_named_and_not_told_are_asked_for() {
        let page = json!({"data": [record(&json!({}), &[OTHER])]});
        assert_eq!(flattened(&page)["data"][0]["attributes"].get("holidays"), None);
        assert_eq!(lacking_holidays(page.to_string().as_bytes()), [ID.parse().unwrap()]);
        let none = json!({"data": [record(&json!({}), &[]), {"id": ID, "attributes": {}}]});
        assert!(lacking_holidays(none.to_string().as_bytes()).is_empty());
        assert!(lacking_holidays(b"{").is_empty());
    }
}
