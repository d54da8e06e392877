//! Lines of events above a bar: each on a line of its own, and the bar drawn anew below.
//!
//! An event may happen under locks that the bar's texts need, so it only leaves its line; a thread of its own draws.

use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use indicatif::ProgressBar;

use crate::telemetry;

/// Takes the lines of events while a bar is drawn, until it is [released](Self::release) or dropped.
#[derive(Debug)]
pub(super) struct Above(Mutex<Option<JoinHandle<()>>>);

impl Above {
    /// Begins to take lines, where the bar is drawn.
    pub(super) fn start(bar: &ProgressBar) -> Self {
        if bar.is_hidden() {
            return Self(Mutex::new(None));
        }
        let (sender, lines) = mpsc::channel::<String>();
        telemetry::give_lines(Some(Box::new(move |line| drop(sender.send(line)))));
        let bar = bar.clone();
        Self(Mutex::new(Some(thread::spawn(move || lines.into_iter().for_each(|line| bar.println(line))))))
    }

    /// Lets events write for themselves again, once all lines stand there.
    pub(super) fn release(&self) {
        if let Some(drawing) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            telemetry::give_lines(None);
            drop(drawing.join());
        }
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        self.release();
    }
}
