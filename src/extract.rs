//! One run of extraction: plan ranges, walk them, redact, append, prove, commit.
//!
//! ```text
//! watermark ─▶ ranges ─▶ segments ─▶ pages ─▶ redact ─▶ append ─▶ prove ─▶ commit (rows + watermark)
//!     ▲                                                                      │
//!     └──────────────────── run again after any failure ◀────────────────────┘
//! ```
//!
//! A run may be repeated: the watermark moves in the same commit as the rows, and only over what was proven. What is
//! walked and not yet proven is walked again after a crash; the lake leaves out what it has already. Dropping the future
//! of [`run`] at any moment is safe for the same reason.
//!
//! Streams go one after the other: small streams (whole, those that are due), customers, tickets, times spent on tickets;
//! definitions of custom attributes before the stream that has them. Then, if asked for, all ids are reconciled with the
//! source's, and the tickets of merged customers are followed. Within an incremental stream, segments are walked side by side,
//! so that the budget and not the latency is the limit.

mod attributes;
mod caps;
mod commit;
mod event;
mod lookup;
mod merges;
mod pages;
mod plan;
pub mod price;
mod prove;
mod reading;
mod reconcile;
mod report;
mod seen;
mod segments;
mod small;
mod sweep;
mod ties;
mod walk;

pub use self::event::{Event, NoProgress, Progress};
pub use self::report::Left;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::clock::SharedClock;
use crate::error::{Error, ErrorKind, Result};
use crate::extract::caps::Caps;
use crate::extract::commit::Committer;
use crate::extract::pages::SearchPages;
use crate::extract::plan::{HORIZON, Plan, RangeSet, millis};
use crate::extract::price::{Model, Price};
use crate::extract::segments::Segment;
use crate::extract::small::Unread;
use crate::extract::walk::{Forked as _, Limits, PageQuery, PageSource as _};
use crate::kustomer::{Client, Endpoint, Ledger, SearchObject};
use crate::lake::manifest::{Manifest, Watermark};
use crate::lake::quarantine::Seen;
use crate::lake::run::{RunRecord, StreamRun};
use crate::lake::{Lake, Lease, Purpose, Survey};
use crate::model::{ObjectId, Stream};
use crate::policy::{Decoder, Definitions, Policy, Quarantined, RuleChange, compare};
use crate::retry::SplitMix64;
use crate::secret::PseudonymKeys;

/// The lease is extended this often, well within its duration.
const LEASE_RENEWAL: Duration = Duration::from_secs(30);

/// Bounds of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractSettings {
    /// Records of a search page at most, and 500 (the API's limit) at most; fewer cost more requests. What the source allows
    /// is learned within that, and remembered in the lake.
    pub page_size: u32,
    /// The last stretch before now that is left to the next run, because the search index lags behind; 2 minutes, since
    /// lags of tens of seconds were seen. Longer means older figures.
    pub index_lag: Duration,
    /// How far a run reaches back before the watermark; 5 minutes. Longer costs repeated records, which are not stored twice.
    pub overlap: Duration,
    /// Segments walked side by side; 4. More hide latency until the budget is the limit, and hold more pages in memory.
    pub concurrency: usize,
    /// A segment with more records than this is split while workers are idle; each split costs about two requests.
    pub segment_rows: u64,
    /// Rows that wait for a commit at most; they are held in memory.
    pub commit_rows: u64,
    /// Bytes of rows that wait for a commit at most; 10 MiB, about 4,000 tickets. More make fewer and larger files, and take
    /// about three times as much memory.
    pub commit_bytes: usize,
    /// First `updated_at` of a first run; everything when absent.
    pub since: Option<Timestamp>,
    /// End of the range; now less the index lag when absent or later than that.
    pub until: Option<Timestamp>,
    /// Walks everything again, whatever the watermark says.
    pub full: bool,
    /// Compares all ids with the source's after the walk, and mends what differs; a request per 480 records.
    pub reconcile: bool,
    /// Stops the run at a commit after this many requests.
    pub max_requests: Option<u64>,
    /// Rows that paging is tried for at most; 50,000, since 100 pages of 500 are documented. What the source allows is learned
    /// within that (10,000 is what the search engine behind the API allows by default), and remembered in the lake.
    pub result_window_rows: u64,
    /// Pages of one search that are tried at most; 100 is documented.
    pub max_pages: u32,
    /// Small streams (agents, teams, tags and the like) are read again when they were last read this long ago; one hour,
    /// so that a run every few minutes does not repeat half a dozen lists that hardly change. Longer saves requests, and
    /// leaves the names of new agents and tags unknown for longer; 0 reads them at each run.
    pub small_every: Duration,
}

impl Default for ExtractSettings {
    fn default() -> Self {
        Self {
            page_size: 500,
            index_lag: Duration::from_mins(2),
            overlap: Duration::from_mins(5),
            concurrency: 4,
            segment_rows: 25_000,
            commit_rows: 50_000,
            commit_bytes: 10 << 20,
            since: None,
            until: None,
            full: false,
            reconcile: false,
            max_requests: None,
            result_window_rows: 50_000,
            max_pages: 100,
            small_every: Duration::from_hours(1),
        }
    }
}

/// What a run did and what it cost.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// The record that the lake keeps, with the figures per stream.
    pub run: RunRecord,
    /// Requests and waits of this run.
    pub ledger: Ledger,
    /// Requests of every kind per 100 distinct tickets received; of the run as a whole when it received none.
    pub requests_per_100_tickets: f64,
    /// Whether every stream is proven complete.
    pub complete: bool,
    /// Fields that were seen and not declared, by stream.
    pub quarantine: Vec<(Stream, Quarantined)>,
    /// Streams walked by search that the run did not come to.
    pub unreached: Vec<Stream>,
    /// What has changed in the policy since the lake was written last, as far as the lake has the former rules.
    pub policy_changes: Vec<RuleChange>,
    /// How what is stored stands to the policy after the run.
    pub survey: Survey,
}

impl RunReport {
    /// Returns the report of a complete run.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Incomplete`] naming the streams, when something could not be proven or the run was stopped.
    pub fn into_result(self) -> Result<Self> {
        if self.complete {
            return Ok(self);
        }
        let unproven: Vec<&str> =
            self.run.streams.iter().filter(|stream| !stream.complete).map(|stream| stream.stream.as_str()).collect();
        let unproven = if unproven.is_empty() { "those not reached".to_owned() } else { unproven.join(", ") };
        Err(Error::new(ErrorKind::Incomplete, "run ended without proof that it is complete")
            .with_context("run", &self.run.id)
            .with_context("unproven streams", unproven)
            .with_hint("what was committed is kept; run the extract again, it walks what is missing"))
    }
}

/// Runs one extraction; when `stop` completes (Ctrl-C), it ends early as an incomplete run and gives the lease back.
///
/// # Errors
///
/// [`ErrorKind::Conflict`] when another run holds the lease; otherwise what the source or the lake answered. What was
/// committed before stays. A run that ends incomplete is no error here: see [`RunReport::into_result`].
pub async fn run(
    client: &Client,
    policy: &Policy,
    lake: &Lake,
    clock: &SharedClock,
    settings: &ExtractSettings,
    progress: &dyn Progress,
    stop: impl Future<Output = ()> + Send,
) -> Result<RunReport> {
    lake.check_policy(policy)?;
    let started = clock.now();
    let id = run_id(started);
    let mut lease = lake.lease(Purpose::Extract, &format!("run {id}, process {}", std::process::id())).await?;
    let mut run = Run {
        client,
        policy,
        lake,
        clock,
        settings,
        progress,
        before: client.ledger(),
        record: RunRecord {
            id,
            started_ms: started.as_millisecond(),
            policy: policy.digest().to_string(),
            ..RunRecord::default()
        },
        quarantine: Vec::new(),
        seen: Vec::new(),
        policy_changes: Vec::new(),
        planned: Price::default(),
        caps: Caps::new(settings, None, started.as_millisecond()),
        organisation: None,
        pseudonyms: None,
    };
    client.limit_requests(settings.max_requests);
    let ended = tokio::select! {
        ended = run.streams() => ended,
        lost = keep(&mut lease, clock) => Err(lost),
        () = stop => Err(Error::new(ErrorKind::Incomplete, "the run was interrupted")),
    };
    client.limit_requests(None);
    let report = match ended {
        Ok(()) => run.end("").await,
        Err(error) if error.kind() == ErrorKind::Incomplete => {
            tracing::warn!(reason = error.message(), "run stops early");
            run.end("incomplete").await
        }
        // A run that got nothing leaves no trace: a schedule that fails for a night makes no versions.
        Err(error) if run.record.streams.is_empty() => Err(error),
        Err(error) => {
            if let Err(second) = run.end("failed").await {
                tracing::warn!(error = %second, "failed to record the failed run");
            }
            Err(error)
        }
    };
    if let Err(error) = lease.release().await {
        tracing::warn!(%error, "failed to give the lease back; it ends by itself");
    }
    report
}

/// Extends the lease until it is lost.
async fn keep(lease: &mut Lease, clock: &SharedClock) -> Error {
    let mut renewed = clock.now();
    loop {
        // The lease is other processes' business, so its heartbeat is real time: a simulated clock that jumps while
        // it sleeps would never come to rest beside it.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = clock.now();
        if now.duration_since(renewed).unsigned_abs() >= LEASE_RENEWAL {
            match lease.renew().await {
                Err(error) if error.kind() == ErrorKind::Conflict => return error,
                // The lease has a while to go, and so have the commits that would fail next.
                Err(error) => tracing::warn!(%error, "failed to extend the lease; trying again"),
                Ok(()) => renewed = now,
            }
        }
    }
}

struct Run<'a> {
    client: &'a Client,
    policy: &'a Policy,
    lake: &'a Lake,
    clock: &'a SharedClock,
    settings: &'a ExtractSettings,
    progress: &'a dyn Progress,
    before: Ledger,
    record: RunRecord,
    quarantine: Vec<(Stream, Quarantined)>,
    /// What of small streams was seen and not stored, for the commit that ends the run.
    seen: Vec<(Stream, Seen)>,
    policy_changes: Vec<RuleChange>,
    /// What the streams that were begun should cost.
    planned: Price,
    caps: Caps,
    /// Whose records come, where the token tells.
    organisation: Option<ObjectId>,
    pseudonyms: Option<PseudonymKeys>,
}

impl Run<'_> {
    async fn streams(&mut self) -> Result<()> {
        let declared = self.policy.streams();
        let manifest = self.lake.latest().await?;
        self.pseudonyms = Some(self.lake.ring().pseudonym_keys(manifest.pseudonym_version())?);
        self.planned = price::fixed(self.policy, &manifest, self.settings, self.record.started_ms);
        self.policy_changes = policy_changes(&manifest, self.policy);
        let remembered = manifest.runs.iter().rev().find_map(|run| run.caps.as_ref());
        self.caps = Caps::new(self.settings, remembered, self.record.started_ms);
        let mut definitions = Definitions::default();
        for (stream, table) in &manifest.tables {
            definitions.hold(*stream, &table.schema);
            if !declared.contains(stream) && !stream.is_own() {
                tracing::warn!(%stream, "no schema declares this table any more; it is left as it is");
            }
            // Small tables are replaced whole, so their columns may change.
            if stream.is_incremental() && !table.files.is_empty() {
                self.policy.check_table(*stream, &table.schema)?;
            }
        }
        // One request tells a refused credential or a wrong region from a missing role, before anything else is said.
        self.organisation = organisation(&self.client.check().await?);
        self.small(&declared, &definitions).await?;
        for stream in [Stream::Customers, Stream::Tickets, Stream::TicketTimes] {
            if declared.contains(&stream) {
                self.incremental(stream, &mut definitions).await?;
            }
        }
        if self.settings.reconcile {
            for stream in [Stream::Customers, Stream::Tickets] {
                if declared.contains(&stream) {
                    self.reconcile(stream, &definitions).await?;
                }
            }
        }
        self.follow_merges(&manifest, &definitions).await
    }

    async fn small(&mut self, declared: &[Stream], definitions: &Definitions) -> Result<()> {
        let held = self.lake.latest().await?;
        let mut transaction = self.lake.transaction().under(self.policy);
        let mut runs = Vec::new();
        for stream in Stream::ALL.into_iter().filter(|stream| !stream.is_incremental() && declared.contains(stream)) {
            if !small::is_due(stream, &held, self.policy.digest(), self.settings, self.record.started_ms) {
                self.record.not_due.push(stream.table().to_owned());
                continue;
            }
            let mut decoder = self.decoder(stream, definitions)?;
            let declared = seen::declared(&held, stream, &decoder);
            let held = held.tables.get(&stream).map_or(0, |table| table.files.iter().map(|file| file.rows).sum());
            let whole = match small::read(self.client, stream, &mut decoder, held).await? {
                Ok(whole) => whole,
                Err(Unread::Absent) => continue,
                Err(Unread::Denied) => {
                    self.record.denied.push(stream.table().to_owned());
                    continue;
                }
            };
            self.progress.on(Event::Promised { stream, promised: whole.run.distinct });
            self.progress.on(Event::Received { stream, records: whole.run.distinct });
            transaction.replace(whole.rows);
            let quarantine = decoder.quarantine();
            let run = StreamRun { expected: whole.run.distinct, quarantined: quarantine.len() as u64, ..whole.run };
            let fields = seen::fields(&quarantine, self.clock.now().as_millisecond(), &self.record.id);
            self.seen.push((stream, Seen { whole: true, fields, declared, attributes: None }));
            self.quarantine.extend(quarantine.into_iter().map(|field| (stream, field)));
            runs.push((stream, run));
        }
        if runs.is_empty() {
            return Ok(());
        }
        let summary = transaction.commit().await?;
        let mut rows = 0;
        for (stream, mut run) in runs {
            for (_, counts) in summary.streams.iter().filter(|(committed, _)| *committed == stream) {
                commit::add_counts(&mut run, *counts);
            }
            rows += run.distinct;
            self.record.streams.push(run);
            self.progress.on(Event::Ended { stream, complete: true });
        }
        self.progress.on(Event::Committed { version: summary.version, rows });
        Ok(())
    }

    fn decoder(&self, stream: Stream, definitions: &Definitions) -> Result<Decoder> {
        let keys = self.pseudonyms.as_ref().ok_or_else(|| Error::internal("run has no keys of pseudonyms yet"))?;
        let mut decoder = self.policy.decoder(stream, definitions, keys)?;
        if let Some(organisation) = self.organisation {
            decoder.expect_organisation(organisation);
        }
        Ok(decoder)
    }

    async fn incremental(&mut self, stream: Stream, definitions: &mut Definitions) -> Result<()> {
        let manifest = self.lake.latest().await?;
        let watermark = manifest.watermarks.get(&stream).cloned().unwrap_or_default();
        let now_ms = self.client.source_now().as_millisecond();
        if let Some(reached) =
            watermark.complete_through_ms.max(watermark.target_ms).filter(|reached| *reached > now_ms)
        {
            // What changed between the true time and that one would never be asked for.
            return Err(Error::config("watermark lies in the future: a clock was wrong at an earlier run, or is now")
                .with_context("stream", stream)
                .with_context("watermark", Timestamp::from_millisecond(reached).unwrap_or_default())
                .with_context("now", Timestamp::from_millisecond(now_ms).unwrap_or_default())
                .with_hint("set this machine's clock right; if it is, make a new lake and extract everything again"));
        }
        let plan = Plan::new(&watermark, &reachable(stream, self.settings, &watermark, now_ms), now_ms);
        attributes::read(self.client, stream, definitions).await?;
        let decoder = self.decoder(stream, definitions)?;
        let declared = seen::declared(&manifest, stream, &decoder);
        let attributes = attributes::changes(self.policy, stream, definitions)?;
        let object = object(stream);
        let pages = SearchPages::new(self.client, object, decoder, &self.caps);
        let mut archived = if stream.has_archive() { plan.archived(now_ms) } else { RangeSet::default() };
        if let Some((from_ms, to_ms)) = archived.hull() {
            self.planned.add(Endpoint::ArchiveSearch, 1);
            let mut probe = pages.fork(true);
            match probe.page(&PageQuery::first(from_ms, to_ms, 1)).await {
                Ok(Some(page)) if page.total > 0 => {}
                Ok(_) => archived.clear(),
                // Without an answer nobody knows whether older records exist, so the run could not be called complete.
                Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Data | ErrorKind::Internal) => {
                    return Err(error.with_context("stream", stream).with_hint(
                        "the archive (records not updated for two years) does not answer: grant org.user.search.read, \
                         or leave it out with `--since` and a time within the last two years",
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        let mut first: Vec<Segment> = Vec::new();
        for (set, archive) in [(&archived, true), (&plan.ranges, false)] {
            first.extend(set.iter().map(|(from_ms, to_ms)| Segment { from_ms, to_ms, archive }));
        }
        let limits = Limits::new(self.settings);
        // The columns are declared even when no record comes.
        let empty = pages.fork(false).empty()?;
        let model = Model::new(&manifest, self.settings);
        let mut committer = Committer::new(self, stream, watermark, plan, archived, empty, model);
        let (sender, steps) = mpsc::channel(self.settings.concurrency.max(1));
        let (walked, received) = futures::join!(
            segments::walk_all(first, &pages, &limits, self.settings.concurrency, sender),
            committer.receive(steps)
        );
        let is_stopped = match &walked {
            Err(error) => error.kind() == ErrorKind::Incomplete,
            Ok(()) => false,
        };
        for (endpoint, requests) in std::mem::take(&mut committer.planned).requests {
            self.planned.add(endpoint, requests);
        }
        received?;
        let mut quarantine = pages.quarantine();
        definitions.mark_sensitive(stream, &mut quarantine);
        let settings = self.settings;
        committer.quarantine(Seen {
            whole: settings.full && settings.since.is_none() && settings.until.is_none() && walked.is_ok(),
            fields: seen::fields(&quarantine, self.clock.now().as_millisecond(), &self.record.id),
            declared,
            attributes: definitions.attributes(stream),
        });
        let run = StreamRun { attributes, ..committer.finish().await? };
        let complete = run.complete;
        self.quarantine.extend(quarantine.into_iter().map(|field| (stream, field)));
        self.record.streams.push(run);
        self.progress.on(Event::Ended { stream, complete });
        if is_stopped {
            tracing::info!(%stream, "run stops at its limit of requests; what is missing is noted in the lake");
        }
        walked
    }

    async fn end(&mut self, outcome: &str) -> Result<RunReport> {
        let ledger = self.client.ledger().since(&self.before);
        let complete = outcome.is_empty() && self.record.streams.iter().all(|stream| stream.complete);
        let outcome = match (outcome, complete) {
            ("", true) => "complete",
            ("", false) => "incomplete",
            (outcome, _) => outcome,
        };
        let mut record = self.record.clone();
        record.caps = Some(self.caps.seen());
        record.ended_ms = Some(self.clock.now().as_millisecond());
        outcome.clone_into(&mut record.outcome);
        record.requests = ledger.requests.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        record.waited_ms = u64::try_from(ledger.total_waited().as_millis()).unwrap_or(u64::MAX);
        record.waits_ms = ledger
            .waited
            .iter()
            .map(|(reason, wait)| ((*reason).to_owned(), u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
            .collect();
        let named = |counts: BTreeMap<&'static str, u64>| {
            counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect::<BTreeMap<_, _>>()
        };
        record.failed = named(ledger.failed_by_cause());
        record.received_bytes = named(ledger.received_bytes.clone());
        record.planned = self.planned.by_name();
        if ledger.requests.contains_key(Endpoint::Login.name()) {
            record.planned.insert(Endpoint::Login.name().to_owned(), 1);
        }
        let mut transaction = self.lake.transaction().under(self.policy);
        transaction.record_run(record.clone());
        for (stream, seen) in std::mem::take(&mut self.seen) {
            transaction.quarantine(stream, seen);
        }
        transaction.commit().await?;
        let survey = self.lake.survey(self.lake.latest().await?.as_ref(), self.policy).unwrap_or_else(|error| {
            tracing::warn!(%error, "what is stored was not compared with the schemas");
            Survey::default()
        });
        let tickets =
            record.streams.iter().find(|run| run.stream == Stream::Tickets.table()).map_or(0, |run| run.distinct);
        let mut unreached = self.policy.streams();
        unreached
            .retain(|stream| stream.is_incremental() && !record.streams.iter().any(|run| run.stream == stream.table()));
        Ok(RunReport {
            run: record,
            requests_per_100_tickets: ledger.total() as f64 * 100.0 / tickets.max(1) as f64,
            ledger,
            complete,
            quarantine: std::mem::take(&mut self.quarantine),
            unreached,
            policy_changes: std::mem::take(&mut self.policy_changes),
            survey,
        })
    }
}

/// Compares the policy with the one that the lake was written by last.
fn policy_changes(manifest: &Manifest, policy: &Policy) -> Vec<RuleChange> {
    let before = manifest.policy.as_deref().filter(|before| *before != policy.digest().as_ref());
    let before = before.and_then(|before| manifest.policies.get(before));
    before.map_or_else(Vec::new, |before| compare(before, policy.rules()))
}

/// Returns what a stream's records are called at the source's search.
const fn object(stream: Stream) -> SearchObject {
    match stream {
        Stream::Customers => SearchObject::Customer,
        Stream::TicketTimes => SearchObject::ConversationTime,
        _ => SearchObject::Conversation,
    }
}

/// Bounds the settings by what search reaches, where no archive keeps what lies behind: it is not asked for, and the
/// watermark does not say that it is there.
fn reachable(stream: Stream, settings: &ExtractSettings, watermark: &Watermark, now_ms: i64) -> ExtractSettings {
    let mut settings = settings.clone();
    let is_first = watermark.target_ms.or(watermark.complete_through_ms).is_none();
    if !stream.has_archive() && (is_first || settings.full || settings.since.is_some()) {
        let horizon = Timestamp::from_millisecond(now_ms.saturating_sub(millis(HORIZON))).ok();
        settings.since = settings.since.max(horizon);
    }
    settings
}

/// Reads whose token it is: `data.relationships.org.data.id`. A source that does not tell is no reason to stop.
fn organisation(token: &[u8]) -> Option<ObjectId> {
    let token: serde_json::Value = serde_json::from_slice(token).ok()?;
    ObjectId::from_hex(token.pointer("/data/relationships/org/data/id")?.as_str()?.as_bytes())
}

/// Makes a UUID version 7 of the time; the rest tells processes of the same millisecond apart.
fn run_id(started: Timestamp) -> String {
    let mut random = SplitMix64::new(started.as_nanosecond() as u64 ^ (u64::from(std::process::id()) << 40));
    let mut bytes = [0; 10];
    for (byte, drawn) in bytes.iter_mut().zip(random.next_u64().to_le_bytes().into_iter().cycle()) {
        *byte = drawn;
    }
    let ms = u64::try_from(started.as_millisecond()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid().to_string()
}
