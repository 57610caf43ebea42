//! Bounds on what a stalled reader makes a connection hold.
//!
//! hyper takes of a body what fits its own buffers: for HTTP/1.1 up to the largest head of a request, for HTTP/2 a chunk that
//! waits for the client's window, and one more. A stream gives it one, and the next when that has gone to the kernel, which is told to hold
//! little, too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that a stream may have in its connection and still give it more.
const LITTLE: usize = 768;
/// Chunks up to this size are accounted for to their end: a frame that is relayed. Of larger ones, which producers of our own make, the
/// next may wait while the rest of one is sent.
pub(super) const FRAME: usize = 16 << 10;
/// Bytes beyond what is on its way to the client that the kernel takes. More than what is written at once, so that there is
/// always something to send.
const UNSENT: u32 = 128 << 10;

/// What a connection has let through.
#[derive(Debug, Default)]
pub(super) struct Passage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often everything that was there had gone.
    flushes: u64,
    waiting: Vec<Waiting>,
}

/// A stream that has more to give.
#[derive(Debug)]
struct Waiting {
    stream: Stream,
    waker: Waker,
}

/// What of a stream is in its connection.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// Bytes that the connection was given and did not let go of.
    held: Arc<AtomicUsize>,
    /// Bytes that it was given since everything had gone so many times: what it let go of may be with TLS still.
    given: usize,
    flushes: u64,
}

/// One stream's part in it.
#[derive(Debug)]
pub(super) struct Share {
    passage: Arc<Passage>,
    stream: Stream,
}

/// Bytes that were given to a connection; it lets go of them when they are sent.
struct Given {
    bytes: Bytes,
    passage: Arc<Passage>,
    held: Arc<AtomicUsize>,
}

impl Passage {
    fn flushed(&self) {
        self.change(|state| state.flushes += 1);
    }

    /// Wakes those that may give more by this; others would be woken for nothing, once a chunk.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        let flushes = state.flushes;
        let ready = state.waiting.extract_if(.., |waiting| waiting.stream.has_room(flushes));
        let ready: Vec<Waiting> = ready.collect();
        drop(state);
        ready.into_iter().for_each(|waiting| waiting.waker.wake());
    }
}

impl Stream {
    fn has_room(&self, flushes: u64) -> bool {
        let unflushed = if self.flushes == flushes { self.given } else { 0 };
        unflushed < LITTLE && self.held.load(Ordering::Relaxed) < LITTLE
    }
}

impl Share {
    pub(super) fn of(passage: &Arc<Passage>) -> Self {
        Share { passage: passage.clone(), stream: Stream::default() }
    }

    /// Resolves when the connection may be given more.
    pub(super) fn poll_room(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.passage.0.lock();
        if self.stream.has_room(state.flushes) {
            return Poll::Ready(());
        }
        let waiting = Waiting { stream: self.stream.clone(), waker: context.waker().clone() };
        let is_mine = |other: &&mut Waiting| Arc::ptr_eq(&other.stream.held, &self.stream.held);
        match state.waiting.iter_mut().find(is_mine) {
            Some(before) => *before = waiting,
            None => state.waiting.push(waiting),
        }
        Poll::Pending
    }

    /// What the connection is given for these bytes.
    pub(super) fn give(&mut self, bytes: Bytes) -> Bytes {
        let flushes = self.passage.0.lock().flushes;
        if flushes != self.stream.flushes {
            (self.stream.given, self.stream.flushes) = (0, flushes);
        }
        self.stream.given += bytes.len();
        if bytes.len() > FRAME {
            return bytes;
        }
        self.stream.held.fetch_add(bytes.len(), Ordering::Relaxed);
        let held = self.stream.held.clone();
        Bytes::from_owner(Given { bytes, passage: self.passage.clone(), held })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.passage.0.lock().waiting.retain(|other| !Arc::ptr_eq(&other.stream.held, &self.stream.held));
    }
}

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.passage.change(|_| {
            self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        });
    }
}

/// A connection that notes what it lets through.
pub(super) struct Noted<T> {
    inner: T,
    passage: Arc<Passage>,
}

impl<T> Noted<T> {
    pub(super) fn new(inner: T, passage: Arc<Passage>) -> Self {
        Noted { inner, passage }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper asks for it when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.passage.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Tells the kernel.
pub(super) fn hold_little(tcp: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT)
}
