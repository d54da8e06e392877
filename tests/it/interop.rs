//! Other engines open the lake's data files: PyArrow's key tools, with the ring's keys.
//!
//! CI names a Python with PyArrow in `COUNTERFOIL_INTEROP_PYTHON` (`tests/interop/run.sh --python` makes one).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyarrow_reads_every_data_file() {
    let Some(python) = std::env::var_os("COUNTERFOIL_INTEROP_PYTHON") else {
        // Written past the harness, which keeps to itself what a passing test prints.
        let line = b"skipped: COUNTERFOIL_INTEROP_PYTHON names no Python with PyArrow\n";
        std::io::stderr().write_all(line).unwrap();
        return;
    };
    let world = World::with_tickets(900).await;
    world.extract().await.unwrap();
    world.sandbox.organisation().touch(&[1, 5, 9]);
    world.extract().await.unwrap();

    let lake = world.reopened().await.unwrap();
    let manifest = lake.latest().await.unwrap();
    let files: Vec<_> = manifest.tables.values().flat_map(|table| table.files.iter().cloned()).collect();
    assert!(files.len() > manifest.tables.len(), "a second file of tickets");
    let mut keys = Map::new();
    for key in lake.ring().keys() {
        keys.insert(key.id.clone(), json!(STANDARD.encode(lake.ring().export(&key.id).unwrap().expose())));
    }
    let paths: Vec<_> = files.iter().map(|file| world.lake_folder().join(&file.path)).collect();
    let request = json!({ "files": paths, "keys": keys, "show": 1 });

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/pyarrow_open.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let opened = answer["files"].as_array().unwrap();
    assert_eq!(opened.len(), files.len());
    for (opened, file) in opened.iter().zip(&files) {
        assert_eq!(opened["rows"], json!(file.rows), "{}", file.path);
        let columns: Vec<&String> = opened["columns"].as_object().unwrap().keys().collect();
        let declared: Vec<&String> = file.schema.fields().iter().map(|field| field.name()).collect();
        assert_eq!(columns.len(), declared.len(), "{}", file.path);
        assert!(declared.iter().all(|name| columns.contains(name)), "{}", file.path);
    }
}
