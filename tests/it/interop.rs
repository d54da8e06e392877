//! Other engines open the lake's data files: PyArrow and Spark through their key tools, DuckDB with the SQL that is printed.
//!
//! The lake has several files of tickets, with superseded rows and tombstones in them, and each engine's rows are compared
//! with those of our own query. CI names a Python with the engines in `COUNTERFOIL_INTEROP_PYTHON`
//! (`tests/interop/run.sh --python` makes one); elsewhere a test without its engine says that it was skipped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use counterfoil::lake::Lake;
use counterfoil::lake::manifest::Manifest;
use counterfoil::model::Stream;
use roaring::RoaringBitmap;
use serde_json::{Map, Value, json};

use crate::world::World;

/// A column as it is compared: its name, and as SQL of DataFusion, of Spark and of DuckDB.
type Compared = (&'static str, &'static str, &'static str, &'static str);

const TICKETS: [Compared; 7] = [
    ("ticket_id", "ticket_id", "ticket_id", "ticket_id"),
    ("customer_id", "customer_id", "customer_id", "customer_id"),
    ("status", "status", "status", "status"),
    ("updated_at", "CAST(updated_at AS BIGINT)", "unix_millis(updated_at)", "epoch_ms(updated_at)"),
    ("rev", "rev", "rev", "rev"),
    ("message_count", "message_count", "message_count", "message_count"),
    ("deleted", "deleted", "deleted", "deleted"),
];

const USERS: [Compared; 2] =
    [("user_id", "user_id", "user_id", "user_id"), ("deleted", "deleted", "deleted", "deleted")];

/// Returns the Python of the engines, where `module` can be imported and `program` runs; says why not, and fails in CI.
pub(crate) fn python(module: &str, program: Option<&str>) -> Option<OsString> {
    let missing = |reason: String| {
        assert!(std::env::var_os("CI").is_none(), "CI must have every engine: {reason}");
        // Written past the harness, which keeps to itself what a passing test prints.
        std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
    };
    let Some(python) = std::env::var_os("COUNTERFOIL_INTEROP_PYTHON") else {
        missing(format!("COUNTERFOIL_INTEROP_PYTHON names no Python with {module}"));
        return None;
    };
    let runs = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !runs(Command::new(&python).args(["-c", &format!("import {module}")])) {
        missing(format!("{} has no {module}", Path::new(&python).display()));
        return None;
    }
    if let Some(program) = program.filter(|program| !runs(Command::new(program).arg("--version"))) {
        missing(format!("{program} does not run"));
        return None;
    }
    Some(python)
}

pub(crate) fn ask(python: &OsString, script: &str, request: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
    let mut child = Command::new(python)
        .args(["-B".as_ref(), script.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let request = request.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(request.as_bytes()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    writer.join().unwrap().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A lake of three files of tickets: some rows superseded, some deleted.
async fn world() -> World {
    let world = World::with_tickets(900).await;
    world.extract().await.unwrap();
    world.sandbox.organisation().touch(&[1, 2, 3, 5, 9, 200]);
    world.sandbox.organisation().delete(&[7, 8, 400]);
    world.extract().await.unwrap();
    world.sandbox.organisation().touch(&[1, 300]);
    world.extract().await.unwrap();
    world
}

/// Every enabled master key of the ring.
pub(crate) fn keys(lake: &Lake) -> Map<String, Value> {
    let export = |id: &str| json!(STANDARD.encode(lake.ring().export(id).unwrap().expose()));
    lake.ring().keys().into_iter().map(|key| (key.id.clone(), export(&key.id))).collect()
}

/// The files of a table with the rows that do not count.
fn files(world: &World, manifest: &Manifest, stream: Stream) -> Vec<Value> {
    let files = manifest.tables[&stream].files.iter().map(|file| {
        let tombstones = if stream.is_incremental() { file.tombstones.clone() } else { RoaringBitmap::new() };
        let hidden: Vec<u32> = (&file.superseded | tombstones).iter().collect();
        json!({ "path": world.lake_folder().join(&file.path), "hidden": hidden })
    });
    files.collect()
}

/// What our own query says, in the order of the ids.
async fn ours(world: &World, table: &str, columns: &[Compared]) -> Vec<Value> {
    let named: Vec<String> = columns.iter().map(|(name, sql, ..)| format!("{sql} AS {name}")).collect();
    let rows = world.sql(&format!("SELECT {} FROM {table} ORDER BY 1", named.join(", "))).await;
    let cells = |row: &Value| columns.iter().map(|(name, ..)| row.get(*name).cloned().unwrap_or(Value::Null)).collect();
    rows.iter().map(cells).collect()
}

fn sorted(rows: &Value) -> Vec<Value> {
    let mut rows = rows.as_array().unwrap().clone();
    rows.sort_by_key(|row| row[0].as_str().unwrap().to_owned());
    rows
}

#[track_caller]
fn assert_same(engine: &str, theirs: &Value, ours: &[Value]) {
    let theirs = sorted(theirs);
    assert_eq!(theirs.len(), ours.len(), "{engine}: number of rows");
    for (theirs, ours) in theirs.iter().zip(ours) {
        assert_eq!(theirs, ours, "{engine}");
    }
}

/// What an engine that is given master keys is asked.
fn request(world: &World, lake: &Lake, manifest: &Manifest, word: &str, of: fn(&Compared) -> &'static str) -> Value {
    let table = |stream: Stream, columns: &[Compared]| json!({ "files": files(world, manifest, stream), word: columns.iter().map(of).collect::<Vec<_>>() });
    json!({
        "keys": keys(lake),
        "tables": { "tickets": table(Stream::Tickets, &TICKETS), "users": table(Stream::Users, &USERS) },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyarrow_reads_every_data_file() {
    let Some(python) = python("pyarrow.parquet.encryption", None) else { return };
    let world = world().await;
    let lake = world.reopened().await.unwrap();
    let manifest = lake.latest().await.unwrap();
    let files: Vec<_> = manifest.tables.values().flat_map(|table| table.files.iter().cloned()).collect();
    let tickets = &manifest.tables[&Stream::Tickets].files;
    assert!(tickets.len() >= 3 && tickets.iter().any(|file| !file.superseded.is_empty()), "{}", tickets.len());
    assert!(tickets.iter().any(|file| !file.tombstones.is_empty()));

    let paths: Vec<_> = files.iter().map(|file| world.lake_folder().join(&file.path)).collect();
    let answer = ask(&python, "pyarrow_open.py", &json!({ "files": paths, "keys": keys(&lake), "show": 1 }));
    let opened = answer["files"].as_array().unwrap();
    assert_eq!(opened.len(), files.len());
    for (opened, file) in opened.iter().zip(&files) {
        assert_eq!(opened["rows"], json!(file.rows), "{}", file.path);
        let columns: Vec<&String> = opened["columns"].as_object().unwrap().keys().collect();
        let declared: Vec<&String> = file.schema.fields().iter().map(|field| field.name()).collect();
        assert_eq!(columns.len(), declared.len(), "{}", file.path);
        assert!(declared.iter().all(|name| columns.contains(name)), "{}", file.path);
    }

    let request = request(&world, &lake, &manifest, "columns", |column| column.0);
    let answer = ask(&python, "pyarrow_read.py", &request);
    assert_same("PyArrow", &answer["tables"]["tickets"], &ours(&world, "tickets", &TICKETS).await);
    assert_same("PyArrow", &answer["tables"]["users"], &ours(&world, "users", &USERS).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_reads_the_rows_that_count() {
    let Some(python) = python("pyspark", Some("javac")) else { return };
    let world = world().await;
    let lake = world.reopened().await.unwrap();
    let manifest = lake.latest().await.unwrap();
    let mut request = request(&world, &lake, &manifest, "select", |column| column.2);
    // A nested column too, as its number of items.
    request["tables"]["tickets"]["select"].as_array_mut().unwrap().push(json!("size(tag_ids)"));
    let answer = ask(&python, "spark_read.py", &request);

    let nested: Compared = ("tags", "cardinality(tag_ids)", "", "");
    let columns: Vec<Compared> = TICKETS.into_iter().chain([nested]).collect();
    let ours_with_tags = ours(&world, "tickets", &columns).await;
    assert!(ours_with_tags.iter().any(|row| row[TICKETS.len()].as_i64() > Some(1)), "some tickets have several tags");
    assert_same("Spark", &answer["tables"]["tickets"], &ours_with_tags);
    assert_same("Spark", &answer["tables"]["users"], &ours(&world, "users", &USERS).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_runs_the_printed_sql_and_has_the_rows_that_count() {
    let Some(python) = python("duckdb", None) else { return };
    let world = world().await;
    std::fs::write(world.folder.path().join("counterfoil.toml"), "[lake]\nurl = \"file:lake\"\n").unwrap();
    let printed = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_counterfoil"))
            .args(["lake", "files", "--format", "duckdb", "--with-keys"])
            .args(arguments)
            .current_dir(world.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = printed(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("warning") && stderr.contains("keys"), "{stderr}");
    let setup = String::from_utf8(output.stdout).unwrap();
    assert!(setup.contains("THIS TEXT HOLDS THE KEYS"), "a header warns");

    let select = |table: &str, columns: &[Compared]| {
        let columns: Vec<&str> = columns.iter().map(|column| column.3).collect();
        format!("SELECT {} FROM {table}", columns.join(", "))
    };
    let mut queries: BTreeMap<String, String> =
        [("tickets".to_owned(), select("tickets", &TICKETS)), ("users".to_owned(), select("users", &USERS))].into();
    let lake = world.reopened().await.unwrap();
    let manifest = lake.latest().await.unwrap();
    for stream in manifest.tables.keys() {
        queries.insert(format!("count of {stream}"), format!("SELECT count(*) FROM {stream}"));
    }
    // Every flat column is read: as many values stand in each.
    let schema = &manifest.tables[&Stream::Tickets].schema;
    let flat: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| !field.data_type().is_nested())
        .map(|field| field.name().as_str())
        .collect();
    let counts: Vec<String> = flat.iter().map(|name| format!("count(\"{name}\") AS \"{name}\"")).collect();
    let counts = format!("SELECT {} FROM tickets", counts.join(", "));
    queries.insert("values".to_owned(), counts.clone());
    // What DuckDB would push into its reader, which fails on our files.
    let pushed = [
        ("a filter", "SELECT count(*) AS n FROM tickets WHERE status = 'open' AND priority > 1"),
        (
            "a join",
            "SELECT count(*) AS n FROM tickets JOIN queues ON queues.queue_id = tickets.queue_id WHERE queues.name LIKE 'B%'",
        ),
        ("the first of an order", "SELECT rev AS n FROM tickets ORDER BY rev DESC LIMIT 1"),
    ];
    queries.extend(pushed.map(|(name, sql)| (name.to_owned(), sql.to_owned())));
    let answer = ask(&python, "duckdb_read.py", &json!({ "setup": setup, "queries": queries }));
    assert_same("DuckDB", &answer["rows"]["tickets"], &ours(&world, "tickets", &TICKETS).await);
    assert_same("DuckDB", &answer["rows"]["users"], &ours(&world, "users", &USERS).await);
    for stream in manifest.tables.keys() {
        let ours = world.sql(&format!("SELECT count(*) AS rows FROM {stream}")).await;
        assert_eq!(answer["rows"][format!("count of {stream}")][0][0], ours[0]["rows"], "{stream}");
    }
    for (name, sql) in pushed {
        assert_eq!(answer["rows"][name][0][0], world.sql(sql).await[0]["n"], "{name}");
    }
    let ours = world.sql(&counts).await.remove(0);
    assert!(flat.len() > 100, "{}", flat.len());
    for (place, name) in flat.iter().enumerate() {
        assert_eq!(answer["rows"]["values"][0][place], ours[*name], "values of {name}");
    }
}
