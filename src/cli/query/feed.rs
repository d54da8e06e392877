//! `counterfoil query --all`: the library as a scheduled job, a file for each query and a manifest.

use std::path::Path;

use super::{Arguments, version};
use crate::cli::{Context, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::query::feed::{self, Destination, FeedOutcome};
use crate::query::{Library, Session};

pub(super) async fn run(context: &Context, arguments: &Arguments, config: &Config, folder: &Path) -> Result<()> {
    let format = arguments.format.as_deref().ok_or_else(|| {
        Error::config("--all needs a format").with_hint("add --format parquet or --format csv (or json, ndjson, arrow)")
    })?;
    let destination = Destination::try_new(folder, format.parse()?, arguments.plaintext)?;
    let destination = destination.with_limit(arguments.timeout.or(config.query_timeout));
    let library = Library::load(&config.queries)?;
    let lake = context.lake(config).await?;
    let manifest = version(&lake, arguments.as_of.as_deref()).await?;
    let session = Session::open(&lake, &manifest, &config.query, &context.clock)?;
    let report = feed::run(&library, &session, (&lake, &manifest), &destination, &context.clock).await?;
    for (name, error) in &report.failures {
        say(&format!("{name} failed: {error}"));
        if let Some(hint) = error.hint() {
            say(&format!("  hint: {hint}"));
        }
    }
    if !context.quiet {
        let all = [
            FeedOutcome::Written,
            FeedOutcome::Unchanged,
            FeedOutcome::Skipped,
            FeedOutcome::Failed,
            FeedOutcome::Orphaned,
        ];
        let counts = all.into_iter().map(|outcome| (report.count(outcome), outcome.name()));
        let counts: Vec<String> =
            counts.filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
        say(&format!(
            "{}: {}",
            folder.display(),
            if counts.is_empty() { "no queries".to_owned() } else { counts.join(", ") }
        ));
    }
    report.error().map_or(Ok(()), Err)
}
