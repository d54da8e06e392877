//! Ticket ids become live details: one line of JSON per ticket, in the order asked, stored nowhere.
//!
//! ```text
//! ids ─▶ fetch (batches, window of tickets side by side) ─▶ detail (one line) ─▶ standard output
//! ```
//!
//! Nothing of a detail is kept: there is no cache, no temporary file and no access to the lake's writer, at most one batch of
//! tickets is in memory, and what is logged or said in an error is ids and counts. Bodies, resources and lines are cleared
//! when they are dropped; what the HTTP client, TLS and the JSON reader hold for a moment in buffers of their own is not.
//!
//! # The line, version 1
//!
//! ```json
//! {"version":1,"ticket_id":"58228e05d4e96711004eccb7","resolved_at":"2026-11-22T10:00:00.000Z",
//!  "conversation":{},"customer":{},"messages":[{}],"notes":[{}],
//!  "attachments":[{"id":"…","message_id":"…","name":"a.jpg","content_type":"image/jpeg","content_length":98153,"redacted":false}],
//!  "tags":[{"id":"…","name":"vip"}],
//!  "attributes":{"tierStr":{"type":"string","displayName":"Tier"}},
//!  "errors":[{"part":"notes","kind":"forbidden","message":"the credential may not read it"}]}
//! ```
//!
//! * `conversation`, `customer`, `messages` and `notes` are the source's resource objects, unchanged.
//! * `attachments` are named and measured, without the signed link: it expires, and it opens the file to anyone who has it.
//! * `tags` has the names of the conversation's tag ids, null where the list of tags has none; `attributes` the
//!   definitions of the custom attributes that the conversation has, as far as they are defined.
//! * `errors` names each part that is missing, wholly (the part is null) or from some page on (it has what came before).
//!   `kind` is `gone`, `forbidden`, `time-out`, `unavailable`, `refused` or `unreadable`. A ticket that does not exist has one error, of the
//!   part `conversation`, and nulls.
//! * With redaction the key `"redacted":true` follows `resolved_at`: conversation and customer have what the policy declares,
//!   texts of messages and notes are scrubbed and addresses masked, and what no rule lets through is absent
//!   ([`policy::Redaction`](Redaction)). A record of which nothing can be shown is left out, with an error of kind `unreadable`.
//! * A part that was not asked for has no key. Later versions may add keys; a key that changes its meaning raises `version`.
//!
//! A part that fails does not hide the others, so one role that is missing does not make tickets unreadable; a
//! credential that may not read conversations at all, or a source that never answers, ends the run before its first line.

mod attachment;
mod detail;
mod fetch;
mod ids;
mod page;
mod parts;
mod price;
mod redact;
mod source;
mod thread;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use futures::future::{BoxFuture, join, pending, ready};
use futures::{FutureExt, StreamExt, stream};
use zeroize::Zeroizing;

pub use self::attachment::{AttachmentRequest, Delivered, stream_attachment};
pub use self::detail::{Detail, Failure, PartError, Tag, VERSION};
use self::fetch::{End, Session};
pub use self::ids::Ids;
pub use self::page::{Attachment, Page, References, Resource};
pub use self::parts::{Part, Parts};
pub use self::price::{Price, estimate};
pub use self::source::Source;
pub use self::thread::Style;
use crate::clock::SharedClock;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ObjectId;
use crate::policy::Redaction;

/// What to ask for, and how much at a time.
#[derive(Debug, Clone)]
pub struct ResolveSettings {
    /// The parts; all but the events by default.
    pub parts: Parts,
    /// Tickets under way at once, 16 by default: more hides more latency and holds more tickets in memory.
    pub concurrency: usize,
    /// Requests after which the run stops; none by default. A request that the client repeats counts each time, but a
    /// repetition that is already under way when the number is reached is not called back.
    pub max_requests: Option<u64>,
    /// What is written of each ticket.
    pub format: Format,
    /// The policy on the way out; without it details are written as they come.
    pub redaction: Option<Arc<Redaction>>,
}

impl Default for ResolveSettings {
    fn default() -> Self {
        Self { parts: Parts::USUAL, concurrency: 16, max_requests: None, format: Format::Lines, redaction: None }
    }
}

/// What is written of each ticket.
#[derive(Debug, Clone)]
pub enum Format {
    /// A line of JSON, for programs.
    Lines,
    /// A thread to read, for a person at a terminal.
    Thread(Style),
}

/// What others contribute to a run.
pub struct Hooks<'h> {
    /// What is known of the first tickets without asking the source.
    pub known: BoxFuture<'h, Known>,
    /// Ends well before the first line is written, or the run ends with its error and without a line.
    pub permit: BoxFuture<'h, Result<()>>,
    /// Ends when the run is to end, with the lines that are written by then.
    pub stop: BoxFuture<'h, ()>,
    /// Is shown each ticket before anything of it is written.
    pub writing: Box<dyn FnMut(&Detail) + Send + 'h>,
    /// Is shown what was delivered so far, after each ticket.
    pub delivered: Box<dyn FnMut(&Outcome) + Send + 'h>,
}

/// What is known before anything was asked. It saves time and is never believed: what is wrong or missing costs a request.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Customers of tickets.
    pub owners: HashMap<ObjectId, ObjectId>,
    /// Whether the source took several customers in one request, when that was last tried.
    pub several_customers: Option<bool>,
}

impl Default for Hooks<'_> {
    /// Knows nothing, permits at once, never stops and shows nothing.
    fn default() -> Self {
        Self {
            known: ready(Known::default()).boxed(),
            permit: ready(Ok(())).boxed(),
            stop: pending().boxed(),
            writing: Box::new(|_| {}),
            delivered: Box::new(|_| {}),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Tickets that were asked for.
    pub tickets: u64,
    /// Lines that were written.
    pub written: u64,
    /// Tickets whose parts were all received.
    pub complete: u64,
    /// Tickets that do not exist.
    pub missing: u64,
    /// The first ticket that does not exist.
    pub first_missing: Option<ObjectId>,
    /// The first ticket of which a part is missing.
    pub first_incomplete: Option<ObjectId>,
    /// Requests sent, repeated ones included.
    pub requests: u64,
    /// Failed parts by part and kind.
    pub failures: BTreeMap<(Part, &'static str), u64>,
    /// Tickets that were not asked for messages or notes because they said that they had none, where others said so and had some.
    pub miscounted: u64,
    /// Whether the source takes several customers in one request, where that was found out; worth to be known next time.
    pub several_customers: Option<bool>,
    /// Attachments of the tickets that were written, where they were asked for.
    pub attachments: u64,
    /// Whether `max_requests` ended the run.
    pub limited: bool,
    /// Whether the run was told to stop before its last line.
    pub interrupted: bool,
    /// Whether the reader of the lines left before the last one; that is its right and no error.
    pub reader_left: bool,
}

impl Outcome {
    /// Tells whether every ticket was delivered whole, as far as the reader wanted them.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.miscounted == 0 && self.complete == self.written && (self.written == self.tickets || self.reader_left)
    }

    /// Returns the one error that says what is missing, or `None` when nothing is.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        if self.is_complete() {
            return None;
        }
        let incomplete = |message: &str| Error::new(ErrorKind::Incomplete, message);
        if self.limited {
            return Some(
                incomplete("permitted number of requests is used up")
                    .with_context("requests", self.requests)
                    .with_context("tickets resolved", self.written)
                    .with_context("tickets left", self.tickets - self.written)
                    .with_hint("raise --max-requests, or resolve the tickets that are left on their own"),
            );
        }
        if let Some(first) = self.first_missing {
            return Some(
                incomplete("some tickets do not exist at the source")
                    .with_context("missing", self.missing)
                    .with_context("of", self.tickets)
                    .with_context("first", first)
                    .with_hint(
                        "their lines have an error of kind `gone`; the ids may be of another organisation, or deleted",
                    ),
            );
        }
        if self.miscounted > 0 && self.failures.is_empty() {
            return Some(
                incomplete("source counts no messages or notes where there are some")
                    .with_context("tickets not asked", self.miscounted)
                    .with_hint("resolve with `--only messages,attachments,notes`: then every ticket is asked, whatever it counts"),
            );
        }
        let mut error = incomplete("some parts of tickets could not be read")
            .with_context("tickets", self.written - self.complete)
            .with_context("of", self.tickets);
        if let Some(first) = self.first_incomplete {
            error = error.with_context("first", first);
        }
        for ((part, kind), count) in &self.failures {
            error = error.with_context(part.name(), format_args!("{count} {kind}"));
        }
        Some(error.with_hint("each line's `errors` says which; `--only` leaves parts out"))
    }

    fn add(&mut self, detail: &Detail, parts: Parts) {
        self.written += 1;
        self.attachments += detail.attachments.as_ref().map_or(0, Vec::len) as u64;
        if detail.errors.is_empty() {
            self.complete += 1;
            return;
        }
        self.first_incomplete.get_or_insert(detail.ticket_id);
        if detail.is_missing(parts) {
            self.missing += 1;
            self.first_missing.get_or_insert(detail.ticket_id);
        }
        for error in &detail.errors {
            *self.failures.entry((error.part, error.failure.kind())).or_default() += 1;
        }
    }
}

/// Resolves tickets and writes a line for each, in the order of `ids`, as soon as it and all before it are received.
///
/// Every line is written whole and flushed, the first one not before `hooks.permit` has ended well. A reader that closes the
/// pipe ends the run without an error, and so does `hooks.stop`.
///
/// # Errors
///
/// That of `hooks.permit`. The source's own error when the credential is refused ([`Denied`](ErrorKind::Denied)) or the source cannot be reached
/// ([`Unavailable`](ErrorKind::Unavailable)) for everything; [`Unavailable`](ErrorKind::Unavailable) when a line cannot be written.
/// What is missing of single tickets is no error here: see [`Outcome::error`].
pub async fn run(
    source: &impl Source,
    ids: &[ObjectId],
    settings: &ResolveSettings,
    hooks: Hooks<'_>,
    clock: &SharedClock,
    out: &mut (impl io::Write + Send),
) -> Result<Outcome> {
    let session = Session::new(source, settings.parts, settings.max_requests);
    let mut outcome = Outcome { tickets: ids.len() as u64, ..Outcome::default() };
    let Hooks { known, permit, stop, mut writing, mut delivered } = hooks;
    let mut known = Some(known);
    let mut batch = Arc::new(session.batch(&[], None));
    let mut batch_end = 0;
    let tickets = (0..ids.len()).map(|position| {
        if position == batch_end {
            batch_end = ids.len().min(position + session.batch_size());
            batch = Arc::new(session.batch(&ids[position..batch_end], known.take()));
        }
        session.ticket(ids[position], Arc::clone(&batch), position == 0)
    });
    let mut details = stream::iter(tickets).buffered(side_by_side(settings));
    let mut line = Zeroizing::new(String::new());
    let mut stop = stop.fuse();
    let begun = async { join(details.next(), permit).await };
    let mut next = tokio::select! {
        biased;
        () = &mut stop => {
            outcome.interrupted = true;
            None
        }
        (next, permit) = begun => {
            permit?;
            next
        }
    };
    while let Some(mut detail) = next {
        match session.take_end(&detail) {
            Some(End::Failed(error)) => return Err(error),
            Some(End::MaxRequests) => {
                outcome.limited = true;
                break;
            }
            None => {}
        }
        if let Some(redaction) = &settings.redaction {
            detail.redact(redaction);
        }
        for error in &detail.errors {
            tracing::debug!(ticket = %detail.ticket_id, part = %error.part, kind = error.failure.kind(), "part is missing");
        }
        line.clear();
        // A text that grows would leave what it held so far where it stood.
        if line.capacity() < detail.line_bytes() {
            line = Zeroizing::new(String::with_capacity(2 * detail.line_bytes()));
        }
        match &settings.format {
            Format::Lines => detail.write_line(settings.parts, clock.now(), &mut line),
            Format::Thread(style) => thread::write(&detail, settings.parts, clock.now(), style, &mut line),
        }
        writing(&detail);
        match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {
                outcome.add(&detail, settings.parts);
                delivered(&outcome);
            }
            Err(source) if source.kind() == io::ErrorKind::BrokenPipe => {
                outcome.reader_left = true;
                break;
            }
            Err(source) => {
                return Err(Error::unavailable("failed to write a ticket's line")
                    .with_context("ticket", detail.ticket_id)
                    .with_source(source));
            }
        }
        next = tokio::select! {
            biased;
            () = &mut stop => {
                outcome.interrupted = outcome.written < outcome.tickets;
                None
            }
            next = details.next() => next,
        };
    }
    drop(details);
    outcome.requests = session.requests();
    outcome.miscounted = session.miscounted();
    outcome.several_customers = session.several_customers();
    tracing::debug!(
        tickets = outcome.tickets,
        written = outcome.written,
        complete = outcome.complete,
        requests = outcome.requests,
        "resolved"
    );
    Ok(outcome)
}

/// Returns how many tickets are under way at once: few requests are not begun on more tickets than they can complete.
fn side_by_side(settings: &ResolveSettings) -> usize {
    const REQUESTS_A_TICKET: u64 = 16;
    let most = settings.max_requests.map_or(u64::MAX, |most| most / REQUESTS_A_TICKET);
    settings.concurrency.min(usize::try_from(most).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests;
