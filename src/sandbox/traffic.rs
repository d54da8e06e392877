//! What the API received, by its own clock: what a client's own account is checked against.
//!
//! The most requests in any 60 seconds are found as they come: the window slides with each request. Clients are told
//! apart by their `User-Agent`, so that two that share one budget can be counted each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::json::instant;

const WINDOW_MS: i64 = 60_000;

/// Clients that are told apart; those that come later are counted as one.
const MOST_AGENTS: usize = 64;

/// Requests of one client, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests, searches among them.
    pub requests: u64,
    /// Searches.
    pub searches: u64,
    /// The most requests in any 60 seconds.
    pub most_requests_in_a_minute: u64,
    /// The most searches in any 60 seconds.
    pub most_searches_in_a_minute: u64,
}

/// What the API received since the start or the last reset; requests of the control endpoint are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests of everyone.
    pub all: Counted,
    /// Requests by `User-Agent`; `""` is of those that name none.
    pub agents: BTreeMap<String, Counted>,
    /// Requests by route, such as `POST /v1/customers/search`.
    pub routes: BTreeMap<String, u64>,
    /// Answers by status, those of faults too.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests and searches by minute, in minutes since 1970.
    pub minutes: BTreeMap<i64, (u64, u64)>,
    /// The longest chain of requests each of which came after the answer to the one before had been sent: round trips that
    /// cannot have been side by side.
    pub rounds: u32,
}

impl Traffic {
    /// Returns how many requests were answered with 429.
    pub fn refused(&self) -> u64 {
        self.statuses.get(&429).copied().unwrap_or_default()
    }

    /// Returns it as the control endpoint shows it.
    pub(super) fn json(&self) -> Value {
        let counted = |counted: &Counted| {
            json!({"requests": counted.requests, "searches": counted.searches,
                "most_requests_in_a_minute": counted.most_requests_in_a_minute,
                "most_searches_in_a_minute": counted.most_searches_in_a_minute})
        };
        let mut value = counted(&self.all);
        value["rounds"] = self.rounds.into();
        value["refused"] = self.refused().into();
        value["agents"] = self.agents.iter().map(|(agent, one)| (agent.clone(), counted(one))).collect();
        value["routes"] = json!(self.routes);
        value["statuses"] = self.statuses.iter().map(|(status, count)| (status.to_string(), json!(count))).collect();
        value["minutes"] = self
            .minutes
            .iter()
            .map(|(minute, (requests, searches))| {
                json!({"minute": instant(minute * WINDOW_MS), "requests": requests, "searches": searches})
            })
            .collect();
        value
    }
}

/// Counts of one client with the requests of its last minute.
#[derive(Debug, Default)]
struct Tally {
    counted: Counted,
    recent: VecDeque<(i64, bool)>,
    recent_searches: u64,
}

impl Tally {
    fn count(&mut self, at: i64, is_search: bool) {
        while let Some((first, was_search)) = self.recent.front().copied()
            && first <= at - WINDOW_MS
        {
            self.recent.pop_front();
            self.recent_searches -= u64::from(was_search);
        }
        self.recent.push_back((at, is_search));
        self.recent_searches += u64::from(is_search);
        let counted = &mut self.counted;
        counted.requests += 1;
        counted.searches += u64::from(is_search);
        counted.most_requests_in_a_minute = counted.most_requests_in_a_minute.max(self.recent.len() as u64);
        counted.most_searches_in_a_minute = counted.most_searches_in_a_minute.max(self.recent_searches);
    }
}

#[derive(Debug, Default)]
struct Counts {
    last: i64,
    all: Tally,
    agents: BTreeMap<String, Tally>,
    rest: Traffic,
    /// The longest chain that ends in an answer.
    ended: u32,
}

/// Counts what comes and goes.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Counts>);

impl Meter {
    /// Counts a request as it comes.
    pub(super) fn received(&self, route: String, is_search: bool, agent: &str, now_ms: i64) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *guard;
        // Two requests may read the clock in the one order and come here in the other.
        counts.last = counts.last.max(now_ms);
        let at = counts.last;
        counts.all.count(at, is_search);
        let agent =
            if counts.agents.len() < MOST_AGENTS || counts.agents.contains_key(agent) { agent } else { "others" };
        if let Some(tally) = counts.agents.get_mut(agent) {
            tally.count(at, is_search);
        } else {
            counts.agents.entry(agent.to_owned()).or_default().count(at, is_search);
        }
        let minute = counts.rest.minutes.entry(at.div_euclid(WINDOW_MS)).or_default();
        *minute = (minute.0 + 1, minute.1 + u64::from(is_search));
        *counts.rest.routes.entry(route).or_default() += 1;
    }

    /// Returns the length of the chain of requests that ends in the one that comes now.
    pub(super) fn began(&self) -> u32 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = counts.ended + 1;
        counts.rest.rounds = counts.rest.rounds.max(chain);
        chain
    }

    /// Counts an answer that is about to be sent to the last request of a chain.
    pub(super) fn ended(&self, chain: u32) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A reset may have come between: then it is a chain of the time before.
        counts.ended = counts.ended.max(chain.min(counts.rest.rounds));
    }

    /// Counts an answer.
    pub(super) fn answered(&self, status: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.rest.statuses.entry(status).or_default() += 1;
    }

    /// Returns all counts.
    pub(super) fn traffic(&self) -> Traffic {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Traffic {
            all: counts.all.counted,
            agents: counts.agents.iter().map(|(agent, tally)| (agent.clone(), tally.counted)).collect(),
            ..counts.rest.clone()
        }
    }

    /// Forgets every count.
    pub(super) fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::sandbox::SandboxSettings;
    use crate::sandbox::tests::{generous, rig};

    proptest! {
        #[test]
        fn most_in_a_minute_is_that_of_the_fullest_window(steps in prop::collection::vec((0_i64..30_000, any::<bool>()), 1..200)) {
            let meter = Meter::default();
            let mut now = 1_000_000;
            let mut times = Vec::new();
            for (step, is_search) in steps {
                now += step;
                times.push((now, is_search));
                meter.received("x".to_owned(), is_search, "one", now);
            }
            let fullest = |searches: bool| {
                let inside = |end: i64| {
                    let counts = |(at, is_search): &&(i64, bool)| *at > end - 60_000 && *at <= end && (*is_search || !searches);
                    times.iter().filter(counts).count() as u64
                };
                times.iter().map(|(end, _)| inside(*end)).max().unwrap()
            };
            let traffic = meter.traffic();
            prop_assert_eq!(traffic.all.most_requests_in_a_minute, fullest(false));
            prop_assert_eq!(traffic.all.most_searches_in_a_minute, fullest(true));
            prop_assert_eq!(traffic.agents["one"], traffic.all);
            prop_assert_eq!(traffic.minutes.values().map(|minute| minute.0).sum::<u64>(), traffic.all.requests);
        }
    }

    #[tokio::test]
    async fn requests_are_counted_as_received_until_a_reset() {
        let settings = SandboxSettings { org_rpm: 4, search_rpm: 2, ..generous(10) };
        let rig = rig(settings).await;
        rig.get("/v1/tags").await;
        for _ in 0..3 {
            rig.search("", &json!({})).await;
        }
        rig.clock.advance(Duration::from_secs(59));
        rig.get("/v1/tags/").await;
        rig.clock.advance(Duration::from_mins(1));
        rig.get("/v1/kittens").await;
        let body = rig.get("/sandbox/requests").await.body;
        assert_eq!((&body["requests"], &body["searches"]), (&json!(6), &json!(3)));
        assert_eq!(body["most_requests_in_a_minute"], 5);
        assert_eq!(body["most_searches_in_a_minute"], 3);
        assert_eq!(body["routes"], json!({"GET /v1/tags": 2, "POST /v1/customers/search": 3, "unknown route": 1}));
        assert_eq!((&body["refused"], &body["statuses"]["404"]), (&json!(1), &json!(1)));
        assert_eq!(body["minutes"][0], json!({"minute": "2026-11-22T12:00:00.000Z", "requests": 5, "searches": 3}));
        assert_eq!(body["minutes"][1]["requests"], 1);
        assert_eq!(rig.sandbox.traffic().refused(), 1);
        assert_eq!(rig.post("/sandbox/requests/reset", &json!({})).await.status, 200);
        assert_eq!(rig.get("/sandbox/requests").await.body["requests"], 0);
        assert_eq!(rig.sandbox.traffic(), Traffic::default());
    }
}
