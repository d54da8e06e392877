//! The binary: runs the command line, prints the chain of causes once, returns the exit code.

use std::process::ExitCode;

use clap::Parser;
use counterfoil::cli::{self, Cli};
use mimalloc::MiMalloc;

/// Queries allocate and free columns by the thousand, on several threads. Without huge pages: they cost a third more memory,
/// and clearing them took up to half of a short query.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main(&Cli::parse())
}
