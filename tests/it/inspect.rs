//! What operators ask of a lake: status, history, files, verify.

use std::fs;

use serde_json::Value;

use crate::commands::{Bench, assert_fails, listing, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lake_is_shown_listed_and_found_sound_without_a_change() {
    let bench = Bench::new(240).await;
    assert!(text(&bench.run(&["lake", "status"]).stdout).contains("empty"));
    assert!(bench.run(&["lake", "verify"]).status.success());
    assert!(bench.run(&["extract"]).status.success());
    bench.sandbox.organisation().touch(&[1, 2]);
    assert!(bench.run(&["extract"]).status.success());
    let before = listing(&bench.path().join("lake"));

    let status = text(&bench.run(&["lake", "status"]).stdout);
    for words in ["versions 1 to ", "key ring   version 1, primary key ring-1", "live rows", "history", "small"] {
        assert!(status.contains(words), "{words} is not in:\n{status}");
    }
    let heads = status.lines().find(|line| line.starts_with("table")).unwrap();
    let end = heads.find("live rows").unwrap() + "live rows".len();
    let tickets = status.lines().find(|line| line.starts_with("tickets ")).unwrap();
    assert!(tickets[..end].ends_with("  240"), "{status}");

    let versions = text(&bench.run(&["lake", "history", "--versions", "--limit", "2"]).stdout);
    assert_eq!(versions.lines().count(), 2, "{versions}");
    assert!(versions.contains("files added") && versions.contains("counterfoil 0."), "{versions}");

    let files = bench.run(&["lake", "files", "--table", "tickets", "--format", "json"]);
    let files: Vec<Value> = text(&files.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(files.iter().map(|file| file["live_rows"].as_u64().unwrap()).sum::<u64>(), 240);
    let hidden: u64 = files
        .iter()
        .flat_map(|file| file["hidden"].as_array().unwrap())
        .map(|run| run[1].as_u64().unwrap() - run[0].as_u64().unwrap() + 1)
        .sum();
    assert_eq!(files.iter().map(|file| file["rows"].as_u64().unwrap()).sum::<u64>(), 240 + hidden);

    let verified = bench.run(&["lake", "verify"]);
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    assert!(text(&verified.stdout).contains("sound: "), "{}", text(&verified.stdout));
    assert_eq!(text(&verified.stderr), "", "a pipe gets no progress");
    assert_eq!(listing(&bench.path().join("lake")), before, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_reports_all_damage_and_ends_in_its_code() {
    let bench = Bench::new(240).await;
    assert!(bench.run(&["extract"]).status.success());
    let parquet = |table: &str| {
        let files = listing(&bench.path().join("lake/data").join(table));
        files.into_iter().map(|(path, _)| path).find(|path| path.ends_with(".parquet")).unwrap()
    };
    let (tickets, users) = (parquet("tickets"), parquet("users"));
    let mut bytes = fs::read(&tickets).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&tickets, bytes).unwrap();
    fs::remove_file(&users).unwrap();
    fs::write(bench.path().join("lake/data/left-over"), "x").unwrap();

    let output = bench.run(&["lake", "verify"]);
    let (report, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(5), "{report}{stderr}");
    let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    for words in [&name(&tickets), &name(&users), "missing", "garbage", "left-over", "damaged: 2 findings"] {
        assert!(report.contains(words), "{words} is not in:\n{report}");
    }
    assert!(stderr.contains("error: the lake is damaged") && stderr.contains("hint:"), "{stderr}");

    let output = bench.run(&["lake", "verify", "--table", "tickets", "--format", "json"]);
    assert_eq!(output.status.code(), Some(5));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["sound"], report["findings"].as_array().unwrap().len()), (&Value::Bool(false), 1));
    assert_eq!(report["findings"][0]["kind"], "data");
    assert_eq!(bench.run(&["lake", "verify", "--table", "teams"]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_files_are_printed_only_where_they_were_asked_for() {
    let bench = Bench::new(60).await;
    assert!(bench.run(&["extract"]).status.success());
    assert_fails(&bench.run(&["lake", "files", "--format", "duckdb"]), 2, &["key of each file", "--with-keys"]);
    assert_fails(&bench.run(&["lake", "files", "--with-keys"]), 2, &["--with-keys", "duckdb"]);
    let printed = bench.run(&["lake", "files", "--format", "duckdb", "--with-keys", "--table", "tickets"]);
    let sql = text(&printed.stdout);
    assert!(printed.status.success() && text(&printed.stderr).contains("warning: "), "{}", text(&printed.stderr));
    assert!(sql.contains("PRAGMA add_parquet_key('tickets_0', '") && sql.contains("VIEW tickets AS"), "{sql}");
    assert!(!sql.contains("VIEW users"), "{sql}");
}
