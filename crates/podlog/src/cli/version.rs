//! `podlog version`.

use std::io::Write;

use crate::exit::Exit;

/// Kubernetes release whose behaviour the API server, the kubelet and the client have.
pub(crate) const KUBERNETES: &str = "1.36";

/// Print the version of podlog, and the Kubernetes release that it behaves like.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  podlog version --output json")]
pub(super) struct VersionArgs {
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) fn run(args: &VersionArgs) -> anyhow::Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let mut stdout = std::io::stdout();
    match args.output {
        Output::Text => writeln!(stdout, "podlog {version} (Kubernetes {KUBERNETES})")?,
        Output::Json => {
            writeln!(stdout, "{}", serde_json::json!({"version": version, "kubernetes": KUBERNETES}))?;
        }
    }
    Ok(Exit::Success)
}
