//! Responses.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use podlog_api::accept::{Encoding, Representation};
use podlog_api::json::{self, Layout};
use podlog_api::{ApiError, Reason};
use podlog_serving::{Body, empty_body, full_body, pieces_body};
use serde_json::Value;

use super::negotiation::{Coding, Wanted};

/// What goes back to the client.
pub(crate) type Answer = Response<Body>;

/// Smaller bodies are not worth compressing (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters`).
const GZIP_BYTES: usize = 128 << 10;

/// An answer with a body of one type.
pub(crate) fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    of(code, content_type, full_body(body))
}

fn of(code: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Plain text, not to be mistaken for anything else.
pub(crate) fn text(code: StatusCode, body: impl Into<String>) -> Answer {
    let mut answer = bytes(code, "text/plain; charset=utf-8", body.into());
    nosniff(&mut answer);
    answer
}

/// An answer without a body.
pub(crate) fn no_content() -> Answer {
    let mut answer = Response::new(empty_body());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// A failure as `Status`.
pub(crate) fn failure(error: &ApiError, layout: Layout) -> Answer {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = bytes(code, "application/json", error.to_body(layout));
    let seconds = error.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.reason == Reason::Forbidden {
        nosniff(&mut answer);
    }
    answer
}

/// 429 of a server that has enough to do.
pub(crate) fn too_many_requests() -> Answer {
    let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// 405 of a path that is not a resource's.
pub(crate) fn method_not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// 404 of a path that is not a resource's.
pub(crate) fn page_not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Whole documents that are not objects: always indented, as `WriteRawJSON` does.
pub(crate) fn raw_json(value: &Value) -> Answer {
    bytes(StatusCode::OK, "application/json", json::to_body(value, Layout::Indented))
}

fn nosniff(answer: &mut Answer) {
    answer
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
}

impl Wanted {
    /// Whether objects are wanted as they are, in one line.
    pub(crate) fn is_compact_json(&self) -> bool {
        (self.encoding, self.representation, self.layout)
            == (Encoding::Json, Representation::Object, Layout::Compact)
    }

    /// Text that is in the representation already.
    pub(crate) fn answer_text(&self, code: StatusCode, body: Pieces) -> Answer {
        encoded(self.coding, code, self.encoding.media_type(), body)
    }

    /// An object in the representation that was negotiated.
    pub(crate) fn answer(&self, code: StatusCode, value: &Value) -> Answer {
        let body = match self.encoding {
            Encoding::Yaml => yaml(value),
            // Protobuf is never negotiated for objects.
            Encoding::Json | Encoding::Protobuf => json::to_body(value, self.layout),
        };
        encoded(self.coding, code, self.encoding.media_type(), body)
    }
}

/// A body, compressed where that was agreed on and is worth it.
pub(crate) fn encoded(
    coding: Coding,
    code: StatusCode,
    content_type: &'static str,
    body: impl Into<Pieces>,
) -> Answer {
    let body = body.into();
    if coding == Coding::Identity || body.length() <= GZIP_BYTES {
        return of(code, content_type, pieces_body(body.seal()));
    }
    match compress(&body) {
        Ok(compressed) => {
            let mut answer = of(code, content_type, pieces_body(compressed.seal()));
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            answer.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
            answer
        }
        Err(error) => {
            tracing::warn!(%error, "cannot compress an answer");
            of(code, content_type, pieces_body(body.seal()))
        }
    }
}

fn compress(body: &Pieces) -> std::io::Result<Pieces> {
    let mut encoder = GzEncoder::new(Pieces::default(), Compression::fast());
    for piece in &body.done {
        encoder.write_all(piece)?;
    }
    encoder.write_all(&body.last)?;
    encoder.finish()
}

/// A body that is being written. It lies in pieces, so that a long one is neither copied while it grows nor kept as a whole
/// until its last byte is sent.
#[derive(Default)]
pub(crate) struct Pieces {
    done: Vec<Bytes>,
    last: Vec<u8>,
}

impl Pieces {
    /// A piece may be longer, by what is appended to it at once.
    const SIZE: usize = 256 << 10;

    /// The end, to be appended to.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        if self.last.len() >= Self::SIZE {
            let next = Vec::with_capacity(Self::SIZE + Self::SIZE / 8);
            self.done.push(std::mem::replace(&mut self.last, next).into());
        }
        &mut self.last
    }

    /// The same behind something that could not be known before.
    pub(crate) fn after(mut self, head: Vec<u8>) -> Self {
        self.done.insert(0, head.into());
        self
    }

    fn length(&self) -> usize {
        self.done.iter().map(Bytes::len).sum::<usize>() + self.last.len()
    }

    fn seal(mut self) -> Vec<Bytes> {
        self.done.push(self.last.into());
        self.done
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(last: Vec<u8>) -> Self {
        Pieces { done: Vec::new(), last }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.end().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn yaml(value: &Value) -> Vec<u8> {
    serde_saphyr::to_string(value).unwrap_or_default().into_bytes()
}
