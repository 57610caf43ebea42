//! What the process that writes a log had in its hands when it ended is declared in the log, as a gap of unknown size.
//!
//! While it is away: so the marker stands where something is missing, and the next process goes on behind it. Which
//! process writes a log is remembered with its file, so that a kubelet that was away as well finds out later.

use std::io;
use std::path::Path;
use std::time::Duration;

use podlog_container::ProcessIdentity;
use podlog_driver::{LogChanges, LogWriterMark, declare_interruption};

use super::{Writer, changed, now};

/// A writer has whole lines in its hands for microseconds. Of a log that nobody wrote to for so long it had none.
const SILENCE: Duration = Duration::from_secs(2);

/// Declares what is missing in the log at `path`, for ever.
pub(super) async fn watch(path: &Path, mut writer: Writer, mut changes: Option<LogChanges>) {
    while !path.exists() {
        changed(changes.as_mut()).await;
    }
    drop(changes);
    let mut known = false;
    loop {
        let now = writer.borrow_and_update().clone();
        let done = match &now {
            Some(writer) => arrived(path, &name(writer)),
            None if known => left(path),
            None => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(path = %path.display(), %error, "cannot say in a log what its writer lost");
        }
        known = now.is_some();
        if writer.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

fn name(writer: &ProcessIdentity) -> String {
    format!("{}-{}", writer.pid, writer.start_ticks)
}

/// There is a writer: another one than the log knows has ended unseen.
fn arrived(path: &Path, writer: &str) -> io::Result<()> {
    let known = LogWriterMark::read(path)?;
    if known.is_some_and(|known| known != writer && known != NOBODY) {
        declare(path, None)?;
    }
    LogWriterMark::write(path, writer)
}

/// The writer has ended, and what became of that is said.
const NOBODY: &str = "-";

fn left(path: &Path) -> io::Result<()> {
    declare(path, Some(SILENCE))?;
    LogWriterMark::write(path, NOBODY)
}

fn declare(path: &Path, silence: Option<Duration>) -> io::Result<()> {
    if declare_interruption(path, now(), silence)? {
        tracing::warn!(path = %path.display(), "the container runtime ended while it wrote a log: some of it may be missing");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markers(path: &Path) -> usize {
        std::fs::read_to_string(path).expect("a log").matches("F:podlog-gap").count()
    }

    #[test]
    fn each_end_of_a_writer_is_declared_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:00Z stdout F 1\n").expect("a log");
        LogWriterMark::write(&path, "x").expect("marked");
        if LogWriterMark::read(&path).expect("a log").is_none() {
            return;
        }
        arrived(&path, "1-1").expect("declared");
        assert_eq!(markers(&path), 1, "another writer was known");
        arrived(&path, "1-1").expect("the same");
        assert_eq!(markers(&path), 1);
        left(&path).expect("declared");
        assert_eq!(markers(&path), 2);
        arrived(&path, "2-2").expect("it was declared");
        assert_eq!(markers(&path), 2);
    }
}
