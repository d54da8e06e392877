//! Restricted columns, with their key and without: two kinds of sessions in one process, over one store and one cache.

use std::error::Error as StdError;
use std::fmt::Write as _;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Field, Int64Type, Schema};
use bytes::Bytes;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::file::column_crypto_metadata::ColumnCryptoMetaData;

use super::fixtures::{NEEDLE, Rows, id, rows, schema, status};
use super::*;
use crate::error::{ErrorKind, Result};
use crate::keys::metadata::master_key_id;
use crate::lake::file::{encode_columns, open_key, open_tail};

/// The columns of the fixture, some of them restricted.
fn restricting(columns: &[&str]) -> SchemaRef {
    let restricted = |field: &Arc<Field>| {
        let mut metadata = field.metadata().clone();
        if columns.contains(&field.name().as_str()) {
            metadata.insert("method".to_owned(), "restrict".to_owned());
        }
        field.as_ref().clone().with_metadata(metadata)
    };
    Arc::new(Schema::new(schema().fields().iter().map(restricted).collect::<Vec<_>>()))
}

fn encoded(ring: &KeyRing, name: &str, range: (usize, usize), columns: &[&str]) -> Result<(Bytes, DataFile)> {
    let (batch, keys) = rows(range.0, range.1);
    let batch = RecordBatch::try_new(restricting(columns), batch.columns().to_vec()).unwrap();
    let path = format!("data/tickets/{name}.parquet");
    encode_columns(&path, &Rows { batch, keys }, "ticket_id", &Arc::from("digest"), ring)
}

/// The ring alone, and with the restricted one beside it.
fn rings() -> (KeyRing, KeyRing) {
    let without = KeyRing::generate("lake", 0).unwrap();
    let restricted = KeyRing::generate_restricted("lake", 0).unwrap();
    let with = without.with_restricted(&restricted).unwrap();
    (without, with)
}

async fn stored(files: &[(Bytes, DataFile)], columns: &[&str]) -> (Arc<dyn ObjectStore>, TableState) {
    let (store, table) = super::fixtures::stored(files).await;
    (store, TableState { schema: restricting(columns), ..table })
}

fn tail(bytes: &Bytes, file: &DataFile) -> Bytes {
    bytes.slice(bytes.len() - file.tail_bytes as usize..)
}

fn session(store: &Arc<dyn ObjectStore>, ring: &KeyRing, cache: &MetadataCache, table: &TableState) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2).with_repartition_file_min_size(0);
    let context = SessionContext::new_with_config(config);
    for (name, view) in [("tickets", View::Live), ("ticket_versions", View::Versions)] {
        let table = provider(Arc::clone(store), ring.clone(), cache.clone(), name, table, view).unwrap();
        context.register_table(name, table).unwrap();
    }
    context
}

/// What a query answers, or its error with all its causes.
async fn answer(context: &SessionContext, sql: &str) -> std::result::Result<String, String> {
    let told = |error: datafusion::error::DataFusionError| {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let _ = write!(text, "\n{cause:?}");
            next = cause.source();
        }
        text
    };
    let frame = context.sql(sql).await.map_err(told)?;
    let batches = frame.collect().await.map_err(told)?;
    Ok(arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string())
}

async fn number(context: &SessionContext, sql: &str) -> i64 {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[test]
fn every_column_of_a_file_with_restricted_ones_has_its_own_key_and_none_is_in_the_clear() {
    let (without, with) = rings();
    for columns in [&["status"][..], &["tag_ids"], &["status", "tag_ids", "score"]] {
        let (bytes, file) = encoded(&with, "a", (0, 70_000), columns).unwrap();
        assert_eq!(file.restricted_key.as_deref(), Some("restricted-1"));
        let metadata = open_tail(&file, &tail(&bytes, &file), &with).unwrap();
        assert_eq!(metadata.num_row_groups(), 2);
        let blind = open_tail(&file, &tail(&bytes, &file), &without).unwrap();
        for (chunk, unread) in metadata
            .row_groups()
            .iter()
            .zip(blind.row_groups())
            .flat_map(|(one, other)| one.columns().iter().zip(other.columns()).collect::<Vec<_>>())
        {
            let name = chunk.column_path().parts()[0].clone();
            let Some(ColumnCryptoMetaData::ENCRYPTION_WITH_COLUMN_KEY(key)) = chunk.crypto_metadata() else {
                panic!("{name}: {:?}", chunk.crypto_metadata().is_some())
            };
            let id = master_key_id(key.key_metadata.as_deref().unwrap()).unwrap();
            let is_restricted = columns.contains(&name.as_str());
            assert_eq!(id, if is_restricted { "restricted-1" } else { "ring-1" }, "{name}");
            assert!(chunk.statistics().is_some(), "{name}");
            assert_eq!(unread.statistics().is_none(), is_restricted, "{name}: statistics without the key");
            assert_eq!(unread.compressed_size() == 0, is_restricted, "{name}");
            assert_eq!(chunk.bloom_filter_offset(), None);
        }
        let needles = [NEEDLE, "ticket_id", "status", "snoozed", "tag-1", &id(0).to_string()];
        for word in needles {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
        }
        assert!(open_key(&file, &tail(&bytes, &file), &without).is_ok());
    }
}

#[test]
fn file_without_restricted_columns_is_the_same_with_a_restricted_ring() {
    let (without, with) = rings();
    for ring in [&without, &with] {
        let (bytes, file) = encoded(ring, "a", (0, 100), &[]).unwrap();
        assert_eq!(file.restricted_key, None);
        let metadata = open_tail(&file, &tail(&bytes, &file), ring).unwrap();
        let footer_key = |chunk: &parquet::file::metadata::ColumnChunkMetaData| {
            matches!(chunk.crypto_metadata(), Some(ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY))
        };
        assert!(
            metadata.row_groups().iter().flat_map(parquet::file::metadata::RowGroupMetaData::columns).all(footer_key)
        );
    }
}

#[test]
fn restricted_columns_are_not_written_without_their_key() {
    let (without, _) = rings();
    let error = encoded(&without, "a", (0, 10), &["status", "score"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("status, score"), "{error}");
    assert!(error.hint().unwrap().contains("keys.restricted"), "{:?}", error.hint());
}

#[tokio::test]
async fn two_kinds_of_sessions_read_one_lake_and_share_nothing() {
    let (without, with) = rings();
    let columns = ["status", "tag_ids", "score"];
    let files = [encoded(&with, "a", (0, 300), &columns).unwrap(), encoded(&with, "b", (300, 400), &columns).unwrap()];
    let (store, table) = stored(&files, &columns).await;
    // Handing one cache to both is a mistake that nobody should make; it shows nothing all the same.
    let cache = MetadataCache::default();
    let blind = session(&store, &without, &cache, &table);
    let seeing = session(&store, &with, &cache, &table);
    for turn in 0..3 {
        assert!(number(&seeing, "SELECT count(status) FROM ticket_versions").await > 300, "turn {turn}");
        for count in [
            "SELECT count(status) FROM ticket_versions",
            "SELECT count(DISTINCT status) FROM ticket_versions",
            "SELECT count(tag_ids) FROM tickets",
            "SELECT count(score) FROM tickets",
            "SELECT count(*) FROM tickets WHERE status IS NOT NULL",
            "SELECT count(*) FROM tickets WHERE status = 'open' OR score > 0",
            "SELECT count(*) FROM tickets WHERE status <> 'open'",
            "SELECT count(*) FROM tickets a JOIN tickets b ON a.status = b.status",
            "SELECT count(*) FROM (SELECT max(score) m, min(status) n FROM tickets) WHERE m IS NOT NULL OR n IS NOT NULL",
        ] {
            assert_eq!(number(&blind, count).await, 0, "turn {turn}: {count}");
            assert!(number(&seeing, count).await > 0, "turn {turn}: {count}");
        }
        assert_eq!(number(&blind, "SELECT count(*) FROM ticket_versions").await, 400);
        assert_eq!(
            number(&blind, "SELECT count(*) FROM ticket_versions WHERE status IS NULL AND rev = 3").await,
            number(&seeing, "SELECT count(*) FROM ticket_versions WHERE rev = 3").await
        );
    }
    let (_, misses) = cache.hits_and_misses();
    assert_eq!(misses, 4, "each session opened each file by its own keys");
}

#[tokio::test]
async fn nothing_of_a_restricted_value_is_in_an_answer_a_plan_or_an_error() {
    let (without, with) = rings();
    let file = encoded(&with, "a", (0, 300), &["status"]).unwrap();
    let (store, table) = stored(std::slice::from_ref(&file), &["status"]).await;
    let blind = session(&store, &without, &MetadataCache::default(), &table);
    let seeing = session(&store, &with, &MetadataCache::default(), &table);
    let shows = |text: &str| [NEEDLE, "snoozed", "done", "open"].iter().any(|word| text.contains(word));
    for sql in [
        "SELECT * FROM ticket_versions",
        "SELECT status, ticket_id FROM ticket_versions ORDER BY status, ticket_id LIMIT 7",
        "SELECT status, count(*) FROM tickets GROUP BY status ORDER BY 1",
        "SELECT min(status), max(status) FROM tickets",
        "SELECT a.ticket_id, b.status FROM tickets a LEFT JOIN tickets b USING (ticket_id) ORDER BY 2 DESC NULLS LAST LIMIT 3",
        "SELECT string_agg(status, ',') FROM tickets",
    ] {
        assert!(!shows(&answer(&blind, sql).await.unwrap()), "{sql}");
        assert!(shows(&answer(&seeing, sql).await.unwrap()), "{sql}");
    }
    for sql in [
        "EXPLAIN SELECT * FROM tickets WHERE length(status) > 2",
        "EXPLAIN ANALYZE SELECT max(status) FROM tickets WHERE status IS NOT NULL",
        "EXPLAIN VERBOSE SELECT status FROM tickets ORDER BY status",
    ] {
        // Metrics are called after opening files, so that only words that are none of theirs count.
        let text = answer(&blind, sql).await.unwrap();
        assert!(!text.contains(NEEDLE) && !text.contains("snoozed"), "{sql}");
    }
    // With the key the cast fails on a value and quotes it; without there is no value to quote.
    let cast = "SELECT sum(CAST(status AS BIGINT)) FROM tickets";
    assert!(answer(&seeing, cast).await.is_err());
    assert!(!shows(&answer(&blind, cast).await.unwrap()));
    let plan = blind.sql("SELECT * FROM tickets").await.unwrap().create_physical_plan().await.unwrap();
    assert!(plan.schema().field(3).metadata()["method"] == "restrict", "the column is there, and says what it is");
}

#[tokio::test]
async fn each_file_is_read_by_what_it_and_the_table_restrict() {
    let (without, with) = rings();
    let open = encoded(&without, "a", (0, 100), &[]).unwrap();
    let closed = encoded(&with, "b", (100, 200), &["status"]).unwrap();
    let all = "SELECT count(status) FROM ticket_versions";
    let present = (0..200).filter(|row| status(*row).is_some()).count() as i64;
    let cache = MetadataCache::default;
    // The policy restricts it now, and an older file has it as it was before.
    let (store, table) = stored(&[open.clone(), closed.clone()], &["status"]).await;
    assert_eq!(number(&session(&store, &without, &cache(), &table), all).await, 0);
    assert_eq!(number(&session(&store, &with, &cache(), &table), all).await, present);
    // The policy does not restrict it any more, and an older file has it as it was before.
    let (store, table) = stored(&[open, closed], &[]).await;
    assert_eq!(number(&session(&store, &without, &cache(), &table), all).await, present / 2);
    assert_eq!(number(&session(&store, &with, &cache(), &table), all).await, present);
    let sorted = "SELECT ticket_id, status FROM ticket_versions ORDER BY ticket_id LIMIT 150";
    let context = session(&store, &without, &cache(), &table);
    let batches = context.sql(sorted).await.unwrap().collect().await.unwrap();
    let ids: Vec<String> = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_string_view().iter().map(|id| id.unwrap().to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(ids, (0..150).map(|row| id(row).to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn lost_key_is_an_error_and_a_destroyed_or_disabled_one_reads_null() {
    let (without, with) = rings();
    let restricted = with.restricted().unwrap().rotate(0).unwrap();
    let newer = without.with_restricted(&restricted).unwrap();
    let file = encoded(&newer, "a", (0, 100), &["status"]).unwrap();
    assert_eq!(file.1.restricted_key.as_deref(), Some("restricted-2"));
    let (store, table) = stored(std::slice::from_ref(&file), &["status"]).await;
    let count = "SELECT count(status) FROM tickets";
    let read = async |ring: &KeyRing| answer(&session(&store, ring, &MetadataCache::default(), &table), count).await;
    assert!(!read(&newer).await.unwrap().contains("| 0 "));
    // The older ring has the right and not the key: no column without values, but an error that names the key.
    let error = read(&with).await.unwrap_err();
    assert!(error.contains("restricted-2") && error.contains("newer than the key ring"), "{error}");
    // A ring of the same ids and other keys, as another lake's would be.
    let foreign = KeyRing::generate_restricted("lake", 0).unwrap().rotate(0).unwrap();
    let error = read(&without.with_restricted(&foreign).unwrap()).await.unwrap_err();
    assert!(error.contains("do not unwrap"), "{error}");
    let rotated = restricted.rotate(0).unwrap();
    for ring in [rotated.destroy("restricted-2").unwrap(), rotated.disable("restricted-2").unwrap()] {
        let ring = without.with_restricted(&ring).unwrap();
        let context = session(&store, &ring, &MetadataCache::default(), &table);
        assert_eq!(number(&context, count).await, 0);
        assert_eq!(number(&context, "SELECT count(rev) FROM ticket_versions").await, 90);
    }
}

#[test]
fn file_whose_keys_are_not_those_that_the_manifest_says_is_refused() {
    let (_, with) = rings();
    let (bytes, file) = encoded(&with, "a", (0, 100), &["status"]).unwrap();
    let tail = tail(&bytes, &file);
    let claims = [
        ("none restricted", DataFile { schema: restricting(&[]), restricted_key: None, ..file.clone() }),
        ("another column", DataFile { schema: restricting(&["score"]), ..file.clone() }),
        ("one more", DataFile { schema: restricting(&["status", "score"]), ..file.clone() }),
        ("another key", DataFile { restricted_key: Some("restricted-2".into()), ..file.clone() }),
        ("a key of the other ring", DataFile { restricted_key: Some("ring-1".into()), ..file.clone() }),
    ];
    assert!(open_tail(&file, &tail, &with).is_ok());
    for (what, claim) in claims {
        assert_eq!(open_tail(&claim, &tail, &with).unwrap_err().kind(), ErrorKind::Data, "{what}");
    }
    let (plain, uniform) = encoded(&with, "b", (0, 100), &[]).unwrap();
    let claim =
        DataFile { schema: restricting(&["status"]), restricted_key: Some("restricted-1".into()), ..uniform.clone() };
    let plain = plain.slice(plain.len() - uniform.tail_bytes as usize..);
    assert_eq!(open_tail(&claim, &plain, &with).unwrap_err().kind(), ErrorKind::Data);
}

#[tokio::test]
async fn columns_swapped_between_files_or_within_one_are_found() {
    let (_, with) = rings();
    let (bytes, file) = encoded(&with, "a", (0, 3_000), &["status", "score"]).unwrap();
    let (other, _) = encoded(&with, "a", (0, 3_000), &["status", "score"]).unwrap();
    let metadata = open_tail(&file, &tail(&bytes, &file), &with).unwrap();
    let (start, length) = metadata.row_group(0).column(3).byte_range();
    let chunk = start as usize..(start + length) as usize;
    let mut swapped = bytes.to_vec();
    // The same rows under another file's key: the same length, and no tag that fits.
    if other.len() == bytes.len() {
        swapped[chunk.clone()].copy_from_slice(&other[chunk.clone()]);
    } else {
        swapped[chunk.end - 1] ^= 1;
    }
    let (store, table) = stored(&[(bytes.clone(), file.clone())], &["status", "score"]).await;
    store.put(&Path::from(file.path.as_str()), Bytes::from(swapped).into()).await.unwrap();
    let context = session(&store, &with, &MetadataCache::default(), &table);
    let error = answer(&context, "SELECT max(status) FROM ticket_versions WHERE length(status) > 0").await.unwrap_err();
    assert!(error.contains("data/tickets/a.parquet"), "{error}");
    assert!(!error.contains("snoozed"), "{error}");
}

#[tokio::test]
async fn file_is_checked_whole_with_the_key_and_but_for_the_columns_without() {
    let (without, with) = rings();
    let file = encoded(&with, "a", (0, 500), &["status", "tag_ids"]).unwrap();
    let file = (file.0, DataFile { policy: "0".repeat(64).into(), ..file.1 });
    let (store, table) = stored(std::slice::from_ref(&file), &["status", "tag_ids"]).await;
    for ring in [&without, &with] {
        let findings = check_file(&store, ring, Stream::Tickets, &table.files[0]).await.unwrap();
        assert!(findings.is_empty(), "{findings:?}");
    }
    let metadata = open_tail(&file.1, &tail(&file.0, &file.1), &with).unwrap();
    let (start, length) = metadata.row_group(0).column(3).byte_range();
    let mut flipped = file.0.to_vec();
    flipped[(start + length - 1) as usize] ^= 1;
    store.put(&Path::from(file.1.path.as_str()), Bytes::from(flipped).into()).await.unwrap();
    let found = check_file(&store, &with, Stream::Tickets, &table.files[0]).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(check_file(&store, &without, Stream::Tickets, &table.files[0]).await.unwrap().is_empty());
}

#[tokio::test]
async fn whole_file_gives_no_restricted_column_without_the_key_and_none_of_a_destroyed_one() {
    let (without, with) = rings();
    let file = encoded(&with, "a", (0, 100), &["status"]).unwrap();
    let (store, table) = stored(std::slice::from_ref(&file), &["status"]).await;
    let read = async |ring: &KeyRing, column: &str| {
        let held = WholeFile::fetch(&store, ring, &table.files[0]).await?;
        assert_eq!(held.keys("ticket_id").unwrap().len(), 100);
        held.column(column, &[0, 1, 2])
    };
    assert_eq!(read(&with, "status").await.unwrap().unwrap().len(), 3);
    assert_eq!(read(&without, "rev").await.unwrap().unwrap().len(), 3);
    let error = read(&without, "status").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "null would lose the values");
    assert!(error.to_string().contains("restricted-1") && error.to_string().contains("status"), "{error}");
    let destroyed = with.restricted().unwrap().rotate(0).unwrap().destroy("restricted-1").unwrap();
    let destroyed = without.with_restricted(&destroyed).unwrap();
    assert!(read(&destroyed, "status").await.unwrap().is_none());
}

/// Opens a file with PyArrow's key tools: with both keys, and with the one for the other columns.
#[test]
fn pyarrow_reads_all_columns_with_both_keys_and_the_others_with_one() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let Some(python) = std::env::var_os("COUNTERFOIL_INTEROP_PYTHON") else {
        let reason = "skipped: COUNTERFOIL_INTEROP_PYTHON names no Python with PyArrow";
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{reason}\n")).unwrap();
        return;
    };
    let (_, with) = rings();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    std::fs::write(&path, encoded(&with, "a", (0, 70_000), &["status", "tag_ids"]).unwrap().0).unwrap();
    let key = |id: &str| STANDARD.encode(with.export(id).unwrap().expose());
    let open = |keys: serde_json::Value, columns: &[&str]| {
        let request = folder.path().join("request.json");
        let body = serde_json::json!({ "files": [path], "keys": keys, "show": 3, "columns": columns });
        std::fs::write(&request, body.to_string()).unwrap();
        let output = std::process::Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/pyarrow_open.py"))
            .stdin(std::fs::File::open(&request).unwrap())
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["files"][0].clone())
    };
    let (main, restricted) = (key("ring-1"), key("restricted-1"));
    let all = open(serde_json::json!({ "ring-1": main, "restricted-1": restricted }), &[]).unwrap();
    assert_eq!((&all["rows"], &all["first"][0]["status"]), (&70_000.into(), &"open".into()));
    assert_eq!(all["key_ids"], serde_json::json!(["restricted-1", "ring-1"]));
    let others = ["ticket_id", "updated_at", "rev", "score"];
    let some = open(serde_json::json!({ "ring-1": main }), &others).unwrap();
    assert_eq!((&some["rows"], &some["first"][2]["ticket_id"]), (&70_000.into(), &id(2).to_string().into()));
    let error = open(serde_json::json!({ "ring-1": main }), &["status"]).unwrap_err();
    assert!(error.contains("restricted-1"), "{error}");
}
