//! Bounds on what a stalled reader makes a connection hold.
//!
//! hyper takes of a body what fits its own buffers: for HTTP/1.1 up to the largest head of a request. A stream gives it no
//! more than a little before all that the connection was given has gone to the kernel, which is told to hold little, too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that a stream may have in its connection and still give it more.
const LITTLE: usize = 8 << 10;
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
    waiting: Vec<Waker>,
}

/// One stream's part in it.
#[derive(Debug)]
pub(super) struct Share {
    passage: Arc<Passage>,
    /// Bytes given, since when `flushes` was so many.
    given: usize,
    flushes: u64,
}

impl Passage {
    fn flushed(&self) {
        let mut state = self.0.lock();
        state.flushes += 1;
        state.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Share {
    pub(super) fn of(passage: &Arc<Passage>) -> Self {
        Share { passage: passage.clone(), given: 0, flushes: 0 }
    }

    /// Resolves when the connection may be given more.
    pub(super) fn poll_room(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.given < LITTLE {
            return Poll::Ready(());
        }
        let mut state = self.passage.0.lock();
        if state.flushes == self.flushes {
            if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            return Poll::Pending;
        }
        self.given = 0;
        Poll::Ready(())
    }

    pub(super) fn gives(&mut self, bytes: usize) {
        self.given += bytes;
        self.flushes = self.passage.0.lock().flushes;
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
