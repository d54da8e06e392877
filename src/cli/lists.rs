//! `counterfoil lists`: recorded ticket lists, what is in them, how they differ, and why a ticket is in them.

pub(super) mod record;
mod why;

use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::query::layout;
use super::{Context, grouped, print, say};
use crate::config::Config;
use crate::error::Result;
use crate::lake::Lake;
use crate::lake::lists::Recording;
use crate::lake::manifest::Manifest;
use crate::query::sink::{self, Format};
use crate::query::{Arguments as Bound, QueryFile, Session, lists};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The lists, or the recordings of one
    Ls(Ls),
    /// The tickets of a recording, in the order of its result
    Show(Show),
    /// The tickets that came and went between two recordings
    Diff(Diff),
    /// The recordings that hold a ticket, and the row that put it there
    Why(why::Arguments),
}

#[derive(Debug, Args)]
struct Ls {
    /// Only this list, with each of its recordings
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// text, or json with all that is recorded
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

/// What is printed for people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct Show {
    /// NAME, NAME@2, NAME@latest or NAME@2026-11-01
    #[arg(value_name = "NAME[@WHICH]")]
    address: String,
    /// ids, table, csv, json or ndjson
    #[arg(long, default_value = "ids")]
    format: String,
}

#[derive(Debug, Args)]
struct Diff {
    /// The earlier recording
    #[arg(value_name = "A")]
    before: String,
    /// The later recording
    #[arg(value_name = "B")]
    after: String,
    /// table, ids, csv, json or ndjson
    #[arg(long, default_value = "table")]
    format: String,
    /// Only these: added, removed, kept (repeatable); by default what was added and removed
    #[arg(long, value_enum)]
    only: Vec<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Change {
    Added,
    Removed,
    Kept,
}

impl Change {
    const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Kept => "kept",
        }
    }
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let manifest = lake.latest().await?;
    let opened = Opened { context, config, lake, manifest };
    match &arguments.command {
        Command::Ls(arguments) => ls(&opened.manifest, arguments),
        Command::Show(arguments) => show(&opened, arguments).await,
        Command::Diff(arguments) => diff(&opened, arguments).await,
        Command::Why(arguments) => why::run(&opened, arguments).await,
    }
}

/// The lake at its newest version.
struct Opened<'c> {
    context: &'c Context,
    config: Config,
    lake: Lake,
    manifest: Arc<Manifest>,
}

impl Opened<'_> {
    /// Writes the answer to a question.
    async fn write(&self, (file, bound): (QueryFile, Bound), format: &str) -> Result<()> {
        let format: Format = format.parse()?;
        let session = self.session()?;
        let rows = session.stream(&session.plan(&file, &bound).await?).await?;
        let written = sink::write(rows, format, &layout(), &mut std::io::stdout()).await?;
        written.notes.iter().for_each(|note| say(note));
        Ok(())
    }

    fn session(&self) -> Result<Session> {
        Session::open(&self.lake, &self.manifest, &self.config.query, &self.context.clock)
    }

    fn note(&self, line: &str) {
        if !self.context.quiet {
            say(line);
        }
    }
}

fn ls(manifest: &Manifest, arguments: &Ls) -> Result<()> {
    let shown: Vec<&Arc<Recording>> = match &arguments.name {
        Some(name) => lists::of_list(manifest, name)?,
        None => manifest.lists.iter().collect(),
    };
    if arguments.format == Form::Json {
        let shown: Vec<serde_json::Value> = shown.iter().map(|recording| json(manifest, recording)).collect();
        return print(&format!("{:#}\n", serde_json::Value::from(shown)));
    }
    if shown.is_empty() {
        say("nothing was recorded yet: `counterfoil query FILE --record`");
        return Ok(());
    }
    if arguments.name.is_some() {
        return print(&table(&shown.iter().map(|recording| line(manifest, recording)).collect::<Vec<_>>()));
    }
    // The newest of each list.
    let mut newest: Vec<&Arc<Recording>> = Vec::new();
    for recording in shown {
        newest.retain(|known| known.list != recording.list);
        newest.push(recording);
    }
    newest.sort_by(|left, right| left.list.cmp(&right.list));
    print(&table(&newest.iter().map(|recording| line(manifest, recording)).collect::<Vec<_>>()))
}

const HEADS: [&str; 6] = ["list", "recorded", "tickets", "version", "sql", "parameters"];

fn line(manifest: &Manifest, recording: &Recording) -> [String; 6] {
    let held = lists::held(manifest, recording);
    let erased = recording.count.saturating_sub(held);
    let erased = if erased > 0 { format!(" ({} erased)", grouped(erased)) } else { String::new() };
    [
        recording.address(),
        time(recording.recorded_ms),
        grouped(held) + &erased,
        recording.lake_version.to_string(),
        recording.sql_digest.chars().take(12).collect(),
        recording.parameters_json(),
    ]
}

fn json(manifest: &Manifest, recording: &Recording) -> serde_json::Value {
    serde_json::json!({
        "list": recording.list,
        "number": recording.number,
        "recording": recording.id,
        "recorded_at": time(recording.recorded_ms),
        "count": recording.count,
        "held": lists::held(manifest, recording),
        "lake_version": recording.lake_version,
        "policy": recording.policy,
        "now": recording.now,
        "sql_digest": recording.sql_digest,
        "parameters": parameters(recording),
        "sql": recording.sql,
    })
}

fn parameters(recording: &Recording) -> serde_json::Value {
    serde_json::from_str(&recording.parameters_json()).unwrap_or_default()
}

/// Lines columns up; the last one is as long as it is.
fn table(rows: &[[String; 6]]) -> String {
    let mut widths = HEADS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&HEADS.map(str::to_owned)).chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Counts and versions are numbers.
            let _ = if matches!(column, 2 | 3) {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

async fn show(opened: &Opened<'_>, arguments: &Show) -> Result<()> {
    let recording = lists::find(&opened.manifest, &arguments.address)?;
    let [address, recorded, tickets, version, _, parameters] = line(&opened.manifest, recording);
    opened.note(&format!("{address}: {tickets} tickets of version {version}, recorded {recorded}, {parameters}"));
    opened.write(lists::tickets(recording)?, &arguments.format).await
}

async fn diff(opened: &Opened<'_>, arguments: &Diff) -> Result<()> {
    let before = lists::find(&opened.manifest, &arguments.before)?;
    let after = lists::find(&opened.manifest, &arguments.after)?;
    let changes: Vec<&str> = match arguments.only.as_slice() {
        [] => vec!["added", "removed"],
        only => only.iter().map(|change| change.name()).collect(),
    };
    opened.write(lists::difference(before, after, &changes)?, &arguments.format).await?;
    let kept = count(opened, lists::kept(before, after)?).await?;
    let held = |recording| lists::held(&opened.manifest, recording);
    opened.note(&format!(
        "{} to {}: {} added, {} removed, {} kept",
        before.address(),
        after.address(),
        grouped(held(after).saturating_sub(kept)),
        grouped(held(before).saturating_sub(kept)),
        grouped(kept)
    ));
    Ok(())
}

/// Answers a question whose answer is one number.
async fn count(opened: &Opened<'_>, (file, bound): (QueryFile, Bound)) -> Result<u64> {
    let rows = rows(&opened.session()?, &file, &bound).await?;
    Ok(rows.first().and_then(|row| row.as_object()?.values().next()?.as_u64()).unwrap_or_default())
}

/// Reads a small result as objects.
async fn rows(session: &Session, file: &QueryFile, bound: &Bound) -> Result<Vec<serde_json::Value>> {
    let plan = session.plan(file, bound).await?;
    objects(session.stream(&plan).await?).await
}

async fn objects(rows: crate::query::Rows) -> Result<Vec<serde_json::Value>> {
    let mut out = Vec::new();
    sink::write(rows, Format::Ndjson, &sink::Layout::default(), &mut out).await?;
    let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line)
                .map_err(|error| crate::error::Error::internal("failed to read a result back").with_source(error))
        })
        .collect()
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}
