//! Channels in a WebSocket: each message begins with the number of its channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use podlog_serving::websocket::Framing;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::channels::{Connection, Out, Stream, out_queue, stream};
use super::spdy::Headers;

/// Bytes of a message, as Go's server has it.
const MAX_MESSAGE: usize = 32 << 20;
/// Bytes that wait on either way through a tunnel.
const TUNNEL: usize = 64 << 10;
const PIECE: usize = 32 << 10;
/// The channel on which a client says that it has closed another (`v5`).
const CLOSE: u8 = 255;

async fn socket<S: AsyncRead + AsyncWrite + Unpin>(connection: S) -> WebSocketStream<S> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// So many channels over a connection that has become a WebSocket.
pub(super) async fn open<S>(connection: S, framing: Framing, count: u8) -> (Connection, Vec<Stream>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (to, from) = socket(connection).await.split();
    let (queue, waiting) = out_queue();
    let channels = (0..count).map(|id| stream(id.into(), Headers::new(), &queue));
    let (channels, feeds): (Vec<_>, Vec<_>) = channels.unzip();
    let feeds = feeds.into_iter().map(Some).collect();
    (Connection::start(queue, read(from, framing, feeds), write(to, framing, waiting)), channels)
}

async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    mut from: SplitStream<WebSocketStream<S>>,
    framing: Framing,
    mut feeds: Vec<Option<mpsc::Sender<Bytes>>>,
) {
    while let Some(Ok(message)) = from.next().await {
        let Some((channel, data)) = unpack(framing, message) else { continue };
        if channel == CLOSE {
            let closed = data.first().and_then(|channel| feeds.get_mut(usize::from(*channel)));
            closed.map(Option::take);
            continue;
        }
        let Some(place) = feeds.get_mut(usize::from(channel)) else { continue };
        if let Some(feed) = place
            && !data.is_empty()
            && feed.send(data).await.is_err()
        {
            // Nobody is interested any more.
            *place = None;
        }
    }
}

async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    mut to: SplitSink<WebSocketStream<S>, Message>,
    framing: Framing,
    mut waiting: mpsc::Receiver<Out>,
) {
    while let Some(out) = waiting.recv().await {
        let message = match out {
            Out::Data(channel, data) => pack(framing, channel, &data),
            Out::Close => {
                let _ = to.send(farewell()).await;
                return;
            }
            // The end of a channel is not said.
            Out::End(_) | Out::Accept(_) | Out::Refuse(_) | Out::Pong(_) => continue,
        };
        if to.send(message).await.is_err() {
            return;
        }
    }
}

fn farewell() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// The channel of a message and what it says; `None` for what is no such message.
fn unpack(framing: Framing, message: Message) -> Option<(u8, Bytes)> {
    match (framing, message) {
        (Framing::Binary, Message::Binary(mut data)) if !data.is_empty() => {
            let channel = data.split_to(1);
            Some((channel[0], data))
        }
        (Framing::Base64, Message::Text(text)) => {
            let (channel, data) = text.as_bytes().split_first()?;
            Some((channel.checked_sub(b'0')?, STANDARD.decode(data).ok()?.into()))
        }
        _ => None,
    }
}

fn pack(framing: Framing, channel: u32, data: &[u8]) -> Message {
    let channel = u8::try_from(channel).unwrap_or(u8::MAX);
    match framing {
        Framing::Binary => {
            let mut message = BytesMut::with_capacity(1 + data.len());
            message.put_u8(channel);
            message.put_slice(data);
            Message::Binary(message.freeze())
        }
        Framing::Base64 => {
            Message::text(format!("{}{}", char::from(b'0'.saturating_add(channel)), STANDARD.encode(data)))
        }
    }
}

/// The bytes that go through the messages of a WebSocket, both ways.
pub(super) async fn tunnel<S>(connection: S) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (to, from) = socket(connection).await.split();
    let (near, far) = tokio::io::duplex(TUNNEL);
    let (out, into) = tokio::io::split(far);
    tokio::spawn(dig_in(from, into));
    tokio::spawn(dig_out(out, to));
    near
}

async fn dig_in<S: AsyncRead + AsyncWrite + Unpin>(
    mut from: SplitStream<WebSocketStream<S>>,
    mut into: WriteHalf<DuplexStream>,
) {
    while let Some(Ok(message)) = from.next().await {
        if let Message::Binary(data) = message
            && into.write_all(&data).await.is_err()
        {
            break;
        }
    }
    let _ = into.shutdown().await;
}

async fn dig_out<S: AsyncRead + AsyncWrite + Unpin>(
    mut out: ReadHalf<DuplexStream>,
    mut to: SplitSink<WebSocketStream<S>, Message>,
) {
    let mut piece = BytesMut::with_capacity(PIECE);
    while let Ok(1..) = out.read_buf(&mut piece).await {
        if to.send(Message::Binary(piece.split().freeze())).await.is_err() {
            return;
        }
        piece.reserve(PIECE);
    }
    let _ = to.send(farewell()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_a_channel() {
        for framing in [Framing::Binary, Framing::Base64] {
            for (channel, data) in [(0, &b"in"[..]), (1, b""), (4, b"\0\xff")] {
                let message = pack(framing, channel, data);
                let (found, bytes) = unpack(framing, message).unwrap();
                assert_eq!((u32::from(found), &bytes[..]), (channel, data));
            }
        }
        assert_eq!(pack(Framing::Base64, 1, b"hi"), Message::text("1aGk="));
        for (framing, message) in [
            (Framing::Binary, Message::Binary(Bytes::new())),
            (Framing::Binary, Message::text("0x")),
            (Framing::Base64, Message::text("")),
            (Framing::Base64, Message::text("1not base64")),
            (Framing::Base64, Message::text(" aGk=")),
            (Framing::Binary, Message::Ping(Bytes::new())),
        ] {
            assert!(unpack(framing, message).is_none());
        }
    }
}
