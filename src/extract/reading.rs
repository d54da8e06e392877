//! What one page says of the range it was asked for: which of its records prove what.
//!
//! A page of a range is the first records of it, in the order of the index. Their own `updated_at` may tell something else:
//! a record that changed after it was indexed carries a later time than it was found by. So the place on the page decides
//! where a record belongs, and only times that stand in order mark how far a page reaches.
//!
//! A page that holds as many records as the range has is *whole*: total and records come from one moment, so that nothing that
//! changes can come between, and no order is needed.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::extract::prove::Proof;
use crate::extract::walk::Page;
use crate::model::ObjectId;
use crate::policy::{RecordKey, Rejected};

/// What stands for a record that decoded and cannot be placed in time.
const NO_TIME: &str = "record has no valid `updatedAt`";

/// A page, by place.
#[derive(Debug)]
pub(super) struct Reading {
    from_ms: i64,
    to_ms: i64,
    is_full: bool,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The time, where it lies in the range and stands in order.
    at_ms: Option<i64>,
    what: What,
}

#[derive(Debug)]
enum What {
    Record(RecordKey),
    Rejected(Rejected),
}

/// What the records of a stretch add up to.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Distinct records that decoded.
    pub(super) proof: Proof,
    /// Records that did not decode.
    pub(super) rejected: Vec<Rejected>,
    /// Where those are, as narrow as is known.
    pub(super) holes_ms: Vec<(i64, i64)>,
    ids: HashSet<ObjectId>,
}

impl Tally {
    /// Returns how many records of the source's count it stands for.
    pub(super) fn accounted(&self) -> u64 {
        self.proof.distinct + self.rejected.len() as u64
    }
}

impl Reading {
    /// Reads a page of `[from, to)`.
    ///
    /// # Errors
    ///
    /// `Data` when so many records are out of order that the source does not sort at all.
    pub(super) fn new<R>(page: &Page<R>, from_ms: i64, to_ms: i64) -> Result<Self> {
        let mut rejected = page.rejected.iter().peekable();
        let mut records = page.records.iter();
        let count = page.records.len() + page.rejected.len();
        let mut entries = Vec::with_capacity(count);
        for position in 0..count {
            let what = match rejected.next_if(|rejected| rejected.position <= position) {
                Some(rejected) => What::Rejected(rejected.clone()),
                None => match (records.next(), rejected.peek()) {
                    (Some(record), _) => placed(position, *record),
                    (None, Some(_)) => What::Rejected(rejected.next().cloned().unwrap_or_else(|| nameless(position))),
                    (None, None) => break,
                },
            };
            let at_ms = match &what {
                What::Record(record) => record.updated_at_ms,
                What::Rejected(rejected) => rejected.updated_at_ms,
            };
            entries.push(Entry { at_ms: at_ms.filter(|at| (from_ms..to_ms).contains(at)), what });
        }
        let disordered = keep_order(&mut entries);
        if disordered > 8 + count / 10 {
            return Err(Error::data("source does not return records in the order of `updated_at` that was asked for")
                .with_context("records", count)
                .with_context("out of order", disordered));
        }
        let is_full = count as u64 >= u64::from(page.size);
        Ok(Self { from_ms, to_ms, is_full, entries })
    }

    /// Tells whether the page has all the records that it may hold.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Tells whether so much is missing that the page was cut short rather than a record withheld.
    pub(super) const fn is_cut_short(&self, total: u64) -> bool {
        let records = self.entries.len() as u64;
        records > 3 && total >= 2 * records
    }

    /// Returns how many records stand on the page.
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns what the page adds up to, when it holds the whole range; `total` is what the source says the range has.
    ///
    /// A full page may be the beginning of more, whatever its total says.
    pub(super) fn whole(&self, total: u64) -> Option<Tally> {
        let tally = self.tally(self.entries.len(), self.to_ms);
        (!self.is_full && tally.accounted() == total && self.entries.len() as u64 == total).then_some(tally)
    }

    /// Adds all records of the page that a tally does not have yet; returns how many those are.
    pub(super) fn add_to(&self, tally: &mut Tally) -> u64 {
        let before = tally.accounted();
        self.add(tally, self.entries.len(), self.to_ms);
        tally.accounted() - before
    }

    /// Returns the last time that stands in order: the page holds everything before it.
    pub(super) fn key_ms(&self) -> Option<i64> {
        self.entries.iter().rev().find_map(|entry| entry.at_ms)
    }

    /// Returns what the records before `key_ms` add up to; nothing when a record without a time of its own may lie on either side.
    pub(super) fn before(&self, key_ms: i64) -> Option<Tally> {
        let certain = self.entries.iter().rposition(|entry| entry.at_ms.is_some_and(|at| at < key_ms));
        let certain = certain.map_or(0, |last| last + 1);
        let first_at_key = self.entries.iter().position(|entry| entry.at_ms == Some(key_ms))?;
        (certain == first_at_key).then(|| self.tally(certain, key_ms))
    }

    /// Returns a time to cut the range at, which leaves something on either side.
    pub(super) fn cut_ms(&self) -> Option<i64> {
        let times: Vec<i64> = self.entries.iter().filter_map(|entry| entry.at_ms).collect();
        let middle = times.get(times.len() / 2).copied();
        let middle = middle.unwrap_or(self.from_ms + (self.to_ms - self.from_ms) / 2);
        let middle = if middle > self.from_ms { middle } else { self.from_ms + 1 };
        (middle < self.to_ms).then_some(middle)
    }

    fn tally(&self, count: usize, to_ms: i64) -> Tally {
        let mut tally = Tally { ids: HashSet::with_capacity(count), ..Tally::default() };
        self.add(&mut tally, count, to_ms);
        tally
    }

    fn add(&self, tally: &mut Tally, count: usize, to_ms: i64) {
        for (place, entry) in self.entries[..count].iter().enumerate() {
            match &entry.what {
                // What is older than where the index has it is not the newest revision, and stands for nothing.
                What::Record(record) if record.updated_at_ms.is_some_and(|at| at < self.from_ms) => {}
                What::Record(record) => {
                    if tally.ids.insert(record.id) {
                        tally.proof.add(record);
                    }
                }
                What::Rejected(rejected) => {
                    if rejected.id.is_none_or(|id| tally.ids.insert(id)) {
                        tally.rejected.push(rejected.clone());
                        tally.holes_ms.push(self.hole(place, to_ms));
                    }
                }
            }
        }
    }

    /// Returns where the record at a place may be: its instant, or from its neighbour's to its neighbour's.
    fn hole(&self, place: usize, to_ms: i64) -> (i64, i64) {
        if let Some(at) = self.entries[place].at_ms {
            return (at, at + 1);
        }
        let before = self.entries[..place].iter().rev().find_map(|entry| entry.at_ms);
        let after = self.entries[place..].iter().find_map(|entry| entry.at_ms);
        (before.unwrap_or(self.from_ms), after.map_or(to_ms, |after| after + 1).min(to_ms))
    }
}

fn placed(position: usize, record: RecordKey) -> What {
    if record.updated_at_ms.is_some() {
        return What::Record(record);
    }
    What::Rejected(Rejected { id: Some(record.id), ..nameless(position) })
}

fn nameless(position: usize) -> Rejected {
    Rejected { position, id: None, updated_at_ms: None, reason: NO_TIME }
}

/// Keeps the times of a longest run that stands in order, and takes the others away; returns how many those were.
fn keep_order(entries: &mut [Entry]) -> usize {
    let timed: Vec<(usize, i64)> =
        entries.iter().enumerate().filter_map(|(place, entry)| entry.at_ms.map(|at| (place, at))).collect();
    if timed.is_sorted_by_key(|(_, at)| *at) {
        return 0;
    }
    // By length, the run of that length which ends earliest; each one names its forerunner.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(timed.len());
    for (number, (_, at)) in timed.iter().enumerate() {
        let length = ends.partition_point(|end| timed[*end].1 <= *at);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() {
            ends.push(number);
        } else {
            ends[length] = number;
        }
    }
    let mut kept = HashSet::new();
    let mut next = ends.last().copied();
    while let Some(number) = next {
        kept.insert(timed[number].0);
        next = before[number];
    }
    let mut taken = 0;
    for (place, _) in timed {
        if !kept.contains(&place) {
            entries[place].at_ms = None;
            taken += 1;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(byte: u8, at: i64) -> RecordKey {
        RecordKey { id: ObjectId::from_bytes([byte; 12]), updated_at_ms: Some(at), rev: None, deleted: false }
    }

    fn page(times: &[i64], total: u64, rejected: Vec<Rejected>) -> Page<()> {
        let records = times.iter().enumerate().map(|(number, at)| record(number as u8, *at)).collect();
        Page { total, size: 50, records, rejected, rows: () }
    }

    fn bad(position: usize, updated_at_ms: Option<i64>) -> Rejected {
        Rejected { position, id: None, updated_at_ms, reason: "bad" }
    }

    #[test]
    fn page_without_order_is_refused_and_single_records_out_of_place_are_not() {
        let upside_down: Vec<i64> = (0..40).rev().collect();
        assert!(Reading::new(&page(&upside_down, 40, Vec::new()), 0, 100).is_err());
        let reading = Reading::new(&page(&[1, 2, 70, 3, 4, 999, 5], 20, Vec::new()), 0, 100).unwrap();
        assert_eq!(reading.key_ms(), Some(5));
        // A record may lie on either side of the key when its place says no more.
        assert!(reading.before(5).is_none());
        assert_eq!(reading.before(4).unwrap().accounted(), 4);
    }

    #[test]
    fn whole_page_needs_every_record_of_its_total() {
        assert!(Reading::new(&page(&[1, 2], 2, Vec::new()), 0, 9).unwrap().whole(2).is_some());
        assert!(Reading::new(&page(&[1, 2], 3, Vec::new()), 0, 9).unwrap().whole(3).is_none());
        assert!(Reading::new(&page(&[1, 2], 1, Vec::new()), 0, 9).unwrap().whole(1).is_none());
        let full: Vec<i64> = (0..50).collect();
        assert!(Reading::new(&page(&full, 50, Vec::new()), 0, 99).unwrap().whole(50).is_none());
        // A revision from before the range is not the one that the index knows.
        assert!(Reading::new(&page(&[1, 2], 2, Vec::new()), 2, 9).unwrap().whole(2).is_none());
        // One from after it is newer, and stands for the record.
        assert!(Reading::new(&page(&[1, 20], 2, Vec::new()), 0, 9).unwrap().whole(2).is_some());
    }

    #[test]
    fn rejected_record_leaves_a_hole_at_its_instant_or_between_its_neighbours() {
        let of = |rejected| Reading::new(&page(&[10, 20, 30], 4, vec![rejected]), 0, 90).unwrap().whole(4).unwrap();
        assert_eq!(of(bad(1, Some(15))).holes_ms, [(15, 16)]);
        assert_eq!(of(bad(1, None)).holes_ms, [(10, 21)]);
        assert_eq!(of(bad(0, None)).holes_ms, [(0, 11)]);
        assert_eq!(of(bad(3, None)).holes_ms, [(30, 90)]);
        // A time that is not one of the range says nothing about the place.
        assert_eq!(of(bad(2, Some(5_000))).holes_ms, [(20, 31)]);
        assert_eq!(of(bad(2, None)).accounted(), 4);
    }

    #[test]
    fn record_without_a_time_counts_as_rejected() {
        let mut page = page(&[1, 2, 3], 3, Vec::new());
        page.records[1].updated_at_ms = None;
        let tally = Reading::new(&page, 0, 9).unwrap().whole(3).unwrap();
        assert_eq!((tally.proof.distinct, tally.rejected.len()), (2, 1));
        assert_eq!(tally.holes_ms, [(1, 4)]);
    }

    #[test]
    fn cut_leaves_something_on_either_side() {
        let cut = |times: &[i64], from, to| Reading::new(&page(times, 9, Vec::new()), from, to).unwrap().cut_ms();
        assert_eq!(cut(&[1, 5, 8], 0, 10), Some(5));
        assert_eq!(cut(&[5, 5, 5], 5, 10), Some(6));
        assert_eq!(cut(&[5, 5], 5, 6), None);
        assert_eq!(cut(&[], 0, 10), Some(5));
    }
}
