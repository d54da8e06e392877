//! `counterfoil keys rotate --pseudonyms`: a new version of all pseudonyms, planned or done.

use super::{ALL, Leases};
use crate::cli::{Context, grouped, print, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::keys::RootKey;
use crate::lake::{Lake, Lease, RotatedPseudonyms};

pub(super) async fn rotate(context: &Context, config: &Config, dry_run: bool) -> Result<()> {
    let root = config.root()?;
    let lake = context.lake(config).await?;
    if dry_run {
        let plan = lake.plan_pseudonyms().await?;
        if !context.quiet {
            say(&format!("would change all pseudonyms from version {} to version {}", plan.from, plan.to));
            if plan.tables.is_empty() {
                say("no stored column holds pseudonyms: only the version would change");
            }
        }
        return print(&plan.to_string());
    }
    let mut leases = Leases::take(&lake, &ALL, "rotate --pseudonyms").await?;
    let rotated = rotate_with_leases(context, config, &lake, &root, &mut leases.0).await;
    leases.release().await;
    let Some(done) = rotated? else { return Ok(()) };
    if !context.quiet {
        let (from, to) = (done.plan.from, done.plan.to);
        say(&format!("pseudonyms of version {to} are in force, lake version {}", done.version));
        say(&format!(
            "{} older versions hold pseudonyms of version {from} or earlier, until they have expired (`counterfoil lake retain`) and \
             `counterfoil lake gc` has deleted their objects; exported results and backups hold them too",
            grouped(done.older_versions)
        ));
        say("processes that are running go on with the old ring until they are started again");
    }
    print(&done.plan.to_string())
}

/// Adds the key, and opens the lake anew to rewrite with it.
async fn rotate_with_leases(
    context: &Context,
    config: &Config,
    lake: &Lake,
    root: &RootKey,
    leases: &mut [Lease],
) -> Result<Option<RotatedPseudonyms>> {
    let waits = |error: Error| {
        let hint = "`counterfoil keys ls` shows which version is in force; while the new key waits, \
                    `counterfoil keys rotate --pseudonyms` goes on with it and adds no other";
        if error.hint().is_some() { error } else { error.with_hint(hint) }
    };
    lake.add_pseudonym_key(root).await.map_err(waits)?;
    let lake = context.lake(config).await.map_err(waits)?;
    let progress = |stream, rows| {
        if !context.quiet {
            say(&format!("{stream}: a file of {} rows is rewritten", grouped(rows)));
        }
    };
    lake.rewrite_pseudonyms(leases, progress).await.map_err(waits)
}
