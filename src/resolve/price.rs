//! What a run will cost, before it costs anything.
//!
//! The price is that of tickets that all exist, each of another customer, with one page of messages and of notes, and
//! at least one tag and one custom attribute among them, at a source that takes one customer in a request, as documented.
//! Customers that tickets share, tickets without notes, and a source that takes several customers make it less; further
//! pages, ids that are not there and requests that are repeated after a failure make it more.

use std::fmt;

use super::fetch::{CONVERSATIONS_PER_REQUEST, WORTH_FINDING_OUT};
use super::parts::{Part, Parts};
use crate::model::ObjectId;

/// Requests by endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// Tickets that were asked for.
    pub tickets: u64,
    /// Conversations, several in one request.
    pub conversations: u64,
    /// Customers, one in each request, and one to find out whether several can be.
    pub customers: u64,
    /// What [`customers`](Self::customers) comes to where the source takes several in one request.
    pub customers_together: u64,
    /// Pages of messages, attachments included.
    pub messages: u64,
    /// Pages of notes.
    pub notes: u64,
    /// Pages of events.
    pub events: u64,
    /// Pages of the list of tags, once a run.
    pub tags: u64,
    /// Definitions of custom attributes, once a run.
    pub metadata: u64,
}

impl Price {
    /// Returns the sum of the requests.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.conversations + self.customers + self.messages + self.notes + self.events + self.tags + self.metadata
    }

    /// Returns the requests for 100 tickets at this price.
    #[must_use]
    pub fn per_100_tickets(&self) -> f64 {
        if self.tickets == 0 { 0.0 } else { self.total() as f64 * 100.0 / self.tickets as f64 }
    }

    /// Returns the sum of the requests where the source takes several customers in one.
    #[must_use]
    pub const fn least(&self) -> u64 {
        self.total() - self.customers + self.customers_together
    }

    /// Returns the minutes that the requests take at `per_minute` requests a minute, our share of the budget.
    #[must_use]
    pub fn minutes(&self, per_minute: f64) -> f64 {
        if per_minute > 0.0 { self.total() as f64 / per_minute } else { f64::INFINITY }
    }

    /// Returns name and requests of each endpoint that is asked, for a table.
    pub fn endpoints(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("conversations", self.conversations),
            ("customers", self.customers),
            ("messages", self.messages),
            ("notes", self.notes),
            ("events", self.events),
            ("tags", self.tags),
            ("metadata", self.metadata),
        ]
        .into_iter()
        .filter(|(_, requests)| *requests > 0)
    }
}

impl fmt::Display for Price {
    /// Writes one line, e.g. `304 requests for 100 tickets (304.0 per 100): conversations 2, customers 100, …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests for {} tickets ({:.1} per 100", self.total(), self.tickets, self.per_100_tickets())?;
        if self.least() < self.total() {
            write!(f, "; {} requests where the source takes several customers at once", self.least())?;
        }
        f.write_str(")")?;
        for (position, (name, requests)) in self.endpoints().enumerate() {
            write!(f, "{} {name} {requests}", if position == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

/// Prices the parts of these tickets; makes no request.
#[must_use]
pub fn estimate(ids: &[ObjectId], parts: Parts) -> Price {
    let tickets = ids.len() as u64;
    let each = |asked: bool| if asked { tickets } else { 0 };
    let once = |part: Part| u64::from(tickets > 0 && parts.contains(part));
    let batch = CONVERSATIONS_PER_REQUEST as u64;
    let customers = each(parts.contains(Part::Customer));
    let finding_out = u64::from(customers >= WORTH_FINDING_OUT as u64);
    Price {
        tickets,
        conversations: each(parts.need_conversation()).div_ceil(batch),
        customers: customers + finding_out,
        customers_together: if finding_out > 0 { customers.div_ceil(batch) } else { customers },
        messages: each(parts.need_messages()),
        notes: each(parts.contains(Part::Notes)),
        events: each(parts.contains(Part::Events)),
        tags: once(Part::Tags),
        metadata: once(Part::Metadata),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn price_follows_the_parts() {
        let ids: Vec<_> = (0..100).map(|n| ObjectId::from_bytes([n; 12])).collect();
        for (only, total) in [
            ("conversation", 1),
            ("customer", 102),
            ("messages", 100),
            ("attachments", 100),
            ("messages,attachments", 100),
            ("messages,notes", 200),
            ("tags", 2),
            ("events", 100),
            ("conversation,customer,messages,notes,attachments,tags,metadata", 304),
        ] {
            assert_eq!(estimate(&ids, only.parse().unwrap()).total(), total, "{only}");
        }
        assert_eq!(estimate(&[], Parts::USUAL).total(), 0);
        assert_eq!(
            estimate(&ids, Parts::USUAL).to_string(),
            "304 requests for 100 tickets (304.0 per 100; 204 requests where the source takes several customers at once): \
             conversations 1, customers 101, messages 100, notes 100, tags 1, metadata 1"
        );
    }
}
