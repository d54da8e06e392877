//! Golden rows: every shipped SQL file on the small tables of `tests/sql/fixtures`, at a fixed time.
//!
//! `SQL_GOLDEN=overwrite cargo test --test it sql` writes the expected files anew; read the difference before keeping it.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::json::ReaderBuilder;
use counterfoil::clock::{ManualClock, SharedClock};
use counterfoil::lake::manifest::Watermark;
use counterfoil::model::Stream;
use counterfoil::query::sink::{self, Layout};
use counterfoil::query::{Arguments, Format, Library, QueryFile, QuerySettings, Session, check};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use serde::Deserialize;

const NOW: &str = "2026-03-02T12:00:00Z";

#[derive(Deserialize)]
pub(crate) struct Cases {
    pub(crate) case: Vec<Case>,
}

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) query: String,
    #[serde(default)]
    pub(crate) parameters: BTreeMap<String, String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql")
}

fn cases() -> Vec<Case> {
    let text = fs::read_to_string(folder().join("cases.toml")).unwrap();
    toml::from_str::<Cases>(&text).unwrap().case
}

fn column_type(name: &str) -> DataType {
    match name {
        "text" => DataType::Utf8,
        "int" => DataType::Int64,
        "double" => DataType::Float64,
        "bool" => DataType::Boolean,
        "timestamp" => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        "text[]" => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        other => panic!("unknown type {other} in types.toml"),
    }
}

pub(crate) fn session() -> Session {
    session_of(&fs::read_to_string(folder().join("fixtures/tickets.ndjson")).unwrap())
}

/// Makes a session on the fixtures, with these lines of JSON as its tickets.
fn session_of(tickets: &str) -> Session {
    let fixtures = folder().join("fixtures");
    let text = fs::read_to_string(fixtures.join("types.toml")).unwrap();
    let types: BTreeMap<String, toml::Table> = toml::from_str(&text).unwrap();
    let mut tables: Vec<(String, Arc<dyn TableProvider>)> = Vec::new();
    for (table, columns) in types {
        let fields: Vec<Field> =
            columns.iter().map(|(name, kind)| Field::new(name, column_type(kind.as_str().unwrap()), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let file: Box<dyn BufRead> = match table.as_str() {
            "tickets" => Box::new(tickets.as_bytes()),
            other => Box::new(BufReader::new(File::open(fixtures.join(format!("{other}.ndjson"))).unwrap())),
        };
        // Strict: a fixture with a column that types.toml does not list is a mistake.
        let reader = ReaderBuilder::new(Arc::clone(&schema)).with_strict_mode(true).build(file).unwrap();
        let batches = reader.collect::<Result<Vec<_>, _>>().unwrap();
        tables.push((table, Arc::new(MemTable::try_new(schema, vec![batches]).unwrap())));
    }
    let now: jiff::Timestamp = NOW.parse().unwrap();
    let clock: SharedClock = Arc::new(ManualClock::new(now));
    let settings = QuerySettings { memory_bytes: 64 << 20, partitions: 2, ..QuerySettings::default() };
    let complete = Watermark { complete_through_ms: Some(now.as_millisecond()), ..Watermark::default() };
    Session::with_tables(tables, &settings, &clock)
        .unwrap()
        .with_watermarks(BTreeMap::from([(Stream::Tickets, complete.clone()), (Stream::Customers, complete)]))
}

/// What a file gives with a case's parameters, as CSV.
pub(crate) async fn rows(session: &Session, file: &QueryFile, case: &Case) -> String {
    let given: Vec<(String, String)> = case.parameters.clone().into_iter().collect();
    let arguments = Arguments::parse(file, &given).unwrap();
    let plan = session.plan(file, &arguments).await.unwrap_or_else(|error| panic!("{}: {error:?}", case.name));
    let rows = session.stream(&plan).await.unwrap();
    let mut written = Vec::new();
    sink::write(rows, Format::Csv, &Layout::default(), &mut written).await.unwrap();
    String::from_utf8(written).unwrap()
}

/// Says how rows differ from what a file expects, or writes them there where that is asked for.
pub(crate) fn golden(file: &Path, written: &str) -> Option<String> {
    if std::env::var_os("SQL_GOLDEN").is_some_and(|value| value == "overwrite") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, written).unwrap();
    }
    match fs::read_to_string(file) {
        Ok(expected) if expected == written => None,
        Ok(expected) => Some(format!("{}\nexpected:\n{expected}got:\n{written}", file.display())),
        Err(error) => Some(format!("{}: {error}; the rows are:\n{written}", file.display())),
    }
}

#[tokio::test]
async fn every_shipped_query_gives_its_golden_rows() {
    let session = session();
    let library = Library::builtin().unwrap();
    let mut wrong = Vec::new();
    for case in cases() {
        let written = rows(&session, &library.find(&case.query).unwrap(), &case).await;
        wrong.extend(golden(&folder().join("expected").join(format!("{}.csv", case.name)), &written));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_shipped_query_has_a_case_with_its_defaults_and_every_expected_file_a_case() {
    let cases = cases();
    for file in Library::builtin().unwrap().files() {
        let runs_defaults = cases.iter().any(|case| case.query == file.name && case.parameters.is_empty());
        assert!(runs_defaults, "{} has no case in tests/sql/cases.toml", file.name);
    }
    let named: BTreeSet<String> = cases.iter().map(|case| format!("{}.csv", case.name)).collect();
    let stored: BTreeSet<String> = fs::read_dir(folder().join("expected"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(named, stored);
}

#[tokio::test]
async fn every_file_of_the_folder_is_shipped_and_passes_the_check() {
    let queries = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let (count, problems) = check::check_paths(&session(), &[&queries]).await.unwrap();
    assert_eq!(problems, []);
    assert_eq!(count, counterfoil::query::BUILTIN.len());
}

/// Runs the sample of five per agent and returns each agent's picks in their order, with how many there should be.
async fn sample(tickets: impl Iterator<Item = u64>) -> BTreeMap<String, (Vec<String>, usize)> {
    let line = |number: u64| {
        format!(
            r#"{{"ticket_id":"{number:024x}","assigned_user_ids":["a{}"],"status":"done","message_count":3,"last_done_at":"2026-03-01T09:00:00Z"}}"#,
            number % 7
        )
    };
    let lines: Vec<String> = tickets.map(line).collect();
    let session = session_of(&lines.join("\n"));
    let file = Library::builtin().unwrap().find("qa_sample_per_agent").unwrap();
    let plan = session.plan(&file, &Arguments::default()).await.unwrap();
    let mut out = Vec::new();
    sink::write(session.stream(&plan).await.unwrap(), Format::Ndjson, &Layout::default(), &mut out).await.unwrap();
    let mut picks: BTreeMap<String, (Vec<String>, usize)> = BTreeMap::new();
    for line in String::from_utf8(out).unwrap().lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = row["ticket_id"].as_str().unwrap().to_owned();
        let agent = format!("a{}", u64::from_str_radix(&id, 16).unwrap() % 7);
        let (ids, drawn) = picks.entry(agent).or_default();
        ids.push(id);
        *drawn = usize::try_from(row["drawn"].as_u64().unwrap()).unwrap();
        assert_eq!(row["pick"], ids.len());
        assert_eq!(row["shortfall"], 5 - *drawn);
    }
    picks
}

#[tokio::test]
async fn late_tickets_leave_the_earlier_picks_of_the_sample_in_their_order() {
    let is_late = |number: u64| number.is_multiple_of(3);
    let early = sample((0..200).filter(|number| !is_late(*number))).await;
    let all = sample(0..200).await;
    assert_eq!((early.len(), all.len()), (7, 7));
    let mut moved = 0;
    for (agent, (before, drawn)) in &early {
        assert_eq!((before.len(), *drawn), (5, 5), "{agent}");
        let (after, _) = &all[agent];
        let of_before: Vec<&String> =
            after.iter().filter(|id| !is_late(u64::from_str_radix(id, 16).unwrap())).collect();
        assert_eq!(of_before, before.iter().take(of_before.len()).collect::<Vec<_>>(), "{agent}");
        assert_eq!(after.len(), 5, "{agent}");
        moved += 5 - of_before.len();
    }
    assert!((1..20).contains(&moved), "late tickets take some places and not all: {moved}");
    // Tickets of one agent move nobody else's.
    let one_more = sample((0..200).filter(|number| !is_late(*number) || number % 7 == 3)).await;
    for (agent, picks) in early.iter().filter(|(agent, _)| *agent != "a3") {
        assert_eq!(&one_more[agent], picks, "{agent}");
    }
    // Agents with fewer tickets give all they have.
    let few = sample(0..10).await;
    assert_eq!(few["a0"].1, 2);
    assert_eq!(few["a6"].0.len(), 1);
}
