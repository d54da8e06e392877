//! The command line as data: every file of `tests/cmd` is one call of the binary and what comes of it.
//!
//! ```toml
//! arguments = ["query", "one", "--format", "csv"]   # what the binary is called with
//! [files]                                           # written before, taken away after; paths from the folder of the settings
//! "queries/one.sql" = "SELECT 1 AS one"
//! [environment]                                     # beside what every call gets
//! [expected]                                        # written by CMD_CASES=overwrite; read the difference before keeping it
//! status = 0
//! stdout = '''
//! one
//! 1
//! '''
//! stderr = ""
//! ```
//!
//! The lake holds 60 tickets of the sandbox. Of what is said, the folder becomes `[FOLDER]`, an instant `[TIME]` and a
//! length of time before `ago` and `short` `[AGE]`; a case that shows rows asks for such as do not depend on the day.
//! `CMD_CASES=overwrite cargo test --test it cmd` writes what is expected anew.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;

use crate::commands::{Bench, text};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    arguments: Vec<String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    expected: Option<Expected>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    status: i32,
    stdout: String,
    stderr: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd")
}

fn cases() -> Vec<(PathBuf, String, Case)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let written = fs::read_to_string(&path).unwrap();
        let case = toml::from_str(&written).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, written, case)
    };
    paths.into_iter().map(read).collect()
}

/// What differs from run to run, by its kind.
struct Filters(Vec<(Regex, &'static str)>);

impl Filters {
    fn new(folder: &Path) -> Self {
        let folder = regex::escape(&folder.display().to_string());
        let instant = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)";
        let age = r"(\d+[dhms] ?){1,2} (ago|short)";
        Self(
            [(folder.as_str(), "[FOLDER]"), (instant, "[TIME]"), (age, "[AGE] $2")]
                .map(|(pattern, word)| (Regex::new(pattern).unwrap(), word))
                .into(),
        )
    }

    fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (pattern, word)| pattern.replace_all(&text, *word).into_owned())
    }
}

/// Writes a text as TOML that a person can read.
fn literal(text: &str) -> String {
    if text.is_empty() {
        "\"\"".to_owned()
    } else if text.contains("'''") || text.chars().any(|each| each.is_control() && each != '\n') {
        toml::Value::from(text).to_string()
    } else {
        format!("'''\n{text}'''")
    }
}

fn run(bench: &Bench, filters: &Filters, case: &Case) -> Expected {
    let mut held = Vec::new();
    for (path, content) in &case.files {
        let path = bench.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A file of the library comes back after a case that puts its own in its place.
        held.push((path.clone(), fs::read(&path).ok()));
        fs::write(&path, content).unwrap();
    }
    let arguments: Vec<&str> = case.arguments.iter().map(String::as_str).collect();
    let environment: Vec<(&str, &str)> =
        case.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let output = bench.run_with(&environment, &arguments);
    for (path, before) in held {
        match before {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    Expected {
        status: output.status.code().unwrap(),
        stdout: filters.apply(&text(&output.stdout)),
        stderr: filters.apply(&text(&output.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_says_and_returns_what_its_case_expects() {
    let bench = Bench::new(60).await;
    let output = bench.run(&["extract", "-q"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let filters = Filters::new(bench.path());
    let overwrite = std::env::var_os("CMD_CASES").is_some_and(|value| value == "overwrite");
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 30, "the cases are there");
    for (path, written, case) in cases {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let got = run(&bench, &filters, &case);
        assert!(!got.stderr.contains("panicked"), "{name}: {}", got.stderr);
        if overwrite {
            let input = written.split_once("[expected]").map_or(written.as_str(), |(input, _)| input);
            let mut anew = format!("{}\n\n[expected]\nstatus = {}\n", input.trim_end(), got.status);
            let _ = writeln!(anew, "stdout = {}\nstderr = {}", literal(&got.stdout), literal(&got.stderr));
            fs::write(&path, anew).unwrap();
        } else if case.expected.as_ref() != Some(&got) {
            let expected = case.expected.map_or_else(|| "nothing".to_owned(), |expected| shown(&expected));
            wrong.push(format!("{name}\nexpected {expected}\ngot {}", shown(&got)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn shown(of: &Expected) -> String {
    format!("exit code {}\n--- standard output\n{}--- standard error\n{}---", of.status, of.stdout, of.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_of_the_command_itself_lists_its_flags() {
    let bench = Bench::new(1).await;
    for arguments in [&["query", "--help"][..], &["query", "-h"], &["help", "query"]] {
        let output = bench.run(arguments);
        let page = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        for words in ["Usage: counterfoil query [OPTIONS] [FILE]", "--param <NAME=VALUE>", "--help", "--as-of"] {
            assert!(page.contains(words), "{words} is not in {arguments:?}:\n{page}");
        }
    }
}
