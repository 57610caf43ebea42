//! HTTP/1.1 or HTTP/2, as was negotiated; HTTP/1.1 without negotiation, as Go.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::TokioTimer;

use super::Limits;
use super::requests::CountedBody;
use super::turns::{Begun, Turns};
use crate::SparseBuffers;

/// Bytes of a stream that HTTP/2 holds and still takes more: pieces of one chunk, which is there anyway. How much a stream gives
/// otherwise is for [`Passage`](super::passage) to say.
const SEND_BUFFER: usize = 64 << 10;

/// A connection that is being served, to its end.
pub(super) trait Http: Future<Output = hyper::Result<()>> + Send {
    /// Takes no more requests, and ends with those that it has.
    fn graceful_shutdown(self: Pin<&mut Self>);

    /// Does what there is to do.
    fn poll_turn(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<hyper::Result<()>>;
}

/// Serves HTTP/1.1.
pub(super) fn http1<'a, I, S>(limits: &Limits, io: I, service: S) -> Pin<Box<dyn Http + 'a>>
where
    I: Read + Write + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<CountedBody>, Error = Infallible> + Send + 'a,
    S::Future: Send + 'static,
{
    let head = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(head.max(8192))
        .serve_connection(io, service);
    Box::pin(connection.with_upgrades())
}

/// Serves HTTP/2.
pub(super) fn http2<'a, I, S>(limits: &Limits, io: I, service: S) -> Pin<Box<dyn Http + 'a>>
where
    I: Read + Write + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<CountedBody>, Error = Infallible> + Send + 'a,
    S::Future: Send + 'static,
{
    let begun = Begun::default();
    let connection = http2::Builder::new(begun.clone())
        .timer(TokioTimer::new())
        .max_header_list_size(limits.max_header_bytes)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping_patience)
        .serve_connection(io, service);
    Box::pin(Turns::new(connection, begun))
}

impl<I, S> Http for http1::UpgradeableConnection<I, S>
where
    I: Read + Write + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<CountedBody>, Error = Infallible> + Send,
    S::Future: Send,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    fn poll_turn(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        SparseBuffers::for_connection(|| self.poll(context))
    }
}

impl<I, S> Http for Turns<http2::Connection<I, S, Begun>>
where
    I: Read + Write + Send + Unpin,
    S: Service<Request<Incoming>, Response = Response<CountedBody>, Error = Infallible> + Send,
    S::Future: Send + 'static,
{
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        Pin::new(self.connection()).graceful_shutdown();
    }

    fn poll_turn(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.poll(context)
    }
}
