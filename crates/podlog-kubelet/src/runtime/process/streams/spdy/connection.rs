//! A connection on which a client opens streams.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::frame::{self, Frame, Frames};
use super::headers::{Packer, Unpacker};
use crate::runtime::process::streams::channels::{Connection, Out, OutQueue, Stream, out_queue, stream};

/// Streams at a time.
const MAX_STREAMS: usize = 1024;
/// New streams that nobody has looked at yet.
const QUEUED_STREAMS: usize = 8;

/// Speaks SPDY on a connection that has been upgraded to it. Each stream that the client opens is received.
pub(crate) fn open(
    connection: impl AsyncRead + AsyncWrite + Send + 'static,
) -> (Connection, mpsc::Receiver<Stream>) {
    let (from, to) = tokio::io::split(connection);
    let (queue, waiting) = out_queue();
    let (opened, streams) = mpsc::channel(QUEUED_STREAMS);
    let reader = Reader { queue: queue.clone(), opened, open: HashMap::new(), unpacker: Unpacker::new() };
    (Connection::start(queue, reader.read(from), write(to, waiting)), streams)
}

struct Reader {
    queue: OutQueue,
    opened: mpsc::Sender<Stream>,
    open: HashMap<u32, mpsc::Sender<Bytes>>,
    unpacker: Unpacker,
}

impl Reader {
    async fn read(mut self, from: impl AsyncRead + Send) {
        let mut from = std::pin::pin!(from);
        let mut frames = Frames::new(&mut from);
        while let Some(frame) = frames.next().await {
            let is_alive = match frame {
                Frame::Open { stream, packed, fin } => self.open(stream, &packed, fin).await,
                Frame::Data { stream, data, fin } => {
                    self.feed(stream, data).await;
                    if fin {
                        self.open.remove(&stream);
                    }
                    true
                }
                Frame::Reset { stream } => {
                    self.open.remove(&stream);
                    true
                }
                // The client's have odd numbers; what is even would be the answer to one of ours.
                Frame::Ping(ping) if ping % 2 == 1 => self.say(Out::Pong(ping)).await,
                Frame::Ping(_) | Frame::GoAway | Frame::Other => true,
            };
            if !is_alive {
                return;
            }
        }
    }

    /// Whether the connection is good for anything more.
    async fn open(&mut self, id: u32, packed: &[u8], fin: bool) -> bool {
        // Those of all streams build on each other: without these, the next could not be read either.
        let Some(headers) = self.unpacker.unpack(packed) else { return false };
        self.open.retain(|_, feed| !feed.is_closed());
        if self.open.len() >= MAX_STREAMS || self.open.contains_key(&id) {
            return self.say(Out::Refuse(id)).await;
        }
        let (stream, feed) = stream(id, headers, &self.queue);
        if !fin {
            self.open.insert(id, feed);
        }
        self.say(Out::Accept(id)).await && self.opened.send(stream).await.is_ok()
    }

    /// Data of streams in which nobody is interested any more is thrown away.
    async fn feed(&mut self, id: u32, data: Bytes) {
        if let Some(feed) = self.open.get(&id)
            && !data.is_empty()
            && feed.send(data).await.is_err()
        {
            self.open.remove(&id);
        }
    }

    async fn say(&self, out: Out) -> bool {
        self.queue.send(out).await.is_ok()
    }
}

async fn write(to: impl AsyncWrite + Send, mut waiting: mpsc::Receiver<Out>) {
    let mut to = std::pin::pin!(to);
    let mut packer = Packer::new();
    let mut last_stream = 0;
    let mut bytes = BytesMut::new();
    while let Some(out) = waiting.recv().await {
        let is_last = matches!(out, Out::Close);
        match out {
            Out::Data(stream, data) => frame::data(&mut bytes, stream, &data, false),
            Out::End(stream) => frame::data(&mut bytes, stream, b"", true),
            Out::Accept(stream) => {
                last_stream = stream;
                let Ok(packed) = packer.pack(&Vec::new()) else { return };
                frame::reply(&mut bytes, stream, &packed);
            }
            Out::Refuse(stream) => frame::reset(&mut bytes, stream),
            Out::Pong(ping) => frame::pong(&mut bytes, ping),
            Out::Close => frame::go_away(&mut bytes, last_stream),
        }
        if to.write_all_buf(&mut bytes).await.is_err() || is_last {
            break;
        }
    }
    let _ = to.shutdown().await;
}
