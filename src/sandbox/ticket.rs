//! What is true of one conversation: what searches filter on, and what other records must agree with.
//!
//! The rest is rolled while the object is written, in [`conversation`](super::conversation).

use super::customer;
use super::dice::{Dice, hash};
use super::ids::{Kind, Namer};
use super::organisation::View;
use super::words;
use crate::model::ObjectId;

const TICKET: u64 = 0x7469_636b;
const STATUS: u64 = 0x7374_6174;

/// Where a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Open,
    Snoozed,
    Done,
}

impl Status {
    /// Returns the service's word.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Snoozed => "snoozed",
            Self::Done => "done",
        }
    }
}

/// The answer of a customer to a satisfaction survey.
#[derive(Debug, Clone, Copy)]
pub(super) struct Satisfaction {
    /// 0 to 10; absent when the survey was not answered.
    pub(super) rating: Option<i64>,
}

/// What is true of one conversation, in one view.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) index: u64,
    pub(super) id: ObjectId,
    /// Whose it was at the start: what was said in it names them.
    pub(super) customer: u64,
    /// Whose it is.
    pub(super) owner: u64,
    pub(super) created: i64,
    /// Last change before the server's start.
    pub(super) settled: i64,
    pub(super) updated: i64,
    /// Until when a response is waited for: while the conversation is not done, the end of the history or later.
    pub(super) awaited: i64,
    pub(super) status: Status,
    pub(super) deleted: bool,
    /// Gone without a trace.
    pub(super) hidden: bool,
    /// Changes since the server's start.
    pub(super) changes: u32,
    /// Changes of the definitions of custom attributes that came before its last change.
    pub(super) definitions: usize,
    pub(super) inbound: bool,
    pub(super) channel: &'static str,
    pub(super) priority: i64,
    pub(super) tier: Option<&'static str>,
    pub(super) team: Option<u64>,
    pub(super) agent: Option<u64>,
    pub(super) messages: u32,
    pub(super) notes: u32,
    pub(super) reopens: u32,
    pub(super) dones: u32,
    pub(super) snoozes: u32,
    pub(super) tags: Vec<u64>,
    pub(super) queue: Option<u64>,
    pub(super) brand: u64,
    pub(super) sla: Option<u64>,
    pub(super) response_ms: Option<i64>,
    pub(super) satisfaction: Option<Satisfaction>,
    pub(super) lang: &'static str,
    pub(super) polarity: Option<i64>,
}

/// Returns the status that a conversation has before any change: what is old is mostly done.
pub(super) fn settled_status(seed: u64, index: u64, count: u64) -> Status {
    let mut dice = Dice::new(seed, STATUS, index);
    let recent = index >= count - count / 20;
    match (dice.below(100), recent) {
        (0..=34, true) | (0..=3, false) => Status::Open,
        (35..=49, true) | (4..=5, false) => Status::Snoozed,
        _ => Status::Done,
    }
}

impl Ticket {
    /// Computes conversation `index`.
    pub(super) fn new(view: &View<'_>, index: u64) -> Self {
        let org = view.org();
        let (created, settled) = org.ticket_times(index);
        let state = view.ticket_state(index);
        let updated = state.map_or(settled, |state| state.at);
        let customer = org.owner_of(index);
        let tier = customer::tier(org.namer.seed, customer);
        let mut dice = Dice::new(org.namer.seed, TICKET, index);
        let vip = tier == Some("vip");
        let base = settled_status(org.namer.seed, index, org.tickets());
        let status = state.map_or(base, |state| state.status);
        let inbound = !dice.chance(12);
        let rolled = dice.between(1, 6) as u32;
        let messages = org.namer.thread.map_or(rolled, |thread| thread.messages);
        let reopens = if base == Status::Done && !dice.chance(if vip { 45 } else { 75 })
            || dice.chance(if vip { 30 } else { 6 })
        {
            dice.between(1, 4) as u32
        } else {
            0
        };
        let team =
            dice.chance(88).then(|| if vip && dice.chance(60) { 3 } else { dice.below(words::TEAMS.len() as u64) });
        let unassigned = base != Status::Done && dice.chance(40);
        let agent = team.filter(|_| !unassigned).map(|team| {
            let members = org.members(team);
            members
                [(dice.below(members.len() as u64) * dice.below(members.len() as u64) / members.len() as u64) as usize]
        });
        let mut tags: Vec<u64> = (0..dice.below(5)).map(|_| dice.below(words::TAGS.len() as u64)).collect();
        tags.sort_unstable();
        tags.dedup();
        let waited = (1 << dice.below(11)) * 60_000 + dice.below(60_000) as i64;
        let response_ms = (messages > 1 && inbound).then(|| waited.min((settled - created) / 2));
        let satisfaction = (base == Status::Done && dice.chance(35)).then(|| Satisfaction {
            rating: dice
                .chance(60)
                .then(|| if dice.chance(25) { dice.below(4) as i64 } else { dice.between(5, 10) as i64 }),
        });
        let channels = if dice.chance(70) { &words::CHANNELS[..3] } else { words::CHANNELS };
        let channel = dice.pick(channels);
        let thread = org.namer.thread;
        Self {
            index,
            id: org.namer.id(Kind::Ticket, index, created),
            customer,
            owner: view.moved_to(index).unwrap_or(customer),
            created,
            settled,
            updated,
            awaited: if status == Status::Done { updated } else { updated.max(org.end) },
            status,
            deleted: state.is_some_and(|state| state.deleted),
            hidden: view.is_hidden(index),
            changes: state.map_or(0, |state| state.changes),
            definitions: state.map_or(0, |state| state.definitions),
            inbound,
            channel,
            priority: if vip { dice.between(4, 5) as i64 } else { dice.between(1, 4) as i64 },
            tier,
            team,
            agent,
            messages,
            notes: {
                let rolled = dice.below(3) as u32;
                thread.map_or(rolled, |thread| thread.notes)
            },
            reopens: reopens + state.map_or(0, |state| state.reopens),
            dones: u32::from(base == Status::Done) + reopens + state.map_or(0, |state| state.dones),
            snoozes: if base == Status::Snoozed { 1 } else { dice.below(9) as u32 / 7 },
            tags,
            queue: dice.chance(90).then(|| if vip { 4 } else { dice.below(words::QUEUES.len() as u64) }),
            brand: dice.below(10) * 4 / 14,
            sla: dice.chance(85).then(|| match tier {
                Some("vip") => 0,
                Some("gold") => 1,
                Some("silver") => 2,
                _ => dice.between(2, 3),
            }),
            response_ms,
            satisfaction,
            lang: dice.pick(words::LANGUAGES),
            polarity: dice.chance(70).then(|| dice.below(3) as i64 - 1),
        }
    }

    /// Tells whether the API no longer shows it.
    pub(super) const fn is_gone(&self) -> bool {
        self.deleted || self.hidden
    }

    /// Returns the record's revision number.
    pub(super) const fn rev(&self) -> i64 {
        (self.messages + self.notes + self.snoozes + 2 + self.changes) as i64
    }

    /// Tells whether message `number` came from us.
    pub(super) const fn is_outbound(&self, number: u32) -> bool {
        (number % 2 == 1) == self.inbound
    }

    /// Returns how many messages came from us.
    pub(super) const fn outbound(&self) -> u32 {
        if self.inbound { self.messages / 2 } else { self.messages.div_ceil(2) }
    }

    /// Returns the number of the last message from the customer.
    pub(super) fn last_inbound(&self) -> Option<u32> {
        (0..self.messages).rev().find(|number| !self.is_outbound(*number))
    }

    /// Returns the number of the last message from us.
    pub(super) fn last_outbound(&self) -> Option<u32> {
        (0..self.messages).rev().find(|number| self.is_outbound(*number))
    }

    /// Returns when message `number` was sent.
    pub(super) fn sent_at(&self, number: u32) -> i64 {
        let answered = self.created + self.response_ms.unwrap_or((self.settled - self.created) / 4);
        match number {
            0 => self.created,
            1 => answered,
            _ => answered + (self.settled - answered) * i64::from(number - 1) / i64::from(self.messages),
        }
    }

    /// Returns when the conversation was last closed before the server's start.
    pub(super) fn closed_at(&self) -> i64 {
        self.settled - (self.settled - self.created) / 20
    }

    /// Tells whether the first response came later than the SLA allows, or is still due; ours needs none.
    pub(super) fn breached(&self) -> Option<bool> {
        let (_, target, _) = words::SLAS[self.sla? as usize];
        Some(match self.response_ms {
            Some(ms) => ms > target,
            None => self.inbound && self.awaited - self.created > target,
        })
    }

    /// Returns the number of the order that the conversation is about.
    pub(super) fn order(&self, seed: u64) -> u64 {
        10_000_000 + hash(seed, 0x006f_7264, self.index) % 89_999_999
    }

    /// Returns the subject; some have none.
    pub(super) fn subject(&self, seed: u64) -> Option<String> {
        let mut dice = Dice::new(seed, 0x7375_626a, self.index);
        match dice.below(100) {
            0..=2 => None,
            3 | 4 => Some(String::new()),
            _ => Some(format!("{} #{} – {}", dice.pick(words::SUBJECTS), self.order(seed), dice.pick(words::PRODUCTS))),
        }
    }

    /// Returns the id of message `number`.
    pub(super) fn message_id(&self, namer: &Namer, number: u32) -> ObjectId {
        namer.id(Kind::Message, namer.message_key(self.index, number), self.sent_at(number))
    }

    /// Returns the remark in a custom attribute, with personal values, where the conversation has one.
    pub(super) fn remark(&self, seed: u64) -> Option<String> {
        Dice::new(seed, 0x7265_6d61, self.index).chance(30).then(|| {
            let name = customer::name(seed, self.customer);
            format!("{name} asked for a call at {}\nafter 18:00", customer::phone(seed, self.customer))
        })
    }

    /// Returns the external id, which here is a mail's, with the customer's address in it.
    pub(super) fn external_id(&self, seed: u64) -> Option<String> {
        (self.index % 4 == 1).then(|| format!("ticket-{}:{}", self.order(seed), customer::email(seed, self.customer)))
    }
}
