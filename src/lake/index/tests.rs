//! Indexes against the columns they stand for, damaged indexes, and what a look-up reads.

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::lake::file::encode_columns;
use crate::lake::scan::fixtures::{self, Rows};
use crate::lake::scan::{FoundKey, MetadataCache, find_counting, find_keys};
use crate::policy::RecordKey;

fn ring() -> KeyRing {
    KeyRing::generate("lake", 0).unwrap()
}

/// Row `number` of an endless table; ids are spread over all their bytes but the first.
fn entry(number: u32) -> Entry {
    let mut id = [0x5a; 12];
    id[..4].copy_from_slice(&number.to_be_bytes());
    id[4..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    Entry {
        id: ObjectId::from_bytes(id),
        updated_at_ms: (number % 5 != 3).then_some(i64::from(number) - 7),
        rev: (number % 7 != 2).then_some(-i64::from(number)),
    }
}

/// The index of even rows below `2 * rows`, so that odd ones are absent, and a file that has no more than it.
fn indexed(ring: &KeyRing, name: &str, rows: u32, rows_per_block: u32) -> (Bytes, DataFile) {
    let path = format!("data/tickets/{name}.parquet");
    let (bytes, size, _) = encode(ring, &path, rows_per_block, (0..rows).map(|row| entry(row * 2))).unwrap();
    let file = DataFile {
        path,
        rows: u64::from(rows),
        min_key: entry(0).id.to_string(),
        max_key: entry((rows - 1) * 2).id.to_string(),
        index: Some(size),
        ..DataFile::default()
    };
    (bytes, file)
}

/// A store in memory that counts what is read.
#[derive(Debug, Default)]
struct Counting {
    inner: InMemory,
    calls: AtomicU64,
    bytes: AtomicU64,
}

impl Counting {
    fn take(&self) -> (u64, u64) {
        (self.calls.swap(0, Ordering::SeqCst), self.bytes.swap(0, Ordering::SeqCst))
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(ranges.iter().map(|range| range.end - range.start).sum(), Ordering::SeqCst);
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn put(store: &dyn ObjectStore, path: &str, bytes: impl Into<Bytes>) {
    store.put(&Path::from(path), bytes.into().into()).await.unwrap();
}

async fn access(ring: &KeyRing, files: &[(Bytes, DataFile)]) -> (Arc<Counting>, Access) {
    let store = Arc::new(Counting::default());
    for (bytes, file) in files {
        put(store.as_ref(), &file.index_path().unwrap(), bytes.clone()).await;
    }
    let shared: Arc<dyn ObjectStore> = Arc::<Counting>::clone(&store);
    (store, Access { store: shared, ring: ring.clone(), cache: MetadataCache::default() })
}

async fn look_up_all(access: &Access, file: &DataFile) -> Result<Vec<(u32, Entry)>> {
    let all = Wanted::new((0..file.rows as u32 * 2 + 3).map(|row| entry(row).id));
    look_up(access, (file, file.index.unwrap()), &all, &RoaringBitmap::new()).await
}

#[test]
fn format_is_the_documented_one() {
    let ring = ring();
    let (bytes, file) = indexed(&ring, "a", 5, 2);
    let size = file.index.unwrap();
    let (sealed, blocks) = bytes.split_at(size.header_bytes as usize);
    let header = ring.open_object("index/data/tickets/a.parquet", sealed).unwrap();
    assert_eq!(header[..9], [1, 5, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(header.len(), 41 + 3 * 12 + 5 * 4);
    assert_eq!(header[41 + 12..41 + 24], *entry(4).id.as_bytes());
    assert_eq!(header[41 + 36..41 + 40], print(entry(0).id).to_le_bytes());
    let key = BlockKey::from_bytes(header[9..41].try_into().unwrap());
    assert_eq!(blocks.len(), 5 * 29 + 3 * 28);
    let last = key.open(2, &blocks[2 * (2 * 29 + 28)..]).unwrap().unwrap();
    let expected = [&[2][..], entry(8).id.as_bytes(), &[0; 8], &(-8_i64).to_le_bytes()].concat();
    assert_eq!(last.as_slice(), expected, "without updated_at");
    let first = key.open(0, &blocks[..2 * 29 + 28]).unwrap().unwrap();
    let expected = [&[1][..], entry(2).id.as_bytes(), &(-5_i64).to_le_bytes(), &[0; 8]].concat();
    assert_eq!(first[29..], expected, "without rev");
    assert_eq!(print(ObjectId::from_bytes(*b"hello world!")), 0xb034_fff2, "FNV-1a");
}

#[test]
fn rows_out_of_order_and_no_rows_are_refused() {
    let ring = ring();
    for rows in [vec![], vec![entry(2), entry(1)]] {
        let error = encode(&ring, "data/tickets/a.parquet", 2, rows.into_iter()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

#[test]
fn debug_output_shows_no_id() {
    let ring = ring();
    let (bytes, file) = indexed(&ring, "a", 5, 2);
    let entries = entries(&bytes, &file, &ring).unwrap();
    assert_eq!(format!("{entries:?}"), "Entries { header: Header { rows: 5, rows_per_block: 2, .. }, row: 0, .. }");
}

#[tokio::test]
async fn thousand_ids_in_a_large_file_are_found_by_two_calls_that_read_little() {
    let ring = ring();
    let files = [indexed(&ring, "a", 200_000, BLOCK_ROWS)];
    let (store, access) = access(&ring, &files).await;
    let (file, size) = (&files[0].1, files[0].1.index.unwrap());
    let rows: Vec<u32> = (0..1_000).map(|row| row * 199 + 7).collect();
    let ids = Wanted::new(rows.iter().map(|row| entry(row * 2).id));
    let expected: Vec<(u32, Entry)> = rows.iter().map(|row| (*row, entry(row * 2))).collect();
    let block = u64::from(BLOCK_ROWS) * 29 + 28;
    assert!(size.header_bytes < 850_000, "{size:?}");

    let none = RoaringBitmap::new();
    assert_eq!(look_up(&access, (file, size), &ids, &none).await.unwrap(), expected);
    assert_eq!(store.take(), (2, size.header_bytes + 1_000 * block), "a block for each id");
    assert_eq!(look_up(&access, (file, size), &ids, &none).await.unwrap(), expected);
    assert_eq!(store.take(), (1, 1_000 * block), "the header is kept");
    let absent = Wanted::new(rows.iter().map(|row| entry(row * 2 + 1).id));
    assert_eq!(look_up(&access, (file, size), &absent, &none).await.unwrap(), []);
    assert!(store.take().1 <= 5 * block, "an id that is not there is nearly always told by the header");
    let skipped = rows.iter().copied().collect();
    assert_eq!(look_up(&access, (file, size), &ids, &skipped).await.unwrap(), []);
    assert!(store.take().1 <= 5 * block, "rows that nobody asks for are not read");
    let near = Wanted::new((1_000..1_500).map(|row| entry(row * 2).id));
    assert_eq!(look_up(&access, (file, size), &near, &none).await.unwrap().len(), 500);
    assert_eq!(store.take(), (1, 9 * block), "blocks side by side are one range");
}

#[tokio::test]
async fn small_index_is_read_in_one_call() {
    let ring = ring();
    let files = [indexed(&ring, "a", 1_000, BLOCK_ROWS)];
    let (store, access) = access(&ring, &files).await;
    assert_eq!(look_up_all(&access, &files[0].1).await.unwrap().len(), 1_000);
    assert_eq!(store.take(), (1, files[0].0.len() as u64));
}

#[tokio::test]
async fn files_without_a_row_that_counts_or_an_id_in_their_range_are_not_opened() {
    let ring = ring();
    let mut files: Vec<_> = (0..40).map(|file| indexed(&ring, &format!("f{file}"), 50, 8)).collect();
    for (_, file) in &mut files[1..39] {
        file.superseded = (0..50).collect();
    }
    files[39].1.superseded = [3].into_iter().collect();
    files[39].1.tombstones = [4].into_iter().collect();
    let (store, access) = access(&ring, &files).await;
    let files: Vec<Arc<DataFile>> = files.into_iter().map(|(_, file)| Arc::new(file)).collect();
    let ids = [2, 3, 4, 1_000].map(|row| entry(row * 2).id);
    let mut found = find_counting(&access, &files, "ticket_id", ids.into_iter()).await.unwrap();
    found.sort_unstable_by_key(|(place, row)| (*place, row.position));
    let places: Vec<_> = found.iter().map(|(place, row)| (*place, row.position, row.deleted)).collect();
    assert_eq!(places, [(0, 2, false), (0, 3, false), (0, 4, false), (39, 2, false), (39, 4, true)]);
    assert_eq!(store.take().0, 2);
    let none = find_counting(&access, &files, "ticket_id", [entry(1_000).id].into_iter()).await.unwrap();
    assert_eq!((none, store.take().0), (Vec::new(), 0));
}

#[tokio::test]
async fn ids_that_stand_in_many_rows_are_all_found() {
    let ring = ring();
    let path = "data/tickets/a.parquet".to_owned();
    let row = |id: u32, rev| Entry { rev: Some(rev), ..entry(id) };
    let rows: Vec<Entry> =
        (0..9).map(|rev| row(4, rev)).chain([row(5, 0)]).chain((0..7).map(|rev| row(6, rev))).collect();
    for rows_per_block in 1..=18 {
        let (bytes, size, _) = encode(&ring, &path, rows_per_block, rows.iter().copied()).unwrap();
        let file = DataFile {
            path: path.clone(),
            rows: rows.len() as u64,
            min_key: entry(4).id.to_string(),
            max_key: entry(6).id.to_string(),
            index: Some(size),
            ..DataFile::default()
        };
        let (_, access) = access(&ring, &[(bytes, file.clone())]).await;
        for (id, expected) in [(4, 0..9), (5, 9..10), (6, 10..17), (3, 0..0), (7, 0..0)] {
            let ids = Wanted::new([entry(id).id].into_iter());
            let found = look_up(&access, (&file, size), &ids, &RoaringBitmap::new()).await.unwrap();
            let expected: Vec<(u32, Entry)> = expected.map(|row| (row, rows[row as usize])).collect();
            assert_eq!(found, expected, "blocks of {rows_per_block}");
        }
    }
}

fn assert_damage(error: &Error, what: &str) {
    assert_eq!(error.kind(), ErrorKind::Data, "{what}: {error}");
    assert!(error.to_string().contains("data/tickets/a.index"), "{what}: {error}");
}

#[tokio::test]
async fn missing_cut_and_foreign_indexes_are_data_errors_that_name_the_object() {
    let ring = ring();
    for rows in [90, 3_000] {
        let good = indexed(&ring, "a", rows, 8);
        let header = good.1.index.unwrap().header_bytes as usize;
        let other = indexed(&ring, "b", rows, 8);
        let again = indexed(&ring, "a", rows, 8);
        let foreign = indexed(&KeyRing::generate("lake", 0).unwrap(), "a", rows, 8);
        let mixed = [&good.0[..header], &again.0[header..]].concat();
        let mut moved = good.0.to_vec();
        let block = 8 * 29 + 28;
        moved.copy_within(header..header + block, header + block);
        let cases: Vec<(&str, Bytes)> = vec![
            ("index of another file", other.0),
            ("index of another ring", foreign.0),
            ("header with the blocks of another", mixed.into()),
            ("block moved", moved.into()),
            ("cut at its end", good.0.slice(..good.0.len() - 1)),
            ("cut in its header", good.0.slice(..header - 1)),
            ("empty", Bytes::new()),
        ];
        for (what, bytes) in cases {
            let (_, access) = access(&ring, &[(bytes.clone(), good.1.clone())]).await;
            assert_damage(&look_up_all(&access, &good.1).await.unwrap_err(), what);
            let read = entries(&bytes, &good.1, &ring).and_then(Iterator::collect::<Result<Vec<_>>>);
            assert_damage(&read.unwrap_err(), what);
        }
        let (store, access) = access(&ring, std::slice::from_ref(&good)).await;
        store.delete(&Path::from("data/tickets/a.index")).await.unwrap();
        assert_damage(&look_up_all(&access, &good.1).await.unwrap_err(), "missing");
        let fewer = DataFile { rows: good.1.rows - 1, ..good.1.clone() };
        assert_damage(&entries(&good.0, &fewer, &ring).unwrap_err(), "other rows than the manifest says");
    }
}

#[tokio::test]
async fn header_of_a_newer_format_or_of_impossible_lengths_is_refused() {
    let ring = ring();
    let (bytes, file) = indexed(&ring, "a", 20, 8);
    let size = file.index.unwrap();
    let plain = ring.open_object(&purpose(&file.path), &bytes[..size.header_bytes as usize]).unwrap();
    let changed = |at: usize, with: &[u8]| {
        let mut plain = plain.clone();
        plain[at..at + with.len()].copy_from_slice(with);
        let sealed = ring.seal_object(&purpose(&file.path), &plain).unwrap();
        Header::open(&ring, &file, size, &sealed).unwrap_err()
    };
    let newer = changed(0, &[2]);
    assert_damage(&newer, "newer format");
    assert_eq!(newer.hint(), Some("upgrade counterfoil"));
    assert_damage(&changed(1, &u32::MAX.to_le_bytes()), "rows");
    assert_damage(&changed(1, &[0]), "no rows");
    assert_damage(&changed(5, &[0]), "no rows in a block");
    assert_damage(&changed(5, &[6]), "other blocks than there are");
    assert_damage(&changed(5, &u32::MAX.to_le_bytes()), "one block");
    assert_damage(&changed(41, &[0xff]), "fences that do not ascend");
}

#[tokio::test]
async fn resealed_index_opens_at_its_new_place_and_keeps_its_blocks() {
    let ring = ring();
    let (bytes, file) = indexed(&ring, "a", 100, 8);
    let all: Vec<Entry> = entries(&bytes, &file, &ring).unwrap().map(Result::unwrap).collect();
    assert_eq!(all, (0..100).map(|row| entry(row * 2)).collect::<Vec<_>>());
    for to in ["data/tickets/a.parquet", "data/tickets/c.parquet"] {
        let (resealed, size) = reseal(&bytes, &file, &ring, to).unwrap();
        assert_ne!(resealed, bytes);
        assert_eq!(resealed[size.header_bytes as usize..], bytes[file.index.unwrap().header_bytes as usize..]);
        let moved = DataFile { path: to.to_owned(), index: Some(size), ..file.clone() };
        let again: Vec<Entry> = entries(&resealed, &moved, &ring).unwrap().map(Result::unwrap).collect();
        assert_eq!(again, all);
        let (_, access) = access(&ring, &[(resealed, moved.clone())]).await;
        assert_eq!(look_up_all(&access, &moved).await.unwrap().len(), 100);
    }
    let flipped = [&bytes[..40], &[bytes[40] ^ 1], &bytes[41..]].concat().into();
    assert_damage(&reseal(&flipped, &file, &ring, "data/tickets/c.parquet").unwrap_err(), "damaged");
}

#[test]
fn lengths_that_no_index_has_are_told() {
    let (_, file) = indexed(&ring(), "a", 100, 1);
    let size = file.index.unwrap();
    assert!(is_size_of(size, 100), "the longest there is");
    let longer = |header, all| IndexSize { header_bytes: size.header_bytes + header, bytes: size.bytes + all };
    for (wrong, rows) in [(longer(0, 1), 100), (longer(400, 400), 100), (longer(0, u64::MAX >> 1), 100), (size, 50)] {
        assert!(!is_size_of(wrong, rows), "{wrong:?}");
    }
    assert!(!is_size_of(IndexSize { header_bytes: 2, bytes: 1 }, 100));
    assert!(!is_size_of(IndexSize { header_bytes: u64::MAX, bytes: u64::MAX }, u64::MAX));
}

/// A file of three columns, by random rows.
fn file_of(ring: &KeyRing, rows: &[(u16, Option<i64>, Option<i64>, bool)]) -> (Bytes, DataFile, Vec<RecordKey>) {
    let key = |(id, updated_at_ms, rev, deleted): &(u16, Option<i64>, Option<i64>, bool)| RecordKey {
        id: entry(u32::from(*id)).id,
        updated_at_ms: *updated_at_ms,
        rev: *rev,
        deleted: *deleted,
    };
    let keys: Vec<RecordKey> = rows.iter().map(key).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(keys.iter().map(|key| Some(key.id.to_string())).collect::<StringArray>()),
        Arc::new(keys.iter().map(|key| key.updated_at_ms).collect::<TimestampMillisecondArray>().with_timezone("UTC")),
        Arc::new(keys.iter().map(|key| key.rev).collect::<Int64Array>()),
    ];
    let schema = Arc::new(Schema::new(fixtures::schema().fields()[..3].to_vec()));
    let rows = Rows { batch: RecordBatch::try_new(schema, columns).unwrap(), keys: keys.clone() };
    let (bytes, file) = encode_columns("data/tickets/a.parquet", &rows, "ticket_id", &Arc::from("x"), ring).unwrap();
    (bytes, file, keys)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn index_and_columns_tell_the_same(
        rows in prop::collection::btree_map(
            0_u16..400,
            (prop::option::of(any::<i32>()), prop::option::of(any::<i64>()), prop::bool::weighted(0.2)),
            1..120,
        ),
        asked in prop::collection::hash_set(0_u16..400, 0..200),
        superseded in prop::collection::btree_set(0_u32..120, 0..60),
        rows_per_block in 1_u32..20,
        cut_keys in any::<bool>(),
    ) {
        static RING: LazyLock<KeyRing> = LazyLock::new(ring);
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(id, (updated, rev, deleted))| (id, updated.map(i64::from), rev, deleted))
            .collect();
        let (bytes, mut file, keys) = file_of(&RING, &rows);
        let held = keys.iter().map(|key| Entry { id: key.id, updated_at_ms: key.updated_at_ms, rev: key.rev });
        let (index, size, _) = encode(&RING, &file.path, rows_per_block, held).unwrap();
        file.superseded = superseded.into_iter().filter(|row| u64::from(*row) < file.rows).collect();
        let without = Arc::new(file.clone());
        let with = Arc::new(DataFile { index: Some(size), ..file });
        let mut wanted: HashSet<ObjectId> = asked.into_iter().map(|id| entry(u32::from(id)).id).collect();
        if cut_keys {
            wanted.extend([keys[0].id, keys[keys.len() - 1].id]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            put(store.as_ref(), &with.path, bytes).await;
            put(store.as_ref(), &with.index_path().unwrap(), index).await;
            let cache = MetadataCache::default();
            let by_columns = find_keys(&store, &cache, &RING, &without, "ticket_id", &wanted).await.unwrap();
            for warm in [false, true] {
                let by_index = find_keys(&store, &cache, &RING, &with, "ticket_id", &wanted).await.unwrap();
                prop_assert_eq!(&by_index, &by_columns, "warm: {}", warm);
            }
            let found: BTreeSet<ObjectId> = by_columns.iter().map(|row| row.id).collect();
            prop_assert_eq!(found, keys.iter().map(|key| key.id).filter(|id| wanted.contains(id)).collect());
            let access = Access { store, ring: RING.clone(), cache };
            let counting: Vec<FoundKey> = by_columns.into_iter().filter(|row| !row.superseded).collect();
            for file in [with, without] {
                let found = find_counting(&access, &[file], "ticket_id", wanted.iter().copied()).await.unwrap();
                prop_assert_eq!(found.into_iter().map(|(_, row)| row).collect::<Vec<_>>(), counting.clone());
            }
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bit_and_cut_are_found_wherever_they_are(
        large in any::<bool>(), at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<bool>(),
    ) {
        static GOOD: LazyLock<(KeyRing, [(Bytes, DataFile); 2])> = LazyLock::new(|| {
            let ring = ring();
            // One that is read whole, and one whose header is read first.
            let files = [indexed(&ring, "a", 40, 8), indexed(&ring, "a", 2_100, 32)];
            (ring, files)
        });
        let (ring, files) = &*GOOD;
        let (bytes, file) = &files[usize::from(large)];
        let at = at.index(bytes.len());
        let mut damaged = bytes.to_vec();
        if cut {
            damaged.truncate(at);
        } else {
            damaged[at] ^= 1 << bit;
        }
        let damaged = Bytes::from(damaged);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let looked_up = runtime.block_on(async {
            let (_, access) = access(ring, &[(damaged.clone(), file.clone())]).await;
            look_up_all(&access, file).await.map(drop)
        });
        let read = entries(&damaged, file, ring).and_then(|mut entries| entries.try_for_each(|entry| entry.map(drop)));
        for error in [looked_up.unwrap_err(), read.unwrap_err()] {
            // A flip in the id of the ring's key, or in its length, names a key that the ring does not have.
            let denied = error.kind() == ErrorKind::Denied && !cut && (6..13).contains(&at);
            prop_assert!(denied || error.kind() == ErrorKind::Data, "byte {}: {}", at, error);
            prop_assert!(error.to_string().contains("data/tickets/a.index"), "byte {}: {}", at, error);
        }
    }
}
