//! `podlog logs`: the arguments and flags of `kubectl logs`.

use std::io::IsTerminal;

use podlog_client::logs::{LogsOptions, Streams};
use podlog_client::{Colour, ConnectionOptions};

use crate::exit::Exit;

/// Print the logs of a container in a pod, or of the pods of a workload, from any cluster of your kubeconfig.
///
/// Arguments, flags, output and exit codes are those of `kubectl logs`, with one difference: a stream that breaks off
/// ends with an error, never as if it were complete.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "podlog logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER] [flags]\n       podlog logs -l LABELS [flags]",
    after_help = "Examples:\n  podlog logs my-pod -n prod -c web -f\n  podlog logs my-pod -n prod --since=10m --tail=500\n  podlog logs -l app=web --prefix --all-containers\n  podlog logs deploy/web --previous"
)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    options: LogsOptions,
    #[command(flatten)]
    connection: ConnectionOptions,
}

pub(super) fn run(mut args: LogsArgs) -> anyhow::Result<Exit> {
    args.options.colour = if std::io::stdout().is_terminal() { Colour::Always } else { Colour::Never };
    podlog_serving::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let connection = args.connection.connect().await?;
        podlog_client::logs::run(&connection, &args.options, Streams::standard()).await
    });
    match outcome {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.is_closed_output() => Ok(Exit::Success),
        Err(error) => {
            // The client's errors are whole texts, as kubectl prints them.
            anstream::eprintln!("{error}");
            Ok(Exit::Failure)
        }
    }
}
