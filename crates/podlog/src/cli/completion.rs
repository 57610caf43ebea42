//! `podlog completion`: shell completions.

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
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(Exit::Success)
}
