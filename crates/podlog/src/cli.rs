//! The command line: every applet, its flags, and how it ends.

mod access;
pub(crate) mod apiserver;
mod audit;
mod completion;
mod cri;
mod down;
mod eviction;
pub(crate) mod kubelet;
mod logs;
pub(crate) mod up;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use podlog_client::apply::ApplyError;
use podlog_client::manifest::ManifestError;
use podlog_client::{ClientError, Colour};

use crate::exit::Exit;

/// The Kubernetes pod-log path, every hop of it: capture, log files, kubelet, API server, client.
#[derive(Debug, Parser)]
#[command(name = "podlog", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    /// How much podlog says about itself on stderr, as in RUST_LOG: `error`, `warn`, `info`, `debug`, or per module.
    #[arg(
        long,
        global = true,
        env = "PODLOG_LOG",
        default_value = "warn",
        value_name = "FILTER",
        help_heading = "Messages"
    )]
    log_level: String,
    #[command(subcommand)]
    applet: Applet,
}

#[derive(Debug, Subcommand)]
enum Applet {
    Up(up::UpArgs),
    Apiserver(Box<apiserver::ApiServerArgs>),
    Kubelet(Box<kubelet::KubeletArgs>),
    Cri(cri::CriArgs),
    Down(down::DownArgs),
    Logs(Box<logs::LogsArgs>),
    Capture(CaptureArgs),
    Completion(completion::CompletionArgs),
    Version(version::VersionArgs),
}

/// Run one container and write its output to its log file. The kubelet starts it; people rarely do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  podlog capture --dir /var/lib/podlog/run/<sandbox id>/<container id>")]
struct CaptureArgs {
    /// Directory of the container, with its config.json.
    #[arg(long, value_name = "DIR")]
    dir: std::path::PathBuf,
}

/// Parses the command line, runs the applet, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error).into(),
    };
    let log_level = match &cli.applet {
        Applet::Kubelet(args) => args.log_level().unwrap_or(&cli.log_level),
        _ => &cli.log_level,
    };
    if let Err(error) = start_messages(log_level) {
        anstream::eprintln!("error: --log-level {log_level:?}: {error}");
        return Exit::Usage.into();
    }
    let result = match cli.applet {
        Applet::Up(args) => up::run(args),
        Applet::Apiserver(args) => apiserver::run(*args),
        Applet::Kubelet(args) => kubelet::run(*args),
        Applet::Cri(args) => cri::run(args),
        Applet::Down(args) => down::run(&args),
        Applet::Logs(args) => logs::run(*args),
        Applet::Capture(args) => return podlog_capture::Invocation::start(args.dir).run(),
        Applet::Completion(args) => completion::run(&args, &mut Cli::command()),
        Applet::Version(args) => version::run(&args),
    };
    result.unwrap_or_else(|error| report(&error)).into()
}

/// Help and version are answers, not errors; clap knows which stream each belongs to.
fn refuse(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        return error.print().map_or_else(|error| report(&error.into()), |()| Exit::Success);
    }
    if std::env::args_os().nth(1).is_some_and(|applet| applet == "logs") {
        anstream::eprintln!("{}", logs::flag_error(error));
        return Exit::Failure;
    }
    // Nobody to tell when stderr is closed.
    let _ = error.print();
    Exit::Usage
}

/// Colours are for terminals, and for those who want them (`NO_COLOR`, `CLICOLOR_FORCE`, `TERM=dumb`).
pub(crate) fn colour() -> Colour {
    match anstream::AutoStream::choice(&std::io::stdout()) {
        anstream::ColorChoice::Never => Colour::Never,
        _ => Colour::Always,
    }
}

/// Prints a failure with its causes, one chain on one line.
fn report(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Success;
    }
    anstream::eprintln!("{}", message(error));
    match error.downcast_ref::<crate::up::DataDirError>() {
        Some(crate::up::DataDirError::Held { .. }) => Exit::AlreadyRunning,
        _ => Exit::Failure,
    }
}

/// Causes follow after colons. What the client says are whole texts already, as kubectl prints them.
fn message(error: &anyhow::Error) -> String {
    let is_whole = error.is::<ClientError>() || error.is::<ApplyError>() || error.is::<ManifestError>();
    if is_whole { error.to_string() } else { format!("error: {error:#}") }
}

/// Whether whoever read our output went away, which is no failure of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// What kube says of answers with a status of 500 and above; whoever asked says it, too.
const TWICE: &str = "kube_client::client::builder=off";

fn start_messages(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = tracing_subscriber::EnvFilter::builder().parse(format!("{TWICE},{filter}"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_applet_shows_an_example() {
        for applet in Cli::command().get_subcommands() {
            let help = applet.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("podlog "), "`podlog {} --help` has no example", applet.get_name());
        }
    }
}
