//! The ledger: everything that was asked, what failed and why, what came, and every wait.
//!
//! One ledger for the whole process. A request is in it before it leaves, so one that reaches nobody is counted too, and so
//! are logins and repetitions: what the organisation's budget has paid for is what stands here.

use std::collections::BTreeMap;
use std::time::Duration;

/// Requests and waits so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Requests sent (failed ones too), by endpoint name.
    pub requests: BTreeMap<&'static str, u64>,
    /// Time waited, by reason: `org budget`, `search budget`, `reserve`, `rate limited`, `retry`.
    pub waited: BTreeMap<&'static str, Duration>,
    /// Requests that gave nothing, by endpoint name and cause: `no connection`, `connection broke`, `timed out`, `stalled`,
    /// `torn`, `unusable`, `too large`, `wrong pod`, or a status such as `429`, `other 4xx`.
    pub failed: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Requests that repeat an earlier one after a failure, by endpoint name; they are among `requests`.
    pub repeated: BTreeMap<&'static str, u64>,
    /// Bytes of bodies received, decompressed, by endpoint name.
    pub received_bytes: BTreeMap<&'static str, u64>,
    /// Requests by bucket, `org` and `search`; a search counts in both.
    pub buckets: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// Returns the sum of the requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Returns the sum of the waits.
    #[must_use]
    pub fn total_waited(&self) -> Duration {
        self.waited.values().sum()
    }

    /// Returns the sum of the requests that gave nothing.
    #[must_use]
    pub fn total_failed(&self) -> u64 {
        self.failed.values().flat_map(BTreeMap::values).sum()
    }

    /// Returns the failed requests of all endpoints by cause.
    #[must_use]
    pub fn failed_by_cause(&self) -> BTreeMap<&'static str, u64> {
        let mut causes = BTreeMap::new();
        for (cause, count) in self.failed.values().flatten() {
            *causes.entry(*cause).or_default() += count;
        }
        causes
    }

    /// Returns the bytes of all bodies received.
    #[must_use]
    pub fn total_received_bytes(&self) -> u64 {
        self.received_bytes.values().sum()
    }

    /// Returns what was added since an earlier state of the same ledger.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let waited = self
            .waited
            .iter()
            .map(|(name, wait)| (*name, wait.saturating_sub(earlier.waited.get(name).copied().unwrap_or_default())));
        let nothing = BTreeMap::new();
        let failed = self
            .failed
            .iter()
            .map(|(endpoint, causes)| (*endpoint, added(causes, earlier.failed.get(endpoint).unwrap_or(&nothing))));
        Self {
            requests: added(&self.requests, &earlier.requests),
            waited: waited.filter(|(_, wait)| !wait.is_zero()).collect(),
            failed: failed.filter(|(_, causes)| !causes.is_empty()).collect(),
            repeated: added(&self.repeated, &earlier.repeated),
            received_bytes: added(&self.received_bytes, &earlier.received_bytes),
            buckets: added(&self.buckets, &earlier.buckets),
        }
    }
}

fn added(now: &BTreeMap<&'static str, u64>, earlier: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    let added =
        now.iter().map(|(name, count)| (*name, count.saturating_sub(earlier.get(name).copied().unwrap_or_default())));
    added.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_holds_what_was_added_and_nothing_else() {
        let mut earlier = Ledger { requests: BTreeMap::from([("tags", 1), ("search", 3)]), ..Ledger::default() };
        earlier.failed.entry("search").or_default().insert("429", 1);
        let mut later = earlier.clone();
        later.requests.insert("search", 5);
        later.received_bytes.insert("search", 80);
        later.failed.entry("search").or_default().insert("torn", 2);
        later.waited.insert("retry", Duration::from_secs(2));
        let added = later.since(&earlier);
        assert_eq!(added.requests, BTreeMap::from([("search", 2)]));
        assert_eq!(added.failed, BTreeMap::from([("search", BTreeMap::from([("torn", 2)]))]));
        assert_eq!((added.total(), added.total_failed(), added.total_received_bytes()), (2, 2, 80));
        assert_eq!(added.failed_by_cause(), BTreeMap::from([("torn", 2)]));
        assert_eq!(later.since(&later), Ledger::default());
    }
}
