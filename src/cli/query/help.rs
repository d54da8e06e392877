//! `counterfoil query FILE --help`: the help of one SQL file; without a file, of the command.

use std::path::Path;

use clap::CommandFactory as _;

use super::{Arguments, version};
use crate::cli::{Cli, Context, print};
use crate::error::{Error, Result};
use crate::query::{Library, QueryFile, Session, help};

/// Prints the help that `--help` asks for.
pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let file = match (&arguments.sql, &arguments.file) {
        (Some(sql), _) => QueryFile::inline(sql)?,
        (None, Some(name)) => find(context, name)?,
        (None, None) => return of_the_command(),
    };
    let width = terminal_size::terminal_size_of(std::io::stdout()).map_or(100, |(width, _)| usize::from(width.0));
    let columns = columns(context, arguments, &file).await;
    print(&help::text(&file, columns.as_ref(), width))
}

fn of_the_command() -> Result<()> {
    let mut whole = Cli::command();
    whole.build();
    match whole.find_subcommand_mut("query") {
        Some(command) => print(&command.render_long_help().to_string()),
        None => Err(Error::internal("no command `query`")),
    }
}

/// Finds the file in the library, or by its path where there are no settings to find a library by.
fn find(context: &Context, name: &str) -> Result<QueryFile> {
    match context.settings() {
        Ok(config) => Library::load(&config.queries)?.find(name),
        Err(_) if Path::new(name).is_file() => QueryFile::load(Path::new(name)),
        Err(error) => Err(error),
    }
}

async fn columns(context: &Context, arguments: &Arguments, file: &QueryFile) -> Result<arrow::datatypes::SchemaRef> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let manifest = version(&lake, arguments.as_of.as_deref()).await?;
    let session = Session::open(&lake, &manifest, &config.query, &context.clock)?;
    session.columns(file).await
}
