//! Time as an argument: every module takes a [`Clock`], so that a simulation controls it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;

/// A clock that is shared between tasks.
pub type SharedClock = Arc<dyn Clock>;

/// Tells the time and waits.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the present time, UTC.
    fn now(&self) -> Timestamp;

    /// Returns the time since some fixed moment. It never goes back and never jumps, whatever is done to the machine's
    /// time, so that intervals are measured with it; it may stand while the machine sleeps.
    fn elapsed(&self) -> Duration;

    /// Waits for `duration` of this clock's time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's time")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's steady clock")]
    fn elapsed(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// A clock that moves only when told to; a sleep moves it by its length and returns at once.
///
/// So tasks that sleep side by side move it one after the other, by the sum of their sleeps; and a sleep as a time limit on
/// something else always ends first.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// Makes a clock that stands at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { state: Mutex::new((now, Duration::ZERO)) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.state();
        state.0 = state.0.saturating_add(duration).unwrap_or(Timestamp::MAX);
        state.1 = state.1.saturating_add(duration);
    }

    /// Sets the time of day, forward or back, as a correction of the machine's clock does; no time passes.
    pub fn set(&self, now: Timestamp) {
        self.state().0 = now;
    }

    fn state(&self) -> MutexGuard<'_, (Timestamp, Duration)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state().0
    }

    fn elapsed(&self) -> Duration {
        self.state().1
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.advance(duration);
        // A yield, so that a loop of sleeps lets other tasks run.
        tokio::task::yield_now().boxed()
    }
}
