//! Golden rows: every shipped SQL file on the small tables of `tests/sql/fixtures`, at a fixed time.
//!
//! `SQL_GOLDEN=overwrite cargo test --test it sql` writes the expected files anew; read the difference before keeping it.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::json::ReaderBuilder;
use counterfoil::clock::{ManualClock, SharedClock};
use counterfoil::lake::manifest::Watermark;
use counterfoil::model::Stream;
use counterfoil::query::sink::{self, Layout};
use counterfoil::query::{Arguments, Format, Library, QuerySettings, Session, check};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use serde::Deserialize;

const NOW: &str = "2026-03-02T12:00:00Z";

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    query: String,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
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

fn session() -> Session {
    let fixtures = folder().join("fixtures");
    let text = fs::read_to_string(fixtures.join("types.toml")).unwrap();
    let types: BTreeMap<String, toml::Table> = toml::from_str(&text).unwrap();
    let mut tables: Vec<(String, Arc<dyn TableProvider>)> = Vec::new();
    for (table, columns) in types {
        let fields: Vec<Field> =
            columns.iter().map(|(name, kind)| Field::new(name, column_type(kind.as_str().unwrap()), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let file = File::open(fixtures.join(format!("{table}.ndjson"))).unwrap();
        // Strict: a fixture with a column that types.toml does not list is a mistake.
        let reader =
            ReaderBuilder::new(Arc::clone(&schema)).with_strict_mode(true).build(BufReader::new(file)).unwrap();
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

#[tokio::test]
async fn every_shipped_query_gives_its_golden_rows() {
    let session = session();
    let library = Library::builtin().unwrap();
    let mut wrong = Vec::new();
    for case in cases() {
        let file = library.find(&case.query).unwrap();
        let given: Vec<(String, String)> = case.parameters.into_iter().collect();
        let arguments = Arguments::parse(&file, &given).unwrap();
        let plan = session.plan(&file, &arguments).await.unwrap_or_else(|error| panic!("{}: {error:?}", case.name));
        let rows = session.stream(&plan).await.unwrap();
        let mut written = Vec::new();
        sink::write(rows, Format::Csv, &Layout::default(), &mut written).await.unwrap();
        let written = String::from_utf8(written).unwrap();
        let golden = folder().join("expected").join(format!("{}.csv", case.name));
        if std::env::var_os("SQL_GOLDEN").is_some_and(|value| value == "overwrite") {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, &written).unwrap();
        }
        match fs::read_to_string(&golden) {
            Ok(expected) if expected == written => {}
            Ok(expected) => wrong.push(format!("{}\nexpected:\n{expected}got:\n{written}", case.name)),
            Err(error) => wrong.push(format!("{}: {error}; the rows are:\n{written}", golden.display())),
        }
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

#[tokio::test]
async fn a_late_ticket_leaves_the_earlier_picks_of_the_sample_in_their_order() {
    let session = session();
    let pick = async |without: &str| {
        let sql = format!(
            "SELECT ticket_id FROM tickets WHERE ticket_id <> '{without}' ORDER BY sample_key('qa', ticket_id) LIMIT 16"
        );
        let file = counterfoil::query::QueryFile::inline(&sql).unwrap();
        let plan = session.plan(&file, &Arguments::default()).await.unwrap();
        let mut out = Vec::new();
        sink::write(session.stream(&plan).await.unwrap(), Format::Ids, &Layout::default(), &mut out).await.unwrap();
        String::from_utf8(out).unwrap().lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let all = pick("none").await;
    assert_eq!(all.len(), 16);
    for late in &all {
        let before = pick(late).await;
        let after: Vec<&String> = all.iter().filter(|id| *id != late).collect();
        assert_eq!(before.iter().collect::<Vec<_>>(), after, "{late} came late");
    }
}
