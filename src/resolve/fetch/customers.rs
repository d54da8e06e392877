//! Customers: several in one request where the source takes that, one by one where it does not.
//!
//! Only the path with one id is documented. So the first batch that has several customers asks for them together, and from
//! what comes the run knows ([`Several`]): at most one request is spent on finding out. What such a request does not bring is
//! asked for on its own, so that only the documented path decides whether a customer is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use futures::FutureExt;
use futures::future::{BoxFuture, join};

use super::conversations::path_of;
use super::{Session, Unanswered};
use crate::kustomer::Endpoint;
use crate::model::ObjectId;
use crate::resolve::detail::Failure;
use crate::resolve::page::{Page, Resource};
use crate::resolve::source::Source;

/// Fewer are not worth finding out: a refusal would cost as much as is saved.
pub(in crate::resolve) const WORTH_FINDING_OUT: usize = 3;

const UNKNOWN: u8 = 0;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

/// Whether one request may name several customers.
#[derive(Debug)]
pub(super) struct Several(AtomicU8);

pub(super) type FoundCustomers = HashMap<ObjectId, Result<Arc<Resource>, Failure>>;

impl Several {
    pub(super) const fn unknown() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// Takes what an earlier run found out, unless this one knows better.
    pub(super) fn remember(&self, taken: bool) {
        let known = if taken { TAKEN } else { REFUSED };
        // One that loses has been answered by the source itself.
        let _ = self.0.compare_exchange(UNKNOWN, known, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns what is known.
    pub(super) fn known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            TAKEN => Some(true),
            REFUSED => Some(false),
            _ => None,
        }
    }

    fn learn(&self, taken: bool) {
        self.0.store(if taken { TAKEN } else { REFUSED }, Ordering::Relaxed);
    }
}

impl<S: Source> Session<'_, S> {
    /// Asks for several customers at once as far as the source takes that; who is not in what returns is to be asked for alone.
    pub(super) fn customers(&self, ids: Vec<ObjectId>) -> BoxFuture<'_, FoundCustomers> {
        async move {
            let none = FoundCustomers::new();
            let is_worth = match self.several.known() {
                Some(taken) => taken && ids.len() > 1,
                None => ids.len() >= WORTH_FINDING_OUT,
            };
            if !is_worth {
                return none;
            }
            if ids.len() > self.batch_size() {
                return self.half_each(&ids).await;
            }
            let answer = match self.request(Endpoint::Customers, &path_of("/v1/customers/", &ids)).await {
                Ok(answer) => answer.and_then(|body| Page::decode(&body).ok()),
                Err(Unanswered::Ended) => return ids.into_iter().map(|id| (id, Err(Failure::Stopped))).collect(),
                // That says nothing about several of them.
                Err(Unanswered::Failed(error)) if Failure::of(&error).is_passing() => return none,
                Err(Unanswered::Failed(_)) => None,
            };
            let asked: HashSet<ObjectId> = ids.iter().copied().collect();
            let resources = answer.map(|page| page.resources).unwrap_or_default();
            let found: FoundCustomers = resources
                .into_iter()
                .filter_map(|resource| {
                    let id = ObjectId::from_hex(resource.id.as_deref()?.as_bytes())?;
                    asked.contains(&id).then(|| (id, Ok(Arc::new(resource))))
                })
                .collect();
            match self.several.known() {
                None => self.several.learn(found.len() > 1),
                // It took others before: one that is gone may have spoiled this one.
                Some(true) if found.is_empty() && ids.len() > 2 * WORTH_FINDING_OUT => {
                    return self.half_each(&ids).await;
                }
                Some(_) => {}
            }
            found
        }
        .boxed()
    }

    async fn half_each(&self, ids: &[ObjectId]) -> FoundCustomers {
        let (left, right) = ids.split_at(ids.len() / 2);
        let (mut found, other) = join(self.customers(left.to_vec()), self.customers(right.to_vec())).await;
        found.extend(other);
        found
    }

    /// Asks for one customer.
    pub(super) async fn customer(&self, id: ObjectId) -> Result<Arc<Resource>, Failure> {
        let body = self.ask(Endpoint::Customers, &format!("/v1/customers/{id}")).await?.ok_or(Failure::Gone)?;
        let page = Page::decode(&body).map_err(|_| Failure::Unreadable)?;
        page.resources.into_iter().next().map(Arc::new).ok_or(Failure::Gone)
    }
}
