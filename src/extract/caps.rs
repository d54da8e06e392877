//! What the source allows of a search page: how many records, and how far pages reach. Probed while walking, and remembered.
//!
//! Nobody documents what happens beyond 500 records a page, or whether 100 pages of 500 really reach 50,000 rows: a source may
//! clamp, refuse, or send empty pages. So a run begins with what the last one saw, or else with the largest that is
//! documented, and learns from what it is answered anyway:
//!
//! * the page size from `meta.pageSize`, from two short pages of the same round size, and from a refused page (status 400);
//! * the reach from a page behind the first that is refused, or that is empty before the total.
//!
//! Nothing is asked for the sake of probing, and a refusal costs its one request. Caps change over time: what is older than
//! [`REMEMBERED`] is forgotten, and the largest is tried again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::extract::ExtractSettings;
use crate::extract::plan::millis;
use crate::lake::run::SourceCaps;

/// How long caps are believed before the largest are tried again.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);

/// Records of a page, where one of the next larger size was refused: the API's largest of search and of most lists, then less.
const PAGE_SIZES: [u32; 3] = [500, 100, 50];

/// Rows that paging reaches, where a page behind it was refused.
const REACHES: [u64; 5] = [50_000, 10_000, 5_000, 2_000, 1_000];

/// The caps as this run knows them, shared by everything that searches.
#[derive(Debug)]
pub(super) struct Caps(Mutex<State>);

#[derive(Debug)]
struct State {
    seen: SourceCaps,
    now_ms: i64,
    /// The last page that was shorter than asked: its records, and where it began.
    short: Option<(u32, i64)>,
}

impl Caps {
    /// Begins with what an earlier run saw, within what the settings allow.
    pub(super) fn new(settings: &ExtractSettings, remembered: Option<&SourceCaps>, now_ms: i64) -> Self {
        let remembered = remembered.filter(|caps| {
            let age_ms = now_ms.saturating_sub(caps.seen_ms);
            (0..millis(REMEMBERED)).contains(&age_ms)
        });
        let largest = SourceCaps {
            page_size: PAGE_SIZES[0],
            window_rows: REACHES[0],
            max_pages: settings.max_pages,
            seen_ms: now_ms,
        };
        let known = remembered.cloned().unwrap_or(largest);
        let seen = SourceCaps {
            page_size: known.page_size.min(settings.page_size).clamp(1, PAGE_SIZES[0]),
            window_rows: known.window_rows.min(settings.result_window_rows).max(1),
            max_pages: known.max_pages.min(settings.max_pages).max(1),
            seen_ms: known.seen_ms,
        };
        Self(Mutex::new(State { seen, now_ms, short: None }))
    }

    /// Returns how many records of a page to ask for.
    pub(super) fn page_size(&self) -> u32 {
        self.state().seen.page_size
    }

    /// Returns how many rows pages of a size reach.
    pub(super) fn reach_rows(&self, page_size: u32) -> u64 {
        let state = self.state();
        state.seen.window_rows.min(u64::from(state.seen.max_pages) * u64::from(page_size))
    }

    /// Returns the caps, for the lake to remember.
    pub(super) fn seen(&self) -> SourceCaps {
        self.state().seen.clone()
    }

    /// Takes note of the size that the source says its page has, or that it served after it refused a larger one.
    pub(super) fn stated_page_size(&self, page_size: u32) {
        self.state().lower_page_size(page_size);
    }

    /// Takes note of a page that begins at `from_ms` and held fewer records than were asked for, though more matched.
    ///
    /// One such page may be cut short by chance. Two in different places of the same round size are a cap.
    pub(super) fn short_page(&self, from_ms: i64, records: u32, total: u64) {
        if records < 50 || !records.is_multiple_of(10) || total < 2 * u64::from(records) {
            return;
        }
        let mut state = self.state();
        if state.short.is_some_and(|(before, at_ms)| before == records && at_ms != from_ms) {
            state.lower_page_size(records);
        }
        state.short = Some((records, from_ms));
    }

    /// Returns the size to try where a first page of this size was refused.
    pub(super) fn smaller(page_size: u32) -> Option<u32> {
        PAGE_SIZES.into_iter().find(|size| *size < page_size)
    }

    /// Takes note that a page behind the first is not served, or is empty before the total.
    pub(super) fn refused_page(&self, page: u32, page_size: u32) {
        let rows = u64::from(page) * u64::from(page_size);
        let before = rows - u64::from(page_size);
        let reach = REACHES.into_iter().find(|reach| *reach < rows).unwrap_or(before).max(1);
        let mut state = self.state();
        if reach < state.seen.window_rows {
            tracing::info!(page, page_size, reach, "source does not serve pages that far; ties are split before that");
            state.seen.window_rows = reach;
            state.seen.seen_ms = state.now_ms;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lower_page_size(&mut self, page_size: u32) {
        if page_size > 0 && page_size < self.seen.page_size {
            tracing::info!(asked = self.seen.page_size, page_size, "source serves smaller pages than were asked for");
            self.seen.page_size = page_size;
            self.seen.seen_ms = self.now_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn fresh() -> Caps {
        Caps::new(&ExtractSettings::default(), None, 0)
    }

    #[test]
    fn without_memory_the_largest_is_tried() {
        assert_eq!((fresh().page_size(), fresh().reach_rows(500)), (500, 50_000));
        assert_eq!(fresh().reach_rows(100), 10_000);
    }

    #[test]
    fn settings_are_upper_bounds() {
        let settings = ExtractSettings { page_size: 200, result_window_rows: 10_000, ..ExtractSettings::default() };
        let caps = Caps::new(&settings, None, 0);
        assert_eq!((caps.page_size(), caps.reach_rows(200)), (200, 10_000));
    }

    #[test]
    fn caps_are_remembered_for_thirty_days() {
        let caps = fresh();
        caps.stated_page_size(100);
        caps.refused_page(24, 500);
        let seen = caps.seen();
        let later = |days: i64| Caps::new(&ExtractSettings::default(), Some(&seen), days * DAY_MS);
        assert_eq!((later(29).page_size(), later(29).reach_rows(500)), (100, 10_000));
        // Using them does not make them newer.
        assert_eq!(later(29).seen().seen_ms, 0);
        assert_eq!((later(31).page_size(), later(31).reach_rows(500)), (500, 50_000));
        assert_eq!(later(31).seen().seen_ms, 31 * DAY_MS);
    }

    #[test]
    fn refusals_step_down_until_nothing_smaller_is_left() {
        assert_eq!([500, 250, 100, 50].map(Caps::smaller), [Some(100), Some(100), Some(50), None]);
        let caps = fresh();
        caps.stated_page_size(50);
        assert_eq!(caps.page_size(), 50);
        caps.refused_page(200, 50);
        assert_eq!(caps.reach_rows(500), 5_000);
        caps.refused_page(2, 50);
        assert_eq!(caps.reach_rows(500), 50);
    }

    #[test]
    fn short_page_is_a_cap_when_it_is_met_twice_in_different_places() {
        let caps = fresh();
        caps.short_page(1, 100, 5_000);
        caps.short_page(1, 100, 5_000);
        assert_eq!(caps.page_size(), 500);
        caps.short_page(2, 100, 5_000);
        assert_eq!(caps.page_size(), 100);
        // A record that never comes makes short pages too.
        let caps = fresh();
        caps.short_page(1, 99, 100);
        caps.short_page(2, 99, 100);
        assert_eq!(caps.page_size(), 500);
    }
}
