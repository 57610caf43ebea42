//! This machine as a node: its name, and whether it is ready.

use std::time::Duration;

use podlog_api::resource;
use podlog_apiserver::Registry;

/// How long `podlog up` waits for its node before it says that it is ready all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// The name given, or the host name in lower case: names of nodes are DNS names.
pub(crate) fn name(given: Option<String>, flag: &str) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name);
    }
    let host = rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase();
    anyhow::ensure!(!host.is_empty(), "this machine has no host name; name the node with {flag}");
    Ok(host)
}

/// Waits until the node says that it is ready. One that takes too long is said to be late, and is no reason to fail.
pub(super) async fn ready(registry: &Registry, name: &str) {
    let is_ready = || {
        let node = registry.get(resource::find("", "v1", "nodes")?, "", name).ok()?;
        let conditions = node.array("/status/conditions").iter();
        conditions.filter(|c| c["type"] == "Ready").find(|c| c["status"] == "True").map(|_| ())
    };
    let poll = async {
        while is_ready().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, poll).await.is_err() {
        tracing::warn!(node = name, "the node is not ready yet");
    }
}
