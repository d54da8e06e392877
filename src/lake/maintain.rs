//! Maintenance: what a lake does for itself, without being asked, when it is due.
//!
//! Files are joined when there are enough of them. In the same runs, and when versions are overdue by a day, what is older
//! than the settings allow goes, and so do objects that nothing names any more.
//!
//! It runs after an extract, under the maintenance lease. A lease that is held elsewhere means that somebody tidies up
//! already, which is no failure.

use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::lake::Lake;
use crate::lake::compact::{self, CompactReport, CompactSettings};
use crate::lake::expire::Expire;
use crate::lake::gc::DEFAULT_GC_AFTER;
use crate::lake::lease::{Lease, Purpose, release_all, renew_all};
use crate::lake::restricted;
use crate::lake::retain::{RetainPlan, RetainSettings};

/// What is done when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintainSettings {
    /// How files are joined.
    pub compact: CompactSettings,
    /// Files of a table to be joined from which it is worth a run of its own. Default 16: an hourly extract compacts about
    /// three times in two days. Less rewrites more often; more leaves scans more files to open.
    pub due_files: usize,
    /// What is kept for how long.
    pub retain: RetainSettings,
    /// How old an object that nothing names has to be before it is deleted.
    pub gc_after: Duration,
}

/// How long versions may stay beyond their time before a run of its own is worth it.
const OVERDUE: Duration = Duration::from_hours(24);

impl Default for MaintainSettings {
    fn default() -> Self {
        Self {
            compact: CompactSettings::default(),
            due_files: 16,
            retain: RetainSettings::default(),
            gc_after: DEFAULT_GC_AFTER,
        }
    }
}

/// What maintenance did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaintainReport {
    /// Whether another process holds the maintenance lease, so that nothing was done.
    pub is_held: bool,
    /// What was joined.
    pub compacted: CompactReport,
    /// What was dropped for its age.
    pub retained: RetainPlan,
    /// Objects deleted that nothing named any more.
    pub deleted: u64,
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
        if !compact::is_due(&manifest, &settings.compact, settings.due_files) && !self.is_overdue(settings).await? {
            return Ok(report);
        }
        let lease = match self.lease(Purpose::Maintenance, holder).await {
            Ok(lease) => lease,
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(MaintainReport { is_held: true, ..report }),
            Err(error) => return Err(error),
        };
        let mut leases = vec![lease];
        let outcome = self.maintain_under(settings, holder, &mut leases, &mut report).await;
        let released = release_all(leases).await;
        outcome?;
        released?;
        Ok(report)
    }

    async fn maintain_under(
        &self,
        settings: &MaintainSettings,
        holder: &str,
        leases: &mut Vec<Lease>,
        report: &mut MaintainReport,
    ) -> Result<()> {
        if let Some(lease) = leases.first_mut() {
            report.compacted =
                compact::run(&self.0, &settings.compact, Some(settings.due_files), lease, &mut |_| ()).await?;
        }
        let retain = self.retainable(&settings.retain).await?;
        report.retained = match self.retain_under(&retain, holder, leases).await {
            // An extract has begun: old tickets wait for the next time.
            Err(error) if error.kind() == ErrorKind::Conflict && retain.keep_tickets.is_some() => {
                let without = RetainSettings { keep_tickets: None, ..retain };
                self.retain_under(&without, holder, leases).await?
            }
            other => other?,
        };
        renew_all(leases).await?;
        let garbage = self.garbage(settings.gc_after).await?;
        report.deleted = self.delete_garbage(&garbage).await?;
        Ok(())
    }

    /// Leaves rows alone where this process cannot rewrite the files that they may stand in.
    async fn retainable(&self, settings: &RetainSettings) -> Result<RetainSettings> {
        if settings.keep_history.is_none() && settings.keep_tickets.is_none() {
            return Ok(settings.clone());
        }
        let manifest = self.latest().await?;
        let mut files = manifest.tables.values().flat_map(|table| &table.files);
        if files.all(|file| restricted::is_rewritable(&self.0.ring, file)) {
            return Ok(settings.clone());
        }
        tracing::warn!("rows stay beyond their time: this process does not have the key of restricted columns");
        Ok(RetainSettings { keep_history: None, keep_tickets: None, ..settings.clone() })
    }

    /// Tells whether versions have stayed for so long beyond their time that they should go now.
    async fn is_overdue(&self, settings: &MaintainSettings) -> Result<bool> {
        let keep = settings.retain.keep_versions.saturating_add(OVERDUE);
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let cut_ms = self.0.clock.now().as_millisecond().saturating_sub(keep_ms);
        let oldest = self.0.log.oldest().await?;
        Ok(oldest > 0
            && self.0.log.read_commit(oldest).await?.committed_ms < cut_ms
            && self.plan_expiry(Expire::Before(cut_ms)).await?.versions > 0)
    }
}
