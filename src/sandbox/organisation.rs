//! The synthetic organisation: every record is a function of the seed and its number, so any number of them costs no memory.
//!
//! What changes while the server runs stands in an overlay: for each changed record, its states in order of time. A
//! [`View`] says which of them count: search sees what the index lag lets through, a record asked by id is seen as it is.
//! Every change is later than every computed `updated_at`, so in that order the overlay follows the computed records.
//!
//! Tickets belong to customers by a permutation: customer `c` owns a range of places in it, some ranges wide, some empty,
//! so that a customer's tickets, and with them the conversation counts, are found by arithmetic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde_json::Value;

use super::definitions::Definition;
use super::dice::{Dice, Shuffle, hash};
use super::ids::{Kind, Namer};
use super::json::Json;
use super::merges::{self, Merge};
use super::spoil::Spoil;
use super::staff::{Record, Staff};
use super::ticket::{Status, Ticket};
use super::timeline::Timeline;
use super::{SandboxSettings, customer, thread, ticket, times};
use crate::clock::SharedClock;
use crate::model::ObjectId;

/// Tickets that each of 64 neighbouring customers has when there are three times as many tickets as customers.
const WEIGHTS: [u64; 64] = [
    2, 1, 3, 0, 4, 1, 2, 60, 1, 3, 2, 0, 5, 1, 2, 3, 1, 8, 2, 1, 3, 0, 2, 4, 1, 2, 1, 3, 12, 1, 2, 0, 3, 1, 2, 4, 1, 2,
    3, 1, 5, 2, 0, 1, 2, 3, 1, 20, 2, 1, 3, 2, 1, 4, 0, 2, 1, 3, 2, 1, 6, 2, 1, 3,
];

/// What is true of a record, for a test to compare with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Truth {
    /// Its id, hex.
    pub id: String,
    /// `updatedAt`, milliseconds since 1970.
    pub updated_at_ms: i64,
    /// Its revision.
    pub rev: i64,
    /// Whether it is deleted.
    pub deleted: bool,
    /// A ticket's status; empty for a customer.
    pub status: &'static str,
    /// The id of a ticket's customer; a customer's own.
    pub customer_id: String,
    /// A ticket's messages, notes and reopenings; a customer's open, snoozed and done tickets.
    pub counts: [i64; 3],
}

/// What a change made of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    /// When, in ms since 1970; the record's `updated_at`.
    pub(super) at: i64,
    /// Changes since the server's start.
    pub(super) changes: u32,
    pub(super) status: Status,
    pub(super) reopens: u32,
    pub(super) dones: u32,
    pub(super) deleted: bool,
    /// How many changes of the definitions of custom attributes came before it.
    pub(super) definitions: usize,
}

/// The states of changed records, by number.
pub(super) type Overlay = BTreeMap<u64, Vec<State>>;

#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) tickets: Overlay,
    pub(super) customers: Overlay,
    /// Conversations that merges gave to another customer: since when, to whom, in order of time.
    pub(super) owners: BTreeMap<u64, Vec<(i64, u64)>>,
    pub(super) merges: Vec<Merge>,
    /// Conversations that are gone without a trace.
    pub(super) hidden: BTreeSet<u64>,
    /// Changes of the definitions of custom attributes, in order of time.
    pub(super) definitions: Vec<Definition>,
    /// Conversations that the API sends with something wrong.
    pub(super) spoiled: BTreeMap<u64, Spoil>,
    /// Conversation times that changes made: whose and when, in order of time.
    times: Vec<(u64, i64)>,
    touched: u64,
}

/// A synthetic organisation and, for tests, the truth about it.
pub struct Organisation {
    pub(super) namer: Namer,
    pub(super) staff: Staff,
    pub(super) start: i64,
    /// The last instant of the history: deadlines before it have passed.
    pub(super) end: i64,
    pub(super) ticket_times: Timeline,
    pub(super) customer_times: Timeline,
    owners: Shuffle,
    weight_before: [u64; 65],
    pub(super) changes: RwLock<Changes>,
    clock: SharedClock,
    index_lag_ms: i64,
}

impl fmt::Debug for Organisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Organisation")
            .field("seed", &self.namer.seed)
            .field("tickets", &self.tickets())
            .field("customers", &self.customers())
            .finish_non_exhaustive()
    }
}

impl Organisation {
    pub(super) fn new(settings: &SandboxSettings, clock: SharedClock) -> Self {
        let quarter_hour = 15 * 60_000;
        let end = clock.now().as_millisecond() - quarter_hour;
        let start = end - ms(settings.history).max(3_600_000);
        let seed = settings.seed;
        let namer = Namer {
            seed,
            founded: start - 1500 * 86_400_000,
            thread: settings.thread,
            attachment_bytes: settings.attachment_bytes,
        };
        let mut weight_before = [0; 65];
        for (place, weight) in WEIGHTS.iter().enumerate() {
            weight_before[place + 1] = weight_before[place] + weight;
        }
        let customers = if settings.customers == 0 { settings.tickets / 3 } else { settings.customers };
        // Someone must own the tickets, and the weights of the first three are not all 0.
        let customers = if settings.tickets > 0 { customers.max(3) } else { customers };
        Self {
            namer,
            staff: Staff::new(&namer, &settings.email),
            start,
            end,
            ticket_times: Timeline::of_tickets(hash(seed, 1, 1), settings.tickets, start, end, settings.ties)
                .with_ties(&settings.tie_sizes),
            customer_times: Timeline::of_customers(hash(seed, 2, 2), customers, start, end, settings.ties),
            owners: Shuffle::new(settings.tickets, hash(seed, 3, 3)),
            weight_before,
            changes: RwLock::new(Changes { spoiled: settings.bad_records.clone(), ..Changes::default() }),
            clock,
            index_lag_ms: ms(settings.index_lag),
        }
    }

    /// Returns how many conversations there are, deleted ones too.
    pub fn tickets(&self) -> u64 {
        self.ticket_times.count()
    }

    /// Returns how many customers there are.
    pub fn customers(&self) -> u64 {
        self.customer_times.count()
    }

    /// Returns conversation `number` as it is now: the object that the API sends.
    pub fn conversation(&self, number: u64) -> Value {
        let view = self.live();
        value(|json| Ticket::new(&view, number).write(&view, json))
    }

    /// Returns customer `number` as it is now.
    pub fn customer(&self, number: u64) -> Value {
        let view = self.live();
        value(|json| customer::write(&view, number, json))
    }

    /// Returns how many conversation times there are.
    pub fn conversation_times(&self) -> u64 {
        times::count(&self.live())
    }

    /// Returns conversation time `number`, by time of creation: the object that the API sends.
    pub fn conversation_time(&self, number: u64) -> Value {
        let view = self.live();
        value(|json| times::write(&view, number, json))
    }

    /// Returns user `number`.
    pub fn user(&self, number: u64) -> Value {
        self.staff.users.get(number as usize).map_or(Value::Null, parsed)
    }

    /// Returns every user, machine users last.
    pub fn users(&self) -> Vec<Value> {
        self.staff.users.iter().map(parsed).collect()
    }

    /// Returns every team.
    pub fn teams(&self) -> Vec<Value> {
        self.staff.teams.iter().map(parsed).collect()
    }

    /// Returns every tag, deleted ones too.
    pub fn tags(&self) -> Vec<Value> {
        self.staff.tags.iter().map(parsed).collect()
    }

    /// Returns every queue.
    pub fn queues(&self) -> Vec<Value> {
        self.staff.queues.iter().map(parsed).collect()
    }

    /// Returns every brand.
    pub fn brands(&self) -> Vec<Value> {
        self.staff.brands.iter().map(parsed).collect()
    }

    /// Returns every SLA.
    pub fn slas(&self) -> Vec<Value> {
        self.staff.slas.iter().map(parsed).collect()
    }

    /// Returns every business schedule.
    pub fn schedules(&self) -> Vec<Value> {
        self.staff.schedules.iter().map(parsed).collect()
    }

    /// Returns the messages of conversation `number`, oldest first.
    pub fn messages(&self, number: u64) -> Vec<Value> {
        let view = self.live();
        let ticket = Ticket::new(&view, number);
        (0..ticket.messages)
            .map(|message| value(|json| thread::write_message(&view, &ticket, message, false, json)))
            .collect()
    }

    /// Returns the notes of conversation `number`, oldest first.
    pub fn notes(&self, number: u64) -> Vec<Value> {
        let view = self.live();
        let ticket = Ticket::new(&view, number);
        (0..ticket.notes).map(|note| value(|json| thread::write_note(&view, &ticket, note, json))).collect()
    }

    /// Returns the number of the conversation with this id.
    pub fn conversation_number(&self, id: &str) -> Option<u64> {
        self.ticket_number(ObjectId::from_hex(id.as_bytes())?)
    }

    /// Changes conversations, and with them their customers: `updated_at` is now, `rev`, status and counts move.
    pub fn touch(&self, numbers: &[u64]) {
        self.change(numbers, false);
    }

    /// Deletes conversations: from now on only a search with `includeDeleted` shows them.
    pub fn delete(&self, numbers: &[u64]) {
        self.change(numbers, true);
    }

    /// Returns `count` conversations that no call of this function returned before, until all were.
    pub fn pick(&self, count: u64) -> Vec<u64> {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        let shuffle = Shuffle::new(self.tickets(), hash(self.namer.seed, 4, 4));
        let first = changes.touched;
        changes.touched += count.min(self.tickets());
        (first..changes.touched).map(|place| shuffle.forward(place % self.tickets())).collect()
    }

    /// Returns what is true of conversation `number` now, without making the whole object.
    pub fn ticket_truth(&self, number: u64) -> Truth {
        let view = self.live();
        let ticket = Ticket::new(&view, number);
        Truth {
            id: ticket.id.to_string(),
            updated_at_ms: ticket.updated,
            rev: ticket.rev(),
            deleted: ticket.deleted,
            status: ticket.status.name(),
            customer_id: self.customer_id(ticket.customer).to_string(),
            counts: [i64::from(ticket.messages), i64::from(ticket.notes), i64::from(ticket.reopens)],
        }
    }

    /// Returns what is true of customer `number` now: the counts are those of open, snoozed and done conversations.
    pub fn customer_truth(&self, number: u64) -> Truth {
        let view = self.live();
        let state = view.customer_state(number);
        let settled = self.customer_times.updated(self.customer_times.rank(number));
        let id = self.customer_id(number).to_string();
        Truth {
            updated_at_ms: state.map_or(settled, |state| state.at),
            rev: 3 + i64::from(state.map_or(0, |state| state.changes)),
            deleted: state.is_some_and(|state| state.deleted),
            status: "",
            customer_id: id.clone(),
            counts: customer::counts(&view, &view.owned_by(number)),
            id,
        }
    }

    /// Changes `count` records, which `request` decides: tickets with their customers, now and then a customer alone, and
    /// one in 16 is the deletion of a ticket.
    pub(super) fn drift(&self, request: u64, count: u32) {
        for turn in 0..u64::from(count) {
            let mut dice = Dice::new(self.namer.seed ^ request, 0x6472_6966, turn);
            let number = dice.below(self.tickets());
            match dice.below(16) {
                0 => self.delete(&[number]),
                1..=3 => {
                    let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
                    merges::touch_customer(&mut changes, dice.below(self.customers()), self.now_ms(), false);
                }
                _ => self.touch(&[number]),
            }
        }
    }

    /// Returns the values planted in conversation `number` and its customer that redaction must keep out of a lake.
    pub fn needles(&self, number: u64) -> Vec<String> {
        let view = self.live();
        let ticket = Ticket::new(&view, number);
        let seed = self.namer.seed;
        let mut needles = vec![
            ticket.id.to_string(),
            self.customer_id(ticket.owner).to_string(),
            customer::name(seed, ticket.customer),
            customer::email(seed, ticket.customer),
            customer::phone(seed, ticket.customer),
            customer::external_id(seed, ticket.customer),
            thread::message_text(&self.namer, &ticket, ticket.messages - 1),
        ];
        needles.extend(ticket.subject(seed).filter(|subject| !subject.is_empty()));
        needles.extend(ticket.external_id(seed));
        needles.extend(ticket.remark(seed));
        needles.extend(ticket.deflected_query(seed));
        needles.extend(ticket.agent.and_then(|agent| self.staff.user_names.get(agent as usize).cloned()));
        // A multi-line text is stored with its line ends escaped or not: look for its longest line.
        for needle in &mut needles {
            if let Some(longest) = needle.lines().max_by_key(|line| line.len()) {
                *needle = longest.to_owned();
            }
        }
        needles
    }

    /// Returns a view of the records as they are now.
    pub(super) fn live(&self) -> View<'_> {
        View { org: self, changes: self.changes.read().unwrap_or_else(PoisonError::into_inner), cut: i64::MAX }
    }

    /// Returns a view of the records as the search index shows them.
    pub(super) fn indexed(&self) -> View<'_> {
        let cut = if self.index_lag_ms == 0 { i64::MAX } else { self.now_ms() - self.index_lag_ms };
        View { cut, ..self.live() }
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    pub(super) fn members(&self, team: u64) -> &[u64] {
        &self.staff.members[team as usize]
    }

    /// Returns when a conversation was created and last changed before the server's start.
    pub(super) fn ticket_times(&self, index: u64) -> (i64, i64) {
        (self.ticket_times.created(index), self.ticket_times.updated(self.ticket_times.rank(index)))
    }

    pub(super) fn ticket_id(&self, index: u64) -> ObjectId {
        self.namer.id(Kind::Ticket, index, self.ticket_times.created(index))
    }

    pub(super) fn ticket_number(&self, id: ObjectId) -> Option<u64> {
        let index = self.namer.number(Kind::Ticket, id)?;
        (index < self.tickets() && self.ticket_id(index) == id).then_some(index)
    }

    pub(super) fn customer_id(&self, index: u64) -> ObjectId {
        self.namer.id(Kind::Customer, index, self.customer_times.created(index))
    }

    pub(super) fn customer_number(&self, id: ObjectId) -> Option<u64> {
        let index = self.namer.number(Kind::Customer, id)?;
        (index < self.customers() && self.customer_id(index) == id).then_some(index)
    }

    /// Returns whose conversation `index` was at the start.
    pub(super) fn owner_of(&self, index: u64) -> u64 {
        let place = self.owners.forward(index);
        let (mut low, mut high) = (0, self.customers());
        // The last customer whose range begins at or before the place; empty ranges before it begin there too.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.first_place(middle) <= place {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Returns the conversations that a customer had at the start, oldest first.
    pub(super) fn owned_by(&self, customer: u64) -> Vec<u64> {
        let places = self.first_place(customer)..self.first_place(customer + 1);
        let mut owned: Vec<u64> = places.map(|place| self.owners.backward(place)).collect();
        owned.sort_unstable();
        owned
    }

    fn first_place(&self, customer: u64) -> u64 {
        let weight = |customer: u64| {
            u128::from(customer / 64) * u128::from(self.weight_before[64])
                + u128::from(self.weight_before[(customer % 64) as usize])
        };
        let all = weight(self.customers()).max(1);
        (u128::from(self.tickets()) * weight(customer) / all) as u64
    }

    fn change(&self, numbers: &[u64], delete: bool) {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        // Looked up when nobody reads any more: no search has seen a later moment without this change.
        let at = self.now_ms();
        let definitions = changes.definitions.len();
        for number in numbers.iter().copied().filter(|number| *number < self.tickets()) {
            let states = changes.tickets.entry(number).or_default();
            let last = states.last().copied().unwrap_or_else(|| State {
                at: 0,
                changes: 0,
                status: ticket::settled_status(self.namer.seed, number, self.tickets()),
                reopens: 0,
                dones: 0,
                deleted: false,
                definitions,
            });
            let mut next =
                State { at, changes: last.changes + 1, deleted: last.deleted || delete, definitions, ..last };
            if !delete {
                if last.status == Status::Done {
                    next.status = Status::Open;
                    next.reopens += 1;
                } else {
                    next.status = Status::Done;
                    next.dones += 1;
                }
            }
            states.push(next);
            let owner = changes.owners.get(&number).and_then(|moves| moves.last());
            let owner = owner.map_or_else(|| self.owner_of(number), |(_, owner)| *owner);
            let states = changes.customers.entry(owner).or_default();
            let last = states.last().copied().unwrap_or(State { changes: 0, deleted: false, ..next });
            states.push(State { at, changes: last.changes + 1, definitions, ..last });
            if !delete {
                changes.times.push((number, at));
            }
        }
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

fn value(write: impl FnOnce(&mut Json)) -> Value {
    let mut json = Json::with_capacity(4096);
    write(&mut json);
    serde_json::from_slice(&json.into_bytes()).unwrap_or_default()
}

fn parsed(record: &Record) -> Value {
    serde_json::from_slice(&record.json).unwrap_or_default()
}

/// The organisation at one moment, for one request.
pub(super) struct View<'a> {
    org: &'a Organisation,
    changes: RwLockReadGuard<'a, Changes>,
    cut: i64,
}

impl<'a> View<'a> {
    pub(super) const fn org(&self) -> &'a Organisation {
        self.org
    }

    /// Returns the visible state of a changed conversation.
    pub(super) fn ticket_state(&self, index: u64) -> Option<&State> {
        self.visible(self.changes.tickets.get(&index)?)
    }

    /// Returns the visible state of a changed customer.
    pub(super) fn customer_state(&self, index: u64) -> Option<&State> {
        self.visible(self.changes.customers.get(&index)?)
    }

    /// Returns whose conversation `index` is, if a merge moved it.
    pub(super) fn moved_to(&self, index: u64) -> Option<u64> {
        self.moved(self.changes.owners.get(&index)?)
    }

    /// Returns whose conversation `index` is.
    pub(super) fn owner_of(&self, index: u64) -> u64 {
        self.moved_to(index).unwrap_or_else(|| self.org.owner_of(index))
    }

    /// Returns the conversations of a customer, oldest first, without the hidden ones.
    pub(super) fn owned_by(&self, customer: u64) -> Vec<u64> {
        let mut owned = self.org.owned_by(customer);
        if !self.changes.owners.is_empty() {
            owned.retain(|index| self.moved_to(*index).is_none());
            let moved = self.changes.owners.iter();
            owned.extend(moved.filter(|(_, moves)| self.moved(moves) == Some(customer)).map(|(index, _)| *index));
            owned.sort_unstable();
        }
        owned.retain(|index| !self.is_hidden(*index));
        owned
    }

    /// Tells whether a conversation is gone without a trace.
    pub(super) fn is_hidden(&self, index: u64) -> bool {
        !self.changes.hidden.is_empty() && self.changes.hidden.contains(&index)
    }

    /// Returns the conversations that are gone without a trace, ascending.
    pub(super) fn hidden(&self) -> impl Iterator<Item = u64> {
        self.changes.hidden.iter().copied()
    }

    /// Returns the visible conversation times that changes made: whose and when, in order of time.
    pub(super) fn late_times(&self) -> &[(u64, i64)] {
        let times = &self.changes.times;
        &times[..times.partition_point(|(_, at)| *at <= self.cut)]
    }

    /// Returns the first changes of the definitions of custom attributes.
    pub(super) fn definitions(&self, count: usize) -> &[Definition] {
        let all = &self.changes.definitions;
        &all[..count.min(all.len())]
    }

    /// Returns what is wrong with a conversation that the API sends.
    pub(super) fn spoiled(&self, index: u64) -> Option<Spoil> {
        if self.changes.spoiled.is_empty() { None } else { self.changes.spoiled.get(&index).copied() }
    }

    /// Returns the merges of customers, oldest first.
    pub(super) fn merges(&self) -> &[Merge] {
        &self.changes.merges
    }

    /// Returns the visible states of all changed conversations.
    pub(super) fn changed_tickets(&self) -> impl Iterator<Item = (u64, &State)> {
        self.changes.tickets.iter().filter_map(|(index, states)| Some((*index, self.visible(states)?)))
    }

    /// Returns the visible states of all changed customers.
    pub(super) fn changed_customers(&self) -> impl Iterator<Item = (u64, &State)> {
        self.changes.customers.iter().filter_map(|(index, states)| Some((*index, self.visible(states)?)))
    }

    fn moved(&self, moves: &[(i64, u64)]) -> Option<u64> {
        moves.iter().rev().find(|(since, _)| *since <= self.cut).map(|(_, owner)| *owner)
    }

    fn visible<'s>(&self, states: &'s [State]) -> Option<&'s State> {
        states.iter().rev().find(|state| state.at <= self.cut)
    }
}
