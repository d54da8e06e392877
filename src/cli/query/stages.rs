//! How long the stages of a query took, as one event of the log.
//!
//! ```text
//! opening_ms   settings, SQL file, root key, lake, tables
//! planning_ms  from the SQL text to the first task of the plan
//! running_ms   until the last row was written
//! total_ms     all of it; what the process does before and after (loading, ending) is not in it
//! ```

use std::time::Duration;

use crate::clock::SharedClock;

/// The stages of one query, milliseconds.
#[derive(Debug)]
pub(super) struct Stages {
    clock: SharedClock,
    began: Duration,
    opened: Duration,
    planned: Duration,
}

impl Stages {
    /// Starts with opening.
    pub(super) fn new(clock: &SharedClock) -> Self {
        let began = clock.elapsed();
        Self { clock: SharedClock::clone(clock), began, opened: began, planned: began }
    }

    /// Ends opening.
    pub(super) fn opened(&mut self) {
        self.opened = self.clock.elapsed();
        self.planned = self.opened;
    }

    /// Ends planning.
    pub(super) fn planned(&mut self) {
        self.planned = self.clock.elapsed();
    }

    /// Returns how long planning took.
    pub(super) fn planning_ms(&self) -> u64 {
        ms(self.opened, self.planned)
    }

    /// Returns how long the query has been running.
    pub(super) fn running_ms(&self) -> u64 {
        ms(self.planned, self.clock.elapsed())
    }

    /// Ends running, and logs all stages.
    pub(super) fn done(&self, rows: u64, peak_memory_bytes: usize) {
        tracing::debug!(
            rows,
            opening_ms = ms(self.began, self.opened),
            planning_ms = self.planning_ms(),
            running_ms = self.running_ms(),
            total_ms = ms(self.began, self.clock.elapsed()),
            peak_memory_bytes,
            "query done"
        );
    }
}

fn ms(from: Duration, until: Duration) -> u64 {
    until.saturating_sub(from).as_millis() as u64
}
