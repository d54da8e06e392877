//! Redacted records against the decoder, and against records of any shape.

use std::sync::Arc;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::Schemas;
use crate::secret::{PseudonymKey, SecretKey};

const ID: &str = "58228e05d4e96711004eccb7";
const OTHER: &str = "57bb5d2e32e83a130052e94f";

fn keys() -> PseudonymKeys {
    let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
    PseudonymKeys::try_new([Arc::new(key)]).unwrap()
}

fn definitions() -> Definitions {
    let mut definitions = Definitions::default();
    let page = br#"{"data":{"attributes":{"properties":{
        "tierStr":{"type":"string"},"noteTxt":{"type":"string"},"sinceAt":{"type":"string"},"sizeNum":{"type":"number"},
        "ssnStr":{"type":"string","hasSensitiveAttributes":true},"listStr":{"type":"string","multi":true}}}}}"#;
    definitions.add(Stream::Tickets, page).unwrap();
    definitions.add(Stream::Customers, page).unwrap();
    definitions
}

fn builtin() -> (Policy, Redaction) {
    let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
    let redaction = Redaction::try_new(&policy, &definitions(), &keys()).unwrap();
    (policy, redaction)
}

/// A policy that keeps no text as it is.
fn strict() -> Redaction {
    let head = |stream: &str, id: &str| {
        format!(
            r#"stream = "{stream}"
[[pattern]]
name = "order"
regex = "ORD-[0-9]+"
description = "Numbers of orders."
[[column]]
name = "{id}"
path = "id"
type = "text"
class = "internal"
description = "Id."
[[column]]
name = "updated_at"
path = "attributes.updatedAt"
type = "timestamp"
class = "internal"
description = "Change."
[[column]]
name = "rev"
path = "attributes.rev"
type = "int"
class = "internal"
description = "Revision."
[[column]]
name = "deleted"
path = "attributes.deleted"
type = "bool"
class = "internal"
description = "Deleted."
[[column]]
name = "subject"
path = "attributes.name"
type = "text"
class = "content"
method = "scrub"
description = "Subject."
[[column]]
name = "preview"
path = "attributes.preview"
type = "text"
class = "content"
method = "drop"
description = "Preview."
[[column]]
name = "second_email"
path = "attributes.emails.1.email"
type = "text"
class = "personal"
method = {{ name = "mask", as = "email" }}
description = "Second address."
[[column]]
name = "people"
path = "attributes.to"
type = "text_list"
class = "personal"
method = "mask"
description = "People."
[[column]]
name = "body"
path = "attributes.body"
type = "text"
class = "content"
method = {{ name = "restrict", after = "scrub" }}
description = "Behind the second key."
[[custom]]
pattern = "*Str"
class = "personal"
method = "mask"
[[custom]]
pattern = "*Txt"
class = "content"
method = "scrub"
"#
        )
    };
    let files = [("tickets.toml", head("tickets", "ticket_id")), ("customers.toml", head("customers", "customer_id"))];
    let schemas = Schemas::from_files(files.iter().map(|(name, text)| (*name, text.as_str()))).unwrap();
    Redaction::try_new(&Policy::compile(&schemas).unwrap(), &definitions(), &keys()).unwrap()
}

fn parsed(json: Option<String>) -> Value {
    serde_json::from_str(&json.expect("a record that is shown")).unwrap()
}

fn put(place: &mut Value, path: &[&str], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *place = value;
        return;
    };
    if let Ok(position) = key.parse::<usize>() {
        if !place.is_array() {
            *place = json!([]);
        }
        let items = place.as_array_mut().unwrap();
        items.resize(items.len().max(position + 1), json!({}));
        put(&mut items[position], rest, value);
    } else {
        if !place.is_object() {
            *place = json!({});
        }
        put(place.as_object_mut().unwrap().entry(*key).or_insert(Value::Null), rest, value);
    }
}

#[test]
fn what_is_shown_is_what_the_lake_would_store() {
    let (policy, redaction) = builtin();
    for (stream, shown_as) in [(Stream::Tickets, "conversation"), (Stream::Customers, "customer")] {
        let mut decoder = policy.decoder(stream, &definitions(), &keys()).unwrap();
        let schema = decoder.schema();
        let mut record = json!({});
        for field in schema.fields() {
            let value = match crate::policy::column_type(field.data_type()).unwrap().name() {
                "int" => json!(4711),
                "float" => json!(12.5),
                "bool" => json!(true),
                "timestamp" => json!("2016-11-06T13:54:29-05:00"),
                "text_list" => json!(["call zoe@example.com", null, "0151 23456789"]),
                _ => json!("zoe.ash@example.com"),
            };
            put(&mut record, &field.metadata()["path"].split('.').collect::<Vec<_>>(), value);
        }
        record["id"] = json!(ID);
        record["relationships"]["org"] = json!({"data": {"id": OTHER}});
        decoder.push_page(json!({ "data": record }).to_string().as_bytes()).unwrap();
        let rows = decoder.finish().unwrap();
        let shown = parsed(match stream {
            Stream::Tickets => redaction.conversation(&record.to_string(), &[]),
            _ => redaction.customer(&record.to_string()),
        });
        assert_eq!(shown["type"], shown_as);
        let mut stored = 0;
        for (field, column) in schema.fields().iter().zip(rows.batch().columns()) {
            let pointer = format!("/{}", field.metadata()["path"].replace('.', "/"));
            let value = shown.pointer(&pointer).unwrap_or(&Value::Null);
            if column.is_null(0) || is_restricted(field) {
                assert_eq!(value, &Value::Null, "{pointer}");
                continue;
            }
            stored += 1;
            let expected = array_value_to_string(column, 0).unwrap();
            let value = match value {
                // Arrow writes no milliseconds where there are none.
                Value::String(text) => text.replace(".000Z", "Z"),
                Value::Array(items) => {
                    let items = items.iter().map(|item| item.as_str().unwrap_or_default());
                    format!("[{}]", items.collect::<Vec<_>>().join(", "))
                }
                other => other.to_string(),
            };
            assert_eq!(value, expected, "{pointer}");
        }
        assert!(stored > 40, "{stream} has {stored}");
    }
}

#[test]
fn subject_and_preview_are_absent_where_the_policy_drops_them_and_as_it_stores_them_where_it_does() {
    let record = json!({"type": "conversation", "id": ID, "links": {"self": "/v1/x"}, "unknown": 7,
        "attributes": {"name": "call zoe@example.com about ORD-4711", "preview": "secret", "body": "behind the key", "new": {"a": 1},
            "emails": [{"email": "a@example.com"}, {"email": "zoe@example.com", "type": "home"}], "to": ["Zoe", null],
            "custom": {"tierStr": "gold", "noteTxt": "ask zoe@example.com", "ssnStr": "078-05-1120", "otherStr": "x", "sizeNum": 4}},
        "relationships": {"customer": {"data": {"type": "customer", "id": OTHER}}}})
    .to_string();
    let (_, redaction) = builtin();
    let shown = parsed(redaction.conversation(&record, &[]));
    assert_eq!(shown.pointer("/attributes/name").or(shown.pointer("/attributes/preview")), None);
    assert_eq!(shown.pointer("/relationships/customer/data/id"), Some(&json!(OTHER)));
    assert_eq!(shown.pointer("/attributes/custom/ssnStr"), None, "sensitive");
    assert_eq!(
        parsed(strict().conversation(&record, &[])),
        json!({"type": "conversation", "id": ID, "attributes": {
            "name": "call [email] about [order]", "emails": [null, {"email": "z***@example.com"}], "to": ["***", null],
            "custom": {"tierStr": "***", "noteTxt": "ask [email]"}}})
    );
    // What the source marks sensitive since the lake last asked is not shown either.
    let shown = parsed(strict().conversation(&record, &["tierStr", "unknown"]));
    assert_eq!(shown["attributes"]["custom"], json!({"noteTxt": "ask [email]"}));
}

#[test]
fn messages_keep_scrubbed_texts_masked_addresses_and_what_names_nobody() {
    let redaction = strict();
    let message = format!(
        r#"{{"type":"message","id":"{ID}","links":{{"related":"needle"}},"attributes":{{
        "channel":"email","app":"Zoe Ash","preview":"write to zoe\u0040example.com, ORD-77","subject":"z\u006fe@example.com",
        "subject":"second","direction":"in","sentAt":"2016-11-06T13:54:29-05:00","createdAt":"Zoe","size":7,"rev":491511234567,
        "externalId":"needle","custom":{{"aStr":"needle"}},"location":"needle","auto":"needle","redacted":false,
        "assignedUsers":["{OTHER}","needle",7,null,["needle"]],"error":{{"status":422,"code":"invalid-recipient","title":"needle"}},
        "meta":{{"from":"zoe@example.com","to":[{{"email":"zoe@example.com","name":"Zoe"}},"+49 151 23456789",["needle"],7],
            "cc":{{"email":"zoe@example.com"}},"bcc":[],"recipient":{{"mailboxHash":"needle"}},"subject":"[email]","payload":"needle"}}}},
        "relationships":{{"createdBy":{{"data":{{"type":"user","id":"{OTHER}","name":"needle"}}}},"org":{{"data":{{"id":"{OTHER}"}}}}}}}}"#
    );
    let shown = redaction.message(&message);
    assert_eq!(redaction.message(shown.as_deref().unwrap()), shown, "once more changes nothing");
    assert_eq!(
        parsed(shown),
        json!({"type": "message", "id": ID, "attributes": {
            "channel": "email", "preview": "write to [email], [order]", "subject": "[email]", "direction": "in",
            "sentAt": "2016-11-06T18:54:29.000Z", "size": 7, "redacted": false, "assignedUsers": [OTHER],
            "error": {"status": 422, "code": "invalid-recipient"},
            "meta": {"from": "z***@example.com", "to": [{"email": "z***@example.com"}, "***89"],
                "cc": {"email": "z***@example.com"}, "bcc": [], "subject": "[email]"}},
            "relationships": {"createdBy": {"data": {"type": "user", "id": OTHER}}}})
    );
    let note = json!({"type": "note", "id": ID, "attributes": {"body": "zoe@example.com", "externalId": "needle"}});
    let shown = parsed(redaction.note(&note.to_string()));
    assert_eq!(shown, json!({"type": "note", "id": ID, "attributes": {"body": "[email]"}}));
}

#[test]
fn events_show_changes_of_declared_fields_by_their_methods() {
    let event = |about: &str| {
        json!({"type": "conversation_event", "id": ID, "attributes": {
            "changes": {
                "attributes": {
                    "name": {"op": "replace", "before": null, "after": "zoe@example.com"},
                    "preview": {"op": "replace", "before": "needle", "after": "needle"},
                    "needle": {"op": "add", "after": "needle"},
                    "rev": {"op": "replace", "before": 3, "after": "needle", "needle": 1},
                    "body": {"op": "add", "after": "needle"},
                    "custom": {"op": "replace", "before": {"tierStr": "needle", "needle": 1}, "after": {"noteTxt": "x"}}},
                "relationships": {"customer": {"op": "add", "after": {"data": {"id": "needle"}}}}, "needle": {}},
            "name": "kustomer.conversation.update", "type": about, "location": "needle", "meta": {"needle": 1}}})
        .to_string()
    };
    let redaction = strict();
    let shown = redaction.event(&event("conversation"), &[]);
    assert_eq!(redaction.event(shown.as_deref().unwrap(), &[]), shown, "once more changes nothing");
    assert_eq!(
        parsed(shown),
        json!({"type": "conversation_event", "id": ID, "attributes": {
            "name": "kustomer.conversation.update", "type": "conversation", "changes": {
            "attributes": {"name": {"op": "replace", "after": "[email]"}, "rev": {"op": "replace", "before": 3},
                "custom": {"op": "replace", "before": {"tierStr": "***"}, "after": {"noteTxt": "x"}}},
            "relationships": {}}}})
    );
    let shown = parsed(redaction.event(&event("conversation"), &["tierStr"]));
    assert_eq!(
        shown.pointer("/attributes/changes/attributes/custom"),
        Some(&json!({"op": "replace", "after": {"noteTxt": "x"}}))
    );
    let shown = parsed(redaction.event(&event("customer"), &[]));
    assert_eq!(shown.pointer("/attributes/changes"), None, "a customer's name is no subject");
}

#[test]
fn what_is_no_record_is_nothing() {
    let redaction = strict();
    for json in ["", "null", "7", "\"x\"", "[]", "[{}]", "{", "{}}", r#"{"id":"x"} {}"#, r#"{"id":"#, "\u{feff}{}"] {
        for shown in [
            redaction.conversation(json, &[]),
            redaction.customer(json),
            redaction.message(json),
            redaction.note(json),
            redaction.event(json, &[]),
        ] {
            assert_eq!(shown, None, "{json}");
        }
    }
    assert_eq!(redaction.conversation("{}", &[]), None, "no id");
    // A record that cannot be read leaves nothing behind for the next one.
    let good = json!({"id": ID, "attributes": {"name": "x"}}).to_string();
    let shown = redaction.conversation(&good, &[]);
    assert_eq!(redaction.conversation(&format!(r#"{{"id":"{OTHER}","attributes":{{"name":"left"#), &[]), None);
    assert_eq!(redaction.conversation(&good, &[]), shown);
}

const KEYS: [&str; 34] = [
    "attributes",
    "relationships",
    "meta",
    "changes",
    "custom",
    "from",
    "to",
    "cc",
    "recipient",
    "email",
    "emails",
    "phone",
    "address",
    "name",
    "preview",
    "subject",
    "body",
    "type",
    "id",
    "data",
    "createdBy",
    "before",
    "after",
    "op",
    "status",
    "size",
    "noteTxt",
    "tierStr",
    "ssnStr",
    "needle",
    "externalId",
    "links",
    "assignedUsers",
    "1",
];

/// A number that is no count: of a telephone, for example.
const NUMBER: &str = "491511234567899";

/// JSON of any shape, as text: with keys twice, and characters as escapes.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => Just(r#""needle@hidden.example""#.to_owned()),
        2 => Just(r#""write to needle\u0040hidden.example, please""#.to_owned()),
        2 => Just(r#""n\u0065edle@hidden.example\n\ud83d""#.to_owned()),
        1 => Just(format!("\"{OTHER}\"")),
        1 => Just("\"conversation\"".to_owned()),
        1 => Just(NUMBER.to_owned()),
        1 => Just("null".to_owned()),
        1 => Just("true".to_owned()),
    ];
    leaf.prop_recursive(6, 96, 8, |inner| {
        let key = (prop::sample::select(&KEYS[..]), any::<bool>()).prop_map(|(key, escaped)| match key.split_at(1) {
            (first, rest) if escaped => format!("\\u{:04x}{rest}", u32::from(first.as_bytes()[0])),
            _ => key.to_owned(),
        });
        let member = (key, inner.clone()).prop_map(|(key, value)| format!("\"{key}\" : {value}"));
        prop_oneof![
            3 => prop::collection::vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(","))),
            1 => prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(" ,"))),
        ]
    })
}

fn texts<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            found.push(key);
            texts(value, found);
        }),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 }))]
    #[test]
    fn no_shape_carries_through_what_is_dropped_masked_or_scrubbed(
        attributes in any_json(), relationships in any_json(), more in any_json(), key in prop::sample::select(&KEYS[..])
    ) {
        thread_local!(static STRICT: Redaction = strict());
        let record = format!(
            r#"{{"id":"{ID}","{key}":{more},"attributes":{attributes},"relationships":{relationships},"attributes":{more}}}"#
        );
        STRICT.with(|redaction| {
            let all = |json: &str| {
                [
                    redaction.message(json),
                    redaction.note(json),
                    redaction.event(json, &[]),
                    redaction.conversation(json, &[]),
                    redaction.customer(json),
                ]
            };
            for (place, shown) in all(&record).into_iter().enumerate() {
                let Some(shown) = shown else { continue };
                let value: Value = serde_json::from_str(&shown).unwrap();
                let mut found = Vec::new();
                texts(&value, &mut found);
                prop_assert!(!found.iter().any(|text| text.contains("needle")), "{shown}\n{record}");
                // The strict policy keeps the revision as it is, whatever number that is.
                prop_assert!(place > 1 || !shown.contains(NUMBER), "{shown}\n{record}");
                let again = all(&shown).into_iter().nth(place).flatten();
                prop_assert_eq!(again, Some(shown));
            }
            Ok(())
        })?;
    }
}
