//! Resolve against the sandbox's own data.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use counterfoil::clock::SystemClock;
use counterfoil::error::{ErrorKind, Result};
use counterfoil::kustomer::{Client, ClientSettings, Credential};
use counterfoil::model::ObjectId;
use counterfoil::resolve::{self, Hooks, Known, Outcome, Parts, ResolveSettings};
use counterfoil::sandbox::{DeletedById, Fault, Organisation, Sandbox, SandboxSettings, Thread};
use counterfoil::secret::SecretString;
use serde_json::{Value, json};

use crate::world::World;

/// Two messages, a note and a file, as the price is stated for.
const USUAL: Thread = Thread { messages: 2, notes: 1, attachments: 1 };

fn generous(tickets: u64) -> SandboxSettings {
    let limits = SandboxSettings { org_rpm: 1_000_000, search_rpm: 1_000_000, ..SandboxSettings::default() };
    SandboxSettings { tickets, customers: tickets, thread: Some(USUAL), ..limits }
}

fn id_of(organisation: &Organisation, number: u64) -> ObjectId {
    organisation.conversation(number)["id"].as_str().unwrap().parse().unwrap()
}

/// Ids of tickets no two of which have one customer.
fn of_different_customers(organisation: &Organisation, count: usize) -> Vec<ObjectId> {
    let mut seen = BTreeSet::new();
    let apart =
        (0..organisation.tickets()).filter(|number| seen.insert(organisation.ticket_truth(*number).customer_id));
    let ids: Vec<ObjectId> = apart.take(count).map(|number| id_of(organisation, number)).collect();
    assert_eq!(ids.len(), count);
    ids
}

/// A client that gives an answer a second, by the machine's own clock.
fn quick(sandbox: &Sandbox) -> ClientSettings {
    ClientSettings {
        base_url: sandbox.base_url().parse().unwrap(),
        credential: Credential::ApiKey(SecretString::new(sandbox.api_key().to_owned())),
        org_rpm: 100_000,
        search_rpm: 100,
        share: 1.0,
        reserve: 0,
        timeout: Duration::from_secs(1),
        attempts: 4,
    }
}

fn all_parts() -> ResolveSettings {
    ResolveSettings { parts: Parts::ALL, ..ResolveSettings::default() }
}

/// Resolves, and returns how it ended with the lines as far as they came, without their times.
async fn lines_of(world: &World, client: &Client, ids: &[ObjectId]) -> (Result<Outcome>, Vec<Value>) {
    with_hooks(world, client, ids, Hooks::default()).await
}

async fn with_hooks(
    world: &World,
    client: &Client,
    ids: &[ObjectId],
    hooks: Hooks<'_>,
) -> (Result<Outcome>, Vec<Value>) {
    let mut out = Vec::new();
    let outcome = resolve::run(client, ids, &all_parts(), hooks, &world.shared_clock(), &mut out).await;
    let text = String::from_utf8(out).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "lines are written whole");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("resolved_at").unwrap();
    }
    (outcome, lines)
}

/// Asserts that lines come in order and that each part of each is as expected, or is named as missing.
#[track_caller]
fn assert_whole_or_told(expected: &[Value], lines: &[Value], about: &str) {
    assert!(lines.len() <= expected.len(), "{about}");
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(line["ticket_id"], expected["ticket_id"], "{about}: the order is that of the ids");
        let missing: BTreeSet<&str> =
            line["errors"].as_array().unwrap().iter().map(|error| error["part"].as_str().unwrap()).collect();
        for (key, value) in expected.as_object().unwrap().iter().filter(|(key, _)| *key != "errors") {
            let part = if key == "attributes" { "metadata" } else { key.as_str() };
            let is_told = missing.contains(part) || missing.contains("conversation");
            assert!(
                line[key] == *value || is_told,
                "{about}: {key} is {} and no error says so: {}",
                line[key],
                line["errors"]
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_equal_the_source() {
    let world = World::with_tickets(300).await;
    let organisation = world.sandbox.organisation();
    let numbers: Vec<u64> = (0..60).map(|n| (n * 37) % 300).collect();
    let ids: Vec<_> = numbers
        .iter()
        .map(|number| organisation.conversation(*number)["id"].as_str().unwrap().parse().unwrap())
        .collect();
    let mut out = Vec::new();
    let settings = ResolveSettings::default();
    let outcome = resolve::run(&world.client(), &ids, &settings, Hooks::default(), &world.shared_clock(), &mut out)
        .await
        .unwrap();
    assert!(outcome.is_complete(), "{outcome:?}");
    let lines: Vec<Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), numbers.len());
    let customers: std::collections::HashMap<String, Value> = (0..organisation.customers())
        .map(|number| organisation.customer(number))
        .map(|record| (record["id"].as_str().unwrap().to_owned(), record))
        .collect();
    let mut attachments = 0;
    for (line, number) in lines.iter().zip(&numbers) {
        let record = organisation.conversation(*number);
        assert_eq!(line["ticket_id"], record["id"]);
        assert_eq!(line["conversation"], record);
        let customer = record["relationships"]["customer"]["data"]["id"].as_str().unwrap();
        assert_eq!(line["customer"], customers[customer]);
        // With the attachments asked for, a message has one relationship more than its plain record.
        let plain = |records: &[Value]| -> Vec<Value> {
            records.iter().map(|record| json!([record["type"], record["id"], record["attributes"]])).collect()
        };
        assert_eq!(plain(line["messages"].as_array().unwrap()), plain(&organisation.messages(*number)));
        assert_eq!(line["notes"], json!(organisation.notes(*number)));
        let tags: Vec<&Value> = line["tags"].as_array().unwrap().iter().map(|tag| &tag["id"]).collect();
        assert_eq!(json!(tags), record["attributes"]["tags"]);
        assert!(line["tags"].as_array().unwrap().iter().all(|tag| tag["name"].is_string()), "{}", line["tags"]);
        assert_eq!(line["errors"], json!([]));
        attachments += line["attachments"].as_array().unwrap().len();
    }
    assert!(attachments > 0, "some of them have attachments");
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains("X-Amz"), "no signed link leaves the program");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_tickets_of_hundred_customers_cost_what_was_promised() {
    for (several_customers, most) in [(false, 310), (true, 220)] {
        let world = World::new(SandboxSettings { several_customers, ..generous(400) }).await;
        let ids = of_different_customers(world.sandbox.organisation(), 100);
        let settings = ResolveSettings::default();
        let mut out = Vec::new();
        let outcome = resolve::run(&world.client(), &ids, &settings, Hooks::default(), &world.shared_clock(), &mut out)
            .await
            .unwrap();
        assert!(outcome.is_complete() && outcome.complete == 100, "{outcome:?}");
        let traffic = world.sandbox.traffic();
        assert!(traffic.all.requests <= most, "{several_customers}: {:?}", traffic.routes);
        assert_eq!(outcome.requests, traffic.all.requests, "what is reported is what the source received");
        let bad = traffic.statuses.iter().filter(|(status, _)| **status >= 400).map(|(_, count)| count).sum::<u64>();
        assert!(bad <= u64::from(!several_customers), "finding out costs one request at most: {:?}", traffic.statuses);
        let price = resolve::estimate(&ids, settings.parts);
        let expected = if several_customers { price.least() } else { price.total() };
        assert!(traffic.all.requests <= expected, "the price is not passed: {} of {expected}", traffic.all.requests);
        assert!(expected - traffic.all.requests <= 5, "nor is it far off: {} of {expected}", traffic.all.requests);
        for line in String::from_utf8(out).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let counts = ["messages", "notes", "attachments"].map(|part| line[part].as_array().unwrap().len());
            assert_eq!(counts, [2, 1, 1]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_ticket_takes_two_round_trips() {
    let clock: counterfoil::clock::SharedClock = Arc::new(SystemClock);
    let latency = Duration::from_millis(600);
    let sandbox = Sandbox::start(SandboxSettings { latency, ..generous(50) }, Arc::clone(&clock)).await.unwrap();
    for parts in [Parts::USUAL, Parts::ALL] {
        let client = Client::try_new(quick(&sandbox), Arc::clone(&clock), 7).unwrap();
        sandbox.reset_traffic();
        let settings = ResolveSettings { parts, ..ResolveSettings::default() };
        let ids = [id_of(sandbox.organisation(), 7)];
        let outcome = resolve::run(&client, &ids, &settings, Hooks::default(), &clock, &mut Vec::new()).await.unwrap();
        assert!(outcome.is_complete());
        // The order in which requests came and answers went says it, so that a slow machine does not.
        assert_eq!(sandbox.traffic().rounds, 2, "{:?}", sandbox.requests());
    }
}

/// Runs the same three tickets once for each request that they take, and lets that one fail.
async fn with_each_request_failing(fault: Fault, check: impl Fn(&[Value], Result<Outcome>, &[Value], &str)) {
    let world = World::new(generous(60)).await;
    let client = || Client::try_new(quick(&world.sandbox), world.shared_clock(), 7).unwrap();
    let ids = of_different_customers(world.sandbox.organisation(), 3);
    world.sandbox.reset_traffic();
    let (outcome, expected) = lines_of(&world, &client(), &ids).await;
    assert!(outcome.unwrap().is_complete() && expected.len() == 3);
    let requests = world.sandbox.traffic().all.requests;
    assert!((10..30).contains(&requests), "{requests}");
    for position in 0..requests {
        world.sandbox.fail_request(position, fault);
        let (outcome, lines) = lines_of(&world, &client(), &ids).await;
        check(&expected, outcome, &lines, &format!("{fault:?} of request {position} of {requests}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_that_passes_is_not_seen_in_any_line_whichever_request_it_befalls() {
    for fault in [
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::Status(504),
        Fault::Status(429),
        Fault::RetryAtOnce,
        Fault::Reset,
        Fault::Truncate,
    ] {
        with_each_request_failing(fault, |expected, outcome, lines, about| {
            assert!(outcome.unwrap().is_complete(), "{about}");
            assert_eq!(lines, expected, "{about}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_that_stays_is_told_in_the_line_that_it_befalls() {
    for fault in [
        Fault::Status(400),
        Fault::Status(401),
        Fault::Status(403),
        Fault::Status(404),
        Fault::Status(418),
        Fault::Empty,
        Fault::Garbled,
        Fault::Html,
    ] {
        with_each_request_failing(fault, |expected, outcome, lines, about| {
            assert_whole_or_told(expected, lines, about);
            match outcome {
                Ok(outcome) => {
                    assert_eq!(lines.len(), 3, "{about}");
                    let whole = lines.iter().zip(expected).filter(|(line, expected)| line == expected).count();
                    assert_eq!(outcome.is_complete(), whole == 3, "{about}: {outcome:?}");
                }
                Err(error) => assert!(lines.is_empty(), "{about}: {error} comes before the first line"),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_that_never_ends_costs_its_time_and_nothing_else() {
    with_each_request_failing(Fault::Stall, |expected, outcome, lines, about| {
        assert!(outcome.unwrap().is_complete(), "{about}");
        assert_eq!(lines, expected, "{about}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_that_is_forbidden_is_named_and_hides_no_other() {
    let world = World::new(generous(60)).await;
    let ids = of_different_customers(world.sandbox.organisation(), 12);
    let (_, expected) = lines_of(&world, &world.client(), &ids).await;
    for (route, parts) in [
        ("GET /v1/conversations/{id}/messages", &["messages", "attachments"][..]),
        ("GET /v1/conversations/{id}/notes", &["notes"]),
        ("GET /v1/conversations/{id}/events", &["events"]),
        ("GET /v1/customers/{id}", &["customer"]),
        ("GET /v1/tags", &["tags"]),
        ("GET /v1/metadata/{id}", &["metadata"]),
    ] {
        world.sandbox.fail_route(route, Some(Fault::Status(403)));
        let (outcome, lines) = lines_of(&world, &world.client(), &ids).await;
        world.sandbox.fail_route(route, None);
        let outcome = outcome.unwrap();
        let error = outcome.error().unwrap();
        assert_eq!((outcome.written, error.kind()), (12, ErrorKind::Incomplete), "{route}");
        assert_whole_or_told(&expected, &lines, route);
        assert!(lines.iter().any(|line| line["errors"] != json!([])), "{route}");
        for told in lines.iter().flat_map(|line| line["errors"].as_array().unwrap()) {
            assert!(parts.contains(&told["part"].as_str().unwrap()) && told["kind"] == "forbidden", "{route}: {told}");
        }
    }
    world.sandbox.fail_route("GET /v1/conversations/{id}", Some(Fault::Status(403)));
    world.sandbox.reset_traffic();
    let (outcome, lines) = lines_of(&world, &world.client(), &ids).await;
    assert_eq!((outcome.unwrap_err().kind(), lines.len()), (ErrorKind::Denied, 0));
    let asked = world.sandbox.traffic().all.requests;
    assert!(asked <= 12, "a credential that may not read tickets is not tried on each: {asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_deleted_hidden_and_merged_tickets_are_told_apart() {
    for deleted_by_id in [DeletedById::NotFound, DeletedById::Shown] {
        let world = World::new(SandboxSettings { deleted_by_id, ..generous(600) }).await;
        let organisation = world.sandbox.organisation();
        let merged = (0..600)
            .find(|number| organisation.conversation(*number)["attributes"]["mergedTarget"] == json!(true))
            .expect("some are merged into others");
        organisation.delete(&[11]);
        organisation.hide(&[12]);
        let unknown = "58228e05d4e96711004eccb7".parse().unwrap();
        let ids = [
            id_of(organisation, 10),
            id_of(organisation, 11),
            id_of(organisation, 12),
            unknown,
            id_of(organisation, merged),
        ];
        let (outcome, lines) = lines_of(&world, &world.client(), &ids).await;
        let outcome = outcome.unwrap();
        let kinds: Vec<Value> = lines.iter().map(|line| line["errors"][0]["kind"].clone()).collect();
        let deleted = if deleted_by_id == DeletedById::Shown { Value::Null } else { json!("gone") };
        // Of a deleted ticket that is shown the lists are gone.
        let missing = if deleted_by_id == DeletedById::Shown { 2 } else { 3 };
        if deleted_by_id == DeletedById::Shown {
            assert_eq!(lines[1]["conversation"]["attributes"]["deleted"], true);
            assert!(lines[1]["customer"].is_object());
        } else {
            assert_eq!(kinds[1], deleted);
        }
        assert_eq!(kinds[0], Value::Null, "{}", lines[0]["errors"]);
        assert_eq!((&kinds[2], &kinds[3]), (&json!("gone"), &json!("gone")));
        assert_eq!(kinds[4], Value::Null);
        assert_eq!(lines[4]["conversation"]["attributes"]["mergedTarget"], true);
        assert_eq!((outcome.written, outcome.missing), (5, missing));
        assert_eq!(outcome.error().unwrap().kind(), ErrorKind::Incomplete);
        let places: Vec<&Value> = lines.iter().map(|line| &line["ticket_id"]).collect();
        assert_eq!(json!(places), json!(ids.map(|id| id.to_string())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_and_wrong_owners_change_nothing_in_the_lines() {
    let world = World::new(generous(200)).await;
    let organisation = world.sandbox.organisation();
    let ids = of_different_customers(organisation, 20);
    let owner = |number: u64| organisation.customer(number)["id"].as_str().unwrap().parse::<ObjectId>().unwrap();
    let stale: Vec<ObjectId> = ids
        .iter()
        .map(|id| organisation.ticket_truth(organisation.conversation_number(&id.to_string()).unwrap()).customer_id)
        .map(|id| id.parse().unwrap())
        .collect();
    // The first ticket's customer is merged into another: the lake does not know yet.
    let into = (0..200).map(owner).find(|id| !stale.contains(id)).unwrap();
    let numbers = [&stale[0], &into].map(|id| (0..200).find(|number| owner(*number) == *id).unwrap());
    organisation.merge(numbers[0], numbers[1], true);
    let (outcome, expected) = lines_of(&world, &world.client(), &ids).await;
    assert!(outcome.unwrap().is_complete());
    assert_eq!(expected[0]["customer"]["id"], into.to_string());
    for (about, owners) in [
        ("stale", ids.iter().copied().zip(stale.iter().copied()).collect()),
        ("of others", ids.iter().copied().zip(stale.iter().copied().skip(1)).collect()),
        ("unknown", ids.iter().map(|id| (*id, "58228e05d4e96711004eccb7".parse().unwrap())).collect()),
    ] {
        for several_customers in [None, Some(true), Some(false)] {
            let known = Known { owners: HashMap::clone(&owners), several_customers };
            let hooks = Hooks { known: Box::pin(std::future::ready(known)), ..Hooks::default() };
            let (outcome, lines) = with_hooks(&world, &world.client(), &ids, hooks).await;
            assert!(outcome.unwrap().is_complete(), "{about} {several_customers:?}");
            assert_eq!(lines, expected, "{about} {several_customers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_threads_are_whole_and_in_order() {
    let thread = Thread { messages: 330, notes: 120, attachments: 500 };
    let world = World::new(SandboxSettings { thread: Some(thread), ..generous(30) }).await;
    let organisation = world.sandbox.organisation();
    let ids = [id_of(organisation, 3), id_of(organisation, 4)];
    let (outcome, lines) = lines_of(&world, &world.client(), &ids).await;
    assert!(outcome.unwrap().is_complete());
    for (line, number) in lines.iter().zip([3, 4]) {
        let ids = |records: &[Value]| records.iter().map(|record| record["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(line["messages"].as_array().unwrap()), ids(&organisation.messages(number)));
        assert_eq!(line["notes"], json!(organisation.notes(number)));
        let files: BTreeSet<&str> =
            line["attachments"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()).collect();
        assert_eq!((files.len(), line["attachments"].as_array().unwrap().len()), (500, 500));
        assert!(line["events"].as_array().unwrap().len() > 330);
    }
}
