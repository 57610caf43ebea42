//! An API server to try kubectl against: prints the path of a kubeconfig and serves until Ctrl-C.

#[expect(clippy::unwrap_used, reason = "shared with the tests, which use all of it")]
#[path = "../tests/harness/mod.rs"]
mod harness;

use std::io::Write;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = harness::Cluster::start(podlog_api::Compatibility::Exact).await;
    writeln!(std::io::stdout(), "export KUBECONFIG={}", cluster.kubeconfig().display())?;
    tokio::signal::ctrl_c().await?;
    let drained = cluster.server.shutdown().await?;
    writeln!(std::io::stdout(), "stopped, {} requests cut", drained.cut)?;
    Ok(())
}
