//! The certificates of a `podlog up`: one CA, and who gets what from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use podlog_api::bootstrap_roles::KUBELET_CLIENT;
use podlog_apiserver::controllers::CertificateSigning;
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles, PkiError, Signer};

/// All certificates of one data directory, issued and fresh.
pub(super) struct Pki {
    authority: CertificateAuthority,
    /// What the API server shows to its clients.
    pub(super) apiserver: KeyPairFiles,
    /// What the API server shows to kubelets.
    pub(super) apiserver_kubelet_client: KeyPairFiles,
    /// What the kubelet shows to its clients.
    pub(super) kubelet: KeyPairFiles,
    /// What the kubelet shows to the API server.
    pub(super) kubelet_client: KeyPairFiles,
    /// What the administrator's kubeconfig carries.
    pub(super) admin: KeyPairFiles,
    /// What signs service account tokens.
    pub(super) service_account: KeyPairFiles,
    leaves: Vec<(KeyPairFiles, CertificateRequest)>,
    signing_files: KeyPairFiles,
}

impl Pki {
    /// Makes or renews what `folder` lacks.
    ///
    /// # Errors
    /// When the files cannot be read or written, or are not what they should be.
    pub(super) fn prepare(folder: &Path, node_name: &str) -> Result<Self, PkiError> {
        let authority = CertificateAuthority::load_or_create(folder, "ca", "podlog-ca")?;
        let files = |name: &str| KeyPairFiles::in_folder(folder, name);
        let service_account = KeyPairFiles { certificate: folder.join("sa.pub"), key: folder.join("sa.key") };
        podlog_serving::pki::load_or_create_signing_key(&service_account.key, &service_account.certificate)?;
        let pki = Pki {
            apiserver: files("apiserver"),
            apiserver_kubelet_client: files("apiserver-kubelet-client"),
            kubelet: files("kubelet"),
            kubelet_client: files("kubelet-client"),
            admin: files("admin"),
            service_account,
            leaves: requests(node_name).into_iter().map(|(name, request)| (files(name), request)).collect(),
            signing_files: files("ca"),
            authority,
        };
        pki.renew()?;
        Ok(pki)
    }

    /// The CA bundle.
    pub(super) fn ca(&self) -> PathBuf {
        self.authority.certificate_path().to_owned()
    }

    /// How requests for certificates are signed.
    ///
    /// # Errors
    /// When the authority's files cannot be read.
    pub(super) fn signing(&self) -> Result<CertificateSigning, PkiError> {
        let signer = Arc::new(Signer::load(self.signing_files.clone())?);
        Ok(CertificateSigning { signer, duration: CertificateSigning::DEFAULT_DURATION })
    }

    /// Issues what is missing or due, and says whether anything was.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub(super) fn renew(&self) -> Result<bool, PkiError> {
        let mut is_renewed = false;
        for (files, request) in &self.leaves {
            is_renewed |= self.authority.ensure(files, request)?;
        }
        Ok(is_renewed)
    }
}

/// Who gets which certificate.
fn requests(node_name: &str) -> [(&'static str, CertificateRequest); 5] {
    let kubernetes = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"];
    [
        ("apiserver", CertificateRequest::serving("kube-apiserver", kubernetes)),
        ("apiserver-kubelet-client", CertificateRequest::client(KUBELET_CLIENT, None)),
        ("kubelet", CertificateRequest::serving(node_user(node_name), [node_name, "localhost", "127.0.0.1"])),
        ("kubelet-client", CertificateRequest::client(node_user(node_name), Some("system:nodes"))),
        ("admin", CertificateRequest::client("podlog-admin", Some("system:masters"))),
    ]
}

fn node_user(node_name: &str) -> String {
    format!("system:node:{node_name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_private_and_stay_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let read = || {
            let mut keys: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "key"))
                .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
                .collect();
            keys.sort();
            keys
        };
        Pki::prepare(folder.path(), "node-a").unwrap();
        let first = read();
        assert_eq!(first.len(), 7, "{first:?}");
        for (path, _) in &first {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        Pki::prepare(folder.path(), "node-a").unwrap();
        assert_eq!(read(), first);
        Pki::prepare(folder.path(), "node-b").unwrap();
        assert_ne!(read(), first, "the kubelet's certificates name another node");
    }
}
