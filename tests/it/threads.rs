//! `resolve` as people meet it: a thread on a terminal, a bar beside a file, ids from everywhere, an end between two tickets.

#![cfg(target_os = "linux")]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use counterfoil::sandbox::SandboxSettings;
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use crate::commands::{Bench, assert_fails, text};

/// Runs a command on a terminal of so many columns and prints all that the terminal got; a second argument that is not empty is
/// a file that takes standard output in the terminal's place.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, subprocess, sys, termios
columns, output, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
out = open(output, "wb") if output else slave
child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=slave)
os.close(slave)
seen = b""
while True:
    try:
        piece = os.read(master, 4096)
    except OSError:
        break
    if not piece:
        break
    seen += piece
sys.stdout.buffer.write(seen)
sys.exit(child.wait())
"#;

/// Returns Python, which has terminals to give; says that there is none, and fails in CI.
fn python() -> Option<&'static str> {
    let runs = Command::new("python3").args(["-c", "import pty"]).output().is_ok_and(|output| output.status.success());
    if !runs {
        assert!(std::env::var_os("CI").is_none(), "CI must have python3");
        std::io::stderr().write_all(b"skipped: there is no python3 for a terminal\n").unwrap();
    }
    runs.then_some("python3")
}

/// The settings that a command of the bench gets, for one that Python starts.
fn on_terminal(
    bench: &Bench,
    columns: usize,
    output: &str,
    environment: &[(&str, &str)],
    arguments: &[&str],
) -> String {
    let plain = bench.command(&[]);
    let mut terminal = Command::new("python3");
    terminal.args(["-c", ON_A_TERMINAL, &columns.to_string(), output]).arg(env!("CARGO_BIN_EXE_counterfoil"));
    terminal.args(arguments).current_dir(bench.path()).env_clear();
    terminal.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    terminal.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "xterm");
    terminal.envs(environment.iter().copied());
    let output = terminal.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn ids(bench: &Bench, count: u64) -> Vec<String> {
    let organisation = bench.sandbox.organisation();
    (0..count).map(|number| organisation.conversation(number)["id"].as_str().unwrap().to_owned()).collect()
}

fn without_colors(text: &str) -> String {
    regex::Regex::new("\x1b\\[[0-9]*m").unwrap().replace_all(text, "").into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thread_fits_the_terminal_and_is_the_same_in_a_pipe() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new(60).await;
    let ids = ids(&bench, 12);
    let arguments: Vec<&str> =
        ["-q", "resolve", "--pretty", "--utc"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    for columns in [40, 100] {
        let shown = on_terminal(&bench, columns, "", &[], &arguments);
        assert!(shown.contains("\x1b[1m━━ ticket ") && shown.contains("\x1b[36m── ") && shown.contains("\x1b[32m── "));
        let plain = without_colors(&shown).replace("\r\n", "\n");
        assert!(!plain.contains(|each: char| each.is_control() && each != '\n'), "{plain:?}");
        let widest = plain.lines().map(unicode_width::UnicodeWidthStr::width).max().unwrap();
        assert_eq!(widest, columns, "the rule is as wide as the terminal:\n{plain}");
        for id in &ids {
            assert_eq!(plain.lines().filter(|line| line.starts_with(&format!("━━ ticket {id}"))).count(), 1);
        }
        let quiet = on_terminal(&bench, columns, "", &[("NO_COLOR", "1")], &arguments);
        let without_time =
            |text: &str| text.lines().filter(|line| !line.starts_with("read ")).collect::<Vec<_>>().join("\n");
        assert_eq!(without_time(&quiet.replace("\r\n", "\n")), without_time(&plain), "NO_COLOR changes colours alone");
    }
    let piped = bench.run(&arguments);
    let piped = text(&piped.stdout);
    assert!(!piped.contains('\x1b') && piped.lines().all(|line| line.width() <= 80), "{piped}");
    // What was said is there: each message of the source with its first word.
    for message in (0..12).flat_map(|number| bench.sandbox.organisation().messages(number)) {
        let said = message["attributes"]["preview"].as_str().unwrap();
        let word = said.split_whitespace().next().unwrap();
        assert!(piped.contains(word), "{word}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bar_is_drawn_beside_a_file_and_taken_away() {
    if python().is_none() {
        return;
    }
    let latency = Duration::from_millis(100);
    let bench =
        Bench::with(SandboxSettings { tickets: 60, customers: 20, latency, ..SandboxSettings::default() }).await;
    fs::write(bench.path().join("ids.txt"), ids(&bench, 40).join("\n")).unwrap();
    let shown = on_terminal(&bench, 80, "out.ndjson", &[], &["resolve", "--from", "ids.txt"]);
    assert!(shown.contains("/40 tickets") && shown.contains(" requests  "), "{shown:?}");
    assert!(without_colors(&shown).contains("40 tickets: 40 complete"), "{shown:?}");
    assert_eq!(fs::read_to_string(bench.path().join("out.ndjson")).unwrap().lines().count(), 40);
    let quiet = on_terminal(&bench, 80, "out.ndjson", &[], &["-q", "resolve", "--from", "ids.txt"]);
    assert_eq!(quiet, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_run_tells_what_was_delivered() {
    let latency = Duration::from_millis(150);
    let bench =
        Bench::with(SandboxSettings { tickets: 200, customers: 60, latency, ..SandboxSettings::default() }).await;
    for name in ["INT", "TERM"] {
        let mut child = bench
            .command(&["resolve", "--from", "-", "--report", "report.json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(ids(&bench, 200).join("\n").as_bytes()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
        let delivered: Vec<Value> =
            first.lines().chain(rest.lines()).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(delivered.len() < 200, "it ended before the last ticket");
        let report: Value = serde_json::from_slice(&fs::read(bench.path().join("report.json")).unwrap()).unwrap();
        assert_eq!((&report["outcome"], &report["exit_code"]), (&"interrupted".into(), &130.into()));
        assert_eq!(report["tickets"]["written"], delivered.len());
        let left = 200 - delivered.len();
        assert!(said.contains(&format!("200 tickets: {} complete, {left} not written", delivered.len())), "{said}");
        assert!(said.ends_with("interrupted\n"), "{said}");
    }

    // While ids are waited for.
    let mut waiting = bench.command(&["resolve", "--from", "-"]);
    let mut child = waiting.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(130), "interrupted\n"));
    drop(stdin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_has_counts_and_nothing_of_a_ticket() {
    let bench = Bench::new(60).await;
    let mut ids = ids(&bench, 20);
    ids.push("ffffffffffffffffffffffff".to_owned());
    ids.push(ids[0].clone());
    fs::write(bench.path().join("ids.txt"), ids.join("\n")).unwrap();
    let output = bench.run(&["resolve", "--from", "ids.txt", "--report", "report.json"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let written = fs::read_to_string(bench.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&written).unwrap();
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&report["outcome"], &report["exit_code"]), (&"incomplete".into(), &7.into()));
    let expected = serde_json::json!({"asked": 21, "written": 21, "complete": 20, "in_part": 0, "missing": 1});
    assert_eq!(report["tickets"], expected);
    assert_eq!(report["failures"], serde_json::json!([{"part": "conversation", "kind": "gone", "tickets": 1}]));
    assert_eq!(report["repeated_ids"], 1);
    let attachments: usize = lines.iter().filter_map(|line| line["attachments"].as_array()).map(Vec::len).sum();
    assert_eq!(report["attachments"], attachments);
    assert_eq!(report["replaced_service_requests"], 21 * 6 + attachments);
    let by_endpoint: u64 = report["requests"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(report["requests_total"], by_endpoint);
    assert_eq!(bench.sandbox.requests().values().sum::<u64>(), by_endpoint, "the source counted as many");
    assert!(ids.iter().all(|id| !written.contains(id.as_str())), "not even an id");
    let said = text(&output.stderr);
    assert!(
        said.contains("21 tickets: 20 complete, 1 not found") && said.contains("missing: conversation gone 1"),
        "{said}"
    );
    assert!(said.contains("ids were named again once"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_without_a_place_costs_no_request() {
    let bench = Bench::new(3).await;
    let id = &ids(&bench, 1)[0];
    let words = ["failed to write the report", "nowhere/report.json"];
    assert_fails(&bench.run(&["resolve", id, "--report", "nowhere/report.json"]), 2, &words);
    assert_eq!(bench.sandbox.requests().values().sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_list_is_resolved_in_its_order() {
    let bench = Bench::new(60).await;
    assert!(bench.run(&["extract", "-q"]).status.success());
    let sql = "SELECT ticket_id FROM tickets ORDER BY updated_at DESC LIMIT 9";
    let recorded = bench.run(&["query", "-e", sql, "--format", "ids", "--record=newest"]);
    assert!(recorded.status.success(), "{}", text(&recorded.stderr));
    let expected = text(&recorded.stdout);
    for address in ["newest", "newest@1", "newest@latest"] {
        let output = bench.run(&["-q", "resolve", "--list", address, "--only", "notes"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let lines = text(&output.stdout);
        let found: Vec<String> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["ticket_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, expected.lines().collect::<Vec<_>>(), "{address}");
    }
    // Beside other ids, each ticket once.
    let first = expected.lines().nth(3).unwrap();
    let output = bench.run(&["resolve", first, "--list", "newest", "--only", "notes", "--dry-run"]);
    assert!(text(&output.stdout).starts_with("tickets                    9"), "{}", text(&output.stdout));
    assert_fails(&bench.run(&["resolve", "--list", "newes"]), 2, &["no ticket list `newes`", "did you mean `newest`?"]);
    assert_fails(&bench.run(&["resolve", "--list", "newest@7"]), 2, &["no such recording", "newest@1"]);

    let none = bench.run(&[
        "query",
        "-e",
        "SELECT ticket_id FROM tickets WHERE status = 'no'",
        "--format",
        "ids",
        "--record=none",
    ]);
    assert!(none.status.success(), "{}", text(&none.stderr));
    let output = bench.run(&["resolve", "--list", "none"]);
    let said = text(&output.stderr);
    assert_eq!(
        (output.status.code(), said.as_str()),
        (Some(0), "no ticket ids in the list none@1: nothing to resolve\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_query_writes_is_what_resolve_reads() {
    let bench = Bench::new(60).await;
    assert!(bench.run(&["extract", "-q"]).status.success());
    let sql = "SELECT status, ticket_id, custom_tier FROM tickets ORDER BY ticket_id LIMIT 5";
    let mut priced = Vec::new();
    for format in ["csv", "json", "ndjson"] {
        assert!(bench.run(&["query", "-e", sql, "--format", format, "-o", "rows"]).status.success());
        let output = bench.run(&["resolve", "--from", "rows", "--only", "messages", "--dry-run"]);
        assert!(output.status.success(), "{format}: {}", text(&output.stderr));
        priced.push(text(&output.stdout));
    }
    assert!(priced[0].starts_with("tickets                    5"), "{}", priced[0]);
    assert!(priced.iter().all(|price| *price == priced[0]));
    // And what it writes itself.
    let output = bench.run(&["-q", "resolve", "--from", "rows", "--only", "notes"]);
    fs::write(bench.path().join("lines"), &output.stdout).unwrap();
    let again = bench.run(&["-q", "resolve", "--from", "lines", "--only", "notes"]);
    assert_eq!(text(&again.stdout).lines().count(), 5, "{}", text(&again.stderr));
}

/// Runs a command and says how much memory it had at most.
const MEASURED: &str = r#"
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:], stdin=open(sys.argv[1], "rb")).returncode
sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}\n")
sys.exit(code)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn million_ids_take_the_memory_of_the_ids() {
    let Some(python) = python() else { return };
    let bench = Bench::new(1).await;
    let peak = |count: u32| -> u64 {
        let mut rows = "note,ticket_id\n".to_owned();
        for number in 0..count {
            writeln!(rows, "\"some words, and more of them {number}\",{number:024x}").unwrap();
        }
        let path = bench.path().join("ids.csv");
        fs::write(&path, rows).unwrap();
        let plain = bench.command(&[]);
        let mut measured = Command::new(python);
        measured.args(["-c", MEASURED]).arg(&path).arg(env!("CARGO_BIN_EXE_counterfoil"));
        measured.args(["resolve", "--from", "-", "--dry-run"]).current_dir(bench.path());
        measured.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = measured.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with("tickets "), "{}", text(&output.stdout));
        text(&output.stderr).trim().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (few, many) = (peak(10), peak(1_000_000));
    assert!(many - few < 100, "{few} MiB for ten ids, {many} MiB for a million");
}
