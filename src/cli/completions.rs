//! `counterfoil completions`: completion scripts for shells, made from the command definitions.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, print};
use crate::error::{Error, Result};

#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub(super) struct Arguments {
    /// The shell that completes
    shell: Shell,
}

const PLACES: &str = "Where it goes, for the user who runs this:\n  \
bash: counterfoil completions bash > ~/.local/share/bash-completion/completions/counterfoil\n  \
zsh:  counterfoil completions zsh > DIR/_counterfoil, where DIR is in $fpath\n  \
fish: counterfoil completions fish > ~/.config/fish/completions/counterfoil.fish\n\
The next shell reads it.";

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "counterfoil", &mut script);
    let script = String::from_utf8(script)
        .map_err(|source| Error::internal("the completion script is not UTF-8").with_source(source))?;
    print(&script)
}
