//! Tests of threads as they are read.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::model::ObjectId;
use crate::resolve::Tag;

fn resource(value: &Value) -> Resource {
    Resource { id: value["id"].as_str().map(str::to_owned), json: value.to_string() }
}

fn conversation() -> Value {
    json!({"type": "conversation", "id": "010101010101010101010101", "attributes": {
        "name": "Where is my order?", "status": "done", "priority": 3, "channels": ["email", "chat"], "deleted": false,
        "createdAt": "2026-11-01T09:00:12.500Z", "updatedAt": "2026-11-02T09:00:00Z", "lastDone": {"createdAt": "2026-11-02T08:00:00Z"},
        "assignedUsers": ["57bb5d2e32e83a130052e94f"], "assignedTeams": [], "tags": ["t1"],
        "custom": {"tierStr": "gold", "paidBool": true, "amountNum": 12.5, "dueAt": "2026-12-01T00:00:00.000Z", "noneStr": null, "pathTree": ["a", "b"]}},
        "relationships": {"customer": {"data": {"type": "customer", "id": "58210c3db0f09110006b7953"}}}})
}

fn message(id: &str, at: &str, attributes: &Value) -> Resource {
    let mut value =
        json!({"type": "message", "id": id, "attributes": {"sentAt": at, "channel": "email", "direction": "in"}});
    for (name, attribute) in attributes.as_object().unwrap() {
        value["attributes"][name] = attribute.clone();
    }
    resource(&value)
}

fn file(id: &str, message: &str, name: &str) -> Attachment {
    let of = |text: &str| Some(text.to_owned());
    Attachment {
        id: of(id),
        message_id: of(message),
        name: of(name),
        content_type: of("application/pdf"),
        content_length: Some(98_153),
        redacted: Some(false),
    }
}

fn detail() -> Detail {
    let mut detail = Detail::new(ObjectId::from_bytes([1; 12]));
    detail.conversation = Some(Arc::new(resource(&conversation())));
    detail.customer = Some(Arc::new(resource(&json!({"id": "58210c3db0f09110006b7953", "attributes": {
        "displayName": "Ann Ash", "emails": [{"email": "ann@acme.example"}]}}))));
    detail.messages = Some(vec![
        message(
            "m2",
            "2026-11-01T10:00:00Z",
            &json!({"direction": "out", "preview": "Dear Ann,\n\nit is on its way.", "subject": "Re: order",
            "meta": {"from": "help@desk.example", "to": ["ann@acme.example", {"name": "Bo", "email": "bo@acme.example"}], "cc": {"email": "c@acme.example"}}}),
        ),
        message(
            "m1",
            "2026-11-01T09:00:12Z",
            &json!({"preview": "I have waited for three weeks and nothing has come so far.",
            "subject": "Where is my order?", "meta": {"from": "ann@acme.example", "to": "help@desk.example"}}),
        ),
    ]);
    detail.notes = Some(vec![resource(
        &json!({"id": "n1", "attributes": {"body": "Call her.\nToday.", "createdAt": "2026-11-01T09:30:00Z"},
        "relationships": {"createdBy": {"data": {"id": "57bb5d2e32e83a130052e94f"}}}}),
    )]);
    detail.events = Some(vec![resource(&json!({"id": "e1", "attributes": {"name": "kustomer.conversation.update",
        "createdAt": "2026-11-02T08:00:00Z", "changes": {"attributes": {"status": {"op": "replace", "before": "open", "after": "done"},
        "updatedAt": {"before": "x", "after": "y"}}, "relationships": {"customer": {"before": null, "after": {"data": {"id": "c2"}}}}}}}))]);
    detail.attachments = Some(vec![file("a1", "m1", "invoice.pdf"), file("a2", "m9", "other.pdf")]);
    detail.tags =
        Some(vec![Tag { id: "t1".to_owned(), name: Some("vip".to_owned()) }, Tag { id: "t2".to_owned(), name: None }]);
    detail.attributes = Some(vec![
        ("tierStr".to_owned(), Arc::from(r#"{"type":"string","displayName":"Tier"}"#)),
        ("paidBool".to_owned(), Arc::from(r#"{"displayName":"Paid in advance"}"#)),
    ]);
    detail
}

fn written(detail: &Detail, style: &Style) -> String {
    let mut out = String::new();
    write(detail, Parts::ALL, "2026-11-23T08:00:00Z".parse().unwrap(), style, &mut out);
    out
}

#[test]
fn thread_is_in_order_of_time_with_all_that_belongs_to_it() {
    assert_eq!(
        written(&detail(), &Style { width: 60, ..Style::default() }),
        "\
━━ ticket 010101010101010101010101 ━━━━━━━━━━━━━━━━━━━━━━━━━
Where is my order?
status     done
priority   3
channels   email, chat
created    2026-11-01 09:00:12
updated    2026-11-02 09:00:00
done       2026-11-02 08:00:00
users      57bb5d2e32e83a130052e94f
customer   Ann Ash <ann@acme.example>
           58210c3db0f09110006b7953
tags       vip, t2
amountNum  12.5
dueAt      2026-12-01 00:00:00
Paid in advance: yes
pathTree   a, b
Tier       gold
read       2026-11-23 08:00:00; times of UTC

── 2026-11-01 09:00:12 · received · email · ann@acme.example
   to help@desk.example
I have waited for three weeks and nothing has come so far.
   + invoice.pdf (application/pdf, 98.2 kB) a1

── 2026-11-01 09:30:00 · internal note · user
   57bb5d2e32e83a130052e94f
│ Call her.
│ Today.

── 2026-11-01 10:00:00 · sent · email · help@desk.example
   to ann@acme.example, Bo <bo@acme.example>
   cc c@acme.example
Re: order
Dear Ann,

it is on its way.

── 2026-11-02 08:00:00 · event · conversation.update
   status: open → done
   customer: nothing → c2

── attachments
   + other.pdf (application/pdf, 98.2 kB) a2

"
    );
}

#[test]
fn customer_is_the_author_of_what_names_none() {
    let mut detail = detail();
    detail.messages = Some(vec![
        message("m1", "2026-11-01T09:00:12Z", &json!({"preview": "x"})),
        message("m2", "2026-11-01T10:00:00Z", &json!({"direction": "out", "preview": "y"})),
    ]);
    let text = written(&detail, &Style::default());
    assert!(
        text.contains("09:00:12 · received · email · Ann Ash\n") && text.contains("10:00:00 · sent · email\n"),
        "{text}"
    );
}

#[test]
fn events_are_in_their_order_without_those_that_say_nothing() {
    let event = |id: &str, at: &str, kind: &str, changes: &Value| {
        resource(
            &json!({"id": id, "attributes": {"name": format!("kustomer.conversation.{kind}"), "publishedAt": at, "changes": changes}}),
        )
    };
    let mut detail = detail();
    (detail.messages, detail.notes, detail.attachments) = (None, None, None);
    let tagged = json!({"attributes": {"tags": {"before": [], "after": ["t1", "t2"]}}});
    let counted = json!({"attributes": {"messageCount": {"before": 0, "after": 1}}, "relationships": {}});
    let newest_first = [
        event("e4", "2026-11-02T08:00:00Z", "update", &counted),
        event("e3", "2026-11-02T08:00:00Z", "merge", &json!({})),
        event("e2", "2026-11-01T08:00:00Z", "update", &tagged),
        event("e1", "2026-11-01T08:00:00Z", "create", &Value::Null),
    ];
    for oldest_first in [false, true] {
        let mut events = newest_first.to_vec();
        if oldest_first {
            events.reverse();
        }
        detail.events = Some(events);
        let text = written(&detail, &Style::default());
        let (_, shown) = text.split_once("\n\n").unwrap();
        assert_eq!(
            shown,
            "── 2026-11-01 08:00:00 · event · conversation.create\n\n\
             ── 2026-11-01 08:00:00 · event · conversation.update\n   tags: nothing → t1, t2\n\n\
             ── 2026-11-02 08:00:00 · event · conversation.merge\n\n"
        );
    }
}

#[test]
fn what_is_missing_is_said_in_words() {
    let mut detail = detail();
    detail.notes = None;
    detail.fail(Part::Notes, Failure::Forbidden);
    detail.fail(Part::Messages, Failure::Unavailable);
    detail.customer = None;
    detail.fail(Part::Customer, Failure::Gone);
    let text = written(&detail, &Style::default());
    for words in [
        "! notes are missing: the credential may not read it\n",
        "! messages are not all here: the source did not answer, also when asked again\n",
        "! customer is missing: the source has no such record\n",
        "customer   58210c3db0f09110006b7953\n",
        "it is on its way.\n",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
}

#[test]
fn ticket_that_does_not_exist_is_one_sentence() {
    let mut detail = Detail::new(ObjectId::from_bytes([1; 12]));
    detail.fail(Part::Conversation, Failure::Gone);
    let text = written(&detail, &Style { width: 40, ..Style::default() });
    assert_eq!(
        text,
        "━━ ticket 010101010101010101010101 ━━━━━\nThis ticket does not exist at the\nsource: it is deleted, or of another\norganisation.\n\n"
    );
}

#[test]
fn times_are_of_the_zone_that_is_asked_for() {
    let zone = TimeZone::get("America/New_York").unwrap();
    let text = written(&detail(), &Style { zone, ..Style::default() });
    for words in ["created    2026-11-01 04:00:12\n", "── 2026-11-01 04:00:12 · received", "times of America/New_York"]
    {
        assert!(text.contains(words), "{words}:\n{text}");
    }
}

#[test]
fn colours_are_the_only_escape_sequences_and_close_on_their_line() {
    let text = written(&detail(), &Style { colors: true, ..Style::default() });
    assert!(text.contains("\x1b[36m── 2026-11-01 09:00:12"), "{text:?}");
    for line in text.lines() {
        let codes: Vec<&str> = line.split("\x1b[").skip(1).map(|rest| rest.split('m').next().unwrap()).collect();
        assert!(codes.is_empty() || (codes.len() == 2 && codes[1] == "0"), "{line:?}");
    }
    let plain = written(&detail(), &Style::default());
    assert!(!plain.contains('\x1b'));
    let bare = ["1", "2", "36", "32", "33", "31", "0"]
        .iter()
        .fold(text, |text, code| text.replace(&format!("\x1b[{code}m"), ""));
    assert_eq!(bare, plain);
}

/// A text that tries whatever a terminal may obey.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}]52;c;ZWNobw==\u{1b}\\\u{9b}31m\u{202e}exe.\u{2066}\r\u{8}\u{0}\u{90}q\u{9c} 日本語👩\u{200d}🚀";

/// Puts a text into every value and every name of a record.
fn planted(value: &Value, text: &str) -> Value {
    match value {
        Value::String(old) if old.parse::<Timestamp>().is_ok() => value.clone(),
        Value::String(old) => Value::String(format!("{old}{text}")),
        Value::Array(items) => items.iter().map(|item| planted(item, text)).collect(),
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(name, entry)| {
                    let is_custom = name.ends_with("Str") || name == "status";
                    let name = if is_custom { format!("{name}{text}") } else { name.clone() };
                    (name, planted(entry, text))
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

#[test]
fn ticket_cannot_drive_the_terminal_wherever_its_text_stands() {
    let mut detail = detail();
    let plant = |resource: &Resource| {
        let value: Value = serde_json::from_str(&resource.json).unwrap();
        Resource { id: resource.id.clone().map(|id| id + HOSTILE), json: planted(&value, HOSTILE).to_string() }
    };
    detail.conversation = detail.conversation.as_deref().map(plant).map(Arc::new);
    detail.customer = detail.customer.as_deref().map(plant).map(Arc::new);
    for list in [&mut detail.messages, &mut detail.notes, &mut detail.events] {
        *list = list.as_ref().map(|list| list.iter().map(plant).collect());
    }
    let hostile = || Some(HOSTILE.to_owned());
    detail.attachments = Some(vec![Attachment {
        id: hostile(),
        message_id: None,
        name: hostile(),
        content_type: hostile(),
        content_length: None,
        redacted: Some(true),
    }]);
    detail.tags = Some(vec![Tag { id: "t".to_owned(), name: hostile() }]);
    let definition = json!({ "displayName": HOSTILE }).to_string();
    detail.attributes = Some(vec![(format!("tierStr{HOSTILE}"), Arc::from(definition))]);
    for width in [20, 40, 80, 100] {
        let text = written(&detail, &Style { width, ..Style::default() });
        let obeyed = |each: char| {
            (each.is_control() && each != '\n') || matches!(each, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!text.contains(obeyed), "{text:?}");
        assert!(text.contains("␛[2J"), "it is shown, so that people see what was tried");
        assert!(text.lines().all(|line| columns(line) <= width), "{width}:\n{text}");
    }
}

#[test]
fn records_of_wrong_shapes_are_threads_all_the_same() {
    for odd in [
        "{}",
        "[]",
        "null",
        "7",
        r#"{"attributes":{"name":7,"custom":[],"changes":"x","preview":{},"sentAt":"soon","meta":{"to":7}}}"#,
    ] {
        let mut detail = Detail::new(ObjectId::from_bytes([1; 12]));
        let resource = || Resource { id: None, json: odd.to_owned() };
        detail.conversation = Some(Arc::new(resource()));
        detail.customer = Some(Arc::new(resource()));
        detail.messages = Some(vec![resource()]);
        detail.notes = Some(vec![resource()]);
        detail.events = Some(vec![resource()]);
        let text = written(&detail, &Style::default());
        assert!(text.contains("(no subject)") && text.contains("── no time · message\n(no text)\n"), "{odd}:\n{text}");
    }
}
