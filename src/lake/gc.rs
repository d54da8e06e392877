//! Garbage: objects that nothing names any more.
//!
//! ```text
//! data/<table>/<uuid>.parquet, .index   no kept version consists of it, and it is older than the age
//! log/…                                 before the oldest version that is kept
//! leases/<purpose>/<number>             a lower number than the lease's
//! leases/probe-…                        older than the age
//! NAME#DIGITS (file: only)              a put that was cut off, older than the age
//! ```
//!
//! A kept version names its files through the log, so every kept commit is read; if one cannot be, nothing is deleted. An
//! index lives and dies with its data file. The age is what keeps an extract in progress safe: it has put files that only
//! its commit will name, and the objects are listed before the log is read, so that a commit in between is seen. Objects
//! of other names were put by somebody else and stay.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use crate::error::{Error, Result};
use crate::lake::{Lake, Purpose, layout, lease, store};
use crate::model::Stream;

/// How old an object has to be by default before it is deleted as unused: longer than any run takes between putting a file
/// and committing it.
pub const DEFAULT_GC_AFTER: Duration = Duration::from_hours(24);

/// Objects that can be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Data files and indexes that no kept version names, with their sizes in bytes.
    pub data: Vec<(Path, u64)>,
    /// Commits and snapshots of versions that are not kept, oldest first.
    pub log: Vec<Path>,
    /// Leases that ended and were followed by others, and what a check of rights left.
    pub leases: Vec<Path>,
    /// Files of puts that were cut off.
    pub staged: Vec<PathBuf>,
}

impl Garbage {
    /// Returns how many objects there are.
    #[must_use]
    pub fn objects(&self) -> u64 {
        (self.data.len() + self.log.len() + self.leases.len() + self.staged.len()) as u64
    }

    /// Returns the bytes of the data files and indexes.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Lake {
    /// Finds what can be deleted: unused objects last changed `older_than` ago or earlier, and leftovers of the log and of leases.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when a kept commit cannot be read: what it names is not known then.
    pub async fn garbage(&self, older_than: Duration) -> Result<Garbage> {
        let age_ms = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
        let cut_ms = self.0.clock.now().as_millisecond().saturating_sub(age_ms);
        let mut garbage = self.unused(Some(cut_ms)).await?;
        for purpose in [Purpose::Extract, Purpose::Maintenance, Purpose::Record] {
            let mut numbers = lease::list(self.0.store.as_ref(), purpose).await?;
            numbers.pop();
            garbage.leases.extend(numbers.into_iter().map(|number| layout::lease(purpose, number)));
        }
        let probes = list(self.0.store.as_ref(), layout::LEASES)
            .await?
            .into_iter()
            .filter(|object| layout::is_probe(&object.location) && object.last_modified.timestamp_millis() < cut_ms);
        garbage.leases.extend(probes.map(|object| object.location));
        Ok(garbage)
    }

    /// Finds unused data files older than the cut, or all of them when no extract can be in progress.
    pub(super) async fn unused(&self, before_ms: Option<i64>) -> Result<Garbage> {
        let Self(lake) = self;
        // Before the log: what is committed meanwhile is named by the time the log is read.
        let objects = list(lake.store.as_ref(), layout::DATA).await?;
        let kept = lake.log.kept().await?;
        let mut garbage = Garbage { log: lake.log.leftovers().await?, ..Garbage::default() };
        // Without a version nothing says what the files are: the log may have been lost.
        if kept.oldest > 0 {
            let named: HashSet<&str> = kept.files.keys().filter_map(|path| stem(path)).collect();
            let is_old =
                |object: &ObjectMeta| before_ms.is_none_or(|cut| object.last_modified.timestamp_millis() < cut);
            for object in objects.into_iter().filter(is_old) {
                if stem(object.location.as_ref()).is_some_and(|stem| !named.contains(stem)) {
                    garbage.data.push((object.location, object.size));
                }
            }
        }
        if let Some(folder) = lake.url.strip_prefix("file:").map(PathBuf::from) {
            // The lease is being renewed meanwhile.
            let spared = before_ms.is_none().then(|| folder.join(layout::LEASES));
            garbage.staged = blocking(move || store::staged(&folder, before_ms, spared.as_deref())).await?;
        }
        Ok(garbage)
    }

    /// Finds and deletes what can be deleted; `holder` is shown to whoever is refused the lease for maintenance meanwhile.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when another process holds the lease; those of
    /// [`garbage`](Self::garbage) and [`delete_garbage`](Self::delete_garbage).
    pub async fn gc(&self, older_than: Duration, holder: &str) -> Result<Garbage> {
        let lease = self.lease(Purpose::Maintenance, holder).await?;
        let outcome = async {
            let garbage = self.garbage(older_than).await?;
            self.delete_garbage(&garbage).await?;
            Ok(garbage)
        }
        .await;
        let released = lease.release().await;
        let garbage = outcome?;
        released?;
        Ok(garbage)
    }

    /// Deletes what was found; returns how many objects went. The lease for maintenance must be held.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store fails: what is left is found again.
    pub async fn delete_garbage(&self, garbage: &Garbage) -> Result<u64> {
        let store = &self.0.store;
        let mut deleted = 0;
        let first = garbage.log.iter().chain(&garbage.leases);
        for object in first {
            deleted += u64::from(gone(store.delete_stream(stream::iter([Ok(object.clone())]).boxed()).next().await)?);
        }
        let data: Vec<_> = garbage.data.iter().map(|(object, _)| Ok(object.clone())).collect();
        let mut answers = store.delete_stream(stream::iter(data).boxed());
        while let Some(answer) = answers.next().await {
            deleted += u64::from(gone(Some(answer))?);
        }
        let staged = garbage.staged.clone();
        deleted += blocking(move || remove(&staged)).await?;
        Ok(deleted)
    }

    /// Lists the data files and indexes that are there and that no kept version names, whatever their age.
    pub(super) async fn unnamed(&self) -> Result<BTreeSet<String>> {
        let garbage = self.unused(None).await?;
        Ok(garbage.data.into_iter().map(|(object, _)| object.to_string()).collect())
    }
}

/// Returns the path of a data file or of its index without the end; none for objects of other names.
fn stem(path: &str) -> Option<&str> {
    let stem = path.strip_suffix(".parquet").or_else(|| path.strip_suffix(".index"))?;
    let file = format!("{stem}.parquet");
    Stream::ALL.into_iter().chain(Stream::OWN).any(|stream| layout::is_data_file(stream, &file)).then_some(stem)
}

async fn list(store: &dyn ObjectStore, folder: &str) -> Result<Vec<ObjectMeta>> {
    let folder = Path::from(folder);
    store.list(Some(&folder)).try_collect().await.map_err(|error| store::failed("list", &folder, error))
}

/// Reads the answer to a deletion: what is gone already is as good.
fn gone(answer: Option<object_store::Result<Path>>) -> Result<bool> {
    match answer {
        None | Some(Ok(_)) => Ok(true),
        Some(Err(object_store::Error::NotFound { .. })) => Ok(false),
        Some(Err(error)) => Err(store::failed("delete", &Path::from(layout::DATA), error)),
    }
}

fn remove(staged: &[PathBuf]) -> Result<u64> {
    let mut removed = 0;
    for file in staged {
        match std::fs::remove_file(file) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unremoved(file, error)),
        }
    }
    Ok(removed)
}

fn unremoved(file: &FilePath, error: std::io::Error) -> Error {
    Error::unavailable("failed to remove the file of a put that was cut off")
        .with_context("file", file.display())
        .with_source(error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Error::internal("failed to look through the lake's folder").with_source(error))?
}

#[cfg(test)]
mod tests;
