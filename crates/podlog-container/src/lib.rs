//! A container's directory: what the process runtime and the capture process of the container tell each other.
//!
//! | file | written by | says |
//! | --- | --- | --- |
//! | `config.json` (0600) | runtime, once | what to run; never changed |
//! | `capture.lock` | capture, once | exists: a capture was started; flock held: it lives |
//! | `control.sock` (0600) | capture | requests while it lives, see [`control`] |
//! | `state.json` | capture, once | the program runs, or is just about to |
//! | `exit.json` | capture, once | the container has ended, and its log is complete |
//!
//! The JSON files appear atomically. Everything that has to be known after a crash of either side is in these files.
//!
//! Left to others: running anything (`podlog-capture`), deciding what to run (`podlog-kubelet`).

mod build;
pub mod control;
mod directory;
mod files;
mod identity;
mod usage;

/// What capture writes to stdout when the container's program runs.
pub const STARTED: &[u8] = b"started\n";

pub use build::Build;
pub use directory::{Claim, ClaimError, ContainerDir, FileError, Liveness, write_atomically};
pub use files::{
    BackPressure, Config, DEFAULT_BUFFER_BYTES, EnvVar, Exit, Log, Metadata, Mount, Process, Propagation,
    REASON_COMPLETED, REASON_ERROR, REASON_START_ERROR, REASON_UNKNOWN, START_ERROR_EXIT_CODE, State,
    UNKNOWN_EXIT_CODE, User,
};
pub use identity::{ProcessIdentity, ProcessStat};
pub use usage::ProcessUsage;
