//! `counterfoil extract`: one run, with its bar, its summary and its report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use jiff::Timestamp;
use tempfile::NamedTempFile;

use super::progress::Bar;
use super::{Context, Ended, grouped, interruption, moment, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::extract::{self, ExtractSettings, RunReport};
use crate::kustomer::Client;
use crate::lake::Lake;
use crate::lake::run::{AttributeRun, StreamRun};
use crate::model::Stream;
use crate::policy::{Policy, Reason};
use crate::schema::Schemas;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only what changed at or after this time
    ///
    /// A first run leaves older records out, and `lake status` says so; later runs walk again from here.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only what changed before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Everything again, from the beginning or from --since
    #[arg(long)]
    full: bool,
    /// Stop before more requests than this are sent; a run needs about a dozen before its first ticket
    #[arg(long, value_name = "N")]
    max_requests: Option<u64>,
    /// The part of the rate limits that this run may use, above 0 and at most 1
    #[arg(long, value_name = "F")]
    share: Option<f64>,
    /// Write the run's report, JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<Ended> {
    let mut config = context.settings()?;
    if let Some(share) = arguments.share {
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::config("--share must be above 0 and at most 1").with_context("value", share));
        }
        config.source.share = Some(share);
    }
    if let (Some(since), Some(until)) = (arguments.since, arguments.until)
        && since >= until
    {
        return Err(Error::config("--since is not before --until")
            .with_context("since", since)
            .with_context("until", until));
    }
    let settings = ExtractSettings {
        since: arguments.since,
        until: arguments.until,
        full: arguments.full,
        max_requests: arguments.max_requests,
        ..config.extract.clone()
    };
    let schemas = Schemas::load(&config.schemas)?;
    if schemas.table(Stream::Tickets).is_none() {
        return Err(Error::config("no schema declares the tickets")
            .with_context("file", config.schemas.join("tickets.toml").display())
            .with_hint("`counterfoil init FOLDER` writes the shipped schemas; copy tickets.toml from there"));
    }
    let policy = Policy::compile(&schemas)?;
    let client = client(context, &config)?;
    let lake = context.lake(&config).await?;
    // A report that cannot be written is told before hours are spent, not after.
    let pending = arguments.report.as_deref().map(PendingReport::create).transpose()?;
    // The run ends by itself when it is interrupted: it says what it has, and gives the lease back.
    let is_interrupted = AtomicBool::new(false);
    let stop = async {
        interruption().await;
        is_interrupted.store(true, Ordering::Relaxed);
    };
    let report = extract(context, &policy, &client, &lake, &settings, stop).await?;
    if !context.quiet {
        for line in summary(&report) {
            say(&line);
        }
        if report.complete {
            say(&freshness(&lake).await?);
        }
    }
    if let Some(pending) = pending {
        pending.write(&report)?;
    }
    if is_interrupted.into_inner() && !report.complete {
        return Ok(Ended::Interrupted);
    }
    report.into_result().map(|_| Ended::Done)
}

/// Makes the client of the settings.
pub(super) fn client(context: &Context, config: &Config) -> Result<Client> {
    // The jitter of retries has to differ between processes that were hit by the same failure.
    let seed = u64::from(std::process::id()) ^ context.clock.now().as_millisecond().unsigned_abs();
    Client::try_new(config.source.client_settings(&config.base)?, Arc::clone(&context.clock), seed)
}

/// Runs one extract under a bar.
pub(super) async fn extract(
    context: &Context,
    policy: &Policy,
    client: &Client,
    lake: &Lake,
    settings: &ExtractSettings,
    stop: impl Future<Output = ()> + Send,
) -> Result<RunReport> {
    let bar = Bar::new(context.quiet);
    let report = extract::run(client, policy, lake, &context.clock, settings, &bar, stop).await;
    bar.clear();
    report
}

/// Says until when the lake is complete: what changed later comes with the next run.
async fn freshness(lake: &Lake) -> Result<String> {
    let manifest = lake.latest().await?;
    // What search reaches of an optional stream without an archive is no figure of the tickets.
    let archived = || manifest.watermarks.iter().filter(|(stream, _)| stream.has_archive());
    let watermarks = || archived().map(|(_, watermark)| watermark);
    let time = |ms: i64| Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.0}"));
    let through = watermarks().filter_map(|watermark| watermark.complete_through_ms).min();
    let from = watermarks().filter_map(|watermark| watermark.complete_from_ms).max();
    let from =
        from.map_or_else(String::new, |from| format!(" from {} (older records were left out by --since)", time(from)));
    Ok(match through {
        Some(through) => format!("complete{from} through {}; later changes come with the next run", time(through)),
        None => "nothing is declared that is extracted by time".to_owned(),
    })
}

/// Says what a run wrote of one stream, or that it was nothing.
pub(super) fn changes(run: &StreamRun) -> String {
    let counts = [
        (run.inserted, "new"),
        (run.updated, "changed"),
        (run.deleted, "deleted"),
        (run.unchanged, "seen again unchanged"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, word)| format!("{} {word}", grouped(*count))).collect();
    if counts.is_empty() { "nothing new".to_owned() } else { counts.join(", ") }
}

/// Undeclared fields that the summary names; the report has all.
const NAMED_FIELDS: usize = 5;

/// Says in a few lines what a run did and cost.
fn summary(report: &RunReport) -> Vec<String> {
    let mut lines = Vec::new();
    for run in &report.run.streams {
        let counts = changes(run);
        let proof = if run.complete { "" } else { "; NOT proven complete" };
        lines.push(format!("{:<12} {counts}{proof}", run.stream));
    }
    if !report.run.not_due.is_empty() {
        lines.push(format!("not due      {} (read within `extract.small_every`)", report.run.not_due.join(", ")));
    }
    for run in &report.run.streams {
        lines.extend(run.attributes.iter().map(|attribute| format!("{} {}", run.stream, told(attribute))));
    }
    let tickets = report.run.streams.iter().find(|run| run.stream == "tickets").map_or(0, |run| run.distinct);
    let rate = match tickets {
        0 => String::new(),
        _ => format!(", {:.2} per 100 tickets", report.requests_per_100_tickets),
    };
    let undeclared = report.quarantine.iter().filter(|(_, field)| field.reason == Reason::Undeclared);
    let undeclared: Vec<String> = undeclared.map(|(stream, field)| format!("{stream} {}", field.path)).collect();
    if !undeclared.is_empty() {
        let more = undeclared.len().saturating_sub(NAMED_FIELDS);
        let more = if more > 0 { format!(", and {more} more (`--report`)") } else { String::new() };
        let named = undeclared.iter().take(NAMED_FIELDS).map(String::as_str).collect::<Vec<_>>().join(", ");
        lines.push(format!("dropped, because no schema declares it: {named}{more}"));
    }
    lines.push(format!(
        "{} requests{rate}; waited {:.1} s for the budget; run {} {}",
        grouped(report.run.requests.values().sum()),
        report.run.waited_ms as f64 / 1_000.0,
        report.run.id,
        report.run.outcome,
    ));
    lines
}

/// Says what became of a custom attribute that is new or changed at the source.
fn told(attribute: &AttributeRun) -> String {
    let AttributeRun { attribute, now, was, column, before, .. } = attribute;
    match (column, was, before) {
        (Some(column), Some(was), Some(before)) => {
            format!("attribute {attribute} was {was} and is {now}: from now on in {column}, before in {before}")
        }
        (Some(column), ..) => format!("attribute {attribute} is new: column {column} ({now})"),
        (None, ..) => format!("attribute {attribute} is left out: the method of its rule does not fit the type {now}"),
    }
}

const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Undeclared => "undeclared",
        Reason::Mismatch => "not of its column's type",
    }
}

/// The report's file beside its place, renamed when it is whole: whoever watches the place sees nothing half-written.
struct PendingReport<'a> {
    path: &'a Path,
    file: NamedTempFile,
}

impl<'a> PendingReport<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(folder).map_err(|source| failed_report(path, source))?;
        Ok(Self { path, file })
    }

    fn write(mut self, report: &RunReport) -> Result<()> {
        let json = report_json(report);
        serde_json::to_writer_pretty(&mut self.file, &json)
            .map_err(|source| failed_report(self.path, source.into()))?;
        self.file.persist(self.path).map_err(|error| failed_report(self.path, error.error))?;
        Ok(())
    }
}

fn failed_report(path: &Path, source: std::io::Error) -> Error {
    Error::config("failed to write the report").with_context("file", path.display()).with_source(source)
}

fn report_json(report: &RunReport) -> serde_json::Value {
    let quarantine: Vec<_> = report
        .quarantine
        .iter()
        .map(|(stream, field)| {
            serde_json::json!({
                "stream": stream.table(),
                "field": field.path,
                "type": field.json_type,
                "reason": reason(field.reason),
                "count": field.count,
            })
        })
        .collect();
    let waits: BTreeMap<_, _> = report.ledger.waited.iter().map(|(name, wait)| (name, wait.as_secs_f64())).collect();
    serde_json::json!({
        "run": report.run,
        "complete": report.complete,
        "requests_per_100_tickets": report.requests_per_100_tickets,
        "waited_seconds": waits,
        "quarantine": quarantine,
    })
}
