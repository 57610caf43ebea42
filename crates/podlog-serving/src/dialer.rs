//! Connections for clients that bring their own HTTP/2, e.g. gRPC: TCP, and TLS on it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::TlsError;
use crate::node::client_config;
use crate::pki::KeyPairFiles;
use crate::reload::Reloading;
use crate::tls::{ServerOfAuthority, load_key_pair, load_roots};

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
        let connector = TlsConnector::from(Arc::clone(&*tls.current()));
        Ok(Box::new(connector.connect(name, tcp).await?))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}
