//! Logs of containers that are kept by the systemd journal: read from its files, without libsystemd and without `journalctl`.
//!
//! A container's entries are those with its `CONTAINER_ID_FULL`, as conmon and Docker's `journald` driver write them. Each becomes
//! the records that a runtime would have written into a log file, which is what all the rest of reading is made for: selecting,
//! joining partial records, cursors. A cursor names an entry by its sequence number, and is good across rotation of the journal.

mod entries;
mod file;
mod layout;
mod merge;
mod reader;
mod source;
mod synchronize;
mod text;

pub use reader::JournalReader;
pub use source::JournalSource;
pub use synchronize::{SynchronizeError, synchronize};
