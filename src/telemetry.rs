//! Diagnostics on standard error: text for people, JSON for machines.
//!
//! Standard output carries data only, so nothing here writes to it. Events carry ids, counts and paths.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object an event, with its time.
    Json,
}

impl FromStr for LogFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::config("unknown log format, expected text or json").with_context("format", text)),
        }
    }
}

/// Takes the text of an event, without its end of line.
pub type TakeLine = Box<dyn Fn(String) + Send>;

static TAKE_LINE: Mutex<Option<TakeLine>> = Mutex::new(None);

/// Gives the lines of events to what draws on the terminal, or to standard error again.
///
/// It is called where the event happens, also under locks: it must not wait for anything.
pub fn give_lines(take: Option<TakeLine>) {
    *TAKE_LINE.lock().unwrap_or_else(PoisonError::into_inner) = take;
}

/// Writes events, each whole.
struct Events;

impl Write for Events {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match &*TAKE_LINE.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(take) => take(String::from_utf8_lossy(event).trim_end().to_owned()),
            None => io::stderr().lock().write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Sends the process's events to standard error; `verbosity` is 0 for information, below it less, above it more.
///
/// A second call in one process changes nothing.
pub fn start(format: LogFormat, verbosity: i8) {
    let level = match verbosity {
        ..=-1 => "error",
        0 => "info",
        1 => "debug",
        2.. => "trace",
    };
    // Other crates' events may quote what they were given: URLs with queries, rows. Only ours are shown.
    let filter = EnvFilter::new(format!("off,counterfoil={level}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Events);
    let started = match format {
        LogFormat::Text => builder.without_time().with_target(false).with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().with_target(false).try_init(),
    };
    // The only failure is that a subscriber is there already, as in a test process.
    drop(started);
}
