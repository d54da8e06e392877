//! The two rate-limit buckets, and our share of them.
//!
//! ```text
//! organisation (agents, integrations, us) ──▶ share ──▶ every request
//! searches by machine users ────────────────▶ share ──▶ searches, which count in both
//! ```
//!
//! A bucket admits at most `⌊limit × share⌋` requests (at least one) in any window of 60 seconds, whatever window the
//! server uses: the log slides, and holds when each request ended, since a server may count it at any moment until then. Half of them may go at once; the others are spread evenly, so that
//! people and other clients find room at any moment. The window is kept a second longer than the server's, because
//! requests do not travel equally fast.
//!
//! The server corrects the settings. Its `x-ratelimit-limit` replaces the configured limit, `x-ratelimit-remaining` bounds
//! what may still be sent before `x-ratelimit-reset` (other clients spend the same budget), a 429 closes the bucket. Which
//! bucket the headers of a search describe is not documented: the one whose limit is nearer to the header's.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;

use crate::clock::SharedClock;

/// The server's window and a second for differences in travelling time.
const WINDOW: Duration = Duration::from_secs(61);

/// How often it is looked whether a request under way has ended, when they fill the bucket alone.
const ANSWER_POLL: Duration = Duration::from_millis(250);

/// A reset or `Retry-After` further away than this is absurd and ignored.
const LONGEST_RESET: Duration = Duration::from_mins(3);

/// How long a bucket stays closed after a 429 that does not say it.
const BLIND_WAIT: Duration = Duration::from_mins(1);

/// Waits from this length on are announced, one per reason and [`ANNOUNCE_EVERY`].
const ANNOUNCED_WAIT: Duration = Duration::from_secs(1);
const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);

/// The buckets of one client.
#[derive(Debug)]
pub(super) struct Budget {
    clock: SharedClock,
    state: Mutex<State>,
    /// Callers wait in the order in which they came, searches apart from the others.
    queues: [tokio::sync::Mutex<()>; 2],
}

#[derive(Debug)]
struct State {
    org: Bucket,
    search: Bucket,
    share: f64,
}

/// Why a request had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    OrgBudget,
    SearchBudget,
    RateLimited,
    Retry,
}

/// What an answer says about the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Headers {
    limit: Option<f64>,
    remaining: Option<f64>,
    reset: Option<Timestamp>,
    retry_after: Option<Duration>,
}

#[derive(Debug)]
struct Bucket {
    reason: Reason,
    limit: u32,
    allowed: usize,
    /// When each request of the window ended: no server has counted it later than that.
    ended: VecDeque<Timestamp>,
    /// Requests whose end is still to come; they count as if sent now.
    in_flight: u32,
    /// When the last request was admitted, for the pace.
    last: Option<Timestamp>,
    /// What the server had left at its last word, less what was sent since, until when.
    left: Option<(u32, Timestamp)>,
    closed_until: Option<Timestamp>,
    announced: Option<Timestamp>,
}

impl Reason {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OrgBudget => "org budget",
            Self::SearchBudget => "search budget",
            Self::RateLimited => "rate limited",
            Self::Retry => "retry",
        }
    }
}

impl Headers {
    /// Reads the headers of an answer; what is no number, or an absurd one, is as if absent.
    pub(super) fn read(headers: &HeaderMap, now: Timestamp) -> Self {
        let number = |name: &str| {
            let text = headers.get(name)?.to_str().ok()?;
            text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
        };
        let reset = number("x-ratelimit-reset").filter(|seconds| *seconds < 1e11).and_then(|seconds| {
            let reset = Timestamp::from_millisecond((seconds * 1_000.0).ceil() as i64).ok()?;
            let ahead = reset.duration_since(now);
            (ahead > SignedDuration::ZERO && ahead <= signed(LONGEST_RESET)).then_some(reset)
        });
        let retry_after = number("retry-after").filter(|seconds| *seconds > 0.0).map(|seconds| {
            // Longer than any Duration is longer than the longest that counts.
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        });
        Self {
            limit: number("x-ratelimit-limit").filter(|limit| (1.0..1e7).contains(limit)),
            remaining: number("x-ratelimit-remaining"),
            reset,
            retry_after: retry_after.filter(|wait| *wait <= LONGEST_RESET),
        }
    }
}

impl Bucket {
    fn new(reason: Reason, limit: u32, share: f64) -> Self {
        Self {
            reason,
            limit,
            allowed: allowed(limit, share),
            ended: VecDeque::new(),
            in_flight: 0,
            last: None,
            left: None,
            closed_until: None,
            announced: None,
        }
    }

    /// Returns when the next request may be sent, and what it waits for.
    fn next(&mut self, now: Timestamp) -> Option<(Timestamp, Reason)> {
        let begin = before(now, WINDOW);
        if self.ended.back().is_some_and(|ended| *ended > now) {
            // The clock went back; nothing has happened later than now.
            self.ended.iter_mut().for_each(|ended| *ended = (*ended).min(now));
            self.last = Some(now);
            let latest = after(now, LONGEST_RESET);
            self.closed_until = self.closed_until.map(|until| until.min(latest));
            self.left = self.left.map(|(left, reset)| (left, reset.min(latest)));
        }
        while self.ended.front().is_some_and(|ended| *ended <= begin) {
            self.ended.pop_front();
        }
        let in_flight = self.in_flight as usize;
        let count = self.ended.len() + in_flight;
        let mut next: Option<(Timestamp, Reason)> = None;
        let mut wait = |until: Timestamp, reason: Reason| {
            if until > now && next.is_none_or(|(known, _)| until > known) {
                next = Some((until, reason));
            }
        };
        if in_flight >= self.allowed {
            wait(after(now, ANSWER_POLL), self.reason);
        } else if count >= self.allowed {
            wait(after(self.ended[count - self.allowed], WINDOW), self.reason);
        } else if count >= (self.allowed / 2).max(1)
            && let Some(last) = self.last
        {
            wait(after(last, WINDOW / self.allowed as u32), self.reason);
        }
        match self.left {
            Some((_, reset)) if reset <= now => self.left = None,
            Some((0, reset)) => wait(reset, Reason::RateLimited),
            _ => {}
        }
        match self.closed_until {
            Some(until) if until > now => wait(until, Reason::RateLimited),
            _ => self.closed_until = None,
        }
        next
    }

    fn send(&mut self, now: Timestamp) {
        self.last = Some(now);
        self.in_flight += 1;
        if let Some((left, _)) = &mut self.left {
            *left = left.saturating_sub(1);
        }
    }

    fn end(&mut self, now: Timestamp) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.ended.push_back(self.ended.back().copied().map_or(now, |last| last.max(now)));
    }

    /// `may_raise` is false for the limit of searches: an answer to a search may speak of the organisation's, which is higher.
    fn correct(&mut self, headers: &Headers, share: f64, may_raise: bool) {
        if let Some(limit) = headers.limit.map(|limit| limit as u32)
            && limit != self.limit
            && (may_raise || limit < self.limit)
        {
            tracing::info!(
                bucket = self.reason.name(),
                configured = self.limit,
                limit,
                "source names another rate limit"
            );
            self.limit = limit;
            self.allowed = allowed(limit, share);
        }
        if let (Some(remaining), Some(reset)) = (headers.remaining, headers.reset) {
            // Requests under way may have been counted or not: assume that they were not.
            let remaining = (remaining.min(1e7) as u32).saturating_sub(self.in_flight);
            self.left = match self.left {
                // Answers overtake each other: within one window the smaller figure is the later one.
                Some((left, known)) if known == reset => Some((left.min(remaining), reset)),
                Some((_, known)) if known > reset => self.left,
                _ => Some((remaining, reset)),
            };
        }
    }
}

impl Budget {
    pub(super) fn new(org_rpm: u32, search_rpm: u32, share: f64, clock: SharedClock) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                org: Bucket::new(Reason::OrgBudget, org_rpm, share),
                search: Bucket::new(Reason::SearchBudget, search_rpm, share),
                share,
            }),
            queues: [tokio::sync::Mutex::new(()), tokio::sync::Mutex::new(())],
        }
    }

    /// Waits until a request may be sent and counts it as sent; `waited` hears of every wait.
    pub(super) async fn admit(&self, is_search: bool, mut waited: impl FnMut(Reason, Duration)) -> Permit<'_> {
        let _turn = self.queues[usize::from(is_search)].lock().await;
        loop {
            let now = self.clock.now();
            let (wait, reason) = {
                let mut state = self.state();
                let mut next = state.org.next(now);
                if is_search && let Some(search) = state.search.next(now) {
                    next = Some(next.map_or(search, |org| if search.0 >= org.0 { search } else { org }));
                }
                let Some((until, reason)) = next else {
                    state.org.send(now);
                    if is_search {
                        state.search.send(now);
                    }
                    return Permit { budget: self, is_search };
                };
                let wait = until.duration_since(now).unsigned_abs();
                let bucket = if is_search { &mut state.search } else { &mut state.org };
                bucket.announce(now, wait, reason);
                (wait, reason)
            };
            self.clock.sleep(wait).await;
            waited(reason, wait);
        }
    }

    /// Learns from an answer's headers.
    pub(super) fn correct(&self, is_search: bool, headers: &Headers) {
        let mut state = self.state();
        let share = state.share;
        let bucket = state.bucket_of(is_search, headers);
        let may_raise = bucket.reason == Reason::OrgBudget;
        bucket.correct(headers, share, may_raise);
    }

    /// Closes the bucket that a 429 speaks of, for at least `at_least`; `jitter` is added where the server does not say how long.
    pub(super) fn close(&self, is_search: bool, headers: &Headers, at_least: Duration, jitter: Duration) {
        let now = self.clock.now();
        let said = headers.reset.map(|reset| reset.duration_since(now).unsigned_abs()).or(headers.retry_after);
        let wait = said.map_or(BLIND_WAIT + jitter, |said| said.max(at_least));
        let until = after(now, wait);
        let mut state = self.state();
        let bucket = state.bucket_of(is_search, headers);
        bucket.closed_until = bucket.closed_until.max(Some(until));
        tracing::info!(
            bucket = bucket.reason.name(),
            wait_ms = wait.as_millis() as u64,
            "source answers that its rate limit is reached"
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bucket_of(&mut self, is_search: bool, headers: &Headers) -> &mut Bucket {
        let distance =
            |limit: u32| headers.limit.map_or(0.0, |said| (f64::from(limit.max(1)).ln() - said.max(1.0).ln()).abs());
        if is_search && distance(self.search.limit) <= distance(self.org.limit) {
            &mut self.search
        } else {
            &mut self.org
        }
    }
}

impl Bucket {
    fn announce(&mut self, now: Timestamp, wait: Duration, reason: Reason) {
        let recently = self.announced.is_some_and(|announced| now.duration_since(announced) < signed(ANNOUNCE_EVERY));
        let wait_ms = wait.as_millis() as u64;
        if wait < ANNOUNCED_WAIT || (recently && wait < ANNOUNCE_EVERY) {
            tracing::debug!(reason = reason.name(), wait_ms, "waiting");
        } else {
            tracing::info!(reason = reason.name(), wait_ms, allowed_per_minute = self.allowed, "waiting");
            self.announced = Some(now);
        }
    }
}

/// A request under way; dropped when its answer, or its failure, is there.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    budget: &'a Budget,
    is_search: bool,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let now = self.budget.clock.now();
        let mut state = self.budget.state();
        state.org.end(now);
        if self.is_search {
            state.search.end(now);
        }
    }
}

fn allowed(limit: u32, share: f64) -> usize {
    ((f64::from(limit) * share).floor() as usize).max(1)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_add(signed(duration)).unwrap_or(Timestamp::MAX)
}

fn before(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_sub(signed(duration)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap()))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn headers(pairs: &[(&'static str, &str)], now: Timestamp) -> Headers {
        let map = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Headers::read(&map, now)
    }

    fn allowed_of(budget: &Budget) -> (usize, usize) {
        let state = budget.state();
        (state.org.allowed, state.search.allowed)
    }

    /// Sends `count` requests at once and returns when each left, in seconds since the start.
    fn send(budget: &Budget, clock: &ManualClock, is_search: bool, count: usize) -> Vec<f64> {
        let start = clock.now();
        block_on(async {
            let mut times = Vec::new();
            for _ in 0..count {
                drop(budget.admit(is_search, |_, _| ()).await);
                times.push(clock.now().duration_since(start).as_secs_f64());
            }
            times
        })
    }

    proptest! {
        #[test]
        fn no_window_of_a_minute_holds_more_than_the_share(
            limit in 1_u32..300, share in 0.01_f64..=1.0, pauses in prop::collection::vec(0_u64..40_000, 1..400)
        ) {
            let clock = clock();
            let budget = Budget::new(100_000, limit, share, clock.clone());
            let mut times = Vec::new();
            block_on(async {
                for (index, pause) in pauses.iter().enumerate() {
                    if index % 17 == 0 {
                        clock.advance(Duration::from_millis(*pause));
                    }
                    drop(budget.admit(true, |_, _| ()).await);
                    times.push(clock.now().as_millisecond());
                }
            });
            let allowed = ((f64::from(limit) * share).floor() as usize).max(1);
            for (index, time) in times.iter().enumerate() {
                let within = times[index..].iter().take_while(|later| *later - time < 60_000).count();
                prop_assert!(within <= allowed, "{within} of {allowed} allowed");
            }
        }
    }

    #[test]
    fn half_goes_at_once_the_rest_evenly_and_nearly_all_is_used() {
        let clock = clock();
        let budget = Budget::new(10_000, 100, 1.0, clock.clone());
        let times = send(&budget, &clock, true, 500);
        assert!(times[49] < 0.001 && times[50] > 0.5, "{} {}", times[49], times[50]);
        assert!(times[60] - times[59] > 0.5 && times[60] - times[59] < 0.7);
        let sent = times.iter().filter(|time| **time < 300.0).count();
        assert!(sent >= 485, "{sent} of 500 used in five minutes");
    }

    #[test]
    fn search_counts_in_both_buckets() {
        let clock = clock();
        let budget = Budget::new(10, 1_000, 1.0, clock.clone());
        send(&budget, &clock, true, 10);
        assert!(send(&budget, &clock, false, 1)[0] > 1.0);
    }

    #[test]
    fn remaining_zero_waits_for_the_reset_of_its_bucket_only() {
        let clock = clock();
        let now = clock.now();
        let budget = Budget::new(1_000, 100, 1.0, clock.clone());
        let reset = (now.as_second() + 20).to_string();
        let pairs =
            [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset.as_str())];
        budget.correct(true, &headers(&pairs, now));
        assert!(send(&budget, &clock, false, 1)[0] < 0.001);
        let waited = send(&budget, &clock, true, 1)[0];
        assert!((20.0..20.1).contains(&waited), "{waited}");
    }

    #[test]
    fn remaining_bounds_what_is_sent_before_the_reset() {
        let clock = clock();
        let now = clock.now();
        let budget = Budget::new(1_000, 100, 1.0, clock.clone());
        let reset = (now.as_second() + 30).to_string();
        let pairs =
            [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", reset.as_str())];
        budget.correct(true, &headers(&pairs, now));
        let times = send(&budget, &clock, true, 4);
        assert!(times[2] < 0.001 && times[3] >= 30.0, "{times:?}");
    }

    #[test]
    fn limit_of_the_header_replaces_the_configured_one() {
        let clock = clock();
        let budget = Budget::new(1_000, 100, 0.5, clock.clone());
        budget.correct(false, &headers(&[("x-ratelimit-limit", "300")], clock.now()));
        // The organisation's limit on a search corrects the organisation's bucket.
        budget.correct(true, &headers(&[("x-ratelimit-limit", "300.0")], clock.now()));
        assert_eq!(allowed_of(&budget), (150, 50));
        budget.correct(true, &headers(&[("x-ratelimit-limit", "60")], clock.now()));
        assert_eq!(allowed_of(&budget), (150, 30));
    }

    #[test]
    fn headers_that_make_no_sense_are_ignored() {
        let now = clock().now();
        let second = now.as_second();
        let cases = [
            ("x-ratelimit-reset", "soon".to_owned()),
            ("x-ratelimit-reset", "-5".to_owned()),
            ("x-ratelimit-reset", "NaN".to_owned()),
            ("x-ratelimit-reset", "1e300".to_owned()),
            ("x-ratelimit-reset", "45".to_owned()),
            ("x-ratelimit-reset", (second + 86_400).to_string()),
            ("x-ratelimit-reset", (second - 1).to_string()),
            ("retry-after", "0".to_owned()),
            ("retry-after", "1e30".to_owned()),
            ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT".to_owned()),
            ("x-ratelimit-limit", "0".to_owned()),
        ];
        for (name, value) in cases {
            assert_eq!(headers(&[(name, &value)], now), Headers::default(), "{name}: {value}");
        }
        let text = format!("{second}.5");
        assert_eq!(headers(&[("x-ratelimit-reset", &text)], now).reset.unwrap().as_millisecond(), second * 1_000 + 500);
    }

    #[test]
    fn rate_limited_bucket_stays_closed_as_long_as_the_server_says() {
        let second = clock().now().as_second();
        let cases = [
            (vec![("x-ratelimit-reset", (second + 7).to_string())], 7.0..7.1),
            (vec![("retry-after", "12".to_owned())], 12.0..12.1),
            (vec![("retry-after", "0".to_owned())], 60.0..62.1),
            (vec![("retry-after", "99999999".to_owned())], 60.0..62.1),
            (vec![], 60.0..62.1),
        ];
        for (pairs, expected) in cases {
            let clock = clock();
            let budget = Budget::new(1_000, 100, 1.0, clock.clone());
            let pairs: Vec<(&'static str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let read = headers(&pairs, clock.now());
            budget.close(true, &read, Duration::from_secs(1), Duration::from_secs(2));
            let waited = send(&budget, &clock, true, 1)[0];
            assert!(expected.contains(&waited), "{pairs:?}: waited {waited}");
        }
    }
}
