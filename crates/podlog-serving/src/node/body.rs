//! What a node sends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::error::{DialCause, Ends};
use crate::BodyError;

/// The body of a node's answer. Dropping it cancels the request.
pub struct NodeBody {
    inner: Incoming,
    ends: Ends,
    _stream: StreamSlot,
}

/// A stream's place on its connection, given back when dropped.
pub(super) struct StreamSlot(pub(super) Arc<AtomicUsize>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NodeBody {
    pub(super) fn new(inner: Incoming, ends: Ends, stream: StreamSlot) -> Self {
        NodeBody { inner, ends, _stream: stream }
    }
}

impl http_body::Body for NodeBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let text = |error: hyper::Error| match DialCause::exchange(&error, &self.ends) {
            DialCause::Eof => BodyError::from("unexpected EOF"),
            cause => cause.into(),
        };
        polled.map(|frame| frame.map(|frame| frame.map_err(text)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
