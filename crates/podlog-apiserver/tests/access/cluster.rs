//! Kubeconfigs for other users of a cluster than its administrator.

use std::path::PathBuf;

use crate::harness::Cluster;

impl Cluster {
    /// `<name>.kubeconfig` for whoever `<name>.crt` and `<name>.key` name.
    pub(crate) fn kubeconfig_with(&self, name: &str) -> PathBuf {
        let folder = self.folder.path();
        let user =
            format!("client-certificate: {0}/{name}.crt\n    client-key: {0}/{name}.key", folder.display());
        self.kubeconfig_of(name, &user)
    }

    /// `<name>.kubeconfig` for whoever a token is for.
    pub(crate) fn kubeconfig_with_token(&self, name: &str, token: &str) -> PathBuf {
        self.kubeconfig_of(name, &format!("token: {token}"))
    }

    fn kubeconfig_of(&self, name: &str, user: &str) -> PathBuf {
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://{}\n    certificate-authority: {}\n\
             users:\n- name: u\n  user:\n    {user}\n\
             contexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n",
            self.server.local_addr(),
            self.authority.certificate_path().display(),
        );
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, text).unwrap();
        path
    }
}
