//! `podlog apiserver`: an API server alone, with the controllers.

use std::io::Write;
use std::time::Instant;

use anyhow::Context as _;
use podlog_apiserver::ApiServer;
use podlog_apiserver::controllers::{self, ControllerConfig};
use tokio_util::sync::CancellationToken;

use crate::cli::apiserver::ApiServerArgs;
use crate::exit::Exit;
use crate::memory;
use crate::up::{allow_many_files, stop_signal};

/// Runs until Ctrl-C or SIGTERM.
pub(crate) fn run(args: &ApiServerArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    allow_many_files();
    memory::keep_small();
    podlog_serving::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(args, started));
    // Blocking work of a cancelled request must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: &ApiServerArgs, started: Instant) -> anyhow::Result<Exit> {
    let stop = stop_signal()?;
    let root_ca_pem = std::fs::read_to_string(args.root_ca())
        .with_context(|| format!("cannot read {}", args.root_ca().display()))?;
    let server = ApiServer::start(args.config()?).await.context("cannot start the API server")?;
    let end = CancellationToken::new();
    let config =
        ControllerConfig { root_ca_pem, authorizer: Some(server.authorizer()), signing: args.signing()? };
    let controllers =
        tokio::spawn(controllers::run_elected(server.registry().clone(), config, identity(), end.clone()));
    announce(&server, started)?;
    stop.cancelled().await;
    end.cancel();
    if let Err(error) = controllers.await {
        tracing::error!(%error, "the controllers failed");
    }
    let drained = server.shutdown().await.context("the API server failed")?;
    if drained.cut > 0 {
        tracing::info!(requests = drained.cut, "requests were cut");
    }
    Ok(Exit::Success)
}

/// Who we are among the servers: upstream's form, the host's name and something that no other process has.
fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}_{}", uuid::Uuid::new_v4())
}

/// The ready line: the command's output.
fn announce(server: &ApiServer, started: Instant) -> std::io::Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "podlog apiserver is ready after {seconds:.1} s: https://{}", server.local_addr())?;
    stdout.flush()
}
