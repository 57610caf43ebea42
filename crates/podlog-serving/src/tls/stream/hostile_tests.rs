//! Our ends against peers that send what no library would, cut anywhere.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundPlainMessage,
};
use rustls::version::{TLS12, TLS13};
use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tests::{configs, exchange, name, our_client, our_server};
use super::*;

/// `key_update` (RFC 8446, 4.6.3), which asks for one in return.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 1];
/// Alert `close_notify` (RFC 8446, 6.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// A client with TLS 1.3 that makes its records by itself.
struct Peer {
    io: DuplexStream,
    encrypter: Box<dyn MessageEncrypter>,
    sent: u64,
    decrypter: Box<dyn MessageDecrypter>,
    read: u64,
}

impl Peer {
    /// One that has shaken hands with us.
    async fn connect() -> (Peer, ServerStream<DuplexStream>) {
        let (client, server) = configs(&TLS13);
        let mut client = (*client).clone();
        client.enable_secret_extraction = true;
        let (near, far) = duplex(1 << 20);
        let theirs = TlsConnector::from(Arc::new(client));
        let (theirs, mut ours) = tokio::join!(theirs.connect(name(), near), our_server(far, server));
        let mut theirs = theirs.unwrap();
        // After this, the session tickets have been read, which are records, too.
        ours.write_all(b"!").await.unwrap();
        ours.flush().await.unwrap();
        theirs.read_exact(&mut [0]).await.unwrap();
        let (io, session) = theirs.into_inner();
        let Some(SupportedCipherSuite::Tls13(suite)) = session.negotiated_cipher_suite() else {
            panic!("not TLS 1.3")
        };
        let secrets = session.dangerous_extract_secrets().unwrap();
        let key = |secrets| match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("another cipher"),
        };
        let ((sent, to_send), (read, to_read)) = (secrets.tx, secrets.rx);
        let ((send_key, send_iv), (read_key, read_iv)) = (key(to_send), key(to_read));
        let encrypter = suite.aead_alg.encrypter(send_key, send_iv);
        let decrypter = suite.aead_alg.decrypter(read_key, read_iv);
        (Peer { io, encrypter, sent, decrypter, read }, ours)
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: payload.into() };
        self.sent += 1;
        self.encrypter.encrypt(plain, self.sent - 1).unwrap().encode()
    }

    async fn send(&mut self, typ: ContentType, payload: &[u8]) {
        let record = self.record(typ, payload);
        self.io.write_all(&record).await.unwrap();
    }

    /// The next record, or nothing at the end.
    async fn next(&mut self) -> Option<(ContentType, Vec<u8>)> {
        let mut head = [0; 5];
        self.io.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        self.io.read_exact(&mut payload).await.ok()?;
        let sealed = InboundOpaqueMessage::new(head[0].into(), ProtocolVersion::TLSv1_2, &mut payload);
        let plain = self.decrypter.decrypt(sealed, self.read).unwrap();
        self.read += 1;
        Some((plain.typ, plain.payload.to_vec()))
    }
}

#[tokio::test]
async fn half_a_message_of_the_handshake_holds_up_nothing_that_we_say() {
    for half in 1..KEY_UPDATE.len() {
        let (mut peer, mut ours) = Peer::connect().await;
        let hello = (ContentType::ApplicationData, b"hello".to_vec());
        let agreed = (ContentType::Handshake, vec![24, 0, 0, 1, 0]);
        for (part, said) in [(&KEY_UPDATE[..half], hello), (&KEY_UPDATE[half..], agreed)] {
            peer.send(ContentType::Handshake, part).await;
            assert_says_nothing(&mut ours).await;
            ours.write_all(b"hello").await.unwrap();
            ours.flush().await.unwrap();
            assert_eq!(peer.next().await.unwrap(), said);
        }
    }
}

/// Reads all that there is, of which nothing is for us.
async fn assert_says_nothing(ours: &mut ServerStream<DuplexStream>) {
    let mut byte = [0];
    let read = std::pin::pin!(ours.read(&mut byte));
    assert!(futures_util::poll!(read).is_pending());
}

#[tokio::test]
async fn who_breaks_the_rules_is_refused_whenever_that_is_noticed() {
    use ContentType::{Alert, ApplicationData, Handshake};
    let long = [&[24, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat();
    let rows: [(&str, ContentType, &[u8], usize); 8] = [
        ("empty records", ApplicationData, b"", 1_000),
        ("empty messages of the handshake", Handshake, b"", 1_000),
        ("changes of keys", Handshake, &[24, 0, 0, 1, 0], 2),
        ("a message that is too long", Handshake, &long, 10),
        ("another hello", Handshake, &[1, 0, 0, 1, 0], 1),
        ("warnings", Alert, &[1, 90], 100),
        ("a fatal alert", Alert, &[2, 80], 1),
        ("half an alert", Alert, &[1], 1),
    ];
    for (what, typ, payload, times) in rows {
        let (mut peer, mut ours) = Peer::connect().await;
        for _ in 0..times {
            let record = peer.record(typ, payload);
            peer.io.write_all(&record).await.unwrap();
        }
        let error = ours.read(&mut [0; 9]).await.expect_err(what);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
        assert!(ours.tls.kept.len() <= MAX_KEPT, "{what}");
        // It stays so, whatever comes and goes.
        peer.send(ApplicationData, b"hello").await;
        assert!(ours.read(&mut [0; 9]).await.is_err(), "{what}");
        assert!(ours.write(b"hello").await.is_err(), "{what}");
        ours.shutdown().await.unwrap();
        while peer.next().await.is_some() {}
    }
}

#[tokio::test]
async fn half_a_message_and_something_else_is_refused_with_a_word() {
    let (mut peer, mut ours) = Peer::connect().await;
    peer.send(ContentType::Handshake, &KEY_UPDATE[..2]).await;
    assert_says_nothing(&mut ours).await;
    peer.io.write_all(&[23, 3, 3, 0, 30]).await.unwrap();
    peer.io.write_all(&[7; 30]).await.unwrap();
    let error = ours.read(&mut [0]).await.unwrap_err();
    assert!(error.to_string().contains("decrypt"), "{error}");
    assert_eq!(peer.next().await.unwrap(), (ContentType::Alert, vec![2, 20]), "fatal, bad record");
}

#[tokio::test]
async fn records_may_be_small_and_come_in_pieces() {
    let (mut peer, mut ours) = Peer::connect().await;
    let text: Vec<u8> = (0..19_000_u32).map(|n| (n % 251) as u8).collect();
    let mut stream = Vec::new();
    for byte in &text[..3_000] {
        stream.extend(peer.record(ContentType::ApplicationData, &[*byte]));
        stream.extend(peer.record(ContentType::ApplicationData, b""));
    }
    stream.extend(peer.record(ContentType::ApplicationData, &text[3_000..]));
    stream.extend(peer.record(ContentType::Alert, &CLOSE_NOTIFY));
    stream.extend(b"what comes after that is nothing");
    let send = async {
        for piece in stream.chunks(7) {
            peer.io.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut read = Vec::new();
    let ((), count) = tokio::join!(send, ours.read_to_end(&mut read));
    assert!(count.unwrap() == text.len() && read == text);
    // Who has said enough may still listen.
    ours.write_all(b"goodbye").await.unwrap();
    ours.shutdown().await.unwrap();
    assert_eq!(peer.next().await.unwrap().1, b"goodbye");
    assert_eq!(peer.next().await.unwrap(), (ContentType::Alert, CLOSE_NOTIFY.to_vec()));
    assert!(ours.write(b"x").await.is_err(), "we have said that nothing more comes");
}

/// Passes records on, those of the handshake that are not encrypted in records of so many bytes each; ends after `until` bytes.
async fn cut(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    size: usize,
    mut until: usize,
) {
    const CHANGE_CIPHER_SPEC: u8 = 20;
    const HANDSHAKE: u8 = 22;
    let mut is_plain = true;
    let mut head = [0; 5];
    'all: while from.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        if from.read_exact(&mut payload).await.is_err() {
            break;
        }
        is_plain &= head[0] != CHANGE_CIPHER_SPEC;
        let size = if is_plain && head[0] == HANDSHAKE { size } else { payload.len().max(1) };
        for part in payload.chunks(size) {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            let record = [&head[..3], &length, part].concat();
            let sent = record.len().min(until);
            if to.write_all(&record[..sent]).await.is_err() || sent < record.len() {
                break 'all;
            }
            until -= sent;
            // Each arrives alone.
            tokio::task::yield_now().await;
        }
    }
    let _ = to.shutdown().await;
}

/// Two ends whose handshakes are cut small, in both directions.
fn cut_pipe(size: usize, until: usize) -> (DuplexStream, DuplexStream) {
    let ((near, inner_near), (inner_far, far)) = (duplex(100_000), duplex(100_000));
    let ((from_near, to_near), (from_far, to_far)) = (split(inner_near), split(inner_far));
    tokio::spawn(cut(from_near, to_far, size, until));
    tokio::spawn(cut(from_far, to_near, size, until));
    (near, far)
}

#[tokio::test]
async fn hands_are_shaken_in_records_of_any_size() {
    for version in [&TLS12, &TLS13] {
        let (client, server) = configs(version);
        for size in [1, 3, 100, 1_000] {
            let (near, far) = cut_pipe(size, usize::MAX);
            let theirs = TlsAcceptor::from(server.clone());
            let (ours, theirs) = tokio::join!(our_client(near, client.clone()), theirs.accept(far));
            exchange(ours, theirs.unwrap()).await;

            let (near, far) = cut_pipe(size, usize::MAX);
            let theirs = TlsConnector::from(client.clone());
            let (theirs, ours) = tokio::join!(theirs.connect(name(), near), our_server(far, server.clone()));
            exchange(theirs.unwrap(), ours).await;
        }
    }
}

#[tokio::test]
async fn a_connection_may_break_at_any_byte() {
    for version in [&TLS12, &TLS13] {
        let (client, server) = configs(version);
        for until in (0..2_500).step_by(23) {
            let (near, far) = cut_pipe(500, until);
            let session = UnbufferedClientConnection::new(client.clone(), name()).unwrap();
            let one = ClientStream::new(near, session);
            let other = ServerStream::new(far, UnbufferedServerConnection::new(server.clone()).unwrap());
            let both = async { tokio::join!(talk(one), talk(other)) };
            let (at_one, at_other) = tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
            for end in [at_one, at_other] {
                let kind = end.unwrap_err().kind();
                assert!(matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe), "{kind:?}");
            }
        }
    }
}

/// Says and hears more than either way lets through, and hangs up.
async fn talk<S: Session>(mut stream: TlsStream<DuplexStream, S>) -> io::Result<()> {
    stream.handshake().await?;
    stream.write_all(&[7; 3_000]).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; 3_000]).await?;
    Ok(())
}
