//! The bar of an extract on a terminal, and the lines of events above it.

#![cfg(test)]

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use counterfoil::sandbox::{Fault, SandboxSettings};

use crate::commands::{Bench, text};

/// Runs the arguments with standard error on a terminal of 80 columns, and prints all that the terminal got.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, subprocess, sys, termios
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave)
os.close(slave)
while True:
    try:
        piece = os.read(master, 4096)
    except OSError:
        break
    if not piece:
        break
    sys.stdout.buffer.write(piece)
sys.exit(child.wait())
"#;

/// Columns of that terminal.
const COLUMNS: usize = 80;

/// What is written from each start of a line to the next, without the terminal's commands.
fn lines(drawn: &str) -> Vec<String> {
    let plain = |line: &str| {
        let mut parts = line.split('\x1b');
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            // A command ends with its first letter.
            plain.push_str(part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest));
        }
        plain
    };
    drawn.split(['\r', '\n']).map(plain).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_stands_on_a_line_of_its_own_above_the_bar() {
    if !Command::new("python3").args(["-c", "import pty"]).output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must have python3");
        std::io::stderr().write_all(b"skipped: there is no python3 for a terminal\n").unwrap();
        return;
    }
    let slow = SandboxSettings { tickets: 3_000, latency: Duration::from_millis(150), ..SandboxSettings::default() };
    let bench = Bench::with(slow).await;
    for request in [14, 17] {
        bench.sandbox.fail_request(request, Fault::Status(503));
    }
    let extract = bench.command(&["extract"]);
    let mut terminal = Command::new("python3");
    terminal.args(["-c", ON_A_TERMINAL]).arg(env!("CARGO_BIN_EXE_counterfoil")).arg("extract");
    terminal.envs(extract.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(bench.path());
    let output = terminal.output().unwrap();
    let drawn = text(&output.stdout);
    assert!(output.status.success(), "{drawn:?}{}", text(&output.stderr));
    assert!(drawn.contains(" requests"), "the bar is drawn: {drawn:?}");
    let events: Vec<String> = lines(&drawn).into_iter().filter(|line| line.contains("INFO")).collect();
    assert_eq!(events.len(), 2, "{drawn:?}");
    for event in events {
        assert!(event.trim_start().starts_with("INFO asking again after a wait"), "{event:?} in {drawn:?}");
        // The bar comes on the next line: the event is filled up to the end of its last one.
        let spinner = event.chars().position(|c| ('\u{2800}'..='\u{28ff}').contains(&c));
        assert_eq!(spinner.unwrap_or_default() % COLUMNS, 0, "{event:?} in {drawn:?}");
    }
}
