//! Counting requests that are being answered, and cutting them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::passage::{FRAME, Passage, Share};
use crate::{Body, BodyError};

/// Answers that are no longer than that are in buffers at once.
const LONG: u64 = 64 << 10;

/// The requests of a server, or of one connection.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Without an answer yet, or with one whose length is known.
    pending: AtomicUsize,
    /// With an answer that ends when its producer says so.
    streaming: AtomicUsize,
    /// All that there ever were.
    begun: AtomicUsize,
    /// The client is to make no more of them.
    last: AtomicBool,
    /// When the sending of long answers began that have not been sent yet.
    sending: Mutex<Vec<Instant>>,
    changed: Notify,
}

impl Requests {
    pub(super) fn count(&self) -> usize {
        self.pending.load(Ordering::SeqCst) + self.streaming.load(Ordering::SeqCst)
    }

    /// How many there have been.
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// There shall be no more than there are.
    pub(super) fn set_last(&self) {
        self.last.store(true, Ordering::SeqCst);
    }

    /// Whether there shall be no more.
    pub(super) fn are_last(&self) -> bool {
        self.last.load(Ordering::SeqCst)
    }

    /// Whether a long answer has been on its way for so long.
    pub(super) fn are_unread_for(&self, patience: Duration, now: Instant) -> bool {
        self.sending.lock().iter().any(|begun| now.duration_since(*begun) >= patience)
    }

    /// Resolves when nothing is left but streams.
    pub(super) async fn only_streams_left(&self) {
        self.until(|requests| requests.pending.load(Ordering::SeqCst) == 0).await;
    }

    /// Resolves when nothing is left.
    pub(super) async fn none_left(&self) {
        self.until(|requests| requests.count() == 0).await;
    }

    async fn until(&self, reached: impl Fn(&Self) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look: what changes afterwards is heard of.
            changed.as_mut().enable();
            if reached(self) {
                return;
            }
            changed.await;
        }
    }
}

/// How long a connection has had no requests, as told by looks at it every now and then.
#[derive(Debug)]
pub(super) struct Idleness {
    since: Instant,
    /// Requests until then.
    begun: usize,
}

impl Idleness {
    pub(super) fn begins(now: Instant) -> Self {
        Idleness { since: now, begun: 0 }
    }

    /// Looks. What came and went between two looks counts as much as what is there at the moment.
    pub(super) fn look(&mut self, requests: &Requests, now: Instant) -> Duration {
        let begun = requests.begun();
        if requests.count() > 0 || begun != self.begun {
            (self.since, self.begun) = (now, begun);
        }
        now - self.since
    }
}

/// A client that has been told to make no more requests on its connection, as told by looks at it every now and then.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Requests until the last look.
    begun: Option<usize>,
}

impl Leaving {
    /// Whether the connection can be closed: it has what it waited for, or does not listen.
    pub(super) fn is_over(&mut self, requests: &Requests) -> bool {
        let begun = requests.begun();
        let asks_on = self.begun.replace(begun).is_some_and(|before| before != begun);
        asks_on || requests.count() == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pending,
    Streaming,
}

/// One request, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    requests: Arc<Requests>,
    kind: Kind,
}

impl Counted {
    pub(super) fn new(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::SeqCst);
        requests.pending.fetch_add(1, Ordering::SeqCst);
        Counted { requests: requests.clone(), kind: Kind::Pending }
    }

    pub(super) fn stream(requests: &Arc<Requests>) -> Self {
        let mut counted = Counted::new(requests);
        counted.becomes_stream();
        counted
    }

    fn becomes_stream(&mut self) {
        if self.kind == Kind::Pending {
            self.kind = Kind::Streaming;
            self.requests.streaming.fetch_add(1, Ordering::SeqCst);
            self.requests.pending.fetch_sub(1, Ordering::SeqCst);
            self.requests.changed.notify_waiters();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counter = match self.kind {
            Kind::Pending => &self.requests.pending,
            Kind::Streaming => &self.requests.streaming,
        };
        counter.fetch_sub(1, Ordering::SeqCst);
        self.requests.changed.notify_waiters();
    }
}

/// A body that keeps its request counted, and ends in an error when it is cut.
pub(super) struct CountedBody {
    inner: Body,
    /// One of known length that takes its time.
    _sending: Option<LongAnswer>,
    /// A body of known length is neither cut nor held back: it is either sent or dropped with its connection.
    stream: Option<Streaming>,
    _counted: [Counted; 2],
}

/// A long answer that is being sent.
struct LongAnswer {
    requests: Arc<Requests>,
    begun: Instant,
}

impl LongAnswer {
    fn begin(requests: &Arc<Requests>) -> Self {
        let begun = Instant::now();
        requests.sending.lock().push(begun);
        LongAnswer { requests: requests.clone(), begun }
    }
}

impl Drop for LongAnswer {
    fn drop(&mut self) {
        let mut sending = self.requests.sending.lock();
        if let Some(at) = sending.iter().position(|begun| *begun == self.begun) {
            sending.swap_remove(at);
        }
    }
}

/// What a long chunk is sent in: with the head of its frame (RFC 9113, 4.1), a record of TLS (RFC 8446, 5.1).
const PIECE: usize = (16 << 10) - 9;

struct Streaming {
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    share: Share,
    /// What is left of a long chunk.
    rest: Bytes,
}

impl Streaming {
    fn begin(&mut self, chunk: Bytes) -> Bytes {
        let chunk = self.share.give(chunk);
        if chunk.len() <= FRAME {
            return chunk;
        }
        self.rest = chunk;
        self.piece()
    }

    fn piece(&mut self) -> Bytes {
        self.rest.split_to(self.rest.len().min(PIECE))
    }
}

impl CountedBody {
    pub(super) fn new(
        inner: Body,
        mut counted: [Counted; 2],
        cut: &CancellationToken,
        passage: &Arc<Passage>,
    ) -> Self {
        let is_stream = inner.size_hint().exact().is_none() && !inner.is_end_stream();
        if is_stream {
            counted.iter_mut().for_each(Counted::becomes_stream);
        }
        let stream = is_stream.then(|| Streaming {
            cut: Box::pin(cut.clone().cancelled_owned()),
            share: Share::of(passage),
            rest: Bytes::new(),
        });
        let is_long = inner.size_hint().exact().is_some_and(|length| length > LONG);
        let _sending = is_long.then(|| LongAnswer::begin(&counted[1].requests));
        CountedBody { inner, _sending, stream, _counted: counted }
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Pin::new(&mut this.inner).poll_frame(context) };
        if !stream.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(stream.piece()))));
        }
        if stream.share.poll_room(context).is_ready()
            && let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context)
        {
            return Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|data| stream.begin(data)))));
        }
        ready!(stream.cut.as_mut().poll(context));
        Poll::Ready(Some(Err("the server is shutting down".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.stream.as_ref().is_none_or(|stream| stream.rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_requests_keep_a_connection_busy() {
        let (requests, begin) = (Arc::<Requests>::default(), Instant::now());
        let mut idleness = Idleness::begins(begin);
        let mut look = |second: u64| {
            let now = begin + Duration::from_secs(second);
            idleness.look(&requests, now).as_secs()
        };
        assert_eq!(look(30), 30);
        drop(Counted::new(&requests));
        assert_eq!([look(60), look(90)], [0, 30]);
        let open = Counted::stream(&requests);
        assert_eq!([look(120), look(150)], [0, 0]);
        drop(open);
        assert_eq!([look(180), look(210)], [30, 60]);
    }

    #[test]
    fn who_leaves_gets_what_was_asked_for_before() {
        let requests = Arc::<Requests>::default();
        let open = Counted::stream(&requests);
        let mut leaving = Leaving::default();
        assert_eq!([leaving.is_over(&requests), leaving.is_over(&requests)], [false, false]);
        drop(Counted::new(&requests));
        assert!(leaving.is_over(&requests), "it goes on asking");
        assert!(!Leaving::default().is_over(&requests));
        drop(open);
        assert!(Leaving::default().is_over(&requests));
    }
}
