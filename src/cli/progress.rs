//! Progress of an extract: a bar on a terminal, nothing on a pipe (the log says it there).
//!
//! ```text
//! ⠙ tickets ━━━━━━━━━─────── 41,200/100,000  98 requests, 49 a minute  ~2 min left, waiting for: search budget
//! ```
//!
//! The time that is left is what the budget makes the remaining requests last, so its waits are in it from the start; a
//! source that is slower than the budget is taken at its own speed. It covers the stream that is walked: how many records
//! the next one has is not known before it begins.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::style::ProgressTracker;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use jiff::Timestamp;

use super::above::Above;
use super::{Context, IS_JSON, grouped};
use crate::clock::SharedClock;
use crate::extract::price::Rates;
use crate::extract::{Event, Progress};
use crate::kustomer::{Client, Endpoint, Ledger};
use crate::model::Stream;

/// Records that a page brings when nothing is known yet: 500, less the repeated key and some ties.
const FIRST_PAGE: f64 = 475.0;

/// A wait is named this long after it ended.
const NAMED_FOR: Duration = Duration::from_secs(3);

/// Narrower terminals get the line without the drawn bar and without the rate.
const DRAWN_FROM_COLUMNS: u16 = 100;

/// Draws a bar on standard error when that is a terminal.
#[derive(Debug)]
pub(super) struct Bar {
    drawn: ProgressBar,
    above: Above,
    state: Arc<Mutex<State>>,
}

/// What the bar's texts are made of.
#[derive(Debug)]
struct State {
    stream: Option<Stream>,
    promised: u64,
    received: u64,
    /// Searches when the stream began.
    before: u64,
    began: Timestamp,
}

impl Bar {
    /// Makes the bar; the context may hide it.
    pub(super) fn new(context: &Context, client: &Client) -> Self {
        let is_shown = !context.quiet && !IS_JSON.load(Ordering::Relaxed) && std::io::stderr().is_terminal();
        let bar = if is_shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let now = context.clock.now();
        let state = Arc::new(Mutex::new(State { stream: None, promised: 0, received: 0, before: 0, began: now }));
        if is_shown {
            let is_wide = terminal_size::terminal_size_of(std::io::stderr())
                .is_some_and(|(width, _)| width.0 >= DRAWN_FROM_COLUMNS);
            let costs = Costs {
                client: client.clone(),
                before: client.ledger(),
                clock: Arc::clone(&context.clock),
                state: Arc::clone(&state),
                began: now,
                waited: (Ledger::default(), None),
                is_wide,
                text: String::new(),
            };
            let template = if is_wide {
                "{spinner} {msg} {wide_bar} {human_pos}/{human_len}  {costs}"
            } else {
                "{spinner} {msg} {human_pos}/{human_len}  {costs}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.with_key("costs", costs));
            }
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { above: Above::start(&bar), drawn: bar, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the bar off the terminal.
    pub(super) fn clear(&self) {
        self.above.release();
        self.drawn.finish_and_clear();
    }
}

impl Progress for Bar {
    fn on(&self, event: Event) {
        // The bar has a lock of its own, under which its texts are made: it must not be called while the state is locked.
        match event {
            Event::Promised { stream, promised } => {
                let (is_new, promised) = {
                    let mut state = self.state();
                    let is_new = state.stream != Some(stream);
                    if is_new {
                        let began = state.began;
                        // The tracker notes what was spent before, at its next tick.
                        *state = State { stream: Some(stream), promised: 0, received: 0, before: u64::MAX, began };
                    }
                    state.promised += promised;
                    (is_new, state.promised)
                };
                if is_new {
                    self.drawn.set_position(0);
                    self.drawn.set_message(stream.table());
                }
                self.drawn.set_length(promised);
            }
            Event::Received { stream, records } => {
                let position = {
                    let mut state = self.state();
                    if state.stream != Some(stream) {
                        return;
                    }
                    state.received += records;
                    state.received.min(state.promised)
                };
                self.drawn.set_position(position);
            }
            _ => {}
        }
    }
}

/// Requests, rate, time left and waits as one text, made anew at each tick.
#[derive(Clone)]
struct Costs {
    client: Client,
    before: Ledger,
    clock: SharedClock,
    state: Arc<Mutex<State>>,
    began: Timestamp,
    /// The ledger at the last tick, and the last wait that it showed with the time until which it is named.
    waited: (Ledger, Option<(&'static str, Timestamp)>),
    is_wide: bool,
    text: String,
}

impl ProgressTracker for Costs {
    fn clone_box(&self) -> Box<dyn ProgressTracker> {
        Box::new(self.clone())
    }

    fn tick(&mut self, _state: &ProgressState, _now: std::time::Instant) {
        let now = self.clock.now();
        let ledger = self.client.ledger().since(&self.before);
        for (reason, _) in ledger.since(&self.waited.0).waited {
            self.waited.1 = Some((reason, now.saturating_add(NAMED_FOR).unwrap_or(now)));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let searches = searches(&ledger);
        if state.before == u64::MAX {
            (state.before, state.began) = (searches, now);
        }
        let left = left(
            &Rates::of(&self.client.budget_state()),
            state.promised.saturating_sub(state.received),
            state.received,
            searches.saturating_sub(state.before),
            now.duration_since(state.began).unsigned_abs(),
        );
        let elapsed = if self.is_wide { now.duration_since(self.began).as_secs_f64() } else { 0.0 };
        let waiting = self.waited.1.filter(|(_, until)| *until > now).map(|(reason, _)| reason);
        self.text = line(ledger.total(), elapsed, state.stream.map(|_| left), waiting);
        drop(state);
        self.waited.0 = ledger;
    }

    fn reset(&mut self, _state: &ProgressState, _now: std::time::Instant) {
        self.text.clear();
    }

    fn write(&self, _state: &ProgressState, out: &mut dyn std::fmt::Write) {
        let _ = out.write_str(&self.text);
    }
}

fn searches(ledger: &Ledger) -> u64 {
    let of = |endpoint: Endpoint| ledger.requests.get(endpoint.name()).copied().unwrap_or_default();
    of(Endpoint::Search) + of(Endpoint::ArchiveSearch)
}

/// Returns how long the remaining records of a stream take: at the budget's pace, or at the source's if that is slower.
fn left(rates: &Rates, remaining: u64, received: u64, searches: u64, elapsed: Duration) -> Duration {
    if remaining == 0 {
        return Duration::ZERO;
    }
    let per_request = if received == 0 || searches == 0 { FIRST_PAGE } else { received as f64 / searches as f64 };
    let requests = (remaining as f64 / per_request.max(1.0)).ceil();
    let (by_budget, _) = rates.duration(requests as u64, requests as u64);
    let by_source = if received == 0 { 0.0 } else { elapsed.as_secs_f64() * remaining as f64 / received as f64 };
    // The first half of the budget goes at once; what was waited for then says nothing about the source.
    if searches < 10 { by_budget } else { by_budget.max(Duration::from_secs_f64(by_source)) }
}

fn line(requests: u64, elapsed_s: f64, left: Option<Duration>, waiting: Option<&str>) -> String {
    let mut text = format!("{} requests", grouped(requests));
    if elapsed_s >= 10.0 {
        let _ = write!(text, ", {:.0} a minute", requests as f64 * 60.0 / elapsed_s);
    }
    if let Some(left) = left {
        let seconds = left.as_secs();
        let _ = match seconds {
            0..90 => write!(text, "  ~{} s left", seconds.max(1)),
            90..5_400 => write!(text, "  ~{} min left", seconds.div_ceil(60)),
            _ => write!(text, "  ~{:.1} h left", seconds as f64 / 3_600.0),
        };
    }
    if let Some(reason) = waiting {
        let _ = write!(text, ", waiting for: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Rates {
        Rates::new(1_000, 100, 0.5)
    }

    #[test]
    fn time_left_holds_the_waits_of_the_budget_from_the_first_page_on() {
        // 100,000 records are 211 requests of 475; at 50 in 60.5 s.
        let first = left(&rates(), 100_000, 0, 0, Duration::ZERO);
        assert_eq!(first.as_secs(), 2_110 * 605 / 5_000);
        // The first pages came at once; that they were quick does not shorten the waits that follow.
        let quick = left(&rates(), 90_000, 10_000, 20, Duration::from_secs(1));
        assert_eq!(quick.as_secs(), 1_800 * 605 / 5_000);
    }

    #[test]
    fn slow_source_is_taken_at_its_own_speed() {
        let slow = left(&rates(), 90_000, 10_000, 20, Duration::from_mins(1));
        assert_eq!(slow, Duration::from_mins(9));
        assert_eq!(left(&rates(), 0, 10_000, 20, Duration::from_mins(1)), Duration::ZERO);
    }

    #[test]
    fn line_says_what_was_asked_what_is_left_and_what_is_waited_for() {
        let cases = [
            ((0, 0.0, None, None), "0 requests"),
            (
                (98, 120.0, Some(100), Some("search budget")),
                "98 requests, 49 a minute  ~2 min left, waiting for: search budget",
            ),
            ((1_200, 5.0, Some(0), None), "1,200 requests  ~1 s left"),
            ((1_200, 5.0, Some(9_000), None), "1,200 requests  ~2.5 h left"),
        ];
        for ((requests, elapsed, left, waiting), text) in cases {
            assert_eq!(line(requests, elapsed, left.map(Duration::from_secs), waiting), text);
        }
    }
}
