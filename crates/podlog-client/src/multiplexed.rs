//! Many streams over few connections: HTTP/2, of servers that speak it. kube's own clients speak HTTP/1.1, which takes a connection
//! for each stream.

use std::time::Duration;

use http::{Method, Version};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use tower::util::option_layer;
use tower::{BoxError, Layer, ServiceExt};

use crate::api::request;

/// Streams of one connection. Kubernetes' servers take 100 (`MaxConcurrentStreams` of `secure_serving.go`), and have others wait.
pub(crate) const STREAMS: usize = 90;
/// When nothing has come for so long, the server is asked whether it is there, as client-go does (`HTTP2_READ_IDLE_TIMEOUT_SECONDS`).
const PING: Duration = Duration::from_secs(30);
/// How long it has to answer (`HTTP2_PING_TIMEOUT_SECONDS`).
const PING_PATIENCE: Duration = Duration::from_secs(15);
/// Bytes that a stream, and all of a connection, may be ahead of who prints them.
const WINDOWS: (u32, u32) = (256 << 10, 4 << 20);

/// Another connection to the same server, with HTTP/2; `None` when that does not come about, goes through a proxy, or to a server
/// that is to have another name: what kube has for these speaks HTTP/1.1.
pub(crate) async fn connect(config: &kube::Config) -> Option<kube::Client> {
    if config.proxy_url.is_some() || config.tls_server_name.is_some() {
        return None;
    }
    let client = client(config).inspect_err(|error| tracing::debug!(%error, "no HTTP/2")).ok()?;
    // The first request opens the connection that all others share, whatever is said to it.
    let asked = client.send(request(Method::GET, "/version", None, bytes::Bytes::new()).ok()?).await;
    let version = asked.ok()?.version();
    (version == Version::HTTP_2).then_some(client)
}

fn client(config: &kube::Config) -> Result<kube::Client, BoxError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(config.connect_timeout);
    let mut tls = config.rustls_client_config()?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = of_kind(config.rustls_https_connector()?, (tcp, tls));
    let client: Client<_, Body> = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_initial_stream_window_size(WINDOWS.0)
        .http2_initial_connection_window_size(WINDOWS.1)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING_PATIENCE)
        .build(connector);
    let service = config.extra_headers_layer()?.layer(client.map_err(BoxError::from));
    let service = option_layer(config.auth_layer()?).layer(service);
    let service = config.base_uri_layer().layer(service);
    Ok(kube::Client::new(service, config.default_namespace.clone()))
}

/// A connector of the kind that kube makes.
fn of_kind<T>(_: T, parts: impl Into<T>) -> T {
    parts.into()
}
