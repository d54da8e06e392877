//! What does not come, and what a source allows: holes as narrow as possible, proof in `runs`, caps learned and remembered.

use std::time::Duration;

use counterfoil::error::ErrorKind;
use counterfoil::extract::{ExtractSettings, RunReport};
use counterfoil::lake::run::StreamRun;
use counterfoil::sandbox::{Oversize, SandboxSettings, Spoil};
use jiff::Timestamp;
use serde_json::json;

use crate::pipeline::assert_equals_the_source;
use crate::world::World;

fn settings() -> ExtractSettings {
    ExtractSettings { index_lag: Duration::ZERO, ..ExtractSettings::default() }
}

fn tickets(report: &RunReport) -> &StreamRun {
    report.run.streams.iter().find(|stream| stream.stream == "tickets").unwrap()
}

fn requests(world: &World) -> u64 {
    world.sandbox.requests().values().sum()
}

fn time_of(world: &World, number: u64) -> i64 {
    let record = world.sandbox.organisation().conversation(number);
    record["attributes"]["updatedAt"].as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_do_not_decode_are_kept_out_and_named_until_they_are_mended() {
    let world = World::new(SandboxSettings { tickets: 3_000, ..SandboxSettings::default() }).await;
    let organisation = world.sandbox.organisation();
    let bad = [
        (700, Spoil::BadId),
        (1_300, Spoil::NoId),
        (1_900, Spoil::NotAnObject),
        (1_901, Spoil::NotAnObject),
        (2_400, Spoil::BadUpdatedAt),
    ];
    for (number, how) in bad {
        organisation.spoil(&[number], how);
    }
    let report = world.extract().await.unwrap();
    assert!(!report.complete);
    let run = tickets(&report);
    assert_eq!((run.rejected, run.distinct, run.promised), (5, 2_995, 3_000), "{run:?}");
    assert_eq!((run.rejected_records.len(), run.complete), (5, false));
    let named = organisation.conversation(2_400)["id"].clone();
    assert!(run.rejected_records.iter().any(|record| record.id.as_deref() == named.as_str()), "{run:?}");
    for (number, _) in bad {
        let at = time_of(&world, number);
        let hole = run.holes_ms.iter().find(|(from, to)| (*from..*to).contains(&at));
        assert!(hole.is_some(), "record {number} at {at} lies in no hole: {:?}", run.holes_ms);
    }
    let instant = time_of(&world, 700);
    assert!(run.holes_ms.contains(&(instant, instant + 1)), "{:?}", run.holes_ms);
    assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], json!(2_995));
    let first_hole = bad.iter().map(|(number, _)| time_of(&world, *number)).min().unwrap();
    let manifest = world.reopened().await.unwrap().latest().await.unwrap();
    let through = manifest.watermarks[&counterfoil::model::Stream::Tickets].complete_through_ms.unwrap();
    assert!(through <= first_hole, "watermark {through} lies behind the hole at {first_hole}");
    let rows = world.sql("SELECT rejected, holes, complete FROM runs WHERE stream = 'tickets'").await;
    assert_eq!((&rows[0]["rejected"], &rows[0]["complete"]), (&json!(5), &json!(false)));
    let time = Timestamp::from_millisecond(instant).unwrap();
    assert!(rows[0]["holes"].as_str().unwrap().contains(&format!("{time:.3}/")), "{rows:?}");
    assert_eq!(report.into_result().unwrap_err().kind(), ErrorKind::Incomplete);

    // What is proven is not walked again.
    let before = requests(&world);
    let again = world.extract().await.unwrap();
    assert!(!again.complete);
    assert!(tickets(&again).received < 500, "{:?}", tickets(&again));
    assert!(requests(&world) - before < 30, "{}", requests(&world) - before);

    organisation.heal(&bad.map(|(number, _)| number));
    let healed = world.extract().await.unwrap();
    assert!(healed.complete, "{healed:?}");
    assert_equals_the_source(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smaller_pages_than_documented_are_learned_once_and_remembered() {
    for oversize in [Oversize::Clamp, Oversize::Refuse] {
        let sandbox =
            SandboxSettings { tickets: 3_000, largest_page_size: 100, oversize, ..SandboxSettings::default() };
        let world = World::new(sandbox).await;
        let first = world.extract().await.unwrap();
        assert!(first.complete, "{first:?}");
        assert_equals_the_source(&world).await;
        assert_eq!(first.run.caps.as_ref().unwrap().page_size, 100);
        let before = requests(&world);
        assert!(before < 90, "{before} requests");
        let full = ExtractSettings { full: true, ..settings() };
        let second = world.extract_with(&world.client(), &full).await.unwrap();
        assert!(second.complete);
        // Side by side, segments are cut a little otherwise each time.
        let again = requests(&world) - before;
        assert!(again <= before + 10, "{oversize:?}: {again} after {before}");
        assert_eq!(second.run.caps.as_ref().unwrap().seen_ms, first.run.caps.as_ref().unwrap().seen_ms);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_with_a_ceiling_are_worked_around() {
    let sandbox = SandboxSettings { tickets: 20_000, capped_totals: Some(10_000), ..SandboxSettings::default() };
    let world = World::new(sandbox).await;
    let report = world.extract().await.unwrap();
    assert!(report.complete, "{report:?}");
    assert_equals_the_source(&world).await;
    assert!(requests(&world) < 100, "{:?}", world.sandbox.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_proven_differs_from_nothing_known() {
    let world = World::with_tickets(600).await;
    assert!(world.extract().await.unwrap().complete);
    world.clock.advance(Duration::from_hours(2));
    let empty = world.extract().await.unwrap();
    world.clock.advance(Duration::from_hours(2));
    // The run ends before it can ask for the first ticket.
    let spent: u64 = empty.run.requests.values().sum();
    let stopped = ExtractSettings { max_requests: Some(spent - 1), ..settings() };
    let unknown = world.extract_with(&world.client(), &stopped).await.unwrap();
    assert_eq!((tickets(&empty).distinct, tickets(&unknown).distinct), (0, 0));
    assert!(empty.complete && !unknown.complete);
    let rows = world
        .sql("SELECT distinct_records AS n, complete, holes IS NULL AS whole FROM runs WHERE stream = 'tickets' ORDER BY started_at")
        .await;
    assert_eq!(rows[1], json!({ "n": 0, "complete": true, "whole": true }));
    assert_eq!(rows[2], json!({ "n": 0, "complete": false, "whole": false }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_may_spend_little_gets_on_all_the_same() {
    let world = World::with_tickets(4_000).await;
    let few = ExtractSettings { max_requests: Some(18), ..settings() };
    let mut held = 0;
    for _ in 0..40 {
        let report = world.extract_with(&world.client(), &few).await.unwrap();
        if report.complete {
            return assert_equals_the_source(&world).await;
        }
        let manifest = world.reopened().await.unwrap().latest().await.unwrap();
        let proven: i64 = manifest
            .watermarks
            .values()
            .map(|watermark| {
                let left: i64 = watermark.remaining_ms.iter().map(|(from, to)| to - from).sum();
                watermark.target_ms.or(watermark.complete_through_ms).unwrap_or(0) - left
            })
            .sum();
        assert!(proven > held, "a run of 18 requests proved nothing");
        held = proven;
    }
    panic!("not complete after forty runs");
}
