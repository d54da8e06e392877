//! Reading one instant: records that share an `updated_at`, more than a page of them, because they were changed in bulk.
//!
//! 1. **By page number**, while the pages reach that far. No key leads through an instant, and its order may differ from request to
//!    request, so that pages overlap and miss. It is proven when every page tells the same total, the pages hold as many distinct
//!    records as that, and one of them has room left: what is received was there at some time, and nothing came into
//!    the past, so the set is the one that was counted first.
//! 2. **By `created_at`**, cut until each part is a whole page, which needs no order and no total of the instant. The seconds in
//!    the ids of a page say where to cut. The parts cover every time from 1970 on, and one more has what is in none of them.
//! 3. **By count** (messages of a conversation, conversations of a customer) where `created_at` is the same as well, as after an
//!    import. Ids cannot be searched by range. The archive knows neither.
//! 4. **By page number, several times**, where all of that is the same, as far as pages reach.
//!
//! What remains is a hole of one millisecond.

use crate::error::Result;
use crate::extract::reading::{Reading, Tally};
use crate::extract::walk::{Bound, PageQuery, PageSource, REPETITIONS, Walker};
use crate::policy::RecordKey;

/// Passes over what nothing takes apart.
const PASSES: u32 = 4;

/// Later than any `created_at`: the year 2100.
const END_OF_TIME_MS: i64 = 4_102_444_800_000;

/// Rows that every source is known to reach by paging; farther, the last page is asked first.
const SURE_ROWS: u64 = 10_000;

/// Requests that taking an instant apart may cost, beside those in proportion to the records that it brings.
const SPLIT_REQUESTS: u64 = 96;

/// How an attempt at an instant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Proven,
    /// A small instant does not add up: it may, when asked again.
    Again,
    /// Pages do not lead through it.
    Split,
}

/// An instant at work.
pub(super) struct Tie {
    at_ms: i64,
    /// What the source says it holds, or about that.
    total: u64,
    /// Records of its pages.
    page_size: u32,
    tally: Tally,
    /// Ids' times of a page of it, in the page's order.
    sample: Vec<i64>,
    /// Whether its order is known to differ from request to request.
    is_unstable: bool,
}

impl Tie {
    fn new(at_ms: i64) -> Self {
        Self { at_ms, total: 0, page_size: 1, tally: Tally::default(), sample: Vec::new(), is_unstable: false }
    }

    /// Begins with a full page of an instant whose order is known to be unstable.
    pub(super) fn unstable(at_ms: i64, page: &[RecordKey], page_size: u32) -> Self {
        let sample = page.iter().map(created_ms).collect();
        Self { page_size, sample, is_unstable: true, ..Self::new(at_ms) }
    }

    /// Says about how many records it holds: a hint for cutting, which proves nothing.
    pub(super) fn about(self, total: u64) -> Self {
        Self { total, ..self }
    }
}

impl<S: PageSource> Walker<'_, S> {
    /// Reads the records that share one `updated_at`, and closes their instant.
    pub(super) async fn instant(&mut self, at_ms: i64) -> Result<()> {
        self.tie(Tie::new(at_ms)).await
    }

    /// Reads an instant of which something is known.
    pub(super) async fn tie(&mut self, mut tie: Tie) -> Result<()> {
        let at_ms = tie.at_ms;
        let mut is_proven = tie.is_unstable && self.split(&mut tie).await?;
        for repetition in 0..=REPETITIONS {
            if is_proven {
                break;
            }
            tie = Tie::new(at_ms);
            match self.paged(&mut tie, repetition > 0).await? {
                Attempt::Proven => is_proven = true,
                Attempt::Again => continue,
                Attempt::Split => is_proven = self.split(&mut tie).await?,
            }
            break;
        }
        let Tie { mut tally, total, .. } = tie;
        let promised = if is_proven { tally.accounted() } else { total };
        tally.holes_ms.clear();
        if !tally.rejected.is_empty() {
            tally.holes_ms.push((at_ms, at_ms + 1));
        }
        self.close((at_ms, at_ms + 1), promised, tally, is_proven).await
    }

    /// Reads an instant by page number.
    async fn paged(&mut self, tie: &mut Tie, is_again: bool) -> Result<Attempt> {
        let first = PageQuery::first(tie.at_ms, tie.at_ms + 1, self.source.page_size());
        let Some(part) = self.part(first, tie).await? else { return Ok(Attempt::Split) };
        let page_size = part.page_size;
        (tie.total, tie.page_size, tie.sample) = (part.total, page_size, part.sample);
        if part.is_whole {
            return Ok(Attempt::Proven);
        }
        if !part.is_full {
            let has_more = is_again && part.reading.is_cut_short(part.total);
            return Ok(if has_more || tie.total > u64::from(page_size) { Attempt::Split } else { Attempt::Again });
        }
        // The page after the last full one shows that nothing lies behind it.
        let last = (tie.total / u64::from(page_size) + 1) as u32;
        if u64::from(last) * u64::from(page_size) > self.source.reach_rows(page_size) {
            return Ok(Attempt::Split);
        }
        let mut has_end = false;
        let far = (tie.total > SURE_ROWS).then_some(last);
        for page in far.into_iter().chain((2..=last).filter(|page| Some(*page) != far)) {
            let query = PageQuery { page, page_size, ..first };
            let Some(part) = self.part(query, tie).await? else { return Ok(Attempt::Split) };
            if part.total != tie.total || part.fresh < part.records {
                return Ok(Attempt::Split);
            }
            has_end |= !part.is_full;
        }
        Ok(if has_end && tie.tally.accounted() == tie.total { Attempt::Proven } else { Attempt::Split })
    }

    /// Reads an instant in parts of other attributes, each small enough for one page; tells whether it is proven.
    async fn split(&mut self, tie: &mut Tie) -> Result<bool> {
        let page_size = tie.page_size;
        let instant = PageQuery::first(tie.at_ms, tie.at_ms + 1, page_size);
        let sample = std::mem::take(&mut tie.sample);
        let parts = cut_open((0, i64::MAX), tie.at_ms, tie.total, &sample, page_size);
        let bounds = parts.into_iter().map(|(from, to)| Bound::Between(from, to)).chain([Bound::NotFrom(0)]);
        let mut waiting: Vec<PageQuery> = bounds.map(|bound| PageQuery { created: Some(bound), ..instant }).collect();
        let (mut asked, mut is_sound) = (0, true);
        while let Some(query) = waiting.pop() {
            asked += 1;
            if asked > SPLIT_REQUESTS + 8 * tie.tally.accounted() / u64::from(page_size.max(1)) {
                return Ok(false);
            }
            let mut part = self.part(query, tie).await?;
            for _ in 0..REPETITIONS {
                if part.as_ref().is_none_or(|part| part.is_whole || part.is_full) {
                    break;
                }
                part = self.part(query, tie).await?;
            }
            match part {
                Some(part) if part.is_whole => {}
                Some(part) if part.is_full || part.reading.is_cut_short(part.total) => {
                    let parts = self.narrower(query, &part);
                    if parts.is_empty() {
                        is_sound &= self.pass(query, &part, tie).await?;
                    }
                    waiting.extend(parts);
                }
                // The other parts are read all the same.
                _ => is_sound = false,
            }
        }
        Ok(is_sound)
    }

    /// Returns the parts of a part; none when nothing takes it apart.
    fn narrower(&self, query: PageQuery, part: &Part) -> Vec<PageQuery> {
        if query.count.is_none()
            && let Some(Bound::Between(from, to)) = query.created
            && to.saturating_sub(from) > 1
        {
            let bounds = cut_open((from, to), query.updated.0, part.total, &part.sample, part.page_size);
            return bounds
                .into_iter()
                .map(|(from, to)| PageQuery { created: Some(Bound::Between(from, to)), ..query })
                .collect();
        }
        if self.is_archive() {
            return Vec::new();
        }
        let counts = match query.count {
            None => {
                let from = [0, 1, 2, 3, 5, 9, 17, 65];
                let to = from.into_iter().skip(1).chain([i64::MAX]);
                let parts = from.into_iter().zip(to).map(|(from, to)| Bound::Between(from, to));
                parts.chain([Bound::NotFrom(0)]).collect()
            }
            Some(Bound::Between(from, i64::MAX)) if from < 1 << 40 => {
                vec![Bound::Between(from, from * 4), Bound::Between(from * 4, i64::MAX)]
            }
            Some(Bound::Between(from, to)) if to - from > 1 => {
                let middle = from + (to - from) / 2;
                vec![Bound::Between(from, middle), Bound::Between(middle, to)]
            }
            Some(_) => Vec::new(),
        };
        counts.into_iter().map(|count| PageQuery { count: Some(count), ..query }).collect()
    }

    /// Pages through what nothing can take apart, several times, because the order may change between requests.
    async fn pass(&mut self, query: PageQuery, first: &Part, tie: &mut Tie) -> Result<bool> {
        let page_size = first.page_size;
        let pages = first.total / u64::from(page_size.max(1)) + 1;
        if first.total > self.source.reach_rows(page_size) {
            return Ok(false);
        }
        let (mut all, mut has_end) = (Tally::default(), false);
        for _ in 0..PASSES {
            for page in 1..=pages as u32 {
                let Some(part) = self.part(PageQuery { page, page_size, ..query }, tie).await? else {
                    return Ok(false);
                };
                part.reading.add_to(&mut all);
                if part.total != first.total {
                    return Ok(false);
                }
                has_end |= !part.is_full;
                if has_end && all.accounted() == first.total {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Reads one page of an instant.
    async fn part(&mut self, query: PageQuery, tie: &mut Tie) -> Result<Option<Part>> {
        let Some(page) = self.source.page(&query).await? else { return Ok(None) };
        let reading = Reading::new(&page, tie.at_ms, tie.at_ms + 1)?;
        let sample = page.records.iter().map(created_ms).collect();
        let (total, page_size) = (page.total, page.size);
        self.send(page).await?;
        let fresh = reading.add_to(&mut tie.tally);
        Ok(Some(Part {
            total,
            page_size,
            records: reading.len() as u64,
            fresh,
            is_whole: query.page == 1 && reading.whole(total).is_some(),
            is_full: reading.is_full(),
            sample,
            reading,
        }))
    }
}

/// A page of a part of an instant.
struct Part {
    total: u64,
    page_size: u32,
    records: u64,
    /// Records that the instant did not have yet.
    fresh: u64,
    is_whole: bool,
    is_full: bool,
    sample: Vec<i64>,
    reading: Reading,
}

/// Returns when an id was made, to the second: near its record's `created_at`.
fn created_ms(record: &RecordKey) -> i64 {
    let bytes = record.id.as_bytes();
    i64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) * 1_000
}

/// Cuts a range of `created_at` whose end may be open.
///
/// Records are made before they change, so the cuts lie before `at_ms`; only where a clock was wrong, beyond.
fn cut_open((from, to): (i64, i64), at_ms: i64, total: u64, sample: &[i64], page_size: u32) -> Vec<(i64, i64)> {
    if to < i64::MAX {
        return cut((from, to), total, sample, page_size);
    }
    let is_beyond = from > at_ms || sample.iter().any(|made| *made > at_ms + 1_000);
    let end = if is_beyond { END_OF_TIME_MS } else { at_ms + 1 };
    let mut parts = cut((from, end.max(from + 2)), total, sample, page_size);
    if let Some(last) = parts.last_mut() {
        last.1 = i64::MAX;
    }
    parts
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
        let parts = (total.saturating_mul(6) / 5).div_ceil(u64::from(page_size)).clamp(2, 64) as usize;
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
