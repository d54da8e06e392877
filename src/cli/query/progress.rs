//! Progress of a query: one line on a terminal that shows what is read and what came out, and goes when the result comes.
//!
//! ```text
//! 412/1,240 files, 83.1MiB read, 1,204,331 rows, 12s
//! ```
//!
//! It is drawn only where standard error is a terminal, not under `--quiet`, not beside JSON events, and not in the first
//! second: most queries are over by then. Where the rows go to a terminal or into a pipe, whose reader most often shows
//! them on the same terminal, the line ends with the first of them; beside a file it stays to the end.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::explain::size;
use crate::cli::{Context, IS_JSON, grouped};
use crate::clock::SharedClock;
use crate::query::{Gauge, Reading};

/// A query that is done by then shows nothing.
const FIRST_AFTER: Duration = Duration::from_secs(1);

/// How often the line is drawn.
const EVERY: Duration = Duration::from_millis(200);

/// The line; it goes when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Line(Option<(Sender<()>, JoinHandle<()>)>);

impl Line {
    /// Starts the line, where one is to be shown; a thread draws it, since the query may keep all others busy.
    pub(super) fn start(context: &Context, gauge: Option<Gauge>) -> Self {
        let is_shown = !context.quiet && !IS_JSON.load(Ordering::Relaxed) && io::stderr().is_terminal();
        let Some(gauge) = gauge.filter(|_| is_shown) else { return Self(None) };
        let clock = SharedClock::clone(&context.clock);
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            let began = clock.elapsed();
            let mut wait = FIRST_AFTER;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let width = terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
                draw(&text(gauge.read(), clock.elapsed().saturating_sub(began)), width);
                wait = EVERY;
            }
            if wait == EVERY {
                draw("", 0);
            }
        });
        Self(thread.ok().map(|thread| (stop, thread)))
    }

    /// Takes the line off the terminal.
    pub(super) fn stop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            drop(thread.join());
        }
    }

    /// Returns a writer to `out`, whose first bytes take the line off the terminal unless they go to a file.
    pub(super) fn ending_before<W: Write>(&mut self, out: W) -> Ending<'_, W> {
        let is_file = std::fs::metadata("/dev/stdout").is_ok_and(|found| found.is_file());
        Ending { line: (!is_file).then_some(self), out }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A writer before whose first bytes the line ends.
#[derive(Debug)]
pub(super) struct Ending<'a, W> {
    line: Option<&'a mut Line>,
    out: W,
}

impl<W: Write> Write for Ending<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(line) = self.line.take() {
            line.stop();
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn draw(text: &str, width: usize) {
    // The last column stays free: a full line would wrap on some terminals.
    let line: String = text.chars().take(width.saturating_sub(1)).collect();
    let mut stderr = io::stderr().lock();
    drop(write!(stderr, "\r{line}\x1b[K").and_then(|()| stderr.flush()));
}

fn text(reading: Reading, elapsed: Duration) -> String {
    let Reading { rows, read_bytes, files, planned_files } = reading;
    let read = match planned_files {
        0 => String::new(),
        _ => format!("{}/{} files, {} read, ", grouped(files), grouped(planned_files), size(read_bytes)),
    };
    format!("{read}{} {}, {}s", grouped(rows), if rows == 1 { "row" } else { "rows" }, elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_says_what_is_known() {
        let reading = Reading { rows: 1_204_331, read_bytes: 83 << 20, files: 412, planned_files: 1_240 };
        assert_eq!(text(reading, Duration::from_millis(12_900)), "412/1,240 files, 83.0MiB read, 1,204,331 rows, 12s");
        assert_eq!(text(Reading { rows: 1, ..Reading::default() }, Duration::from_secs(1)), "1 row, 1s");
    }

    #[test]
    fn first_bytes_end_a_line_and_later_ones_pass() {
        let mut line = Line::default();
        let mut out = Vec::new();
        let mut writer = Ending { line: Some(&mut line), out: &mut out };
        writer.write_all(b"a").unwrap();
        writer.write_all(b"b").unwrap();
        assert!(writer.line.is_none());
        assert_eq!(out, b"ab");
    }
}
