//! One rate-limit bucket: what we sent in the last minute, what the server says, when the next request may go.
//!
//! ```text
//! log      at most ⌊limit × share⌋ requests, and never the reserve, in any 60 seconds, whatever window the server uses
//! pace     half of them may go at once after a rest; then evenly, one per 1/allowed of a minute
//! left     what the server has left: while other clients spend the same budget, a margin for them stays
//! closed   after a 429, for as long as the server says
//! ```
//!
//! A request was counted by the server at some moment between its departure and its answer, so the log keeps it from the
//! answer on, and half a second longer than a minute for servers whose own clocks differ. A request that had to wait
//! for anything but the pace starts without the credit of a rest: what was held back does not come in a burst.
//!
//! `x-ratelimit-remaining` is exact when no other request of ours was under way, and a bound otherwise, since answers
//! overtake each other. What is missing from it and is not in our log was spent by others: from that the margin is
//! estimated. A reset that moves before it has passed is that of a sliding window, where nothing waits for it: what others
//! spent in the last minute, and the margin, come off what we may send in a minute.
//!
//! All moments are of the steady clock: setting the machine's time changes nothing here.

use std::collections::VecDeque;
use std::time::Duration;

use super::headers::Headers;

/// The server's window, and half a second for servers that count on several machines.
pub(super) const WINDOW: Duration = Duration::from_millis(60_500);

const SERVER_WINDOW: Duration = Duration::from_mins(1);

/// How often it is looked whether a request under way has been answered, when they fill the bucket alone.
const ANSWER_POLL: Duration = Duration::from_millis(250);

/// Resets nearer to each other than this are of the same window: they are told in whole seconds, and so is the time from
/// which a delta counts.
const SAME_RESET_MS: i64 = 2_500;

/// A reset that stands still for so long is that of a fixed window.
const STANDING_RESET: Duration = Duration::from_secs(10);

/// What others have spent is no rate before the window is so old.
const SHORTEST_AGE: Duration = Duration::from_secs(10);

/// How far the begin of the server's window may be off.
const BEGIN_SLACK: Duration = Duration::from_millis(1_500);

/// Why a request had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    OrgBudget,
    SearchBudget,
    Reserve,
    RateLimited,
    Retry,
}

impl Reason {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OrgBudget => "org budget",
            Self::SearchBudget => "search budget",
            Self::Reserve => "reserve",
            Self::RateLimited => "rate limited",
            Self::Retry => "retry",
        }
    }
}

/// One bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) reason: Reason,
    /// The limit of the settings, by which the reserve is scaled.
    pub(super) configured: u32,
    /// The limit in force: the server's word, once it was given.
    pub(super) limit: u32,
    share: f64,
    configured_reserve: u32,
    pub(super) allowed: usize,
    /// When each request of the window was answered: no server has counted it later than that.
    answered: VecDeque<Duration>,
    /// Requests whose answer is still to come; they count as if sent now.
    in_flight: u32,
    last_answer: Duration,
    /// Up to where the pace has handed out its turns.
    paced_to: Duration,
    /// The next request waits for something else than the pace.
    is_held: bool,
    left: Option<Left>,
    others: Others,
    is_sliding: bool,
    /// What we may send in a minute beside the other clients of a sliding window, and until when that is believed.
    beside_others: Option<(usize, Duration)>,
    closed_until: Option<Duration>,
    pub(super) said_limit: Option<u32>,
    pub(super) said_remaining: Option<u32>,
}

/// What the server had left at its last word, less what was sent since.
#[derive(Debug, Clone, Copy)]
struct Left {
    requests: u32,
    until: Duration,
    reset_ms: i64,
    first_seen: Duration,
    heard: Duration,
}

/// Requests of other clients, as far as they can be told from ours.
#[derive(Debug, Clone, Copy, Default)]
struct Others {
    /// In the present window.
    count: u32,
    /// The same, a minute.
    this_window: u32,
    /// A minute, in the window before.
    last_window: u32,
}

impl Bucket {
    pub(super) fn new(reason: Reason, limit: u32, share: f64, reserve: u32) -> Self {
        let mut bucket = Self {
            reason,
            configured: limit,
            limit,
            share,
            configured_reserve: reserve,
            allowed: 1,
            answered: VecDeque::new(),
            in_flight: 0,
            last_answer: Duration::ZERO,
            paced_to: Duration::ZERO,
            is_held: false,
            left: None,
            others: Others::default(),
            is_sliding: false,
            beside_others: None,
            closed_until: None,
            said_limit: None,
            said_remaining: None,
        };
        bucket.set_limit(limit);
        bucket
    }

    fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
        let share = (f64::from(limit) * self.share).floor() as u32;
        self.allowed = share.min(limit.saturating_sub(self.reserve())).max(1) as usize;
    }

    /// The reserve under the limit in force: in proportion when the server's limit is below the configured one.
    pub(super) fn reserve(&self) -> u32 {
        if self.limit >= self.configured {
            return self.configured_reserve;
        }
        let scaled = u64::from(self.configured_reserve) * u64::from(self.limit) / u64::from(self.configured.max(1));
        scaled as u32
    }

    fn pace(&self) -> Duration {
        WINDOW / self.allowed as u32
    }

    /// What may go at once after a rest is this much ahead of the pace.
    fn credit(&self) -> Duration {
        self.pace() * ((self.allowed / 2).max(1) as u32 - 1)
    }

    /// Where the pace goes on from: who was held back has no credit.
    fn paced_from(&self, now: Duration) -> Duration {
        self.paced_to.max(if self.is_held { now + self.credit() } else { now })
    }

    /// Returns until when the next request must wait, and for what; nothing when it may go.
    pub(super) fn next(&mut self, now: Duration) -> Option<(Duration, Reason)> {
        while self.answered.front().is_some_and(|answered| *answered + WINDOW <= now) {
            self.answered.pop_front();
        }
        let mut next: Option<(Duration, Reason)> = None;
        let mut wait = |until: Duration, reason: Reason| {
            if until > now && next.is_none_or(|(known, _)| until > known) {
                next = Some((until, reason));
            }
        };
        let in_flight = self.in_flight as usize;
        let mut log = |allowed: usize, reason: Reason| {
            if let Some(over) = (self.answered.len() + in_flight).checked_sub(allowed) {
                match self.answered.get(over) {
                    Some(oldest) => wait(*oldest + WINDOW, reason),
                    None if in_flight > 0 => wait(now + ANSWER_POLL, reason),
                    None => {}
                }
            }
        };
        log(self.allowed, self.reason);
        if let Some((allowed, until)) = self.beside_others
            && until > now
        {
            log(allowed, Reason::RateLimited);
        }
        if let Some(left) = self.left.filter(|left| left.until > now && !self.is_sliding) {
            let requests = self.still_left(left, now);
            if requests <= self.margin() {
                wait(left.until, Reason::RateLimited);
            } else if requests <= self.reserve() {
                wait(left.until, Reason::Reserve);
            }
        }
        if let Some(until) = self.closed_until {
            wait(until, Reason::RateLimited);
        }
        self.is_held |= next.is_some();
        let turn = self.paced_to.saturating_sub(self.credit());
        if next.is_none() && turn > now {
            next = Some((turn, self.reason));
        }
        next
    }

    /// What is left of a remainder that was heard some time ago, when the others go on as before.
    fn still_left(&self, left: Left, now: Duration) -> u32 {
        let silent_s = now.saturating_sub(left.heard).as_secs_f64();
        let spent = f64::from(self.others()) * silent_s / SERVER_WINDOW.as_secs_f64();
        left.requests.saturating_sub(spent as u32)
    }

    /// What stays for the other clients that were seen to spend: what they may send while an answer is under way.
    fn margin(&self) -> u32 {
        let others = self.others();
        if others == 0 { 0 } else { (3 + others.div_ceil(20)).min((self.limit / 10).max(1)) }
    }

    pub(super) fn send(&mut self, now: Duration) {
        self.paced_to = self.paced_from(now) + self.pace();
        self.is_held = false;
        self.in_flight += 1;
        if let Some(left) = &mut self.left {
            left.requests = left.requests.saturating_sub(1);
        }
    }

    /// Notes that a request was answered, or failed; tells whether no other answer came while it was under way.
    pub(super) fn end(&mut self, sent: Duration, now: Duration) -> bool {
        let was_alone = self.last_answer <= sent;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.answered.push_back(now);
        self.last_answer = now;
        was_alone
    }

    /// Learns from the headers of an answer that has just come.
    ///
    /// `may_raise` is false for the limit of searches: an answer to a search may speak of the organisation's, which is higher.
    pub(super) fn correct(&mut self, headers: &Headers, was_alone: bool, now: Duration, may_raise: bool) {
        self.said_limit = headers.limit.or(self.said_limit);
        self.said_remaining = headers.remaining.or(self.said_remaining);
        if let Some(limit) = headers.limit
            && limit != self.limit
            && (may_raise || limit <= self.configured)
        {
            let configured = self.configured;
            tracing::info!(bucket = self.reason.name(), configured, limit, "source names another rate limit");
            self.set_limit(limit);
        }
        let (Some(remaining), Some(reset)) = (headers.remaining, headers.reset) else { return };
        // Requests under way may have been counted or not: assume that they were not.
        let mut requests = remaining.saturating_sub(self.in_flight);
        let mut first_seen = now;
        let mut reset_ms = reset.at_ms;
        if let Some(known) = self.left {
            if (known.reset_ms - reset.at_ms).abs() <= SAME_RESET_MS {
                if !was_alone {
                    // Answers overtake each other: within one window the smaller figure is the later one.
                    requests = requests.min(known.requests);
                }
                (first_seen, reset_ms) = (known.first_seen, known.reset_ms);
                self.is_sliding &= now < first_seen + STANDING_RESET;
            } else if reset.at_ms < known.reset_ms && known.until > now {
                return;
            } else {
                // The reset of a fixed window does not move before it has passed.
                self.is_sliding |= known.until > now + BEGIN_SLACK;
                self.others = Others { last_window: self.others.this_window, ..Others::default() };
            }
        }
        let window_age = if self.is_sliding { SERVER_WINDOW } else { SERVER_WINDOW.saturating_sub(reset.ahead) };
        let since = now.saturating_sub(window_age + BEGIN_SLACK);
        let ours = self.answered.iter().rev().take_while(|answered| **answered >= since).count() as u32;
        let others = self.limit.saturating_sub(remaining).saturating_sub(ours + self.in_flight);
        self.others.count = self.others.count.max(others);
        let window_s = window_age.max(SHORTEST_AGE).as_secs_f64();
        self.others.this_window = (f64::from(self.others.count) * SERVER_WINDOW.as_secs_f64() / window_s).ceil() as u32;
        self.left = Some(Left { requests, until: now + reset.ahead, reset_ms, first_seen, heard: now });
        self.beside_others = (self.is_sliding && self.others() > 0).then(|| {
            let allowed =
                (remaining + self.used(now) - self.in_flight).saturating_sub(self.margin().max(self.reserve()));
            (allowed.max(1) as usize, now + WINDOW)
        });
    }

    /// Closes the bucket after a 429.
    pub(super) fn close(&mut self, until: Duration) {
        self.closed_until = self.closed_until.max(Some(until));
    }

    /// Returns the end of the server's window, where its headers have told it.
    pub(super) fn reset(&self, now: Duration) -> Option<Duration> {
        self.left.filter(|left| left.until > now && !self.is_sliding).map(|left| left.until)
    }

    /// Returns the requests of the last minute, those under way included.
    pub(super) fn used(&self, now: Duration) -> u32 {
        let recent = self.answered.iter().rev().take_while(|answered| **answered + SERVER_WINDOW > now).count();
        recent as u32 + self.in_flight
    }

    /// Returns what other clients spend in a minute, at least.
    pub(super) fn others(&self) -> u32 {
        self.others.last_window.max(self.others.this_window)
    }

    /// Returns how long it takes until `requests` more have been sent.
    pub(super) fn time_for(&self, requests: u64, now: Duration) -> Duration {
        let Some(last) = requests.checked_sub(1) else { return Duration::ZERO };
        let paces = |count: u64| self.pace().saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let by_pace = self.paced_from(now).saturating_add(paces(last)).saturating_sub(self.credit());
        let free = (self.allowed as u64).saturating_sub(self.answered.len() as u64 + u64::from(self.in_flight));
        let by_log = last.checked_sub(free).map(|held| {
            let oldest = self.answered.front().copied().unwrap_or(now);
            (oldest + WINDOW).saturating_add(paces(held))
        });
        let held = self
            .left
            .filter(|left| !self.is_sliding && self.still_left(*left, now) <= self.margin().max(self.reserve()))
            .map(|left| left.until);
        let begin = held.max(self.closed_until).map(|until| until.saturating_add(paces(last)));
        by_pace.max(by_log.unwrap_or_default()).max(begin.unwrap_or_default()).saturating_sub(now)
    }
}
