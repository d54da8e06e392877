//! Progress of a resolve: a bar on standard error while standard output goes elsewhere.
//!
//! ```text
//! ⠙ 1,240/10,000 tickets  3,811 requests  ~51 min left
//! ```
//!
//! Standard output that is a terminal shows the tickets themselves. Into a pipe, whose reader most often shows them on the same
//! terminal, the bar ends with the first ticket; beside a file it stays to the end. The time that is left is that of the
//! price at the pace of the budget, or at the pace so far where the source is slower.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::cli::above::Above;
use crate::cli::{Context, IS_JSON, grouped};
use crate::clock::SharedClock;
use crate::extract::price::Rates;
use crate::kustomer::Client;
use crate::resolve::Price;

/// The bar; hidden where there is no place for it.
pub(super) struct Bar {
    bar: ProgressBar,
    above: Above,
}

impl Bar {
    /// Makes the bar of a run at this price.
    pub(super) fn new(context: &Context, client: &Client, price: &Price) -> Self {
        let is_shown = !context.quiet
            && !IS_JSON.load(Ordering::Relaxed)
            && io::stderr().is_terminal()
            && !io::stdout().is_terminal();
        if !is_shown {
            return Self::over(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(price.tickets);
        let costs = costs(client.clone(), SharedClock::clone(&context.clock), *price);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos}/{human_len} tickets  {costs}") {
            bar.set_style(style.with_key("costs", costs));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self::over(bar)
    }

    fn over(bar: ProgressBar) -> Self {
        Self { above: Above::start(&bar), bar }
    }

    /// Shows how many tickets were written.
    pub(super) fn set(&self, written: u64) {
        self.bar.set_position(written);
    }

    /// Takes the bar off the terminal.
    pub(super) fn clear(&self) {
        self.above.release();
        self.bar.finish_and_clear();
    }

    /// Returns a writer to `out`, whose first bytes take the bar off the terminal unless they go to a file.
    pub(super) fn ending_before<W: Write>(&self, out: W) -> Ending<'_, W> {
        let is_file = std::fs::metadata("/dev/stdout").is_ok_and(|found| found.is_file());
        Ending { bar: self, is_due: !is_file && !self.bar.is_hidden(), out }
    }
}

/// A writer before whose first bytes the bar ends.
pub(super) struct Ending<'b, W> {
    bar: &'b Bar,
    is_due: bool,
    out: W,
}

impl<W: Write> Write for Ending<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.is_due) {
            self.bar.clear();
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns what writes requests and time left, anew at each tick.
fn costs(
    client: Client,
    clock: SharedClock,
    price: Price,
) -> impl Fn(&ProgressState, &mut dyn std::fmt::Write) + Clone + Send + Sync + 'static {
    let (before, began) = (client.ledger().total(), clock.elapsed());
    move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let sent = client.ledger().total().saturating_sub(before);
        let rates = Rates::of(&client.budget_state());
        let elapsed = clock.elapsed().saturating_sub(began);
        let left = left(&rates, &price, state.pos(), sent, elapsed);
        let _ = write!(out, "{} requests  {left}", grouped(sent));
    }
}

/// Says how long the tickets that are left take.
fn left(rates: &Rates, price: &Price, written: u64, sent: u64, elapsed: Duration) -> String {
    let remaining = price.tickets.saturating_sub(written);
    let expected = if written == 0 {
        price.total().saturating_sub(sent)
    } else {
        (sent as f64 * remaining as f64 / written as f64).ceil() as u64
    };
    let (by_budget, _) = rates.duration(expected, 0);
    let by_source = match written {
        0 => Duration::ZERO,
        _ => elapsed.mul_f64(remaining as f64 / written as f64),
    };
    let seconds = by_budget.max(by_source).as_secs();
    match seconds {
        _ if remaining == 0 => String::new(),
        0..90 => format!("~{} s left", seconds.max(1)),
        90..5_400 => format!("~{} min left", seconds.div_ceil(60)),
        _ => format!("~{:.1} h left", seconds as f64 / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_that_of_the_budget_or_of_a_slower_source() {
        let rates = Rates::new(1_000, 100, 0.5);
        let price = Price { tickets: 10_000, messages: 10_000, notes: 10_000, ..Price::default() };
        // 20,000 requests at 500 a minute.
        assert_eq!(left(&rates, &price, 0, 0, Duration::ZERO), "~41 min left");
        assert_eq!(left(&rates, &price, 5_000, 10_000, Duration::from_mins(1)), "~21 min left");
        assert_eq!(left(&rates, &price, 5_000, 10_000, Duration::from_mins(40)), "~40 min left");
        assert_eq!(left(&rates, &price, 5_000, 10_000, Duration::from_hours(2)), "~2.0 h left");
        assert_eq!(left(&rates, &price, 10_000, 20_000, Duration::from_mins(1)), "");
    }
}
