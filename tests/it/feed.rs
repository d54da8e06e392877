//! `counterfoil query --all`: the shipped library as a scheduled job, as an operator and a BI tool meet it.

#![expect(clippy::unwrap_used, reason = "functions of tests, which clippy.toml exempts only where they carry #[test]")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::commands::{Bench, assert_fails, text};
use crate::interop;

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

/// Names by outcome.
fn outcomes(manifest: &Value, outcome: &str) -> Vec<String> {
    let results = manifest["results"].as_array().unwrap().iter();
    let named = results.filter(|result| result["outcome"] == outcome);
    named.map(|result| result["name"].as_str().unwrap().to_owned()).collect()
}

async fn extracted() -> Bench {
    let bench = Bench::new(300).await;
    let output = bench.run(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn library_becomes_files_that_other_programs_load() {
    let bench = extracted().await;
    // Defaults that follow the clock would give other rows in the second run.
    fs::write(bench.path().join("queries/count.sql"), "SELECT count(*) AS tickets FROM tickets").unwrap();
    for (folder, arguments) in [
        ("csv", &["--format", "csv"][..]),
        ("plain", &["--format", "parquet", "--plaintext"]),
        ("sealed", &["--format", "parquet"]),
    ] {
        let arguments = [&["query", "--all", "--out-dir", folder], arguments].concat();
        let output = bench.run(&arguments);
        assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
        let first = manifest(&bench.path().join(folder));
        let written = outcomes(&first, "written");
        assert!(written.len() >= 8 && written.contains(&"count".to_owned()), "{written:?}");
        assert!(outcomes(&first, "failed").is_empty());
        assert!(
            text(&output.stderr).contains(&format!("{folder}: {} written", written.len())),
            "{}",
            text(&output.stderr)
        );

        let file = bench.path().join(folder).join(format!("count.{}", first["format"].as_str().unwrap()));
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        assert!(bench.run(&arguments).status.success());
        let second = manifest(&bench.path().join(folder));
        assert!(outcomes(&second, "unchanged").contains(&"count".to_owned()), "{folder}");
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
    }

    let Some(python) = interop::python("duckdb", None) else { return };
    let folder = bench.path().join("plain");
    let results = manifest(&folder)["results"].as_array().unwrap().clone();
    let files = results.iter().filter(|result| result["file"].is_object());
    let counts: serde_json::Map<String, Value> = files
        .flat_map(|result| {
            let name = result["name"].as_str().unwrap();
            let count = |source: String| json!(format!("SELECT count(*) FROM {source}"));
            let csv = bench.path().join("csv").join(format!("{name}.csv"));
            let parquet = folder.join(result["file"]["path"].as_str().unwrap());
            [
                (name.to_owned(), count(format!("read_parquet('{}')", parquet.display()))),
                (format!("{name} as CSV"), count(format!("read_csv('{}', header = true)", csv.display()))),
            ]
        })
        .collect();
    let answer = interop::ask(&python, "duckdb_read.py", &json!({ "setup": "SELECT 1", "queries": counts }));
    let mut rows = 0;
    for result in results.iter().filter(|result| result["file"].is_object()) {
        let name = result["name"].as_str().unwrap();
        rows += result["file"]["rows"].as_u64().unwrap();
        assert_eq!(answer["rows"][name][0][0], result["file"]["rows"], "{name}");
        assert_eq!(answer["rows"][format!("{name} as CSV")][0][0], result["file"]["rows"], "{name}");
    }
    assert!(rows > 20, "{rows}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_file_ends_with_its_exit_code_and_the_others_are_there() {
    let bench = extracted().await;
    fs::remove_dir_all(bench.path().join("queries")).unwrap();
    fs::create_dir(bench.path().join("queries")).unwrap();
    let write = |name: &str, sql: &str| fs::write(bench.path().join("queries").join(name), sql).unwrap();
    write("good.sql", "SELECT ticket_id, status FROM tickets ORDER BY ticket_id");
    write("later_broken.sql", "SELECT count(*) AS n FROM tickets");
    write("asks.sql", "-- param day: date\nSELECT $day AS day");
    let feed = ["query", "--all", "--out-dir", "out", "--format", "csv"];
    assert!(bench.run(&feed).status.success());
    write("later_broken.sql", "SELECT count(*) AS n FROM tickts");
    write("damaged.sql", "-- nmae: x\nSELECT 1");
    let output = bench.run(&feed);
    let words =
        ["2 of 4 queries of the library failed", "later_broken, damaged", "no table `tickts`", "did you mean", "nmae"];
    assert_fails(&output, 6, &words);
    let found = manifest(&bench.path().join("out"));
    assert_eq!(outcomes(&found, "failed"), ["damaged", "later_broken"]);
    assert_eq!(
        (outcomes(&found, "unchanged"), outcomes(&found, "skipped")),
        (vec!["good".to_owned()], vec!["asks".to_owned()])
    );
    assert_eq!(fs::read_to_string(bench.path().join("out/later_broken.csv")).unwrap(), "n\n300\n", "the older result");

    for (arguments, words) in [
        (&["query", "--all", "--out-dir", "out"][..], "--all needs a format"),
        (&["query", "--all", "--out-dir", "out", "--format", "ids"], "--all does not write ids"),
        (&["query", "--all", "--out-dir", "out", "--format", "csv", "--plaintext"], "--plaintext belongs to parquet"),
        (&["query", "--all", "--out-dir", "no/such/folder", "--format", "csv"], "folder of results cannot be used"),
    ] {
        assert_fails(&bench.run(arguments), 2, &[words, "hint:"]);
    }
    for arguments in [
        &["query", "--all", "--format", "csv"][..],
        &["query", "good", "--out-dir", "out"],
        &["query", "good", "--all", "--out-dir", "out"],
    ] {
        assert_eq!(bench.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
