//! Guards of a query as people meet them: it ends at once when told to, in any step; it keeps to its time; it says what
//! it did and how far it is, and leaves nothing behind.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::commands::{Bench, assert_fails, text};

/// Counts without an end: reading and computing.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000000000)";

/// Rows without an end: writing.
const ENDLESS_ROWS: &str = "SELECT value, value AS again FROM generate_series(1, 1000000000000)";

/// Needs more memory than a small setting: sorting, on disk.
const SORTED: &str =
    "SELECT value, sample_key('s', CAST(value AS varchar)) AS k FROM generate_series(1, 50000000) ORDER BY k";

async fn bench() -> Bench {
    let bench = Bench::new(30).await;
    let output = bench.run(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    bench
}

fn spawn(bench: &Bench, temp: &Path, arguments: &[&str]) -> Child {
    let mut command = bench.command(&["query"]);
    command
        .args(arguments)
        .env("COUNTERFOIL_QUERY__TEMP", temp)
        .env("COUNTERFOIL_QUERY__MEMORY", "64MiB")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for what a step of the query shows outside.
fn wait_until(child: &mut Child, is_there: impl Fn(u32) -> bool) {
    while !is_there(child.id()) {
        assert!(child.try_wait().unwrap().is_none(), "the query ended before it came so far");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

/// The files that a process has open under a folder.
fn open_under(pid: u32, folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    entries.flatten().filter(|entry| fs::read_link(entry.path()).is_ok_and(|path| path.starts_with(folder))).count()
}

/// The kernel's word for what the main thread waits in: a write to a full pipe has the pipe in its name.
fn is_blocked_writing(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|place| place.contains("pipe"))
        || fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("1 0x1 "))
}

fn empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

fn assert_interrupted(output: &Output) {
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).trim(), "interrupted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_ends_at_a_signal_in_every_step() {
    let bench = bench().await;
    let temp = tempfile::tempdir().unwrap();
    let threads = |pid: u32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);

    for name in ["INT", "TERM"] {
        // Computing: the workers are there, and the signal is watched for.
        let mut child = spawn(&bench, temp.path(), &["-e", ENDLESS]);
        wait_until(&mut child, |pid| threads(pid) > 3);
        std::thread::sleep(Duration::from_millis(300));
        signal(&child, name);
        assert_interrupted(&child.wait_with_output().unwrap());

        // Sorting on disk.
        let mut child = spawn(&bench, temp.path(), &["-e", SORTED, "--format", "csv"]);
        wait_until(&mut child, |pid| open_under(pid, temp.path()) > 0);
        assert!(empty(temp.path()), "what is spilled has no name");
        signal(&child, name);
        assert_interrupted(&child.wait_with_output().unwrap());
        assert!(empty(temp.path()));

        // Writing to a pipe that nobody reads.
        let mut child = spawn(&bench, temp.path(), &["-e", ENDLESS_ROWS, "--format", "csv"]);
        wait_until(&mut child, is_blocked_writing);
        signal(&child, name);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said.trim(), "interrupted");

        // Writing a file: the temporary one beside it goes, and the older one stays.
        let target = temp.path().join("result.csv");
        fs::write(&target, "older\n").unwrap();
        let arguments = ["-e", ENDLESS_ROWS, "-o", target.to_str().unwrap()];
        let mut child = spawn(&bench, temp.path(), &arguments);
        wait_until(&mut child, |_| fs::read_dir(temp.path()).unwrap().count() == 2);
        signal(&child, name);
        assert_interrupted(&child.wait_with_output().unwrap());
        assert_eq!(fs::read_to_string(&target).unwrap(), "older\n");
        fs::remove_file(&target).unwrap();
        assert!(empty(temp.path()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_what_was_spilled_after_kill() {
    let bench = bench().await;
    let temp = tempfile::tempdir().unwrap();
    let mut child = spawn(&bench, temp.path(), &["-e", SORTED, "--format", "csv"]);
    wait_until(&mut child, |pid| open_under(pid, temp.path()) > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(empty(temp.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_keeps_to_its_time() {
    let bench = bench().await;
    let words = ["the query took longer than it may", "limit: 1s", "--timeout", "query.timeout"];
    assert_fails(&bench.run(&["query", "-e", ENDLESS, "--timeout", "1s"]), 6, &words);
    assert_fails(&bench.run_with(&[("COUNTERFOIL_QUERY__TIMEOUT", "1s")], &["query", "-e", ENDLESS]), 6, &words);
    assert_fails(
        &bench.run_with(&[("COUNTERFOIL_QUERY__TIMEOUT", "1h")], &["query", "-e", ENDLESS, "--timeout", "1s"]),
        6,
        &words,
    );

    // A reader that does not read is no excuse.
    let temp = tempfile::tempdir().unwrap();
    let mut child = spawn(&bench, temp.path(), &["-e", ENDLESS_ROWS, "--format", "csv", "--timeout", "1s"]);
    assert_eq!(child.wait().unwrap().code(), Some(6));

    let in_time = bench.run(&["query", "-e", "SELECT 1 AS a", "--format", "csv", "--timeout", "1h"]);
    assert_eq!(text(&in_time.stdout), "a\n1\n");
    for wrong in ["soon", "0s", "-3s", "5"] {
        assert_fails_usage(
            &bench.run(&["query", "-e", "SELECT 1", &format!("--timeout={wrong}")]),
            "30s, 5m or 1h 30m",
        );
    }
}

fn assert_fails_usage(output: &Output, word: &str) {
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_has_enough_ends_a_sorted_query() {
    let bench = bench().await;
    let sql = "SELECT value FROM generate_series(1, 3000000) ORDER BY value DESC";
    let temp = tempfile::tempdir().unwrap();
    let mut child = spawn(&bench, temp.path(), &["-e", sql, "--format", "csv"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.nth(1).unwrap().unwrap(), "3000000");
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explanation_names_operators_and_shows_no_values() {
    let bench = bench().await;
    let sql = "SELECT status, 'ada@example.com' || status AS s, count(*) FROM tickets \
               WHERE status <> 'never-a-status' AND updated_at > timestamp '2001-02-03' GROUP BY status ORDER BY status";
    let output = bench.run(&["query", "-e", sql, "--explain"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for word in ["rows in", "group by status", "read tickets", "sort by status", "share"] {
        assert!(shown.contains(word), "{word}:\n{shown}");
    }
    assert!(shown.lines().skip(1).all(|line| line.chars().count() <= 80), "{shown}");

    let output = bench.run(&["query", "-e", sql, "--explain", "--format", "json"]);
    let json = text(&output.stdout);
    let explained: Value = serde_json::from_str(&json).unwrap();
    let rows = bench.run(&["query", "-e", sql, "--format", "ndjson"]);
    assert_eq!(explained["rows"], text(&rows.stdout).lines().count());
    let mut operator = &explained["operators"];
    while let Some(input) = operator["inputs"].get(0) {
        operator = input;
    }
    assert_eq!(operator["does"], "read tickets", "{json}");
    assert!(operator["read_bytes"].as_u64().unwrap() > 0, "{json}");
    for value in ["ada@", "never-a-status", "2001", "open"] {
        assert!(!shown.contains(value) && !json.contains(value), "{value}:\n{shown}\n{json}");
    }

    assert_fails(&bench.run(&["query", "-e", sql, "--explain", "--format", "csv"]), 2, &["--explain", "table or json"]);
    assert_fails(&bench.run(&["query", "-e", "SELECT no FROM tickets", "--explain"]), 6, &["no column `no`"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_tells_how_long_the_stages_took() {
    let bench = bench().await;
    let output =
        bench.run(&["-v", "--log-format", "json", "query", "-e", "SELECT ticket_id FROM tickets", "--format", "ids"]);
    let said = text(&output.stderr);
    let events = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let done = events.map(|event| event["fields"].clone()).find(|fields| fields["message"] == "query done").unwrap();
    assert_eq!(done["rows"], text(&output.stdout).lines().count());
    for field in ["planning_ms", "running_ms", "total_ms", "peak_memory_bytes"] {
        assert!(done[field].is_u64(), "{field}: {done}");
    }
}

/// Runs the binary with standard error on a terminal of 80 columns, and prints all that the terminal got:
/// `both` standard output too; `interrupt` that, and Ctrl-C once the terminal shows a count of rows; `gate` standard
/// output to a file, and `-o` to a pipe that is first read after two seconds and a half.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, signal, struct, subprocess, sys, termios, threading, time
mode, output, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
if mode == "gate":
    os.mkfifo(output)
    arguments += ["-o", output]
out = subprocess.DEVNULL if mode == "gate" else slave
child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=slave)
os.close(slave)
def read_late():
    time.sleep(2.5)
    with open(output, "rb") as pipe:
        pipe.read()
    os.remove(output)
if mode == "gate":
    threading.Thread(target=read_late).start()
seen = b""
while True:
    try:
        piece = os.read(master, 4096)
    except OSError:
        break
    if not piece:
        break
    seen += piece
    if mode == "interrupt" and b" rows, " in seen:
        mode = "both"
        child.send_signal(signal.SIGINT)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminal_shows_progress_and_is_left_clean() {
    let Some(python) = python() else { return };
    let bench = bench().await;
    let on_terminal = |mode: &str, before: &[&str], sql: &str, code: i32| {
        let query = ["query", "-e", sql, "--format", "csv"];
        let mut terminal = Command::new(python);
        terminal.args(["-c", ON_A_TERMINAL, mode]).arg(bench.path().join("pipe"));
        terminal.arg(env!("CARGO_BIN_EXE_counterfoil")).args(before).args(query).current_dir(bench.path());
        let output = terminal.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    // The query waits for its reader, so that it takes as long on every machine.
    let quick = "SELECT ticket_id FROM tickets";
    let waited = on_terminal("gate", &[], quick, 0);
    assert!(waited.contains("files, ") && waited.contains(" read, ") && waited.contains(" rows, "), "{waited:?}");
    let mut drawn = waited.split('\r').filter(|line| !line.is_empty());
    assert!(drawn.all(|line| line.trim_end_matches("\x1b[K").chars().count() < 80), "{waited:?}");
    assert!(waited.ends_with("\r\x1b[K"), "the line is taken away: {waited:?}");
    assert_eq!(on_terminal("gate", &["-q"], quick, 0), "", "nothing under --quiet");
    assert_eq!(on_terminal("gate", &["--log-format", "json"], quick, 0), "", "nothing beside events");

    let interrupted = on_terminal("interrupt", &[], ENDLESS, 130);
    assert!(interrupted.ends_with("\r\x1b[Kinterrupted\r\n"), "{interrupted:?}");

    let sql = "SELECT count(*) AS n FROM generate_series(1, 5000000) WHERE value % 7 = 1";
    let with_rows = on_terminal("both", &[], sql, 0);
    let rows = with_rows.rsplit_once("\r\x1b[K").map_or(with_rows.as_str(), |(_, rows)| rows);
    assert!(rows.starts_with("n\r\n"), "rows come after the line is gone: {with_rows:?}");
    assert_eq!(on_terminal("both", &[], "SELECT 1 AS n", 0), "n\r\n1\r\n", "nothing for what is quick");
}
