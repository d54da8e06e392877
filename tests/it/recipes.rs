//! The recipes for jq of `docs/resolve.md`: each is run as it stands there, by a shell, over the lines of the real binary.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use counterfoil::sandbox::SandboxSettings;
use serde_json::Value;

use crate::commands::{Bench, text};

/// The id that the chapter's examples name.
const EXAMPLE: &str = "58228e05d4e96711004eccb7";

/// The recipes with the comment above each.
fn recipes() -> Vec<(String, String)> {
    let chapter = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/resolve.md")).unwrap();
    let lines: Vec<&str> = chapter.lines().collect();
    let recipe = |pair: &[&str]| {
        let is_recipe =
            pair[0].starts_with("# ") && pair[1].starts_with("counterfoil resolve") && pair[1].contains("| jq ");
        is_recipe.then(|| (pair[0][2..].to_owned(), pair[1].to_owned()))
    };
    lines.windows(2).filter_map(recipe).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipes_for_jq_give_what_they_promise() {
    let has_jq = Command::new("jq").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_jq {
        assert!(std::env::var_os("CI").is_none(), "CI must have jq");
        std::io::stderr().write_all(b"skipped: jq does not run\n").unwrap();
        return;
    }
    let bench = Bench::with(SandboxSettings { tickets: 400, customers: 130, ..SandboxSettings::default() }).await;
    let organisation = bench.sandbox.organisation();
    let id = |number: u64| organisation.conversation(number)["id"].as_str().unwrap().to_owned();
    let ids: Vec<String> = (0..40).map(|number| id(number * 7)).collect();
    fs::write(bench.path().join("ids.txt"), ids.join("\n")).unwrap();
    let bin = bench.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_counterfoil"), bin.join("counterfoil")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |line: &str| {
        let command = bench.command(&[]);
        let environment = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let mut shell = Command::new("bash");
        shell.env_clear().envs(environment).env("PATH", &path).current_dir(bench.path());
        shell.env("COUNTERFOIL_RESOLVE__ACCESS_RECORD", "false");
        let output =
            shell.args(["-c", &format!("set -o pipefail; {}", line.replace(EXAMPLE, &ids[3]))]).output().unwrap();
        assert!(output.status.success(), "{line}\n{}", text(&output.stderr));
        text(&output.stdout)
    };
    let messages = |number: usize| organisation.messages(number as u64 * 7);
    let mut seen = 0;
    for (promise, line) in recipes() {
        let out = run(&line);
        let lines: Vec<&str> = out.lines().collect();
        seen += 1;
        match promise.split([',', ':']).next().unwrap() {
            "The thread" => {
                for message in messages(3) {
                    let preview = message["attributes"]["preview"].as_str().unwrap();
                    let direction = message["attributes"]["direction"].as_str().unwrap();
                    assert!(out.contains(&format!("{direction}: {preview}")), "{promise}\n{out}");
                }
            }
            "To whom" => {
                let count: usize = (0..40).map(|number| messages(number).len()).sum();
                assert_eq!(lines.len(), count, "{promise}\n{out}");
                assert!(lines.iter().all(|line| line.contains('@') && !line.contains('{')), "{promise}\n{out}");
            }
            "Tickets with a file of more than 10 kB" => {
                assert!(!lines.is_empty() && lines.len() < 40, "{promise}\n{out}");
                assert!(lines.iter().all(|line| ids.iter().any(|id| id == line)), "{promise}\n{out}");
            }
            "Subject" => {
                assert_eq!(lines.iter().filter(|line| line.contains("\",")).count(), 40, "{promise}\n{out}");
                let first: Vec<Value> = serde_json::from_str(&format!("[{}]", lines[0])).unwrap();
                assert_eq!((first.len(), first[0].as_str()), (4, Some(ids[0].as_str())), "{promise}\n{out}");
            }
            "Custom attributes under the names that agents see" => {
                assert_eq!(lines.len(), 40, "{promise}\n{out}");
                assert!(out.contains(' ') && !out.contains("Num\""), "{promise}\n{out}");
            }
            "What is missing" | "Ids to try again" => assert_eq!(out, "", "{promise}"),
            other => panic!("nobody checks the recipe {other:?}"),
        }
    }
    assert_eq!(seen, 7);
}
