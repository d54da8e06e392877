//! Search requests: criteria, order, page.
//!
//! A range is always written as `gte` and `lt`, an instant as the range of its one millisecond: the two operators that
//! every client in the field relies on. Times are ISO-8601, UTC, with milliseconds.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::endpoint::Endpoint;
use crate::error::{Error, Result};

/// What a search looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SearchObject {
    /// Conversations.
    Conversation,
    /// Customers.
    Customer,
    /// Conversation times, which never change: search knows their `created_at` and no `updated_at`.
    ConversationTime,
}

impl SearchObject {
    /// Returns the value of `queryContext`, which is also the prefix of the object's attributes.
    #[must_use]
    pub const fn context(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Customer => "customer",
            Self::ConversationTime => "conversation_time",
        }
    }

    /// Returns the attribute by which the object's records are walked.
    const fn changed(self) -> &'static str {
        match self {
            Self::Conversation | Self::Customer => "updated_at",
            Self::ConversationTime => "created_at",
        }
    }

    /// Returns the attribute that counts what belongs to a record: messages, conversations, seconds.
    const fn count(self) -> &'static str {
        match self {
            Self::Conversation => "message_count",
            Self::Customer => "conversations_count",
            Self::ConversationTime => "handle_time",
        }
    }
}

/// One search: `POST /v1/customers/search`, or its archive twin.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// The JSON body.
    pub body: Value,
    /// Page, from 1.
    pub page: u32,
    /// Rows of a page.
    pub page_size: u32,
    /// Ids only.
    pub ids_only: bool,
    /// Search in the archive (older than two years).
    pub archive: bool,
}

impl SearchRequest {
    /// Begins a search for one kind of object, ordered by its `updated_at` (its `created_at`, where it never changes).
    #[must_use]
    pub fn builder(object: SearchObject) -> SearchBuilder {
        SearchBuilder {
            object,
            criteria: Vec::new(),
            none: Vec::new(),
            include_deleted: false,
            page: 1,
            page_size: 500,
            ids_only: false,
            archive: false,
        }
    }

    /// Returns the request's place in the ledger.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        if self.archive { Endpoint::ArchiveSearch } else { Endpoint::Search }
    }

    pub(super) fn path(&self) -> String {
        let base = if self.archive { "/v1/customers/archive/search" } else { "/v1/customers/search" };
        let ids_only = if self.ids_only { "&idsOnly=true" } else { "" };
        format!("{base}?page={}&pageSize={}{ids_only}", self.page, self.page_size)
    }
}

/// Collects the criteria of a [`SearchRequest`]; all of them must hold.
#[derive(Debug, Clone)]
pub struct SearchBuilder {
    object: SearchObject,
    criteria: Vec<Value>,
    none: Vec<Value>,
    include_deleted: bool,
    page: u32,
    page_size: u32,
    ids_only: bool,
    archive: bool,
}

impl SearchBuilder {
    /// Asks for the attribute that orders the search in `[from, to)`, milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when a bound lies outside of the calendar.
    pub fn updated_between(self, from_ms: i64, to_ms: i64) -> Result<Self> {
        let changed = self.object.changed();
        self.between(changed, from_ms, to_ms)
    }

    /// Asks for `created_at` in `[from, to)`, milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when a bound lies outside of the calendar.
    pub fn created_between(self, from_ms: i64, to_ms: i64) -> Result<Self> {
        self.between("created_at", from_ms, to_ms)
    }

    /// Asks for `created_at` at or after a time, milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the time lies outside of the calendar.
    pub fn created_from(mut self, from_ms: i64) -> Result<Self> {
        self.criteria.push(json!({ self.name("created_at"): { "gte": iso(from_ms)? } }));
        Ok(self)
    }

    /// Asks for what has no `created_at` at or after a time: an earlier one, or none.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the time lies outside of the calendar.
    pub fn not_created_from(mut self, from_ms: i64) -> Result<Self> {
        self.none.push(json!({ self.name("created_at"): { "gte": iso(from_ms)? } }));
        Ok(self)
    }

    /// Asks for a count in `[from, to)`: messages of a conversation, conversations of a customer. Without end when `to` is absent.
    pub fn counting(mut self, from: i64, to: Option<i64>) -> Self {
        let name = self.name(self.object.count());
        self.criteria.push(json!({ name.as_str(): { "gte": from } }));
        self.criteria.extend(to.map(|to| json!({ name.as_str(): { "lt": to } })));
        self
    }

    /// Asks for what does not count that much: less, or without a count.
    pub fn not_counting(mut self, from: i64) -> Self {
        self.none.push(json!({ self.name(self.object.count()): { "gte": from } }));
        self
    }

    /// Asks for deleted records too.
    pub fn include_deleted(mut self) -> Self {
        self.include_deleted = true;
        self
    }

    /// Asks for ids only.
    pub fn ids_only(mut self) -> Self {
        self.ids_only = true;
        self
    }

    /// Asks the archive, which holds what was last updated more than two years ago.
    pub fn archive(mut self, archive: bool) -> Self {
        self.archive = archive;
        self
    }

    /// Asks for one page (from 1) of a size.
    pub fn page(mut self, page: u32, page_size: u32) -> Self {
        self.page = page;
        self.page_size = page_size;
        self
    }

    /// Returns the request.
    #[must_use]
    pub fn build(self) -> SearchRequest {
        let context = self.object.context();
        let mut body = Map::new();
        body.insert("queryContext".to_owned(), json!(context));
        if !self.criteria.is_empty() {
            body.insert("and".to_owned(), Value::Array(self.criteria));
        }
        if !self.none.is_empty() {
            body.insert("not".to_owned(), Value::Array(self.none));
        }
        body.insert("sort".to_owned(), json!([{ format!("{context}_{}", self.object.changed()): "asc" }]));
        if self.include_deleted {
            body.insert("includeDeleted".to_owned(), json!(true));
        }
        SearchRequest {
            body: Value::Object(body),
            page: self.page,
            page_size: self.page_size,
            ids_only: self.ids_only,
            archive: self.archive,
        }
    }

    fn name(&self, attribute: &str) -> String {
        format!("{}_{attribute}", self.object.context())
    }

    fn between(mut self, attribute: &str, from_ms: i64, to_ms: i64) -> Result<Self> {
        let name = self.name(attribute);
        self.criteria.push(json!({ name.as_str(): { "gte": iso(from_ms)? } }));
        self.criteria.push(json!({ name.as_str(): { "lt": iso(to_ms)? } }));
        Ok(self)
    }
}

fn iso(time_ms: i64) -> Result<String> {
    Timestamp::from_millisecond(time_ms).map(|time| format!("{time:.3}")).map_err(|source| {
        Error::config("time is outside of the calendar").with_context("ms", time_ms).with_source(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_is_written_as_the_api_expects() {
        let request = SearchRequest::builder(SearchObject::Conversation)
            .updated_between(1_700_000_000_001, 1_700_000_060_000)
            .unwrap()
            .created_between(0, 1_000)
            .unwrap()
            .include_deleted()
            .page(2, 500)
            .build();
        assert_eq!(
            request.body,
            json!({
                "queryContext": "conversation",
                "and": [
                    { "conversation_updated_at": { "gte": "2023-11-14T22:13:20.001Z" } },
                    { "conversation_updated_at": { "lt": "2023-11-14T22:14:20.000Z" } },
                    { "conversation_created_at": { "gte": "1970-01-01T00:00:00.000Z" } },
                    { "conversation_created_at": { "lt": "1970-01-01T00:00:01.000Z" } },
                ],
                "sort": [{ "conversation_updated_at": "asc" }],
                "includeDeleted": true,
            })
        );
        assert_eq!(request.path(), "/v1/customers/search?page=2&pageSize=500");
        assert_eq!(request.endpoint(), Endpoint::Search);
    }

    #[test]
    fn what_a_range_leaves_out_can_be_asked_for() {
        let request = SearchRequest::builder(SearchObject::Customer)
            .created_from(0)
            .unwrap()
            .not_created_from(1_000)
            .unwrap()
            .counting(2, None)
            .not_counting(9)
            .build();
        assert_eq!(
            request.body["and"],
            json!([
                { "customer_created_at": { "gte": "1970-01-01T00:00:00.000Z" } },
                { "customer_conversations_count": { "gte": 2 } },
            ])
        );
        assert_eq!(
            request.body["not"],
            json!([
                { "customer_created_at": { "gte": "1970-01-01T00:00:01.000Z" } },
                { "customer_conversations_count": { "gte": 9 } },
            ])
        );
    }

    #[test]
    fn archive_and_ids_only_change_the_path() {
        let request = SearchRequest::builder(SearchObject::Customer).archive(true).ids_only().page(1, 100).build();
        assert_eq!(request.path(), "/v1/customers/archive/search?page=1&pageSize=100&idsOnly=true");
        assert_eq!(request.endpoint(), Endpoint::ArchiveSearch);
        assert_eq!(request.body["queryContext"], "customer");
    }

    #[test]
    fn conversation_times_are_asked_for_by_their_creation() {
        let request = SearchRequest::builder(SearchObject::ConversationTime).updated_between(0, 1_000).unwrap().build();
        assert_eq!(
            request.body,
            json!({
                "queryContext": "conversation_time",
                "and": [
                    { "conversation_time_created_at": { "gte": "1970-01-01T00:00:00.000Z" } },
                    { "conversation_time_created_at": { "lt": "1970-01-01T00:00:01.000Z" } },
                ],
                "sort": [{ "conversation_time_created_at": "asc" }],
            })
        );
    }

    #[test]
    fn time_outside_of_the_calendar_is_refused() {
        assert!(SearchRequest::builder(SearchObject::Customer).updated_between(i64::MIN, 0).is_err());
    }
}
