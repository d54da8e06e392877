//! Tickets that are asked for together: their conversations in one request, their customers in one where that can be.
//!
//! What they share is kept while one of them is under way, and no longer.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Either, Shared, join, select};

use super::Session;
use super::conversations::{Conversation, Found};
use super::customers::FoundCustomers;
use crate::model::ObjectId;
use crate::resolve::Known;
use crate::resolve::detail::Failure;
use crate::resolve::page::Resource;
use crate::resolve::parts::Part;
use crate::resolve::source::Source;

type Customer = Result<Arc<Resource>, Failure>;

/// Tickets whose conversations are asked for together.
pub(in crate::resolve) struct Batch<'s> {
    conversations: Shared<BoxFuture<'s, Arc<Found>>>,
    customers: Shared<BoxFuture<'s, Arc<FoundCustomers>>>,
    alone: Mutex<HashMap<ObjectId, Shared<BoxFuture<'s, Customer>>>>,
}

/// Tells what the conversations say about a list that hangs on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// The ticket is not there: its list is worth no request.
    NoTicket,
    /// So many, as far as the conversation says.
    Told(Option<i64>),
}

impl<S: Source> Session<'_, S> {
    /// Prepares a batch; nothing is asked before its first ticket needs it. `known` ends some time, or not before the source
    /// has answered: then it is not waited for.
    pub(in crate::resolve) fn batch<'s>(&'s self, ids: &[ObjectId], known: Option<BoxFuture<'s, Known>>) -> Batch<'s> {
        let ids = ids.to_vec();
        let conversations = async move { Arc::new(self.conversations(ids, false).await) }.boxed().shared();
        let customers = self.customers_of(conversations.clone(), known).boxed().shared();
        Batch { conversations, customers, alone: Mutex::default() }
    }

    async fn customers_of<'s>(
        &'s self,
        conversations: Shared<BoxFuture<'s, Arc<Found>>>,
        known: Option<BoxFuture<'s, Known>>,
    ) -> Arc<FoundCustomers> {
        let Some(known) = known else {
            let found = conversations.await;
            return Arc::new(self.customers(owners(&found, &FoundCustomers::new())).await);
        };
        let (found, mut customers) = match select(conversations, known).await {
            Either::Left((found, _)) => (found, FoundCustomers::new()),
            Either::Right((known, conversations)) => {
                if let Some(taken) = known.several_customers {
                    self.several.remember(taken);
                }
                let guessed: BTreeSet<ObjectId> = known.owners.into_values().collect();
                join(conversations, self.guessed(guessed.into_iter().collect())).await
            }
        };
        let others = self.customers(owners(&found, &customers)).await;
        customers.extend(others);
        Arc::new(customers)
    }

    /// Asks for the customers that the tickets had when the lake last saw them.
    async fn guessed(&self, ids: Vec<ObjectId>) -> FoundCustomers {
        if !self.parts.contains(Part::Customer) {
            return FoundCustomers::new();
        }
        match ids[..] {
            // A refusal is left to the ticket that still has this customer.
            [id] => self.customer(id).await.ok().map(|customer| (id, Ok(customer))).into_iter().collect(),
            _ => self.customers(ids).await,
        }
    }
}

/// Returns the customers of conversations that are not known yet, each once.
fn owners(found: &Found, known: &FoundCustomers) -> Vec<ObjectId> {
    let owners: BTreeSet<ObjectId> = found.values().flatten().filter_map(|conversation| conversation.owner()).collect();
    owners.into_iter().filter(|owner| !known.contains_key(owner)).collect()
}

impl Conversation {
    fn owner(&self) -> Option<ObjectId> {
        ObjectId::from_hex(self.references.customer_id.as_deref()?.as_bytes())
    }
}

impl<'s> Batch<'s> {
    pub(super) async fn conversation(&self, id: ObjectId) -> Result<Arc<Conversation>, Failure> {
        let found = self.conversations.clone().await;
        found.get(&id).cloned().unwrap_or(Err(Failure::Gone))
    }

    /// Begins with the customers before a ticket needs its own.
    pub(super) async fn ahead(&self) {
        drop(self.customers.clone().await);
    }

    /// Tells what is known of a list of the ticket before it is asked for.
    pub(super) async fn count(&self, id: ObjectId, part: Part) -> Count {
        match self.conversation(id).await {
            Err(Failure::Gone | Failure::Stopped) => Count::NoTicket,
            Err(_) => Count::Told(None),
            Ok(conversation) => Count::Told(match part {
                Part::Messages => conversation.references.message_count,
                Part::Notes => conversation.references.note_count,
                _ => None,
            }),
        }
    }

    /// Asks for a customer, or waits for the answer that another ticket of the batch asked for.
    pub(super) async fn customer<S: Source>(&self, session: &'s Session<'_, S>, id: ObjectId) -> Customer {
        if let Some(customer) = self.customers.clone().await.get(&id) {
            return customer.clone();
        }
        let asked = {
            let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
            alone.entry(id).or_insert_with(|| session.customer(id).boxed().shared()).clone()
        };
        asked.await
    }
}
