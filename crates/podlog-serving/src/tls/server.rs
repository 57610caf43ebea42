//! The server's side of TLS.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::certificates::{load_key_pair, provider};
use super::verify::AnyClient;
use super::{GoTlsError, ServerStream, TlsError};
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
    certificate: Arc<Certificate>,
}

impl ServerTls {
    /// Loads certificate and key. They are loaded again, within a second of the next handshake, when they change.
    ///
    /// # Errors
    /// When they cannot be read or are not a pair.
    pub fn load(files: KeyPairFiles) -> Result<Self, TlsError> {
        Self::new(files, |files| load_key_pair(files).map(Arc::new).map(Some))
    }

    /// [`ServerTls::load`], of files that may come later. Until then every handshake fails with the alert `internal error`,
    /// as with a Go server that has no certificate yet.
    ///
    /// # Errors
    /// When the files are there and cannot be read or are not a pair.
    pub fn load_when_present(files: KeyPairFiles) -> Result<Self, TlsError> {
        Self::new(files, |files| {
            let is_present = files.certificate.exists() && files.key.exists();
            is_present.then(|| load_key_pair(files).map(Arc::new)).transpose()
        })
    }

    fn new(
        files: KeyPairFiles,
        load: impl Fn(&KeyPairFiles) -> Result<Option<Arc<CertifiedKey>>, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let path = files.certificate.clone();
        let watched = vec![files.certificate.clone(), files.key.clone()];
        let certificate = Arc::new(Certificate(Reloading::new(watched, move || load(&files))?));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unusable { path, reason: error.to_string() })?
            .with_client_cert_verifier(Arc::new(AnyClient::new()))
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(ServerTls { config: Arc::new(config), certificate })
    }

    /// Shakes hands on a connection and speaks no HTTP on it. There is no limit on how long that takes.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or does not believe us.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(self.handshake(tcp).await?))
    }

    /// Shakes hands. Without a certificate, says so as TLS does.
    pub(crate) async fn handshake(&self, tcp: TcpStream) -> io::Result<ServerStream<TcpStream>> {
        if (*self.certificate.0.current()).is_none() {
            refuse(tcp).await?;
            return Err(io::Error::other("there is no certificate yet"));
        }
        let session = UnbufferedServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        let mut stream = ServerStream::new(tcp, session);
        stream.handshake().await?;
        Ok(stream)
    }
}

/// Ends a handshake with the alert `internal error`.
async fn refuse(mut tcp: TcpStream) -> io::Result<()> {
    // A record of two bytes: fatal, internal error (RFC 8446, 5.1 and 6). The client's first words are read before, as a
    // connection that closes on unread bytes is reset.
    const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
    let mut hello = [0; 4096];
    if tcp.read(&mut hello).await? > 0 {
        tcp.write_all(&INTERNAL_ERROR).await?;
        tcp.shutdown().await?;
        while tcp.read(&mut hello).await? > 0 {}
    }
    Ok(())
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

struct Certificate(Reloading<Option<Arc<CertifiedKey>>, TlsError>);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (*self.0.current()).clone()
    }
}

impl From<GoTlsError> for rustls::Error {
    fn from(error: GoTlsError) -> Self {
        let other = rustls::OtherError(Arc::new(error));
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))
    }
}
