//! Maintenance: what a lake does for itself, without being asked, when it is due.
//!
//! It runs after an extract, under the maintenance lease. A lease that is held elsewhere means that somebody tidies up
//! already, which is no failure.

use crate::error::{ErrorKind, Result};
use crate::lake::Lake;
use crate::lake::compact::{self, CompactReport, CompactSettings};
use crate::lake::lease::Purpose;

/// What is done when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintainSettings {
    /// How files are joined.
    pub compact: CompactSettings,
    /// Files of a table to be joined from which it is worth a run of its own. Default 16: an hourly extract compacts about
    /// three times in two days. Less rewrites more often; more leaves scans more files to open.
    pub due_files: usize,
}

impl Default for MaintainSettings {
    fn default() -> Self {
        Self { compact: CompactSettings::default(), due_files: 16 }
    }
}

/// What maintenance did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaintainReport {
    /// Whether another process holds the maintenance lease, so that nothing was done.
    pub is_held: bool,
    /// What was joined.
    pub compacted: CompactReport,
}

impl Lake {
    /// Does what is due; `holder` is shown to whoever is refused the maintenance lease meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`compact`](Self::compact), less the lease's.
    pub async fn maintain(&self, settings: &MaintainSettings, holder: &str) -> Result<MaintainReport> {
        let mut report = MaintainReport::default();
        let manifest = self.latest().await?;
        if !compact::is_due(&manifest, &settings.compact, settings.due_files) {
            return Ok(report);
        }
        let mut lease = match self.lease(Purpose::Maintenance, holder).await {
            Ok(lease) => lease,
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(MaintainReport { is_held: true, ..report }),
            Err(error) => return Err(error),
        };
        let compacted =
            compact::run(&self.0, &settings.compact, Some(settings.due_files), &mut lease, &mut |_| ()).await;
        let released = lease.release().await;
        report.compacted = compacted?;
        released?;
        Ok(report)
    }
}
