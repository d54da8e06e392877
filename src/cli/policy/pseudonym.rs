//! `counterfoil policy pseudonym`: what the lake holds in place of a value, to find a person without storing them.

use std::io::BufRead as _;

use clap::Args;
use serde_json::{Value, json};

use super::find::Subject;
use super::{Ground, words};
use crate::cli::{Context, print};
use crate::error::{Error, Result, did_you_mean};
use crate::lake::Lake;
use crate::lake::manifest::Manifest;
use crate::model::Stream;
use crate::policy::column_type;
use crate::schema::ColumnType;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Column with its table, such as customers.email
    #[arg(value_name = "COLUMN")]
    column: String,
    /// The value, or - to read it from standard input, which keeps it out of the shell's history and the list of processes
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: String,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let (ground, lake, _) = Ground::with_lake(context, &config).await?;
    let (stream, column) = column(&ground, &arguments.column)?;
    let value = if arguments.value == "-" { read()? } else { arguments.value.clone() };
    if value.is_empty() {
        return Err(Error::config("the value is empty")
            .with_context("column", &arguments.column)
            .with_hint("empty text has no pseudonym: it is stored as it is"));
    }
    let pseudonym = of(&ground, &lake, stream, &column, &value)?;
    print(&format!("{pseudonym}\n"))
}

/// Makes the pseudonym that a run would store now.
fn of(ground: &Ground, lake: &Lake, stream: Stream, column: &Pseudonymized, value: &str) -> Result<String> {
    let value = if column.is_list { json!([value]) } else { Value::from(value) };
    let version = ground.manifest().map_or(1, Manifest::pseudonym_version);
    let keys = lake.ring().pseudonym_keys(version)?;
    let stored = ground.redact(stream, &column.name, &column.path, &value, &keys)?;
    stored.ok_or_else(|| {
        Error::internal("the column stores nothing of the value")
            .with_context("column", format!("{stream}.{}", column.name))
    })
}

/// A column that holds pseudonyms.
struct Pseudonymized {
    name: String,
    path: String,
    is_list: bool,
}

/// Finds a column of pseudonyms by `table.column`.
fn column(ground: &Ground, written: &str) -> Result<(Stream, Pseudonymized)> {
    let mut known = Vec::new();
    for stream in ground.schemas.streams() {
        for field in ground.stored(stream)?.fields() {
            let Some(method) = field.metadata().get("method").filter(|method| method.contains("pseudonymize")) else {
                continue;
            };
            let (name, path) = (field.name().clone(), field.metadata().get("path").cloned().unwrap_or_default());
            let full = format!("{stream}.{name}");
            if full == written && !words::parts(method).0.is_empty() {
                let is_list = column_type(field.data_type()) == Some(ColumnType::TextList);
                return Ok((stream, Pseudonymized { name, path, is_list }));
            }
            known.push(full);
        }
    }
    let offered = || {
        if known.is_empty() {
            "no column of these schemas is pseudonymized".to_owned()
        } else {
            did_you_mean(written, known.iter().map(String::as_str))
        }
    };
    let found = if written.contains('.') { ground.find(written)? } else { Vec::new() };
    Err(match found.first() {
        Some(Subject { method, rule, stream, column, path, .. }) => Error::config("the column holds no pseudonyms")
            .with_context(
                "column",
                column.as_ref().map_or_else(|| format!("{stream} {path}"), |name| format!("{stream}.{name}")),
            )
            .with_context("method", method)
            .with_context("rule", rule.place())
            .with_hint(format!(
                "what it holds: {}; columns of pseudonyms: {}",
                words::method(method),
                known.join(", ")
            )),
        None => Error::config("no such column").with_context("column", written).with_hint(offered()),
    })
}

/// Reads the first line of standard input.
fn read() -> Result<String> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|source| Error::config("failed to read the value from standard input").with_source(source))?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
