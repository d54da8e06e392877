//! The command line: arguments and wiring, one file per subcommand.
//!
//! Standard output carries data only; everything that is said goes to standard error. Exit codes are an interface:
//! [`ErrorKind::exit_code`](crate::error::ErrorKind::exit_code), and 130 after Ctrl-C.

mod above;
mod attachment;
mod check;
mod completions;
mod core_dumps;
mod demo;
mod doctor;
mod extract;
mod init;
mod keys;
mod lake;
mod lists;
mod man;
mod metrics;
mod plan;
mod policy;
mod progress;
mod query;
mod resolve;
mod sandbox;
mod watch;

use std::error::Error as StdError;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};
use jiff::Timestamp;

use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::telemetry::{self, LogFormat};

use self::watch::Watch;

/// Whether what is said goes out as JSON events; one process has one standard error.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Exit code after Ctrl-C and after SIGTERM: 128 and the number of the first, as shells have it.
const INTERRUPTED: u8 = 130;

/// Keeps the counterfoil of every support ticket: metadata from Kustomer, redacted, in encrypted Parquet, answered by SQL files.
#[derive(Debug, Parser)]
#[command(name = "counterfoil", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Settings file
    #[arg(long, global = true, value_name = "FILE", default_value = "counterfoil.toml", env = "COUNTERFOIL_CONFIG")]
    config: PathBuf,
    /// Form of diagnostics on standard error: text or json
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// Say more (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 internal; 2 usage, settings or policy; 3 source or store unavailable, try later; \
4 denied; 5 data damaged; 6 SQL; 7 incomplete; 8 data older than the query allows; 9 another run, or a conflict; 130 interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole pipeline on an embedded sandbox
    Demo(demo::Arguments),
    /// Write first settings, schemas, queries, a root key and a lake
    Init(init::Arguments),
    /// Look at everything that a run needs, and say how to mend what is wrong
    Doctor(doctor::Arguments),
    /// Price a run before it: requests per endpoint, minutes at our share of the rate limits
    Plan(plan::Arguments),
    /// Fetch what changed, redact it, commit it to the lake
    Extract(extract::Arguments),
    /// Run an SQL file of the library
    Query(query::Arguments),
    /// Plan every SQL file against the current schema
    Check(check::Arguments),
    /// Look at recorded ticket lists: what is in them, how they differ, why a ticket is in them
    Lists(lists::Arguments),
    /// Expand ticket IDs into live details, a JSON line a ticket or a thread to read; nothing of them is stored
    Resolve(resolve::Arguments),
    /// Stream one attachment of a ticket to standard output; it is stored nowhere
    Attachment(attachment::Arguments),
    /// Check and explain what is stored of each field, find declarations and pseudonyms
    Policy(policy::Arguments),
    /// Look at the lake
    Lake(lake::Arguments),
    /// Look at the key ring, rotate, wrap anew, destroy and export its keys
    Keys(keys::Arguments),
    /// Serve a Kustomer-compatible API with a synthetic organisation, on loopback
    Sandbox(sandbox::Arguments),
    /// Print what makes a shell complete commands and options
    Completions(completions::Arguments),
    /// Print a manual page, or write all of them to a folder
    Man(man::Arguments),
}

/// What every command is given.
#[derive(Debug)]
struct Context {
    config: PathBuf,
    clock: SharedClock,
    quiet: bool,
    watch: Arc<Watch>,
}

impl Context {
    /// Reads the settings.
    fn settings(&self) -> Result<Config> {
        let base = match self.config.parent() {
            Some(folder) if folder != Path::new("") => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        Settings::load(&self.config)?.compose(base)
    }

    /// Opens the lake of the settings.
    async fn lake(&self, config: &Config) -> Result<Lake> {
        let root = config.root()?;
        let lake = Lake::open(&config.lake, &root, Arc::clone(&self.clock)).await?;
        match config.restricted()? {
            Some(root) => lake.with_restricted(&root).await,
            None => Ok(lake),
        }
    }
}

/// Threads for what blocks: reading and writing the store, encoding files.
const BLOCKING_THREADS: usize = 4;

/// An extract decodes on one thread and encodes on another: more than any rate limit lets come. The C library keeps memory for
/// each thread that ever worked on a page or a file, so further threads would cost some ten megabytes each and gain nothing.
const EXTRACT_THREADS: usize = 1;

/// Runs one command to its exit code.
pub fn main(cli: &Cli) -> ExitCode {
    let log_format = match cli.log_format.parse() {
        Ok(format) => format,
        Err(error) => return fail(&error, LogFormat::Text),
    };
    let verbosity = if cli.quiet { -1 } else { i8::try_from(cli.verbose).unwrap_or(i8::MAX) };
    telemetry::start(log_format, verbosity);
    IS_JSON.store(log_format == LogFormat::Json, Ordering::Relaxed);
    core_dumps::forbid();
    // The payload of a panic may quote a value; the place is what a report needs.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        say(&format!("defect of this program at {place}; please report it"));
    }));
    let context =
        Context { config: cli.config.clone(), clock: Arc::new(SystemClock), quiet: cli.quiet, watch: Arc::default() };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().max_blocking_threads(BLOCKING_THREADS);
    if matches!(cli.command, Command::Extract(_)) {
        runtime.worker_threads(EXTRACT_THREADS).max_blocking_threads(EXTRACT_THREADS);
    }
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(source) => {
            return fail(&Error::internal("failed to start the runtime").with_source(source), log_format);
        }
    };
    if cli.command.is_watched() {
        context.watch.start(log_format);
    }
    let command = async {
        tokio::select! {
            outcome = cli.command.run(&context) => outcome,
            () = interruption(), if !cli.command.ends_itself() => Ok(Ended::Interrupted),
        }
    };
    // The hook has said where; a defect ends like other errors, with its exit code.
    let Ok(outcome) = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(command))) else {
        return ExitCode::from(ErrorKind::Internal.exit_code());
    };
    // Reads of standard input cannot be cancelled; the process does not wait for them.
    runtime.shutdown_background();
    match outcome {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => {
            say(match cli.command {
                Command::Extract(_) => "interrupted; what was committed stays, the rest is done by the next run",
                _ => "interrupted",
            });
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => fail(&error, log_format),
    }
}

/// How a command ended, when not by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    Interrupted,
}

/// Waits for Ctrl-C, or for the signal that schedulers send to end a job.
async fn interruption() {
    #[cfg(unix)]
    if let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        return;
    }
    drop(tokio::signal::ctrl_c().await);
}

impl Command {
    /// Tells whether the command takes care of interruptions; the others are dropped where they stand.
    const fn ends_itself(&self) -> bool {
        matches!(self, Self::Extract(_) | Self::Resolve(_) | Self::Attachment(_) | Self::Sandbox(_))
    }

    /// Tells whether the process ends after an interruption even where the command does not.
    const fn is_watched(&self) -> bool {
        !matches!(self, Self::Extract(_) | Self::Sandbox(_))
    }

    async fn run(&self, context: &Context) -> Result<Ended> {
        match self {
            Self::Extract(arguments) => return extract::run(context, arguments).await,
            Self::Resolve(arguments) => return resolve::run(context, arguments).await,
            Self::Attachment(arguments) => return attachment::run(context, arguments).await,
            Self::Demo(arguments) => demo::run(context, arguments).await,
            Self::Init(arguments) => init::run(context, arguments).await,
            Self::Doctor(arguments) => doctor::run(context, arguments).await,
            Self::Plan(arguments) => plan::run(context, arguments).await,
            Self::Query(arguments) => query::run(context, arguments).await,
            Self::Check(arguments) => check::run(context, arguments).await,
            Self::Lists(arguments) => lists::run(context, arguments).await,
            Self::Policy(arguments) => policy::run(context, arguments).await,
            Self::Lake(arguments) => lake::run(context, arguments).await,
            Self::Keys(arguments) => keys::run(context, arguments).await,
            Self::Sandbox(arguments) => sandbox::run(context, arguments).await,
            Self::Completions(arguments) => completions::run(arguments),
            Self::Man(arguments) => man::run(arguments),
        }?;
        Ok(Ended::Done)
    }
}

/// Prints an error with its causes, once, and returns its exit code.
fn fail(error: &Error, format: LogFormat) -> ExitCode {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if causes.last().is_none_or(|last: &String| !last.contains(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    match format {
        LogFormat::Text => {
            say(&format!("error: {error}"));
            for cause in &causes {
                say(&format!("  caused by: {cause}"));
            }
            if let Some(hint) = error.hint() {
                say(&format!("hint: {hint}"));
            }
        }
        LogFormat::Json => say_json(&serde_json::json!({
            "level": "ERROR",
            "kind": error.kind().name(),
            "exit_code": error.kind().exit_code(),
            "message": error.to_string(),
            "causes": causes,
            "hint": error.hint(),
        })),
    }
    ExitCode::from(error.kind().exit_code())
}

/// Writes one line for people to standard error, or one event where diagnostics are JSON; a reader that is gone is no error.
fn say(line: &str) {
    if IS_JSON.load(Ordering::Relaxed) {
        say_json(&serde_json::json!({ "level": "INFO", "message": line }));
    } else {
        drop(writeln!(std::io::stderr().lock(), "{line}"));
    }
}

fn say_json(event: &serde_json::Value) {
    drop(writeln!(std::io::stderr().lock(), "{event}"));
}

/// Writes a command's answer to standard output; a reader that is gone has seen what it wanted.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::unavailable("failed to write to standard output").with_source(error))
        }
        _ => Ok(()),
    }
}

/// Reads a time, or a day, which begins at midnight UTC.
fn moment(text: &str) -> std::result::Result<Timestamp, String> {
    text.parse::<Timestamp>()
        .or_else(|_| format!("{text}T00:00:00Z").parse())
        .map_err(|_| "not a time; write 2026-11-01 or 2026-11-01T08:30:00Z".to_owned())
}

/// Writes a number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (20_000, "20,000"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }
}
