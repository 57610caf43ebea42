//! An API server of one's own: a temporary folder, a PKI, port 0, and a kubeconfig for its administrator.

use std::path::{Path, PathBuf};

use podlog_api::Compatibility;
use podlog_apiserver::{
    ApiServer, ApiServerConfig, AuthenticationConfig, AuthorizationConfig, RequestLimits, Storage,
};
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};

/// A running server and its files.
pub(crate) struct Cluster {
    /// Holds everything; removed in the end.
    pub(crate) folder: tempfile::TempDir,
    /// The server.
    pub(crate) server: ApiServer,
    /// Signs clients' certificates.
    pub(crate) authority: CertificateAuthority,
}

impl Cluster {
    /// Starts a server in a new folder.
    pub(crate) async fn start(compatibility: Compatibility) -> Cluster {
        Cluster::start_with(|config, _| config.compatibility = compatibility).await
    }

    /// Starts a server in a new folder, with other settings than the usual ones.
    pub(crate) async fn start_with(change: impl FnOnce(&mut ApiServerConfig, &Path)) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        podlog_serving::install_crypto_provider();
        let authority = CertificateAuthority::load_or_create(folder.path(), "ca", "test-ca").unwrap();
        let serving = issue(
            &authority,
            folder.path(),
            "apiserver",
            &CertificateRequest::serving("apiserver", ["localhost", "127.0.0.1"]),
        );
        let kubelet_client = issue(
            &authority,
            folder.path(),
            "kubelet-client",
            &CertificateRequest::client("kube-apiserver-kubelet-client", Some("system:masters")),
        );
        let mut config = config(folder.path(), serving, kubelet_client, authority.certificate_path());
        change(&mut config, folder.path());
        let server = ApiServer::start(config).await.unwrap();
        let cluster = Cluster { folder, server, authority };
        let written = cluster.write_kubeconfig("admin", "admin", Some("system:masters"));
        assert_eq!(written, cluster.kubeconfig());
        cluster
    }

    /// Path of the administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// Writes `<name>.kubeconfig` for a user.
    pub(crate) fn write_kubeconfig(&self, name: &str, user: &str, group: Option<&str>) -> PathBuf {
        let folder = self.folder.path();
        let pair = issue(&self.authority, folder, name, &CertificateRequest::client(user, group));
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://{}\n    certificate-authority: {}\n\
             users:\n- name: u\n  user:\n    client-certificate: {}\n    client-key: {}\n\
             contexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n",
            self.server.local_addr(),
            self.authority.certificate_path().display(),
            pair.certificate.display(),
            pair.key.display(),
        );
        let path = folder.join(format!("{name}.kubeconfig"));
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn issue(
    authority: &CertificateAuthority,
    folder: &Path,
    name: &str,
    request: &CertificateRequest,
) -> KeyPairFiles {
    let files = KeyPairFiles::in_folder(folder, name);
    authority.ensure(&files, request).unwrap();
    files
}

fn config(folder: &Path, serving: KeyPairFiles, kubelet_client: KeyPairFiles, ca: &Path) -> ApiServerConfig {
    ApiServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        storage: Storage::File(folder.join("store.redb")),
        serving,
        client_ca: ca.to_owned(),
        service_account_key: folder.join("sa.key"),
        service_account_public_key: folder.join("sa.pub"),
        service_account_issuer: ApiServerConfig::DEFAULT_ISSUER.into(),
        service_account_old_keys: Vec::new(),
        authentication: AuthenticationConfig::default(),
        authorization: AuthorizationConfig::default(),
        audit: None,
        limits: RequestLimits::default(),
        kubelet_client,
        kubelet_ca: Some(ca.to_owned()),
        kubelet_preferred_address_types: ApiServerConfig::default_address_types(),
        compatibility: Compatibility::default(),
    }
}
