//! The parts of a ticket that can be asked for: what `--only` names.
//!
//! A part that is not asked for is absent from the line and costs no request of its own.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, did_you_mean};

/// One part of a ticket's details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The ticket itself: Kustomer's conversation.
    Conversation,
    /// The customer who wrote.
    Customer,
    /// Messages in the source's order.
    Messages,
    /// Internal notes in the source's order.
    Notes,
    /// Names, types and sizes of the files at the messages.
    Attachments,
    /// Names of the ticket's tags.
    Tags,
    /// Definitions of the ticket's custom attributes.
    Metadata,
    /// The ticket's history, event by event; only when it is asked for by name.
    Events,
}

impl Part {
    /// Every part, in the order of the line.
    pub const ALL: [Self; 8] = [
        Self::Conversation,
        Self::Customer,
        Self::Messages,
        Self::Notes,
        Self::Attachments,
        Self::Tags,
        Self::Metadata,
        Self::Events,
    ];

    /// Returns the name that `--only` and a line's `errors` use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Customer => "customer",
            Self::Messages => "messages",
            Self::Notes => "notes",
            Self::Attachments => "attachments",
            Self::Tags => "tags",
            Self::Metadata => "metadata",
            Self::Events => "events",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(part) = Self::ALL.into_iter().find(|part| part.name() == text) {
            return Ok(part);
        }
        // The key of this part in a ticket's line.
        if text == "attributes" {
            return Ok(Self::Metadata);
        }
        Err(Error::config("unknown part of a ticket")
            .with_context("part", text.escape_debug())
            .with_hint(did_you_mean(text, Self::ALL.map(Self::name))))
    }
}

/// A set of parts, never empty; all but the events by default, which few need and which cost a request a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts(u8);

impl Parts {
    /// Every part.
    pub const ALL: Self = Self(u8::MAX >> (8 - Part::ALL.len()));

    /// What is asked for when nothing is named: every part but the events.
    pub const USUAL: Self = Self(Self::ALL.0 & !Part::Events.bit());

    /// Tells whether `part` is asked for.
    #[must_use]
    pub const fn contains(self, part: Part) -> bool {
        self.0 & part.bit() != 0
    }

    /// Returns the parts in the order of the line.
    pub fn iter(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |part| self.contains(*part))
    }

    /// Tells whether the conversation has to be read: for itself, or because it names customer, tags and attributes.
    pub(crate) const fn need_conversation(self) -> bool {
        self.contains(Part::Conversation)
            || self.contains(Part::Customer)
            || self.contains(Part::Tags)
            || self.contains(Part::Metadata)
    }

    /// Tells whether the messages have to be read: for themselves, or because they name the attachments.
    pub(crate) const fn need_messages(self) -> bool {
        self.contains(Part::Messages) || self.contains(Part::Attachments)
    }
}

impl Default for Parts {
    fn default() -> Self {
        Self::USUAL
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.iter().enumerate() {
            write!(f, "{}{part}", if position == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Parts {
    type Err = Error;

    /// Reads names with commas between them, e.g. `messages,notes`.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = Self(0);
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            parts.0 |= name.parse::<Part>()?.bit();
        }
        if parts.0 == 0 {
            return Err(Error::config("no part of a ticket is named").with_hint(format!("the parts are {}", Self::ALL)));
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_read_what_they_write() {
        for bits in 1..=Parts::ALL.0 {
            assert_eq!(Parts(bits).to_string().parse::<Parts>().unwrap(), Parts(bits));
        }
        assert_eq!("notes, messages,notes".parse::<Parts>().unwrap().to_string(), "messages,notes");
    }

    #[test]
    fn unknown_part_names_the_nearest() {
        for (wrong, nearest) in [("mesages", "`messages`"), ("note", "`notes`"), ("metdata", "`metadata`")] {
            let error = wrong.parse::<Parts>().unwrap_err();
            assert!(error.hint().unwrap().contains(nearest), "{wrong}: {error:?}");
        }
        let error = "everything-else".parse::<Parts>().unwrap_err();
        assert!(error.hint().unwrap().starts_with("known are: conversation"), "{error:?}");
        for empty in ["", " , "] {
            assert!(empty.parse::<Parts>().is_err(), "{empty:?}");
        }
    }
}
