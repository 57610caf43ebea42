//! Logs, compressed for clients that ask for it.
//!
//! Every chunk becomes a frame of its own, complete in itself: what a container has just printed is readable at once, a stream
//! that waits holds no compressor, and one that is cut off ends at a chunk. RFC 8878 (zstd) and RFC 1952 (gzip) both let
//! frames follow each other.

use std::cell::RefCell;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use podlog_api::accept::{LOG_MEDIA_TYPE, LogCoding, wants_log_media_type};
use podlog_serving::{Body, BodyError};

use crate::http::first;

/// Bytes that are compressed at once, so that an async thread is not held up.
const MAX_CHUNK: usize = 64 << 10;
/// Level of zstd: quicker than TLS.
const ZSTD_LEVEL: i32 = 1;

/// How a log travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As `text/plain`, never compressed: as Kubernetes.
    PlainText,
    /// As [`LOG_MEDIA_TYPE`].
    Podlog(Option<LogCoding>),
}

impl Coding {
    /// What a client asks for.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Coding {
        if wants_log_media_type(first(headers, ACCEPT)) {
            Coding::Podlog(LogCoding::negotiate(first(headers, ACCEPT_ENCODING)))
        } else {
            Coding::PlainText
        }
    }

    /// Says in an answer's headers how the log travels.
    pub(crate) fn describe(self, headers: &mut HeaderMap) {
        let Coding::Podlog(coding) = self else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            return;
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(LOG_MEDIA_TYPE));
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
    }

    /// The body as it travels.
    pub(crate) fn encode(self, body: Body) -> Body {
        match self {
            Coding::Podlog(Some(coding)) => {
                CompressedBody { inner: body, coding, rest: Bytes::new() }.boxed_unsync()
            }
            Coding::Podlog(None) | Coding::PlainText => body,
        }
    }
}

struct CompressedBody {
    inner: Body,
    coding: LogCoding,
    /// What is left of a chunk.
    rest: Bytes,
}

impl http_body::Body for CompressedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(MAX_CHUNK);
        let chunk = self.rest.split_to(length);
        let compressed = compress(self.coding, &chunk);
        Poll::Ready(Some(compressed.map(|bytes| Frame::data(bytes.into())).map_err(Into::into)))
    }
}

fn compress(coding: LogCoding, chunk: &[u8]) -> io::Result<Vec<u8>> {
    match coding {
        LogCoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(chunk.len() / 2), Compression::fast());
            encoder.write_all(chunk)?;
            encoder.finish()
        }
        LogCoding::Zstd => zstd_frame(chunk),
    }
}

/// With the thread's compressor: making one costs more than most chunks.
fn zstd_frame(chunk: &[u8]) -> io::Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|compressor| match compressor {
        Some(compressor) => compressor.compress(chunk),
        None => compressor.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?).compress(chunk),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http::HeaderName;
    use podlog_serving::{full_body, stream_body};

    use super::*;

    fn headers(rows: &[(HeaderName, &'static str)]) -> HeaderMap {
        rows.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_who_names_the_type_gets_it() {
        let rows: [(&[_], Coding); 4] = [
            (&[(ACCEPT_ENCODING, "zstd, gzip")], Coding::PlainText),
            (&[(ACCEPT, "*/*"), (ACCEPT_ENCODING, "gzip")], Coding::PlainText),
            (&[(ACCEPT, LOG_MEDIA_TYPE)], Coding::Podlog(None)),
            (
                &[(ACCEPT, "application/vnd.podlog.log, */*"), (ACCEPT_ENCODING, "zstd")],
                Coding::Podlog(Some(LogCoding::Zstd)),
            ),
        ];
        for (row, expected) in rows {
            let coding = Coding::negotiate(&headers(row));
            assert_eq!(coding, expected, "{row:?}");
            let mut answer = HeaderMap::new();
            coding.describe(&mut answer);
            let plain = coding == Coding::PlainText;
            assert_eq!(answer[CONTENT_TYPE] == "text/plain", plain);
            assert_eq!(answer.contains_key(VARY), !plain);
        }
    }

    #[tokio::test]
    async fn frames_hold_what_was_sent_and_every_chunk_is_readable_at_once() {
        let log: Vec<u8> = (0..300_000_u32).flat_map(|number| (number % 251).to_le_bytes()).collect();
        for coding in [LogCoding::Zstd, LogCoding::Gzip] {
            let decode = |bytes: &[u8]| {
                let mut decoded = Vec::new();
                match coding {
                    LogCoding::Zstd => decoded = zstd::decode_all(bytes).unwrap(),
                    LogCoding::Gzip => {
                        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut decoded).unwrap();
                    }
                }
                decoded
            };
            let whole = Coding::Podlog(Some(coding)).encode(full_body(log.clone()));
            let whole = whole.collect().await.unwrap().to_bytes();
            assert!(whole.len() < log.len() / 2, "{coding:?}");
            assert_eq!(decode(&whole), log);

            let (sender, body) = stream_body();
            let mut body = Coding::Podlog(Some(coding)).encode(body);
            for line in ["one\n", "two\n"] {
                sender.send(line).await.unwrap();
                let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!(decode(&frame), line.as_bytes());
            }
            sender.fail("cut").await;
            assert!(body.frame().await.unwrap().is_err(), "an aborted log stays aborted");
        }
    }
}
