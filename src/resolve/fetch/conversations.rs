//! Conversations by the batch: how many one request may name is found out, and none is taken for gone without proof.
//!
//! A batch that is refused is halved, and once both halves are answered their size is kept. A silent cap would look like ids
//! that are gone, so an id counts as gone only when it is absent from the answer to no more ids than an answer has brought
//! before; otherwise it is asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::{BoxFuture, join};

use super::{End, Session, Unanswered};
use crate::kustomer::Endpoint;
use crate::model::ObjectId;
use crate::resolve::detail::Failure;
use crate::resolve::page::{Page, References, Resource};
use crate::resolve::source::Source;

/// Ids in the first request: as many as the API's lists have on a page, and 2,500 bytes of path, which every server takes.
pub(in crate::resolve) const CONVERSATIONS_PER_REQUEST: usize = 100;

/// Ids that any server is taken to answer in one request, if it answers several at all.
pub(super) const SMALLEST_CAP: usize = 10;

/// A conversation with what it refers to.
pub(super) struct Conversation {
    pub(super) resource: Arc<Resource>,
    pub(super) references: References,
}

pub(super) type Found = HashMap<ObjectId, Result<Arc<Conversation>, Failure>>;

/// Writes ids with commas between them to the end of a path.
pub(super) fn path_of(list: &str, ids: &[ObjectId]) -> String {
    let mut path = list.to_owned();
    for (position, id) in ids.iter().enumerate() {
        path.push_str(if position == 0 { "" } else { "," });
        path.push_str(&id.to_string());
    }
    path
}

impl Conversation {
    fn of(resource: Resource) -> Self {
        Self { references: resource.references(), resource: Arc::new(resource) }
    }
}

impl<S: Source> Session<'_, S> {
    /// Looks conversations up. With `again` they were absent from an answer that brought others.
    pub(super) fn conversations(&self, ids: Vec<ObjectId>, again: bool) -> BoxFuture<'_, Found> {
        async move {
            let all = |failure: Failure| ids.iter().map(|id| (*id, Err(failure))).collect::<Found>();
            match self.request(Endpoint::Conversations, &path_of("/v1/conversations/", &ids)).await {
                Err(Unanswered::Ended) => all(Failure::Stopped),
                Err(Unanswered::Failed(error)) => {
                    let failure = Failure::of(&error);
                    if !self.state().conversations_answered && (failure.is_total() || ids.len() == 1) {
                        self.state().end.get_or_insert(End::Failed(error));
                        all(Failure::Stopped)
                    } else if ids.len() > 1 && !failure.is_passing() {
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
                            Some(resource) => drop(found.insert(*id, Ok(Arc::new(Conversation::of(resource))))),
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
}
