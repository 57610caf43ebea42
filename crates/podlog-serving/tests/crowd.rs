//! More connections than there may be, over real sockets.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use podlog_api::UserInfo;
use podlog_serving::metrics::Registry;
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use podlog_serving::{
    Authenticator, AuthnError, Body, Handler, Limits, Peer, Server, ServerTls, UnionAuthenticator,
    install_crypto_provider, stream_body, text_body,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// A newcomer who has to wait for a timeout of the server waits longer.
const SOON: Duration = Duration::from_secs(8);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ADMIN: &str = "Authorization: Bearer admin\r\n";

/// Knows one token.
struct Token;

#[async_trait]
impl Authenticator for Token {
    async fn authenticate(&self, request: &Parts, _: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        let is_admin = request.headers.get("authorization").is_some_and(|value| value == "Bearer admin");
        Ok(is_admin.then(|| UserInfo { username: "admin".into(), ..UserInfo::default() }))
    }
}

struct Answers {
    authenticator: UnionAuthenticator,
    entered: Notify,
    release: Notify,
}

#[async_trait]
impl Handler for Answers {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let user = self.authenticator.authenticate(&parts, &peer).await;
        match parts.uri.path() {
            "/slow" => {
                self.entered.notify_one();
                self.release.notified().await;
                Response::new(text_body("at last"))
            }
            "/follow" => {
                let (sender, body) = stream_body();
                tokio::spawn(async move {
                    let _ = sender.send("line").await;
                    sender.closed().await;
                });
                Response::new(body)
            }
            "/refused" => {
                let mut response = Response::new(text_body("no"));
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                response
            }
            _ => Response::new(text_body(user.ok().flatten().map_or("nobody".into(), |user| user.username))),
        }
    }
}

struct World {
    _folder: tempfile::TempDir,
    ca: CertificateAuthority,
    address: SocketAddr,
    handler: Arc<Answers>,
    metrics: Registry,
    shutdown: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn world(max_connections: usize) -> World {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::load_or_create(folder.path(), "ca", "podlog").unwrap();
    let files = KeyPairFiles::in_folder(folder.path(), "server");
    ca.ensure(&files, &CertificateRequest::serving("server", ["localhost"])).unwrap();
    let tls = ServerTls::load(files).unwrap();
    let limits = Limits { max_connections, ..Limits::default() };
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, limits).await.unwrap();
    let (metrics, shutdown) = (Registry::new(), CancellationToken::new());
    let server = server.with_metrics(&metrics);
    let address = server.local_addr();
    let handler = Arc::new(Answers {
        authenticator: UnionAuthenticator::new(vec![Arc::new(Token)]),
        entered: Notify::new(),
        release: Notify::new(),
    });
    tokio::spawn(server.serve(handler.clone(), shutdown.clone()));
    World { _folder: folder, ca, address, handler, metrics, shutdown }
}

type Tls = TlsStream<TcpStream>;

impl World {
    /// From an address of loopback.
    async fn tcp(&self, from: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from(Ipv4Addr::new(127, 0, 0, from)), 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn tls(&self, protocol: &str, from: u8) -> std::io::Result<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.certificate_pem().as_bytes()).unwrap()).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from("localhost").unwrap(), self.tcp(from).await).await
    }

    /// One that says nothing, or begins to.
    async fn silent(&self, kind: usize) -> (Option<TcpStream>, Option<Tls>) {
        let (protocol, words): (_, &[u8]) = match kind {
            0 => return (Some(self.tcp(1).await), None),
            1 => ("http/1.1", b""),
            2 => ("http/1.1", b"GET / HTTP/1.1\r\nHost:"),
            3 => ("h2", b""),
            _ => ("h2", PREFACE),
        };
        let mut tls = self.tls(protocol, 1).await.unwrap();
        tls.write_all(words).await.unwrap();
        (None, Some(tls))
    }

    /// A connection of HTTP/1.1 on which something is asked for.
    async fn ask(&self, path: &str, headers: &str) -> Tls {
        let mut tls = self.tls("http/1.1", 1).await.unwrap();
        send(&mut tls, path, headers).await;
        tls
    }

    /// Somebody who comes now is answered soon.
    async fn newcomer(&self) -> Tls {
        let asked = async {
            let mut tls = self.ask("/", "").await;
            read_until(&mut tls, "nobody").await;
            tls
        };
        tokio::time::timeout(SOON, asked).await.expect("the newcomer is not let in")
    }

    fn closed(&self, caller: &str) -> u64 {
        let text = self.metrics.render();
        let series = format!("podlog_connections_closed_total{{caller=\"{caller}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
    }
}

async fn send(tls: &mut Tls, path: &str, headers: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    tls.write_all(head.as_bytes()).await.unwrap();
}

async fn read_until(tls: &mut Tls, end: &str) {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut some = [0; 256];
        let count = tls.read(&mut some).await.unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&read));
        read.extend(&some[..count]);
    }
}

/// Whether it is still open a while later.
async fn is_open(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 64])).await.is_err()
}

async fn closes(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection stays open");
}

#[tokio::test]
async fn crowds_that_say_nothing_keep_nobody_out() {
    let world = world(12).await;
    let mut follow = world.ask("/follow", "").await;
    read_until(&mut follow, "line\r\n").await;
    let mut pending = world.ask("/slow", "").await;
    world.handler.entered.notified().await;
    let mut crowd = Vec::new();
    for _ in 0..5 {
        for kind in 0..5 {
            crowd.push(world.silent(kind).await);
        }
        drop(world.newcomer().await);
    }
    // There was room for ten of the crowd.
    assert!(world.closed("unknown") >= 15, "{}", world.closed("unknown"));
    assert_eq!(world.closed("known"), 0);
    assert!(is_open(&mut follow).await && is_open(&mut pending).await, "who is served stays");
    world.handler.release.notify_one();
    read_until(&mut pending, "at last").await;
}

#[tokio::test]
async fn who_comes_while_all_are_served_waits_for_the_first_that_is_not() {
    let world = world(2).await;
    let mut follow = world.ask("/follow", ADMIN).await;
    read_until(&mut follow, "line\r\n").await;
    let mut pending = world.ask("/slow", ADMIN).await;
    world.handler.entered.notified().await;
    let mut newcomer = pin!(world.newcomer());
    let early = tokio::time::timeout(Duration::from_millis(300), &mut newcomer).await;
    assert!(early.is_err(), "there is no room");
    world.handler.release.notify_one();
    read_until(&mut pending, "at last").await;
    newcomer.await;
    closes(&mut pending).await;
    assert!(is_open(&mut follow).await);
    assert_eq!((world.closed("unknown"), world.closed("known")), (0, 1));
}

#[tokio::test]
async fn the_address_with_the_largest_crowd_loses_first() {
    let world = world(6).await;
    let mut first = world.tcp(2).await;
    let mut crowd = Vec::new();
    for _ in 0..5 {
        crowd.push(world.tls("http/1.1", 3).await.unwrap());
    }
    let mut newcomer = world.newcomer().await;
    closes(&mut crowd[0]).await;
    for other in &mut crowd[1..] {
        assert!(is_open(other).await);
    }
    assert!(is_open(&mut first).await && is_open(&mut newcomer).await);
    assert_eq!(world.closed("unknown"), 1);
}

#[tokio::test]
async fn idle_connections_of_those_who_are_known_go_after_strangers_and_are_told() {
    let world = world(3).await;
    let mut known = world.ask("/", ADMIN).await;
    read_until(&mut known, "admin").await;
    let mut other = world.tls("h2", 1).await.unwrap();
    // :method GET, :scheme https, :authority x, :path /, authorization: Bearer admin, as RFC 7541 writes them.
    let head = b"\x82\x87\x41\x01x\x84\x0f\x08\x0cBearer admin";
    other.write_all(&[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &frame(head)].concat()).await.unwrap();
    read_until(&mut other, "admin").await;
    let mut stranger = world.tcp(1).await;
    let _one = world.newcomer().await;
    closes(&mut stranger).await;
    assert!(is_open(&mut known).await);
    // The newcomers are strangers themselves: they go one for the other, unless they are served.
    let mut follows = Vec::new();
    for _ in 0..3 {
        let mut follow = tokio::time::timeout(SOON, world.ask("/follow", "")).await.unwrap();
        read_until(&mut follow, "line\r\n").await;
        follows.push(follow);
    }
    closes(&mut known).await;
    let mut rest = Vec::new();
    // TLS may end without its own word.
    let _ = tokio::time::timeout(SOON, other.read_to_end(&mut rest)).await.unwrap();
    let goaway = [7, 0, 0, 0, 0, 0];
    assert!(rest.windows(6).any(|window| window == goaway), "no word of parting: {rest:?}");
    assert_eq!((world.closed("unknown"), world.closed("known")), (2, 2));
}

/// A request on stream 1.
fn frame(head: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(head.len()).unwrap(), 1, 5, 0, 0, 0, 1], head].concat()
}

#[tokio::test]
async fn refusals_that_nobody_reads_keep_nobody_out() {
    let world = world(4).await;
    let mut crowd = Vec::new();
    for _ in 0..4 {
        let mut tls = world.tls("h2", 1).await.unwrap();
        // Windows of no bytes.
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
        let request = frame(b"\x82\x87\x41\x01x\x44\x08/refused");
        tls.write_all(&[PREFACE, &settings, &request].concat()).await.unwrap();
        // The head has no window.
        while tls.read_u8().await.unwrap() != 1 {}
        crowd.push(tls);
    }
    for _ in 0..3 {
        drop(world.newcomer().await);
    }
    assert!(world.closed("unknown") >= 1);
}
