//! Scans: a table of one version of the lake, as DataFusion reads it.
//!
//! ```text
//! TableState ─▶ files that the filters cannot exclude ─▶ row selections ─▶ file groups ─▶ DataFusion's Parquet source
//!   manifest      min/max of key and `updated_at`        superseded,         by size        filters inside the decoder,
//!                                                        tombstones                         row groups by statistics
//! ```
//!
//! A scan needs the manifest, the key ring and the store, and nothing else, so that it can be rebuilt in another process.
//! Superseded rows reach the decoder as row selections, not as a filter or a join, so pushdown keeps working. Statistics
//! come from the manifest: a count of rows reads no file. The cache of decrypted metadata belongs to the open lake
//! ([`MetadataCache`]); files are only ever opened through their pins ([`open_tail`](crate::lake::file::open_tail)).
//! Restricted columns whose key the ring does not have read NULL (`scan/hidden.rs`).

mod audit;
mod cache;
mod find;
#[cfg(test)]
pub(in crate::lake) mod fixtures;
mod guard;
mod hidden;
mod ids;
mod planned;
mod reader;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod traps;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::RowSelection;
use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::lake::file::CREATED_AT;
use crate::lake::manifest::{DataFile, TableState};
use crate::lake::restricted;
use crate::model::Stream;

use guard::{CurrentFiles, Guard};
use reader::{Pinned, PinnedReaders};

pub(in crate::lake) use audit::check_file;
pub use cache::MetadataCache;
pub use find::{FoundKey, find_keys};
pub(in crate::lake) use find::{REV, UPDATED_AT, find_counting};
pub use ids::FileIds;
pub use planned::planned_files;
pub(in crate::lake) use reader::{Access, Object};
pub(in crate::lake) use whole::WholeFile;

/// The URL under which DataFusion looks up a store for our files; it only has to resolve, our readers bring their own.
const STORE_URL: &str = "counterfoil://lake";

/// Which rows of a table a scan yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Rows that are neither superseded nor deleted.
    Live,
    /// Every row of every file.
    Versions,
}

/// Makes the provider of one table at one version; `name` is the table's or its history's (`tickets`, `ticket_versions`).
///
/// # Errors
///
/// [`Internal`](crate::error::ErrorKind::Internal) when the name belongs to no stream.
pub fn provider(
    store: Arc<dyn ObjectStore>,
    ring: KeyRing,
    cache: MetadataCache,
    name: &str,
    table: &TableState,
    view: View,
) -> Result<Arc<dyn TableProvider>> {
    let stream = Stream::ALL
        .into_iter()
        .chain(Stream::OWN)
        .find(|stream| {
            name.strip_suffix("_versions").unwrap_or(name) == stream.table().trim_end_matches('s')
                || name == stream.table()
        })
        .ok_or_else(|| Error::internal("table belongs to no stream").with_context("table", name))?;
    let hidden = |file: &DataFile| -> Vec<usize> {
        let fields = table.schema.fields().iter().enumerate();
        fields.filter(|(_, field)| restricted::is_hidden(&ring, file, field)).map(|(index, _)| index).collect()
    };
    let scanned = |file: &Arc<DataFile>| ScannedFile { hidden: hidden(file), ..ScannedFile::new(file, view) };
    let files = table.files.iter().map(scanned).filter(|file| file.live > 0).collect();
    Ok(Arc::new(Table {
        access: Access { store, ring, cache },
        schema: with_views(&table.schema),
        files,
        key_column: stream.key_column(),
        view,
    }))
}

/// Makes text columns such as the decoder gives without a copy of each value.
fn with_views(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Fields>(), schema.metadata().clone()))
}

#[derive(Debug)]
struct Table {
    access: Access,
    schema: SchemaRef,
    files: Vec<ScannedFile>,
    key_column: &'static str,
    view: View,
}

/// A file with the rows that its scan leaves out.
#[derive(Debug, Clone)]
struct ScannedFile {
    file: Arc<DataFile>,
    excluded: RoaringBitmap,
    live: u64,
    /// Places of the table's columns that this session does not read in the file, ascending.
    hidden: Vec<usize>,
}

impl ScannedFile {
    fn new(file: &Arc<DataFile>, view: View) -> Self {
        let excluded = match view {
            View::Live => &file.superseded | &file.tombstones,
            View::Versions => RoaringBitmap::new(),
        };
        let live = file.rows.saturating_sub(excluded.len());
        Self { file: Arc::clone(file), excluded, live, hidden: Vec::new() }
    }

    /// Returns the selection of the rows that are left, when any are left out.
    fn selection(&self) -> Option<ParquetRowSelection> {
        if self.excluded.is_empty() {
            return None;
        }
        let total = self.file.rows as usize;
        let mut next = 0;
        let mut kept = Vec::new();
        for position in &self.excluded {
            let position = (position as usize).min(total);
            if position > next {
                kept.push(next..position);
            }
            next = position + 1;
        }
        if next < total {
            kept.push(next..total);
        }
        Some(ParquetRowSelection::new(RowSelection::from_consecutive_ranges(kept.into_iter(), total)))
    }
}

impl Table {
    /// Statistics of one file: bounds hold for its rows, and are exact only when none is left out.
    fn statistics_of(&self, file: &ScannedFile, for_pruning: bool) -> Statistics {
        let exact = for_pruning || file.excluded.is_empty();
        let instant = |ms| ScalarValue::TimestampMillisecond(Some(ms), None);
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(file.live as usize);
        statistics.total_byte_size = Precision::Inexact(file.file.bytes as usize);
        for (field, column) in self.schema.fields().iter().zip(&mut statistics.column_statistics) {
            let bounds = if field.name() == self.key_column {
                column.null_count = Precision::Exact(0);
                // A key stands once among live rows, and as often as it changed among all.
                if self.view == View::Live {
                    column.distinct_count = Precision::Exact(file.live as usize);
                }
                let text = |key: &str| ScalarValue::Utf8(Some(key.to_owned()));
                Some((text(&file.file.min_key), text(&file.file.max_key)))
            } else if field.name() == find::UPDATED_AT {
                file.file.updated_ms.map(|(min, max)| (instant(min), instant(max)))
            } else if field.name() == CREATED_AT {
                file.file.created_ms.map(|(min, max)| (instant(min), instant(max)))
            } else {
                None
            };
            set_bounds(column, bounds, field.data_type(), exact, for_pruning);
        }
        statistics
    }

    /// Adds up the statistics of files.
    fn statistics_of_all<'a>(&self, files: impl Iterator<Item = &'a ScannedFile>) -> Statistics {
        let each: Vec<Statistics> = files.map(|file| self.statistics_of(file, false)).collect();
        let mut total =
            Statistics::try_merge_iter(&each, &self.schema).unwrap_or_else(|_| Statistics::new_unknown(&self.schema));
        if let (View::Live, Some(index)) = (self.view, self.schema.index_of(self.key_column).ok()) {
            total.column_statistics[index].distinct_count = total.num_rows;
        }
        total
    }

    /// Leaves out the files that the filters cannot match.
    fn remaining(&self, state: &dyn Session, filters: &[Expr]) -> DataFusionResult<Vec<&ScannedFile>> {
        let all = || self.files.iter().collect();
        let Some(filter) = conjunction(filters.to_vec()) else { return Ok(all()) };
        let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        let filter = state.create_physical_expr(filter, &schema)?;
        // A filter that bounds cannot answer prunes nothing.
        let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(&self.schema));
        let Ok(predicate) = builder.try_build(filter) else { return Ok(all()) };
        let statistics = self.files.iter().map(|file| Arc::new(self.statistics_of(file, true))).collect();
        let keep = predicate.prune(&PrunableStatistics::new(statistics, Arc::clone(&self.schema)))?;
        Ok(self.files.iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }

    /// The order of rows inside every file.
    fn key_order(&self) -> Vec<LexOrdering> {
        let ascending = SortOptions { descending: false, nulls_first: false };
        let key = self.schema.index_of(self.key_column).ok();
        let key = key.map(|index| PhysicalSortExpr::new(Arc::new(Column::new(self.key_column, index)), ascending));
        key.and_then(|key| LexOrdering::new([key])).into_iter().collect()
    }

    fn partitioned(&self, file: &ScannedFile) -> PartitionedFile {
        let partitioned = PartitionedFile::new(file.file.path.clone(), file.file.bytes)
            .with_extension(Pinned(Arc::clone(&file.file)))
            .with_statistics(Arc::new(self.statistics_of(file, false)));
        match file.selection() {
            Some(selection) => partitioned.with_extension(selection),
            None => partitioned,
        }
    }
}

fn set_bounds(
    column: &mut ColumnStatistics,
    bounds: Option<(ScalarValue, ScalarValue)>,
    data_type: &DataType,
    exact: bool,
    for_pruning: bool,
) {
    let cast = |value: ScalarValue| value.cast_to(data_type).ok();
    let precise = |value| if exact { Precision::Exact(value) } else { Precision::Inexact(value) };
    if let Some((Some(min), Some(max))) = bounds.map(|(min, max)| (cast(min), cast(max))) {
        column.min_value = precise(min);
        column.max_value = precise(max);
    } else if for_pruning && let Ok(null) = ScalarValue::try_from(data_type) {
        // Bounds of all files become one array, in which a file without them has a null of the column's type.
        column.min_value = Precision::Exact(null.clone());
        column.max_value = Precision::Exact(null);
    }
}

/// Lines files up by their keys, so that each partition reads its files in the order of the key; none when their ranges
/// overlap too much, or when it would leave one partition with most of the work.
fn chains<'a>(files: &[&'a ScannedFile], partitions: usize) -> Option<Vec<Vec<&'a ScannedFile>>> {
    let mut sorted = files.to_vec();
    sorted.sort_by(|left, right| left.file.min_key.cmp(&right.file.min_key));
    let mut chains: Vec<Vec<&ScannedFile>> = Vec::new();
    for file in sorted {
        // Another chain costs nothing while there are partitions without one.
        if chains.len() < partitions {
            chains.push(vec![file]);
            continue;
        }
        let fits =
            |chain: &&mut Vec<&ScannedFile>| chain.last().is_some_and(|last| last.file.max_key < file.file.min_key);
        chains.iter_mut().filter(fits).min_by_key(|chain| bytes(chain))?.push(file);
    }
    let total: u64 = chains.iter().map(|chain| bytes(chain)).sum();
    let largest = chains.iter().map(|chain| bytes(chain)).max()?;
    let even = total / partitions.max(1) as u64;
    // One file alone is split by row groups later, which keeps its order.
    (files.len() == 1 || largest <= even + even / 4).then_some(chains)
}

fn bytes(files: &[&ScannedFile]) -> u64 {
    files.iter().map(|file| file.file.bytes).sum()
}

/// Spreads files over partitions, the largest first, each to the partition that has the fewest bytes.
fn spread(mut files: Vec<PartitionedFile>, partitions: usize) -> Vec<FileGroup> {
    files.sort_by_key(|file| std::cmp::Reverse(file.object_meta.size));
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); partitions.clamp(1, files.len().max(1))];
    for file in files {
        if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.object_meta.size;
            group.push(file);
        }
    }
    groups.into_iter().map(|(_, group)| FileGroup::new(group)).collect()
}

/// What a scan is asked for, besides its rows.
#[derive(Debug, Clone)]
struct Asked {
    projection: Option<Vec<usize>>,
    limit: Option<usize>,
    is_wide: bool,
}

/// So many columns besides those of the filters are cheaper to decode for the rows that the filters leave; fewer are cheaper
/// to decode whole, since a page is decompressed as a whole either way, and runs of chosen rows cost more than plain ones.
const WIDE: usize = 16;

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics_of_all(self.files.iter()))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let remaining = self.remaining(state, filters)?;
        if remaining.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let mut groups: BTreeMap<&[usize], Vec<&ScannedFile>> = BTreeMap::new();
        for file in remaining {
            groups.entry(file.hidden.as_slice()).or_default().push(file);
        }
        let is_wide = state.config_options().execution.parquet.pushdown_filters || self.is_wide(projection, filters);
        let asked = Asked { projection: projection.cloned(), limit, is_wide };
        let plans = groups.into_iter().map(|(hidden, files)| self.plan(state, &asked, (hidden, &files)));
        UnionExec::try_new(plans.collect::<DataFusionResult<Vec<_>>>()?)
    }
}

impl Table {
    /// Tells whether filters are worth being applied inside the decoder.
    fn is_wide(&self, projection: Option<&Vec<usize>>, filters: &[Expr]) -> bool {
        let filtered: BTreeSet<&str> =
            filters.iter().flat_map(Expr::column_refs).map(|column| column.name.as_str()).collect();
        let projected = projection.map_or(self.schema.fields().len(), Vec::len);
        !filters.is_empty() && projected > filtered.len() + WIDE
    }

    /// Plans the scan of files that hide the same columns.
    fn plan(
        &self,
        state: &dyn Session,
        asked: &Asked,
        (hidden, files): (&[usize], &[&ScannedFile]),
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if hidden.is_empty() {
            return self.plan_files(state, asked, files);
        }
        let visible = Self {
            access: self.access.clone(),
            schema: hidden::visible_schema(&self.schema, hidden),
            files: Vec::new(),
            key_column: self.key_column,
            view: self.view,
        };
        let columns = asked.projection.clone().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let seen = Asked { projection: Some(hidden::visible_places(&columns, hidden)), ..asked.clone() };
        let plan = visible.plan_files(state, &seen, files)?;
        hidden::with_nulls(plan, &self.schema, &columns, hidden)
    }

    /// Plans the scan of files by the columns of this table.
    fn plan_files(
        &self,
        state: &dyn Session,
        asked: &Asked,
        files: &[&ScannedFile],
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::parse(STORE_URL)?;
        state.runtime_env().register_object_store(url.as_ref(), Arc::new(InMemory::new()));

        let current = CurrentFiles::default();
        let readers = Arc::new(PinnedReaders { access: self.access.clone(), current: current.clone() });
        // Bloom filters and page indexes are never there, whatever a session says.
        let source = ParquetSource::new(TableSchema::from(Arc::clone(&self.schema)))
            .with_parquet_file_reader_factory(readers)
            .with_pushdown_filters(asked.is_wide)
            .with_reorder_filters(asked.is_wide)
            .with_enable_page_index(false)
            .with_bloom_filter_on_read(false);
        let statistics = self.statistics_of_all(files.iter().copied());
        let partitions = state.config().target_partitions();
        let (groups, ordering) = match chains(files, partitions) {
            Some(chains) => {
                let groups =
                    chains.into_iter().map(|files| files.into_iter().map(|file| self.partitioned(file)).collect());
                (groups.collect(), self.key_order())
            }
            None => (spread(files.iter().map(|file| self.partitioned(file)).collect(), partitions), Vec::new()),
        };
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_output_ordering(ordering)
            .with_statistics(statistics)
            .with_projection_indices(asked.projection.clone())?
            .with_limit(asked.limit)
            .build();
        Ok(DataSourceExec::from_data_source(Guard { inner: Arc::new(config), files: current }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashSet};
    use std::error::Error as StdError;
    use std::sync::LazyLock;

    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::{Field, Schema};
    use bytes::Bytes;
    use datafusion::error::DataFusionError;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use object_store::ObjectStoreExt;
    use object_store::path::Path;
    use proptest::prelude::*;

    use super::fixtures::{encoded, id, schema, status, stored, updated_ms};
    use super::*;
    use crate::error::ErrorKind;

    fn ring() -> KeyRing {
        KeyRing::generate("lake", 0).unwrap()
    }

    fn context(tables: &[(&str, Arc<dyn TableProvider>)]) -> SessionContext {
        // Files are split by row groups however small they are.
        let config = SessionConfig::new()
            .with_target_partitions(3)
            .with_repartition_file_min_size(0)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let context = SessionContext::new_with_config(config);
        for (name, table) in tables {
            context.register_table(*name, Arc::clone(table)).unwrap();
        }
        context
    }

    fn live(store: &Arc<dyn ObjectStore>, ring: &KeyRing, cache: &MetadataCache, table: &TableState) -> SessionContext {
        let view = |name, view| provider(Arc::clone(store), ring.clone(), cache.clone(), name, table, view).unwrap();
        context(&[
            ("tickets", view("tickets", View::Live)),
            ("ticket_versions", view("ticket_versions", View::Versions)),
        ])
    }

    async fn run(context: &SessionContext, sql: &str) -> DataFusionResult<Vec<RecordBatch>> {
        context.sql(sql).await?.collect().await
    }

    async fn ids(context: &SessionContext, sql: &str) -> DataFusionResult<Vec<String>> {
        let batches = run(context, sql).await?;
        let each = |batch: &RecordBatch| -> Vec<String> {
            batch.column(0).as_string_view().iter().map(|id| id.unwrap().to_owned()).collect()
        };
        Ok(batches.iter().flat_map(each).collect())
    }

    async fn count(context: &SessionContext, sql: &str) -> i64 {
        run(context, sql).await.unwrap()[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0)
    }

    fn ours(error: &DataFusionError) -> Option<&Error> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(cause) = next {
            if let Some(found) = cause.downcast_ref::<Error>() {
                return Some(found);
            }
            next = cause.source();
        }
        None
    }

    async fn assert_data_error(context: &SessionContext, what: &str) {
        let error = run(context, "SELECT * FROM ticket_versions").await.expect_err(what);
        let found = ours(&error).unwrap_or_else(|| panic!("{what}: {error:?}"));
        assert_eq!(found.kind(), ErrorKind::Data, "{what}: {found}");
        assert!(found.to_string().contains("data/tickets/a.parquet"), "{what}: {found}");
    }

    async fn put(store: &Arc<dyn ObjectStore>, path: &str, bytes: impl Into<Bytes>) {
        store.put(&Path::from(path), bytes.into().into()).await.unwrap();
    }

    #[tokio::test]
    async fn live_rows_leave_out_superseded_and_deleted_ones_and_versions_have_all() {
        let ring = ring();
        let mut files = vec![encoded(&ring, "a", 0, 300), encoded(&ring, "b", 300, 400)];
        files[0].1.superseded = [0, 1, 2, 99, 299].into_iter().collect();
        files[1].1.superseded = (0..100).collect();
        let (store, table) = stored(&files).await;
        let context = live(&store, &ring, &MetadataCache::default(), &table);
        let gone = |row: &usize| [0, 1, 2, 99, 299].contains(row) || row % 97 == 5;
        let expected: Vec<String> = (0..300).filter(|row| !gone(row)).map(|row| id(row).to_string()).collect();
        assert_eq!(ids(&context, "SELECT ticket_id FROM tickets ORDER BY 1").await.unwrap(), expected);
        assert_eq!(count(&context, "SELECT count(*) FROM tickets").await as usize, expected.len());
        assert_eq!(count(&context, "SELECT count(*) FROM ticket_versions").await, 400);
        assert_eq!(count(&context, "SELECT count(DISTINCT ticket_id) FROM tickets").await as usize, expected.len());
        // A bound that a superseded row sets must not answer a query.
        let smallest = ids(&context, "SELECT min(ticket_id) FROM tickets").await.unwrap();
        assert_eq!(smallest, [id(3).to_string()]);
    }

    #[tokio::test]
    async fn schema_keeps_its_metadata_and_batches_agree_with_it() {
        let ring = ring();
        let (store, table) = stored(&[encoded(&ring, "a", 0, 10)]).await;
        let context = live(&store, &ring, &MetadataCache::default(), &table);
        let frame = context.sql("SELECT * FROM tickets WHERE status = 'open'").await.unwrap();
        let plan = frame.clone().create_physical_plan().await.unwrap();
        assert_eq!(plan.schema().field(0).metadata(), schema().field(0).metadata());
        let batches = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
        assert!(batches.iter().all(|batch| batch.schema() == plan.schema()));
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    }

    #[tokio::test]
    async fn filters_and_projection_run_inside_the_decoder() {
        let ring = ring();
        let mut file = encoded(&ring, "a", 0, 300);
        file.1.superseded = [7].into_iter().collect();
        let (store, table) = stored(&[file]).await;
        let context = live(&store, &ring, &MetadataCache::default(), &table);
        let frame = context.sql("SELECT ticket_id FROM tickets WHERE rev = 3 AND status = 'open'").await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let text = displayable(plan.as_ref()).indent(false).to_string();
        assert!(!text.contains("FilterExec"), "{text}");
        assert!(text.contains("projection=[ticket_id]") && text.contains("predicate=rev"), "{text}");
    }

    #[tokio::test]
    async fn filters_of_few_columns_run_over_whole_batches_and_still_prune() {
        let ring = ring();
        let (store, table) = stored(&[encoded(&ring, "a", 0, 300)]).await;
        let context = live(&store, &ring, &MetadataCache::default(), &table);
        context.state_ref().write().config_mut().options_mut().execution.parquet.pushdown_filters = false;
        let sql = "SELECT ticket_id FROM tickets WHERE rev = 3 AND status = 'open'";
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let text = displayable(plan.as_ref()).indent(false).to_string();
        assert!(text.contains("FilterExec") && text.contains("pruning_predicate=rev"), "{text}");
        let narrow = ids(&context, sql).await.unwrap();
        context.state_ref().write().config_mut().options_mut().execution.parquet.pushdown_filters = true;
        assert_eq!(ids(&context, sql).await.unwrap(), narrow);
        assert!(!narrow.is_empty());
    }

    #[tokio::test]
    async fn rows_come_in_the_order_of_the_key_where_files_do_not_overlap() {
        let ring = ring();
        for (ranges, sorted) in [
            (&[(0, 90), (90, 180), (180, 270), (270, 360), (360, 450), (450, 540)][..], true),
            (&[(0, 400)][..], true),
            (&[(0, 300), (100, 400), (200, 500), (10, 310)][..], false),
        ] {
            let files: Vec<_> =
                ranges.iter().enumerate().map(|(n, (from, to))| encoded(&ring, &n.to_string(), *from, *to)).collect();
            let (store, mut table) = stored(&files).await;
            Arc::make_mut(&mut table.files[0]).superseded = [3, 4, 80].into_iter().collect();
            let context = live(&store, &ring, &MetadataCache::default(), &table);
            let sql = "SELECT ticket_id FROM tickets ORDER BY ticket_id";
            let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            let plan = displayable(plan.as_ref()).indent(false).to_string();
            assert_eq!(!plan.contains("SortExec"), sorted, "{ranges:?}\n{plan}");
            let mut expected: Vec<String> = Vec::new();
            for (file, (from, to)) in table.files.iter().zip(ranges) {
                let dead = &file.superseded | &file.tombstones;
                let alive = (*from..*to).filter(|row| !dead.contains((row - from) as u32));
                expected.extend(alive.map(|row| id(row).to_string()));
            }
            expected.sort();
            assert_eq!(ids(&context, sql).await.unwrap(), expected, "{ranges:?}");
        }
    }

    #[tokio::test]
    async fn table_without_files_scans_to_no_rows() {
        let table = TableState { schema: schema(), files: Vec::new() };
        let (store, _) = stored(&[]).await;
        let context = live(&store, &ring(), &MetadataCache::default(), &table);
        assert_eq!(ids(&context, "SELECT ticket_id FROM tickets").await.unwrap(), Vec::<String>::new());
        assert_eq!(count(&context, "SELECT count(*) FROM tickets WHERE rev > 1").await, 0);
    }

    #[tokio::test]
    async fn older_files_read_null_in_newer_columns() {
        let ring = ring();
        let (store, table) = stored(&[encoded(&ring, "a", 0, 50)]).await;
        let mut fields: Vec<Field> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.insert(1, Field::new("custom_tier", DataType::Utf8, true));
        let table = TableState { schema: Arc::new(Schema::new(fields)), files: table.files };
        let context = live(&store, &ring, &MetadataCache::default(), &table);
        assert_eq!(count(&context, "SELECT count(*) FROM ticket_versions WHERE custom_tier IS NULL").await, 50);
        assert_eq!(count(&context, "SELECT count(*) FROM ticket_versions WHERE custom_tier = 'vip'").await, 0);
        assert_eq!(count(&context, "SELECT count(rev) FROM ticket_versions").await, 45);
    }

    #[tokio::test]
    async fn footers_are_decrypted_once_for_all_queries() {
        let ring = ring();
        let (store, table) = stored(&[encoded(&ring, "a", 0, 50), encoded(&ring, "b", 50, 80)]).await;
        let cache = MetadataCache::default();
        for query in 1..=3u64 {
            let context = live(&store, &ring, &cache, &table);
            run(&context, "SELECT status FROM tickets WHERE rev > 2").await.unwrap();
            let (hits, misses) = cache.hits_and_misses();
            assert_eq!(misses, 2, "query {query}");
            assert!(hits >= 2 * (query - 1), "query {query}: {hits}");
        }
        // Another cache, as another session has it, starts from nothing; a small one keeps nothing.
        let small = MetadataCache::with_capacity(1);
        for _ in 0..2 {
            run(&live(&store, &ring, &small, &table), "SELECT status FROM tickets").await.unwrap();
        }
        assert_eq!(small.hits_and_misses(), (0, 4));
        assert!(!format!("{cache:?}").contains("5a5a"));
    }

    #[tokio::test]
    async fn files_that_bounds_exclude_are_not_opened() {
        let ring = ring();
        let files: Vec<_> = (0..4).map(|file| encoded(&ring, &format!("f{file}"), file * 50, file * 50 + 50)).collect();
        let (store, table) = stored(&files).await;
        let cases = [
            (format!("ticket_id = '{}'", id(120)), 1),
            (format!("ticket_id IN ('{}', '{}')", id(3), id(199)), 2),
            (format!("updated_at >= to_timestamp_millis({})", updated_ms(100)), 2),
            (format!("updated_at < to_timestamp_millis({})", updated_ms(0)), 0),
            ("rev = 3".to_owned(), 4),
        ];
        for (filter, opened) in cases {
            let cache = MetadataCache::default();
            let context = live(&store, &ring, &cache, &table);
            run(&context, &format!("SELECT ticket_id, status FROM tickets WHERE {filter}")).await.unwrap();
            assert_eq!(cache.hits_and_misses().1, opened, "{filter}");
        }
        let cache = MetadataCache::default();
        assert!(count(&live(&store, &ring, &cache, &table), "SELECT count(*) FROM tickets").await > 190);
        assert_eq!(cache.hits_and_misses(), (0, 0), "a count reads no file");
    }

    #[tokio::test]
    async fn failing_filter_is_not_taken_for_damage() {
        let ring = ring();
        let (store, table) = stored(&[encoded(&ring, "a", 0, 50)]).await;
        let context = live(&store, &ring, &MetadataCache::default(), &table);
        let error = run(&context, "SELECT ticket_id FROM tickets WHERE 10 / (rev - 3) > 1").await.unwrap_err();
        assert!(ours(&error).is_none(), "{error:?}");
    }

    #[tokio::test]
    async fn attacks_on_the_store_are_data_errors_that_name_the_file() {
        let ring = ring();
        let good = encoded(&ring, "a", 0, 60);
        let path = good.1.path.clone();
        let (store, table) = stored(std::slice::from_ref(&good)).await;
        let scan = || live(&store, &ring, &MetadataCache::default(), &table);
        run(&scan(), "SELECT * FROM ticket_versions").await.unwrap();

        let (batch, _) = fixtures::rows(0, 60);
        let mut plain = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut plain, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let padded = [vec![0; good.0.len() - plain.len().min(good.0.len())], plain.clone()].concat();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("plaintext file", plain),
            ("plaintext file of the same length", padded),
            ("another valid file of the lake", encoded(&ring, "b", 0, 60).0.to_vec()),
            ("the same rows encoded again", encoded(&ring, "a", 0, 60).0.to_vec()),
            ("cut at its end", good.0[..good.0.len() - 1].to_vec()),
            ("cut to half", good.0[..good.0.len() / 2].to_vec()),
            ("empty", Vec::new()),
        ];
        for (what, bytes) in cases {
            put(&store, &path, bytes).await;
            assert_data_error(&scan(), what).await;
        }
        // With the metadata in the cache, damage of the body alone must be found too.
        put(&store, &path, good.0.clone()).await;
        let warm = live(&store, &ring, &MetadataCache::default(), &table);
        run(&warm, "SELECT * FROM ticket_versions").await.unwrap();
        put(&store, &path, good.0[..200].to_vec()).await;
        assert_data_error(&warm, "cut while the lake is open").await;
        put(&store, &path, encoded(&ring, "a", 0, 60).0).await;
        assert_data_error(&warm, "swapped while the lake is open").await;
        store.delete(&Path::from(path.as_str())).await.unwrap();
        assert_data_error(&scan(), "deleted").await;
    }

    #[tokio::test]
    async fn cut_file_on_disk_is_a_data_error() {
        let ring = ring();
        let (bytes, file) = encoded(&ring, "a", 0, 60);
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn ObjectStore> =
            Arc::new(object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let table = TableState { schema: schema(), files: vec![Arc::new(file.clone())] };
        put(&disk, &file.path, bytes.clone()).await;
        let warm = live(&disk, &ring, &MetadataCache::default(), &table);
        run(&warm, "SELECT * FROM ticket_versions").await.unwrap();
        for length in [0, 1, 200, bytes.len() - 1] {
            put(&disk, &file.path, bytes.slice(..length)).await;
            let cold = live(&disk, &ring, &MetadataCache::default(), &table);
            assert_data_error(&cold, &format!("cut to {length}, metadata unread")).await;
            if length <= 200 {
                assert_data_error(&warm, &format!("cut to {length}, metadata cached")).await;
            }
        }
    }

    #[tokio::test]
    async fn search_for_keys_finds_damage_too() {
        let ring = ring();
        let (bytes, file) = encoded(&ring, "a", 0, 60);
        let mut flipped = bytes.to_vec();
        flipped[40] ^= 1;
        let (store, table) = stored(&[(flipped.into(), file)]).await;
        let wanted = HashSet::from([id(7)]);
        let cache = MetadataCache::default();
        let error = find_keys(&store, &cache, &ring, &table.files[0], "ticket_id", &wanted).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("data/tickets/a.parquet"), "{error}");
        let foreign = KeyRing::generate("lake", 0).unwrap();
        let fresh = MetadataCache::default();
        let error = find_keys(&store, &fresh, &foreign, &table.files[0], "ticket_id", &wanted).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
    }

    #[tokio::test]
    async fn chunk_moved_inside_a_file_is_a_data_error() {
        let ring = ring();
        let good = encoded(&ring, "a", 0, 60);
        let (store, table) = stored(std::slice::from_ref(&good)).await;
        let access = Access { store: Arc::clone(&store), ring: ring.clone(), cache: MetadataCache::default() };
        let metadata = access.metadata(&table.files[0]).await.unwrap();
        let group = metadata.row_group(0);
        let range = |column: usize| {
            let (start, length) = group.column(column).byte_range();
            start as usize..(start + length) as usize
        };
        // One module of the second column over the first column's of the same place.
        let mut moved = good.0.to_vec();
        let (first, second) = (range(0), range(1));
        let length = first.len().min(second.len());
        moved.copy_within(second.start..second.start + length, first.start);
        put(&store, &good.1.path, moved).await;
        assert_data_error(&live(&store, &ring, &MetadataCache::default(), &table), "moved chunk").await;
    }

    #[tokio::test]
    async fn ring_of_other_keys_opens_no_file() {
        let ring = ring();
        let (store, table) = stored(&[encoded(&ring, "a", 0, 10)]).await;
        let foreign = KeyRing::generate("lake", 0).unwrap();
        assert_data_error(&live(&store, &foreign, &MetadataCache::default(), &table), "key of another ring").await;
    }

    #[tokio::test]
    async fn wanted_keys_are_found_with_position_revision_and_state() {
        let ring = ring();
        let mut big = encoded(&ring, "a", 0, 70_000);
        big.1.superseded = [65_537].into_iter().collect();
        let (store, table) = stored(&[big]).await;
        let file = &table.files[0];
        let rows = [0usize, 5, 11, 65_535, 65_536, 65_537, 69_999];
        let wanted: HashSet<_> = rows.iter().map(|row| id(*row)).chain([id(70_000), id(1_000_000)]).collect();
        let find = |wanted| async move {
            find_keys(&store, &MetadataCache::default(), &ring, file, "ticket_id", &wanted).await.unwrap()
        };
        let found = find(wanted).await;
        let expected: Vec<FoundKey> = rows
            .iter()
            .map(|&row| FoundKey {
                position: row as u32,
                id: id(row),
                updated_at_ms: Some(updated_ms(row)),
                rev: (row % 11 != 0).then_some(row as i64 % 7),
                deleted: row % 97 == 5,
                superseded: row == 65_537,
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn keys_outside_the_bounds_read_nothing() {
        let ring = ring();
        let (store, table) = stored(&[encoded(&ring, "a", 0, 10)]).await;
        let cache = MetadataCache::default();
        let wanted = HashSet::from([id(10), id(500)]);
        let found = find_keys(&store, &cache, &ring, &table.files[0], "ticket_id", &wanted).await.unwrap();
        assert_eq!((found, cache.hits_and_misses()), (Vec::new(), (0, 0)));
    }

    /// One file of two row groups and one small one, encoded once: encoding is what costs.
    static FILES: LazyLock<(KeyRing, Vec<(Bytes, DataFile)>)> = LazyLock::new(|| {
        let ring = ring();
        let files = vec![encoded(&ring, "a", 0, 70_000), encoded(&ring, "b", 70_000, 70_500)];
        (ring, files)
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn scan_with_pushdown_equals_a_naive_filter(
            singles in proptest::collection::btree_set(0u32..70_500, 0..200),
            run_start in 60_000u32..70_000,
            run_length in 0u32..8_000,
            rev in 0i64..8,
            wanted in 0usize..5,
            lower in 0usize..71_000,
            limit in proptest::option::of(1usize..500),
        ) {
            let (ring, files) = &*FILES;
            let superseded: BTreeSet<u32> = singles.into_iter().chain(run_start..(run_start + run_length).min(70_500)).collect();
            let mut files = files.clone();
            files[0].1.superseded = superseded.iter().copied().filter(|row| *row < 70_000).collect();
            files[1].1.superseded = superseded.iter().filter(|row| **row >= 70_000).map(|row| row - 70_000).collect();
            let matches = |row: &usize| {
                let known = !row.is_multiple_of(11) && (*row as i64 % 7) < rev;
                known && status(*row) == status(wanted) && status(wanted).is_some() && *row >= lower
            };
            let is_live = |row: &usize| !superseded.contains(&(*row as u32)) && row % 97 != 5;
            let expected: BTreeMap<String, usize> =
                (0..70_500).filter(matches).filter(is_live).map(|row| (id(row).to_string(), row)).collect();
            let filter = format!(
                "rev < {rev} AND status = '{}' AND updated_at >= to_timestamp_millis({})",
                status(wanted).unwrap_or("none"),
                updated_ms(lower),
            );
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (store, table) = stored(&files).await;
                let context = live(&store, ring, &MetadataCache::default(), &table);
                let all = ids(&context, &format!("SELECT ticket_id FROM tickets WHERE {filter} ORDER BY 1")).await.unwrap();
                prop_assert!(all.iter().eq(expected.keys()), "{} of {}", all.len(), expected.len());
                if let Some(limit) = limit {
                    let some = ids(&context, &format!("SELECT ticket_id FROM tickets WHERE {filter} LIMIT {limit}")).await.unwrap();
                    prop_assert_eq!(some.len(), limit.min(expected.len()));
                    prop_assert!(some.iter().all(|id| expected.contains_key(id)));
                    let any = ids(&context, &format!("SELECT ticket_id FROM tickets LIMIT {limit}")).await.unwrap();
                    prop_assert_eq!(any.len(), limit);
                    prop_assert!(any.iter().all(|text| is_live(&(0..70_500).find(|row| id(*row).to_string() == *text).unwrap())));
                }
                Ok(())
            })?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn damage_anywhere_is_found_and_never_gives_wrong_rows(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
            static SMALL: LazyLock<(KeyRing, (Bytes, DataFile))> = LazyLock::new(|| {
                let ring = ring();
                let file = encoded(&ring, "a", 0, 40);
                (ring, file)
            });
            let (ring, (bytes, file)) = &*SMALL;
            let at = at.index(bytes.len());
            let mut damaged = bytes.to_vec();
            if cut {
                damaged.truncate(at);
            } else {
                damaged[at] ^= 1 << bit;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (store, table) = stored(&[(damaged.into(), file.clone())]).await;
                let context = live(&store, ring, &MetadataCache::default(), &table);
                match run(&context, "SELECT * FROM ticket_versions").await {
                    // The magic at the head of a file is read by nobody.
                    Ok(batches) => {
                        prop_assert!(at < 4 && !cut);
                        prop_assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 40);
                    }
                    Err(error) => {
                        let found = ours(&error);
                        prop_assert!(found.is_some_and(|found| found.kind() == ErrorKind::Data), "byte {}: {:?}", at, error);
                        prop_assert!(found.unwrap().to_string().contains("data/tickets/a.parquet"), "byte {}: {:?}", at, error);
                    }
                }
                Ok(())
            })?;
        }
    }
}
