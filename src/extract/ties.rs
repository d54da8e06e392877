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
/// A page whose times reach over most of the range, or which holds most of it, is a sample of the whole: its quantiles cut well. One that does not is
/// one end of the range, in the order of creation: what lies beyond it is cut evenly as far as records as dense as these
/// would reach, and then into parts that grow.
fn cut(range: (i64, i64), total: u64, sample: &[i64], page_size: u32) -> Vec<(i64, i64)> {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable();
    let parts =
        |records: u64| (records.saturating_mul(6) / 5).div_ceil(u64::from(page_size.max(1))).clamp(2, 64) as i64;
    let mut cuts: Vec<i64> = Vec::new();
    if let (Some(first), Some(last)) = (sorted.first().copied(), sorted.last().copied()) {
        let (span, length) = ((last - first).max(1_000), range.1 - range.0);
        let rest = total.saturating_sub(sample.len() as u64);
        if length / 2 <= span || rest < sample.len() as u64 / 2 {
            let parts = parts(total) as usize;
            cuts.extend((1..parts).filter_map(|part| sorted.get(part * sorted.len() / parts).copied()));
        } else {
            let reach = i128::from(span) * i128::from(rest) * 3 / 2 / (sample.len() as i128);
            let reach = i64::try_from(reach).unwrap_or(i64::MAX).max(1_000).min(length);
            cuts.extend([first, last]);
            let (rises, falls) = trend(sample);
            for (goes, edge, direction) in [(rises, last, 1), (falls, first, -1)].into_iter().filter(|side| side.0) {
                let parts = if rises && falls { parts(rest / 2) } else { parts(rest) };
                cuts.extend((1..=parts).map(|part| edge.saturating_add(direction * part * (reach / parts).max(1))));
                let mut far = reach;
                while goes && far < length {
                    far = far.saturating_mul(16);
                    cuts.push(edge.saturating_add(direction * far));
                }
            }
        }
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

/// Tells whether times may go on to rise and to fall: most of their steps do, or half of them as in no order.
fn trend(times: &[i64]) -> (bool, bool) {
    let steps = times.len().saturating_sub(1);
    let rising = times.windows(2).filter(|pair| pair[0] <= pair[1]).count();
    let falling = times.windows(2).filter(|pair| pair[0] >= pair[1]).count();
    let (rises, falls) = (rising * 4 >= steps, falling * 4 >= steps);
    (rises, falls && rising * 4 < steps * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes apart, as a walk does, what `made` says of each record, in the order of a page; returns the requests.
    fn requests_to_take_apart(made: &[i64], range: (i64, i64), page_size: u32) -> usize {
        let mut waiting = vec![range];
        let mut requests = 0;
        while let Some((from, to)) = waiting.pop() {
            requests += 1;
            assert!(requests < 100_000, "no end");
            let part: Vec<i64> = made.iter().copied().filter(|at| (from..to).contains(at)).collect();
            if part.len() >= page_size as usize && to - from > 1 {
                let parts = cut((from, to), part.len() as u64, &part[..page_size as usize], page_size);
                assert_eq!((parts[0].0, parts[parts.len() - 1].1), (from, to));
                assert!(parts.len() > 1 && parts.windows(2).all(|pair| pair[0].1 == pair[1].0), "{parts:?}");
                waiting.extend(parts);
            }
        }
        requests
    }

    #[test]
    fn instant_in_any_order_is_taken_apart_in_few_requests() {
        const YEAR_MS: i64 = 365 * 86_400_000;
        let now = 56 * YEAR_MS;
        let mut random = crate::retry::SplitMix64::new(5);
        let mut spread: Vec<i64> =
            (0..12_000).map(|_| now - (random.next_u64() % (2 * YEAR_MS as u64)) as i64).collect();
        let shuffled = spread.clone();
        spread.sort_unstable();
        let falling: Vec<i64> = spread.iter().rev().copied().collect();
        // A page that rises with exceptions.
        let nearly = spread.iter().enumerate().map(|(at, made)| if at % 9 == 0 { made - 90_000 } else { *made });
        let nearly: Vec<i64> = nearly.collect();
        // A page that runs over the whole range again and again.
        let sawtooth: Vec<i64> = (0..12_000).map(|at| spread[(at * 2_311) % 12_000]).collect();
        let burst: Vec<i64> = (0..200).map(|at| now - 2 * YEAR_MS + at).chain(spread.iter().copied()).collect();
        for (order, made) in [
            ("rising", &spread),
            ("nearly rising", &nearly),
            ("falling", &falling),
            ("sawtooth", &sawtooth),
            ("shuffled", &shuffled),
            ("burst first", &burst),
        ] {
            let requests = requests_to_take_apart(made, (0, now + 1), 100);
            assert!(requests < 96 + 8 * 120, "{order}: {requests} requests for 120 pages");
        }
    }
}
