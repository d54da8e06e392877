//! Expiry: old versions end, so that time travel does not keep every file for ever.
//!
//! The oldest version that is kept gets a snapshot, which is read back, and then the log begins there: see
//! [`log`](crate::lake::log). All versions before it end in that one put. Their commits and snapshots are deleted after it,
//! oldest first; whatever a crash leaves of them is deleted by the next expiry. Data files that only expired versions
//! consist of are garbage then, and go by their age.
//!
//! A cut in time keeps the version that was the newest at the cut, so that every moment since then can be read.

use object_store::ObjectStoreExt;

use crate::error::{ErrorKind, Result};
use crate::lake::{Lake, WRITER, layout, store};

/// Which versions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expire {
    /// Those that were not the newest any more at this time, milliseconds since 1970.
    Before(i64),
    /// Those before this version, the newest excepted.
    BeforeVersion(u64),
    /// All but the newest.
    AllButNewest,
}

/// What an expiry did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    /// The oldest version that is kept after it; 0 in an empty lake.
    pub oldest: u64,
    /// Versions that end.
    pub versions: u64,
    /// Objects of the log that were deleted; those of an earlier expiry that was cut off are among them. A plan counts only
    /// these.
    pub objects: u64,
}

impl Lake {
    /// Tells what [`expire`](Self::expire) would do, and changes nothing.
    ///
    /// # Errors
    ///
    /// Those of [`latest`](Self::latest).
    pub async fn plan_expiry(&self, expire: Expire) -> Result<Expiry> {
        let log = &self.0.log;
        let oldest_now = log.oldest().await?;
        let oldest = match expire {
            Expire::AllButNewest => log.latest().await?.version,
            Expire::BeforeVersion(version) => log.latest().await?.version.min(version),
            Expire::Before(cut_ms) => match log.at_time(cut_ms).await {
                Ok(manifest) => manifest.version,
                // All that is kept is younger.
                Err(error) if error.kind() == ErrorKind::Config => oldest_now,
                Err(error) => return Err(error),
            },
        };
        let oldest = oldest.max(oldest_now);
        let objects = log.leftovers().await?.len() as u64;
        Ok(Expiry { oldest, versions: oldest - oldest_now, objects })
    }

    /// Ends old versions, and deletes their commits and snapshots. The lease for maintenance must be held.
    ///
    /// # Errors
    ///
    /// [`Data`](ErrorKind::Data) when the version that the log is to begin with cannot be read: nothing ends then.
    /// [`Unavailable`](ErrorKind::Unavailable) when the store fails: repeating it completes it.
    pub async fn expire(&self, expire: Expire) -> Result<Expiry> {
        let plan = self.plan_expiry(expire).await?;
        let Self(lake) = self;
        if plan.versions > 0 {
            let id = layout::new_uuid(lake.clock.as_ref()).to_string();
            lake.log.begin_at(plan.oldest, id, WRITER.to_owned()).await?;
        }
        let mut objects = 0;
        // One after the other: what is left of a deletion that is cut off has no gap.
        for object in lake.log.leftovers().await? {
            match lake.store.delete(&object).await {
                Ok(()) => objects += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(store::failed("delete", &object, error)),
            }
        }
        Ok(Expiry { objects, ..plan })
    }
}

#[cfg(test)]
mod tests;
