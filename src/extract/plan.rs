//! What a run has to walk: ranges of `updated_at`, from the watermark.
//!
//! A first run begins at the beginning (or at `since`), an incremental one a little before the watermark. What an earlier
//! run left over is walked too, whatever else is asked: its remaining ranges, and everything from its target on. `full` and
//! `since` add to that, so that no setting moves the watermark over a hole.

use std::time::Duration;

use jiff::Timestamp;

use crate::extract::ExtractSettings;
use crate::lake::manifest::Watermark;

/// Search reaches this far back; what was updated before is in the archive.
pub(super) const HORIZON: Duration = Duration::from_hours(2 * 365 * 24);

/// Whether archive and search overlap at the horizon is not documented, so they are made to.
const HORIZON_OVERLAP: Duration = Duration::from_hours(2 * 24);

/// Ranges that one run walks apart, and that its record lists. Each costs a request, so that more are joined.
pub(super) const MOST_RANGES: usize = 100;

/// Disjoint ranges `[from, to)` in milliseconds since 1970, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<(i64, i64)>);

impl RangeSet {
    /// Adds a range and joins it with those it touches.
    pub(super) fn add(&mut self, from_ms: i64, to_ms: i64) {
        if from_ms >= to_ms {
            return;
        }
        let (mut from_ms, mut to_ms) = (from_ms, to_ms);
        self.0.retain(|(from, to)| {
            let is_apart = *to < from_ms || *from > to_ms;
            if !is_apart {
                from_ms = from_ms.min(*from);
                to_ms = to_ms.max(*to);
            }
            is_apart
        });
        let place = self.0.partition_point(|(from, _)| *from < from_ms);
        self.0.insert(place, (from_ms, to_ms));
    }

    /// Takes a range out.
    pub(super) fn remove(&mut self, from_ms: i64, to_ms: i64) {
        let pieces = self.0.iter().flat_map(|(from, to)| [(*from, (*to).min(from_ms)), ((*from).max(to_ms), *to)]);
        self.0 = pieces.filter(|(from, to)| from < to).collect();
    }

    /// Joins the ranges that lie nearest to each other until there are so many.
    pub(super) fn at_most(&self, most: usize) -> Self {
        let Some(extra) = self.0.len().checked_sub(most.max(1)) else { return self.clone() };
        let mut gaps: Vec<(i64, usize)> = self.0.windows(2).map(|pair| pair[1].0 - pair[0].1).zip(1..).collect();
        gaps.sort_unstable();
        let joined: Vec<usize> = gaps.into_iter().take(extra).map(|(_, place)| place).collect();
        let mut ranges: Vec<(i64, i64)> = Vec::with_capacity(most);
        for (place, (from, to)) in self.0.iter().enumerate() {
            match ranges.last_mut() {
                Some(last) if joined.contains(&place) => last.1 = *to,
                _ => ranges.push((*from, *to)),
            }
        }
        Self(ranges)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the smallest range that holds all.
    pub(super) fn hull(&self) -> Option<(i64, i64)> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }
}

/// The ranges of one run of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What is to be walked.
    pub(super) ranges: RangeSet,
    /// Where the watermark stands when all of it is proven.
    pub(super) target_ms: i64,
    /// Where what is complete begins then; absent for the beginning.
    pub(super) complete_from_ms: Option<i64>,
}

impl Plan {
    pub(super) fn new(watermark: &Watermark, settings: &ExtractSettings, now_ms: i64) -> Self {
        let latest = now_ms.saturating_sub(millis(settings.index_lag));
        let until = settings.until.map_or(latest, |until| until.as_millisecond().min(latest));
        let first = settings.since.map_or(0, Timestamp::as_millisecond);
        let mut ranges = RangeSet::default();
        let reached = watermark.target_ms.or(watermark.complete_through_ms);
        match reached {
            None => ranges.add(first, until),
            Some(reached) => {
                ranges.add(reached.saturating_sub(millis(settings.overlap)), until);
                for (from, to) in &watermark.remaining_ms {
                    ranges.add(*from, *to);
                }
                if settings.full || settings.since.is_some() {
                    ranges.add(first, until);
                }
            }
        }
        // A watermark never goes back, also when `until` lies before it.
        let since_ms = settings.since.map(Timestamp::as_millisecond);
        let complete_from_ms = match (reached, since_ms) {
            (None, since) => since,
            (Some(_), None) if settings.full => None,
            (Some(_), None) => watermark.complete_from_ms,
            (Some(_), Some(since)) => watermark.complete_from_ms.map(|from| from.min(since)),
        };
        let ranges = ranges.at_most(MOST_RANGES);
        Self { ranges, target_ms: reached.map_or(until, |reached| reached.max(until)), complete_from_ms }
    }

    /// Returns the parts that reach back behind the horizon of search.
    pub(super) fn archived(&self, now_ms: i64) -> RangeSet {
        let horizon = now_ms.saturating_sub(millis(HORIZON)).saturating_add(millis(HORIZON_OVERLAP));
        let mut archived = RangeSet::default();
        for (from, to) in self.ranges.iter() {
            archived.add(from, to.min(horizon));
        }
        archived
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> ExtractSettings {
        ExtractSettings {
            index_lag: Duration::from_millis(10),
            overlap: Duration::from_millis(20),
            ..ExtractSettings::default()
        }
    }

    #[test]
    fn ranges_follow_the_watermark() {
        let none = Watermark::default();
        let done = Watermark { complete_through_ms: Some(500), ..none.clone() };
        let torn = Watermark {
            complete_through_ms: Some(100),
            target_ms: Some(500),
            remaining_ms: vec![(100, 150), (300, 320), (470, 500)],
            ..none.clone()
        };
        let at = |ms| jiff::Timestamp::from_millisecond(ms).ok();
        let full = ExtractSettings { full: true, ..settings() };
        let since = ExtractSettings { since: at(700), ..settings() };
        let full_since = ExtractSettings { full: true, ..since.clone() };
        let full_until = ExtractSettings { full: true, until: at(200), ..settings() };
        let early = ExtractSettings { since: at(50), ..settings() };
        let cases = [
            (&none, settings(), vec![(0, 990)], 990),
            (&done, settings(), vec![(480, 990)], 990),
            (&torn, settings(), vec![(100, 150), (300, 320), (470, 990)], 990),
            (&torn, full, vec![(0, 990)], 990),
            (&none, since.clone(), vec![(700, 990)], 990),
            (&done, since, vec![(480, 990)], 990),
            (&done, early, vec![(50, 990)], 990),
            (&torn, full_since, vec![(100, 150), (300, 320), (470, 990)], 990),
            (&torn, full_until, vec![(0, 200), (300, 320), (470, 500)], 500),
        ];
        for (watermark, settings, ranges, target) in cases {
            let plan = Plan::new(watermark, &settings, 1_000);
            assert_eq!(plan.ranges.iter().collect::<Vec<_>>(), ranges);
            assert_eq!(plan.target_ms, target);
        }
    }

    #[test]
    fn what_a_first_run_left_out_is_remembered_until_it_is_walked() {
        let at = |ms| jiff::Timestamp::from_millisecond(ms).ok();
        let since = |ms| ExtractSettings { since: at(ms), ..settings() };
        let full = ExtractSettings { full: true, ..settings() };
        let first = Plan::new(&Watermark::default(), &since(700), 1_000).complete_from_ms;
        assert_eq!(first, Some(700));
        let done = Watermark { complete_through_ms: Some(990), complete_from_ms: first, ..Watermark::default() };
        assert_eq!(Plan::new(&done, &settings(), 2_000).complete_from_ms, Some(700));
        assert_eq!(Plan::new(&done, &since(800), 2_000).complete_from_ms, Some(700));
        assert_eq!(Plan::new(&done, &since(600), 2_000).complete_from_ms, Some(600));
        assert_eq!(Plan::new(&done, &full, 2_000).complete_from_ms, None);
        assert_eq!(Plan::new(&Watermark { complete_from_ms: None, ..done }, &since(600), 2_000).complete_from_ms, None);
    }

    #[test]
    fn only_what_is_older_than_the_horizon_is_asked_of_the_archive() {
        let now = 1_800_000_000_000;
        let recent = Watermark { complete_through_ms: Some(now - 1_000), ..Watermark::default() };
        assert!(Plan::new(&recent, &settings(), now).archived(now).is_empty());
        let (from, to) = Plan::new(&Watermark::default(), &settings(), now).archived(now).hull().unwrap();
        assert_eq!(from, 0);
        assert!(to > now - millis(HORIZON) && to < now);
    }

    #[test]
    fn many_holes_are_joined_where_they_are_nearest() {
        let mut ranges = RangeSet::default();
        for (from, to) in [(0, 1), (100, 101), (103, 104), (200, 201), (205, 206)] {
            ranges.add(from, to);
        }
        assert_eq!(ranges.at_most(5), ranges);
        assert_eq!(ranges.at_most(3).iter().collect::<Vec<_>>(), [(0, 1), (100, 104), (200, 206)]);
        assert_eq!(ranges.at_most(1).iter().collect::<Vec<_>>(), [(0, 206)]);
        assert_eq!(RangeSet::default().at_most(1), RangeSet::default());
    }

    proptest! {
        #[test]
        fn set_of_ranges_equals_a_set_of_points(steps in prop::collection::vec((any::<bool>(), 0_i64..60, 0_i64..60), 0..40)) {
            let mut ranges = RangeSet::default();
            let mut points = std::collections::BTreeSet::new();
            for (is_added, from, to) in steps {
                if is_added {
                    ranges.add(from, to);
                    points.extend(from..to);
                } else if from < to {
                    ranges.remove(from, to);
                    points.retain(|point| *point < from || *point >= to);
                }
            }
            let held: Vec<i64> = ranges.iter().flat_map(|(from, to)| from..to).collect();
            prop_assert_eq!(held, points.into_iter().collect::<Vec<_>>());
        }
    }
}
