//! Recorded ticket lists under crashes, races, erasures, retention, key rotation and damage.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::faulty::{Fault, Faulty};
use super::rivals::Contested;
use super::{append, create, hex, live_tickets, memory, open, query, revision, root, tickets};
use crate::clock::ManualClock;
use crate::error::{ErrorKind, Result};
use crate::lake::lists::{Recorded, RecordedParameter, RecordedValue, Recording};
use crate::lake::manifest::Manifest;
use crate::lake::{CompactSettings, EraseRequest, Expire, Lake, Purpose, RetainSettings};
use crate::model::{ObjectId, Stream};

/// Hours after which the objects that a test has just put are old: the store in memory dates them by the machine's time.
const LONG_AFTER: u64 = 100_000;

fn recording(id: &str, list: &str, lake_version: u64) -> Recording {
    Recording {
        id: id.to_owned(),
        list: list.to_owned(),
        recorded_ms: 1_760_000_000_000,
        sql: "SELECT ticket_id FROM tickets".to_owned(),
        sql_digest: "d".repeat(64),
        now: "2025-10-09T08:53:20Z".to_owned(),
        lake_version,
        ..Recording::default()
    }
}

fn ids(numbers: &[u8]) -> Vec<ObjectId> {
    numbers.iter().map(|number| hex(*number).parse().unwrap()).collect()
}

async fn record(lake: &Lake, list: &str, numbers: &[u8]) -> Result<Recorded> {
    let version = lake.latest().await?.version;
    lake.record(recording(&lake.new_recording_id(), list, version), &ids(numbers), "test").await
}

/// The lists of the newest version: list, position, ticket.
async fn held(lake: &Lake) -> Vec<Vec<String>> {
    query(lake, "SELECT list, position, ticket_id FROM ticket_lists ORDER BY list, recording, position").await
}

fn row(list: &str, position: u64, ticket: u8) -> Vec<String> {
    vec![list.to_owned(), position.to_string(), hex(ticket)]
}

/// Opens a lake so much later that every lease has ended.
async fn open_later(store: &Arc<dyn ObjectStore>, hours: u64) -> Lake {
    open_at(store, hours).await.unwrap()
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

async fn filled() -> Arc<InMemory> {
    let filled = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> = filled.clone();
    let lake = create(&store).await;
    append(&lake, tickets(&[revision(1, 1), revision(2, 1), revision(3, 1)])).await.unwrap();
    record(&lake, "earlier", &[2]).await.unwrap();
    filled
}

#[tokio::test]
async fn crash_at_any_call_leaves_the_whole_list_or_none_and_repeating_records_it_once() {
    let filled = filled().await;
    let (mut crashes, mut made) = (0, 0);
    for (fault, for_good) in
        [(Fault::Before, true), (Fault::After, true), (Fault::Before, false), (Fault::After, false)]
    {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good });
            // Two ids of a file, so that the list has two files.
            let outcome = match open(&faulty).await {
                Ok(lake) => {
                    let lake = lake.with_limits(2, 2);
                    lake.record(recording("r", "vip", 1), &ids(&[3, 1, 2]), "crashed").await
                }
                Err(error) => Err(error),
            };
            let name = format!("{fault:?}, for good: {for_good}, at call {at}: {outcome:?}");
            let before = vec![row("earlier", 1, 2)];
            let after = [before.clone(), vec![row("vip", 1, 3), row("vip", 2, 1), row("vip", 3, 2)]].concat();
            let lake = open_later(&plain, 1).await.with_limits(2, 2);
            let found = held(&lake).await;
            let is_made = found == after;
            assert!(found == before || is_made, "{name}: {found:?}");
            assert!(is_made || outcome.is_err(), "{name}: what was said to be recorded is there");
            made += usize::from(is_made && outcome.is_err());
            assert_eq!(live_tickets(&lake).await.len(), 3, "{name}");

            let again = lake.record(recording("r", "vip", 1), &ids(&[3, 1, 2]), "again").await.unwrap();
            assert_eq!((again.address.as_str(), again.count), ("vip@1", 3), "{name}");
            assert_eq!(held(&lake).await, after, "{name}");
            assert_eq!(lake.latest().await.unwrap().lists.len(), 2, "{name}");
            assert_sound(&lake, &name).await;
            // What the crash left goes as garbage, and nothing else does.
            let later = open_later(&plain, LONG_AFTER).await;
            later.gc(Duration::from_hours(24), "test").await.unwrap();
            assert_eq!(held(&open_later(&plain, LONG_AFTER).await).await, after, "{name}");
            if calls.load(Ordering::SeqCst) <= at {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 40, "{crashes}");
    assert!(made > 0, "some crash comes between the commit and its answer");
}

/// Cuts an operation off at each of its calls, and repeats it an hour later; returns how many crashes there were.
async fn crash_and_repeat<F>(filled: &InMemory, hours: u64, after: &[Vec<String>], operate: impl Fn(Lake) -> F) -> usize
where
    F: Future<Output = Result<()>>,
{
    let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
    let before = held(&open_later(&plain, hours).await).await;
    let mut crashes = 0;
    for fault in [Fault::Before, Fault::After] {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: true });
            let outcome = match open_at(&faulty, hours).await {
                Ok(lake) => operate(lake).await,
                Err(error) => Err(error),
            };
            let name = format!("{fault:?} at call {at}: {outcome:?}");
            let found = held(&open_later(&plain, hours + 1).await).await;
            assert!(found == before || found == after, "{name}: {found:?}");
            operate(open_later(&plain, hours + 1).await).await.unwrap();
            let lake = open_later(&plain, hours + 2).await;
            assert_eq!(held(&lake).await, after, "{name}");
            assert_sound(&lake, &name).await;
            if calls.load(Ordering::SeqCst) <= at {
                break;
            }
            crashes += 1;
        }
    }
    crashes
}

#[tokio::test]
async fn crash_at_any_call_of_an_erasure_or_a_retention_is_completed_by_repeating_it() {
    let filled = filled().await;
    let store: Arc<dyn ObjectStore> = filled.clone();
    record(&open(&store).await.unwrap(), "vip", &[3, 2, 1]).await.unwrap();
    let request = EraseRequest { tickets: ids(&[2]).into_iter().collect(), ..EraseRequest::default() };
    let after = [row("vip", 1, 3), row("vip", 3, 1)];
    let crashes = crash_and_repeat(&filled, 1, &after, |lake| {
        let request = request.clone();
        async move { lake.erase(&request, "test").await.map(drop) }
    });
    assert!(crashes.await > 40);
    let settings = RetainSettings { keep_lists: Some(Duration::from_mins(30)), ..RetainSettings::default() };
    let crashes = crash_and_repeat(&filled, 1, &[], |lake| {
        let settings = settings.clone();
        async move { lake.retain(&settings, "test").await.map(drop) }
    });
    assert!(crashes.await > 20);
}

#[tokio::test]
async fn recording_that_loses_a_race_is_made_once_after_it() {
    let inner = memory();
    let rival = create(&inner).await;
    append(&rival, tickets(&[revision(1, 1)])).await.unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(Contested {
        inner: Arc::clone(&inner),
        rival,
        rounds: AtomicUsize::new(3),
        appends: vec![revision(2, 1)],
    });
    let lake = open(&store).await.unwrap();
    assert_eq!(record(&lake, "vip", &[1]).await.unwrap().version, 5);
    assert_eq!(held(&open(&inner).await.unwrap()).await, [row("vip", 1, 1)]);
    let manifest = lake.latest().await.unwrap();
    assert_eq!(manifest.tables[&Stream::TicketLists].files.len(), 1, "its file is put once");
}

#[tokio::test]
async fn recordings_wait_for_one_another_and_not_for_ever() {
    let store = memory();
    let lake = create(&store).await;
    let lease = lake.lease(Purpose::Record, "another").await.unwrap();
    let error = record(&lake, "vip", &[1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(lake.latest().await.unwrap().lists.is_empty());
    lease.release().await.unwrap();
    let (one, other) = (open(&store).await.unwrap(), open(&store).await.unwrap());
    let (left, right) = tokio::join!(record(&one, "vip", &[1]), record(&other, "vip", &[2]));
    let mut addresses = [left.unwrap().address, right.unwrap().address];
    addresses.sort();
    assert_eq!(addresses, ["vip@1", "vip@2"]);
}

#[tokio::test]
async fn result_of_a_version_that_has_ended_is_not_recorded() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 1)])).await.unwrap();
    append(&lake, tickets(&[revision(2, 1)])).await.unwrap();
    lake.expire(Expire::AllButNewest).await.unwrap();
    let error = lake.record(recording("r", "vip", 1), &ids(&[1]), "test").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("has ended meanwhile"), "{error}");
    lake.record(recording("r", "vip", 2), &ids(&[1]), "test").await.unwrap();
}

#[tokio::test]
async fn names_that_no_list_can_have_change_nothing() {
    let lake = create(&memory()).await;
    for name in ["", "a@1", "58228e05d4e96711004eccb7"] {
        let error = record(&lake, name, &[1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name}");
    }
    assert_eq!(lake.latest().await.unwrap().version, 0);
}

#[tokio::test]
async fn erased_ticket_leaves_every_list_and_what_the_recordings_say() {
    let store = memory();
    let lake = create(&store).await;
    append(&lake, tickets(&[revision(1, 1), revision(2, 1), revision(3, 1)])).await.unwrap();
    record(&lake, "both", &[3, 1, 2]).await.unwrap();
    record(&lake, "only", &[1]).await.unwrap();
    record(&lake, "other", &[2]).await.unwrap();
    let named = Recording {
        parameters: vec![
            RecordedParameter { name: "t".to_owned(), kind: "text".to_owned(), value: RecordedValue::Text(hex(1)) },
            RecordedParameter {
                name: "n".to_owned(),
                kind: "int".to_owned(),
                value: RecordedValue::Text("4".to_owned()),
            },
        ],
        sql: format!("SELECT ticket_id FROM tickets WHERE ticket_id <> '{}'", hex(1)),
        ..recording("named", "named", 4)
    };
    lake.record(named, &ids(&[2]), "test").await.unwrap();
    let request = EraseRequest { tickets: ids(&[1]).into_iter().collect(), ..EraseRequest::default() };
    let plan = lake.plan_erasure(&request).await.unwrap();
    assert_eq!(plan.recordings, 1);
    let of_lists = plan.tables.iter().find(|table| table.table == "ticket_lists").unwrap();
    assert_eq!((of_lists.rows, of_lists.values, of_lists.files_rewritten, of_lists.files_removed), (2, 1, 2, 1));

    let receipt = lake.erase(&request, "test").await.unwrap();
    assert_eq!(receipt.recordings, 1);
    let lake = open(&store).await.unwrap();
    let expected = [row("both", 1, 3), row("both", 3, 2), row("named", 1, 2), row("other", 1, 2)];
    assert_eq!(held(&lake).await, expected);
    let manifest = lake.latest().await.unwrap();
    let named = manifest.lists.iter().find(|known| known.id == "named").unwrap();
    assert_eq!((named.sql.as_str(), named.parameters_json().as_str()), ("", r#"{"n":4,"t":null}"#));
    assert_eq!(manifest.lists.len(), 4, "what was recorded when stays known");
    let said = query(&lake, "SELECT count(*) FROM ticket_lists WHERE parameters IS NOT NULL AND list = 'named'").await;
    assert_eq!(said, [["0"]]);
    assert_sound(&lake, "after the erasure").await;
    assert!(lake.erase(&request, "test").await.unwrap().is_empty(), "nothing is left of it");
    // An erasure and a recording do not meet.
    let lease = lake.lease(Purpose::Record, "a recording").await.unwrap();
    assert_eq!(lake.erase(&request, "test").await.unwrap_err().kind(), ErrorKind::Conflict);
    lease.release().await.unwrap();
}

#[tokio::test]
async fn recording_that_only_an_older_version_tells_of_is_erased_too() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(2, 1)])).await.unwrap();
    let sql = format!("SELECT ticket_id FROM tickets WHERE ticket_id <> '{}'", hex(1));
    lake.record(Recording { sql, ..recording("r", "vip", 1) }, &ids(&[2]), "test").await.unwrap();
    let forget = RetainSettings { keep_lists: Some(Duration::ZERO), ..RetainSettings::default() };
    let later = open_later(&lake.0.store, 1).await;
    assert_eq!(later.retain(&forget, "test").await.unwrap().recordings, ["vip@1"]);
    let request = EraseRequest { tickets: ids(&[1]).into_iter().collect(), ..EraseRequest::default() };
    assert_eq!(later.erase(&request, "test").await.unwrap().recordings, 1);
    assert!(later.at_version(2).await.is_err(), "the version that told of it has ended");
}

#[tokio::test]
async fn old_recordings_are_forgotten_with_their_files_and_numbers_go_on() {
    let store = memory();
    let lake = create(&store).await;
    record(&lake, "vip", &[1]).await.unwrap();
    record(&lake, "vip", &[]).await.unwrap();
    let later = open_later(&store, 50).await;
    let young = Recording {
        recorded_ms: 1_760_000_000_000 + 49 * 3_600_000,
        ..recording("young", "vip", later.latest().await.unwrap().version)
    };
    assert_eq!(later.record(young, &ids(&[2]), "test").await.unwrap().address, "vip@3");
    let settings = RetainSettings {
        keep_lists: Some(Duration::from_hours(24)),
        keep_versions: Duration::ZERO,
        ..RetainSettings::default()
    };
    let plan = later.plan_retention(&settings).await.unwrap();
    assert_eq!(plan.recordings, ["vip@1", "vip@2"]);
    assert!(plan.to_string().contains("the recordings vip@1, vip@2"), "{plan}");
    assert_eq!(held(&later).await.len(), 2, "a plan changes nothing");
    assert!(later.retain(&settings, "test").await.unwrap().version.is_some());
    assert_eq!(held(&later).await, [row("vip", 1, 2)]);
    let left = later.latest().await.unwrap().lists.iter().map(|known| known.number).collect::<Vec<_>>();
    assert_eq!(left, [3]);
    assert_eq!(later.retain(&settings, "test").await.unwrap().version, None, "nothing is left to do");
    assert_eq!(record(&later, "vip", &[3]).await.unwrap().address, "vip@4");
    let garbage = open_later(&store, LONG_AFTER).await.gc(Duration::from_hours(1), "test").await.unwrap();
    assert_eq!(garbage.data.len(), 1, "the file of vip@1");
    assert_sound(&open_later(&store, LONG_AFTER).await, "after gc").await;
}

#[tokio::test]
async fn rotated_key_stays_in_use_until_list_files_are_wrapped_anew() {
    let store = memory();
    let lake = create(&store).await;
    record(&lake, "vip", &[1, 2]).await.unwrap();
    lake.rotate_keys(&root(1)).await.unwrap();
    let lake = open(&store).await.unwrap();
    let live = |lake: Lake| async move { lake.protection().await.unwrap().of("ring-1").live_files().0 };
    assert_eq!(live(lake.clone()).await, 1);
    let protection = lake.protection().await.unwrap();
    assert!(protection.needs("ring-1"), "{protection:?}");
    assert_eq!(protection.of("ring-1").tables[&Stream::TicketLists].live_rows, 2);
    let mut lease = lake.lease(Purpose::Maintenance, "test").await.unwrap();
    lake.rewrap_files(&mut lease).await.unwrap();
    lease.release().await.unwrap();
    let lake = open(&store).await.unwrap();
    assert_eq!(live(lake.clone()).await, 0);
    assert_eq!(held(&lake).await, [row("vip", 1, 1), row("vip", 2, 2)]);
    assert_sound(&lake, "after wrapping anew").await;
    assert!(!lake.protection().await.unwrap().needs("ring-1"));
    lake.destroy_key(&root(1), "ring-1").await.unwrap();
    let lake = open(&store).await.unwrap();
    assert_eq!(held(&lake).await, [row("vip", 1, 1), row("vip", 2, 2)]);
    record(&lake, "vip", &[3]).await.unwrap();
    assert_eq!(held(&lake).await.len(), 3, "another recording beside it");
}

#[tokio::test]
async fn compaction_joins_files_of_one_recording_and_never_of_two() {
    let store = memory();
    let lake = create(&store).await.with_limits(1, 20);
    record(&lake, "long", &[4, 3, 2, 1]).await.unwrap();
    record(&lake, "short", &[1]).await.unwrap();
    let files = |manifest: &Manifest| manifest.tables[&Stream::TicketLists].files.len();
    assert_eq!(files(&lake.latest().await.unwrap()), 5);
    let before = held(&lake).await;
    let lake = open(&store).await.unwrap();
    lake.compact(&CompactSettings::default(), "test", |_| ()).await.unwrap();
    assert_eq!(files(&lake.latest().await.unwrap()), 2);
    assert_eq!(held(&lake).await, before);
    assert_sound(&lake, "after compaction").await;
}

#[tokio::test]
async fn snapshots_hold_the_lists_and_damage_of_a_list_file_is_found() {
    let store = memory();
    let lake = create(&store).await.with_limits(1_000, 2);
    for number in 1..6 {
        record(&lake, "vip", &[number]).await.unwrap();
    }
    let lake = open(&store).await.unwrap();
    assert_eq!(held(&lake).await.len(), 5);
    assert_eq!(query(&lake, "SELECT count(DISTINCT recording) FROM ticket_lists").await, [["5"]]);
    assert_sound(&lake, "with snapshots").await;
    let path = lake.latest().await.unwrap().tables[&Stream::TicketLists].files[0].path.clone();
    let object = Path::from(path.as_str());
    let mut bytes = store.get(&object).await.unwrap().bytes().await.unwrap().to_vec();
    assert!(!bytes.windows(24).any(|window| window == hex(1).as_bytes()), "nothing is in the clear");
    bytes[100] ^= 1;
    store.put(&object, bytes.into()).await.unwrap();
    let report = lake.verify(&root(1), None, &|_| ()).await.unwrap();
    assert_eq!(report.findings.iter().map(|finding| finding.object.as_str()).collect::<Vec<_>>(), [path]);
    let only = lake.verify(&root(1), Some(Stream::TicketLists), &|_| ()).await.unwrap();
    assert_eq!(only.files, 5);
}
