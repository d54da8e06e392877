//! The traps of encrypted Parquet, a test each: what other code of this kind fell into, or would.
//!
//! The numbers are those of the list that this lake was designed against. Number 9, spill files in the clear, belongs to
//! the query session.

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetFileReaderFactory};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use parquet::basic::PageType;
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::file::column_crypto_metadata::ColumnCryptoMetaData;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader};

use super::fixtures::{NEEDLE, encoded, stored};
use super::*;
use crate::error::ErrorKind;
use crate::lake::file::{open_key, open_tail};
use crate::lake::store;

const ALL: &str = "SELECT * FROM tickets";

fn ring() -> KeyRing {
    KeyRing::generate("lake", 0).unwrap()
}

fn tail(bytes: &Bytes, file: &DataFile) -> Bytes {
    bytes.slice(bytes.len() - file.tail_bytes as usize..)
}

/// The metadata of a file with what each page is.
fn metadata(bytes: &Bytes, file: &DataFile, ring: &KeyRing) -> ParquetMetaData {
    let key = open_key(file, &tail(bytes, file), ring).unwrap();
    let decryption = FileDecryptionProperties::builder(key.expose().to_vec()).build().unwrap();
    ParquetMetaDataReader::new()
        .with_decryption_properties(Some(decryption))
        .with_metadata_options(Some(ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false)))
        .parse_and_finish(bytes)
        .unwrap()
}

fn table(
    store: &Arc<dyn ObjectStore>,
    ring: &KeyRing,
    cache: &MetadataCache,
    state: &TableState,
) -> Arc<dyn TableProvider> {
    provider(Arc::clone(store), ring.clone(), cache.clone(), "tickets", state, View::Live).unwrap()
}

async fn read(table: &Arc<dyn TableProvider>, config: SessionConfig) -> DataFusionResult<Vec<RecordBatch>> {
    let context = SessionContext::new_with_config(config);
    context.register_table("tickets", Arc::clone(table)).unwrap();
    context.sql(ALL).await?.collect().await
}

/// Our error inside of DataFusion's.
fn ours<'a>(error: &'a (dyn StdError + 'static)) -> &'a Error {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<Error>() {
            return found;
        }
        next = cause.source();
    }
    panic!("no error of ours: {error:?}")
}

fn in_crate(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn source(path: &str) -> String {
    std::fs::read_to_string(in_crate(path)).unwrap()
}

#[tokio::test]
async fn trap_01_bloom_filters_are_off_whatever_a_session_sets() {
    let ring = ring();
    let (bytes, file) = encoded(&ring, "a", 0, 300);
    for group in metadata(&bytes, &file, &ring).row_groups() {
        assert!(group.columns().iter().all(|chunk| chunk.bloom_filter_offset().is_none()));
    }
    // Asking for them at reading finds none and does not go astray.
    let (store, state) = stored(&[(bytes, file)]).await;
    let mut config = SessionConfig::new();
    config.options_mut().execution.parquet.bloom_filter_on_read = true;
    config.options_mut().execution.parquet.bloom_filter_on_write = true;
    let rows = read(&table(&store, &ring, &MetadataCache::default(), &state), config).await.unwrap();
    assert!(rows.iter().map(RecordBatch::num_rows).sum::<usize>() > 290);
}

#[test]
fn trap_02_build_without_encryption_does_not_compile_and_magic_is_checked_after_writing() {
    // The types exist in `parquet` only with its feature `encryption`; this names the properties that the writer takes.
    let properties: fn(Vec<u8>) -> parquet::encryption::encrypt::EncryptionPropertiesBuilder =
        parquet::encryption::encrypt::FileEncryptionProperties::builder;
    assert!(properties(vec![0; 32]).build().is_ok());
    assert!(source("src/lake/file.rs").contains("use parquet::encryption::encrypt::FileEncryptionProperties;"));
    let manifest = source("Cargo.toml");
    assert!(manifest.contains("\"parquet_encryption\"") && manifest.contains("\"encryption\""));
    let (bytes, _) = encoded(&ring(), "a", 0, 300);
    assert!(bytes.starts_with(b"PARE") && bytes.ends_with(b"PARE"));
    assert!(!bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes()));
}

#[tokio::test]
async fn trap_03_scan_cannot_be_taken_for_one_that_is_sent_without_its_pins_and_keys() {
    let ring = ring();
    let (store, state) = stored(&[encoded(&ring, "a", 0, 100)]).await;
    let context = SessionContext::new();
    let provider = table(&store, &ring, &MetadataCache::default(), &state);
    let plan = provider.scan(&context.state(), None, &[], None).await.unwrap();
    // What datafusion-proto writes is a `FileScanConfig`; ours shows none, so it refuses the plan.
    let scan = plan.downcast_ref::<DataSourceExec>().unwrap();
    assert!(scan.data_source().downcast_ref::<FileScanConfig>().is_none());
    // And a file that came without its pin is not read.
    let access = Access { store, ring, cache: MetadataCache::default() };
    let readers = PinnedReaders { access, current: CurrentFiles::default() };
    let bare = PartitionedFile::new(state.files[0].path.clone(), state.files[0].bytes);
    let Err(refused) = readers.create_reader(0, bare, None, &ExecutionPlanMetricsSet::new()) else {
        panic!("a file without its pin was opened")
    };
    assert!(ours(&refused).to_string().contains("lost its pin"), "{refused}");
}

#[test]
fn trap_04_no_column_is_left_in_the_clear_because_none_has_a_key_of_its_own() {
    let ring = ring();
    let (bytes, file) = encoded(&ring, "a", 0, 300);
    let metadata = metadata(&bytes, &file, &ring);
    let chunks: Vec<_> =
        metadata.row_groups().iter().flat_map(parquet::file::metadata::RowGroupMetaData::columns).collect();
    assert_eq!(chunks.len(), file.schema.fields().len());
    for chunk in chunks {
        let crypto = chunk.crypto_metadata();
        assert!(matches!(crypto, Some(ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY)), "{}", chunk.column_path());
    }
}

#[tokio::test]
async fn trap_05_file_in_the_clear_and_forged_file_are_refused_before_they_are_parsed() {
    let ring = ring();
    let (bytes, file) = encoded(&ring, "a", 0, 60);
    let (batch, _) = super::fixtures::rows(0, 60);
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    let plain = Bytes::from(writer.into_inner().unwrap());
    // Whoever can wrap a key can encrypt a file of any rows: only the pin tells it from ours.
    let (forged, _) = encoded(&ring, "a", 0, 60);
    for other in [plain, forged] {
        let (store, state) = stored(&[(bytes.clone(), file.clone())]).await;
        store.put(&Path::from(file.path.as_str()), other.into()).await.unwrap();
        let refused =
            read(&table(&store, &ring, &MetadataCache::default(), &state), SessionConfig::new()).await.unwrap_err();
        assert_eq!(ours(&refused).kind(), ErrorKind::Data);
        assert!(ours(&refused).to_string().contains(&file.path));
    }
}

#[tokio::test]
async fn trap_06_nothing_that_is_printed_for_debugging_shows_a_key() {
    let ring = ring();
    let (bytes, file) = encoded(&ring, "a", 0, 60);
    let key = open_key(&file, &tail(&bytes, &file), &ring).unwrap();
    let (store, state) = stored(&[(bytes, file)]).await;
    let cache = MetadataCache::default();
    let provider = table(&store, &ring, &cache, &state);
    let context = SessionContext::new();
    let plan = provider.scan(&context.state(), None, &[], None).await.unwrap();
    read(&provider, SessionConfig::new()).await.unwrap();
    let printed = [
        format!("{provider:?}{plan:?}"),
        format!("{ring:?}{key:?}{:?}", ring.new_file_key().unwrap().key),
        format!("{cache:?}{:?}", Access { store, ring: ring.clone(), cache: cache.clone() }),
    ];
    for secret in [key.expose(), ring.export("ring-1").unwrap().expose()] {
        let forms = [
            secret.map(|byte| byte.to_string()).join(", "),
            secret.map(|byte| format!("{byte:02x}")).concat(),
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret),
        ];
        for text in &printed {
            assert!(forms.iter().all(|form| !text.contains(form)), "a key is printed");
        }
    }
    // The trap itself: the properties of the writer print theirs, so nothing of ours may hold them and derive `Debug`.
    let properties = parquet::encryption::encrypt::FileEncryptionProperties::builder(vec![77; 32]).build().unwrap();
    assert!(format!("{properties:?}").contains("77, 77"), "if this prints no key any more, the trap has gone");
}

#[test]
fn trap_07_data_pages_are_of_version_1() {
    let ring = ring();
    let (bytes, file) = encoded(&ring, "a", 0, 300);
    for group in metadata(&bytes, &file, &ring).row_groups() {
        for chunk in group.columns() {
            let pages = chunk.page_encoding_stats().unwrap();
            assert!(pages.iter().any(|page| page.page_type == PageType::DATA_PAGE));
            assert!(pages.iter().all(|page| page.page_type != PageType::DATA_PAGE_V2), "{}", chunk.column_path());
        }
    }
}

#[tokio::test]
async fn trap_08_footers_are_decrypted_once_and_never_shared_between_rings() {
    let ring = ring();
    let (store, state) = stored(&[encoded(&ring, "a", 0, 60), encoded(&ring, "b", 60, 90)]).await;
    let cache = MetadataCache::default();
    for _ in 0..3 {
        read(&table(&store, &ring, &cache, &state), SessionConfig::new()).await.unwrap();
    }
    let (hits, misses) = cache.hits_and_misses();
    assert_eq!(misses, 2, "each footer once");
    assert!(hits >= 4, "{hits}");
    // Another lake handle has another cache: what one ring opened is not seen by another.
    let stranger = KeyRing::generate("lake", 0).unwrap();
    let refused =
        read(&table(&store, &stranger, &MetadataCache::default(), &state), SessionConfig::new()).await.unwrap_err();
    assert!(matches!(ours(&refused).kind(), ErrorKind::Data | ErrorKind::Denied), "{refused:?}");
}

#[tokio::test]
async fn trap_10_forged_length_of_a_module_is_a_data_error_and_allocates_nothing() {
    let ring = ring();
    let (bytes, file) = encoded(&ring, "a", 0, 60);
    for length in [0, 1, 27, 28, 0x7fff_ffff, 0xffff_ffff_u32] {
        let mut forged = bytes.to_vec();
        forged[4..8].copy_from_slice(&length.to_le_bytes());
        let (store, state) = stored(&[(Bytes::from(forged), file.clone())]).await;
        let refused =
            read(&table(&store, &ring, &MetadataCache::default(), &state), SessionConfig::new()).await.unwrap_err();
        assert_eq!(ours(&refused).kind(), ErrorKind::Data, "{length}");
        assert!(ours(&refused).to_string().contains(&file.path), "{length}");
    }
}

#[tokio::test]
async fn trap_11_commits_are_made_by_create_and_what_they_name_is_synced_before() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn ObjectStore> =
        Arc::new(store::SyncedFileSystem::open(folder.path(), store::Missing::Create).unwrap());
    let name = Path::from("log/1.commit");
    // The local store knows no conditional update, so nothing of ours may need it.
    let update = PutMode::Update(UpdateVersion { e_tag: None, version: None });
    assert!(disk.put_opts(&name, "x".into(), update.into()).await.is_err());
    assert!(store::create(disk.as_ref(), &name, Bytes::from_static(b"first")).await.unwrap());
    assert!(!store::create(disk.as_ref(), &name, Bytes::from_static(b"second")).await.unwrap());
    assert_eq!(disk.get(&name).await.unwrap().bytes().await.unwrap(), "first");
    // Each put, of data files too, goes through the wrapper that syncs file and folders before it returns.
    let places = ["src/lake/store.rs", "src/lake/store/synced.rs"];
    let text: String = places.iter().filter_map(|path| std::fs::read_to_string(in_crate(path)).ok()).collect();
    assert!(text.matches("sync_all").count() >= 2, "the file, and its folder");
    assert!(source("src/lake/put.rs").contains("lake.store.put("), "data files go through the same store");
}

#[tokio::test]
async fn trap_12_missing_key_is_denied_and_never_reads_as_missing_values() {
    let ring = ring();
    let (bytes, file) = encoded(&ring, "a", 0, 60);
    // A file whose key another ring key wrapped: its metadata name `ring-9`, and whoever did it pinned it so.
    let mut forged = bytes.to_vec();
    let at = forged.windows(6).rposition(|window| window == b"ring-1").unwrap();
    forged[at + 5] = b'9';
    let forged = Bytes::from(forged);
    let pin = ring::digest::digest(&ring::digest::SHA256, &tail(&forged, &file));
    let file = DataFile { pin: pin.as_ref().try_into().unwrap(), ..file };
    let refused = open_tail(&file, &tail(&forged, &file), &ring).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    let (store, state) = stored(&[(forged, file)]).await;
    let refused =
        read(&table(&store, &ring, &MetadataCache::default(), &state), SessionConfig::new()).await.unwrap_err();
    assert_eq!(ours(&refused).kind(), ErrorKind::Denied);
    assert!(ours(&refused).to_string().contains("ring-9"), "the key that is missing is named");
    // A store that is down is told from a right that is missing.
    let gone = Access { store: Arc::new(InMemory::new()), ring, cache: MetadataCache::default() };
    assert_eq!(gone.metadata(&state.files[0]).await.unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn trap_13_the_key_tools_are_our_own() {
    let lock = source("Cargo.lock");
    assert!(lock.contains("name = \"parquet\""));
    for absent in ["parquet-key-management", "datafusion-proto"] {
        assert!(!lock.contains(absent), "{absent} is for other versions, or loses what protects a file");
    }
}
