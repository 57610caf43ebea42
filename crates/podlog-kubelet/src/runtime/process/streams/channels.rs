//! Several streams that share a connection, whatever the protocol: each has a queue in, and all share one out.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::spdy::Headers;

/// Pieces of one stream that wait for their reader; when there are more, the whole connection waits.
const QUEUED_IN: usize = 8;
/// Pieces that wait for the connection; when there are more, their senders wait.
const QUEUED_OUT: usize = 8;
/// For a client to close after it has been told that this was all. Closing before it could take from it what it has not read.
const FAREWELL: Duration = Duration::from_secs(5);

/// What goes to the client.
#[derive(Debug)]
pub(crate) enum Out {
    /// A piece of a stream.
    Data(u32, Bytes),
    /// The end of a stream.
    End(u32),
    /// A stream is welcome, or not.
    Accept(u32),
    Refuse(u32),
    /// An answer to a ping.
    Pong(u32),
    /// The end of all.
    Close,
}

/// The way to the client.
pub(crate) type OutQueue = mpsc::Sender<Out>;

/// A stream.
pub(crate) struct Stream {
    /// By which name it was opened.
    pub(crate) headers: Headers,
    /// What the client sends; ends with its end of the stream.
    pub(crate) from: mpsc::Receiver<Bytes>,
    pub(crate) to: Outflow,
}

/// The way to the client on one stream.
#[derive(Clone)]
pub(crate) struct Outflow {
    pub(crate) id: u32,
    pub(crate) queue: OutQueue,
}

/// The client has gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Outflow {
    /// Sends a piece; waits while the client does not read.
    ///
    /// # Errors
    /// When the client has gone.
    pub(crate) async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.queue.send(Out::Data(self.id, data)).await.map_err(|_| Gone)
    }

    /// Ends the stream.
    pub(crate) async fn end(self) {
        // Nobody to tell when the client has gone.
        let _ = self.queue.send(Out::End(self.id)).await;
    }
}

/// A new stream, and the queue that feeds it.
pub(crate) fn stream(id: u32, headers: Headers, queue: &OutQueue) -> (Stream, mpsc::Sender<Bytes>) {
    let (feed, from) = mpsc::channel(QUEUED_IN);
    (Stream { headers, from, to: Outflow { id, queue: queue.clone() } }, feed)
}

/// The queue to the client.
pub(crate) fn out_queue() -> (OutQueue, mpsc::Receiver<Out>) {
    mpsc::channel(QUEUED_OUT)
}

/// A connection with streams. Dropping it breaks it off.
pub(crate) struct Connection {
    queue: OutQueue,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    gone: CancellationToken,
}

impl Connection {
    /// Reads until the client has gone, and writes until there is nothing more to be said.
    pub(crate) fn start(
        queue: OutQueue,
        reading: impl Future<Output = ()> + Send + 'static,
        writing: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        let reader = tokio::spawn(async move {
            reading.await;
            drop(guard);
        });
        Connection { queue, reader, writer: tokio::spawn(writing), gone }
    }

    /// Resolves when the client has gone.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Says farewell, and waits until the client has heard it.
    pub(crate) async fn finish(mut self) {
        let farewell = async {
            let _ = self.queue.send(Out::Close).await;
            let _ = (&mut self.writer).await;
            let _ = (&mut self.reader).await;
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("a client did not answer the end of its streams");
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}
