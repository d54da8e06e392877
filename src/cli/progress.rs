//! Progress of an extract: a bar on a terminal, nothing on a pipe (the log says it there).

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::extract::{Event, Progress};

/// Draws a bar on standard error when that is a terminal.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// Makes the bar; `quiet` hides it.
    pub(super) fn new(quiet: bool) -> Self {
        let is_shown = !quiet && std::io::stderr().is_terminal();
        let bar = if is_shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {human_pos}/{human_len} {eta}") {
            bar.set_style(style);
        }
        if is_shown {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }

    /// Takes the bar off the terminal.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn on(&self, event: Event) {
        match event {
            Event::Promised { stream, promised } => {
                self.bar.inc_length(promised);
                self.bar.set_message(stream.table());
            }
            Event::Received { stream, records } => {
                self.bar.inc(records);
                self.bar.set_message(stream.table());
            }
            Event::Waited { reason, wait } => {
                self.bar.set_message(format!("waited {:.0} s ({reason})", wait.as_secs_f64()));
            }
            _ => {}
        }
    }
}
