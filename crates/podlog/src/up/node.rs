//! This machine as a node: its name, its client of the API server, and whether it is ready.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use podlog_api::resource;
use podlog_apiserver::Registry;
use serde_json::json;

use super::pki::Pki;

/// How long `podlog up` waits for its node before it says that it is ready all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// The name given, or the host name in lower case: names of nodes are DNS names.
pub(super) fn name(given: Option<String>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name);
    }
    let host = rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase();
    anyhow::ensure!(!host.is_empty(), "this machine has no host name; name the node with --node-name");
    Ok(host)
}

/// A client of the API server as `system:node:<name>`.
pub(super) async fn client(api_server: SocketAddr, pki: &Pki) -> anyhow::Result<kube::Client> {
    let kubeconfig: Kubeconfig = serde_json::from_value(json!({
        "clusters": [{"name": "podlog", "cluster": {
            "server": format!("https://{api_server}"),
            "certificate-authority": pki.ca(),
        }}],
        "users": [{"name": "kubelet", "user": {
            "client-certificate": pki.kubelet_client.certificate,
            "client-key": pki.kubelet_client.key,
        }}],
        "contexts": [{"name": "podlog", "context": {"cluster": "podlog", "user": "kubelet"}}],
        "current-context": "podlog",
    }))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("cannot read the kubelet's certificate")?;
    // Watches are long and silent, and the kubelet has its own deadlines and tries again by itself.
    config.read_timeout = None;
    config.default_retry = false;
    kube::Client::try_from(config).context("cannot make the kubelet's client")
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
