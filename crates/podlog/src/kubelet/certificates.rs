//! The kubelet's certificates: for the API server, and for its own clients.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use kube::config::Kubeconfig;
use podlog_kubelet::certificates::{CertificateStore, Wanted};
use podlog_kubelet::config::KubeletConfiguration;
use podlog_serving::ServerTls;
use podlog_serving::pki::{CertificateRequest, KeyPairFiles, ensure_self_signed, write_atomically};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::node_client::connect;

/// Gets a first certificate with the credentials of `bootstrap`, and writes `kubeconfig` to go with it. Does nothing when
/// both are there already.
pub(super) async fn bootstrap(
    bootstrap: &Path,
    kubeconfig: &Path,
    store: &CertificateStore,
    node: &str,
) -> anyhow::Result<()> {
    if kubeconfig.exists() && store.is_valid() {
        return Ok(());
    }
    let read = Kubeconfig::read_from(bootstrap);
    let config =
        read.with_context(|| format!("cannot read --bootstrap-kubeconfig {}", bootstrap.display()))?;
    let (client, _) = connect(config.clone()).await?;
    let (certificate, key) = Wanted::client(node).obtain(&client).await?;
    store.put(&certificate, &key)?;
    let text = json!(of_store(config, store)).to_string() + "\n";
    write_atomically(kubeconfig, text.as_bytes(), 0o600)?;
    Ok(())
}

/// The kubeconfig with the store's certificate in place of other credentials.
fn of_store(config: Kubeconfig, store: &CertificateStore) -> serde_json::Value {
    let current = config.current_context.as_deref();
    let context = config.contexts.iter().find(|context| Some(context.name.as_str()) == current);
    let cluster = context.and_then(|context| Some(&context.context.as_ref()?.cluster));
    let cluster =
        config.clusters.iter().find(|named| Some(&named.name) == cluster).or(config.clusters.first());
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster.map(|named| &named.cluster)}],
        "users": [{"name": "default-auth", "user": {
            "client-certificate": store.current(),
            "client-key": store.current(),
        }}],
        "contexts": [{"name": "default-context", "context": {
            "cluster": "default-cluster", "user": "default-auth", "namespace": "default",
        }}],
        "current-context": "default-context",
    })
}

/// Whether the kubeconfig names the store's certificate: a new one would else be nobody's.
pub(super) fn is_used(kubeconfig: Option<&Path>, store: &CertificateStore) -> bool {
    let config = kubeconfig.and_then(|path| Kubeconfig::read_from(path).ok()).unwrap_or_default();
    let mut users = config.auth_infos.iter().filter_map(|user| user.auth_info.as_ref());
    users.any(|user| user.client_certificate.as_ref().is_some_and(|file| store.current() == Path::new(file)))
}

/// What the endpoint shows to its clients.
pub(super) struct Serving<'a> {
    pub(super) config: &'a KubeletConfiguration,
    pub(super) cert_dir: &'a Path,
    pub(super) node: &'a str,
    pub(super) ip: IpAddr,
}

impl Serving<'_> {
    /// The configured files, what the API server is asked for in a task of its own, or what we make ourselves.
    pub(super) fn start(
        &self,
        client: Option<&kube::Client>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> anyhow::Result<ServerTls> {
        let unusable = |file: &Path| format!("cannot use {} for the endpoint", file.display());
        let config = self.config;
        if let (Some(certificate), Some(key)) = (&config.tls_cert_file, &config.tls_private_key_file) {
            let files = KeyPairFiles { certificate: certificate.clone(), key: key.clone() };
            return ServerTls::load(files).with_context(|| unusable(certificate));
        }
        let names = vec![self.node.to_lowercase(), self.ip.to_string()];
        if let (true, Some(client)) = (config.server_tls_bootstrap, client) {
            let store = CertificateStore::serving(self.cert_dir);
            let tls =
                ServerTls::load_when_present(store.files()).with_context(|| unusable(&store.current()))?;
            tasks.spawn(store.keep(client.clone(), Wanted::serving(self.node, names), stop.clone()));
            return Ok(tls);
        }
        let files = KeyPairFiles::in_folder(self.cert_dir, "kubelet");
        ensure_self_signed(&files, &CertificateRequest::serving(self.node, names))
            .context("cannot make a certificate for the endpoint")?;
        ServerTls::load(files.clone()).with_context(|| unusable(&files.certificate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_fresh_for_those_who_show_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = CertificateStore::client(folder.path());
        let path = folder.path().join("kubelet.conf");
        let text = json!({"clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1"}}]});
        let config: Kubeconfig = serde_json::from_value(text).unwrap();
        std::fs::write(&path, of_store(config, &store).to_string()).unwrap();
        assert!(is_used(Some(&path), &store));
        let elsewhere = CertificateStore::client(&folder.path().join("other"));
        assert!(!is_used(Some(&path), &elsewhere));
        assert!(!is_used(Some(&folder.path().join("none")), &store));
        assert!(!is_used(None, &store));
    }
}
