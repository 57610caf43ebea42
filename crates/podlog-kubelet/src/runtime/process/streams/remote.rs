//! A client that wants the streams of a program.

use std::time::Duration;

use bytes::Bytes;
use podlog_serving::websocket::Framing;
use rustix::termios::Winsize;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::channels::{Connection, Outflow, Stream};
use super::negotiate::Protocol;
use super::spdy::value;
use super::{spdy, websocket};
use crate::runtime::Streams;

/// For the client to open its streams (`DefaultStreamCreationTimeout`).
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of what is said of a terminal's size.
const MAX_SIZE_TEXT: usize = 4 << 10;
/// Channels of a WebSocket, by their numbers.
const CHANNELS: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];

/// The client's streams, as far as they were asked for.
pub(super) struct Remote {
    pub(super) input: Input,
    pub(super) stdout: Option<Outflow>,
    pub(super) stderr: Option<Outflow>,
    pub(super) connection: Connection,
    error: Outflow,
    /// Streams beyond those that were asked for: nobody looks at them.
    _more: Option<mpsc::Receiver<Stream>>,
}

/// What the client says.
pub(super) struct Input {
    /// Ends where the client's stdin does.
    pub(super) stdin: Option<mpsc::Receiver<Bytes>>,
    pub(super) sizes: Option<Sizes>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A command ended with this code.
    Exited { command: Vec<String>, code: i32 },
    /// There is nothing more to come.
    Over,
    /// It did not come about.
    Failed(String),
}

impl Remote {
    /// Waits for the client to open the streams that were asked for; `None` when it does not.
    pub(super) async fn open<S>(connection: S, protocol: Protocol, wanted: Streams) -> Option<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match protocol {
            Protocol::Channels(framing) => Some(Self::over_channels(connection, framing, wanted).await?),
            Protocol::Spdy | Protocol::Tunnel => {
                let opened = timeout(STREAMS_TIMEOUT, Self::over_spdy(connection, wanted)).await;
                opened.ok().flatten()
            }
        }
    }

    async fn over_spdy<S>(connection: S, wanted: Streams) -> Option<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (connection, mut opened) = spdy::open(connection);
        let asked = [wanted.stdin, wanted.stdout, wanted.stderr, true, wanted.tty];
        let mut streams: [Option<Stream>; 5] = Default::default();
        while streams.iter().zip(asked).any(|(stream, asked)| asked && stream.is_none()) {
            let stream = opened.recv().await?;
            let kind = value(&stream.headers, "streamtype");
            let place = CHANNELS.iter().position(|name| *name == kind)?;
            streams[place] = Some(stream);
        }
        Self::new(connection, streams, wanted, Some(opened))
    }

    async fn over_channels<S>(connection: S, framing: Framing, wanted: Streams) -> Option<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (connection, channels) = websocket::open(connection, framing, 5).await;
        let mut channels = channels.into_iter();
        let streams = std::array::from_fn(|_| channels.next());
        let remote = Self::new(connection, streams, wanted, None)?;
        // Upstream begins with a message without content on the first channel that it will write to.
        let first = remote.stdout.as_ref().or(remote.stderr.as_ref()).unwrap_or(&remote.error);
        first.send(Bytes::new()).await.ok()?;
        Some(remote)
    }

    fn new(
        connection: Connection,
        streams: [Option<Stream>; 5],
        wanted: Streams,
        more: Option<mpsc::Receiver<Stream>>,
    ) -> Option<Self> {
        let [stdin, stdout, stderr, error, resize] = streams;
        let from = |stream: Option<Stream>| stream.map(|stream| stream.from);
        let to = |stream: Option<Stream>| stream.map(|stream| stream.to);
        let input = Input {
            stdin: from(stdin).filter(|_| wanted.stdin),
            sizes: from(resize).filter(|_| wanted.tty).map(Sizes::new),
        };
        let stdout = to(stdout).filter(|_| wanted.stdout);
        let stderr = to(stderr).filter(|_| wanted.stderr && !wanted.tty);
        Some(Remote { input, stdout, stderr, error: to(error)?, connection, _more: more })
    }

    /// Tells the client how it ended, after all that it was sent.
    pub(super) async fn end(self, outcome: &Outcome) {
        let Remote { input, stdout, stderr, error, connection, _more } = self;
        drop(input);
        let status = Bytes::from(outcome.status().to_string());
        // Nobody to tell when the client has gone.
        let _ = error.send(status).await;
        for flow in [stdout, stderr, Some(error)].into_iter().flatten() {
            flow.end().await;
        }
        connection.finish().await;
    }
}

impl Outcome {
    /// As `pkg/cri/streaming/remotecommand` writes it.
    fn status(&self) -> Value {
        match self {
            Outcome::Over | Outcome::Exited { code: 0, .. } => json!({"metadata": {}, "status": "Success"}),
            Outcome::Exited { command, code } => {
                let command = command.join(" ");
                let message = format!(
                    "command terminated with non-zero exit code: error executing command [{command}], exit code {code}"
                );
                let cause = json!({"reason": "ExitCode", "message": code.to_string()});
                json!({"metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                    "details": {"causes": [cause]}})
            }
            Outcome::Failed(why) => json!({"metadata": {}, "status": "Failure",
                "message": format!("Internal error occurred: {why}"), "reason": "InternalError",
                "details": {"causes": [{"message": why}]}, "code": 500}),
        }
    }
}

/// Sizes of the client's terminal, as they change.
pub(super) struct Sizes {
    from: mpsc::Receiver<Bytes>,
    unread: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

impl Sizes {
    pub(super) fn new(from: mpsc::Receiver<Bytes>) -> Self {
        Sizes { from, unread: Vec::new() }
    }

    /// The next size; `None` when there will be none, or what comes is none.
    pub(super) async fn next(&mut self) -> Option<Winsize> {
        loop {
            if let Some(Size { width, height }) = self.take() {
                return Some(Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 });
            }
            if self.unread.len() > MAX_SIZE_TEXT {
                return None;
            }
            self.unread.extend(self.from.recv().await?);
        }
    }

    fn take(&mut self) -> Option<Size> {
        let mut values = serde_json::Deserializer::from_slice(&self.unread).into_iter::<Size>();
        let size = values.next()?.ok()?;
        let read = values.byte_offset();
        self.unread.drain(..read);
        Some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_upstream_tells_them() {
        let exited = |code| Outcome::Exited { command: vec!["sh".into(), "-c".into()], code };
        for (outcome, expected) in [
            (Outcome::Over, json!({"metadata": {}, "status": "Success"})),
            (exited(0), json!({"metadata": {}, "status": "Success"})),
            (
                exited(7),
                json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                    "message": "command terminated with non-zero exit code: error executing command [sh -c], exit code 7",
                    "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}),
            ),
            (
                Outcome::Failed("no".into()),
                json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                    "message": "Internal error occurred: no", "details": {"causes": [{"message": "no"}]}}),
            ),
        ] {
            assert_eq!(outcome.status(), expected);
        }
    }

    #[tokio::test]
    async fn sizes_come_in_pieces_and_together() {
        let (feed, from) = mpsc::channel(8);
        let mut sizes = Sizes::new(from);
        for piece in ["{\"Width\":97,\"Hei", "ght\":31}\n{\"Width\":1,\"Height\":2}", "nonsense"] {
            feed.send(Bytes::from(piece)).await.unwrap();
        }
        drop(feed);
        for expected in [Some((31, 97)), Some((2, 1)), None] {
            assert_eq!(sizes.next().await.map(|size| (size.ws_row, size.ws_col)), expected);
        }
    }
}
