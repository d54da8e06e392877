//! Erasures: no trace in any object, nothing else lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;
use crate::error::ErrorKind;
use crate::lake::run::{RejectedRecord, StreamRun};
use crate::lake::simulation::faulty::{Fault, Faulty};
use crate::lake::simulation::{create, decoded, hex, open, query, root};
use crate::lake::{index, layout};
use crate::policy::RedactedBatch;

/// The customer that is erased, and one that stays.
const GONE: u8 = 1;
const STAYS: u8 = 2;

fn id(number: u8) -> ObjectId {
    hex(number).parse().unwrap()
}

fn record(number: u8, rev: i64, mut attributes: Value) -> Value {
    attributes["updatedAt"] = jiff::Timestamp::from_second(1_760_000_000 + rev).unwrap().to_string().into();
    attributes["createdAt"] = attributes["updatedAt"].clone();
    attributes["rev"] = rev.into();
    json!({"type": "any", "id": hex(number), "attributes": attributes})
}

fn tickets(records: &[Value]) -> RedactedBatch {
    decoded(Stream::Tickets, &[("customer_id", "text"), ("link", "text"), ("others", "text_list")], records)
}

fn ticket(number: u8, rev: i64, customer: u8) -> Value {
    record(number, rev, json!({"customer_id": hex(customer)}))
}

/// Tickets 11 and 13 belonged to the customer, 13 before it moved; ticket 12 mentions it; ticket 14 has nothing to do with it.
async fn fill(lake: &Lake) {
    let mut change = lake.transaction();
    let customers = [record(GONE, 1, json!({})), record(STAYS, 1, json!({}))];
    change.append(decoded(Stream::Customers, &[], &customers));
    let link = format!("https://x.example/{}/tickets", hex(GONE));
    let mentions = json!({"customer_id": hex(STAYS), "link": link, "others": [hex(GONE), "kept", hex(11)]});
    change.append(tickets(&[
        ticket(11, 1, GONE),
        record(12, 1, mentions),
        ticket(13, 1, GONE),
        record(14, 1, json!({"customer_id": hex(STAYS), "link": "plain"})),
    ]));
    let time =
        |number, ticket, customer| record(number, 1, json!({"ticket_id": hex(ticket), "customer_id": hex(customer)}));
    change.append(decoded(
        Stream::TicketTimes,
        &[("ticket_id", "text"), ("customer_id", "text")],
        &[time(21, 11, GONE), time(22, 12, STAYS), time(23, 14, GONE), time(24, 13, STAYS)],
    ));
    change.commit().await.unwrap();
    let mut change = lake.transaction();
    change.append(tickets(&[ticket(13, 2, STAYS)]));
    let rejected = |id| RejectedRecord { id, updated_at_ms: Some(7), reason: "x".to_owned() };
    let stream = StreamRun {
        stream: "customers".to_owned(),
        rejected_records: vec![rejected(Some(hex(GONE))), rejected(Some(hex(99)))],
        ..StreamRun::default()
    };
    change.record_run(RunRecord { id: "run".to_owned(), streams: vec![stream], ..RunRecord::default() });
    change.commit().await.unwrap();
    let mut change = lake.transaction();
    change.append(tickets(&[ticket(14, 3, STAYS)]));
    change.commit().await.unwrap();
}

async fn filled() -> Arc<InMemory> {
    let memory = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> = memory.clone();
    fill(&create(&store).await.with_limits(1_000, 2)).await;
    memory
}

fn request() -> EraseRequest {
    EraseRequest { customers: [id(GONE)].into(), ..EraseRequest::default() }
}

/// Opens the lake when the leases of a crashed run have ended.
async fn open_later(store: &Arc<dyn ObjectStore>) -> Lake {
    let clock = ManualClock::new(jiff::Timestamp::from_second(1_760_000_000).unwrap());
    clock.advance(Duration::from_hours(1));
    Lake::open_on(Arc::clone(store), "test:", &root(1), Arc::new(clock)).await.unwrap()
}

async fn column(lake: &Lake, sql: &str) -> Vec<String> {
    query(lake, sql).await.into_iter().map(|row| row.join(" ")).collect()
}

/// Everything that the lake stores, decrypted: log objects as their JSON, the rows of all versions of all tables.
async fn everything(store: &Arc<dyn ObjectStore>) -> String {
    let lake = open_later(store).await;
    let manifest = lake.latest().await.unwrap();
    let files = || manifest.tables.values().flat_map(|table| &table.files);
    let indexed = files().filter_map(|file| Some((file.index_path()?, file)));
    let indexes: BTreeMap<String, &Arc<DataFile>> = indexed.collect();
    let named: BTreeSet<String> = files().map(|file| file.path.clone()).chain(indexes.keys().cloned()).collect();
    let mut text = String::new();
    let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    for object in objects {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        text += &String::from_utf8_lossy(&bytes);
        text += object.location.as_ref();
        let name = object.location.filename().unwrap();
        if object.location.as_ref().starts_with("data/") {
            assert!(named.contains(object.location.as_ref()), "{name} is in no version");
        }
        if let Some(file) = indexes.get(object.location.as_ref()) {
            for entry in index::entries(&bytes, file, &lake.0.ring).unwrap() {
                text += &entry.unwrap().id.to_string();
            }
        }
        if let Some((digits, kind @ ("commit" | "snapshot"))) = name.split_once('.') {
            let purpose = format!("{kind}/{}", digits.parse::<u64>().unwrap());
            let plain = lake.0.ring.open_object(&purpose, &bytes).unwrap();
            text += &String::from_utf8(zstd::stream::decode_all(plain.as_slice()).unwrap()).unwrap();
        }
    }
    for table in Lake::table_names(&manifest) {
        write!(text, "{:?}", query(&lake, &format!("SELECT * FROM {table}")).await).unwrap();
    }
    write!(text, "{manifest:?}").unwrap();
    text
}

async fn check_gone(store: &Arc<dyn ObjectStore>, name: &str) {
    let text = everything(store).await;
    for number in [GONE, 11, 13] {
        assert!(!text.contains(&hex(number)), "{name}: {number}");
    }
    let lake = open_later(store).await;
    assert_eq!(column(&lake, "SELECT customer_id FROM customers").await, [hex(STAYS)], "{name}");
    let tickets = column(&lake, "SELECT ticket_id, rev, link FROM tickets ORDER BY 1").await;
    assert_eq!(tickets, [format!("{} 1 ", hex(12)), format!("{} 3 ", hex(14))], "{name}");
    let versions = column(&lake, "SELECT rev, link FROM ticket_versions ORDER BY 1, 2 NULLS FIRST").await;
    assert_eq!(versions, ["1 ", "1 plain", "3 "], "{name}: history of others stays");
    assert_eq!(column(&lake, "SELECT array_to_string(others, ',') FROM tickets WHERE rev = 1").await, ["kept"]);
    assert_eq!(column(&lake, "SELECT ticket_time_id FROM ticket_times").await, [hex(22)], "{name}");
    assert!(text.contains(&hex(99)) && text.contains(&hex(STAYS)), "{name}: what was not asked for stays");
}

#[tokio::test]
async fn customer_leaves_no_trace_and_the_receipt_tells_what_went() {
    let memory = filled().await;
    let store: Arc<dyn ObjectStore> = memory.clone();
    assert!(everything(&store).await.contains(&hex(GONE)));
    let lake = open(&store).await.unwrap();
    let before = memory.fork();
    let plan = lake.plan_erasure(&request()).await.unwrap();
    assert_eq!(
        before.list(None).try_collect::<Vec<_>>().await.unwrap().len(),
        memory.list(None).try_collect::<Vec<_>>().await.unwrap().len(),
        "a plan changes nothing"
    );
    let receipt = lake.erase(&request(), "test").await.unwrap();
    assert_eq!(plan.tables, receipt.tables);
    assert_eq!((plan.runs, plan.versions), (1, 3));
    let table = |stream: Stream| receipt.tables.iter().find(|table| table.table == stream.table()).unwrap().clone();
    let tickets = table(Stream::Tickets);
    assert_eq!((tickets.rows, tickets.values, tickets.files_rewritten, tickets.files_removed), (3, 2, 1, 1));
    assert_eq!(table(Stream::Customers).rows, 1);
    assert_eq!(table(Stream::TicketTimes).rows, 3);
    assert_eq!((receipt.runs, receipt.version, receipt.versions_expired), (1, 4, 3));
    assert!(receipt.objects_deleted > 5 && receipt.files_searched == 4, "{receipt:?}");
    check_gone(&store, "erased").await;
    let text = serde_json::to_string(&receipt).unwrap();
    assert!(text.contains(&hex(GONE)) && !text.contains(&hex(11)), "{text}");

    let again = open_later(&store).await.erase(&request(), "test").await.unwrap();
    assert!(again.is_empty(), "{again:?}");
    assert_eq!((again.version, again.versions_expired, again.objects_deleted), (4, 0, 0), "{again:?}");
    check_gone(&store, "erased twice").await;
}

#[tokio::test]
async fn ticket_goes_with_its_times_and_its_customer_stays() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    let request = EraseRequest { tickets: [id(14), id(77)].into(), ..EraseRequest::default() };
    let receipt = lake.erase(&request, "test").await.unwrap();
    assert!(!everything(&store).await.contains(&hex(14)));
    assert_eq!(receipt.tables.iter().map(|table| table.rows).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(column(&lake, "SELECT count(*) FROM tickets").await, ["3"]);
    assert_eq!(column(&lake, "SELECT count(*) FROM customers").await, ["2"]);
}

#[tokio::test]
async fn id_that_is_not_there_changes_nothing() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    let request = EraseRequest { customers: [id(77)].into(), tickets: [id(78)].into(), ..EraseRequest::default() };
    let receipt = lake.erase(&request, "test").await.unwrap();
    assert!(receipt.is_empty());
    assert_eq!((receipt.version, receipt.versions_expired, receipt.objects_deleted), (3, 0, 0));
    assert_eq!(lake.at_version(1).await.unwrap().version, 1, "a mistyped id does not end time travel");
    let empty = create(&(Arc::new(InMemory::new()) as Arc<dyn ObjectStore>)).await;
    assert!(empty.erase(&request, "test").await.unwrap().is_empty());
}

#[tokio::test]
async fn ticket_that_only_an_older_version_tells_of_goes_too() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    // History is dropped, so the newest version does not know any more whose ticket 13 was.
    let settings =
        crate::lake::RetainSettings { keep_history: Some(Duration::ZERO), ..crate::lake::RetainSettings::default() };
    let later = open_later(&store).await;
    later.retain(&settings, "test").await.unwrap();
    assert_eq!(column(&later, "SELECT count(*) FROM ticket_versions").await, ["4"]);
    drop(lake);
    let receipt = open_later(&store).await.erase(&request(), "test").await.unwrap();
    assert!(receipt.tables.iter().any(|table| table.rows_of_older_versions > 0), "{receipt:?}");
    let text = everything(&store).await;
    assert!([GONE, 11, 13].iter().all(|number| !text.contains(&hex(*number))));
}

#[tokio::test]
async fn extract_and_maintenance_are_kept_out() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    for purpose in [Purpose::Extract, Purpose::Maintenance] {
        let lease = lake.lease(purpose, "other").await.unwrap();
        assert_eq!(lake.erase(&request(), "test").await.unwrap_err().kind(), ErrorKind::Conflict);
        lease.release().await.unwrap();
    }
    lake.erase(&request(), "test").await.unwrap();
    for purpose in [Purpose::Extract, Purpose::Maintenance] {
        assert_eq!(lake.lease_holder(purpose).await.unwrap(), None, "the leases are given back");
    }
}

#[tokio::test]
async fn file_of_a_crashed_extract_goes_whatever_its_age() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    let stray = Path::from(layout::new_data_file(Stream::Tickets, lake.0.clock.as_ref()));
    store.put(&stray, "ciphertext".into()).await.unwrap();
    let request = EraseRequest { customers: [id(77)].into(), ..EraseRequest::default() };
    let receipt = lake.erase(&request, "test").await.unwrap();
    assert_eq!((receipt.objects_deleted, receipt.version), (1, 4), "and a version bars writers that slept");
    assert!(store.head(&stray).await.is_err());
}

#[tokio::test]
async fn writer_whose_file_was_deleted_meanwhile_is_refused() {
    let store: Arc<dyn ObjectStore> = filled().await;
    let lake = open(&store).await.unwrap();
    let base = lake.latest().await.unwrap();
    let file = base.tables[&Stream::Tickets].files[0].clone();
    let path = layout::new_data_file(Stream::Tickets, lake.0.clock.as_ref());
    let late = open_later(&store).await;
    let base = late.latest().await.unwrap();
    let commit = crate::lake::commit::Commit {
        version: base.version + 1,
        id: "late".to_owned(),
        committed_ms: late.0.clock.now().as_millisecond(),
        writer: String::new(),
        policy: None,
        actions: vec![Action::Add(Stream::Tickets, Arc::new(DataFile { path: path.clone(), ..(*file).clone() }))],
    };
    let error = late.0.log.append(&base, commit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&path), "{error}");
}

#[tokio::test]
async fn crash_at_any_call_leaves_every_other_ticket_once_and_the_same_erasure_completes() {
    let filled = filled().await;
    let mut crashes = 0;
    for fault in [Fault::Before, Fault::After] {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: true });
            let outcome = match open(&faulty).await {
                Ok(lake) => lake.erase(&request(), "test").await.map(drop),
                Err(error) => Err(error),
            };
            let name = format!("{fault:?} at call {at}: {outcome:?}");
            let lake = open_later(&plain).await;
            let found = column(&lake, "SELECT ticket_id FROM tickets ORDER BY 1").await;
            let all = [11, 12, 13, 14].map(hex).to_vec();
            assert!(found == all || found == [hex(12), hex(14)], "{name}: {found:?}");
            lake.erase(&request(), "test").await.unwrap();
            check_gone(&plain, &name).await;
            if calls.load(Ordering::SeqCst) <= at {
                assert!(outcome.is_ok());
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 100, "{crashes}");
}

#[tokio::test]
async fn customers_that_the_policy_pseudonymizes_are_found_by_their_pseudonym() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = create(&store).await;
    let keys = lake.0.ring.pseudonym_keys(1).unwrap();
    let pseudonym = crate::policy::pseudonym(&keys, "person", &hex(GONE));
    let records = [
        record(11, 1, json!({"customer_id": pseudonym})),
        record(12, 1, json!({"customer_id": "p1_another", "link": "x"})),
    ];
    let mut change = lake.transaction();
    change.append(tickets(&records));
    change.commit().await.unwrap();
    let texts = |method: &str, is_given: bool| {
        let field = arrow::datatypes::Field::new("customer_id", DataType::Utf8, true);
        let field = field.with_metadata([("method".to_owned(), method.to_owned())].into());
        let file = DataFile { schema: Arc::new(arrow::datatypes::Schema::new(vec![field])), ..DataFile::default() };
        let mut texts = HashSet::new();
        lake.add_pseudonyms(&file, 1, &[id(GONE)].into(), is_given, &mut texts).map(|()| texts)
    };
    assert_eq!(texts("pseudonymize(domain=person)", false).unwrap(), HashSet::from([pseudonym.clone()]));
    assert_eq!(texts("keep", false).unwrap(), HashSet::new());
    assert_eq!(texts("mask", false).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(texts("mask", true).unwrap(), HashSet::new());
    let request = EraseRequest { customer_values: [pseudonym.clone()].into(), ..request() };
    lake.erase(&request, "test").await.unwrap();
    assert!(!everything(&store).await.contains(&pseudonym));
    assert_eq!(column(&lake, "SELECT ticket_id FROM tickets").await, [hex(12)]);
}
