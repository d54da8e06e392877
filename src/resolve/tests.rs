//! The resolver against a source in memory that delays, refuses and forgets as a test wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;
use crate::kustomer::Endpoint;

mod saving;

const NEEDLE: &str = "needle-7f3a";

/// A source whose tickets all exist, each of another customer, unless a test changes it.
#[derive(Default)]
struct Fake {
    /// Positions of tickets that do not exist.
    gone: BTreeSet<u32>,
    /// Customer of a ticket, when not one of its own.
    customers: BTreeMap<u32, u32>,
    /// Largest number of ids in one request for conversations, and the kind of refusal above it; `None` cuts in silence.
    cap: Option<(usize, Option<ErrorKind>)>,
    /// Whether one request may name several customers.
    several: bool,
    /// Customers that do not exist.
    gone_customers: BTreeSet<u32>,
    /// Tickets that say that they have no notes.
    without_notes: BTreeSet<u32>,
    /// Those of them that say so and have one.
    liars: BTreeSet<u32>,
    /// Whether a batch that names a ticket that does not exist is answered with 404 as a whole.
    strict: bool,
    /// Part of a path and the error it gets.
    errors: Vec<(String, ErrorKind)>,
    /// Part of a path that is not answered in time.
    late: Option<String>,
    /// Part of a path and its answer.
    answers: Vec<(String, String)>,
    /// Pages of messages per ticket.
    pages: u32,
    /// Seed of the order in which answers come.
    seed: u64,
    /// Whether answers wait until the test lets a whole round trip pass.
    in_rounds: bool,
    round: tokio::sync::Notify,
    asked: Mutex<Vec<String>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

fn oid(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn tickets(count: u32) -> Vec<ObjectId> {
    (0..count).map(|number| oid(1, number)).collect()
}

fn number(id: &str) -> u32 {
    u32::from_str_radix(&id[16..], 16).unwrap()
}

impl Fake {
    fn paths(&self, part: &str) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(part)).cloned().collect()
    }

    fn conversation(&self, number: u32) -> Value {
        let customer = self.customers.get(&number).copied().unwrap_or(number);
        json!({"type": "conversation", "id": oid(1, number).to_string(),
            "attributes": {"name": NEEDLE, "noteCount": i32::from(!self.without_notes.contains(&number)), "tags": [oid(3, 1).to_string(), oid(3, 9).to_string()],
                "custom": {"tierStr": "gold", "unknownStr": "x"}},
            "relationships": {"customer": {"data": {"type": "customer", "id": oid(2, customer).to_string()}}}})
    }

    fn answer(&self, path: &str) -> Option<String> {
        let (route, query) = path.split_once('?').unwrap_or((path, ""));
        let segments: Vec<&str> = route.trim_start_matches("/v1/").split('/').collect();
        match segments[..] {
            ["conversations", ids] => {
                let mut ids: Vec<u32> = ids.split(',').map(number).collect();
                if let Some((cap, None)) = self.cap {
                    ids.truncate(cap);
                }
                let single = ids.len() == 1;
                let found: Vec<Value> =
                    ids.iter().filter(|id| !self.gone.contains(id)).map(|id| self.conversation(*id)).collect();
                if (single && found.is_empty()) || (self.strict && found.len() < ids.len()) {
                    return None;
                }
                let data = if single { found[0].clone() } else { Value::Array(found) };
                Some(json!({ "data": data }).to_string())
            }
            ["conversations", id, "messages"] => {
                if self.gone.contains(&number(id)) {
                    return None;
                }
                let page: u32 = query.split('&').find_map(|pair| pair.strip_prefix("page=")).unwrap().parse().unwrap();
                let message = oid(4, number(id) * 100 + page).to_string();
                let file = oid(5, number(id) * 100 + page).to_string();
                let next = (page < self.pages).then(|| format!("{route}?page={}&pageSize=100", page + 1));
                let mut body = json!({
                    "data": [{"type": "message", "id": message, "attributes": {"preview": NEEDLE}}],
                    "links": {"next": next}});
                if query.contains("include=attachments") {
                    body["included"] = json!([{"type": "attachment", "id": file,
                        "attributes": {"name": "a.jpg", "contentType": "image/jpeg", "contentLength": 7, "redacted": false},
                        "relationships": {"message": {"data": {"type": "message", "id": message}}},
                        "links": {"related": "https://files.example/a.jpg?X-Amz-Signature=5161"}}]);
                }
                Some(body.to_string())
            }
            ["conversations", id, "events"] => Some(
                json!({"data": [{"type": "conversation_event", "id": oid(7, number(id)).to_string()}], "meta": {}}).to_string(),
            ),
            ["conversations", id, "notes"]
                if self.without_notes.contains(&number(id)) && !self.liars.contains(&number(id)) =>
            {
                Some(json!({"data": [], "links": {"next": null}}).to_string())
            }
            ["conversations", id, "notes"] => Some(
                json!({"data": [{"type": "note", "id": oid(6, number(id)).to_string(), "attributes": {"body": NEEDLE}}],
                    "links": {"next": null}})
                .to_string(),
            ),
            ["customers", ids] if ids.contains(',') => {
                let customer = |id| json!({"type": "customer", "id": id, "attributes": {"name": NEEDLE}});
                let gone = |id: &&str| !self.gone_customers.contains(&number(id));
                let found: Vec<Value> = ids.split(',').filter(gone).map(customer).collect();
                self.several.then(|| json!({ "data": found }).to_string())
            }
            ["customers", id] if self.gone_customers.contains(&number(id)) => None,
            ["customers", id] => {
                Some(json!({"data": {"type": "customer", "id": id, "attributes": {"name": NEEDLE}}}).to_string())
            }
            ["tags"] => Some(
                json!({"data": [{"type": "tag", "id": oid(3, 1).to_string(), "attributes": {"name": "vip"}}],
                    "links": {"next": null}})
                .to_string(),
            ),
            ["metadata", "conversation"] => Some(
                json!({"data": {"type": "metadata", "id": "conversation", "attributes": {"properties": {
                    "tierStr": {"type": "string"}, "otherNum": {"type": "number"}}}}})
                .to_string(),
            ),
            _ => panic!("unexpected request: {path}"),
        }
    }
}

impl Source for Fake {
    async fn fetch(&self, _endpoint: Endpoint, path: &str) -> Result<Option<Bytes>> {
        self.asked.lock().unwrap().push(path.to_owned());
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        let mixed =
            path.bytes().fold(self.seed | 1, |mixed, byte| (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        for _ in 0..if self.in_rounds { 0 } else { (mixed >> 17) % 23 } {
            tokio::task::yield_now().await;
        }
        if self.in_rounds {
            self.round.notified().await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        if self.late.as_ref().is_some_and(|part| path.contains(part.as_str())) {
            return Err(Error::unavailable("source does not answer").with_context("cause", "timed out"));
        }
        if let Some((_, kind)) = self.errors.iter().find(|(part, _)| path.contains(part.as_str())) {
            return Err(Error::new(*kind, "source says no"));
        }
        if let Some((_, answer)) = self.answers.iter().find(|(part, _)| path.contains(part.as_str())) {
            return Ok(Some(Bytes::from(answer.clone())));
        }
        if let Some((cap, Some(kind))) = self.cap
            && path.split(',').count() > cap
        {
            return Err(Error::new(kind, "source refused the request"));
        }
        Ok(self.answer(path).map(Bytes::from))
    }

    fn sent(&self) -> u64 {
        self.asked.lock().unwrap().len() as u64
    }
}

async fn resolve(source: &Fake, ids: &[ObjectId], settings: &ResolveSettings) -> (Result<Outcome>, String) {
    let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let mut out = Vec::new();
    let outcome = run(source, ids, settings, Hooks::default(), &clock, &mut out).await;
    (outcome, String::from_utf8(out).unwrap())
}

async fn lines(source: &Fake, ids: &[ObjectId], settings: &ResolveSettings) -> (Outcome, Vec<Value>) {
    let (outcome, out) = resolve(source, ids, settings).await;
    (outcome.unwrap(), out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn errors(line: &Value) -> Vec<(&str, &str)> {
    let errors = line["errors"].as_array().unwrap();
    errors.iter().map(|error| (error["part"].as_str().unwrap(), error["kind"].as_str().unwrap())).collect()
}

fn only(parts: &str) -> ResolveSettings {
    ResolveSettings { parts: parts.parse().unwrap(), ..ResolveSettings::default() }
}

#[tokio::test]
async fn ticket_is_delivered_whole_without_its_signed_links() {
    let source = Fake { pages: 1, ..Fake::default() };
    let (outcome, out) = resolve(&source, &tickets(1), &ResolveSettings::default()).await;
    let outcome = outcome.unwrap();
    assert!(outcome.is_complete() && outcome.error().is_none());
    assert_eq!((outcome.tickets, outcome.written, outcome.complete, outcome.requests), (1, 1, 1, 6));
    assert!(!out.contains("X-Amz") && !out.contains("files.example"), "{out}");
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(line["ticket_id"], tickets(1)[0].to_string());
    assert_eq!(line["conversation"], source.conversation(0));
    assert_eq!(line["customer"]["id"], oid(2, 0).to_string());
    assert_eq!(line["messages"][0]["id"], oid(4, 1).to_string());
    assert_eq!(line["notes"][0]["id"], oid(6, 0).to_string());
    assert_eq!(
        line["attachments"],
        json!([{"id": oid(5, 1).to_string(), "message_id": oid(4, 1).to_string(), "name": "a.jpg",
            "content_type": "image/jpeg", "content_length": 7, "redacted": false}])
    );
    assert_eq!(
        line["tags"],
        json!([{"id": oid(3, 1).to_string(), "name": "vip"}, {"id": oid(3, 9).to_string(), "name": null}])
    );
    assert_eq!(line["attributes"], json!({"tierStr": {"type": "string"}}));
    assert_eq!(line["errors"], json!([]));
}

#[tokio::test]
async fn requests_for_100_tickets_are_those_of_the_estimate() {
    let ids = tickets(100);
    for parts in [
        "conversation,customer,messages,notes,attachments,tags,metadata",
        "conversation",
        "customer",
        "events,notes",
        "messages",
        "attachments,notes",
        "tags",
        "metadata",
    ] {
        let source = Fake { pages: 1, seed: 5, ..Fake::default() };
        let settings = only(parts);
        let (outcome, lines) = lines(&source, &ids, &settings).await;
        let price = estimate(&ids, settings.parts);
        assert_eq!(outcome.requests, price.total(), "{parts}");
        let source = Fake { pages: 1, seed: 5, several: true, ..Fake::default() };
        let (outcome, _) = self::lines(&source, &ids, &settings).await;
        assert_eq!((outcome.requests, outcome.is_complete()), (price.least(), true), "{parts}");
        assert_eq!(lines.len(), 100);
        assert!(outcome.is_complete(), "{parts}");
        let keys: BTreeSet<_> = lines[7].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.len(), settings.parts.iter().count() + 4, "{parts}: {keys:?}");
        assert_eq!(source.paths("include=attachments").is_empty(), !parts.contains("attachments"), "{parts}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_and_completeness_survive_any_latency(
        seed: u64,
        count in 1..140_u32,
        concurrency in 1..40_usize,
        gone in proptest::collection::btree_set(0..140_u32, 0..12),
        cap in prop_oneof![
            Just(None),
            (1..60_usize).prop_map(|cap| Some((cap, Some(ErrorKind::Internal)))),
            (10..60_usize).prop_map(|cap| Some((cap, None))),
        ],
        strict: bool,
        several: bool,
        without_notes in proptest::collection::btree_set(0..140_u32, 0..60),
        liars in proptest::collection::btree_set(0..140_u32, 0..4),
    ) {
        // A source that cuts in silence cannot be strict as well: what it cuts is not there for it.
        let strict = strict && cap.is_none_or(|(_, refusal)| refusal.is_some());
        let gone: BTreeSet<u32> = gone.into_iter().filter(|number| *number < count).collect();
        let source = Fake {
            seed, gone: gone.clone(), cap, strict, several, without_notes: without_notes.clone(), liars, pages: 1,
            ..Fake::default()
        };
        let mut ids = tickets(count);
        ids.reverse();
        let settings = ResolveSettings { concurrency, ..ResolveSettings::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (outcome, lines) = runtime.block_on(lines(&source, &ids, &settings));
        prop_assert_eq!(lines.len(), ids.len());
        for (line, id) in lines.iter().zip(&ids) {
            let id = id.to_string();
            prop_assert_eq!(line["ticket_id"].as_str(), Some(id.as_str()));
            if gone.contains(&number(&id)) {
                prop_assert_eq!(errors(line), [("conversation", "gone")]);
                prop_assert!(line["messages"].is_null());
            } else {
                prop_assert_eq!(errors(line), []);
                prop_assert_eq!(line["conversation"]["id"].as_str(), Some(id.as_str()));
                prop_assert_eq!(line["messages"].as_array().map(Vec::len), Some(1));
                prop_assert_eq!(&line["customer"]["id"], &json!(oid(2, number(&id)).to_string()));
                if !without_notes.contains(&number(&id)) {
                    prop_assert_eq!(line["notes"].as_array().map(Vec::len), Some(1));
                }
            }
        }
        prop_assert_eq!(outcome.missing, gone.len() as u64);
        prop_assert_eq!(outcome.is_complete(), gone.is_empty() && outcome.miscounted == 0);
        prop_assert!(source.most_under_way.load(Ordering::SeqCst) <= 3 * concurrency + 100);
    }
}

#[tokio::test]
async fn refused_batch_is_halved_and_its_size_remembered() {
    for kind in [ErrorKind::Internal, ErrorKind::Config, ErrorKind::Data] {
        let source = Fake { cap: Some((13, Some(kind))), ..Fake::default() };
        let (outcome, _) = lines(&source, &tickets(200), &only("conversation")).await;
        assert!(outcome.is_complete());
        let sizes: Vec<usize> = source.paths("conversations").iter().map(|path| path.split(',').count()).collect();
        assert!(sizes.iter().rev().take(8).all(|size| *size <= 13), "{sizes:?}");
        assert!(outcome.requests <= 15 + 9, "{} requests", outcome.requests);
    }
}

#[tokio::test]
async fn silent_cap_on_a_batch_does_not_make_tickets_gone() {
    let source = Fake { cap: Some((20, None)), ..Fake::default() };
    let (outcome, received) = lines(&source, &tickets(100), &only("conversation")).await;
    assert!(outcome.is_complete() && received.len() == 100);
    let (outcome, _) = lines(&source, &tickets(300), &only("conversation")).await;
    assert!(outcome.is_complete());
    let sizes: Vec<usize> = source.paths("conversations").iter().map(|path| path.split(',').count()).collect();
    assert!(sizes.iter().rev().take(5).all(|size| *size <= 30), "{sizes:?}");

    // What was brought before is a measure: then ids that are absent are gone, at no further request.
    let source = Fake { gone: (110..200).collect(), ..Fake::default() };
    let (outcome, _) = lines(&source, &tickets(200), &only("conversation")).await;
    assert_eq!((outcome.missing, outcome.requests), (90, 2));
}

#[tokio::test]
async fn ticket_that_does_not_exist_is_named_and_costs_no_more() {
    for strict in [false, true] {
        let source = Fake { gone: [0, 3].into(), strict, pages: 1, ..Fake::default() };
        let ids = tickets(5);
        let (outcome, lines) = lines(&source, &ids, &ResolveSettings::default()).await;
        assert_eq!(lines.len(), 5);
        assert_eq!(errors(&lines[0]), [("conversation", "gone")]);
        assert_eq!(errors(&lines[1]), []);
        assert_eq!((outcome.complete, outcome.missing, outcome.first_missing), (3, 2, Some(ids[0])));
        let error = outcome.error().unwrap();
        assert_eq!(error.kind(), ErrorKind::Incomplete);
        assert!(error.to_string().contains("missing: 2") && error.to_string().contains(&ids[0].to_string()), "{error}");
        assert!(source.paths(&format!("{}/", ids[3])).is_empty(), "asked for parts of a ticket that is gone");
    }
    let source = Fake { gone: [0].into(), ..Fake::default() };
    let (outcome, lines) = lines(&source, &tickets(1), &only("messages,attachments")).await;
    assert_eq!(errors(&lines[0]), [("messages", "gone"), ("attachments", "gone")]);
    assert_eq!(outcome.missing, 1);
}

#[tokio::test]
async fn failed_part_is_named_and_the_others_are_delivered() {
    let first = tickets(2)[0];
    for (path, kind, expected) in [
        ("/messages", ErrorKind::Denied, vec![("messages", "forbidden"), ("attachments", "forbidden")]),
        ("/notes", ErrorKind::Unavailable, vec![("notes", "unavailable")]),
        ("/v1/customers/", ErrorKind::Internal, vec![("customer", "refused")]),
        ("/v1/tags", ErrorKind::Denied, vec![("tags", "forbidden")]),
        ("/v1/metadata", ErrorKind::Unavailable, vec![("metadata", "unavailable")]),
    ] {
        let source = Fake { errors: vec![(path.to_owned(), kind)], pages: 1, ..Fake::default() };
        let (outcome, lines) = lines(&source, &tickets(2), &ResolveSettings::default()).await;
        for line in &lines {
            assert_eq!(errors(line), expected, "{path}");
            assert!(line["conversation"].is_object(), "{path}");
            assert_eq!(line["notes"].is_null(), path == "/notes");
            assert_eq!(line["messages"].is_null(), path == "/messages");
        }
        assert_eq!((outcome.complete, outcome.missing, outcome.first_incomplete), (0, 0, Some(first)));
        assert_eq!(outcome.error().unwrap().kind(), ErrorKind::Incomplete);
    }
    let torn = Fake { answers: vec![("/notes".to_owned(), format!("[\"{NEEDLE}"))], pages: 1, ..Fake::default() };
    let (outcome, lines) = lines(&torn, &tickets(1), &ResolveSettings::default()).await;
    assert_eq!(errors(&lines[0]), [("notes", "unreadable")]);
    assert!(!lines[0]["errors"].to_string().contains(NEEDLE));
    assert!(!format!("{:?}", outcome.error()).contains(NEEDLE));
}

#[tokio::test]
async fn source_that_fails_for_everything_ends_the_run_without_a_line() {
    for parts in ["conversation,customer,messages,notes,attachments,tags,metadata", "messages,notes", "tags"] {
        for kind in [ErrorKind::Denied, ErrorKind::Unavailable, ErrorKind::Config] {
            let source = Fake { errors: vec![(String::new(), kind)], ..Fake::default() };
            let (outcome, out) = resolve(&source, &tickets(200), &only(parts)).await;
            assert_eq!(outcome.unwrap_err().kind(), kind, "{parts}");
            assert_eq!(out, "", "{parts}");
            assert!(source.sent() <= 35, "{parts}: {} requests for nothing", source.sent());
        }
    }
    let source = Fake { errors: vec![("/v1/conversations/0".to_owned(), ErrorKind::Denied)], ..Fake::default() };
    let (outcome, out) = resolve(&source, &tickets(200), &ResolveSettings::default()).await;
    assert_eq!((outcome.unwrap_err().kind(), out.as_str()), (ErrorKind::Denied, ""));
    assert_eq!(source.sent(), 3);
}

#[tokio::test]
async fn source_that_stops_answering_ends_the_run_after_some_lines() {
    let errors = tickets(400)[60..].iter().map(|id| (id.to_string(), ErrorKind::Unavailable)).collect();
    let source = Fake { errors, pages: 1, ..Fake::default() };
    let (outcome, out) = resolve(&source, &tickets(400), &only("messages,notes")).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!((60..120).contains(&out.lines().count()), "{}", out.lines().count());
    assert!(source.sent() < 260, "{}", source.sent());
}

#[tokio::test]
async fn further_pages_are_followed_with_what_was_included() {
    let source = Fake { pages: 3, ..Fake::default() };
    let (outcome, lines) = lines(&source, &tickets(1), &only("messages,attachments")).await;
    assert!(outcome.is_complete());
    assert_eq!(lines[0]["messages"].as_array().unwrap().len(), 3);
    assert_eq!(lines[0]["attachments"].as_array().unwrap().len(), 3);
    assert_eq!(source.paths("include=attachments").len(), 3);
}

#[tokio::test]
async fn link_that_leads_elsewhere_is_not_followed() {
    for next in [
        "https://evil.example/v1/conversations/x/messages?page=2",
        "//evil.example/v1/x?page=2",
        "/v1/users?page=2",
        "/v1/../admin?page=2",
    ] {
        let answer = json!({"data": [{"id": "m"}], "links": {"next": next}}).to_string();
        let source = Fake { answers: vec![("/messages".to_owned(), answer)], ..Fake::default() };
        let (_, lines) = lines(&source, &tickets(1), &only("messages")).await;
        assert_eq!(errors(&lines[0]), [("messages", "unreadable")], "{next}");
        assert_eq!(lines[0]["messages"].as_array().unwrap().len(), 1, "what came before is delivered");
        assert_eq!(source.sent(), 1, "{next}");
        assert!(!lines[0]["errors"].to_string().contains("evil"));
    }
}

#[tokio::test]
async fn pages_without_an_end_are_bounded() {
    let id = tickets(1)[0];
    let circle = json!({"data": [{"id": "m"}], "links": {"next": format!("/v1/conversations/{id}/messages?page=2")}});
    let source = Fake { answers: vec![("/messages".to_owned(), circle.to_string())], ..Fake::default() };
    let (_, circled) = lines(&source, &[id], &only("messages")).await;
    assert_eq!((errors(&circled[0]), source.sent()), (vec![("messages", "unreadable")], 2));
    let source = Fake { pages: u32::MAX, ..Fake::default() };
    let (_, endless) = lines(&source, &[id], &only("messages")).await;
    assert_eq!((errors(&endless[0]), source.sent()), (vec![("messages", "unreadable")], 100));
}

#[tokio::test]
async fn permitted_requests_are_not_passed() {
    for max_requests in [0, 1, 5, 6, 20, 49, 1_000] {
        let source = Fake { pages: 1, seed: 11, ..Fake::default() };
        let settings = ResolveSettings { max_requests: Some(max_requests), ..ResolveSettings::default() };
        let (outcome, lines) = lines(&source, &tickets(40), &settings).await;
        assert!(source.sent() <= max_requests, "{} of {max_requests}", source.sent());
        assert!(lines.iter().all(|line| errors(line).is_empty()), "{max_requests}");
        // What is under way when the number is reached is for nothing: that is a few tickets.
        let least = (max_requests as usize).saturating_sub(4) / 3;
        assert!(
            lines.len() + 1 + max_requests as usize / 16 >= least.min(40),
            "{} lines of {max_requests}",
            lines.len()
        );
        assert_eq!(outcome.limited, max_requests < 123);
        assert_eq!(outcome.is_complete(), !outcome.limited);
        if outcome.limited {
            let error = outcome.error().unwrap();
            assert!(error.to_string().contains("permitted number of requests"), "{error}");
            assert_eq!(error.kind(), ErrorKind::Incomplete);
        }
    }
}

#[tokio::test]
async fn shared_customer_is_asked_for_once() {
    let source = Fake { customers: [(0, 7), (1, 7), (2, 7), (3, 8)].into(), pages: 1, ..Fake::default() };
    let (outcome, lines) = lines(&source, &tickets(4), &ResolveSettings::default()).await;
    assert!(outcome.is_complete());
    assert!(lines[..3].iter().all(|line| line["customer"]["id"] == oid(2, 7).to_string()));
    assert_eq!(source.paths("/v1/customers/").len(), 2);
    assert_eq!(source.paths("/v1/tags").len(), 1);
    assert_eq!(source.paths("/v1/metadata").len(), 1);
}

#[tokio::test]
async fn one_ticket_takes_two_round_trips_and_a_hundred_take_few() {
    let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    // Some customers cost a third one: whether several can be asked for at once has to be found out.
    for (count, most) in [(1, 2), (2, 2), (16, 3), (100, 12)] {
        let source = Fake { pages: 1, in_rounds: true, ..Fake::default() };
        let (ids, settings, mut out) = (tickets(count), ResolveSettings::default(), Vec::new());
        let mut run = std::pin::pin!(run(&source, &ids, &settings, Hooks::default(), &clock, &mut out));
        let mut rounds = 0;
        let outcome = loop {
            if let std::task::Poll::Ready(outcome) = futures::poll!(run.as_mut()) {
                break outcome.unwrap();
            }
            source.round.notify_waiters();
            rounds += 1;
            assert!(rounds <= most, "{count} tickets take more than {most} round trips");
        };
        assert!(outcome.is_complete());
    }
}

/// Takes one line, then the pipe is closed.
struct Head(usize);

impl io::Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0 = self.0.saturating_sub(1);
        Ok(())
    }
}

#[tokio::test]
async fn reader_that_leaves_stops_the_spending_without_an_error() {
    let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let source = Fake { pages: 1, ..Fake::default() };
    let outcome =
        run(&source, &tickets(500), &ResolveSettings::default(), Hooks::default(), &clock, &mut Head(1)).await.unwrap();
    assert!(outcome.reader_left && outcome.is_complete() && outcome.error().is_none());
    assert_eq!(outcome.written, 1);
    assert!(source.sent() < 80, "{}", source.sent());
}

#[tokio::test]
async fn empty_list_costs_nothing() {
    let source = Fake::default();
    let (outcome, lines) = lines(&source, &[], &ResolveSettings::default()).await;
    assert!(lines.is_empty() && outcome.is_complete() && source.sent() == 0);
}

#[test]
fn run_can_be_moved_to_another_thread() {
    fn movable(_: impl Send) {}
    let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let (source, ids, settings) = (Fake::default(), tickets(1), ResolveSettings::default());
    let mut out = Vec::new();
    movable(run(&source, &ids, &settings, Hooks::default(), &clock, &mut out));
}
