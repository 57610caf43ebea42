//! What can go wrong with logs at rest.

use std::{
    io,
    path::{Path, PathBuf},
};

use podlog_line::{RenderError, quote};

/// A log cannot be read. The texts are those of the kubelet's log reader (`k8s.io/cri-client/pkg/logs/logs.go`).
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file, or a directory on the way to it, is missing or out of reach.
    #[error("failed to try resolving symlinks in path {}: lstat {}: {}", quoted(.path), .component.display(), reason(.source))]
    Resolve {
        /// The path of the log.
        path: PathBuf,
        /// The first part of it that cannot be reached.
        component: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be opened.
    #[error("failed to open log file {}: open {}: {}", quoted(.path), .path.display(), reason(.source))]
    Open {
        /// The path of the log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The last lines cannot be found.
    #[error("failed to tail {lines} lines of log file {}: {}", quoted(.path), reason(.source))]
    Tail {
        /// How many lines were wanted.
        lines: u64,
        /// The path of the log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("failed to read log file {}: {}", quoted(.path), reason(.source))]
    Read {
        /// The path of the log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Files that were to be read next have been deleted for their age. Everything before them was delivered.
    #[error("log file {}: {files} rotated files were deleted before they were read", quoted(.path))]
    Gone {
        /// The path of the log.
        path: PathBuf,
        /// How many files.
        files: u64,
    },
    /// What is in the file is no log.
    #[error(transparent)]
    Render(#[from] RenderError),
}

/// A log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The log file cannot be opened or made.
    #[error("cannot open log file {}", .path.display())]
    Open {
        /// The path of the log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing has begun to fail.
    #[error("cannot write log file {}", .path.display())]
    Write {
        /// The path of the log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn quoted(path: &Path) -> String {
    quote(path.as_os_str().as_encoded_bytes())
}

/// The text of an error of the operating system as Go prints it: in lower case, without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(reason, _)| reason);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_in_go() {
        let path = PathBuf::from("/var/log/pods/a \"b\"/0.log");
        let error = || io::Error::from_raw_os_error(2);
        for (error, expected) in [
            (
                ReadError::Resolve { path: path.clone(), component: "/var/log/pods".into(), source: error() },
                r#"failed to try resolving symlinks in path "/var/log/pods/a \"b\"/0.log": lstat /var/log/pods: no such file or directory"#,
            ),
            (
                ReadError::Open { path: "/0.log".into(), source: io::Error::from_raw_os_error(13) },
                r#"failed to open log file "/0.log": open /0.log: permission denied"#,
            ),
            (
                ReadError::Tail { lines: 5, path: "/0.log".into(), source: io::Error::from_raw_os_error(5) },
                r#"failed to tail 5 lines of log file "/0.log": input/output error"#,
            ),
            (
                ReadError::Read { path: "/0.log".into(), source: io::Error::from_raw_os_error(21) },
                r#"failed to read log file "/0.log": is a directory"#,
            ),
            (
                ReadError::Gone { path: "/0.log".into(), files: 2 },
                r#"log file "/0.log": 2 rotated files were deleted before they were read"#,
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }
}
