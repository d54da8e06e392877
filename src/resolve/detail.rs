//! One ticket's line: what was received, put together and written.
//!
//! The shape is documented at [`resolve`](super); a change to it that a reader could notice raises [`VERSION`].

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::page::{Attachment, Resource};
use super::parts::{Part, Parts};
use crate::error::{Error, ErrorKind};
use crate::model::ObjectId;

/// Version of the line's shape: a reader refuses a higher one, a writer raises it when a key changes its meaning or goes.
pub const VERSION: u32 = 1;

/// Why a part is not there, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Failure {
    /// The source has no such record.
    Gone,
    /// The credential may not read it.
    Forbidden,
    /// The source did not answer in time, also when asked again.
    TimedOut,
    /// The source did not answer, or failed, also when asked again.
    Unavailable,
    /// The source refuses the request as such.
    Refused,
    /// The answer cannot be read.
    Unreadable,
    /// The link to the next page leads elsewhere.
    Astray,
    /// The list has more pages than are followed.
    TooLong,
    /// The run ended before the part was asked for; its line is not written.
    Stopped,
}

impl Failure {
    /// Returns the `kind` of a line's error.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Forbidden => "forbidden",
            Self::TimedOut => "time-out",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unreadable | Self::Astray | Self::TooLong => "unreadable",
            Self::Stopped => "stopped",
        }
    }

    /// Returns the `message` of a line's error: fixed words, so that no value of a record can slip into it.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Gone => "the source has no such record",
            Self::Forbidden => "the credential may not read it",
            Self::TimedOut => "the source did not answer in time, also when asked again",
            Self::Unavailable => "the source did not answer, also when asked again",
            Self::Refused => "the source refused the request",
            Self::Unreadable => "the answer cannot be read",
            Self::Astray => "the link to the next page leads elsewhere and was not followed",
            Self::TooLong => "the list has more pages than are followed",
            Self::Stopped => "the run ended before",
        }
    }
}

impl Failure {
    /// Reads an error of the client.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let is_late =
            |(name, value)| matches!((name, value), ("cause", "timed out" | "stalled") | ("status", "408" | "504"));
        match error.kind() {
            ErrorKind::Denied => Self::Forbidden,
            ErrorKind::Unavailable if error.context().any(is_late) => Self::TimedOut,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Data => Self::Unreadable,
            _ => Self::Refused,
        }
    }

    /// Tells whether the same request may be answered some other time.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::TimedOut | Self::Unavailable)
    }

    /// Tells whether other requests are likely to fail alike.
    pub(super) const fn is_total(self) -> bool {
        matches!(self, Self::Forbidden) || self.is_passing()
    }
}

/// A part that is missing, wholly or from some place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartError {
    /// The part.
    pub part: Part,
    /// Why.
    pub failure: Failure,
}

/// A tag of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its id.
    pub id: String,
    /// Its name, when the list of tags has it.
    pub name: Option<String>,
}

/// One ticket's details; a part that was not received is `None`.
#[derive(Debug)]
pub struct Detail {
    /// The ticket.
    pub ticket_id: ObjectId,
    /// The conversation's JSON.
    pub conversation: Option<Arc<Resource>>,
    /// The customer's JSON.
    pub customer: Option<Arc<Resource>>,
    /// The messages' JSON.
    pub messages: Option<Vec<Resource>>,
    /// The notes' JSON.
    pub notes: Option<Vec<Resource>>,
    /// The files at the messages.
    pub attachments: Option<Vec<Attachment>>,
    /// The tags.
    pub tags: Option<Vec<Tag>>,
    /// Name and definition (JSON) of the custom attributes that the ticket has.
    pub attributes: Option<Vec<(String, Arc<str>)>>,
    /// The events' JSON.
    pub events: Option<Vec<Resource>>,
    /// What is missing.
    pub errors: Vec<PartError>,
    /// Whether the policy was applied: then there is nothing else in it.
    pub is_redacted: bool,
}

impl Detail {
    /// Makes the details of a ticket of which nothing was received yet.
    #[must_use]
    pub fn new(ticket_id: ObjectId) -> Self {
        Self {
            ticket_id,
            conversation: None,
            customer: None,
            messages: None,
            notes: None,
            attachments: None,
            tags: None,
            attributes: None,
            events: None,
            errors: Vec::new(),
            is_redacted: false,
        }
    }

    /// Notes that a part is missing.
    pub fn fail(&mut self, part: Part, failure: Failure) {
        self.errors.push(PartError { part, failure });
    }

    /// Tells whether the ticket itself does not exist: its conversation is gone, or all of what was asked for is.
    #[must_use]
    pub fn is_missing(&self, parts: Parts) -> bool {
        let gone = |part| self.errors.iter().any(|error| error.part == part && error.failure == Failure::Gone);
        gone(Part::Conversation) || parts.iter().all(gone)
    }

    /// Tells whether the run ended before the ticket was complete.
    #[must_use]
    pub(crate) fn is_stopped(&self) -> bool {
        self.errors.iter().any(|error| error.failure == Failure::Stopped)
    }

    /// Returns how long the line is at most, about.
    #[must_use]
    pub fn line_bytes(&self) -> usize {
        let one = |resource: &Option<Arc<Resource>>| resource.as_ref().map_or(4, |resource| resource.json.len());
        let list = |list: &Option<Vec<Resource>>| -> usize { list.iter().flatten().map(|it| it.json.len() + 1).sum() };
        let files = self.attachments.iter().flatten().map(|file| 200 + file.name.as_ref().map_or(0, |it| 6 * it.len()));
        let tags = self.tags.iter().flatten().map(|tag| 60 + tag.name.as_ref().map_or(0, |it| 6 * it.len()));
        let attributes = self.attributes.iter().flatten().map(|(name, json)| 6 * name.len() + json.len() + 8);
        let lists = [&self.messages, &self.notes, &self.events].map(list).iter().sum::<usize>();
        let rest = files.sum::<usize>() + tags.sum::<usize>() + attributes.sum::<usize>() + 128 * self.errors.len();
        512 + one(&self.conversation) + one(&self.customer) + lists + rest
    }

    /// Writes the line, its end included, to the end of `line`. Parts that were not asked for have no key, parts that were and
    /// failed are null.
    pub fn write_line(&self, parts: Parts, resolved_at: Timestamp, line: &mut String) {
        // Writing to a string cannot fail.
        let _ =
            write!(line, r#"{{"version":{VERSION},"ticket_id":"{}","resolved_at":"{resolved_at:.3}""#, self.ticket_id);
        if self.is_redacted {
            line.push_str(",\"redacted\":true");
        }
        for part in parts.iter() {
            line.push_str(match part {
                Part::Metadata => ",\"attributes\":",
                Part::Conversation => ",\"conversation\":",
                Part::Customer => ",\"customer\":",
                Part::Messages => ",\"messages\":",
                Part::Notes => ",\"notes\":",
                Part::Attachments => ",\"attachments\":",
                Part::Tags => ",\"tags\":",
                Part::Events => ",\"events\":",
            });
            match part {
                Part::Conversation => line.push_str(self.conversation.as_ref().map_or("null", |it| it.json.as_str())),
                Part::Customer => line.push_str(self.customer.as_ref().map_or("null", |it| it.json.as_str())),
                Part::Messages => list(line, self.messages.as_deref(), |line, it| line.push_str(&it.json)),
                Part::Notes => list(line, self.notes.as_deref(), |line, it| line.push_str(&it.json)),
                Part::Events => list(line, self.events.as_deref(), |line, it| line.push_str(&it.json)),
                Part::Attachments => list(line, self.attachments.as_deref(), attachment),
                Part::Tags => list(line, self.tags.as_deref(), tag),
                Part::Metadata => match &self.attributes {
                    None => line.push_str("null"),
                    Some(definitions) => {
                        line.push('{');
                        separated(line, definitions, |line, (name, definition)| {
                            string(line, name);
                            line.push(':');
                            line.push_str(definition);
                        });
                        line.push('}');
                    }
                },
            }
        }
        line.push_str(",\"errors\":");
        list(line, Some(&self.errors), |line, error| {
            let _ = write!(
                line,
                r#"{{"part":"{}","kind":"{}","message":"{}"}}"#,
                error.part,
                error.failure.kind(),
                error.failure.message()
            );
        });
        line.push_str("}\n");
    }
}

fn attachment(line: &mut String, file: &Attachment) {
    line.push_str("{\"id\":");
    optional(line, file.id.as_deref());
    line.push_str(",\"message_id\":");
    optional(line, file.message_id.as_deref());
    line.push_str(",\"name\":");
    optional(line, file.name.as_deref());
    line.push_str(",\"content_type\":");
    optional(line, file.content_type.as_deref());
    line.push_str(",\"content_length\":");
    match file.content_length {
        Some(bytes) => drop(write!(line, "{bytes}")),
        None => line.push_str("null"),
    }
    line.push_str(",\"redacted\":");
    line.push_str(match file.redacted {
        Some(true) => "true}",
        Some(false) => "false}",
        None => "null}",
    });
}

fn tag(line: &mut String, tag: &Tag) {
    line.push_str("{\"id\":");
    string(line, &tag.id);
    line.push_str(",\"name\":");
    optional(line, tag.name.as_deref());
    line.push('}');
}

fn list<T>(line: &mut String, items: Option<&[T]>, write_item: impl FnMut(&mut String, &T)) {
    match items {
        None => line.push_str("null"),
        Some(items) => {
            line.push('[');
            separated(line, items, write_item);
            line.push(']');
        }
    }
}

fn separated<T>(line: &mut String, items: &[T], mut write_item: impl FnMut(&mut String, &T)) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            line.push(',');
        }
        write_item(line, item);
    }
}

fn optional(line: &mut String, text: Option<&str>) {
    match text {
        Some(text) => string(line, text),
        None => line.push_str("null"),
    }
}

fn string(line: &mut String, text: &str) {
    let _ = write!(line, "{}", Value::String(text.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(json: &str) -> Resource {
        Resource { id: None, json: json.to_owned() }
    }

    #[test]
    fn line_has_the_documented_keys_in_their_order() {
        let mut detail = Detail::new(ObjectId::from_bytes([1; 12]));
        detail.conversation = Some(Arc::new(resource(r#"{"id":"c"}"#)));
        detail.messages = Some(vec![resource(r#"{"id":"m1"}"#), resource(r#"{"id":"m2"}"#)]);
        detail.notes = Some(Vec::new());
        detail.attachments = Some(vec![Attachment {
            id: Some("a".to_owned()),
            message_id: None,
            name: Some("q\"\n.txt".to_owned()),
            content_type: None,
            content_length: Some(3),
            redacted: Some(true),
        }]);
        detail.tags = Some(vec![Tag { id: "t".to_owned(), name: None }]);
        detail.attributes = Some(vec![("xStr".to_owned(), Arc::from(r#"{"type":"string"}"#))]);
        detail.fail(Part::Customer, Failure::Gone);
        let mut line = String::new();
        detail.write_line(Parts::USUAL, "2026-11-22T10:00:00.123456Z".parse().unwrap(), &mut line);
        assert_eq!(
            line,
            concat!(
                r#"{"version":1,"ticket_id":"010101010101010101010101","resolved_at":"2026-11-22T10:00:00.123Z","#,
                r#""conversation":{"id":"c"},"customer":null,"messages":[{"id":"m1"},{"id":"m2"}],"notes":[],"#,
                r#""attachments":[{"id":"a","message_id":null,"name":"q\"\n.txt","content_type":null,"content_length":3,"redacted":true}],"#,
                r#""tags":[{"id":"t","name":null}],"attributes":{"xStr":{"type":"string"}},"#,
                r#""errors":[{"part":"customer","kind":"gone","message":"the source has no such record"}]}"#,
                "\n"
            )
        );
        assert!(!detail.is_missing(Parts::ALL));
    }

    #[test]
    fn parts_that_were_not_asked_for_have_no_key() {
        let mut line = String::new();
        let detail = Detail::new(ObjectId::from_bytes([1; 12]));
        detail.write_line("notes".parse().unwrap(), Timestamp::UNIX_EPOCH, &mut line);
        assert_eq!(
            line,
            "{\"version\":1,\"ticket_id\":\"010101010101010101010101\",\"resolved_at\":\"1970-01-01T00:00:00.000Z\",\
             \"notes\":null,\"errors\":[]}\n"
        );
    }
}
