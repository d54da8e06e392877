//! The access record as a privacy officer and a person at a terminal meet it: who looked at which ticket, and what came of it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use counterfoil::sandbox::SandboxSettings;
use serde_json::{Value, json};

use crate::commands::{Bench, assert_fails, listing, text};

const UNKNOWN: &str = "ffffffffffffffffffffffff";

async fn bench(tickets: u64, latency: Duration) -> Bench {
    let limits = SandboxSettings { org_rpm: 1_000_000, search_rpm: 1_000_000, ..SandboxSettings::default() };
    Bench::with(SandboxSettings { tickets, customers: tickets, latency, ..limits }).await
}

fn ids(bench: &Bench, count: u64) -> Vec<String> {
    let organisation = bench.sandbox.organisation();
    (0..count).map(|number| organisation.conversation(number)["id"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn rows(bench: &Bench, sql: &str) -> Vec<Value> {
    let output = bench.run(&["query", "-e", sql, "--format", "ndjson"]);
    assert!(output.status.success(), "{sql}: {}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How many rows there are of each phase, and by how many calls.
fn phases(bench: &Bench) -> Value {
    let sql = "SELECT count(DISTINCT access_id) AS calls, count(*) FILTER (WHERE phase = 'asked') AS asked, \
               count(*) FILTER (WHERE phase = 'delivered') AS delivered FROM accesses";
    rows(bench, sql).remove(0)
}

fn requests(bench: &Bench) -> u64 {
    bench.sandbox.requests().values().sum()
}

/// Resolves with answers enough to the minute that only the latency slows it down.
fn spawn(bench: &Bench, ids: &[String]) -> Child {
    let mut command = bench.command(&["resolve", "--only", "conversation,messages"]);
    command.args(ids).env("COUNTERFOIL_SOURCE__ORG_RPM", "100000").env("COUNTERFOIL_SOURCE__SHARE", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_on_record_with_its_price_and_stays_when_the_ticket_is_erased() {
    let bench = bench(30, Duration::ZERO).await;
    let output = bench.run(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(rows(&bench, "SELECT * FROM accesses").is_empty(), "the table is there before the first call");

    let ids = ids(&bench, 3);
    let before = listing(&bench.path().join("lake"));
    assert!(bench.run(&["resolve", "--dry-run", &ids[0]]).status.success());
    assert_fails(&bench.run(&["resolve", &ids[0], "not-an-id"]), 2, &["not-an-id"]);
    assert_eq!(listing(&bench.path().join("lake")), before, "nothing was asked for, nothing is on record");

    let asked_before = requests(&bench);
    let output = bench.run(&["resolve", "--only", "messages,notes", &ids[2], &ids[0], UNKNOWN]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let price = requests(&bench) - asked_before;

    let sql = "SELECT ticket_id, phase, command, parts, redacted, attachment_id, outcome, requests, \
               host IS NOT NULL AS has_host FROM accesses ORDER BY phase, ticket_id";
    let row = |id: &str, outcome: Option<&str>| {
        json!({"ticket_id": id, "phase": if outcome.is_some() { "delivered" } else { "asked" }, "command": "resolve",
            "parts": "messages,notes", "redacted": false, "attachment_id": null, "outcome": outcome,
            "requests": outcome.map(|_| price), "has_host": true})
    };
    let mut known = [&ids[0], &ids[2]];
    known.sort();
    let mut expected: Vec<Value> = known.iter().map(|id| row(id, None)).collect();
    expected.push(row(UNKNOWN, None));
    expected.extend(known.iter().map(|id| row(id, Some("complete"))));
    expected.push(row(UNKNOWN, Some("missing")));
    assert_eq!(rows(&bench, sql), expected);

    let order = "SELECT count(*) AS n FROM accesses a JOIN accesses d USING (access_id, ticket_id) \
                 WHERE a.phase = 'asked' AND d.phase = 'delivered' AND a.accessed_at <= d.accessed_at";
    assert_eq!(rows(&bench, order), [json!({"n": 3})]);
    let described = rows(&bench, "DESCRIBE accesses");
    assert!(described.len() >= 12, "{described:?}");
    for column in &described {
        assert!(column["description"].as_str().is_some_and(|words| words.len() > 5), "{column}");
    }
    assert_eq!(text(&bench.run(&["lake", "files", "--table", "accesses"]).stdout).lines().count(), 2);

    // The id stays, because that somebody looked has to be told about it.
    let erased = bench.run(&["lake", "erase", "--ticket", &ids[0]]);
    assert!(erased.status.success(), "{}", text(&erased.stderr));
    assert_eq!(rows(&bench, sql), expected);
    for command in [&["lake", "verify"][..], &["check"], &["policy", "lint"], &["lake", "compact"], &["extract"]] {
        let output = bench.run(command);
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("no schema declares"), "{}", text(&output.stderr));
    }
    assert_eq!(rows(&bench, sql), expected, "joined, they are what they were");

    let forget = [("COUNTERFOIL_LAKE__KEEP_ACCESSES", "400d")];
    assert!(bench.run_with(&forget, &["lake", "retain"]).status.success());
    assert_eq!(rows(&bench, sql), expected, "younger than that");
    assert_fails(
        &bench.run_with(&[("COUNTERFOIL_LAKE__KEEP_ACCESSES", "long")], &["lake", "retain"]),
        2,
        &["lake.keep_accesses", "400d"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_delivered_without_a_record_unless_the_setting_turns_it_off() {
    let bench = bench(10, Duration::ZERO).await;
    let ids = ids(&bench, 2);
    let off = [("COUNTERFOIL_RESOLVE__ACCESS_RECORD", "false")];
    let lake = bench.path().join("lake");
    let before = listing(&lake);
    let unrecorded = bench.run_with(&off, &["resolve", &ids[0], &ids[1]]);
    assert!(unrecorded.status.success(), "{}", text(&unrecorded.stderr));
    assert_eq!(text(&unrecorded.stdout).lines().count(), 2);
    assert_eq!(listing(&lake), before);

    // Neither a lease nor a commit can be made where files stand in the way of folders.
    for (folder, away) in [("leases", "leases.away"), ("log", "log.away")] {
        let there = lake.join(folder).exists();
        if there {
            std::fs::rename(lake.join(folder), bench.path().join(away)).unwrap();
        }
        std::fs::write(lake.join(folder), "").unwrap();
        let output = bench.run(&["resolve", &ids[0]]);
        assert!(!output.status.success(), "{folder}");
        assert_fails(&output, output.status.code().unwrap(), &["could not be recorded", "access_record = false"]);
        std::fs::remove_file(lake.join(folder)).unwrap();
        if there {
            std::fs::rename(bench.path().join(away), lake.join(folder)).unwrap();
        }
    }

    std::fs::rename(&lake, bench.path().join("elsewhere")).unwrap();
    let output = bench.run(&["resolve", &ids[0]]);
    assert!(!output.status.success());
    assert_fails(&output, output.status.code().unwrap(), &["could not be recorded", "access_record = false"]);
    let unrecorded = bench.run_with(&off, &["resolve", &ids[0]]);
    assert!(unrecorded.status.success() && !lake.exists(), "no lake is needed: {}", text(&unrecorded.stderr));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_that_ends_early_has_what_was_asked_for_and_what_came() {
    let bench = bench(300, Duration::from_millis(200)).await;
    let ids = ids(&bench, 300);
    let signal = |child: &Child, name: &str| {
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    };
    let first_line = |child: &mut Child| {
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "{line}");
        lines
    };

    // Killed: nothing tells what came, so all that was asked for may have been seen.
    let mut child = spawn(&bench, &ids);
    let lines = first_line(&mut child);
    assert_eq!(phases(&bench), json!({"calls": 1, "asked": 300, "delivered": 0}), "on record before the first line");
    signal(&child, "-KILL");
    child.wait().unwrap();
    drop(lines);
    assert_eq!(phases(&bench), json!({"calls": 1, "asked": 300, "delivered": 0}));

    // Interrupted: the lines that were written, and no other.
    let mut child = spawn(&bench, &ids);
    let mut lines = first_line(&mut child);
    signal(&child, "-INT");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let written = rest.lines().count() + 1;
    assert!(written < 300, "{written}");
    assert_eq!(phases(&bench), json!({"calls": 2, "asked": 600, "delivered": written}));

    // A reader that leaves: what was written for it, of which it may not have read the last.
    let mut child = spawn(&bench, &ids);
    drop(first_line(&mut child));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let delivered = phases(&bench)["delivered"].as_u64().unwrap() as usize - written;
    assert!((1..300).contains(&delivered), "{delivered}");
    assert_eq!(phases(&bench)["asked"], 900);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_beside_an_extract_are_all_on_record() {
    let bench = bench(200, Duration::ZERO).await;
    let ids = ids(&bench, 20);
    let mut extract = bench.command(&["extract"]);
    let extract = extract.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let calls: Vec<Child> = (0..4).map(|_| spawn(&bench, &ids)).collect();
    for child in calls.into_iter().chain([extract]) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(phases(&bench), json!({"calls": 4, "asked": 80, "delivered": 80}));
    let verified = bench.run(&["lake", "verify"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let count = bench.run(&["query", "-e", "SELECT count(*) AS n FROM tickets", "--format", "csv"]);
    assert_eq!(text(&count.stdout), "n\n200\n");
}
