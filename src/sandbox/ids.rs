//! Record ids: Mongo ObjectIds from which kind and number are read back by arithmetic.
//!
//! ```text
//! ┌──────────────┬──────────────────┬────────────────────────┐
//! │ created, s   │ seeded, per kind │ number                 │   all big-endian
//! │ 4 bytes      │ 3 bytes          │ 5 bytes                │
//! └──────────────┴──────────────────┴────────────────────────┘
//! ```
//!
//! Within a kind, ids order by creation and then by number, as real ones do.

use super::Thread;
use super::dice::hash;
use crate::model::ObjectId;

const DAY_MS: i64 = 86_400_000;

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Org = 1,
    User,
    Team,
    Tag,
    Queue,
    Brand,
    Sla,
    SlaVersion,
    Customer,
    Ticket,
    Message,
    Note,
    Attachment,
    Form,
    Order,
    Token,
    Merge,
    Time,
    Schedule,
    Holiday,
    Event,
}

/// Makes and reads ids.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namer {
    /// The organisation's seed.
    pub(super) seed: u64,
    /// When the organisation was founded, in ms since 1970.
    pub(super) founded: i64,
    /// What hangs on every conversation, where a setting says so.
    pub(super) thread: Option<Thread>,
    /// The length of every file, where a setting says so.
    pub(super) attachment_bytes: Option<u64>,
}

impl Namer {
    /// Returns the id of record `number` of a kind.
    pub(super) fn id(&self, kind: Kind, number: u64, created_ms: i64) -> ObjectId {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&((created_ms / 1000) as u32).to_be_bytes());
        bytes[4..7].copy_from_slice(&self.mark(kind));
        bytes[7..].copy_from_slice(&number.to_be_bytes()[3..]);
        ObjectId::from_bytes(bytes)
    }

    /// Returns the number in an id of a kind; the caller compares the id with the one that the number has.
    pub(super) fn number(&self, kind: Kind, id: ObjectId) -> Option<u64> {
        let bytes = id.as_bytes();
        if bytes[4..7] != self.mark(kind) {
            return None;
        }
        let mut number = [0; 8];
        number[3..].copy_from_slice(&bytes[7..]);
        Some(u64::from_be_bytes(number))
    }

    /// Returns how many bits of a number tell the messages of a conversation apart, the files of a message, its notes and
    /// its events. Where all conversations are as long as a setting says, fewer of them have room.
    const fn places(&self) -> [u32; 4] {
        if self.thread.is_some() { [11, 7, 11, 13] } else { [3, 3, 2, 6] }
    }

    /// Returns the number of a message among all.
    pub(super) const fn message_key(&self, ticket: u64, message: u32) -> u64 {
        ticket << self.places()[0] | message as u64
    }

    /// Returns the conversation and the place in it of a message.
    pub(super) const fn message_place(&self, key: u64) -> (u64, u32) {
        let bits = self.places()[0];
        (key >> bits, (key & ((1 << bits) - 1)) as u32)
    }

    /// Returns the number of a file among all.
    pub(super) const fn file_key(&self, ticket: u64, message: u32, file: u64) -> u64 {
        self.message_key(ticket, message) << self.places()[1] | file
    }

    /// Returns the number of the message that a file is on.
    pub(super) const fn message_of_file(&self, key: u64) -> u64 {
        key >> self.places()[1]
    }

    /// Returns the number of a note among all.
    pub(super) const fn note_key(&self, ticket: u64, note: u32) -> u64 {
        ticket << self.places()[2] | note as u64
    }

    /// Returns the conversation and the place in it of a note.
    pub(super) const fn note_place(&self, key: u64) -> (u64, u32) {
        let bits = self.places()[2];
        (key >> bits, (key & ((1 << bits) - 1)) as u32)
    }

    /// Returns the number of an event among all.
    pub(super) const fn event_key(&self, ticket: u64, event: u64) -> u64 {
        ticket << self.places()[3] | event
    }

    /// Returns the organisation's id.
    pub(super) fn org(&self) -> ObjectId {
        self.id(Kind::Org, 1, self.founded)
    }

    /// Returns the id of a user.
    pub(super) fn user(&self, number: u64) -> ObjectId {
        self.id(Kind::User, number, self.founded + number as i64 * 9 * DAY_MS + 4_711)
    }

    /// Returns the id of a team.
    pub(super) fn team(&self, number: u64) -> ObjectId {
        self.id(Kind::Team, number, self.founded + number as i64 * DAY_MS)
    }

    /// Returns the id of a tag.
    pub(super) fn tag(&self, number: u64) -> ObjectId {
        self.id(Kind::Tag, number, self.founded + number as i64 * 3 * DAY_MS)
    }

    /// Returns the id of a queue.
    pub(super) fn queue(&self, number: u64) -> ObjectId {
        self.id(Kind::Queue, number, self.founded + number as i64 * 5 * DAY_MS)
    }

    /// Returns the id of a brand.
    pub(super) fn brand(&self, number: u64) -> ObjectId {
        self.id(Kind::Brand, number, self.founded + number as i64 * 5 * DAY_MS)
    }

    /// Returns the id of an SLA.
    pub(super) fn sla(&self, number: u64) -> ObjectId {
        self.id(Kind::Sla, number, self.founded)
    }

    /// Returns the id of a business schedule.
    pub(super) fn schedule(&self, number: u64) -> ObjectId {
        self.id(Kind::Schedule, number, self.founded + number as i64 * DAY_MS)
    }

    /// Returns the id of a holiday of a business schedule.
    pub(super) fn holiday(&self, number: u64) -> ObjectId {
        self.id(Kind::Holiday, number, self.founded + 1000)
    }

    /// Returns the id of an SLA's only version.
    pub(super) fn sla_version(&self, number: u64) -> ObjectId {
        self.id(Kind::SlaVersion, number, self.founded + 1000)
    }

    fn mark(&self, kind: Kind) -> [u8; 3] {
        let bytes = hash(self.seed, 0x006d_6172_6b00, 0).to_be_bytes();
        [bytes[0], bytes[1] ^ (kind as u8 - 1) >> 4, (bytes[2] & 0xf0) ^ (kind as u8 & 0x0f)]
    }
}
