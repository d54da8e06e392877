//! A source whose schema changes: attributes that come, change their type or go, lists that are due, an optional stream.
//!
//! The source is the sandbox behind a relay that rewrites definitions and records on their way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use counterfoil::error::ErrorKind;
use counterfoil::extract::{ExtractSettings, RunReport};
use counterfoil::lake::run::AttributeRun;
use counterfoil::model::Stream;
use counterfoil::policy::{Policy, Reason};
use counterfoil::sandbox::SandboxSettings;
use counterfoil::schema::{BUILTIN, OPTIONAL, Schemas};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::world::{World, rows};

/// What the relay changes; a null takes something away.
#[derive(Debug, Default)]
struct Drift {
    /// Definitions of attributes of conversations.
    definitions: BTreeMap<&'static str, Value>,
    /// Attributes of every conversation, by JSON pointer from `attributes`.
    attributes: BTreeMap<&'static str, Value>,
    /// Definitions are denied.
    denied: bool,
    /// Tells that customers are asked for, and holds the answer back until it is told.
    gate: Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
}

impl Drift {
    fn apply(&self, path: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut body: Value = serde_json::from_slice(body).ok()?;
        if path == "/v1/metadata/conversation" {
            for (name, definition) in &self.definitions {
                body["data"]["attributes"]["properties"][name] = definition.clone();
            }
            body["data"]["attributes"]["properties"].as_object_mut()?.retain(|_, definition| !definition.is_null());
        } else {
            for record in body["data"].as_array_mut()?.iter_mut().filter(|record| record["type"] == "conversation") {
                for (path, value) in &self.attributes {
                    put(&mut record["attributes"], path, value);
                }
            }
        }
        serde_json::to_vec(&body).ok()
    }
}

fn put(record: &mut Value, path: &str, value: &Value) {
    let place = path.split('.').fold(record, |place, key| &mut place[key]);
    *place = value.clone();
}

/// The sandbox behind the relay.
struct Source {
    world: World,
    url: String,
    drift: Arc<Mutex<Drift>>,
}

#[derive(Clone)]
struct Relay {
    origin: String,
    http: reqwest::Client,
    drift: Arc<Mutex<Drift>>,
}

/// What a search for customers holds.
const CUSTOMERS: &[u8] = br#""queryContext":"customer""#;

async fn relay(
    State(relay): State<Relay>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    let is_definitions = uri.path().starts_with("/v1/metadata/");
    if is_definitions && relay.drift.lock().unwrap().denied {
        return (StatusCode::FORBIDDEN, br#"{"errors":[{"code":"forbidden","title":"missing role"}]}"#.to_vec());
    }
    if body.windows(CUSTOMERS.len()).any(|part| part == CUSTOMERS) {
        let gate = relay.drift.lock().unwrap().gate.take();
        if let Some((reached, go_on)) = gate {
            reached.send(()).unwrap();
            go_on.await.unwrap();
        }
    }
    let mut request = relay.http.request(method, format!("{}{uri}", relay.origin.trim_end_matches('/'))).body(body);
    for name in ["authorization", "content-type"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = answer.bytes().await.unwrap();
    let changed = relay.drift.lock().unwrap().apply(uri.path(), &body);
    (status, changed.unwrap_or_else(|| body.to_vec()))
}

impl Source {
    async fn with_tickets(tickets: u64) -> Self {
        let world = World::with_tickets(tickets).await;
        let drift = Arc::new(Mutex::new(Drift::default()));
        let origin = world.sandbox.base_url().to_owned();
        let state = Relay { origin, http: reqwest::Client::new(), drift: Arc::clone(&drift) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(relay).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { world, url, drift }
    }

    fn define(&self, name: &'static str, definition: Value) {
        self.drift.lock().unwrap().definitions.insert(name, definition);
    }

    fn set(&self, path: &'static str, value: Value) {
        self.drift.lock().unwrap().attributes.insert(path, value);
    }

    /// Extracts, and requires that the run is complete.
    async fn extract(&self) -> RunReport {
        let client = self.world.client_of(&self.url, self.world.sandbox.api_key());
        let settings = ExtractSettings { index_lag: Duration::ZERO, ..ExtractSettings::default() };
        let report = self.world.extract_with(&client, &settings).await.unwrap();
        assert!(report.complete, "{report:?}");
        report
    }

    /// Changes some tickets at the source and extracts them.
    async fn extract_changed(&self, numbers: &[u64]) -> RunReport {
        self.world.clock.advance(Duration::from_mins(20));
        self.world.sandbox.organisation().touch(numbers);
        self.extract().await
    }

    fn id(&self, number: u64) -> String {
        self.world.sandbox.organisation().conversation(number)["id"].as_str().unwrap().to_owned()
    }

    /// Returns rows without their nulls.
    async fn sql(&self, sql: &str) -> Vec<Value> {
        without_nulls(self.world.sql(sql).await)
    }

    async fn number(&self, sql: &str) -> i64 {
        self.world.sql(&format!("SELECT ({sql}) AS n")).await[0]["n"].as_i64().unwrap()
    }
}

fn without_nulls(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        row.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    }
    rows
}

fn attributes(report: &RunReport) -> Vec<AttributeRun> {
    report.run.streams.iter().flat_map(|run| run.attributes.clone()).collect()
}

fn added(attribute: &str, column: &str, now: &str) -> AttributeRun {
    AttributeRun {
        attribute: attribute.to_owned(),
        change: "added".to_owned(),
        now: now.to_owned(),
        column: Some(column.to_owned()),
        ..AttributeRun::default()
    }
}

fn quarantined(report: &RunReport, path: &str) -> Option<(&'static str, Reason)> {
    let found = report.quarantine.iter().find(|(stream, field)| *stream == Stream::Tickets && field.path == path);
    found.map(|(_, field)| (field.json_type, field.reason))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_attribute_becomes_a_column_that_old_files_read_as_null() {
    let source = Source::with_tickets(300).await;
    let first = source.extract().await;
    assert_eq!(attributes(&first), [], "of a first run nothing is a change");
    let before = source.world.lake.latest().await.unwrap();

    source.define("regionStr", json!({"type": "string", "displayName": "Region"}));
    source.set("custom.regionStr", json!("north"));
    source.define("remark", json!({"type": "string"}));
    source.set("custom.remark", json!("what someone typed"));
    let changed = [3, 77, 150];
    let second = source.extract_changed(&changed).await;
    assert_eq!(attributes(&second), [added("regionStr", "custom_region", "text")]);
    assert_eq!(quarantined(&second, "attributes.custom.remark"), Some(("text", Reason::Undeclared)));

    let found = source.sql("SELECT ticket_id FROM tickets WHERE custom_region = 'north' ORDER BY 1").await;
    let mut expected = changed.map(|number| json!({"ticket_id": source.id(number)}));
    expected.sort_by_key(|row| row["ticket_id"].to_string());
    assert_eq!(found, expected);
    assert_eq!(source.number("SELECT count(*) FROM tickets WHERE custom_region IS NULL").await, 297);
    let id = source.id(77);
    let versions =
        format!("SELECT custom_region FROM ticket_versions WHERE ticket_id = '{id}' ORDER BY updated_at, rev");
    assert_eq!(source.sql(&versions).await, [json!({}), json!({"custom_region": "north"})]);
    assert_eq!(source.number("SELECT count(*) FROM ticket_versions").await, 303);

    // The version before knows neither the column nor the change.
    let lake = source.world.reopened().await.unwrap();
    let before = lake.at_version(before.version).await.unwrap();
    assert!(before.tables[&Stream::Tickets].schema.field_with_name("custom_region").is_err());
    let counted = "SELECT count(*) AS n, count(custom_tier) AS tiers FROM tickets";
    let old = rows(&lake, before, source.world.shared_clock(), counted).await;
    assert_eq!(old[0]["n"], json!(300));
    assert_ne!(old[0]["tiers"], json!(0));

    assert_eq!(attributes(&source.extract_changed(&[5]).await), [], "a change is told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attribute_whose_type_changed_goes_on_in_a_column_of_its_own() {
    let source = Source::with_tickets(200).await;
    source.set("custom.tierStr", json!("vip"));
    source.extract().await;

    source.define("tierStr", json!({"type": "number"}));
    source.set("custom.tierStr", json!(3));
    let second = source.extract_changed(&[10, 20]).await;
    let retyped = AttributeRun {
        attribute: "tierStr".to_owned(),
        change: "retyped".to_owned(),
        now: "float".to_owned(),
        was: Some("text".to_owned()),
        column: Some("custom_tier_num".to_owned()),
        before: Some("custom_tier".to_owned()),
    };
    assert_eq!(attributes(&second), [retyped]);
    let id = source.id(10);
    let of_one = format!(
        "SELECT custom_tier, custom_tier_num FROM ticket_versions WHERE ticket_id = '{id}' ORDER BY updated_at, rev"
    );
    assert_eq!(source.sql(&of_one).await, [json!({"custom_tier": "vip"}), json!({"custom_tier_num": 3.0})]);
    assert_eq!(source.number("SELECT count(*) FROM tickets WHERE custom_tier = 'vip'").await, 198);

    // Values that contradict the definition are left out and counted; the run goes on.
    source.set("custom.tierStr", json!("gold"));
    let third = source.extract_changed(&[10]).await;
    assert_eq!(attributes(&third), []);
    assert_eq!(quarantined(&third, "attributes.custom.tierStr"), Some(("text", Reason::Mismatch)));

    source.define("tierStr", json!({"type": "string"}));
    let fourth = source.extract_changed(&[10]).await;
    assert_eq!(attributes(&fourth), [], "its first column is its column again");
    let expected =
        [json!({"custom_tier": "vip"}), json!({"custom_tier_num": 3.0}), json!({}), json!({"custom_tier": "gold"})];
    assert_eq!(source.sql(&of_one).await, expected);

    // A list is another type; its column is found again in the next run.
    source.define("tierStr", json!({"type": "string", "multi": true}));
    source.set("custom.tierStr", json!(["gold", "old"]));
    source.extract_changed(&[20]).await;
    assert_eq!(attributes(&source.extract_changed(&[30]).await), []);
    let lists = source.sql("SELECT ticket_id, custom_tier_list FROM tickets WHERE custom_tier_list IS NOT NULL").await;
    // Of the last run but two the overlap brought a ticket again, whose file did not have the column.
    assert_eq!(lists.len(), 3);
    for row in lists {
        assert_eq!(row["custom_tier_list"], json!(["gold", "old"]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn column_keeps_its_attribute_when_others_come_beside_it_and_when_its_definition_goes() {
    let source = Source::with_tickets(120).await;
    source.set("custom.refundAmountNum", json!(12.5));
    source.set("custom.tierStr", json!("vip"));
    source.extract().await;

    for (name, value) in [("custom.refundAmountStr", json!("much")), ("custom.TierStr", json!("other"))] {
        source.set(name, value);
    }
    source.define("refundAmountStr", json!({"type": "string"}));
    source.define("TierStr", json!({"type": "string"}));
    let second = source.extract_changed(&[1]).await;
    assert_eq!(
        attributes(&second),
        [added("TierStr", "custom_tier_str", "text"), added("refundAmountStr", "custom_refund_amount_str", "text")]
    );
    let of = |number: u64| {
        let id = source.id(number);
        format!(
            "SELECT custom_refund_amount AS num, custom_refund_amount_str AS text, custom_tier AS tier, custom_tier_str AS other \
             FROM tickets WHERE ticket_id = '{id}'"
        )
    };
    let expected = json!({"num": 12.5, "text": "much", "tier": "vip", "other": "other"});
    assert_eq!(source.sql(&of(1)).await[..], *std::slice::from_ref(&expected));

    // A definition that is marked as deleted, one that is gone, and none that may be read at all.
    source.define("refundAmountNum", json!({"type": "number", "deletedAt": "2026-11-01T00:00:00Z"}));
    source.define("TierStr", Value::Null);
    assert_eq!(attributes(&source.extract_changed(&[2]).await), []);
    assert_eq!(source.sql(&of(2)).await[..], *std::slice::from_ref(&expected));
    source.drift.lock().unwrap().denied = true;
    assert_eq!(attributes(&source.extract_changed(&[3]).await), []);
    assert_eq!(source.sql(&of(3)).await, [expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attribute_that_is_defined_while_a_run_walks_is_not_lost() {
    let source = Source::with_tickets(100).await;
    source.extract().await;
    source.world.clock.advance(Duration::from_hours(1));
    let (reached, is_reached) = oneshot::channel();
    let (go_on, is_let_on) = oneshot::channel();
    source.drift.lock().unwrap().gate = Some((reached, is_let_on));
    let ((), report) = futures::join!(
        async {
            is_reached.await.unwrap();
            source.define("regionStr", json!({"type": "string"}));
            source.set("custom.regionStr", json!("north"));
            source.world.sandbox.organisation().touch(&[7]);
            // Far enough before the end of the tickets' range that no later run looks back on it.
            source.world.clock.advance(Duration::from_mins(20));
            go_on.send(()).unwrap();
        },
        source.extract(),
    );
    assert_eq!(attributes(&report), [added("regionStr", "custom_region", "text")]);
    let found = source.sql("SELECT ticket_id FROM tickets WHERE custom_region = 'north'").await;
    assert_eq!(found, [json!({"ticket_id": source.id(7)})]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_with_unknown_values_and_other_forms_are_counted_and_stop_nothing() {
    let source = Source::with_tickets(60).await;
    for (path, value) in [
        ("status", json!("waiting_for_a_bot")),
        ("channels", json!({"email": true})),
        ("tags", Value::Null),
        ("messageCount", json!([1])),
        ("firstResponse", json!("none")),
        ("somethingNew", json!({"inside": {"deep": [1, 2]}})),
        ("custom.orderNum", json!({"value": 3})),
    ] {
        source.set(path, value);
    }
    let report = source.extract().await;
    let found = source.sql("SELECT status, channels, message_count, custom_order_num FROM tickets LIMIT 1").await;
    assert_eq!(found, [json!({"status": "waiting_for_a_bot"})], "what is not of its column's type is null");
    for (path, expected) in [
        ("channels", ("object", Reason::Mismatch)),
        ("messageCount", ("array", Reason::Mismatch)),
        ("firstResponse", ("text", Reason::Mismatch)),
        ("somethingNew", ("object", Reason::Undeclared)),
        ("custom.orderNum", ("object", Reason::Mismatch)),
    ] {
        assert_eq!(quarantined(&report, &format!("attributes.{path}")), Some(expected), "{path}");
    }
    assert_eq!(quarantined(&report, "attributes.tags"), None, "null is no value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_column_of_another_type_is_refused_before_any_request() {
    let mut world = World::with_tickets(60).await;
    world.extract().await.unwrap();
    let version = world.lake.latest().await.unwrap().version;
    let as_int = "path = \"attributes.priority\"\ntype = \"int\"";
    let files = BUILTIN.map(|(file, text)| {
        let is_tickets = file == "tickets.toml";
        let changed =
            text.replace(as_int, if is_tickets { "path = \"attributes.priority\"\ntype = \"text\"" } else { as_int });
        assert_eq!(changed != text, is_tickets);
        (file, changed)
    });
    let schemas = Schemas::from_files(files.iter().map(|(file, text)| (*file, text.as_str()))).unwrap();
    world.policy = Policy::compile(&schemas).unwrap();
    let asked: u64 = world.sandbox.requests().values().sum();
    let error = world.extract().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        error.to_string(),
        "a column has another type than in the lake (file: tickets.toml, column: priority, declared: text, lake: int)"
    );
    assert_eq!(world.sandbox.requests().values().sum::<u64>(), asked);
    assert_eq!(world.lake.latest().await.unwrap().version, version);
}

const SMALL: [&str; 7] = ["users", "teams", "tags", "queues", "brands", "slas", "schedules"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_lists_are_read_when_they_are_due() {
    let mut world = World::with_tickets(60).await;
    let read = |report: &RunReport| -> Vec<&str> {
        let is_read = |name: &&str| report.run.streams.iter().any(|run| run.stream == **name);
        SMALL
            .into_iter()
            .filter(|name| report.run.requests.contains_key(*name))
            .inspect(|name| assert!(is_read(name)))
            .collect()
    };
    let settings = ExtractSettings { index_lag: Duration::ZERO, ..ExtractSettings::default() };
    let first = world.extract().await.unwrap();
    assert_eq!((read(&first), first.run.not_due), (SMALL.to_vec(), Vec::new()));

    world.clock.advance(Duration::from_mins(50));
    let second = world.extract().await.unwrap();
    assert!(second.complete);
    assert_eq!((read(&second), &second.run.not_due[..]), (vec![], &SMALL.map(str::to_owned)[..]));
    assert_eq!(
        world.sql("SELECT count(*) AS n FROM tags").await[0]["n"],
        json!(world.sandbox.organisation().tags().len())
    );
    let requests: u64 = second.run.requests.values().sum();
    assert!(requests + 6 <= first.run.requests.values().sum(), "{:?}", second.run.requests);

    let full = ExtractSettings { full: true, ..settings.clone() };
    let third = world.extract_with(&world.client(), &full).await.unwrap();
    assert_eq!(read(&third), SMALL);
    world.clock.advance(Duration::from_mins(61));
    assert_eq!(read(&world.extract().await.unwrap()), SMALL, "an hour has passed");
    let seldom = ExtractSettings { small_every: Duration::from_hours(24), ..settings };
    world.clock.advance(Duration::from_hours(3));
    assert_eq!(read(&world.extract_with(&world.client(), &seldom).await.unwrap()), [""; 0]);

    // Another policy may keep what this one dropped, so nothing waits for the hour.
    let files = BUILTIN.map(|(file, text)| {
        (file, if file == "tags.toml" { text.replace("\"color\"", "\"colour\"") } else { text.to_owned() })
    });
    let schemas = Schemas::from_files(files.iter().map(|(file, text)| (*file, text.as_str()))).unwrap();
    world.policy = Policy::compile(&schemas).unwrap();
    assert_eq!(read(&world.extract().await.unwrap()), SMALL);
    assert_ne!(world.sql("SELECT count(colour) AS n FROM tags").await[0]["n"], json!(0));
}

/// The shipped schemas and the optional ones.
fn with_times() -> Policy {
    Policy::compile(&Schemas::from_files(BUILTIN.into_iter().chain(OPTIONAL)).unwrap()).unwrap()
}

/// What the lake should hold of one conversation time, from the sandbox's record.
fn expected_time(record: &Value) -> Value {
    let attributes = &record["attributes"];
    let id = |relationship: &str| record["relationships"][relationship]["data"]["id"].clone();
    let seconds = |name: &str| attributes.get(name).map_or(Value::Null, |value| json!(value.as_f64().unwrap()));
    let row = json!({
        "ticket_time_id": record["id"],
        "updated_at": attributes["createdAt"],
        "ticket_id": id("conversation"),
        "user_id": id("createdBy"),
        "handle_at": attributes["handleAt"],
        "handle_s": seconds("handleTime"),
        "message_s": seconds("messageTime"),
        "resolved": attributes.get("resolved").cloned().unwrap_or_default(),
        "team_ids": attributes["createdByTeams"],
    });
    without_nulls(vec![row]).remove(0)
}

const TIMES: &str = "SELECT ticket_time_id, updated_at, ticket_id, user_id, handle_at, handle_s, message_s, resolved, team_ids \
                     FROM ticket_times ORDER BY updated_at, ticket_time_id";

async fn assert_times_equal(world: &World, from: &str) {
    let organisation = world.sandbox.organisation();
    let records = (0..organisation.conversation_times()).map(|number| organisation.conversation_time(number));
    let mut expected: Vec<Value> = records
        .filter(|record| record["attributes"]["createdAt"].as_str().unwrap() >= from)
        .map(|record| expected_time(&record))
        .collect();
    expected.sort_by_key(|row| (row["updated_at"].to_string(), row["ticket_time_id"].to_string()));
    assert!(expected.len() > 100);
    let mut found = without_nulls(world.sql(TIMES).await);
    // An empty list may stand for no team or be one.
    for row in found.iter_mut().chain(&mut expected).filter(|row| row["team_ids"].as_array().is_none_or(Vec::is_empty))
    {
        row.as_object_mut().unwrap().remove("team_ids");
    }
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversation_times_are_extracted_once_someone_declares_them() {
    let mut world = World::with_tickets(2_000).await;
    let without = world.extract().await.unwrap();
    assert!(without.complete && without.run.streams.iter().all(|run| run.stream != "ticket_times"));
    assert!(!world.lake.latest().await.unwrap().tables.contains_key(&Stream::TicketTimes));

    world.policy = with_times();
    world.clock.advance(Duration::from_mins(10));
    let first = world.extract().await.unwrap();
    assert!(first.complete, "{first:?}");
    assert_times_equal(&world, "").await;

    let before = world.sandbox.organisation().conversation_times();
    world.clock.advance(Duration::from_mins(10));
    world.sandbox.organisation().touch(&[1, 2, 3, 500, 1_999]);
    let late = world.sandbox.organisation().conversation_times() - before;
    let second = world.extract().await.unwrap();
    assert!(second.complete && late > 0, "{second:?}");
    assert_times_equal(&world, "").await;
    let times = second.run.streams.iter().find(|run| run.stream == "ticket_times").unwrap();
    assert_eq!(
        (times.inserted, times.updated),
        (late, 0),
        "what is there is neither asked for again nor written again"
    );
    let joined =
        "SELECT count(DISTINCT t.ticket_id) AS n FROM tickets t JOIN ticket_times h ON h.ticket_id = t.ticket_id";
    assert_ne!(world.sql(joined).await[0]["n"], json!(0));

    // Without its schema the table stays, and what is extracted beside it does too.
    world.policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
    world.clock.advance(Duration::from_mins(10));
    assert!(world.extract().await.unwrap().complete);
    assert_times_equal(&world, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversation_times_behind_the_reach_of_search_are_not_said_to_be_there() {
    let settings = SandboxSettings {
        tickets: 2_000,
        customers: 600,
        history: Duration::from_hours(3 * 365 * 24),
        ..SandboxSettings::default()
    };
    let mut world = World::new(settings).await;
    world.policy = with_times();
    let report = world.extract().await.unwrap();
    assert!(report.complete, "{report:?}");
    let watermark = world.lake.latest().await.unwrap().watermarks[&Stream::TicketTimes].clone();
    let from = jiff::Timestamp::from_millisecond(watermark.complete_from_ms.unwrap()).unwrap();
    assert_eq!(from.to_string(), "2024-11-01T12:00:01Z", "two years of 365 days before the run");
    assert_times_equal(&world, &format!("{from:.3}")).await;
}
