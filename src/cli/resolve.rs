//! `counterfoil resolve`: ticket IDs to live details on standard output.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;

use super::{Context, grouped, print, say};
use crate::error::{Error, Result};
use crate::resolve::{self, Hooks, Ids, Parts, ResolveSettings};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ticket IDs
    ids: Vec<String>,
    /// A file with one ID a line, or - for standard input
    #[arg(long, value_name = "FILE|-")]
    from: Option<PathBuf>,
    /// Parts, separated by commas: conversation, customer, messages, notes, attachments, tags, metadata,
    /// events; all but events unless some are named
    #[arg(long, value_name = "PARTS")]
    only: Option<String>,
    /// Print the requests that it would take, and ask for nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop before more requests than this are sent
    #[arg(long, value_name = "N")]
    max_requests: Option<u64>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let parts = match &arguments.only {
        Some(only) => only.parse()?,
        None => Parts::default(),
    };
    if arguments.ids.is_empty() && arguments.from.is_none() {
        return Err(Error::config("no ticket ID was given")
            .with_hint("`counterfoil resolve ID…`, or `--from FILE`, or `--from -` for standard input"));
    }
    let (given, from) = (arguments.ids.clone(), arguments.from.clone());
    // Standard input may never come: reading it must not keep Ctrl-C from being heard.
    let reading = tokio::task::spawn_blocking(move || {
        let mut ids = Ids::default();
        ids.add_arguments(&given)?;
        if let Some(from) = from {
            ids.add_file(&from)?;
        }
        Ok::<_, Error>(ids)
    });
    let ids = reading.await.map_err(|source| Error::internal("failed to read the ids").with_source(source))??;
    let ids = ids.into_vec();

    let settings = config.source.client_settings(&config.base)?;
    if arguments.dry_run {
        let price = resolve::estimate(&ids, parts);
        let rate = f64::from(settings.org_rpm) * settings.share;
        let minutes = price.minutes(rate);
        let time =
            if minutes < 1.0 { format!("{:.0} seconds", minutes * 60.0) } else { format!("{minutes:.1} minutes") };
        return print(&format!("{price}; {time} at {rate:.0} requests a minute\n"));
    }

    let client = super::extract::client(context, &config)?;
    let settings = ResolveSettings { parts, max_requests: arguments.max_requests, ..ResolveSettings::default() };
    let mut stdout = std::io::stdout();
    let outcome = resolve::run(&client, &ids, &settings, Hooks::default(), &context.clock, &mut stdout).await?;
    if !context.quiet && std::io::stderr().is_terminal() {
        say(&format!("{} tickets in {} requests", grouped(outcome.tickets), grouped(client.ledger().total())));
    }
    outcome.error().map_or(Ok(()), Err)
}
