//! What `fuzz/` reaches and nobody else needs: the parsers of this crate that read what others wrote.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::runtime::process::streams::spdy;

/// Names and values by which a stream of SPDY is opened.
pub type Headers = Vec<(String, String)>;

/// What a client says over SPDY, frame by frame, with the headers of new streams, up to what cannot be understood.
pub async fn spdy_said(bytes: &[u8]) -> Vec<(String, Headers)> {
    spdy::said(bytes).await
}

/// Headers as another end of a connection reads them; `None` for more than it reads.
pub fn spdy_headers_told(headers: &Headers) -> Option<Headers> {
    spdy::told(headers)
}

/// What a client hears that sends these bytes over SPDY to a server which says again whatever it is told on any stream, and hangs
/// up.
pub async fn spdy_heard(bytes: &[u8]) -> Vec<u8> {
    let (client, server) = tokio::io::duplex(64 << 10);
    let (mut from, mut to) = tokio::io::split(client);
    let (connection, mut streams) = spdy::open(server);
    let serving = async {
        let mut echoes = tokio::task::JoinSet::new();
        while let Some(mut stream) = streams.recv().await {
            echoes.spawn(async move {
                while let Some(data) = stream.from.recv().await {
                    if stream.to.send(data).await.is_err() {
                        return;
                    }
                }
                stream.to.end().await;
            });
        }
        echoes.join_all().await;
        connection.finish().await;
    };
    let sending = async {
        // A server that has understood enough does not listen to the rest.
        let _ = to.write_all(bytes).await;
        let _ = to.shutdown().await;
    };
    let mut heard = Vec::new();
    let hearing = async { drop(from.read_to_end(&mut heard).await) };
    tokio::join!(serving, sending, hearing);
    heard
}
