//! Waiting until journald has written everything that it was sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Why it is not known that everything was written.
#[derive(Debug, thiserror::Error)]
pub enum SynchronizeError {
    /// journald cannot be asked, or does not answer in time.
    #[error("cannot ask journald to write what it has")]
    Connection(#[from] io::Error),
    /// It does not do so.
    #[error("journald refuses to write what it has: {0}")]
    Refused(String),
}

/// Bytes of an answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// Returns when all messages that were sent to journald before are in its files, as `journalctl --sync` does
/// (`io.systemd.Journal.Synchronize` over varlink). `socket`: `/run/systemd/journal/io.systemd.journal`, or that of a namespace.
///
/// # Errors
/// When it does not answer within `patience`, or nobody listens there.
pub fn synchronize(socket: &Path, patience: Duration) -> Result<(), SynchronizeError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"{\"method\":\"io.systemd.Journal.Synchronize\",\"parameters\":{}}\0")?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_until(0, &mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    if answer.starts_with('{') && !answer.contains("\"error\"") {
        Ok(())
    } else {
        Err(SynchronizeError::Refused(answer.into_owned()))
    }
}
