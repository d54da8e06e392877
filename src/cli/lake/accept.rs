//! `counterfoil lake accept-rollback VERSION`: takes a lake as it is, though this machine has seen it otherwise.
//!
//! After a lake was restored from an older copy on purpose, the high-water mark of this machine stands above it, or at
//! another history. Only this command lowers the mark, and only to the version that is named: whoever runs it has looked.

use clap::Args;

use crate::cli::{Context, say};
use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The lake's newest version now, as the refusal names it
    #[arg(value_name = "VERSION")]
    newest: u64,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    lake.accept_rollback(arguments.newest).await?;
    if !context.quiet {
        say(&format!(
            "{} is taken at version {}; versions above it that this machine has seen are given up",
            lake.url(),
            arguments.newest
        ));
    }
    Ok(())
}
