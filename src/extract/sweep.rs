//! The sweep of a reconciliation: every id that the source lists, against every live id of the lake.
//!
//! ```text
//! live ids of the lake ─▶ blocks of one page each ─▶ ids of the source ─▶ differences, both ways
//!   (seconds since 1970 in them)   [from, to)          created in [from, to)
//! ```
//!
//! An answer of ids tells no `updated_at`, so the walk by key is not possible. `created_at` serves instead: it never
//! changes, so a range of it holds the same records however they change while it is swept, and one that fits a page needs
//! no order and no second page. The lake's own ids say where to cut, because an id begins with the second of its creation.
//! A range that does not fit is cut again; one millisecond that does not fit is paged until its total is reached.
//!
//! An id need not tell the `created_at` of its record: imports keep their old one. What differs in one block therefore
//! counts only when it differs in all: the rests of the blocks are compared with each other at the end.
//!
//! A difference is a question, not a finding: what the lake alone holds is asked for by id before anything is written.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};

use futures::TryStreamExt as _;
use futures::stream::FuturesUnordered;

use crate::error::{ErrorKind, Result};
use crate::lake::LiveIds;
use crate::model::ObjectId;

/// Passes over a millisecond that is larger than a page, because its order may change between requests.
const PASSES: u32 = 4;

/// A page of fewer ids than this is taken for a fault and not for the source's largest page.
const SMALLEST_PAGE: u32 = 10;

/// Part of a page that a block fills by the lake's count: room for what the lake does not have.
const FILL: (usize, usize) = (24, 25);

/// What is asked: ids of records by their time of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdQuery {
    /// `created_at` in `[from, to)`, milliseconds since 1970.
    pub(super) created: (i64, i64),
    /// `updated_at` from here on, where the lake leaves older records out.
    pub(super) updated_from: Option<i64>,
    pub(super) archive: bool,
    /// Page, from 1.
    pub(super) page: u32,
    pub(super) page_size: u32,
}

/// One page of ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Ids {
    /// Records that match in all.
    pub(super) total: u64,
    pub(super) ids: Vec<ObjectId>,
}

/// Lists ids; repeats what fails in passing, and errs only when that did not help.
pub(super) trait IdSource: Sync {
    fn ids(&self, query: &IdQuery) -> impl Future<Output = Result<Ids>> + Send;
}

/// Gives the live ids of the lake, ascending.
pub(super) trait LakeIds: Send {
    /// Returns the next ids, fewer than `limit` only at the end.
    fn next(&mut self, limit: usize) -> impl Future<Output = Result<Vec<ObjectId>>> + Send;
}

impl LakeIds for LiveIds {
    fn next(&mut self, limit: usize) -> impl Future<Output = Result<Vec<ObjectId>>> + Send {
        Self::next(self, limit)
    }
}

/// What is swept, and the bounds of the source's paging.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Records created before this, milliseconds since 1970.
    pub(super) until_ms: i64,
    pub(super) updated_from: Option<i64>,
    /// Records created before this may be in the archive.
    pub(super) archive_until_ms: Option<i64>,
    pub(super) page_size: u32,
    /// Rows that page numbers reach.
    pub(super) reach_rows: u64,
    pub(super) concurrency: usize,
}

/// What the sweep came to.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Ids that the source listed.
    pub(super) swept: u64,
    /// Live ids of the lake in the range.
    pub(super) live: u64,
    /// Ids in the lake that the source did not list, of blocks that are proven whole; ascending.
    pub(super) only_lake: Vec<ObjectId>,
    /// Ids that the source listed and the lake does not hold; ascending.
    pub(super) only_source: Vec<ObjectId>,
    /// Ids on both sides, from several blocks: known to be there.
    pub(super) witnesses: Vec<ObjectId>,
    /// Blocks that could not be proven.
    pub(super) unproven: u64,
}

/// Witnesses that are kept.
const WITNESSES: usize = 200;

/// A range of creation with the lake's ids of it.
#[derive(Debug)]
struct Block {
    from_ms: i64,
    to_ms: i64,
    ids: Vec<ObjectId>,
}

/// One block, compared.
struct Compared {
    swept: u64,
    live: u64,
    only_lake: Vec<ObjectId>,
    only_source: Vec<ObjectId>,
    witness: Option<ObjectId>,
    is_proven: bool,
}

/// Sweeps a stream and compares it with the lake's ids; `on` hears of each block's ids.
pub(super) async fn compare<S: IdSource, L: LakeIds>(
    source: &S,
    lake: L,
    bounds: &Bounds,
    mut on: impl FnMut(u64),
) -> Result<Differences> {
    let sweep = Sweep { source, bounds, page_rows: AtomicU32::new(bounds.page_size.max(1)), short: AtomicU32::new(0) };
    let mut blocks = Blocks { lake, ready: VecDeque::new(), from_ms: 0, until_ms: bounds.until_ms, is_done: false };
    let mut found = Differences::default();
    let mut doubtful: Vec<ObjectId> = Vec::new();
    let mut working = FuturesUnordered::new();
    loop {
        while working.len() < bounds.concurrency.max(1) {
            let Some(block) = blocks.next(sweep.block_rows()).await? else { break };
            working.push(sweep.block(block));
        }
        let Some(compared) = working.try_next().await? else { break };
        on(compared.swept);
        found.swept += compared.swept;
        found.live += compared.live;
        found.only_source.extend(compared.only_source);
        found.unproven += u64::from(!compared.is_proven);
        if compared.is_proven { &mut found.only_lake } else { &mut doubtful }.extend(compared.only_lake);
        found.witnesses.extend(compared.witness.filter(|_| found.witnesses.len() < WITNESSES));
    }
    settle(&mut found, doubtful);
    Ok(found)
}

/// Takes out what differed in one block only because its id tells another time than its `created_at`.
fn settle(found: &mut Differences, mut doubtful: Vec<ObjectId>) {
    for ids in [&mut found.only_lake, &mut found.only_source, &mut doubtful] {
        ids.sort_unstable();
        ids.dedup();
    }
    let source = std::mem::take(&mut found.only_source);
    let held = |id: &ObjectId| found.only_lake.binary_search(id).is_ok() || doubtful.binary_search(id).is_ok();
    found.only_source = source.iter().copied().filter(|id| !held(id)).collect();
    found.only_lake.retain(|id| source.binary_search(id).is_err());
}

/// Cuts the lake's ids into blocks.
struct Blocks<L> {
    lake: L,
    ready: VecDeque<ObjectId>,
    from_ms: i64,
    until_ms: i64,
    is_done: bool,
}

impl<L: LakeIds> Blocks<L> {
    /// Returns the next block: some `rows` ids, and the range up to the next one. Ids of one second stay together.
    async fn next(&mut self, rows: usize) -> Result<Option<Block>> {
        if self.is_done || self.from_ms >= self.until_ms {
            return Ok(None);
        }
        let mut ids: Vec<ObjectId> = Vec::with_capacity(rows);
        let to_ms = loop {
            if self.ready.is_empty() {
                self.ready.extend(self.lake.next(rows.max(1_000)).await?);
            }
            let next = self.ready.front().copied().filter(|id| created_ms(*id) < self.until_ms);
            let Some(next) = next else {
                self.is_done = true;
                break self.until_ms;
            };
            if let Some(last) = ids.last().map(|id| created_ms(*id)).filter(|_| ids.len() >= rows)
                && last < created_ms(next)
            {
                // In the middle of the gap: a `created_at` is near the second of its id, and seldom the same.
                break last + 1_000 + (created_ms(next) - last - 1_000) / 2;
            }
            ids.push(next);
            self.ready.pop_front();
        };
        let from_ms = std::mem::replace(&mut self.from_ms, to_ms);
        Ok(Some(Block { from_ms, to_ms, ids }))
    }
}

struct Sweep<'a, S> {
    source: &'a S,
    bounds: &'a Bounds,
    /// Ids that a page of the source holds, as far as it is known.
    page_rows: AtomicU32,
    /// How many ids the last page held that was neither full nor complete.
    short: AtomicU32,
}

impl<S: IdSource> Sweep<'_, S> {
    fn block_rows(&self) -> usize {
        (self.page_rows.load(Ordering::Relaxed) as usize * FILL.0 / FILL.1).max(1)
    }

    async fn block(&self, block: Block) -> Result<Compared> {
        let Block { from_ms, to_ms, ids } = block;
        let mut listed = HashSet::with_capacity(ids.len());
        let mut is_proven = self.range((from_ms, to_ms), false, &mut listed).await?;
        if let Some(until_ms) = self.bounds.archive_until_ms.filter(|until| *until > from_ms) {
            is_proven &= self.range((from_ms, to_ms.min(until_ms)), true, &mut listed).await?;
        }
        let witness = ids.iter().copied().find(|id| listed.contains(id));
        let live = ids.len() as u64;
        let swept = listed.len() as u64;
        let only_lake: Vec<ObjectId> = ids.into_iter().filter(|id| !listed.remove(id)).collect();
        Ok(Compared { swept, live, only_lake, only_source: listed.into_iter().collect(), witness, is_proven })
    }

    /// Lists the ids of a range; tells whether all came that the source promised.
    async fn range(&self, range: (i64, i64), archive: bool, listed: &mut HashSet<ObjectId>) -> Result<bool> {
        let mut waiting = vec![range];
        let mut is_proven = true;
        while let Some(part) = waiting.pop() {
            let page = self.page(part, archive, 1).await?;
            let received = distinct(&page.ids);
            listed.extend(page.ids.iter().copied());
            if received >= page.total {
                continue;
            }
            self.learn(&page);
            if part.1 - part.0 > 1 {
                waiting.extend(cut(part, page.total, &page.ids));
            } else {
                is_proven &= self.pass(part, archive, page, listed).await?;
            }
        }
        Ok(is_proven)
    }

    /// Pages through one millisecond, several times.
    async fn pass(&self, part: (i64, i64), archive: bool, first: Ids, listed: &mut HashSet<ObjectId>) -> Result<bool> {
        let rows = (first.ids.len() as u64).max(1);
        let mut most = first.total;
        let mut seen: HashSet<ObjectId> = first.ids.into_iter().collect();
        let pages = most.div_ceil(rows).min(self.bounds.reach_rows / rows);
        'passes: for _ in 0..PASSES {
            for number in 1..=pages.max(1) as u32 {
                let page = match self.page(part, archive, number).await {
                    // A page that far is not served.
                    Err(error) if number > 1 && error.kind() == ErrorKind::Internal => break 'passes,
                    page => page?,
                };
                most = page.total.max(most);
                listed.extend(page.ids.iter().copied());
                seen.extend(page.ids);
                if seen.len() as u64 >= most {
                    return Ok(true);
                }
            }
        }
        tracing::warn!(created_ms = part.0, promised = most, distinct = seen.len(), "ids could not all be listed");
        Ok(false)
    }

    async fn page(&self, created: (i64, i64), archive: bool, page: u32) -> Result<Ids> {
        let Bounds { updated_from, page_size, .. } = *self.bounds;
        self.source.ids(&IdQuery { created, updated_from, archive, page, page_size }).await
    }

    /// Makes the blocks smaller when two pages in a row end at the same size before they are full.
    fn learn(&self, page: &Ids) {
        let rows = u32::try_from(page.ids.len()).unwrap_or(u32::MAX);
        if rows >= SMALLEST_PAGE && rows < self.bounds.page_size && self.short.swap(rows, Ordering::Relaxed) == rows {
            self.page_rows.fetch_min(rows, Ordering::Relaxed);
        }
    }
}

fn distinct(ids: &[ObjectId]) -> u64 {
    ids.iter().collect::<HashSet<_>>().len() as u64
}

/// Returns when an id was made, to the second: near its record's `created_at`.
pub(super) fn created_ms(id: ObjectId) -> i64 {
    let bytes = id.as_bytes();
    i64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) * 1_000
}

/// Cuts a range of more than a millisecond into parts, by the seconds of a page of its ids and in the middle.
fn cut((from_ms, to_ms): (i64, i64), total: u64, ids: &[ObjectId]) -> Vec<(i64, i64)> {
    let mut seconds: Vec<i64> = ids.iter().map(|id| created_ms(*id)).collect();
    seconds.sort_unstable();
    let parts = (total * 6 / 5).div_ceil(ids.len().max(1) as u64).clamp(2, 16) as usize;
    let mut cuts: Vec<i64> = (1..parts).filter_map(|part| seconds.get(part * seconds.len() / parts).copied()).collect();
    cuts.retain(|at| (from_ms + 1..to_ms).contains(at));
    // Imported records carry an older time than their ids, and the middle is all that is known of them.
    if cuts.is_empty() || parts > 2 {
        cuts.push(from_ms + (to_ms - from_ms) / 2);
    }
    cuts.sort_unstable();
    cuts.dedup();
    let ends = cuts.iter().copied().chain([to_ms]);
    [from_ms].into_iter().chain(cuts.iter().copied()).zip(ends).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Mutex;

    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;
    use crate::extract::lookup::{Answer, LookUp, RecordSource};
    use crate::policy::RecordKey;
    use crate::retry::SplitMix64;

    const UNTIL_MS: i64 = 1_700_000_000_000;

    /// How the source answers a request for several records.
    #[derive(Debug, Clone, Copy)]
    enum Lists {
        /// With those that are there.
        Partly,
        /// With a 404 when one is not there.
        WholeOrNot,
        /// With a 404.
        Never,
        /// With a refusal beyond so many.
        Refused(usize),
        /// As if only the first so many had been asked for.
        CutIds(usize),
        /// With the first so many of those that are there.
        CutRecords(usize),
        /// Of each list with the last one only.
        Last,
    }

    #[derive(Debug, Clone, Copy)]
    #[expect(clippy::struct_excessive_bools, reason = "each is true or not of a record, whatever the others are")]
    struct Record {
        created_ms: i64,
        archived: bool,
        /// Search lists it.
        listed: bool,
        /// It is there when asked for by id.
        there: bool,
        /// It is marked as deleted.
        deleted: bool,
    }

    /// A source whose records change at every request, and never come back.
    struct Source {
        state: Mutex<(BTreeMap<ObjectId, Record>, SplitMix64)>,
        changes: u64,
        page_rows: usize,
        lists: Lists,
        requests: AtomicU32,
    }

    impl Source {
        fn new(records: BTreeMap<ObjectId, Record>, seed: u64) -> Self {
            let state = Mutex::new((records, SplitMix64::new(seed)));
            Self { state, changes: 0, page_rows: 500, lists: Lists::Partly, requests: AtomicU32::new(0) }
        }

        fn records(&self) -> BTreeMap<ObjectId, Record> {
            self.state.lock().unwrap().0.clone()
        }

        fn change(&self) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let mut state = self.state.lock().unwrap();
            let (records, random) = &mut *state;
            for _ in 0..self.changes {
                let place = random.next_u64() as usize % records.len().max(1);
                let Some((_, record)) = records.iter_mut().nth(place) else { continue };
                match random.next_u64() % 8 {
                    0 => (record.there, record.listed) = (false, false),
                    1 => (record.deleted, record.listed) = (true, false),
                    2 => record.archived = false,
                    3 => {
                        let mut bytes = [0; 12];
                        bytes[..4].copy_from_slice(&((UNTIL_MS / 1_000) as u32 + 1).to_be_bytes());
                        bytes[4..].copy_from_slice(&random.next_u64().to_be_bytes());
                        let created_ms = UNTIL_MS + 1_000;
                        let new = Record { created_ms, archived: false, listed: true, there: true, deleted: false };
                        records.insert(ObjectId::from_bytes(bytes), new);
                    }
                    _ => {}
                }
            }
        }
    }

    impl IdSource for Source {
        async fn ids(&self, query: &IdQuery) -> Result<Ids> {
            self.change();
            let mut state = self.state.lock().unwrap();
            let (records, random) = &mut *state;
            let matches = |record: &Record| {
                record.listed
                    && record.archived == query.archive
                    && (query.created.0..query.created.1).contains(&record.created_ms)
            };
            let mut ids: Vec<ObjectId> =
                records.iter().filter(|(_, record)| matches(record)).map(|(id, _)| *id).collect();
            // Nothing is promised about the order.
            for place in (1..ids.len()).rev() {
                ids.swap(place, random.next_u64() as usize % (place + 1));
            }
            let total = ids.len() as u64;
            let size = self.page_rows.min(query.page_size as usize);
            Ok(Ids { total, ids: ids.into_iter().skip(size * (query.page as usize - 1)).take(size).collect() })
        }
    }

    impl RecordSource for &Source {
        type Rows = ();

        async fn records(&mut self, ids: &[ObjectId]) -> Result<Answer<()>> {
            self.change();
            let mut state = self.state.lock().unwrap();
            let (records, _) = &mut *state;
            let key = |id: &ObjectId| {
                let record = records.get(id).filter(|record| record.there)?;
                Some(RecordKey { id: *id, updated_at_ms: None, rev: None, deleted: record.deleted })
            };
            let of = |ids: &[ObjectId]| ids.iter().filter_map(key).collect::<Vec<RecordKey>>();
            let found = match self.lists {
                Lists::Refused(most) if ids.len() > most => {
                    return if ids.len() == 1 { Err(Error::internal("refused")) } else { Ok(Answer::Refused) };
                }
                Lists::Never if ids.len() > 1 => Vec::new(),
                Lists::WholeOrNot if of(ids).len() < ids.len() => Vec::new(),
                Lists::CutIds(most) => of(&ids[..most.min(ids.len())]),
                Lists::CutRecords(most) => of(ids).into_iter().take(most).collect(),
                Lists::Last => of(&ids[ids.len() - 1..]),
                _ => of(ids),
            };
            if found.is_empty() {
                return Ok(Answer::NotFound);
            }
            Ok(Answer::Found { records: found, undecoded: Vec::new(), rows: () })
        }
    }

    struct Held(VecDeque<ObjectId>);

    impl LakeIds for Held {
        async fn next(&mut self, limit: usize) -> Result<Vec<ObjectId>> {
            let count = limit.min(self.0.len());
            Ok(self.0.drain(..count).collect())
        }
    }

    fn held(ids: &BTreeSet<ObjectId>) -> Held {
        Held(ids.iter().copied().collect())
    }

    fn bounds() -> Bounds {
        Bounds {
            until_ms: UNTIL_MS,
            updated_from: None,
            archive_until_ms: Some(UNTIL_MS - 500_000),
            page_size: 20,
            reach_rows: 2_000,
            concurrency: 3,
        }
    }

    /// An id of a second and a number.
    fn id(second: i64, number: u64) -> ObjectId {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&(second as u32).to_be_bytes());
        bytes[4..].copy_from_slice(&number.to_be_bytes());
        ObjectId::from_bytes(bytes)
    }

    /// Records and which of them the lake has: some imported, some archived, many in one second, some gone or hidden.
    fn organisation() -> impl Strategy<Value = (BTreeMap<ObjectId, Record>, BTreeSet<ObjectId>)> {
        let record = (0_i64..2_000, 0_u64..1_000, 0..100_u8, any::<bool>());
        prop::collection::vec(record, 0..400).prop_map(|all| {
            let (mut records, mut lake) = (BTreeMap::new(), BTreeSet::new());
            for (number, (place, jitter, kind, crowd)) in all.into_iter().enumerate() {
                let second = UNTIL_MS / 1_000 - 1 - if crowd { place / 500 * 500 } else { place };
                let id = id(second, number as u64);
                let created_ms = match kind {
                    0..10 => second * 1_000 - 1_000_000_000,
                    10..20 => second * 1_000 - 300,
                    _ => second * 1_000 + jitter as i64,
                };
                let gone = (20..26).contains(&kind);
                let hidden = (26..32).contains(&kind);
                let deleted = (32..38).contains(&kind);
                let archived = created_ms < UNTIL_MS - 600_000;
                let there = !gone;
                records
                    .insert(id, Record { created_ms, archived, listed: there && !hidden && !deleted, there, deleted });
                if !(38..44).contains(&kind) {
                    lake.insert(id);
                }
            }
            (records, lake)
        })
    }

    fn lists() -> impl Strategy<Value = Lists> {
        prop_oneof![
            Just(Lists::Partly),
            Just(Lists::WholeOrNot),
            Just(Lists::Never),
            (1_usize..30).prop_map(Lists::Refused),
            (1_usize..30).prop_map(Lists::CutIds),
            (1_usize..30).prop_map(Lists::CutRecords),
            Just(Lists::Last),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn quiet_source_and_lake_differ_by_exactly_what_differs(
            (records, lake) in organisation(), lists in lists(), page_rows in 10_usize..30, seed: u64,
        ) {
            let source = Source { page_rows, lists, ..Source::new(records.clone(), seed) };
            let mut found = block_on(compare(&source, held(&lake), &bounds(), |_| {})).unwrap();
            prop_assert_eq!(found.unproven, 0);
            let listed: Vec<ObjectId> = records.iter().filter(|(_, record)| record.listed).map(|(id, _)| *id).collect();
            prop_assert_eq!(found.swept, listed.len() as u64);
            let only_lake: Vec<ObjectId> = lake.iter().filter(|id| !records[id].listed).copied().collect();
            prop_assert_eq!(&found.only_lake, &only_lake);
            let only_source: Vec<ObjectId> = listed.into_iter().filter(|id| !lake.contains(id)).collect();
            prop_assert_eq!(&found.only_source, &only_source);

            let mut look_up = LookUp::new(&source, std::mem::take(&mut found.witnesses));
            let mut known = block_on(look_up.look_up(&only_lake)).unwrap();
            known.gone.sort_unstable();
            let gone: Vec<ObjectId> = only_lake.iter().filter(|id| !records[id].there).copied().collect();
            prop_assert_eq!(known.gone, gone);
            let mut there: Vec<ObjectId> = known.found.iter().map(|record| record.id).collect();
            there.sort_unstable();
            let expected: Vec<ObjectId> = only_lake.iter().filter(|id| records[id].there).copied().collect();
            prop_assert_eq!(there, expected);
        }

        #[test]
        fn record_that_exists_is_never_gone_however_the_source_changes(
            (records, lake) in organisation(), lists in lists(), changes in 1_u64..6, seed: u64,
        ) {
            let source = Source { changes, lists, ..Source::new(records.clone(), seed) };
            let mut found = block_on(compare(&source, held(&lake), &bounds(), |_| {})).unwrap();
            let mut look_up = LookUp::new(&source, std::mem::take(&mut found.witnesses));
            let known = block_on(look_up.look_up(&found.only_lake)).unwrap();
            let after = source.records();
            for id in &known.gone {
                prop_assert!(!after[id].there, "{id} exists");
            }
            let gone: HashSet<ObjectId> = known.gone.iter().copied().collect();
            prop_assert_eq!(gone.len(), known.gone.len(), "each once");
            prop_assert_eq!(found.unproven, 0);
            for id in lake.iter().filter(|id| !records[id].there) {
                prop_assert!(gone.contains(id), "{id} was gone from the start");
            }
            // What only an archive that it left could have shown is asked for by id; all else is seen.
            for (id, record) in &records {
                let stays = after[id].listed && after[id].archived == record.archived;
                if stays && !lake.contains(id) {
                    prop_assert!(found.only_source.contains(id), "{id} is missing from the lake");
                }
            }
        }
    }

    #[test]
    fn sweep_costs_little_more_than_a_request_per_page() {
        let first = UNTIL_MS / 1_000 - 100_000;
        let ids: Vec<ObjectId> = (0..10_000).map(|place| id(first + place * 7, place as u64)).collect();
        let record = |id: &ObjectId| {
            (
                *id,
                Record {
                    created_ms: created_ms(*id) + 400,
                    archived: false,
                    listed: true,
                    there: true,
                    deleted: false,
                },
            )
        };
        let source = Source::new(ids.iter().map(record).collect(), 1);
        let bounds = Bounds { archive_until_ms: None, page_size: 500, ..bounds() };
        let found = block_on(compare(&source, held(&ids.into_iter().collect()), &bounds, |_| {})).unwrap();
        assert_eq!((found.swept, found.only_lake.len(), found.only_source.len()), (10_000, 0, 0));
        assert_eq!(source.requests.into_inner(), 21);
    }

    #[test]
    fn smaller_pages_of_the_source_are_learnt() {
        let first = UNTIL_MS / 1_000 - 100_000;
        let ids: Vec<ObjectId> = (0..10_000).map(|place| id(first + place * 7, place as u64)).collect();
        let record = |id: &ObjectId| {
            (
                *id,
                Record {
                    created_ms: created_ms(*id) + 400,
                    archived: false,
                    listed: true,
                    there: true,
                    deleted: false,
                },
            )
        };
        let source = Source { page_rows: 100, ..Source::new(ids.iter().map(record).collect(), 1) };
        let bounds = Bounds { archive_until_ms: None, page_size: 500, concurrency: 1, ..bounds() };
        let found = block_on(compare(&source, held(&ids.into_iter().collect()), &bounds, |_| {})).unwrap();
        assert_eq!((found.swept, found.unproven), (10_000, 0));
        let requests = source.requests.into_inner();
        assert!(requests < 125, "10,000 ids in pages of 100 took {requests} requests");
    }

    #[test]
    fn millisecond_beyond_the_window_is_unproven_and_nothing_of_it_is_doubted() {
        let second = UNTIL_MS / 1_000 - 10;
        let record = |number| {
            let made =
                Record { created_ms: second * 1_000, archived: false, listed: true, there: true, deleted: false };
            (id(second, number), made)
        };
        let source = Source::new((0..300).map(record).collect(), 3);
        let lake = (0..310).map(|number| id(second, number)).collect();
        let bounds = Bounds { reach_rows: 100, archive_until_ms: None, ..bounds() };
        let found = block_on(compare(&source, held(&lake), &bounds, |_| {})).unwrap();
        assert!(found.unproven > 0 && found.only_lake.is_empty(), "{found:?}");
    }

    #[test]
    fn many_that_are_gone_are_known_from_few_requests() {
        let first = UNTIL_MS / 1_000 - 10_000;
        let record = |place: u64| {
            let there = place.is_multiple_of(2);
            let made = Record { created_ms: 0, archived: false, listed: there, there, deleted: false };
            (id(first + place as i64, place), made)
        };
        let records: BTreeMap<ObjectId, Record> = (0..2_000).map(record).collect();
        let (there, gone): (Vec<ObjectId>, Vec<ObjectId>) = records.keys().partition(|id| records[id].there);
        let source = Source::new(records, 1);
        let known = block_on(LookUp::new(&source, there).look_up(&gone)).unwrap();
        assert_eq!(known.gone.len(), 1_000);
        let requests = source.requests.into_inner();
        assert!(requests < 25, "1,000 ids took {requests} requests");
    }
}
