//! SPDY/3.1, as far as Kubernetes' clients speak it (`github.com/moby/spdystream`): streams that the client opens, data both ways,
//! pings. Nobody there counts windows, and neither is it done here: what holds a sender back is TCP.

mod connection;
mod frame;
mod headers;

pub(crate) use connection::open;
pub(crate) use headers::{Headers, value};

/// What a client says, frame by frame, with the headers of new streams, up to what cannot be understood.
pub(crate) async fn said(from: impl tokio::io::AsyncRead + Unpin) -> Vec<(String, Headers)> {
    let (mut frames, mut unpacker) = (frame::Frames::new(from), headers::Unpacker::new());
    let mut said = Vec::new();
    while let Some(frame) = frames.next().await {
        let headers = match &frame {
            frame::Frame::Open { packed, .. } => unpacker.unpack(packed),
            _ => Some(Headers::new()),
        };
        let Some(headers) = headers else { break };
        said.push((format!("{frame:?}"), headers));
    }
    said
}

/// Headers as another end of a connection reads them.
pub(crate) fn told(headers: &Headers) -> Option<Headers> {
    headers::Unpacker::new().unpack(&headers::Packer::new().pack(headers).ok()?)
}
