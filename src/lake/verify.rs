//! Verification: everything of the lake is read and held against everything that names it.
//!
//! ```text
//! keys/ ──▶ each ring opens
//! log/  ──▶ each commit opens and applies ──▶ each snapshot says the same ──▶ files that any kept version names
//! data/ ──▶ pin, magic, every module's tag, rows, keys, bounds, indexes ──▶ no live record twice in a table
//! the rest ─▶ listed as garbage
//! ```
//!
//! One damaged object does not hide the others: what is wrong is collected, and the walk goes on with what is left. Files
//! are decoded a few columns of one row group at a time, and ids are merged in their order, so that memory stays bounded.
//!
//! It changes nothing and holds no lease. What is deleted meanwhile, because no version names it any more, is no damage:
//! a file that is missing is asked for in the log once more.

mod walk;

use std::collections::{BTreeMap, HashSet};
use std::error::Error as StdError;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyRing, RootKey, Series};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::{Inner, Lake, layout, restricted, scan, store};
use crate::model::Stream;

use walk::Walk;

/// Files that are read at once; their columns are decoded side by side.
const FILES: usize = 2;

/// Ids that are compared at once.
const IDS: usize = 4_096;

/// Records standing twice that a finding names.
const NAMED: usize = 3;

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The newest version; 0 of an empty lake.
    pub version: u64,
    /// The oldest version that can be read; 0 when all can.
    pub oldest: u64,
    /// Commits that were opened.
    pub commits: u64,
    /// Snapshots that were opened.
    pub snapshots: u64,
    /// Key rings that were opened.
    pub rings: u64,
    /// Older key rings that another root key seals, so that they were not opened.
    pub rings_of_other_roots: u64,
    /// Data files that were read.
    pub files: u64,
    /// Of these, files whose restricted columns were not checked, because this process does not have their key.
    pub files_with_unchecked_columns: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Live rows of the newest version whose ids were compared.
    pub live_rows: u64,
    /// What is wrong, in the order of the objects' names.
    pub findings: Vec<Finding>,
    /// Objects that no version names: what a crash or a run under way left there.
    pub garbage: Vec<Garbage>,
}

/// Something that is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the object, or of the table.
    pub object: String,
    /// Kind of the error that reading it would end in.
    pub kind: ErrorKind,
    /// What is wrong, with its causes.
    pub message: String,
}

/// An object that no version names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Its name.
    pub object: String,
    /// Its size.
    pub bytes: u64,
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Data files read.
    pub files: u64,
    /// Data files there are.
    pub of: u64,
    /// Bytes of the files read.
    pub bytes: u64,
}

impl VerifyReport {
    /// Turns the findings into the error that the command ends in; none when nothing is wrong.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Data`] when anything is damaged; [`ErrorKind::Denied`] when all that failed was refused.
    pub fn verdict(&self) -> Result<()> {
        let Some(first) = self.findings.first() else { return Ok(()) };
        let is_damaged = self.findings.iter().any(|finding| finding.kind != ErrorKind::Denied);
        let error = if is_damaged {
            Error::data("the lake is damaged or was tampered with")
                .with_hint("restore the objects that are named from a backup of the lake")
        } else {
            Error::denied("not everything of the lake can be opened with these keys")
        };
        Err(error.with_context("findings", self.findings.len()).with_context("first", &first.object))
    }

    fn find(&mut self, object: &(impl ToString + ?Sized), error: &Error) {
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries repeat their cause in their own text.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            next = cause.source();
        }
        self.findings.push(Finding { object: object.to_string(), kind: error.kind(), message });
    }
}

/// Names and sizes of the objects under the root, by where they stand.
#[derive(Debug, Default)]
struct Objects {
    commits: Vec<u64>,
    snapshots: Vec<u64>,
    /// Versions that the log was made to begin at; the newest counts.
    starts: Vec<u64>,
    rings: Vec<u32>,
    /// Everything else but leases.
    others: BTreeMap<String, u64>,
    /// Sizes of the objects of the log.
    log_bytes: BTreeMap<String, u64>,
}

impl Lake {
    /// Returns the oldest version that can be read; 0 in an empty lake.
    pub async fn oldest_version(&self) -> Result<u64> {
        let objects = Objects::list_under(self.0.store.as_ref(), Some(&Path::from(layout::LOG))).await?;
        let first = objects.commits.iter().chain(&objects.snapshots).min().copied().unwrap_or_default();
        Ok(objects.starts.last().copied().unwrap_or(first))
    }

    /// Reads everything that the lake holds, or one table of it, and reports what is wrong.
    ///
    /// `progress` is told of each data file that was read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when the store does not answer. What is damaged or refused is in the report:
    /// [`VerifyReport::verdict`].
    pub async fn verify(
        &self,
        root: &RootKey,
        only: Option<Stream>,
        progress: &(dyn Fn(Verified) + Send + Sync),
    ) -> Result<VerifyReport> {
        let lake = &self.0;
        let mut report = VerifyReport::default();
        let objects = Objects::list(lake.store.as_ref()).await?;
        check_rings(lake, root, &objects, &mut report).await?;
        let walk = walk::walk(lake, &objects, &mut report).await?;
        if report.findings.is_empty()
            && let Err(error) = self.latest().await
        {
            // What the log alone cannot tell: that it was rolled back behind what this machine has seen.
            refuse_unavailable(&error)?;
            report.find(&layout::LOG, &error);
        }
        let unsound = self.check_files(&walk, only, &mut report, progress).await?;
        if let Some(manifest) = &walk.newest {
            self.check_ids(manifest, only, &unsound, &mut report).await?;
        }
        let leftovers: Vec<_> = objects.before(report.oldest).collect();
        report.garbage = walk.garbage(objects.others.into_iter().chain(leftovers).collect());
        report.findings.sort_by(|left, right| left.object.cmp(&right.object));
        Ok(report)
    }

    /// Reads the data files of all kept versions; returns the paths of those that are unsound.
    async fn check_files(
        &self,
        walk: &Walk,
        only: Option<Stream>,
        report: &mut VerifyReport,
        progress: &(dyn Fn(Verified) + Send + Sync),
    ) -> Result<HashSet<String>> {
        let files: Vec<(Stream, Arc<DataFile>)> =
            walk.files().filter(|(stream, _)| only.is_none_or(|only| only == *stream)).collect();
        let mut verified = Verified { files: 0, of: files.len() as u64, bytes: 0 };
        progress(verified);
        let mut unsound = HashSet::new();
        let mut checks = stream::iter(files)
            .map(|(stream, file)| {
                let (store, ring) = (Arc::clone(&self.0.store), self.0.ring.clone());
                let checked = Arc::clone(&file);
                // In a task of its own, so that files are decoded in parallel, and a decoder that panics ends its file only.
                let task = tokio::spawn(async move { scan::check_file(&store, &ring, stream, &checked).await });
                async move { (file, task.await) }
            })
            .buffered(FILES);
        while let Some((file, checked)) = checks.next().await {
            let findings = match checked {
                Ok(findings) => findings?,
                Err(_panic) => {
                    let error = Error::data("failed to decode the data file").with_context("file", &file.path);
                    vec![(file.path.clone(), error)]
                }
            };
            if !findings.is_empty() && self.is_still_named(&file).await? {
                for (object, finding) in &findings {
                    report.find(object, finding);
                }
                unsound.insert(file.path.clone());
            }
            report.files += 1;
            report.files_with_unchecked_columns += u64::from(!restricted::unreadable(&self.0.ring, &file).is_empty());
            report.rows += file.rows;
            report.bytes += file.bytes + file.index.map_or(0, |index| index.bytes);
            verified = Verified { files: report.files, bytes: report.bytes, ..verified };
            progress(verified);
        }
        Ok(unsound)
    }

    /// Tells whether a file that is not as it should be is really damaged, and not deleted by now with the versions that
    /// named it.
    async fn is_still_named(&self, file: &DataFile) -> Result<bool> {
        let object = Path::from(file.path.as_str());
        match self.0.store.head(&object).await {
            Err(object_store::Error::NotFound { .. }) => {}
            _ => return Ok(true),
        }
        let objects = Objects::list(self.0.store.as_ref()).await?;
        let walk = walk::walk(&self.0, &objects, &mut VerifyReport::default()).await?;
        Ok(walk.names(&file.path))
    }

    /// Checks that no record stands twice among the live rows of a table, as far as its files are sound.
    async fn check_ids(
        &self,
        manifest: &Manifest,
        only: Option<Stream>,
        unsound: &HashSet<String>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let mut sound = manifest.clone();
        for (stream, table) in &mut sound.tables {
            table.files.retain(|file| !unsound.contains(&file.path) && only.is_none_or(|only| only == *stream));
        }
        // A ticket may stand in any number of lists and access records.
        for stream in sound.tables.keys().filter(|stream| !stream.is_own()) {
            let mut doubled = Vec::new();
            let mut count = 0u64;
            let mut last = None;
            let walked: Result<()> = async {
                let mut ids = self.live_ids(&sound, *stream)?;
                loop {
                    let next = ids.next(IDS).await?;
                    if next.is_empty() {
                        return Ok(());
                    }
                    for id in next {
                        count += 1;
                        if last == Some(id) {
                            doubled.push(id);
                        }
                        last = Some(id);
                    }
                }
            }
            .await;
            report.live_rows += count;
            if let Err(error) = walked {
                refuse_unavailable(&error)?;
                report.find(&stream, &error);
            }
            if !doubled.is_empty() {
                let named: Vec<String> = doubled.iter().take(NAMED).map(ToString::to_string).collect();
                let error = Error::data("records stand twice among the live rows")
                    .with_context("table", stream)
                    .with_context("records", doubled.len())
                    .with_context("first", named.join(", "));
                report.find(&stream, &error);
            }
        }
        Ok(())
    }
}

impl Objects {
    /// Returns the objects of the log that stand before the version it begins with.
    fn before(&self, oldest: u64) -> impl Iterator<Item = (String, u64)> + '_ {
        let is_before =
            move |name: &str| layout::log_version(&Path::from(name)).is_none_or(|(version, _)| version < oldest);
        let leftovers = self.log_bytes.iter().filter(move |(name, _)| is_before(name));
        leftovers.map(|(name, bytes)| (name.clone(), *bytes))
    }

    async fn list(store: &dyn ObjectStore) -> Result<Self> {
        Self::list_under(store, None).await
    }

    async fn list_under(store: &dyn ObjectStore, folder: Option<&Path>) -> Result<Self> {
        let mut objects = Self::default();
        let mut listed = store.list(folder);
        let failed = |error| store::failed("list", &Path::default(), error);
        while let Some(object) = listed.try_next().await.map_err(failed)? {
            let path = &object.location;
            if path.as_ref().starts_with("log/") {
                objects.log_bytes.insert(path.to_string(), object.size);
            }
            let folder = path.parts().next().map(|part| part.as_ref().to_owned()).unwrap_or_default();
            match (folder.as_str(), layout::log_version(path), layout::ring_version(path)) {
                (layout::LOG, Some((version, "commit")), _) => objects.commits.push(version),
                (layout::LOG, Some((version, "snapshot")), _) => objects.snapshots.push(version),
                (layout::LOG, Some((version, "start")), _) => objects.starts.push(version),
                (layout::KEYS, _, Some(version)) => objects.rings.push(version),
                (layout::KEYS, ..) if layout::ring_version_of(Series::Restricted, path).is_some() => {}
                ("leases", ..) => {}
                _ if *path == layout::lake() => {}
                _ => {
                    objects.others.insert(path.to_string(), object.size);
                }
            }
        }
        objects.starts.sort_unstable();
        objects.commits.sort_unstable();
        objects.snapshots.sort_unstable();
        objects.rings.sort_unstable();
        Ok(objects)
    }
}

/// Opens each key ring; an older one that this root key does not open may be sealed by an older root key.
async fn check_rings(lake: &Inner, root: &RootKey, objects: &Objects, report: &mut VerifyReport) -> Result<()> {
    let newest = objects.rings.last().copied();
    for version in &objects.rings {
        let opened = match layout::read_ring(lake.store.as_ref(), *version).await {
            Ok(Some(sealed)) => KeyRing::open(&lake.id, *version, &sealed, root).await.map(drop),
            // Destroyed meanwhile.
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match opened {
            Ok(()) => report.rings += 1,
            Err(error) if error.kind() == ErrorKind::Denied && newest != Some(*version) => {
                report.rings_of_other_roots += 1;
            }
            Err(error) => {
                refuse_unavailable(&error)?;
                report.find(&layout::ring(*version), &error);
            }
        }
    }
    Ok(())
}

/// A store that does not answer ends the verification: it says nothing about the lake.
fn refuse_unavailable(error: &Error) -> Result<()> {
    if error.kind() != ErrorKind::Unavailable {
        return Ok(());
    }
    let cause = error.source().map_or_else(String::new, ToString::to_string);
    Err(Error::unavailable(error.to_string()).with_source(cause))
}

#[cfg(test)]
mod tests;
