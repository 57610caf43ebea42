//! Connections that go on with another protocol than HTTP, and servers behind us that do so with them.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::forward::exchange;
use crate::node::{Ends, dial_plain};
use crate::server::connection::AfterUpgrade;
use crate::{Body, BodyError, DialCause, websocket};

/// For one end to hear what the other still says after it has closed.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What the next server is told of a request that asks for another protocol: nothing about who asks.
const PASSED_ON: &[&str] = &[
    "connection",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
    "user-agent",
    "x-stream-protocol-version",
];

/// A client that has asked to go on with another protocol, taken out of what HTTP knows of its request.
#[derive(Debug)]
pub struct Upgrade {
    pub(crate) on_upgrade: Option<OnUpgrade>,
    pub(crate) after: Option<AfterUpgrade>,
    method: Method,
    headers: HeaderMap,
}

impl fmt::Debug for AfterUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterUpgrade")
    }
}

impl Upgrade {
    /// The request's wish for another protocol; `None` when it has none.
    pub fn of(parts: &mut Parts) -> Option<Upgrade> {
        is_wanted(&parts.headers).then(|| Upgrade {
            on_upgrade: parts.extensions.remove(),
            after: parts.extensions.remove(),
            method: parts.method.clone(),
            headers: passed_on(&parts.headers),
        })
    }

    /// Whether the protocol is WebSocket.
    pub fn is_websocket(&self) -> bool {
        websocket::is_wanted(&self.headers)
    }

    /// Passes the wish on to a server that is spoken to without TLS, such as the streaming server of a container runtime. Its
    /// answer is ours; when it agrees, bytes go both ways. `held` lives as long as they do.
    ///
    /// # Errors
    /// When no answer came, or one that is neither an agreement nor a refusal.
    pub async fn pass_on(
        self,
        host: &str,
        port: u16,
        path_and_query: &str,
        held: impl Send + 'static,
    ) -> Result<Response<Body>, UpgradeError> {
        let (tcp, ends) = dial_plain(host, port).await.map_err(UpgradeError::Dial)?;
        self.pass_over(tcp, ends, &authority(host, port), path_and_query, held).await
    }

    /// Passes the wish on over a connection.
    pub(crate) async fn pass_over(
        self,
        connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        ends: Ends,
        authority: &str,
        path_and_query: &str,
        held: impl Send + 'static,
    ) -> Result<Response<Body>, UpgradeError> {
        let request = self.request(authority, path_and_query);
        let request = request.map_err(|error| UpgradeError::Exchange(DialCause::Other(error.to_string())))?;
        let response = exchange(connection, ends, request, Some(self), held).await;
        let response = response.map_err(UpgradeError::Exchange)?;
        match response.status() {
            status if status == StatusCode::SWITCHING_PROTOCOLS || status.as_u16() >= 400 => Ok(response),
            status => Err(UpgradeError::Status(status.as_u16())),
        }
    }

    fn request(&self, authority: &str, path_and_query: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
        let request = Request::builder().method(self.method.clone()).uri(path_and_query);
        let mut request = request.header(HOST, HeaderValue::from_str(authority)?).body(Empty::new())?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    /// Carries bytes both ways between the client and a server that has agreed, until one of them has closed, or we shut down.
    /// `held` lives as long.
    pub(crate) async fn carry_on(self, server: OnUpgrade, held: impl Send) {
        let (Some(client), Some(after)) = (self.on_upgrade, self.after) else { return };
        let (_counted, _held) = (after.counted(), held);
        let carried = async {
            let (client, server) = tokio::try_join!(client, server)?;
            carry(TokioIo::new(client), TokioIo::new(server)).await.map_err(BodyError::from)
        };
        tokio::select! {
            carried = carried => if let Err(error) = carried {
                tracing::debug!(%error, "an upgraded stream broke");
            },
            () = after.cut.cancelled() => {}
            () = after.abort.cancelled() => {}
        }
    }
}

/// Why a wish for another protocol could not be passed on. Texts are those of
/// `k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// No connection.
    #[error("error dialing backend: {0}")]
    Dial(#[source] DialCause),
    /// No answer.
    #[error("{0}")]
    Exchange(#[source] DialCause),
    /// The server answered as if nothing had been asked of it.
    #[error("invalid upgrade response: status code {0}")]
    Status(u16),
}

/// As `httpstream.IsUpgradeRequest`.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks =
        named.flat_map(|names| names.split(',')).any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
    asks && headers.contains_key(UPGRADE)
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let names = PASSED_ON.iter().copied().map(HeaderName::from_static);
    let pairs = names.flat_map(|name| {
        headers.get_all(&name).iter().map(move |value| (name.clone(), value.clone())).collect::<Vec<_>>()
    });
    pairs.collect()
}

pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Who has closed hears the rest of what the other says, if that comes soon.
async fn carry(
    client: impl AsyncRead + AsyncWrite,
    server: impl AsyncRead + AsyncWrite,
) -> std::io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let mut there = pin!(pass(from_client, to_server));
    let mut back = pin!(pass(from_server, to_client));
    let rest = tokio::select! {
        passed = &mut there => {
            passed?;
            timeout(LAST_WORDS, back).await
        }
        passed = &mut back => {
            passed?;
            timeout(LAST_WORDS, there).await
        }
    };
    rest.unwrap_or(Ok(()))
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}
