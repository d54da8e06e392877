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
//! Where a whole page holds one single `updated_at`, [`ties`](crate::extract::ties) read that instant.
//!
//! # What counts as proven
//!
//! A walk is closed in stretches. Records may leave a range at any moment, because they change; they come again where they
//! went. So "received at least as many as were promised" proves nothing: what was received and has left since would make up for
//! what never came. A stretch is proven by one of these only, and always by *equality*:
//!
//! 1. **Whole page**: one answer with as many records as its own total. Both are of one moment; nothing can come between.
//! 2. **Step**: a page asked at `k₁` says `T₁` records lie in `[k₁, e)`, the next one, asked at `k₂`, says `T₂` lie in `[k₂, e)`, and
//!    the first page held exactly `T₁ − T₂` records before `k₂`. This costs nothing. What leaves `[k₂, e)` between the two requests
//!    makes the difference larger, and so does what never came: either way it is no proof, and the step is asked once
//!    more by itself, where it is a whole page. It would fail only if, between two neighbouring requests, just as many records came
//!    *into* the past (the index lagging by more than the margin that runs leave) as the source counts and withholds.
//! 3. **Instant**: the same by other attributes than time; see [`ties`](crate::extract::ties).
//!
//! Records that did not decode count on the received side, and their places are holes. What is not proven is asked again, then cut
//! until the hole lies between two neighbouring records (as far as [`NARROWING_REQUESTS`] go), and given up: the run is
//! incomplete, and its watermark stays before the hole.
//!
//! Where steps keep being disturbed (a busy organisation, or totals that stop at a ceiling), `e` is drawn near: only what changes
//! within the next few pages can disturb then, and a ceiling is not reached.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::extract::ExtractSettings;
use crate::extract::reading::{Reading, Tally};
use crate::extract::segments::{Queue, Segment};
use crate::extract::ties::Tie;
use crate::policy::{RecordKey, Rejected};

/// Times that what is not proven is asked again before it is a hole.
pub(super) const REPETITIONS: u32 = 2;

/// Requests of a stream's run that make holes narrower than a page.
const NARROWING_REQUESTS: u64 = 200;

/// Pieces that one disturbed step is cut into at most.
const MOST_PIECES: u32 = 64;

/// Pages that a range is drawn in to when it was disturbed, and beyond which it is drawn in no more.
const NEAR_PAGES: (u64, u64, u64) = (2, 8, 64);

/// What is asked of the source: records by ranges, in the order of `updated_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageQuery {
    /// `updated_at` in `[from, to)`, milliseconds since 1970.
    pub(super) updated: (i64, i64),
    /// By when a record was made.
    pub(super) created: Option<Bound>,
    /// By how much a record counts: messages of a conversation, conversations of a customer.
    pub(super) count: Option<Bound>,
    /// Page, from 1.
    pub(super) page: u32,
    /// Records of a page.
    pub(super) page_size: u32,
}

impl PageQuery {
    /// Asks for the first page of a range.
    pub(super) const fn first(from_ms: i64, to_ms: i64, page_size: u32) -> Self {
        Self { updated: (from_ms, to_ms), created: None, count: None, page: 1, page_size }
    }
}

/// A part of an attribute's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// `[from, to)`; without end when `to` is `i64::MAX`.
    Between(i64, i64),
    /// Everything else than at least this: less, or no value at all.
    NotFrom(i64),
}

/// One page: how many records match in all, and the keys of those on it.
#[derive(Debug)]
pub(super) struct Page<R> {
    pub(super) total: u64,
    /// Records that the page may hold, where the source allows less than was asked for.
    pub(super) size: u32,
    pub(super) records: Vec<RecordKey>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) rows: R,
}

/// Answers queries; repeats what fails in passing, and errs only when that did not help.
pub(super) trait PageSource: Send {
    /// Decoded rows, by the position of the page's records.
    type Rows: Send;

    /// Returns a page; nothing where the source does not serve a page that far, or does not know an attribute.
    fn page(&mut self, query: &PageQuery) -> impl Future<Output = Result<Option<Page<Self::Rows>>>> + Send;

    /// Returns how many records of a page to ask for.
    fn page_size(&self) -> u32;

    /// Returns how many rows pages of a size reach.
    fn reach_rows(&self, page_size: u32) -> u64;
}

/// Makes a source for each segment.
pub(super) trait Forked {
    type Source: PageSource;

    fn fork(&self, archive: bool) -> Self::Source;
}

/// A step of a walk, in its order.
#[derive(Debug)]
pub(super) enum Step<R> {
    /// A range, of search or of the archive, begins and holds so many records.
    Promised { archive: bool, promised: u64 },
    /// Rows arrived; `keep` tells by position which were not sent before.
    Rows { rows: R, keep: Vec<bool> },
    /// A stretch is walked.
    Closed(Closed),
}

/// A stretch and its proof.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) stretch: Segment,
    /// What the source says the stretch holds.
    pub(super) promised: u64,
    /// What came and decoded, and what came and did not.
    pub(super) tally: Tally,
    /// Whether all of it is accounted for; the places of records that did not decode are holes all the same.
    pub(super) is_proven: bool,
}

/// The bounds of a stream's walk.
#[derive(Debug)]
pub(super) struct Limits {
    segment_rows: u64,
    narrowing: AtomicU64,
}

impl Limits {
    pub(super) fn new(settings: &ExtractSettings) -> Self {
        Self { segment_rows: settings.segment_rows.max(1), narrowing: AtomicU64::new(NARROWING_REQUESTS) }
    }

    fn may_narrow(&self) -> bool {
        self.narrowing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Walks segments.
#[derive(Debug)]
pub(super) struct Walker<'a, S: PageSource> {
    pub(super) source: S,
    limits: &'a Limits,
    queue: &'a Queue,
    out: mpsc::Sender<Step<S::Rows>>,
    archive: bool,
    /// Records at or after the key that were sent already.
    sent: HashSet<RecordKey>,
}

impl<'a, S: PageSource> Walker<'a, S> {
    pub(super) fn new(source: S, limits: &'a Limits, queue: &'a Queue, out: mpsc::Sender<Step<S::Rows>>) -> Self {
        Self { source, limits, queue, out, archive: false, sent: HashSet::new() }
    }

    /// Walks a segment to its end, or to where it gives the rest away; `is_promised` when it is such a rest itself.
    pub(super) async fn walk(&mut self, segment: Segment, is_promised: bool) -> Result<()> {
        let Segment { from_ms: mut start, mut to_ms, archive } = segment;
        self.archive = archive;
        let mut pace = Pace::default();
        let mut is_promised = is_promised;
        while start < to_ms {
            let end = pace.end_ms(start, to_ms);
            let page = self.first_page(start, end).await?;
            if !std::mem::replace(&mut is_promised, true) {
                self.step(Step::Promised { archive, promised: page.total }).await?;
            }
            start = self.chain(start, end, &mut to_ms, page, &mut pace).await?;
        }
        Ok(())
    }

    /// Walks `[start, end)` from its first page; returns where it stopped.
    ///
    /// Draws `to_ms` in when the later half goes to another worker.
    async fn chain(
        &mut self,
        start: i64,
        end: i64,
        to_ms: &mut i64,
        first: Page<S::Rows>,
        pace: &mut Pace,
    ) -> Result<i64> {
        let (from, mut key, mut end, mut page, mut steps) = (start, start, end, first, 0_u64);
        let first_total = page.total;
        while key < end {
            self.sent.retain(|record| record.updated_at_ms.is_none_or(|at| at >= key));
            let page_size = u64::from(page.size);
            let reading = Reading::new(&page, key, end)?;
            let mut total = page.total;
            let tie = self.unstable_tie(&page, key);
            self.send(page).await?;
            if end == *to_ms && total > self.limits.segment_rows && self.queue.is_hungry() {
                let last = reading.key_ms().unwrap_or(key);
                let middle = last + (end - last) / 2;
                if middle > last + 1 && middle < end {
                    // What lies behind is counted later than the whole, and is less by then if anything.
                    total = total.saturating_sub(self.count(middle, end).await?);
                    self.queue.push(Segment { from_ms: middle, to_ms: end, archive: self.archive });
                    (end, *to_ms) = (middle, middle);
                }
            }
            if let Some(tally) = reading.whole(total) {
                self.close((key, end), total, tally, true).await?;
                pace.calm(first_total, end - from, page_size);
                return Ok(end);
            }
            let Some(last) = reading.key_ms() else {
                // Nothing leads on: what is promised and does not come is a hole.
                self.settle(key, end).await?;
                return Ok(end);
            };
            if last == key {
                let next = if key + 1 < end { Some(self.first_page(key + 1, end).await?) } else { None };
                let behind = next.as_ref().map_or(0, |next| next.total);
                match tie {
                    Some(tie) => self.tie(tie.about(total.saturating_sub(behind))).await?,
                    None => self.instant(key).await?,
                }
                key += 1;
                match next {
                    Some(next) => page = next,
                    None => return Ok(end),
                }
                continue;
            }
            page = self.first_page(last, end).await?;
            steps += 1;
            let tally = reading.before(last);
            let behind = page.total;
            let is_exact = |tally: &Tally| total.checked_sub(behind) == Some(tally.accounted());
            if let Some(tally) = tally.filter(is_exact) {
                self.close((key, last), tally.accounted(), tally, true).await?;
                key = last;
                continue;
            }
            self.settle(key, last).await?;
            let near = pace.disturbed(reading.len() as u64, last - key, page_size, steps);
            key = last;
            let nearer = near.end_ms(key, *to_ms);
            if nearer < end {
                if behind == total && end == *to_ms && self.queue.is_hungry() {
                    // A total that does not fall has a ceiling, and how much lies behind is anyone's guess.
                    let middle = nearer + (end - nearer) / 2;
                    if middle > nearer && middle < end {
                        self.queue.push(Segment { from_ms: middle, to_ms: end, archive: self.archive });
                        *to_ms = middle;
                    }
                }
                return Ok(key);
            }
        }
        Ok(end)
    }

    /// Proves a stretch by whole pages, each of its own; what does not come then is a hole.
    async fn settle(&mut self, from_ms: i64, to_ms: i64) -> Result<()> {
        let mut waiting = vec![(from_ms, to_ms, 0)];
        let mut pieces = 0;
        while let Some((from, to, tried)) = waiting.pop() {
            let page = self.first_page(from, to).await?;
            let total = page.total;
            let reading = Reading::new(&page, from, to)?;
            self.send(page).await?;
            if let Some(tally) = reading.whole(total) {
                self.close((from, to), total, tally, true).await?;
                continue;
            }
            let has_more = reading.is_full() || (tried > 0 && reading.is_cut_short(total));
            if to - from == 1 && (has_more || tried < REPETITIONS) {
                self.instant(from).await?;
                continue;
            }
            if !has_more && tried < REPETITIONS {
                waiting.push((from, to, tried + 1));
                continue;
            }
            let cut = reading.cut_ms().filter(|_| pieces < MOST_PIECES);
            let cut = cut.filter(|_| has_more || (reading.len() > 0 && self.limits.may_narrow()));
            if let Some(cut) = cut {
                pieces += 1;
                waiting.extend([(cut, to, tried), (from, cut, tried)]);
            } else {
                let mut tally = Tally::default();
                reading.add_to(&mut tally);
                self.close((from, to), total, tally, false).await?;
            }
        }
        Ok(())
    }

    /// Returns the instant that a page is full of, when what was seen of it before shows that its order is unstable.
    fn unstable_tie(&self, page: &Page<S::Rows>, at_ms: i64) -> Option<Tie> {
        let is_full = page.records.len() as u64 >= u64::from(page.size);
        if !is_full || page.records.iter().any(|record| record.updated_at_ms != Some(at_ms)) {
            return None;
        }
        let here: HashSet<&RecordKey> = page.records.iter().collect();
        let has_moved = self.sent.iter().any(|sent| sent.updated_at_ms == Some(at_ms) && !here.contains(sent));
        has_moved.then(|| Tie::unstable(at_ms, &page.records, page.size))
    }

    /// Says what a stretch came to.
    pub(super) async fn close(
        &self,
        (from_ms, to_ms): (i64, i64),
        promised: u64,
        tally: Tally,
        is_proven: bool,
    ) -> Result<()> {
        let stretch = Segment { from_ms, to_ms, archive: self.archive };
        self.step(Step::Closed(Closed { stretch, promised, tally, is_proven })).await
    }

    pub(super) const fn is_archive(&self) -> bool {
        self.archive
    }

    async fn count(&mut self, from_ms: i64, to_ms: i64) -> Result<u64> {
        Ok(self.required(PageQuery::first(from_ms, to_ms, 1)).await?.total)
    }

    async fn first_page(&mut self, from_ms: i64, to_ms: i64) -> Result<Page<S::Rows>> {
        self.required(PageQuery::first(from_ms, to_ms, self.source.page_size())).await
    }

    async fn required(&mut self, query: PageQuery) -> Result<Page<S::Rows>> {
        let page = self.source.page(&query).await?;
        page.ok_or_else(|| Error::internal("source does not serve the first page of a search"))
    }

    /// Hands a page's rows on, less what was sent before, and what has no time.
    pub(super) async fn send(&mut self, page: Page<S::Rows>) -> Result<()> {
        let is_new = |record: &RecordKey| record.updated_at_ms.is_some() && self.sent.insert(*record);
        let keep: Vec<bool> = page.records.iter().map(is_new).collect();
        self.step(Step::Rows { rows: page.rows, keep }).await
    }

    async fn step(&self, step: Step<S::Rows>) -> Result<()> {
        self.out.send(step).await.map_err(|_| Error::new(ErrorKind::Internal, "rows are no longer received"))
    }
}

/// How far ahead a request asks: to the end, until something disturbs.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    near: Option<Near>,
}

#[derive(Debug, Clone, Copy)]
struct Near {
    pages: u64,
    span_ms: i64,
}

impl Pace {
    fn end_ms(&self, start: i64, to_ms: i64) -> i64 {
        self.near.map_or(to_ms, |near| start.saturating_add(near.span_ms).min(to_ms))
    }

    /// Draws the end in: `rows` were seen in `span_ms`, and `steps` steps went well before.
    fn disturbed(&mut self, rows: u64, span_ms: i64, page_size: u64, steps: u64) -> Self {
        let (fewest, first, _) = NEAR_PAGES;
        let pages = match self.near {
            None => first,
            // A range as long as this was too long only when it was hardly begun.
            Some(near) if steps > near.pages / 2 => near.pages,
            Some(near) => (near.pages / 2).max(fewest),
        };
        self.near = Some(Near { pages, span_ms: stretched(span_ms, pages * page_size, rows) });
        *self
    }

    /// Lets the end out again: a range of `span_ms` with `rows` went well.
    fn calm(&mut self, rows: u64, span_ms: i64, page_size: u64) {
        let Some(near) = self.near else { return };
        let pages = near.pages * 2;
        let longest = span_ms.saturating_mul(16);
        self.near = (pages <= NEAR_PAGES.2)
            .then(|| Near { pages, span_ms: stretched(span_ms, pages * page_size, rows).min(longest).max(1) });
    }
}

/// Returns the span that holds `wanted` rows where `span_ms` holds `rows`.
fn stretched(span_ms: i64, wanted: u64, rows: u64) -> i64 {
    let span = i128::from(span_ms.max(1)) * i128::from(wanted) / i128::from(rows.max(1));
    i64::try_from(span).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests;
