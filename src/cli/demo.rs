//! `counterfoil demo`: the whole promise on an embedded sandbox, in a minute.
//!
//! It goes the way a user would: the folder that `init` writes, its settings, the shipped schemas and queries. Its
//! account is its data, so it goes to standard output.

use std::fs;
use std::future::pending;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{Context, extract, grouped, init, query};
use crate::config::{Config, Settings};
use crate::error::{Error, Result};
use crate::extract::RunReport;
use crate::kustomer::Client;
use crate::lake::run::StreamRun;
use crate::lake::{Lake, StoreSettings};
use crate::model::{ObjectId, Stream};
use crate::policy::Policy;
use crate::query::sink::{self, Format};
use crate::query::{Arguments as Bound, Library, Session};
use crate::resolve::{self, Hooks, ResolveSettings};
use crate::sandbox::{Sandbox, SandboxSettings};
use crate::schema::Schemas;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Keep everything in this folder (made if missing); without it a temporary folder is used and removed
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Tickets of the synthetic organisation
    #[arg(long, default_value_t = 20_000)]
    tickets: u64,
}

/// The shipped queries that the demo runs.
const QUERIES: [&str; 3] = ["reopened_vip", "first_response_misses", "weekly_volume_by_channel"];

/// Rows shown of each.
const SHOWN: usize = 5;

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    if arguments.tickets < 100 {
        return Err(Error::config("the demo needs at least 100 tickets").with_context("--tickets", arguments.tickets));
    }
    let temporary;
    let folder = if let Some(folder) = &arguments.dir {
        folder.as_path()
    } else {
        temporary = tempfile::tempdir()
            .map_err(|source| Error::config("failed to make a temporary folder").with_source(source))?;
        temporary.path()
    };
    let started = context.clock.now();
    let settings = SandboxSettings {
        tickets: arguments.tickets,
        customers: arguments.tickets / 3,
        seed: 1,
        ..SandboxSettings::default()
    };
    let sandbox = Sandbox::start(settings, Arc::clone(&context.clock)).await?;
    let config = prepare(context, folder, &sandbox).await?;
    tell("Counterfoil's demo: a synthetic organisation, on this machine only.\n");
    tell(&format!(
        "1. The source: a Kustomer-compatible sandbox at {}, {} tickets of {} customers.\n   \
         It allows 1,000 requests and 100 searches a minute, as the real service does; the demo may use nine tenths.\n",
        sandbox.base_url(),
        grouped(arguments.tickets),
        grouped(arguments.tickets / 3),
    ));

    let client = Client::try_new(config.source.client_settings(&config.base)?, Arc::clone(&context.clock), 1)?;
    let policy = Policy::compile(&Schemas::load(&config.schemas)?)?;
    let lake = context.lake(&config).await?;

    let first = extract::extract(context, &policy, &client, &lake, &config.extract, pending()).await?;
    tell(&format!("2. First extract: {}.\n   {}", rows(&first), cost(&first)));
    tell(&format!(
        "   Redacted while decoding: subjects, previews and e-mail addresses never became a value.\n   \
         At rest: {}, all of it encrypted with AES-256-GCM.\n",
        at_rest(&folder.join("lake"))?
    ));

    let changed = (arguments.tickets / 100).min(200);
    let deleted = changed / 20 + 1;
    change(&sandbox, arguments.tickets, changed, deleted);
    context.clock.sleep(Duration::from_millis(20)).await;
    let second = extract::extract(context, &policy, &client, &lake, &config.extract, pending()).await?;
    tell(&format!(
        "3. At the source {} and {}. Second extract: {}.\n   {}\n",
        counted(changed, "ticket changes", "tickets change"),
        counted(deleted, "is deleted", "are deleted"),
        rows(&second),
        cost(&second),
    ));

    let ids = queries(context, &config, &lake).await?;
    resolve_one(context, &client, ids).await?;
    sandbox.shutdown().await;

    let seconds = context.clock.now().duration_since(started).as_secs_f64();
    tell(&format!("That took {seconds:.1} seconds. What to try next:"));
    match &arguments.dir {
        Some(folder) => tell(&format!(
            "   counterfoil --config {0}/counterfoil.toml query            the SQL files there are\n   \
             counterfoil --config {0}/counterfoil.toml query qa_sample_per_agent --format ids\n   \
             counterfoil --config {0}/counterfoil.toml lake status",
            folder.display()
        )),
        None => tell(
            "   counterfoil demo --dir demo      the same, and the folder stays: settings, schemas, queries, lake\n   \
             counterfoil sandbox              the synthetic organisation alone, for your own settings",
        ),
    }
    tell("   counterfoil init --org NAME      a first configuration for a real organisation");
    Ok(())
}

/// Writes the folder as `init` does, pointed at the sandbox.
async fn prepare(context: &Context, folder: &Path, sandbox: &Sandbox) -> Result<Config> {
    fs::create_dir_all(folder).map_err(|source| {
        Error::config("failed to make the folder").with_context("path", folder.display()).with_source(source)
    })?;
    let source = format!(
        "base_url = \"{}\"  # the demo's sandbox, gone when the demo ended\napi_key = \"file:sandbox.key\"\nshare = 0.9\n",
        sandbox.base_url()
    );
    init::write_folder(context, folder, &source, "file:root.key", &StoreSettings::new(init::LAKE, folder)).await?;
    let key = folder.join("sandbox.key");
    fs::write(&key, sandbox.api_key()).map_err(|source| {
        Error::config("failed to write the file").with_context("path", key.display()).with_source(source)
    })?;
    // The environment is left out: it may point at a real organisation and a real lake.
    let path = folder.join("counterfoil.toml");
    let text = fs::read_to_string(&path).map_err(|source| {
        Error::config("failed to read the settings").with_context("file", path.display()).with_source(source)
    })?;
    let mut config = Settings::parse(&text, &path.display().to_string(), [])?.compose(folder.to_path_buf())?;
    // The sandbox's index is never late, and the demo's changes are a moment old.
    config.extract.index_lag = Duration::ZERO;
    Ok(config)
}

/// Changes and deletes tickets, spread over the organisation.
fn change(sandbox: &Sandbox, tickets: u64, changed: u64, deleted: u64) {
    let spread =
        |count: u64, first: u64| (0..count).map(|n| (first + n * (tickets / count)) % tickets).collect::<Vec<_>>();
    sandbox.organisation().touch(&spread(changed, 1));
    sandbox.organisation().delete(&spread(deleted, 0));
}

/// Runs the three queries; returns the first ticket of the first.
async fn queries(context: &Context, config: &Config, lake: &Lake) -> Result<Vec<ObjectId>> {
    let library = Library::load(&config.queries)?;
    let manifest = lake.latest().await?;
    let session = Session::open(lake, &manifest, &config.query, &context.clock)?;
    let mut first = Vec::new();
    for (index, name) in QUERIES.iter().enumerate() {
        let file = library.find(name)?;
        tell(&format!("{}. counterfoil query {}: {}", index + 4, file.name, file.description));
        let plan = session.plan(&file, &Bound::parse(&file, &[])?).await?;
        let mut table = Vec::new();
        let mut layout = query::layout();
        layout.max_rows = SHOWN;
        let written = sink::write(session.stream(&plan).await?, Format::Table, &layout, &mut table).await?;
        tell(String::from_utf8_lossy(&table).trim_end());
        written.notes.iter().for_each(|note| tell(&format!("   {note}")));
        tell("");
        if first.is_empty() && plan.is_ticket_list() {
            let mut ids = Vec::new();
            sink::write(session.stream(&plan).await?, Format::Ids, &layout, &mut ids).await?;
            first.extend(String::from_utf8_lossy(&ids).lines().next().and_then(|id| id.parse::<ObjectId>().ok()));
        }
    }
    Ok(first)
}

async fn resolve_one(context: &Context, client: &Client, ids: Vec<ObjectId>) -> Result<()> {
    let Some(id) = ids.first() else { return Err(Error::internal("the demo's first query found no ticket")) };
    let before = client.ledger().total();
    let mut line = Vec::new();
    resolve::run(client, &ids, &ResolveSettings::default(), Hooks::default(), &context.clock, &mut line).await?;
    let detail: serde_json::Value = serde_json::from_slice(&line)
        .map_err(|source| Error::internal("the resolver's line is no JSON").with_source(source))?;
    let count = |part: &str| detail[part].as_array().map_or(0, Vec::len) as u64;
    tell(&format!(
        "7. counterfoil resolve {id}: one JSON line of {} bytes, live from the source in {} requests, stored nowhere:\n   \
         its subject is {}, with {}, {}, {} and {}.\n",
        grouped(line.len() as u64),
        client.ledger().total() - before,
        detail["conversation"]["attributes"]["name"],
        counted(count("messages"), "message", "messages"),
        counted(count("notes"), "note", "notes"),
        counted(count("attachments"), "attachment", "attachments"),
        counted(count("tags"), "tag", "tags"),
    ));
    Ok(())
}

/// Says what a run wrote.
fn rows(report: &RunReport) -> String {
    let of = |stream: Stream| report.run.streams.iter().find(|run| run.stream == stream.table());
    let mut parts = Vec::new();
    for stream in [Stream::Tickets, Stream::Customers] {
        let Some(run) = of(stream) else { continue };
        parts.push(format!("{stream}: {}", extract::changes(run)));
    }
    let small: u64 = report.run.streams.iter().filter(|run| is_small(run)).map(|run| run.inserted).sum();
    if small > 0 {
        parts.push(format!("agents, teams, tags and the like: {}", grouped(small)));
    }
    parts.join("; ")
}

fn is_small(run: &StreamRun) -> bool {
    run.stream.parse::<Stream>().is_ok_and(|stream| !stream.is_incremental())
}

/// Writes a count with its noun.
fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { more })
}

/// Says what a run cost.
fn cost(report: &RunReport) -> String {
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let ended = report.run.ended_ms.unwrap_or(report.run.started_ms);
    let tickets = report.run.streams.iter().find(|run| run.stream == Stream::Tickets.table());
    let rate = match tickets {
        // Of a few changed tickets the rate says nothing: a run costs about ten requests before the first.
        Some(run) if run.inserted > 0 => {
            format!(" ({:.2} per 100 tickets, customers' counts included)", report.requests_per_100_tickets)
        }
        _ => String::new(),
    };
    format!(
        "{} requests{rate}, {:.1} s, of which {:.1} s waiting for the budget; proven {}.",
        report.run.requests.values().sum::<u64>(),
        seconds(u64::try_from(ended - report.run.started_ms).unwrap_or_default()),
        seconds(report.run.waited_ms),
        if report.complete { "complete" } else { "INCOMPLETE" },
    )
}

/// Says how many files of how many bytes a folder holds.
fn at_rest(folder: &Path) -> Result<String> {
    fn walk(folder: &Path, found: &mut (u64, u64)) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), found)?;
            } else {
                *found = (found.0 + 1, found.1 + entry.metadata()?.len());
            }
        }
        Ok(())
    }
    let mut found = (0, 0);
    walk(folder, &mut found).map_err(|source| {
        Error::internal("failed to list the lake").with_context("path", folder.display()).with_source(source)
    })?;
    Ok(format!("{} files, {:.1} MB", grouped(found.0), found.1 as f64 / 1e6))
}

/// Writes a part of the account; a reader that is gone is no error.
fn tell(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}
