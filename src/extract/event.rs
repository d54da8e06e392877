//! What happens in a run, as it is told while it goes on.

use std::time::Duration;

use crate::model::Stream;

/// What happens in a run, for a progress bar or a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A stream begins; `promised` records lie in its range (repeated when it has several ranges; they add up).
    Promised {
        /// The stream.
        stream: Stream,
        /// Records.
        promised: u64,
    },
    /// Records of a stream arrived.
    Received {
        /// The stream.
        stream: Stream,
        /// Records, without repetitions.
        records: u64,
    },
    /// The budget or a retry made the run wait since the last such event.
    Waited {
        /// Why: a key of [`Ledger::waited`](crate::kustomer::Ledger::waited).
        reason: &'static str,
        /// How long.
        wait: Duration,
    },
    /// A commit was made.
    Committed {
        /// The lake's version.
        version: u64,
        /// Rows written or found unchanged.
        rows: u64,
    },
    /// A stream has ended.
    Ended {
        /// The stream.
        stream: Stream,
        /// Whether it is proven complete.
        complete: bool,
    },
}

/// Hears of the events of a run.
pub trait Progress: Send + Sync {
    /// Takes note of an event; must return soon.
    fn on(&self, event: Event);
}

/// Ignores every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn on(&self, _event: Event) {}
}
