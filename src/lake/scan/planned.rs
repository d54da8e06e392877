//! How many files a scan is to read, for whoever shows how far it is.

use std::sync::Arc;

use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::DataSource;

use crate::lake::scan::guard::Guard;

/// Returns how many files, or parts of files, a scan of the lake is to look at; 0 for what is no scan of files.
#[must_use]
pub fn planned_files(source: &Arc<dyn DataSource>) -> usize {
    if let Some(guard) = source.downcast_ref::<Guard>() {
        return planned_files(&guard.inner);
    }
    source.downcast_ref::<FileScanConfig>().map_or(0, |config| config.file_groups.iter().map(FileGroup::len).sum())
}
