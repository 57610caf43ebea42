//! The kubeconfig that `podlog up` leaves for its administrator.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Credentials in PEM.
pub(crate) struct Credentials {
    /// CA that signed the API server's certificate.
    pub(crate) ca: Vec<u8>,
    /// Client certificate.
    pub(crate) certificate: Vec<u8>,
    /// Its private key.
    pub(crate) key: Vec<u8>,
}

/// A kubeconfig with one cluster, user and context named `podlog`. JSON is YAML, and every client reads it.
pub(crate) fn kubeconfig(server: SocketAddr, credentials: &Credentials) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "podlog", "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority-data": STANDARD.encode(&credentials.ca),
        }}],
        "users": [{"name": "podlog", "user": {
            "client-certificate-data": STANDARD.encode(&credentials.certificate),
            "client-key-data": STANDARD.encode(&credentials.key),
        }}],
        "contexts": [{"name": "podlog", "context": {"cluster": "podlog", "user": "podlog"}}],
        "current-context": "podlog",
    })
}

/// Writes it so that a reader sees the old or the new file, whole, and nobody else can read it.
pub(crate) fn write(path: &Path, config: &Value) -> io::Result<()> {
    let partial = path.with_extension("tmp");
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    serde_json::to_writer_pretty(&mut file, config)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_private_and_whole() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("kubeconfig");
        let credentials = Credentials { ca: b"ca".into(), certificate: b"cert".into(), key: b"key".into() };
        write(&path, &kubeconfig("127.0.0.1:6443".parse().unwrap(), &credentials)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(read["users"][0]["user"]["client-key-data"], "a2V5");
    }
}
