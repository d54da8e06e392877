//! Rotations of pseudonyms: what changes and what stays, beside late writers and under crashes.

use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::ObjectStore;
use serde_json::{Value, json};

use super::*;
use crate::keys::KeyRing;
use crate::lake::lease::{Purpose, release_all};
use crate::lake::simulation::faulty::{Fault, Faulty};
use crate::lake::simulation::{create, hex, memory, open, query, query_at, root};
use crate::lake::{CompactSettings, EraseRequest, Transaction};
use crate::policy::{Definitions, Policy, RedactedBatch, pseudonym};
use crate::schema::Schemas;

const FIXED: &str = r#"
[[column]]
name = "rev"
path = "attributes.rev"
type = "int"
class = "internal"
description = "Revision."
[[column]]
name = "updated_at"
path = "attributes.updatedAt"
type = "timestamp"
class = "internal"
description = "Change."
[[column]]
name = "deleted"
path = "attributes.deleted"
type = "bool"
class = "internal"
description = "Deleted."
"#;

fn policy() -> Policy {
    let column = |name: &str, kind: &str, method: &str| {
        format!(
            "[[column]]\nname = \"{name}\"\npath = \"attributes.{name}\"\ntype = \"{kind}\"\nclass = \"personal\"\n\
             method = {method}\ndescription = \"x\"\n"
        )
    };
    let key = |name: &str| {
        format!(
            "[[column]]\nname = \"{name}\"\npath = \"id\"\ntype = \"text\"\nclass = \"internal\"\ndescription = \"x\"\n"
        )
    };
    let person = r#"{ name = "pseudonymize", domain = "person" }"#;
    let customers = format!("stream = \"customers\"\n{}{FIXED}{}", key("customer_id"), column("email", "text", person));
    let tickets = format!(
        "stream = \"tickets\"\n{}{FIXED}{}{}{}",
        key("ticket_id"),
        column("writer", "text", person),
        column("readers", "text_list", person),
        column("place", "text", "\"pseudonymize\"")
    );
    let tags = format!("stream = \"tags\"\n{}{FIXED}{}", key("tag_id"), column("maker", "text", person));
    let queues = format!("stream = \"queues\"\n{}{FIXED}", key("queue_id"));
    let files =
        [("customers.toml", customers), ("tickets.toml", tickets), ("tags.toml", tags), ("queues.toml", queues)];
    let schemas = Schemas::from_files(files.iter().map(|(name, text)| (*name, text.as_str()))).unwrap();
    Policy::compile(&schemas).unwrap()
}

fn record(number: u8, rev: i64, mut attributes: Value) -> Value {
    let updated_at = jiff::Timestamp::from_second(1_760_000_000 + rev).unwrap().to_string();
    attributes["updatedAt"] = updated_at.into();
    attributes["rev"] = rev.into();
    attributes["deleted"] = attributes.get("gone").is_some().into();
    json!({"type": "any", "id": hex(number), "attributes": attributes})
}

/// Decodes records as an extract does, under a version of pseudonyms.
fn decoded(ring: &KeyRing, version: u32, stream: Stream, records: &[Value]) -> RedactedBatch {
    let keys = ring.pseudonym_keys(version).unwrap();
    let mut decoder = policy().decoder(stream, &Definitions::default(), &keys).unwrap();
    decoder.push_page(&serde_json::to_vec(&json!({ "data": records })).unwrap()).unwrap();
    decoder.finish().unwrap()
}

fn ticket(number: u8, rev: i64, writer: &str) -> Value {
    record(number, rev, json!({"writer": writer, "readers": [writer, null, ""], "place": writer}))
}

fn customers() -> Vec<Value> {
    vec![record(1, 1, json!({"email": "zoe@x.example"})), record(2, 1, json!({"email": "max@x.example"}))]
}

fn rows_of(ring: &KeyRing, version: u32) -> Vec<RedactedBatch> {
    let tickets = [ticket(11, 1, "zoe@x.example"), ticket(12, 1, "max@x.example"), ticket(13, 1, "nobody")];
    vec![
        decoded(ring, version, Stream::Customers, &customers()),
        decoded(ring, version, Stream::Tickets, &tickets),
        decoded(ring, version, Stream::Queues, &[record(31, 1, json!({}))]),
    ]
}

fn changed(ring: &KeyRing, version: u32) -> RedactedBatch {
    let records =
        [ticket(12, 2, "zoe@x.example"), ticket(14, 2, "max@x.example"), record(13, 2, json!({"gone": true}))];
    decoded(ring, version, Stream::Tickets, &records)
}

fn tags(ring: &KeyRing, version: u32) -> RedactedBatch {
    decoded(ring, version, Stream::Tags, &[record(21, 1, json!({"maker": "zoe@x.example"}))])
}

fn transaction(lake: &Lake, rows: Vec<RedactedBatch>) -> Transaction {
    let mut change = lake.transaction();
    for rows in rows {
        change.append(rows);
    }
    change
}

/// Three commits under version 1, with history, a small table, and a table without pseudonyms.
async fn fill(lake: &Lake) {
    let ring = lake.ring();
    transaction(lake, rows_of(ring, 1)).commit().await.unwrap();
    transaction(lake, vec![changed(ring, 1)]).commit().await.unwrap();
    let mut change = lake.transaction();
    change.replace(tags(ring, 1));
    change.commit().await.unwrap();
}

async fn leases(lake: &Lake) -> Result<Vec<Lease>> {
    let first = lake.lease(Purpose::Maintenance, "test").await?;
    match lake.lease(Purpose::Extract, "test").await {
        Ok(second) => Ok(vec![first, second]),
        Err(error) => {
            let _ = first.release().await;
            Err(error)
        }
    }
}

/// Adds a key and rewrites, as the command does.
async fn rotate(store: &Arc<dyn ObjectStore>) -> Result<Option<RotatedPseudonyms>> {
    let lake = open(store).await?;
    let mut held = leases(&lake).await?;
    let outcome = async {
        lake.add_pseudonym_key(&root(1)).await?;
        open(store).await?.rewrite_pseudonyms(&mut held, |_, _| {}).await
    };
    let outcome = outcome.await;
    let _ = release_all(held).await;
    outcome
}

const JOINED: &str = "SELECT ticket_id, customer_id FROM tickets JOIN customers ON writer = email ORDER BY 1";
const ALL: &str = "SELECT ticket_id, rev, writer, readers, place FROM ticket_versions ORDER BY 1, 2";

/// Every pseudonym that the newest version stores.
async fn pseudonyms(lake: &Lake) -> Vec<String> {
    let sql = "SELECT writer FROM ticket_versions UNION ALL SELECT place FROM ticket_versions
        UNION ALL SELECT unnest(readers) FROM ticket_versions UNION ALL SELECT email FROM customers
        UNION ALL SELECT maker FROM tags";
    let found = query(lake, sql).await.concat();
    let found: Vec<String> = found.into_iter().filter(|text| !text.is_empty()).collect();
    assert!(found.len() > 15, "{found:?}");
    found
}

#[tokio::test]
async fn rotation_changes_every_pseudonym_to_what_a_fresh_extract_stores_and_joins_stay() {
    let store = memory();
    fill(&create(&store).await).await;
    let before = open(&store).await.unwrap();
    let old_version = before.latest().await.unwrap();
    let (joined, old) = (query(&before, JOINED).await, pseudonyms(&before).await);
    assert_eq!(joined, [[hex(11), hex(1)], [hex(12), hex(1)], [hex(14), hex(2)]]);
    assert!(old.iter().all(|text| text.starts_with("p1_")), "{old:?}");

    let plan = before.plan_pseudonyms().await.unwrap();
    assert_eq!((plan.from, plan.to), (1, 2));
    let text = plan.to_string();
    for part in
        ["tickets: 2 files, 6 rows", "  readers  domain person", "  place  domain tickets.place", "customers: 1 files"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("queues"), "{text}");
    assert_eq!(before.latest().await.unwrap().version, old_version.version, "a plan changes nothing");

    let done = rotate(&store).await.unwrap().unwrap();
    assert_eq!((done.plan, done.version, done.older_versions), (plan, old_version.version + 1, old_version.version));
    let lake = open(&store).await.unwrap();
    let manifest = lake.latest().await.unwrap();
    assert_eq!((manifest.version, manifest.pseudonym_version()), (old_version.version + 1, 2), "one commit");
    let new = pseudonyms(&lake).await;
    assert_eq!(new.len(), old.len());
    assert!(new.iter().all(|text| text.starts_with("p2_")), "{new:?}");
    assert_eq!(query(&lake, JOINED).await, joined);

    // The same pages decoded under the new version come to the same rows, in another lake too.
    let other = create(&memory()).await;
    let mut change = transaction(&other, Vec::new());
    change.append(decoded(lake.ring(), 2, Stream::Customers, &customers()));
    let error = change.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "version 1 is in force there");
    let keys = lake.ring().pseudonym_keys(2).unwrap();
    let emails = query(&lake, "SELECT email FROM customers ORDER BY customer_id").await.concat();
    assert_eq!(emails, ["zoe@x.example", "max@x.example"].map(|email| pseudonym(&keys, "person", email)));

    // Extracts go on: unchanged rows are left out, and new ones join with what was rewritten.
    let repeated = transaction(&lake, vec![changed(lake.ring(), 2)]).commit().await.unwrap();
    assert_eq!(repeated.streams[0].1.unchanged, 3);
    transaction(&lake, vec![decoded(lake.ring(), 2, Stream::Tickets, &[ticket(15, 3, "max@x.example")])])
        .commit()
        .await
        .unwrap();
    let mut change = lake.transaction();
    change.replace(tags(lake.ring(), 2));
    change.commit().await.unwrap();
    let now = query(&lake, JOINED).await;
    assert_eq!(now[..3], joined[..]);
    assert_eq!(now[3], [hex(15), hex(2)]);
    assert_eq!(query(&lake, "SELECT count(*) FROM tags JOIN customers ON maker = email").await, [["1"]]);

    // Older versions stay what they were.
    let older = lake.at_version(old_version.version).await.unwrap();
    assert_eq!((older.pseudonym_version(), query_at(&lake, &older, JOINED).await), (1, joined));
}

#[tokio::test]
async fn second_rotation_goes_on_from_the_first_and_compaction_joins_what_was_rewritten() {
    let store = memory();
    fill(&create(&store).await).await;
    rotate(&store).await.unwrap().unwrap();
    let done = rotate(&store).await.unwrap().unwrap();
    assert_eq!((done.plan.from, done.plan.to), (2, 3));
    let lake = open(&store).await.unwrap();
    assert!(pseudonyms(&lake).await.iter().all(|text| text.starts_with("p3_")));
    let rows = query(&lake, ALL).await;
    lake.compact(&CompactSettings::default(), "test", |_| {}).await.unwrap();
    assert_eq!(query(&lake, ALL).await, rows);
    let reopened = open(&store).await.unwrap();
    assert_eq!(reopened.latest().await.unwrap(), lake.latest().await.unwrap());
    assert_eq!(lake.ring().pseudonym_versions().len(), 3);
}

#[tokio::test]
async fn rows_of_the_former_version_are_refused_and_nothing_is_lost() {
    let store = memory();
    fill(&create(&store).await).await;
    let writer = open(&store).await.unwrap();
    let late = vec![decoded(writer.ring(), 1, Stream::Tickets, &[ticket(15, 3, "zoe@x.example")])];
    let harmless = vec![decoded(writer.ring(), 1, Stream::Queues, &[record(32, 1, json!({}))])];
    let change = transaction(&writer, late.clone());
    rotate(&store).await.unwrap().unwrap();
    let rotated = open(&store).await.unwrap().latest().await.unwrap();
    let error = change.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.hint().unwrap().contains("start it again"), "{:?}", error.hint());
    assert!(error.to_string().contains("table: tickets, version of these rows: 1, in force: 2"), "{error}");
    assert_eq!(writer.latest().await.unwrap(), rotated, "nothing was written");
    let denied = writer.ring().pseudonym_keys(rotated.pseudonym_version()).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "an older ring cannot make the present pseudonyms");
    assert_eq!(writer.plan_pseudonyms().await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(writer.lease(Purpose::Extract, "late").await.unwrap_err().kind(), ErrorKind::Conflict);
    transaction(&writer, harmless).commit().await.unwrap();
    let again = open(&store).await.unwrap();
    let rows = decoded(again.ring(), 2, Stream::Tickets, &[ticket(15, 3, "zoe@x.example")]);
    assert_eq!(transaction(&again, vec![rows]).commit().await.unwrap().streams[0].1.inserted, 1);
    assert!(pseudonyms(&again).await.iter().all(|text| text.starts_with("p2_")));
}

#[tokio::test]
async fn rotation_begins_anew_when_rows_come_in_meanwhile() {
    let store = memory();
    let lake = create(&store).await;
    fill(&lake).await;
    let waiting = lake.add_pseudonym_key(&root(1)).await.unwrap();
    assert_eq!(waiting.pseudonym_versions().len(), 2);
    let lake = open(&store).await.unwrap();
    let keys = lake.ring().pseudonym_keys(2).unwrap();
    let mut held = leases(&lake).await.unwrap();
    let base = lake.latest().await.unwrap();
    let changes = rotated(&lake.0, &base, &keys, &mut held, &mut |_, _| {}).await.unwrap();
    // One writer supersedes a row of a rewritten file, another adds a file, as if it had slept through the loss of its lease.
    for late in [ticket(11, 9, "zoe@x.example"), ticket(19, 9, "max@x.example")] {
        transaction(&lake, vec![decoded(lake.ring(), 1, Stream::Tickets, &[late])]).commit().await.unwrap();
        assert_eq!(commit(&lake.0, 1, 2, &changes).await.unwrap(), None);
    }
    assert_eq!(lake.latest().await.unwrap().pseudonym_version(), 1);
    let joined = query(&lake, JOINED).await;
    assert!(lake.rewrite_pseudonyms(&mut held, |_, _| {}).await.unwrap().is_some());
    assert_eq!(query(&lake, JOINED).await, joined);
    assert!(pseudonyms(&lake).await.iter().all(|text| text.starts_with("p2_")));
    assert_eq!(commit(&lake.0, 1, 2, &changes).await.unwrap(), None, "a rewrite that comes late is void");
    assert_eq!(lake.rewrite_pseudonyms(&mut held, |_, _| {}).await.unwrap(), None, "it is in force already");
    release_all(held).await.unwrap();
}

#[tokio::test]
async fn manifest_with_pseudonyms_of_two_versions_is_refused() {
    let store = memory();
    let lake = create(&store).await;
    fill(&lake).await;
    let base = lake.latest().await.unwrap();
    let table = &base.tables[&Stream::Tickets];
    let path = table.files[0].path.replace("data/tickets/0", "data/tickets/1");
    let forged = DataFile { path, pseudonyms: 2, ..DataFile::clone(&table.files[0]) };
    for actions in
        [vec![Action::Pseudonyms(2)], vec![Action::Pseudonyms(1)], vec![Action::Add(Stream::Tickets, Arc::new(forged))]]
    {
        let mut attempts = Attempts::begin(&lake.0).await.unwrap();
        let error = attempts.put(actions).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("in force"), "{error}: {cause}");
        assert_eq!(lake.latest().await.unwrap(), base);
    }
}

#[tokio::test]
async fn erasure_finds_pseudonyms_of_every_version() {
    let store = memory();
    let lake = create(&store).await;
    let customers_by_id = |ring: &KeyRing, version| {
        let text = format!(
            "stream = \"tickets\"\n[[column]]\nname = \"ticket_id\"\npath = \"id\"\ntype = \"text\"\nclass = \"internal\"\n\
             description = \"x\"\n{FIXED}[[column]]\nname = \"customer_id\"\npath = \"attributes.customer\"\ntype = \"text\"\n\
             class = \"personal\"\nmethod = {{ name = \"pseudonymize\", domain = \"person\" }}\ndescription = \"x\"\n"
        );
        let policy = Policy::compile(&Schemas::from_files([("tickets.toml", text.as_str())]).unwrap()).unwrap();
        let keys = ring.pseudonym_keys(version).unwrap();
        let mut decoder = policy.decoder(Stream::Tickets, &Definitions::default(), &keys).unwrap();
        let records = [record(11, 1, json!({"customer": hex(1)})), record(12, 1, json!({"customer": hex(2)}))];
        decoder.push_page(&serde_json::to_vec(&json!({ "data": records })).unwrap()).unwrap();
        decoder.finish().unwrap()
    };
    transaction(&lake, vec![customers_by_id(lake.ring(), 1)]).commit().await.unwrap();
    rotate(&store).await.unwrap().unwrap();
    let lake = open(&store).await.unwrap();
    let request = EraseRequest { customers: [hex(1).parse().unwrap()].into(), ..EraseRequest::default() };
    let receipt = lake.erase(&request, "test").await.unwrap();
    assert_eq!((receipt.tables[0].rows, receipt.tables[0].rows_of_older_versions), (1, 1));
    assert_eq!(query(&lake, "SELECT ticket_id FROM tickets").await, [[hex(12)]]);
}

#[tokio::test]
async fn rotation_that_is_cut_off_at_any_call_is_completed_by_the_same_command() {
    let filled = Arc::new(object_store::memory::InMemory::new());
    let plain: Arc<dyn ObjectStore> = Arc::clone(&filled) as Arc<dyn ObjectStore>;
    fill(&create(&plain).await).await;
    let joined = query(&open(&plain).await.unwrap(), JOINED).await;
    let all = query(&open(&plain).await.unwrap(), "SELECT ticket_id, rev FROM ticket_versions ORDER BY 1, 2").await;
    let mut crashes = 0;
    for fault in [Fault::Before, Fault::After] {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: true });
            let outcome = rotate(&faulty).await;
            let name = format!("{fault:?} at call {at}: {:?}", outcome.as_ref().map(drop));
            // Whatever it was, all pseudonyms are of the version in force.
            let lake = open(&plain).await.unwrap();
            let in_force = lake.latest().await.unwrap().pseudonym_version();
            let check = async |lake: &Lake, version: u32| {
                let prefix = format!("p{version}_");
                assert!(pseudonyms(lake).await.iter().all(|text| text.starts_with(&prefix)), "{name}");
                assert_eq!(query(lake, JOINED).await, joined, "{name}");
                let rows = query(lake, "SELECT ticket_id, rev FROM ticket_versions ORDER BY 1, 2").await;
                assert_eq!(rows, all, "{name}");
            };
            check(&lake, in_force).await;
            if calls.load(Ordering::SeqCst) <= at {
                assert_eq!(outcome.unwrap().unwrap().plan.to, 2);
                break;
            }
            let keys = lake.ring().pseudonym_versions().len() as u32;
            assert!(keys - in_force <= 1, "{name}");
            let lake = later(&plain).await;
            let mut held = leases(&lake).await.unwrap();
            let ring = lake.add_pseudonym_key(&root(1)).await.unwrap();
            // A key that waits is taken, and only one that is in force is followed by another.
            assert_eq!(ring.pseudonym_versions().len() as u32, in_force + 1, "{name}");
            let lake = later(&plain).await;
            lake.rewrite_pseudonyms(&mut held, |_, _| {}).await.unwrap();
            release_all(held).await.unwrap();
            check(&lake, in_force + 1).await;
            crashes += 1;
        }
    }
    assert!(crashes > 60, "{crashes}");
}

/// Opens the lake when leases of a crashed process have ended.
async fn later(store: &Arc<dyn ObjectStore>) -> Lake {
    let clock = crate::clock::ManualClock::new(jiff::Timestamp::from_second(1_760_001_000).unwrap());
    Lake::open_on(Arc::clone(store), "test:", &root(1), Arc::new(clock)).await.unwrap()
}
