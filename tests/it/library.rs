//! The crate as a library: its examples do what they say, and a project keeps the settings' word.

#![expect(clippy::unwrap_used, reason = "functions of tests, which clippy.toml exempts only where they carry #[test]")]

use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use counterfoil::clock::SystemClock;
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::{Lake, NoProgress, ObjectId, Project, QueryFile, ResolveSettings};
use serde_json::Value;

#[expect(dead_code, reason = "its main is what `cargo run --example` starts")]
#[path = "../../examples/extract_into_lake.rs"]
mod extract_into_lake;

#[expect(dead_code, reason = "its main is what `cargo run --example` starts")]
#[path = "../../examples/query_to_batches.rs"]
mod query_to_batches;

#[tokio::test]
async fn the_first_example_extracts_and_then_only_what_changed() {
    let mut out = Vec::new();
    extract_into_lake::run(&mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("at first: 2000 new, 0 changed, "), "{text}");
    assert!(lines[1].starts_with("after a hundred changes: 0 new, 100 changed, "), "{text}");
    assert_eq!(lines[2..], ["a second lake in the same place: config"], "{text}");
}

#[tokio::test]
async fn the_second_example_reads_batches_and_resolves_a_ticket() {
    let mut out = Vec::new();
    query_to_batches::run(&mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("reopened_vip: ") && !text.starts_with("reopened_vip: 0 "), "{text}");
    assert!(text.contains("| ticket_id "), "{text}");
    assert!(text.contains("\nin the lake: 2000 tickets\n"), "{text}");
    assert!(text.contains("\nlive details of a ticket: ") && !text.contains(": 0 bytes"), "{text}");
}

/// A project on a sandbox, with a lake that holds its tickets.
async fn filled(folder: &Path, more: &str) -> (Sandbox, Project, Lake) {
    let settings = SandboxSettings { tickets: 200, ..SandboxSettings::default() };
    let sandbox = Sandbox::start(settings, Arc::new(SystemClock)).await.unwrap();
    std::fs::write(folder.join("api.key"), sandbox.api_key()).unwrap();
    let settings = format!(
        "[source]\nbase_url = \"{}\"\napi_key = \"file:api.key\"\n[lake]\nurl = \"file:lake\"\n\
         [keys]\nroot = \"file:root.key\"\n[extract]\nindex_lag = \"0s\"\n{more}",
        sandbox.base_url()
    );
    let project = Project::parse(&settings, folder).unwrap();
    let lake = project.create().await.unwrap();
    project.extract(&lake, &project.extract_settings(), &NoProgress, pending()).await.unwrap().into_result().unwrap();
    (sandbox, project, lake)
}

/// Ids and texts of a query with one text column.
async fn texts(project: &Project, lake: &Lake, sql: &str) -> Vec<String> {
    let mut rows = project.query(lake, &QueryFile::inline(sql).unwrap(), &[]).await.unwrap();
    let mut found = Vec::new();
    while let Some(batch) = rows.next().await.unwrap() {
        let column = cast(batch.column(0), &DataType::Utf8).unwrap();
        found.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    found
}

#[tokio::test]
async fn resolving_through_a_project_is_recorded_and_redacted_as_the_settings_say() {
    let ticket = "SELECT ticket_id FROM tickets ORDER BY ticket_id LIMIT 1";
    let accesses = "SELECT phase || ' ' || ticket_id FROM accesses ORDER BY phase";
    for more in ["", "[resolve]\nredact = true\n", "[resolve]\naccess_record = false\n"] {
        let folder = tempfile::tempdir().unwrap();
        let (sandbox, project, lake) = filled(folder.path(), more).await;
        let id = texts(&project, &lake, ticket).await.remove(0);
        let mut line = Vec::new();
        let ids = [id.parse::<ObjectId>().unwrap()];
        let outcome = project.resolve(&lake, &ids, &ResolveSettings::default(), &mut line).await.unwrap();
        assert!(outcome.is_complete(), "{more}: {outcome:?}");
        let detail: Value = serde_json::from_slice(&line).unwrap();
        let subject = &detail["conversation"]["attributes"]["name"];
        assert_eq!(
            subject.is_string(),
            !more.contains("redact"),
            "{more}: the shipped policy drops subjects: {subject}"
        );
        let recorded = [format!("asked {id}"), format!("delivered {id}")];
        let expected = if more.contains("access_record") { &[][..] } else { &recorded[..] };
        assert_eq!(texts(&project, &lake, accesses).await, expected, "{more}");
        sandbox.shutdown().await;
    }
}
