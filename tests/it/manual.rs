//! Manual pages and shell completions, read by the programs they are for.

#![cfg(test)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn counterfoil(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_counterfoil")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = counterfoil(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Tells whether a program is here; says that it is not, and fails in CI.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "CI must have {program}");
        std::io::stderr().write_all(format!("skipped: {program} does not run\n").as_bytes()).unwrap();
    }
    found
}

/// Renders a page and returns what it reads like; every warning fails.
fn rendered(page: &Path) -> String {
    let output = Command::new("groff").args(["-man", "-ww", "-Tascii", "-P-cbou"]).arg(page).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", page.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_manual_page_renders_without_a_warning() {
    if !has("groff") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    assert_eq!(printed(&["man", "--dir", pages.to_str().unwrap()]), "");
    let names: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    for name in &names {
        let text = rendered(&pages.join(name));
        for section in ["NAME", "SYNOPSIS", "OPTIONS"] {
            assert!(text.lines().any(|line| line == section), "{name} has no {section}:\n{text}");
        }
    }
    // A page for every command that the help shows, and the program's names each of them.
    let help = printed(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let program = rendered(&pages.join("counterfoil.1"));
    assert!(commands.len() > 15, "{help}");
    for command in commands.into_iter().filter(|command| !command.is_empty() && *command != "help") {
        assert!(names.contains(&format!("counterfoil-{command}.1")), "{command}: {names:?}");
        assert!(program.contains(&format!("counterfoil-{command}(1)")), "{command}:\n{program}");
    }
    assert!(names.contains(&"counterfoil-lake-accept-rollback.1".to_owned()), "{names:?}");
    assert!(program.contains("EXIT STATUS") && program.contains("130 interrupted"), "{program}");
}

#[test]
fn one_page_goes_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    printed(&["man", "--dir", folder.path().to_str().unwrap()]);
    for (command, file) in [(&["man"][..], "counterfoil.1"), (&["man", "lake", "verify"], "counterfoil-lake-verify.1")]
    {
        assert_eq!(printed(command), fs::read_to_string(folder.path().join(file)).unwrap());
    }
}

#[test]
fn a_page_that_does_not_exist_is_named() {
    let cases: [(&[&str], &str); 3] = [
        (&["man", "quary"], "did you mean `query`?"),
        (&["man", "lake", "verfy"], "did you mean `verify`?"),
        (&["man", "query", "x"], "`query` has no commands of its own"),
    ];
    for (arguments, hint) in cases {
        let output = counterfoil(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
        assert!(said.contains(hint), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let output = counterfoil(&["man", "--dir", folder.path().join("file/man1").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What bash offers for the last of these words.
fn completions(words: &[&str]) -> Vec<String> {
    let script = r#"
        source /dev/stdin
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        COMPREPLY=()
        _counterfoil counterfoil "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-euc", script, "bash", "counterfoil"]).args(words);
    let mut bash = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(printed(&["completions", "bash"]).as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    if !has("bash") {
        return;
    }
    let cases: [(&[&str], &[&str]); 5] = [
        (&["ext"], &["extract"]),
        (&["lake", "ver"], &["verify"]),
        (&["extract", "--rec"], &["--reconcile"]),
        (&["check", "--format", ""], &["text", "json"]),
        (&["completions", "f"], &["fish"]),
    ];
    for (words, offered) in cases {
        assert_eq!(completions(words), offered, "{words:?}");
    }
}

#[test]
fn each_shell_has_a_script_that_knows_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for word in ["extract", "reconcile", "accept-rollback"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}
