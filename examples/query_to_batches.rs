//! Runs a shipped query, an SQL text and a lookup of live details over a lake, to Arrow record batches and JSON lines.
//!
//! `cargo run --example query_to_batches` needs neither a network nor a settings file: it fills a lake from a synthetic
//! organisation first.

use std::error::Error;
use std::fs;
use std::future::pending;
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use counterfoil::clock::SystemClock;
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::{NoProgress, ObjectId, Project, QueryFile, ResolveSettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&mut io::stdout()).await
}

/// Fills a lake, queries it, and resolves the first ticket that the query found.
pub(crate) async fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let settings = SandboxSettings { tickets: 2_000, ..SandboxSettings::default() };
    let sandbox = Sandbox::start(settings, Arc::new(SystemClock)).await?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("api.key"), sandbox.api_key())?;
    let settings = format!(
        "[source]\nbase_url = \"{}\"\napi_key = \"file:api.key\"\nshare = 0.9\n\
         [lake]\nurl = \"file:lake\"\n[keys]\nroot = \"file:root.key\"\n\
         [policy]\nschemas = \"schemas\"\n[query]\nlibrary = \"queries\"\n[extract]\nindex_lag = \"0s\"\n",
        sandbox.base_url()
    );
    let project = Project::parse(&settings, folder.path())?;
    let lake = project.create().await?;
    project.extract(&lake, &project.extract_settings(), &NoProgress, pending()).await?.into_result()?;

    // A file of the library, with typed parameters; batches come as they are made, and memory is bounded.
    let file = project.library()?.find("reopened_vip")?;
    let mut rows = project.query(&lake, &file, &[("min_reopens", "1")]).await?;
    let mut ids: Vec<ObjectId> = Vec::new();
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await? {
        let tickets = batch.column(0).as_string_view();
        ids.extend(tickets.iter().flatten().filter_map(|id| id.parse::<ObjectId>().ok()));
        batches.push(batch.slice(0, batch.num_rows().min(3)));
    }
    writeln!(out, "{}: {} tickets\n{}", file.name, ids.len(), pretty_format_batches(&batches)?)?;

    // Any text that reads.
    let text = QueryFile::inline("SELECT count(*) AS tickets FROM tickets")?;
    let mut rows = project.query(&lake, &text, &[]).await?;
    let batch = rows.next().await?.ok_or("a count has one row")?;
    writeln!(out, "in the lake: {} tickets", batch.column(0).as_primitive::<Int64Type>().value(0))?;

    // Live details of the first ticket, a line of JSON; they are kept nowhere, that they were asked for is.
    let mut line = Vec::new();
    project.resolve(&lake, &ids[..ids.len().min(1)], &ResolveSettings::default(), &mut line).await?;
    writeln!(out, "live details of a ticket: {} bytes, stored nowhere", line.len())?;
    sandbox.shutdown().await;
    Ok(())
}
