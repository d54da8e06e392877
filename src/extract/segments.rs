//! Segments of a stream's range, walked side by side by workers over one queue.
//!
//! A worker whose segment turns out to be large gives its later half away while another worker is idle. So a small
//! range is walked by one worker without extra requests, and a large one keeps all of them busy.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::error::Result;
use crate::extract::walk::{Forked, Limits, PageSource, Step, Walker};

/// A part of a range, walked by one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) archive: bool,
}

/// The segments that wait, and how many workers are at work.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    workers: usize,
}

#[derive(Debug)]
struct State {
    /// Segments, and whether what they hold was promised with the one they come from.
    waiting: VecDeque<(Segment, bool)>,
    working: usize,
}

impl Queue {
    pub(super) fn new(first: Vec<Segment>, workers: usize) -> Self {
        let waiting = first.into_iter().map(|segment| (segment, false)).collect();
        Self { state: Mutex::new(State { waiting, working: 0 }), changed: Notify::new(), workers }
    }

    /// Tells whether a worker is idle and nothing waits for it.
    pub(super) fn is_hungry(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.working < self.workers
    }

    /// Gives a part of a segment away.
    pub(super) fn push(&self, segment: Segment) {
        self.state().waiting.push_back((segment, true));
        self.changed.notify_waiters();
    }

    /// Waits for a segment; nothing when none waits and nobody works who could give one away.
    async fn next(&self) -> Option<(Segment, bool)> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(segment) = state.waiting.pop_front() {
                    state.working += 1;
                    return Some(segment);
                }
                if state.working == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    fn done(&self) {
        self.state().working -= 1;
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Walks all segments and what they are split into; steps go to `out` as they happen.
///
/// The first error ends all workers; what they had sent stays sent.
pub(super) async fn walk_all<F: Forked>(
    first: Vec<Segment>,
    pages: &F,
    limits: &Limits,
    workers: usize,
    out: mpsc::Sender<Step<<F::Source as PageSource>::Rows>>,
) -> Result<()> {
    let workers = workers.max(1);
    let queue = Queue::new(first, workers);
    let work = (0..workers).map(|_| async {
        while let Some((segment, is_promised)) = queue.next().await {
            let mut walker = Walker::new(pages.fork(segment.archive), limits, &queue, out.clone());
            walker.walk(segment, is_promised).await?;
            queue.done();
        }
        Ok(())
    });
    let walked = futures::future::try_join_all(work).await.map(|_: Vec<()>| ());
    drop(out);
    walked
}
