//! The HTTPS server: HTTP/1.1 and HTTP/2, limits against slow or greedy clients, and a drain that loses no answer.

pub(crate) mod connection;
mod passage;
mod protocol;
pub(crate) mod requests;
pub(crate) mod room;
mod turns;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Registry;
use crate::{Handler, ServerTls};
use connection::Connections;
use room::{Room, Seat};

/// Pause after an accept that failed for want of resources.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Time that connections get to tell their clients that they were cut.
const CUT_LINGER: Duration = Duration::from_secs(1);

/// What a client may use of a server, and how the server ends.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. For a further one another is closed: of those whose callers are unknown the oldest that comes from where
    /// most come from, else one that is idle. While all are being served it waits. Default 10 000, but at most a quarter of the
    /// files that the process may open: a crowd at the door shall not keep those inside from their work.
    pub max_connections: usize,
    /// Requests at once on one HTTP/2 connection. Default 250, as Go's.
    pub max_concurrent_streams: u32,
    /// Bytes of a request's head. Default 1 MiB.
    pub max_header_bytes: u32,
    /// For the TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// For a request's head over HTTP/1.1, idle time before it included. Default 120 s: clients in Go and in Rust keep connections for
    /// 90 s, and whoever closes first must not be who does not know whether a request is on its way.
    pub header_timeout: Duration,
    /// For a connection without any request. Default 120 s, as above.
    pub idle_timeout: Duration,
    /// For a client to read a long answer of known length; then its connection is closed, within a third of `idle_timeout`: what it does
    /// not read is held for it. Default 60 s, Kubernetes' time for a whole request.
    pub send_timeout: Duration,
    /// Between TCP keep-alive probes. Default 15 s, as Go's.
    pub keep_alive: Duration,
    /// Between pings of HTTP/2 and WebSockets, which keep a stream without bytes from looking idle to what lies between
    /// client and server. Default 20 s: proxies give up after 50 s (HAProxy's examples), 60 s (nginx, AWS) or more.
    pub ping: Duration,
    /// For a client to answer a ping. Default 1 day: a client that was suspended (Ctrl-Z) or reads slowly answers late, and
    /// whether it is gone is found out by TCP.
    pub ping_patience: Duration,
    /// For a client over HTTP/2 to leave once an answer with `Connection: close` has told it to: its connection is closed when it
    /// has no requests then, or makes new ones later. Default 5 s.
    pub leave_grace: Duration,
    /// For answers of known length to be finished once the server shuts down. Default 30 s.
    pub grace: Duration,
    /// For streams to end by themselves once the server shuts down; then they are cut. Default 1 s.
    pub stream_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: open_files().map_or(10_000, |files| (files / 4).clamp(1, 10_000)),
            max_concurrent_streams: 250,
            max_header_bytes: 1 << 20,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(120),
            send_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            ping: Duration::from_secs(20),
            ping_patience: Duration::from_secs(24 * 60 * 60),
            leave_grace: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            stream_grace: Duration::from_secs(1),
        }
    }
}

/// How many files this process may open; none when there is no limit.
fn open_files() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    usize::try_from(limit).ok()
}

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on, e.g. because it is in use.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// How a server ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were cut before they were answered in full; their clients see an error.
    pub cut: usize,
}

/// A server that listens, and does not accept yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: ServerTls,
    limits: Limits,
    metrics: Registry,
}

impl Server {
    /// Listens. Port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub async fn bind(address: SocketAddr, tls: ServerTls, limits: Limits) -> Result<Self, ServeError> {
        let refused = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Server { listener, address, tls, limits, metrics: Registry::new() })
    }

    /// Counts there what it has to turn away.
    pub fn with_metrics(mut self, metrics: &Registry) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Where it listens, the port in particular.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then drains: no new connections; answers of known length get `grace` to finish, streams
    /// `stream_grace` to end by themselves; what is left is cut, so that its client sees an error.
    pub async fn serve(self, handler: Arc<dyn Handler>, shutdown: CancellationToken) -> Drained {
        let Server { listener, address, tls, limits, metrics } = self;
        let room = Arc::new(Room::new(limits.max_connections, &metrics));
        let tasks = TaskTracker::new();
        let connections = Arc::new(Connections::new(handler, &tls, limits.clone(), shutdown.clone()));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept(&listener, &room) => accepted,
            };
            match accepted {
                Ok((tcp, peer, seat)) => {
                    let connections = connections.clone();
                    tasks.spawn(async move { connections.serve(tcp, peer, seat).await });
                }
                Err(error) => pause_after(&error, address).await,
            }
        }
        drop(listener);
        drain(&connections, &tasks, &limits).await
    }
}

async fn accept(listener: &TcpListener, room: &Arc<Room>) -> io::Result<(TcpStream, SocketAddr, Seat)> {
    let (tcp, peer) = listener.accept().await?;
    let seat = room.seat(peer.ip()).await;
    Ok((tcp, peer, seat))
}

async fn pause_after(error: &io::Error, address: SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset) {
        tracing::error!(%address, %error, "cannot accept a connection");
        tokio::time::sleep(ACCEPT_RETRY).await;
    }
}

async fn drain(connections: &Connections, tasks: &TaskTracker, limits: &Limits) -> Drained {
    tasks.close();
    let begin = Instant::now();
    let all_ended = tokio::time::timeout_at(begin + limits.stream_grace, tasks.wait()).await;
    if all_ended.is_ok() {
        return Drained::default();
    }
    let requests = connections.requests();
    let _ = tokio::time::timeout_at(begin + limits.grace, requests.only_streams_left()).await;
    let cut = requests.count();
    if cut > 0 {
        tracing::warn!(cut, "shutting down cuts requests that have not ended");
    }
    connections.cut();
    if tokio::time::timeout(CUT_LINGER, tasks.wait()).await.is_err() {
        connections.abort();
        tasks.wait().await;
    }
    Drained { cut }
}
