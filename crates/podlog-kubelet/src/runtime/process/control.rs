//! Talking to captures.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use podlog_container::ContainerDir;
use podlog_container::control::{Reply, Request, receive, send};
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
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

    /// Waits until the other side has closed it; nothing more is asked.
    pub(super) async fn closed(&mut self) {
        while self.reply().await.is_ok() {}
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

/// A container's stdin, or the terminal that it has; `None` when it reads nothing, or nothing more. Whoever closes the
/// connection has gone, which is the end of a stdin that is for once.
///
/// # Errors
/// When capture cannot be reached, or what it answered.
pub(super) async fn stdin(dir: &ContainerDir) -> io::Result<(Connection, Option<OwnedFd>)> {
    let Connection(stream) = Connection::open(dir, &Request::Stdin, &[])?;
    let stream = stream.into_inner();
    let mut descriptors = Vec::new();
    let line = timeout(ANSWER_DEADLINE, receive_line(&stream, &mut descriptors)).await??;
    match Reply::parse(&line) {
        Some(Reply::Ok(_)) => Ok((Connection(BufReader::new(stream)), descriptors.pop())),
        Some(Reply::Error(why)) => Err(io::Error::other(why)),
        _ => Err(io::Error::other(format!("capture answered {line:?}"))),
    }
}

/// A line, with the descriptors that come with it.
async fn receive_line(stream: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> io::Result<String> {
    let (mut line, mut chunk) = (Vec::new(), [0; 1024]);
    loop {
        let receiving = || receive(stream, &mut chunk, descriptors);
        match stream.async_io(Interest::READABLE, receiving).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => line.extend_from_slice(&chunk[..length]),
        }
        if let Some(line) = line.strip_suffix(b"\n") {
            return Ok(String::from_utf8_lossy(line).into_owned());
        }
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
