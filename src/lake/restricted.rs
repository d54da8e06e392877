//! Restricted columns: which a file has, and what a process without their key does.
//!
//! A column is restricted when its field's metadata say so (`method` begins with `restrict`). A file that has one names in the
//! manifest the key of the restricted ring that wraps the key of its restricted columns, so that rights are known before the
//! file is opened. A process without the right:
//!
//! * reads NULL there, and is told once which columns these are;
//! * writes no file that would have such columns, and rewrites none that has: what it cannot read it would lose.
//!
//! What a destroyed key protected is nobody's: it reads NULL for everybody, and a rewrite leaves it out.

use std::sync::atomic::Ordering;

use arrow::datatypes::{Field, Schema};

use crate::error::{Error, Result};
use crate::keys::{KeyRing, Right};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::{Inner, Lake};
use crate::policy::{Policy, is_restricted};

/// Tells whether a method, in its canonical text, keeps a column under the second key.
fn restricts(method: &str) -> bool {
    method.strip_prefix("restrict").is_some_and(|rest| rest.is_empty() || rest.starts_with('('))
}

impl Lake {
    /// Lists the columns of a version that this process does not read, as `table.column`.
    #[must_use]
    pub fn hidden_columns(&self, manifest: &Manifest) -> Vec<String> {
        hidden_columns(&self.0.ring, manifest)
    }

    /// Refuses a policy that restricts columns when this process does not have the key for them.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) naming the columns.
    pub fn check_policy(&self, policy: &Policy) -> Result<()> {
        let mut names = Vec::new();
        for table in &policy.rules().tables {
            let columns = table.columns.iter().map(|rule| (&rule.name, &rule.method));
            let custom = table.custom.iter().map(|rule| (&rule.pattern, &rule.method));
            let restricted = columns.chain(custom).filter(|(_, method)| restricts(method));
            names.extend(restricted.map(|(name, _)| format!("{}.{name}", table.table)));
        }
        if names.is_empty() {
            return Ok(());
        }
        let primary = self.0.ring.restricted_ring().and_then(|restricted| restricted.primary_id().map(drop));
        primary.map_err(|error| error.with_context("restricted by the policy", names.join(", ")))
    }
}

/// Says once which columns of the lake this process does not read.
pub(super) fn tell(lake: &Inner, manifest: &Manifest) {
    let hidden = hidden_columns(&lake.ring, manifest);
    if !hidden.is_empty() && !lake.is_told.swap(true, Ordering::Relaxed) {
        tracing::warn!("restricted columns read NULL, for this process does not have their key: {}", hidden.join(", "));
    }
}

/// Returns the names of the restricted columns.
pub(super) fn columns(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.fields().iter().filter(|field| is_restricted(field)).map(|field| field.name().as_str())
}

/// Tells whether two files have the same restricted columns.
pub(super) fn is_alike(left: &Schema, right: &Schema) -> bool {
    columns(left).eq(columns(right))
}

/// Returns the columns of a file whose values this process does not read.
pub(super) fn unreadable<'a>(ring: &KeyRing, file: &'a DataFile) -> Vec<&'a str> {
    match &file.restricted_key {
        Some(key) if ring.right(key) != Right::Held => columns(&file.schema).collect(),
        _ => Vec::new(),
    }
}

/// Tells whether a column of a table reads NULL where a file has it: it is restricted in the file, under a key that this process
/// does not have; or in the table, of which an older file may hold it as it was before the policy restricted it.
pub(super) fn is_hidden(ring: &KeyRing, file: &DataFile, table: &Field) -> bool {
    (ring.restricted().is_none() && is_restricted(table)) || unreadable(ring, file).contains(&table.name().as_str())
}

/// Lists the columns of a version that this process does not read, as `table.column`.
pub(super) fn hidden_columns(ring: &KeyRing, manifest: &Manifest) -> Vec<String> {
    let mut names = Vec::new();
    for (stream, table) in &manifest.tables {
        let is_hidden = |field: &Field| {
            (ring.restricted().is_none() && is_restricted(field))
                || table.files.iter().any(|file| is_hidden(ring, file, field))
        };
        let hidden = table.schema.fields().iter().filter(|field| is_hidden(field));
        names.extend(hidden.map(|field| format!("{}.{}", stream.table(), field.name())));
    }
    names
}

/// Refuses to rewrite a file whose restricted columns this process cannot read.
///
/// # Errors
///
/// [`Denied`](crate::error::ErrorKind::Denied) naming the key, the file and its columns.
pub(super) fn check_rewritable(ring: &KeyRing, file: &DataFile) -> Result<()> {
    let Some(key) = &file.restricted_key else { return Ok(()) };
    ring.check_right(key).map_err(|error| {
        let columns: Vec<&str> = columns(&file.schema).collect();
        error
            .with_context("file", &file.path)
            .with_context("columns", columns.join(", "))
            .with_context("cause", "a file can only be rewritten by who can read its restricted columns")
    })
}

/// Tells whether this process can rewrite a file and lose nothing.
pub(super) fn is_rewritable(ring: &KeyRing, file: &DataFile) -> bool {
    check_rewritable(ring, file).is_ok() && (file.restricted_key.is_none() || ring.restricted().is_some())
}

/// Refuses to write columns of which some are restricted without the key for them.
///
/// # Errors
///
/// [`Denied`](crate::error::ErrorKind::Denied) naming the columns.
pub(super) fn check_writable(ring: &KeyRing, schema: &Schema) -> Result<()> {
    let columns: Vec<&str> = columns(schema).collect();
    if columns.is_empty() {
        return Ok(());
    }
    let primary = ring.restricted_ring().and_then(|restricted| restricted.primary_id().map(drop));
    primary.map_err(|error: Error| error.with_context("columns", columns.join(", ")))
}
