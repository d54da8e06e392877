//! `counterfoil check`: plans every SQL file against the present schema.
//!
//! Problems are said on standard error, or with `--format json` written to standard output as one object:
//! `{"files": 2, "problems": [{"path": "a.sql", "line": 3, "column": 8, "message": "…", "hint": "…"}]}`, where `line`,
//! `column` and `hint` may be null. Either way the exit code is 6 when there is a problem.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Context, print, say};
use crate::error::{Error, Result};
use crate::query::{Problem, Session, check};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files and folders to check; without any, the whole library
    paths: Vec<PathBuf>,
    /// Ask as well that each file give a ticket list: that its first column be ticket_id
    #[arg(long)]
    ids: bool,
    /// Form of the problems: text (on standard error) or json (on standard output)
    #[arg(long, value_enum, default_value_t = Form::Text, value_name = "FORMAT")]
    format: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let manifest = lake.latest().await?;
    // Each file would be a problem of its own, with the same way out.
    if manifest.tables.is_empty() && arguments.paths.is_empty() {
        return Err(Error::query("the lake has no tables yet, so no SQL file plans")
            .with_context("lake", &config.lake.url)
            .with_hint("run `counterfoil extract`"));
    }
    let session = Session::open(&lake, &manifest, &config.query, &context.clock)?;
    let library = [config.queries];
    let paths = if arguments.paths.is_empty() { &library[..] } else { &arguments.paths };
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let (files, problems) = if arguments.ids {
        check::check_ticket_lists(&session, &paths).await?
    } else {
        check::check_paths(&session, &paths).await?
    };
    match arguments.format {
        Form::Json => print(&as_json(files, &problems))?,
        Form::Text => problems.iter().for_each(tell),
    }
    if problems.is_empty() {
        if !context.quiet && arguments.format == Form::Text {
            say(&format!("{files} SQL files plan"));
        }
        return Ok(());
    }
    Err(Error::query("not every SQL file plans").with_context("files", files).with_context("problems", problems.len()))
}

fn tell(problem: &Problem) {
    say(&problem.to_string());
    if let Some(hint) = &problem.hint {
        say(&format!("  hint: {hint}"));
    }
}

fn as_json(files: usize, problems: &[Problem]) -> String {
    let problems: Vec<serde_json::Value> = problems
        .iter()
        .map(|problem| {
            let Problem { path, line, column, message, hint } = problem;
            serde_json::json!({ "path": path, "line": line, "column": column, "message": message, "hint": hint })
        })
        .collect();
    format!("{:#}\n", serde_json::json!({ "files": files, "problems": problems }))
}
