//! The two rate-limit buckets, and our share of them.
//!
//! ```text
//! organisation (agents, integrations, us) ──▶ share, reserve ──▶ every request
//! searches by machine users ────────────────▶ share ───────────▶ searches, which count in both
//! ```
//!
//! A [`Bucket`] tells when the next request may go; here callers wait for it, in the order in which they came.
//!
//! The server corrects the settings. Its `x-ratelimit-limit` replaces the configured limit, `x-ratelimit-remaining` bounds
//! what may still be sent before `x-ratelimit-reset` (other clients spend the same budget), a 429 closes the bucket. Which
//! bucket the headers of a search describe is not documented: the one whose limit is nearer to the header's.
//!
//! Moments are taken from the clock's steady time: a machine whose time is set back or forward neither sends in a burst
//! nor waits for hours.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bucket::{Bucket, Reason};
use super::headers::Headers;
use crate::clock::SharedClock;

/// How long a bucket stays closed after a 429 that does not say it.
const BLIND_WAIT: Duration = Duration::from_mins(1);

/// Waits from this length on are announced, one per bucket and [`ANNOUNCE_EVERY`].
const ANNOUNCED_WAIT: Duration = Duration::from_secs(1);
const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);

/// Where both buckets stand.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetState {
    /// The organisation's bucket, which every request counts in.
    pub organisation: BucketState,
    /// The bucket of searches by machine users.
    pub search: BucketState,
    /// Our part of both.
    pub share: f64,
}

/// Where one bucket stands; requests a minute, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketState {
    /// The limit of the settings.
    pub configured: u32,
    /// The limit in force: what the source's headers said, once they did.
    pub limit: u32,
    /// What we may send of it, by share and reserve.
    pub allowed: u32,
    /// What we never use of it, for people.
    pub reserve: u32,
    /// Requests of ours in the last 60 seconds, those under way included.
    pub used: u32,
    /// Requests of other clients, as far as the source's headers give them away.
    pub others: u32,
    /// The limit that the source's headers named last.
    pub said_limit: Option<u32>,
    /// What the source's headers said was left, last.
    pub said_remaining: Option<u32>,
    /// How long the next request would have to wait.
    pub wait: Duration,
}

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
    /// The latest moment seen: a clock that goes back stands still here.
    now: Duration,
    announced: [Option<Duration>; 2],
}

impl Budget {
    pub(super) fn new(org_rpm: u32, search_rpm: u32, share: f64, reserve: u32, clock: SharedClock) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                org: Bucket::new(Reason::OrgBudget, org_rpm, share, reserve),
                search: Bucket::new(Reason::SearchBudget, search_rpm, share, 0),
                share,
                now: Duration::ZERO,
                announced: [None; 2],
            }),
            queues: [tokio::sync::Mutex::new(()), tokio::sync::Mutex::new(())],
        }
    }

    /// Waits until a request may be sent and counts it as sent; `waited` hears of every wait.
    pub(super) async fn admit(&self, is_search: bool, mut waited: impl FnMut(Reason, Duration)) -> Permit<'_> {
        let _turn = self.queues[usize::from(is_search)].lock().await;
        loop {
            let (wait, reason) = {
                let (mut state, now) = self.state();
                match state.admit(is_search, now) {
                    None => return Permit { budget: self, is_search, sent: now, is_open: true },
                    Some((until, reason)) => {
                        let wait = until.saturating_sub(now);
                        state.announce(is_search, now, wait, reason);
                        (wait, reason)
                    }
                }
            };
            self.clock.sleep(wait).await;
            waited(reason, wait);
        }
    }

    /// Closes the bucket that a 429 speaks of, for at least `at_least`; `jitter` is added where the server does not say how long.
    pub(super) fn close(&self, is_search: bool, headers: &Headers, at_least: Duration, jitter: Duration) {
        let (mut state, now) = self.state();
        let bucket = state.bucket_of(is_search, headers);
        let known = || bucket.reset(now).map(|reset| reset.saturating_sub(now));
        let said = headers.reset.map(|reset| reset.ahead).or(headers.retry_after).or_else(known);
        let wait = said.map_or(BLIND_WAIT + jitter, |said| said.max(at_least));
        bucket.close(now + wait);
        tracing::info!(
            bucket = bucket.reason.name(),
            wait_ms = wait.as_millis() as u64,
            "source answers that its rate limit is reached"
        );
    }

    /// Returns where both buckets stand.
    pub(super) fn standing(&self) -> BudgetState {
        let (mut state, now) = self.state();
        let share = state.share;
        let State { org, search, .. } = &mut *state;
        let [organisation, search] = [org, search].map(|bucket| BucketState {
            configured: bucket.configured,
            limit: bucket.limit,
            allowed: bucket.allowed as u32,
            reserve: bucket.reserve(),
            used: bucket.used(now),
            others: bucket.others(),
            said_limit: bucket.said_limit,
            said_remaining: bucket.said_remaining,
            wait: bucket.time_for(1, now),
        });
        BudgetState { organisation, search, share }
    }

    /// Returns how long it takes to send so many requests, `searches` of which are searches.
    pub(super) fn time_for(&self, requests: u64, searches: u64) -> Duration {
        let (state, now) = self.state();
        state.org.time_for(requests.max(searches), now).max(state.search.time_for(searches, now))
    }

    fn state(&self) -> (MutexGuard<'_, State>, Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.now = state.now.max(self.clock.elapsed());
        let now = state.now;
        (state, now)
    }
}

impl State {
    /// Counts a request as sent, or returns until when it must wait.
    fn admit(&mut self, is_search: bool, now: Duration) -> Option<(Duration, Reason)> {
        let mut next = self.org.next(now);
        if is_search && let Some(search) = self.search.next(now) {
            next = Some(next.map_or(search, |org| if search.0 >= org.0 { search } else { org }));
        }
        if next.is_none() {
            self.org.send(now);
            if is_search {
                self.search.send(now);
            }
        }
        next
    }

    /// Notes the end of a request, and what its answer's headers say if there was one.
    fn end(&mut self, is_search: bool, headers: Option<&Headers>, sent: Duration, now: Duration) {
        let org_alone = self.org.end(sent, now);
        let search_alone = is_search && self.search.end(sent, now);
        if let Some(headers) = headers {
            let bucket = self.bucket_of(is_search, headers);
            let is_org = bucket.reason == Reason::OrgBudget;
            bucket.correct(headers, if is_org { org_alone } else { search_alone }, now, is_org);
        }
    }

    fn bucket_of(&mut self, is_search: bool, headers: &Headers) -> &mut Bucket {
        let said = headers.limit.or(headers.remaining.filter(|remaining| *remaining > self.search.limit));
        let distance =
            |limit: u32| said.map_or(0.0, |said| (f64::from(limit.max(1)).ln() - f64::from(said.max(1)).ln()).abs());
        if is_search && distance(self.search.limit) <= distance(self.org.limit) {
            &mut self.search
        } else {
            &mut self.org
        }
    }

    fn announce(&mut self, is_search: bool, now: Duration, wait: Duration, reason: Reason) {
        let bucket = if is_search { &self.search } else { &self.org };
        let announced = &mut self.announced[usize::from(is_search)];
        let recently = announced.is_some_and(|announced| now < announced + ANNOUNCE_EVERY);
        let wait_ms = wait.as_millis() as u64;
        if wait < ANNOUNCED_WAIT || (recently && wait < ANNOUNCE_EVERY) {
            tracing::debug!(reason = reason.name(), wait_ms, "waiting");
        } else {
            tracing::info!(reason = reason.name(), wait_ms, allowed_per_minute = bucket.allowed, "waiting");
            *announced = Some(now);
        }
    }
}

/// A request under way; dropped when it failed without an answer.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    budget: &'a Budget,
    is_search: bool,
    sent: Duration,
    is_open: bool,
}

impl Permit<'_> {
    /// Returns when the request was sent, by the steady clock.
    pub(super) const fn sent(&self) -> Duration {
        self.sent
    }

    /// Notes that the head of the answer came: by now the server has counted the request.
    pub(super) fn answered(mut self, headers: &Headers) {
        self.end(Some(headers));
    }

    fn end(&mut self, headers: Option<&Headers>) {
        if std::mem::take(&mut self.is_open) {
            let (mut state, now) = self.budget.state();
            state.end(self.is_search, headers, self.sent, now);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::kustomer::headers::Reset;
    use crate::retry::SplitMix64;

    /// How the server counts.
    #[derive(Debug, Clone, Copy)]
    enum Counting {
        /// Windows of a minute; the first one ends after this many milliseconds.
        Fixed(u64),
        /// The last minute, and a reset a minute ahead.
        Sliding,
    }

    /// Workers that always want to send, a server, and another client; in milliseconds.
    #[derive(Debug, Clone)]
    struct Model {
        counting: Counting,
        limit: u32,
        share: f64,
        reserve: u32,
        is_search: bool,
        workers: u32,
        /// Each way takes half of it, and up to `jitter_ms` more.
        latency_ms: u64,
        jitter_ms: u64,
        /// Of a hundred answers, those with headers.
        headers_percent: u64,
        /// Requests of the other client in each minute.
        others: u64,
        seed: u64,
        minutes: u64,
    }

    #[derive(Debug, Default)]
    struct Outcome {
        /// When the server counted each of our requests, and what was left then.
        counted: Vec<(u64, u32)>,
        refused: usize,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        Counted { sent: u64, answer: u64 },
        Answered { sent: u64, headers: Option<(u32, u64)> },
        Other,
    }

    impl Default for Model {
        fn default() -> Self {
            Self {
                counting: Counting::Sliding,
                limit: 100,
                share: 1.0,
                reserve: 0,
                is_search: true,
                workers: 4,
                latency_ms: 300,
                jitter_ms: 0,
                headers_percent: 100,
                others: 0,
                seed: 1,
                minutes: 5,
            }
        }
    }

    impl Model {
        fn run(&self) -> Outcome {
            let clock: Arc<ManualClock> = clock();
            let limits = if self.is_search { (1_000_000, self.limit) } else { (self.limit, 1_000_000) };
            let budget = Budget::new(limits.0, limits.1, self.share, self.reserve, clock);
            let (mut state, _) = budget.state();
            let mut random = SplitMix64::new(self.seed);
            let mut draw = |below: u64| random.next_u64() % below.max(1);
            let mut events = BinaryHeap::new();
            for number in 0..self.others * (self.minutes + 1) {
                let step = 60_000 / self.others;
                events.push(Reverse((number * step + draw(step), Event::Other)));
            }
            // The other client has been there for a minute.
            let (mut now, mut idle, mut all) = (60_000, self.workers, Vec::new());
            while events.peek().is_some_and(|Reverse((at, _))| *at < now) {
                all.extend(events.pop().map(|Reverse((at, _))| at));
            }
            let mut outcome = Outcome::default();
            while now < (self.minutes + 1) * 60_000 {
                let mut wake = u64::MAX;
                while idle > 0 {
                    match state.admit(self.is_search, ms(now)) {
                        None => {
                            idle -= 1;
                            let counted = now + self.latency_ms / 2 + draw(self.jitter_ms);
                            let answer = counted + self.latency_ms / 2 + draw(self.jitter_ms);
                            events.push(Reverse((counted, Event::Counted { sent: now, answer })));
                        }
                        Some((until, _)) => {
                            wake = until.as_nanos().div_ceil(1_000_000) as u64;
                            assert!(wake > now, "a wait must end later than it begins");
                            break;
                        }
                    }
                }
                let next = events.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
                now = next.min(wake);
                if now < next {
                    continue;
                }
                match events.pop().unwrap().0.1 {
                    Event::Other => {
                        self.count(&mut all, now);
                    }
                    Event::Counted { sent, answer } => {
                        let (is_refused, remaining, reset) = self.count(&mut all, now);
                        outcome.counted.push((now, remaining));
                        outcome.refused += usize::from(is_refused);
                        let headers = (draw(100) < self.headers_percent).then_some((remaining, reset));
                        events.push(Reverse((answer, Event::Answered { sent, headers })));
                    }
                    Event::Answered { sent, headers } => {
                        idle += 1;
                        let headers = headers.map_or_else(Headers::default, |(remaining, reset)| {
                            let reset_ms = reset.div_ceil(1_000) * 1_000;
                            // The source's time is known to be a little too early.
                            let ahead = ms(reset_ms.saturating_sub(now) + draw(800));
                            let reset = Reset { at_ms: reset_ms as i64, ahead };
                            let (limit, remaining) = (Some(self.limit), Some(remaining));
                            Headers { limit, remaining, reset: Some(reset), retry_after: None }
                        });
                        state.end(self.is_search, Some(&headers), ms(sent), ms(now));
                    }
                }
            }
            outcome
        }

        /// Counts a request at the server: whether it is refused, what is left, when the window ends.
        fn count(&self, all: &mut Vec<u64>, now: u64) -> (bool, u32, u64) {
            let (begin, reset) = match self.counting {
                Counting::Fixed(phase) if now < phase => (0, phase),
                Counting::Fixed(phase) => {
                    let begin = now - (now - phase) % 60_000;
                    (begin, begin + 60_000)
                }
                Counting::Sliding => ((now + 1).saturating_sub(60_000), now + 60_000),
            };
            all.push(now);
            let used = all.iter().rev().take_while(|at| **at >= begin).count() as u32;
            (used > self.limit, self.limit.saturating_sub(used), reset)
        }
    }

    impl Outcome {
        fn fullest_minute(&self) -> usize {
            let times: Vec<u64> = self.counted.iter().map(|(at, _)| *at).collect();
            let within =
                |index: usize| times[index..].iter().take_while(|later| **later < times[index] + 60_000).count();
            (0..times.len()).map(within).max().unwrap_or(0)
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap()))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn said(limit: Option<u32>, remaining: Option<u32>, ahead_s: Option<u64>) -> Headers {
        let reset = ahead_s.map(|seconds| Reset { at_ms: seconds as i64 * 1_000, ahead: Duration::from_secs(seconds) });
        Headers { limit, remaining, reset, retry_after: None }
    }

    /// Sends a request whose answer has these headers.
    fn ask(budget: &Budget, is_search: bool, headers: &Headers) {
        block_on(async { budget.admit(is_search, |_, _| ()).await.answered(headers) });
    }

    fn allowed_of(budget: &Budget) -> (u32, u32) {
        let state = budget.standing();
        (state.organisation.allowed, state.search.allowed)
    }

    /// Sends `count` requests at once and returns when each left, in seconds since the start.
    fn send(budget: &Budget, clock: &ManualClock, is_search: bool, count: usize) -> Vec<f64> {
        let start = clock.elapsed();
        block_on(async {
            let mut times = Vec::new();
            for _ in 0..count {
                drop(budget.admit(is_search, |_, _| ()).await);
                times.push(clock.elapsed().saturating_sub(start).as_secs_f64());
            }
            times
        })
    }

    fn counting() -> impl Strategy<Value = Counting> {
        prop_oneof![(0_u64..60_000).prop_map(Counting::Fixed), Just(Counting::Sliding)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn alone_with_the_whole_limit_is_never_refused_by_any_window(
            counting in counting(), limit in 1_u32..130, workers in 1_u32..9, latency_ms in 0_u64..2_500,
            jitter_ms in 0_u64..1_500, headers_percent in 0_u64..=100, seed in any::<u64>(),
        ) {
            let model = Model { counting, limit, workers, latency_ms, jitter_ms, headers_percent, seed, ..Model::default() };
            let outcome = model.run();
            prop_assert_eq!(outcome.refused, 0);
            prop_assert!(outcome.fullest_minute() <= limit as usize);
        }

        #[test]
        fn no_window_of_a_minute_holds_more_than_the_share(
            counting in counting(), limit in 1_u32..300, share in 0.01_f64..=1.0, reserve in 0_u32..100,
            is_search in any::<bool>(), latency_ms in 0_u64..2_500, jitter_ms in 0_u64..1_500, others in 0_u64..200,
            headers_percent in 0_u64..=100, seed in any::<u64>(),
        ) {
            let model = Model {
                counting, limit, share, reserve, is_search, latency_ms, jitter_ms, headers_percent, others, seed,
                ..Model::default()
            };
            let reserve = if is_search { 0 } else { reserve };
            let allowed = ((f64::from(limit) * share).floor() as u32).min(limit.saturating_sub(reserve)).max(1);
            prop_assert!(model.run().fullest_minute() <= allowed as usize);
        }
    }

    #[test]
    fn alone_at_least_97_percent_are_used_in_five_minutes_and_none_is_refused() {
        let fixed = (0..60).map(|second| Counting::Fixed(second * 1_000));
        for counting in fixed.chain([Counting::Sliding]) {
            for (headers_percent, jitter_ms) in [(100, 0), (0, 0), (60, 100)] {
                let outcome = Model { counting, jitter_ms, headers_percent, ..Model::default() }.run();
                let used = outcome.counted.len();
                assert_eq!(outcome.refused, 0, "{counting:?}");
                assert!((485..=500).contains(&used), "{used} of 500, {counting:?}, headers {headers_percent} %");
            }
        }
        let half = Model { share: 0.5, ..Model::default() }.run();
        assert!((243..=250).contains(&half.counted.len()), "{} of 250", half.counted.len());
        assert_eq!(half.fullest_minute(), 50);
    }

    #[test]
    fn client_that_spends_half_of_the_bucket_causes_no_refusal_as_long_as_headers_tell() {
        for seed in 0..60 {
            for counting in [Counting::Fixed(seed * 1_000), Counting::Sliding] {
                for share in [0.5, 1.0] {
                    let model =
                        Model { counting, share, others: 50, jitter_ms: 50, minutes: 10, seed, ..Model::default() };
                    let outcome = model.run();
                    let used = outcome.counted.len();
                    assert_eq!(outcome.refused, 0, "{model:?}");
                    assert!(used >= 380, "{used} of 500 that the other leaves: {model:?}");
                }
            }
        }
    }

    #[test]
    fn reserve_of_people_is_left_to_them() {
        for seed in 0..20 {
            let counting = Counting::Fixed(seed * 3_000);
            let model = Model {
                counting,
                limit: 300,
                reserve: 60,
                is_search: false,
                others: 150,
                jitter_ms: 50,
                seed,
                ..Model::default()
            };
            let outcome = model.run();
            // What the others send while an answer is under way cannot be known.
            let least = outcome.counted.iter().map(|(_, remaining)| *remaining).min().unwrap();
            assert!((50..=60).contains(&least), "{least} left of a reserve of 60");
            assert!(outcome.counted.len() > 5 * 70, "{} sent", outcome.counted.len());
        }
    }

    #[test]
    fn half_goes_at_once_after_a_rest_and_then_evenly() {
        let clock = clock();
        let budget = Budget::new(10_000, 100, 1.0, 0, clock.clone());
        let times = send(&budget, &clock, true, 500);
        assert!(times[49] < 0.001 && times[50] > 0.5, "{} {}", times[49], times[50]);
        for index in (50..99).chain(101..499) {
            let gap = times[index + 1] - times[index];
            assert!((0.59..0.62).contains(&gap), "{gap} after {index}: held back, and then in a burst");
        }
        clock.advance(Duration::from_mins(5));
        assert!(send(&budget, &clock, true, 50)[49] < 0.001, "a rest gives the credit back");
    }

    #[test]
    fn search_counts_in_both_buckets() {
        let clock = clock();
        let budget = Budget::new(10, 1_000, 1.0, 0, clock.clone());
        send(&budget, &clock, true, 10);
        assert!(send(&budget, &clock, false, 1)[0] > 1.0);
    }

    #[test]
    fn remaining_zero_waits_for_the_reset_of_its_bucket_only() {
        let clock = clock();
        let budget = Budget::new(1_000, 100, 1.0, 0, clock.clone());
        ask(&budget, true, &said(Some(100), Some(0), Some(20)));
        assert!(send(&budget, &clock, false, 1)[0] < 0.001);
        let waited = send(&budget, &clock, true, 1)[0];
        assert!((20.0..20.1).contains(&waited), "{waited}");
    }

    #[test]
    fn remaining_bounds_what_is_sent_before_the_reset() {
        let clock = clock();
        let budget = Budget::new(1_000, 100, 1.0, 0, clock.clone());
        ask(&budget, true, &said(Some(100), Some(20), Some(30)));
        // Eighty are missing, one is ours: a margin stays for whoever spent the others.
        let times = send(&budget, &clock, true, 14);
        assert!(times[9] < 0.001 && times[10] >= 30.0, "{times:?}");
    }

    #[test]
    fn limit_of_the_header_replaces_the_configured_one() {
        let clock = clock();
        let budget = Budget::new(1_000, 100, 0.5, 100, clock.clone());
        ask(&budget, false, &said(Some(300), None, None));
        // The organisation's limit on a search corrects the organisation's bucket.
        ask(&budget, true, &said(Some(300), None, None));
        assert_eq!(allowed_of(&budget), (150, 50));
        ask(&budget, true, &said(Some(60), None, None));
        assert_eq!(allowed_of(&budget), (150, 30));
        ask(&budget, true, &said(Some(100), None, None));
        assert_eq!(allowed_of(&budget), (150, 50), "a limit that was lowered comes back, up to the configured one");
        let state = budget.standing();
        assert_eq!((state.organisation.reserve, state.organisation.said_limit), (30, Some(300)));
    }

    #[test]
    fn reserve_bounds_what_is_allowed_whatever_the_share() {
        for (share, reserve, allowed) in
            [(1.0, 0, 1_000), (1.0, 100, 900), (0.5, 100, 500), (0.95, 100, 900), (1.0, 5_000, 1)]
        {
            assert_eq!(allowed_of(&Budget::new(1_000, 100, share, reserve, clock())).0, allowed, "{share} {reserve}");
        }
    }

    #[test]
    fn rate_limited_bucket_stays_closed_as_long_as_the_server_says() {
        let retry = |seconds| Headers { retry_after: Some(Duration::from_secs(seconds)), ..Headers::default() };
        for (headers, expected) in
            [(said(None, None, Some(7)), 7.0..7.1), (retry(12), 12.0..12.1), (Headers::default(), 60.0..62.1)]
        {
            let clock = clock();
            let budget = Budget::new(1_000, 100, 1.0, 0, clock.clone());
            budget.close(true, &headers, Duration::from_secs(1), Duration::from_secs(2));
            let waited = send(&budget, &clock, true, 1)[0];
            assert!(expected.contains(&waited), "{headers:?}: waited {waited}");
        }
        let clock = clock();
        let budget = Budget::new(1_000, 100, 1.0, 0, clock.clone());
        ask(&budget, true, &said(Some(100), Some(90), Some(25)));
        budget.close(true, &Headers::default(), Duration::from_secs(1), Duration::from_secs(2));
        let waited = send(&budget, &clock, true, 1)[0];
        assert!((25.0..25.1).contains(&waited), "the reset of an earlier answer holds: {waited}");
    }

    #[test]
    fn setting_the_time_of_day_changes_no_wait() {
        for hours in [-48, -1, 1, 48] {
            let clock = clock();
            let budget = Budget::new(1_000, 100, 0.5, 0, clock.clone());
            let first = send(&budget, &clock, true, 50);
            assert!(first[49] > 25.0);
            clock.set(clock.now().checked_add(SignedDuration::from_hours(hours)).unwrap());
            let next = first[49] + send(&budget, &clock, true, 1)[0];
            assert!((60.0..61.5).contains(&next), "{hours} hours: {next} s after the first");
        }
    }

    #[test]
    fn time_for_is_what_it_takes() {
        for (requests, used) in [(1, 0), (20, 0), (50, 0), (80, 0), (100, 0), (101, 0), (340, 0), (60, 90), (500, 30)] {
            let clock = clock();
            let budget = Budget::new(10_000, 100, 1.0, 0, clock.clone());
            send(&budget, &clock, true, used);
            let told = budget.time_for(requests as u64, requests as u64).as_secs_f64();
            let taken = send(&budget, &clock, true, requests)[requests - 1];
            assert!((told - taken).abs() < 1.5, "{requests} after {used}: {told} told, {taken} taken");
        }
        assert_eq!(Budget::new(10, 10, 1.0, 0, clock()).time_for(0, 0), Duration::ZERO);
        assert!(Budget::new(1, 1, 1.0, 0, clock()).time_for(u64::MAX, u64::MAX) > Duration::from_hours(1_000));
    }
}
