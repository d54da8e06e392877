//! The binary as people meet it: wrong inputs, exit codes, clear words, nothing half-written.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use counterfoil::clock::SystemClock;
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use serde_json::Value;
use tempfile::TempDir;

/// A folder made by `counterfoil init`, and the sandbox that its settings are pointed at.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) sandbox: Sandbox,
}

impl Bench {
    pub(crate) async fn new(tickets: u64) -> Self {
        Self::with(SandboxSettings { tickets, customers: (tickets / 3).max(1), ..SandboxSettings::default() }).await
    }

    pub(crate) async fn with(settings: SandboxSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(settings, Arc::new(SystemClock)).await.unwrap();
        let bench = Self { folder, sandbox };
        // `init` refuses a folder that has its files; a temporary folder is empty.
        let output = bench.run(&["init", "."]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        bench
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("COUNTERFOIL_SOURCE__BASE_URL", self.sandbox.base_url())
            .env("COUNTERFOIL_SOURCE__ATTEMPTS", "2")
            .env("COUNTERFOIL_EXTRACT__INDEX_LAG", "0s")
            .env("KUSTOMER_API_KEY", self.sandbox.api_key())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn run_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        self.command(arguments).envs(environment.iter().copied()).output().unwrap()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts the exit code, one `error:` line that holds every word, and an empty standard output.
#[track_caller]
pub(crate) fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "one clear error:\n{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word} is not in:\n{stderr}");
    }
    assert_eq!(text(&output.stdout), "", "standard output carries data only");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Names and sizes of all that stands under a folder, but the leases: who asked when is no content.
pub(crate) fn listing(folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() == "leases" {
            } else if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push((entry.path().display().to_string(), entry.metadata().unwrap().len()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn commands_without_settings_say_how_to_make_them() {
    let folder = tempfile::tempdir().unwrap();
    for command in
        [&["extract"][..], &["query", "x"], &["check"], &["resolve", "58228e05d4e96711004eccb7"], &["lake", "status"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_counterfoil"))
            .args(command)
            .current_dir(folder.path())
            .env_clear()
            .output()
            .unwrap();
        assert_fails(&output, 2, &["no settings found", "counterfoil.toml", "counterfoil init"]);
    }
    assert!(listing(folder.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_settings_and_schemas_change_nothing() {
    let bench = Bench::new(60).await;
    let before = listing(&bench.path().join("lake"));
    let settings = fs::read_to_string(bench.path().join("counterfoil.toml")).unwrap();

    fs::write(bench.path().join("counterfoil.toml"), format!("{settings}\n[sorce]\norg = \"acme\"\n")).unwrap();
    assert_fails(
        &bench.run(&["extract"]),
        2,
        &["unknown section `sorce`", "counterfoil.toml:", "did you mean `source`?"],
    );
    fs::write(bench.path().join("counterfoil.toml"), settings.replace("share = 0.5", "shar = 0.5")).unwrap();
    assert_fails(&bench.run(&["extract"]), 2, &["unknown key `source.shar`", "did you mean `source.share`?"]);
    fs::write(bench.path().join("counterfoil.toml"), &settings).unwrap();

    let key = [("KUSTOMER_API_KEY", "")];
    assert_fails(&bench.run_with(&key, &["extract"]), 2, &["KUSTOMER_API_KEY"]);
    let http = [("COUNTERFOIL_SOURCE__BASE_URL", "http://kustomer.example.com")];
    assert_fails(&bench.run_with(&http, &["extract"]), 2, &["http", "kustomer.example.com"]);

    let schema = bench.path().join("schemas/tickets.toml");
    let declared = fs::read_to_string(&schema).unwrap();
    let column = "\n[[column]]\nname = \"extra\"\npath = \"attributes.extra\"\ntype = \"text\"\nclass = \"internal\"\n\
                  method = \"maks\"\ndescription = \"x\"\n";
    fs::write(&schema, format!("{declared}{column}")).unwrap();
    assert_fails(&bench.run(&["extract"]), 2, &["maks", "mask", "tickets.toml", "line: "]);
    let column = column.replace("maks", "keep").replace("extra\"\npath", "status\"\npath");
    fs::write(&schema, format!("{declared}{column}")).unwrap();
    assert_fails(&bench.run(&["extract"]), 2, &["two columns have one name", "status", "tickets.toml", "line: "]);
    fs::write(&schema, &declared).unwrap();

    assert_eq!(listing(&bench.path().join("lake")), before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_the_source_are_told_apart() {
    let bench = Bench::new(60).await;
    let before = listing(&bench.path().join("lake"));
    let refused = bench.run_with(&[("KUSTOMER_API_KEY", "not-the-key")], &["extract"]);
    assert_fails(&refused, 4, &["refused"]);
    assert!(!text(&refused.stderr).contains("not-the-key"), "no secret in an error");

    // A key whose payload names another pod: {"pod":"prod2"}.
    let other = [("KUSTOMER_API_KEY", "eyJhbGciOiJIUzI1NiJ9.eyJwb2QiOiJwcm9kMiJ9.c2lnbmF0dXJl")];
    assert_fails(&bench.run_with(&other, &["extract"]), 4, &["prod2", "prod1", "api.prod2.kustomerapp.com"]);

    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let unreachable = bench.run_with(&[("COUNTERFOIL_SOURCE__BASE_URL", &url)], &["extract"]);
    assert_fails(&unreachable, 3, &["127.0.0.1"]);

    // The lease of a failed run is given back, and nothing else stays.
    assert_eq!(listing(&bench.path().join("lake")), before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_are_denied() {
    let bench = Bench::new(60).await;
    let key = bench.path().join("root.key");
    let right = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert_fails(&bench.run(&["lake", "status"]), 2, &["root.key", "backup"]);

    let other = tempfile::tempdir().unwrap();
    counterfoil::keys::RootKey::create_file(&other.path().join("root.key")).unwrap();
    fs::copy(other.path().join("root.key"), &key).unwrap();
    assert_fails(&bench.run(&["lake", "status"]), 4, &["root key"]);

    fs::write(&key, "not a key\n").unwrap();
    assert_fails(&bench.run(&["lake", "status"]), 2, &["root.key", "no root key"]);
    fs::write(&key, right).unwrap();
    assert!(bench.run(&["lake", "status"]).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_hour_works_and_wrong_queries_are_named() {
    let bench = Bench::new(240).await;
    let early = bench.run(&["check"]);
    assert_fails(&early, 6, &["no tables yet", "counterfoil extract"]);
    assert_eq!(text(&early.stderr).lines().count(), 2, "said once, not for each file: {}", text(&early.stderr));
    let output = bench.run(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");

    let output = bench.run(&["check"]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let ids =
        bench.run(&["query", "-e", "SELECT ticket_id FROM tickets ORDER BY ticket_id LIMIT 3", "--format", "ids"]);
    assert!(ids.status.success(), "{}", text(&ids.stderr));
    let ids = text(&ids.stdout);
    assert_eq!(ids.lines().count(), 3);

    let fails: [(&[&str], i32, &[&str]); 6] = [
        (&["query", "-e", "SELECT ticket_idd FROM tickets"], 6, &["ticket_idd", "ticket_id"]),
        (&["query", "-e", "SELEC 1"], 6, &["SELEC"]),
        (&["query", "-e", "DROP TABLE tickets"], 6, &["DROP"]),
        (&["query", "reopened_vpi"], 2, &["reopened_vpi", "reopened_vip"]),
        (&["query", "reopened_vip", "-p", "min_reopenz=3"], 2, &["min_reopenz", "min_reopens"]),
        (&["query", "reopened_vip", "-p", "min_reopens=many"], 2, &["min_reopens", "many", "int"]),
    ];
    for (arguments, code, words) in fails {
        assert_fails(&bench.run(arguments), code, words);
    }
    fs::write(bench.path().join("queries/needs.sql"), "-- name: needs\n-- description: x\n-- param day: date\nSELECT ticket_id FROM tickets WHERE created_at >= $day\n").unwrap();
    assert_fails(&bench.run(&["query", "needs"]), 2, &["day", "date", "-p"]);
    fs::write(
        bench.path().join("queries/wrong.sql"),
        "-- name: wrong\n-- description: x\nSELECT ticket_id\nFROM tickets WHERE statuss = 'open'\n",
    )
    .unwrap();
    let check = bench.run(&["check"]);
    assert_eq!(check.status.code(), Some(6), "{}", text(&check.stderr));
    assert!(
        text(&check.stderr).contains("wrong.sql") && text(&check.stderr).contains("statuss"),
        "{}",
        text(&check.stderr)
    );

    // -o is written whole or not at all.
    let out = bench.path().join("out.csv");
    assert_fails(&bench.run(&["query", "-e", "SELECT nothing FROM tickets", "-o", "out.csv"]), 6, &["nothing"]);
    assert!(!out.exists());
    let written =
        bench.run(&["query", "-e", "SELECT ticket_id, status FROM tickets", "--format", "csv", "-o", "out.csv"]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 241);

    // A ticket that exists and one that does not: both lines come, the exit code tells.
    let known = ids.lines().next().unwrap();
    let output = bench.run(&["resolve", known, "ffffffffffffffffffffffff"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("ffffffffffffffffffffffff"), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["ticket_id"], known);
    assert_eq!(lines[0]["errors"], serde_json::json!([]));
    assert_eq!(lines[1]["errors"][0]["kind"], "gone");
    assert_fails(&bench.run(&["resolve", "not-an-id"]), 2, &["not-an-id"]);

    // A second `init` in the same place changes nothing.
    let before = listing(bench.path());
    assert_fails(&bench.run(&["init", "."]), 2, &["there already"]);
    assert_eq!(listing(bench.path()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_goes_away_is_no_error() {
    let bench = Bench::new(240).await;
    assert!(bench.run(&["extract"]).status.success());
    let mut child = bench
        .command(&["query", "-e", "SELECT a.ticket_id FROM tickets a CROSS JOIN tickets b", "--format", "ids"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_extract_gives_the_lease_back_and_the_next_run_goes_on() {
    let bench = Bench::new(900).await;
    // Two searches a minute: the run soon waits for its budget.
    let child = bench
        .command(&["extract"])
        .env("COUNTERFOIL_SOURCE__SEARCH_RPM", "4")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let has_searched = || bench.sandbox.requests().keys().any(|route| route.ends_with("search"));
    for _ in 0..6_000 {
        if has_searched() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_fails(&bench.run(&["extract"]), 9, &["lease", "process"]);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("interrupted; what was committed stays"), "{}", text(&output.stderr));

    let output = bench.run(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let count = bench.run(&["query", "-e", "SELECT count(*) AS n FROM tickets", "--format", "csv"]);
    assert_eq!(text(&count.stdout), "n\n900\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passphrase_opens_the_lake_it_made_and_no_other_does() {
    let bench = Bench::new(90).await;
    let right = [("PHRASE", "correct horse battery staple"), ("COUNTERFOIL_CONFIG", "secret/counterfoil.toml")];
    let wrong = [("PHRASE", "incorrect horse"), right[1]];
    let refused = bench.run(&["init", "secret", "--root", "passphrase:env:PHRASE"]);
    assert_fails(&refused, 2, &["PHRASE"]);
    assert!(!bench.path().join("secret").exists(), "nothing was written");
    let made = bench.run_with(&right, &["init", "secret", "--root", "passphrase:env:PHRASE"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(!bench.path().join("secret/root.key").exists());
    assert!(bench.run_with(&right, &["extract"]).status.success());
    let count = ["query", "-e", "SELECT count(*) AS n FROM tickets", "--format", "csv"];
    assert_eq!(text(&bench.run_with(&right, &count).stdout), "n\n90\n");
    assert_fails(&bench.run_with(&wrong, &count), 4, &["root key", "passphrase:env:PHRASE"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_lake_is_named_and_never_answered_from() {
    let bench = Bench::new(240).await;
    assert!(bench.run(&["extract"]).status.success());
    let all = ["query", "-e", "SELECT * FROM tickets", "--format", "ndjson"];
    assert!(bench.run(&all).status.success());
    let (tickets, _) =
        listing(&bench.path().join("lake/data/tickets")).into_iter().max_by_key(|(_, bytes)| *bytes).unwrap();
    let whole = fs::read(&tickets).unwrap();
    let name = Path::new(&tickets).file_name().unwrap().to_str().unwrap();

    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 1;
    let plain = [&b"PAR1"[..], &whole[4..whole.len() - 4], b"PAR1"].concat();
    for damaged in [&flipped[..], &whole[..whole.len() - 9], &plain] {
        fs::write(&tickets, damaged).unwrap();
        assert_fails(&bench.run(&all), 5, &[name]);
    }
    fs::remove_file(&tickets).unwrap();
    assert_fails(&bench.run(&all), 5, &[name]);
    fs::write(&tickets, &whole).unwrap();
    assert!(bench.run(&all).status.success());

    let (commit, _) = listing(&bench.path().join("lake/log")).into_iter().next().unwrap();
    let bytes = fs::read(&commit).unwrap();
    fs::write(&commit, &bytes[..bytes.len() / 2]).unwrap();
    assert_fails(&bench.run(&["lake", "status"]), 5, &["00000000000000000001.commit"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_touches_nothing_that_the_environment_points_at() {
    let bench = Bench::new(60).await;
    let before = listing(&bench.path().join("lake"));
    let lake = format!("file:{}", bench.path().join("lake").display());
    let root = format!("file:{}", bench.path().join("root.key").display());
    let environment = [("COUNTERFOIL_LAKE__URL", lake.as_str()), ("COUNTERFOIL_KEYS__ROOT", root.as_str())];
    let output = bench.run_with(&environment, &["demo", "--tickets", "300", "--dir", "demo"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let account = text(&output.stdout);
    for words in ["300 new", "proven complete", "query reopened_vip", "stored nowhere", "counterfoil --config demo/"] {
        assert!(account.contains(words), "{words} is not in:\n{account}");
    }
    assert_eq!(listing(&bench.path().join("lake")), before, "the demo has a lake of its own");
    assert!(bench.sandbox.requests().is_empty(), "and a source of its own");
    assert_fails(&bench.run(&["demo", "--dir", "demo"]), 2, &["there already"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_of_requests_is_kept_and_the_report_tells_the_rest() {
    let bench = Bench::new(1_200).await;
    let output = bench.run(&["extract", "--max-requests", "14", "--report", "report.json"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(bench.sandbox.requests().values().sum::<u64>() <= 14, "{:?}", bench.sandbox.requests());
    let report: Value = serde_json::from_slice(&fs::read(bench.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["complete"], &report["run"]["outcome"]), (&Value::from(false), &Value::from("incomplete")));

    let output = bench.run(&["extract", "--report", "report.json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&fs::read(bench.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["complete"], Value::from(true));
    let undeclared = report["quarantine"].as_array().unwrap();
    assert!(undeclared.iter().any(|field| field["field"] == "attributes.custom.legacyScoreNum"), "{undeclared:?}");
    assert_fails(&bench.run(&["extract", "--report", "nowhere/report.json"]), 2, &["nowhere/report.json"]);
}
