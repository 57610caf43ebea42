//! From a host's name to a TLS connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::error::{DialCause, Ends};
use crate::tls::ClientStream;

/// For name lookup and TCP together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// For the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between TCP keep-alive probes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) dial: Duration,
    pub(crate) handshake: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { dial: DIAL_TIMEOUT, handshake: HANDSHAKE_TIMEOUT }
    }
}

/// A connection with its TLS, and where it goes.
pub(crate) struct Dialled {
    pub(crate) connection: Watched,
    pub(crate) ends: Ends,
    pub(crate) is_http2: bool,
}

/// Connects and shakes hands.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    config: Arc<ClientConfig>,
    timeouts: Timeouts,
) -> Result<Dialled, DialCause> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| lookup_failure(host, "no such host"))?;
    let tcp = connect(host, port, timeouts.dial).await?;
    let ends = ends_of(&tcp)?;
    let session = UnbufferedClientConnection::new(config, name);
    let session = session.map_err(|error| DialCause::Other(error.to_string()))?;
    let mut tls = ClientStream::new(Sniffed { tcp, head: Some(Vec::new()) }, session);
    let handshake = tokio::time::timeout(timeouts.handshake, tls.handshake()).await;
    let head = tls.io().head.take().unwrap_or_default();
    match handshake {
        Err(_) => Err(DialCause::HandshakeTimeout),
        Ok(Ok(())) => {
            let is_http2 = tls.state().alpn_protocol() == Some(b"h2");
            Ok(Dialled { connection: Watched { tls, ends: ends.clone() }, ends, is_http2 })
        }
        Ok(Err(_)) if head.starts_with(b"HTTP/") => Err(DialCause::PlainHttp),
        Ok(Err(error)) => Err(DialCause::handshake(&error, &ends)),
    }
}

/// Connects without TLS.
pub(crate) async fn dial_plain(host: &str, port: u16) -> Result<(TcpStream, Ends), DialCause> {
    let tcp = connect(host, port, DIAL_TIMEOUT).await?;
    let ends = ends_of(&tcp)?;
    Ok((tcp, ends))
}

fn ends_of(tcp: &TcpStream) -> Result<Ends, DialCause> {
    let ends =
        || Ok(Ends { local: tcp.local_addr()?, remote: tcp.peer_addr()?, tls_failure: Arc::default() });
    ends().map_err(|error: io::Error| DialCause::Other(error.to_string()))
}

/// Tries a name's addresses in turn; the first failure is the one reported, as Go does.
async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, DialCause> {
    let deadline = Instant::now() + timeout;
    let lookup = tokio::time::timeout_at(deadline, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match lookup {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(lookup_failure(host, lookup_reason(&error))),
        Err(_) => return Err(lookup_failure(host, "i/o timeout")),
    };
    let mut failure = None;
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for (tried, address) in (0..).zip(addresses) {
        let left = deadline.saturating_duration_since(Instant::now()) / (count - tried).max(1);
        let error = match tokio::time::timeout(left, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                tune(&tcp);
                return Ok(tcp);
            }
            Ok(Err(error)) => DialCause::connect(address, &error),
            Err(_) => DialCause::Connect { address, reason: "i/o timeout".into() },
        };
        failure.get_or_insert(error);
    }
    Err(failure.unwrap_or_else(|| lookup_failure(host, "no such host")))
}

fn tune(tcp: &TcpStream) {
    use rustix::net::sockopt;
    let tuned = tcp.set_nodelay(true).and_then(|()| {
        sockopt::set_socket_keepalive(tcp, true)?;
        Ok(sockopt::set_tcp_keepidle(tcp, KEEP_ALIVE)?)
    });
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot set the options of a socket");
    }
}

fn lookup_failure(name: &str, reason: &str) -> DialCause {
    DialCause::Lookup { name: name.to_owned(), server: name_server(), reason: reason.to_owned() }
}

/// What `getaddrinfo` says, in the words of Go's resolver.
fn lookup_reason(error: &io::Error) -> &'static str {
    if error.to_string().contains("Temporary failure") { "server misbehaving" } else { "no such host" }
}

/// The resolver that was probably asked.
fn name_server() -> String {
    let configuration = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = configuration
        .lines()
        .find_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next());
    server.map(|server| format!(" on {server}:53")).unwrap_or_default()
}

/// A connection on which failures of TLS are remembered.
pub(crate) struct Watched {
    tls: ClientStream<Sniffed>,
    ends: Ends,
}

impl Watched {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.ends.note(error);
        }
        polled
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tls).poll_read(context, buffer);
        self.note(polled)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tls).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tls).poll_flush(context);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tls).poll_write_vectored(context, slices);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }
}

/// A connection that remembers how the peer's answer began, until TLS stands: a plain HTTP server is told by it.
pub(super) struct Sniffed {
    tcp: TcpStream,
    head: Option<Vec<u8>>,
}

impl AsyncRead for Sniffed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begin = buffer.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(context, buffer);
        if let Some(head) = self.head.as_mut().filter(|head| head.len() < b"HTTP/".len()) {
            head.extend(buffer.filled()[begin..].iter().take(b"HTTP/".len()));
        }
        polled
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}
