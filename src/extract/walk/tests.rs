//! The walk alone, against a model of a sorted set that changes, withholds and lies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::extract::segments;
use crate::model::ObjectId;
use crate::retry::SplitMix64;

const TO: i64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    updated: i64,
    created: Option<i64>,
    count: i64,
    rev: i64,
}

/// What is wrong with the source, of the things that exclude each other: where two lies cancel out, nobody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It counts some records and never sends them.
    Withholds(usize),
    /// One page in so many ends early.
    CutsShort(u64),
    /// No total is larger than this.
    Ceiling(u64),
    /// Each total is off by up to this.
    Lies(u64),
    /// One request in so many brings a record into the past, as an index does that lags behind.
    Lags(u64),
}

/// A set of records that changes while it is read, sorted by `updated_at` with an order inside ties that it makes up anew.
#[derive(Debug, Clone)]
struct Model {
    rows: BTreeMap<ObjectId, Row>,
    random: SplitMix64,
    now: i64,
    /// One request in so many changes a record, and one in so many takes one away; 0 for none.
    drift: u64,
    vanish: u64,
    is_stable_order: bool,
    fault: Fault,
    withheld: BTreeSet<ObjectId>,
    /// Records that do not decode, and whether their id and their time can be read all the same.
    bad: BTreeMap<ObjectId, (bool, bool)>,
    /// The largest page, and whether the source says so.
    clamp: Option<(u32, bool)>,
    page_size: u32,
    window_rows: u64,
    max_pages: u32,
    known_reach: u64,
    touched: BTreeSet<ObjectId>,
    requests: u64,
    refused: u64,
}

#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<Model>>);

impl Forked for Shared {
    type Source = Self;

    fn fork(&self, _archive: bool) -> Self {
        self.clone()
    }
}

impl PageSource for Shared {
    type Rows = Vec<RecordKey>;

    async fn page(&mut self, query: &PageQuery) -> Result<Option<Page<Vec<RecordKey>>>> {
        tokio::task::yield_now().await;
        Ok(self.0.lock().unwrap().page(query))
    }

    fn page_size(&self) -> u32 {
        self.0.lock().unwrap().page_size
    }

    fn reach_rows(&self, _page_size: u32) -> u64 {
        self.0.lock().unwrap().known_reach
    }
}

fn id_of(number: u32, seconds: u32) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn is_within(bound: Option<Bound>, value: Option<i64>) -> bool {
    match bound {
        None => true,
        Some(Bound::Between(from, to)) => value.is_some_and(|value| value >= from && value < to),
        Some(Bound::NotFrom(from)) => value.is_none_or(|value| value < from),
    }
}

impl Model {
    /// Groups are: time, records, whether they were imported (made in one instant, counting alike).
    fn new(groups: &[(i64, usize, bool)]) -> Self {
        let mut rows = BTreeMap::new();
        for (updated, count, is_imported) in groups {
            for place in 0..*count {
                let number = rows.len() as u32;
                let seconds = (number * 7) % 900;
                let created = i64::from(seconds) * 1_000 + i64::from(number % 3);
                let (created, count) = if *is_imported { (4_200, place as i64 / 9) } else { (created, 1) };
                let created = (number % 97 != 96).then_some(created);
                rows.insert(id_of(number, seconds), Row { updated: *updated, created, count, rev: 1 });
            }
        }
        Self {
            rows,
            random: SplitMix64::new(groups.len() as u64),
            now: TO,
            drift: 0,
            vanish: 0,
            is_stable_order: true,
            fault: Fault::None,
            withheld: BTreeSet::new(),
            bad: BTreeMap::new(),
            clamp: None,
            page_size: 20,
            window_rows: 60,
            max_pages: 8,
            known_reach: 1 << 40,
            touched: BTreeSet::new(),
            requests: 0,
            refused: 0,
        }
    }

    fn shared(self) -> Shared {
        Shared(Arc::new(Mutex::new(self)))
    }

    fn is_due(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.next_u64().is_multiple_of(one_in)
    }

    fn any(&mut self) -> Option<ObjectId> {
        let place = self.random.next_u64() as usize % self.rows.len().max(1);
        self.rows.keys().nth(place).copied()
    }

    fn page(&mut self, query: &PageQuery) -> Option<Page<Vec<RecordKey>>> {
        self.requests += 1;
        let (clamp, is_told) = self.clamp.unwrap_or((u32::MAX, true));
        let size = query.page_size.min(clamp);
        let end = u64::from(query.page) * u64::from(size);
        if query.page > 1 && (query.page > self.max_pages || end > self.window_rows) {
            self.refused += 1;
            self.known_reach = self.window_rows.min(u64::from(self.max_pages) * u64::from(size));
            return None;
        }
        let mut found: Vec<(i64, u64, ObjectId, Row)> = Vec::new();
        for (id, row) in &self.rows {
            let is_asked = is_within(query.created, row.created) && is_within(query.count, Some(row.count));
            if (query.updated.0..query.updated.1).contains(&row.updated) && is_asked {
                let order = if self.is_stable_order { 0 } else { self.random.next_u64() };
                found.push((row.updated, order, *id, *row));
            }
        }
        found.sort_unstable_by_key(|(updated, order, id, _)| (*updated, *order, *id));
        let exact = found.len() as u64;
        let total = match self.fault {
            Fault::Ceiling(ceiling) => exact.min(ceiling),
            Fault::Lies(most) => (exact + self.random.next_u64() % (2 * most + 1)).saturating_sub(most),
            _ => exact,
        };
        let mut take = size as usize;
        if let Fault::CutsShort(one_in) = self.fault
            && self.is_due(one_in)
        {
            take = self.random.next_u64() as usize % (take + 1);
        }
        let (mut records, mut rejected) = (Vec::new(), Vec::new());
        let sent = found.into_iter().skip((query.page as usize - 1) * size as usize).take(take);
        for (position, (_, _, id, row)) in sent.filter(|(_, _, id, _)| !self.withheld.contains(id)).enumerate() {
            match self.bad.get(&id) {
                Some((has_id, has_time)) => rejected.push(Rejected {
                    position,
                    id: has_id.then_some(id),
                    updated_at_ms: has_time.then_some(row.updated),
                    reason: "bad",
                }),
                None => {
                    records.push(RecordKey {
                        id,
                        updated_at_ms: Some(row.updated),
                        rev: Some(row.rev),
                        deleted: false,
                    });
                }
            }
        }
        self.change();
        let size = if is_told { size } else { query.page_size };
        Some(Page { total, size, rows: records.clone(), records, rejected })
    }

    fn change(&mut self) {
        if self.is_due(self.drift)
            && let Some(id) = self.any()
        {
            self.now += 1;
            let now = self.now;
            self.rows.entry(id).and_modify(|row| *row = Row { updated: now, rev: row.rev + 1, ..*row });
            self.touched.insert(id);
        }
        if self.is_due(self.vanish)
            && let Some(id) = self.any()
        {
            self.rows.remove(&id);
            self.touched.insert(id);
        }
        if let Fault::Lags(one_in) = self.fault
            && self.is_due(one_in)
        {
            let updated = (self.random.next_u64() % TO as u64) as i64;
            let id = id_of(1_000_000 + self.requests as u32, 10);
            self.rows.insert(id, Row { updated, created: Some(10_000), count: 1, rev: 1 });
            self.touched.insert(id);
        }
    }
}

#[derive(Debug, Default)]
struct Outcome {
    received: HashSet<ObjectId>,
    rows: u64,
    closed: Vec<((i64, i64), bool)>,
    holes: Vec<(i64, i64)>,
    expected: u64,
    promised: u64,
    distinct: u64,
    rejected: u64,
}

impl Outcome {
    fn is_in_a_hole(&self, at: i64) -> bool {
        self.holes.iter().any(|(from, to)| (*from..*to).contains(&at))
    }
}

fn walk(model: &Shared, segment_rows: u64) -> Outcome {
    let limits = Limits { segment_rows, narrowing: AtomicU64::new(NARROWING_REQUESTS) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (sender, mut steps) = mpsc::channel::<Step<Vec<RecordKey>>>(2);
        let first = vec![Segment { from_ms: 0, to_ms: TO, archive: false }];
        let receive = async {
            let mut outcome = Outcome::default();
            while let Some(step) = steps.recv().await {
                match step {
                    Step::Promised { promised, .. } => outcome.expected += promised,
                    Step::Rows { rows, keep } => {
                        outcome.rows += rows.len() as u64;
                        let kept = rows.into_iter().zip(keep).filter(|(_, is_kept)| *is_kept);
                        outcome.received.extend(kept.map(|(row, _)| row.id));
                    }
                    Step::Closed(Closed { stretch, promised, tally, is_proven }) => {
                        let range = (stretch.from_ms, stretch.to_ms);
                        outcome.closed.push((range, is_proven));
                        outcome.promised += promised;
                        outcome.distinct += tally.proof.distinct;
                        outcome.rejected += tally.rejected.len() as u64;
                        if is_proven {
                            assert_eq!(promised, tally.accounted());
                            outcome.holes.extend(tally.holes_ms);
                        } else {
                            outcome.holes.push(range);
                        }
                    }
                }
            }
            outcome
        };
        let (walked, outcome) = futures::join!(segments::walk_all(first, model, &limits, 3, sender), receive);
        walked.unwrap();
        outcome
    })
}

/// What must hold whatever the source does.
fn check(before: &Model, after: &Model, outcome: &Outcome) -> Result<(), TestCaseError> {
    for (id, row) in before.rows.iter().filter(|(id, _)| !after.touched.contains(*id)) {
        let is_here = outcome.received.contains(id) || outcome.is_in_a_hole(row.updated);
        prop_assert!(is_here, "{id} at {} is lost", row.updated);
        if after.withheld.contains(id) || after.bad.contains_key(id) {
            prop_assert!(
                outcome.is_in_a_hole(row.updated),
                "{id} at {} did not come, and is called proven",
                row.updated
            );
        }
    }
    // The stretches add up to the range, without gap and overlap.
    let mut ranges: Vec<(i64, i64)> = outcome.closed.iter().map(|(range, _)| *range).collect();
    ranges.sort_unstable();
    prop_assert_eq!(ranges.first().unwrap().0, 0);
    prop_assert_eq!(ranges.last().unwrap().1, TO);
    prop_assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0), "{ranges:?}");
    Ok(())
}

fn groups() -> impl Strategy<Value = Vec<(i64, usize, bool)>> {
    let size = prop_oneof![12 => 1_usize..4, 2 => 5_usize..60, 1 => 60_usize..250];
    prop::collection::vec((0_i64..TO, size, prop::bool::weighted(0.2)), 0..60)
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        2 => (1_usize..6).prop_map(Fault::Withholds),
        1 => (2_u64..8).prop_map(Fault::CutsShort),
        1 => (60_u64..200).prop_map(Fault::Ceiling),
        1 => (1_u64..4).prop_map(Fault::Lies),
        1 => (1_u64..8).prop_map(Fault::Lags),
    ]
}

prop_compose! {
    fn model()(
        groups in groups(),
        is_stable_order: bool,
        drift in prop_oneof![Just(0_u64), 1_u64..6],
        vanish in prop_oneof![2 => Just(0_u64), 1 => 1_u64..6],
        fault in fault(),
        bad in prop_oneof![2 => Just(0_usize), 1 => 1_usize..8],
        has_id: bool,
        has_time: bool,
        page_size in 5_u32..30,
        clamp in prop_oneof![2 => Just(None), 1 => (4_u32..20, any::<bool>()).prop_map(Some)],
        window_rows in prop_oneof![Just(60_u64), Just(100), Just(1_000)],
        seed: u64,
    ) -> Model {
        let mut model = Model::new(&groups);
        model.random = SplitMix64::new(seed);
        if let Fault::Withholds(count) = fault {
            for _ in 0..count {
                let chosen = model.any();
                model.withheld.extend(chosen);
            }
        }
        for _ in 0..bad {
            if let Some(id) = model.any() {
                model.bad.insert(id, (has_id, has_time));
            }
        }
        // A total that is wrong and a cap that is not told may agree by chance.
        let clamp = if matches!(fault, Fault::Lies(_)) { clamp.map(|(size, _)| (size, true)) } else { clamp };
        Model { drift, vanish, is_stable_order, fault, clamp, page_size, window_rows, ..model }
    }
}

proptest! {
    #[test]
    fn every_stable_record_is_received_or_lies_in_a_hole(before in model(), segment_rows in 10_u64..500) {
        let shared = before.clone().shared();
        let outcome = walk(&shared, segment_rows);
        let after = shared.0.lock().unwrap();
        check(&before, &after, &outcome)?;
        // Splitting and asking again cost, but not without bound.
        let page_size = u64::from(before.clamp.map_or(before.page_size, |(size, _)| size.min(before.page_size)));
        let pages = (after.rows.len() as u64 + after.touched.len() as u64).div_ceil(page_size);
        let bound = 400 + NARROWING_REQUESTS + 150 * pages + 12 * after.touched.len() as u64;
        prop_assert!(after.requests <= bound, "{} requests for {pages} pages, bound {bound}", after.requests);
    }

    #[test]
    fn truthful_source_is_proven_whatever_changes(
        mut before in model(),
        segment_rows in 10_u64..500,
        is_lagging: bool,
    ) {
        before.fault = if is_lagging { Fault::Lags(3) } else { Fault::None };
        before.withheld.clear();
        before.bad.clear();
        // What was imported may be beyond any way of taking it apart.
        before.rows.retain(|_, row| row.created != Some(4_200));
        let shared = before.clone().shared();
        let outcome = walk(&shared, segment_rows);
        let after = shared.0.lock().unwrap();
        check(&before, &after, &outcome)?;
        if !is_lagging && before.clamp.is_none_or(|(_, is_told)| is_told) {
            prop_assert!(outcome.closed.iter().all(|(_, is_proven)| *is_proven), "{:?}", outcome.closed);
        }
    }

    #[test]
    fn record_that_does_not_decode_costs_its_instant_only(
        times in prop::collection::btree_set(0_i64..TO, 1..200),
        place: prop::sample::Index,
        has_id: bool,
        has_time: bool,
    ) {
        let times: Vec<i64> = times.into_iter().collect();
        let groups: Vec<(i64, usize, bool)> = times.iter().map(|at| (*at, 1, false)).collect();
        let mut model = Model::new(&groups);
        let number = place.index(times.len());
        let id = *model.rows.iter().find(|(_, row)| row.updated == times[number]).unwrap().0;
        model.bad.insert(id, (has_id, has_time));
        let before = model.clone();
        let shared = model.shared();
        let outcome = walk(&shared, 100_000);
        let after = shared.0.lock().unwrap();
        check(&before, &after, &outcome)?;
        prop_assert!(outcome.closed.iter().all(|(_, is_proven)| *is_proven));
        prop_assert_eq!(outcome.holes.len(), 1);
        let before_it = number.checked_sub(1).map_or(0, |before| times[before]);
        let after_it = times.get(number + 1).copied().unwrap_or(TO);
        let (from, to) = outcome.holes[0];
        if has_time {
            prop_assert_eq!((from, to), (times[number], times[number] + 1));
        } else {
            prop_assert!(from >= before_it && to <= after_it + 1, "{:?} {before_it} {after_it}", outcome.holes);
        }
        prop_assert_eq!((outcome.distinct, outcome.rejected), (times.len() as u64 - 1, 1));
        prop_assert_eq!(outcome.promised, times.len() as u64);
        let pages = (times.len() as u64).div_ceil(19);
        prop_assert!(after.requests <= pages + 4, "{} requests for {pages} pages", after.requests);
    }
}

fn even(count: i64) -> Model {
    Model::new(&(0..count).map(|at| (at * (TO / count), 1, false)).collect::<Vec<_>>())
}

fn requests(shared: &Shared) -> u64 {
    shared.0.lock().unwrap().requests
}

#[test]
fn quiet_range_costs_little_more_than_its_pages() {
    let shared = even(1_000).shared();
    let outcome = walk(&shared, 100_000);
    assert_eq!((outcome.promised, outcome.distinct, outcome.received.len()), (1_000, 1_000, 1_000));
    assert_eq!(outcome.expected, 1_000);
    assert!(requests(&shared) <= 1_000 / 19 + 2, "{}", requests(&shared));
}

#[test]
fn busy_range_costs_a_part_more_than_its_pages() {
    for (drift, most) in [(1, 40), (5, 25)] {
        let mut model = even(4_000);
        model.drift = drift;
        let shared = model.shared();
        let outcome = walk(&shared, 100_000);
        assert!(outcome.holes.is_empty());
        let (pages, requests) = (4_000 / 19, requests(&shared));
        assert!(requests * 100 <= pages * (100 + most), "{requests} requests for {pages} pages, drift {drift}");
    }
}

#[test]
fn total_with_a_ceiling_costs_a_part_more_and_is_proven_all_the_same() {
    let mut model = even(4_000);
    model.fault = Fault::Ceiling(400);
    let shared = model.shared();
    let outcome = walk(&shared, 300);
    assert!(outcome.holes.is_empty());
    assert_eq!(outcome.received.len(), 4_000);
    assert!(requests(&shared) * 100 <= 4_000 / 19 * 130, "{}", requests(&shared));
}

#[test]
fn tie_larger_than_page_and_window_is_read_whole_in_any_order() {
    for (count, is_stable_order) in [(21, true), (21, false), (55, true), (55, false), (400, true), (400, false)] {
        let mut model = Model::new(&[(5, 3, false), (500, count, false), (900, 3, false)]);
        model.is_stable_order = is_stable_order;
        let shared = model.shared();
        let outcome = walk(&shared, 100_000);
        assert_eq!(outcome.received.len(), count + 6, "{count} {is_stable_order}");
        assert!(outcome.holes.is_empty());
        let requests = requests(&shared) as usize;
        assert!(requests < 16 + count / 4, "{requests} requests for a tie of {count}");
        assert!(shared.0.lock().unwrap().refused <= 1, "a refusal is learned from");
    }
}

#[test]
fn tie_of_records_made_in_one_instant_is_taken_apart_by_count() {
    for is_stable_order in [true, false] {
        let mut model = Model::new(&[(500, 400, true)]);
        model.is_stable_order = is_stable_order;
        let shared = model.shared();
        let outcome = walk(&shared, 100_000);
        assert_eq!(outcome.received.len(), 400);
        assert!(outcome.holes.is_empty(), "{:?}", outcome.closed);
    }
}

#[test]
fn tie_that_nothing_takes_apart_is_a_hole_of_one_millisecond() {
    let mut model = Model::new(&[(400, 30, false), (500, 400, true), (600, 30, false)]);
    model.rows.values_mut().for_each(|row| row.count = 7);
    let before = model.clone();
    let shared = model.shared();
    let outcome = walk(&shared, 100_000);
    check(&before, &shared.0.lock().unwrap(), &outcome).unwrap();
    assert_eq!(outcome.holes, [(500, 501)]);
}

#[test]
fn withheld_record_is_a_hole_between_its_neighbours_and_the_rest_is_proven() {
    let mut model = even(300);
    let (hidden, row) = model.rows.iter().nth(150).map(|(id, row)| (*id, *row)).unwrap();
    model.withheld.insert(hidden);
    let shared = model.shared();
    let outcome = walk(&shared, 100_000);
    assert_eq!(outcome.holes.len(), 1);
    let (from, to) = outcome.holes[0];
    assert!((from..to).contains(&row.updated) && to - from <= 2 * (TO / 300) + 1, "{from} {to}");
    assert_eq!(outcome.received.len(), 299);
    assert!(requests(&shared) < 300 / 19 + 25, "{}", requests(&shared));
}

#[test]
fn record_that_left_after_it_was_seen_does_not_stand_for_one_that_never_came() {
    // Each request takes one record away, so that what came and what is counted later agree by chance sooner or later.
    for seed in 0..200 {
        let mut model = even(120);
        model.random = SplitMix64::new(seed);
        model.vanish = 1;
        let hidden: Vec<ObjectId> = model.rows.keys().copied().step_by(40).collect();
        model.withheld.extend(hidden);
        let before = model.clone();
        let shared = model.shared();
        let outcome = walk(&shared, 100_000);
        check(&before, &shared.0.lock().unwrap(), &outcome).unwrap();
    }
}

#[test]
fn large_range_is_shared_between_workers() {
    let shared = even(1_000).shared();
    let outcome = walk(&shared, 200);
    assert_eq!((outcome.promised, outcome.distinct, outcome.expected), (1_000, 1_000, 1_000));
    assert!(requests(&shared) <= 1_000 / 19 + 20, "{}", requests(&shared));
}

#[test]
fn empty_range_is_proven_by_one_request() {
    let shared = Model::new(&[]).shared();
    let outcome = walk(&shared, 200);
    assert_eq!((outcome.closed, outcome.holes), (vec![((0, TO), true)], Vec::new()));
    assert_eq!(requests(&shared), 1);
}
