//! `counterfoil lake retain`: drop what is older than the settings allow.

use clap::Args;

use crate::cli::{Context, print, say};
use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print what would go, and drop nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let plan = if arguments.dry_run {
        lake.plan_retention(&config.retain).await?
    } else {
        lake.retain(&config.retain, &format!("lake retain, process {}", std::process::id())).await?
    };
    let text = plan.to_string();
    if !context.quiet {
        if config.retain.keep_history.is_none() && config.retain.keep_tickets.is_none() {
            say("rows are kept for ever: neither `lake.keep_history` nor `lake.keep_tickets` is set");
        }
        if text.is_empty() {
            say("nothing is older than the settings allow");
        }
        if let Some(version) = plan.version {
            say(&format!(
                "version {version} is without them; `counterfoil lake gc` deletes files that no version names"
            ));
        }
    }
    print(&text)
}
