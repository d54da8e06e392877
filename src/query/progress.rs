//! How far a running query is: what the engine's operators count while they work.
//!
//! Files are the measure of what is left: a scan knows from the manifest how many it will open, and how much of each is
//! read depends on columns and filters. A file that is read in parts counts once for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;

use crate::lake::scan::planned_files;
use crate::query::explain::{Figures, Operator};

/// A view of a query from outside, while it runs and after it.
#[derive(Debug, Clone)]
pub struct Gauge {
    physical: Arc<dyn ExecutionPlan>,
    rows: Arc<AtomicU64>,
}

/// What a query has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Rows of the result that came out of the engine.
    pub rows: u64,
    /// Bytes asked of the store.
    pub read_bytes: u64,
    /// Files that were read or found to hold nothing.
    pub files: u64,
    /// Files that the plan has to look at.
    pub planned_files: u64,
}

impl Gauge {
    pub(super) fn new(physical: Arc<dyn ExecutionPlan>) -> Self {
        Self { physical, rows: Arc::default() }
    }

    pub(super) fn add_rows(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Returns what was done until now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let mut reading = Reading { rows: self.rows.load(Ordering::Relaxed), ..Reading::default() };
        add(&self.physical, &mut reading);
        // Parts of a file that are shared out while running are files of their own.
        reading.planned_files = reading.planned_files.max(reading.files);
        reading
    }

    /// Returns the operators with what each of them did until now.
    #[must_use]
    pub fn operators(&self) -> Operator {
        Operator::of(&self.physical)
    }
}

fn add(plan: &Arc<dyn ExecutionPlan>, reading: &mut Reading) {
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
        reading.planned_files += planned_files(scan.data_source()) as u64;
        if let Some(metrics) = plan.metrics() {
            let figures = Figures::of(&metrics);
            reading.files += figures.files_done;
            reading.read_bytes += figures.read_bytes.unwrap_or(0);
        }
    }
    for input in plan.children() {
        add(input, reading);
    }
}
