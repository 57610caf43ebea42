//! Exit codes: one list, documented in `docs/exit-codes.md`.

use std::process::ExitCode;

/// How an applet ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done and, for logs, everything was delivered.
    Success,
    /// Something failed; the reason is on stderr. Logs that broke off are a failure too.
    Failure,
    /// The command line is wrong. Nothing was done.
    Usage,
    /// Another `podlog up` holds the data directory.
    AlreadyRunning,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::AlreadyRunning => 3,
        })
    }
}
