//! Logs at rest: writing, rotating, reading and following the log files of containers.
//!
//! * [`CriFileSink`] writes the output of one container in CRI format and rotates the file.
//! * [`LogSource`] opens a log with all its generations; [`LogReader`] reads or follows the part somebody wants.
//! * [`LogWatcher`] tells followers when to look again.

mod attributes;
mod error;
mod generations;
mod read;
mod sink;
mod watch;

pub use error::{ReadError, SinkError};
pub use read::{LogReader, LogSource, ReadState, ReadStats};
pub use sink::{CriFileSink, FileLimits, MAX_CONTENT, SinkStats};
pub use watch::{LogChanges, LogWatcher};
