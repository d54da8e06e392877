//! Retention against a model of what is to stay.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectMeta, ObjectStore};
use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::error::ErrorKind;
use crate::lake::simulation::faulty::{Fault, Faulty};
use crate::lake::simulation::{
    Revision, append, create, deletion, hex, live, live_tickets, memory, open, query, revision, root, rows, tickets,
    versions,
};
use crate::lake::{CompactSettings, DEFAULT_GC_AFTER};

/// When the clock of these tests stands, in seconds after the revision 0 of every ticket.
const NOW: u64 = 1_000;

async fn open_now(store: &Arc<dyn ObjectStore>) -> Result<Lake> {
    let clock = ManualClock::new(jiff::Timestamp::from_second(1_760_000_000).unwrap());
    clock.advance(Duration::from_secs(NOW));
    Lake::open_on(Arc::clone(store), "test:", &root(1), Arc::new(clock)).await
}

/// Keeps what is younger than a revision.
fn since(rev: u64) -> Duration {
    Duration::from_secs(NOW - rev)
}

fn history(rev: u64) -> RetainSettings {
    RetainSettings { keep_history: Some(since(rev)), ..RetainSettings::default() }
}

fn old_tickets(rev: u64) -> RetainSettings {
    RetainSettings { keep_tickets: Some(since(rev)), ..RetainSettings::default() }
}

async fn filled() -> Arc<InMemory> {
    let memory = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> = memory.clone();
    let lake = create(&store).await;
    let mut change = lake.transaction();
    change.append(tickets(&[revision(1, 1), revision(2, 1), revision(3, 9), revision(4, 2)]));
    change.append(rows(Stream::TicketTimes, &[("ticket_id", "text")], &[revision(7, 1)]));
    change.set_watermark(Stream::Tickets, Watermark { complete_through_ms: Some(5), ..Watermark::default() });
    change.commit().await.unwrap();
    append(&lake, tickets(&[revision(1, 3), revision(2, 2)])).await.unwrap();
    append(&lake, tickets(&[revision(1, 8), deletion(4, 3)])).await.unwrap();
    memory
}

async fn all(lake: &Lake) -> Vec<String> {
    let rows = query(lake, "SELECT ticket_id, rev FROM ticket_versions ORDER BY 1, 2").await;
    rows.into_iter().map(|row| format!("{}:{}", row[0].trim_start_matches('0'), row[1])).collect()
}

#[tokio::test]
async fn superseded_rows_older_than_the_cut_go_and_what_counts_stays() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open_now(&store).await.unwrap();
    assert_eq!(all(&lake).await, ["101:1", "101:3", "101:8", "102:1", "102:2", "103:9", "104:2", "104:3"]);
    let live = live_tickets(&lake).await;
    let plan = lake.plan_retention(&history(2)).await.unwrap();
    assert_eq!(lake.latest().await.unwrap().version, 3, "a plan changes nothing");
    let done = lake.retain(&history(2), "test").await.unwrap();
    assert_eq!(done, RetainPlan { version: Some(4), ..plan.clone() });
    let table = RetainedTable { history_rows: 2, files_rewritten: 1, ..RetainedTable::default() };
    assert_eq!(plan.tables, [(Stream::Tickets, table)].into());
    assert_eq!(all(&lake).await, ["101:3", "101:8", "102:2", "103:9", "104:2", "104:3"]);
    assert_eq!(live_tickets(&lake).await, live);
    assert_eq!(lake.retain(&history(2), "test").await.unwrap().version, None, "nothing more to drop");
    lake.retain(&history(NOW), "test").await.unwrap();
    assert_eq!(all(&lake).await, ["101:8", "102:2", "103:9", "104:3"]);
    assert_eq!(live_tickets(&lake).await, live);
    let before = lake.at_version(3).await.unwrap();
    assert_eq!(versions(&lake, &before).await, 8, "versions before still hold the rows");
    // Revisions are recognized all the same.
    let counts =
        append(&lake, tickets(&[revision(1, 3), revision(1, 8), deletion(4, 3), revision(4, 2)])).await.unwrap();
    assert_eq!(counts.unchanged, 2);
}

#[tokio::test]
async fn old_tickets_go_with_all_versions_and_the_watermark_says_so() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open_now(&store).await.unwrap();
    let done = lake.retain(&old_tickets(5), "test").await.unwrap();
    assert_eq!(done.tickets, 2, "2 and the tombstone of 4");
    assert_eq!(all(&lake).await, ["101:1", "101:3", "101:8", "103:9"], "1 changed later, so its history stays");
    let manifest = lake.latest().await.unwrap();
    let watermark = &manifest.watermarks[&Stream::Tickets];
    assert_eq!(watermark.complete_from_ms, Some(1_760_000_005_000));
    assert_eq!(watermark.complete_through_ms, Some(5));
    assert_eq!(manifest.version, 4, "rows and watermark in one commit");
    assert_eq!(lake.retain(&old_tickets(4), "test").await.unwrap().version, None);
    assert_eq!(lake.retain(&old_tickets(9), "test").await.unwrap().tickets, 1);
    assert_eq!(live_tickets(&lake).await, [(hex(3), 9)]);
    // One that changes at the source comes back.
    append(&lake, tickets(&[revision(2, 50)])).await.unwrap();
    assert_eq!(live_tickets(&lake).await, [(hex(2), 50), (hex(3), 9)]);
}

#[tokio::test]
async fn times_spent_on_old_tickets_go_with_them() {
    let lake = create(&memory()).await;
    let time = |number: u8, ticket: u8| {
        serde_json::json!({"type": "any", "id": hex(number), "attributes": {
            "createdAt": "2026-01-01T00:00:00Z", "ticket_id": hex(ticket)}})
    };
    let mut change = lake.transaction();
    change.append(tickets(&[revision(1, 1), revision(2, 9)]));
    change.append(crate::lake::simulation::decoded(
        Stream::TicketTimes,
        &[("ticket_id", "text")],
        &[time(7, 1), time(8, 2), time(9, 1)],
    ));
    change.commit().await.unwrap();
    let store = Arc::clone(&lake.0.store);
    let lake = open_now(&store).await.unwrap();
    lake.retain(&old_tickets(5), "test").await.unwrap();
    assert_eq!(query(&lake, "SELECT ticket_time_id FROM ticket_times").await, [[hex(8)]]);
    assert_eq!(lake.latest().await.unwrap().watermarks.len(), 0, "without a watermark none is made");
}

#[tokio::test]
async fn old_tickets_wait_for_an_extract_and_history_does_not() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open_now(&store).await.unwrap();
    let lease = lake.lease(Purpose::Extract, "run").await.unwrap();
    assert_eq!(lake.retain(&old_tickets(5), "test").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(lake.retain(&history(5), "test").await.unwrap().version.is_some());
    lease.release().await.unwrap();
    lake.retain(&old_tickets(5), "test").await.unwrap();
}

#[tokio::test]
async fn crash_at_any_call_drops_all_or_nothing_and_repeating_completes_it() {
    let filled = filled().await;
    let settings = RetainSettings {
        keep_history: Some(since(4)),
        keep_tickets: Some(since(3)),
        keep_lists: None,
        keep_accesses: None,
        keep_versions: Duration::ZERO,
    };
    let before = all(&open_now(&(filled.clone() as Arc<dyn ObjectStore>)).await.unwrap()).await;
    let after = ["101:8", "103:9", "104:3"];
    let mut crashes = 0;
    for fault in [Fault::Before, Fault::After] {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: true });
            let outcome = match open(&faulty).await {
                // Its clock stands at revision 0, so that the repetition finds its leases ended.
                Ok(lake) => lake.retain_as_of_now(&settings).await,
                Err(error) => Err(error),
            };
            let name = format!("{fault:?} at call {at}: {outcome:?}");
            let lake = open_now(&plain).await.unwrap();
            let found = all(&lake).await;
            assert!(found == before || found == after, "{name}: {found:?}");
            let moved = lake.latest().await.unwrap().watermarks[&Stream::Tickets].complete_from_ms;
            assert_eq!(moved.is_some(), found == after, "{name}: rows and watermark go together");
            lake.retain(&settings, "test").await.unwrap();
            assert_eq!(all(&lake).await, after, "{name}");
            assert_eq!(lake.latest().await.unwrap().version, 4, "{name}");
            if calls.load(Ordering::SeqCst) <= at {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 40, "{crashes}");
}

impl Lake {
    /// Runs a retention as it would run at `NOW`, with leases taken at the time of this lake's clock.
    async fn retain_as_of_now(&self, settings: &RetainSettings) -> Result<RetainPlan> {
        let mut leases =
            vec![self.lease(Purpose::Maintenance, "crashed").await?, self.lease(Purpose::Extract, "crashed").await?];
        let later = open_now(&self.0.store).await?;
        let history_only = RetainSettings { keep_tickets: None, ..settings.clone() };
        // The lease for extracting is held already.
        let drops = later.drops(settings, &mut leases).await?;
        later.drop_rows(&drops, &mut leases).await?;
        let plan = later.retain_under(&history_only, "crashed", &mut leases).await?;
        release_all(leases).await?;
        Ok(plan)
    }
}

/// One step of random work.
#[derive(Debug, Clone)]
enum Work {
    Append(Vec<Revision>),
    KeepHistory(u64),
    KeepTickets(u64),
    Compact,
    Expire,
    Collect,
    Reopen,
}

fn work() -> impl Strategy<Value = Vec<Work>> {
    let one = (0..12_u8, 0..8_i64, proptest::bool::weighted(0.2));
    let revisions = proptest::collection::vec(one.prop_map(|(id, rev, deleted)| Revision { id, rev, deleted }), 1..8);
    let one = prop_oneof![
        6 => revisions.prop_map(Work::Append),
        1 => (0..9_u64).prop_map(Work::KeepHistory),
        1 => (0..5_u64).prop_map(Work::KeepTickets),
        1 => Just(Work::Compact),
        1 => Just(Work::Expire),
        1 => Just(Work::Collect),
        1 => Just(Work::Reopen),
    ];
    proptest::collection::vec(one, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn live_rows_equal_a_model_whatever_is_tidied_up_in_between(work in work()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let store = memory();
            create(&store).await;
            let mut lake = open_now(&store).await.unwrap().with_limits(5, 3);
            let mut model: std::collections::BTreeMap<u8, Revision> = std::collections::BTreeMap::new();
            let mut kept = lake.latest().await.unwrap();
            let mut kept_rows = Vec::new();
            for work in work {
                match work {
                    Work::Append(revisions) => {
                        append(&lake, tickets(&revisions)).await.unwrap();
                        for revision in revisions {
                            let newest = model.entry(revision.id).or_insert(revision);
                            *newest = revision.max(*newest);
                        }
                    }
                    Work::KeepHistory(rev) => drop(lake.retain(&history(rev), "test").await.unwrap()),
                    Work::KeepTickets(rev) => {
                        lake.retain(&old_tickets(rev), "test").await.unwrap();
                        model.retain(|_, newest| newest.rev >= rev as i64);
                    }
                    Work::Compact => drop(lake.compact(&CompactSettings::default(), "test", |_| ()).await.unwrap()),
                    Work::Expire => {
                        lake.expire(Expire::AllButNewest).await.unwrap();
                        kept = lake.latest().await.unwrap();
                        kept_rows = live(&lake, &kept, Stream::Tickets).await;
                    }
                    Work::Collect => {
                        let unused = lake.unused(None).await.unwrap();
                        lake.delete_garbage(&unused).await.unwrap();
                        assert!(lake.unnamed().await.unwrap().is_empty());
                    }
                    Work::Reopen => lake = open_now(&store).await.unwrap().with_limits(5, 3),
                }
                let manifest = lake.latest().await.unwrap();
                let expected: Vec<(String, i64)> = model
                    .values()
                    .filter(|revision| !revision.deleted)
                    .map(|revision| (hex(revision.id), revision.rev))
                    .collect();
                assert_eq!(live(&lake, &manifest, Stream::Tickets).await, expected);
                // A reader stays on a kept version whatever goes on beside it.
                assert_eq!(live(&lake, &kept, Stream::Tickets).await, kept_rows);
                assert_eq!(*lake.at_version(kept.version).await.unwrap(), *kept);
            }
            let fresh = open(&store).await.unwrap();
            assert_eq!(fresh.latest().await.unwrap(), lake.latest().await.unwrap());
            // What is young stays, though nothing names it.
            let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
            let garbage = lake.gc(DEFAULT_GC_AFTER, "test").await.unwrap();
            assert_eq!(garbage.data, []);
            assert!(!objects.is_empty());
        });
    }
}
