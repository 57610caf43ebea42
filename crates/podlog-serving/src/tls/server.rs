//! The server's side of TLS.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::certificates::{load_key_pair, provider};
use super::verify::AnyClient;
use super::{GoTlsError, TlsError};
use crate::Connection;
use crate::pki::KeyPairFiles;
use crate::reload::Reloading;

/// What a server needs for TLS.
///
/// A client certificate is asked for and never required. Any is accepted if the client holds its key: whether it says
/// something we believe is for an authenticator to decide, so that a bad one is an answer (401) and not a handshake
/// that breaks.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Loads certificate and key. They are loaded again, within a second of the next handshake, when they change.
    ///
    /// # Errors
    /// When they cannot be read or are not a pair.
    pub fn load(files: KeyPairFiles) -> Result<Self, TlsError> {
        let path = files.certificate.clone();
        let watched = vec![files.certificate.clone(), files.key.clone()];
        let certificate = Reloading::new(watched, move || load_key_pair(&files).map(Arc::new))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unusable { path, reason: error.to_string() })?
            .with_client_cert_verifier(Arc::new(AnyClient::new()))
            .with_cert_resolver(Arc::new(Certificate(certificate)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(ServerTls { config: Arc::new(config) })
    }

    /// Shakes hands on a connection and speaks no HTTP on it. There is no limit on how long that takes.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or does not believe us.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(self.acceptor().accept(tcp).await?))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

struct Certificate(Reloading<Arc<CertifiedKey>, TlsError>);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&*self.0.current()))
    }
}

impl From<GoTlsError> for rustls::Error {
    fn from(error: GoTlsError) -> Self {
        let other = rustls::OtherError(Arc::new(error));
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))
    }
}
