//! `counterfoil lake gc`: delete objects that nothing names any more.

use std::fmt::Write as _;

use clap::Args;

use crate::cli::{Context, grouped, print, say};
use crate::error::Result;
use crate::lake::Garbage;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let garbage = if arguments.dry_run {
        lake.garbage(config.gc_after).await?
    } else {
        lake.gc(config.gc_after, &format!("lake gc, process {}", std::process::id())).await?
    };
    if !context.quiet {
        let verb = if arguments.dry_run { "would delete" } else { "deleted" };
        let (objects, bytes) = (grouped(garbage.objects()), grouped(garbage.data_bytes()));
        say(&format!("{verb} {objects} objects, {bytes} bytes of data files"));
    }
    print(&lines(&garbage))
}

fn lines(garbage: &Garbage) -> String {
    let mut text = String::new();
    for (object, bytes) in &garbage.data {
        let _ = writeln!(text, "{object}  {:>14} bytes", grouped(*bytes));
    }
    for object in garbage.log.iter().chain(&garbage.leases) {
        let _ = writeln!(text, "{object}");
    }
    for file in &garbage.staged {
        let _ = writeln!(text, "{}", file.display());
    }
    text
}
