//! Prices told before a run against what the run then spent, by the sandbox's own count.

use std::time::Duration;

use counterfoil::clock::Clock as _;
use counterfoil::extract::ExtractSettings;
use counterfoil::extract::price::{Bucket, Price, Rates, price};
use counterfoil::kustomer::Endpoint;
use counterfoil::sandbox::SandboxSettings;

use crate::world::World;

/// How far planned and spent may be apart.
const TOLERANCE: f64 = 0.15;

/// A request or two of a run of twenty are no error of the model.
const SLACK: f64 = 2.0;

fn rates() -> Rates {
    Rates::new(1_000, 100, 0.9)
}

fn settings() -> ExtractSettings {
    ExtractSettings { index_lag: Duration::ZERO, ..ExtractSettings::default() }
}

#[track_caller]
fn assert_near(what: &str, planned: f64, spent: f64, slack: f64) {
    let apart = (planned - spent).abs();
    assert!(apart <= (spent * TOLERANCE).max(slack), "{what}: planned {planned}, spent {spent}");
}

/// Prices a run, runs it, and compares; returns the price.
async fn compare(world: &World, what: &str) -> Price {
    let client = world.client();
    let manifest = world.lake.latest().await.unwrap();
    let pricing = price(&client, &world.policy, &manifest, &settings()).await.unwrap();
    assert_eq!(pricing.counting_requests, client.ledger().total(), "every request is told");
    // What was spent on counting must not slow the run down.
    world.clock.advance(Duration::from_mins(2));
    let before: u64 = world.sandbox.requests().values().sum();
    let started = world.clock.now();
    let report = world.extract_with(&world.client(), &settings()).await.unwrap();
    assert!(report.complete);
    let lasted = world.clock.now().duration_since(started).as_secs_f64();
    let spent: u64 = world.sandbox.requests().values().sum::<u64>() - before;
    let planned = &pricing.now;
    assert_near(what, planned.total() as f64, spent as f64, SLACK);
    let (lasting, bucket) = rates().duration(planned.total(), planned.searches());
    assert_eq!(bucket, Bucket::Search);
    // The walk waits in steps of the budget's pace; the step of the test's clock counts too.
    assert_near(&format!("{what}, seconds"), lasting.as_secs_f64(), lasted, 10.0);
    pricing.now
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn price_of_a_first_run_is_what_it_spends() {
    for (tickets, seed) in [(60, 1), (3_000, 1), (3_000, 2), (3_000, 3), (20_000, 4)] {
        let settings = SandboxSettings { tickets, customers: tickets / 3, seed, ..SandboxSettings::default() };
        let world = World::new(settings).await;
        let price = compare(&world, &format!("{tickets} tickets, seed {seed}")).await;
        assert_eq!(price.records.values().sum::<u64>(), tickets + tickets / 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn price_of_an_incremental_run_follows_the_watermark() {
    let world = World::with_tickets(3_000).await;
    world.extract().await.unwrap();
    for changed in [0, 40, 1_200] {
        for ticket in 0..changed {
            // One after the other: what a bulk edit of all of them would cost, no count can tell.
            world.clock.advance(Duration::from_millis(500));
            world.sandbox.organisation().touch(&[ticket]);
        }
        world.clock.advance(Duration::from_hours(1));
        let price = compare(&world, &format!("{changed} changed")).await;
        assert!(!price.requests.contains_key(&Endpoint::ArchiveSearch), "what is recent is not in the archive");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn price_of_records_behind_the_horizon_counts_the_archive() {
    let settings = SandboxSettings {
        tickets: 3_000,
        customers: 1_000,
        history: Duration::from_hours(1_100 * 24),
        ..SandboxSettings::default()
    };
    let world = World::new(settings).await;
    let price = compare(&world, "with an archive").await;
    assert!(price.requests[&Endpoint::ArchiveSearch] > 2, "{price:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_price_does_not_depend_on_the_watermark() {
    let world = World::with_tickets(3_000).await;
    let of = async || {
        let manifest = world.lake.latest().await.unwrap();
        price(&world.client(), &world.policy, &manifest, &settings()).await.unwrap()
    };
    let before = of().await;
    assert_eq!(before.now, before.full, "a first run is a full one");
    world.extract().await.unwrap();
    let after = of().await;
    assert_eq!(after.full.records, before.full.records);
    assert_eq!(after.full.requests, before.full.requests);
    assert!(after.now.total() < after.full.total());
}
