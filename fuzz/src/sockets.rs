//! What clients say to the API server beside the parts of a request: how they want an answer, and over a WebSocket.

use std::time::Duration;

use podlog_api::accept::{Endpoint, LogCoding, negotiate, wants_log_media_type};
use podlog_kubelet::fuzzing;
use podlog_serving::{full_body, stream_body, websocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::parsers::way;

pub(crate) fn accept(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let endpoints = [Endpoint::Objects, Endpoint::Plain, Endpoint::Watch, Endpoint::Log];
    let accepted = endpoints.map(|endpoint| negotiate(&text, endpoint).map_err(|error| error.code));
    if accepted[1].is_ok() {
        assert!(accepted[0].is_ok(), "what is good for one object is good for all");
    }
    way(&format!("{accepted:?} {} {:?}", wants_log_media_type(&text), LogCoding::negotiate(&text)), 0)
}

/// A client that says anything, and hangs up. The first bit of the input decides whether the log ends by itself.
pub(crate) fn websocket(input: &[u8]) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let ends = input.first().is_some_and(|byte| byte & 1 == 0);
    let said = runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (sender, silent) = stream_body();
        let body = if ends { full_body("a line\n") } else { silent };
        let framing = websocket::Framing::Binary;
        let talk = websocket::tell(ours, framing, body, CancellationToken::new(), Duration::from_secs(60));
        let client = async {
            theirs.write_all(input).await.expect("there is room");
            theirs.shutdown().await.expect("a client may hang up");
            let mut said = Vec::new();
            // Ends when the server has dropped its end.
            let _ = theirs.read_to_end(&mut said).await;
            said
        };
        let both = async { tokio::join!(talk, client).1 };
        let said = tokio::time::timeout(Duration::from_secs(10), both).await;
        drop(sender);
        said.expect("who has hung up is not waited for")
    });
    assert!(said.is_empty() || said.starts_with(&[0x82, 0]), "a greeting comes first: {said:?}");
    way(if ends { "ends" } else { "silent" }, said.len())
}

/// Bytes of headers that are read, once they are unpacked.
const MAX_HEADERS: usize = 64 << 10;

/// A client that says anything over SPDY, and hangs up: what is understood is understood when it is said again, and what it hears
/// is SPDY to its end.
pub(crate) fn spdy(input: &[u8]) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let said = runtime.block_on(fuzzing::spdy_said(input));
    for (frame, headers) in &said {
        let length: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        if length + 4 <= MAX_HEADERS {
            assert_eq!(fuzzing::spdy_headers_told(headers).as_ref(), Some(headers), "{frame}");
        }
    }
    let heard = runtime.block_on(async {
        let heard = fuzzing::spdy_heard(input);
        tokio::time::timeout(Duration::from_secs(10), heard).await.expect("who has hung up is not waited for")
    });
    let answers = runtime.block_on(fuzzing::spdy_said(&heard));
    assert_eq!(answers.last().map(|(frame, _)| frame.as_str()), Some("GoAway"), "{answers:?}");
    way(&format!("{} streams", answers.iter().filter(|(frame, _)| frame == "Other").count()), heard.len())
}
