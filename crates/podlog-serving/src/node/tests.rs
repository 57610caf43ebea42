//! Nodes that answer, and all the ways in which they do not.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::dial::Timeouts;
use super::{NodeClient, NodeClientConfig, Verify};
use crate::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use crate::{Body, BodySender, Handler, Limits, Peer, Server, ServerTls, stream_body, text_body};

struct Node;

#[async_trait]
impl Handler for Node {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let (sender, stream) = stream_body();
        match path.as_str() {
            "/redirect" => {
                let mut response = Response::new(text_body(""));
                *response.status_mut() = http::StatusCode::FOUND;
                response.headers_mut().insert("location", "https://elsewhere/".parse().unwrap());
                return response;
            }
            "/break" => drop(tokio::spawn(async move {
                sender.send("part").await.unwrap();
                sender.fail("no disk").await;
            })),
            "/follow" => drop(tokio::spawn(follow(sender))),
            "/port" => return Response::new(text_body(peer.address.port().to_string())),
            "/certificates" => return Response::new(text_body(peer.certificate_chain.len().to_string())),
            _ => {
                return Response::new(text_body(format!(
                    "{path}?{}",
                    request.uri().query().unwrap_or_default()
                )));
            }
        }
        Response::new(stream)
    }
}

static FOLLOWERS: AtomicUsize = AtomicUsize::new(0);

async fn follow(sender: BodySender) {
    FOLLOWERS.fetch_add(1, Ordering::SeqCst);
    sender.send("first").await.unwrap();
    sender.closed().await;
    FOLLOWERS.fetch_sub(1, Ordering::SeqCst);
}

struct World {
    folder: tempfile::TempDir,
    ca: CertificateAuthority,
}

impl World {
    fn new() -> Self {
        crate::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::load_or_create(folder.path(), "ca", "podlog").unwrap();
        World { folder, ca }
    }

    fn client(&self) -> NodeClient {
        let files = KeyPairFiles::in_folder(self.folder.path(), "client");
        self.ca.ensure(&files, &CertificateRequest::client("apiserver", None)).unwrap();
        let config = NodeClientConfig {
            client: Some(files),
            ca: Some(self.ca.certificate_path().to_owned()),
            ..NodeClientConfig::default()
        };
        let timeouts = Timeouts { dial: Duration::from_secs(5), handshake: Duration::from_millis(200) };
        NodeClient::with_timeouts(config, timeouts).unwrap()
    }

    fn certificate(&self, authority: &CertificateAuthority, request: &CertificateRequest) -> ServerTls {
        let name = uuid::Uuid::new_v4().to_string();
        let files = KeyPairFiles::in_folder(self.folder.path(), &name);
        authority.ensure(&files, request).unwrap();
        ServerTls::load(files).unwrap()
    }

    fn good(&self) -> ServerTls {
        self.certificate(&self.ca, &CertificateRequest::serving("node", ["127.0.0.1"]))
    }
}

async fn node(tls: ServerTls) -> (SocketAddr, CancellationToken) {
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, Limits::default()).await.unwrap();
    let address = server.local_addr();
    let shutdown = CancellationToken::new();
    tokio::spawn(server.serve(Arc::new(Node), shutdown.clone()));
    (address, shutdown)
}

async fn text_of(client: &NodeClient, port: u16, path: &str, verify: Verify) -> String {
    match client.get("127.0.0.1", port, path, verify).await {
        Ok(response) => match response.into_body().collect().await {
            Ok(body) => String::from_utf8(body.to_bytes().to_vec()).unwrap(),
            Err(error) => format!("body: {error}"),
        },
        Err(error) => {
            let text = error.to_string();
            let prefix = format!("Get \"https://127.0.0.1:{port}{path}\": ");
            text.strip_prefix(&prefix).unwrap_or(&text).to_owned()
        }
    }
}

#[tokio::test]
async fn answers_come_over_one_connection() {
    let world = World::new();
    let (address, _shutdown) = node(world.good()).await;
    let client = world.client();
    let get = |path| text_of(&client, address.port(), path, Verify::Ca);
    assert_eq!(get("/a/b?c=d%3A1").await, "/a/b?c=d%3A1");
    assert_eq!(get("/certificates").await, "1");
    assert_eq!(get("/port").await, get("/port").await);
    assert_eq!(get("/redirect").await, "Get \"https://elsewhere/\": redirects forbidden");
    let broken = get("/break").await;
    assert!(broken.starts_with("body: "), "{broken}");
}

#[tokio::test]
async fn certificates_that_changed_are_shown_over_new_connections() {
    let world = World::new();
    let (address, _shutdown) = node(world.good()).await;
    let (old, new) = (world.client(), world.client());
    let get = |client: NodeClient| async move { text_of(&client, address.port(), "/port", Verify::Ca).await };
    let before = get(old.clone()).await;
    assert_eq!(get(old.clone()).await, before, "a connection is used again");
    assert_ne!(get(new).await, before);
    assert_ne!(
        text_of(&old, address.port(), "/port", Verify::Skip).await,
        before,
        "skipping shares with nobody"
    );
}

#[tokio::test]
async fn dropping_the_body_cancels_the_request() {
    let world = World::new();
    let (address, _shutdown) = node(world.good()).await;
    let response = world.client().get("127.0.0.1", address.port(), "/follow", Verify::Ca).await.unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((first.as_ref(), FOLLOWERS.load(Ordering::SeqCst)), (b"first".as_slice(), 1));
    drop(body);
    wait_until(|| FOLLOWERS.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_node_that_restarts_is_dialled_again() {
    let world = World::new();
    let (address, shutdown) = node(world.good()).await;
    let client = world.client();
    assert_eq!(text_of(&client, address.port(), "/1", Verify::Ca).await, "/1?");
    shutdown.cancel();
    let server = loop {
        match Server::bind(address, world.good(), Limits::default()).await {
            Ok(server) => break server,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    tokio::spawn(server.serve(Arc::new(Node), CancellationToken::new()));
    assert_eq!(text_of(&client, address.port(), "/2", Verify::Ca).await, "/2?");
}

#[tokio::test]
async fn certificates_are_refused_in_gos_words() {
    let world = World::new();
    let foreign = CertificateAuthority::load_or_create(world.folder.path(), "foreign", "other").unwrap();
    let twin = CertificateAuthority::load_or_create(world.folder.path(), "twin", "podlog").unwrap();
    let serving = |names: &[&str]| CertificateRequest::serving("node", names.iter().copied());
    let expired = expired_certificate(&world);
    let x509 = "tls: failed to verify certificate: x509: ";
    let unknown = "certificate signed by unknown authority";
    let rows = [
        (world.certificate(&foreign, &serving(&["127.0.0.1"])), unknown.to_owned()),
        (
            world.certificate(&twin, &serving(&["127.0.0.1"])),
            format!(
                "{unknown} (possibly because of \"x509: ECDSA verification failure\" while trying to verify candidate authority certificate \"podlog\")"
            ),
        ),
        (
            world.certificate(&world.ca, &serving(&["node"])),
            "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs".into(),
        ),
        (
            world.certificate(&world.ca, &serving(&["10.0.0.1", "10.0.0.2"])),
            "certificate is valid for 10.0.0.1, 10.0.0.2, not 127.0.0.1".into(),
        ),
        (
            world.certificate(&foreign, &serving(&["10.0.0.1"])),
            "certificate is valid for 10.0.0.1, not 127.0.0.1".into(),
        ),
        (
            world.certificate(
                &world.ca,
                &CertificateRequest {
                    alternative_names: vec!["127.0.0.1".into()],
                    ..CertificateRequest::client("node", None)
                },
            ),
            "certificate specifies an incompatible key usage".into(),
        ),
        (expired, "certificate has expired or is not yet valid: current time ".into()),
    ];
    let client = world.client();
    for (tls, text) in rows {
        let (address, _shutdown) = node(tls).await;
        let said = text_of(&client, address.port(), "/ok", Verify::Ca).await;
        assert!(said.starts_with(&format!("{x509}{text}")), "{said}");
        assert_eq!(text_of(&client, address.port(), "/ok", Verify::Skip).await, "/ok?");
    }
}

fn expired_certificate(world: &World) -> ServerTls {
    let files = KeyPairFiles::in_folder(world.folder.path(), "expired");
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(40 * 365 * 24 * 60 * 60);
    let request = CertificateRequest::serving("node", ["127.0.0.1"]);
    let (certificate, key) = world.ca.issue_at(&request, long_ago).unwrap();
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    ServerTls::load(files).unwrap()
}

/// What a peer without TLS does with a connection.
#[derive(Clone, Copy)]
enum Peculiar {
    Closes,
    SpeaksHttp,
    SaysNothing,
    Alerts,
    Babbles,
    Resets,
}

async fn peculiar(how: Peculiar) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        behave(&mut tcp, how).await;
    });
    port
}

async fn behave(tcp: &mut TcpStream, how: Peculiar) {
    // The client's hello is longer than one read.
    let mut hello = [0; 16384];
    let _ = tcp.read(&mut hello).await.unwrap();
    let answer: &[u8] = match how {
        Peculiar::Closes | Peculiar::Resets => b"",
        Peculiar::SpeaksHttp => {
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
        }
        Peculiar::Alerts => &[21, 3, 3, 0, 2, 2, 80],
        Peculiar::Babbles => b"SSH-2.0-OpenSSH_9.2\r\n",
        Peculiar::SaysNothing => return std::future::pending().await,
    };
    tcp.write_all(answer).await.unwrap();
    if matches!(how, Peculiar::Resets) {
        rustix::net::sockopt::set_socket_linger(&tcp, Some(Duration::ZERO)).unwrap();
    }
}

#[tokio::test]
async fn peers_that_are_no_node_are_told_apart() {
    // Taken, and nobody listens there.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let closed = taken.local_addr().unwrap().port();
    let rows = [
        (closed, format!("dial tcp 127.0.0.1:{closed}: connect: connection refused")),
        (peculiar(Peculiar::Closes).await, "EOF".into()),
        (peculiar(Peculiar::SpeaksHttp).await, "http: server gave HTTP response to HTTPS client".into()),
        (peculiar(Peculiar::SaysNothing).await, "net/http: TLS handshake timeout".into()),
        (peculiar(Peculiar::Alerts).await, "remote error: tls: internal error".into()),
        (peculiar(Peculiar::Babbles).await, "tls: first record does not look like a TLS handshake".into()),
        (peculiar(Peculiar::Resets).await, "read tcp 127.0.0.1:".into()),
    ];
    let client = World::new().client();
    for (port, text) in rows {
        let said = text_of(&client, port, "/", Verify::Ca).await;
        assert!(said.starts_with(&text), "{said} instead of {text}");
    }
    let reset = text_of(&client, peculiar(Peculiar::Resets).await, "/", Verify::Ca).await;
    assert!(reset.ends_with(": read: connection reset by peer"), "{reset}");
}

/// How a node with TLS fails before it answers.
#[derive(Clone, Copy)]
enum Failing {
    WantsAnotherCertificate,
    ResetsTheConnection,
    Closes,
    ResetsTheStream,
}

/// A node that speaks `protocol` and fails.
async fn failing(world: &World, protocol: &[u8], how: Failing) -> u16 {
    let files = KeyPairFiles::in_folder(world.folder.path(), "failing");
    world.ca.ensure(&files, &CertificateRequest::serving("node", ["127.0.0.1"])).unwrap();
    let own = crate::tls::load_key_pair(&files).unwrap();
    let config = rustls::ServerConfig::builder();
    let foreign = CertificateAuthority::load_or_create(world.folder.path(), "foreign", "other").unwrap();
    let config = match how {
        Failing::WantsAnotherCertificate => {
            let roots = Arc::new(crate::tls::load_roots(foreign.certificate_path()).unwrap());
            config.with_client_cert_verifier(
                rustls::server::WebPkiClientVerifier::builder(roots).build().unwrap(),
            )
        }
        _ => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![protocol.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let is_http2 = protocol == b"h2";
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let Ok(mut tls) = acceptor.accept(listener.accept().await.unwrap().0).await else { return };
        match how {
            Failing::ResetsTheStream if is_http2 => {
                let mut connection = h2::server::handshake(tls).await.unwrap();
                let (_, mut answer) = connection.accept().await.unwrap().unwrap();
                answer.send_reset(h2::Reason::INTERNAL_ERROR);
                std::future::poll_fn(|context| connection.poll_closed(context)).await.unwrap();
            }
            _ => {
                let _ = tls.read(&mut [0; 16384]).await.unwrap();
                if matches!(how, Failing::ResetsTheConnection) {
                    rustix::net::sockopt::set_socket_linger(tls.get_ref().0, Some(Duration::ZERO)).unwrap();
                } else {
                    tls.shutdown().await.unwrap();
                }
            }
        }
    });
    port
}

#[tokio::test]
async fn nodes_that_fail_after_the_handshake_are_told_apart() {
    let world = World::new();
    let rows = [
        (Failing::WantsAnotherCertificate, "remote error: tls: unknown certificate authority", ""),
        (Failing::ResetsTheConnection, "read tcp 127.0.0.1:", ": read: connection reset by peer"),
        (Failing::Closes, "EOF", "EOF"),
    ];
    for protocol in [&b"h2"[..], b"http/1.1"] {
        for (how, begin, end) in rows {
            let port = failing(&world, protocol, how).await;
            let said = text_of(&world.client(), port, "/", Verify::Ca).await;
            assert!(said.starts_with(begin) && said.ends_with(end), "{said} instead of {begin}");
        }
    }
    let port = failing(&world, b"h2", Failing::ResetsTheStream).await;
    let said = text_of(&world.client(), port, "/", Verify::Ca).await;
    assert_eq!(said, "stream error: INTERNAL_ERROR; received from peer");
}

#[tokio::test]
async fn names_that_mean_nothing_are_said_so() {
    let client = World::new().client();
    let error = client.get("no-such-node.invalid", 10250, "/", Verify::Ca).await.map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "Get \"https://no-such-node.invalid:10250/\": dial tcp: lookup no-such-node.invalid"
        ),
        "{text}"
    );
}

#[test]
fn a_client_does_not_start_without_its_files() {
    crate::install_crypto_provider();
    let config = NodeClientConfig {
        client: None,
        ca: Some(Path::new("/nonexistent/ca.crt").to_owned()),
        ..NodeClientConfig::default()
    };
    let error = NodeClient::new(config).unwrap_err().to_string();
    assert!(error.starts_with("cannot load /nonexistent/ca.crt: No such file"), "{error}");
}

async fn wait_until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
}
