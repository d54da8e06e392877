//! Verification finds every kind of damage, names its object, and is not stopped by the first.

use bytes::Bytes;
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;
use crate::lake::commit::{Action, Commit};
use crate::lake::log::Appended;
use crate::lake::scan::fixtures;
use crate::lake::simulation::{append, clock, deletion, open, replace, revision, root, tags, tickets};

async fn verify(lake: &Lake) -> VerifyReport {
    lake.verify(&root(1), None, &|_| {}).await.unwrap()
}

/// A lake of six versions and two snapshots: superseded rows, tombstones, a replaced table.
async fn lake() -> (Arc<dyn ObjectStore>, Lake) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = Lake::create_on(Arc::clone(&store), "test:", &root(1), clock()).await.unwrap().with_limits(1_000, 3);
    append(&lake, tickets(&(1..60).map(|id| revision(id, 1)).collect::<Vec<_>>())).await.unwrap();
    append(&lake, tickets(&[revision(3, 2), deletion(4, 2), revision(61, 1)])).await.unwrap();
    replace(&lake, tags(&[revision(1, 1), revision(2, 1)])).await;
    append(&lake, tickets(&[revision(3, 3), revision(62, 1)])).await.unwrap();
    replace(&lake, tags(&[revision(1, 1), revision(2, 2)])).await;
    append(&lake, tickets(&[revision(63, 1)])).await.unwrap();
    (store, lake)
}

async fn objects(store: &Arc<dyn ObjectStore>) -> Vec<(String, Bytes)> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut objects = Vec::new();
    for object in listed {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        objects.push((object.location.to_string(), bytes));
    }
    objects.sort();
    objects
}

async fn put(store: &Arc<dyn ObjectStore>, name: &str, bytes: impl Into<Bytes>) {
    store.put(&Path::from(name), bytes.into().into()).await.unwrap();
}

/// Commits actions that no transaction would make.
async fn commit(lake: &Lake, actions: Vec<Action>) {
    let base = lake.latest().await.unwrap();
    let (version, committed_ms) = (base.version + 1, base.committed_ms);
    let commit =
        Commit { version, id: "forged".to_owned(), committed_ms, writer: "test".to_owned(), policy: None, actions };
    assert!(matches!(lake.0.log.append(&base, commit).await.unwrap(), Appended::Done(_)));
}

fn found(report: &VerifyReport) -> Vec<(&str, ErrorKind)> {
    report.findings.iter().map(|finding| (finding.object.as_str(), finding.kind)).collect()
}

#[tokio::test]
async fn sound_lake_has_no_finding_and_is_counted() {
    let (_, lake) = lake().await;
    let report = verify(&lake).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.garbage, []);
    assert_eq!((report.version, report.oldest), (6, 0));
    assert_eq!((report.commits, report.snapshots, report.rings), (6, 2, 1));
    // Four files of tickets; two of tags, the first of which older versions still name.
    assert_eq!((report.files, report.rows), (6, 59 + 3 + 2 + 1 + 2 + 2));
    assert_eq!(report.live_rows, 61 + 2);
    assert!(report.verdict().is_ok());
    assert_eq!(lake.oldest_version().await.unwrap(), 1);
}

#[tokio::test]
async fn empty_lake_is_sound() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = Lake::create_on(store, "test:", &root(1), clock()).await.unwrap();
    assert_eq!(verify(&lake).await, VerifyReport { rings: 1, ..VerifyReport::default() });
}

#[tokio::test]
async fn one_table_can_be_read_alone() {
    let (store, lake) = lake().await;
    let tickets = lake.latest().await.unwrap().tables[&Stream::Tickets].files[0].path.clone();
    store.delete(&Path::from(tickets.as_str())).await.unwrap();
    let tags = lake.verify(&root(1), Some(Stream::Tags), &|_| {}).await.unwrap();
    assert_eq!((tags.findings.len(), tags.files, tags.live_rows), (0, 2, 2));
    assert_eq!(found(&verify(&lake).await), [(tickets.as_str(), ErrorKind::Data)]);
}

#[tokio::test]
async fn progress_counts_up_to_all_files() {
    let (_, lake) = lake().await;
    let seen = std::sync::Mutex::new(Vec::new());
    lake.verify(&root(1), None, &|verified| seen.lock().unwrap().push((verified.files, verified.of))).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), (0..=6).map(|files| (files, 6)).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_damaged_object_is_found_not_only_the_first() {
    let (store, lake) = lake().await;
    let manifest = lake.latest().await.unwrap();
    let files = &manifest.tables[&Stream::Tickets].files;
    let flip = async |name: &str, at: usize| {
        let mut bytes = store.get(&Path::from(name)).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[at] ^= 4;
        put(&store, name, bytes).await;
    };
    flip(&files[0].path, 40).await;
    flip(&files[2].path, files[2].bytes as usize - 20).await;
    store.delete(&Path::from(files[3].path.as_str())).await.unwrap();
    let lost = layout::commit(2);
    store.delete(&lost).await.unwrap();
    let snapshot = layout::snapshot(3);
    flip(snapshot.as_ref(), 60).await;

    let report = verify(&open(&store).await.unwrap()).await;
    let expected = [&files[0].path, &files[2].path, &files[3].path, lost.as_ref(), snapshot.as_ref()];
    let mut expected: Vec<(&str, ErrorKind)> = expected.into_iter().map(|object| (object, ErrorKind::Data)).collect();
    expected.sort_by_key(|(object, _)| *object);
    assert_eq!(found(&report), expected);
    let verdict = report.verdict().unwrap_err();
    assert_eq!(verdict.kind(), ErrorKind::Data);
    assert!(verdict.to_string().contains("findings: 5"), "{verdict}");
}

#[tokio::test]
async fn what_the_manifest_says_wrong_of_a_file_is_found() {
    type Change = fn(&mut DataFile);
    let wrong: [(&str, Change); 9] = [
        ("smallest key", |file| file.min_key = fixtures::id(0).to_string()),
        ("largest key", |file| file.max_key = "f".repeat(24)),
        ("size", |file| file.bytes += 1),
        ("agree", |file| file.rows += 1),
        ("updated_at", |file| file.updated_ms = file.updated_ms.map(|(from, until)| (from + 1, until))),
        ("updated_at", |file| file.updated_ms = None),
        ("pins", |file| file.pin[0] ^= 1),
        ("length", |file| file.tail_bytes -= 1),
        ("policy", |file| file.policy = Arc::from("")),
    ];
    for (words, change) in wrong {
        let (_, lake) = lake().await;
        let manifest = lake.latest().await.unwrap();
        let path = manifest.tables[&Stream::Tickets].files[0].path.clone();
        let mut file = DataFile::clone(&manifest.tables[&Stream::Tickets].files[0]);
        // Keys below the smallest one that a file claims must not look like a range turned around.
        change(&mut file);
        if file.min_key > file.max_key {
            file.min_key = "0".repeat(24);
        }
        commit(&lake, vec![Action::Remove(Stream::Tickets, path.clone()), Action::Add(Stream::Tickets, file.into())])
            .await;
        let report = verify(&lake).await;
        assert!(
            report.findings.iter().any(|finding| finding.object == path && finding.message.contains(words)),
            "{words}: {report:?}"
        );
    }
}

#[tokio::test]
async fn file_of_another_columns_than_the_manifest_names_is_found() {
    let (_, lake) = lake().await;
    let manifest = lake.latest().await.unwrap();
    let mut file = DataFile::clone(&manifest.tables[&Stream::Tickets].files[0]);
    let fields: Vec<_> = file.schema.fields().iter().rev().cloned().collect();
    file.schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let path = file.path.clone();
    commit(&lake, vec![Action::Remove(Stream::Tickets, path), Action::Add(Stream::Tickets, file.into())]).await;
    let report = verify(&lake).await;
    assert!(report.findings[0].message.contains("column"), "{report:?}");
}

#[tokio::test]
async fn record_that_stands_twice_among_the_live_rows_is_found() {
    let (store, lake) = lake().await;
    let manifest = lake.latest().await.unwrap();
    let file = manifest.tables[&Stream::Tickets].files.last().unwrap();
    let copy = layout::new_data_file(Stream::Tickets, clock().as_ref());
    let bytes = store.get(&Path::from(file.path.as_str())).await.unwrap().bytes().await.unwrap();
    put(&store, &copy, bytes).await;
    let file = DataFile { path: copy, index: None, ..DataFile::clone(file) };
    let id = file.min_key.clone();
    commit(&lake, vec![Action::Add(Stream::Tickets, file.into())]).await;
    let report = verify(&lake).await;
    assert_eq!(found(&report), [("tickets", ErrorKind::Data)]);
    assert!(report.findings[0].message.contains(&id), "{report:?}");
}

#[tokio::test]
async fn index_that_is_missing_damaged_or_tells_of_other_rows_is_found_beside_its_file() {
    let (store, lake) = lake().await;
    let manifest = lake.latest().await.unwrap();
    let file = &manifest.tables[&Stream::Tickets].files[0];
    let index = file.index_path().unwrap();
    let whole = store.get(&Path::from(index.as_str())).await.unwrap().bytes().await.unwrap();
    let mut flipped = whole.to_vec();
    let middle = flipped.len() - 30;
    flipped[middle] ^= 1;
    for forged in [Some(Bytes::from(flipped)), Some(whole.slice(..whole.len() - 1)), Some(Bytes::new()), None] {
        match forged {
            Some(bytes) => put(&store, &index, bytes).await,
            None => store.delete(&Path::from(index.as_str())).await.unwrap(),
        }
        assert_eq!(found(&verify(&lake).await), [(index.as_str(), ErrorKind::Data)]);
    }

    // One that is sound in itself, for rows that the file does not have.
    let other = |row: usize| crate::lake::index::Entry {
        id: if row == 0 { file.min_key.parse().unwrap() } else { fixtures::id(row) },
        updated_at_ms: Some(1),
        rev: Some(1),
    };
    let entries: Vec<_> = (0..file.rows as usize).map(other).collect();
    let (bytes, size, _) = crate::lake::index::encode(lake.ring(), &file.path, 64, entries.into_iter()).unwrap();
    assert_eq!(Some(size), file.index, "of the same length");
    put(&store, &index, bytes).await;
    let report = verify(&lake).await;
    assert_eq!(found(&report), [(index.as_str(), ErrorKind::Data)]);
    assert!(report.findings[0].message.contains("does not tell what the data file holds"), "{report:?}");
}

#[tokio::test]
async fn snapshot_that_says_something_else_than_the_commits_is_found() {
    let (store, lake) = lake().await;
    let mut other = Manifest::clone(&*lake.at_version(3).await.unwrap());
    other.watermarks.insert(Stream::Tickets, crate::lake::manifest::Watermark::default());
    let plain = other.to_snapshot("id".to_owned(), "test".to_owned()).encode().unwrap();
    let sealed = lake.ring().seal_object("snapshot/3", &plain).unwrap();
    put(&store, layout::snapshot(3).as_ref(), sealed).await;
    assert_eq!(found(&verify(&lake).await), [(layout::snapshot(3).as_ref(), ErrorKind::Data)]);
}

#[tokio::test]
async fn objects_that_no_version_names_are_garbage_and_no_finding() {
    let (store, lake) = lake().await;
    let left = layout::new_data_file(Stream::Tickets, clock().as_ref());
    put(&store, &left, "left by a crash").await;
    put(&store, "log/notes.txt", "x").await;
    put(&store, "elsewhere/thing", "y").await;
    let report = verify(&lake).await;
    assert_eq!(report.findings, []);
    let garbage: Vec<(&str, u64)> =
        report.garbage.iter().map(|garbage| (garbage.object.as_str(), garbage.bytes)).collect();
    assert_eq!(garbage, [(left.as_str(), 15), ("elsewhere/thing", 1), ("log/notes.txt", 1)]);
}

#[tokio::test]
async fn forged_number_of_a_commit_is_a_gap_and_not_counted_up_to() {
    let (store, lake) = lake().await;
    put(&store, layout::commit(u64::MAX).as_ref(), "").await;
    let report = verify(&lake).await;
    let objects: Vec<&str> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
    assert_eq!(objects, [layout::commit(7).as_ref(), layout::commit(u64::MAX).as_ref()]);
}

#[tokio::test]
async fn file_under_a_key_that_the_ring_lacks_is_denied_and_the_verdict_too() {
    let (store, lake) = lake().await;
    let foreign = KeyRing::generate(lake.id(), 0).unwrap();
    // A second ring of the same root: its `ring-1` is another key, so that nothing of this lake opens.
    put(&store, layout::ring(2).as_ref(), "CFRING of nobody").await;
    let report = verify(&lake).await;
    assert_eq!(found(&report), [(layout::ring(2).as_ref(), ErrorKind::Data)]);
    store.delete(&layout::ring(2)).await.unwrap();

    put(&store, layout::ring(1).as_ref(), foreign.seal(&root(2)).await.unwrap()).await;
    let report = verify(&lake).await;
    assert_eq!(found(&report), [(layout::ring(1).as_ref(), ErrorKind::Denied)]);
    assert_eq!(report.verdict().unwrap_err().kind(), ErrorKind::Denied);
}

/// Chunks of one lake file: two row groups, of which two columns are the same in every row.
mod swaps {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use parquet::file::metadata::ParquetMetaData;

    use super::*;
    use crate::lake::file::{ROW_GROUP_ROWS, encode_columns, open_tail};
    use crate::lake::scan::fixtures::Rows;

    const PATH: &str = "data/tickets/swapped.parquet";

    fn file(ring: &KeyRing) -> (Bytes, DataFile, Arc<ParquetMetaData>) {
        let rows = 2 * ROW_GROUP_ROWS;
        let ids: StringArray = (0..rows).map(|row| Some(fixtures::id(row).to_string())).collect();
        let constant: ArrayRef = Arc::new(Int64Array::from(vec![7; rows]));
        let schema = Schema::new(vec![
            Field::new("ticket_id", DataType::Utf8, false),
            Field::new("first", DataType::Int64, false),
            Field::new("second", DataType::Int64, false),
        ]);
        let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::clone(&constant), constant];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let keys = fixtures::rows(0, rows).1;
        let keys = keys.into_iter().map(|key| crate::policy::RecordKey { updated_at_ms: None, ..key }).collect();
        let rows = Rows { batch, keys };
        let policy: Arc<str> = "0".repeat(64).into();
        let (bytes, file) = encode_columns(PATH, &rows, "ticket_id", &policy, ring).unwrap();
        let tail = bytes.slice(bytes.len() - file.tail_bytes as usize..);
        let metadata = open_tail(&file, &tail, ring).unwrap();
        (bytes, file, metadata)
    }

    async fn check(ring: &KeyRing, bytes: &[u8], file: &DataFile) -> Vec<Error> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        put(&store, PATH, bytes.to_vec()).await;
        let found = scan::check_file(&store, ring, Stream::Tickets, &Arc::new(file.clone())).await.unwrap();
        found.into_iter().map(|(_, error)| error).collect()
    }

    #[tokio::test]
    async fn columns_row_groups_and_pages_that_changed_places_are_found() {
        let ring = KeyRing::generate("lake", 0).unwrap();
        let (bytes, file, metadata) = file(&ring);
        assert!(check(&ring, &bytes, &file).await.is_empty());
        let range = |group: usize, column: usize| {
            let (start, length) = metadata.row_group(group).column(column).byte_range();
            start as usize..(start + length) as usize
        };
        let swapped = |left: std::ops::Range<usize>, right: std::ops::Range<usize>| {
            assert_eq!(left.len(), right.len(), "the swap leaves all lengths as they are");
            let mut forged = bytes.to_vec();
            forged[left.clone()].copy_from_slice(&bytes[right.clone()]);
            forged[right].copy_from_slice(&bytes[left]);
            forged
        };
        // The pages of one chunk: header and body of the dictionary, header and body of the values.
        let modules = |group: usize, column: usize| {
            let chunk = range(group, column);
            let mut at = chunk.start;
            let mut modules = Vec::new();
            while at < chunk.end {
                let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize + 4;
                modules.push(at..at + length);
                at += length;
            }
            modules
        };
        let page = |group, column, place: usize| modules(group, column)[place].clone();
        let cases = [
            ("column", swapped(range(0, 1), range(0, 2))),
            ("row group of a column", swapped(range(0, 1), range(1, 1))),
            ("column and row group", swapped(range(0, 1), range(1, 2))),
            ("page of another column", swapped(page(0, 1, 3), page(0, 2, 3))),
            ("page of another row group", swapped(page(0, 1, 3), page(1, 1, 3))),
            ("header of another page", swapped(page(0, 1, 2), page(0, 2, 2))),
            ("dictionary of another column", swapped(page(0, 1, 1), page(0, 2, 1))),
        ];
        for (what, forged) in cases {
            let findings = check(&ring, &forged, &file).await;
            assert!(!findings.is_empty(), "{what}");
            for finding in findings {
                assert_eq!(finding.kind(), ErrorKind::Data, "{what}");
                assert!(finding.to_string().contains(PATH), "{what}: {finding}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// Any byte of any object, changed in any way, is found and named; nothing panics.
    #[test]
    fn changed_byte_anywhere_is_found(object in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), with in 1u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, _) = lake().await;
            let objects = objects(&store).await;
            let (name, bytes) = &objects[object.index(objects.len())];
            let mut forged = bytes.to_vec();
            let at = at.index(forged.len());
            forged[at] ^= with;
            put(&store, name, forged).await;
            let opened = open(&store).await;
            if name == "lake.json" || name.starts_with("keys/") {
                // White space and the names of unknown fields carry nothing.
                if let Err(error) = opened {
                    prop_assert!(matches!(error.kind(), ErrorKind::Data | ErrorKind::Denied | ErrorKind::Config), "{error:?}");
                } else {
                    prop_assert_eq!(name.as_str(), "lake.json");
                }
                return Ok(());
            }
            let report = verify(&opened.unwrap()).await;
            prop_assert!(report.findings.iter().any(|finding| finding.object == *name), "{name} at {at}: {report:?}");
            Ok(())
        })?;
    }
}
