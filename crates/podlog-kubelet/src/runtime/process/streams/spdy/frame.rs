//! Frames (SPDY/3, 2.2).

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a frame that is not data.
const MAX_CONTROL: usize = 64 << 10;
/// Bytes of data that are handed on at once, of frames that may be longer.
const MAX_PIECE: usize = 32 << 10;
const VERSION: u16 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A new stream, with its packed headers.
    Open {
        stream: u32,
        packed: Bytes,
        fin: bool,
    },
    /// A piece of data.
    Data {
        stream: u32,
        data: Bytes,
        fin: bool,
    },
    /// A stream has broken.
    Reset {
        stream: u32,
    },
    Ping(u32),
    /// There will be no new streams.
    GoAway,
    /// Of no interest here.
    Other,
}

/// Reads frames.
pub(super) struct Frames<R> {
    from: R,
    /// Of a frame of data: its stream, how much is still to come, and whether that is all of the stream.
    rest: Option<(u32, usize, bool)>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(from: R) -> Self {
        Frames { from, rest: None }
    }

    /// The next frame; `None` at the end, and when what comes is no SPDY.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        if let Some((stream, left, fin)) = self.rest.take() {
            return self.piece(stream, left, fin).await;
        }
        let mut head = [0; 8];
        self.from.read_exact(&mut head).await.ok()?;
        let [a, b, c, d, flags, high, middle, low] = head;
        let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?;
        let fin = flags & FIN != 0;
        if a & 0x80 == 0 {
            return self.piece(u32::from_be_bytes([a, b, c, d]), length, fin).await;
        }
        if u16::from_be_bytes([a & 0x7f, b]) != VERSION || length > MAX_CONTROL {
            return None;
        }
        let mut content = vec![0; length];
        self.from.read_exact(&mut content).await.ok()?;
        control(u16::from_be_bytes([c, d]), content.into(), fin)
    }

    async fn piece(&mut self, stream: u32, left: usize, fin: bool) -> Option<Frame> {
        let mut data = vec![0; left.min(MAX_PIECE)];
        self.from.read_exact(&mut data).await.ok()?;
        let left = left - data.len();
        self.rest = (left > 0).then_some((stream, left, fin));
        Some(Frame::Data { stream, data: data.into(), fin: fin && left == 0 })
    }
}

fn control(kind: u16, content: Bytes, fin: bool) -> Option<Frame> {
    let id = |at: usize| Some(u32::from_be_bytes(content.get(at..at + 4)?.try_into().ok()?) & 0x7fff_ffff);
    Some(match kind {
        SYN_STREAM => Frame::Open { stream: id(0)?, packed: content.get(10..)?.to_vec().into(), fin },
        RST_STREAM => Frame::Reset { stream: id(0)? },
        PING => Frame::Ping(u32::from_be_bytes(content.get(..4)?.try_into().ok()?)),
        GO_AWAY => Frame::GoAway,
        _ => Frame::Other,
    })
}

/// Says that a stream is welcome.
pub(super) fn reply(to: &mut BytesMut, stream: u32, packed: &[u8]) {
    put_control(to, SYN_REPLY, 4 + packed.len());
    to.put_u32(stream);
    to.put_slice(packed);
}

/// Ends a stream in an error.
pub(super) fn reset(to: &mut BytesMut, stream: u32) {
    const REFUSED_STREAM: u32 = 3;
    put_control(to, RST_STREAM, 8);
    to.put_u32(stream);
    to.put_u32(REFUSED_STREAM);
}

/// Answers a ping.
pub(super) fn pong(to: &mut BytesMut, ping: u32) {
    put_control(to, PING, 4);
    to.put_u32(ping);
}

/// Says that this was all.
pub(super) fn go_away(to: &mut BytesMut, last_stream: u32) {
    put_control(to, GO_AWAY, 8);
    to.put_u32(last_stream);
    to.put_u32(0);
}

/// A piece of a stream, or its end.
pub(super) fn data(to: &mut BytesMut, stream: u32, data: &[u8], fin: bool) {
    to.put_u32(stream);
    to.put_u32(u32::from(u8::from(fin)) << 24 | u32::try_from(data.len()).unwrap_or(0) & 0x00ff_ffff);
    to.put_slice(data);
}

fn put_control(to: &mut BytesMut, kind: u16, length: usize) {
    to.put_u16(0x8000 | VERSION);
    to.put_u16(kind);
    to.put_u32(u32::try_from(length).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Frames::new(bytes);
        let mut found = Vec::new();
        while let Some(frame) = frames.next().await {
            found.push(frame);
        }
        found
    }

    #[tokio::test]
    async fn frames_are_read_as_they_were_sent() {
        let open: &[u8] = &[0x80, 3, 0, 1, 1, 0, 0, 12, 0, 0, 0, 5, 0, 0, 0, 0, 0x20, 0, 0xab, 0xcd];
        let rows: [(&[u8], Vec<Frame>); 7] = [
            (open, vec![Frame::Open { stream: 5, packed: Bytes::from_static(&[0xab, 0xcd]), fin: true }]),
            (&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9], vec![Frame::Ping(9)]),
            (&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 5], vec![Frame::Reset { stream: 7 }]),
            (&[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 1, 0], vec![Frame::Other]),
            // Another version, too little, and far too much.
            (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9], vec![]),
            (&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0], vec![]),
            (&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], vec![]),
        ];
        for (bytes, expected) in rows {
            assert_eq!(frames(bytes).await, expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn data_comes_in_pieces_and_ends_once() {
        let mut bytes = BytesMut::new();
        let long = vec![7; MAX_PIECE + 10];
        data(&mut bytes, 3, &long, true);
        data(&mut bytes, 5, b"", false);
        pong(&mut bytes, 2);
        go_away(&mut bytes, 5);
        let found = frames(&bytes).await;
        let piece = |stream, data: &[u8], fin| Frame::Data { stream, data: data.to_vec().into(), fin };
        let expected = [
            piece(3, &long[..MAX_PIECE], false),
            piece(3, &long[MAX_PIECE..], true),
            piece(5, b"", false),
            Frame::Ping(2),
            Frame::GoAway,
        ];
        assert_eq!(found, expected);
    }
}
