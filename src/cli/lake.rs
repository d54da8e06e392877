//! `counterfoil lake`: what the lake holds.

mod compact;

use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Context, grouped, print};
use crate::error::Result;
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::run::{RunRecord, StreamRun};
use crate::model::Stream;

/// Holes of a stream that the history names.
const SHOWN_HOLES: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tables, rows, files, sizes, watermarks
    Status,
    /// Runs, newest first
    History {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Data files
    Files {
        /// One table only
        #[arg(long)]
        table: Option<Stream>,
    },
    /// Join small files, and move superseded rows out of the way of queries
    Compact(compact::Arguments),
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let manifest = lake.latest().await?;
    let text = match &arguments.command {
        Command::Status => status(&manifest),
        Command::History { limit } => history(&manifest, *limit),
        Command::Files { table } => files(&manifest, *table),
        Command::Compact(arguments) => return compact::run(context, &lake, &manifest, arguments).await,
    };
    print(&text)
}

fn status(manifest: &Arc<Manifest>) -> String {
    if manifest.version == 0 {
        return "empty: `counterfoil extract` fills it\n".to_owned();
    }
    let mut lines = vec![
        format!("version    {} of {}", manifest.version, time(manifest.committed_ms)),
        format!(
            "{:<10} {:>12} {:>12} {:>12} {:>6} {:>14}  complete through",
            "table", "live rows", "superseded", "deleted", "files", "bytes"
        ),
    ];
    for (stream, table) in &manifest.tables {
        let rows: u64 = table.files.iter().map(|file| file.rows).sum();
        let superseded: u64 = table.files.iter().map(|file| file.superseded.len()).sum();
        let live: u64 = table.files.iter().map(|file| file.live_rows()).sum();
        let tombstones = rows - superseded - live;
        let bytes: u64 = table.files.iter().map(|file| file.bytes).sum();
        let watermark = manifest.watermarks.get(stream).cloned().unwrap_or_default();
        let through = watermark.complete_through_ms.map_or_else(|| "-".to_owned(), time);
        let from = watermark.complete_from_ms.map_or_else(String::new, |from| format!(" (from {})", time(from)));
        // Small tables show what the source marks as deleted too.
        let shown = if stream.is_incremental() { live } else { live + tombstones };
        lines.push(format!(
            "{:<10} {:>12} {:>12} {:>12} {:>6} {:>14}  {through}{from}",
            stream.table(),
            grouped(shown),
            grouped(superseded),
            grouped(tombstones),
            table.files.len(),
            grouped(bytes),
        ));
    }
    lines.join("\n") + "\n"
}

fn history(manifest: &Arc<Manifest>, limit: usize) -> String {
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

fn files(manifest: &Arc<Manifest>, only: Option<Stream>) -> String {
    let tables = manifest.tables.iter().filter(|(stream, _)| only.is_none_or(|only| only == **stream));
    let line = |file: &Arc<DataFile>| {
        format!(
            "{}  {:>10} rows  {:>10} superseded  {:>12} bytes\n",
            file.path,
            grouped(file.rows),
            grouped(file.superseded.len()),
            grouped(file.bytes)
        )
    };
    tables.flat_map(|(_, table)| &table.files).map(line).collect()
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}
