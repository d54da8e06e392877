//! What is kept of the log: where it begins, which files its versions name, what lies around it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::{Log, READS};
use crate::error::{Error, Result};
use crate::lake::commit::Action;
use crate::lake::lists::Recording;
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::{layout, store};
use crate::model::Stream;

/// All that the log keeps.
#[derive(Debug)]
pub(in crate::lake) struct Kept {
    /// The oldest version that can be read; 0 in an empty lake.
    pub(in crate::lake) oldest: u64,
    /// The newest version.
    pub(in crate::lake) newest: Arc<Manifest>,
    /// The data files that any of these versions consists of, as they were added, by path.
    pub(in crate::lake) files: BTreeMap<String, (Stream, Arc<DataFile>)>,
    /// Every recording of a ticket list that their commits tell of, each as often as it was told.
    pub(in crate::lake) lists: Vec<Arc<Recording>>,
}

impl Log {
    /// Returns the oldest version that is kept; 0 in an empty lake.
    pub(in crate::lake) async fn oldest(&self) -> Result<u64> {
        let listing = self.again(|| self.list(0).boxed()).await?;
        Ok(if listing.newest() == 0 { 0 } else { listing.start })
    }

    /// Reads all that is kept.
    ///
    /// # Errors
    ///
    /// Whatever keeps a single kept version from being read: who deletes by the answer must know all of them.
    pub(in crate::lake) async fn kept(&self) -> Result<Kept> {
        self.again(|| self.read_kept().boxed()).await
    }

    async fn read_kept(&self) -> Result<Kept> {
        let listing = self.list(0).await?;
        let newest = listing.newest();
        if newest == 0 {
            return Ok(Kept { oldest: 0, newest: Arc::default(), files: BTreeMap::new(), lists: Vec::new() });
        }
        let oldest = listing.start;
        let mut manifest = Manifest::clone(self.rebuild(&listing, oldest).await?.manifest.as_ref());
        let mut files = BTreeMap::new();
        let mut lists = manifest.lists.clone();
        for (stream, table) in &manifest.tables {
            files.extend(table.files.iter().map(|file| (file.path.clone(), (*stream, Arc::clone(file)))));
        }
        let reads: Vec<_> = (oldest + 1..=newest).map(|version| self.read_commit(version).boxed()).collect();
        let mut commits = stream::iter(reads).buffered(READS);
        while let Some(commit) = commits.try_next().await? {
            for action in &commit.actions {
                match action {
                    Action::Add(stream, file) => {
                        files.insert(file.path.clone(), (*stream, Arc::clone(file)));
                    }
                    Action::List(recording) => lists.push(Arc::clone(recording)),
                    _ => {}
                }
            }
            let object = layout::commit(commit.version);
            manifest.apply(commit).map_err(|error| error.with_context("object", object))?;
        }
        Ok(Kept { oldest, newest: Arc::new(manifest), files, lists })
    }

    /// Ends all versions before `version`, which must be kept: they are leftovers from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Data`] when the snapshot that the log is to begin with does not read as the version; nothing has ended then.
    pub(in crate::lake) async fn begin_at(&self, version: u64, id: String, writer: String) -> Result<()> {
        let manifest = self.again(move || self.read_without_snapshot(version).boxed()).await?;
        self.write_snapshot(&manifest, id, writer).await?;
        let snapshot = self.read(layout::snapshot(version), format!("snapshot/{version}"), version).await?;
        if Manifest::from_snapshot(snapshot)? != *manifest {
            return Err(Error::data("a snapshot differs from the commits that it stands for")
                .with_context("object", layout::snapshot(version))
                .with_hint("remove it: the commits say the same"));
        }
        store::create(self.store.as_ref(), &layout::start(version), Bytes::new()).await.map(drop)
    }

    /// Makes a version without its own snapshot, which is to be compared with it.
    async fn read_without_snapshot(&self, version: u64) -> Result<Arc<Manifest>> {
        let mut listing = self.list(0).await?;
        listing.snapshots.retain(|snapshot| *snapshot < version);
        Ok(self.rebuild(&listing, version).await?.manifest)
    }

    /// Lists the objects before the oldest version that is kept, oldest first.
    pub(in crate::lake) async fn leftovers(&self) -> Result<Vec<Path>> {
        let folder = Path::from(layout::LOG);
        let objects: Vec<ObjectMeta> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| store::failed("list", &folder, error))?;
        let mut versions: Vec<(u64, Path)> = Vec::new();
        let mut start = 0;
        for object in objects {
            match layout::log_version(&object.location) {
                Some((version, "commit" | "snapshot")) => versions.push((version, object.location)),
                Some((version, "start")) => {
                    start = start.max(version);
                    versions.push((version, object.location));
                }
                _ => {}
            }
        }
        versions.retain(|(version, _)| *version < start);
        versions.sort();
        Ok(versions.into_iter().map(|(_, object)| object).collect())
    }
}
