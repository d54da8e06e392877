//! `counterfoil extract`: one run, with its bar, its summary and its report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use jiff::Timestamp;
use tempfile::NamedTempFile;

use super::lake::apply;
use super::metrics::{self, Figures};
use super::progress::Bar;
use super::{Context, Ended, INTERRUPTED, grouped, interruption, moment, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::extract::price::Rates;
use crate::extract::{self, ExtractSettings, RunReport};
use crate::kustomer::Client;
use crate::lake::run::{AttributeRun, Reconciled, RunRecord, StreamRun};
use crate::lake::{CompactOutcome, CompactReport, Lake, MaintainSettings};
use crate::model::Stream;
use crate::policy::{Policy, Reason};
use crate::schema::Schemas;

/// What is extracted, and how fast.
#[derive(Debug, Args)]
pub(super) struct Scope {
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
    /// The part of the rate limits that this run may use, above 0 and at most 1
    #[arg(long, value_name = "F")]
    share: Option<f64>,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    scope: Scope,
    /// Compare all ids with the source's, and mend what differs: records that are gone, records that were missed
    ///
    /// It costs about a request per 480 records, so once a week is often enough.
    #[arg(long)]
    reconcile: bool,
    /// Stop before more requests than this are sent; a run needs about a dozen before its first ticket
    #[arg(long, value_name = "N")]
    max_requests: Option<u64>,
    /// Write the run's report, JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write figures for a Prometheus textfile collector, however the run ends; name it *.prom
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

/// What is known of a run while it goes on, for the figures that it leaves however it ends.
#[derive(Debug, Default)]
struct Known {
    metrics_file: Option<PathBuf>,
    rates: Option<Rates>,
    lake: Option<Lake>,
    run: Option<RunRecord>,
    /// What is to be done for the lake once the run has ended by itself.
    maintain: Option<MaintainSettings>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<Ended> {
    let started = context.clock.now();
    let mut known = Known::default();
    // A file that cannot be written is told before hours are spent, not after.
    if let Some(path) = &arguments.metrics_file {
        metrics::check(path)?;
        known.metrics_file = Some(path.clone());
    }
    let ended = watched(context, arguments, &mut known).await;
    let ended = with_metrics(context, started, ended, &mut known).await;
    if let (Some(settings), Some(lake)) = (&known.maintain, &known.lake) {
        maintain(context, lake, settings).await;
    }
    ended
}

async fn with_metrics(context: &Context, started: Timestamp, ended: Result<Ended>, known: &mut Known) -> Result<Ended> {
    let Some(path) = known.metrics_file.take() else { return ended };
    match (write_metrics(context, &path, started, &ended, known).await, ended) {
        (Err(error), Ok(_)) => Err(error),
        (Err(error), ended) => {
            tracing::warn!(%error, "the figures of this run are not written");
            ended
        }
        (Ok(()), ended) => ended,
    }
}

async fn write_metrics(
    context: &Context,
    path: &Path,
    started: Timestamp,
    ended: &Result<Ended>,
    known: &Known,
) -> Result<()> {
    let manifest = match &known.lake {
        // The figures of the run matter more than those of a lake that does not answer any more.
        Some(lake) => lake.latest().await.ok(),
        None => None,
    };
    // A run that failed has told the lake only what it got.
    let is_own = |run: &&Arc<RunRecord>| run.started_ms >= started.as_millisecond() && run.outcome == "failed";
    let failed = manifest.iter().filter_map(|manifest| manifest.runs.last()).find(is_own);
    metrics::write(
        path,
        &Figures {
            started,
            ended: context.clock.now(),
            exit_code: match ended {
                Ok(Ended::Done) => 0,
                Ok(Ended::Interrupted) => INTERRUPTED,
                Err(error) => error.kind().exit_code(),
            },
            run: known.run.as_ref().or(failed.map(AsRef::as_ref)),
            rates: known.rates,
            manifest: manifest.as_deref(),
        },
    )
}

async fn watched(context: &Context, arguments: &Arguments, known: &mut Known) -> Result<Ended> {
    let mut config = context.settings()?;
    if known.metrics_file.is_none()
        && let Some(path) = config.metrics_file.clone()
    {
        metrics::check(&path)?;
        known.metrics_file = Some(path);
    }
    let settings = arguments.scope.settings(&mut config)?;
    let settings = ExtractSettings { max_requests: arguments.max_requests, reconcile: arguments.reconcile, ..settings };
    known.rates = Some(config.source.rates());
    let policy = policy(&config)?;
    let client = client(context, &config)?;
    let lake = context.lake(&config).await?;
    known.lake = Some(lake.clone());
    let pending = arguments.report.as_deref().map(PendingReport::create).transpose()?;
    // The run ends by itself when it is interrupted: it says what it has, and gives the lease back.
    let is_interrupted = AtomicBool::new(false);
    let stop = async {
        interruption().await;
        is_interrupted.store(true, Ordering::Relaxed);
    };
    let report = extract(context, &policy, &client, &lake, &settings, stop).await;
    let rates = Rates::of(&client.budget_state());
    known.rates = Some(rates);
    let report = report?;
    known.run = Some(report.run.clone());
    if !context.quiet {
        for line in summary(&report, &rates) {
            say(&line);
        }
        for line in policy_notes(&report) {
            say(&line);
        }
        if report.complete {
            say(&freshness(&lake).await?);
        }
    }
    if let Some(pending) = pending {
        pending.write(&report.to_json())?;
    }
    if is_interrupted.into_inner() {
        if !report.complete {
            return Ok(Ended::Interrupted);
        }
    } else {
        known.maintain = config.maintain;
    }
    report.into_result().map(|_| Ended::Done)
}

/// Does what is due for the lake. The run has ended: whatever happens here does not change how.
async fn maintain(context: &Context, lake: &Lake, settings: &MaintainSettings) {
    let holder = format!("maintenance after an extract, process {}", std::process::id());
    let outcome = tokio::select! {
        outcome = lake.maintain(settings, &holder) => outcome,
        () = interruption() => {
            tracing::info!("maintenance of the lake was interrupted; the next run does the rest");
            return;
        }
    };
    match outcome {
        Ok(report) if report.is_held => tracing::debug!("another process maintains the lake; nothing is done here"),
        Ok(report) if context.quiet || report.compacted.done.is_empty() => {}
        Ok(report) => {
            for line in compacted(&report.compacted) {
                say(&line);
            }
        }
        Err(error) => tracing::warn!(
            %error,
            "maintenance of the lake failed; the run is not affected: `counterfoil lake compact` does it again"
        ),
    }
}

/// Says what a compaction did, a line per table.
fn compacted(report: &CompactReport) -> Vec<String> {
    let streams = Stream::ALL.into_iter().filter(|stream| report.done.iter().any(|done| done.stream == *stream));
    let line = |stream: Stream| {
        let sum = |of: fn(&CompactOutcome) -> u64| {
            report.done.iter().filter(|done| done.stream == stream).map(of).sum::<u64>()
        };
        let (before, after) = (sum(|done| done.files_before), sum(|done| done.files_after));
        let rows = grouped(sum(|done| done.rows));
        format!("{stream}: compacted {} files of {rows} rows into {}", grouped(before), grouped(after))
    };
    streams.map(line).collect()
}

impl Scope {
    /// Applies the flags to the settings, and returns those of the run.
    pub(super) fn settings(&self, config: &mut Config) -> Result<ExtractSettings> {
        if let Some(share) = self.share {
            if !(share > 0.0 && share <= 1.0) {
                return Err(Error::config("--share must be above 0 and at most 1").with_context("value", share));
            }
            config.source.share = Some(share);
        }
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(Error::config("--since is not before --until")
                .with_context("since", since)
                .with_context("until", until));
        }
        Ok(ExtractSettings { since: self.since, until: self.until, full: self.full, ..config.extract.clone() })
    }
}

/// Compiles the policy of the settings, which must declare the tickets.
pub(super) fn policy(config: &Config) -> Result<Policy> {
    let schemas = Schemas::load(&config.schemas)?;
    if schemas.table(Stream::Tickets).is_none() {
        return Err(Error::config("no schema declares the tickets")
            .with_context("file", config.schemas.join("tickets.toml").display())
            .with_hint("`counterfoil init FOLDER` writes the shipped schemas; copy tickets.toml from there"));
    }
    Policy::compile(&schemas)
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
    let bar = Bar::new(context, client);
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

/// Undeclared fields that the summary names; the report and the table `quarantine` have all.
const NAMED_FIELDS: usize = 5;

/// Says in a few lines what a run did and cost.
fn summary(report: &RunReport, rates: &Rates) -> Vec<String> {
    let mut lines = Vec::new();
    for run in &report.run.streams {
        let counts = changes(run);
        let proof = if run.complete { "" } else { "; NOT proven complete" };
        lines.push(format!("{:<12} {counts}{proof}", run.stream));
        lines.extend(run.reconciled.map(|found| reconciled(run, &found)));
        if run.followed > 0 {
            let (followed, moved) = (grouped(run.followed), grouped(run.moved));
            lines.push(format!(
                "{:<12} {followed} of customers that are no more asked for again, {moved} moved",
                run.stream
            ));
        }
    }
    if !report.run.denied.is_empty() {
        let denied = report.run.denied.join(", ");
        lines.push(format!("denied       {denied} (the credential may not read it; the run went on without)"));
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
    let is_undeclared = |reason| matches!(reason, Reason::Undeclared | Reason::Sensitive);
    let undeclared = report.quarantine.iter().filter(|(_, field)| is_undeclared(field.reason));
    let undeclared: Vec<String> = undeclared.map(|(stream, field)| format!("{stream} {}", field.path)).collect();
    if !undeclared.is_empty() {
        let more = undeclared.len().saturating_sub(NAMED_FIELDS);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let named = undeclared.iter().take(NAMED_FIELDS).map(String::as_str).collect::<Vec<_>>().join(", ");
        lines.push(format!(
            "dropped, because no schema declares it: {named}{more}; `counterfoil policy suggest` prints declarations"
        ));
    }
    let waits: Vec<String> =
        report.ledger.waited.iter().map(|(reason, wait)| format!("{reason} {:.1} s", wait.as_secs_f64())).collect();
    let waits =
        if waits.is_empty() { "waited for nothing".to_owned() } else { format!("waited: {}", waits.join(", ")) };
    lines.push(format!(
        "{} requests{rate}, {} planned; {waits}; run {} {}",
        grouped(report.run.requests.values().sum()),
        grouped(report.run.planned.values().sum()),
        report.run.id,
        report.run.outcome,
    ));
    if !report.complete {
        lines.push(left(report, rates));
    }
    lines
}

/// Changed rules that the summary names; the report has all.
const NAMED_CHANGES: usize = 8;

/// Says what has changed in the policy since the lake was written last, and what that leaves to do.
fn policy_notes(report: &RunReport) -> Vec<String> {
    let changes = &report.policy_changes;
    let mut lines: Vec<String> = changes.iter().take(NAMED_CHANGES).map(|change| format!("policy: {change}")).collect();
    if changes.len() > NAMED_CHANGES {
        lines.push(format!("policy: {} more rules changed (`--report`)", changes.len() - NAMED_CHANGES));
    }
    lines.extend(apply::forbidden(&report.survey));
    lines.extend(apply::lacking(&report.survey));
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

/// Says what a reconciliation found.
fn reconciled(run: &StreamRun, found: &Reconciled) -> String {
    let counts = [
        (found.gone, "gone"),
        (found.missing, "missing and fetched"),
        (found.hidden, "there but not listed"),
        (found.unproven, "parts NOT proven"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, word)| format!("{} {word}", grouped(*count))).collect();
    let counts = if counts.is_empty() { "nothing differs".to_owned() } else { counts.join(", ") };
    format!("{:<12} reconciled with {} ids of the source: {counts}", run.stream, grouped(found.swept))
}

/// Says what a run did not reach, what that should cost, and how to go on.
fn left(report: &RunReport, rates: &Rates) -> String {
    let left = report.left();
    let mut parts = Vec::new();
    if left.records > 0 {
        let (lasting, _) = rates.duration(left.requests, left.requests);
        parts.push(format!(
            "about {} records, {} requests and {:.0} minutes",
            grouped(left.records),
            grouped(left.requests),
            (lasting.as_secs_f64() / 60.0).ceil(),
        ));
    }
    if !report.unreached.is_empty() {
        let names: Vec<&str> = report.unreached.iter().map(|stream| stream.table()).collect();
        parts.push(format!("all of {} (`counterfoil plan` prices it)", names.join(" and ")));
    }
    let parts = if parts.is_empty() { "what could not be proven".to_owned() } else { parts.join("; and ") };
    format!("left: {parts}; run the extract again, it goes on from there")
}

/// The report's file beside its place, renamed when it is whole: whoever watches the place sees nothing half-written.
pub(super) struct PendingReport<'a> {
    path: &'a Path,
    file: NamedTempFile,
}

impl<'a> PendingReport<'a> {
    pub(super) fn create(path: &'a Path) -> Result<Self> {
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(folder).map_err(|source| failed_report(path, source))?;
        Ok(Self { path, file })
    }

    pub(super) fn write(mut self, report: &serde_json::Value) -> Result<()> {
        serde_json::to_writer_pretty(&mut self.file, report)
            .map_err(|source| failed_report(self.path, source.into()))?;
        self.file.persist(self.path).map_err(|error| failed_report(self.path, error.error))?;
        Ok(())
    }
}

fn failed_report(path: &Path, source: std::io::Error) -> Error {
    Error::config("failed to write the report").with_context("file", path.display()).with_source(source)
}
