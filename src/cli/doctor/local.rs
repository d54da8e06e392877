//! What can be looked at without the source: settings, schemas, keys, lake, lease, disk, queries.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::Findings;
use crate::cli::{Context, extract, grouped};
use crate::config::Config;
use crate::error::{ErrorKind, Result};
use crate::lake::manifest::Manifest;
use crate::lake::{Lake, Purpose};
use crate::policy::Policy;
use crate::query::{Library, Session, check};

/// Below this a commit may fail at any moment.
const FULL_DISK_BYTES: u64 = 100 << 20;

/// Below this, or below the size of the lake, there is no room to rewrite what is there.
const NARROW_DISK_BYTES: u64 = 1 << 30;

pub(super) fn settings(context: &Context, findings: &mut Findings) -> Result<Option<Config>> {
    let file = context.config.display();
    match context.settings() {
        Ok(config) => {
            findings.ok("settings", format!("{file} is understood"))?;
            Ok(Some(config))
        }
        Err(error) => {
            findings.failed("settings", &error)?;
            Ok(None)
        }
    }
}

pub(super) fn policy(config: &Config, findings: &mut Findings) -> Result<Option<Policy>> {
    match extract::policy(config) {
        Ok(policy) => {
            let streams: Vec<&str> = policy.streams().iter().map(|stream| stream.table()).collect();
            findings.ok("schemas", format!("{} compile: {}", config.schemas.display(), streams.join(", ")))?;
            Ok(Some(policy))
        }
        Err(error) => {
            findings.failed("schemas", &error)?;
            Ok(None)
        }
    }
}

/// Looks at all that needs the lake; returns its newest version if it opens.
pub(super) async fn lake(
    context: &Context,
    config: &Config,
    policy: Option<&Policy>,
    findings: &mut Findings,
) -> Result<Option<Arc<Manifest>>> {
    disk(config, findings)?;
    let opened = open(context, config, findings).await?;
    let Some((lake, manifest)) = opened else {
        for check in ["lease", "queries"] {
            findings.skipped(check, "the lake does not open")?;
        }
        return Ok(None);
    };
    match lake.check_writable().await {
        Ok(()) => findings.ok("lake", "may be written to, and its store keeps two writers apart")?,
        Err(error) => findings.failed("lake", &error)?,
    }
    if let Some(policy) = policy {
        stored(&lake, &manifest, policy, findings)?;
    }
    lease(&lake, findings).await?;
    queries(context, config, &lake, &manifest, findings).await?;
    Ok(Some(manifest))
}

async fn open(context: &Context, config: &Config, findings: &mut Findings) -> Result<Option<(Lake, Arc<Manifest>)>> {
    let root = match config.root() {
        Ok(root) => root,
        Err(error) => {
            findings.failed("root key", &error)?;
            findings.skipped("lake", "there is no root key to open it")?;
            return Ok(None);
        }
    };
    let mode =
        key_file(config).and_then(|path| mode(&path)).map_or_else(String::new, |mode| format!(", mode {mode:04o}"));
    findings.ok("root key", format!("{} can be read{mode}", root.reference()))?;
    let lake = match Lake::open(&config.lake, &root, Arc::clone(&context.clock)).await {
        Ok(lake) => lake,
        Err(error) => {
            findings.failed(if error.kind() == ErrorKind::Denied { "key ring" } else { "lake" }, &error)?;
            return Ok(None);
        }
    };
    let ring = lake.ring();
    findings
        .ok("key ring", format!("version {}, keys: {}, opened by the root key", ring.version(), ring.keys().len()))?;
    let manifest = match lake.latest().await {
        Ok(manifest) => manifest,
        Err(error) => {
            findings.failed("lake", &error)?;
            return Ok(None);
        }
    };
    version(context, &lake, &manifest, findings)?;
    mark(config, findings)?;
    Ok(Some((lake, manifest)))
}

/// Says how far the lake is, and whether a run is to be made.
fn version(context: &Context, lake: &Lake, manifest: &Manifest, findings: &mut Findings) -> Result<()> {
    if manifest.version == 0 {
        return findings.warn("lake", format!("{} is empty", lake.url()), "counterfoil extract fills it");
    }
    let rows: u64 = manifest.tables.values().flat_map(|table| &table.files).map(|file| file.live_rows()).sum();
    let mut seen = format!("{} at version {}, {} live rows", lake.url(), manifest.version, grouped(rows));
    let through = manifest.watermarks.values().filter_map(|watermark| watermark.complete_through_ms).min();
    if let Some(through) = through {
        let _ = write!(seen, ", complete through {}", time(through));
    }
    findings.ok("lake", seen)?;
    let now_ms = context.clock.now().as_millisecond();
    for (stream, watermark) in &manifest.watermarks {
        let reached = watermark.complete_through_ms.max(watermark.target_ms);
        if let Some(reached) = reached.filter(|reached| *reached > now_ms) {
            findings.problem(
                "watermark",
                ErrorKind::Config,
                format!("{stream}: lies in the future, at {}", time(reached)),
                "set this machine's clock right; if it is, make a new lake and extract everything again",
            )?;
        }
        if !watermark.remaining_ms.is_empty() {
            let parts = watermark.remaining_ms.len();
            findings.warn(
                "watermark",
                format!("{stream}: {parts} parts of its range are not proven complete"),
                "run counterfoil extract again: it walks them first",
            )?;
        }
    }
    if let Some(run) = manifest.runs.last().filter(|run| run.outcome != "complete") {
        findings.warn(
            "last run",
            format!("{} of {} ended {}", run.id, time(run.started_ms), run.outcome),
            "run counterfoil extract again, and look at its messages if that repeats",
        )?;
    }
    Ok(())
}

/// Says how what is stored stands to the policy.
fn stored(lake: &Lake, manifest: &Manifest, policy: &Policy, findings: &mut Findings) -> Result<()> {
    let survey = match lake.survey(manifest, policy) {
        Ok(survey) => survey,
        Err(error) => return findings.failed("policy", &error),
    };
    if let Some(seen) = survey.forbidden() {
        findings.warn("policy", seen, "counterfoil lake compact --apply-policy rewrites them")?;
    }
    if let Some(seen) = survey.lacking() {
        findings.warn("policy", seen, "counterfoil extract --full brings it")?;
    }
    if survey.is_forbidden() || survey.is_lacking() || manifest.version == 0 {
        return Ok(());
    }
    findings.ok("policy", "what is stored is what the schemas allow")
}

async fn lease(lake: &Lake, findings: &mut Findings) -> Result<()> {
    match lake.lease_holder(Purpose::Extract).await {
        Ok(None) => findings.ok("lease", "free"),
        Ok(Some(holder)) => findings.ok(
            "lease",
            format!(
                "held by {} since {}, until {} unless extended",
                holder.name,
                time(holder.taken_ms),
                time(holder.expires_ms)
            ),
        ),
        Err(error) => findings.failed("lease", &error),
    }
}

async fn queries(
    context: &Context,
    config: &Config,
    lake: &Lake,
    manifest: &Arc<Manifest>,
    findings: &mut Findings,
) -> Result<()> {
    let library = match Library::load(&config.queries) {
        Ok(library) => library,
        Err(error) => return findings.failed("queries", &error),
    };
    for broken in library.broken() {
        findings.failed("queries", &broken.error)?;
    }
    let files = library.files().len();
    if manifest.version == 0 {
        return findings.ok("queries", format!("{files} SQL files; they can be planned once the lake has tables"));
    }
    let checked = match Session::open(lake, manifest, &config.query, &context.clock) {
        Ok(session) => check::check_paths(&session, &[config.queries.as_path()]).await,
        Err(error) => Err(error),
    };
    match checked {
        Ok((files, problems)) if problems.is_empty() => findings.ok("queries", format!("{files} SQL files plan")),
        Ok((_, problems)) => {
            for problem in problems {
                let mend =
                    problem.hint.clone().unwrap_or_else(|| "correct the SQL; counterfoil check plans it".to_owned());
                findings.problem("queries", ErrorKind::Query, problem.to_string(), mend)?;
            }
            Ok(())
        }
        Err(error) => findings.failed("queries", &error),
    }
}

/// Says where this machine remembers the newest version that it has seen.
fn mark(config: &Config, findings: &mut Findings) -> Result<()> {
    match &config.lake.state {
        Some(folder) => findings.ok("high-water mark", format!("kept in {}", folder.display())),
        // A container without a home folder is no fault.
        None => findings.ok(
            "high-water mark",
            "none is kept, so a log that is rolled back would not be noticed; `lake.state` names a folder for it",
        ),
    }
}

/// Says how much room a lake on this machine has.
fn disk(config: &Config, findings: &mut Findings) -> Result<()> {
    // A URL that is wrong is told when the lake is opened.
    let Ok(Some(folder)) = config.lake.folder() else {
        return findings.ok("disk", "the lake is not on this machine's disk");
    };
    // A lake that is not there yet would come into the folder above.
    let Some(standing) = folder.ancestors().find(|folder| folder.exists()).map(Path::to_path_buf) else {
        return findings.ok("disk", "the lake's folder is not there");
    };
    let Some(free) = free_bytes(&standing) else {
        return findings.ok("disk", "free space cannot be told on this system");
    };
    let seen = format!("{} free under {}", size(free), folder.display());
    let held = size_bytes(&folder);
    if free < FULL_DISK_BYTES {
        let mend = "free some space, or move the lake";
        findings.problem("disk", ErrorKind::Unavailable, seen, mend)
    } else if free < NARROW_DISK_BYTES.max(held) {
        findings.warn(
            "disk",
            format!("{seen}, the lake has {}", size(held)),
            "free some space: rewriting the lake's files needs as much again",
        )
    } else {
        findings.ok("disk", seen)
    }
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_path: &Path) -> Option<u64> {
    None
}

/// Returns how many bytes a folder's files have; what cannot be read counts nothing.
fn size_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

fn key_file(config: &Config) -> Option<PathBuf> {
    config.root_key.strip_prefix("file:").map(|path| config.base.join(path))
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_path: &Path) -> Option<u32> {
    None
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.0}"))
}
