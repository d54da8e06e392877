//! When records were created and last updated, computed from their index.
//!
//! ```text
//! index i (order of id and of creation) ──shuffle inside a block──▶ rank r (order of updated_at)
//!      │                                                              │
//!   created(i)  monotone in i                                  updated(r)  monotone in r
//! ```
//!
//! The records of a block are updated in the time of the block that follows, so nothing is updated before it was created.
//! Blocks shrink towards the end, so that creation goes on until the last minutes. A time range is two binary searches
//! over ranks, a page of it is arithmetic. Now and then a run of ranks shares one `updated_at`, as bulk edits leave them.

use super::dice::{Dice, Shuffle, hash};

const HOUR_MS: i64 = 3_600_000;

/// Ranks per stretch; each stretch has one run of equal times.
const STRETCH: u64 = 4000;

/// How busy the hours of a span of time are: a monotone map from a share of all records to an instant.
#[derive(Debug)]
struct Curve {
    start: i64,
    end: i64,
    /// Share of the records before each hour, from 0 to 1.
    shares: Vec<f64>,
}

impl Curve {
    fn new(seed: u64, start: i64, end: i64) -> Self {
        let hours = ((end - start).max(1) + HOUR_MS - 1) / HOUR_MS;
        let mut shares = Vec::with_capacity(hours as usize + 1);
        let mut sum = 0.0;
        shares.push(sum);
        for hour in 0..hours {
            let absolute = start / HOUR_MS + hour;
            let day = absolute.div_euclid(24);
            // 1970-01-01 was a Thursday.
            let weekend = matches!((day + 4).rem_euclid(7), 0 | 6);
            let of_day = absolute.rem_euclid(24);
            let shift = if (7..21).contains(&of_day) { 1.0 } else { 0.2 };
            let noise = 0.8 + hash(seed, 0x7765_656b, day.div_euclid(7) as u64) as f64 / u64::MAX as f64 * 0.4;
            let growth = 1.0 + 0.5 * hour as f64 / hours as f64;
            sum += shift * noise * growth * if weekend { 0.35 } else { 1.0 };
            shares.push(sum);
        }
        for share in &mut shares {
            *share /= sum;
        }
        Self { start, end, shares }
    }

    fn at(&self, share: f64) -> i64 {
        let hour = self.shares.partition_point(|before| *before <= share).clamp(1, self.shares.len() - 1) - 1;
        let (from, to) = (self.shares[hour], self.shares[hour + 1]);
        let inside = ((share - from) / (to - from)).clamp(0.0, 1.0);
        (self.start + hour as i64 * HOUR_MS + (inside * HOUR_MS as f64) as i64).min(self.end)
    }
}

#[derive(Debug)]
struct Block {
    start: u64,
    size: u64,
    /// Shares of the curve between which the block's records are updated.
    span: (f64, f64),
    shuffle: Shuffle,
}

/// The times of one kind of record.
#[derive(Debug)]
pub(super) struct Timeline {
    count: u64,
    seed: u64,
    ties: bool,
    created: Curve,
    /// Absent when updates follow the curve of creation.
    updated: Option<Curve>,
    blocks: Vec<Block>,
    /// Runs of ranks that share one time because a setting wants it, first and past the last, ascending.
    wanted: Vec<(u64, u64)>,
}

impl Timeline {
    /// Makes records that live some days each, from `start` to `end`.
    pub(super) fn of_tickets(seed: u64, count: u64, start: i64, end: i64, ties: bool) -> Self {
        let usual = (count / 100).max(1);
        let mut bounds = vec![0];
        let mut at = 0;
        while at < count {
            let rest = count - at;
            at += if rest > 2 * usual { usual } else { rest.div_ceil(2) };
            bounds.push(at);
        }
        let share = |index: u64| index as f64 / (count + 1) as f64;
        let blocks = (1..bounds.len())
            .map(|end| {
                let until = bounds.get(end + 1).copied().unwrap_or(count + 1);
                Block {
                    start: bounds[end - 1],
                    size: bounds[end] - bounds[end - 1],
                    span: (share(bounds[end]), share(until)),
                    shuffle: Shuffle::new(bounds[end] - bounds[end - 1], hash(seed, 0x626c_6f63, end as u64)),
                }
            })
            .collect();
        Self { count, seed, ties, created: Curve::new(seed, start, end), updated: None, blocks, wanted: Vec::new() }
    }

    /// Lets as many neighbours in the order of `updated_at` share one time as each of `sizes` says; together they must fit.
    pub(super) fn with_ties(mut self, sizes: &[u32]) -> Self {
        let mut free = self.count.saturating_sub(sizes.iter().copied().map(u64::from).sum());
        let mut at = 0;
        for (number, size) in (0_u64..).zip(sizes) {
            let gap = Dice::new(self.seed, 0x7761_6e74, number).below(free + 1);
            (at, free) = (at + gap, free - gap);
            self.wanted.push((at, at + u64::from(*size)));
            at += u64::from(*size);
        }
        self
    }

    /// Makes records that were created before `start` and updated at any time from `start` to `end`.
    pub(super) fn of_customers(seed: u64, count: u64, start: i64, end: i64, ties: bool) -> Self {
        let two_years = 730 * 24 * HOUR_MS;
        let blocks = if count == 0 {
            Vec::new()
        } else {
            let shuffle = Shuffle::new(count, hash(seed, 0x626c_6f63, 0));
            vec![Block { start: 0, size: count, span: (0.0, 1.0), shuffle }]
        };
        Self {
            count,
            seed,
            ties,
            created: Curve::new(seed, start - two_years, start - 24 * HOUR_MS),
            updated: Some(Curve::new(seed, start, end)),
            blocks,
            wanted: Vec::new(),
        }
    }

    /// Returns how many records there are.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Returns when record `index` was created.
    pub(super) fn created(&self, index: u64) -> i64 {
        self.created.at(index as f64 / (self.count + 1) as f64)
    }

    /// Returns the place of record `index` in the order of `updated_at`.
    pub(super) fn rank(&self, index: u64) -> u64 {
        let block = self.block(index);
        block.start + block.shuffle.forward(index - block.start)
    }

    /// Returns the record at a place in the order of `updated_at`.
    pub(super) fn index(&self, rank: u64) -> u64 {
        let block = self.block(rank);
        block.start + block.shuffle.backward(rank - block.start)
    }

    /// Returns when the record at a place in the order of `updated_at` was updated.
    pub(super) fn updated(&self, rank: u64) -> i64 {
        let rank = self.run(rank).1 - 1;
        let block = self.block(rank);
        let part = (rank - block.start + 1) as f64 / (block.size + 1) as f64;
        let share = block.span.0 + part * (block.span.1 - block.span.0);
        self.updated.as_ref().unwrap_or(&self.created).at(share)
    }

    /// Returns the first rank whose time is `time` or later.
    pub(super) fn lower_bound(&self, time: i64) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.updated(middle) < time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Returns the run of ranks, first and past the last, that share the time of `rank`.
    pub(super) fn run(&self, rank: u64) -> (u64, u64) {
        let alone = (rank, rank + 1);
        let next = self.wanted.partition_point(|(_, end)| *end <= rank);
        if let Some(run) = self.wanted.get(next).filter(|(first, _)| *first <= rank) {
            return *run;
        }
        let stretch = STRETCH.min(self.count);
        if !self.ties || stretch < 40 {
            return alone;
        }
        let mut dice = Dice::new(self.seed, 0x7469_6573, rank / stretch);
        let length = dice.between(stretch / 40, stretch / 40 * 7);
        let first = rank / stretch * stretch + dice.below(stretch - length);
        let end = (first + length).min(self.count);
        let is_free = self.wanted.iter().all(|(begin, past)| *past <= first || *begin >= end);
        if is_free && (first..end).contains(&rank) { (first, end) } else { alone }
    }

    fn block(&self, place: u64) -> &Block {
        &self.blocks[self.blocks.partition_point(|block| block.start <= place) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_700_000_000_000;
    const END: i64 = START + 700 * 24 * HOUR_MS;

    #[test]
    fn ranks_are_a_permutation_and_times_are_monotone() {
        for count in [1, 2, 3, 40, 1000, 20_000] {
            for timeline in
                [Timeline::of_tickets(7, count, START, END, true), Timeline::of_customers(7, count, START, END, true)]
            {
                let mut seen = vec![false; count as usize];
                for index in 0..count {
                    let rank = timeline.rank(index);
                    assert_eq!(timeline.index(rank), index);
                    assert!(!std::mem::replace(&mut seen[rank as usize], true));
                    assert!(timeline.created(index) <= timeline.updated(rank), "{count} {index}");
                    if index > 0 {
                        assert!(timeline.created(index - 1) <= timeline.created(index));
                        assert!(timeline.updated(index - 1) <= timeline.updated(index));
                    }
                }
                assert!(timeline.updated(count - 1) <= END);
            }
        }
    }

    #[test]
    fn wanted_ties_have_their_sizes_and_leave_the_order_as_it_is() {
        for seed in 0..5 {
            let timeline = Timeline::of_tickets(seed, 16_000, START, END, true).with_ties(&[1_300, 12_000]);
            let mut runs = Vec::new();
            let mut rank = 0;
            while rank < 16_000 {
                let (first, end) = timeline.run(rank);
                assert_eq!(first, rank, "runs follow each other");
                assert_eq!(timeline.lower_bound(timeline.updated(rank)), first);
                runs.push(end - first);
                rank = end;
            }
            assert!(runs.contains(&1_300) && runs.contains(&12_000), "{seed}");
            assert!((0..16_000).all(|index| timeline.created(index) <= timeline.updated(timeline.rank(index))));
        }
    }

    #[test]
    fn hundreds_of_records_share_one_time() {
        let timeline = Timeline::of_tickets(1, 20_000, START, END, true);
        let mut runs = Vec::new();
        let mut rank = 0;
        while rank < 20_000 {
            let time = timeline.updated(rank);
            let end = timeline.lower_bound(time + 1);
            runs.push(end - rank);
            rank = end;
        }
        runs.sort_unstable();
        assert!(runs.iter().filter(|run| **run >= 100).count() >= 4, "{:?}", &runs[runs.len() - 6..]);
        assert!(runs[runs.len() - 1] <= 800);
        assert!(Timeline::of_tickets(1, 20_000, START, END, false).run(77) == (77, 78));
    }
}
