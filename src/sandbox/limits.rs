//! The two rate limits: fixed windows of a minute, one bucket for the organisation and one for searches.

use std::sync::{Mutex, PoisonError};

const WINDOW_S: i64 = 60;

/// Where a bucket stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// When the window ends, in seconds since 1970.
    pub(super) reset_s: i64,
    pub(super) exceeded: bool,
}

#[derive(Debug, Default)]
struct Used {
    window: i64,
    org: u32,
    search: u32,
}

/// Both buckets.
#[derive(Debug)]
pub(super) struct Limits {
    org_rpm: u32,
    search_rpm: u32,
    used: Mutex<Used>,
}

impl Limits {
    pub(super) fn new(org_rpm: u32, search_rpm: u32) -> Self {
        Self { org_rpm, search_rpm, used: Mutex::default() }
    }

    /// Counts a request; the answer is about the bucket that its headers show.
    pub(super) fn count(&self, now_s: i64, is_search: bool) -> Standing {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let window = now_s.div_euclid(WINDOW_S);
        if used.window != window {
            *used = Used { window, org: 0, search: 0 };
        }
        used.org = used.org.saturating_add(1);
        used.search = used.search.saturating_add(u32::from(is_search));
        let reset_s = (window + 1) * WINDOW_S;
        let standing = |limit: u32, used: u32| Standing {
            limit,
            remaining: limit.saturating_sub(used),
            reset_s,
            exceeded: used > limit,
        };
        let org = standing(self.org_rpm, used.org);
        let search = standing(self.search_rpm, used.search);
        if is_search && !org.exceeded { search } else { org }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_counts_in_both_buckets_and_a_new_minute_empties_them() {
        let limits = Limits::new(4, 2);
        let ask = |now, search| limits.count(now, search);
        assert_eq!(ask(120, true), Standing { limit: 2, remaining: 1, reset_s: 180, exceeded: false });
        assert_eq!(ask(121, true).remaining, 0);
        assert!(ask(121, true).exceeded);
        assert_eq!(ask(179, false), Standing { limit: 4, remaining: 0, reset_s: 180, exceeded: false });
        assert!(ask(179, false).exceeded);
        assert!(!ask(180, true).exceeded);
    }
}
