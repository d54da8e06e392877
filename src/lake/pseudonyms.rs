//! Rotation of pseudonyms: one commit in which every stored pseudonym becomes that of the next version.
//!
//! ```text
//! keys rotate --pseudonyms:  ring with another key ─▶ file after file rewritten ─▶ one commit
//!                            (the key waits)          (put, nothing visible)       Pseudonyms(n), Remove(old) … Add(new) …
//! ```
//!
//! The key goes into the ring first and waits there: the manifest says which version is in force, and nothing but this commit
//! changes it. A version of the lake holds pseudonyms of one version only, in all tables, live rows and history alike, so that
//! joins give the same rows before and after. What is stored is enough to make the next version
//! (`policy/pseudonym.rs`), so the source is not asked.
//!
//! **Memory**: one file at a time, and no more of the finished ones than their entries. **Room**: the files that hold pseudonyms are
//! there twice until older versions have expired and `gc` has deleted their objects.
//!
//! **Beside others.** Both leases are held: nobody fetches or tidies up. Whoever slept through the loss of a lease loses its race
//! all the same: rows of an older version are refused by their transaction, a file of them by the manifest, and a rewrite
//! whose files have gone is void. When others commit while this one works, it begins anew.
//!
//! **Crashes.** Before the commit nothing has changed but that a key waits in the ring; the same command again takes that key and
//! rewrites everything. Files that were put and not committed are garbage.
//!
//! **What stays**: older versions hold the old pseudonyms until they expire, and so do exported results and backups.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::attempts::Attempts;
use crate::lake::commit::Action;
use crate::lake::lease::{Lease, renew_all};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::rewrite::{self, Restate, Restated, Rewritten, Source};
use crate::lake::{Inner, Lake};
use crate::model::Stream;
use crate::policy::{PseudonymRotation, holds_pseudonyms, pseudonym_domain};
use crate::secret::PseudonymKeys;

/// Times that a rotation begins anew when other writers were faster.
const ATTEMPTS: usize = 3;

/// What a rotation of pseudonyms would rewrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PseudonymPlan {
    /// Version in force.
    pub from: u32,
    /// Version that comes into force.
    pub to: u32,
    /// Tables with pseudonyms.
    pub tables: Vec<PseudonymTable>,
}

/// One table of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PseudonymTable {
    /// The table's stream.
    pub stream: Stream,
    /// Columns of its files that hold pseudonyms, by name.
    pub columns: Vec<PseudonymColumn>,
    /// Files, those of history among them.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A column of pseudonyms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PseudonymColumn {
    /// Its name.
    pub name: String,
    /// Its domain: columns that share one join.
    pub domain: String,
}

/// What a rotation of pseudonyms did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedPseudonyms {
    /// What was rewritten.
    pub plan: PseudonymPlan,
    /// Version of the lake that holds the new pseudonyms.
    pub version: u64,
    /// Versions before it that are kept, and hold the old ones.
    pub older_versions: u64,
}

impl PseudonymPlan {
    /// Plans the rotation of one version of the lake; reads and changes nothing.
    #[must_use]
    pub fn of(manifest: &Manifest, to: u32) -> Self {
        let mut tables = Vec::new();
        for (stream, table) in &manifest.tables {
            let files: Vec<_> = table.files.iter().filter(|file| holds_pseudonyms(&file.schema)).collect();
            if files.is_empty() {
                continue;
            }
            let fields = files.iter().flat_map(|file| file.schema.fields());
            let columns: BTreeSet<PseudonymColumn> = fields
                .filter_map(|field| {
                    let domain = pseudonym_domain(field)?;
                    Some(PseudonymColumn { name: field.name().clone(), domain })
                })
                .collect();
            tables.push(PseudonymTable {
                stream: *stream,
                columns: columns.into_iter().collect(),
                files: files.len() as u64,
                rows: files.iter().map(|file| file.rows).sum(),
                bytes: files.iter().map(|file| file.bytes).sum(),
            });
        }
        Self { from: manifest.pseudonym_version(), to, tables }
    }
}

impl fmt::Display for PseudonymPlan {
    /// Prints a line per table, and its columns below with their domains.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "{}: {} files, {} rows, {} bytes", table.stream, table.files, table.rows, table.bytes)?;
            for PseudonymColumn { name, domain } in &table.columns {
                writeln!(f, "  {name}  domain {domain}")?;
            }
        }
        Ok(())
    }
}

impl Restate for PseudonymRotation {
    fn column(&self, column: &str, values: ArrayRef) -> Result<ArrayRef> {
        self.column(column, values)
    }
}

impl Lake {
    /// Tells what a rotation of pseudonyms would rewrite: to the key that waits in the ring, or else to the one that would be
    /// added.
    ///
    /// # Errors
    ///
    /// Those of [`latest`](Self::latest); [`Denied`](ErrorKind::Denied) when pseudonyms are of a key that this process does not
    /// know.
    pub async fn plan_pseudonyms(&self) -> Result<PseudonymPlan> {
        let manifest = self.latest().await?;
        let from = manifest.pseudonym_version();
        self.0.ring.pseudonym_keys(from)?;
        let newest = self.0.ring.pseudonym_versions().last().map_or(from, |key| key.version);
        Ok(PseudonymPlan::of(&manifest, newest.max(from.saturating_add(1))))
    }

    /// Rewrites every file with pseudonyms to the newest key of the ring, and brings that into force; `progress` hears of each
    /// file by its rows. `None` when the newest key is in force already.
    ///
    /// Both leases must be held: they are extended while it works.
    ///
    /// # Errors
    ///
    /// [`Conflict`](ErrorKind::Conflict) when others took a lease over, or committed at each attempt;
    /// [`Data`](ErrorKind::Data) when a file is damaged, or holds pseudonyms of a version that it does not say;
    /// [`Unavailable`](ErrorKind::Unavailable) when the store fails: the same once more completes it.
    pub async fn rewrite_pseudonyms(
        &self,
        leases: &mut [Lease],
        mut progress: impl FnMut(Stream, u64) + Send,
    ) -> Result<Option<RotatedPseudonyms>> {
        let newest = self.0.ring.pseudonym_versions().last().map_or(1, |key| key.version);
        let keys = self.0.ring.pseudonym_keys(newest)?;
        for _ in 0..ATTEMPTS {
            let manifest = self.latest().await?;
            let from = manifest.pseudonym_version();
            self.0.ring.pseudonym_keys(from)?;
            if from >= newest {
                return Ok(None);
            }
            let changes = rotated(&self.0, &manifest, &keys, leases, &mut progress).await?;
            renew_all(leases).await?;
            if let Some(version) = commit(&self.0, from, newest, &changes).await? {
                let older_versions = version.saturating_sub(self.0.log.oldest().await?);
                let plan = PseudonymPlan::of(&manifest, newest);
                return Ok(Some(RotatedPseudonyms { plan, version, older_versions }));
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "files were changed by another process at each attempt to rotate pseudonyms",
        )
        .with_context("attempts", ATTEMPTS)
        .with_hint("run it again: the new key waits in the ring, and nothing else was changed"))
    }
}

/// Puts the files of a version with their pseudonyms rotated.
async fn rotated(
    lake: &Inner,
    manifest: &Manifest,
    keys: &PseudonymKeys,
    leases: &mut [Lease],
    progress: &mut (impl FnMut(Stream, u64) + Send),
) -> Result<Vec<Rewritten>> {
    let mut changes = Vec::new();
    for (stream, file) in files_with_pseudonyms(manifest) {
        renew_all(leases).await?;
        let named = |error: Error| error.with_context("file", &file.path);
        let rotation = PseudonymRotation::try_new(&file.schema, file.pseudonyms, keys).map_err(named)?;
        let restated = Restated {
            by: Arc::new(rotation),
            schema: Arc::clone(&file.schema),
            policy: Arc::clone(&file.policy),
            pseudonyms: keys.version(),
        };
        let change = rewrite::restate(lake, stream, &[Source::whole(file)], &restated).await.map_err(named)?;
        progress(stream, file.rows);
        // For each row of the lake it would be too much; nobody else is to write now.
        changes.push(change.without_places());
    }
    Ok(changes)
}

fn files_with_pseudonyms(manifest: &Manifest) -> impl Iterator<Item = (Stream, &Arc<DataFile>)> {
    let files = manifest.tables.iter().flat_map(|(stream, table)| table.files.iter().map(|file| (*stream, file)));
    files.filter(|(_, file)| holds_pseudonyms(&file.schema))
}

/// Commits the rewritten files together with the version of their pseudonyms; `None` when the lake is not what it was when
/// they were read.
async fn commit(lake: &Inner, from: u32, to: u32, changes: &[Rewritten]) -> Result<Option<u64>> {
    let mut attempts = Attempts::begin(lake).await?;
    loop {
        let base = attempts.base();
        let is_same = base.pseudonym_version() == from && files_with_pseudonyms(base).count() == changes.len();
        let Some(replaced) = rewrite::actions(base, changes).filter(|_| is_same) else { return Ok(None) };
        // First: what follows is checked against it.
        let actions = [Action::Pseudonyms(to)].into_iter().chain(replaced).collect();
        if let Some(manifest) = attempts.put(actions).await? {
            return Ok(Some(manifest.version));
        }
    }
}

#[cfg(test)]
mod tests;
