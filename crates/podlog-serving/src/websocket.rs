//! Streamed answers over a WebSocket, for clients that cannot read a body while it comes.
//!
//! Subprotocols, the empty message at the start and the refusals are those of
//! `k8s.io/apimachinery/pkg/util/httpstream/wsstream` and of Go's `golang.org/x/net/websocket` beneath it.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use crate::{Body, Upgrade, empty_body, text_body, upgrade};

/// The only version that there is.
const VERSION: &str = "13";
/// Bytes of one message; longer chunks become several.
const MAX_MESSAGE: usize = 32 << 10;
/// Bytes of a socket's buffers: what clients send is thrown away.
const BUFFER: usize = 4 << 10;
/// For the client to answer our farewell.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes of a reason for closing (RFC 6455, 5.5).
const MAX_REASON: usize = 123;

/// How bytes are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `binary.k8s.io`, and what is used without a subprotocol: binary messages.
    Binary,
    /// `base64.binary.k8s.io`: text messages, each in Base64 by itself.
    Base64,
}

impl Upgrade {
    /// Answers 101 and sends `body` as messages, or refuses as Go does. A body that ends in an error closes the socket with
    /// 1011 and the error's text, a server that shuts down with 1001, and a complete body with 1000.
    pub fn answer(self, headers: &HeaderMap, body: Body) -> Response<Body> {
        let (Some(on_upgrade), Some(after)) = (self.on_upgrade, self.after) else {
            return refusal(StatusCode::BAD_REQUEST, "not websocket protocol");
        };
        let (answer, framing) = match agree(headers, negotiate) {
            Ok(agreed) => agreed,
            Err(refusal) => return *refusal,
        };
        let counted = after.counted();
        tokio::spawn(async move {
            let _counted = counted;
            match on_upgrade.await {
                Ok(upgraded) => {
                    let told = tell(TokioIo::new(upgraded), framing, body, after.cut, after.ping);
                    after.abort.run_until_cancelled(told).await;
                }
                Err(error) => tracing::debug!(%error, "a connection could not be upgraded"),
            }
        });
        answer
    }
}

/// Agrees to go on as a WebSocket: the answer with one of the subprotocols that are offered, and what else `choose` says of it.
///
/// # Errors
/// The answer of one who refuses, as Go does.
pub fn agree<T>(
    headers: &HeaderMap,
    choose: impl FnOnce(&[&str]) -> Option<(String, T)>,
) -> Result<(Response<Body>, T), Box<Response<Body>>> {
    let key = match headers.get(SEC_WEBSOCKET_KEY) {
        _ if text(headers, SEC_WEBSOCKET_VERSION) != VERSION => {
            let mut answer = refusal(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
            answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            return Err(Box::new(answer));
        }
        None => return Err(Box::new(refusal(StatusCode::BAD_REQUEST, "mismatch challenge/response"))),
        Some(key) => accept_key(key.as_bytes()),
    };
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    let (protocol, chosen) = choose(&offered).ok_or_else(|| Box::new(refusal(StatusCode::FORBIDDEN, "")))?;
    Ok((switching(&key, &protocol), chosen))
}

/// Sends a body over a connection that has become a WebSocket already, up to its end, the client's, or a cut (1001). What the
/// client says is thrown away. A silent body is accompanied by a ping each `ping`.
pub async fn tell(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    framing: Framing,
    body: Body,
    cut: CancellationToken,
    ping: Duration,
) {
    Conversation::begin(connection, framing, cut, ping).await.hold(body).await;
}

/// Whether a request asks to go on as a WebSocket (`wsstream.IsWebSocketRequest`).
pub fn is_wanted(headers: &HeaderMap) -> bool {
    text(headers, UPGRADE).eq_ignore_ascii_case("websocket") && upgrade::is_wanted(headers)
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The first subprotocol that we know; `None` when there are only others.
fn negotiate(offered: &[&str]) -> Option<(String, Framing)> {
    if offered.is_empty() {
        return Some((String::new(), Framing::Binary));
    }
    offered.iter().find_map(|protocol| match *protocol {
        "" | "binary.k8s.io" => Some(((*protocol).to_owned(), Framing::Binary)),
        "base64.binary.k8s.io" => Some(((*protocol).to_owned(), Framing::Base64)),
        _ => None,
    })
}

/// Shows that we read the client's key (RFC 6455, 4.2.2).
fn accept_key(key: &[u8]) -> String {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finish())
}

fn refusal(code: StatusCode, why: &str) -> Response<Body> {
    let mut answer = Response::new(text_body(why));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn switching(key: &str, protocol: &str) -> Response<Body> {
    let mut answer = Response::new(empty_body());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let values = [(SEC_WEBSOCKET_ACCEPT, key), (SEC_WEBSOCKET_PROTOCOL, protocol)];
    for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
        headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
    }
    answer
}

/// A socket on which a body is sent.
struct Conversation<S> {
    socket: WebSocketStream<S>,
    framing: Framing,
    cut: CancellationToken,
    ping: Interval,
}

/// How it ends.
enum End {
    /// The client went away, or does not speak the protocol.
    Gone,
    Close(CloseCode, String),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    async fn begin(connection: S, framing: Framing, cut: CancellationToken, ping: Duration) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await;
        let mut ping = tokio::time::interval_at(Instant::now() + ping, ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Conversation { socket, framing, cut, ping }
    }

    /// Sends everything, and says how it ended.
    async fn hold(mut self, body: Body) {
        // Upstream begins with a message without content, so that proxies see the stream begin.
        let end = match self.send(Bytes::new()).await {
            Ok(()) => self.send_all(body).await,
            Err(_) => End::Gone,
        };
        if let End::Close(code, reason) = end {
            self.close(code, reason).await;
        }
    }

    async fn send_all(&mut self, mut body: Body) -> End {
        loop {
            tokio::select! {
                frame = body.frame() => {
                    let chunk = match frame {
                        None => return End::Close(CloseCode::Normal, String::new()),
                        Some(Err(error)) => return End::Close(CloseCode::Error, error.to_string()),
                        Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                    };
                    if self.send_chunk(chunk).await.is_err() {
                        return End::Gone;
                    }
                }
                message = self.socket.next() => match message {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return End::Gone,
                    Some(Ok(_)) => {}
                },
                _ = self.ping.tick() => {
                    if self.socket.send(Message::Ping(Bytes::new())).await.is_err() {
                        return End::Gone;
                    }
                }
                () = self.cut.cancelled() => {
                    return End::Close(CloseCode::Away, "the server is shutting down".into());
                }
            }
        }
    }

    async fn send_chunk(&mut self, mut chunk: Bytes) -> Result<(), Error> {
        while !chunk.is_empty() {
            let message = chunk.split_to(chunk.len().min(MAX_MESSAGE));
            self.send(message).await?;
        }
        Ok(())
    }

    async fn send(&mut self, content: Bytes) -> Result<(), Error> {
        let message = match self.framing {
            Framing::Binary => Message::Binary(content),
            Framing::Base64 => Message::text(STANDARD.encode(content)),
        };
        self.socket.send(message).await
    }

    /// Says farewell, and waits until the client has heard it.
    async fn close(&mut self, code: CloseCode, mut reason: String) {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        let farewell = async {
            let frame = CloseFrame { code, reason: reason.into() };
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("a client did not answer the end of its WebSocket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        let parse = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        rows.iter().map(parse).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    #[test]
    fn only_a_wish_for_a_websocket_is_one() {
        let rows: [(&[_], bool); 6] = [
            (&[("upgrade", "websocket"), ("connection", "Upgrade")], true),
            (&[("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")], true),
            (&[("upgrade", "websocket"), ("connection", "keep-alive")], false),
            (&[("upgrade", "websocket"), ("connection", "upgraded")], false),
            (&[("upgrade", "SPDY/3.1"), ("connection", "Upgrade")], false),
            (&[], false),
        ];
        for (row, expected) in rows {
            assert_eq!(is_wanted(&headers(row)), expected, "{row:?}");
        }
    }

    /// The example of RFC 6455, 1.3.
    #[test]
    fn keys_are_accepted_as_the_document_says() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        let agreed = |offered: &[&'static str]| {
            let mut rows =
                vec![("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13")];
            rows.extend(offered.iter().map(|names| ("sec-websocket-protocol", *names)));
            let (answer, framing) = agree(&headers(&rows), negotiate).ok()?;
            let named = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
            Some((named.map_or("", |name| name.to_str().unwrap()).to_owned(), framing))
        };
        let rows: [(&[_], _); 7] = [
            (&[], Some(("", Framing::Binary))),
            (&[""], Some(("", Framing::Binary))),
            (&["binary.k8s.io"], Some(("binary.k8s.io", Framing::Binary))),
            (&["base64.binary.k8s.io"], Some(("base64.binary.k8s.io", Framing::Base64))),
            (
                &["v5.channel.k8s.io, base64.binary.k8s.io,binary.k8s.io"],
                Some(("base64.binary.k8s.io", Framing::Base64)),
            ),
            (&["x", "binary.k8s.io"], Some(("binary.k8s.io", Framing::Binary))),
            (&["v4.channel.k8s.io"], None),
        ];
        for (offered, expected) in rows {
            let expected = expected.map(|(name, framing)| (name.to_owned(), framing));
            assert_eq!(agreed(offered), expected, "{offered:?}");
        }
    }
}
