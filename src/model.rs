//! The words that every layer shares: streams and record ids.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A kind of record that is extracted into a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Tickets: what Kustomer calls conversations.
    Tickets,
    /// Customers, for their conversation counts.
    Customers,
    /// Times that agents spent on tickets: what Kustomer calls conversation times. Optional.
    TicketTimes,
    /// Agents and machine users.
    Users,
    /// Teams of agents.
    Teams,
    /// Tags by id.
    Tags,
    /// Routing queues.
    Queues,
    /// Brands.
    Brands,
    /// Service level agreements.
    Slas,
    /// Recorded ticket lists: a table that the lake keeps as it keeps those of streams, and that nothing is extracted into,
    /// so it is not one of [`ALL`](Self::ALL).
    TicketLists,
    /// Records of who resolved which tickets: a table of the lake's own, as [`TicketLists`](Self::TicketLists) is.
    Accesses,
    /// Business schedules: hours of each weekday in a time zone, and holidays.
    Schedules,
}

impl Stream {
    /// Every stream, incremental ones first.
    pub const ALL: [Self; 10] = [
        Self::Tickets,
        Self::Customers,
        Self::TicketTimes,
        Self::Users,
        Self::Teams,
        Self::Tags,
        Self::Queues,
        Self::Brands,
        Self::Slas,
        Self::Schedules,
    ];

    /// The tables that the lake keeps of its own doings: nothing is extracted into them.
    pub const OWN: [Self; 2] = [Self::TicketLists, Self::Accesses];

    /// Tells whether the table is one of [`OWN`](Self::OWN).
    #[must_use]
    pub const fn is_own(self) -> bool {
        matches!(self, Self::TicketLists | Self::Accesses)
    }

    /// Returns the name of the stream's table, which is also the name of its schema file.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Tickets => "tickets",
            Self::Customers => "customers",
            Self::TicketTimes => "ticket_times",
            Self::Users => "users",
            Self::Teams => "teams",
            Self::Tags => "tags",
            Self::Queues => "queues",
            Self::Brands => "brands",
            Self::Slas => "slas",
            Self::TicketLists => "ticket_lists",
            Self::Accesses => "accesses",
            Self::Schedules => "schedules",
        }
    }

    /// Finds what is kept in a table: a stream, or what the lake keeps of its own.
    #[must_use]
    pub fn of_table(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::OWN).find(|stream| stream.table() == name)
    }

    /// Returns the name of the table's key column.
    #[must_use]
    pub const fn key_column(self) -> &'static str {
        match self {
            Self::Tickets | Self::TicketLists | Self::Accesses => "ticket_id",
            Self::Customers => "customer_id",
            Self::TicketTimes => "ticket_time_id",
            Self::Users => "user_id",
            Self::Teams => "team_id",
            Self::Tags => "tag_id",
            Self::Queues => "queue_id",
            Self::Brands => "brand_id",
            Self::Slas => "sla_id",
            Self::Schedules => "schedule_id",
        }
    }

    /// Tells whether the stream is read by search in the order of `updated_at`; the others are read whole when they are due.
    #[must_use]
    pub const fn is_incremental(self) -> bool {
        matches!(self, Self::Tickets | Self::Customers | Self::TicketTimes)
    }

    /// Tells whether a run goes on without the stream where the credential may not read it.
    #[must_use]
    pub const fn is_dispensable(self) -> bool {
        matches!(self, Self::Schedules)
    }

    /// Tells whether records never change once they are made: they have no revision, are not deleted, and their
    /// `updated_at` is the time of their creation.
    #[must_use]
    pub const fn is_append_only(self) -> bool {
        matches!(self, Self::TicketTimes)
    }

    /// Tells whether the source keeps records behind the reach of its search (two years) in an archive.
    #[must_use]
    pub const fn has_archive(self) -> bool {
        matches!(self, Self::Tickets | Self::Customers)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.table())
    }
}

impl FromStr for Stream {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|stream| stream.table() == text)
            .ok_or_else(|| Error::config("unknown stream").with_context("stream", text))
    }
}

/// A record's id: a Mongo ObjectId, 12 bytes, written as 24 lower-case hex digits; its first four bytes are the
/// time of creation in seconds since 1970, big-endian, so ids order by creation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 12]);

impl ObjectId {
    /// Makes an id of its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// Returns the id's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// Reads 24 hex digits of either case.
    #[must_use]
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        let digits: &[u8; 24] = hex.try_into().ok()?;
        let mut bytes = [0; 12];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        b'A'..=b'F' => Some(hex - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::from_hex(text.as_bytes())
            .ok_or_else(|| Error::config("not a record id, which has 24 hex digits").with_context("id", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_reads_what_it_writes() {
        let id: ObjectId = "58228e05D4e96711004eccb7".parse().unwrap();
        assert_eq!(id.to_string(), "58228e05d4e96711004eccb7");
        for wrong in ["", "58228e05d4e96711004eccb", "58228e05d4e96711004eccbg", "58228e05d4e96711004eccb70"] {
            assert!(wrong.parse::<ObjectId>().is_err(), "{wrong}");
        }
    }
}
