//! Logs at rest: writing, rotating, reading and following the log files of containers.
//!
//! * [`CriFileSink`] writes the output of one container in CRI format and rotates the file.

mod attributes;
mod error;
mod generations;
mod sink;

pub use error::{ReadError, SinkError};
pub use sink::{CriFileSink, FileLimits, MAX_CONTENT, SinkStats};
