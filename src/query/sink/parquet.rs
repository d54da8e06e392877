//! `parquet`: row groups as they fill, then the footer; encrypted under the ring unless plain text is asked for.
//!
//! A row group has at most [`ROW_GROUP_ROWS`] rows, and fewer where they are wide: what a group takes in memory is bounded
//! by [`GROUP_BYTES`] and one batch. A file that is not written to its end has no footer and does not open.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::portable::Portable;
use super::{Encoder, Format, Protection};
use crate::error::{Error, Result};
use crate::lake::file::ROW_GROUP_ROWS;
use crate::lake::sealed::{Seal, Sealing};

/// Encoded bytes at which a row group is closed before it has all its rows: far above what a list of tickets takes.
const GROUP_BYTES: usize = 32 << 20;

/// As the lake's own files: higher levels take longer and gain little on rows of tickets.
const ZSTD_LEVEL: i32 = 1;

/// Writes one file.
pub(super) struct Parquet {
    portable: Portable,
    protection: Protection,
    group_bytes: usize,
    /// Made with the first batch, which tells how the columns are best encoded.
    file: Option<Open>,
    rows: u64,
}

struct Open {
    writer: ArrowWriter<Vec<u8>>,
    sealing: Option<Sealing>,
}

impl Parquet {
    pub(super) fn new(schema: &SchemaRef, protection: &Protection) -> Self {
        let portable = Portable::new(schema, Format::Parquet);
        Self { portable, protection: protection.clone(), group_bytes: GROUP_BYTES, file: None, rows: 0 }
    }

    fn open(&mut self, first: Option<&RecordBatch>) -> Result<&mut Open> {
        if self.file.is_none() {
            self.file = Some(Open::try_new(self.portable.schema(), &self.protection, first)?);
        }
        self.file.as_mut().ok_or_else(|| Error::internal("a Parquet file was opened and is not there"))
    }
}

impl Open {
    fn try_new(schema: &SchemaRef, protection: &Protection, first: Option<&RecordBatch>) -> Result<Self> {
        let sealing = match protection {
            Protection::Plain => None,
            Protection::Sealed(seal) => Some(Seal::new_file(seal, schema, first)?),
        };
        let properties = match &sealing {
            Some(sealing) => sealing.properties.clone(),
            None => plain().map_err(failed)?,
        };
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties)).map_err(failed)?;
        Ok(Self { writer, sealing })
    }
}

impl Encoder for Parquet {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<bool> {
        let batch = self.portable.batch(batch)?;
        let group_bytes = self.group_bytes;
        let writer = &mut self.open(Some(&batch))?.writer;
        writer.write(&batch).map_err(failed)?;
        if writer.in_progress_size() >= group_bytes {
            writer.flush().map_err(failed)?;
        }
        out.append(writer.inner_mut());
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(u64, Vec<String>)> {
        let Open { writer, sealing } = self.open(None)?;
        let metadata = writer.finish().map_err(failed)?;
        writer.sync().map_err(|cause| failed(ParquetError::from(cause)))?;
        let end = writer.inner_mut();
        if let Some(sealing) = sealing {
            sealing.check(&metadata, end)?;
        }
        out.append(end);
        Ok((self.rows, Vec::new()))
    }
}

fn plain() -> Result<WriterProperties, ParquetError> {
    Ok(WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("counterfoil ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build())
}

fn failed(cause: ParquetError) -> Error {
    match cause {
        ParquetError::NYI(_) | ParquetError::ArrowError(_) => {
            Error::query("a column of the result has a type that Parquet files do not have")
                .with_source(cause)
                .with_hint("CAST the column to a text or a number, or use --format json")
        }
        _ => Error::internal("failed to write the result as Parquet").with_source(cause),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray as _;
    use arrow::datatypes::{DataType, TimeUnit};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
    use parquet::file::column_crypto_metadata::ColumnCryptoMetaData;

    use super::super::Sink;
    use super::super::origin;
    use super::super::tests::{MIXED, rows};
    use super::*;
    use crate::clock::ManualClock;
    use crate::error::ErrorKind;
    use crate::keys::{KeyRing, RootKey};
    use crate::lake::{Lake, StoreSettings};
    use crate::query::{Arguments, QueryFile};

    async fn plain(sql: &str) -> Result<(Vec<RecordBatch>, usize)> {
        let mut out = Vec::new();
        Sink::new(Format::Parquet).with_protection(Protection::Plain).write(rows(sql).await, &mut out).await?;
        assert!(out.starts_with(b"PAR1") && out.ends_with(b"PAR1"));
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(out)).unwrap();
        let groups = builder.metadata().num_row_groups();
        Ok((builder.build().unwrap().map(Result::unwrap).collect(), groups))
    }

    #[tokio::test]
    async fn plain_file_holds_the_rows_in_types_of_other_engines() {
        let (batches, groups) = plain(MIXED).await.unwrap();
        assert_eq!((batches[0].num_rows(), groups), (3, 1));
        assert_eq!(batches[0].column(0).as_string::<i32>().value(2), "t3");
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(*batches[0].schema().field(4).data_type(), micros, "nanoseconds are read by few");
        let (batches, _) = plain("SELECT interval '1 day' AS i, NULL AS n").await.unwrap();
        assert_eq!(*batches[0].schema().field(0).data_type(), DataType::Utf8);
        let (empty, _) = plain("SELECT 1 AS a WHERE false").await.unwrap();
        assert!(empty.is_empty());
        let (nested, _) = plain("SELECT [interval '1 day'] AS i").await.unwrap();
        assert_eq!(*nested[0].schema().field(0).data_type(), DataType::new_list(DataType::Utf8, true));
    }

    #[tokio::test]
    async fn row_groups_are_bounded_in_rows_and_in_bytes() {
        let (_, groups) = plain("SELECT value FROM generate_series(1, 65537)").await.unwrap();
        assert_eq!(groups, 2);
        // Wide rows: groups end by their bytes, and memory is given back with each.
        let mut wide =
            rows("SELECT range(value * 5000, value * 5000 + 5000) AS list FROM generate_series(1, 60)").await;
        let mut encoder = Parquet::new(&wide.schema(), &Protection::Plain);
        encoder.group_bytes = 100_000;
        let mut out = Vec::new();
        while let Some(batch) = wide.next().await.unwrap() {
            encoder.batch(&batch, &mut out).unwrap();
            assert!(encoder.file.as_ref().unwrap().writer.in_progress_size() < 100_000);
        }
        assert_eq!(encoder.end(&mut out).unwrap().0, 60);
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(out)).unwrap();
        assert!(builder.metadata().num_row_groups() > 3, "{}", builder.metadata().num_row_groups());
        assert_eq!(builder.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 60);
    }

    #[tokio::test]
    async fn without_a_word_about_protection_nothing_is_written() {
        let mut out = Vec::new();
        let error = Sink::new(Format::Parquet).write(rows("SELECT 1 AS n").await, &mut out).await.unwrap_err();
        assert_eq!((error.kind(), out.len()), (ErrorKind::Internal, 0));
    }

    struct Ring(KeyRing);

    impl KeyRetriever for Ring {
        fn retrieve_key(&self, metadata: &[u8]) -> std::result::Result<Vec<u8>, ParquetError> {
            let key = self.0.open_any_key(metadata).map_err(|error| ParquetError::General(error.to_string()))?;
            Ok(key.expose().to_vec())
        }
    }

    fn opened(
        file: &[u8],
        ring: &KeyRing,
    ) -> std::result::Result<ParquetRecordBatchReaderBuilder<Bytes>, ParquetError> {
        let decryption = FileDecryptionProperties::with_key_retriever(Arc::new(Ring(ring.clone()))).build()?;
        let options = ArrowReaderOptions::new().with_file_decryption_properties(decryption);
        ParquetRecordBatchReaderBuilder::try_new_with_options(Bytes::copy_from_slice(file), options)
    }

    /// A lake with both rings.
    async fn lake(folder: &std::path::Path) -> Lake {
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let settings = StoreSettings::new("file:lake", folder);
        let (root, second) = (RootKey::from_bytes([1; 32]), RootKey::from_bytes([2; 32]));
        let lake = Lake::create(&settings, &root, clock.clone()).await.unwrap();
        lake.create_restricted(&second).await.unwrap();
        drop(lake);
        Lake::open(&settings, &root, clock).await.unwrap().with_restricted(&second).await.unwrap()
    }

    async fn sealed(sql: &str, lake: &Lake) -> Result<Vec<u8>> {
        let session = origin::tests::session();
        let plan = session.plan(&QueryFile::inline(sql).unwrap(), &Arguments::default()).await.unwrap();
        let protection = Protection::choose(Format::Parquet, false, &plan, lake)?;
        let mut out = Vec::new();
        let rows = session.stream(&plan).await.unwrap();
        Sink::new(Format::Parquet).with_protection(protection).write(rows, &mut out).await?;
        Ok(out)
    }

    #[tokio::test]
    async fn sealed_file_opens_with_the_ring_and_shows_nothing_without() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(folder.path()).await;
        let file = sealed("SELECT ticket_id, status FROM tickets", &lake).await.unwrap();
        assert!(file.starts_with(b"PARE") && file.ends_with(b"PARE"));
        for word in ["ticket_id", "open"] {
            assert!(!file.windows(word.len()).any(|window| window == word.as_bytes()), "{word} is in the clear");
        }
        let builder = opened(&file, lake.ring()).unwrap();
        let chunk = builder.metadata().row_group(0).column(1);
        assert!(matches!(chunk.crypto_metadata(), Some(ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY)));
        let batch = builder.build().unwrap().next().unwrap().unwrap();
        assert_eq!(batch.column(1).as_string::<i32>().value(0), "open");
        assert!(opened(&file, &KeyRing::generate(lake.id(), 0).unwrap()).is_err());
        let again = sealed("SELECT ticket_id, status FROM tickets", &lake).await.unwrap();
        assert_ne!(again, file, "each file has a key of its own");
        let empty = sealed("SELECT ticket_id FROM tickets WHERE false", &lake).await.unwrap();
        assert_eq!(opened(&empty, lake.ring()).unwrap().build().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn restricted_columns_and_what_is_made_of_them_need_the_second_key() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(folder.path()).await;
        let sql = "SELECT ticket_id, note, upper(more) AS shout FROM tickets";
        let file = sealed(sql, &lake).await.unwrap();
        let batch = opened(&file, lake.ring()).unwrap().build().unwrap().next().unwrap().unwrap();
        assert_eq!(batch.column(1).as_string::<i32>().value(0), "a restricted note");
        assert_eq!(batch.column(2).as_string::<i32>().value(0), "MORE OF IT");
        for word in ["restricted note", "MORE OF IT", "ticket_id"] {
            assert!(!file.windows(word.len()).any(|window| window == word.as_bytes()), "{word} is in the clear");
        }

        // Who has the ring alone reads the id and nothing else.
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let settings = StoreSettings::new("file:lake", folder.path());
        let alone = Lake::open(&settings, &RootKey::from_bytes([1; 32]), clock).await.unwrap();
        let read = |column: usize| {
            let builder = opened(&file, alone.ring())?;
            let mask = parquet::arrow::ProjectionMask::leaves(builder.parquet_schema(), [column]);
            builder.with_projection(mask).build()?.next().transpose().map_err(ParquetError::from)
        };
        assert_eq!(read(0).unwrap().unwrap().column(0).as_string::<i32>().value(0), "t1");
        for column in [1, 2] {
            assert!(read(column).is_err(), "{column} opens without the second key");
        }
        // There such columns read NULL, so that nothing needs the second key.
        let nulls = sealed("SELECT ticket_id, note FROM tickets WHERE false", &alone).await.unwrap();
        assert!(opened(&nulls, alone.ring()).is_ok());
    }
}
