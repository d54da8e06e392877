//! Extract, lake and query against the sandbox's own data: every row, before and after changes.

use std::collections::BTreeMap;
use std::time::Duration;

use counterfoil::extract::ExtractSettings;
use counterfoil::sandbox::SandboxSettings;
use serde_json::{Value, json};

use crate::world::World;

/// What the lake should hold of one ticket, from the sandbox's record.
fn expected_ticket(record: &Value) -> Value {
    let attributes = &record["attributes"];
    let count = |name: &str| attributes.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "ticket_id": record["id"],
        "updated_at": attributes["updatedAt"],
        "created_at": attributes["createdAt"],
        "status": attributes["status"],
        "customer_id": record["relationships"]["customer"]["data"]["id"],
        "message_count": count("messageCount"),
        "note_count": count("noteCount"),
        "reopen_count": count("reopenCount"),
        "first_response_ms": attributes["firstResponse"].get("time").cloned().unwrap_or(Value::Null),
        "rev": attributes["rev"],
        "channels": attributes["channels"],
        "custom_tier": attributes.get("custom").and_then(|custom| custom.get("tierStr")).cloned().unwrap_or(Value::Null),
    })
}

const TICKETS: &str = "SELECT ticket_id, updated_at, created_at, status, customer_id, message_count, note_count, reopen_count, \
                       first_response_ms, rev, channels, custom_tier FROM tickets ORDER BY ticket_id";

fn is_deleted(record: &Value) -> bool {
    record["attributes"]["deleted"] == json!(true)
}

fn without_nulls(row: &Value) -> Value {
    let row = row.as_object().unwrap();
    Value::Object(row.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn by_id(rows: impl IntoIterator<Item = Value>, key: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for row in rows {
        let id = row[key].as_str().unwrap().to_owned();
        assert!(found.insert(id.clone(), without_nulls(&row)).is_none(), "{id} stands twice");
    }
    found
}

pub(crate) async fn assert_equals_the_source(world: &World) {
    let organisation = world.sandbox.organisation();
    let records = (0..organisation.tickets()).map(|number| organisation.conversation(number));
    let expected =
        by_id(records.filter(|record| !is_deleted(record)).map(|record| expected_ticket(&record)), "ticket_id");
    let found = by_id(world.sql(TICKETS).await, "ticket_id");
    assert_eq!(found.len(), expected.len());
    for (id, row) in &expected {
        assert_eq!(found.get(id), Some(row), "ticket {id}");
    }

    let customers = (0..organisation.customers()).map(|number| organisation.customer(number));
    let expected = by_id(
        customers.map(|record| {
            let counts = &record["attributes"]["conversationCounts"];
            json!({
                "customer_id": record["id"],
                "updated_at": record["attributes"]["updatedAt"],
                "all": counts["all"], "open": counts["open"], "snoozed": counts["snoozed"], "done": counts["done"],
            })
        }),
        "customer_id",
    );
    let found = by_id(
        world
            .sql(
                "SELECT customer_id, updated_at, conversation_count_all AS \"all\", conversation_count_open AS \"open\", \
                 conversation_count_snoozed AS snoozed, conversation_count_done AS done FROM customers",
            )
            .await,
        "customer_id",
    );
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lake_equals_the_source_before_and_after_changes_and_deletions() {
    let world = World::with_tickets(4_000).await;
    let first = world.extract().await.unwrap();
    assert!(first.complete, "{first:?}");
    assert_equals_the_source(&world).await;
    for (table, records) in [
        ("users", world.sandbox.organisation().users()),
        ("teams", world.sandbox.organisation().teams()),
        ("tags", world.sandbox.organisation().tags()),
        ("queues", world.sandbox.organisation().queues()),
        ("brands", world.sandbox.organisation().brands()),
        ("slas", world.sandbox.organisation().slas()),
        ("schedules", world.sandbox.organisation().schedules()),
    ] {
        let key = format!("{}_id", table.trim_end_matches('s'));
        let found = by_id(world.sql(&format!("SELECT {key} FROM {table}")).await, &key);
        let expected = by_id(records.iter().map(|record| json!({ &key: record["id"] })), &key);
        assert_eq!(found, expected, "{table}");
    }

    world.clock.advance(Duration::from_mins(10));
    let changed: Vec<u64> = (0..40).map(|n| n * 97).collect();
    let gone: Vec<u64> = (0..7).map(|n| 5 + n * 331).collect();
    world.sandbox.organisation().touch(&changed);
    world.sandbox.organisation().delete(&gone);
    let second = world.extract().await.unwrap();
    assert!(second.complete, "{second:?}");
    assert_equals_the_source(&world).await;

    let versions = world.sql("SELECT count(*) AS n FROM ticket_versions").await;
    assert_eq!(versions[0]["n"], json!(4_000 + changed.len() + gone.len()));
    let tombstones = world.sql("SELECT ticket_id FROM ticket_versions WHERE deleted ORDER BY ticket_id").await;
    assert_eq!(tombstones.len(), gone.len());

    // The lake as it was before the changes.
    let lake = world.reopened().await.unwrap();
    let latest = lake.latest().await.unwrap();
    assert_eq!(latest.runs.len(), 2);
    let earlier = lake.at_time(latest.runs[1].started_ms - 1).await.unwrap();
    let old = crate::world::rows(&lake, earlier, world.shared_clock(), "SELECT count(*) AS n FROM tickets").await;
    assert_eq!(old[0]["n"], json!(4_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_few_and_in_proportion_to_what_changed() {
    let world = World::with_tickets(20_000).await;
    let client = world.client();
    let settings = ExtractSettings { index_lag: Duration::ZERO, ..ExtractSettings::default() };
    world.extract_with(&client, &settings).await.unwrap();
    let first: u64 = world.sandbox.requests().values().sum();
    assert!(first < 80, "20,000 tickets with counts took {first} requests: {:?}", world.sandbox.requests());
    assert_eq!(client.ledger().total(), first, "the ledger counts what the server counts");

    world.clock.advance(Duration::from_hours(1));
    world.sandbox.organisation().touch(&(0..200).collect::<Vec<_>>());
    let report = world.extract_with(&client, &settings).await.unwrap();
    let second = world.sandbox.requests().values().sum::<u64>() - first;
    assert!(second <= 14, "200 changed tickets took {second} requests");
    let tickets = report.run.streams.iter().find(|stream| stream.stream == "tickets").unwrap();
    assert_eq!((tickets.inserted, tickets.updated), (0, 200));
    assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], json!(20_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_source_lose_nothing() {
    let faults = "500:0.05,503:0.03,429:0.03,truncate:0.05,reset:0.03,empty:0.02,timed_out:0.05";
    let settings = SandboxSettings {
        tickets: 3_000,
        customers: 1_000,
        faults: faults.parse().unwrap(),
        ..SandboxSettings::default()
    };
    let world = World::new(settings).await;
    let report = world.extract().await.unwrap();
    assert!(report.complete, "{report:?}");
    assert_equals_the_source(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_run_leaves_a_lake_that_opens_and_the_next_run_finishes_it() {
    let world = World::with_tickets(6_000).await;
    for stop_after in [1_u64, 9, 14, 18] {
        let before: u64 = world.sandbox.requests().values().sum();
        let settings = ExtractSettings { index_lag: Duration::ZERO, commit_rows: 1_000, ..ExtractSettings::default() };
        let client = world.client();
        tokio::select! {
            // What Ctrl-C does: the run is dropped wherever it is.
            outcome = world.extract_with(&client, &settings) => {
                outcome.unwrap();
            }
            () = async {
                while world.sandbox.requests().values().sum::<u64>() < before + stop_after {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } => {}
        }
        let lake = world.reopened().await.unwrap();
        lake.latest().await.unwrap();
        // A dropped run keeps its lease until it expires.
        world.clock.advance(Duration::from_mins(10));
    }
    let report = world.extract().await.unwrap();
    assert!(report.complete, "{report:?}");
    assert_equals_the_source(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_behind_the_search_horizon_come_from_the_archive() {
    let settings = SandboxSettings {
        tickets: 2_000,
        customers: 600,
        history: Duration::from_hours(3 * 365 * 24),
        ..SandboxSettings::default()
    };
    let world = World::new(settings).await;
    let report = world.extract().await.unwrap();
    assert!(report.complete, "{report:?}");
    assert_equals_the_source(&world).await;
}
