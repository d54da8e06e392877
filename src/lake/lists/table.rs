//! The table `ticket_lists`: the files of those recordings that a filter does not exclude.
//!
//! What is the same in all rows of a recording (name, id, time, version, digest) is known from the manifest, so that a filter on
//! it reads no file of other recordings, not even a footer.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Statistics};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectStore;

use crate::error::Result as LakeResult;
use crate::keys::KeyRing;
use crate::lake::lists::{Recording, schema};
use crate::lake::manifest::{DataFile, Manifest, TableState};
use crate::lake::scan::{self, MetadataCache, View};
use crate::model::Stream;

/// Makes the table at one version; it is there before anything was recorded.
pub(in crate::lake) fn table(
    store: Arc<dyn ObjectStore>,
    ring: KeyRing,
    cache: MetadataCache,
    manifest: &Manifest,
) -> LakeResult<Arc<dyn TableProvider>> {
    let empty = || TableState { schema: schema(), files: Vec::new() };
    let state = manifest.tables.get(&Stream::TicketLists).cloned().unwrap_or_else(empty);
    let known: HashMap<&str, &Arc<Recording>> =
        manifest.lists.iter().map(|recording| (recording.id.as_str(), recording)).collect();
    let recordings = state.files.iter().map(|file| {
        let recording = file.recording.as_deref().and_then(|id| known.get(id).copied());
        recording.map(Arc::clone)
    });
    let recordings = recordings.collect();
    let files = Files { store, ring, cache, state };
    Ok(Arc::new(Lists { all: files.scanned(|_| true)?, files, recordings }))
}

/// What a scan of some files is made of.
#[derive(Debug)]
struct Files {
    store: Arc<dyn ObjectStore>,
    ring: KeyRing,
    cache: MetadataCache,
    state: TableState,
}

impl Files {
    /// Makes the table of the files at some places.
    fn scanned(&self, is_kept: impl Fn(usize) -> bool) -> LakeResult<Arc<dyn TableProvider>> {
        let files = self.state.files.iter().enumerate().filter(|(place, _)| is_kept(*place));
        let files: Vec<Arc<DataFile>> = files.map(|(_, file)| Arc::clone(file)).collect();
        let state = TableState { schema: Arc::clone(&self.state.schema), files };
        let name = Stream::TicketLists.table();
        scan::provider(Arc::clone(&self.store), self.ring.clone(), self.cache.clone(), name, &state, View::Versions)
    }
}

/// The table, with the recording of each file.
#[derive(Debug)]
struct Lists {
    all: Arc<dyn TableProvider>,
    files: Files,
    recordings: Vec<Option<Arc<Recording>>>,
}

impl Lists {
    /// Tells which files may hold rows that the filters let through.
    fn kept(&self, state: &dyn Session, filters: &[Expr]) -> DataFusionResult<Vec<bool>> {
        let mut kept = vec![true; self.recordings.len()];
        let is_constant = |filter: &&Expr| {
            let columns = filter.column_refs();
            !columns.is_empty() && columns.iter().all(|column| CONSTANT.contains(&column.name.as_str()))
        };
        let Some(filter) = conjunction(filters.iter().filter(is_constant).cloned()) else { return Ok(kept) };
        let constants = constants(&self.recordings, &self.schema())?;
        let filter = state.create_physical_expr(filter, &DFSchema::try_from(constants.schema())?)?;
        let answers = filter.evaluate(&constants)?.into_array(constants.num_rows())?;
        if let Some(answers) = answers.as_boolean_opt() {
            for (place, kept) in kept.iter_mut().enumerate() {
                *kept = self.recordings[place].is_none() || (answers.is_valid(place) && answers.value(place));
            }
        }
        Ok(kept)
    }
}

/// The columns that are the same in all rows of a recording, and that nothing changes.
const CONSTANT: [&str; 5] = ["list", "recording", "sql_digest", "recorded_at", "lake_version"];

/// Makes a row of these columns for each recording, of the types that the table has.
fn constants(recordings: &[Option<Arc<Recording>>], columns: &SchemaRef) -> DataFusionResult<RecordBatch> {
    let texts = |of: fn(&Recording) -> &str| -> ArrayRef {
        Arc::new(recordings.iter().map(|recording| recording.as_deref().map(of)).collect::<StringArray>())
    };
    let version = |recording: &Recording| i64::try_from(recording.lake_version).unwrap_or(i64::MAX);
    let values = CONSTANT.map(|column| -> ArrayRef {
        match column {
            "list" => texts(|recording| &recording.list),
            "recording" => texts(|recording| &recording.id),
            "sql_digest" => texts(|recording| &recording.sql_digest),
            "recorded_at" => {
                let times =
                    recordings.iter().map(|recording| recording.as_ref().map(|recording| recording.recorded_ms));
                Arc::new(times.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
            }
            _ => Arc::new(recordings.iter().map(|recording| recording.as_deref().map(version)).collect::<Int64Array>()),
        }
    });
    let fields = CONSTANT.map(|column| columns.field_with_name(column).cloned());
    let fields = fields.into_iter().collect::<Result<Vec<Field>, ArrowError>>()?;
    let values = values.iter().zip(&fields).map(|(values, field)| cast(values, field.data_type()));
    let values = values.collect::<Result<Vec<_>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(recordings.len()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), values, &options)?)
}

#[async_trait]
impl TableProvider for Lists {
    fn schema(&self) -> SchemaRef {
        self.all.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        self.all.statistics()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        self.all.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let kept = self.kept(state, filters)?;
        let some = self.files.scanned(|place| kept.get(place).copied().unwrap_or(true));
        let some = some.map_err(|error| DataFusionError::External(Box::new(error)))?;
        some.scan(state, projection, filters, limit).await
    }
}
