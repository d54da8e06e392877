//! `counterfoil lake`: what the lake holds, and whether it is sound.

mod accept;
pub(super) mod apply;
mod compact;
mod erase;
mod files;
mod gc;
mod history;
mod retain;
mod status;
mod verify;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::Context;
use crate::error::Result;
use crate::model::Stream;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tables, rows, files, sizes, watermarks
    Status,
    /// Runs or versions, newest first
    History(history::Arguments),
    /// Data files, also as SQL for DuckDB
    Files(files::Arguments),
    /// Take a lake that was put back to an older version as it is, though this machine has seen it newer
    AcceptRollback(accept::Arguments),
    /// Join small files, and move superseded rows out of the way of queries
    Compact(compact::Arguments),
    /// Drop what is older than the settings allow: superseded rows, tickets, versions
    Retain(retain::Arguments),
    /// Delete objects that nothing names any more
    Gc(gc::Arguments),
    /// Erase customers and tickets from every version, and print a receipt
    Erase(erase::Arguments),
    /// Read everything and report what is damaged
    Verify(verify::Arguments),
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Status => status::run(context).await,
        Command::History(arguments) => history::run(context, arguments).await,
        Command::Files(arguments) => files::run(context, arguments).await,
        Command::AcceptRollback(arguments) => accept::run(context, arguments).await,
        Command::Compact(arguments) => compact::run(context, arguments).await,
        Command::Retain(arguments) => retain::run(context, arguments).await,
        Command::Gc(arguments) => gc::run(context, arguments).await,
        Command::Erase(arguments) => erase::run(context, arguments).await,
        Command::Verify(arguments) => verify::run(context, arguments).await,
    }
}

/// Reads the name of a table that has files.
fn table(name: &str) -> std::result::Result<Stream, String> {
    Stream::of_table(name).ok_or_else(|| {
        let names = Stream::ALL.map(Stream::table).join(", ");
        format!("the tables with files are {names}, {}", Stream::OWN.map(Stream::table).join(", "))
    })
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}
