//! `counterfoil lake compact`: join small files, and move superseded rows out of the way, or apply the policy.

use clap::Args;

use super::apply;
use crate::cli::{Context, grouped, print, say};
use crate::error::Result;
use crate::lake::{ApplySettings, CompactOutcome, CompactSettings, Lake};
use crate::model::Stream;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One table only
    #[arg(long, value_parser = super::table)]
    table: Option<Stream>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Rewrite what the schemas do not allow any more instead: columns that are dropped or hidden further now
    #[arg(long)]
    apply_policy: bool,
    /// End all older versions afterwards, if they still hold what is not allowed, and delete their files
    #[arg(long, requires = "apply_policy", conflicts_with = "dry_run")]
    expire: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    if arguments.apply_policy {
        let settings = ApplySettings { table: arguments.table, expire: arguments.expire, ..ApplySettings::default() };
        return apply::run(context, &settings, arguments.dry_run).await;
    }
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let settings = CompactSettings { table: arguments.table, ..CompactSettings::default() };
    let plan = Lake::plan_compaction(lake.latest().await?.as_ref(), &settings);
    if arguments.dry_run {
        if plan.is_empty() && !context.quiet {
            say("nothing to compact");
        }
        return print(&plan.to_string());
    }
    let progress = |done: &CompactOutcome| {
        if !context.quiet {
            let (files, rows) = (grouped(done.files_before), grouped(done.rows));
            say(&format!("{}: {files} files of {rows} rows are {} now", done.stream, grouped(done.files_after)));
        }
    };
    let holder = format!("lake compact, process {}", std::process::id());
    let report = lake.compact(&settings, &holder, progress).await?;
    if report.dropped > 0 {
        tracing::warn!(
            tasks = report.dropped,
            "another process has changed files meanwhile; what is left is done by the next run"
        );
    }
    if report.done.is_empty() && !context.quiet {
        say("nothing to compact");
    }
    print(&report.done.iter().map(line).collect::<String>())
}

/// One line per version that was made.
fn line(done: &CompactOutcome) -> String {
    format!(
        "version {:>6}  {:<10}  {:>6} files -> {:>4}  {:>12} rows  {:>12} moved to history  {:>14} bytes -> {:>14}\n",
        done.version,
        done.stream,
        grouped(done.files_before),
        grouped(done.files_after),
        grouped(done.rows),
        grouped(done.rows_moved),
        grouped(done.bytes_before),
        grouped(done.bytes_after),
    )
}
