//! Extracts a synthetic organisation into a new encrypted lake, and then what has changed since.
//!
//! `cargo run --example extract_into_lake` needs neither a network nor a settings file. For a real organisation, leave the sandbox
//! out and read your settings: `Project::load(Path::new("counterfoil.toml"))`.

use std::error::Error;
use std::fs;
use std::future::pending;
use std::io::{self, Write};
use std::sync::Arc;

use counterfoil::clock::SystemClock;
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::{ErrorKind, Event, Progress, Project};

/// Says what is committed, as it happens.
struct Commits;

impl Progress for Commits {
    fn on(&self, event: Event) {
        if let Event::Committed { version, rows } = event {
            drop(writeln!(io::stderr(), "committed version {version}: {rows} rows"));
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&mut io::stdout()).await
}

/// Makes a lake in a temporary folder and extracts twice.
pub(crate) async fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let settings = SandboxSettings { tickets: 2_000, ..SandboxSettings::default() };
    let sandbox = Sandbox::start(settings, Arc::new(SystemClock)).await?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("api.key"), sandbox.api_key())?;

    let project = Project::parse(
        &format!(
            "[source]\nbase_url = \"{}\"\napi_key = \"file:api.key\"\nshare = 0.9\n\
             [lake]\nurl = \"file:lake\"\n[keys]\nroot = \"file:root.key\"\n\
             [policy]\nschemas = \"schemas\"\n[query]\nlibrary = \"queries\"\n[extract]\nindex_lag = \"0s\"\n",
            sandbox.base_url()
        ),
        folder.path(),
    )?;
    let lake = project.create().await?;

    for change in ["at first", "after a hundred changes"] {
        let report = project.extract(&lake, &project.extract_settings(), &Commits, pending()).await?.into_result()?;
        let tickets =
            report.run.streams.iter().find(|run| run.stream == "tickets").ok_or("no tickets were asked for")?;
        let requests: u64 = report.run.requests.values().sum();
        writeln!(out, "{change}: {} new, {} changed, {requests} requests", tickets.inserted, tickets.updated)?;
        sandbox.organisation().touch(&(0..100).collect::<Vec<_>>());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    // What is wrong is told by kind, so that a program can act on it.
    let refused = project.create().await.err().map(|error| error.kind());
    writeln!(out, "a second lake in the same place: {}", refused.map_or("made", ErrorKind::name))?;
    sandbox.shutdown().await;
    Ok(())
}
