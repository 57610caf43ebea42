//! Response bodies, from a few bytes of text to streams that must not end by accident.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::{Body, BodyError};

/// Chunks that may wait between a producer and the connection; a full queue makes the producer wait.
const QUEUED_CHUNKS: usize = 4;

/// How long an error waits before it resets the stream: a reset discards what was queued but not yet sent, and the
/// client should have all that came before the error.
const ERROR_LINGER: Duration = Duration::from_millis(50);

/// A body without content.
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of known content; the caller names its type in the headers.
pub fn full_body(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of known content that lies in pieces; each is let go as soon as it is sent.
pub fn pieces_body(pieces: Vec<Bytes>) -> Body {
    let left = pieces.iter().map(|piece| piece.len() as u64).sum();
    PiecesBody { pieces: pieces.into_iter(), left }.map_err(|never| match never {}).boxed_unsync()
}

/// A body of text.
pub fn text_body(text: impl Into<String>) -> Body {
    full_body(text.into())
}

/// A body of JSON text that is already encoded.
pub fn json_body(json: impl Into<Bytes>) -> Body {
    full_body(json)
}

/// A body that is produced while it is sent.
///
/// The producer says how it ends: [`BodySender::finish`] or [`BodySender::fail`]. A sender that is merely dropped, by
/// a panic or a forgotten path, makes the body fail, so that a truncated stream never looks complete.
pub fn stream_body() -> (BodySender, Body) {
    stream_body_of(QUEUED_CHUNKS)
}

/// [`stream_body`] with so many chunks, at least one, between producer and connection. Default there: 4.
pub fn stream_body_of(chunks: usize) -> (BodySender, Body) {
    let (sender, receiver) = mpsc::channel(chunks);
    (BodySender(sender), StreamBody { receiver, ending: Ending::Open }.boxed_unsync())
}

/// A body that is passed on as it comes, nothing held in between; `held` lives as long as it does.
///
/// An error that it ends in aborts the answer, after a moment in which the client gets what came before. `broken` hears of it.
pub fn relay_body<B, T>(inner: B, held: T, broken: impl FnOnce(&T, &BodyError) + Send + 'static) -> Body
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
    T: Send + Unpin + 'static,
{
    RelayBody { inner, held, broken: Some(Box::new(broken)), failing: None }.boxed_unsync()
}

/// The receiving side has gone: the client closed the stream, or its connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct ReceiverGone;

/// The producing end of [`stream_body`].
#[derive(Debug)]
pub struct BodySender(mpsc::Sender<Item>);

#[derive(Debug)]
enum Item {
    Chunk(Bytes),
    End,
    Error(BodyError),
}

impl BodySender {
    /// Queues a chunk; waits while the queue is full. An empty chunk is left out.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn send(&self, chunk: impl Into<Bytes>) -> Result<(), ReceiverGone> {
        let chunk = chunk.into();
        if chunk.is_empty() {
            return if self.0.is_closed() { Err(ReceiverGone) } else { Ok(()) };
        }
        self.0.send(Item::Chunk(chunk)).await.map_err(|_| ReceiverGone)
    }

    /// Resolves when a chunk can be queued at once: for producers that make none before.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn ready(&self) -> Result<(), ReceiverGone> {
        self.0.reserve().await.map(drop).map_err(|_| ReceiverGone)
    }

    /// [`BodySender::send`] for threads outside of the async runtime.
    ///
    /// # Errors
    /// When nobody reads any more.
    ///
    /// # Panics
    /// On an async thread.
    pub fn blocking_send(&self, chunk: impl Into<Bytes>) -> Result<(), ReceiverGone> {
        let chunk = chunk.into();
        if chunk.is_empty() {
            return if self.0.is_closed() { Err(ReceiverGone) } else { Ok(()) };
        }
        self.0.blocking_send(Item::Chunk(chunk)).map_err(|_| ReceiverGone)
    }

    /// Ends the body: it is complete.
    pub async fn finish(self) {
        // Nobody to tell when the client has gone.
        let _ = self.0.send(Item::End).await;
    }

    /// [`BodySender::finish`] for threads outside of the async runtime.
    ///
    /// # Panics
    /// On an async thread.
    pub fn blocking_finish(self) {
        let _ = self.0.blocking_send(Item::End);
    }

    /// Aborts the body: the client sees that it is incomplete.
    pub async fn fail(self, error: impl Into<BodyError>) {
        let _ = self.0.send(Item::Error(error.into())).await;
    }

    /// [`BodySender::fail`] for threads outside of the async runtime.
    ///
    /// # Panics
    /// On an async thread.
    pub fn blocking_fail(self, error: impl Into<BodyError>) {
        let _ = self.0.blocking_send(Item::Error(error.into()));
    }

    /// Resolves when nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

struct RelayBody<B, T> {
    inner: B,
    held: T,
    broken: Option<Broken<T>>,
    failing: Option<(Pin<Box<Sleep>>, Option<BodyError>)>,
}

type Broken<T> = Box<dyn FnOnce(&T, &BodyError) + Send>;

impl<B, T> http_body::Body for RelayBody<B, T>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
    T: Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.failing.is_none() {
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Err(error)) => {
                    if let Some(broken) = this.broken.take() {
                        broken(&this.held, &error);
                    }
                    this.failing = Some((Box::pin(tokio::time::sleep(ERROR_LINGER)), Some(error)));
                }
                frame => return Poll::Ready(frame),
            }
        }
        let Some((linger, error)) = &mut this.failing else { return Poll::Ready(None) };
        ready!(linger.as_mut().poll(context));
        Poll::Ready(error.take().map(Err))
    }
}

struct PiecesBody {
    pieces: std::vec::IntoIter<Bytes>,
    /// Bytes of all of them.
    left: u64,
}

impl http_body::Body for PiecesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.next();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

struct StreamBody {
    receiver: mpsc::Receiver<Item>,
    ending: Ending,
}

enum Ending {
    Open,
    Failing(Pin<Box<Sleep>>, Option<BodyError>),
    Ended,
}

impl StreamBody {
    fn fail_later(&mut self, error: BodyError) {
        self.ending = Ending::Failing(Box::pin(tokio::time::sleep(ERROR_LINGER)), Some(error));
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut self.ending {
                Ending::Ended => return Poll::Ready(None),
                Ending::Failing(linger, error) => {
                    ready!(linger.as_mut().poll(context));
                    let error = error.take();
                    self.ending = Ending::Ended;
                    return Poll::Ready(error.map(Err));
                }
                Ending::Open => match ready!(self.receiver.poll_recv(context)) {
                    Some(Item::Chunk(chunk)) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                    Some(Item::End) => self.ending = Ending::Ended,
                    Some(Item::Error(error)) => self.fail_later(error),
                    None => self.fail_later("the producer stopped before the end".into()),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.ending, Ending::Ended)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    async fn read(mut body: Body) -> (String, Option<String>) {
        let mut text = String::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap()),
                Err(error) => return (text, Some(error.to_string())),
            }
        }
        (text, None)
    }

    #[tokio::test]
    async fn known_bodies_have_their_content() {
        assert_eq!(read(empty_body()).await, (String::new(), None));
        assert_eq!(read(text_body("ok")).await, ("ok".into(), None));
        assert_eq!(read(json_body(b"{}".to_vec())).await, ("{}".into(), None));
        let pieces = pieces_body(["a", "bc", ""].map(Bytes::from).to_vec());
        assert_eq!((pieces.size_hint().exact(), pieces.is_end_stream()), (Some(3), false));
        assert_eq!(read(pieces).await, ("abc".into(), None));
        assert!(pieces_body(Vec::new()).is_end_stream());
    }

    #[tokio::test]
    async fn streams_end_as_their_producer_says() {
        enum How {
            Finish,
            Fail,
            Drop,
        }
        let rows = [
            (How::Finish, None),
            (How::Fail, Some("disk on fire")),
            (How::Drop, Some("the producer stopped before the end")),
        ];
        for (how, error) in rows {
            let (sender, body) = stream_body();
            tokio::spawn(async move {
                for chunk in ["a", "", "b", "c", "d", "e", "f"] {
                    sender.send(chunk).await.unwrap();
                }
                match how {
                    How::Finish => sender.finish().await,
                    How::Fail => sender.fail("disk on fire").await,
                    How::Drop => drop(sender),
                }
            });
            assert_eq!(read(body).await, ("abcdef".into(), error.map(str::to_owned)));
        }
    }

    #[tokio::test]
    async fn a_producer_learns_that_the_client_has_gone() {
        let (sender, body) = stream_body();
        drop(body);
        sender.closed().await;
        assert!(sender.is_closed());
        assert_eq!(sender.send("x").await, Err(ReceiverGone));
        assert_eq!(sender.send("").await, Err(ReceiverGone));
    }
}
