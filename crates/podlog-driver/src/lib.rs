//! Logs at rest: writing, rotating, reading and following the log files of containers.
//!
//! * [`CriFileSink`] writes the output of one container in CRI format and rotates the file.
//! * [`LogRotator`] rotates a log that a container runtime writes.
//! * [`LogSource`] opens a log with all its generations; [`LogReader`] reads or follows the part somebody wants.
//! * [`JournalSource`] and [`JournalReader`] do the same for a log that the systemd journal keeps.
//! * [`LogWatcher`] tells followers when to look again.
//!
//! ```
//! use podlog_driver::{CriFileSink, FileLimits, LogSource, ReadState};
//! use podlog_line::{Selection, Stream, Timestamp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let path = directory.path().join("0.log");
//! let mut sink = CriFileSink::open(&path, FileLimits::default())?;
//! sink.write(Stream::Stdout, b"first\nsecond\n", Timestamp::from_seconds(1_767_225_600, 0))?;
//!
//! let mut reader = LogSource::open(&path)?.read(&Selection { tail: Some(1), ..Selection::default() })?;
//! let mut out = Vec::new();
//! while reader.read_chunk(&mut out)? == ReadState::More {}
//! reader.finish(&mut out)?;
//! assert_eq!(out, b"second\n");
//! # Ok(())
//! # }
//! ```

mod attributes;
mod error;
mod generations;
mod journal;
mod read;
mod sink;
mod watch;

pub use error::{ReadError, SinkError};
pub use journal::{JournalReader, JournalSource, SynchronizeError, synchronize};
pub use read::{IndexCache, LogReader, LogSource, Place, ReadState, ReadStats, Resumed};
pub use sink::{
    Content, CriFileSink, FileLimits, FilePosition, LogRetention, LogRotator, LogWriterMark, MAX_CONTENT,
    SinkOptions, SinkStats, WhenFull, content_since, declare_interruption,
};
pub use watch::{LogChanges, LogWatcher};
