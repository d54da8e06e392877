//! `counterfoil check`: plans every SQL file against the present schema.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Context, say};
use crate::error::{Error, Result};
use crate::query::{Session, check};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files and folders to check; without any, the whole library
    paths: Vec<PathBuf>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let manifest = lake.latest().await?;
    let session = Session::open(&lake, &manifest, &config.query, &context.clock)?;
    let library = [config.queries];
    let paths = if arguments.paths.is_empty() { &library[..] } else { &arguments.paths };
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let (files, problems) = check::check_paths(&session, &paths).await?;
    for problem in &problems {
        say(&problem.to_string());
        if let Some(hint) = &problem.hint {
            say(&format!("  hint: {hint}"));
        }
    }
    if problems.is_empty() {
        if !context.quiet {
            say(&format!("{files} SQL files plan"));
        }
        return Ok(());
    }
    Err(Error::query("not every SQL file plans").with_context("files", files).with_context("problems", problems.len()))
}
