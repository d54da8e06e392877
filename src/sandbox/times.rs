//! Conversation times: what an agent spent on a conversation, a record of its own for each spell.
//!
//! ```text
//! conversations   0    1   2   3      4   5    6   7     8 …
//! times           0 1  2   -   3 4 5  6   7 8  9   10 11 12 …    then one for each change since the start
//! ```
//!
//! Eight conversations have twelve times between them, each made before the next conversation was created, so that their
//! order by `createdAt` is that of their numbers and nothing is kept in memory. A time does not change once it is made,
//! but for the customer when a merge moves the conversation.

use super::criteria::{Search, SortKey};
use super::dice::Dice;
use super::ids::Kind;
use super::json::Json;
use super::organisation::{Organisation, View};
use super::search::{Found, HORIZON_MS};
use super::staff;
use super::ticket::Ticket;
use crate::model::ObjectId;

/// Times of eight conversations before each of them, and of all.
const BEFORE: [u64; 9] = [0, 2, 3, 3, 6, 7, 9, 10, 12];

/// Returns the number of the first time of a conversation.
const fn first_of(ticket: u64) -> u64 {
    ticket / 8 * BEFORE[8] + BEFORE[(ticket % 8) as usize]
}

/// Returns how many times were there at the start.
fn settled(org: &Organisation) -> u64 {
    first_of(org.tickets())
}

/// Returns the conversation that had time `number` at the start.
fn settled_ticket(number: u64) -> u64 {
    let slot = BEFORE.partition_point(|before| *before <= number % BEFORE[8]) - 1;
    number / BEFORE[8] * 8 + slot as u64
}

fn settled_at(org: &Organisation, number: u64) -> i64 {
    let ticket = settled_ticket(number);
    let (first, next) = (first_of(ticket), first_of(ticket + 1));
    let from = org.ticket_times.created(ticket);
    let until = if ticket + 1 < org.tickets() { org.ticket_times.created(ticket + 1) } else { org.end };
    from + (until - from) * (number - first + 1) as i64 / (next - first + 1) as i64
}

/// Returns how many times there are.
pub(super) fn count(view: &View<'_>) -> u64 {
    settled(view.org()) + view.late_times().len() as u64
}

/// Returns whose time `number` is and when it was made.
fn origin(view: &View<'_>, number: u64) -> (u64, i64) {
    match number.checked_sub(settled(view.org())) {
        Some(late) => view.late_times()[late as usize],
        None => (settled_ticket(number), settled_at(view.org(), number)),
    }
}

/// Returns when time `number` was made.
pub(super) fn created(view: &View<'_>, number: u64) -> i64 {
    origin(view, number).1
}

pub(super) fn id(view: &View<'_>, number: u64) -> ObjectId {
    view.org().namer.id(Kind::Time, number, created(view, number))
}

/// Returns the time that has this id.
pub(super) fn number_of(view: &View<'_>, wanted: ObjectId) -> Option<u64> {
    let number = view.org().namer.number(Kind::Time, wanted)?;
    (number < count(view) && id(view, number) == wanted).then_some(number)
}

/// Returns the times of a conversation, newest first.
pub(super) fn of_ticket(view: &View<'_>, ticket: u64) -> Vec<u64> {
    let late = (settled(view.org())..).zip(view.late_times());
    let late = late.filter(|(_, (of, _))| *of == ticket).map(|(number, _)| number);
    let mut numbers: Vec<u64> = (first_of(ticket)..first_of(ticket + 1)).chain(late).collect();
    numbers.reverse();
    numbers
}

/// Writes the whole object.
pub(super) fn write(view: &View<'_>, number: u64, json: &mut Json) {
    let namer = &view.org().namer;
    let (index, at) = origin(view, number);
    let ticket = Ticket::new(view, index);
    let id = namer.id(Kind::Time, number, at);
    let mut dice = Dice::new(namer.seed, 0x7469_6d65, number);
    let handled_s = (2_i64 << dice.below(11)) + dice.below(30) as i64;
    let handled_at = at - handled_s * 1000 + dice.below(500) as i64;
    json.open().text("type", "conversation_time").id("id", id).object("attributes").time("createdAt", at);
    json.ids("createdByTeams", ticket.team.map(|team| namer.team(team)));
    json.ids("assignedUsers", ticket.agent.map(|agent| namer.user(agent)));
    json.ids("assignedTeams", ticket.team.filter(|_| dice.chance(40)).map(|team| namer.team(team)));
    for (time_at, time, percent) in [("messageAt", "messageTime", 60), ("noteAt", "noteTime", 15)] {
        if dice.chance(percent) {
            let spent_s = 1 + dice.below(handled_s as u64) as i64;
            json.time(time_at, at - spent_s * 1000).int(time, spent_s);
        }
    }
    json.time("handleAt", handled_at).int("handleTime", handled_s).list("channels").item_text(ticket.channel);
    json.end_list();
    for (key, percent) in [("touched", 70), ("reopened", 10), ("snoozed", 10), ("resolved", 40)] {
        match dice.chance(percent) {
            true => json.flag(key, true),
            false if number.is_multiple_of(2) => json.flag(key, false),
            false => json,
        };
    }
    let author = ticket.agent.unwrap_or_else(|| dice.below(staff::agents()));
    json.end_object().object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
    json.relation("customer", "customer", "/v1/customers/", view.org().customer_id(ticket.owner));
    json.relation("conversation", "conversation", "/v1/conversations/", ticket.id);
    json.relation("createdBy", "user", "/v1/users/", namer.user(author)).end_object();
    json.object("links").link("self", "/v1/conversations/times/", id, "").end_object().end_object();
}

/// Finds the rows of a search from place `first`, `size` of them.
pub(super) fn find(view: &View<'_>, search: &Search, first: u64, size: u64) -> Found {
    let org = view.org();
    let from = search.from.max(org.now_ms() - HORIZON_MS);
    let until = search.until.max(from);
    let early = lower_bound(org, from)..lower_bound(org, until);
    let late = |time: i64| settled(org) + view.late_times().partition_point(|(_, at)| *at < time) as u64;
    let late = late(from)..late(until);
    let early_count = early.end - early.start;
    let total = early_count + late.end - late.start;
    let row = |place: u64| {
        if place < early_count { early.start + place } else { late.start + place - early_count }
    };
    if search.is_range_only() && search.sort == SortKey::Created {
        let end = total.min(first.saturating_add(size));
        let rows = (first..end).map(|place| row(if search.descending { total - 1 - place } else { place })).collect();
        return Found { total, rows };
    }
    let mut rows: Vec<u64> = (0..total).map(row).filter(|number| search.matches(view, *number)).collect();
    if search.sort != SortKey::Created {
        search.sort_by_value(view, &mut rows);
    }
    if search.descending {
        rows.reverse();
    }
    let total = rows.len() as u64;
    Found { total, rows: rows.into_iter().skip(first as usize).take(size as usize).collect() }
}

/// Returns the first time of the start that was made at `time` or later.
fn lower_bound(org: &Organisation, time: i64) -> u64 {
    let (mut low, mut high) = (0, settled(org));
    while low < high {
        let middle = low + (high - low) / 2;
        if settled_at(org, middle) < time {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::sandbox::tests::{Rig, generous, ids, rig, text};
    use crate::sandbox::{IdsOnly, SandboxSettings};

    async fn search(rig: &Rig, query: &str, mut body: Value) -> Value {
        body["queryContext"] = json!("conversation_time");
        let answered = rig.search(query, &body).await;
        assert_eq!(answered.status, 200, "{}", answered.body);
        answered.body
    }

    #[tokio::test]
    async fn pages_hold_every_time_in_order_and_changes_add_one_each() {
        let rig = rig(generous(801)).await;
        assert_eq!(rig.oracle().conversation_times(), 1_202);
        rig.clock.advance(Duration::from_hours(1));
        rig.oracle().touch(&[0, 7, 0]);
        rig.oracle().delete(&[9]);
        let total = rig.oracle().conversation_times();
        assert_eq!(total, 1_205);
        let mut seen = Vec::new();
        for page in 1..=3 {
            let sort = json!({"sort": [{"conversation_time_created_at": "asc"}]});
            let body = search(&rig, &format!("page={page}&pageSize=500"), sort).await;
            assert_eq!(body["meta"]["total"], total);
            seen.extend(body["data"].as_array().unwrap().iter().cloned());
        }
        assert_eq!(seen.len() as u64, total);
        assert!(seen.is_sorted_by_key(|row| text(row, "/attributes/createdAt").to_owned()));
        let distinct: BTreeSet<&str> = seen.iter().map(|row| text(row, "/id")).collect();
        assert_eq!(distinct.len() as u64, total);
        for (number, row) in (0..).zip(&seen) {
            assert_eq!(*row, rig.oracle().conversation_time(number));
            let ticket = rig.oracle().conversation_number(text(row, "/relationships/conversation/data/id")).unwrap();
            let ticket = rig.oracle().conversation(ticket);
            assert_eq!(ticket["relationships"]["customer"], row["relationships"]["customer"]);
            assert!(text(&ticket, "/attributes/createdAt") <= text(row, "/attributes/createdAt"));
            assert!(text(row, "/attributes/handleAt") < text(row, "/attributes/createdAt"));
            assert!(row["attributes"]["handleTime"].as_i64().unwrap() > 0);
        }
        let first = text(&rig.oracle().conversation(0), "/id").to_owned();
        let own = rig.get(&format!("/v1/conversations/{first}/times")).await.body;
        assert_eq!(ids(&own).len(), 4);
        assert_eq!(own["data"][0], rig.oracle().conversation_time(total - 1));
        let several = rig.get(&format!("/v1/conversations/times/{}", ids(&own).join(","))).await.body;
        assert_eq!(several["data"], own["data"]);
        assert_eq!(rig.get(text(&own, "/data/1/links/self")).await.body["data"], own["data"][1]);
        assert_eq!(
            rig.get(&format!("/v1/conversations/{first}/times?pageSize=2000")).await.body["meta"]["pageSize"],
            1_000
        );
        let late = json!({"and": [{"conversation_time_created_at": {"gte": "2026-11-22T13:00:00Z"}}]});
        assert_eq!(search(&rig, "", late).await["meta"]["total"], 3);
    }

    #[tokio::test]
    async fn criteria_and_orders_agree_with_the_records() {
        let rig = rig(generous(400)).await;
        let all: Vec<Value> = (0..600).map(|number| rig.oracle().conversation_time(number)).collect();
        let expect = |check: &dyn Fn(&Value) -> bool| all.iter().filter(|row| check(row)).count() as u64;
        let conversation = text(&all[4], "/relationships/conversation/data/id").to_owned();
        for (criterion, expected) in [
            (json!({"conversation_time_conversation_id": {"equals": conversation}}), 3),
            (
                json!({"conversation_time_handle_time": {"gt": 600}}),
                expect(&|row| row["attributes"]["handleTime"].as_i64() > Some(600)),
            ),
            (
                json!({"conversation_time_resolved": {"equals": true}}),
                expect(&|row| row["attributes"]["resolved"] == true),
            ),
            (
                json!({"conversation_time_note_at": {"not_set": ""}}),
                expect(&|row| row["attributes"]["noteAt"].is_null()),
            ),
            (
                json!({"conversation_time_channels": {"in": ["chat"]}}),
                expect(&|row| row["attributes"]["channels"][0] == "chat"),
            ),
        ] {
            assert!((1..600).contains(&expected), "{criterion} tells nothing apart");
            assert_eq!(
                search(&rig, "pageSize=1", json!({"and": [criterion]})).await["meta"]["total"],
                expected,
                "{criterion}"
            );
        }
        let sorted = search(&rig, "pageSize=500", json!({"sort": {"conversation_time_handle_time": "desc"}})).await;
        let spent: Vec<i64> = sorted["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["attributes"]["handleTime"].as_i64().unwrap())
            .collect();
        assert!(spent.is_sorted_by(|left, right| left >= right));
        let wrong = json!({"queryContext": "conversation_time", "and": [{"conversation_status": {"equals": "open"}}]});
        assert_eq!(rig.search("", &wrong).await.status, 400);
        let archive = json!({"queryContext": "conversation_time"});
        assert_eq!(rig.post("/v1/customers/archive/search", &archive).await.status, 400);
    }

    #[tokio::test]
    async fn times_of_two_years_ago_are_not_searchable() {
        let rig = rig(SandboxSettings { history: Duration::from_hours(1000 * 24), ..generous(800) }).await;
        let body = search(&rig, "pageSize=1", json!({"sort": {"conversation_time_created_at": "asc"}})).await;
        let total = body["meta"]["total"].as_u64().unwrap();
        assert!(total > 100 && total < rig.oracle().conversation_times() - 100, "{total}");
        assert!(text(&body, "/data/0/attributes/createdAt") >= "2024-11-22");
    }

    #[tokio::test]
    async fn ids_alone_have_the_shape_of_the_settings() {
        for (ids_only, first) in [(IdsOnly::Objects, "/data/0/id"), (IdsOnly::Strings, "/data/0")] {
            let rig = rig(SandboxSettings { ids_only, ..generous(10) }).await;
            let body = search(&rig, "idsOnly=true", json!({"sort": {"conversation_time_created_at": "asc"}})).await;
            assert_eq!(text(&body, first), text(&rig.oracle().conversation_time(0), "/id"));
            assert_eq!(body["data"].as_array().unwrap().len(), 15);
        }
    }
}
