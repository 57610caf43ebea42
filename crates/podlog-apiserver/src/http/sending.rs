//! Answers that take their time to be sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use podlog_serving::{Body, BodyError};

use super::Answer;
use super::in_flight::Slot;

/// A client that does not read what it has asked for has its place as long as it is being sent: what we hold for it is bounded by
/// how many places it can have.
pub(super) fn in_its_place(answer: Answer, slot: Option<Slot>) -> Answer {
    match slot {
        Some(slot) if !answer.body().is_end_stream() => {
            answer.map(|inner| Sending { inner, _slot: slot }.boxed_unsync())
        }
        _ => answer,
    }
}

struct Sending {
    inner: Body,
    _slot: Slot,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
