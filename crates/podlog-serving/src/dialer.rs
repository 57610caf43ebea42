//! Connections for clients that bring their own HTTP/2, e.g. gRPC: TCP, and TLS on it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::TlsError;
use crate::node::client_config;
use crate::pki::KeyPairFiles;
use crate::reload::Reloading;
use crate::tls::{ClientStream, ServerOfAuthority, load_key_pair, load_roots};

/// Bytes both ways.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Makes connections, all of them to peers that the same authority vouches for.
pub struct Dialer {
    tls: Option<Reloading<Arc<ClientConfig>, TlsError>>,
}

impl Dialer {
    /// Without TLS.
    pub fn plain() -> Self {
        Dialer { tls: None }
    }

    /// With TLS: peers are verified against `ca`, and shown `client` where they ask. Both are loaded again when they change.
    ///
    /// # Errors
    /// When the files cannot be read or used.
    pub fn tls(ca: PathBuf, client: Option<KeyPairFiles>) -> Result<Self, TlsError> {
        let mut files = vec![ca.clone()];
        files.extend(client.iter().flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]));
        let load = move || {
            let verifier = ServerOfAuthority::new(load_roots(&ca)?, &ca)?;
            client_config(Arc::new(verifier), client.as_ref().map(load_key_pair).transpose()?)
        };
        Ok(Dialer { tls: Some(Reloading::new(files, load)?) })
    }

    /// With TLS, for HTTP/1.1: servers are verified against `ca`, or against the authorities that the system trusts.
    ///
    /// # Errors
    /// When the files cannot be read or used.
    pub fn https(ca: Option<PathBuf>, client: Option<KeyPairFiles>) -> Result<Self, TlsError> {
        let ca = ca.unwrap_or_else(system_authorities);
        let mut files = vec![ca.clone()];
        files.extend(client.iter().flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]));
        let load = move || {
            let verifier = ServerOfAuthority::new(load_roots(&ca)?, &ca)?;
            let config = client_config(Arc::new(verifier), client.as_ref().map(load_key_pair).transpose()?)?;
            let mut config = Arc::unwrap_or_clone(config);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(Arc::new(config))
        };
        Ok(Dialer { tls: Some(Reloading::new(files, load)?) })
    }

    /// Connects, and shakes hands where there is TLS. There is no limit on how long that takes but the system's.
    ///
    /// # Errors
    /// When the peer cannot be reached or is not believed.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>> {
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let session = UnbufferedClientConnection::new(Arc::clone(&*tls.current()), name);
        let mut stream = ClientStream::new(tcp, session.map_err(io::Error::other)?);
        stream.handshake().await?;
        Ok(Box::new(stream))
    }
}

/// The bundle of the distribution, where Go looks for it (`crypto/x509/root_linux.go`).
fn system_authorities() -> PathBuf {
    let places = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/tls/cacert.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(places[0]))
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}
