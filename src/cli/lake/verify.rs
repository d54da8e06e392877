//! `counterfoil lake verify`: read everything, report what is damaged.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::atomic::Ordering;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Context, IS_JSON, grouped, print};
use crate::error::Result;
use crate::lake::verify::{Verified, VerifyReport};
use crate::model::Stream;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Data files of one table only; the log and the keys are read in any case
    #[arg(long, value_parser = super::table)]
    table: Option<Stream>,
    /// Form of the report: text or json
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let root = config.root()?;
    let bar = bar(context);
    let progress = |verified: Verified| {
        bar.set_length(verified.of);
        bar.set_position(verified.files);
        bar.set_message(grouped(verified.bytes));
    };
    let verified = lake.verify(&root, arguments.table, &progress).await;
    bar.finish_and_clear();
    let report = verified?;
    print(&if arguments.format == "json" { json(&report) } else { text(&report) })?;
    report.verdict()
}

fn bar(context: &Context) -> ProgressBar {
    let is_shown = !context.quiet && !IS_JSON.load(Ordering::Relaxed) && std::io::stderr().is_terminal();
    if !is_shown {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:30} {pos}/{len} files, {msg} bytes  {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn text(report: &VerifyReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(text, "{:<11} {}: {}", finding.kind.name(), finding.object, finding.message);
    }
    for garbage in &report.garbage {
        let _ = writeln!(text, "{:<11} {}: {} bytes", "garbage", garbage.object, grouped(garbage.bytes));
    }
    let _ = writeln!(
        text,
        "version {}: {} commits, {} snapshots, {} key rings, {} data files of {} rows and {} bytes",
        report.version,
        grouped(report.commits),
        grouped(report.snapshots),
        grouped(report.rings),
        grouped(report.files),
        grouped(report.rows),
        grouped(report.bytes),
    );
    if report.oldest > 0 {
        let _ = writeln!(text, "versions before {} have expired", report.oldest);
    }
    if report.rings_of_other_roots > 0 {
        let rings = report.rings_of_other_roots;
        let _ = writeln!(text, "{rings} older key rings were not opened: another root key seals them");
    }
    if report.files_with_unchecked_columns > 0 {
        let files = grouped(report.files_with_unchecked_columns);
        let _ = writeln!(text, "restricted columns of {files} data files were not checked: that takes their key");
    }
    if !report.garbage.is_empty() {
        let bytes = report.garbage.iter().map(|garbage| garbage.bytes).sum();
        let objects = report.garbage.len() as u64;
        let _ = writeln!(
            text,
            "{} objects of {} bytes belong to no version: a run under way may be writing them, else they are garbage",
            grouped(objects),
            grouped(bytes)
        );
    }
    let _ = match report.findings.len() {
        0 => writeln!(text, "sound: {} live rows, none twice", grouped(report.live_rows)),
        1 => writeln!(text, "damaged: 1 finding"),
        found => writeln!(text, "damaged: {found} findings"),
    };
    text
}

fn json(report: &VerifyReport) -> String {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "object": finding.object, "kind": finding.kind.name(), "message": finding.message,
            })
        })
        .collect();
    let garbage: Vec<_> = report
        .garbage
        .iter()
        .map(|garbage| serde_json::json!({ "object": garbage.object, "bytes": garbage.bytes }))
        .collect();
    let report = serde_json::json!({
        "format": 1,
        "sound": report.findings.is_empty(),
        "version": report.version,
        "oldest": report.oldest,
        "commits": report.commits,
        "snapshots": report.snapshots,
        "rings": report.rings,
        "rings_of_other_roots": report.rings_of_other_roots,
        "files_with_unchecked_columns": report.files_with_unchecked_columns,
        "files": report.files,
        "rows": report.rows,
        "bytes": report.bytes,
        "live_rows": report.live_rows,
        "findings": findings,
        "garbage": garbage,
    });
    format!("{report}\n")
}
