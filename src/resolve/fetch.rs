//! The requests of one run: conversations by the batch, everything else by the ticket, side by side.
//!
//! ```text
//! ids ─▶ batches of up to 50 ─▶ conversations ─┬▶ customer (once per batch), tags, definitions (once per run)
//!                                              ├▶ messages, page by page        } not asked of a ticket
//!                                              └▶ notes, page by page           } that is not there
//! ```
//!
//! * How many ids one request may name is not documented: a batch that is refused is halved, and once both halves are
//!   answered their size is kept. A silent cap would look like ids that are gone, so an id counts as gone only when it is
//!   absent from the answer to no more ids than an answer has brought before; otherwise it is asked for again.
//! * The first ticket's messages and notes are asked for together with its conversation, so that a person who looks at one
//!   ticket waits for two round trips; later tickets wait for their batch, so that ids that are gone cost nothing more.
//! * A link to the next page is followed only within the list that it came from: never to another host or endpoint.
//! * A run ends with the source's own error when the first request for conversations is denied or unanswered, when
//!   nothing at all was answered by the time the first ticket is through, and when many requests fail in a row.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join};
use tokio::join;
use tokio::sync::OnceCell;

use super::detail::{Detail, Failure, Tag};
use super::page::{Attachment, Page, Resource};
use super::parts::{Part, Parts};
use super::source::Source;
use crate::error::Error;
use crate::kustomer::Endpoint;
use crate::model::ObjectId;

/// Ids in the first request for conversations: 1,250 bytes of path, which every server takes.
pub(super) const CONVERSATIONS_PER_REQUEST: usize = 50;

/// Ids that any server is taken to answer in one request, if it answers several at all.
const SMALLEST_CAP: usize = 10;

/// Pages of one list that are followed: 10,000 messages.
const MOST_PAGES: usize = 100;

/// Requests denied or unanswered in a row, each after its own retries, before the run ends: above what one window of tickets has
/// under way, so that one short outage does not end it.
const MOST_FAILURES_IN_A_ROW: u32 = 64;

type Found = HashMap<ObjectId, Result<Arc<Resource>, Failure>>;
type SharedCustomer<'s> = Shared<BoxFuture<'s, Result<Arc<Resource>, Failure>>>;

/// One run's view of the source.
pub(super) struct Session<'a, S> {
    source: &'a S,
    parts: Parts,
    max_requests: Option<u64>,
    sent_before: u64,
    batch_size: AtomicUsize,
    most_received: AtomicUsize,
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

/// Tickets whose conversations are asked for together.
pub(super) struct Batch<'s> {
    conversations: Shared<BoxFuture<'s, Arc<Found>>>,
    customers: Mutex<HashMap<ObjectId, SharedCustomer<'s>>>,
}

/// The pages of one list, as far as they were received.
#[derive(Default)]
struct Listing {
    pages: usize,
    resources: Vec<Resource>,
    attachments: Vec<Attachment>,
    failure: Option<Failure>,
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

    /// Prepares a batch; nothing is asked before its first ticket needs it.
    pub(super) fn batch<'s>(&'s self, ids: &[ObjectId]) -> Batch<'s> {
        let ids = ids.to_vec();
        let conversations = async move { Arc::new(self.conversations(ids, false).await) }.boxed().shared();
        Batch { conversations, customers: Mutex::default() }
    }

    /// Collects one ticket's details. `eager` asks for messages and notes before it is known that the ticket exists.
    pub(super) async fn ticket<'s>(&'s self, id: ObjectId, batch: Arc<Batch<'s>>, eager: bool) -> Detail {
        let parts = self.parts;
        let wanted = async || eager || !parts.need_conversation() || batch.has(id).await;
        let messages = async {
            if parts.need_messages() && wanted().await {
                let include = if parts.contains(Part::Attachments) { "include=attachments&" } else { "" };
                let path = format!("/v1/conversations/{id}/messages?{include}page=1&pageSize=100");
                return Some(self.pages(Endpoint::Messages, path).await);
            }
            None
        };
        let notes = async {
            if parts.contains(Part::Notes) && wanted().await {
                let path = format!("/v1/conversations/{id}/notes?page=1&pageSize=100");
                return Some(self.pages(Endpoint::Notes, path).await);
            }
            None
        };
        let events = async {
            if parts.contains(Part::Events) && wanted().await {
                return Some(
                    self.pages(Endpoint::Events, format!("/v1/conversations/{id}/events?page=1&pageSize=100")).await,
                );
            }
            None
        };
        let account = async { if parts.need_conversation() { Some(self.account(id, &batch).await) } else { None } };
        let (account, messages, notes, events) = join!(account, messages, notes, events);

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
            let received = failure.is_none() || listing.pages > 0;
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
            if listing.failure.is_none() || listing.pages > 0 {
                detail.notes = Some(listing.resources);
            }
        }
        if let Some(listing) = events {
            if let Some(failure) = listing.failure {
                detail.fail(Part::Events, failure);
            }
            if listing.failure.is_none() || listing.pages > 0 {
                detail.events = Some(listing.resources);
            }
        }
        detail.errors.sort_by_key(|error| error.part);
        detail
    }

    async fn account<'s>(&'s self, id: ObjectId, batch: &Batch<'s>) -> Result<Account, Failure> {
        let conversation = batch.conversation(id).await?;
        let references = conversation.references();
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
        Ok(Account { conversation, customer, tags, attributes })
    }

    /// Looks conversations up. With `again` they were absent from an answer that brought others.
    fn conversations(&self, ids: Vec<ObjectId>, again: bool) -> BoxFuture<'_, Found> {
        async move {
            let mut path = String::from("/v1/conversations/");
            for (position, id) in ids.iter().enumerate() {
                path.push_str(if position == 0 { "" } else { "," });
                path.push_str(&id.to_string());
            }
            let all = |failure: Failure| ids.iter().map(|id| (*id, Err(failure))).collect::<Found>();
            match self.request(Endpoint::Conversations, &path).await {
                Err(Unanswered::Ended) => all(Failure::Stopped),
                Err(Unanswered::Failed(error)) => {
                    let failure = Failure::from(error.kind());
                    let total = matches!(failure, Failure::Forbidden | Failure::Unavailable);
                    if !self.state().conversations_answered && (total || ids.len() == 1) {
                        self.state().end.get_or_insert(End::Failed(error));
                        all(Failure::Stopped)
                    } else if ids.len() > 1 && failure != Failure::Unavailable {
                        self.halves(&ids, true).await
                    } else {
                        all(failure)
                    }
                }
                Ok(None) => {
                    self.state().conversations_answered = true;
                    let gone = ids.len() == 1 || (again && self.is_within_cap(&ids));
                    if gone { all(Failure::Gone) } else { self.halves(&ids, false).await }
                }
                Ok(Some(body)) => {
                    self.state().conversations_answered = true;
                    let Ok(page) = Page::decode(&body) else { return all(Failure::Unreadable) };
                    let mut received: HashMap<ObjectId, Resource> = page
                        .resources
                        .into_iter()
                        .filter_map(|resource| {
                            Some((ObjectId::from_hex(resource.id.as_deref()?.as_bytes())?, resource))
                        })
                        .collect();
                    let mut found = Found::new();
                    let mut absent = Vec::new();
                    for id in &ids {
                        match received.remove(id) {
                            Some(resource) => drop(found.insert(*id, Ok(Arc::new(resource)))),
                            None => absent.push(*id),
                        }
                    }
                    let first = found.len();
                    self.most_received.fetch_max(first, Ordering::Relaxed);
                    if absent.is_empty() {
                        return found;
                    }
                    if self.is_within_cap(&ids) {
                        found.extend(absent.into_iter().map(|id| (id, Err(Failure::Gone))));
                        return found;
                    }
                    if found.is_empty() {
                        return self.halves(&ids, false).await;
                    }
                    let second = self.conversations(absent, true).await;
                    if second.values().any(Result::is_ok) {
                        self.batch_size.fetch_min(first, Ordering::Relaxed);
                    }
                    found.extend(second);
                    found
                }
            }
        }
        .boxed()
    }

    /// Looks up both halves of a batch; `refused` when the batch was refused as such and not for what it names.
    async fn halves(&self, ids: &[ObjectId], refused: bool) -> Found {
        let (left, right) = ids.split_at(ids.len() / 2);
        let left = self.conversations(left.to_vec(), false);
        let right = self.conversations(right.to_vec(), false);
        let answered = self.state().conversations_answered;
        let (mut found, other) = if answered {
            join(left, right).await
        } else {
            // Before the first answer one request at a time: the source may refuse everything.
            (left.await, right.await)
        };
        found.extend(other);
        if refused && found.values().all(Result::is_ok) {
            self.batch_size.fetch_min(ids.len().div_ceil(2), Ordering::Relaxed);
        }
        found
    }

    /// Tells whether an answer has brought as many conversations as these before, so that none is cut off in silence.
    fn is_within_cap(&self, ids: &[ObjectId]) -> bool {
        ids.len() <= self.most_received.load(Ordering::Relaxed)
    }

    async fn customer(&self, id: ObjectId) -> Result<Arc<Resource>, Failure> {
        let body = self.ask(Endpoint::Customers, &format!("/v1/customers/{id}")).await?.ok_or(Failure::Gone)?;
        let page = Page::decode(&body).map_err(|_| Failure::Unreadable)?;
        page.resources.into_iter().next().map(Arc::new).ok_or(Failure::Gone)
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

    /// Follows a list from its first page to its last. A record that a page repeats, because others moved, is taken once.
    async fn pages(&self, endpoint: Endpoint, first: String) -> Listing {
        let mut listing = Listing::default();
        let mut seen = HashSet::new();
        let mut files = HashSet::new();
        let mut path = first.clone();
        loop {
            let page = match self.ask(endpoint, &path).await {
                Ok(Some(body)) => Page::decode(&body).map_err(|_| Failure::Unreadable),
                Ok(None) => Err(Failure::Gone),
                Err(failure) => Err(failure),
            };
            let page = match page {
                Ok(page) => page,
                Err(failure) => {
                    listing.failure = Some(failure);
                    return listing;
                }
            };
            listing.pages += 1;
            let (mut received, mut fresh) = (0, 0);
            for resource in page.resources {
                received += 1;
                if resource.id.as_ref().is_none_or(|id| seen.insert(id.clone())) {
                    fresh += 1;
                    listing.resources.push(resource);
                }
            }
            for file in page.attachments {
                if file.id.as_ref().is_none_or(|id| files.insert(id.clone())) {
                    listing.attachments.push(file);
                }
            }
            let Some(next) = page.next.filter(|_| received > 0) else { return listing };
            if listing.pages == MOST_PAGES {
                listing.failure = Some(Failure::TooLong);
                return listing;
            }
            match next_path(&first, &next) {
                Some(next) if fresh > 0 && next != path => path = next,
                _ => {
                    listing.failure = Some(Failure::Astray);
                    return listing;
                }
            }
        }
    }

    async fn ask(&self, endpoint: Endpoint, path: &str) -> Result<Option<Bytes>, Failure> {
        self.request(endpoint, path).await.map_err(|unanswered| match unanswered {
            Unanswered::Ended => Failure::Stopped,
            Unanswered::Failed(error) => {
                let failure = Failure::from(error.kind());
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
                if matches!(Failure::from(error.kind()), Failure::Forbidden | Failure::Unavailable) {
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

impl<'s> Batch<'s> {
    async fn conversation(&self, id: ObjectId) -> Result<Arc<Resource>, Failure> {
        let found = self.conversations.clone().await;
        found.get(&id).cloned().unwrap_or(Err(Failure::Gone))
    }

    /// Tells whether messages and notes of the ticket are worth a request.
    async fn has(&self, id: ObjectId) -> bool {
        !matches!(self.conversation(id).await, Err(Failure::Gone | Failure::Stopped))
    }

    /// Asks for a customer, or waits for the answer that another ticket of the batch asked for.
    async fn customer<S: Source>(&self, session: &'s Session<'_, S>, id: ObjectId) -> Result<Arc<Resource>, Failure> {
        let asked = {
            let mut customers = self.customers.lock().unwrap_or_else(PoisonError::into_inner);
            customers.entry(id).or_insert_with(|| session.customer(id).boxed().shared()).clone()
        };
        asked.await
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

/// Returns the path of the next page when `next` stays within the list that begins at `first`.
fn next_path(first: &str, next: &str) -> Option<String> {
    let (list, first_query) = first.split_once('?')?;
    let (path, query) = next.split_once('?')?;
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
    if !plain || path.trim_end_matches('/') != list {
        return None;
    }
    // Some links forget what was to be included.
    let forgotten = first_query.contains("include=") && !query.contains("include=");
    Some(format!("{list}?{query}{}", if forgotten { "&include=attachments" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_stays_within_its_list() {
        let first = "/v1/conversations/a/messages?include=attachments&page=1&pageSize=100";
        for (next, followed) in [
            ("/v1/conversations/a/messages?page=2&include=attachments", true),
            ("/v1/conversations/a/messages/?page=2", true),
            ("https://evil.example/v1/conversations/a/messages?page=2", false),
            ("//evil.example/v1/conversations/a/messages?page=2", false),
            ("/v1/conversations/b/messages?page=2", false),
            ("/v1/conversations/a/messages/../../b/messages?page=2", false),
            ("/v1/conversations/a/messages?page=2\r\nx: y", false),
            ("/v1/conversations/a/messages?page=2#x", false),
            ("page=2", false),
            ("", false),
        ] {
            let path = next_path(first, next);
            assert_eq!(path.is_some(), followed, "{next}");
            assert!(path.is_none_or(|path| path.contains("include=attachments") && path.starts_with("/v1/")), "{next}");
        }
    }
}
