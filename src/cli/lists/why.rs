//! `counterfoil lists why`: the recordings that hold a ticket, and the row that the recorded query gives for it.
//!
//! The row comes from running the recorded SQL again, with the recorded parameters and clock, on the version that was read
//! then. Where that version has ended, it says so.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Form, Opened, objects, parameters, rows, time};
use crate::cli::print;
use crate::clock::{ManualClock, SharedClock};
use crate::error::{Error, Result};
use crate::lake::lists::Recording;
use crate::model::{ObjectId, Stream};
use crate::query::record::replay;
use crate::query::{Session, lists};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The ticket
    #[arg(value_name = "TICKET")]
    ticket: ObjectId,
    /// Only recordings of this list, or the one of NAME@WHICH
    #[arg(long, value_name = "NAME[@WHICH]")]
    list: Option<String>,
    /// text or json
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

/// What the recorded query gives for the ticket.
enum Row {
    Found(Value),
    /// Why there is none.
    Missing(String),
}

pub(super) async fn run(opened: &Opened<'_>, arguments: &Arguments) -> Result<()> {
    let manifest = &opened.manifest;
    let asked: Vec<&Arc<Recording>> = match &arguments.list {
        None => manifest.lists.iter().collect(),
        Some(address) if address.contains('@') => vec![lists::find(manifest, address)?],
        Some(name) => lists::of_list(manifest, name)?,
    };
    let (file, bound) = lists::places(arguments.ticket)?;
    let places = rows(&opened.session()?, &file, &bound).await?;
    let place = |recording: &Recording| {
        let place = places.iter().find(|place| place["recording"] == recording.id.as_str())?;
        place["position"].as_u64()
    };
    let mut answers = Vec::new();
    for recording in asked {
        if let Some(position) = place(recording) {
            answers.push((recording, position, row(opened, recording, arguments.ticket).await));
        }
    }
    if answers.is_empty() {
        opened.note("no recording that was asked for holds the ticket");
    }
    print(&match arguments.format {
        Form::Text => answers.iter().map(|(recording, position, row)| text(recording, *position, row)).collect(),
        Form::Json => {
            let answers: Vec<Value> =
                answers.iter().map(|(recording, position, row)| object(recording, *position, row)).collect();
            format!("{:#}\n", Value::from(answers))
        }
    })
}

/// Runs the recorded query again for one ticket; what keeps it from that is part of the answer.
async fn row(opened: &Opened<'_>, recording: &Recording, ticket: ObjectId) -> Row {
    match again(opened, recording, ticket).await {
        Ok(Some(row)) => Row::Found(row),
        Ok(None) => Row::Missing("the query gives no row for it any more".to_owned()),
        Err(error) => Row::Missing(match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        }),
    }
}

async fn again(opened: &Opened<'_>, recording: &Recording, ticket: ObjectId) -> Result<Option<Value>> {
    if recording.sql.is_empty() {
        return Err(Error::query("the recorded SQL named what was erased, and was erased with it"));
    }
    let (file, bound) = replay(recording)?;
    let manifest = opened.lake.at_version(recording.lake_version).await?;
    let now: Timestamp = recording.now.parse().map_err(|cause: jiff::Error| {
        Error::data("the instant of a recording cannot be read").with_context("now", &recording.now).with_source(cause)
    })?;
    let clock: SharedClock = Arc::new(ManualClock::new(now));
    let session = Session::open(&opened.lake, &manifest, &opened.config.query, &clock)?;
    let plan = session.plan(&file, &bound).await?.of_ticket(ticket)?;
    Ok(objects(session.stream(&plan).await?).await?.into_iter().next())
}

fn text(recording: &Recording, position: u64, row: &Row) -> String {
    let mut text = format!("{}  recorded {}\n", recording.address(), time(recording.recorded_ms));
    let _ = writeln!(text, "  position      {position} of {}", recording.count);
    let _ = writeln!(text, "  lake version  {}", recording.lake_version);
    let _ = writeln!(text, "  sql           {}", recording.sql_digest);
    let _ = writeln!(text, "  parameters    {}", recording.parameters_json());
    match row {
        Row::Missing(why) => {
            let _ = writeln!(text, "  row           not shown: {why}");
        }
        Row::Found(row) => {
            let _ = writeln!(text, "  row");
            let columns = || row.as_object().into_iter().flatten();
            let columns = || columns().filter(|(name, _)| *name != Stream::Tickets.key_column());
            let width = columns().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
            for (name, value) in columns() {
                // Texts of records must not steer a terminal.
                let shown = match value {
                    Value::String(text) => text.escape_debug().to_string(),
                    Value::Null => String::new(),
                    other => other.to_string().replace(|mark: char| mark.is_control() || !mark.is_ascii(), "?"),
                };
                let _ = writeln!(text, "{}", format!("    {name:<width$}  {shown}").trim_end());
            }
        }
    }
    text
}

fn object(recording: &Recording, position: u64, row: &Row) -> Value {
    let (found, missing) = match row {
        Row::Found(row) => (Some(row), None),
        Row::Missing(why) => (None, Some(why)),
    };
    json!({
        "list": recording.list,
        "number": recording.number,
        "recording": recording.id,
        "recorded_at": time(recording.recorded_ms),
        "position": position,
        "count": recording.count,
        "lake_version": recording.lake_version,
        "sql_digest": recording.sql_digest,
        "parameters": parameters(recording),
        "row": found,
        "row_missing": missing,
    })
}
