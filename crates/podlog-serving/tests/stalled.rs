//! What a relayed stream holds when its reader stalls, by what its node could send.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use podlog_serving::{
    Body, Connection, Handler, Limits, NodeClient, NodeClientConfig, Peer, Server, ServerTls, Verify,
    install_crypto_provider, relay_body,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// What a stream may take of the relay's memory.
const HELD: usize = 64 << 10;
/// What the kernel may hold besides: unsent bytes as [`HELD`] allows for, and a segment or two under way.
const IN_KERNEL: usize = 320 << 10;

/// Relays a node's stream.
struct Relay {
    nodes: NodeClient,
    node: SocketAddr,
}

#[async_trait]
impl Handler for Relay {
    async fn handle(&self, _: Request<Incoming>, _: Peer) -> Response<Body> {
        let answer = self.nodes.get("127.0.0.1", self.node.port(), "/", Verify::Ca).await.unwrap();
        Response::new(relay_body(answer.into_body(), (), |(), _| ()))
    }
}

struct World {
    _folder: tempfile::TempDir,
    ca: CertificateAuthority,
    /// Of the relay.
    address: SocketAddr,
    /// Bytes that the node could send.
    sent: Arc<AtomicUsize>,
}

async fn world() -> World {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::load_or_create(folder.path(), "ca", "podlog").unwrap();
    let files = KeyPairFiles::in_folder(folder.path(), "server");
    ca.ensure(&files, &CertificateRequest::serving("server", ["localhost", "127.0.0.1"])).unwrap();
    let tls = ServerTls::load(files).unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let node = node(tls.clone(), sent.clone()).await;
    let config =
        NodeClientConfig { ca: Some(ca.certificate_path().to_owned()), ..NodeClientConfig::default() };
    let relay = Relay { nodes: NodeClient::new(config).unwrap(), node };
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, Limits::default()).await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.serve(Arc::new(relay), CancellationToken::new()));
    World { _folder: folder, ca, address, sent }
}

/// Answers everything with a stream that has no end, of which it sends what it may.
async fn node(tls: ServerTls, sent: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(tls.accept(tcp).await.unwrap(), sent.clone()));
        }
    });
    address
}

async fn serve(connection: Box<dyn Connection>, sent: Arc<AtomicUsize>) {
    let mut connection = h2::server::handshake(connection).await.unwrap();
    while let Some(Ok((_, mut answer))) = connection.accept().await {
        let (mut stream, sent) = (answer.send_response(Response::new(()), false).unwrap(), sent.clone());
        tokio::spawn(async move {
            stream.reserve_capacity(1 << 20);
            while let Some(Ok(room)) = std::future::poll_fn(|context| stream.poll_capacity(context)).await {
                stream.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
                sent.fetch_add(room, Ordering::SeqCst);
                stream.reserve_capacity(1 << 20);
            }
        });
    }
}

impl World {
    /// A connection whose client's kernel takes little.
    async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.certificate_pem().as_bytes()).unwrap()).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    /// What the node has sent when it can send no more.
    async fn sent_in_the_end(&self) -> usize {
        let sent = || self.sent.load(Ordering::SeqCst);
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if sent() > 0 && sent() == before {
                return before;
            }
            before = sent();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_window_is_closed_holds_little() {
    // Before its first byte, and within a frame.
    for window in [0, 10_000] {
        let world = world().await;
        let mut builder = h2::client::Builder::new();
        let handshake = builder.initial_window_size(window).handshake::<_, Bytes>(world.connect(b"h2").await);
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let request = || Request::get("https://localhost/").body(()).unwrap();
        let (answer, _) = sender.send_request(request(), true).unwrap();
        let first = answer.await.unwrap();
        let most = HELD + window as usize;
        let held = world.sent_in_the_end().await;
        assert!(held < most, "{held} bytes are held for a stream that takes {window}");
        sender = sender.ready().await.unwrap();
        let (answer, _) = sender.send_request(request(), true).unwrap();
        let second = answer.await.unwrap();
        let both = world.sent_in_the_end().await;
        assert!(both > held && both < 2 * most, "{both} bytes are held for two streams on one connection");
        drop((first, second));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_makes_neither_us_nor_the_kernel_hold_much() {
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let world = world().await;
        let mut tls = world.connect(protocol).await;
        if protocol == b"h2" {
            // Settings with the largest window, the largest window of the connection, and the request.
            tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff")
                .await
                .unwrap();
            tls.write_all(b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0").await.unwrap();
            tls.write_all(b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x87\x84\x41\x09localhost").await.unwrap();
        } else {
            tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        }
        let held = world.sent_in_the_end().await;
        let protocol = String::from_utf8_lossy(protocol);
        assert!(
            held < HELD + IN_KERNEL,
            "{held} bytes are held for a client of {protocol} that reads nothing"
        );
        // Once it reads, everything flows.
        let mut taken = vec![0; held + (1 << 20)];
        tokio::time::timeout(Duration::from_secs(30), tls.read_exact(&mut taken)).await.unwrap().unwrap();
        assert!(world.sent_in_the_end().await > held);
    }
}
