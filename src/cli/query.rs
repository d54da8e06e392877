//! `counterfoil query`: one SQL file of the library, or a text, to standard output or a file.

mod explain;
mod feed;
mod help;
mod progress;
mod stages;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;

use self::stages::Stages;
use super::lists::record::Flag;
use super::watch::took_longer;
use super::{Context, moment, print, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::manifest::Manifest;
use crate::query::sink::{self, Layout};
use crate::query::{Arguments as Bound, Library, Protection, QueryFile, Session, Sink};

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Arguments {
    /// Print the help of FILE, made from its header; without FILE, this help
    #[arg(short, long)]
    help: bool,
    /// Name or path of an SQL file; without it the library is listed
    #[arg(value_name = "FILE")]
    file: Option<String>,
    /// SQL instead of a file
    #[arg(short = 'e', long = "execute", value_name = "SQL", conflicts_with = "file", allow_hyphen_values = true)]
    sql: Option<String>,
    /// A parameter's value (repeatable)
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// table, ids, csv, json, ndjson, arrow or parquet; without it the output file's extension decides, else a table
    #[arg(long)]
    format: Option<String>,
    /// Write to a file, whole or not at all
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write parquet in the clear, not under the key ring of the lake
    #[arg(long)]
    plaintext: bool,
    /// Run every query of the library whose parameters have defaults
    #[arg(long, requires = "out_dir", conflicts_with_all = ["file", "sql", "parameters", "output", "explain", "record"])]
    all: bool,
    /// With --all: the folder of the results and their manifest.json
    #[arg(long, value_name = "DIR", requires = "all")]
    out_dir: Option<PathBuf>,
    /// The lake as it was: a version or a time
    #[arg(long, value_name = "VERSION|TIME")]
    as_of: Option<String>,
    /// End the query when it takes longer, e.g. 30s or 5m; with --all, each query
    #[arg(long, value_name = "TIME", value_parser = time_limit)]
    timeout: Option<Duration>,
    /// Run the query, throw its rows away, and show what took how long (--format table or json)
    #[arg(long, conflicts_with_all = ["output", "record"])]
    explain: bool,
    #[command(flatten)]
    record: Flag,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    if arguments.help {
        return help::run(context, arguments).await;
    }
    let _limit = outlive_file_limit();
    let config = context.settings()?;
    if let Some(folder) = &arguments.out_dir {
        return feed::run(context, arguments, &config, folder).await;
    }
    let Some(limit) = arguments.timeout.or(config.query_timeout) else {
        return answer(context, arguments, &config).await;
    };
    context.watch.limit(limit);
    tokio::select! {
        outcome = answer(context, arguments, &config) => outcome,
        () = context.clock.sleep(limit) => Err(took_longer(limit)),
    }
}

/// Runs the query from its text to its last row.
async fn answer(context: &Context, arguments: &Arguments, config: &Config) -> Result<()> {
    let mut stages = Stages::new(&context.clock);
    let file = match (&arguments.sql, &arguments.file) {
        (Some(sql), _) => QueryFile::inline(sql)?,
        (None, Some(name)) => Library::load(&config.queries)?.find(name)?,
        (None, None) => return list(&Library::load(&config.queries)?),
    };
    let form = arguments.explain.then(|| explain::Form::parse(arguments.format.as_deref())).transpose()?;
    let format = sink::format_for(arguments.format.as_deref(), arguments.output.as_deref())?;
    sink::check_plaintext(format, arguments.plaintext)?;
    if arguments.output.is_none() {
        format.check_terminal(std::io::stdout().is_terminal())?;
    }
    let bound = Bound::parse(&file, &pairs(&arguments.parameters)?)?;
    arguments.record.name(&file)?;
    let lake = context.lake(config).await?;
    let manifest = version(&lake, arguments.as_of.as_deref()).await?;
    let session = Session::open(&lake, &manifest, &config.query, &context.clock)?;
    stages.opened();
    let plan = session.plan(&file, &bound).await?;
    let (rows, pending) = arguments.record.start((&lake, &manifest), &session, (&file, &bound), &plan).await?;
    stages.planned();
    let mut line = progress::Line::start(context, rows.gauge());
    if let Some(form) = form {
        let (text, count) = explain::run(rows, form, layout().width, &stages, &session).await?;
        line.stop();
        stages.done(count, session.peak_memory_bytes());
        return print(&text);
    }
    let sink = Sink::new(format).with_protection(Protection::choose(format, arguments.plaintext, &plan, &lake)?);
    let written = if let Some(path) = &arguments.output {
        sink.to_file(rows, path).await?
    } else {
        let mut out = line.ending_before(context.watch.stdout());
        sink.with_layout(&layout()).write(rows, &mut out).await?
    };
    line.stop();
    stages.done(written.rows, session.peak_memory_bytes());
    // Notes say what was cut from the result, so they are part of it: also under --quiet.
    written.notes.iter().for_each(|note| say(note));
    if let Some(pending) = pending {
        pending.finish(context, &lake, &written).await?;
    }
    Ok(())
}

/// Lets a write past the limit of file sizes (`ulimit -f`) fail, so that it ends as an error that names the file: the signal
/// of that limit would end the process, and leave its temporary file behind.
fn outlive_file_limit() -> Option<impl Sized> {
    /// SIGXFSZ, which has this number on Linux, macOS and the BSDs.
    #[cfg(unix)]
    const FILE_LIMIT: i32 = 25;
    #[cfg(unix)]
    return tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(FILE_LIMIT)).ok();
    #[cfg(not(unix))]
    None::<()>
}

/// Returns the layout of a table on standard output: as wide as the terminal, if it is one.
pub(super) fn layout() -> Layout {
    let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0);
    Layout { width, ..Layout::default() }
}

/// Returns the version that `--as-of` names, or the newest.
pub(super) async fn version(lake: &Lake, as_of: Option<&str>) -> Result<Arc<Manifest>> {
    let Some(as_of) = as_of else { return lake.latest().await };
    if let Ok(version) = as_of.parse::<u64>() {
        return lake.at_version(version).await;
    }
    match moment(as_of) {
        Ok(time) => lake.at_time(time.as_millisecond()).await,
        Err(_) => Err(Error::config("--as-of is neither a version nor a time")
            .with_context("value", as_of)
            .with_hint("e.g. --as-of 12, --as-of 2026-11-01 or --as-of 2026-11-01T08:30:00Z")),
    }
}

/// Reads the time that a query may take.
fn time_limit(text: &str) -> std::result::Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|limit| Duration::try_from(limit).ok())
        .filter(|limit| !limit.is_zero())
        .ok_or_else(|| "not a length of time; write 30s, 5m or 1h 30m".to_owned())
}

fn pairs(parameters: &[String]) -> Result<Vec<(String, String)>> {
    parameters
        .iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Error::config("a parameter is written name=value")
                    .with_context("-p", pair)
                    .with_hint("e.g. -p min_reopens=3")
            })?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn list(library: &Library) -> Result<()> {
    let widest = library.files().iter().map(|file| file.name.len()).max().unwrap_or_default();
    let line = |file: &QueryFile| format!("{:widest$}  {}\n", file.name, file.description);
    print(&library.files().iter().map(line).collect::<String>())?;
    for broken in library.broken() {
        say(&format!("cannot be used: {}", broken.error));
    }
    Ok(())
}
