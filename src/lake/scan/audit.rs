//! Reading a data file whole, to see whether it is what the manifest says.
//!
//! Every column chunk of every row group is decoded, so that the tag of every module is checked, and what was decoded is
//! held against the footer's statistics, the manifest's, and the rows of the file's index. Restricted columns whose key this
//! process does not have are left out; the report counts their files. Columns are decoded a few at a time, so a file takes the
//! memory of some columns of one row group however large it is.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, Scalar};
use arrow::compute::cast;
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyRing;
use crate::lake::file::CREATED_AT;
use crate::lake::index::Entry;
use crate::lake::manifest::DataFile;
use crate::lake::scan::MetadataCache;
use crate::lake::scan::find::{self, REV, UPDATED_AT, located};
use crate::lake::scan::reader::{Access, PinnedReader};
use crate::lake::{index, layout, restricted, store};
use crate::model::{ObjectId, Stream};

/// First bytes of a file whose footer is encrypted.
const MAGIC: &[u8] = b"PARE";

/// Rows decoded at once.
const BATCH_ROWS: usize = 16_384;

/// Columns are decoded together while they come to no more than this.
const TOGETHER_BYTES: i64 = 4 << 20;

/// A file that is damaged in more places is said to be so in these.
const NAMED: usize = 8;

/// Reads a file and its index whole and returns what is wrong with them: the object, and how; nothing when they are sound.
///
/// # Errors
///
/// [`Unavailable`](ErrorKind::Unavailable) when the store does not answer: that says nothing about the file.
pub(in crate::lake) async fn check_file(
    store: &Arc<dyn ObjectStore>,
    ring: &KeyRing,
    stream: Stream,
    file: &Arc<DataFile>,
) -> Result<Vec<(String, Error)>> {
    // Metadata of a file that is read once are not worth keeping.
    let access = Access { store: Arc::clone(store), ring: ring.clone(), cache: MetadataCache::with_capacity(0) };
    let mut check = Check {
        file: Arc::clone(file),
        stream,
        findings: Vec::new(),
        keys: Keys::default(),
        index: None,
        index_finding: None,
    };
    check.open_index(store, ring).await?;
    match check.run(store, access).await {
        Ok(()) => check.end_index(),
        Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
        Err(error) => check.findings.push(error),
    }
    let of_index = check.index_finding.map(|finding| (layout::index_of(&file.path), finding));
    Ok(check.findings.into_iter().map(|finding| (file.path.clone(), finding)).chain(of_index).collect())
}

struct Check {
    file: Arc<DataFile>,
    stream: Stream,
    findings: Vec<Error>,
    keys: Keys,
    /// The rows of the index that were not compared yet, as long as nothing is wrong with it.
    index: Option<index::Entries>,
    index_finding: Option<Error>,
}

/// The keys seen so far.
#[derive(Default)]
struct Keys {
    first: Option<ObjectId>,
    last: Option<ObjectId>,
    rows: u64,
}

impl Check {
    /// Reads the index, where the file has one.
    async fn open_index(&mut self, store: &Arc<dyn ObjectStore>, ring: &KeyRing) -> Result<()> {
        let Some((path, size)) = self.file.index_path().zip(self.file.index) else { return Ok(()) };
        let opened = match store::read(store.as_ref(), &Path::from(path.as_str()), size.bytes).await {
            Ok(Some(bytes)) => index::entries(&bytes, &self.file, ring),
            Ok(None) => Err(Error::data("index of a data file is missing").with_context("file", path)),
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => Err(error),
        };
        match opened {
            Ok(entries) => self.index = Some(entries),
            Err(error) => self.index_finding = Some(error),
        }
        Ok(())
    }

    /// Compares the next rows of the index with those of the file.
    fn check_index(&mut self, batch: &RecordBatch, first_row: u64) {
        let Some(entries) = &mut self.index else { return };
        let columns = find::Columns::try_new(batch, self.stream.key_column());
        let expected = |row: usize| {
            let columns = columns.as_ref()?;
            Some(Entry {
                id: columns.id(row)?,
                updated_at_ms: find::value(columns.updated_at.as_ref(), row),
                rev: find::value(columns.rev.as_ref(), row),
            })
        };
        let wrong = (0..batch.num_rows()).find_map(|row| match entries.next() {
            Some(Ok(entry)) if expected(row) == Some(entry) => None,
            Some(Err(error)) => Some(error),
            _ => Some(
                Error::data("index does not tell what the data file holds")
                    .with_context("file", layout::index_of(&self.file.path))
                    .with_context("row", first_row + row as u64),
            ),
        });
        if wrong.is_some() {
            self.index_finding = wrong;
            self.index = None;
        }
    }

    /// An index that tells of more rows than the file has is wrong too.
    fn end_index(&mut self) {
        if self.findings.is_empty() && self.index.as_mut().is_some_and(|entries| entries.next().is_some()) {
            let path = layout::index_of(&self.file.path);
            self.index_finding = Some(Error::data("index has more rows than its data file").with_context("file", path));
        }
    }

    async fn run(&mut self, store: &Arc<dyn ObjectStore>, access: Access) -> Result<()> {
        self.check_object(store).await?;
        let file = Arc::clone(&self.file);
        let failed = |cause| located(cause, &file);
        let mut reader = PinnedReader::new(access.clone(), Arc::clone(&file));
        let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await.map_err(failed)?;
        let unreadable = restricted::unreadable(&access.ring, &file);
        // Where the chunks of unreadable columns lie is as secret as what they hold.
        if unreadable.is_empty() {
            self.check_layout(metadata.metadata().row_groups());
        }
        self.check_columns(&metadata);
        for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
            for mut roots in together(&metadata, group, self.stream.key_column()) {
                roots.retain(|root| !unreadable.contains(&metadata.schema().field(*root).name().as_str()));
                if roots.is_empty() {
                    continue;
                }
                if self.findings.len() >= NAMED {
                    return Ok(());
                }
                let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
                let reader = PinnedReader::new(access.clone(), Arc::clone(&file));
                let read = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata.clone())
                    .with_row_groups(vec![number])
                    .with_projection(mask)
                    .with_batch_size(BATCH_ROWS)
                    .build();
                match read {
                    Ok(batches) => self.check_rows(batches, &metadata, (number, group)).await?,
                    Err(cause) => self.findings.push(located(cause, &file).with_context("row group", number)),
                }
            }
        }
        self.check_keys();
        Ok(())
    }

    /// Compares what the store knows of the object: its size, and how it begins.
    async fn check_object(&mut self, store: &Arc<dyn ObjectStore>) -> Result<()> {
        let path = Path::from(self.file.path.as_str());
        let meta = match store.head(&path).await {
            Ok(meta) => meta,
            Err(object_store::Error::NotFound { .. }) => return Err(self.wrong("data file is missing")),
            Err(error) => return Err(store::failed("read", &path, error)),
        };
        if meta.size != self.file.bytes {
            return Err(self.differs("data file has another size than the manifest says", meta.size, self.file.bytes));
        }
        let first = store.get_range(&path, 0..MAGIC.len() as u64).await;
        let first = first.map_err(|error| store::failed("read", &path, error))?;
        if first != MAGIC {
            self.findings.push(self.wrong("data file does not begin as an encrypted Parquet file"));
        }
        Ok(())
    }

    /// Checks that the column chunks fill the file from its magic to its tail: no byte is outside of a module.
    fn check_layout(&mut self, groups: &[RowGroupMetaData]) {
        let mut chunks: Vec<(u64, u64)> =
            groups.iter().flat_map(RowGroupMetaData::columns).map(ColumnChunkMetaData::byte_range).collect();
        chunks.sort_unstable();
        let mut end = MAGIC.len() as u64;
        let mut is_filled = true;
        for (start, length) in chunks {
            is_filled &= start == end;
            end = start.saturating_add(length);
        }
        if !is_filled || end != self.file.bytes.saturating_sub(self.file.tail_bytes) {
            self.findings.push(self.wrong("data file has bytes that belong to no column"));
        }
    }

    fn check_columns(&mut self, metadata: &ArrowReaderMetadata) {
        let (found, named) = (metadata.schema(), Arc::clone(&self.file.schema));
        if found.fields().len() != named.fields().len() {
            let finding = self.differs(
                "data file has another number of columns than the manifest says",
                found.fields().len(),
                named.fields().len(),
            );
            self.findings.push(finding);
            return;
        }
        for (found, named) in found.fields().iter().zip(named.fields()) {
            if found.name() != named.name() || !found.data_type().equals_datatype(named.data_type()) {
                let finding = self
                    .wrong("a column of the data file is not the one that the manifest names")
                    .with_context("found", found.name())
                    .with_context("manifest", named.name());
                self.findings.push(finding);
            }
        }
    }

    /// Decodes some columns of a row group and compares them with its statistics.
    async fn check_rows(
        &mut self,
        mut batches: impl futures::TryStream<Ok = RecordBatch, Error = parquet::errors::ParquetError> + Unpin,
        metadata: &ArrowReaderMetadata,
        (number, group): (usize, &RowGroupMetaData),
    ) -> Result<()> {
        let mut rows = 0u64;
        let mut columns: Vec<(String, Bounds)> = Vec::new();
        loop {
            let batch = match batches.try_next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(cause) => {
                    let finding = located(cause, &self.file);
                    if finding.kind() == ErrorKind::Unavailable {
                        return Err(finding);
                    }
                    self.findings.push(finding.with_context("row group", number));
                    return Ok(());
                }
            };
            if columns.is_empty() {
                for field in batch.schema_ref().fields() {
                    columns.push((field.name().clone(), Bounds::of(field.name(), metadata, group)));
                }
            }
            for ((name, bounds), column) in columns.iter_mut().zip(batch.columns()) {
                bounds.check(column);
                self.check_values(name, column, rows + self.keys.rows)?;
            }
            if batch.schema_ref().column_with_name(self.stream.key_column()).is_some() {
                self.check_index(&batch, rows + self.keys.rows);
            }
            rows += batch.num_rows() as u64;
        }
        for (name, bounds) in &columns {
            if let Some(message) = bounds.verdict() {
                let finding = self.wrong(message).with_context("row group", number).with_context("column", name);
                self.findings.push(finding);
            }
            if name == self.stream.key_column() {
                self.keys.rows += rows;
            }
        }
        if rows != group.num_rows().unsigned_abs() {
            let finding =
                self.differs("a row group has another number of rows than the footer says", rows, group.num_rows());
            self.findings.push(finding.with_context("row group", number));
        }
        Ok(())
    }

    /// Compares values with what the manifest says of the columns that scans and look-ups rely on.
    fn check_values(&mut self, name: &str, column: &ArrayRef, first_row: u64) -> Result<()> {
        if name == self.stream.key_column() {
            let texts = cast(column, &DataType::Utf8).map_err(|_| self.wrong("keys are no texts"))?;
            let texts = texts.as_string::<i32>();
            for row in 0..texts.len() {
                let id = (!texts.is_null(row)).then(|| ObjectId::from_hex(texts.value(row).as_bytes())).flatten();
                let at = first_row + row as u64;
                let Some(id) = id else {
                    return Err(self.wrong("data file has a row without a record id").with_context("row", at));
                };
                if self.keys.last.is_some_and(|last| id < last) {
                    return Err(self.wrong("data file is not in the order of its keys").with_context("row", at));
                }
                self.keys.first = self.keys.first.or(Some(id));
                self.keys.last = Some(id);
            }
        } else if name == UPDATED_AT || name == CREATED_AT {
            let instant = DataType::Timestamp(TimeUnit::Millisecond, None);
            let times = cast(column, &instant).and_then(|times| cast(&times, &DataType::Int64));
            let times = times.map_err(|_| self.wrong(&format!("`{name}` is no time")))?;
            let range = if name == UPDATED_AT { self.file.updated_ms } else { self.file.created_ms };
            // Files of an earlier release have no range of this column.
            if name == CREATED_AT && range.is_none() {
                return Ok(());
            }
            let mut times = times.as_primitive::<Int64Type>().iter().flatten();
            let is_outside = |time| range.is_none_or(|(from, until)| !(from..=until).contains(&time));
            if times.any(is_outside) {
                let finding = self.wrong(&format!("`{name}` lies outside of the range that the manifest says"));
                self.findings.push(finding);
            }
        }
        Ok(())
    }

    fn check_keys(&mut self) {
        let file = Arc::clone(&self.file);
        if !self.findings.is_empty() {
            return;
        }
        if self.keys.rows != file.rows {
            let finding =
                self.differs("data file has another number of rows than the manifest says", self.keys.rows, file.rows);
            self.findings.push(finding);
        }
        let text = |id: Option<ObjectId>| id.map_or_else(String::new, |id| id.to_string());
        for (message, found, named) in [
            ("the smallest key of the data file is not the manifest's", text(self.keys.first), &file.min_key),
            ("the largest key of the data file is not the manifest's", text(self.keys.last), &file.max_key),
        ] {
            if found != *named {
                let finding = self.differs(message, found, named);
                self.findings.push(finding);
            }
        }
        // What the lake keeps of its own are ids and what was done with them, which no policy makes.
        let is_own = self.stream.is_own();
        if is_own != file.policy.is_empty() || !(is_own || is_digest(&file.policy)) {
            self.findings.push(self.wrong("the policy that the manifest names is no digest"));
        }
        for (rows, message) in [
            (&file.superseded, "a superseded row lies beyond the rows of the data file"),
            (&file.tombstones, "a tombstone lies beyond the rows of the data file"),
        ] {
            if let Some(last) = rows.max().filter(|last| u64::from(*last) >= self.keys.rows) {
                self.findings.push(self.differs(message, last, self.keys.rows));
            }
        }
    }

    fn wrong(&self, message: &str) -> Error {
        Error::data(message).with_context("file", &self.file.path)
    }

    fn differs(&self, message: &str, found: impl Display, named: impl Display) -> Error {
        self.wrong(message).with_context("found", found).with_context("expected", named)
    }
}

/// What the statistics of one column chunk say, and whether its values keep to it.
struct Bounds {
    nulls: Option<u64>,
    found: u64,
    min: Option<Scalar<ArrayRef>>,
    max: Option<Scalar<ArrayRef>>,
    is_outside: bool,
    has_statistics: bool,
}

impl Bounds {
    /// Reads the statistics of a flat column; of a nested one, whose statistics count items, only decoding is checked.
    fn of(name: &str, metadata: &ArrowReaderMetadata, group: &RowGroupMetaData) -> Self {
        let none = Self { nulls: None, found: 0, min: None, max: None, is_outside: false, has_statistics: true };
        let field = metadata.schema().field_with_name(name);
        if field.map_or(true, |field| field.data_type().is_nested()) {
            return none;
        }
        let Ok(converter) = StatisticsConverter::try_new(name, metadata.schema(), metadata.parquet_schema()) else {
            return none;
        };
        let statistics = converter.parquet_column_index().and_then(|index| group.column(index).statistics());
        let Some(statistics) = statistics else {
            return Self { has_statistics: false, ..none };
        };
        let (min, max) = (converter.row_group_mins([group]).ok(), converter.row_group_maxes([group]).ok());
        Self { nulls: statistics.null_count_opt(), min: scalar(min), max: scalar(max), ..none }
    }

    fn check(&mut self, column: &ArrayRef) {
        self.found += column.null_count() as u64;
        let below = self.min.as_ref().and_then(|min| lt(column, min).ok());
        let above = self.max.as_ref().and_then(|max| gt(column, max).ok());
        self.is_outside |= below.into_iter().chain(above).any(|outside| outside.true_count() > 0);
    }

    fn verdict(&self) -> Option<&'static str> {
        if !self.has_statistics {
            return Some("a column chunk has no statistics");
        }
        if self.nulls.is_some_and(|nulls| nulls != self.found) {
            return Some("a column chunk has another number of nulls than its statistics say");
        }
        self.is_outside.then_some("a value lies outside of the statistics of its column chunk")
    }
}

/// Tells whether a text is a SHA-256 in hex.
fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An unknown bound excludes nothing.
fn scalar(bound: Option<ArrayRef>) -> Option<Scalar<ArrayRef>> {
    bound.filter(|bound| bound.len() == 1 && bound.is_valid(0)).map(Scalar::new)
}

/// Puts the columns of a row group, by their places in the schema, into sets that are decoded together: first those that the
/// index repeats.
fn together(metadata: &ArrowReaderMetadata, group: &RowGroupMetaData, key_column: &str) -> Vec<Vec<usize>> {
    let schema = metadata.parquet_schema();
    let columns = schema.root_schema().get_fields();
    let mut sizes = vec![0; columns.len()];
    for (leaf, chunk) in group.columns().iter().enumerate() {
        sizes[schema.get_column_root_idx(leaf)] += chunk.uncompressed_size().max(0);
    }
    let is_indexed = |root: &usize| [key_column, UPDATED_AT, REV].contains(&columns[*root].name());
    let (indexed, others): (Vec<usize>, Vec<usize>) = (0..columns.len()).partition(is_indexed);
    let mut sets: Vec<(i64, Vec<usize>)> = vec![(indexed.iter().map(|root| sizes[*root]).sum(), indexed)];
    for root in others {
        match sets.last_mut() {
            Some((bytes, roots)) if *bytes + sizes[root] <= TOGETHER_BYTES => {
                *bytes += sizes[root];
                roots.push(root);
            }
            _ => sets.push((sizes[root], vec![root])),
        }
    }
    sets.into_iter().map(|(_, roots)| roots).collect()
}
