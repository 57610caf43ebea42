//! Requests that are passed on, over real sockets: bodies both ways, trailers, breaks, and upgrades.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use podlog_serving::{
    Body, Forwarder, Handler, Limits, Peer, Server, ServerTls, empty_body, install_crypto_provider,
    stream_body, text_body,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(20);

/// The server behind.
struct Behind;

#[async_trait]
impl Handler for Behind {
    async fn handle(&self, mut request: Request<Incoming>, peer: Peer) -> Response<Body> {
        match request.uri().path() {
            "/exec" => upgraded(&mut request),
            "/refuse" => {
                let mut response = Response::new(text_body("no such pod"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
            "/stream" => {
                let (sender, body) = stream_body();
                tokio::spawn(async move {
                    sender.send("first").await.unwrap();
                    sender.closed().await;
                });
                Response::new(body)
            }
            "/break" => {
                let (sender, body) = stream_body();
                tokio::spawn(async move {
                    sender.send("half").await.unwrap();
                    sender.fail("disk on fire").await;
                });
                Response::new(body)
            }
            "/trailers" => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("42"));
                let frames = stream::iter([Frame::data(Bytes::from("data")), Frame::trailers(trailers)]);
                let body = StreamBody::new(futures_util::StreamExt::map(frames, Ok));
                let mut response = Response::new(body.boxed_unsync());
                response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
                response
            }
            _ => told(request, peer).await,
        }
    }
}

/// What came in, as text.
async fn told(request: Request<Incoming>, peer: Peer) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    let body = body.collect().await.unwrap().to_bytes();
    let text = format!(
        "{} {} host={} auth={} hop={} peer={} body={}",
        parts.method,
        parts.uri,
        header("host"),
        header("authorization"),
        header("x-hop"),
        peer.certificate_chain.len(),
        body.len()
    );
    let mut response = Response::new(text_body(text));
    response.headers_mut().insert("x-answer", HeaderValue::from_static("kept"));
    response
}

/// Says everything back in capitals, until the client has said all.
fn upgraded(request: &mut Request<Incoming>) -> Response<Body> {
    assert_eq!(request.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    let protocol = request.headers()[UPGRADE].clone();
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        io.write_all(b"hello ").await.unwrap();
        let mut buffer = [0; 1 << 16];
        loop {
            let read = io.read(&mut buffer).await.unwrap();
            if read == 0 {
                io.write_all(b"bye").await.unwrap();
                return io.shutdown().await.unwrap();
            }
            buffer[..read].make_ascii_uppercase();
            io.write_all(&buffer[..read]).await.unwrap();
        }
    });
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    response
}

/// The server in front.
struct InFront(Forwarder);

#[async_trait]
impl Handler for InFront {
    async fn handle(&self, request: Request<Incoming>, _: Peer) -> Response<Body> {
        self.0.forward(request).await.unwrap_or_else(|cause| {
            let mut response = Response::new(text_body(cause.to_string()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        })
    }
}

struct World {
    folder: tempfile::TempDir,
    ca: CertificateAuthority,
    front: SocketAddr,
    shutdowns: HashMap<&'static str, DropGuard>,
}

async fn serve(tls: ServerTls, handler: Arc<dyn Handler>) -> (SocketAddr, DropGuard) {
    let limits = Limits { grace: Duration::ZERO, stream_grace: Duration::ZERO, ..Limits::default() };
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, limits).await.unwrap();
    let (address, shutdown) = (server.local_addr(), CancellationToken::new());
    tokio::spawn(server.serve(handler, shutdown.clone()));
    (address, shutdown.drop_guard())
}

async fn world() -> World {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::load_or_create(folder.path(), "ca", "podlog").unwrap();
    let files = KeyPairFiles::in_folder(folder.path(), "server");
    ca.ensure(&files, &CertificateRequest::serving("server", ["127.0.0.1"])).unwrap();
    let client = KeyPairFiles::in_folder(folder.path(), "front");
    ca.ensure(&client, &CertificateRequest::client("front", None)).unwrap();
    let tls = ServerTls::load(files).unwrap();
    let (behind, behind_shutdown) = serve(tls.clone(), Arc::new(Behind)).await;
    let authority = Some(ca.certificate_path().to_owned());
    let forwarder = Forwarder::new("127.0.0.1".into(), behind.port(), authority, Some(client)).unwrap();
    let (front, front_shutdown) = serve(tls, Arc::new(InFront(forwarder))).await;
    let shutdowns = [("behind", behind_shutdown), ("front", front_shutdown)].into();
    World { folder, ca, front, shutdowns }
}

impl World {
    async fn tls(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca.certificate_path()).unwrap()).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(self.front).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    async fn http1(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let io = TokioIo::new(self.tls(b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap()
    }

    async fn http2(&self, mut request: Request<Full<Bytes>>) -> Response<Incoming> {
        let io = TokioIo::new(self.tls(b"h2").await);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let uri = format!("https://node{}", request.uri());
        *request.uri_mut() = uri.parse().unwrap();
        request.headers_mut().remove(HOST);
        timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap()
    }
}

fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header(HOST, "node");
    builder.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_and_answers_go_through_unchanged() {
    let world = world().await;
    for (method, path, body) in [
        ("GET", "/a%2Fb?x=1&y=%20", ""),
        ("POST", "/run/ns/pod/c", "some input"),
        ("PUT", "/", ""),
        ("DELETE", "/x", ""),
    ] {
        let expected = format!("{method} {path} host=node auth=Bearer t hop=- peer=1 body={}", body.len());
        let mut with_headers = request(method, path, body);
        with_headers.headers_mut().insert("authorization", HeaderValue::from_static("Bearer t"));
        let second = with_headers.clone();
        with_headers.headers_mut().insert(CONNECTION, HeaderValue::from_static("x-hop"));
        with_headers.headers_mut().insert("x-hop", HeaderValue::from_static("1"));
        let response = world.http1(with_headers).await;
        assert_eq!(response.headers()["x-answer"], "kept");
        assert_eq!(text(response).await, expected);
        assert_eq!(text(world.http2(second).await).await, expected, "over HTTP/2");
    }
    let refused = world.http1(request("GET", "/refuse", "")).await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(text(refused).await, "no such pod");
}

#[tokio::test]
async fn answers_come_as_they_are_made_and_break_as_they_break() {
    let world = world().await;
    let mut streamed = world.http2(request("GET", "/stream", "")).await.into_body();
    let frame = timeout(PATIENCE, streamed.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first", "before the answer has ended");

    let mut with_trailers = request("GET", "/trailers", "");
    with_trailers.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let collected = world.http2(with_trailers).await.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    assert_eq!(collected.to_bytes(), "data");

    let broken = world.http1(request("GET", "/break", "")).await;
    assert!(timeout(PATIENCE, broken.into_body().collect()).await.unwrap().is_err());
}

#[tokio::test]
async fn upgrades_carry_bytes_both_ways_to_their_ends() {
    let world = world().await;
    for protocol in ["SPDY/3.1", "websocket"] {
        let mut request = request("POST", "/exec?command=sh", "");
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
        let version = HeaderValue::from_static("v4.channel.k8s.io");
        request.headers_mut().insert("x-stream-protocol-version", version);
        let response = world.http1(request).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[UPGRADE], protocol);
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let sent = vec![b'x'; 1 << 20];
        let sending = async {
            write.write_all(&sent).await.unwrap();
            // Only half of it is over.
            write.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) =
            timeout(PATIENCE, async { tokio::join!(read.read_to_end(&mut got), sending) }).await.unwrap();
        read.unwrap();
        let expected = [b"hello ".to_vec(), vec![b'X'; 1 << 20], b"bye".to_vec()].concat();
        assert!(got == expected, "{protocol}: {} bytes", got.len());
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_another_one_is_an_error() {
    let mut world = world().await;
    let stranger = CertificateAuthority::load_or_create(world.folder.path(), "other", "other").unwrap();
    let port = world.front.port();
    let authority = Some(stranger.certificate_path().to_owned());
    let forwarder = Forwarder::new("127.0.0.1".into(), port, authority, None).unwrap();
    assert_eq!(forwarder.to_string(), format!("https://127.0.0.1:{port}"));
    let tls = ServerTls::load(KeyPairFiles::in_folder(world.folder.path(), "server")).unwrap();
    let (wrong, _shutdown) = serve(tls, Arc::new(InFront(forwarder))).await;
    let right = std::mem::replace(&mut world.front, wrong);
    let response = world.http1(request("GET", "/", "")).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(text(response).await.contains("certificate signed by unknown authority"));

    world.front = right;
    world.shutdowns.remove("behind");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let response = world.http1(request("GET", "/", "")).await;
        if response.status() == StatusCode::BAD_GATEWAY {
            let said = text(response).await;
            assert!(said.contains("connect: connection refused") || said.contains("EOF"), "{said}");
            return;
        }
        assert!(tokio::time::Instant::now() < deadline);
    }
}
