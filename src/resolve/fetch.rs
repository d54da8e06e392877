//! The requests of one run: conversations by the batch, everything else by the ticket, side by side.
//!
//! ```text
//! ids ─▶ batches of up to 100 ─▶ conversations ─┬▶ customers (together, or each once a batch)
//!                                               ├▶ tags, definitions (once a run)
//!                                               ├▶ messages, page by page       } not asked of a ticket that is not
//!                                               └▶ notes and events likewise    } there, or that is known to have none
//! ```
//!
//! * The first ticket's messages and notes are asked for together with its conversation, so that a person who looks at one
//!   ticket waits for two round trips; later tickets wait for their batch, so that ids that are gone cost nothing more.
//! * A conversation counts its messages and notes, and most tickets have no notes. Whether a count of zero can be relied on is
//!   not documented: the first [`ENOUGH_EMPTY`] such tickets are asked all the same, and later one of [`CHECKED_ONE_OF`].
//!   The first count that is wrong means that all are asked from there on, and that the run cannot say that it is complete.
//! * A run ends with the source's own error when the first request for conversations is denied or unanswered, when
//!   nothing at all was answered by the time the first ticket is through, and when many requests fail in a row.

mod batch;
mod conversations;
mod customers;
pub(super) mod listing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::join;
use tokio::sync::OnceCell;

pub(super) use self::batch::Batch;
use self::batch::Count;
pub(super) use self::conversations::CONVERSATIONS_PER_REQUEST;
use self::conversations::SMALLEST_CAP;
use self::customers::Several;
pub(super) use self::customers::WORTH_FINDING_OUT;
use self::listing::Listing;
use super::detail::{Detail, Failure, Tag};
use super::page::{Page, Resource};
use super::parts::{Part, Parts};
use super::source::Source;
use crate::error::Error;
use crate::kustomer::Endpoint;
use crate::model::ObjectId;

/// Requests denied or unanswered in a row, each after its own retries, before the run ends: above what one window of tickets has
/// under way, so that one short outage does not end it.
const MOST_FAILURES_IN_A_ROW: u32 = 64;

/// Tickets without notes (or messages) that are asked for them all the same, to see that the source counts right.
const ENOUGH_EMPTY: u32 = 8;

/// Of the tickets after those, one of so many is asked.
const CHECKED_ONE_OF: u32 = 16;

/// One run's view of the source.
pub(super) struct Session<'a, S> {
    source: &'a S,
    parts: Parts,
    max_requests: Option<u64>,
    sent_before: u64,
    batch_size: AtomicUsize,
    most_received: AtomicUsize,
    several: Several,
    message_counts: Counts,
    note_counts: Counts,
    state: Mutex<State>,
    tags: OnceCell<Result<HashMap<String, Option<String>>, Failure>>,
    definitions: OnceCell<Result<HashMap<String, Arc<str>>, Failure>>,
}

#[derive(Default)]
struct State {
    asked: u64,
    answered: bool,
    conversations_answered: bool,
    failed_in_a_row: u32,
    first_failure: Option<Error>,
    end: Option<End>,
}

/// Why a run asks no more.
pub(super) enum End {
    /// The source refuses or does not answer.
    Failed(Error),
    /// The permitted number of requests was made.
    MaxRequests,
}

/// Why a request gave nothing.
enum Unanswered {
    Ended,
    Failed(Error),
}

/// Whether a conversation's count of zero can be relied on.
#[derive(Debug, Default)]
struct Counts {
    /// Tickets that said so and were asked: they had none.
    right: AtomicU32,
    /// Tickets that came after those and said so.
    told_empty: AtomicU32,
    /// Those of them that were not asked.
    skipped: AtomicU32,
    is_wrong: AtomicBool,
}

impl Counts {
    /// Tells whether a ticket with this count needs not be asked.
    fn is_enough(&self, told: Option<i64>) -> bool {
        if told != Some(0) || self.right.load(Ordering::Relaxed) < ENOUGH_EMPTY || self.is_wrong.load(Ordering::Relaxed)
        {
            return false;
        }
        let is_checked = self.told_empty.fetch_add(1, Ordering::Relaxed) % CHECKED_ONE_OF == CHECKED_ONE_OF - 1;
        if !is_checked {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
        !is_checked
    }

    fn learn(&self, told: Option<i64>, listing: &Listing) {
        if told != Some(0) {
            return;
        }
        if listing.is_known_empty() {
            self.right.fetch_add(1, Ordering::Relaxed);
        } else if !listing.resources.is_empty() && !self.is_wrong.swap(true, Ordering::Relaxed) {
            tracing::warn!("source counts none where there are some; every ticket is asked from here on");
        }
    }

    /// Returns how many tickets were not asked, when that was wrong.
    fn missed(&self) -> u64 {
        if self.is_wrong.load(Ordering::Relaxed) { u64::from(self.skipped.load(Ordering::Relaxed)) } else { 0 }
    }
}

/// Names of custom attributes and their definitions, as JSON.
type Definitions = Vec<(String, Arc<str>)>;

/// What hangs on the conversation.
struct Account {
    conversation: Arc<Resource>,
    customer: Option<Result<Arc<Resource>, Failure>>,
    tags: Option<(Vec<Tag>, Option<Failure>)>,
    attributes: Option<Result<Definitions, Failure>>,
}

impl<'a, S: Source> Session<'a, S> {
    pub(super) fn new(source: &'a S, parts: Parts, max_requests: Option<u64>) -> Self {
        Self {
            source,
            parts,
            max_requests,
            sent_before: source.sent(),
            batch_size: AtomicUsize::new(CONVERSATIONS_PER_REQUEST),
            most_received: AtomicUsize::new(SMALLEST_CAP),
            several: Several::unknown(),
            message_counts: Counts::default(),
            note_counts: Counts::default(),
            state: Mutex::default(),
            tags: OnceCell::new(),
            definitions: OnceCell::new(),
        }
    }

    /// Returns the requests of this run so far, those under way included.
    pub(super) fn requests(&self) -> u64 {
        let asked = self.state().asked;
        asked.max(self.source.sent().saturating_sub(self.sent_before))
    }

    /// Returns how many ids the next batch should have.
    pub(super) fn batch_size(&self) -> usize {
        self.batch_size.load(Ordering::Relaxed).max(1)
    }

    /// Takes the reason why the run cannot go on, when there is one that concerns the ticket that is through now.
    pub(super) fn take_end(&self, detail: &Detail) -> Option<End> {
        let mut state = self.state();
        if detail.is_stopped() {
            return state.end.take();
        }
        if state.answered { None } else { state.first_failure.take().map(End::Failed) }
    }

    /// Returns how many tickets were taken to have no messages, or no notes, by counts that turned out to be wrong.
    pub(super) fn miscounted(&self) -> u64 {
        self.message_counts.missed() + self.note_counts.missed()
    }

    /// Returns whether the source takes several customers in one request, as far as that was found out.
    pub(super) fn several_customers(&self) -> Option<bool> {
        self.several.known()
    }

    /// Collects one ticket's details. `eager` asks for messages and notes before it is known that the ticket exists.
    pub(super) async fn ticket<'s>(&'s self, id: ObjectId, batch: Arc<Batch<'s>>, eager: bool) -> Detail {
        let parts = self.parts;
        // Without a request for the conversation nobody says whether a ticket is there.
        let known = async |part| {
            let is_asked = eager || !parts.need_conversation();
            if is_asked { Count::Told(None) } else { batch.count(id, part).await }
        };
        let messages = async {
            let include = if parts.contains(Part::Attachments) { "include=attachments&" } else { "" };
            let path = format!("/v1/conversations/{id}/messages?{include}page=1&pageSize=100");
            self.list(Endpoint::Messages, path, known(Part::Messages).await, Some(&self.message_counts)).await
        };
        let notes = async {
            let path = format!("/v1/conversations/{id}/notes?page=1&pageSize=100");
            self.list(Endpoint::Notes, path, known(Part::Notes).await, Some(&self.note_counts)).await
        };
        let events = async {
            let path = format!("/v1/conversations/{id}/events?page=1&pageSize=100");
            self.list(Endpoint::Events, path, known(Part::Events).await, None).await
        };
        let messages = async { if parts.need_messages() { messages.await } else { None } };
        let notes = async { if parts.contains(Part::Notes) { notes.await } else { None } };
        let events = async { if parts.contains(Part::Events) { events.await } else { None } };
        // What is known of the customer is tried while the conversation is on its way.
        let ahead = async {
            if eager && parts.contains(Part::Customer) {
                batch.ahead().await;
            }
        };
        let account = async { if parts.need_conversation() { Some(self.account(id, &batch).await) } else { None } };
        let (account, messages, notes, events, ()) = join!(account, messages, notes, events, ahead);

        let mut detail = Detail::new(id);
        match account {
            Some(Err(Failure::Gone)) => {
                detail.fail(Part::Conversation, Failure::Gone);
                return detail;
            }
            Some(Err(failure)) => {
                let hanging = [Part::Conversation, Part::Customer, Part::Tags, Part::Metadata];
                for part in hanging.into_iter().filter(|part| parts.contains(*part)) {
                    detail.fail(part, failure);
                }
            }
            Some(Ok(account)) => account.put_into(&mut detail),
            None => {}
        }
        if let Some(listing) = messages {
            let failure = listing.failure;
            let received = listing.is_received();
            for part in [Part::Messages, Part::Attachments].into_iter().filter(|part| parts.contains(*part)) {
                if let Some(failure) = failure {
                    detail.fail(part, failure);
                }
            }
            if received {
                detail.messages = Some(listing.resources);
                detail.attachments = Some(listing.attachments);
            }
        }
        if let Some(listing) = notes {
            if let Some(failure) = listing.failure {
                detail.fail(Part::Notes, failure);
            }
            if listing.is_received() {
                detail.notes = Some(listing.resources);
            }
        }
        if let Some(listing) = events {
            if let Some(failure) = listing.failure {
                detail.fail(Part::Events, failure);
            }
            if listing.is_received() {
                detail.events = Some(listing.resources);
            }
        }
        detail.errors.sort_by_key(|error| error.part);
        detail
    }

    async fn list(&self, endpoint: Endpoint, path: String, count: Count, counts: Option<&Counts>) -> Option<Listing> {
        let Count::Told(told) = count else { return None };
        if counts.is_some_and(|counts| counts.is_enough(told)) {
            return Some(Listing::empty());
        }
        let listing = self.pages(endpoint, path).await;
        if let Some(counts) = counts {
            counts.learn(told, &listing);
        }
        Some(listing)
    }

    async fn account<'s>(&'s self, id: ObjectId, batch: &Batch<'s>) -> Result<Account, Failure> {
        let conversation = batch.conversation(id).await?;
        let references = &conversation.references;
        let customer = async {
            if !self.parts.contains(Part::Customer) {
                return None;
            }
            let id = references.customer_id.as_deref()?;
            Some(match ObjectId::from_hex(id.as_bytes()) {
                Some(id) => batch.customer(self, id).await,
                None => Err(Failure::Unreadable),
            })
        };
        let tags =
            async { if self.parts.contains(Part::Tags) { Some(self.tags(&references.tag_ids).await) } else { None } };
        let attributes = async {
            if self.parts.contains(Part::Metadata) { Some(self.definitions(&references.custom).await) } else { None }
        };
        let (customer, tags, attributes) = join!(customer, tags, attributes);
        Ok(Account { conversation: Arc::clone(&conversation.resource), customer, tags, attributes })
    }

    async fn tags(&self, ids: &[String]) -> (Vec<Tag>, Option<Failure>) {
        if ids.is_empty() {
            return (Vec::new(), None);
        }
        let load = || async {
            let listing = self.pages(Endpoint::Tags, "/v1/tags?page=1&pageSize=100".to_owned()).await;
            match listing.failure {
                Some(failure) => Err(failure),
                None => {
                    Ok(listing.resources.into_iter().filter_map(|tag| Some((tag.id.clone()?, tag.name()))).collect())
                }
            }
        };
        let names = self.tags.get_or_init(load).await;
        let name = |id: &String| names.as_ref().ok().and_then(|names| names.get(id).cloned().flatten());
        (ids.iter().map(|id| Tag { name: name(id), id: id.clone() }).collect(), names.as_ref().err().copied())
    }

    async fn definitions(&self, names: &[String]) -> Result<Definitions, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let load = || async {
            let body = self.ask(Endpoint::Metadata, "/v1/metadata/conversation").await?.ok_or(Failure::Gone)?;
            let page = Page::decode(&body).map_err(|_| Failure::Unreadable)?;
            let definitions = page.resources.first().map(Resource::definitions).unwrap_or_default();
            Ok(definitions.into_iter().map(|(name, json)| (name, Arc::from(json))).collect())
        };
        let known = self.definitions.get_or_init(load).await.as_ref().map_err(|failure| *failure)?;
        Ok(names.iter().filter_map(|name| Some((name.clone(), Arc::clone(known.get(name)?)))).collect())
    }

    async fn ask(&self, endpoint: Endpoint, path: &str) -> Result<Option<Bytes>, Failure> {
        self.request(endpoint, path).await.map_err(|unanswered| match unanswered {
            Unanswered::Ended => Failure::Stopped,
            Unanswered::Failed(error) => {
                let failure = Failure::of(&error);
                let mut state = self.state();
                if !state.answered {
                    state.first_failure.get_or_insert(error);
                }
                failure
            }
        })
    }

    async fn request(&self, endpoint: Endpoint, path: &str) -> Result<Option<Bytes>, Unanswered> {
        let sent = self.source.sent().saturating_sub(self.sent_before);
        {
            let mut state = self.state();
            if self.max_requests.is_some_and(|most| state.asked.max(sent) >= most) {
                state.end.get_or_insert(End::MaxRequests);
            }
            if state.end.is_some() {
                return Err(Unanswered::Ended);
            }
            state.asked += 1;
        }
        let answer = self.source.fetch(endpoint, path).await;
        let mut state = self.state();
        match answer {
            Ok(answer) => {
                state.answered = true;
                state.failed_in_a_row = 0;
                state.first_failure = None;
                Ok(answer)
            }
            Err(error) => {
                if Failure::of(&error).is_total() {
                    state.failed_in_a_row += 1;
                }
                if state.failed_in_a_row >= MOST_FAILURES_IN_A_ROW {
                    state.end.get_or_insert(End::Failed(error));
                    return Err(Unanswered::Ended);
                }
                Err(Unanswered::Failed(error))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn put_into(self, detail: &mut Detail) {
        detail.conversation = Some(self.conversation);
        match self.customer {
            Some(Ok(customer)) => detail.customer = Some(customer),
            Some(Err(failure)) => detail.fail(Part::Customer, failure),
            None => {}
        }
        if let Some((tags, failure)) = self.tags {
            detail.tags = Some(tags);
            if let Some(failure) = failure {
                detail.fail(Part::Tags, failure);
            }
        }
        match self.attributes {
            Some(Ok(attributes)) => detail.attributes = Some(attributes),
            Some(Err(failure)) => detail.fail(Part::Metadata, failure),
            None => {}
        }
    }
}
