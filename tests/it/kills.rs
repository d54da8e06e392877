//! `kill -9` at random moments: the lease is free at once, nothing is lost, nothing is doubled, little is asked again.
//!
//! `COUNTERFOIL_KILLS=N` kills N times instead of the few of CI:
//!
//! ```text
//! COUNTERFOIL_KILLS=200 cargo test --release --test it kills
//! ```

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use counterfoil::clock::SystemClock;
use counterfoil::extract::ExtractSettings;
use counterfoil::kustomer::{Client, ClientSettings, Credential};
use counterfoil::retry::SplitMix64;
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::secret::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::World;

/// A sandbox in this process, and a folder with settings for the binary.
struct Stand {
    folder: TempDir,
    sandbox: Sandbox,
}

impl Stand {
    async fn new(tickets: u64) -> Self {
        let settings = SandboxSettings {
            tickets,
            customers: tickets / 4,
            org_rpm: 1_000_000,
            search_rpm: 1_000_000,
            ..SandboxSettings::default()
        };
        let sandbox = Sandbox::start(settings, Arc::new(SystemClock)).await.unwrap();
        let stand = Self { folder: tempfile::tempdir().unwrap(), sandbox };
        let output = stand.command(&["init", "."]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        stand
    }

    /// A command with small pages and commits, so that a run has many moments.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("COUNTERFOIL_SOURCE__BASE_URL", self.sandbox.base_url())
            .env("COUNTERFOIL_SOURCE__ORG_RPM", "100000")
            .env("COUNTERFOIL_SOURCE__SEARCH_RPM", "100000")
            .env("COUNTERFOIL_SOURCE__SHARE", "1")
            .env("COUNTERFOIL_EXTRACT__INDEX_LAG", "0s")
            .env("COUNTERFOIL_EXTRACT__PAGE_SIZE", "50")
            .env("COUNTERFOIL_EXTRACT__COMMIT_ROWS", "200")
            .env("COUNTERFOIL_EXTRACT__CONCURRENCY", "2")
            .env("KUSTOMER_API_KEY", self.sandbox.api_key())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn extract(&self) -> Child {
        self.command(&["extract"]).spawn().unwrap()
    }

    fn received(&self) -> u64 {
        self.sandbox.requests().values().sum()
    }

    /// Waits until `requests` more than `before` came, then `more` time; tells whether the child still ran.
    async fn wait(&self, child: &mut Child, requests: u64, more: Duration) -> bool {
        let before = self.received();
        while self.received() < before + requests {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(more).await;
        child.try_wait().unwrap().is_none()
    }

    async fn finished(child: Child) -> Output {
        tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap()
    }

    async fn rows(&self, sql: &str) -> Vec<Value> {
        let output = Self::finished(self.command(&["query", "-e", sql, "--format", "ndjson"]).spawn().unwrap()).await;
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The lake holds every record of the sandbox as it is now, each once.
    async fn assert_equal(&self) {
        let organisation = self.sandbox.organisation();
        let mut tickets = BTreeMap::new();
        for truth in (0..organisation.tickets()).map(|number| organisation.ticket_truth(number)) {
            if !truth.deleted {
                tickets.insert(truth.id, json!([truth.rev, truth.status, truth.customer_id]));
            }
        }
        let mut customers = BTreeMap::new();
        for truth in (0..organisation.customers()).map(|number| organisation.customer_truth(number)) {
            customers.insert(truth.id, json!([truth.rev, truth.counts[0], truth.counts[2]]));
        }
        let columns = [
            "ticket_id AS id, rev AS a, status AS b, customer_id AS c FROM tickets",
            "customer_id AS id, rev AS a, conversation_count_open AS b, conversation_count_done AS c FROM customers",
        ];
        for (expected, columns) in [tickets, customers].into_iter().zip(columns) {
            let rows = self.rows(&format!("SELECT {columns}")).await;
            assert_eq!(rows.len(), expected.len(), "{columns}");
            for row in rows {
                let id = row["id"].as_str().unwrap();
                assert_eq!(json!([row["a"], row["b"], row["c"]]), expected[id], "{id}");
            }
        }
        for (table, key) in [("ticket", "ticket_id"), ("customer", "customer_id")] {
            let sql = format!(
                "SELECT count(*) AS n, count(DISTINCT concat({key}, ':', rev)) AS revisions FROM {table}_versions"
            );
            let counted = &self.rows(&sql).await[0];
            assert_eq!(counted["n"], counted["revisions"], "a revision is written once");
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_killed_at_any_moment_leaves_a_lake_that_one_clean_run_completes() {
    let kills: u64 = std::env::var("COUNTERFOIL_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let stand = Stand::new(4_000).await;
    let mut random = SplitMix64::new(kills);
    // An undisturbed run asks this much; a kill comes anywhere in it, and between two requests.
    let mut usual = 140;
    let (mut killed, mut ended) = (0, 0);
    while killed < kills {
        let mut child = stand.extract();
        let life = random.next_u64() % usual;
        let more = random.below(Duration::from_millis(40));
        if !stand.wait(&mut child, life, more).await {
            let output = Stand::finished(child).await;
            assert!(output.status.success(), "{}", said(&output));
            ended += 1;
            // All is there: what is to be killed next needs something to do.
            stand.sandbox.organisation().touch(&stand.sandbox.organisation().pick(1_500));
            stand.sandbox.organisation().delete(&stand.sandbox.organisation().pick(5));
            usual = 70;
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    // The lease of the last one is free at once, and the rest comes in one run.
    let output = Stand::finished(stand.extract()).await;
    assert!(output.status.success(), "{}", said(&output));
    stand.assert_equal().await;
    println!("{killed} runs killed, {ended} ended before their time came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_keeps_a_second_process_out_until_its_holder_is_dead() {
    let stand = Stand::new(600).await;
    // Four searches a minute: the first run waits for its budget, and lives.
    let mut first = stand.command(&["extract"]).env("COUNTERFOIL_SOURCE__SEARCH_RPM", "4").spawn().unwrap();
    while !stand.sandbox.requests().keys().any(|route| route.ends_with("search")) {
        assert!(stand.wait(&mut first, 1, Duration::ZERO).await, "the first run is under way");
    }
    for _ in 0..2 {
        let second = Stand::finished(stand.extract()).await;
        assert_eq!(second.status.code(), Some(9), "{}", said(&second));
        assert!(said(&second).contains(&format!("process {}", first.id())), "{}", said(&second));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let third = Stand::finished(stand.extract()).await;
    assert!(third.status.success(), "{}", said(&third));
    stand.assert_equal().await;
}

/// Requests that a run which dies after `life` requests makes be asked again, above those of a run that is not disturbed.
async fn asked_again(life: u64) -> u64 {
    let settings = SandboxSettings { tickets: 6_000, customers: 600, ties: false, ..SandboxSettings::default() };
    let world = World::new(settings).await;
    let client = || {
        let settings = ClientSettings {
            base_url: world.sandbox.base_url().parse().unwrap(),
            credential: Credential::ApiKey(SecretString::new(world.sandbox.api_key().to_owned())),
            org_rpm: 1_000,
            search_rpm: SEARCH_RPM,
            share: 1.0,
            reserve: 0,
            timeout: Duration::from_secs(30),
            attempts: 5,
        };
        Client::try_new(settings, world.shared_clock(), 7).unwrap()
    };
    let settings = ExtractSettings { index_lag: Duration::ZERO, page_size: 50, ..ExtractSettings::default() };
    let searches = || -> u64 {
        let requests = world.sandbox.requests();
        requests.iter().filter(|(route, _)| route.ends_with("search")).map(|(_, count)| count).sum()
    };
    let first = client();
    tokio::select! {
        biased;
        () = async {
            while searches() < life {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => {}
        report = world.extract_with(&first, &settings) => assert!(report.unwrap().complete),
    }
    world.clock.advance(Duration::from_mins(10));
    let report = world.extract_with(&client(), &settings).await.unwrap();
    assert!(report.complete, "{report:?}");
    searches()
}

/// Searches a minute, of which a crash may cost those of one.
const SEARCH_RPM: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_costs_at_most_a_minute_of_the_budget() {
    let undisturbed = asked_again(u64::MAX).await;
    for life in [30, 61, 97, 120] {
        let with_crash = asked_again(life).await;
        let lost = with_crash.saturating_sub(undisturbed);
        assert!(
            lost <= u64::from(SEARCH_RPM) + 8,
            "a crash after {life} searches cost {lost}: {with_crash} instead of {undisturbed}"
        );
    }
}
