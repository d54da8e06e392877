//! The extractor under everything at once: drift, ties, faults, limits and deaths, all decided by one seed.
//!
//! ```text
//! seed ─▶ sandbox (size, ties, drift, faults, index lag, limits) ─┐
//!      └▶ run (page size, workers, share, rows per commit, death) ┴▶ runs while everything drifts
//!                                                                        │ after each: what the watermark claims holds
//!                                                                        ▼
//!                                       drift stops ─▶ one more run ─▶ lake = sandbox
//! ```
//!
//! Waits cost no time, for the clock is the test's. What the seed does not decide is in which order answers of requests
//! under way at the same time arrive: a seed that failed may need a few repetitions.
//!
//! `COUNTERFOIL_SEEDS=FROM..TO` runs other seeds than the few of CI:
//!
//! ```text
//! COUNTERFOIL_SEEDS=0..2000 cargo test --release --test it simulation
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use counterfoil::clock::{Clock, ManualClock, SharedClock};
use counterfoil::error::{ErrorKind, Result};
use counterfoil::extract::{self, ExtractSettings, NoProgress, RunReport};
use counterfoil::keys::RootKey;
use counterfoil::kustomer::{Client, ClientSettings, Credential};
use counterfoil::lake::{LEASE_DURATION, Lake, StoreSettings};
use counterfoil::model::Stream;
use counterfoil::policy::Policy;
use counterfoil::retry::SplitMix64;
use counterfoil::sandbox::{Oversize, RateLimitBody, RateWindow, RetryAfter, Sandbox, SandboxSettings, Truth};
use counterfoil::schema::Schemas;
use counterfoil::secret::SecretString;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{root, rows};

/// Runs that may fail or stay incomplete while records drift, before the seed counts as failed.
const RUNS_WHILE_DRIFTING: u32 = 14;

/// Runs that may fail after that.
const RUNS_AT_REST: u32 = 6;

/// A clock on which each look takes a millisecond, so that changes at different requests have different times.
#[derive(Debug)]
struct PassingClock(ManualClock);

impl Clock for PassingClock {
    fn now(&self) -> Timestamp {
        self.0.advance(Duration::from_millis(1));
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
}

/// What the seed decides, one draw after the other.
struct Draws(SplitMix64);

impl Draws {
    fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.0.next_u64() % (last - first + 1)
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.between(0, list.len() as u64 - 1) as usize]
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.between(1, times) == 1
    }

    /// Shares that are `share` in all, every kind of fault among them.
    fn faults(&mut self, share: f64) -> String {
        const KINDS: [&str; 13] = [
            "500",
            "502",
            "503",
            "504",
            "429",
            "retry_at_once",
            "reset",
            "truncate",
            "empty",
            "timed_out",
            "slow",
            "garbled",
            "html",
        ];
        // A stalled answer costs the real time of a time-out.
        let stall = if self.one_in(6) { 0.002 } else { 0.0 };
        let weights: Vec<u64> = (0..=KINDS.len()).map(|_| self.between(1, 10)).collect();
        let unit = (share - stall) / weights.iter().sum::<u64>() as f64;
        let kinds = KINDS.iter().chain(&["short"]).zip(&weights);
        let faults: Vec<String> = kinds.map(|(kind, weight)| format!("{kind}:{:.5}", *weight as f64 * unit)).collect();
        format!("{},stall:{stall}", faults.join(","))
    }
}

/// Everything about one seed.
struct Scenario {
    seed: u64,
    draws: Draws,
    clock: Arc<PassingClock>,
    sandbox: Sandbox,
    lake: Lake,
    /// Holds the root key, and the lake of every third seed.
    folder: TempDir,
    policy: Policy,
    settings: ExtractSettings,
    org_rpm: u32,
    search_rpm: u32,
    share: f64,
    attempts: u32,
}

impl Scenario {
    async fn new(seed: u64) -> Self {
        let mut draws = Draws(SplitMix64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let sandbox = SandboxSettings {
            oversize: draws.pick(&[Oversize::Clamp, Oversize::Refuse]),
            ..SandboxSettings::default()
        };
        let settings = ExtractSettings::default();
        let (sandbox, settings) = match seed % 5 {
            // The service's own bounds, and a tie that no paging reaches the end of.
            0 => (
                SandboxSettings {
                    tickets: draws.between(14_000, 16_000),
                    tie_sizes: vec![1_300, 12_000],
                    largest_page_size: draws.pick(&[500, 500, 100]),
                    ..sandbox
                },
                ExtractSettings { page_size: draws.pick(&[300, 500]), ..settings },
            ),
            // The service's own bounds, or tighter ones.
            1 => (
                SandboxSettings {
                    tickets: draws.between(2_000, 3_500),
                    tie_sizes: vec![1_300],
                    result_window_rows: draws.pick(&[1_000, 10_000]),
                    max_pages: draws.pick(&[5, 100]),
                    largest_page_size: draws.pick(&[100, 500]),
                    ..sandbox
                },
                ExtractSettings { page_size: draws.pick(&[100, 300, 500]), ..settings },
            ),
            // The same, at a scale that is cheap to walk.
            _ => {
                let tickets = draws.between(300, 1_800);
                let ties = [draws.between(2, 200) as u32, tickets as u32 / draws.pick(&[2, 3, 5])];
                let page_size = draws.pick(&[7, 20, 50]);
                let pages = draws.between(2, 12) as u32;
                let window = u64::from(page_size * pages);
                (
                    SandboxSettings {
                        tickets,
                        tie_sizes: if draws.one_in(4) { Vec::new() } else { ties.to_vec() },
                        result_window_rows: window,
                        max_pages: pages,
                        ..sandbox
                    },
                    ExtractSettings { page_size, result_window_rows: window, max_pages: pages, ..settings },
                )
            }
        };
        let index_lag = Duration::from_secs(if draws.one_in(2) { draws.between(1, 90) } else { 0 });
        let (org_rpm, search_rpm) = (draws.between(300, 2_000) as u32, draws.between(40, 300) as u32);
        let sandbox = SandboxSettings {
            seed,
            customers: sandbox.tickets / 4,
            window: draws.pick(&[RateWindow::Fixed, RateWindow::Sliding]),
            window_phase: Duration::from_secs(draws.between(0, 59)),
            rate_limit_headers: !draws.one_in(4),
            rate_limit_body: draws.pick(&[RateLimitBody::Json, RateLimitBody::Html, RateLimitBody::Empty]),
            retry_after: draws.pick(&[
                RetryAfter::Absent,
                RetryAfter::Zero,
                RetryAfter::Seconds,
                RetryAfter::Absurd,
                RetryAfter::HttpDate,
            ]),
            ties: !draws.one_in(4),
            drift: draws.between(1, 4) as u32,
            faults: draws.faults(0.1).parse().unwrap(),
            history: Duration::from_hours(24 * draws.pick(&[3, 300, 700, 1_100])),
            index_lag,
            org_rpm,
            search_rpm,
            ..sandbox
        };
        let settings = ExtractSettings {
            index_lag: index_lag + Duration::from_secs(draws.between(0, 5)),
            overlap: Duration::from_secs(draws.pick(&[0, 1, 300])),
            concurrency: draws.between(1, 6) as usize,
            segment_rows: draws.pick(&[50, 1_000, 25_000]),
            commit_rows: draws.pick(&[100, 2_000, 50_000]),
            ..settings
        };
        let clock = Arc::new(PassingClock(ManualClock::new("2026-11-01T12:00:00Z".parse().unwrap())));
        let shared: SharedClock = clock.clone();
        let sandbox = Sandbox::start(sandbox, Arc::clone(&shared)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        RootKey::create_file(&folder.path().join("root.key")).unwrap();
        let url = if seed.is_multiple_of(3) { "file:lake" } else { "memory:" };
        let lake = Lake::create(&StoreSettings::new(url, folder.path()), &root(folder.path()), shared).await.unwrap();
        let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
        // What the client believes of the limits may be wrong: the headers correct it.
        let wrong = draws.pick(&[1, 1, 2]);
        let (share, attempts) = (draws.between(30, 100) as f64 / 100.0, draws.pick(&[3, 5, 8]));
        Self {
            seed,
            draws,
            clock,
            sandbox,
            lake,
            folder,
            policy,
            settings,
            org_rpm: org_rpm * wrong,
            search_rpm: search_rpm * wrong,
            share,
            attempts,
        }
    }

    fn client(&mut self) -> Client {
        let settings = ClientSettings {
            base_url: self.sandbox.base_url().parse().unwrap(),
            credential: Credential::ApiKey(SecretString::new(self.sandbox.api_key().to_owned())),
            org_rpm: self.org_rpm,
            search_rpm: self.search_rpm,
            share: self.share,
            reserve: 0,
            timeout: Duration::from_secs(3),
            attempts: self.attempts,
        };
        Client::try_new(settings, self.clock.clone(), self.draws.between(0, u64::MAX - 1)).unwrap()
    }

    /// Runs once; nothing when the run died, that is, was dropped where it stood after being polled `life` times.
    async fn run(&mut self, life: Option<u64>) -> Option<Result<RunReport>> {
        self.clock.0.advance(Duration::from_secs(self.draws.between(1, 200)));
        // A run that may spend little stops at a commit.
        self.settings.max_requests = (life.is_some() && self.draws.one_in(4)).then(|| self.draws.between(1, 60));
        self.settings.full = self.draws.one_in(8);
        let client = self.client();
        let clock: SharedClock = self.clock.clone();
        let stop = std::future::pending();
        let mut run = pin!(extract::run(&client, &self.policy, &self.lake, &clock, &self.settings, &NoProgress, stop));
        let mut polls = 0;
        let ended = poll_fn(|context| {
            polls += 1;
            match run.as_mut().poll(context) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if life.is_some_and(|life| polls >= life) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if ended.is_none() {
            // The lease of a run that died in this process lasts until it expires.
            self.clock.0.advance(LEASE_DURATION);
        }
        ended
    }

    /// The whole life of a seed.
    async fn play(mut self) {
        let (mut completed, mut history) = (0, Vec::new());
        let wanted = self.draws.between(1, 3);
        for _ in 0..RUNS_WHILE_DRIFTING {
            let life = self.draws.one_in(2).then(|| {
                let most = self.draws.pick(&[30, 300, 3_000]);
                self.draws.between(1, most)
            });
            match self.run(life).await {
                Some(Ok(report)) => {
                    completed += u64::from(report.complete);
                    history.push(format!(
                        "{:?} {}: {:?}",
                        report.run.outcome,
                        report.ledger.total(),
                        report.run.streams
                    ));
                }
                Some(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    history.push(error.to_string());
                }
                None => history.push(format!("died after {life:?} polls")),
            }
            self.reopen().await;
            Held::read(&self).await.assert_claims(&self).await;
            if completed >= wanted {
                break;
            }
        }
        assert!(completed > 0, "no run was complete while records drifted:\n{}", history.join("\n"));

        self.sandbox.set_drift(0);
        self.clock.0.advance(self.settings.index_lag + Duration::from_secs(1));
        let mut is_complete = false;
        for _ in 0..RUNS_AT_REST {
            match self.run(None).await.unwrap() {
                Ok(report) => {
                    assert!(report.complete, "nothing changes any more: {report:?}");
                    is_complete = true;
                    break;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
        }
        assert!(is_complete, "no run was complete when nothing changed any more");
        self.reopen().await;
        let held = Held::read(&self).await;
        held.assert_claims(&self).await;
        held.assert_equal(&self);
        held.assert_nothing_doubled(&self).await;
        Held::assert_lists(&self).await;
    }

    /// Opens the lake anew, as another process would.
    async fn reopen(&mut self) {
        if self.seed.is_multiple_of(3) {
            let folder = self.folder.path();
            self.lake =
                Lake::open(&StoreSettings::new("file:lake", folder), &root(folder), self.clock.clone()).await.unwrap();
        }
    }

    async fn sql(&self, sql: &str) -> Vec<Value> {
        rows(&self.lake, self.lake.latest().await.unwrap(), self.clock.clone(), sql).await
    }

    fn truths(&self, stream: Stream) -> Vec<Truth> {
        let organisation = self.sandbox.organisation();
        if stream == Stream::Tickets {
            (0..organisation.tickets()).map(|number| organisation.ticket_truth(number)).collect()
        } else {
            (0..organisation.customers()).map(|number| organisation.customer_truth(number)).collect()
        }
    }
}

/// What the lake holds: live rows and tombstones of both streams.
struct Held {
    live: BTreeMap<Stream, BTreeMap<String, Truth>>,
    /// Id and revision of every deleted version.
    tombstones: BTreeSet<(String, i64)>,
}

impl Held {
    async fn read(scenario: &Scenario) -> Self {
        let tables = scenario.lake.latest().await.unwrap();
        let mut held = Self { live: BTreeMap::new(), tombstones: BTreeSet::new() };
        if tables.tables.contains_key(&Stream::Tickets) {
            let rows = scenario
                .sql(
                    "SELECT ticket_id AS id, updated_at, rev, status, customer_id, message_count AS a, note_count AS b, \
                     reopen_count AS c FROM tickets",
                )
                .await;
            held.live.insert(Stream::Tickets, by_id(&rows));
            let rows = scenario.sql("SELECT ticket_id, rev FROM ticket_versions WHERE deleted").await;
            held.tombstones = rows.iter().map(|row| (text(&row["ticket_id"]), row["rev"].as_i64().unwrap())).collect();
        }
        if tables.tables.contains_key(&Stream::Customers) {
            let rows = scenario
                .sql(
                    "SELECT customer_id AS id, updated_at, rev, '' AS status, customer_id, conversation_count_open AS a, \
                     conversation_count_snoozed AS b, conversation_count_done AS c FROM customers",
                )
                .await;
            held.live.insert(Stream::Customers, by_id(&rows));
        }
        held
    }

    /// Every record that was last changed before the time that the watermark claims is in the lake as it is.
    async fn assert_claims(&self, scenario: &Scenario) {
        for (stream, watermark) in &scenario.lake.latest().await.unwrap().watermarks {
            let Some(through_ms) = watermark.complete_through_ms else { continue };
            for truth in scenario.truths(*stream).iter().filter(|truth| truth.updated_at_ms < through_ms) {
                self.assert_holds(*stream, truth, &format!("it is claimed through {through_ms}"));
            }
        }
    }

    fn assert_equal(&self, scenario: &Scenario) {
        for stream in [Stream::Tickets, Stream::Customers] {
            let truths = scenario.truths(stream);
            for truth in &truths {
                self.assert_holds(stream, truth, "everything is claimed");
            }
            let expected = truths.iter().filter(|truth| !truth.deleted).count();
            assert_eq!(self.live[&stream].len(), expected, "{stream}");
        }
    }

    /// The small streams hold as many records as the source lists.
    async fn assert_lists(scenario: &Scenario) {
        let organisation = scenario.sandbox.organisation();
        for (table, records) in [
            ("users", organisation.users()),
            ("teams", organisation.teams()),
            ("tags", organisation.tags()),
            ("queues", organisation.queues()),
            ("brands", organisation.brands()),
            ("slas", organisation.slas()),
            ("schedules", organisation.schedules()),
        ] {
            let counted = scenario.sql(&format!("SELECT count(*) AS n FROM {table}")).await;
            assert_eq!(counted[0]["n"], records.len(), "{table}");
        }
    }

    fn assert_holds(&self, stream: Stream, truth: &Truth, why: &str) {
        let live = self.live.get(&stream).and_then(|live| live.get(&truth.id));
        if truth.deleted {
            assert_eq!(live, None, "{stream}: it is deleted, and {why}");
            let tombstone = (truth.id.clone(), truth.rev);
            assert!(self.tombstones.contains(&tombstone), "{stream}: no tombstone of {truth:?}, and {why}");
        } else {
            assert_eq!(live, Some(truth), "{stream} {}: left is the lake's, and {why}", truth.id);
        }
    }

    async fn assert_nothing_doubled(&self, scenario: &Scenario) {
        for (table, key) in [("ticket", "ticket_id"), ("customer", "customer_id")] {
            let versions = scenario
                .sql(&format!(
                    "SELECT {key}, rev, count(*) AS n FROM {table}_versions GROUP BY {key}, rev HAVING count(*) > 1 LIMIT 3"
                ))
                .await;
            assert_eq!(versions, Vec::<Value>::new(), "a revision is written once");
        }
    }
}

fn by_id(rows: &[Value]) -> BTreeMap<String, Truth> {
    let mut found = BTreeMap::new();
    for row in rows {
        let count = |name: &str| row[name].as_i64().unwrap_or_default();
        let status = ["open", "snoozed", "done", ""].into_iter().find(|status| row["status"] == **status).unwrap();
        let truth = Truth {
            id: text(&row["id"]),
            updated_at_ms: row["updated_at"].as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond(),
            rev: row["rev"].as_i64().unwrap(),
            deleted: false,
            status,
            customer_id: text(&row["customer_id"]),
            counts: [count("a"), count("b"), count("c")],
        };
        assert_eq!(found.insert(truth.id.clone(), truth), None, "a record stands twice in a table of live rows");
    }
    found
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Plays the seeds, two at a time for each core since they wait for each other's answers, and names those that failed.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "whoever runs thousands wants to see how far they are")]
async fn play(seeds: std::ops::Range<u64>) {
    let at_a_time = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let count = seeds.end.saturating_sub(seeds.start);
    let failed: Vec<u64> = futures::stream::iter(seeds)
        .map(|seed| async move { (seed, tokio::spawn(async move { Scenario::new(seed).await.play().await }).await) })
        .buffer_unordered(at_a_time)
        .filter_map(async |(seed, played)| {
            let Err(error) = played else {
                println!("seed {seed} holds");
                return None;
            };
            eprintln!("seed {seed}: {error}");
            eprintln!("repeat: COUNTERFOIL_SEEDS={seed}..{} cargo test --test it simulation", seed + 1);
            Some(seed)
        })
        .collect()
        .await;
    println!("{count} seeds played");
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lake_equals_a_sandbox_that_drifts_ties_and_fails_for_every_seed() {
    let seeds = match std::env::var("COUNTERFOIL_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("COUNTERFOIL_SEEDS is FROM..TO");
            from.parse().unwrap()..to.parse().unwrap()
        }
        Err(_) => 10..20,
    };
    play(seeds).await;
}
