//! Our ends against those of tokio-rustls, over pipes that take little at a time.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls::{AnyServer, provider};

pub(super) fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let client = client.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer::new()));
    let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    (Arc::new(client.with_no_client_auth()), Arc::new(server))
}

pub(super) fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

pub(super) async fn our_client(io: DuplexStream, config: Arc<ClientConfig>) -> ClientStream<DuplexStream> {
    let mut ours = ClientStream::new(io, UnbufferedClientConnection::new(config, name()).unwrap());
    ours.handshake().await.unwrap();
    ours
}

pub(super) async fn our_server(io: DuplexStream, config: Arc<ServerConfig>) -> ServerStream<DuplexStream> {
    let mut ours = ServerStream::new(io, UnbufferedServerConnection::new(config).unwrap());
    ours.handshake().await.unwrap();
    ours
}

/// Something to send, in writes of all sizes, some of them of several slices.
async fn send(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) {
    let mut rest = bytes;
    for size in [1, 9, 16_384, 16_393, 40_000, 3, 70_000].into_iter().cycle() {
        let (head, tail) = rest.split_at(size.min(rest.len()));
        let slices = [IoSlice::new(&head[..head.len() / 100]), IoSlice::new(&head[head.len() / 100..])];
        let sent = to.write_vectored(&slices).await.unwrap();
        rest = &rest[sent..];
        if rest.is_empty() {
            break;
        }
        if tail.len() % 2 == 0 {
            to.flush().await.unwrap();
        }
    }
    to.shutdown().await.unwrap();
}

pub(super) async fn exchange(one: impl AsyncRead + AsyncWrite, other: impl AsyncRead + AsyncWrite) {
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut one_reads, one_writes) = tokio::io::split(one);
    let (mut other_reads, other_writes) = tokio::io::split(other);
    let (mut at_one, mut at_other) = (Vec::new(), Vec::new());
    let (one_read, other_read, (), ()) = tokio::join!(
        one_reads.read_to_end(&mut at_one),
        other_reads.read_to_end(&mut at_other),
        send(one_writes, &bytes),
        send(other_writes, &bytes[..123_456]),
    );
    one_read.unwrap();
    other_read.unwrap();
    assert!(at_other == bytes && at_one == bytes[..123_456]);
}

#[tokio::test]
async fn what_is_sent_arrives_whole_in_both_directions() {
    for version in [&TLS12, &TLS13] {
        let (client, server) = configs(version);
        // A server's last words in a handshake, which its client does not wait for, fit the smallest.
        for size in [1_000, 5_000, 200_000] {
            let (near, far) = duplex(size);
            let theirs = TlsAcceptor::from(server.clone());
            let (ours, theirs) = tokio::join!(our_client(near, client.clone()), theirs.accept(far));
            exchange(ours, theirs.unwrap()).await;

            let (near, far) = duplex(size);
            let theirs = TlsConnector::from(client.clone());
            let (theirs, ours) = tokio::join!(theirs.connect(name(), near), our_server(far, server.clone()));
            exchange(theirs.unwrap(), ours).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_held_at_rest() {
    let (client, server) = configs(&TLS13);
    let (near, far) = duplex(5_000);
    let (mut one, mut other) = tokio::join!(our_client(near, client), our_server(far, server));
    for _ in 0..2 {
        let (sent, read) = (vec![7; 100_000], &mut vec![0; 100_000]);
        let write = async {
            one.write_all(&sent).await.unwrap();
            one.flush().await.unwrap();
        };
        let ((), arrived) = tokio::join!(write, other.read_exact(read));
        arrived.unwrap();
    }
    for queue in [&one.opened, &one.tls.sealed, &other.opened, &other.tls.sealed] {
        assert_eq!((queue.bytes.capacity(), queue.taken), (0, 0));
    }
    assert_eq!((one.tls.kept.capacity(), other.tls.kept.capacity()), (0, 0));
}

#[tokio::test]
async fn keys_change_when_the_peer_wants_it() {
    let (client, server) = configs(&TLS13);
    let (near, far) = duplex(5_000);
    let theirs = TlsAcceptor::from(server);
    let (mut ours, theirs) = tokio::join!(our_client(near, client), theirs.accept(far));
    let mut theirs = theirs.unwrap();
    for word in [b"one", b"two"] {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(word).await.unwrap();
        let mut read = [0; 3];
        ours.read_exact(&mut read).await.unwrap();
        ours.write_all(&read).await.unwrap();
        ours.flush().await.unwrap();
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, word);
    }
}

#[tokio::test]
async fn an_end_without_a_word_is_none() {
    let (client, server) = configs(&TLS13);
    let (near, far) = duplex(5_000);
    let (mut ours, other) = tokio::join!(our_client(near, client), our_server(far, server));
    drop(other);
    let error = ours.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn who_speaks_no_tls_is_told() {
    let (_, server) = configs(&TLS13);
    let (mut near, far) = duplex(5_000);
    near.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut ours = ServerStream::new(far, UnbufferedServerConnection::new(server).unwrap());
    let error = ours.handshake().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()));
    drop(ours);
    let mut told = Vec::new();
    near.read_to_end(&mut told).await.unwrap();
    assert_eq!(told[..1], [21], "an alert (RFC 8446, 5.1)");
}

#[tokio::test]
async fn a_handshake_that_ends_early_has_failed() {
    let (client, _) = configs(&TLS13);
    let (near, mut far) = duplex(5_000);
    let mut ours = ClientStream::new(near, UnbufferedClientConnection::new(client, name()).unwrap());
    let (shaken, ()) = tokio::join!(ours.handshake(), async {
        far.read_exact(&mut [0; 100]).await.unwrap();
        drop(far);
    });
    let kind = shaken.unwrap_err().kind();
    assert!(matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe), "{kind:?}");
}
