//! The two output streams of a container.

use std::fmt;

/// The stream a record was written to. A container with a terminal only has [`Stream::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl Stream {
    /// Both streams, in the order of their file descriptors.
    pub const ALL: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// The name used in log files: `stdout` or `stderr`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// 0 for stdout, 1 for stderr: for tables with one entry a stream.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The stream with that exact name.
    pub fn from_name(name: &[u8]) -> Option<Stream> {
        Stream::ALL.into_iter().find(|stream| stream.as_str().as_bytes() == name)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which streams a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Streams {
    /// stdout and stderr, as they were captured.
    #[default]
    Both,
    /// Only stdout.
    Stdout,
    /// Only stderr.
    Stderr,
}

impl Streams {
    /// Whether records of `stream` are wanted.
    pub const fn contains(self, stream: Stream) -> bool {
        matches!(
            (self, stream),
            (Streams::Both, _) | (Streams::Stdout, Stream::Stdout) | (Streams::Stderr, Stream::Stderr)
        )
    }
}

impl From<Stream> for Streams {
    fn from(stream: Stream) -> Streams {
        match stream {
            Stream::Stdout => Streams::Stdout,
            Stream::Stderr => Streams::Stderr,
        }
    }
}
