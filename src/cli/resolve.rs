//! `counterfoil resolve`: ticket IDs to live details on standard output.
//!
//! ```text
//! arguments ─┐
//! --from ────┼─▶ ids, each once ─▶ price ─▶ run ─▶ standard output
//! --list ────┘                                └──▶ summary (standard error), report (--report)
//! ```
//!
//! Ctrl-C ends a run between two tickets: what was written stays whole, and summary and report tell how far it came.

pub(super) mod access;
mod input;
mod progress;
mod redact;
mod summary;
mod terminal;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use self::access::{Asked, Record};
use self::input::Input;
use self::progress::Bar;
use self::summary::Spent;
use super::extract::PendingReport;
use super::{Context, Ended, INTERRUPTED, interruption, print, say};
use crate::config::Config;
use crate::error::Result;
use crate::extract::price::Rates;
use crate::kustomer::Ledger;
use crate::lake::accesses::Cost;
use crate::resolve::{self, Format, Hooks, Outcome, Parts, ResolveSettings};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(super) struct Arguments {
    /// Ticket IDs
    ids: Vec<String>,
    /// A file of IDs: one a line, CSV with a column `ticket_id`, JSON or NDJSON; - for standard input
    #[arg(long, value_name = "FILE|-")]
    from: Option<PathBuf>,
    /// The tickets of a recorded list: NAME, NAME@2, NAME@latest or NAME@2026-11-01
    #[arg(long, value_name = "NAME[@WHICH]")]
    list: Option<String>,
    /// Parts, separated by commas: conversation, customer, messages, notes, attachments, tags, metadata,
    /// events; all but events unless some are named
    #[arg(long, value_name = "PARTS")]
    only: Option<String>,
    /// Write each ticket as a thread to read, not as a line of JSON
    #[arg(long)]
    pretty: bool,
    /// With --pretty: times in UTC, not in the time zone of this machine
    #[arg(long, requires = "pretty")]
    utc: bool,
    /// Show only what the policy lets through: declared fields by their methods, texts scrubbed, addresses masked
    #[arg(long)]
    redact: bool,
    /// Print the requests that it would take, and ask for nothing
    #[arg(long, conflicts_with = "report")]
    dry_run: bool,
    /// Stop before more requests than this are sent
    #[arg(long, value_name = "N")]
    max_requests: Option<u64>,
    /// Write the run's report, JSON: requests by endpoint, tickets by outcome, nothing of what was read
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

const HELP: &str = "Details are fetched when asked for and stored nowhere. Each line is complete in itself; its `errors` name the parts \
that could not be read. An empty list is no error: nothing is asked for, and the exit code is 0.

Examples:
  counterfoil resolve 58228e05d4e96711004eccb7 --pretty
  counterfoil query reopened_vip --format ids | counterfoil resolve --from - --only messages,notes
  counterfoil resolve --list reopened_vip@latest --dry-run";

/// What was asked for, checked: nothing was sent yet.
struct Prepared {
    config: Config,
    settings: ResolveSettings,
    input: Input,
}

/// Ends when the run is to end.
type Stop = Shared<BoxFuture<'static, ()>>;

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<Ended> {
    let stop: Stop = interruption().boxed().shared();
    let prepared = tokio::select! {
        prepared = prepare(context, arguments) => prepared?,
        () = stop.clone() => return Ok(Ended::Interrupted),
    };
    let Prepared { config, mut settings, input } = prepared;
    if !context.quiet {
        input.notes().iter().for_each(|note| say(note));
    }
    if arguments.dry_run {
        if input.ids.is_empty() {
            return Ok(Ended::Done);
        }
        let client = config.source.client_settings(&config.base)?;
        let rates = Rates::new(client.org_rpm, client.search_rpm, client.share);
        print(&summary::price(&resolve::estimate(&input.ids, settings.parts), settings.parts, &rates))?;
        return Ok(Ended::Done);
    }
    if !input.ids.is_empty() {
        settings.redaction = redact::redaction(context, &config, arguments.redact).await?;
    }
    deliver(context, arguments, &config, &settings, &input, stop).await
}

/// Reads settings and ids.
async fn prepare(context: &Context, arguments: &Arguments) -> Result<Prepared> {
    let config = context.settings()?;
    let parts = match &arguments.only {
        Some(only) => only.parse()?,
        None => Parts::default(),
    };
    let format = if arguments.pretty { Format::Thread(terminal::style(arguments.utc)) } else { Format::Lines };
    let settings =
        ResolveSettings { parts, max_requests: arguments.max_requests, format, ..ResolveSettings::default() };
    let input = input::read(context, arguments, &config).await?;
    Ok(Prepared { config, settings, input })
}

/// Resolves the tickets, and tells what came of it.
async fn deliver(
    context: &Context,
    arguments: &Arguments,
    config: &Config,
    settings: &ResolveSettings,
    input: &Input,
    stop: Stop,
) -> Result<Ended> {
    let pending = arguments.report.as_deref().map(PendingReport::create).transpose()?;
    let began = context.clock.now();
    let price = resolve::estimate(&input.ids, settings.parts);
    let last = Mutex::new(Outcome { tickets: price.tickets, ..Outcome::default() });
    let mut spent =
        Spent { parts: settings.parts, price, began, repeated_ids: input.repeated, ledger: Ledger::default() };
    let ended = if input.ids.is_empty() {
        Ok(Outcome::default())
    } else {
        let client = super::extract::client(context, config)?;
        let asked = Asked {
            command: "resolve",
            ids: input.ids.as_slice().into(),
            parts: settings.parts.to_string(),
            redacted: settings.redaction.is_some(),
            attachment_id: None,
        };
        let record = Record::new(context, config, asked);
        let before = client.ledger();
        let bar = Bar::new(context, &client, &price);
        let hooks = Hooks {
            known: record.known().boxed(),
            permit: record.permit().boxed(),
            writing: Box::new(|detail| record.note(detail, settings.parts)),
            stop: stop.boxed(),
            delivered: Box::new(|outcome| {
                bar.set(outcome.written);
                last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(outcome);
            }),
        };
        let mut stdout = bar.ending_before(context.watch.stdout());
        let ended = resolve::run(&client, &input.ids, settings, hooks, &context.clock, &mut stdout).await;
        bar.clear();
        spent.ledger = client.ledger().since(&before);
        let several_customers = ended.as_ref().ok().and_then(|outcome| outcome.several_customers);
        let finished = record.finish(Cost { requests: spent.ledger.total(), several_customers }).await;
        ended.and_then(|outcome| finished.map(|()| outcome))
    };
    let (outcome, ended) = match ended {
        Ok(outcome) if outcome.interrupted => (outcome, Ok(Ended::Interrupted)),
        Ok(outcome) => {
            let error = outcome.error();
            (outcome, error.map_or(Ok(Ended::Done), Err))
        }
        Err(error) => (last.into_inner().unwrap_or_else(PoisonError::into_inner), Err(error)),
    };
    if !context.quiet && !input.ids.is_empty() {
        spent.lines(&outcome).iter().for_each(|line| say(line));
    }
    if let Some(pending) = pending {
        let exit_code = match &ended {
            Ok(Ended::Done) => 0,
            Ok(Ended::Interrupted) => INTERRUPTED,
            Err(error) => error.kind().exit_code(),
        };
        pending.write(&spent.report(&outcome, exit_code, context.clock.now()))?;
    }
    ended
}
