//! The log read from its beginning: what every kept version consists of.
//!
//! Versions are kept from the first on, or, where older ones have expired, from the one whose `start` says so: its
//! snapshot stands for all before it, and what is left of those is garbage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lake::commit::{Action, Commit};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::verify::{Garbage, Objects, VerifyReport, refuse_unavailable};
use crate::lake::{Inner, layout};
use crate::model::Stream;

/// What the log says.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The newest version, unless what it is made of is damaged.
    pub(super) newest: Option<Manifest>,
    /// The files that a kept version names, by path and pin: a file that was wrapped anew is pinned anew.
    files: BTreeMap<(String, [u8; 32]), (Stream, Arc<DataFile>)>,
}

impl Walk {
    /// Returns the files that a kept version names.
    pub(super) fn files(&self) -> impl Iterator<Item = (Stream, Arc<DataFile>)> + '_ {
        self.files.values().map(|(stream, file)| (*stream, Arc::clone(file)))
    }

    /// Tells whether a kept version names a file.
    pub(super) fn names(&self, path: &str) -> bool {
        self.files.keys().any(|(named, _)| named == path)
    }

    /// Picks the objects that no version names.
    pub(super) fn garbage(&self, mut objects: BTreeMap<String, u64>) -> Vec<Garbage> {
        for (_, file) in self.files.values() {
            objects.remove(&file.path);
            file.index_path().map(|path| objects.remove(&path));
        }
        objects.into_iter().map(|(object, bytes)| Garbage { object, bytes }).collect()
    }

    /// Notes a file, with the rows that the newest version of it leaves out.
    fn note(&mut self, stream: Stream, file: &Arc<DataFile>) {
        self.files.insert((file.path.clone(), file.pin), (stream, Arc::clone(file)));
    }

    /// Notes the files of a commit, and applies it where the version before it is known.
    fn apply(&mut self, state: Option<Manifest>, commit: Commit, report: &mut VerifyReport) -> Option<Manifest> {
        report.commits += 1;
        for action in &commit.actions {
            if let Action::Add(stream, file) = action {
                self.note(*stream, file);
            }
        }
        let version = commit.version;
        let mut manifest = state?;
        match manifest.apply(commit) {
            Ok(()) => Some(manifest),
            Err(error) => {
                report.find(&layout::commit(version), &error);
                None
            }
        }
    }

    fn note_all(&mut self, manifest: &Manifest) {
        for (stream, table) in &manifest.tables {
            table.files.iter().for_each(|file| self.note(*stream, file));
        }
    }
}

/// Reads every commit and snapshot, applies them in their order, and notes what does not open or does not fit.
pub(super) async fn walk(lake: &Inner, objects: &Objects, report: &mut VerifyReport) -> Result<Walk> {
    let mut walk = Walk::default();
    let oldest = objects.starts.last().copied().unwrap_or_default();
    report.oldest = oldest;
    let snapshots: BTreeSet<u64> = objects.snapshots.iter().copied().filter(|version| *version >= oldest).collect();
    let commits: BTreeSet<u64> = objects.commits.iter().copied().filter(|version| *version >= oldest).collect();
    let versions: BTreeSet<u64> = commits.union(&snapshots).copied().collect();
    report.version = versions.last().copied().unwrap_or(oldest);
    let mut state = (oldest == 0).then(Manifest::default);
    // The version before the next one; names are not believed so far that a forged number is counted up to.
    let mut before = oldest.saturating_sub(1);
    if oldest > 0 && !snapshots.contains(&oldest) {
        let error = Error::data("the snapshot that the log begins with is missing");
        report.find(&layout::snapshot(oldest), &error);
    }
    for version in versions {
        if version > before + 1 {
            // Put while the objects were listed, or lost: reading it tells.
            match lake.log.read_commit(before + 1).await {
                Ok(commit) if version == before + 2 => state = walk.apply(state, commit, report),
                Ok(_) => state = None,
                Err(error) => {
                    refuse_unavailable(&error)?;
                    report.find(&layout::commit(before + 1), &error);
                    state = None;
                }
            }
        }
        before = version;
        if version > oldest || oldest == 0 {
            match lake.log.read_commit(version).await {
                Ok(commit) => state = walk.apply(state, commit, report),
                Err(error) => {
                    refuse_unavailable(&error)?;
                    report.find(&layout::commit(version), &error);
                    state = None;
                }
            }
        } else if commits.contains(&version) {
            // The snapshot stands for it, files of it that later left their table may have gone; it must open all the same.
            match lake.log.read_commit(version).await {
                Ok(_) => report.commits += 1,
                Err(error) => {
                    refuse_unavailable(&error)?;
                    report.find(&layout::commit(version), &error);
                }
            }
        }
        if snapshots.contains(&version) {
            let snapshot = lake.log.read_snapshot(version).await.and_then(Manifest::from_snapshot);
            match snapshot {
                Ok(snapshot) => {
                    report.snapshots += 1;
                    if state.as_ref().is_some_and(|state| *state != snapshot) {
                        let error = Error::data("a snapshot is not what the commits before it come to");
                        report.find(&layout::snapshot(version), &error);
                    }
                    walk.note_all(&snapshot);
                    state = state.or(Some(snapshot));
                }
                Err(error) => {
                    refuse_unavailable(&error)?;
                    report.find(&layout::snapshot(version), &error);
                }
            }
        }
    }
    if let Some(newest) = &state {
        walk.note_all(newest);
    }
    walk.newest = state;
    Ok(walk)
}
