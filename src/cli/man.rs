//! `counterfoil man`: manual pages, made from the command definitions.
//!
//! One page goes to standard output, that of the program or of the command that is named; with `--dir` all of them go to a
//! folder, a file each, named as the commands are: `counterfoil-lake-verify.1`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, print};
use crate::error::{Error, Result, did_you_mean};

#[derive(Debug, Args)]
#[command(after_help = "To read one: counterfoil man lake verify | man -l -\n\
To have them all: counterfoil man --dir ~/.local/share/man/man1, then man counterfoil-lake-verify")]
pub(super) struct Arguments {
    /// The command whose page is written, e.g. lake verify; without any, the program's
    #[arg(conflicts_with = "dir")]
    command: Vec<String>,
    /// Write all pages to this folder, which is made where it is missing
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let program = program();
    if let Some(dir) = &arguments.dir {
        fs::create_dir_all(dir).map_err(|error| unwritable(dir, error))?;
        return write_all(&program, dir);
    }
    let mut command = &program;
    for (depth, name) in arguments.command.iter().enumerate() {
        command = command.find_subcommand(name).ok_or_else(|| {
            let known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            let hint = if known.is_empty() {
                format!("`{}` has no commands of its own", arguments.command[..depth].join(" "))
            } else {
                did_you_mean(name, known)
            };
            Error::config("no such command").with_context("command", arguments.command.join(" ")).with_hint(hint)
        })?;
    }
    print(&page(command)?)
}

/// The command definitions with the full name of each, and without the `help` that every command has.
fn program() -> Command {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    program
}

fn write_all(command: &Command, dir: &Path) -> Result<()> {
    let path = dir.join(format!("{}.1", full_name(command)));
    fs::write(&path, page(command)?).map_err(|error| unwritable(&path, error))?;
    command.get_subcommands().filter(|it| !it.is_hide_set()).try_for_each(|it| write_all(it, dir))
}

fn page(command: &Command) -> Result<String> {
    let mut page = Vec::new();
    let name = full_name(command).to_owned();
    let man = Man::new(command.clone().display_name(name))
        .source(concat!("counterfoil ", env!("CARGO_PKG_VERSION")))
        .manual("Counterfoil");
    man.render(&mut page).map_err(internal)?;
    let page = String::from_utf8(page).map_err(internal)?;
    // What stands below a command's help: the program's exit codes, or notes.
    let heading = if command.get_name() == full_name(command) { ".SH \"EXIT STATUS\"" } else { ".SH NOTES" };
    Ok(page.replacen(".SH EXTRA", heading, 1))
}

/// The name with those of the commands above: `counterfoil-lake-verify`.
fn full_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn internal(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("failed to make a manual page").with_source(source)
}

fn unwritable(path: &Path, source: std::io::Error) -> Error {
    Error::unavailable("failed to write manual pages").with_context("path", path.display()).with_source(source)
}
