//! The server over real sockets, with both protocols.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use podlog_serving::{
    Body, Drained, Handler, Limits, Peer, Server, ServerTls, Upgrade, empty_body, full_body,
    install_crypto_provider, stream_body, text_body,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

use Protocol::{Http1, Http2};

#[derive(Default)]
struct Answers {
    entered: AtomicUsize,
    /// Bytes that the connection took of `/flood`.
    flooded: Arc<AtomicUsize>,
    release: Notify,
}

#[async_trait]
impl Handler for Answers {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let Some(upgrade) = Upgrade::of(&mut parts) else {
            return self.plain(Request::from_parts(parts, body), peer).await;
        };
        let headers = parts.headers.clone();
        upgrade.answer(&headers, self.plain(Request::from_parts(parts, body), peer).await.into_body())
    }
}

impl Answers {
    async fn plain(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (sender, stream) = stream_body();
        match request.uri().path() {
            "/panic" => panic!("as asked"),
            "/peer" => {
                Response::new(text_body(format!("{} {}", peer.address.ip(), peer.certificate_chain.len())))
            }
            "/slow" => {
                self.entered.fetch_add(1, Ordering::SeqCst);
                self.release.notified().await;
                Response::new(text_body("at last"))
            }
            "/finish" | "/fail" | "/drop" | "/endless" => {
                let path = request.uri().path().to_owned();
                tokio::spawn(async move {
                    sender.send("some ").await.unwrap();
                    sender.send("lines").await.unwrap();
                    match path.as_str() {
                        "/finish" => sender.finish().await,
                        "/fail" => sender.fail("disk on fire").await,
                        "/endless" => sender.closed().await,
                        _ => drop(sender),
                    }
                });
                Response::new(stream)
            }
            "/flood" => {
                let flooded = self.flooded.clone();
                tokio::spawn(async move {
                    while sender.send(vec![b'x'; 64 << 10]).await.is_ok() {
                        flooded.fetch_add(64 << 10, Ordering::SeqCst);
                    }
                });
                Response::new(stream)
            }
            "/empty" => Response::new(empty_body()),
            "/long" => Response::new(full_body(vec![b'x'; 16 << 20])),
            "/leave" => {
                let mut response = Response::new(text_body("go"));
                response.headers_mut().insert("connection", "close".parse().unwrap());
                response
            }
            _ => {
                let length = request.into_body().collect().await.unwrap().to_bytes().len();
                Response::new(text_body(length.to_string()))
            }
        }
    }
}

struct World {
    _folder: tempfile::TempDir,
    ca: CertificateAuthority,
    files: KeyPairFiles,
    address: SocketAddr,
    handler: Arc<Answers>,
    shutdown: CancellationToken,
    served: JoinHandle<Drained>,
}

async fn world(limits: Limits) -> World {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::load_or_create(folder.path(), "ca", "podlog").unwrap();
    let files = KeyPairFiles::in_folder(folder.path(), "server");
    ca.ensure(&files, &CertificateRequest::serving("server", ["localhost", "127.0.0.1"])).unwrap();
    let tls = ServerTls::load(files.clone()).unwrap();
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, limits).await.unwrap();
    let address = server.local_addr();
    let (handler, shutdown) = (Arc::new(Answers::default()), CancellationToken::new());
    let served = tokio::spawn(server.serve(handler.clone(), shutdown.clone()));
    World { _folder: folder, ca, files, address, handler, shutdown, served }
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Empty<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::get(format!("https://localhost{path}")).header("host", "localhost");
        let request = request.body(Empty::new()).unwrap();
        match self {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }

    async fn text(&mut self, path: &str) -> (u16, String, Option<hyper::Error>) {
        let response = self.get(path).await.unwrap();
        let (status, mut body) = (response.status().as_u16(), response.into_body());
        let mut text = String::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
                Err(error) => return (status, text, Some(error)),
            }
        }
        (status, text, None)
    }
}

impl World {
    async fn tls(
        &self,
        protocol: Protocol,
        own: Option<KeyPairFiles>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.certificate_pem().as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some(files) => {
                let chain =
                    CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
                config
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![if protocol == Http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let tcp = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
    }

    async fn connect(&self, protocol: Protocol) -> Sender {
        self.connect_as(protocol, None).await
    }

    async fn connect_as(&self, protocol: Protocol, own: Option<KeyPairFiles>) -> Sender {
        let io = TokioIo::new(self.tls(protocol, own).await.unwrap());
        match protocol {
            Http1 => {
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Http2 => {
                let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = handshake.unwrap();
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        }
    }
}

#[tokio::test]
async fn bodies_end_as_their_producers_say() {
    let world = world(Limits::default()).await;
    let rows = [
        ("/finish", "some lines", false),
        ("/fail", "some lines", true),
        ("/drop", "some lines", true),
        ("/empty", "", false),
        ("/other", "0", false),
    ];
    for protocol in [Http1, Http2] {
        for (path, text, fails) in rows {
            let (status, said, error) = world.connect(protocol).await.text(path).await;
            assert_eq!((status, said.as_str(), error.is_some()), (200, text, fails), "{protocol:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_handler_that_panics_answers_500_and_the_server_lives() {
    let world = world(Limits::default()).await;
    for protocol in [Http1, Http2] {
        let mut sender = world.connect(protocol).await;
        let (status, text, _) = sender.text("/panic").await;
        assert_eq!((status, text.as_str()), (500, "the request caused a panic, see the server's log\n"));
        assert_eq!(sender.text("/other").await.1, "0");
    }
}

#[tokio::test]
async fn any_client_certificate_is_taken_if_its_key_is_held() {
    let world = world(Limits::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let foreign = CertificateAuthority::load_or_create(folder.path(), "ca", "foreign").unwrap();
    let files = KeyPairFiles::in_folder(folder.path(), "client");
    foreign.ensure(&files, &CertificateRequest::client("mallory", None)).unwrap();
    for protocol in [Http1, Http2] {
        assert_eq!(world.connect(protocol).await.text("/peer").await.1, "127.0.0.1 0");
        let shown = world.connect_as(protocol, Some(files.clone())).await.text("/peer").await.1;
        assert_eq!(shown, "127.0.0.1 1");
    }
}

#[tokio::test]
async fn new_certificates_are_used_without_a_restart() {
    let world = world(Limits::default()).await;
    let leaf = |tls: &TlsStream<TcpStream>| tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let before = leaf(&world.tls(Http2, None).await.unwrap());
    std::fs::remove_file(&world.files.certificate).unwrap();
    assert_eq!(leaf(&world.tls(Http2, None).await.unwrap()), before, "the last good one stays");
    world.ca.ensure(&world.files, &CertificateRequest::serving("server", ["localhost"])).unwrap();
    wait_until(async || leaf(&world.tls(Http2, None).await.unwrap()) != before).await;
}

#[tokio::test]
async fn draining_finishes_answers_and_cuts_streams() {
    for protocol in [Http1, Http2] {
        let limits = Limits { stream_grace: Duration::from_millis(50), ..Limits::default() };
        let world = world(limits).await;
        let (mut slow, mut endless, _idle) =
            (world.connect(protocol).await, world.connect(protocol).await, world.connect(protocol).await);
        let stream = endless.get("/endless").await.unwrap();
        let answer = tokio::spawn(async move { slow.text("/slow").await });
        wait_until(async || world.handler.entered.load(Ordering::SeqCst) == 1).await;
        world.shutdown.cancel();
        wait_until(async || TcpStream::connect(world.address).await.is_err()).await;
        assert!(!world.served.is_finished(), "it waits for the answer");
        world.handler.release.notify_one();
        let (status, text, error) = answer.await.unwrap();
        assert_eq!((status, text.as_str(), error.is_none()), (200, "at last", true));
        assert!(stream.into_body().collect().await.is_err(), "a cut stream ends in an error");
        assert_eq!(world.served.await.unwrap(), Drained { cut: 1 });
    }
}

#[tokio::test]
async fn draining_nothing_is_immediate() {
    let world = world(Limits::default()).await;
    let _idle = (world.connect(Http1).await, world.connect(Http2).await);
    world.shutdown.cancel();
    let drained = tokio::time::timeout(Duration::from_millis(900), world.served).await;
    assert_eq!(drained.unwrap().unwrap(), Drained::default());
}

#[tokio::test]
async fn slow_clients_are_left_behind() {
    let short = Duration::from_millis(100);
    let limits =
        Limits { handshake_timeout: short, header_timeout: short, idle_timeout: short, ..Limits::default() };
    let world = world(limits).await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    closed_by_peer(&mut silent).await;
    let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..];
    for (protocol, head) in
        [(Http1, &b"GET / HTTP/1.1\r\nHost:"[..]), (Http1, b""), (Http2, b""), (Http2, preface)]
    {
        let mut tls = world.tls(protocol, None).await.unwrap();
        tls.write_all(head).await.unwrap();
        closed_by_peer(&mut tls).await;
    }
}

#[tokio::test]
async fn who_is_told_to_leave_gets_what_is_under_way_and_no_more() {
    let world = world(Limits::default()).await;
    let Sender::Http2(sender) = world.connect(Http2).await else { unreachable!() };
    let mut slow = Sender::Http2(sender.clone());
    let answer = tokio::spawn(async move { slow.text("/slow").await });
    wait_until(async || world.handler.entered.load(Ordering::SeqCst) == 1).await;
    let told = Sender::Http2(sender.clone()).get("/leave").await.unwrap();
    assert_eq!(told.headers().get("connection"), None, "HTTP/2 has no such header");
    assert_eq!(told.into_body().collect().await.unwrap().to_bytes(), "go");
    // One that crossed the word on its way is answered as well.
    wait_until(async || Sender::Http2(sender.clone()).get("/other").await.is_err()).await;
    world.handler.release.notify_one();
    let (status, text, error) = answer.await.unwrap();
    assert_eq!((status, text.as_str(), error.is_none()), (200, "at last", true));
    wait_until(async || sender.is_closed()).await;
    // Over HTTP/1.1 it is the header that says so.
    let mut sender = world.connect(Http1).await;
    assert_eq!(sender.get("/leave").await.unwrap().headers()["connection"], "close");
}

#[tokio::test]
async fn who_does_not_leave_is_left() {
    let world = world(Limits { leave_grace: Duration::from_millis(50), ..Limits::default() }).await;
    for goes_on in [false, true] {
        let mut tls = world.tls(Http2, None).await.unwrap();
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        // Nothing that it is asked is answered.
        let (mut reader, mut writer) = tokio::io::split(tls);
        let asking = tokio::spawn(async move {
            let head = b"\x82\x87\x41\x01x\x44\x06/leave";
            for stream in (1_u32..).step_by(2).map(u32::to_be_bytes) {
                let frame = [&[0, 0, u8::try_from(head.len()).unwrap(), 1, 0x5], &stream[..], head].concat();
                if writer.write_all(&frame).await.is_err() || !goes_on {
                    return writer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            writer
        });
        closed_by_peer(&mut reader).await;
        asking.await.unwrap();
    }
}

/// Waits for the end; whether it comes as an error is all the same.
async fn closed_by_peer(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection stays open");
}

async fn wait_until(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
}

#[tokio::test]
async fn heads_are_bounded() {
    let world = world(Limits { max_header_bytes: 16 << 10, ..Limits::default() }).await;
    for protocol in [Http1, Http2] {
        for (size, accepted) in [(10 << 10, true), (40 << 10, false)] {
            let request = Request::get("https://localhost/other")
                .header("host", "localhost")
                .header("x", "a".repeat(size));
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let answer = match world.connect(protocol).await {
                Sender::Http1(mut sender) => sender.send_request(request).await,
                Sender::Http2(mut sender) => sender.send_request(request).await,
            };
            let expected =
                if accepted { StatusCode::OK } else { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE };
            assert_eq!(answer.unwrap().status(), expected, "{protocol:?} {size}");
        }
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let world = world(Limits::default()).await;
    let tls = ServerTls::load(world.files.clone()).unwrap();
    let error = Server::bind(world.address, tls, Limits::default()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", world.address));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_own_stream_only() {
    for protocol in [Http1, Http2] {
        let limits = Limits { stream_grace: Duration::from_millis(50), ..Limits::default() };
        let world = world(limits).await;
        let mut sender = world.connect(protocol).await;
        let unread = sender.get("/flood").await.unwrap();
        let flooded = || world.handler.flooded.load(Ordering::SeqCst);
        let is_stalled = async || {
            let before = flooded();
            tokio::time::sleep(Duration::from_millis(100)).await;
            before > 0 && flooded() == before
        };
        wait_until(is_stalled).await;
        assert!(flooded() < 16 << 20, "{protocol:?}: {} bytes are held", flooded());
        let mut neighbour = if protocol == Http2 { sender } else { world.connect(protocol).await };
        assert_eq!(neighbour.text("/other").await.1, "0");
        world.shutdown.cancel();
        let drained = tokio::time::timeout(Duration::from_secs(5), world.served).await.unwrap();
        assert_eq!(drained.unwrap(), Drained { cut: 1 });
        assert!(unread.into_body().collect().await.is_err(), "what was cut does not look complete");
    }
}

#[tokio::test]
async fn what_is_not_read_is_not_kept_for_ever() {
    let limits = Limits {
        send_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(60),
        ..Limits::default()
    };
    let world = world(limits).await;
    for protocol in [Http1, Http2] {
        let mut follower = world.connect(protocol).await;
        let mut endless = follower.get("/endless").await.unwrap().into_body();
        let mut slow = world.connect(protocol).await.get("/long").await.unwrap().into_body();
        while let Ok(frame) = slow.frame().await.expect("it does not look complete") {
            assert!(!slow.is_end_stream(), "{protocol:?}: {frame:?} is the last");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What streams goes on, however slowly.
        let mut read = BytesMut::new();
        while read != "some lines" {
            read.extend(endless.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        let more = tokio::time::timeout(Duration::from_millis(100), endless.frame()).await;
        assert!(more.is_err(), "{protocol:?}: {more:?}");
    }
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_leave_nothing_behind() {
    let world = world(Limits::default()).await;
    let mut tls = world.tls(Http2, None).await.unwrap();
    let mut attack = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // :method GET, :scheme https, :authority x, :path /slow, as RFC 7541 writes them.
    let head = b"\x82\x87\x41\x01x\x44\x05/slow";
    for stream in (1..20_000_u32).step_by(2).map(u32::to_be_bytes) {
        attack.extend([0, 0, u8::try_from(head.len()).unwrap(), 1, 0x5]);
        attack.extend(stream.iter().chain(head));
        attack.extend([0, 0, 4, 3, 0].iter().chain(&stream).chain(&[0, 0, 0, 8]));
    }
    // The server may hang up before it has read everything.
    let _ = tls.write_all(&attack).await;
    closed_by_peer(&mut tls).await;
    assert_eq!(world.connect(Http2).await.text("/other").await.1, "0");
    world.shutdown.cancel();
    assert_eq!(world.served.await.unwrap(), Drained::default());
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// Asks for a WebSocket; what comes back is the head of the answer, and the connection.
async fn ask_for_websocket(world: &World, path: &str, more: &str) -> (String, TlsStream<TcpStream>) {
    let mut tls = world.tls(Http1, None).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n{more}\r\n"
    );
    tls.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(tls.read_u8().await.unwrap());
    }
    (String::from_utf8(answer).unwrap().to_lowercase(), tls)
}

async fn websocket(world: &World, path: &str, more: &str) -> WebSocketStream<TlsStream<TcpStream>> {
    let (head, tls) = ask_for_websocket(world, path, &format!("{KEY}{more}")).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(tls, Role::Client, None).await;
    let greeting = socket.next().await.unwrap().unwrap();
    assert!(greeting.is_empty(), "{greeting:?}");
    socket
}

/// What is said up to the end: binary messages as they are, text in parentheses, and the code of the end.
async fn conversation(mut socket: WebSocketStream<TlsStream<TcpStream>>) -> String {
    let mut said = String::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) => said.push_str(std::str::from_utf8(&bytes).unwrap()),
            Message::Text(text) => said.push_str(&format!("({text})")),
            Message::Close(Some(frame)) => said.push_str(&format!(" {} {}", frame.code, frame.reason)),
            _ => {}
        }
    }
    said
}

#[tokio::test]
async fn bodies_are_told_over_websockets_with_their_ends() {
    let world = world(Limits::default()).await;
    let base64 = "Sec-WebSocket-Protocol: x, base64.binary.k8s.io\r\n";
    for (path, more, expected) in [
        ("/finish", "", "some lines 1000 "),
        ("/finish", base64, "(c29tZSA=)(bGluZXM=) 1000 "),
        ("/fail", "", "some lines 1011 disk on fire"),
        ("/drop", base64, "(c29tZSA=)(bGluZXM=) 1011 the producer stopped before the end"),
    ] {
        assert_eq!(conversation(websocket(&world, path, more).await).await, expected, "{path} {more}");
    }
    let mut plain = world.connect(Http1).await;
    assert_eq!(plain.text("/finish").await.1, "some lines", "who does not ask gets HTTP");
}

#[tokio::test]
async fn websockets_that_cannot_be_are_refused_as_go_refuses_them() {
    let world = world(Limits::default()).await;
    let foreign = format!("{KEY}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n");
    for (more, line, header) in [
        (foreign.as_str(), "http/1.1 403 ", ""),
        (
            "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: x\r\n",
            "http/1.1 400 ",
            "sec-websocket-version: 13",
        ),
        ("Sec-WebSocket-Version: 13\r\n", "http/1.1 400 ", "content-length: 27"),
    ] {
        let (head, _tls) = ask_for_websocket(&world, "/finish", more).await;
        assert!(head.starts_with(line) && head.contains(header), "{more}: {head}");
    }
}

#[tokio::test]
async fn a_silent_websocket_is_kept_awake_and_ends_with_its_client_or_its_server() {
    let short = Duration::from_millis(50);
    let world =
        world(Limits { ping: short, stream_grace: short, idle_timeout: short, ..Limits::default() }).await;
    let mut socket = websocket(&world, "/endless", "").await;
    let mut pings = 0;
    while pings < 3 {
        pings += u32::from(socket.next().await.unwrap().unwrap().is_ping());
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    let mut noisy = websocket(&world, "/endless", "").await;
    noisy.send(Message::Binary(Bytes::from_static(b"nobody listens"))).await.unwrap();
    world.shutdown.cancel();
    assert_eq!(conversation(noisy).await, "some lines 1001 the server is shutting down");
    assert_eq!(world.served.await.unwrap(), Drained { cut: 1 });
}

#[tokio::test]
async fn a_silent_stream_is_kept_awake_however_slowly_pings_are_answered() {
    let limits = Limits { ping: Duration::from_millis(50), ..Limits::default() };
    let world = world(limits).await;
    let mut tls = world.tls(Http2, None).await.unwrap();
    // Preface, empty settings, and a GET of /endless on stream 1 (RFC 9113, RFC 7541).
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let head = b"\x82\x87\x41\x01x\x44\x08/endless";
    request.extend([0, 0, u8::try_from(head.len()).unwrap(), 1, 0x5, 0, 0, 0, 1]);
    request.extend(head);
    tls.write_all(&request).await.unwrap();
    let ping = next_ping(&mut tls).await;
    // A client that was away for a while answers then, and is asked again.
    assert!(tokio::time::timeout(Duration::from_millis(300), tls.read_u8()).await.is_err(), "nothing is cut");
    tls.write_all(&[&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &ping].concat()).await.unwrap();
    next_ping(&mut tls).await;
}

/// The payload of the next PING frame that is not an answer.
async fn next_ping(tls: &mut TlsStream<TcpStream>) -> [u8; 8] {
    loop {
        let mut head = [0; 9];
        tls.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        tls.read_exact(&mut payload).await.unwrap();
        if head[3] == 6 && head[4] & 1 == 0 {
            return payload.try_into().unwrap();
        }
    }
}
