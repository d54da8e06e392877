//! The watch over a command: Ctrl-C, SIGTERM and a time limit end it even when it cannot be asked to end.
//!
//! ```text
//! signal or limit ─▶ the command is dropped: temporary files go, tasks stop            (everything that waits or computes in steps)
//!        │
//!        └─▶ this thread: the process ends   at once, when standard output takes no more bytes, or at a second signal
//!                                            after GRACE, when the command is in one long step
//! ```
//!
//! A command is a future; whoever waits for it drops it when a signal comes. That works between its steps. A write to a
//! pipe that nobody reads is a step without an end, so the process ends in the middle of it: standard output is cut
//! anyway, and nothing that is written there has a file to remove.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future;

use super::{INTERRUPTED, fail, interruption, say};
use crate::error::Error;
use crate::telemetry::LogFormat;

/// How long a command may need to end by itself; most need milliseconds.
const GRACE: Duration = Duration::from_secs(2);

/// How often a command that should end is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What the command and the thread that watches it share.
#[derive(Debug, Default)]
pub(super) struct Watch {
    limit: tokio::sync::watch::Sender<Option<Duration>>,
    is_writing: AtomicBool,
}

impl Watch {
    /// Starts the thread; without it the command still ends between its steps.
    pub(super) fn start(self: &Arc<Self>, format: LogFormat) {
        let watch = Arc::clone(self);
        let started = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                runtime.block_on(watch.end(format));
            }
        });
        drop(started);
    }

    /// Sets how long the command may take from now on.
    pub(super) fn limit(&self, limit: Duration) {
        self.limit.send_replace(Some(limit));
    }

    /// Returns standard output, watched.
    pub(super) fn stdout(self: &Arc<Self>) -> Watched<io::Stdout> {
        Watched { inner: io::stdout(), watch: Arc::clone(self) }
    }

    async fn end(&self, format: LogFormat) {
        let late = tokio::select! {
            () = interruption() => None,
            limit = self.limit_passed() => Some(limit),
        };
        tokio::select! {
            () = tokio::time::sleep(GRACE) => {}
            () = interruption() => {}
            () = self.blocked() => {}
        }
        if let Some(limit) = late {
            fail(&took_longer(limit), format);
            exit(took_longer(limit).kind().exit_code());
        }
        say("interrupted");
        exit(INTERRUPTED);
    }

    /// Waits for the limit to be set and to pass, and returns it.
    async fn limit_passed(&self) -> Duration {
        let mut limits = self.limit.subscribe();
        let set = limits.wait_for(Option::is_some).await.map(|limit| *limit);
        let Ok(Some(limit)) = set else { return future::pending().await };
        tokio::time::sleep(limit).await;
        limit
    }

    /// Waits until the command is found writing; the first look comes after it had time to end.
    async fn blocked(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_writing.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

#[expect(clippy::exit, reason = "the command is in a step that has no end: only the process can end")]
fn exit(code: u8) -> ! {
    std::process::exit(code.into())
}

/// The error of a command that reached its time limit.
pub(super) fn took_longer(limit: Duration) -> Error {
    Error::query("the query took longer than it may")
        .with_context("limit", format!("{limit:?}"))
        .with_hint("narrow its rows, or give it more time with --timeout or the setting query.timeout")
}

/// A writer that shows when it writes.
#[derive(Debug)]
pub(super) struct Watched<W> {
    inner: W,
    watch: Arc<Watch>,
}

impl<W> Watched<W> {
    fn while_writing<T>(&mut self, write: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        self.watch.is_writing.store(true, Ordering::Relaxed);
        let written = write(&mut self.inner);
        self.watch.is_writing.store(false, Ordering::Relaxed);
        written
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.while_writing(|inner| inner.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.while_writing(W::flush)
    }
}
