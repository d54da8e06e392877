//! Walking a range by key: page 1 of `updated_at >= last seen`, again and again.
//!
//! A page number is no cursor: a record that changes while it is paged moves to the end, the others move up, and one at a
//! page's edge is skipped. A key is one: what is at or after it, in order, begins at the key whatever happened before it.
//!
//! ```text
//! updated_at:   a b c d d d d e f g …
//! page 1        [a b c d d]                 next key: d (the last value seen, for others may share it)
//! from d              [d d d d e]           what was seen is dropped
//! from e                      [e f g …]
//! ```
//!
//! Only when a whole page holds one single `updated_at` the walk pages inside that instant. The order inside it may
//! differ from request to request, so that pages overlap and miss: what is still missing then, and what lies beyond the
//! result window, is split by `created_at` until each part fits one page, which needs no order. The seconds in the ids
//! of a page say where to cut.
//!
//! A walk is closed in stretches, each with its proof: promised by the source, received distinct. What does not match
//! is counted again (records that change leave the range), then walked again, then given up as a hole.

use std::collections::HashSet;

use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::extract::ExtractSettings;
use crate::extract::prove::Proof;
use crate::extract::segments::{Queue, Segment};
use crate::model::ObjectId;
use crate::policy::RecordKey;

/// A stretch is closed after this many records, so that little is walked again after a crash; closing costs no request
/// while nothing changes.
const STRETCH_ROWS: u64 = 2_000;

/// Times that a stretch is walked again before it is a hole.
const REPETITIONS: u32 = 2;

/// Passes over an instant that neither pages nor `created_at` can take apart.
const PASSES: u32 = 4;

/// Later than any `created_at`: the year 2100.
const END_OF_TIME_MS: i64 = 4_102_444_800_000;

/// What is asked of the source: records by ranges, in the order of `updated_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageQuery {
    /// `updated_at` in `[from, to)`, milliseconds since 1970.
    pub(super) updated: (i64, i64),
    /// `created_at` in `[from, to)`.
    pub(super) created: Option<(i64, i64)>,
    /// Page, from 1.
    pub(super) page: u32,
    /// Records of a page.
    pub(super) page_size: u32,
}

/// One page: how many records match in all, and the keys of those on it.
#[derive(Debug)]
pub(super) struct Page<R> {
    pub(super) total: u64,
    pub(super) records: Vec<RecordKey>,
    pub(super) rows: R,
}

/// Answers queries; repeats what fails in passing, and errs only when that did not help.
pub(super) trait PageSource: Send {
    /// Decoded rows, by the position of the page's records.
    type Rows: Send;

    fn page(&mut self, query: &PageQuery) -> impl Future<Output = Result<Page<Self::Rows>>> + Send;
}

/// Makes a source for each segment.
pub(super) trait Forked {
    type Source: PageSource;

    fn fork(&self, archive: bool) -> Self::Source;
}

/// A step of a walk, in its order.
#[derive(Debug)]
pub(super) enum Step<R> {
    /// A range begins and holds so many records.
    Promised(u64),
    /// Rows arrived; `keep` tells by position which were not sent before.
    Rows { rows: R, keep: Vec<bool> },
    /// A stretch is walked.
    Closed { stretch: Segment, promised: u64, proof: Proof, is_proven: bool },
}

/// The bounds of the source's paging.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    page_size: u32,
    max_pages: u64,
    window_rows: u64,
    segment_rows: u64,
    stretch_rows: u64,
}

impl Limits {
    pub(super) fn new(settings: &ExtractSettings) -> Self {
        Self {
            page_size: settings.page_size.clamp(1, 500),
            max_pages: u64::from(settings.max_pages),
            window_rows: settings.result_window_rows,
            segment_rows: settings.segment_rows.max(1),
            stretch_rows: STRETCH_ROWS,
        }
    }
}

/// Walks segments.
#[derive(Debug)]
pub(super) struct Walker<'a, S: PageSource> {
    source: S,
    limits: &'a Limits,
    queue: &'a Queue,
    out: mpsc::Sender<Step<S::Rows>>,
    /// Records at or after the key that were sent already.
    sent: HashSet<RecordKey>,
}

/// A stretch as it was walked.
struct Stretch<R> {
    end_ms: i64,
    proof: Proof,
    /// The page at its end, which tells how many records lie behind.
    next: Option<Page<R>>,
}

impl<'a, S: PageSource> Walker<'a, S> {
    pub(super) fn new(source: S, limits: &'a Limits, queue: &'a Queue, out: mpsc::Sender<Step<S::Rows>>) -> Self {
        Self { source, limits, queue, out, sent: HashSet::new() }
    }

    /// Walks a segment to its end, or to where it gives the rest away.
    pub(super) async fn walk(&mut self, segment: Segment) -> Result<()> {
        let Segment { from_ms: mut start, mut to_ms, archive } = segment;
        let mut next = None;
        let mut is_first = true;
        while start < to_ms {
            let page = match next.take() {
                Some(page) => page,
                None => self.first_page(start, to_ms).await?,
            };
            let mut promised = page.total;
            if std::mem::take(&mut is_first) {
                self.step(Step::Promised(promised)).await?;
            }
            if promised > self.limits.segment_rows && self.queue.is_hungry() {
                let last = page.records.iter().filter_map(|record| record.updated_at_ms).max().unwrap_or(start);
                let middle = last.max(start) + (to_ms - last.max(start)) / 2;
                if middle > last + 1 && middle < to_ms {
                    self.queue.push(Segment { from_ms: middle, to_ms, archive });
                    to_ms = middle;
                    promised = self.count(start, to_ms).await?;
                }
            }
            let stretch = self.stretch(start, to_ms, page, self.limits.stretch_rows).await?;
            // A stretch before the end is promised what was there at its start, less what is there behind it.
            let promised = promised.saturating_sub(stretch.next.as_ref().map_or(0, |page| page.total));
            let walked = Segment { from_ms: start, to_ms: stretch.end_ms, archive };
            self.close(walked, promised, stretch.proof).await?;
            start = stretch.end_ms;
            next = stretch.next;
        }
        Ok(())
    }

    /// Walks from `start` until `rows` records are proven or the range ends.
    async fn stretch(&mut self, start: i64, to_ms: i64, first: Page<S::Rows>, rows: u64) -> Result<Stretch<S::Rows>> {
        let mut key = start;
        let mut proof = Proof::default();
        let mut page = first;
        loop {
            let received = page.records.len() as u64;
            let is_last = received >= page.total;
            let records = in_range(&page.records, key, to_ms)?;
            let (first_ms, last_ms) = match (records.first(), records.last()) {
                (Some(first), Some(last)) => (first.1, last.1),
                _ => (key, key),
            };
            let is_stuck = records.is_empty() && !is_last;
            self.send(page).await?;
            if is_last || is_stuck {
                // A source that promises records and sends none leaves a hole, which the count will show.
                for (record, _) in &records {
                    proof.add(record);
                }
                return Ok(Stretch { end_ms: to_ms, proof, next: None });
            }
            records.iter().filter(|(_, at)| *at < last_ms).for_each(|(record, _)| proof.add(record));
            key = last_ms;
            if first_ms == last_ms {
                let known: Vec<RecordKey> = records.iter().map(|(record, _)| *record).collect();
                proof.merge(&self.instant(last_ms, &known).await?);
                key = last_ms + 1;
            }
            self.sent.retain(|record| record.updated_at_ms.is_none_or(|at| at >= key));
            if key >= to_ms {
                return Ok(Stretch { end_ms: to_ms, proof, next: None });
            }
            page = self.first_page(key, to_ms).await?;
            if proof.distinct >= rows && key > start {
                return Ok(Stretch { end_ms: key, proof, next: Some(page) });
            }
        }
    }

    /// Reads the records that share one `updated_at`; `known` came with the page that ran into them.
    ///
    /// The first page is asked for again: when a record leaves the instant between two pages, the others move up, and only
    /// a total that stays the same from the first page on shows that none did.
    async fn instant(&mut self, at_ms: i64, known: &[RecordKey]) -> Result<Proof> {
        let mut found = Found::new(at_ms);
        found.add(known);
        let (mut page, mut most) = (1, 0);
        loop {
            let before = found.ids.len() as u64;
            let query =
                PageQuery { updated: (at_ms, at_ms + 1), created: None, page, page_size: self.limits.page_size };
            let answer = self.fetch(query).await?;
            found.add(&answer.records);
            most = answer.total.max(most);
            let received = answer.records.len() as u64;
            let has_left = answer.total < most;
            self.send(answer).await?;
            let distinct = found.ids.len() as u64;
            if distinct >= most && !has_left {
                break;
            }
            let page_rows = known.len().max(1) as u64;
            // The same order again would repeat the first page and bring nothing seen before on the others.
            let is_unstable = if page == 1 { distinct > before } else { distinct - before < received };
            let pages = most.div_ceil(page_rows);
            let is_reachable = pages <= self.limits.max_pages && pages * page_rows <= self.limits.window_rows;
            if has_left || is_unstable || !is_reachable || received == 0 || u64::from(page) >= pages {
                let sample = known.iter().map(created_ms).collect();
                self.split(at_ms, most, sample, &mut found).await?;
                break;
            }
            page += 1;
        }
        Ok(found.proof)
    }

    /// Reads an instant in parts of `created_at`, each small enough for one page.
    async fn split(&mut self, at_ms: i64, total: u64, sample: Vec<i64>, found: &mut Found) -> Result<()> {
        let mut waiting = vec![((0, at_ms + 1), total, sample)];
        let (mut promised, mut is_whole) = (0, false);
        while let Some((range, part_total, sample)) = waiting.pop() {
            for part in cut(range, part_total, &sample, self.limits.page_size) {
                let page_size = self.limits.page_size;
                let query = PageQuery { updated: (at_ms, at_ms + 1), created: Some(part), page: 1, page_size };
                let answer = self.fetch(query).await?;
                found.add(&answer.records);
                let (total, received) = (answer.total, answer.records.len() as u64);
                let sample = answer.records.iter().map(created_ms).collect();
                self.send(answer).await?;
                promised += if is_whole { 0 } else { total };
                if received >= total {
                    continue;
                }
                if part.1 - part.0 > 1 {
                    waiting.push((part, total, sample));
                } else {
                    self.pass(query, total, received, found).await?;
                }
            }
            // Records are made before they change; only where a clock was wrong the first parts do not add up.
            if !std::mem::replace(&mut is_whole, true) && promised < total {
                waiting.push(((at_ms + 1, END_OF_TIME_MS), total - promised, Vec::new()));
            }
        }
        Ok(())
    }

    /// Pages through what nothing can take apart, several times, because the order may change between requests.
    async fn pass(&mut self, query: PageQuery, total: u64, page_rows: u64, found: &mut Found) -> Result<()> {
        let (mut part, mut most) = (HashSet::new(), total);
        let pages = total.div_ceil(page_rows.max(1)).min(self.limits.max_pages);
        let pages = pages.min(self.limits.window_rows / page_rows.max(1)).max(1);
        for _ in 0..PASSES {
            for page in 1..=pages as u32 {
                let answer = self.fetch(PageQuery { page, ..query }).await?;
                found.add(&answer.records);
                part.extend(answer.records.iter().map(|record| record.id));
                most = answer.total.max(most);
                self.send(answer).await?;
                if part.len() as u64 >= most {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Settles whether a stretch is complete, and says so.
    async fn close(&mut self, stretch: Segment, promised: u64, proof: Proof) -> Result<()> {
        let (mut promised, mut proof) = (promised, proof);
        for repetition in 0..=REPETITIONS {
            if proof.distinct < promised {
                // Records that changed meanwhile have left the range; they come again where they went.
                promised = self.count(stretch.from_ms, stretch.to_ms).await?;
            }
            if proof.distinct >= promised || repetition == REPETITIONS {
                break;
            }
            tracing::warn!(
                promised,
                distinct = proof.distinct,
                from_ms = stretch.from_ms,
                "records are missing: walking again"
            );
            let first = self.first_page(stretch.from_ms, stretch.to_ms).await?;
            promised = first.total;
            proof = self.stretch(stretch.from_ms, stretch.to_ms, first, u64::MAX).await?.proof;
        }
        let is_proven = proof.distinct >= promised;
        self.step(Step::Closed { stretch, promised, proof, is_proven }).await
    }

    async fn count(&mut self, from_ms: i64, to_ms: i64) -> Result<u64> {
        Ok(self.fetch(PageQuery { updated: (from_ms, to_ms), created: None, page: 1, page_size: 1 }).await?.total)
    }

    async fn first_page(&mut self, from_ms: i64, to_ms: i64) -> Result<Page<S::Rows>> {
        self.fetch(PageQuery { updated: (from_ms, to_ms), created: None, page: 1, page_size: self.limits.page_size })
            .await
    }

    async fn fetch(&mut self, query: PageQuery) -> Result<Page<S::Rows>> {
        self.source.page(&query).await
    }

    /// Hands a page's rows on, less what was sent before.
    async fn send(&mut self, page: Page<S::Rows>) -> Result<()> {
        let keep: Vec<bool> = page.records.iter().map(|record| self.sent.insert(*record)).collect();
        self.step(Step::Rows { rows: page.rows, keep }).await
    }

    async fn step(&self, step: Step<S::Rows>) -> Result<()> {
        self.out.send(step).await.map_err(|_| Error::new(ErrorKind::Internal, "rows are no longer received"))
    }
}

/// The distinct records of one instant.
struct Found {
    at_ms: i64,
    ids: HashSet<ObjectId>,
    proof: Proof,
}

impl Found {
    fn new(at_ms: i64) -> Self {
        Self { at_ms, ids: HashSet::new(), proof: Proof::default() }
    }

    fn add(&mut self, records: &[RecordKey]) {
        for record in records.iter().filter(|record| record.updated_at_ms == Some(self.at_ms)) {
            if self.ids.insert(record.id) {
                self.proof.add(record);
            }
        }
    }
}

/// Returns a page's records of the range with their `updated_at`, each id once.
///
/// A record that changed after it was indexed carries a later time than it was found by, and lies outside.
fn in_range(records: &[RecordKey], from_ms: i64, to_ms: i64) -> Result<Vec<(RecordKey, i64)>> {
    let mut ids = HashSet::with_capacity(records.len());
    let mut kept: Vec<(RecordKey, i64)> = Vec::with_capacity(records.len());
    for record in records {
        let Some(at) = record.updated_at_ms.filter(|at| (from_ms..to_ms).contains(at)) else { continue };
        if kept.last().is_some_and(|(_, before)| *before > at) {
            return Err(Error::data("source does not return records in the order of `updated_at` that was asked for")
                .with_context("id", record.id));
        }
        if ids.insert(record.id) {
            kept.push((*record, at));
        }
    }
    Ok(kept)
}

/// Returns when an id was made, to the second: near its record's `created_at`.
fn created_ms(record: &RecordKey) -> i64 {
    let bytes = record.id.as_bytes();
    i64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) * 1_000
}

/// Cuts a range of `created_at` into parts that should fit a page each, by a page of it, in the page's order.
///
/// A page in no order is a sample of the whole, so its quantiles cut well. A page in the order of the ids is only one end
/// of the range: what lies beyond it is cut into parts that grow.
fn cut(range: (i64, i64), total: u64, sample: &[i64], page_size: u32) -> Vec<(i64, i64)> {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable();
    let is_one_end = sample.is_sorted() || sample.iter().rev().is_sorted();
    let mut cuts: Vec<i64> = Vec::new();
    if let (true, Some(first), Some(last)) = (is_one_end, sorted.first(), sorted.last()) {
        let mut reach = (last - first).max(1_000) / 2;
        cuts.extend([*first, *last]);
        while reach < range.1 - range.0 {
            cuts.extend([first - reach, last + reach]);
            reach = reach.saturating_mul(3);
        }
    } else {
        let parts = (total * 6 / 5).div_ceil(u64::from(page_size)).clamp(2, 64) as usize;
        cuts.extend((1..parts).filter_map(|part| sorted.get(part * sorted.len() / parts).copied()));
    }
    cuts.retain(|at| *at > range.0 && *at < range.1);
    cuts.sort_unstable();
    cuts.dedup();
    if cuts.is_empty() && range.1 - range.0 > 1 {
        cuts.push(range.0 + (range.1 - range.0) / 2);
    }
    let starts = std::iter::once(range.0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(range.1));
    starts.zip(ends).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;
    use crate::extract::segments;
    use crate::retry::SplitMix64;

    const WINDOW_ROWS: u64 = 60;
    const MAX_PAGES: u32 = 8;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Row {
        updated: i64,
        created: i64,
        rev: i64,
    }

    /// A set of records that changes while it is read, sorted by `updated_at` with an order inside ties that it makes up anew.
    #[derive(Debug)]
    struct Model {
        rows: BTreeMap<ObjectId, Row>,
        random: SplitMix64,
        now: i64,
        /// One request in so many changes a record; 0 for none.
        drift: u64,
        is_stable_order: bool,
        /// Records that search never finds although it counts them.
        hidden: BTreeSet<ObjectId>,
        changed: BTreeSet<ObjectId>,
        requests: u64,
        rows_sent: u64,
    }

    #[derive(Debug, Clone)]
    struct Shared(Arc<Mutex<Model>>);

    impl Forked for Shared {
        type Source = Self;

        fn fork(&self, _archive: bool) -> Self {
            self.clone()
        }
    }

    impl PageSource for Shared {
        type Rows = Vec<RecordKey>;

        async fn page(&mut self, query: &PageQuery) -> Result<Page<Vec<RecordKey>>> {
            tokio::task::yield_now().await;
            self.0.lock().unwrap().page(query)
        }
    }

    impl Model {
        fn page(&mut self, query: &PageQuery) -> Result<Page<Vec<RecordKey>>> {
            self.requests += 1;
            let end = u64::from(query.page) * u64::from(query.page_size);
            if query.page > MAX_PAGES || end > WINDOW_ROWS.max(u64::from(query.page_size)) {
                return Err(Error::internal("beyond the result window").with_context("page", query.page));
            }
            let mut found: Vec<(i64, u64, ObjectId, Row)> = Vec::new();
            for (id, row) in &self.rows {
                let is_created = query.created.is_none_or(|(from, to)| (from..to).contains(&row.created));
                if (query.updated.0..query.updated.1).contains(&row.updated) && is_created {
                    let order = if self.is_stable_order { 0 } else { self.random.next_u64() };
                    found.push((row.updated, order, *id, *row));
                }
            }
            found.sort_unstable_by_key(|(updated, order, id, _)| (*updated, *order, *id));
            let total = found.len() as u64;
            let records: Vec<RecordKey> = found
                .into_iter()
                .skip((query.page as usize - 1) * query.page_size as usize)
                .take(query.page_size as usize)
                .filter(|(_, _, id, _)| !self.hidden.contains(id))
                .map(|(_, _, id, row)| RecordKey {
                    id,
                    updated_at_ms: Some(row.updated),
                    rev: Some(row.rev),
                    deleted: false,
                })
                .collect();
            self.rows_sent += records.len() as u64;
            if self.drift > 0 && self.random.next_u64().is_multiple_of(self.drift) {
                let place = self.random.next_u64() as usize % self.rows.len().max(1);
                if let Some((id, row)) = self.rows.iter_mut().nth(place) {
                    self.now += 1;
                    *row = Row { updated: self.now, rev: row.rev + 1, ..*row };
                    self.changed.insert(*id);
                }
            }
            Ok(Page { total, rows: records.clone(), records })
        }
    }

    #[derive(Debug, Default)]
    struct Outcome {
        received: Vec<RecordKey>,
        closed: Vec<(Segment, bool)>,
        promised: u64,
        distinct: u64,
    }

    const TO: i64 = 1_000_000;

    fn model(groups: &[(i64, usize)], is_stable_order: bool, drift: u64) -> Model {
        let mut rows = BTreeMap::new();
        for (updated, count) in groups {
            for _ in 0..*count {
                let number = rows.len() as u32;
                let seconds = (number * 7) % 900;
                let mut bytes = [0; 12];
                bytes[..4].copy_from_slice(&seconds.to_be_bytes());
                bytes[8..].copy_from_slice(&number.to_be_bytes());
                let created = i64::from(seconds) * 1_000 + i64::from(number % 3);
                rows.insert(ObjectId::from_bytes(bytes), Row { updated: *updated, created, rev: 1 });
            }
        }
        Model {
            rows,
            random: SplitMix64::new(groups.len() as u64),
            now: TO,
            drift,
            is_stable_order,
            hidden: BTreeSet::new(),
            changed: BTreeSet::new(),
            requests: 0,
            rows_sent: 0,
        }
    }

    fn walk(model: &Shared, page_size: u32, segment_rows: u64) -> Outcome {
        let limits = Limits {
            page_size,
            max_pages: u64::from(MAX_PAGES),
            window_rows: WINDOW_ROWS,
            segment_rows,
            stretch_rows: 40,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (sender, mut steps) = mpsc::channel::<Step<Vec<RecordKey>>>(2);
            let first = vec![Segment { from_ms: 0, to_ms: TO, archive: false }];
            let receive = async {
                let mut outcome = Outcome::default();
                while let Some(step) = steps.recv().await {
                    match step {
                        Step::Promised(_) => {}
                        Step::Rows { rows, keep } => {
                            let kept = rows.into_iter().zip(keep).filter(|(_, is_kept)| *is_kept);
                            outcome.received.extend(kept.map(|(row, _)| row));
                        }
                        Step::Closed { stretch, promised, proof, is_proven } => {
                            outcome.closed.push((stretch, is_proven));
                            outcome.promised += promised;
                            outcome.distinct += proof.distinct;
                        }
                    }
                }
                outcome
            };
            let (walked, outcome) = futures::join!(segments::walk_all(first, model, &limits, 3, sender), receive);
            walked.unwrap();
            outcome
        })
    }

    fn shared(model: Model) -> Shared {
        Shared(Arc::new(Mutex::new(model)))
    }

    proptest! {
        #[test]
        fn every_stable_record_is_received_and_proven(
            groups in prop::collection::vec((0_i64..TO, prop_oneof![8 => 1_usize..4, 1 => 5_usize..200]), 0..60),
            is_stable_order: bool,
            drift in prop_oneof![Just(0_u64), 1_u64..6],
            page_size in 5_u32..30,
            segment_rows in 10_u64..500,
        ) {
            let shared = shared(model(&groups, is_stable_order, drift));
            let outcome = walk(&shared, page_size, segment_rows);
            let model = shared.0.lock().unwrap();
            let received: HashSet<ObjectId> = outcome.received.iter().map(|record| record.id).collect();
            for id in model.rows.keys().filter(|id| !model.changed.contains(*id)) {
                prop_assert!(received.contains(id), "{id} is lost");
            }
            prop_assert!(outcome.closed.iter().all(|(_, is_proven)| *is_proven), "{:?}", outcome.closed);
            // The stretches add up to the range, without gap and overlap.
            let mut ranges: Vec<(i64, i64)> = outcome.closed.iter().map(|(part, _)| (part.from_ms, part.to_ms)).collect();
            ranges.sort_unstable();
            prop_assert_eq!(ranges.first().unwrap().0, 0);
            prop_assert_eq!(ranges.last().unwrap().1, TO);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0), "{ranges:?}");
            // Splitting costs, but not without bound.
            let rows = model.rows.len() as u64;
            let bound = 60 + 40 * rows.div_ceil(u64::from(page_size)) + 4 * model.changed.len() as u64;
            prop_assert!(model.requests <= bound, "{} requests for {rows} rows, bound {bound}", model.requests);
        }
    }

    #[test]
    fn quiet_range_costs_little_more_than_its_pages() {
        let groups: Vec<(i64, usize)> = (0..1_000).map(|at| (at * 900, 1)).collect();
        let shared = shared(model(&groups, true, 0));
        let outcome = walk(&shared, 20, 100_000);
        assert_eq!((outcome.promised, outcome.distinct, outcome.received.len()), (1_000, 1_000, 1_000));
        let requests = shared.0.lock().unwrap().requests;
        assert!(requests <= 1_000 / 19 + 2, "{requests}");
    }

    #[test]
    fn tie_larger_than_page_and_window_is_read_whole_in_any_order() {
        for (count, is_stable_order) in [(21, true), (21, false), (55, true), (55, false), (400, true), (400, false)] {
            let shared = shared(model(&[(5, 3), (500, count), (900, 3)], is_stable_order, 0));
            let outcome = walk(&shared, 20, 100_000);
            let ids: HashSet<ObjectId> = outcome.received.iter().map(|record| record.id).collect();
            assert_eq!(ids.len(), count + 6, "{count} {is_stable_order}");
            assert!(outcome.closed.iter().all(|(_, is_proven)| *is_proven));
            let requests = shared.0.lock().unwrap().requests as usize;
            assert!(requests < 12 + count / 4, "{requests} requests for a tie of {count}");
        }
    }

    #[test]
    fn promised_record_that_never_comes_is_a_hole_and_the_rest_is_proven() {
        let groups: Vec<(i64, usize)> = (0..300).map(|at| (at * 900, 1)).collect();
        let mut model = model(&groups, true, 0);
        let hidden = *model.rows.keys().nth(150).unwrap();
        let at = model.rows[&hidden].updated;
        model.hidden.insert(hidden);
        let outcome = walk(&shared(model), 20, 100_000);
        let holes: Vec<Segment> =
            outcome.closed.iter().filter(|(_, is_proven)| !is_proven).map(|(stretch, _)| *stretch).collect();
        assert_eq!(holes.len(), 1);
        assert!((holes[0].from_ms..holes[0].to_ms).contains(&at), "{holes:?} {at}");
        let ids: HashSet<ObjectId> = outcome.received.iter().map(|record| record.id).collect();
        assert_eq!(ids.len(), 299);
    }

    #[test]
    fn large_range_is_shared_between_workers() {
        let groups: Vec<(i64, usize)> = (0..1_000).map(|at| (at * 900, 1)).collect();
        let shared = shared(model(&groups, true, 0));
        let outcome = walk(&shared, 20, 200);
        assert_eq!((outcome.promised, outcome.distinct), (1_000, 1_000));
        let requests = shared.0.lock().unwrap().requests;
        assert!(requests <= 1_000 / 19 + 20, "{requests}");
    }

    #[test]
    fn page_out_of_order_is_refused() {
        let record = |byte: u8, at| RecordKey {
            id: ObjectId::from_bytes([byte; 12]),
            updated_at_ms: Some(at),
            rev: None,
            deleted: false,
        };
        assert!(in_range(&[record(1, 5), record(2, 4)], 0, 10).is_err());
        // What changed after it was indexed is outside of the range, and no disorder.
        assert_eq!(in_range(&[record(1, 5), record(2, 99), record(3, 6)], 0, 10).unwrap().len(), 2);
    }
}
