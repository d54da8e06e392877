//! Access records under crashes, races, compaction, erasure and key rotation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::faulty::{Fault, Faulty};
use super::{append, create, hex, live_tickets, open, query, query_at, revision, root, tickets};
use crate::clock::ManualClock;
use crate::error::Result;
use crate::lake::accesses::{Access, Cost, Delivery};
use crate::lake::lease::Purpose;
use crate::lake::{CompactSettings, EraseRequest, Lake, RetainSettings};
use crate::model::{ObjectId, Stream};

fn access(id: &str) -> Access {
    Access {
        id: id.to_owned(),
        at_ms: 1_760_000_000_000,
        login: "ann".to_owned(),
        host: "desk".to_owned(),
        command: "resolve".to_owned(),
        parts: "messages,notes".to_owned(),
        redacted: true,
        attachment_id: None,
    }
}

fn ids(numbers: &[u8]) -> Vec<ObjectId> {
    numbers.iter().map(|number| hex(*number).parse().unwrap()).collect()
}

/// The records: call, phase, ticket, outcome.
async fn held(lake: &Lake) -> Vec<Vec<String>> {
    query(lake, "SELECT access_id, phase, ticket_id, outcome FROM accesses ORDER BY access_id, phase, ticket_id").await
}

async fn filled() -> Arc<InMemory> {
    let filled = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> = filled.clone();
    let lake = create(&store).await;
    append(&lake, tickets(&[revision(1, 1), revision(2, 1), revision(3, 1)])).await.unwrap();
    filled
}

/// Opens a lake so much later that every lease has ended.
async fn open_later(store: &Arc<dyn ObjectStore>) -> Lake {
    open_at(store, 1).await.unwrap()
}

async fn open_at(store: &Arc<dyn ObjectStore>, hours: u64) -> Result<Lake> {
    let clock = ManualClock::new(jiff::Timestamp::from_second(1_760_000_000).unwrap());
    clock.advance(Duration::from_hours(hours));
    Lake::open_on(Arc::clone(store), "test:", &root(1), Arc::new(clock)).await
}

async fn assert_sound(lake: &Lake, name: &str) {
    let report = lake.verify(&root(1), None, &|_| ()).await.unwrap();
    assert!(report.findings.is_empty(), "{name}: {:?}", report.findings);
}

#[tokio::test]
async fn call_leaves_rows_before_and_after_and_the_table_is_there_without_any() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    assert!(held(&lake).await.is_empty());
    lake.record_asked(&access("a"), &ids(&[3, 1, 9])).await.unwrap();
    let cost = Cost { requests: 7, several_customers: Some(false) };
    let delivered = [(ids(&[3])[0], Delivery::Complete), (ids(&[1])[0], Delivery::Partial)];
    lake.record_delivered(&access("a"), &delivered, cost).await.unwrap();
    lake.record_asked(&access("b"), &[]).await.unwrap();
    let row = |phase: &str, ticket: u8, outcome: &str| -> Vec<String> {
        ["a", phase, &hex(ticket), outcome].map(str::to_owned).into()
    };
    let expected = [
        row("asked", 1, ""),
        row("asked", 3, ""),
        row("asked", 9, ""),
        row("delivered", 1, "partial"),
        row("delivered", 3, "complete"),
    ];
    assert_eq!(held(&lake).await, expected);
    let sql = format!(
        "SELECT login, host, command, parts, redacted, requests, several_customers FROM accesses \
         WHERE ticket_id = '{}' AND phase = 'delivered'",
        hex(3)
    );
    let whole = query(&lake, &sql);
    assert_eq!(whole.await, [["ann", "desk", "resolve", "messages,notes", "true", "7", "false"]]);
    assert_eq!(live_tickets(&lake).await.len(), 3);
    assert_sound(&lake, "two commits").await;
}

#[tokio::test]
async fn crash_at_any_call_leaves_all_rows_or_none_and_what_is_said_to_be_recorded_is_there() {
    let filled = filled().await;
    for (fault, for_good) in
        [(Fault::Before, true), (Fault::After, true), (Fault::Before, false), (Fault::After, false)]
    {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good });
            let outcome = match open(&faulty).await {
                // Two ids of a file, so that there are two files.
                Ok(lake) => lake.with_limits(2, 2).record_asked(&access("a"), &ids(&[3, 1, 2])).await,
                Err(error) => Err(error),
            };
            let name = format!("{fault:?}, for good: {for_good}, at call {at}: {outcome:?}");
            let lake = open_later(&plain).await.with_limits(2, 2);
            let found = held(&lake).await.len();
            assert!(found == 3 || (found == 0 && outcome.is_err()), "{name}: {found}");
            assert_eq!(live_tickets(&lake).await.len(), 3, "{name}");
            assert_sound(&lake, &name).await;
            lake.record_asked(&access("b"), &ids(&[1])).await.unwrap();
            assert_eq!(held(&lake).await.len(), found + 1, "{name}");
            if calls.load(Ordering::Relaxed) <= at {
                assert!(outcome.is_ok(), "{name}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn many_small_calls_are_joined_and_survive_erasure() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    for number in 0..40_u8 {
        lake.record_asked(&access(&format!("{number:02}")), &ids(&[number % 4 + 1])).await.unwrap();
    }
    let before = held(&lake).await;
    let report = lake.compact(&CompactSettings::default(), "test", |_| ()).await.unwrap();
    assert!(report.done.iter().any(|done| done.stream == Stream::Accesses), "{report:?}");
    let files = |manifest: &crate::lake::manifest::Manifest| manifest.tables[&Stream::Accesses].files.len();
    assert!(files(lake.latest().await.unwrap().as_ref()) < 5);
    assert_eq!(held(&lake).await, before);
    assert_sound(&lake, "joined").await;
    // Who looked at a ticket can be told after it is gone.
    let request = EraseRequest { tickets: ids(&[1]).into_iter().collect(), ..EraseRequest::default() };
    lake.erase(&request, "test").await.unwrap();
    assert_eq!(live_tickets(&lake).await.len(), 2);
    assert_eq!(held(&lake).await, before);
    assert_sound(&lake, "erased").await;
}

#[tokio::test]
async fn calls_at_once_and_an_extract_beside_them_all_land() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    let others = [open(&store).await.unwrap(), open(&store).await.unwrap()];
    let calls = futures::future::join_all((0..6_u8).map(|number| {
        let lake = &others[usize::from(number) % 2];
        async move { lake.record_asked(&access(&number.to_string()), &ids(&[1, 2])).await }
    }));
    let extract = async {
        for rev in 2..6 {
            append(&lake, tickets(&[revision(1, rev)])).await.unwrap();
        }
    };
    let (calls, ()) = futures::future::join(calls, extract).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert_eq!(held(&lake).await.len(), 12);
    assert_sound(&lake, "raced").await;
}

#[tokio::test]
async fn crash_at_any_call_after_the_delivery_leaves_what_was_asked_for_and_never_a_row_twice() {
    let filled = filled().await;
    let store: Arc<dyn ObjectStore> = filled.clone();
    open(&store).await.unwrap().record_asked(&access("a"), &ids(&[1, 2, 3])).await.unwrap();
    let delivered: Vec<_> = ids(&[2, 1, 3]).into_iter().map(|id| (id, Delivery::Complete)).collect();
    let mut crashes = 0;
    for fault in [Fault::Before, Fault::After] {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: true });
            let outcome = match open(&faulty).await {
                Ok(lake) => lake.with_limits(2, 2).record_delivered(&access("a"), &delivered, Cost::default()).await,
                Err(error) => Err(error),
            };
            let name = format!("{fault:?} at call {at}: {outcome:?}");
            let lake = open_later(&plain).await;
            let found = held(&lake).await;
            let of = |phase: &str| found.iter().filter(|row| row[1] == phase).count();
            assert_eq!(of("asked"), 3, "{name}");
            assert!(of("delivered") == 3 || (of("delivered") == 0 && outcome.is_err()), "{name}: {found:?}");
            assert_sound(&lake, &name).await;
            if calls.load(Ordering::Relaxed) <= at {
                assert!(outcome.is_ok(), "{name}");
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes}");
}

#[tokio::test]
async fn old_records_go_only_where_a_setting_says_so_and_a_crash_drops_all_or_none() {
    let filled = filled().await;
    let store: Arc<dyn ObjectStore> = filled.clone();
    let lake = open(&store).await.unwrap();
    let young = Access { at_ms: 1_760_000_000_000 + 9 * 3_600_000, ..access("young") };
    lake.record_asked(&access("old"), &ids(&[2, 1])).await.unwrap();
    lake.record_asked(&young, &ids(&[3, 2])).await.unwrap();
    // One file of both, and one that goes as a whole.
    lake.compact(&CompactSettings::default(), "test", |_| ()).await.unwrap();
    lake.record_asked(&access("older"), &ids(&[3])).await.unwrap();
    let before = held(&lake).await;
    let after: Vec<_> = before.iter().filter(|row| row[0] == "young").cloned().collect();
    assert_eq!((before.len(), after.len()), (5, 2));

    let later = open_at(&store, 10).await.unwrap();
    let others = RetainSettings {
        keep_history: Some(Duration::ZERO),
        keep_lists: Some(Duration::ZERO),
        ..RetainSettings::default()
    };
    later.retain(&others, "test").await.unwrap();
    assert_eq!(held(&later).await, before, "no other setting is meant for them");
    let settings = RetainSettings { keep_accesses: Some(Duration::from_hours(5)), ..RetainSettings::default() };
    let plan = later.plan_retention(&settings).await.unwrap();
    assert_eq!((plan.accesses, plan.to_string().as_str()), (3, "accesses: 3 rows of old access records\n"));
    assert_eq!(held(&later).await, before, "a plan changes nothing");
    for fault in [Fault::Before, Fault::After] {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: true });
            let outcome = match open_at(&faulty, 10).await {
                Ok(lake) => lake.retain(&settings, "test").await.map(drop),
                Err(error) => Err(error),
            };
            let name = format!("{fault:?} at call {at}: {outcome:?}");
            let lake = open_at(&plain, 11).await.unwrap();
            let found = held(&lake).await;
            assert!(found == before || found == after, "{name}: {found:?}");
            lake.retain(&settings, "test").await.unwrap();
            assert_eq!(held(&lake).await, after, "{name}");
            assert_sound(&lake, &name).await;
            if calls.load(Ordering::Relaxed) <= at {
                break;
            }
        }
    }
    later.retain(&settings, "test").await.unwrap();
    assert_eq!(held(&later).await, after);
    assert_eq!(later.retain(&settings, "test").await.unwrap().version, None, "nothing is left to do");
}

#[tokio::test]
async fn rotated_key_stays_in_use_until_the_records_are_wrapped_anew() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    lake.record_asked(&access("a"), &ids(&[1, 2])).await.unwrap();
    let before = held(&lake).await;
    lake.rotate_keys(&root(1)).await.unwrap();
    let lake = open(&store).await.unwrap();
    let protection = lake.protection().await.unwrap();
    assert_eq!(protection.of("ring-1").tables[&Stream::Accesses].live_rows, 2);
    let mut lease = lake.lease(Purpose::Maintenance, "test").await.unwrap();
    lake.rewrap_files(&mut lease).await.unwrap();
    lease.release().await.unwrap();
    let lake = open(&store).await.unwrap();
    assert!(!lake.protection().await.unwrap().needs("ring-1"));
    assert_sound(&lake, "after wrapping anew").await;
    lake.destroy_key(&root(1), "ring-1").await.unwrap();
    let lake = open(&store).await.unwrap();
    assert_eq!(held(&lake).await, before);
    lake.record_asked(&access("b"), &ids(&[3])).await.unwrap();
    assert_eq!(held(&lake).await.len(), 3, "records made after the key was destroyed stand beside them");
}

#[tokio::test]
async fn earlier_version_has_the_records_of_its_time_and_snapshots_keep_them_all() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap().with_limits(1_000, 2);
    for call in ["a", "b", "c", "d", "e"] {
        lake.record_asked(&access(call), &ids(&[1])).await.unwrap();
    }
    let lake = open(&store).await.unwrap();
    let newest = lake.latest().await.unwrap().version;
    let count = "SELECT count(DISTINCT access_id) FROM accesses";
    for (version, calls) in [(newest, "5"), (newest - 2, "3"), (newest - 5, "0")] {
        let manifest = lake.at_version(version).await.unwrap();
        assert_eq!(query_at(&lake, &manifest, count).await, [[calls]], "version {version}");
    }
}

#[tokio::test]
async fn records_of_one_ticket_are_found_without_reading_the_others() {
    let filled: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&filled).await.unwrap();
    for number in 1..=30_u8 {
        lake.record_asked(&access(&format!("{number:02}")), &ids(&[number])).await.unwrap();
    }
    let reads = async |sql: &str| {
        let calls = Arc::new(AtomicUsize::new(0));
        let inner = Arc::clone(&filled);
        let (at, fault) = (usize::MAX, Fault::Before);
        let counted: Arc<dyn ObjectStore> =
            Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: false });
        let lake = open(&counted).await.unwrap();
        let manifest = lake.latest().await.unwrap();
        let opened = calls.load(Ordering::Relaxed);
        let rows = query_at(&lake, &manifest, sql).await;
        (rows, calls.load(Ordering::Relaxed) - opened)
    };
    let one = format!("SELECT access_id FROM accesses WHERE ticket_id = '{}'", hex(7));
    let (rows, of_one) = reads(&one).await;
    let (_, of_all) = reads("SELECT count(login) FROM accesses").await;
    assert_eq!(rows, [["07"]]);
    assert!(of_one <= 3 && of_all >= 30, "{of_one} calls for one ticket, {of_all} for all");
}
