//! A kubelet's client of the API server, which shows a new certificate when there is one.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A client that can be replaced while it is used.
#[derive(Clone)]
pub(crate) struct SwappedClient(Arc<ArcSwap<kube::Client>>);

impl SwappedClient {
    pub(crate) fn new(client: kube::Client) -> Self {
        SwappedClient(Arc::new(ArcSwap::from_pointee(client)))
    }

    /// A client that always is the one that was put in last.
    pub(crate) fn client(&self) -> kube::Client {
        let current = self.0.clone();
        let send = move |request| {
            let client = kube::Client::clone(&current.load());
            async move { client.send(request).await }
        };
        kube::Client::new(tower::service_fn(send), "default")
    }

    /// Requests from now on go through `client`.
    pub(crate) fn replace(&self, client: kube::Client) {
        self.0.store(Arc::new(client));
    }

    #[cfg(test)]
    pub(crate) fn current(&self) -> Arc<kube::Client> {
        self.0.load_full()
    }
}

/// A client with a kubelet's habits, and the URL of its server.
pub(crate) async fn connect(kubeconfig: Kubeconfig) -> anyhow::Result<(kube::Client, String)> {
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("cannot use the kubelet's kubeconfig")?;
    // Watches are long and silent, and the kubelet has its own deadlines and tries again by itself.
    config.read_timeout = None;
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    Ok((kube::Client::try_from(config).context("cannot make the kubelet's client")?, url))
}
