//! Reads of data files that trust nothing but the manifest and the key ring.
//!
//! Metadata are opened through the pin ([`open_tail`]) and cached by it. Before a column chunk reaches the decoder, its
//! modules (`length u32 LE | nonce | ciphertext | tag`) must fill it exactly: the decoder allocates whatever length a module
//! claims before it checks the tag, so a flipped bit could otherwise ask for 4 GiB.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::lake::file::open_tail;
use crate::lake::manifest::DataFile;
use crate::lake::scan::MetadataCache;
use crate::lake::scan::guard::CurrentFiles;

/// Nonce and tag: a module is never shorter.
const MIN_MODULE_BYTES: u32 = 12 + 16;

/// What it takes to read data files of one lake.
#[derive(Debug, Clone)]
pub(in crate::lake) struct Access {
    pub(in crate::lake) store: Arc<dyn ObjectStore>,
    pub(in crate::lake) ring: KeyRing,
    pub(in crate::lake) cache: MetadataCache,
}

/// An immutable object that the manifest names.
#[derive(Debug, Clone, Copy)]
pub(in crate::lake) struct Object<'a> {
    /// What it is, for messages.
    pub(in crate::lake) what: &'static str,
    pub(in crate::lake) path: &'a str,
    /// Its length, as the manifest says.
    pub(in crate::lake) bytes: u64,
}

impl<'a> Object<'a> {
    pub(super) fn data_file(file: &'a DataFile) -> Self {
        Self { what: "data file", path: &file.path, bytes: file.bytes }
    }

    fn truncated(&self) -> Error {
        Error::data(format!("{} is shorter than the manifest says", self.what))
            .with_context("file", self.path)
            .with_context("bytes", self.bytes)
            .with_hint("restore it from a backup of the lake")
    }
}

impl Access {
    /// Returns the metadata of a file, from the cache or from the file's tail.
    pub(super) async fn metadata(&self, file: &DataFile) -> Result<Arc<ParquetMetaData>> {
        if let Some(metadata) = self.cache.get(file, &self.ring) {
            return Ok(metadata);
        }
        let start = file.bytes.checked_sub(file.tail_bytes).ok_or_else(|| {
            Error::data("tail of the data file is longer than the file").with_context("file", &file.path)
        })?;
        let object = Object::data_file(file);
        let tail = self.ranges(object, std::slice::from_ref(&(start..file.bytes))).await?.pop().unwrap_or_default();
        let metadata = open_tail(file, &tail, &self.ring)?;
        self.cache.insert(file, &self.ring, &metadata);
        Ok(metadata)
    }

    /// Reads ranges of an object; each has the length that was asked for.
    pub(in crate::lake) async fn ranges(&self, object: Object<'_>, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = Path::from(object.path);
        let cause = match self.store.get_ranges(&path, ranges).await {
            Ok(bytes) => {
                let whole = |(bytes, range): (&Bytes, &Range<u64>)| bytes.len() as u64 == range.end - range.start;
                if bytes.len() == ranges.len() && bytes.iter().zip(ranges).all(whole) {
                    return Ok(bytes);
                }
                return Err(object.truncated());
            }
            Err(cause) => cause,
        };
        if matches!(cause, object_store::Error::NotFound { .. }) {
            return Err(Error::data(format!("{} is missing", object.what))
                .with_context("file", object.path)
                .with_hint("restore it from a backup of the lake")
                .with_source(cause));
        }
        // Stores answer a range past the end in many ways; the length tells a cut file from a store that is down.
        if let Ok(meta) = self.store.head(&path).await
            && meta.size < object.bytes
        {
            return Err(object.truncated());
        }
        Err(Error::unavailable(format!("failed to read the {}", object.what))
            .with_context("file", object.path)
            .with_source(cause))
    }
}

/// Reads one data file for the Parquet decoder.
pub(super) struct PinnedReader {
    access: Access,
    file: Arc<DataFile>,
    metadata: Option<Arc<ParquetMetaData>>,
    observer: Option<Observer>,
}

/// Where a scan counts the bytes it reads, and notes which file a partition reads.
struct Observer {
    metrics: ParquetFileMetrics,
    current: CurrentFiles,
    partition: usize,
}

impl PinnedReader {
    pub(super) fn new(access: Access, file: Arc<DataFile>) -> Self {
        Self { access, file, metadata: None, observer: None }
    }

    async fn metadata(&mut self) -> Result<Arc<ParquetMetaData>> {
        if let Some(metadata) = &self.metadata {
            return Ok(Arc::clone(metadata));
        }
        let metadata = self.access.metadata(&self.file).await?;
        self.metadata = Some(Arc::clone(&metadata));
        Ok(metadata)
    }

    async fn checked_ranges(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        let metadata = self.metadata().await?;
        let parts = self.access.ranges(Object::data_file(&self.file), &ranges).await?;
        for (range, bytes) in ranges.iter().zip(&parts) {
            check_modules(&self.file, &metadata, range, bytes)?;
            if let Some(observer) = &self.observer {
                observer.metrics.bytes_scanned.add(bytes.len());
            }
        }
        if let Some(observer) = &self.observer {
            observer.current.set(observer.partition, &self.file.path);
        }
        Ok(parts)
    }
}

impl AsyncFileReader for PinnedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { Ok(self.checked_ranges(vec![range]).await.map_err(external)?.pop().unwrap_or_default()) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.checked_ranges(ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move { self.metadata().await.map_err(external) }.boxed()
    }
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// Checks that the modules of every column chunk inside the range fill it exactly, and that nothing else is asked for.
fn check_modules(file: &DataFile, metadata: &ParquetMetaData, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
    let checked = check_chunks(file, metadata, range, bytes)?;
    if checked == range.end - range.start {
        Ok(())
    } else {
        Err(Error::internal("part of a column chunk was asked for, which cannot be checked")
            .with_context("file", &file.path)
            .with_context("offset", range.start))
    }
}

/// Checks that modules fill each column chunk inside the range exactly; returns the bytes of those chunks.
pub(super) fn check_chunks(
    file: &DataFile,
    metadata: &ParquetMetaData,
    range: &Range<u64>,
    bytes: &[u8],
) -> Result<u64> {
    let damaged = || {
        Error::data("column chunk of the data file is damaged or was tampered with")
            .with_context("file", &file.path)
            .with_context("offset", range.start)
            .with_hint("restore it from a backup of the lake")
    };
    let mut checked = 0;
    for chunk in metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let (start, length) = chunk.byte_range();
        if start < range.start || start + length > range.end {
            continue;
        }
        let from = usize::try_from(start - range.start).map_err(|_| damaged())?;
        let until = from + usize::try_from(length).map_err(|_| damaged())?;
        let mut rest = bytes.get(from..until).ok_or_else(damaged)?;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length);
            let (_, next) = after.split_at_checked(length as usize).ok_or_else(damaged)?;
            if length < MIN_MODULE_BYTES {
                return Err(damaged());
            }
            rest = next;
        }
        if !rest.is_empty() {
            return Err(damaged());
        }
        checked += length;
    }
    Ok(checked)
}

/// The data file of a [`PartitionedFile`], with its pin.
pub(super) struct Pinned(pub(super) Arc<DataFile>);

/// Makes readers for the files of a scan.
#[derive(Debug)]
pub(super) struct PinnedReaders {
    pub(super) access: Access,
    pub(super) current: CurrentFiles,
}

impl ParquetFileReaderFactory for PinnedReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        partitioned_file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let path = partitioned_file.object_meta.location.as_ref();
        let Some(Pinned(file)) = partitioned_file.extension::<Pinned>() else {
            let error = Error::internal("file of a scan lost its pin").with_context("file", path);
            return Err(DataFusionError::External(Box::new(error)));
        };
        let mut reader = PinnedReader::new(self.access.clone(), Arc::clone(file));
        reader.observer = Some(Observer {
            metrics: ParquetFileMetrics::new(partition_index, path, metrics),
            current: self.current.clone(),
            partition: partition_index,
        });
        Ok(Box::new(reader))
    }
}
