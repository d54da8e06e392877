//! The two rate limits of a minute: one bucket for the organisation and one for searches.
//!
//! A fixed window empties both buckets at the same second of each minute, of which a client knows only what the headers
//! say. A sliding window lets each request out of its bucket a minute after it came; a refused one was never in.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::RateWindow;

const WINDOW_MS: i64 = 60_000;

/// Where a bucket stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// When the window ends, or the oldest request leaves it, in seconds since 1970.
    pub(super) reset_s: i64,
    pub(super) exceeded: bool,
}

#[derive(Debug, Default)]
struct Bucket {
    limit: u32,
    /// Requests in the fixed window.
    used: u32,
    /// When the requests of the sliding window came.
    recent: VecDeque<i64>,
}

impl Bucket {
    fn new(limit: u32) -> Self {
        Self { limit, ..Self::default() }
    }

    fn count_fixed(&mut self, end_ms: i64) -> Standing {
        self.used = self.used.saturating_add(1);
        self.standing(self.used, end_ms)
    }

    fn count_sliding(&mut self, now_ms: i64) -> Standing {
        while self.recent.front().is_some_and(|first| *first <= now_ms - WINDOW_MS) {
            self.recent.pop_front();
        }
        let used = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).saturating_add(1);
        if used <= self.limit {
            self.recent.push_back(now_ms);
        }
        let oldest = self.recent.front().copied().unwrap_or(now_ms);
        self.standing(used, oldest + WINDOW_MS)
    }

    const fn standing(&self, used: u32, reset_ms: i64) -> Standing {
        Standing {
            limit: self.limit,
            remaining: self.limit.saturating_sub(used),
            reset_s: (reset_ms + 999).div_euclid(1000),
            exceeded: used > self.limit,
        }
    }
}

#[derive(Debug)]
struct Used {
    /// The number of the fixed window.
    window: i64,
    org: Bucket,
    search: Bucket,
}

/// Both buckets.
#[derive(Debug)]
pub(super) struct Limits {
    window: RateWindow,
    phase_ms: i64,
    used: Mutex<Used>,
}

impl Limits {
    pub(super) fn new(org_rpm: u32, search_rpm: u32, window: RateWindow, phase: Duration) -> Self {
        let used = Used { window: 0, org: Bucket::new(org_rpm), search: Bucket::new(search_rpm) };
        let phase_ms = phase.as_millis() as i64 % WINDOW_MS;
        Self { window, phase_ms, used: Mutex::new(used) }
    }

    /// Counts a request; the answer is about the bucket that its headers show.
    pub(super) fn count(&self, now_ms: i64, is_search: bool) -> Standing {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let count: &dyn Fn(&mut Bucket) -> Standing = match self.window {
            RateWindow::Sliding => &|bucket| bucket.count_sliding(now_ms),
            RateWindow::Fixed => {
                let window = (now_ms - self.phase_ms).div_euclid(WINDOW_MS);
                if used.window != window {
                    used.window = window;
                    used.org.used = 0;
                    used.search.used = 0;
                }
                &move |bucket| bucket.count_fixed((window + 1) * WINDOW_MS + self.phase_ms)
            }
        };
        let org = count(&mut used.org);
        let search = is_search.then(|| count(&mut used.search));
        search.filter(|_| !org.exceeded).unwrap_or(org)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_counts_in_both_buckets_and_a_new_minute_empties_them() {
        for phase in [0, 7] {
            let limits = Limits::new(4, 2, RateWindow::Fixed, Duration::from_secs(phase));
            let ask = |now: i64, search| limits.count((now + phase as i64) * 1000, search);
            let reset_s = 180 + phase as i64;
            assert_eq!(ask(120, true), Standing { limit: 2, remaining: 1, reset_s, exceeded: false });
            assert_eq!(ask(121, true).remaining, 0);
            assert!(ask(121, true).exceeded);
            assert_eq!(ask(179, false), Standing { limit: 4, remaining: 0, reset_s, exceeded: false });
            assert!(ask(179, false).exceeded);
            assert!(!ask(180, true).exceeded);
        }
    }

    #[test]
    fn sliding_window_lets_each_request_out_after_a_minute() {
        let limits = Limits::new(100, 2, RateWindow::Sliding, Duration::ZERO);
        let ask = |now| limits.count(now, true);
        assert_eq!(ask(100_000), Standing { limit: 2, remaining: 1, reset_s: 160, exceeded: false });
        assert_eq!(ask(130_500), Standing { limit: 2, remaining: 0, reset_s: 160, exceeded: false });
        assert_eq!(ask(159_999), Standing { limit: 2, remaining: 0, reset_s: 160, exceeded: true });
        assert_eq!(ask(160_000), Standing { limit: 2, remaining: 0, reset_s: 191, exceeded: false });
        assert!(ask(190_499).exceeded);
        assert!(!ask(190_500).exceeded);
    }
}
