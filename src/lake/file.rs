//! Data files: encrypted Parquet that other engines can open with one exported key.
//!
//! The profile is the largest that PyArrow, Spark and DuckDB all read: one fresh AES-256 key per file for every column and
//! for the footer (the file ends in `PARE`), key metadata PKMT1 ([`keys::metadata`](crate::keys::metadata)), no prefix of
//! the associated data, data pages of version 1, one data page per column chunk, row groups of [`ROW_GROUP_ROWS`] rows,
//! zstd. Bloom filters are off whatever anyone sets, because Parquet keeps them in the clear. There is no page index: with
//! one page per chunk it would repeat the statistics of the row group.
//!
//! A file with restricted columns has column keys, and then every column has one, because Parquet writes a column that is not
//! listed in the clear: the restricted ones a second fresh key of the file, wrapped by the restricted ring, all others the
//! file's own key. What was written is read again before it is kept: each chunk must be encrypted by the key that its column
//! should have. A file is not opened where that does not hold. PyArrow and Spark read such files, DuckDB does not.
//!
//! Parquet authenticates each module of a file under the file's key, but not the key's metadata: whoever can wrap a key can
//! forge a whole file. So the manifest pins each file by the SHA-256 of its tail, which is checked before a byte of it is
//! parsed:
//!
//! ```text
//! │ PARE │ column chunks … │ file crypto metadata │ encrypted footer │ length u32 LE │ PARE │
//!                          └─────────────── tail: `tail_bytes`, SHA-256 = `pin` ────────────┘
//! ```
//!
//! Types of `parquet::encryption` are named here on purpose: a build without that feature, which would write the same
//! calls in the clear, does not compile.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimestampMillisecondType};
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::compute_leaves;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::column_crypto_metadata::ColumnCryptoMetaData;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData, SortingColumn,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::keys::metadata::master_key_id;
use crate::keys::{FileKey, KeyRing, Right, Series};
use crate::lake::manifest::DataFile;
use crate::lake::restricted;
use crate::policy::{RecordKey, SortedRows};
use crate::secret::SecretKey;

/// Rows of a row group: large enough to compress, small enough that one page per column chunk stays cheap to read in part.
pub const ROW_GROUP_ROWS: usize = 65_536;

/// Last bytes of a file with an encrypted footer.
pub(super) const MAGIC: &[u8; 4] = b"PARE";

/// Last bytes of a file with a footer in the clear.
const PLAIN_MAGIC: &[u8; 4] = b"PAR1";

/// Footer length and magic.
pub(super) const TRAILER_BYTES: usize = 8;

/// On ticket-like rows level 3 took half as long again as level 1 to write, and did not come out smaller.
const ZSTD_LEVEL: i32 = 1;

/// A limit that no page reaches: a page of Parquet has at most 2^31 - 1 bytes.
const NO_LIMIT: usize = i32::MAX as usize;

/// The column whose bounds the manifest keeps beside those of the key and of `updated_at`.
pub(super) const CREATED_AT: &str = "created_at";

/// Rows that are looked at to choose a column's encoding.
const SAMPLE_ROWS: usize = 256;

/// So few values of a sample tell nothing, and cost nothing either way.
const FEW_VALUES: usize = 16;

/// Rows to be encoded, by column, so that no more than one column is copied at a time.
pub(super) trait Columns {
    fn schema(&self) -> &SchemaRef;

    fn keys(&self) -> &[RecordKey];

    /// Puts rows of one column into an array.
    fn column(&self, index: usize, rows: impl Iterator<Item = usize>) -> Result<ArrayRef>;

    /// Returns how many bytes the file will have at most, where that is known: a buffer that grows holds up to three times
    /// as much.
    fn expected_bytes(&self) -> usize {
        0
    }

    /// Returns about `most` values of one column that stand for all, by which its encoding is chosen.
    fn sample(&self, index: usize, most: usize) -> Result<ArrayRef> {
        let length = self.keys().len();
        self.column(index, (0..length).step_by(length.div_ceil(most).max(1)))
    }
}

impl Columns for SortedRows {
    fn schema(&self) -> &SchemaRef {
        self.schema()
    }

    fn keys(&self) -> &[RecordKey] {
        self.keys()
    }

    fn column(&self, index: usize, rows: impl Iterator<Item = usize>) -> Result<ArrayRef> {
        self.column(index, rows)
    }
}

/// Encodes rows as one encrypted file; returns its bytes and its entry (`path` as given).
///
/// # Errors
///
/// [`Denied`](crate::error::ErrorKind::Denied) when the ring has no primary key, or columns are restricted and there is no
/// key for them; [`Internal`](crate::error::ErrorKind::Internal)
/// when there are no rows or they cannot be encoded.
pub fn encode(path: &str, rows: &SortedRows, ring: &KeyRing) -> Result<(Bytes, DataFile)> {
    encode_columns(path, rows, rows.stream().key_column(), rows.policy(), ring)
}

/// Encodes rows that are known to have gone through the policy.
pub(super) fn encode_columns(
    path: &str,
    rows: &impl Columns,
    key_column: &str,
    policy: &Arc<str>,
    ring: &KeyRing,
) -> Result<(Bytes, DataFile)> {
    let failed = |cause: ParquetError| {
        Error::internal("failed to encode a data file").with_context("file", path).with_source(cause)
    };
    let (declared, keys) = (rows.schema(), rows.keys());
    let (Some(first), Some(last)) = (keys.iter().map(|key| key.id).min(), keys.iter().map(|key| key.id).max()) else {
        return Err(Error::internal("data file would have no rows").with_context("file", path));
    };
    if u32::try_from(keys.len()).is_err() {
        return Err(Error::internal("data file would have too many rows")
            .with_context("file", path)
            .with_context("rows", keys.len()));
    }

    let schema = without_metadata(declared);
    restricted::check_writable(ring, declared).map_err(|error| error.with_context("file", path))?;
    let file_key = ring.new_file_key()?;
    let is_restricted = restricted::columns(declared).next().is_some();
    let restricted_key = is_restricted.then(|| ring.new_restricted_key()).transpose()?;
    let encryption = match &restricted_key {
        None => FileEncryptionProperties::builder(file_key.key.expose().to_vec())
            .with_footer_key_metadata(file_key.metadata)
            .build()
            .map_err(failed)?,
        Some(restricted_key) => column_keys(declared, file_key, restricted_key, ring)?,
    };
    let restricted_key = restricted_key.map(|key| master_key_id(&key.metadata)).transpose()?;
    let plain = columns_without_dictionary(rows, key_column)?;
    let properties = properties(declared, key_column, &plain, encryption).map_err(failed)?;
    let writer = ArrowWriter::try_new(Vec::with_capacity(rows.expected_bytes()), Arc::clone(&schema), Some(properties))
        .map_err(failed)?;
    let (mut writer, factory) = writer.into_serialized_writer().map_err(failed)?;
    let mut created_ms: Option<(i64, i64)> = None;
    for (number, first) in (0..keys.len()).step_by(ROW_GROUP_ROWS).enumerate() {
        let range = first..keys.len().min(first + ROW_GROUP_ROWS);
        let mut leaf_writers = factory.create_column_writers(number).map_err(failed)?.into_iter();
        let mut group = writer.next_row_group().map_err(failed)?;
        for (index, field) in schema.fields().iter().enumerate() {
            let column = relabelled(&rows.column(index, range.clone())?, field)?;
            if field.name() == CREATED_AT {
                created_ms = hull(created_ms, bounds_ms(&column));
            }
            for leaf in compute_leaves(field, &column).map_err(failed)? {
                let missing = || Error::internal("column has no writer").with_context("column", field.name());
                let mut leaf_writer = leaf_writers.next().ok_or_else(missing)?;
                leaf_writer.write(&leaf).map_err(failed)?;
                leaf_writer.close().and_then(|chunk| chunk.append_to_row_group(&mut group)).map_err(failed)?;
            }
        }
        group.close().map_err(failed)?;
    }
    let bytes = Bytes::from(writer.into_inner().map_err(failed)?);

    let tail_bytes = tail_length(&bytes)
        .ok_or_else(|| Error::internal("data file was not encrypted; it is not kept").with_context("file", path))?;
    let updated = || keys.iter().filter_map(|key| key.updated_at_ms);
    let file = DataFile {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        rows: keys.len() as u64,
        pin: digest(&bytes[bytes.len() - tail_bytes..]),
        tail_bytes: tail_bytes as u64,
        min_key: first.to_string(),
        max_key: last.to_string(),
        updated_ms: updated().min().zip(updated().max()),
        created_ms,
        policy: Arc::clone(policy),
        superseded: RoaringBitmap::new(),
        tombstones: (0u32..).zip(keys).filter(|(_, key)| key.deleted).map(|(position, _)| position).collect(),
        schema: Arc::clone(declared),
        content: None,
        appended: None,
        // Whoever puts it says so.
        pseudonyms: 1,
        index: None,
        restricted_key: restricted_key.map(Arc::from),
        recording: None,
    };
    if is_restricted {
        // What would leave a column in the clear, or under the wrong key, must not be kept.
        open_tail(&file, &bytes.slice(bytes.len() - tail_bytes..), ring)?;
    }
    Ok((bytes, file))
}

/// Returns the smallest and the largest instant of a column, milliseconds since 1970; none of a column of another type.
fn bounds_ms(column: &ArrayRef) -> Option<(i64, i64)> {
    let times = column.as_primitive_opt::<TimestampMillisecondType>()?;
    min(times).zip(max(times))
}

/// Joins two ranges.
pub(super) fn hull(one: Option<(i64, i64)>, other: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}

/// Gives every column a key: the restricted ones one of their own, the others the file's.
pub(super) fn column_keys(
    schema: &SchemaRef,
    file_key: FileKey,
    restricted_key: &FileKey,
    ring: &KeyRing,
) -> Result<Arc<FileEncryptionProperties>> {
    let failed = |cause: ParquetError| Error::internal("failed to give each column its key").with_source(cause);
    let metadata = ring.wrap_column_key(&file_key.key)?;
    let own = FileKey { key: file_key.key, metadata };
    let mut builder =
        FileEncryptionProperties::builder(own.key.expose().to_vec()).with_footer_key_metadata(file_key.metadata);
    for leaf in ArrowSchemaConverter::new().convert(schema).map_err(failed)?.columns() {
        let is_restricted = restricted::columns(schema).any(|column| is_of(leaf.path(), column));
        let FileKey { key, metadata } = if is_restricted { restricted_key } else { &own };
        builder = builder.with_column_key_and_metadata(&leaf.path().string(), key.expose().to_vec(), metadata.clone());
    }
    builder.build().map_err(failed)
}

/// Tells whether a leaf belongs to a column.
fn is_of(leaf: &ColumnPath, column: &str) -> bool {
    leaf.parts().first().is_some_and(|root| root == column)
}

/// Decrypts a file's metadata from its tail after checking the pin and the `PARE` magic.
///
/// The metadata carry what decrypts the file's pages, so they are as secret as the file: see
/// [`MetadataCache`](crate::lake::scan::MetadataCache).
///
/// # Errors
///
/// [`Data`](crate::error::ErrorKind::Data) when the tail is not the one that the manifest pins;
/// [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have the master key of the file.
pub fn open_tail(file: &DataFile, tail: &Bytes, ring: &KeyRing) -> Result<Arc<ParquetMetaData>> {
    let damaged = |message: &str| {
        Error::data(message)
            .with_context("file", &file.path)
            .with_hint("the file was damaged or tampered with: restore it from a backup of the lake")
    };
    if tail.ends_with(PLAIN_MAGIC) {
        return Err(damaged("data file is not encrypted, so it was not written by this program"));
    }
    if tail.len() as u64 != file.tail_bytes || tail_length(tail) != Some(tail.len()) {
        return Err(damaged("data file does not end as an encrypted Parquet file of its length"));
    }
    if digest(tail) != file.pin {
        return Err(damaged("data file is not the one that the manifest pins"));
    }

    let retriever = Arc::new(RingRetriever { ring: ring.clone(), refusal: Mutex::new(None) });
    let retriever_of_file: Arc<dyn KeyRetriever> = retriever.clone();
    let metadata = FileDecryptionProperties::with_key_retriever(retriever_of_file).build().and_then(|decryption| {
        ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Skip)
            .with_decryption_properties(Some(decryption))
            .parse_and_finish(tail)
    });
    // The parser goes on where the key of a column is not found, as if there were no right to it; only that may pass.
    let refusal = retriever.refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
    let metadata = match (metadata, refusal) {
        (_, Some(refusal)) => return Err(refusal.with_context("file", &file.path)),
        (Err(cause), None) => return Err(damaged("footer of the data file does not decrypt").with_source(cause)),
        (Ok(metadata), None) => metadata,
    };
    if !has_its_keys(&metadata, &file.schema, file.restricted_key.as_deref()) {
        return Err(damaged("a column of the data file is not encrypted by the key that it should have"));
    }
    if !is_within(&metadata, file, &restricted::unreadable(ring, file)) {
        return Err(damaged("footer of the data file and the manifest do not agree"));
    }
    Ok(Arc::new(metadata))
}

/// Unwraps the key of a file from its tail, after the checks of [`open_tail`].
///
/// # Errors
///
/// Those of [`open_tail`].
pub(super) fn open_key(file: &DataFile, tail: &Bytes, ring: &KeyRing) -> Result<SecretKey> {
    /// Keeps the key that the parser asked for.
    struct Keeper(KeyRing, Mutex<Option<SecretKey>>);
    impl KeyRetriever for Keeper {
        fn retrieve_key(&self, key_metadata: &[u8]) -> Result<Vec<u8>, ParquetError> {
            let key = self.0.open_any_key(key_metadata).map_err(|error| ParquetError::General(error.to_string()))?;
            let bytes = key.expose().to_vec();
            // The footer's comes first; it is the file's own.
            self.1.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(key);
            Ok(bytes)
        }
    }
    open_tail(file, tail, ring)?;
    let keeper = Arc::new(Keeper(ring.clone(), Mutex::new(None)));
    let retriever: Arc<dyn KeyRetriever> = keeper.clone();
    let parsed = FileDecryptionProperties::with_key_retriever(retriever).build().and_then(|decryption| {
        ParquetMetaDataReader::new().with_decryption_properties(Some(decryption)).parse_and_finish(tail)
    });
    let key = keeper.1.lock().unwrap_or_else(PoisonError::into_inner).take();
    parsed.ok().and(key).ok_or_else(|| {
        Error::internal("data file opened and its key was not asked for").with_context("file", &file.path)
    })
}

/// Unwraps file keys by the ring, and keeps the reason of a refusal, which Parquet's error type would flatten into text. That a
/// process has no right to restricted columns is no failure, and is not kept.
struct RingRetriever {
    ring: KeyRing,
    refusal: Mutex<Option<Error>>,
}

impl KeyRetriever for RingRetriever {
    fn retrieve_key(&self, key_metadata: &[u8]) -> Result<Vec<u8>, ParquetError> {
        self.ring.open_any_key(key_metadata).map(|key| key.expose().to_vec()).map_err(|error| {
            let flat = ParquetError::General(error.to_string());
            let has_no_right = master_key_id(key_metadata)
                .is_ok_and(|id| Series::of(&id) == Series::Restricted && self.ring.right(&id) != Right::Held);
            if !has_no_right {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            flat
        })
    }
}

/// Tells whether every chunk is encrypted, and by the key of its column: without restricted columns by the footer's, else each
/// by its own, the restricted ones under the key that is named.
pub(super) fn has_its_keys(metadata: &ParquetMetaData, schema: &Schema, restricted_key: Option<&str>) -> bool {
    let is_restricted = |leaf| restricted::columns(schema).any(|column| is_of(leaf, column));
    let mut chunks = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    chunks.all(|chunk| match (chunk.crypto_metadata(), restricted_key) {
        (Some(ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY), None) => true,
        (Some(ColumnCryptoMetaData::ENCRYPTION_WITH_COLUMN_KEY(column)), Some(restricted_key)) => {
            let id = column.key_metadata.as_deref().and_then(|metadata| master_key_id(metadata).ok());
            column.path_in_schema == chunk.column_path().parts()
                && id.is_some_and(|id| {
                    if is_restricted(chunk.column_path()) {
                        id == restricted_key
                    } else {
                        Series::of(&id) == Series::Main
                    }
                })
        }
        _ => false,
    })
}

/// Tells whether the row groups add up to the file's rows and lie before its tail; where the chunks of unreadable columns lie
/// is not known.
fn is_within(metadata: &ParquetMetaData, file: &DataFile, unreadable: &[&str]) -> bool {
    let body = file.bytes.saturating_sub(file.tail_bytes);
    let groups = metadata.row_groups();
    let rows: Option<i64> = groups.iter().try_fold(0i64, |sum, group| sum.checked_add(group.num_rows()));
    rows.and_then(|rows| u64::try_from(rows).ok()) == Some(file.rows)
        && groups.iter().flat_map(RowGroupMetaData::columns).all(|chunk| {
            if unreadable.iter().any(|column| is_of(chunk.column_path(), column)) {
                return true;
            }
            let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
            let end = start.checked_add(chunk.compressed_size());
            start >= 4
                && chunk.compressed_size() >= 0
                && end.and_then(|end| u64::try_from(end).ok()).is_some_and(|end| end <= body)
        })
}

/// Returns the length of the tail that the last bytes claim, where these hold it; `None` without the magic of an encrypted footer.
fn tail_length(bytes: &[u8]) -> Option<usize> {
    tail_bytes(bytes).and_then(|tail| usize::try_from(tail).ok()).filter(|tail| *tail <= bytes.len())
}

/// Returns the length of the tail that the last bytes claim; `None` without the magic of an encrypted footer.
pub(super) fn tail_bytes(bytes: &[u8]) -> Option<u64> {
    let (_, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>()?;
    let (length, magic) = trailer.split_first_chunk::<4>()?;
    (magic == MAGIC).then(|| u64::from(u32::from_le_bytes(*length)) + TRAILER_BYTES as u64)
}

/// Returns the pin of a tail.
pub(super) fn digest(tail: &[u8]) -> [u8; 32] {
    let mut pin = [0; 32];
    pin.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, tail).as_ref());
    pin
}

/// Finds the columns for which a dictionary would cost more than it saves.
fn columns_without_dictionary(rows: &impl Columns, key_column: &str) -> Result<Vec<FieldRef>> {
    let mut plain = Vec::new();
    for (index, field) in rows.schema().fields().iter().enumerate() {
        if field.name() == key_column || is_mostly_distinct(rows, index)? {
            plain.push(Arc::clone(field));
        }
    }
    Ok(plain)
}

pub(super) fn properties(
    schema: &SchemaRef,
    key_column: &str,
    plain: &[FieldRef],
    encryption: Arc<FileEncryptionProperties>,
) -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("counterfoil ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_write_batch_size(ROW_GROUP_ROWS)
        .set_data_page_row_count_limit(NO_LIMIT)
        .set_data_page_size_limit(NO_LIMIT)
        .set_dictionary_page_size_limit(NO_LIMIT)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_bloom_filter_enabled(false)
        .with_file_encryption_properties(encryption);
    for field in plain {
        let path = ColumnPath::from(field.name().as_str());
        builder = builder.set_column_dictionary_enabled(path.clone(), false);
        if matches!(field.data_type(), DataType::Int64 | DataType::Timestamp(_, _)) {
            // As small as what zstd makes of plain values, and read several times faster.
            builder = builder
                .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                .set_column_compression(path, Compression::UNCOMPRESSED);
        } else if field.name() == key_column {
            // Nearly every query reads the ids of all files that it reads at all.
            builder = builder.set_column_compression(path, Compression::UNCOMPRESSED);
        }
    }
    let leaves = ArrowSchemaConverter::new().convert(schema)?;
    let key_leaf = leaves.columns().iter().position(|leaf| leaf.path().parts() == [key_column]);
    let sorting = key_leaf
        .and_then(|leaf| i32::try_from(leaf).ok())
        .map(|column_idx| vec![SortingColumn { column_idx, descending: false, nulls_first: false }]);
    Ok(builder.set_sorting_columns(sorting).build())
}

/// Tells whether a sample of the column has few repetitions.
fn is_mostly_distinct(rows: &impl Columns, index: usize) -> Result<bool> {
    if !can_be_sampled(rows.schema().field(index).data_type()) {
        return Ok(false);
    }
    Ok(has_few_repetitions(&rows.sample(index, SAMPLE_ROWS)?))
}

/// Tells whether values of a type can be told apart by [`has_few_repetitions`].
pub(super) fn can_be_sampled(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Int64 | DataType::Float64 | DataType::Timestamp(_, _))
}

/// Tells whether most values of a column of texts, or of values of 64 bits, stand there once.
pub(super) fn has_few_repetitions(sampled: &ArrayRef) -> bool {
    let present = sampled.len() - sampled.null_count();
    if present <= FEW_VALUES {
        return false;
    }
    let distinct = if *sampled.data_type() == DataType::Utf8 {
        sampled.as_string::<i32>().iter().flatten().collect::<HashSet<_>>().len()
    } else {
        // The bits of a number, whatever they stand for, tell equal from different.
        let bits = sampled.to_data();
        let bits = &bits.buffers()[0].typed_data::<u64>()[bits.offset()..];
        (0..sampled.len()).filter(|row| sampled.is_valid(*row)).map(|row| bits[row]).collect::<HashSet<_>>().len()
    };
    distinct * 2 > present
}

/// Copies the schema without any metadata: units and descriptions are the manifest's, and a file says no more than it must.
pub(super) fn without_metadata(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(stripped).collect::<Fields>()))
}

fn stripped(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(stripped(item)),
        DataType::LargeList(item) => DataType::LargeList(stripped(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(stripped).collect()),
        other => other.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
}

/// Gives a column the type of its field where they differ in names within the type.
pub(super) fn relabelled(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    arrow::compute::cast(column, field.data_type()).map_err(|cause| {
        Error::internal("failed to relabel a column").with_context("column", field.name()).with_source(cause)
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use parquet::basic::{PageType, Type};
    use parquet::file::metadata::ParquetMetaDataOptions;
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::lake::scan::fixtures::{NEEDLE, Rows, encoded, id, rows, updated_ms};

    fn ring() -> KeyRing {
        KeyRing::generate("lake", 0).unwrap()
    }

    fn tail(bytes: &Bytes, file: &DataFile) -> Bytes {
        bytes.slice(bytes.len() - file.tail_bytes as usize..)
    }

    #[test]
    fn entry_describes_the_file() {
        let ring = ring();
        let (bytes, file) = encoded(&ring, "a", 100, 300);
        assert!(bytes.ends_with(MAGIC) && bytes.starts_with(MAGIC));
        assert_eq!((file.bytes, file.rows), (bytes.len() as u64, 200));
        assert_eq!((file.min_key, file.max_key), (id(100).to_string(), id(299).to_string()));
        assert_eq!(file.updated_ms, Some((updated_ms(100), updated_ms(299))));
        // Rows 102 and 199 and 296 of the fixture are deleted.
        assert_eq!(file.tombstones.iter().collect::<Vec<_>>(), [2, 99, 196]);
        assert!(file.superseded.is_empty());
        assert_ne!(encoded(&ring, "a", 100, 300).1.pin, file.pin, "each file has a key of its own");
    }

    #[test]
    fn file_follows_the_portable_profile() {
        let ring = ring();
        let (bytes, file) = encoded(&ring, "a", 0, ROW_GROUP_ROWS + 10);
        assert!(open_tail(&file, &tail(&bytes, &file), &ring).is_ok());
        let retriever = Arc::new(RingRetriever { ring, refusal: Mutex::new(None) });
        let metadata = ParquetMetaDataReader::new()
            .with_decryption_properties(Some(FileDecryptionProperties::with_key_retriever(retriever).build().unwrap()))
            .with_metadata_options(Some(ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false)))
            .parse_and_finish(&bytes)
            .unwrap();
        let counts: Vec<i64> = metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect();
        assert_eq!(counts, [ROW_GROUP_ROWS as i64, 10]);
        for group in metadata.row_groups() {
            assert_eq!(group.sorting_columns().map(|columns| columns[0].column_idx), Some(0));
            for chunk in group.columns() {
                let name = chunk.column_path().string();
                let pages = chunk.page_encoding_stats().unwrap();
                let data: i32 =
                    pages.iter().filter(|page| page.page_type == PageType::DATA_PAGE).map(|page| page.count).sum();
                assert_eq!(data, 1, "{name}: one data page per chunk");
                assert!(
                    pages.iter().all(|page| page.page_type != PageType::DATA_PAGE_V2),
                    "{name}: pages of version 1"
                );
                assert_eq!(chunk.bloom_filter_offset(), None, "{name}: bloom filters would be in the clear");
                assert!(chunk.statistics().is_some(), "{name}: statistics");
                assert!(
                    matches!(chunk.crypto_metadata(), Some(ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY)),
                    "{name}: no column is left in the clear"
                );
                // Keys as they are, times and counts as packed differences; all else is compressed.
                let is_packed = chunk.encodings().any(|encoding| encoding == Encoding::DELTA_BINARY_PACKED);
                let is_plain = is_packed || name == "ticket_id";
                assert_eq!(!is_plain, matches!(chunk.compression(), Compression::ZSTD(_)), "{name}");
                assert!(!is_packed || chunk.column_type() == Type::INT64, "{name}");
            }
        }
        let first = metadata.row_group(0);
        assert!(first.column(0).dictionary_page_offset().is_none(), "keys have no dictionary");
        assert!(first.column(3).dictionary_page_offset().is_some(), "few values have one");
    }

    #[test]
    fn nothing_of_the_rows_or_their_descriptions_is_in_the_clear() {
        let ring = ring();
        let (bytes, file) = encoded(&ring, "a", 0, 100);
        for word in [NEEDLE, "ticket_id", "snoozed", &id(0).to_string()] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
        }
        let metadata = open_tail(&file, &tail(&bytes, &file), &ring).unwrap();
        let text = format!("{:?}", metadata.file_metadata().key_value_metadata());
        let arrow = parquet::arrow::parquet_to_arrow_schema(
            metadata.file_metadata().schema_descr(),
            metadata.file_metadata().key_value_metadata(),
        );
        assert!(arrow.unwrap().fields().iter().all(|field| field.metadata().is_empty()));
        assert!(!text.contains(NEEDLE));
    }

    #[test]
    fn tail_that_is_not_the_pinned_one_ends_in_its_kind() {
        let ring = ring();
        let (bytes, file) = encoded(&ring, "a", 0, 50);
        let good = tail(&bytes, &file);
        let (other, other_file) = encoded(&ring, "b", 0, 50);
        let plain = [&good[..good.len() - 4], PLAIN_MAGIC].concat();
        let cases: Vec<(&str, Bytes)> = vec![
            ("plaintext magic", plain.into()),
            ("tail of another file", tail(&other, &other_file)),
            ("cut at the front", good.slice(1..)),
            ("cut at the end", good.slice(..good.len() - 1)),
            ("longer", [&[0], &good[..]].concat().into()),
            ("empty", Bytes::new()),
            ("trailer alone", good.slice(good.len() - 8..)),
        ];
        for (what, tail) in cases {
            let error = open_tail(&file, &tail, &ring).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{what}");
            assert!(error.to_string().contains("data/tickets/a.parquet"), "{what}: {error}");
        }
        // A forger who can change the manifest too still needs the key.
        let claim = |tail: Bytes| DataFile { pin: digest(&tail), tail_bytes: tail.len() as u64, ..file.clone() };
        let mut flipped = good.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let flipped = Bytes::from(flipped);
        assert_eq!(open_tail(&claim(flipped.clone()), &flipped, &ring).unwrap_err().kind(), ErrorKind::Data);
        let renamed: Vec<u8> = {
            let at = good.windows(6).position(|window| window == b"ring-1").unwrap();
            let mut bytes = good.to_vec();
            bytes[at + 5] = b'9';
            bytes
        };
        let renamed = Bytes::from(renamed);
        let error = open_tail(&claim(renamed.clone()), &renamed, &ring).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("ring-9"), "{error}");
        assert_eq!(
            open_tail(&DataFile { rows: 49, ..file.clone() }, &good, &ring).unwrap_err().kind(),
            ErrorKind::Data
        );
    }

    #[test]
    fn rows_without_keys_are_refused() {
        let (batch, keys) = rows(0, 10);
        let policy: Arc<str> = Arc::from("digest");
        let rows = Rows { batch: batch.slice(0, 0), keys: keys[..0].to_vec() };
        let error = encode_columns("data/x.parquet", &rows, "ticket_id", &policy, &ring()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn distinct_columns_are_told_from_repetitive_ones() {
        let found = |from, to| {
            let (batch, keys) = rows(from, to);
            let rows = Rows { batch, keys };
            (0..rows.batch.num_columns()).map(|index| is_mostly_distinct(&rows, index).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found(0, 5000), [true, true, false, false, false, true]);
        assert_eq!(found(0, 10), [false; 6]);
    }

    proptest! {
        #[test]
        fn forged_tail_never_panics(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in 0usize..200) {
            static GOOD: std::sync::LazyLock<(KeyRing, Bytes, DataFile)> = std::sync::LazyLock::new(|| {
                let ring = ring();
                let (bytes, file) = encoded(&ring, "a", 0, 50);
                let tail = tail(&bytes, &file);
                (ring, tail, file)
            });
            let (ring, good, file) = &*GOOD;
            let mut forged = good.to_vec();
            for (at, value) in flips {
                let at = at.index(forged.len());
                forged[at] ^= value;
            }
            forged.drain(..cut.min(forged.len()) / 2);
            let forged = Bytes::from(forged);
            if forged == *good {
                return Ok(());
            }
            prop_assert_eq!(open_tail(file, &forged, ring).unwrap_err().kind(), ErrorKind::Data);
            // Even where the pin was forged too, the parser must come back with an error.
            let claimed = DataFile { pin: digest(&forged), tail_bytes: forged.len() as u64, ..file.clone() };
            let opened = std::panic::catch_unwind(|| open_tail(&claimed, &forged, ring).map_err(|error| error.kind()));
            prop_assert!(opened.is_ok());
        }
    }

    /// Opens a file with PyArrow's key tools, where `COUNTERFOIL_INTEROP_PYTHON` names a Python that has it
    /// (`tests/interop/run.sh --python` makes one).
    #[test]
    fn pyarrow_opens_the_file_with_the_exported_key() {
        let Some(python) = std::env::var_os("COUNTERFOIL_INTEROP_PYTHON") else {
            // Written past the harness, which keeps to itself what a passing test prints.
            let reason = "skipped: COUNTERFOIL_INTEROP_PYTHON names no Python with PyArrow";
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{reason}\n")).unwrap();
            return;
        };
        let ring = ring();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let request = folder.path().join("request.json");
        std::fs::write(&path, encoded(&ring, "a", 0, 70_000).0).unwrap();
        let key = STANDARD.encode(ring.export("ring-1").unwrap().expose());
        let body = serde_json::json!({ "files": [path], "keys": { "ring-1": key }, "show": 3 });
        std::fs::write(&request, body.to_string()).unwrap();
        let output = std::process::Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/pyarrow_open.py"))
            .stdin(std::fs::File::open(&request).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let file = &answer["files"][0];
        assert_eq!((&file["rows"], &file["row_groups"]), (&70_000.into(), &2.into()));
        assert_eq!(file["key_ids"], serde_json::json!(["ring-1"]));
        assert_eq!(file["columns"]["updated_at"], "timestamp[ms, tz=UTC]");
        for row in 0..3 {
            let read = &file["first"][row];
            assert_eq!(read["ticket_id"], id(row).to_string());
            assert_eq!(read["rev"], if row % 11 == 0 { serde_json::Value::Null } else { (row as i64 % 7).into() });
            assert_eq!(read["tag_ids"].as_array().map_or(0, Vec::len), row % 3);
        }
        assert_eq!(file["first"][1]["updated_at"], "2023-11-14 22:14:21+00:00");
    }
}
