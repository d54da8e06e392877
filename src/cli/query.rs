//! `counterfoil query`: one SQL file of the library, or a text, to standard output or a file.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Context, moment, print, say};
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::manifest::Manifest;
use crate::query::sink::{self, Layout};
use crate::query::{Arguments as Bound, Library, QueryFile, Session};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name or path of an SQL file; without it the library is listed
    #[arg(value_name = "FILE")]
    file: Option<String>,
    /// SQL instead of a file
    #[arg(short = 'e', long = "execute", value_name = "SQL", conflicts_with = "file")]
    sql: Option<String>,
    /// A parameter's value (repeatable)
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// table, ids, csv, json or ndjson; without it the output file's extension decides, else a table
    #[arg(long)]
    format: Option<String>,
    /// Write to a file, whole or not at all
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The lake as it was: a version or a time
    #[arg(long, value_name = "VERSION|TIME")]
    as_of: Option<String>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let file = match (&arguments.sql, &arguments.file) {
        (Some(sql), _) => QueryFile::inline(sql)?,
        (None, Some(name)) => Library::load(&config.queries)?.find(name)?,
        (None, None) => return list(&Library::load(&config.queries)?),
    };
    let format = sink::format_for(arguments.format.as_deref(), arguments.output.as_deref())?;
    let bound = Bound::parse(&file, &pairs(&arguments.parameters)?)?;
    let lake = context.lake(&config).await?;
    let manifest = version(&lake, arguments.as_of.as_deref()).await?;
    let session = Session::open(&lake, &manifest, &config.query, &context.clock)?;
    let plan = session.plan(&file, &bound).await?;
    let rows = session.stream(&plan).await?;
    let written = match &arguments.output {
        Some(path) => sink::to_file(rows, format, &Layout::default(), path).await?,
        None => sink::write(rows, format, &layout(), &mut std::io::stdout()).await?,
    };
    // Notes say what was cut from the result, so they are part of it: also under --quiet.
    written.notes.iter().for_each(|note| say(note));
    Ok(())
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
