//! Connections to one node, shared by its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body::Body as HttpBody;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::body::StreamSlot;
use super::dial::Dialled;
use super::error::{DialCause, Ends};
use crate::{Body, BodyError};

const AGENT: &str = concat!("podlog/", env!("CARGO_PKG_VERSION"));
/// Streams on one connection before a second one is made; Go's servers allow 250.
const MAX_STREAMS: u16 = 100;
/// Default of [`NodeClientConfig::stream_window`](super::NodeClientConfig): three frames as our nodes send them, a record of TLS
/// each. With a largest frame that is on its way out, less than the 64 KiB that a stream is allowed to hold.
pub(super) const STREAM_WINDOW: u32 = 3 * (FRAME - 9);
/// The largest there is (RFC 9113, 6.9.1).
const MAX_WINDOW: u32 = i32::MAX.cast_unsigned();
/// Largest frame: the smallest that may be asked for.
const FRAME: u32 = 16 << 10;
/// HTTP/1.1 connections that wait for the next request.
const MAX_IDLE: usize = 25;

/// How silent nodes over HTTP/2 are found out about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Silence after which a node is asked whether it is there; `None` for never. Default 30 s.
    pub ping_after: Option<Duration>,
    /// For its answer; then the connection is given up. Default 15 s.
    pub ping_timeout: Duration,
}

impl Default for Liveness {
    fn default() -> Self {
        Liveness { ping_after: Some(Duration::from_secs(30)), ping_timeout: Duration::from_secs(15) }
    }
}

impl Liveness {
    /// By `HTTP2_READ_IDLE_TIMEOUT_SECONDS` (0 for never) and `HTTP2_PING_TIMEOUT_SECONDS`, as
    /// `k8s.io/apimachinery/pkg/util/net/http.go`; what is not a number counts as not set.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let seconds = |name| Some(Duration::from_secs(variable(name)?.parse().ok()?));
        let default = Liveness::default();
        let ping_after = seconds("HTTP2_READ_IDLE_TIMEOUT_SECONDS").map_or(default.ping_after, Some);
        Liveness {
            ping_after: ping_after.filter(|after| !after.is_zero()),
            ping_timeout: seconds("HTTP2_PING_TIMEOUT_SECONDS").unwrap_or(default.ping_timeout),
        }
    }
}

/// The connections that can take requests.
#[derive(Default)]
pub(super) struct Connections {
    shared: Vec<Shared>,
    idle: Vec<Exclusive<Empty<Bytes>>>,
    /// For requests that are passed on. Apart: nobody would notice a silent node on them.
    passing: Vec<Exclusive<Body>>,
}

/// An HTTP/2 connection.
#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Empty<Bytes>>,
    streams: Arc<AtomicUsize>,
    ends: Ends,
}

/// An HTTP/1.1 connection, on which requests with such bodies are made.
pub(super) struct Exclusive<B> {
    sender: http1::SendRequest<B>,
    ends: Ends,
}

/// A connection that was chosen for one request.
pub(super) enum Connection {
    Shared(Box<SharedStream>),
    Exclusive(Box<ExclusiveUse>),
}

pub(super) struct SharedStream {
    connection: Shared,
    slot: StreamSlot,
}

pub(super) struct ExclusiveUse {
    connection: Exclusive<Empty<Bytes>>,
}

impl Connections {
    /// A connection with room for one more request.
    pub(super) fn take(&mut self) -> Option<Connection> {
        self.forget_closed();
        let room = |shared: &&Shared| shared.streams.load(Ordering::Relaxed) < usize::from(MAX_STREAMS);
        if let Some(shared) = self.shared.iter().find(room) {
            return Some(shared.open());
        }
        let connection = self.idle.pop()?;
        Some(Connection::Exclusive(Box::new(ExclusiveUse { connection })))
    }

    /// A connection on which a request can be passed on.
    pub(super) fn take_passing(&mut self) -> Option<Exclusive<Body>> {
        self.forget_closed();
        self.passing.pop()
    }

    pub(super) fn forget_closed(&mut self) {
        self.shared.retain(|shared| !shared.sender.is_closed());
        self.idle.retain(|idle| idle.sender.is_ready());
        self.passing.retain(|idle| idle.sender.is_ready());
    }

    /// Gives no more requests to a connection that failed; those it carries go on.
    fn forget(&mut self, failed: &Shared) {
        self.shared.retain(|shared| !Arc::ptr_eq(&shared.streams, &failed.streams));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.idle.is_empty() && self.passing.is_empty()
    }
}

impl Shared {
    fn open(&self) -> Connection {
        self.streams.fetch_add(1, Ordering::Relaxed);
        let slot = StreamSlot(self.streams.clone());
        Connection::Shared(Box::new(SharedStream { connection: self.clone(), slot }))
    }
}

impl Connection {
    /// Starts HTTP on a connection, and offers it to others where the protocol allows.
    pub(super) async fn start(
        dialled: Dialled,
        liveness: Liveness,
        stream_window: u32,
        pool: &Arc<Mutex<Connections>>,
    ) -> Result<Self, DialCause> {
        let Dialled { connection: tls, ends, is_http2 } = dialled;
        let io = TokioIo::new(tls);
        if is_http2 {
            let handshake = http2_builder(liveness, stream_window).handshake(io).await;
            let (sender, connection) = handshake.map_err(|error| DialCause::exchange(&error, &ends))?;
            tokio::spawn(connection);
            let shared = Shared { sender, streams: Arc::default(), ends };
            pool.lock().shared.push(shared.clone());
            return Ok(shared.open());
        }
        let connection = Exclusive::on(io, ends).await?;
        Ok(Connection::Exclusive(Box::new(ExclusiveUse { connection })))
    }

    /// Sends the request; the connection is used again when its answer has been read.
    pub(super) async fn send(
        self,
        uri: &Uri,
        pool: &Arc<Mutex<Connections>>,
    ) -> Result<(Response<Incoming>, Ends, StreamSlot), (hyper::Error, Ends)> {
        match self {
            Connection::Shared(stream) => {
                let SharedStream { mut connection, slot } = *stream;
                match connection.sender.send_request(http2_request(uri)).await {
                    Ok(response) => Ok((response, connection.ends, slot)),
                    Err(error) => {
                        pool.lock().forget(&connection);
                        Err((error, connection.ends))
                    }
                }
            }
            Connection::Exclusive(exclusive) => {
                let request = http1_request(uri);
                let (response, ends) =
                    exclusive.connection.send(request, pool, |pool| &mut pool.idle).await?;
                Ok((response, ends, StreamSlot(Arc::new(AtomicUsize::new(1)))))
            }
        }
    }
}

impl<B> Exclusive<B>
where
    B: HttpBody<Data: Send, Error: Into<BodyError>> + Send + 'static,
{
    async fn on(io: impl Read + Write + Send + Unpin + 'static, ends: Ends) -> Result<Self, DialCause> {
        let handshake = http1::handshake(io).await;
        let (sender, connection) = handshake.map_err(|error| DialCause::exchange(&error, &ends))?;
        tokio::spawn(connection);
        Ok(Exclusive { sender, ends })
    }

    /// Sends the request. Apart, it is waited until its answer has been read in full: then the connection is among the idle ones. An
    /// answer that is dropped closes it instead.
    async fn send(
        mut self,
        request: Request<B>,
        pool: &Arc<Mutex<Connections>>,
        idle: impl Fn(&mut Connections) -> &mut Vec<Self> + Send + 'static,
    ) -> Result<(Response<Incoming>, Ends), (hyper::Error, Ends)> {
        let ends = self.ends.clone();
        let response = match self.sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return Err((error, ends)),
        };
        let pool = Arc::downgrade(pool);
        tokio::spawn(async move {
            if self.sender.ready().await.is_ok()
                && let Some(pool) = pool.upgrade()
            {
                let mut pool = pool.lock();
                pool.forget_closed();
                let idle = idle(&mut pool);
                if idle.len() < MAX_IDLE {
                    idle.push(self);
                }
            }
        });
        Ok((response, ends))
    }
}

impl Exclusive<Body> {
    /// Starts HTTP/1.1 on a connection for requests that are passed on.
    pub(super) async fn start(dialled: Dialled) -> Result<Self, DialCause> {
        Exclusive::on(TokioIo::new(dialled.connection), dialled.ends).await
    }

    /// Passes a request on.
    pub(super) async fn pass_on(
        self,
        request: Request<Body>,
        pool: &Arc<Mutex<Connections>>,
    ) -> Result<(Response<Incoming>, Ends), (hyper::Error, Ends)> {
        self.send(request, pool, |pool| &mut pool.passing).await
    }
}

fn http2_builder(liveness: Liveness, stream_window: u32) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(stream_window)
        // Every stream of a connection may be stalled without holding up the others.
        .initial_connection_window_size(stream_window.saturating_mul(u32::from(MAX_STREAMS)).min(MAX_WINDOW))
        .max_frame_size(FRAME)
        .keep_alive_interval(liveness.ping_after)
        .keep_alive_timeout(liveness.ping_timeout)
        .keep_alive_while_idle(true);
    builder
}

fn http2_request(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    *request.uri_mut() = uri.clone();
    request
}

/// The path alone, with the authority as `Host`.
fn http1_request(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = http2_request(uri);
    let authority = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    request.headers_mut().extend(authority.map(|authority| (HOST, authority)));
    *request.uri_mut() = uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn liveness_is_set_by_upstreams_variables() {
        let seconds = Duration::from_secs;
        let rows = [
            (None, None, Some(seconds(30)), seconds(15)),
            (Some("5"), Some("2"), Some(seconds(5)), seconds(2)),
            (Some("0"), Some("x"), None, seconds(15)),
            (Some("-1"), None, Some(seconds(30)), seconds(15)),
        ];
        for (idle, timeout, ping_after, ping_timeout) in rows {
            let liveness = Liveness::of(|name| {
                let value = if name.contains("IDLE") { idle } else { timeout };
                value.map(str::to_owned)
            });
            assert_eq!(liveness, Liveness { ping_after, ping_timeout });
        }
    }
}
