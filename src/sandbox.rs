//! A Kustomer-compatible API with a synthetic organisation, for trying, testing and measuring without an account.
//!
//! ```text
//! settings ─▶ Organisation (seed ─▶ every record) ─▶ API server  127.0.0.1:PORT   /v1/…, /sandbox/…
//!                  │                             └─▶ file server 127.0.0.1:PORT'  signed links of attachments
//!                  └─▶ oracle: what a test compares a lake with
//! ```
//!
//! It behaves as the service is documented to, or is known to by its clients: page and row limits of search with `next`
//! pointing past them, ties on `updatedAt`, an index lag, the archive's horizon, two rate limits, both error shapes. Where
//! the service's behaviour is not known, a setting chooses. It shares no decoding code with the extractor, so that a
//! mistake in one does not hide in the other. It listens on loopback only and logs no bodies.
//!
//! Besides the API there is a control endpoint, `/sandbox/…`; the header of `sandbox/control.rs` lists what it does.

mod access;
mod answers;
mod attributes;
mod bucket;
mod control;
mod conversation;
mod criteria;
mod customer;
mod definitions;
mod dice;
mod events;
mod faults;
mod ids;
mod json;
mod limits;
mod lists;
mod merges;
mod organisation;
mod rare;
mod refusal;
mod roles;
mod routes;
mod schedules;
mod search;
mod server;
mod spoil;
mod staff;
mod thread;
mod throttled;
mod ticket;
mod timeline;
mod times;
mod traffic;
mod words;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use bucket::FileFaults;
pub use faults::{Fault, Faults};
pub use organisation::{Organisation, Truth};
pub use spoil::Spoil;
pub use throttled::{RateLimitBody, RetryAfter};
pub use traffic::{Counted, Traffic};

use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::secret::SecretString;

/// What to do with a `pageSize` above the maximum; the service's behaviour is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oversize {
    /// Serve the maximum.
    #[default]
    Clamp,
    /// Answer 400.
    Refuse,
}

/// How the rate limits forget; which way the service's do is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RateWindow {
    /// All at once, at the same second of each minute.
    #[default]
    Fixed,
    /// Each request a minute after it came.
    Sliding,
}

/// What `idsOnly=true` makes of the records of a search; the service's shape is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdsOnly {
    /// Objects with `type` and `id`.
    #[default]
    Objects,
    /// The ids as texts.
    Strings,
}

/// What asking for a deleted record by its id gives; the service's behaviour is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletedById {
    /// 404.
    #[default]
    NotFound,
    /// The record, with `deleted: true`.
    Shown,
}

/// What hangs on every conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// Messages, from 1 to 2,000.
    pub messages: u32,
    /// Notes, up to 2,000.
    pub notes: u32,
    /// Files, spread over the messages, at most 100 on each.
    pub attachments: u32,
}

/// How the sandbox behaves and how large its organisation is.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a behaviour of its own")]
pub struct SandboxSettings {
    /// Port of the API on loopback; 0 (the default) takes a free one.
    pub port: u16,
    /// Conversations, 20,000 by default; they cost no memory.
    pub tickets: u64,
    /// Customers; 0 (the default) is a third of the tickets.
    pub customers: u64,
    /// What hangs on every conversation; by default that differs, with 6 messages and 2 notes at most.
    pub thread: Option<Thread>,
    /// Bytes of every attachment; by default some hundred to some ten thousand.
    pub attachment_bytes: Option<u64>,
    /// Decides every record; the same seed and start time give the same organisation.
    pub seed: u64,
    /// Requests a minute of the organisation, 1,000 by default as on the Enterprise plan.
    pub org_rpm: u32,
    /// Searches a minute of an API key, 100 by default as documented.
    pub search_rpm: u32,
    /// How the rate limits forget.
    pub window: RateWindow,
    /// The second of each minute at which a fixed window ends, 23 by default: no client starts in step with it.
    pub window_phase: Duration,
    /// Send the `x-ratelimit-…` headers; on by default, they are documented for most endpoints only.
    pub rate_limit_headers: bool,
    /// The body of a 429.
    pub rate_limit_body: RateLimitBody,
    /// The `Retry-After` of a 429.
    pub retry_after: RetryAfter,
    /// How long each answer takes besides, 0 by default; answers wait side by side.
    pub latency: Duration,
    /// Rows that one search can reach, 10,000 by default.
    pub result_window_rows: u64,
    /// Pages that one search can reach, 100 by default as documented.
    pub max_pages: u32,
    /// The largest page of a search, 500 by default as documented.
    pub largest_page_size: u64,
    /// The largest page of most lists, 100 by default as documented.
    pub largest_list_page_size: u64,
    /// The largest `meta.total` that is told, by default none; pages go on behind it.
    pub capped_totals: Option<u64>,
    /// What stands before the path of `links.next`, by default nothing; `https://host` and `//host` lead elsewhere.
    pub next_link_prefix: String,
    /// Put another organisation's id in the place of ours in all records.
    pub foreign_org: bool,
    /// Conversations, by number, that the API sends with something wrong.
    pub bad_records: BTreeMap<u64, Spoil>,
    /// What to do with a `pageSize` above the maximum.
    pub oversize: Oversize,
    /// How long search shows the old state of a changed record, 0 by default.
    pub index_lag: Duration,
    /// How long a signed link works, 600 s by default as documented.
    pub signed_link_ttl: Duration,
    /// The accepted API key; made from the seed when absent.
    pub api_key: Option<SecretString>,
    /// How long the API key works after the start, by default for ever.
    pub key_expiry: Option<Duration>,
    /// Roles that the API key and the logins lack, such as `org.user.search.read`.
    pub withheld_roles: Vec<String>,
    /// The status of an answer for want of a role: 403, the default, as newer documents say, or 401 as older ones.
    pub missing_role_status: u16,
    /// E-mail address of the login.
    pub email: String,
    /// Password of the login.
    pub password: SecretString,
    /// How long the token of a login works, 30 days by default.
    pub token_ttl: Duration,
    /// Region; tokens of other pods are refused with the service's message.
    pub pod: String,
    /// Accept `GET /v1/customers/{a,b}`; off by default, as it is not documented.
    pub several_customers: bool,
    /// Most ids of a comma-separated list, 100 by default.
    pub largest_id_list: usize,
    /// What `idsOnly=true` makes of the records of a search.
    pub ids_only: IdsOnly,
    /// What asking for a deleted conversation or customer by its id gives.
    pub deleted_by_id: DeletedById,
    /// Let a merge of customers over the control endpoint move `updatedAt` and `rev` of the conversations that change hands.
    /// Off by default, the harder of two ways that are not documented.
    pub merges_touch_conversations: bool,
    /// How far back `updated_at` reaches, by default 700 days; above 730 some records are in the archive only.
    pub history: Duration,
    /// Let hundreds of records share one `updatedAt` now and then, in an order that differs between requests; on by default.
    pub ties: bool,
    /// Sizes of groups of tickets that share one `updatedAt`, each placed where the seed says; by default none. A size above
    /// [`result_window_rows`](Self::result_window_rows) cannot be paged through.
    pub tie_sizes: Vec<u32>,
    /// Records that change just before each answer (most are touched, some tickets are deleted); 0 by default.
    pub drift: u32,
    /// Failures on purpose, by default none.
    pub faults: Faults,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        let day = Duration::from_hours(24);
        Self {
            port: 0,
            tickets: 20_000,
            customers: 0,
            thread: None,
            attachment_bytes: None,
            seed: 1,
            org_rpm: 1000,
            search_rpm: 100,
            window: RateWindow::Fixed,
            window_phase: Duration::from_secs(23),
            rate_limit_headers: true,
            rate_limit_body: RateLimitBody::Json,
            retry_after: RetryAfter::Absent,
            latency: Duration::ZERO,
            result_window_rows: 10_000,
            max_pages: 100,
            largest_page_size: 500,
            largest_list_page_size: 100,
            capped_totals: None,
            next_link_prefix: String::new(),
            foreign_org: false,
            bad_records: BTreeMap::new(),
            oversize: Oversize::Clamp,
            index_lag: Duration::ZERO,
            signed_link_ttl: Duration::from_mins(10),
            api_key: None,
            key_expiry: None,
            withheld_roles: Vec::new(),
            missing_role_status: 403,
            email: "admin@sandbox.example".to_owned(),
            password: SecretString::new("sandbox".to_owned()),
            token_ttl: 30 * day,
            pod: "prod1".to_owned(),
            several_customers: false,
            largest_id_list: 100,
            ids_only: IdsOnly::Objects,
            deleted_by_id: DeletedById::NotFound,
            merges_touch_conversations: false,
            history: 700 * day,
            ties: true,
            tie_sizes: Vec::new(),
            drift: 0,
            faults: Faults::default(),
        }
    }
}

impl Thread {
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when it is too long for the ids that number its parts.
    fn check(self, tickets: u64) -> Result<()> {
        let fits = (1..=2_000).contains(&self.messages) && self.notes <= 2_000;
        if !fits || self.attachments > self.messages * 100 || tickets > 1 << 22 {
            return Err(Error::config("the sandbox has no room for such threads")
                .with_context("tickets", tickets)
                .with_context("messages", self.messages)
                .with_context("notes", self.notes)
                .with_context("attachments", self.attachments)
                .with_hint(
                    "1 to 2,000 messages, up to 2,000 notes and 100 files a message, on 4,194,304 tickets at most",
                ));
        }
        Ok(())
    }
}

/// A running sandbox; dropping it stops the servers, [`shutdown`](Self::shutdown) also waits for them.
#[derive(Debug)]
pub struct Sandbox {
    base_url: String,
    server: Arc<server::Server>,
    files: Arc<bucket::Files>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Sandbox {
    /// Starts both servers on loopback.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the port is taken or the settings do not fit together.
    pub async fn start(settings: SandboxSettings, clock: SharedClock) -> Result<Self> {
        const MOST: u64 = 1 << 34;
        if settings.tickets > MOST || settings.customers > MOST {
            return Err(Error::config("the sandbox has room for fewer records")
                .with_context("tickets", settings.tickets)
                .with_context("customers", settings.customers)
                .with_context("most", MOST));
        }
        if let Some(role) = settings.withheld_roles.iter().find(|role| !roles::ALL.contains(&role.as_str())) {
            return Err(Error::config("no endpoint of the sandbox needs this role")
                .with_context("role", role)
                .with_hint(format!("known are {}", roles::ALL.join(", "))));
        }
        if settings.history > Duration::from_hours(20 * 366 * 24) {
            return Err(Error::config("the sandbox's history reaches back 20 years at most")
                .with_context("days", settings.history.as_secs() / 86_400));
        }
        if let Some(thread) = settings.thread {
            thread.check(settings.tickets)?;
        }
        let tied: u64 = settings.tie_sizes.iter().copied().map(u64::from).sum();
        if tied > settings.tickets {
            return Err(Error::config("the sandbox has fewer tickets than are to share a time")
                .with_context("tickets", settings.tickets)
                .with_context("tied", tied));
        }
        let api = listen(settings.port).await?;
        let listener = listen(0).await?;
        let base_url = url_of(&api)?;
        let organisation = Arc::new(Organisation::new(&settings, clock));
        let signer = Arc::new(bucket::Signer {
            url: url_of(&listener)?,
            ttl_s: i64::try_from(settings.signed_link_ttl.as_secs()).unwrap_or(i64::from(u32::MAX)),
            seed: settings.seed,
        });
        let server = Arc::new(server::Server::new(settings, Arc::clone(&organisation), Arc::clone(&signer)));
        let files = Arc::new(bucket::Files {
            organisation,
            signer,
            faults: Mutex::default(),
            requests: AtomicU64::new(0),
            with_credentials: AtomicU64::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let tasks = vec![
            tokio::spawn(serve(api, server::routes(Arc::clone(&server)), stopped.clone())),
            tokio::spawn(serve(listener, bucket::routes(Arc::clone(&files)), stopped)),
        ];
        Ok(Self { base_url, server, files, stop, tasks })
    }

    /// Returns where the API listens: `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Returns where the files of attachments are: `http://127.0.0.1:PORT`, another port.
    pub fn attachments_url(&self) -> &str {
        self.server.attachments_url()
    }

    /// Sets how the server of files fails from now on.
    pub fn fail_files(&self, faults: FileFaults) {
        *self.files.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Returns how many requests the server of files had, and how many of them came with a credential.
    pub fn file_requests(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        (count(&self.files.requests), count(&self.files.with_credentials))
    }

    /// Returns the API key that is accepted.
    pub fn api_key(&self) -> &str {
        self.server.api_key()
    }

    /// Returns the organisation: the truth that a test compares with.
    pub fn organisation(&self) -> &Organisation {
        self.server.organisation()
    }

    /// Sets how many records change just before each answer from now on.
    pub fn set_drift(&self, records: u32) {
        self.server.drift.store(records, std::sync::atomic::Ordering::Relaxed);
    }

    /// Lets the `n`-th request from now on fail, counted from 0, whatever else happens to requests; the control endpoint's
    /// do not count.
    pub fn fail_request(&self, n: u64, fault: Fault) {
        self.server.plan.of_request(self.server.received() + n, fault);
    }

    /// Lets every request of a route fail, such as `GET /v1/conversations/{id}/notes`, until it is told otherwise.
    pub fn fail_route(&self, route: &str, fault: Option<Fault>) {
        self.server.plan.of_route(route, fault);
    }

    /// Returns how many requests came, by route, such as `POST /v1/customers/search`.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.server.meter.traffic().routes
    }

    /// Returns what came since the start or the last reset, as this server counted it.
    pub fn traffic(&self) -> Traffic {
        self.server.meter.traffic()
    }

    /// Begins a new count of what comes.
    pub fn reset_traffic(&self) {
        self.server.meter.reset();
    }

    /// Stops both servers and waits until they have.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        for mut task in std::mem::take(&mut self.tasks) {
            // A connection that is kept alive must not hold the shutdown up.
            if tokio::time::timeout(Duration::from_millis(200), &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|source| {
        Error::config("failed to listen on loopback")
            .with_context("port", port)
            .with_hint("choose another port, or 0 for a free one")
            .with_source(source)
    })
}

fn url_of(listener: &TcpListener) -> Result<String> {
    let address = listener
        .local_addr()
        .map_err(|source| Error::internal("failed to read the address of a listener").with_source(source))?;
    Ok(format!("http://{address}"))
}

async fn serve(listener: TcpListener, routes: axum::Router, mut stopped: watch::Receiver<bool>) {
    let stop = async move {
        // An error means that the sandbox was dropped.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stop).await {
        tracing::warn!(%error, "a sandbox server ended");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::error::ErrorKind;

    pub(super) struct Rig {
        pub(super) sandbox: Sandbox,
        pub(super) clock: Arc<ManualClock>,
        pub(super) http: reqwest::Client,
    }

    type Check = fn(&Value) -> bool;

    pub(super) struct Answered {
        pub(super) status: u16,
        pub(super) headers: reqwest::header::HeaderMap,
        pub(super) body: Value,
    }

    pub(super) async fn rig(settings: SandboxSettings) -> Rig {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::new(now));
        let sandbox = Sandbox::start(settings, clock.clone()).await.unwrap();
        Rig { sandbox, clock, http: reqwest::Client::new() }
    }

    pub(super) fn generous(tickets: u64) -> SandboxSettings {
        SandboxSettings { tickets, org_rpm: 1_000_000, search_rpm: 1_000_000, ..SandboxSettings::default() }
    }

    impl Rig {
        pub(super) async fn send(&self, request: reqwest::RequestBuilder) -> Answered {
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let bytes = response.bytes().await.unwrap();
            Answered { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
        }

        pub(super) async fn get(&self, path: &str) -> Answered {
            let url = format!("{}{path}", self.sandbox.base_url());
            self.send(self.http.get(url).bearer_auth(self.sandbox.api_key())).await
        }

        pub(super) async fn post(&self, path: &str, body: &Value) -> Answered {
            let url = format!("{}{path}", self.sandbox.base_url());
            self.send(self.http.post(url).bearer_auth(self.sandbox.api_key()).body(body.to_string())).await
        }

        pub(super) async fn search(&self, query: &str, body: &Value) -> Answered {
            self.post(&format!("/v1/customers/search?{query}"), body).await
        }

        /// Searches conversations by criteria that must all hold; returns the total and the ids of one page of 500.
        pub(super) async fn found(&self, and: Value) -> (u64, Vec<String>) {
            let body =
                json!({"queryContext": "conversation", "and": and, "sort": [{"conversation_updated_at": "asc"}]});
            let answered = self.search("pageSize=500&idsOnly=true", &body).await;
            assert_eq!(answered.status, 200, "{}", answered.body);
            (answered.body["meta"]["total"].as_u64().unwrap(), ids(&answered.body))
        }

        pub(super) fn oracle(&self) -> &Organisation {
            self.sandbox.organisation()
        }
    }

    pub(super) fn ids(body: &Value) -> Vec<String> {
        body["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} in {value}"))
    }

    #[tokio::test]
    async fn pages_of_a_search_hold_every_conversation_in_order() {
        let rig = rig(SandboxSettings { ties: false, ..generous(2_300) }).await;
        let body = json!({"queryContext": "conversation", "sort": {"conversation_updated_at": "asc"}});
        let mut seen = Vec::new();
        for page in 1..=5 {
            let answered = rig.search(&format!("page={page}&pageSize=500"), &body).await;
            assert_eq!(answered.body["meta"]["total"], 2_300);
            assert_eq!(answered.body["meta"]["totalPages"], 5);
            assert_eq!(answered.body["links"]["next"].is_null(), page == 5);
            for row in answered.body["data"].as_array().unwrap() {
                seen.push((text(row, "/attributes/updatedAt").to_owned(), text(row, "/id").to_owned()));
                let number = rig.oracle().conversation_number(text(row, "/id")).unwrap();
                assert_eq!(*row, rig.oracle().conversation(number));
            }
        }
        assert!(seen.is_sorted_by(|left, right| left.0 <= right.0));
        let distinct: BTreeSet<_> = seen.iter().map(|(_, id)| id).collect();
        assert_eq!(distinct.len(), 2_300);
    }

    #[tokio::test]
    async fn windows_side_by_side_hold_every_record_once_whatever_their_edges() {
        let rig = rig(SandboxSettings { history: Duration::from_hours(40 * 24), ..generous(1_500) }).await;
        rig.clock.advance(Duration::from_hours(1));
        rig.oracle().touch(&rig.oracle().pick(200));
        rig.oracle().delete(&rig.oracle().pick(20));
        let end = rig.clock.now().as_millisecond() + 1;
        let start = end - 41 * 86_400_000;
        let mut dice = dice::Dice::new(11, 11, 11);
        for _ in 0..4 {
            let mut edges = vec![start, end];
            edges.extend((0..20).map(|_| start + dice.below((end - start) as u64) as i64));
            edges.sort_unstable();
            let mut seen = Vec::new();
            for window in edges.windows(2) {
                let range = json!({"gte": json::instant(window[0]), "lt": json::instant(window[1])});
                let (total, ids) = rig.found(json!([{"conversation_updated_at": range}])).await;
                assert!(total <= 500, "the window is too wide for this test: {total}");
                assert_eq!(total, ids.len() as u64);
                seen.extend(ids);
            }
            let distinct: BTreeSet<_> = seen.iter().cloned().collect();
            assert_eq!((seen.len(), distinct.len()), (1_480, 1_480));
        }
    }

    #[tokio::test]
    async fn next_points_past_limits_that_answer_400() {
        let rig = rig(generous(20_000)).await;
        let body = json!({"queryContext": "conversation"});
        for (query, served) in [
            ("page=20&pageSize=500", true),
            ("page=21&pageSize=500", false),
            ("page=100&pageSize=100", true),
            ("page=101&pageSize=100", false),
            ("page=101&pageSize=10", false),
            ("page=0", false),
            ("pageSize=x", false),
        ] {
            let answered = rig.search(query, &body).await;
            assert_eq!(answered.status, if served { 200 } else { 400 }, "{query}");
            if served {
                assert!(text(&answered.body, "/links/next").contains("page="), "{query}");
            } else {
                assert_eq!(answered.body["errors"][0]["code"], "bad_request", "{query}");
            }
        }
        assert_eq!(rig.search("pageSize=900", &body).await.body["meta"]["pageSize"], 500);
        let strict = self::rig(SandboxSettings { oversize: Oversize::Refuse, ..generous(10) }).await;
        assert_eq!(strict.search("pageSize=900", &body).await.status, 400);
    }

    #[tokio::test]
    async fn ties_hold_hundreds_and_move_between_requests() {
        let rig = rig(generous(20_000)).await;
        let timeline = &rig.oracle().ticket_times;
        let size = |rank| timeline.run(rank).1 - timeline.run(rank).0;
        let rank = (0..20_000).find(|rank| (200..500).contains(&size(*rank))).unwrap();
        let time = json::instant(timeline.updated(rank));
        let (total, first) = rig.found(json!([{"conversation_updated_at": {"equals": time}}])).await;
        let (_, second) = rig.found(json!([{"conversation_updated_at": {"equals": time}}])).await;
        assert_eq!((total, first.len() as u64), (size(rank), size(rank)));
        assert!(first != second, "the order did not move");
        assert!(first.iter().collect::<BTreeSet<_>>() == second.iter().collect::<BTreeSet<_>>());
    }

    #[tokio::test]
    async fn criteria_agree_with_the_records() {
        let rig = rig(generous(600)).await;
        let all: Vec<Value> = (0..600).map(|number| rig.oracle().conversation(number)).collect();
        let cases: [(Value, Check); 8] = [
            (json!({"and": {"conversation_status": {"equals": "open"}}}), |row| row["attributes"]["status"] == "open"),
            (json!({"not": {"conversation_status": {"in": ["open", "snoozed"]}}}), |row| {
                row["attributes"]["status"] == "done"
            }),
            (
                json!({"or": [{"conversation_status": {"equals": "open"}}, {"conversation_priority": {"gte": 5}}]}),
                |row| row["attributes"]["status"] == "open" || row["attributes"]["priority"] == 5,
            ),
            (json!({"and": [{"conversation_sla_breached": {"equals": true}}]}), |row| {
                row["attributes"]["sla"]["breached"] == true
            }),
            (json!({"and": [{"conversation_custom_tierStr": {"equals": "vip"}}]}), |row| {
                row["attributes"]["custom"]["tierStr"] == "vip"
            }),
            (json!({"and": [{"conversation_satisfaction_rating": {"lt": 4}}]}), |row| {
                row["attributes"]["satisfactionLevel"]["rating"].as_i64().is_some_and(|rating| rating < 4)
            }),
            (json!({"and": [{"conversation_assigned_users": {"not_set": ""}}]}), |row| {
                row["attributes"]["assignedUsers"].as_array().unwrap().is_empty()
            }),
            (json!({"and": [{"conversation_name": {"contains": "Refund"}}]}), |row| {
                row["attributes"]["name"].as_str().is_some_and(|name| name.contains("Refund"))
            }),
        ];
        for (mut body, check) in cases {
            let expected: BTreeSet<String> =
                all.iter().filter(|row| check(row)).map(|row| text(row, "/id").to_owned()).collect();
            assert!(!expected.is_empty() && expected.len() < 600, "{body} tells nothing apart");
            body["queryContext"] = json!("conversation");
            let mut found = BTreeSet::new();
            for page in 1..=2 {
                found.extend(ids(&rig.search(&format!("page={page}&pageSize=500"), &body).await.body));
            }
            assert_eq!(found, expected, "{body}");
        }
    }

    #[tokio::test]
    async fn wrong_searches_are_refused() {
        let rig = rig(generous(10)).await;
        for body in [
            json!([]),
            json!({"queryContext": "conversation", "page": 2}),
            json!({"queryContext": "kitten"}),
            json!({"queryContext": "conversation", "and": [{"conversation_mood": {"equals": "x"}}]}),
            json!({"queryContext": "conversation", "and": [{"customer_name": {"equals": "x"}}]}),
            json!({"queryContext": "conversation", "and": [{"conversation_status": {"gt": "open"}}]}),
            json!({"queryContext": "conversation", "and": [{"conversation_status": {"equals": "ajar"}}]}),
            json!({"queryContext": "conversation", "and": [{"conversation_updated_at": {"gt": "yesterday"}}]}),
            json!({"queryContext": "conversation", "sort": [{"conversation_preview": "asc"}]}),
            json!({"queryContext": "conversation", "and": vec![json!({"conversation_priority": {"gt": 1}}); 21]}),
        ] {
            let answered = rig.search("", &body).await;
            assert_eq!(answered.status, 400, "{body}");
            assert!(answered.body["errors"][0]["message"].is_string(), "{}", answered.body);
        }
        let url = format!("{}/v1/customers/search", rig.sandbox.base_url());
        for (body, status) in [("{\"and\":".to_owned(), 400), ("x".repeat(100_001), 413)] {
            let broken = rig.send(rig.http.post(&url).bearer_auth(rig.sandbox.api_key()).body(body)).await;
            assert_eq!(broken.status, status);
            assert!(broken.body["errors"][0]["code"].is_string());
        }
    }

    #[tokio::test]
    async fn touched_records_move_and_search_sees_them_after_the_lag() {
        let rig = rig(SandboxSettings { index_lag: Duration::from_mins(1), ..generous(500) }).await;
        rig.clock.advance(Duration::from_mins(10));
        let number = 123;
        let before = rig.oracle().conversation(number);
        let id = text(&before, "/id").to_owned();
        let moment = json::instant(rig.clock.now().as_millisecond());
        rig.oracle().touch(&[number]);
        let changed = json!([{"conversation_updated_at": {"gte": moment}}]);
        assert_eq!(rig.found(changed.clone()).await.0, 0);
        let live = rig.get(&format!("/v1/conversations/{id}")).await.body;
        assert_eq!(text(&live, "/data/attributes/updatedAt"), moment);
        assert_ne!(live["data"]["attributes"]["status"], before["attributes"]["status"]);
        let rev = |object: &Value| object["attributes"]["rev"].as_i64().unwrap();
        assert_eq!(rev(&live["data"]), rev(&before) + 1);
        let (total, _) = rig.found(json!([])).await;
        assert_eq!(total, 500);
        rig.clock.advance(Duration::from_secs(61));
        assert_eq!(rig.found(changed).await, (1, vec![id]));
        assert_eq!(rig.found(json!([])).await.0, 500);
        let customers = json!({"queryContext": "customer", "and": [{"customer_updated_at": {"gte": moment}}]});
        assert_eq!(rig.search("", &customers).await.body["meta"]["total"], 1);
    }

    #[tokio::test]
    async fn deleted_records_show_only_when_asked_for() {
        let rig = rig(generous(300)).await;
        let id = text(&rig.oracle().conversation(7), "/id").to_owned();
        let deleted = rig.post("/sandbox/delete", &json!({"ids": [id]})).await;
        assert_eq!(deleted.body["count"], 1);
        assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.status, 404);
        let body = |include: bool| json!({"queryContext": "conversation", "includeDeleted": include});
        let shown = rig.search("pageSize=500", &body(true)).await.body;
        let hidden = rig.search("pageSize=500", &body(false)).await.body;
        assert_eq!((shown["meta"]["total"].as_u64(), hidden["meta"]["total"].as_u64()), (Some(300), Some(299)));
        let row = shown["data"].as_array().unwrap().iter().find(|row| row["id"] == id.as_str()).unwrap();
        assert_eq!(row["attributes"]["deleted"], true);
        let mut listed = Vec::new();
        for page in 1..=3 {
            listed.extend(ids(&rig.get(&format!("/v1/conversations/?page={page}")).await.body));
        }
        assert_eq!(listed.len(), 299);
        assert!(listed.is_sorted() && !listed.contains(&id));
    }

    #[tokio::test]
    async fn last_conversation_of_a_customer_is_never_a_deleted_one() {
        let rig = rig(generous(100)).await;
        let customer = |number| rig.oracle().customer(number)["attributes"].clone();
        let mut deleted = 0;
        while let Some(id) = customer(0)["lastConversation"]["id"].as_str().map(str::to_owned) {
            rig.oracle().delete(&[rig.oracle().conversation_number(&id).unwrap()]);
            deleted += 1;
            assert_ne!(customer(0)["lastConversation"]["id"], id);
        }
        assert!(deleted > 0);
        assert_eq!(customer(0)["conversationCounts"]["all"], 0);
    }

    #[tokio::test]
    async fn archive_search_sees_what_search_does_not() {
        let rig = rig(SandboxSettings { history: Duration::from_hours(1000 * 24), ..generous(800) }).await;
        let body = json!({"queryContext": "conversation", "sort": [{"conversation_updated_at": "asc"}]});
        let young = rig.search("pageSize=1", &body).await.body;
        let old = rig.post("/v1/customers/archive/search?pageSize=1", &body).await.body;
        let (young_total, old_total) =
            (young["meta"]["total"].as_u64().unwrap(), old["meta"]["total"].as_u64().unwrap());
        assert_eq!(young_total + old_total, 800);
        assert!(old_total > 50 && young_total > 50);
        assert!(text(&young, "/data/0/attributes/updatedAt") >= "2024-11-22");
        assert!(text(&old, "/links/self").starts_with("/v1/customers/archive/search?"));
        let filtered = json!({"queryContext": "conversation", "and": [{"conversation_status": {"equals": "open"}}]});
        assert_eq!(rig.post("/v1/customers/archive/search", &filtered).await.status, 400);
    }

    #[tokio::test]
    async fn limits_show_in_headers_and_then_refuse() {
        let rig = rig(SandboxSettings { org_rpm: 5, search_rpm: 2, tickets: 10, ..SandboxSettings::default() }).await;
        let header = |answered: &Answered, name: &str| answered.headers[name].to_str().unwrap().parse::<i64>().unwrap();
        let body = json!({});
        let first = rig.search("", &body).await;
        assert_eq!(header(&first, "x-ratelimit-limit"), 2);
        assert_eq!(header(&first, "x-ratelimit-remaining"), 1);
        assert_eq!(header(&first, "x-ratelimit-reset"), rig.clock.now().as_second() + 23);
        rig.search("", &body).await;
        let refused = rig.search("", &body).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (429, &json!("rate_limit_exceeded")));
        let other = rig.get("/v1/tags").await;
        assert_eq!(
            (other.status, header(&other, "x-ratelimit-limit"), header(&other, "x-ratelimit-remaining")),
            (200, 5, 1)
        );
        rig.get("/v1/tags").await;
        assert_eq!(rig.get("/v1/tags").await.status, 429);
        rig.clock.advance(Duration::from_mins(1));
        assert_eq!(rig.search("", &body).await.status, 200);
        assert_eq!(rig.sandbox.requests()["POST /v1/customers/search"], 4);
        let login = json!({"email": "admin@sandbox.example", "password": "sandbox"});
        let made = rig.post("/v1/auth/tokens", &login).await;
        let url = format!("{}/v1/customers/search", rig.sandbox.base_url());
        for remaining in [2, 1, 0] {
            let token = text(&made.body, "/data/attributes/token");
            let answered = rig.send(rig.http.post(&url).bearer_auth(token).body("{}")).await;
            assert_eq!((answered.status, header(&answered, "x-ratelimit-limit")), (200, 5));
            assert_eq!(header(&answered, "x-ratelimit-remaining"), remaining);
        }
    }

    #[tokio::test]
    async fn sliding_window_and_latency_are_those_of_the_settings() {
        let settings = SandboxSettings {
            search_rpm: 1,
            window: RateWindow::Sliding,
            latency: Duration::from_secs(1),
            ..generous(10)
        };
        let rig = rig(settings).await;
        let start = rig.clock.now().as_second();
        assert_eq!(rig.search("", &json!({})).await.status, 200);
        assert_eq!(rig.clock.now().as_second(), start + 1);
        rig.clock.advance(Duration::from_secs(57));
        assert_eq!(rig.search("", &json!({})).await.status, 429);
        rig.get("/sandbox/state").await;
        rig.clock.advance(Duration::from_secs(1));
        assert_eq!(rig.search("", &json!({})).await.status, 200);
        assert_eq!(rig.clock.now().as_second(), start + 61);
    }

    #[tokio::test]
    async fn only_good_credentials_open_the_api() {
        let rig = rig(SandboxSettings { token_ttl: Duration::from_secs(100), ..generous(10) }).await;
        let current = format!("{}/v1/auth/tokens/current/", rig.sandbox.base_url());
        assert_eq!(rig.send(rig.http.get(&current)).await.status, 401);
        assert_eq!(rig.send(rig.http.get(&current).bearer_auth("nonsense")).await.status, 401);
        let abroad = self::rig(SandboxSettings { pod: "prod2".to_owned(), ..generous(10) }).await;
        let refused = rig.send(rig.http.get(&current).bearer_auth(abroad.sandbox.api_key())).await;
        assert_eq!(refused.status, 401);
        assert_eq!(
            text(&refused.body, "/errors/0/message"),
            "Auth token associated with pod prod2 but request is being handled by prod1"
        );
        let login = |password: &str| json!({"email": "admin@sandbox.example", "password": password});
        assert_eq!(rig.post("/v1/auth/tokens", &login("guess")).await.status, 401);
        let made = rig.post("/v1/auth/tokens", &login("sandbox")).await;
        assert_eq!(made.status, 201);
        let token = text(&made.body, "/data/attributes/token");
        assert_eq!(rig.send(rig.http.get(&current).bearer_auth(token)).await.status, 200);
        let ask = async |path: &str| {
            rig.send(rig.http.get(format!("{}{path}", rig.sandbox.base_url())).bearer_auth(token)).await.body
        };
        let person = rig.oracle().user(0);
        assert_eq!(person["attributes"]["email"], "admin@sandbox.example");
        assert_eq!(ask("/v1/users/current").await["data"], person);
        assert_eq!(ask("/v1/auth/tokens/current").await["data"]["relationships"]["user"]["data"]["id"], person["id"]);
        assert_eq!(rig.get("/v1/users/current").await.body["data"]["attributes"]["userType"], "machine");
        rig.clock.advance(Duration::from_secs(100));
        let expired = rig.send(rig.http.get(&current).bearer_auth(token)).await;
        assert_eq!((expired.status, text(&expired.body, "/errors/0/message")), (401, "Expired token"));
    }

    #[tokio::test]
    async fn errors_have_the_shape_of_their_endpoint() {
        let rig = rig(generous(10)).await;
        let unknown = "5dce2a9500520400149dc607";
        let conversation = rig.get(&format!("/v1/conversations/{unknown}")).await;
        assert_eq!((conversation.status, &conversation.body["errors"][0]["status"]), (404, &json!(404)));
        assert!(conversation.body["errors"][0]["title"].is_string());
        let customer = rig.get(&format!("/v1/customers/{unknown}")).await;
        assert_eq!((customer.status, &customer.body["errors"][0]["meta"]), (404, &json!({})));
        assert_eq!(rig.get("/v1/conversations/abc").await.status, 400);
        assert_eq!(rig.get("/v1/kittens").await.status, 404);
        assert_eq!(rig.post("/v1/tags", &json!({})).await.status, 405);
    }

    #[tokio::test]
    async fn counts_of_customers_are_those_of_their_conversations() {
        let rig = rig(generous(900)).await;
        rig.oracle().touch(&rig.oracle().pick(40));
        rig.oracle().delete(&rig.oracle().pick(10));
        let mut expected = std::collections::BTreeMap::<String, [u64; 3]>::new();
        for number in 0..900 {
            let row = rig.oracle().conversation(number);
            if row["attributes"]["deleted"] == true {
                continue;
            }
            let counts = expected.entry(text(&row, "/relationships/customer/data/id").to_owned()).or_default();
            counts
                [["open", "snoozed", "done"].iter().position(|name| row["attributes"]["status"] == *name).unwrap()] +=
                1;
        }
        let mut largest = 0;
        for number in 0..rig.oracle().customers() {
            let row = rig.oracle().customer(number);
            let [open, snoozed, done] = expected.remove(text(&row, "/id")).unwrap_or_default();
            let counts = json!({"all": open + snoozed + done, "open": open, "snoozed": snoozed, "done": done});
            assert_eq!(row["attributes"]["conversationCounts"], counts);
            largest = largest.max(open + snoozed + done);
        }
        assert!(expected.is_empty());
        assert!(largest >= 30, "no customer has many conversations: {largest}");
    }

    #[tokio::test]
    async fn attachments_open_with_their_link_until_it_expires() {
        let rig = rig(generous(200)).await;
        let mut links = Vec::new();
        for number in 0..40 {
            let id = text(&rig.oracle().conversation(number), "/id").to_owned();
            let plain = rig.get(&format!("/v1/conversations/{id}/attachments")).await.body;
            let messages = rig.get(&format!("/v1/conversations/{id}/messages?include=attachments")).await.body;
            assert_eq!(plain["meta"], json!({}));
            assert_eq!(plain["data"].as_array().unwrap().len(), messages["included"].as_array().unwrap().len());
            assert!(plain["data"].as_array().unwrap().iter().all(|row| row["id"].is_null()));
            links.extend(messages["included"].as_array().unwrap().iter().cloned());
        }
        let attachment = &links[0];
        let one = rig.get(text(attachment, "/links/self")).await;
        assert_eq!(one.body["data"]["id"], attachment["id"]);
        assert_eq!(rig.get(&format!("/v1/attachments/{}", text(attachment, "/id"))).await.status, 200);
        let link = text(attachment, "/links/related");
        assert!(link.starts_with(rig.sandbox.attachments_url()) && !link.starts_with(rig.sandbox.base_url()));
        let file = rig.http.get(link).send().await.unwrap();
        assert_eq!(file.status(), 200);
        assert_eq!(
            file.bytes().await.unwrap().len() as u64,
            attachment["attributes"]["contentLength"].as_u64().unwrap()
        );
        assert_eq!(rig.send(rig.http.get(link).bearer_auth("x")).await.status, 400);
        assert_eq!(rig.send(rig.http.get(link.replace("Expires=600", "Expires=900"))).await.status, 403);
        rig.clock.advance(Duration::from_mins(10));
        assert_eq!(rig.send(rig.http.get(link)).await.status, 403);
    }

    #[tokio::test]
    async fn ten_million_conversations_start_at_once_and_serve_any_window() {
        let rig = rig(generous(10_000_000)).await;
        let middle = rig.oracle().conversation(7_654_321);
        let id = text(&middle, "/id");
        assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.body["data"], middle);
        let from = text(&middle, "/attributes/updatedAt");
        let body = json!({"queryContext": "conversation", "and": [{"conversation_updated_at": {"gte": from}}],
            "sort": [{"conversation_updated_at": "asc"}]});
        let page = rig.search("page=20&pageSize=500", &body).await.body;
        assert_eq!(page["data"].as_array().unwrap().len(), 500);
        assert!(page["meta"]["total"].as_u64().unwrap() > 2_000_000);
        let deep = rig.get("/v1/conversations?page=99999&pageSize=100").await.body;
        assert_eq!(deep["data"].as_array().unwrap().len(), 100);
    }

    #[tokio::test]
    async fn ids_lead_back_to_their_records_and_several_can_be_asked() {
        let rig = rig(SandboxSettings { several_customers: true, ..generous(400) }).await;
        let rows: Vec<String> =
            (0..3).map(|number| text(&rig.oracle().conversation(number * 100), "/id").to_owned()).collect();
        for (place, id) in rows.iter().enumerate() {
            assert_eq!(rig.oracle().conversation_number(id), Some(place as u64 * 100));
        }
        let several = rig.get(&format!("/v1/conversations/{}", rows.join(","))).await;
        assert_eq!(ids(&several.body), rows);
        assert_eq!(rig.get(&format!("/v1/conversations/{}", rows.join("%2C"))).await.body, several.body);
        for path in ["/v1/conversations/externalId=x", "/v1/customers/email=a@b.example", "/v1/messages/externalid=:x"]
        {
            assert_eq!(rig.get(path).await.status, 404, "{path}");
        }
        let customers: Vec<String> =
            (0..2).map(|number| text(&rig.oracle().customer(number), "/id").to_owned()).collect();
        assert_eq!(ids(&rig.get(&format!("/v1/customers/{}", customers.join(","))).await.body), customers);
        assert_eq!(rig.get(&format!("/v1/conversations/{}", vec![rows[0].as_str(); 101].join(","))).await.status, 400);
        let owned = rig.get(&format!("/v1/customers/{}/conversations", customers[0])).await.body;
        let all = rig.oracle().customer(0)["attributes"]["conversationCounts"]["all"].as_u64().unwrap();
        assert_eq!(owned["data"].as_array().unwrap().len() as u64, all);
        let mut messages = Vec::new();
        for row in owned["data"].as_array().unwrap() {
            let number = rig.oracle().conversation_number(text(row, "/id")).unwrap();
            messages.extend(rig.oracle().messages(number));
            for note in rig.oracle().notes(number) {
                assert_eq!(rig.get(text(&note, "/links/self")).await.body["data"], note);
            }
        }
        let link = text(&rig.oracle().customer(0), "/relationships/messages/links/self").to_owned();
        assert_eq!(rig.get(&link).await.body["data"], Value::from(messages));
    }

    #[tokio::test]
    async fn messages_and_notes_agree_with_the_counts_and_page() {
        let rig = rig(generous(60)).await;
        let mut shapes = BTreeSet::new();
        for number in 0..60 {
            let row = rig.oracle().conversation(number);
            let id = text(&row, "/id");
            let messages = rig.oracle().messages(number);
            assert_eq!(Some(messages.len() as u64), row["attributes"]["messageCount"].as_u64());
            let outbound = messages.iter().filter(|message| message["attributes"]["direction"] == "out").count();
            assert_eq!(Some(outbound as u64), row["attributes"]["outboundMessageCount"].as_u64());
            let mut paged = Vec::new();
            let mut next = Some(format!("/v1/conversations/{id}/messages?pageSize=2"));
            while let Some(path) = next {
                let page = rig.get(&path).await.body;
                paged.extend(page["data"].as_array().unwrap().iter().cloned());
                next = page["links"]["next"].as_str().map(str::to_owned);
            }
            assert_eq!(paged, messages);
            for message in &messages {
                let to = &message["attributes"]["meta"]["to"];
                shapes.insert((to.is_array(), to.is_object(), to.is_string()));
            }
            let notes = rig.get(&format!("/v1/conversations/{id}/notes/")).await.body;
            assert_eq!(
                notes["data"].as_array().unwrap().len() as u64,
                row["attributes"]["noteCount"].as_u64().unwrap()
            );
            assert_eq!(row["attributes"]["preview"], messages.last().unwrap()["attributes"]["preview"]);
        }
        assert_eq!(shapes.len(), 3, "meta.to is a list, an object and a text");
    }

    #[tokio::test]
    async fn collections_are_complete_and_needles_are_in_the_records() {
        let rig = rig(generous(100)).await;
        let oracle = rig.oracle();
        for (path, expected) in [
            ("/v1/users?pageSize=500", oracle.users()),
            ("/v1/teams?pageSize=500", oracle.teams()),
            ("/v1/tags", oracle.tags()),
            ("/v1/routing/queues", oracle.queues()),
            ("/v1/brands", oracle.brands()),
            ("/v1/slas", oracle.slas()),
        ] {
            assert_eq!(rig.get(path).await.body["data"], Value::from(expected), "{path}");
        }
        assert_eq!(ids(&rig.get("/v1/tags?deleted=false").await.body).len(), oracle.tags().len() - 1);
        let users = rig.get("/v1/users?deleted=false&pageSize=500").await.body;
        assert!(ids(&users).len() < oracle.users().len());
        assert!(users["data"].as_array().unwrap().iter().all(|user| user["attributes"]["deletedAt"].is_null()));
        assert_eq!(ids(&rig.get("/v1/users?userType=machine").await.body).len(), 2);
        assert_eq!(ids(&rig.get("/v1/users?userType=user").await.body).len() + 2, oracle.users().len());
        assert_eq!(rig.get("/v1/users?userType=kitten").await.status, 400);
        assert_eq!(rig.get("/v1/brands/default").await.body["data"], oracle.brands()[0]);
        let definitions = rig.get("/v1/metadata/conversation").await.body;
        assert_eq!(definitions["data"]["attributes"]["properties"]["orderNum"]["type"], "number");
        assert_eq!(rig.get("/v1/metadata/kitten").await.status, 404);
        for number in 0..100 {
            let row = oracle.conversation(number);
            let customer = rig.get(text(&row, "/relationships/customer/links/self")).await.body;
            let users = Value::from(oracle.users());
            let haystack = format!("{row}{customer}{users}").replace("\\\"", "\"");
            for needle in oracle.needles(number) {
                assert!(needle.len() >= 8, "{needle}");
                // Telephone number and database id are not on every record; all others are.
                let optional = needle.starts_with('+') || needle.starts_with("crm-");
                assert!(optional || haystack.contains(&needle), "{needle}");
            }
        }
    }

    #[tokio::test]
    async fn payloads_mix_absent_null_empty_and_full() {
        let rig = rig(generous(400)).await;
        let rows: Vec<Value> = (0..400).map(|number| rig.oracle().conversation(number)).collect();
        let bytes: usize = rows.iter().map(|row| row.to_string().len()).sum();
        assert!((2_500..5_500).contains(&(bytes / 400)), "{} bytes a record", bytes / 400);
        let has = |check: fn(&Value) -> bool| rows.iter().filter(|row| check(&row["attributes"])).count();
        assert!(has(|row| row.get("custom").is_none()) > 0);
        assert!(has(|row| row["custom"] == json!({})) > 0);
        assert!(has(|row| row["sentiment"] == json!({})) > 0);
        assert!(
            has(|row| row["firstResponse"] == json!({"createdByTeams": [], "assignedTeams": [], "assignedUsers": []}))
                > 0
        );
        assert!(has(|row| row.get("sla").is_none()) > 0);
        assert!(has(|row| row.get("sla").is_some_and(Value::is_null)) > 0);
        assert!(has(|row| row.get("snooze").is_some_and(Value::is_null)) > 0);
        assert!(has(|row| row["name"].is_null()) > 0);
        assert!(has(|row| row["custom"]["tierStr"] == "vip" && row["reopenCount"].as_i64() >= Some(1)) > 0);
        assert!(has(|row| row["sla"]["breached"] == true) > 10);
        for row in &rows {
            let attributes = &row["attributes"];
            assert!(text(attributes, "/createdAt") <= text(attributes, "/updatedAt"));
            let metric = &attributes["sla"]["metrics"]["firstResponse"];
            assert!(metric.is_null() || attributes["direction"] == "in");
            let waits = attributes["status"] != "done" && metric["satisfiedAt"].is_null();
            let due = metric["breachAt"].as_str().filter(|_| waits);
            // The history ends a quarter of an hour before the clock's time.
            if let Some(due) = due {
                assert_eq!(attributes["sla"]["breached"], due < "2026-11-22T11:45:00.000Z", "{due}");
            }
        }
    }

    #[tokio::test]
    async fn faults_happen_as_asked() {
        let rig =
            rig(SandboxSettings { faults: "503:0.3,truncate:0.3,timed_out:0.4".parse().unwrap(), ..generous(100) })
                .await;
        let mut seen = BTreeSet::new();
        for _ in 0..60 {
            let answered = rig.search("", &json!({"queryContext": "conversation"})).await;
            seen.insert(match (answered.status, &answered.body) {
                (503, _) => "503",
                (200, Value::Null) => "truncated",
                (200, body) if body["meta"]["timed_out"] == true => "timed out",
                _ => "good",
            });
        }
        assert_eq!(seen, BTreeSet::from(["503", "timed out", "truncated"]));
        let rig = self::rig(SandboxSettings { faults: "reset:1".parse().unwrap(), ..generous(10) }).await;
        let url = format!("{}/v1/tags", rig.sandbox.base_url());
        let response = rig.http.get(url).bearer_auth(rig.sandbox.api_key()).send().await;
        assert!(match response {
            Ok(response) => response.bytes().await.is_err(),
            Err(_) => true,
        });
    }

    #[tokio::test]
    async fn bad_answers_look_like_those_of_proxies_and_overloaded_servers() {
        let faulty = |faults: &str| SandboxSettings { faults: faults.parse().unwrap(), ..generous(100) };
        let body = json!({"queryContext": "conversation"});
        let garbled = self::rig(faulty("garbled:1")).await.search("", &body).await;
        assert_eq!((garbled.status, garbled.body), (200, Value::Null));
        let html = self::rig(faulty("html:1")).await.search("", &body).await;
        assert_eq!((html.status, html.headers["content-type"].to_str().unwrap()), (200, "text/html"));
        let at_once = self::rig(faulty("retry_at_once:1")).await.search("", &body).await;
        assert_eq!((at_once.status, at_once.headers["retry-after"].to_str().unwrap()), (429, "0"));
        let short = self::rig(faulty("short:1")).await.search("pageSize=100", &body).await;
        assert_eq!(short.body["meta"]["total"], 100);
        assert!((50..100).contains(&ids(&short.body).len()));

        let rig = self::rig(faulty("stall:1")).await;
        let url = format!("{}/v1/tags", rig.sandbox.base_url());
        let request = rig.http.get(url).bearer_auth(rig.sandbox.api_key()).timeout(Duration::from_millis(200));
        assert!(request.send().await.unwrap().bytes().await.unwrap_err().is_timeout());
    }

    #[tokio::test]
    async fn drift_changes_records_at_each_request_until_it_is_stopped() {
        let rig = rig(SandboxSettings { drift: 3, ..generous(400) }).await;
        let start = rig.clock.now().as_millisecond();
        let changed = || {
            let tickets = (0..400).map(|number| rig.oracle().ticket_truth(number));
            let customers = (0..133).map(|number| rig.oracle().customer_truth(number));
            let (mut changed, mut deleted) = (0, 0);
            for truth in tickets.chain(customers).filter(|truth| truth.updated_at_ms >= start) {
                (changed, deleted) = (changed + 1, deleted + u64::from(truth.deleted));
            }
            (changed, deleted)
        };
        for _ in 0..60 {
            rig.get("/v1/tags").await;
        }
        let (touched, deleted) = changed();
        assert!(touched > 150 && (4..30).contains(&deleted), "{touched} changed, {deleted} deleted");
        rig.sandbox.set_drift(0);
        rig.get("/v1/tags").await;
        assert_eq!(changed(), (touched, deleted));
        for number in 0..400 {
            let (truth, record) = (rig.oracle().ticket_truth(number), rig.oracle().conversation(number));
            let attributes = &record["attributes"];
            assert_eq!((&record["id"], &attributes["rev"]), (&json!(truth.id), &json!(truth.rev)));
            assert_eq!(attributes["updatedAt"], json::instant(truth.updated_at_ms));
            assert_eq!((&attributes["status"], attributes["deleted"] == true), (&json!(truth.status), truth.deleted));
        }
        for number in 0..133 {
            let (truth, record) = (rig.oracle().customer_truth(number), rig.oracle().customer(number));
            let counts = &record["attributes"]["conversationCounts"];
            assert_eq!(json!(truth.counts), json!([counts["open"], counts["snoozed"], counts["done"]]));
            assert_eq!(record["attributes"]["rev"], json!(truth.rev));
        }
    }

    #[tokio::test]
    async fn port_in_use_is_a_configuration_error_and_secrets_are_not_printed() {
        let rig = rig(generous(10)).await;
        let port = rig.sandbox.base_url().rsplit(':').next().unwrap().parse().unwrap();
        let settings = SandboxSettings { port, ..generous(10) };
        assert!(!format!("{settings:?}").contains("\"sandbox\""));
        let error = Sandbox::start(settings, rig.clock.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{:?}", rig.sandbox).contains(rig.sandbox.api_key()));
        rig.sandbox.shutdown().await;
    }
}
