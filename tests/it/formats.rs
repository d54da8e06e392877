//! Results as files and streams: every format read by programs that are not ours, in bounded memory, and what happens when
//! the disk is full or the reader goes away.

#![expect(clippy::unwrap_used, reason = "functions of tests, which clippy.toml exempts only where they carry #[test]")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use counterfoil::lake::{Lake, StoreSettings};
use serde_json::{Value, json};

use crate::commands::{Bench, assert_fails, text};
use crate::interop;
use crate::world::root;

/// A result with what formats get wrong: quotes, lines, no value and the empty text, lists, fractions, times.
const AWKWARD: &str = "SELECT ticket_id, status, message_count, updated_at, tag_ids, deleted, \
     'say \"größe\", twice' || chr(10) || 'x' AS words, '' AS empty, CAST(NULL AS varchar) AS nothing, \
     message_count * 0.25 + 0.125 AS share FROM tickets ORDER BY ticket_id";

const FORMATS: [(&str, &str); 6] = [
    ("csv", "a.csv"),
    ("json", "a.json"),
    ("ndjson", "a.ndjson"),
    ("arrow", "a.arrow"),
    ("sealed", "sealed.parquet"),
    ("parquet", "plain.parquet"),
];

/// Writes the result once in every format.
fn write_all(bench: &Bench, sql: &str) {
    for (format, file) in FORMATS {
        let mut arguments = vec!["query", "-e", sql, "-o", file];
        arguments.extend((format == "parquet").then_some("--plaintext"));
        let output = bench.run(&arguments);
        assert!(output.status.success(), "{format}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{format}");
    }
}

fn without_nulls(row: &Value) -> Value {
    // PyArrow and DuckDB read a column without any value as another type; that it has none is what counts.
    row.as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_format_is_read_back_by_programs_of_others() {
    let Some(python) = interop::python("pyarrow.parquet.encryption, duckdb", None) else { return };
    let has_jq = Command::new("jq").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_jq {
        assert!(std::env::var_os("CI").is_none(), "CI must have jq");
        std::io::stderr().write_all(b"skipped: jq does not run\n").unwrap();
    }
    let bench = Bench::new(300).await;
    assert!(bench.run(&["extract"]).status.success());
    write_all(&bench, AWKWARD);
    let lines = fs::read_to_string(bench.path().join("a.ndjson")).unwrap();
    let mut ours: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &mut ours {
        let time: jiff::Timestamp = row["updated_at"].as_str().unwrap().parse().unwrap();
        row["updated_at"] = json!(time.as_millisecond());
        *row = without_nulls(row);
    }
    assert!(ours.len() > 200 && ours.iter().any(|row| row["tag_ids"].as_array().is_some_and(|tags| tags.len() > 1)));

    let settings = StoreSettings::new("file:lake", bench.path());
    let clock = std::sync::Arc::new(counterfoil::clock::SystemClock);
    let lake = Lake::open(&settings, &root(bench.path()), clock).await.unwrap();
    let files: serde_json::Map<String, Value> =
        FORMATS.iter().map(|(format, file)| ((*format).to_owned(), json!(bench.path().join(file)))).collect();
    let request = json!({ "files": files, "keys": interop::keys(&lake), "jq": has_jq });
    let answer = interop::ask(&python, "formats_read.py", &request);
    let mut read = 0;
    for (engine, formats) in answer.as_object().unwrap() {
        for (format, rows) in formats.as_object().unwrap() {
            let rows: Vec<Value> = rows.as_array().unwrap().iter().map(without_nulls).collect();
            assert_eq!(rows.len(), ours.len(), "{engine} reads {format}");
            for (theirs, ours) in rows.iter().zip(&ours) {
                let mut ours = ours.clone();
                if (engine.as_str(), format.as_str()) == ("DuckDB", "sealed") {
                    // It reads no nested column of an encrypted file, whoever wrote it.
                    ours.as_object_mut().unwrap().remove("tag_ids");
                }
                assert_eq!(*theirs, ours, "{engine} reads {format}");
            }
            read += 1;
        }
    }
    assert_eq!(read, if has_jq { 13 } else { 11 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_is_encrypted_unless_plain_text_is_asked_for() {
    let bench = Bench::new(120).await;
    assert!(bench.run(&["extract"]).status.success());
    write_all(&bench, AWKWARD);
    let read = |file: &str| fs::read(bench.path().join(file)).unwrap();
    let holds = |file: &[u8], word: &str| file.windows(word.len()).any(|window| window == word.as_bytes());
    let (sealed, plain) = (read("sealed.parquet"), read("plain.parquet"));
    assert!(sealed.ends_with(b"PARE") && plain.ends_with(b"PAR1"));
    for word in ["ticket_id", "status", "größe"] {
        assert!(holds(&plain, word) && !holds(&sealed, word), "{word}");
    }
    // Through a pipe as well, and never without a word where the word says nothing.
    let piped = bench.run(&["query", "-e", "SELECT 1 AS n", "--format", "parquet"]);
    assert!(piped.status.success() && piped.stdout.ends_with(b"PARE"), "{}", text(&piped.stderr));
    let wrong = bench.run(&["query", "-e", "SELECT 1 AS n", "--format", "csv", "--plaintext"]);
    assert_fails(&wrong, 2, &["--plaintext belongs to parquet", "never encrypted", "hint:"]);
}

/// Lets the shell limit the size of files, and runs a query into one.
fn limited(bench: &Bench, blocks: &str, arguments: &[&str]) -> std::process::Output {
    let template = bench.command(arguments);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")])
        .arg(template.get_program())
        .args(template.get_args());
    shell.current_dir(bench.path()).env_clear();
    for (name, value) in template.get_envs() {
        shell.env(name, value.unwrap());
    }
    shell.stdin(Stdio::null()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_that_is_full_names_the_file_and_leaves_what_was_there() {
    let bench = Bench::new(30).await;
    let long = "SELECT CAST(value AS varchar) AS ticket_id FROM generate_series(1, 1000000)";
    fs::write(bench.path().join("list.csv"), "older").unwrap();
    let before = crate::commands::listing(bench.path());
    for format in ["csv", "ids", "arrow", "parquet"] {
        let output = limited(&bench, "64", &["query", "-e", long, "--format", format, "-o", "list.csv"]);
        assert_fails(&output, 3, &["failed to write the output file", "limit of file sizes", "list.csv", "hint:"]);
        assert_eq!(fs::read_to_string(bench.path().join("list.csv")).unwrap(), "older");
        assert_eq!(crate::commands::listing(bench.path()), before, "a temporary file stayed");
    }
    if cfg!(target_os = "linux") {
        let output = bench.run(&["query", "-e", long, "--format", "csv", "-o", "/dev/full"]);
        assert_fails(&output, 3, &["the disk is full", "/dev/full", "hint:"]);
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = bench.command(&["query", "-e", long, "--format", "ids"]).stdout(full).output().unwrap();
        assert_fails(&output, 3, &["failed to write the result: the disk is full"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_goes_away_is_no_error_in_any_format() {
    let bench = Bench::new(30).await;
    let endless = "SELECT CAST(value AS varchar) AS ticket_id FROM generate_series(1, 1000000000)";
    for format in ["ids", "csv", "ndjson", "json", "arrow", "parquet"] {
        let mut child = bench
            .command(&["query", "-e", endless, "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 4];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{format}");
    }
}

/// The largest resident memory of a process so far, in bytes.
#[cfg(target_os = "linux")]
fn peak_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_of_a_million_ids_streams_in_flat_memory() {
    let bench = Bench::new(30).await;
    // Reads all but the last lines, looks at the memory, and reads the rest.
    let peak = |format: &str, rows: usize| {
        let sql = format!("SELECT lpad(to_hex(value), 24, '0') AS ticket_id FROM generate_series(1, {rows})");
        let mut child =
            bench.command(&["query", "-e", &sql, "--format", format]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = lines.by_ref().take(rows - 8_000).map(Result::unwrap).count();
        assert_eq!(seen, rows - 8_000);
        let peak = peak_bytes(child.id());
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert!((8_000..=8_001).contains(&rest.len()), "{format}: {} lines at the end", rest.len());
        assert!(child.wait().unwrap().success());
        peak
    };
    for format in ["ids", "csv", "ndjson"] {
        let (few, many) = (peak(format, 50_000), peak(format, 1_000_000));
        let more = many.saturating_sub(few);
        assert!(more < 12 << 20, "{format}: {few} bytes for 50,000 ids, {more} more for a million");
    }
}
