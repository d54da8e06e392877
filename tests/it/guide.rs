//! The user's guide, run: every fenced block of the README and of `docs/*.md`, from top to bottom of each chapter.
//!
//! A chapter has a fresh folder and a sandbox of its own; `counterfoil` is the binary under test, `KUSTOMER_API_KEY` and
//! `COUNTERFOIL_SOURCE__BASE_URL` are set. What a block is for is said by its language, and by comments on the lines before it:
//!
//! ````text
//! ```sh                         run by bash -euo pipefail; folder and exported variables go on to the next block
//! ```sql                        run by `counterfoil query` in that folder
//! ```python                     run by the Python of COUNTERFOIL_INTEROP_PYTHON
//! ```text, json, ndjson, csv    right after one of those: what it printed; `…` is anything within a line, alone any lines
//! ```rust                       a doctest, docs/library.md only
//! <!-- exit 6 -->               the block must exit with 6
//! <!-- rows: 3 -->              the query must give 3 rows
//! <!-- needs: jq -->            skipped aloud where the program does not run, an error in CI
//! <!-- file: PATH -->           not run but written to PATH in the chapter's folder; append: adds to it
//! <!-- file: PATH = FILE -->    and must be equal to FILE of the repository
//! <!-- figure -->               a drawing
//! <!-- not run: REASON -->      counted: `chapter!` says how many there are; `counterfoil` lines must parse all the same
//! <!-- run: COMMAND -->         run like sh, not shown to the reader
//! <!-- sandbox: OPTIONS -->     options of the chapter's sandbox
//! ````
//!
//! Ids of tickets and customers differ from sandbox to sandbox: where a block names [`TICKET`] or [`CUSTOMER`], the id of one
//! that is in the chapter's lake is put in its place.

#![cfg(test)]

mod blocks;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser as _;
use counterfoil::cli::Cli;

use blocks::{Block, Task};

/// Stands for a ticket that the chapter's lake holds.
const TICKET: &str = "58228e05d4e96711004eccb7";

/// Stands for the customer of that ticket.
const CUSTOMER: &str = "5a1d3c05d4e96711004ecc01";

/// How long one block may take.
const LIMIT: Duration = Duration::from_mins(3);

/// What every sandbox of a chapter gets, unless the chapter says otherwise.
const SANDBOX: [(&str, &str); 2] = [("--tickets", "600"), ("--search-rpm", "10000")];

/// A chapter's test: its file, and how many of its blocks are not run.
macro_rules! chapter {
    ($name:ident, $path:literal, not run $not_run:literal) => {
        #[test]
        fn $name() {
            run_chapter($path, $not_run);
        }
    };
}

chapter!(dependencies, "docs/dependencies.md", not run 1);

chapter!(engines, "docs/engines.md", not run 0);

chapter!(extract, "docs/extract.md", not run 0);

chapter!(first_hour, "docs/first_hour.md", not run 0);

chapter!(jobs, "docs/jobs.md", not run 1);

chapter!(keys, "docs/keys.md", not run 0);

chapter!(lake, "docs/lake.md", not run 0);

chapter!(library, "docs/library.md", not run 0);

chapter!(measurements, "docs/measurements.md", not run 1);

chapter!(policy, "docs/policy.md", not run 0);

chapter!(readme, "README.md", not run 2);

chapter!(resolve, "docs/resolve.md", not run 0);

chapter!(settings, "docs/settings.md", not run 0);

chapter!(source, "docs/source.md", not run 0);

chapter!(sql, "docs/sql.md", not run 0);

chapter!(threats, "docs/threats.md", not run 0);

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of the guide, as the repository names them.
fn files() -> Vec<String> {
    let chapters = fs::read_dir(repository().join("docs")).into_iter().flatten();
    let names = chapters.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let chapters = names.filter(|name| is_chapter(name)).map(|name| format!("docs/{name}"));
    chapters.chain(["README.md".to_owned()]).collect()
}

fn is_chapter(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "md")
}

#[test]
fn every_chapter_has_a_test() {
    let tests = include_str!("guide.rs");
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    for file in files() {
        assert!(file == "README.md" || readme.contains(&format!("]({file})")), "README.md does not link to {file}");
        assert!(tests.contains(&format!(", \"{file}\", not run")), "{file} has no `chapter!` in tests/it/guide.rs");
    }
}

#[test]
fn the_test_command_of_the_readme_is_what_ci_runs() {
    let [readme, ci] = ["README.md", ".ci/run"].map(|file| fs::read_to_string(repository().join(file)).unwrap());
    assert!(readme.lines().any(|line| line == "cargo test"));
    assert!(ci.lines().any(|line| line.starts_with("cargo test")));
}

#[test]
fn links_within_the_guide_lead_somewhere() {
    for file in files() {
        let text = fs::read_to_string(repository().join(&file)).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            let (path, section) = target.split_once('#').unwrap_or((target, ""));
            if path.contains("://") {
                continue;
            }
            let folder = repository().join(&file).parent().unwrap().to_path_buf();
            let linked = if path.is_empty() { repository().join(&file) } else { folder.join(path) };
            assert!(linked.exists(), "{file} links to {target}");
            if !section.is_empty() {
                let linked = fs::read_to_string(&linked).unwrap();
                let has = linked.lines().any(|line| line.starts_with('#') && anchor(line) == section);
                assert!(has, "{file} links to {target}, and no heading is called that");
            }
        }
    }
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Writes past the harness, which keeps to itself what a passing test prints.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn run_chapter(file: &str, not_run: usize) {
    let chapter = blocks::read(&fs::read_to_string(repository().join(file)).unwrap())
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    let left_out: Vec<String> = chapter
        .blocks
        .iter()
        .filter_map(|block| match &block.task {
            Task::NotRun(reason) => Some(format!("{file}:{}: not run: {reason}", block.line)),
            _ => None,
        })
        .collect();
    for line in &left_out {
        say(line);
    }
    assert_eq!(left_out.len(), not_run, "blocks of {file} that are not run; `chapter!` says how many there are");
    let runs = chapter.blocks.iter().any(|block| matches!(block.task, Task::Shell | Task::Query | Task::Python));
    let mut desk = runs.then(|| Desk::new(&chapter.sandbox));
    let mut printed = Some(String::new());
    for block in &chapter.blocks {
        let at = format!("{file}:{}", block.line);
        match &block.task {
            Task::NotRun(_) => assert_commands_parse(&at, block),
            Task::Figure => {}
            Task::Doctest => assert_eq!(file, "docs/library.md", "{at}: only this chapter's blocks are doctests"),
            Task::Output => {
                // Nothing was printed by what was skipped.
                if let (Some(printed), Some(desk)) = (&printed, &desk) {
                    let shown = desk.filled(&block.text);
                    let agrees = blocks::agrees(&shown, printed);
                    assert!(agrees, "{at}: shown is\n\n{shown}\nand printed was\n\n{printed}");
                }
            }
            Task::Shell | Task::Query | Task::Python | Task::Write { .. } => {
                if let Some(desk) = desk.as_mut() {
                    printed = desk.run(&at, block);
                }
            }
        }
    }
}

/// Asserts that every command of ours in a block that is not run is one that exists.
fn assert_commands_parse(at: &str, block: &Block) {
    for line in block.text.lines().filter(|_| block.language == "sh") {
        assert_line_parses(at, line);
    }
}

/// Asserts that every command of ours in a shell's line is one that exists; returns how many there are.
pub(crate) fn assert_line_parses(at: &str, line: &str) -> usize {
    let mut ours = commands(line);
    ours.retain(|command| command.first().is_some_and(|program| program == "counterfoil"));
    for command in &ours {
        Cli::try_parse_from(command).unwrap_or_else(|error| panic!("{at}: {line}\n{error}"));
    }
    ours.len()
}

/// Splits a command line as a shell would, as far as the guide uses one: quotes, comments, pipes, redirections.
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
                        "|" | "&&" | ";" => commands.push(Vec::new()),
                        ">" | "<" => redirected = true,
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

/// What a chapter's blocks run in.
struct Desk {
    folder: tempfile::TempDir,
    sandbox: Child,
    environment: Vec<(&'static str, OsString)>,
    /// The example ids and what they stand for, once a block needed them.
    ids: Vec<(&'static str, String)>,
}

impl Desk {
    fn new(options: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_path_buf();
        for name in ["bin", "home", "desk", "tmp"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let binary = env!("CARGO_BIN_EXE_counterfoil");
        std::os::unix::fs::symlink(binary, root.join("bin/counterfoil")).unwrap();
        if let Some(python) = std::env::var_os("COUNTERFOIL_INTEROP_PYTHON") {
            let script = format!("#!/bin/sh\nexec '{}' -B \"$@\"\n", Path::new(&python).display());
            for name in ["python", "python3"] {
                write_program(&root.join("bin").join(name), &script);
            }
        }
        let mut command = Command::new(binary);
        command.arg("sandbox").args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for (name, value) in SANDBOX {
            if !options.iter().any(|option| option == name) {
                command.args([name, value]);
            }
        }
        let mut sandbox = command.spawn().unwrap();
        let mut lines = BufReader::new(sandbox.stderr.take().unwrap()).lines();
        let mut variable = |name: &str| -> OsString {
            let prefix = format!("export {name}=");
            let found = lines.by_ref().find_map(|line| Some(line.unwrap().strip_prefix(&prefix)?.to_owned()));
            found.unwrap_or_else(|| panic!("the sandbox names no {name}")).into()
        };
        let url = variable("COUNTERFOIL_SOURCE__BASE_URL");
        let key = variable("KUSTOMER_API_KEY");
        // The rest is read, so that the sandbox can go on writing.
        std::thread::spawn(move || lines.for_each(drop));
        let mut path = root.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let home = root.join("home");
        let mut environment: Vec<(&'static str, OsString)> = vec![
            ("PATH", path),
            ("COUNTERFOIL_SOURCE__BASE_URL", url),
            ("KUSTOMER_API_KEY", key),
            ("COUNTERFOIL_EXTRACT__INDEX_LAG", "0s".into()),
            ("HOME", home.clone().into()),
            ("TMPDIR", root.join("tmp").into()),
            ("LANG", "C.UTF-8".into()),
            ("TZ", "UTC".into()),
        ];
        for (name, inside) in [
            ("XDG_STATE_HOME", ".local/state"),
            ("XDG_CONFIG_HOME", ".config"),
            ("XDG_CACHE_HOME", ".cache"),
            ("XDG_DATA_HOME", ".local/share"),
        ] {
            environment.push((name, home.join(inside).into()));
        }
        let kept = ["JAVA_HOME", "COUNTERFOIL_INTEROP_PYTHON"];
        environment.extend(kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        Self { folder, sandbox, environment, ids: Vec::new() }
    }

    /// The folder that the chapter's files are in.
    fn desk(&self) -> PathBuf {
        self.folder.path().join("desk")
    }

    /// Replaces the example ids, as far as they are known.
    fn filled(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (example, id)| text.replace(example, id))
    }

    /// Runs or writes one block and returns what it printed; nothing where it was skipped.
    fn run(&mut self, at: &str, block: &Block) -> Option<String> {
        if self.ids.is_empty() && [TICKET, CUSTOMER].iter().any(|example| block.text.contains(example)) {
            let ids = "counterfoil query -q --format csv -e 'SELECT ticket_id, customer_id FROM tickets WHERE message_count > 1 \
                       AND customer_id IS NOT NULL ORDER BY created_at, ticket_id LIMIT 1'";
            let (code, printed) = self.shell(at, ids);
            let row = printed.lines().nth(1).and_then(|row| row.split_once(','));
            let (ticket, customer) =
                row.unwrap_or_else(|| panic!("{at}: the lake gives no id for the example: {code}\n{printed}"));
            self.ids = vec![(TICKET, ticket.to_owned()), (CUSTOMER, customer.to_owned())];
        }
        let text = self.filled(&block.text);
        for program in &block.needs {
            if self.shell(at, &format!("command -v {program}")).0 != 0 {
                return skipped(at, &format!("{program} does not run"));
            }
        }
        let (code, printed) = match &block.task {
            Task::Write { path, append, equal_to } => {
                if let Some(origin) = equal_to {
                    let origin_text = fs::read_to_string(repository().join(origin)).unwrap();
                    assert_eq!(text, origin_text, "{at}: the block is not what {origin} holds");
                }
                let path = self.desk().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let mut file = if *append {
                    File::options().append(true).open(&path).unwrap_or_else(|error| panic!("{at}: {error}"))
                } else {
                    File::create(&path).unwrap()
                };
                file.write_all(text.as_bytes()).unwrap();
                return Some(String::new());
            }
            Task::Query => {
                fs::write(self.folder.path().join("tmp/block.sql"), &text).unwrap();
                if let Some(rows) = block.rows {
                    let (code, printed) = self.shell(at, "counterfoil query -q \"$TMPDIR/block.sql\" --format ndjson");
                    assert_eq!((code, printed.lines().count()), (0, rows), "{at}: rows; printed was\n\n{printed}");
                }
                self.shell(at, "counterfoil query \"$TMPDIR/block.sql\"")
            }
            Task::Python => {
                if std::env::var_os("COUNTERFOIL_INTEROP_PYTHON").is_none() {
                    return skipped(at, "COUNTERFOIL_INTEROP_PYTHON names no Python");
                }
                fs::write(self.folder.path().join("tmp/block.py"), &text).unwrap();
                self.shell(at, "python \"$TMPDIR/block.py\"")
            }
            _ => self.shell(at, &text),
        };
        assert_eq!(code, block.exit, "{at}: exit code of\n\n{text}\nand printed was\n\n{printed}");
        Some(printed)
    }

    /// Runs lines in a shell that begins where the last one ended; returns its exit code and all that it printed.
    #[expect(clippy::disallowed_methods, reason = "the machine's time bounds a program that is told nothing of ours")]
    fn shell(&self, at: &str, text: &str) -> (i32, String) {
        let tmp = self.folder.path().join("tmp");
        let state = tmp.join("state.sh");
        if !state.exists() {
            fs::write(&state, format!("cd '{}'\n", self.desk().display())).unwrap();
        }
        let mut script = format!(". '{}'\n", state.display());
        writeln!(script, "trap '{{ export -p; printf \"cd %q\\n\" \"$PWD\"; }} > \"{}\"' EXIT", state.display())
            .unwrap();
        script.push_str(text);
        let (script_file, out_file) = (tmp.join("block.sh"), tmp.join("printed"));
        fs::write(&script_file, script).unwrap();
        let _ = fs::remove_file(&out_file);
        let out = File::options().create(true).append(true).open(&out_file).unwrap();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail"]).arg(&script_file).current_dir(self.desk());
        command.env_clear().envs(self.environment.iter().cloned()).process_group(0);
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > LIMIT {
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.wait();
                let printed = fs::read_to_string(&out_file).unwrap_or_default();
                panic!("{at}: took longer than {LIMIT:?}; printed was\n\n{printed}");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let printed = String::from_utf8_lossy(&fs::read(&out_file).unwrap()).into_owned();
        (status.code().unwrap_or(-1), printed)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.sandbox.kill();
        let _ = self.sandbox.wait();
    }
}

/// Says that a block was skipped, and fails in CI.
fn skipped(at: &str, reason: &str) -> Option<String> {
    assert!(std::env::var_os("CI").is_none(), "{at}: CI must run every block: {reason}");
    say(&format!("skipped: {at}: {reason}"));
    None
}

fn write_program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
