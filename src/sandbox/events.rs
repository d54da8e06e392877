//! The history of a conversation: what changed, when and by whom, as its other attributes tell it.
//!
//! ```text
//! created ─▶ assigned, subject ─▶ a message each ─▶ snoozed, done, reopened … ─▶ settled ─▶ changes since the start
//! ```
//!
//! As many ends and reopenings are in it as the conversation counts. Of several changes since the server's start only the
//! last is kept, so they are one event. Like real ones, events carry what was written: subjects and previews.

use super::dice::Dice;
use super::ids::Kind;
use super::json::Json;
use super::organisation::View;
use super::staff;
use super::thread;
use super::ticket::{Status, Ticket, settled_status};

/// Something that happened to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Created,
    Assigned,
    Named,
    /// A message came or went.
    Said(u32),
    Moved(Status, Status),
    Settled,
    /// Changed since the start, before which it had this status.
    Changed(Status),
}

/// Returns how many events a conversation has.
pub(super) fn count(view: &View<'_>, ticket: &Ticket) -> usize {
    of_ticket(view, ticket).len()
}

/// Returns what happened to a conversation and when, oldest first.
fn of_ticket(view: &View<'_>, ticket: &Ticket) -> Vec<(i64, Deed)> {
    let org = view.org();
    let base = settled_status(org.namer.seed, ticket.index, org.tickets());
    let mut deeds = vec![(ticket.created, Deed::Created)];
    if ticket.team.is_some() {
        deeds.push((ticket.created, Deed::Assigned));
    }
    if ticket.subject(org.namer.seed).is_some_and(|subject| !subject.is_empty()) {
        deeds.push((ticket.created, Deed::Named));
    }
    deeds.extend((0..ticket.messages).map(|number| (ticket.sent_at(number), Deed::Said(number))));

    let late = view.ticket_state(ticket.index);
    let reopened = ticket.reopens - late.map_or(0, |state| state.reopens);
    let mut statuses = vec![Status::Open];
    if ticket.snoozes > 0 && base != Status::Snoozed {
        statuses.extend([Status::Snoozed, Status::Open]);
    }
    for _ in 0..reopened {
        statuses.extend([Status::Done, Status::Open]);
    }
    if base != Status::Open {
        statuses.push(base);
    }
    let (moves, closed) = (statuses.len() as i64 - 1, ticket.closed_at());
    for (step, pair) in (1..).zip(statuses.windows(2)) {
        deeds.push((ticket.created + (closed - ticket.created) * step / moves, Deed::Moved(pair[0], pair[1])));
    }
    deeds.push((ticket.settled, Deed::Settled));
    if late.is_some() {
        deeds.push((ticket.updated, Deed::Changed(base)));
    }
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

/// Writes events `first` to `past` of a conversation, newest first or, in `ascending` order, oldest first.
pub(super) fn write(
    view: &View<'_>,
    ticket: &Ticket,
    places: std::ops::Range<usize>,
    ascending: bool,
    json: &mut Json,
) {
    let deeds = of_ticket(view, ticket);
    let newest = deeds.len() - 1;
    for place in places.start..places.end.min(deeds.len()) {
        let number = if ascending { place } else { newest - place };
        let (at, deed) = deeds[number];
        write_one(view, ticket, number as u64, at, deed, json);
    }
}

fn write_one(view: &View<'_>, ticket: &Ticket, number: u64, at: i64, deed: Deed, json: &mut Json) {
    let org = view.org();
    let namer = &org.namer;
    let id = namer.id(Kind::Event, namer.event_key(ticket.index, number), at);
    let made = if deed == Deed::Created { "kustomer.conversation.create" } else { "kustomer.conversation.update" };
    json.open().text("type", "customer_event").id("id", id).object("attributes").text("name", made);
    json.text("type", "conversation").time("publishedAt", at + 50).time("createdAt", ticket.created);
    json.time("updatedAt", at).time("modifiedAt", at);
    if deed != Deed::Created {
        json.object("changes").object("attributes");
        write_changes(view, ticket, at, deed, json);
        json.end_object().object("relationships");
        if matches!(deed, Deed::Changed(_)) && ticket.owner != ticket.customer {
            json.object("customer").text("op", "replace");
            for (key, customer) in [("before", ticket.customer), ("after", ticket.owner)] {
                json.relation(key, "customer", "/v1/customers/", org.customer_id(customer));
            }
            json.end_object();
        }
        json.end_object().end_object();
    }
    json.null("location").null("meta").end_object();
    json.object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
    let mut dice = Dice::new(namer.seed, 0x6576_656e, namer.event_key(ticket.index, number));
    let by_customer = match deed {
        Deed::Created => ticket.inbound,
        Deed::Said(number) => !ticket.is_outbound(number),
        _ => false,
    };
    if !by_customer {
        let author = ticket.agent.unwrap_or_else(|| dice.below(staff::agents()));
        json.relation("createdBy", "user", "/v1/users/", namer.user(author));
        json.relation("modifiedBy", "user", "/v1/users/", namer.user(author));
    }
    json.relation("customer", "customer", "/v1/customers/", org.customer_id(ticket.owner));
    json.relation("conversation", "conversation", "/v1/conversations/", ticket.id).end_object();
    let owner = format!("/v1/customers/{}/events/", org.customer_id(ticket.owner));
    json.object("links").link("self", &owner, id, "").end_object().end_object();
}

/// Writes the attributes that an event changed, each with its value before and after.
fn write_changes(view: &View<'_>, ticket: &Ticket, at: i64, deed: Deed, json: &mut Json) {
    let namer = &view.org().namer;
    let text = |number: u32| thread::message_text(namer, ticket, number);
    let replaced = |json: &mut Json, key: &str| {
        json.object(key).text("op", "replace");
    };
    let status = |json: &mut Json, before: Status, after: Status| {
        replaced(json, "status");
        json.text("before", before.name()).text("after", after.name()).end_object();
    };
    match deed {
        Deed::Created => {}
        Deed::Assigned => {
            replaced(json, "assignedTeams");
            json.raw("before", "[]").ids("after", ticket.team.map(|team| namer.team(team))).end_object();
            replaced(json, "assignedUsers");
            json.raw("before", "[]").ids("after", ticket.agent.map(|agent| namer.user(agent))).end_object();
        }
        Deed::Named => {
            replaced(json, "name");
            json.null("before").text("after", &ticket.subject(namer.seed).unwrap_or_default()).end_object();
        }
        Deed::Said(number) => {
            replaced(json, "messageCount");
            json.int("before", number.into()).int("after", i64::from(number) + 1).end_object();
            replaced(json, "preview");
            match number.checked_sub(1) {
                Some(before) => json.text("before", &text(before)),
                None => json.null("before"),
            };
            json.text("after", &text(number)).end_object();
            replaced(json, "lastMessageAt");
            json.time_or_null("before", number.checked_sub(1).map(|before| ticket.sent_at(before)));
            json.time("after", at).end_object();
        }
        Deed::Moved(before, after) => status(json, before, after),
        Deed::Settled => {
            replaced(json, "updatedAt");
            json.time("before", ticket.closed_at()).time("after", at).end_object();
        }
        Deed::Changed(before) => {
            replaced(json, "rev");
            json.int("before", ticket.rev() - i64::from(ticket.changes)).int("after", ticket.rev()).end_object();
            replaced(json, "updatedAt");
            json.time("before", ticket.settled).time("after", at).end_object();
            if before != ticket.status {
                status(json, before, ticket.status);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use crate::sandbox::tests::{generous, ids, rig, text};
    use crate::sandbox::{Fault, SandboxSettings, Thread};

    #[tokio::test]
    async fn events_tell_the_same_story_as_the_conversation() {
        let rig = rig(generous(80)).await;
        let touched: Vec<String> =
            (0..40).map(|number| text(&rig.sandbox.organisation().conversation(number), "/id").to_owned()).collect();
        rig.post("/sandbox/touch", &json!({"ids": touched})).await;
        let mut names = BTreeSet::new();
        for number in 0..80 {
            let row = rig.sandbox.organisation().conversation(number);
            let path = format!("/v1/conversations/{}/events?sort=asc&pageSize=3", text(&row, "/id"));
            let (mut next, mut events) = (Some(path), Vec::new());
            while let Some(path) = next {
                let page = rig.get(&path).await.body;
                assert_eq!(page["meta"], json!({}));
                events.extend(page["data"].as_array().unwrap().iter().cloned());
                next = page["links"]["next"].as_str().map(str::to_owned);
            }
            assert!(text(&events[0], "/attributes/name").ends_with("create"));
            let mut state = json!({"status": "open", "name": null, "messageCount": 0, "preview": null});
            let (mut reopened, mut last) = (0, "");
            for event in &events {
                assert_eq!(event["relationships"]["conversation"]["data"]["id"], row["id"]);
                assert!(last <= text(event, "/attributes/updatedAt"));
                last = text(event, "/attributes/updatedAt");
                for (key, change) in event["attributes"]["changes"]["attributes"].as_object().into_iter().flatten() {
                    if let Some(now) = state.get_mut(key) {
                        assert_eq!(*now, change["before"], "{key}");
                        *now = change["after"].clone();
                    }
                    reopened += u64::from(key == "status" && change["before"] == "done");
                    names.insert(key.clone());
                }
            }
            let attributes = &row["attributes"];
            for key in ["status", "messageCount", "preview"] {
                assert_eq!(state[key], attributes[key], "{number} {key}");
            }
            assert!(reopened <= attributes["reopenCount"].as_u64().unwrap_or(9));
            assert_eq!(last, text(attributes, "/updatedAt"));
            let newest = rig.get(&format!("/v1/conversations/{}/events", text(&row, "/id"))).await.body;
            assert_eq!(newest["data"], Value::from(events.into_iter().rev().collect::<Vec<_>>()));
        }
        assert!(["status", "rev", "assignedTeams"].iter().all(|name| names.contains(*name)), "{names:?}");
    }

    #[tokio::test]
    async fn every_thread_is_as_long_as_told() {
        let thread = Thread { messages: 250, notes: 120, attachments: 300 };
        let rig = rig(SandboxSettings { thread: Some(thread), ..generous(40) }).await;
        let id = text(&rig.sandbox.organisation().conversation(7), "/id").to_owned();
        for (part, expected) in [("messages", 250), ("notes", 120), ("attachments", 300)] {
            let (mut next, mut seen) = (Some(format!("/v1/conversations/{id}/{part}")), BTreeSet::new());
            while let Some(path) = next {
                let page = rig.get(&path).await.body;
                for row in page["data"].as_array().unwrap() {
                    let own = text(row, "/links/self");
                    assert!(seen.insert(own.to_owned()));
                    if seen.len().is_multiple_of(60) {
                        assert_eq!(rig.get(own).await.status, 200, "{own}");
                    }
                }
                next = page["links"]["next"].as_str().map(str::to_owned);
            }
            assert_eq!(seen.len(), expected, "{part}");
        }
        assert_eq!(rig.sandbox.organisation().conversation(7)["attributes"]["messageCount"], 250);
        let one = Thread { messages: 2, notes: 1, attachments: 1 };
        let rig = self::rig(SandboxSettings { thread: Some(one), ..generous(40) }).await;
        for number in 0..40 {
            let id = text(&rig.sandbox.organisation().conversation(number), "/id").to_owned();
            for (part, expected) in [("messages", 2), ("notes", 1), ("attachments", 1)] {
                let page = rig.get(&format!("/v1/conversations/{id}/{part}")).await.body;
                assert_eq!(page["data"].as_array().unwrap().len(), expected);
            }
        }
    }

    #[tokio::test]
    async fn named_requests_and_routes_fail_and_no_others() {
        let rig = rig(generous(10)).await;
        rig.get("/v1/tags").await;
        rig.sandbox.fail_request(1, Fault::Status(503));
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(rig.get("/v1/tags").await.status);
        }
        assert_eq!(statuses, [200, 503, 200]);
        let id = ids(&rig.get("/v1/conversations").await.body)[0].clone();
        let route = "GET /v1/conversations/{id}/notes";
        let told = rig.post("/sandbox/fail", &json!({"route": route, "fault": "403"})).await;
        assert_eq!(told.status, 200);
        let refused = rig.get(&format!("/v1/conversations/{id}/notes")).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (403, &json!("forbidden")));
        assert_eq!(rig.get(&format!("/v1/conversations/{id}/messages")).await.status, 200);
        rig.sandbox.fail_route(route, None);
        assert_eq!(rig.get(&format!("/v1/conversations/{id}/notes")).await.status, 200);
        assert_eq!(rig.post("/sandbox/fail", &json!({"request": 0, "fault": "tea"})).await.status, 400);
    }
}
