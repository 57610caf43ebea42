//! Certificates that are renewed while podlog runs, and those that carry them on: the kubelet's client and the kubeconfig.
//! Servers and the API server's client towards kubelets take up new files by themselves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::Kubeconfig;
use podlog_serving::pki::KeyPairFiles;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::pki::Pki;
use super::{DataDir, write_kubeconfig};
use crate::node_client::SwappedClient;

/// How often certificates are looked at. They are renewed when less than a third of their life is left.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The kubelet's connection to the API server, as `system:node:<name>`.
#[derive(Clone)]
pub(super) struct NodeConnection {
    api_server: SocketAddr,
    ca: PathBuf,
    files: KeyPairFiles,
    client: SwappedClient,
}

impl NodeConnection {
    pub(super) async fn load(api_server: SocketAddr, pki: &Pki) -> anyhow::Result<Self> {
        let (ca, files) = (pki.ca(), pki.kubelet_client.clone());
        let client = SwappedClient::new(connect(api_server, &ca, &files).await?);
        Ok(NodeConnection { api_server, ca, files, client })
    }

    /// Where the API server is.
    pub(super) fn api_server(&self) -> SocketAddr {
        self.api_server
    }

    /// A client that always shows the certificate loaded last.
    pub(super) fn client(&self) -> kube::Client {
        self.client.client()
    }

    async fn reload(&self) -> anyhow::Result<()> {
        self.client.replace(connect(self.api_server, &self.ca, &self.files).await?);
        Ok(())
    }
}

async fn connect(
    api_server: SocketAddr,
    ca: &std::path::Path,
    files: &KeyPairFiles,
) -> anyhow::Result<kube::Client> {
    let kubeconfig: Kubeconfig = serde_json::from_value(json!({
        "clusters": [{"name": "podlog", "cluster": {
            "server": format!("https://{api_server}"),
            "certificate-authority": ca,
        }}],
        "users": [{"name": "kubelet", "user": {
            "client-certificate": files.certificate,
            "client-key": files.key,
        }}],
        "contexts": [{"name": "podlog", "context": {"cluster": "podlog", "user": "kubelet"}}],
        "current-context": "podlog",
    }))?;
    Ok(crate::node_client::connect(kubeconfig).await?.0)
}

/// Renews what is due, until `stop`. A failure is reported, and tried again an hour later.
pub(super) async fn keep_fresh(pki: Pki, node: NodeConnection, data_dir: DataDir, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = renew(&pki, &node, &data_dir).await {
            tracing::error!(error = format!("{error:#}"), "cannot renew certificates");
        }
    }
}

async fn renew(pki: &Pki, node: &NodeConnection, data_dir: &DataDir) -> anyhow::Result<()> {
    if pki.renew()? {
        node.reload().await?;
        write_kubeconfig(data_dir, node.api_server, pki)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_certificate_that_was_replaced_is_carried_on() {
        podlog_serving::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::resolve(Some(folder.path().join("data"))).unwrap();
        data_dir.create().unwrap();
        let pki = Pki::prepare(&data_dir.pki(), "node-a").unwrap();
        let address = "127.0.0.1:6443".parse().unwrap();
        let node = NodeConnection::load(address, &pki).await.unwrap();
        let first = node.client.current();

        renew(&pki, &node, &data_dir).await.unwrap();
        assert!(Arc::ptr_eq(&first, &node.client.current()), "nothing was due");
        assert!(!data_dir.kubeconfig().exists());

        std::fs::remove_file(&pki.admin.certificate).unwrap();
        renew(&pki, &node, &data_dir).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &node.client.current()));
        let written = std::fs::read_to_string(data_dir.kubeconfig()).unwrap();
        assert!(written.contains("https://127.0.0.1:6443"));
    }
}
