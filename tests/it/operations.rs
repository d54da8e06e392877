//! What operators run beside the extract itself: plan, doctor, metrics, reports, logs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;

use base64::Engine as _;
use counterfoil::sandbox::SandboxSettings;
use serde_json::{Value, json};

use crate::commands::{Bench, assert_fails, listing, text};

fn token(claims: &Value) -> String {
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("eyJhbGciOiJIUzI1NiJ9.{encoded}.c2lnbmF0dXJl")
}

/// The findings of `doctor --format json` as (check, level, seen, mend).
fn findings(output: &Output) -> Vec<(String, String, String, String)> {
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["format"], 1);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = answer["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|found| (text(found, "check"), text(found, "level"), text(found, "seen"), text(found, "mend")))
        .collect()
}

#[track_caller]
fn assert_found(output: &Output, code: i32, check: &str, level: &str, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    let findings = findings(output);
    let found: Vec<_> = findings.iter().filter(|found| found.0 == check && found.1 == level).collect();
    assert!(
        found.iter().any(|found| words.iter().all(|word| found.2.contains(word) || found.3.contains(word))),
        "no {level} of {check} with {words:?} in {findings:#?}"
    );
    for (check, level, _, mend) in &findings {
        assert_eq!(level == "ok", mend.is_empty(), "{check}: what is not ok has a way out");
    }
}

const DOCTOR: [&str; 3] = ["doctor", "--format", "json"];

/// Reads a metrics file into its samples, as they are written.
fn metrics(bench: &Bench, name: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(bench.path().join(name)).unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_prices_the_next_run_and_a_full_one() {
    let bench = Bench::new(3_000).await;
    let plan = bench.run(&["plan"]);
    assert!(plan.status.success(), "{}", text(&plan.stderr));
    let table = text(&plan.stdout);
    for words in ["this run", "full run", "3,000", "1,000", "per 100 tickets", "minutes", "4 counting requests"] {
        assert!(table.contains(words), "{words} is not in:\n{table}");
    }
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let asked: u64 = bench.sandbox.requests().values().sum();
    assert_eq!(asked, 4, "{:?}", bench.sandbox.requests());

    let before: Value = serde_json::from_slice(&bench.run(&["plan", "--format", "json"]).stdout).unwrap();
    assert_eq!(before["now"], before["full"]);
    assert_eq!(before["now"]["records"], json!({ "tickets": 3_000, "customers": 1_000 }));
    assert_eq!(before["limits"]["search"], json!({ "per_minute": 100, "allowed_per_minute": 50 }));

    let asked: u64 = bench.sandbox.requests().values().sum();
    let report = ["extract", "--report", "report.json"];
    assert!(bench.run(&report).status.success());
    let spent = bench.sandbox.requests().values().sum::<u64>() - asked;
    let planned = before["now"]["requests_total"].as_u64().unwrap();
    assert!(planned.abs_diff(spent) <= (spent * 15 / 100).max(2), "planned {planned}, spent {spent}");
    let report: Value = serde_json::from_slice(&fs::read(bench.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["requests_spent"], spent);
    assert_eq!(report["requests_planned"], planned, "the run plans as `plan` does");

    let after: Value = serde_json::from_slice(&bench.run(&["plan", "--format", "json"]).stdout).unwrap();
    assert_eq!(after["full"]["records"], before["full"]["records"]);
    assert!(after["now"]["requests_total"].as_u64() < before["now"]["requests_total"].as_u64());
    let tenth: Value =
        serde_json::from_slice(&bench.run(&["plan", "--full", "--share", "0.05", "--format", "json"]).stdout).unwrap();
    assert_eq!(tenth["limits"]["search"]["allowed_per_minute"], 5);
    assert!(tenth["now"]["minutes"].as_f64() > after["full"]["minutes"].as_f64());

    for (arguments, words) in [
        (&["plan", "--share", "1.5"][..], &["--share", "1.5"][..]),
        (&["plan", "--since", "2026-02-01", "--until", "2026-01-01"], &["--since", "--until"]),
    ] {
        assert_fails(&bench.run(arguments), 2, words);
    }
    assert_eq!(bench.run(&["plan", "--format", "xml"]).status.code(), Some(2));
    assert_fails(&bench.run_with(&[("KUSTOMER_API_KEY", "wrong")], &["plan"]), 4, &["refused"]);

    // Planned stands beside spent in the table of runs.
    let sql = "SELECT requests_planned['search'] AS planned, requests['search'] AS spent, expected, quarantined \
               FROM runs WHERE stream = 'tickets'";
    let rows = bench.run(&["query", "-e", sql, "--format", "ndjson"]);
    assert!(rows.status.success(), "{}", text(&rows.stderr));
    let row: Value = serde_json::from_slice(&rows.stdout).unwrap();
    assert_eq!(row["planned"], report["run"]["planned"]["search"]);
    assert_eq!(row["spent"], report["run"]["requests"]["search"]);
    assert_eq!(row["expected"], 3_000);
    assert!(row["quarantined"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_finds_nothing_where_all_is_well_and_changes_nothing() {
    let bench = Bench::new(240).await;
    let empty = bench.run(&DOCTOR);
    assert_found(&empty, 0, "lake", "warning", &["is empty", "counterfoil extract"]);
    assert!(bench.run(&["extract"]).status.success());
    let before = listing(bench.path());
    let asked: u64 = bench.sandbox.requests().values().sum();
    let output = bench.run(&DOCTOR);
    for check in [
        "settings",
        "schemas",
        "disk",
        "root key",
        "key ring",
        "lake",
        "lease",
        "queries",
        "credential",
        "source",
        "clock",
        "roles",
        "limits",
    ] {
        assert_found(&output, 0, check, "ok", &[]);
    }
    let warned: Vec<_> = findings(&output).into_iter().filter(|found| found.1 != "ok" && found.0 != "disk").collect();
    assert!(warned.is_empty(), "{warned:?}");
    assert_found(&output, 0, "root key", "ok", &["file:root.key", "mode 0600"]);
    assert_eq!(listing(bench.path()), before, "nothing is left behind");
    let all = bench.sandbox.requests().values().sum::<u64>();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["requests"], all - asked);

    let lines = bench.run(&["doctor", "--offline"]);
    assert!(lines.status.success() && text(&lines.stderr).is_empty(), "{}", text(&lines.stderr));
    assert!(text(&lines.stdout).lines().all(|line| ["ok ", "warning ", "  "].iter().any(|w| line.starts_with(w))));
    assert_eq!(bench.sandbox.requests().values().sum::<u64>(), all, "offline asks nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tells_what_is_wrong_with_a_credential() {
    let bench = Bench::new(60).await;
    let with = |key: &str| bench.run_with(&[("KUSTOMER_API_KEY", key)], &DOCTOR);
    let refused = with("not-the-key");
    assert_found(&refused, 4, "credential", "problem", &["refused"]);
    assert_found(&refused, 4, "roles", "warning", &["not checked"]);
    assert_found(&refused, 4, "schemas", "ok", &[]);
    assert!(!text(&refused.stdout).contains("not-the-key") && !text(&refused.stderr).contains("not-the-key"));

    let expired = with(&token(&json!({ "exp": 1_700_000_000, "pod": "prod1", "userType": "machine" })));
    assert_found(&expired, 4, "credential", "problem", &["expired 2023-11-14", "new API key"]);
    let elsewhere = with(&token(&json!({ "pod": "prod2" })));
    assert_found(&elsewhere, 4, "credential", "problem", &["another region", "prod2", "api.prod2.kustomerapp.com"]);
    assert_found(&with(""), 2, "credential", "problem", &["KUSTOMER_API_KEY"]);
    let none = bench.run_with(&[("KUSTOMER_API_KEY", "")], &["doctor", "--offline", "--format", "json"]);
    assert_found(&none, 0, "source", "ok", &["not asked"]);

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let silent = bench.run_with(&[("COUNTERFOIL_SOURCE__BASE_URL", &url)], &DOCTOR);
    assert_found(&silent, 3, "source", "problem", &["127.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tells_what_is_wrong_on_this_side() {
    let bench = Bench::new(240).await;
    assert!(bench.run(&["extract"]).status.success());
    let offline = ["doctor", "--offline", "--format", "json"];

    let elsewhere = [("COUNTERFOIL_LAKE__URL", "file:nowhere")];
    assert_found(&bench.run_with(&elsewhere, &offline), 2, "lake", "problem", &["nowhere", "counterfoil init"]);
    assert!(!bench.path().join("nowhere").exists());

    let key = bench.path().join("root.key");
    let right = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert_found(&bench.run(&offline), 2, "root key", "problem", &["root.key", "backup"]);
    counterfoil::keys::RootKey::create_file(&key).unwrap();
    assert_found(&bench.run(&offline), 4, "key ring", "problem", &["root key"]);
    fs::write(&key, &right).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert_found(&bench.run(&offline), 2, "root key", "problem", &["root.key", "chmod"]);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    let query = bench.path().join("queries/wrong.sql");
    fs::write(&query, "-- name: wrong\n-- description: x\nSELECT ticket_id FROM tickets WHERE statuss = 'open'\n")
        .unwrap();
    assert_found(&bench.run(&offline), 6, "queries", "problem", &["wrong.sql", "statuss"]);
    fs::remove_file(&query).unwrap();

    let schema = bench.path().join("schemas/tickets.toml");
    let declared = fs::read_to_string(&schema).unwrap();
    let column = "\n[[column]]\nname = \"extra\"\npath = \"attributes.extra\"\ntype = \"text\"\nclass = \"internal\"\n\
                  method = \"kepe\"\ndescription = \"x\"\n";
    fs::write(&schema, format!("{declared}{column}")).unwrap();
    assert_found(&bench.run(&offline), 2, "schemas", "problem", &["kepe"]);
    fs::write(&schema, &declared).unwrap();

    let settings = fs::read_to_string(bench.path().join("counterfoil.toml")).unwrap();
    fs::write(bench.path().join("counterfoil.toml"), settings.replace("share = 0.5", "shar = 0.5")).unwrap();
    assert_found(&bench.run(&offline), 2, "settings", "problem", &["source.shar", "source.share"]);
    fs::write(bench.path().join("counterfoil.toml"), &settings).unwrap();

    let commits = listing(&bench.path().join("lake/log"));
    let (last, _) = commits.last().unwrap();
    let bytes = fs::read(last).unwrap();
    fs::write(last, &bytes[..bytes.len() / 2]).unwrap();
    assert_found(&bench.run(&offline), 5, "lake", "problem", &[".commit"]);
    assert_found(&bench.run(&offline), 5, "queries", "warning", &["not checked"]);
    fs::write(last, &bytes).unwrap();
    assert!(bench.run(&offline).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_left_however_the_run_ends() {
    let bench = Bench::new(1_200).await;
    let figures = ["extract", "--metrics-file", "counterfoil.prom"];
    for file in ["nowhere/counterfoil.prom", "."] {
        assert_fails(&bench.run(&["extract", "--metrics-file", file]), 2, &[file, "metrics file"]);
    }
    assert!(bench.sandbox.requests().is_empty(), "told before the run starts");

    assert_fails(&bench.run_with(&[("KUSTOMER_API_KEY", "wrong")], &figures), 4, &["refused"]);
    let failed = metrics(&bench, "counterfoil.prom");
    assert_eq!(failed["counterfoil_run_exit_code"], "4");
    assert_eq!(failed["counterfoil_run_outcome{outcome=\"failed\"}"], "1");
    assert_eq!(failed["counterfoil_lake_version"], "0");
    assert!(!failed.contains_key("counterfoil_last_complete_run_timestamp_seconds"));

    let limited = bench.run(&["extract", "--metrics-file", "counterfoil.prom", "--max-requests", "14"]);
    assert_eq!(limited.status.code(), Some(7), "{}", text(&limited.stderr));
    let limited = metrics(&bench, "counterfoil.prom");
    assert_eq!(limited["counterfoil_run_exit_code"], "7");
    assert_eq!(limited["counterfoil_run_outcome{outcome=\"incomplete\"}"], "1");

    // A setting does what the flag does.
    let setting = [("COUNTERFOIL_EXTRACT__METRICS_FILE", "set.prom")];
    let output = bench.run_with(&setting, &["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let done = metrics(&bench, "set.prom");
    assert_eq!(done["counterfoil_run_outcome{outcome=\"complete\"}"], "1");
    assert_eq!(done["counterfoil_run_exit_code"], "0");
    assert_eq!(done["counterfoil_lake_live_rows{table=\"tickets\"}"], "1200");
    assert!(done["counterfoil_run_requests{endpoint=\"search\"}"].parse::<u64>().unwrap() >= 2);
    assert!(done["counterfoil_watermark_timestamp_seconds{stream=\"tickets\"}"].parse::<f64>().unwrap() > 1.7e9);
    assert_eq!(done["counterfoil_budget_allowed_requests_per_minute{bucket=\"search\"}"], "50");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(bench.path().join("set.prom")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o444, 0o444, "the collector runs as another user");
    }
    let left: Vec<_> = listing(bench.path()).into_iter().filter(|(name, _)| name.contains(".counterfoil-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_run_says_what_is_left_and_the_next_one_does_it() {
    let bench = Bench::new(3_000).await;
    let stopped = bench.run(&["extract", "--max-requests", "16", "--report", "report.json"]);
    assert_fails(&stopped, 7, &["left: about", "records", "requests", "run the extract again"]);
    let report: Value = serde_json::from_slice(&fs::read(bench.path().join("report.json")).unwrap()).unwrap();
    let streams = report["run"]["streams"].as_array().unwrap();
    let reached: u64 = streams
        .iter()
        .filter(|stream| !stream["range_ms"].is_null())
        .map(|stream| stream["distinct"].as_u64().unwrap())
        .sum();
    let left = report["left"]["records"].as_u64().unwrap();
    let unreached = report["left"]["streams"].as_array().unwrap();
    let all = if unreached.is_empty() { 4_000 } else { 1_000 };
    assert_eq!(reached + left, all, "{report}");

    let output = bench.run(&["extract", "--max-requests", "8"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let output = bench.run(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let count = bench.run(&["query", "-e", "SELECT count(*) AS n FROM tickets", "--format", "csv"]);
    assert_eq!(text(&count.stdout), "n\n3000\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_logs_are_one_object_a_line_on_standard_error() {
    let faults = "500:0.1,429:0.05,truncate:0.05".parse().unwrap();
    let bench =
        Bench::with(SandboxSettings { tickets: 900, customers: 300, faults, ..SandboxSettings::default() }).await;
    let fast = [("COUNTERFOIL_SOURCE__ATTEMPTS", "9")];
    for arguments in [
        &["--log-format", "json", "-vv", "extract"][..],
        &["--log-format", "json", "extract", "--max-requests", "3"],
        &["--log-format", "json", "extract", "--metrics-file", "nowhere/x.prom"],
        &["--log-format", "json", "query", "nothing_of_that_name"],
        &["--log-format", "json", "doctor", "--offline", "--format", "json"],
    ] {
        let output = bench.run_with(&fast, arguments);
        for line in text(&output.stderr).lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(event.is_object() && event["level"].is_string(), "{line}");
        }
        if !arguments.contains(&"doctor") {
            assert_eq!(text(&output.stdout), "", "{arguments:?}");
            assert!(!output.stderr.is_empty(), "{arguments:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_the_roles_that_are_missing() {
    for status in [401, 403] {
        let withheld = [
            "org.user.search.read",
            "org.user.note.read",
            "org.user.metadata.read",
            "org.user.tag.read",
            "org.user.schedule.read",
        ];
        let bench = Bench::with(SandboxSettings {
            tickets: 60,
            customers: 20,
            withheld_roles: withheld.map(str::to_owned).to_vec(),
            missing_role_status: status,
            key_expiry: Some(std::time::Duration::from_hours(72)),
            ..SandboxSettings::default()
        })
        .await;
        let output = bench.run(&DOCTOR);
        let search = ["search: refused", "an extract needs it", "org.user.search.read", "org.permission.search.create"];
        assert_found(&output, 4, "roles", "problem", &search);
        assert_found(&output, 4, "roles", "problem", &["tags: refused", "new key"]);
        assert_found(&output, 4, "roles", "warning", &["metadata: refused", "org.permission.metadata.read"]);
        assert_found(
            &output,
            4,
            "roles",
            "warning",
            &["schedules: refused", "goes on without", "org.user.schedule.read"],
        );
        assert_found(&output, 4, "roles", "warning", &["notes: refused", "resolve", "org.user.note.read"]);
        assert_found(&output, 4, "roles", "ok", &["users", "messages", "customers"]);
        assert_found(&output, 4, "credential", "warning", &["machine user", "prod1", "in 2 days", "new API key"]);
        assert_found(&output, 4, "limits", "ok", &["500 of 1000", "50 of 100", "left to people"]);
    }
}
