//! The README's examples: every command parses, every setting, column and query is understood.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use counterfoil::cli::Cli;
use counterfoil::config::Settings;
use counterfoil::policy::Policy;
use counterfoil::query::{Arguments, QueryFile};
use counterfoil::schema::{self, Schemas};

/// The fenced blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in readme.lines() {
        match &mut open {
            Some(block) if line == "```" => {
                found.push(std::mem::take(block));
                open = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line == format!("```{language}") => open = Some(String::new()),
            None => {}
        }
    }
    assert!(!found.is_empty(), "the README has {language} examples");
    found
}

/// Splits a command line as a shell would, as far as the README uses one: quotes, comments, pipes, redirections.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    let mut redirected = false;
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => break,
            (None, ' ') => {
                if !word.is_empty() {
                    match word.as_str() {
                        "|" => commands.push(Vec::new()),
                        ">" => redirected = true,
                        _ if redirected => redirected = false,
                        _ => commands.last_mut().unwrap().push(word.clone()),
                    }
                    word.clear();
                }
            }
            (_, c) => word.push(c),
        }
    }
    commands
}

#[test]
fn every_command_parses() {
    let mut parsed = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        for command in
            commands(line).into_iter().filter(|command| command.first().is_some_and(|name| name == "counterfoil"))
        {
            Cli::try_parse_from(&command).unwrap_or_else(|error| panic!("{line}\n{error}"));
            parsed += 1;
        }
    }
    assert!(parsed >= 10, "{parsed} commands");
}

#[test]
fn test_command_is_what_ci_runs() {
    let ci = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run")).unwrap();
    assert!(blocks("sh")[0].lines().any(|line| line == "cargo test"));
    assert!(ci.lines().any(|line| line.starts_with("cargo test")));
}

#[test]
fn settings_are_understood() {
    let text = blocks("toml").into_iter().find(|block| block.contains("[source]")).unwrap();
    let config = Settings::parse(&text, "README.md", []).unwrap().compose(PathBuf::from(".")).unwrap();
    assert_eq!(config.source.org.as_deref(), Some("acme"));
}

#[test]
fn columns_are_understood() {
    let example = blocks("toml").into_iter().find(|block| block.contains("[[column]]")).unwrap();
    let (_, shipped) = schema::BUILTIN.iter().find(|(name, _)| *name == "teams.toml").unwrap();
    // The example's columns beside those that every table needs.
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("teams.toml"),
        format!("{shipped}\n{}", example.replace("\"attributes.name\"", "\"attributes.subject\"")),
    )
    .unwrap();
    Policy::compile(&Schemas::load(folder.path()).unwrap()).unwrap();
}

#[tokio::test]
async fn queries_are_understood() {
    let blocks = blocks("sql");
    let session = crate::sql::session();
    let mut names = Vec::new();
    for block in &blocks {
        let file = QueryFile::parse("README.md", block).unwrap();
        let plan = session.plan(&file, &Arguments::default()).await.unwrap_or_else(|error| panic!("{block}\n{error}"));
        assert!(plan.is_ticket_list(), "{block}");
        names.push((file.name, file.params.len()));
    }
    assert_eq!(names[0], ("reopened_vip".to_owned(), 2));
    assert_eq!(names.len(), 2);
}
