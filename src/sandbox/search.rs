//! One page of a search: which records, in which order, and how many in all.
//!
//! A range of `updated_at` is arithmetic: the computed records of the range, less those that changed since, then the
//! changed ones. Other criteria and other orders walk the range.

use std::cell::Cell;

use super::criteria::{Search, SortKey};
use super::dice::{Shuffle, hash};
use super::organisation::View;
use super::timeline::Timeline;
use super::times;

/// Two years, the reach of normal search; archive search sees what is older.
pub(super) const HORIZON_MS: i64 = 730 * 86_400_000;

/// A page of records, by number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) total: u64,
    pub(super) rows: Vec<u64>,
}

/// Finds the rows from place `first`, `size` of them; `unrest` decides the order inside ties, none keeps it.
pub(super) fn find(
    view: &View<'_>,
    search: &Search,
    archive: bool,
    first: u64,
    size: u64,
    unrest: Option<u64>,
) -> Found {
    let Some(timeline) = search.context.timeline(view) else { return times::find(view, search, first, size) };
    let horizon = view.org().now_ms() - HORIZON_MS;
    let (from, until) =
        if archive { (search.from, search.until.min(horizon)) } else { (search.from.max(horizon), search.until) };
    let range = Range::new(view, search, timeline, from..until.max(from), unrest);
    let total_in_range = range.count();
    if search.is_range_only() && search.sort == SortKey::Updated {
        let rows = (first..total_in_range.min(first + size))
            .map(|place| range.row(if search.descending { total_in_range - 1 - place } else { place }))
            .collect();
        return Found { total: total_in_range, rows };
    }
    let mut rows: Vec<u64> =
        (0..total_in_range).map(|place| range.row(place)).filter(|index| search.matches(view, *index)).collect();
    match search.sort {
        SortKey::Updated => {}
        SortKey::Value => search.sort_by_value(view, &mut rows),
        SortKey::Created => rows.sort_unstable(),
        SortKey::Owner => rows.sort_by_key(|index| (view.owner_of(*index), *index)),
        SortKey::Deleted => {
            rows.sort_by_key(|index| (search.context.is_deleted(view, *index), *index));
        }
    }
    if search.descending {
        rows.reverse();
    }
    let total = rows.len() as u64;
    let rows = rows.into_iter().skip(first as usize).take(size as usize).collect();
    Found { total, rows }
}

/// The records of a range of `updated_at`, ascending.
struct Range<'a> {
    timeline: &'a Timeline,
    ranks: std::ops::Range<u64>,
    /// Ranks of the range whose records changed since, ascending.
    gone: Vec<u64>,
    /// Changed records whose new time lies in the range, ascending by it.
    late: Vec<u64>,
    unrest: Option<u64>,
    /// The last run of equal times that a row was in: first place, past the last, and the order in it.
    recent: Cell<(u64, u64, Shuffle)>,
}

impl<'a> Range<'a> {
    fn new(
        view: &View<'_>,
        search: &Search,
        timeline: &'a Timeline,
        times: std::ops::Range<i64>,
        unrest: Option<u64>,
    ) -> Self {
        let ranks = timeline.lower_bound(times.start)..timeline.lower_bound(times.end);
        let mut gone = Vec::new();
        let mut late = Vec::new();
        for (index, shown_at) in search.context.changed(view, search.include_deleted) {
            let rank = timeline.rank(index);
            if ranks.contains(&rank) {
                gone.push(rank);
            }
            if let Some(at) = shown_at.filter(|at| times.contains(at)) {
                late.push((at, unrest.map_or(index, |unrest| hash(unrest, 9, index)), index));
            }
        }
        gone.sort_unstable();
        late.sort_unstable();
        let late = late.into_iter().map(|(.., index)| index).collect();
        Self { timeline, ranks, gone, late, unrest, recent: Cell::new((0, 0, Shuffle::new(0, 0))) }
    }

    fn settled(&self) -> u64 {
        self.ranks.end - self.ranks.start - self.gone.len() as u64
    }

    fn count(&self) -> u64 {
        self.settled() + self.late.len() as u64
    }

    fn row(&self, place: u64) -> u64 {
        match place.checked_sub(self.settled()) {
            Some(late) => self.late[late as usize],
            None => self.timeline.index(self.rank(self.unsettle(place))),
        }
    }

    /// Returns the rank at a place, counting only ranks that are not gone.
    fn rank(&self, place: u64) -> u64 {
        let target = self.ranks.start + place;
        let (mut low, mut high) = (0, self.gone.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.gone[middle] - middle as u64 <= target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        target + low as u64
    }

    /// Returns the place of a rank, or of the first one after it that is not gone.
    fn place(&self, rank: u64) -> u64 {
        rank - self.ranks.start - self.gone.partition_point(|gone| *gone < rank) as u64
    }

    /// Moves a place inside the run of places that share its time.
    fn unsettle(&self, place: u64) -> u64 {
        let Some(unrest) = self.unrest else { return place };
        let (first, end, order) = self.recent.get();
        if (first..end).contains(&place) {
            return first + order.forward(place - first);
        }
        let (first, end) = self.timeline.run(self.rank(place));
        if end - first == 1 {
            return place;
        }
        let (first, end) = (self.place(first.max(self.ranks.start)), self.place(end.min(self.ranks.end)));
        let order = Shuffle::new(end - first, hash(unrest, 8, first));
        self.recent.set((first, end, order));
        first + order.forward(place - first)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::SandboxSettings;
    use super::super::organisation::Organisation;
    use super::*;
    use crate::clock::ManualClock;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_record_has_one_place_in_order_whatever_changed_and_ties(
            tickets in 1_u64..6000, changed in 0_u64..600, seed: u64, unrest: u64, descending: bool,
        ) {
            let clock = Arc::new(ManualClock::new("2026-11-22T12:00:00Z".parse().unwrap()));
            let settings = SandboxSettings { tickets, seed, ..SandboxSettings::default() };
            let organisation = Organisation::new(&settings, clock.clone());
            clock.advance(Duration::from_mins(1));
            organisation.touch(&organisation.pick(changed));
            organisation.delete(&organisation.pick(changed / 10));
            let order = if descending { "desc" } else { "asc" };
            let body = format!(
                r#"{{"queryContext":"conversation","sort":{{"conversation_updated_at":"{order}"}},"includeDeleted":true}}"#
            );
            let search = Search::parse(body.as_bytes(), false).unwrap();
            let view = organisation.indexed();
            let found = find(&view, &search, false, 0, tickets, Some(unrest));
            prop_assert_eq!(found.total, tickets);
            let time = |index: &u64| {
                view.ticket_state(*index).map_or_else(|| organisation.ticket_times(*index).1, |state| state.at)
            };
            let mut times: Vec<i64> = found.rows.iter().map(time).collect();
            if descending {
                times.reverse();
            }
            prop_assert!(times.is_sorted());
            let mut rows = found.rows;
            rows.sort_unstable();
            rows.dedup();
            prop_assert_eq!(rows.len() as u64, tickets);
        }
    }
}
