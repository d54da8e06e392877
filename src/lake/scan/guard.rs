//! DataFusion's file scan, kept from hiding damage.
//!
//! Everything is DataFusion's own work (projection, filters inside the decoder, pruning of row groups), except that a failure
//! or a panic of the decoder becomes a data error that names the file. The guard has no serialized form, so a plan that
//! `datafusion-proto` is to send elsewhere fails, instead of losing its pins, row selections and keys on the way.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::error::ArrowError;
use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source::{DataSource, OpenArgs};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, Partitioning, SortOrderPushdownResult};
use futures::StreamExt;
use parquet::errors::ParquetError;

use crate::error::Error;
use crate::lake::scan::find::damaged;

/// The path of the file that each partition of a scan reads at present.
#[derive(Debug, Clone, Default)]
pub(super) struct CurrentFiles(Arc<Mutex<HashMap<usize, String>>>);

impl CurrentFiles {
    pub(super) fn set(&self, partition: usize, path: &str) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.get(&partition).is_none_or(|present| present != path) {
            files.insert(partition, path.to_owned());
        }
    }

    fn get(&self, partition: usize) -> String {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(&partition).cloned().unwrap_or_default()
    }
}

/// A data source whose streams report damage as such.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) inner: Arc<dyn DataSource>,
    pub(super) files: CurrentFiles,
}

impl Guard {
    fn around(&self, inner: Arc<dyn DataSource>) -> Arc<dyn DataSource> {
        Arc::new(Self { inner, files: self.files.clone() })
    }
}

impl DataSource for Guard {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.open_with_args(OpenArgs::new(partition, context))
    }

    fn open_with_args(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
        let partition = args.partition;
        let files = self.files.clone();
        let stream = self.inner.open_with_args(args)?;
        let schema = stream.schema();
        let guarded = AssertUnwindSafe(stream).catch_unwind().map(move |item| match item {
            Ok(Ok(batch)) => Ok(batch),
            Ok(Err(cause)) => Err(with_kind(cause, &files.get(partition))),
            // The payload is not kept: a decoder may have put values into its message.
            Err(_panic) => Err(DataFusionError::External(Box::new(damaged(&files.get(partition))))),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, guarded)))
    }

    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt_as(t, f)
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        let inner = self.inner.repartitioned(target_partitions, repartition_file_min_size, output_ordering)?;
        Ok(inner.map(|inner| self.around(inner)))
    }

    fn output_partitioning(&self) -> Partitioning {
        self.inner.output_partitioning()
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        self.inner.eq_properties()
    }

    fn scheduling_type(&self) -> SchedulingType {
        self.inner.scheduling_type()
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.inner.partition_statistics(partition)
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        self.inner.with_fetch(limit).map(|inner| self.around(inner))
    }

    fn fetch(&self) -> Option<usize> {
        self.inner.fetch()
    }

    fn metrics(&self) -> ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(self.inner.try_swapping_with_projection(projection)?.map(|inner| self.around(inner)))
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn DataSource>>> {
        let pushed = self.inner.try_pushdown_filters(filters, config)?;
        Ok(FilterPushdownPropagation {
            filters: pushed.filters,
            updated_node: pushed.updated_node.map(|inner| self.around(inner)),
        })
    }

    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn DataSource>>> {
        self.inner.try_pushdown_sort(order)?.try_map(|inner| Ok(self.around(inner)))
    }

    fn with_preserve_order(&self, preserve_order: bool) -> Option<Arc<dyn DataSource>> {
        self.inner.with_preserve_order(preserve_order).map(|inner| self.around(inner))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Arc<dyn DataSource>> {
        self.inner.with_new_state(state).map(|inner| self.around(inner))
    }

    fn create_sibling_state(&self, config: &ConfigOptions) -> Option<Arc<dyn Any + Send + Sync>> {
        self.inner.create_sibling_state(config)
    }
}

/// What DataFusion writes before the failure of a filter that runs inside the decoder: the SQL is wrong then, not the file.
const FILTER_FAILURE: &str = "Error evaluating filter predicate";

/// Gives an error of the decoder its kind; errors of ours keep theirs, and errors of expressions stay what they are.
fn with_kind(cause: DataFusionError, path: &str) -> DataFusionError {
    let error = match cause {
        DataFusionError::ParquetError(inner) => match *inner {
            ParquetError::External(inner) => match inner.downcast::<Error>() {
                Ok(error) => *error,
                Err(other) if is_filter_failure(other.as_ref()) => return DataFusionError::External(other),
                Err(other) => damaged(path).with_source(other),
            },
            other if is_filter_failure(&other) => return DataFusionError::ParquetError(Box::new(other)),
            other => damaged(path).with_source(other),
        },
        DataFusionError::ArrowError(inner, trace) => match *inner {
            ArrowError::ExternalError(inner) => match inner.downcast::<ParquetError>() {
                Ok(inner) => return with_kind(DataFusionError::ParquetError(inner), path),
                Err(other) => return DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(other)), trace),
            },
            ArrowError::ParquetError(text) if !text.contains(FILTER_FAILURE) => {
                damaged(path).with_source(ParquetError::General(text))
            }
            other => return DataFusionError::ArrowError(Box::new(other), trace),
        },
        DataFusionError::Context(text, inner) => {
            return DataFusionError::Context(text, Box::new(with_kind(*inner, path)));
        }
        other => return other,
    };
    DataFusionError::External(Box::new(error))
}

fn is_filter_failure(cause: &dyn std::error::Error) -> bool {
    cause.to_string().contains(FILTER_FAILURE)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Schema, SchemaRef};
    use futures::{FutureExt, stream};

    use super::*;
    use crate::error::ErrorKind;

    type Failure = fn() -> DataFusionError;

    /// A source whose stream fails in one way.
    #[derive(Debug)]
    struct Failing(Failure);

    fn no_columns() -> SchemaRef {
        Arc::new(Schema::empty())
    }

    impl DataSource for Failing {
        fn open(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
            let fail = self.0;
            let stream = stream::once(async move { Err(fail()) });
            Ok(Box::pin(RecordBatchStreamAdapter::new(no_columns(), stream)))
        }

        fn fmt_as(&self, _t: DisplayFormatType, _f: &mut fmt::Formatter) -> fmt::Result {
            Ok(())
        }

        fn output_partitioning(&self) -> Partitioning {
            Partitioning::UnknownPartitioning(1)
        }

        fn eq_properties(&self) -> EquivalenceProperties {
            EquivalenceProperties::new(no_columns())
        }

        fn partition_statistics(&self, _partition: Option<usize>) -> Result<Arc<Statistics>> {
            Ok(Arc::new(Statistics::new_unknown(&no_columns())))
        }

        fn with_fetch(&self, _limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
            None
        }

        fn fetch(&self) -> Option<usize> {
            None
        }

        fn try_swapping_with_projection(&self, _projection: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
            Ok(None)
        }

        fn apply_expressions(
            &self,
            _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
        ) -> Result<TreeNodeRecursion> {
            Ok(TreeNodeRecursion::Continue)
        }
    }

    #[test]
    fn failures_of_a_decoder_become_data_errors_and_others_stay() {
        let cases: [(&str, Failure, Option<ErrorKind>); 8] = [
            ("panic", || panic!("index out of bounds: needle"), Some(ErrorKind::Data)),
            (
                "decryption",
                || parquet_error(ParquetError::General("decryption failed".to_owned())),
                Some(ErrorKind::Data),
            ),
            ("end of file", || parquet_error(ParquetError::EOF("page".to_owned())), Some(ErrorKind::Data)),
            (
                "error of ours inside Parquet's",
                || parquet_error(ParquetError::External(Box::new(Error::denied("key ring does not have the key")))),
                Some(ErrorKind::Denied),
            ),
            (
                "error through Arrow",
                || ArrowError::ParquetError("decryption failed".to_owned()).into(),
                Some(ErrorKind::Data),
            ),
            (
                "filter inside the decoder",
                || parquet_error(ParquetError::ArrowError(format!("{FILTER_FAILURE}: DivideByZero"))),
                None,
            ),
            ("memory", || DataFusionError::ResourcesExhausted("pool".to_owned()), None),
            ("overflow", || ArrowError::ComputeError("overflow".to_owned()).into(), None),
        ];
        for (what, fail, kind) in cases {
            let files = CurrentFiles::default();
            files.set(0, "data/tickets/a.parquet");
            let guard = Guard { inner: Arc::new(Failing(fail)), files };
            let mut stream = guard.open(0, Arc::new(TaskContext::default())).unwrap();
            let error = stream.next().now_or_never().flatten().unwrap().unwrap_err();
            let found = match &error {
                DataFusionError::External(inner) => inner.downcast_ref::<Error>(),
                _ => None,
            };
            assert_eq!(found.map(Error::kind), kind, "{what}: {error:?}");
            if kind == Some(ErrorKind::Data) {
                assert!(error.to_string().contains("data/tickets/a.parquet"), "{what}: {error}");
            }
            assert!(!format!("{error:?}").contains("needle"), "{what}");
        }
    }

    fn parquet_error(cause: ParquetError) -> DataFusionError {
        DataFusionError::ParquetError(Box::new(cause))
    }
}
