//! `podlog completion`: shell completions.

use std::io::Write;

use clap_complete::Shell;

use crate::exit::Exit;

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  podlog completion bash > /etc/bash_completion.d/podlog")]
pub(super) struct CompletionArgs {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs, command: &mut clap::Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "podlog", &mut script);
    let mut stdout = std::io::stdout();
    stdout.write_all(&script)?;
    stdout.flush()?;
    Ok(Exit::Success)
}
