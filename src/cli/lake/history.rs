//! `counterfoil lake history`: runs, or versions, newest first.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;

use super::time;
use crate::cli::{Context, grouped, print};
use crate::error::Result;
use crate::lake::VersionSummary;
use crate::lake::manifest::Manifest;
use crate::lake::run::{RunRecord, StreamRun};

/// Holes of a stream that the history names.
const SHOWN_HOLES: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Versions and what each of them changed, instead of runs
    #[arg(long)]
    versions: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    if arguments.versions {
        let versions = lake.history(arguments.limit).await?;
        return print(&versions.iter().map(version).collect::<String>());
    }
    print(&history(&*lake.latest().await?, arguments.limit))
}

fn version(version: &VersionSummary) -> String {
    let runs = if version.runs.is_empty() { String::new() } else { format!("  run {}", version.runs.join(", ")) };
    format!(
        "{:>6}  {}  {:>4} files added {:>4} removed  {:>12} rows added {:>12} superseded  {}{runs}\n",
        version.version,
        time(version.committed_ms),
        grouped(version.files_added),
        grouped(version.files_removed),
        grouped(version.rows_added),
        grouped(version.rows_superseded),
        version.writer,
    )
}

fn history(manifest: &Manifest, limit: usize) -> String {
    let line = |run: &Arc<RunRecord>| {
        let changed: u64 = run.streams.iter().map(|stream| stream.inserted + stream.updated + stream.deleted).sum();
        format!(
            "{}  {}  {:<10}  {:>12} rows written  {:>6} requests\n",
            time(run.started_ms),
            run.id,
            run.outcome,
            grouped(changed),
            grouped(run.requests.values().sum()),
        ) + &run.streams.iter().map(holes).collect::<String>()
    };
    manifest.runs.iter().rev().take(limit).map(line).collect()
}

/// Says what a run left unproven of a stream; the next one walks it again.
fn holes(stream: &StreamRun) -> String {
    let line =
        |hole: &(i64, i64)| format!("  {:<10} not proven from {} to {}\n", stream.stream, time(hole.0), time(hole.1));
    let mut lines: String = stream.holes_ms.iter().take(SHOWN_HOLES).map(line).collect();
    let more = stream.holes_ms.len().saturating_sub(SHOWN_HOLES);
    if more > 0 {
        let _ = writeln!(lines, "  {:<10} and {more} more: SELECT holes FROM runs", stream.stream);
    }
    if stream.rejected > 0 {
        let ids: Vec<&str> = stream.rejected_records.iter().filter_map(|record| record.id.as_deref()).take(3).collect();
        let ids = if ids.is_empty() { String::new() } else { format!(", the first {}", ids.join(", ")) };
        let _ = writeln!(lines, "  {:<10} {} records did not decode{ids}", stream.stream, grouped(stream.rejected));
    }
    lines
}
