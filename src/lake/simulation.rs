//! The lake under crashes, races and random work, with real rows and real queries.
//!
//! This file holds what the simulations share and single cases of behaviour.

mod accesses;
mod compactions;
mod crashes;
pub(in crate::lake) mod faulty;
mod interleavings;
mod keys;
mod lists;
mod live;
mod random;
mod refusing;
mod rewrites;
mod rivals;

use std::fmt::Write;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::clock::{ManualClock, SharedClock};
use crate::error::{ErrorKind, Result};
use crate::keys::RootKey;
use crate::lake::manifest::Manifest;
use crate::lake::{Lake, Purpose, RowCounts, StoreSettings};
use crate::model::Stream;
use crate::policy::{Definitions, Policy, RedactedBatch};
use crate::schema::Schemas;

/// A root key by number.
pub(super) fn root(number: u8) -> RootKey {
    RootKey::from_bytes([number; 32])
}

/// A clock that stands.
pub(super) fn clock() -> SharedClock {
    Arc::new(ManualClock::new(jiff::Timestamp::from_second(1_760_000_000).unwrap()))
}

/// One revision of a record: id, `updated_at` and `rev`, whether deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Revision {
    pub(super) id: u8,
    pub(super) rev: i64,
    pub(super) deleted: bool,
}

pub(super) fn revision(id: u8, rev: i64) -> Revision {
    Revision { id, rev, deleted: false }
}

pub(super) fn deletion(id: u8, rev: i64) -> Revision {
    Revision { id, rev, deleted: true }
}

/// Columns besides the key and the replication columns: name and type; `custom` for an attribute that the source defines.
const STATUS: &[(&str, &str)] = &[("status", "text")];

/// Makes records of the given columns, and decodes them through a policy, as an extract does.
pub(super) fn rows(stream: Stream, columns: &[(&str, &str)], revisions: &[Revision]) -> RedactedBatch {
    let records: Vec<serde_json::Value> = revisions
        .iter()
        .map(|revision| {
            let updated_at = jiff::Timestamp::from_second(1_760_000_000 + revision.rev).unwrap().to_string();
            let mut attributes = serde_json::json!({
                "updatedAt": updated_at,
                "createdAt": updated_at,
                "rev": revision.rev,
                "deleted": revision.deleted,
            });
            for (name, kind) in columns {
                attributes[*name] = match *kind {
                    "custom" => continue,
                    "text" => format!("needle-{}", revision.rev).into(),
                    _ => revision.rev.into(),
                };
            }
            serde_json::json!({"type": "conversation", "id": hex(revision.id), "attributes": attributes})
        })
        .collect();
    decoded(stream, columns, &records)
}

/// Decodes records through a policy of the given columns.
pub(super) fn decoded(stream: Stream, columns: &[(&str, &str)], records: &[serde_json::Value]) -> RedactedBatch {
    let key = stream.key_column();
    let mut text = format!("stream = \"{stream}\"\n");
    let fixed = [
        (key, "id", "text"),
        (
            "updated_at",
            if stream.is_append_only() { "attributes.createdAt" } else { "attributes.updatedAt" },
            "timestamp",
        ),
        ("rev", "attributes.rev", "int"),
        ("deleted", "attributes.deleted", "bool"),
    ];
    let fixed = fixed.map(|(name, path, kind)| (name.to_owned(), path.to_owned(), kind.to_owned()));
    // Records that never change have no revision.
    let fixed = fixed.into_iter().take(if stream.is_append_only() { 2 } else { 4 });
    let mut definitions = Definitions::default();
    let custom = columns.iter().filter(|(_, kind)| *kind == "custom");
    let properties: serde_json::Map<_, _> =
        custom.map(|(name, _)| ((*name).to_owned(), serde_json::json!({"type": "number"}))).collect();
    let answer = serde_json::json!({"data": {"attributes": {"properties": properties}}});
    definitions.add(stream, &serde_json::to_vec(&answer).unwrap()).unwrap();
    let declared = columns.iter().filter(|(_, kind)| *kind != "custom");
    let free = declared.map(|(name, kind)| ((*name).to_owned(), format!("attributes.{name}"), (*kind).to_owned()));
    for (name, path, kind) in fixed.chain(free) {
        writeln!(text, "[[column]]\nname = \"{name}\"\npath = \"{path}\"\ntype = \"{kind}\"").unwrap();
        writeln!(text, "class = \"internal\"\ndescription = \"x\"").unwrap();
    }
    if stream == Stream::Tickets {
        text += "[[custom]]\npattern = \"*Num\"\nclass = \"internal\"\ndescription = \"x\"\n";
    }
    let schemas = Schemas::from_files([(format!("{stream}.toml").as_str(), text.as_str())]).unwrap();
    let ring = crate::keys::KeyRing::generate("any", 0).unwrap();
    let policy = Policy::compile(&schemas).unwrap();
    let mut decoder = policy.decoder(stream, &definitions, &ring.pseudonym_keys(1).unwrap()).unwrap();
    decoder.push_page(&serde_json::to_vec(&serde_json::json!({ "data": records })).unwrap()).unwrap();
    decoder.finish().unwrap()
}

pub(super) fn tickets(revisions: &[Revision]) -> RedactedBatch {
    rows(Stream::Tickets, STATUS, revisions)
}

pub(super) fn tags(revisions: &[Revision]) -> RedactedBatch {
    rows(Stream::Tags, STATUS, revisions)
}

pub(super) fn hex(id: u8) -> String {
    format!("{:024x}", 0x0100_u64 + u64::from(id))
}

pub(super) fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

pub(super) async fn create(store: &Arc<dyn ObjectStore>) -> Lake {
    Lake::create_on(Arc::clone(store), "test:", &root(1), clock()).await.unwrap()
}

pub(super) async fn open(store: &Arc<dyn ObjectStore>) -> Result<Lake> {
    Lake::open_on(Arc::clone(store), "test:", &root(1), clock()).await
}

/// Appends rows and returns what became of them.
pub(super) async fn append(lake: &Lake, rows: RedactedBatch) -> Result<RowCounts> {
    let mut change = lake.transaction();
    change.append(rows);
    Ok(change.commit().await?.streams[0].1)
}

/// Replaces a table and returns the version.
pub(super) async fn replace(lake: &Lake, rows: RedactedBatch) -> u64 {
    let mut change = lake.transaction();
    change.replace(rows);
    change.commit().await.unwrap().version
}

/// Answers a query over a version as text cells.
pub(super) async fn query_at(lake: &Lake, manifest: &Arc<Manifest>, sql: &str) -> Vec<Vec<String>> {
    let session = SessionContext::new();
    for name in Lake::table_names(manifest) {
        session.register_table(&name, lake.table(manifest, &name).unwrap()).unwrap();
    }
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    let mut cells = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |column| arrow::util::display::array_value_to_string(column, row).unwrap();
            cells.push(batch.columns().iter().map(|column| cell(column)).collect());
        }
    }
    cells
}

pub(super) async fn query(lake: &Lake, sql: &str) -> Vec<Vec<String>> {
    query_at(lake, &lake.latest().await.unwrap(), sql).await
}

/// The live rows of a table, as ids and revisions.
pub(super) async fn live(lake: &Lake, manifest: &Arc<Manifest>, stream: Stream) -> Vec<(String, i64)> {
    if !manifest.tables.contains_key(&stream) {
        return Vec::new();
    }
    let sql = format!("SELECT {}, rev, status FROM {stream} ORDER BY 1", stream.key_column());
    query_at(lake, manifest, &sql)
        .await
        .into_iter()
        .map(|row| {
            assert_eq!(row[2], format!("needle-{}", row[1]), "a row keeps its values together");
            (row[0].clone(), row[1].parse().unwrap())
        })
        .collect()
}

pub(super) async fn live_tickets(lake: &Lake) -> Vec<(String, i64)> {
    live(lake, &lake.latest().await.unwrap(), Stream::Tickets).await
}

pub(super) async fn versions(lake: &Lake, manifest: &Arc<Manifest>) -> usize {
    if !manifest.tables.contains_key(&Stream::Tickets) {
        return 0;
    }
    query_at(lake, manifest, "SELECT count(*) FROM ticket_versions").await[0][0].parse().unwrap()
}

#[tokio::test]
async fn changed_rows_supersede_and_unchanged_rows_are_left_out() {
    let store = memory();
    let lake = create(&store).await;
    let first = append(&lake, tickets(&[revision(1, 1), revision(2, 1), revision(3, 1)])).await.unwrap();
    assert_eq!(first, RowCounts { inserted: 3, ..RowCounts::default() });
    let second = [revision(4, 1), revision(2, 1), revision(1, 2), deletion(3, 5), revision(1, 3)];
    let counts = append(&lake, tickets(&second)).await.unwrap();
    assert_eq!(counts, RowCounts { inserted: 1, updated: 1, unchanged: 1, deleted: 1 });
    for lake in [lake, open(&store).await.unwrap()] {
        assert_eq!(live_tickets(&lake).await, [(hex(1), 3), (hex(2), 1), (hex(4), 1)]);
        let all = query(&lake, "SELECT ticket_id, rev FROM ticket_versions ORDER BY 1, 2").await;
        let all: Vec<_> = all.iter().map(|row| row[1].as_str()).collect();
        assert_eq!(all, ["1", "3", "1", "1", "5", "1"]);
        let before = lake.at_version(1).await.unwrap();
        assert_eq!(live(&lake, &before, Stream::Tickets).await.len(), 3, "a version never changes");
        let repeated = append(&lake, tickets(&second)).await.unwrap();
        assert_eq!(repeated, RowCounts { unchanged: 4, ..RowCounts::default() });
        assert_eq!(lake.latest().await.unwrap().version, 2, "nothing new makes no version");
    }
}

#[tokio::test]
async fn older_revisions_and_undone_deletions_are_left_out() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 5), deletion(2, 5), revision(3, 5)])).await.unwrap();
    let late = [revision(1, 4), revision(2, 5), revision(2, 3), deletion(3, 4)];
    assert_eq!(append(&lake, tickets(&late)).await.unwrap().unchanged, 3);
    assert_eq!(live_tickets(&lake).await, [(hex(1), 5), (hex(3), 5)]);
    assert_eq!(append(&lake, tickets(&[revision(2, 6)])).await.unwrap().updated, 1, "a later revision restores");
    assert_eq!(live_tickets(&lake).await.len(), 3);
}

#[tokio::test]
async fn another_policy_writes_unchanged_rows_again_and_new_columns_read_null_before() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 1), revision(2, 1)])).await.unwrap();
    let wider: &[(&str, &str)] = &[("status", "text"), ("priority", "int")];
    let counts = append(&lake, rows(Stream::Tickets, wider, &[revision(1, 1), revision(3, 7)])).await.unwrap();
    assert_eq!(counts, RowCounts { inserted: 1, updated: 1, ..RowCounts::default() });
    let found = query(&lake, "SELECT rev, priority, status FROM tickets ORDER BY ticket_id").await;
    assert_eq!(found, [["1", "1", "needle-1"], ["1", "", "needle-1"], ["7", "7", "needle-7"]]);
    let narrower = append(&lake, tickets(&[revision(3, 7)])).await.unwrap();
    assert_eq!(narrower.updated, 1, "what the policy drops now is superseded");
    let found = query(&lake, "SELECT priority FROM tickets WHERE rev = 7").await;
    assert_eq!(found, [[""]]);
}

#[tokio::test]
async fn attribute_that_the_source_adds_writes_rows_again_and_one_that_it_takes_away_does_not() {
    let lake = create(&memory()).await;
    let one: &[(&str, &str)] = &[("status", "text"), ("tierNum", "custom")];
    let two: &[(&str, &str)] = &[("status", "text"), ("tierNum", "custom"), ("sizeNum", "custom")];
    for (columns, expected) in [
        (one, RowCounts { inserted: 1, ..RowCounts::default() }),
        (one, RowCounts { unchanged: 1, ..RowCounts::default() }),
        (two, RowCounts { updated: 1, ..RowCounts::default() }),
        (one, RowCounts { unchanged: 1, ..RowCounts::default() }),
        (STATUS, RowCounts { unchanged: 1, ..RowCounts::default() }),
    ] {
        let batch = rows(Stream::Tickets, columns, &[revision(1, 1)]);
        assert_eq!(append(&lake, batch).await.unwrap(), expected, "{columns:?}");
    }
}

#[tokio::test]
async fn lake_in_a_folder_keeps_its_rows_and_leaves_no_staged_file() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::create(&StoreSettings::new("file:lake", folder.path()), &root(1), clock())
        .await
        .unwrap()
        .with_limits(2, 2);
    for round in 1..=3 {
        append(&lake, tickets(&[revision(1, round), revision(2, 1), revision(round as u8 + 2, round)])).await.unwrap();
    }
    let again = Lake::open(&StoreSettings::new("file:lake", folder.path()), &root(1), clock()).await.unwrap();
    assert_eq!(again.latest().await.unwrap(), lake.latest().await.unwrap());
    assert_eq!(live_tickets(&again).await, [(hex(1), 3), (hex(2), 1), (hex(3), 1), (hex(4), 2), (hex(5), 3)]);
    again.lease(Purpose::Extract, "host/1 run").await.unwrap().release().await.unwrap();
    let mut folders = vec![folder.path().join("lake")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.to_str().unwrap().contains('#'), "{}", path.display());
            if path.is_dir() { folders.push(path) } else { files += 1 }
        }
    }
    assert_eq!(files, 2 + 3 + 1 + 4 + 4 + 1, "lake.json, ring, commits, a snapshot, data files and indexes, the lease");
}

#[tokio::test]
async fn column_of_another_type_is_refused_and_changes_nothing() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 1)])).await.unwrap();
    let error = append(&lake, rows(Stream::Tickets, &[("status", "int")], &[revision(2, 1)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("column: status, lake: Utf8, now: Int64"), "{error}");
    assert_eq!(lake.latest().await.unwrap().version, 1);
}

#[tokio::test]
async fn batch_without_rows_declares_the_table() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[])).await.unwrap();
    assert_eq!(query(&lake, "SELECT count(*), count(status) FROM tickets").await, [["0", "0"]]);
    assert_eq!(query(&lake, "SELECT count(*) FROM ticket_versions").await, [["0"]]);
    append(&lake, tickets(&[])).await.unwrap();
    assert_eq!(lake.latest().await.unwrap().version, 1);
}

#[tokio::test]
async fn replaced_table_is_written_only_when_it_differs() {
    let lake = create(&memory()).await.with_limits(2, 20);
    let three = [revision(1, 1), revision(2, 1), revision(3, 1)];
    assert_eq!(replace(&lake, tags(&three)).await, 1);
    let reversed: Vec<Revision> = three.iter().rev().copied().collect();
    assert_eq!(replace(&lake, tags(&reversed)).await, 1, "the order does not matter");
    assert_eq!(replace(&lake, tags(&three[..2])).await, 2);
    assert_eq!(live(&lake, &lake.latest().await.unwrap(), Stream::Tags).await, [(hex(1), 1), (hex(2), 1)]);
    assert_eq!(replace(&lake, tags(&[revision(1, 1), revision(2, 2)])).await, 3);
    assert_eq!(replace(&lake, rows(Stream::Tags, &[("status", "text"), ("color", "text")], &three)).await, 4);
    assert_eq!(replace(&lake, rows(Stream::Tags, &[("status", "int")], &three)).await, 5, "no old column is left");
    assert_eq!(replace(&lake, tags(&[])).await, 6);
    assert_eq!(replace(&lake, tags(&[])).await, 6);
    assert_eq!(query(&lake, "SELECT count(*) FROM tags").await, [["0"]]);
    assert_eq!(live(&lake, &lake.at_version(1).await.unwrap(), Stream::Tags).await.len(), 3);
}

#[tokio::test]
async fn large_commit_is_split_into_files() {
    let lake = create(&memory()).await.with_limits(3, 20);
    let many: Vec<Revision> = (0..10).map(|id| revision(id, 1)).collect();
    append(&lake, tickets(&many)).await.unwrap();
    let manifest = lake.latest().await.unwrap();
    let files = &manifest.tables[&Stream::Tickets].files;
    assert_eq!(files.iter().map(|file| file.rows).collect::<Vec<_>>(), [3, 3, 3, 1]);
    assert!(files.windows(2).all(|pair| pair[0].max_key < pair[1].min_key));
    assert_eq!(live_tickets(&lake).await.len(), 10);
}

#[tokio::test]
async fn nothing_is_stored_in_plaintext() {
    let store = memory();
    let lake = create(&store).await.with_limits(1_000, 1);
    append(&lake, tickets(&[revision(1, 1)])).await.unwrap();
    replace(&lake, tags(&[revision(2, 1)])).await;
    let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    assert_eq!(
        objects.len(),
        2 + 4 + 2 + 1,
        "lake.json, ring, two commits with snapshots, two files, the index of one"
    );
    for object in objects {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        for needle in ["needle-1", "status", &hex(1), &hex(2), "ticket_id"] {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} in {}", object.location);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_all_land() {
    let store = memory();
    create(&store).await;
    let writers = (0..5_u8).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let lake = open(&store).await.unwrap();
            let mut counts = Vec::new();
            for round in 1..=3 {
                // One id of its own per round, and one that all fight over.
                let rows =
                    tickets(&[revision(writer * 10 + round as u8, 1), revision(200, i64::from(writer) + 10 * round)]);
                counts.push(append(&lake, rows).await.unwrap());
            }
            counts
        })
    });
    let counts: Vec<RowCounts> =
        futures::future::join_all(writers).await.into_iter().flat_map(|counts| counts.unwrap()).collect();
    let lake = open(&store).await.unwrap();
    let manifest = lake.latest().await.unwrap();
    assert_eq!(manifest.version, 15, "each commit made a version");
    let live = live_tickets(&lake).await;
    assert_eq!(live.len(), 16);
    assert_eq!(live.last(), Some(&(hex(200), 34)), "the newest revision won");
    let written: u64 = counts.iter().map(|counts| counts.inserted + counts.updated).sum();
    assert_eq!(versions(&lake, &manifest).await as u64, written, "the counts tell what was written");
    assert_eq!(counts.iter().map(|counts| counts.inserted).sum::<u64>(), 16);
}

#[tokio::test]
async fn swapped_and_missing_data_files_and_indexes_are_found() {
    let store = memory();
    let lake = create(&store).await;
    append(&lake, tickets(&[revision(1, 1)])).await.unwrap();
    append(&lake, tickets(&[revision(2, 1)])).await.unwrap();
    let manifest = lake.latest().await.unwrap();
    let files = &manifest.tables[&Stream::Tickets].files;
    let data = [0, 1].map(|file: usize| Path::from(files[file].path.as_str()));
    let indexes = [0, 1].map(|file: usize| Path::from(files[file].index_path().unwrap()));
    for (is_index, paths) in [(false, data), (true, indexes)] {
        let first = store.get(&paths[0]).await.unwrap().bytes().await.unwrap();
        let second = store.get(&paths[1]).await.unwrap().bytes().await.unwrap();
        store.put(&paths[0], second.into()).await.unwrap();
        for missing in [false, true] {
            if missing {
                store.delete(&paths[0]).await.unwrap();
            }
            let fresh = open(&store).await.unwrap();
            let error = if is_index {
                append(&fresh, tickets(&[revision(1, 2)])).await.unwrap_err()
            } else {
                fresh.live_ids(&manifest, Stream::Tickets).unwrap().next(9).await.unwrap_err()
            };
            assert_eq!(error.kind(), ErrorKind::Data, "missing: {missing}: {error:?}");
            assert!(format!("{error:?}").contains(paths[0].as_ref()), "{error:?}");
        }
        store.put(&paths[0], first.into()).await.unwrap();
    }
}
