//! What a resolve costs, before and after, for people and as `--report` writes it for programs.
//!
//! The report has `format` (1; a reader refuses a higher number), `command`, `began_at`, `ended_at`, `outcome` (`complete`,
//! `incomplete`, `limited`, `reader left`, `interrupted` or `failed`), `exit_code`, `parts`, `tickets` (`asked`, `written`,
//! `complete`, `in_part`, `missing`), `repeated_ids`, `attachments` (null where they were not asked for), `failures`
//! (`part`, `kind`, `tickets`), `price` (what was expected: `requests` by endpoint, `requests_total`), `requests` by endpoint
//! as they were sent, `requests_total`, `requests_per_100_tickets` (null without tickets), `requests_repeated`,
//! `requests_failed` by cause, `received_bytes`, `waited_seconds` by reason, and `replaced_service_requests`. It holds counts
//! and names of endpoints; nothing of a ticket is in it, not even its id.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::grouped;
use crate::extract::price::{Bucket, Rates};
use crate::kustomer::Ledger;
use crate::resolve::{Outcome, Part, Parts, Price};

/// Version of the report.
const FORMAT: u32 = 1;

/// Requests that a client spends on a ticket that it asks for alone, and one more for each attachment.
const ALONE_PER_TICKET: u64 = 6;

/// Returns what `--dry-run` prints.
pub(super) fn price(price: &Price, parts: Parts, rates: &Rates) -> String {
    let mut text = String::new();
    let mut line = |name: &str, figure: &str, note: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<16} {figure:>11}  {note}");
    };
    line("tickets", &grouped(price.tickets), &format!("with {parts}"));
    for (name, requests) in price.endpoints() {
        line(name, &grouped(requests), "requests");
    }
    let least = if price.least() < price.total() {
        format!("; {} where the source takes several customers at once", grouped(price.least()))
    } else {
        String::new()
    };
    line("in all", &grouped(price.total()), &format!("requests{least}"));
    line("per 100 tickets", &format!("{:.1}", price.per_100_tickets()), "requests");
    let (lasting, _) = rates.duration(price.total(), 0);
    let (allowed, limit) = (rates.allowed(Bucket::Organisation), rates.limit(Bucket::Organisation));
    line(
        "minutes",
        &format!("{:.1}", lasting.as_secs_f64() / 60.0),
        &format!("at least, at {} of {} requests a minute", grouped(allowed.into()), grouped(limit.into())),
    );
    line(
        "compare",
        &grouped(alone(price.tickets, 0)),
        &format!(
            "requests where each ticket is asked for alone: {ALONE_PER_TICKET} a ticket, and one more for each attachment"
        ),
    );
    text
}

const fn alone(tickets: u64, attachments: u64) -> u64 {
    tickets * ALONE_PER_TICKET + attachments
}

/// What a run was to cost and what it cost.
pub(super) struct Spent {
    pub(super) parts: Parts,
    pub(super) price: Price,
    pub(super) began: Timestamp,
    pub(super) repeated_ids: u64,
    pub(super) ledger: Ledger,
}

impl Spent {
    /// Says in a few lines what came and what it cost.
    pub(super) fn lines(&self, outcome: &Outcome) -> Vec<String> {
        let Outcome { tickets, written, complete, missing, .. } = *outcome;
        let counts = [
            (complete, "complete"),
            (written - complete - missing, "in part"),
            (missing, "not found"),
            (tickets - written, "not written"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{} {word}", grouped(*count)))
            .collect();
        let noun = if tickets == 1 { "ticket" } else { "tickets" };
        let mut lines = vec![format!("{} {noun}: {}", grouped(tickets), counts.join(", "))];
        if !outcome.failures.is_empty() {
            let failures = outcome.failures.iter();
            let failures: Vec<String> =
                failures.map(|((part, kind), count)| format!("{part} {kind} {}", grouped(*count))).collect();
            lines.push(format!("missing: {}", failures.join(", ")));
        }
        let total = self.ledger.total();
        let waits: Vec<String> =
            self.ledger.waited.iter().map(|(reason, wait)| format!("{reason} {:.1} s", wait.as_secs_f64())).collect();
        let waits = if waits.is_empty() { String::new() } else { format!("; waited: {}", waits.join(", ")) };
        let rate = self.per_100(outcome).map_or_else(String::new, |rate| format!(", {rate:.1} per 100 tickets"));
        lines.push(format!(
            "{} requests{rate}; expected {}, each ticket alone {}{}{waits}",
            grouped(total),
            grouped(self.price.total()),
            if self.parts.contains(Part::Attachments) { "" } else { "at least " },
            grouped(alone(tickets, outcome.attachments)),
        ));
        lines
    }

    fn per_100(&self, outcome: &Outcome) -> Option<f64> {
        (outcome.written > 0).then(|| self.ledger.total() as f64 * 100.0 / outcome.written as f64)
    }

    /// Returns the report.
    pub(super) fn report(&self, outcome: &Outcome, exit_code: u8, ended: Timestamp) -> Value {
        let failures: Vec<Value> = outcome
            .failures
            .iter()
            .map(|((part, kind), tickets)| json!({ "part": part.name(), "kind": kind, "tickets": tickets }))
            .collect();
        let waits: BTreeMap<_, _> = self.ledger.waited.iter().map(|(name, wait)| (name, wait.as_secs_f64())).collect();
        let name = if outcome.interrupted {
            "interrupted"
        } else if outcome.limited {
            "limited"
        } else if outcome.reader_left {
            "reader left"
        } else if outcome.is_complete() {
            "complete"
        } else if outcome.written == outcome.tickets {
            "incomplete"
        } else {
            "failed"
        };
        json!({
            "format": FORMAT,
            "command": "resolve",
            "began_at": format!("{:.3}", self.began),
            "ended_at": format!("{ended:.3}"),
            "outcome": name,
            "exit_code": exit_code,
            "parts": self.parts.iter().map(Part::name).collect::<Vec<_>>(),
            "tickets": {
                "asked": outcome.tickets,
                "written": outcome.written,
                "complete": outcome.complete,
                "in_part": outcome.written - outcome.complete - outcome.missing,
                "missing": outcome.missing,
            },
            "repeated_ids": self.repeated_ids,
            "attachments": self.parts.contains(Part::Attachments).then_some(outcome.attachments),
            "failures": failures,
            "price": {
                "requests": self.price.endpoints().collect::<BTreeMap<_, _>>(),
                "requests_total": self.price.total(),
            },
            "requests": self.ledger.requests,
            "requests_total": self.ledger.total(),
            "requests_per_100_tickets": self.per_100(outcome),
            "requests_repeated": self.ledger.repeated.values().sum::<u64>(),
            "requests_failed": self.ledger.failed_by_cause(),
            "received_bytes": self.ledger.total_received_bytes(),
            "waited_seconds": waits,
            "replaced_service_requests": alone(outcome.tickets, outcome.attachments),
        })
    }
}
