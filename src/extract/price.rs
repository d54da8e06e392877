//! The price of a run, before it: requests per endpoint, and how long they take at our share of the budget.
//!
//! ```text
//! watermark ─▶ ranges ─▶ count each (one search of one record) ─▶ records ─▶ pages, splits ─▶ requests ─▶ minutes
//! ```
//!
//! Counting is what a price costs: one search per stream and range. The rest follows from how the walk works: a page
//! repeats the last key of the page before it, a segment that is given away costs a count and a half-empty page, and bulk
//! edits tie records whose repetition costs a little more. How much more is learnt from the lake's own last large run.
//! Lists tell no total, so the small streams are priced by what the lake holds of them.
//!
//! A price is no promise: records change meanwhile, and requests that fail are asked again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::extract::plan::Plan;
use crate::extract::{ExtractSettings, object, reachable, small};
use crate::kustomer::{BudgetState, Client, Endpoint, SearchRequest};
use crate::lake::manifest::Manifest;
use crate::model::Stream;
use crate::policy::Policy;

/// What ties add to the pages of a walk when no run has shown it: a page that ends inside a bulk edit repeats half of it.
const TIES: f64 = 1.05;

/// Runs with fewer records say too little about ties.
const TELLING_RECORDS: u64 = 20_000;

/// A rate limit lets its requests go in this time: its minute, and the moment that the budget keeps more.
const WINDOW: Duration = Duration::from_millis(60_500);

/// The rate limits and our part of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// The organisation's limit, requests a minute.
    pub org_rpm: u32,
    /// What we may send of it.
    pub org_allowed: u32,
    /// The limit of searches, requests a minute.
    pub search_rpm: u32,
    /// What we may send of it.
    pub search_allowed: u32,
    /// Our part of both, above 0 and at most 1.
    pub share: f64,
}

/// One of the two rate limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// All requests of the organisation.
    Organisation,
    /// Searches by machine users.
    Search,
}

/// What a run costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    /// Records in the ranges of each incremental stream, those of the archive included.
    pub records: BTreeMap<Stream, u64>,
    /// Requests by endpoint.
    pub requests: BTreeMap<Endpoint, u64>,
}

/// The run that would happen now, and a full one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pricing {
    /// The run as asked for, from the lake's watermark.
    pub now: Price,
    /// A run from the beginning to the present.
    pub full: Price,
    /// Requests that it took to say so.
    pub counting_requests: u64,
}

impl Rates {
    /// Makes the rates of limits and a share.
    #[must_use]
    pub fn new(org_rpm: u32, search_rpm: u32, share: f64) -> Self {
        let allowed = |limit: u32| ((f64::from(limit) * share).floor() as u32).max(1);
        Self { org_rpm, org_allowed: allowed(org_rpm), search_rpm, search_allowed: allowed(search_rpm), share }
    }

    /// Takes the limits as they are in force: as configured, unless the source named others.
    #[must_use]
    pub const fn of(budget: &BudgetState) -> Self {
        Self {
            org_rpm: budget.organisation.limit,
            org_allowed: budget.organisation.allowed,
            search_rpm: budget.search.limit,
            search_allowed: budget.search.allowed,
            share: budget.share,
        }
    }

    /// Returns a bucket's limit, requests a minute.
    #[must_use]
    pub const fn limit(&self, bucket: Bucket) -> u32 {
        match bucket {
            Bucket::Organisation => self.org_rpm,
            Bucket::Search => self.search_rpm,
        }
    }

    /// Returns how many requests a minute our share of a bucket allows.
    #[must_use]
    pub const fn allowed(&self, bucket: Bucket) -> u32 {
        match bucket {
            Bucket::Organisation => self.org_allowed,
            Bucket::Search => self.search_allowed,
        }
    }

    /// Returns how long the budget makes so many requests last, and the bucket that decides.
    ///
    /// The first half of a bucket goes at once, the second half at its pace, and what comes after waits for the window.
    #[must_use]
    pub fn duration(&self, requests: u64, searches: u64) -> (Duration, Bucket) {
        let lasting = |count: u64, bucket: Bucket| {
            let allowed = u64::from(self.allowed(bucket)).max(1);
            let paced = if count <= allowed { count.saturating_sub((allowed / 2).max(1)) } else { count };
            WINDOW.mul_f64(paced as f64 / allowed as f64)
        };
        let (all, searches) = (lasting(requests, Bucket::Organisation), lasting(searches, Bucket::Search));
        if all > searches { (all, Bucket::Organisation) } else { (searches, Bucket::Search) }
    }
}

impl Bucket {
    /// Returns the bucket's name as tables and reports print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organisation => "organisation",
            Self::Search => "search",
        }
    }
}

impl Price {
    /// Returns the sum of the requests; each counts against the organisation's limit.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Returns how many of the requests count against the limit of searches too.
    #[must_use]
    pub fn searches(&self) -> u64 {
        self.requests.iter().filter(|(endpoint, _)| endpoint.is_search()).map(|(_, count)| count).sum()
    }

    /// Returns the requests per 100 tickets; nothing when there are no tickets to fetch.
    #[must_use]
    pub fn per_100_tickets(&self) -> Option<f64> {
        let tickets = self.records.get(&Stream::Tickets).copied().filter(|tickets| *tickets > 0)?;
        Some(self.total() as f64 * 100.0 / tickets as f64)
    }

    /// Adds requests.
    pub(super) fn add(&mut self, endpoint: Endpoint, requests: u64) {
        *self.requests.entry(endpoint).or_default() += requests;
    }

    /// Returns the requests by the endpoints' names, as run records have them.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        self.requests.iter().map(|(endpoint, count)| (endpoint.name().to_owned(), *count)).collect()
    }
}

/// Prices the run that the settings ask for, and a full one, by counting.
///
/// # Errors
///
/// What the source answers to a count that it does not give.
pub async fn price(
    client: &Client,
    policy: &Policy,
    manifest: &Manifest,
    settings: &ExtractSettings,
) -> Result<Pricing> {
    let before = client.ledger();
    let mut counts = Counts { client, known: BTreeMap::new() };
    let full = ExtractSettings { since: None, until: None, full: true, max_requests: None, ..settings.clone() };
    let now_ms = client.source_now().as_millisecond();
    let now = run(&mut counts, policy, manifest, settings, now_ms).await?;
    let full = run(&mut counts, policy, manifest, &full, now_ms).await?;
    let spent = client.ledger().since(&before);
    let login = spent.requests.get(Endpoint::Login.name()).copied().unwrap_or_default();
    let mut pricing = Pricing { now, full, counting_requests: spent.total() };
    if login > 0 {
        pricing.now.add(Endpoint::Login, 1);
        pricing.full.add(Endpoint::Login, 1);
    }
    Ok(pricing)
}

async fn run(
    counts: &mut Counts<'_>,
    policy: &Policy,
    manifest: &Manifest,
    settings: &ExtractSettings,
    now_ms: i64,
) -> Result<Price> {
    let mut price = fixed(policy, manifest, settings, now_ms);
    let model = Model::new(manifest, settings);
    for stream in policy.streams().into_iter().filter(|stream| stream.is_incremental()) {
        let watermark = manifest.watermarks.get(&stream).cloned().unwrap_or_default();
        let plan = Plan::new(&watermark, &reachable(stream, settings, &watermark, now_ms), now_ms);
        let mut records = 0;
        if let Some(hull) = plan.archived(now_ms).hull().filter(|_| stream.has_archive()) {
            // The run asks the same before it walks the archive.
            price.add(Endpoint::ArchiveSearch, 1);
            let archived = counts.count(stream, true, hull).await?;
            if archived > 0 {
                records += archived;
                price.add(Endpoint::ArchiveSearch, model.searches(archived));
            }
        }
        for range in plan.ranges.iter() {
            let held = counts.count(stream, false, range).await?;
            records += held;
            price.add(Endpoint::Search, model.searches(held));
        }
        price.records.insert(stream, records);
    }
    Ok(price)
}

/// What a run costs before its first search: the token, the definitions, the small streams.
pub(super) fn fixed(policy: &Policy, manifest: &Manifest, settings: &ExtractSettings, now_ms: i64) -> Price {
    let mut price = Price::default();
    price.add(Endpoint::CurrentToken, 1);
    for stream in policy.streams() {
        if matches!(stream, Stream::Tickets | Stream::Customers) {
            price.add(Endpoint::Metadata, 1);
        }
        if stream.is_incremental() || !small::is_due(stream, manifest, policy.digest(), settings, now_ms) {
            continue;
        }
        if let Some((endpoint, path)) = small::list(stream) {
            let page = path.rsplit_once("pageSize=").and_then(|(_, size)| size.parse::<u64>().ok()).unwrap_or(100);
            let held = manifest.tables.get(&stream).map_or(0, |table| table.files.iter().map(|file| file.rows).sum());
            let pages = held.div_ceil(page).max(1);
            // A list of several pages is read until two readings are the same.
            price.add(endpoint, if pages > 1 { 2 * pages } else { 1 });
        }
    }
    price
}

/// What the searches of a walk depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Model {
    page_rows: u64,
    segment_rows: u64,
    workers: u64,
    /// What ties add to the pages: 1 for nothing.
    ties: f64,
}

impl Model {
    /// Takes the settings, and what earlier runs have shown of the source.
    pub(super) fn new(manifest: &Manifest, settings: &ExtractSettings) -> Self {
        let seen = manifest.runs.iter().rev().find_map(|run| run.caps.as_ref()).map(|caps| caps.page_size);
        let page_rows = settings.page_size.min(seen.unwrap_or(u32::MAX)).clamp(2, 500);
        let model = Self {
            page_rows: u64::from(page_rows),
            segment_rows: settings.segment_rows.max(1),
            workers: settings.concurrency.max(1) as u64,
            ties: 1.0,
        };
        Self { ties: model.learnt(manifest).unwrap_or(TIES), ..model }
    }

    /// Returns how many searches the walk of a range of so many records takes.
    pub(super) fn searches(&self, records: u64) -> u64 {
        if records <= self.page_rows {
            return 1;
        }
        let fresh = (self.page_rows - 1) as f64;
        let pages = ((records - 1) as f64 / fresh * self.ties).ceil() as u64;
        // A segment that is given away is counted, and ends in a page that is half empty.
        pages + 2 * self.splits(records)
    }

    /// How often segments are given away: at the start until every worker has one, towards the end whenever one is idle.
    fn splits(&self, records: u64) -> u64 {
        let pieces = records.div_ceil(self.segment_rows);
        let first = pieces.min(self.workers) - 1;
        let halvings = u64::from((pieces / self.workers).max(1).ilog2());
        first + (self.workers - 1) * halvings
    }

    /// What ties cost in the last run that was large enough to show it.
    fn learnt(&self, manifest: &Manifest) -> Option<f64> {
        let complete = manifest.runs.iter().rev().filter(|run| run.outcome == "complete");
        let telling = complete.filter_map(|run| {
            let walked = run.streams.iter().filter(|stream| stream.range_ms.is_some());
            let records: Vec<u64> = walked.map(|stream| stream.distinct).collect();
            let endpoints = [Endpoint::Search, Endpoint::ArchiveSearch];
            let spent: u64 = endpoints.iter().filter_map(|endpoint| run.requests.get(endpoint.name())).sum();
            let planned: u64 = records.iter().map(|records| self.searches(*records)).sum();
            (records.iter().sum::<u64>() >= TELLING_RECORDS).then(|| spent as f64 / planned as f64)
        });
        telling.map(|ties| ties.clamp(1.0, 2.0)).next()
    }
}

/// Counts, each asked for once.
struct Counts<'a> {
    client: &'a Client,
    known: BTreeMap<(Stream, bool, i64, i64), u64>,
}

#[derive(Deserialize)]
struct Counted {
    meta: Meta,
}

#[derive(Deserialize)]
struct Meta {
    total: u64,
    #[serde(default)]
    timed_out: bool,
}

impl Counts<'_> {
    async fn count(&mut self, stream: Stream, archive: bool, (from_ms, to_ms): (i64, i64)) -> Result<u64> {
        let key = (stream, archive, from_ms, to_ms);
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let request = SearchRequest::builder(object(stream))
            .updated_between(from_ms, to_ms)?
            .include_deleted()
            .archive(archive)
            .page(1, 1)
            .build();
        let mut failed = 0;
        loop {
            let body = self.client.search(&request).await?;
            let cause = match serde_json::from_slice::<Counted>(&body) {
                Ok(counted) if !counted.meta.timed_out => {
                    self.known.insert(key, counted.meta.total);
                    return Ok(counted.meta.total);
                }
                Ok(_) => "search timed out at the source",
                Err(_) => "search answer has no `meta.total`",
            };
            failed += 1;
            if !self.client.back_off(request.endpoint(), failed, cause).await {
                return Err(Error::new(ErrorKind::Unavailable, "source keeps sending counts that cannot be used")
                    .with_context("cause", cause)
                    .with_context("stream", stream)
                    .with_context("attempts", failed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lake::run::{RunRecord, SourceCaps, StreamRun};

    fn model(settings: &ExtractSettings) -> Model {
        Model { ties: 1.0, ..Model::new(&Manifest::default(), settings) }
    }

    #[test]
    fn pages_repeat_a_key_and_an_empty_range_costs_one() {
        let settings = ExtractSettings::default();
        let cases = [(0, 1), (1, 1), (500, 1), (501, 2), (999, 2), (1_000, 3), (25_000, 51), (25_001, 53)];
        for (records, requests) in cases {
            assert_eq!(model(&settings).searches(records), requests, "{records}");
        }
        let alone = ExtractSettings { concurrency: 1, ..settings };
        assert_eq!(model(&alone).searches(1_000_000), 2_005);
    }

    #[test]
    fn smaller_page_that_the_source_allows_is_reckoned_with() {
        let caps = SourceCaps { page_size: 100, window_rows: 10_000, max_pages: 100, seen_ms: 0 };
        let run = RunRecord { caps: Some(caps), ..RunRecord::default() };
        let manifest = Manifest { runs: vec![Arc::new(run)], ..Manifest::default() };
        let model = Model { ties: 1.0, ..Model::new(&manifest, &ExtractSettings::default()) };
        assert_eq!(model.searches(991), 10);
    }

    #[test]
    fn slower_bucket_decides_how_long_it_takes() {
        let rates = Rates::new(1_000, 100, 0.5);
        assert_eq!((rates.allowed(Bucket::Organisation), rates.allowed(Bucket::Search)), (500, 50));
        let cases = [
            ((20, 10), (0.0, Bucket::Search)),
            ((50, 35), (12.1, Bucket::Search)),
            ((300, 200), (242.0, Bucket::Search)),
            ((3_000, 10), (363.0, Bucket::Organisation)),
        ];
        for ((requests, searches), (seconds, bucket)) in cases {
            let (lasting, slower) = rates.duration(requests, searches);
            assert!((lasting.as_secs_f64() - seconds).abs() < 0.1, "{requests} {searches}: {lasting:?}");
            assert_eq!(slower, bucket);
        }
        assert_eq!(Rates::new(1, 1, 0.1).allowed(Bucket::Search), 1);
    }

    #[test]
    fn ties_are_learnt_from_the_last_large_complete_run() {
        let settings = ExtractSettings { concurrency: 1, ..ExtractSettings::default() };
        let of = |outcome: &str, records: u64, spent: u64| {
            let stream = StreamRun {
                stream: "tickets".to_owned(),
                range_ms: Some((0, 1)),
                distinct: records,
                ..StreamRun::default()
            };
            Arc::new(RunRecord {
                outcome: outcome.to_owned(),
                streams: vec![stream],
                requests: BTreeMap::from([("search".to_owned(), spent), ("users".to_owned(), 9_000)]),
                ..RunRecord::default()
            })
        };
        let model = model(&settings).searches(30_000);
        let with = |runs: Vec<Arc<RunRecord>>| Model::new(&Manifest { runs, ..Manifest::default() }, &settings).ties;
        assert!((with(vec![]) - TIES).abs() < 1e-9);
        assert!((with(vec![of("complete", 30_000, model * 3 / 2), of("complete", 10, 90)]) - 1.5).abs() < 0.02);
        assert!((with(vec![of("incomplete", 30_000, model * 3 / 2)]) - TIES).abs() < 1e-9);
        assert!((with(vec![of("complete", 30_000, model * 9)]) - 2.0).abs() < 1e-9, "an absurd run is not believed");
    }
}
