//! Requests passed on to another server as they are: bodies and trailers as they come, upgrades both ways.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, HeaderName, TE, TRAILER, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::node::{Dialled, Ends, Timeouts, client_config, dial};
use crate::pki::KeyPairFiles;
use crate::reload::Reloading;
use crate::tls::{AnyServer, ServerOfAuthority, load_key_pair, load_roots};
use crate::upgrade::authority;
use crate::{Body, BodyError, DialCause, TlsError, Upgrade, empty_body, relay_body};

/// Headers about one connection, which say nothing about the next.
const HOP_BY_HOP: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Passes requests on to one server. Each has a connection of its own, so none waits for another, and an upgrade takes
/// what it finds.
pub struct Forwarder {
    host: String,
    port: u16,
    tls: Reloading<Arc<ClientConfig>, TlsError>,
}

impl Forwarder {
    /// To `host`, which is verified against `ca`, or not at all where there is none; `client` is what it knows us by. Files
    /// are loaded again when they change.
    ///
    /// # Errors
    /// When the files cannot be read or used.
    pub fn new(
        host: String,
        port: u16,
        ca: Option<PathBuf>,
        client: Option<KeyPairFiles>,
    ) -> Result<Self, TlsError> {
        let mut files = Vec::from_iter(ca.clone());
        files.extend(client.iter().flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]));
        let load = move || {
            let own = client.as_ref().map(load_key_pair).transpose()?;
            let config = match &ca {
                None => client_config(Arc::new(AnyServer::new()), own)?,
                Some(bundle) => {
                    client_config(Arc::new(ServerOfAuthority::new(load_roots(bundle)?, bundle)?), own)?
                }
            };
            // Only HTTP/1.1 can be upgraded.
            let mut config = ClientConfig::clone(&config);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(Arc::new(config))
        };
        Ok(Forwarder { host, port, tls: Reloading::new(files, load)? })
    }

    /// Passes a request on, and its answer back. An answer that breaks off breaks off here, too.
    ///
    /// # Errors
    /// When no answer came. Any answer is one.
    pub async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, DialCause> {
        let config = Arc::clone(&*self.tls.current());
        let Dialled { connection, ends, .. } =
            dial(&self.host, self.port, config, Timeouts::default()).await?;
        let (mut parts, body) = request.into_parts();
        let upgrade = Upgrade::of(&mut parts);
        let request = passed_on(Request::from_parts(parts, body), upgrade.is_some());
        exchange(connection, ends, request, upgrade, ()).await
    }
}

/// Asks over a connection that is for this request alone; its answer is [`passed_back`].
pub(crate) async fn exchange<B>(
    connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ends: Ends,
    request: Request<B>,
    upgrade: Option<Upgrade>,
    held: impl Send + 'static,
) -> Result<Response<Body>, DialCause>
where
    B: http_body::Body<Data: Send, Error: Into<BodyError>> + Send + 'static,
{
    let failed = |error: hyper::Error| DialCause::exchange(&error, &ends);
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.map_err(failed)?;
    tokio::spawn(driver.with_upgrades());
    let response = sender.send_request(request).await.map_err(failed)?;
    Ok(passed_back(response, upgrade, ends, held))
}

/// Displays as the URL of the server.
impl fmt::Display for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarder({self})")
    }
}

/// The request as the next connection shall have it.
pub(crate) fn passed_on<B>(request: Request<B>, is_upgrade: bool) -> Request<B> {
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority()
        && !parts.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // What was a path stays one.
    parts.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let asks_trailers = parts.headers.get(TE).is_some_and(|te| te == "trailers");
    without_hops(&mut parts.headers, is_upgrade);
    if asks_trailers {
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Request::from_parts(parts, body)
}

/// The answer as the connection before shall have it. What is upgraded is carried on, and `held` as long.
pub(crate) fn passed_back(
    mut response: Response<Incoming>,
    upgrade: Option<Upgrade>,
    ends: Ends,
    held: impl Send + 'static,
) -> Response<Body> {
    let upgraded = (response.status() == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| response.extensions_mut().remove::<OnUpgrade>())
        .flatten();
    let (mut parts, body) = response.into_parts();
    parts.version = Version::default();
    parts.extensions.clear();
    let announced = parts.headers.get(TRAILER).cloned();
    without_hops(&mut parts.headers, upgraded.is_some());
    if let Some((server, upgrade)) = upgraded.zip(upgrade) {
        tokio::spawn(upgrade.carry_on(server, held));
        return Response::from_parts(parts, empty_body());
    }
    parts.headers.extend(announced.map(|names| (TRAILER, names)));
    let broken = move |error: hyper::Error| match DialCause::exchange(&error, &ends) {
        DialCause::Eof => BodyError::from("unexpected EOF"),
        cause => cause.into(),
    };
    let body = relay_body(body.map_err(broken), (), |(), error| {
        tracing::debug!(%error, "an answer that was passed on broke off");
    });
    Response::from_parts(parts, body)
}

/// Takes out what concerns one connection alone; an upgrade concerns both.
fn without_hops(headers: &mut HeaderMap, is_upgrade: bool) {
    let kept = is_upgrade.then(|| headers.get_all(UPGRADE).iter().cloned().collect::<Vec<_>>());
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
    for protocol in kept.into_iter().flatten() {
        headers.append(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_there() {
        type Row = (&'static [(&'static str, &'static str)], bool, &'static str);
        let rows: &[Row] = &[
            (&[("connection", "close, x-hop"), ("x-hop", "1"), ("x-end", "2")], false, "x-end: 2"),
            (&[("te", "gzip"), ("transfer-encoding", "chunked"), ("keep-alive", "1")], false, ""),
            (
                &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4")],
                true,
                "connection: Upgrade, upgrade: SPDY/3.1, x-stream-protocol-version: v4",
            ),
            (&[("connection", "Upgrade"), ("upgrade", "h2c"), ("a", "b")], false, "a: b"),
        ];
        for (headers, is_upgrade, expected) in rows {
            let pairs = headers.iter().map(|(name, value)| {
                (name.parse::<HeaderName>().expect("name"), HeaderValue::from_static(value))
            });
            let mut map: HeaderMap = pairs.collect();
            without_hops(&mut map, *is_upgrade);
            let mut left: Vec<_> = map
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
                .collect();
            left.sort();
            assert_eq!(left.join(", "), *expected);
        }
    }
}
