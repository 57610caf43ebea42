//! Talking to captures.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use podlog_container::ContainerDir;
use podlog_container::control::{Reply, Request, send};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a capture may take to answer. It answers at once, unless its disk does not.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A connection to a capture.
pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Connects and sends a request, with descriptors if it takes some.
    pub(super) fn open(dir: &ContainerDir, request: &Request, descriptors: &[OwnedFd]) -> io::Result<Self> {
        let socket = connect(dir)?;
        let line = format!("{request}\n");
        let mut sent = send(&socket, line.as_bytes(), descriptors)?;
        while sent < line.len() {
            sent += send(&socket, &line.as_bytes()[sent..], &[] as &[OwnedFd])?;
        }
        Self::new(socket)
    }

    fn new(socket: StdUnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(BufReader::new(UnixStream::from_std(socket)?)))
    }

    /// The next answer.
    pub(super) async fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let Some(line) = line.strip_suffix('\n') else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        Reply::parse(line).ok_or_else(|| io::Error::other(format!("capture answered {line:?}")))
    }
}

/// A request that is answered at once.
///
/// # Errors
/// When capture cannot be reached, or what it answered.
pub(super) async fn ask(dir: &ContainerDir, request: &Request) -> io::Result<String> {
    let mut connection = Connection::open(dir, request, &[])?;
    match timeout(ANSWER_DEADLINE, connection.reply()).await?? {
        Reply::Ok(text) => Ok(text),
        Reply::Error(why) => Err(io::Error::other(why)),
        Reply::Exited(_) => Err(io::Error::other("capture answered another question")),
    }
}

/// Waits until capture closes the connection, which it does when it ends.
///
/// # Errors
/// When it cannot be reached.
pub(super) async fn hangup(dir: &ContainerDir) -> io::Result<()> {
    // What ends the waiting is the end of the stream, with or without an error.
    let _ = Connection::new(connect(dir)?)?.reply().await;
    Ok(())
}

/// Connecting and sending does not wait: the socket is on this machine, and its backlog is longer than the number of
/// requests ever made at a time.
fn connect(dir: &ContainerDir) -> io::Result<StdUnixStream> {
    let socket = dir.connect_control().map_err(|error| error.source)?;
    socket.set_write_timeout(Some(ANSWER_DEADLINE))?;
    Ok(socket)
}
