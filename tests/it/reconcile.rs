//! Deletions, merges and reconciliation: what the source does not say of its records, the lake finds out.

use std::collections::BTreeMap;
use std::time::Duration;

use counterfoil::extract::{ExtractSettings, RunReport};
use counterfoil::lake::run::{Reconciled, StreamRun};
use counterfoil::sandbox::{DeletedById, IdsOnly, SandboxSettings};
use serde_json::{Value, json};

use crate::world::World;

fn small(tickets: u64) -> SandboxSettings {
    SandboxSettings { tickets, customers: tickets / 3, ..SandboxSettings::default() }
}

async fn reconcile(world: &World) -> RunReport {
    world.clock.advance(Duration::from_mins(10));
    let settings = ExtractSettings { index_lag: Duration::ZERO, reconcile: true, ..ExtractSettings::default() };
    world.extract_with(&world.client(), &settings).await.unwrap()
}

async fn extract(world: &World) -> RunReport {
    world.clock.advance(Duration::from_mins(10));
    world.extract().await.unwrap()
}

fn stream<'a>(report: &'a RunReport, name: &str) -> &'a StreamRun {
    report.run.streams.iter().find(|run| run.stream == name).unwrap()
}

fn reconciled(report: &RunReport, name: &str) -> Reconciled {
    stream(report, name).reconciled.unwrap()
}

/// Id, revision and customer of every ticket that is there.
async fn assert_tickets_equal_the_source(world: &World) {
    let organisation = world.sandbox.organisation();
    let there = (0..organisation.tickets()).filter(|number| !organisation.is_hidden(*number));
    let records = there.map(|number| organisation.conversation(number));
    let live = records.filter(|record| record["attributes"]["deleted"] != json!(true));
    let expected: BTreeMap<String, Value> = live
        .map(|record| {
            let row = json!({
                "ticket_id": record["id"], "rev": record["attributes"]["rev"],
                "updated_at": record["attributes"]["updatedAt"],
                "customer_id": record["relationships"]["customer"]["data"]["id"],
            });
            (record["id"].as_str().unwrap().to_owned(), row)
        })
        .collect();
    let rows = world.sql("SELECT ticket_id, rev, updated_at, customer_id FROM tickets").await;
    let count = rows.len();
    let found: BTreeMap<String, Value> =
        rows.into_iter().map(|row| (row["ticket_id"].as_str().unwrap().to_owned(), row)).collect();
    assert_eq!(found.len(), count, "no ticket stands twice");
    assert_eq!(found.len(), expected.len());
    for (id, row) in &expected {
        assert_eq!(found.get(id), Some(row), "ticket {id}");
    }
}

async fn assert_customers_equal_the_source(world: &World) {
    let organisation = world.sandbox.organisation();
    let records = (0..organisation.customers()).map(|number| organisation.customer(number));
    let live = records.filter(|record| record["attributes"]["deleted"] != json!(true));
    let mut expected: Vec<String> = live.map(|record| record["id"].as_str().unwrap().to_owned()).collect();
    expected.sort();
    let rows = world.sql("SELECT customer_id FROM customers ORDER BY customer_id").await;
    let found: Vec<String> = rows.iter().map(|row| row["customer_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_that_are_gone_without_a_word_get_tombstones_and_come_back_when_they_do() {
    for (ids_only, deleted_by_id, largest_id_list) in
        [(IdsOnly::Objects, DeletedById::Shown, 100), (IdsOnly::Strings, DeletedById::NotFound, 7)]
    {
        let settings = SandboxSettings { ids_only, deleted_by_id, largest_id_list, ..small(3_000) };
        let world = World::new(settings).await;
        let organisation = world.sandbox.organisation();
        // Not in the lake, and then there, though nothing says that it changed.
        organisation.hide(&[10, 20]);
        extract(&world).await;
        assert_tickets_equal_the_source(&world).await;
        organisation.unhide(&[10, 20]);
        let gone: Vec<u64> = (0..60).map(|n| 7 + n * 40).collect();
        organisation.hide(&gone);
        organisation.delete(&[1_000, 1_001]);
        let report = extract(&world).await;
        assert!(report.complete && stream(&report, "tickets").reconciled.is_none());
        assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], json!(2_996), "nobody said anything");

        let report = reconcile(&world).await;
        assert!(report.complete, "{report:?}");
        let figures = Reconciled { swept: 2_938, gone: 60, missing: 2, hidden: 0, unproven: 0 };
        assert_eq!(reconciled(&report, "tickets"), figures);
        assert_eq!(reconciled(&report, "customers"), Reconciled { swept: 1_000, ..Reconciled::default() });
        assert_eq!((stream(&report, "tickets").deleted, stream(&report, "tickets").inserted), (60, 2));
        assert_tickets_equal_the_source(&world).await;
        assert_customers_equal_the_source(&world).await;
        let nulls = world.sql("SELECT count(*) AS n, count(status) AS kept FROM ticket_versions WHERE deleted").await;
        assert_eq!(nulls[0]["n"].as_u64().unwrap() - nulls[0]["kept"].as_u64().unwrap(), 60);

        // They come back with the revision that they had, which no walk brings.
        organisation.unhide(&gone[..30]);
        extract(&world).await;
        assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], json!(2_938));
        let report = reconcile(&world).await;
        assert_eq!(reconciled(&report, "tickets").missing, 30);
        assert_tickets_equal_the_source(&world).await;

        // And one comes back because it changed.
        organisation.unhide(&gone[30..31]);
        organisation.touch(&gone[30..31]);
        extract(&world).await;
        assert_tickets_equal_the_source(&world).await;

        let versions = world.sql("SELECT count(*) AS n FROM ticket_versions").await;
        let report = reconcile(&world).await;
        assert_eq!(reconciled(&report, "tickets"), Reconciled { swept: 2_969, ..Reconciled::default() });
        assert_eq!(world.sql("SELECT count(*) AS n FROM ticket_versions").await, versions, "nothing new is stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_of_the_archive_are_reconciled_too() {
    let world = World::new(SandboxSettings { history: Duration::from_hours(3 * 365 * 24), ..small(2_000) }).await;
    let organisation = world.sandbox.organisation();
    organisation.hide(&[3, 4]);
    extract(&world).await;
    organisation.unhide(&[3, 4]);
    organisation.hide(&(5..40).collect::<Vec<_>>());
    organisation.hide(&(1_900..1_910).collect::<Vec<_>>());
    let report = reconcile(&world).await;
    assert!(report.complete, "{report:?}");
    let figures = reconciled(&report, "tickets");
    assert_eq!((figures.gone, figures.missing, figures.hidden), (45, 2, 0));
    assert!(report.ledger.requests["archive_search"] > 1);
    assert_tickets_equal_the_source(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_follow_a_merged_customer_whether_their_revision_moves_or_not() {
    for moves_updated_at in [false, true] {
        let world = World::new(small(3_000)).await;
        let organisation = world.sandbox.organisation();
        extract(&world).await;
        let from: Vec<u64> = (0..1_000).filter(|number| number % 64 == 7 || number % 64 == 17).collect();
        let moved: usize =
            from.iter().map(|customer| organisation.merge(*customer, customer + 1, moves_updated_at).len()).sum();
        assert!(moved > 500, "the customers of this organisation have many tickets: {moved}");
        let report = extract(&world).await;
        assert!(report.complete, "{report:?}");
        let tickets = stream(&report, "tickets");
        let expected = if moves_updated_at { (0, 0) } else { (moved as u64, moved as u64) };
        assert_eq!((tickets.followed, tickets.moved), expected);
        assert_eq!(tickets.updated, moved as u64);
        assert_tickets_equal_the_source(&world).await;
        assert_customers_equal_the_source(&world).await;
        let asked = report.ledger.requests.get("conversations").copied().unwrap_or_default();
        assert!(asked <= moved as u64 / 40, "{moved} tickets took {asked} requests");

        // Nobody asks for them twice.
        let report = extract(&world).await;
        assert_eq!(stream(&report, "tickets").followed, 0);
        assert!(!report.ledger.requests.contains_key("conversations"));
        let report = reconcile(&world).await;
        let figures = reconciled(&report, "tickets");
        assert_eq!(figures, Reconciled { swept: 3_000, ..Reconciled::default() });
        assert_eq!(stream(&report, "tickets").followed, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_that_went_with_their_customer_get_tombstones_without_a_reconciliation() {
    let world = World::new(small(3_000)).await;
    let organisation = world.sandbox.organisation();
    extract(&world).await;
    let owned = organisation.merge(7, 8, false);
    organisation.hide(&owned);
    assert!(owned.len() > 30);
    let report = extract(&world).await;
    assert!(report.complete, "{report:?}");
    assert_eq!((stream(&report, "tickets").followed, stream(&report, "tickets").moved), (owned.len() as u64, 0));
    assert_eq!(stream(&report, "tickets").deleted, owned.len() as u64);
    assert_tickets_equal_the_source(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_ends_before_it_follows_is_made_up_for_by_the_next() {
    let world = World::new(small(3_000)).await;
    let organisation = world.sandbox.organisation();
    extract(&world).await;
    let moved = organisation.merge(7, 8, false).len() as u64;
    let mut stopped = 0;
    for most in 1..40 {
        world.clock.advance(Duration::from_mins(10));
        let settings =
            ExtractSettings { index_lag: Duration::ZERO, max_requests: Some(most), ..ExtractSettings::default() };
        let report = world.extract_with(&world.client(), &settings).await.unwrap();
        stopped += u64::from(!report.complete);
        if report.complete {
            assert_eq!(stream(&report, "tickets").moved, moved);
            break;
        }
    }
    assert!(stopped > 3, "the run was stopped {stopped} times");
    assert_tickets_equal_the_source(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconciliation_that_is_stopped_buries_nothing_and_ends_incomplete() {
    let world = World::new(small(4_000)).await;
    extract(&world).await;
    world.sandbox.organisation().hide(&(0..50).collect::<Vec<_>>());
    world.clock.advance(Duration::from_mins(10));
    let settings = ExtractSettings {
        index_lag: Duration::ZERO,
        reconcile: true,
        max_requests: Some(20),
        ..ExtractSettings::default()
    };
    let report = world.extract_with(&world.client(), &settings).await.unwrap();
    assert!(!report.complete && report.clone().into_result().is_err());
    assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], json!(4_000));
    assert_eq!(reconciled(&reconcile(&world).await, "tickets").gone, 50);
    assert_tickets_equal_the_source(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_that_lists_less_than_half_is_not_believed() {
    let world = World::new(small(4_000)).await;
    extract(&world).await;
    world.sandbox.organisation().hide(&(0..2_100).collect::<Vec<_>>());
    let report = reconcile(&world).await;
    assert!(!report.complete && report.clone().into_result().is_err(), "{report:?}");
    let figures = reconciled(&report, "tickets");
    assert_eq!((figures.gone, figures.unproven), (0, 1));
    assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], json!(4_000));
    let rows =
        world.sql("SELECT swept, gone, missing, complete FROM runs WHERE stream = 'tickets' ORDER BY started_at");
    let expected = json!([{"swept": null, "gone": null, "missing": null, "complete": true}, {"swept": 1_900, "gone": 0, "missing": 0, "complete": false}]);
    assert_eq!(Value::Array(rows.await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credential_of_another_organisation_buries_nothing() {
    let world = World::new(small(300)).await;
    extract(&world).await;
    world.sandbox.organisation().hide(&(0..300).collect::<Vec<_>>());
    let report = reconcile(&world).await;
    assert!(!report.complete);
    assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], json!(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lake_that_begins_late_is_not_filled_with_what_it_was_told_to_leave_out() {
    let world = World::new(small(3_000)).await;
    let since = counterfoil::clock::Clock::now(world.clock.as_ref()) - Duration::from_hours(60 * 24);
    let settings = ExtractSettings { index_lag: Duration::ZERO, since: Some(since), ..ExtractSettings::default() };
    world.extract_with(&world.client(), &settings).await.unwrap();
    let before = world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"].as_u64().unwrap();
    assert!(before > 50 && before < 2_900, "{before}");
    let report = reconcile(&world).await;
    assert!(report.complete, "{report:?}");
    assert_eq!(reconciled(&report, "tickets"), Reconciled { swept: before, ..Reconciled::default() });
    assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], json!(before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_source_neither_bury_nor_hide() {
    let faults = "500:0.05,503:0.03,429:0.03,truncate:0.05,reset:0.03,empty:0.02,timed_out:0.05";
    let world = World::new(SandboxSettings { faults: faults.parse().unwrap(), ..small(3_000) }).await;
    extract(&world).await;
    world.sandbox.organisation().hide(&(0..120).map(|n| n * 11).collect::<Vec<_>>());
    let report = reconcile(&world).await;
    assert!(report.complete, "{report:?}");
    assert_eq!(reconciled(&report, "tickets").gone, 120);
    assert_tickets_equal_the_source(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_that_no_walk_has_seen_are_found_for_tickets_and_customers() {
    for (deleted_by_id, several_customers) in [(DeletedById::Shown, true), (DeletedById::NotFound, false)] {
        let world = World::new(SandboxSettings { deleted_by_id, several_customers, ..small(3_000) }).await;
        let organisation = world.sandbox.organisation();
        extract(&world).await;
        let until = counterfoil::clock::Clock::now(world.clock.as_ref());
        world.clock.advance(Duration::from_mins(1));
        let merged: Vec<u64> = (0..40).map(|n| 7 + n * 20).collect();
        let moved: usize = merged.iter().map(|from| organisation.merge(*from, from + 1, false).len()).sum();
        organisation.delete(&[5, 6, 7]);
        // Walked up to a moment before that.
        let settings = ExtractSettings {
            index_lag: Duration::ZERO,
            until: Some(until),
            reconcile: true,
            ..ExtractSettings::default()
        };
        let report = world.extract_with(&world.client(), &settings).await.unwrap();
        assert!(report.complete, "{report:?}");
        assert_eq!((reconciled(&report, "customers").gone, reconciled(&report, "tickets").gone), (40, 3));
        assert_eq!(stream(&report, "customers").deleted, 40);
        assert!(moved > 80 && stream(&report, "tickets").moved >= moved as u64 - 3, "{report:?}");
        assert_tickets_equal_the_source(&world).await;
        assert_customers_equal_the_source(&world).await;
        // The source's own tombstones come with the next run, and change nothing.
        let report = extract(&world).await;
        assert!(report.complete, "{report:?}");
        assert_tickets_equal_the_source(&world).await;
        assert_customers_equal_the_source(&world).await;
    }
}
