//! The budget against the sandbox's limits: nearly all of it is used, and nobody is refused.

use std::time::Duration;

use counterfoil::clock::Clock;
use counterfoil::kustomer::{Client, ClientSettings, Credential, SearchObject, SearchRequest};
use counterfoil::sandbox::SandboxSettings;
use counterfoil::secret::SecretString;

use crate::world::World;

const FIVE_MINUTES_MS: i64 = 300_000;

async fn limited() -> World {
    World::new(SandboxSettings { tickets: 10, customers: 5, search_rpm: 100, ..SandboxSettings::default() }).await
}

fn client(world: &World, share: f64) -> Client {
    let settings = ClientSettings {
        base_url: world.sandbox.base_url().parse().unwrap(),
        credential: Credential::ApiKey(SecretString::new(world.sandbox.api_key().to_owned())),
        org_rpm: 1_000,
        search_rpm: 100,
        share,
        reserve: 0,
        timeout: Duration::from_secs(30),
        attempts: 5,
    };
    Client::try_new(settings, world.shared_clock(), 7).unwrap()
}

async fn search(world: &World, client: &Client) -> i64 {
    let request = SearchRequest::builder(SearchObject::Conversation).updated_between(0, 1).unwrap().build();
    client.search(&request).await.unwrap();
    let counted = world.clock.now().as_millisecond();
    world.clock.advance(Duration::from_millis(300));
    counted
}

fn fullest_minute(times: &[i64]) -> usize {
    let within = |index: usize| times[index..].iter().take_while(|later| **later < times[index] + 60_000).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn alone_uses_97_percent_of_five_minutes_by_the_count_of_the_server() {
    let world = limited().await;
    // Into the middle of a window of the server.
    world.clock.advance(Duration::from_secs(23));
    let client = client(&world, 1.0);
    let start = world.clock.now().as_millisecond();
    while world.clock.now().as_millisecond() < start + FIVE_MINUTES_MS {
        search(&world, &client).await;
    }
    let counted: u64 = world.sandbox.requests().values().sum();
    assert!((485..=501).contains(&counted), "{counted} of 500");
    assert_eq!(client.ledger().total(), counted);
    assert!(client.ledger().failed.is_empty(), "{:?}", client.ledger().failed);
}

#[tokio::test]
async fn client_beside_another_is_never_refused_and_keeps_its_share() {
    for share in [0.5, 1.0] {
        let world = limited().await;
        let (ours, other) = (client(&world, share), client(&world, 0.5));
        let start = world.clock.now().as_millisecond();
        let mut times = Vec::new();
        while world.clock.now().as_millisecond() < start + FIVE_MINUTES_MS {
            search(&world, &other).await;
            for _ in 0..(share * 2.0) as usize {
                times.push(search(&world, &ours).await);
            }
        }
        assert!(ours.ledger().failed.is_empty(), "share {share}: {:?}", ours.ledger().failed);
        assert!(fullest_minute(&times) <= (share * 100.0) as usize, "share {share}: {}", fullest_minute(&times));
        assert!(times.len() >= 200, "share {share}: {} sent", times.len());
    }
}
