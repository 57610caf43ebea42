//! Reading more at once than TLS asks for.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are taken at once: more than the two records that a large frame comes in.
const AHEAD: usize = 36 << 10;

thread_local! {
    /// Where reads go first, so that a connection has no buffer but for what came.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; AHEAD]);
}

/// A connection that keeps what came beyond what was asked for. rustls asks for 4 KiB at a time, which are five system calls
/// a record.
pub(super) struct ReadAhead<T> {
    inner: T,
    /// What came and was not asked for yet, from `taken` on.
    ahead: Vec<u8>,
    taken: usize,
}

impl<T> ReadAhead<T> {
    pub(super) fn new(inner: T) -> Self {
        ReadAhead { inner, ahead: Vec::new(), taken: 0 }
    }

    fn take(&mut self, buffer: &mut ReadBuf<'_>) {
        let left = &self.ahead[self.taken..];
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.taken += count;
        if self.taken == self.ahead.len() {
            (self.ahead, self.taken) = (Vec::new(), 0);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            if buffer.remaining() >= AHEAD {
                return Pin::new(&mut this.inner).poll_read(context, buffer);
            }
            ready!(SCRATCH.with_borrow_mut(|scratch| {
                let mut came = ReadBuf::new(scratch);
                ready!(Pin::new(&mut this.inner).poll_read(context, &mut came))?;
                let (asked, rest) = came.filled().split_at(came.filled().len().min(buffer.remaining()));
                buffer.put_slice(asked);
                this.ahead.extend_from_slice(rest);
                Poll::Ready(io::Result::Ok(()))
            }))?;
        } else {
            this.take(buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
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
}
