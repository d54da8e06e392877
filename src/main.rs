//! The binary: runs the command line, prints the chain of causes once, returns the exit code.

use std::process::ExitCode;

use clap::Parser;
use counterfoil::cli::{self, Cli};

fn main() -> ExitCode {
    cli::main(&Cli::parse())
}
