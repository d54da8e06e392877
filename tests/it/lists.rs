//! Ticket lists as people use them: record, look, compare, ask why, leave out of the next one.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::commands::{Bench, assert_fails, listing, text};

/// Ten tickets of the lake by their age, of which some are left out.
const OLDEST: &str = "-- name: oldest
-- description: The oldest tickets.
-- param n: int = 10
-- param not: text[] = []
-- param since: timestamp = now() - interval '3650 days'
SELECT ticket_id, status, created_at FROM tickets
WHERE created_at >= $since AND NOT array_has($not, status)
ORDER BY created_at, ticket_id LIMIT $n
";

async fn bench() -> Bench {
    let bench = Bench::new(300).await;
    fs::write(bench.path().join("queries/oldest.sql"), OLDEST).unwrap();
    let output = bench.run(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    bench
}

/// Runs a command that works; returns standard output and standard error.
#[track_caller]
fn ok(bench: &Bench, arguments: &[&str]) -> (String, String) {
    let output = bench.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn json(bench: &Bench, arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(bench, arguments).0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_recorded_shown_compared_explained_and_left_out_of_the_next() {
    let bench = bench().await;
    let (first, notes) = ok(&bench, &["query", "oldest", "--record", "--format", "ids"]);
    assert_eq!(first.lines().count(), 10);
    assert!(notes.contains("recorded oldest@1: 10 tickets of version"), "{notes}");
    let (plain, _) = ok(&bench, &["query", "oldest", "--format", "ids"]);
    assert_eq!(first, plain, "the result is the same with and without");
    ok(&bench, &["query", "oldest", "-p", "n=15", "--record=oldest", "--format", "csv", "-o", "out.csv"]);
    assert_eq!(fs::read_to_string(bench.path().join("out.csv")).unwrap().lines().count(), 16);

    // Shown as it was, by each address.
    for (address, rows) in [("oldest", 15), ("oldest@1", 10), ("oldest@latest", 15), ("oldest@2126-01-01", 15)] {
        assert_eq!(ok(&bench, &["lists", "show", address]).0.lines().count(), rows, "{address}");
    }
    assert_eq!(ok(&bench, &["lists", "show", "oldest@1"]).0, first, "in the order of the result");
    let (csv, _) = ok(&bench, &["lists", "show", "oldest@1", "--format", "csv"]);
    assert!(csv.starts_with("ticket_id,position\n") && csv.trim_end().ends_with(",10"), "{csv}");

    // Listed with what made it.
    let listed = json(&bench, &["lists", "ls", "--format", "json"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!((&listed[1]["parameters"]["n"], &listed[1]["held"]), (&15.into(), &15.into()));
    assert_eq!(listed[0]["sql"], OLDEST);
    assert_eq!(listed[0]["sql_digest"].as_str().unwrap().len(), 64);
    assert!(listed[0]["parameters"]["since"].as_str().unwrap().ends_with('Z'), "defaults are evaluated: {listed}");
    let (table, _) = ok(&bench, &["lists", "ls"]);
    assert_eq!(table.lines().count(), 2, "the newest of each list: {table}");
    assert!(table.contains("oldest@2") && table.lines().next().unwrap().starts_with("list"), "{table}");
    assert_eq!(ok(&bench, &["lists", "ls", "oldest"]).0.lines().count(), 3);

    // Compared.
    let (added, notes) = ok(&bench, &["lists", "diff", "oldest@1", "oldest@2", "--format", "ndjson"]);
    assert!(notes.contains("oldest@1 to oldest@2: 5 added, 0 removed, 10 kept"), "{notes}");
    assert!(added.lines().all(|line| line.contains(r#""change":"added""#)) && added.lines().count() == 5, "{added}");
    let (removed, _) = ok(&bench, &["lists", "diff", "oldest@2", "oldest@1", "--only", "removed", "--format", "ids"]);
    assert_eq!(removed.lines().count(), 5);

    // Left out of the next.
    let next = "SELECT ticket_id FROM tickets WHERE ticket_id NOT IN (SELECT ticket_id FROM ticket_lists WHERE list = 'oldest')";
    let (next, _) = ok(&bench, &["query", "-e", next, "--record=rest", "--format", "ids"]);
    let listed: BTreeSet<&str> = next.lines().collect();
    let (all, _) = ok(&bench, &["lists", "show", "oldest"]);
    assert!(listed.len() > 200 && all.lines().all(|id| !listed.contains(id)));

    let (described, _) = ok(&bench, &["query", "-e", "DESCRIBE ticket_lists", "--format", "csv"]);
    for column in
        ["list", "recording", "recorded_at", "lake_version", "sql_digest", "parameters", "position", "ticket_id"]
    {
        assert!(described.lines().any(|line| line.starts_with(&format!("{column},"))), "{column}: {described}");
    }
    let (files, _) = ok(&bench, &["lake", "files", "--table", "ticket_lists"]);
    assert_eq!(files.lines().count(), 3, "{files}");
    let (verified, _) = ok(&bench, &["lake", "verify"]);
    drop(verified);
    // A schema is not asked for a table that nothing is extracted into.
    let (_, notes) = ok(&bench, &["extract"]);
    assert!(!notes.contains("ticket_lists"), "{notes}");
    ok(&bench, &["policy", "lint"]);
    ok(&bench, &["check"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_shows_the_row_of_then_and_says_when_that_version_has_gone() {
    let bench = bench().await;
    let (ids, _) = ok(&bench, &["query", "oldest", "--record", "--format", "ids"]);
    let (rows, _) = ok(&bench, &["query", "oldest", "--format", "ndjson"]);
    ok(&bench, &["query", "oldest", "-p", "n=3", "--record=few", "--format", "ids"]);
    let second = ids.lines().nth(1).unwrap();
    let expected: Value = serde_json::from_str(rows.lines().nth(1).unwrap()).unwrap();

    let why = json(&bench, &["lists", "why", second, "--format", "json"]);
    assert_eq!(why.as_array().unwrap().len(), 2, "{why}");
    assert_eq!((&why[0]["list"], &why[0]["position"]), (&"oldest".into(), &2.into()));
    assert_eq!(why[0]["row"], expected);
    assert_eq!(why[1]["parameters"]["n"], 3);
    let (shown, _) = ok(&bench, &["lists", "why", second, "--list", "few"]);
    assert!(shown.starts_with("few@1  recorded "), "{shown}");
    assert!(shown.contains("position      2 of 3") && shown.contains("status"), "{shown}");

    let (nothing, notes) = ok(&bench, &["lists", "why", "58228e05d4e96711004eccb7"]);
    assert!(nothing.is_empty() && notes.contains("no recording that was asked for holds the ticket"), "{notes}");

    // An erasure of another ticket ends all versions before it.
    let other = ids.lines().last().unwrap();
    ok(&bench, &["lake", "erase", "--ticket", other]);
    let why = json(&bench, &["lists", "why", second, "--list", "oldest@1", "--format", "json"]);
    assert_eq!(why[0]["row"], Value::Null);
    assert!(why[0]["row_missing"].as_str().unwrap().contains("version"), "{why}");
    let (left, notes) = ok(&bench, &["lists", "show", "oldest"]);
    assert!(left.lines().count() == 9 && !left.contains(other), "{left}");
    assert!(notes.contains("9 (1 erased) tickets"), "{notes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_list_is_refused_and_changes_nothing() {
    let bench = bench().await;
    ok(&bench, &["query", "oldest", "--record", "--format", "ids"]);
    let lake = bench.path().join("lake");
    let before = listing(&lake);
    let sql = "SELECT ticket_id FROM tickets LIMIT 1";
    for (arguments, code, words) in [
        (&["query", "-e", sql, "--record"][..], 2, &["recorded under a name", "--record=NAME"][..]),
        (&["query", "-e", sql, "--record=a@1"], 2, &["cannot have this name"]),
        (
            &["query", "-e", "SELECT status, ticket_id FROM tickets", "--record=x"],
            6,
            &["`ticket_id` as its first column", "status, ticket_id"],
        ),
        (
            &["query", "-e", "SELECT 'ada@example.com' AS ticket_id", "--record=x", "-o", "x.csv"],
            6,
            &["is not a ticket's id in row 1"],
        ),
        (&["lists", "show", "oldst"], 2, &["no ticket list `oldst`", "did you mean `oldest`?"]),
        (&["lists", "show", "oldest@7"], 2, &["no such recording", "oldest@1"]),
        (&["lists", "show", "oldest@then"], 2, &["its number, a time, or `latest`"]),
        (&["lists", "diff", "oldest", "newest"], 2, &["no ticket list `newest`"]),
        (&["lists", "why", "58228e05d4e96711004eccb7", "--list", "x"], 2, &["no ticket list `x`"]),
        (&["lists", "ls", "x"], 2, &["no ticket list `x`"]),
        (&["lists", "show", "oldest", "--format", "xml"], 2, &["unknown format `xml`"]),
    ] {
        assert_fails(&bench.run(arguments), code, words);
    }
    assert_eq!(listing(&lake), before);
    assert!(!bench.path().join("x.csv").exists(), "a result that is refused is not left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_goes_away_leaves_no_list() {
    let bench = bench().await;
    // More than a pipe holds.
    let sql = "SELECT t.ticket_id, repeat('x', 1000) AS filler FROM tickets t, generate_series(1, 300) LIMIT 60000";
    let mut child = bench
        .command(&["query", "-e", sql, "--record=gone", "--format", "csv"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("nothing was recorded"), "{}", text(&output.stderr));
    let (listed, notes) = ok(&bench, &["lists", "ls"]);
    assert!(listed.is_empty() && notes.contains("nothing was recorded yet"), "{notes}");
    let (_, notes) = ok(&bench, &["query", "-e", sql, "--record=gone", "--format", "table"]);
    assert!(notes.contains("rows repeat a ticket"), "a table that is cut records the whole result: {notes}");
}
