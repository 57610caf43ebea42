//! A log that can be read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use podlog_line::Selection;

use super::LogReader;
use crate::{ReadError, generations::LogPath};

/// The log of one container: the file its runtime writes, and the generations that were rotated away.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// As it was given, for messages.
    pub(super) given: PathBuf,
    /// Where the files are.
    pub(super) path: LogPath,
}

impl LogSource {
    /// The log at `path`, the current file (`…/<restart>.log`) or a link to it. Fails when neither it nor an older
    /// generation is there.
    pub fn open(path: impl Into<PathBuf>) -> Result<LogSource, ReadError> {
        let given = path.into();
        match fs::canonicalize(&given) {
            Ok(resolved) => Ok(LogSource { path: LogPath::new(&resolved), given }),
            Err(source) => match rotated_only(&given) {
                Some(path) => Ok(LogSource { path, given }),
                None => Err(unresolved(&given, source)),
            },
        }
    }

    /// A reader of the part that `selection` wants, positioned at its beginning.
    pub fn read(&self, selection: &Selection) -> Result<LogReader, ReadError> {
        LogReader::new(self.clone(), selection)
    }

    pub(super) fn open_error(&self, source: io::Error) -> ReadError {
        if source.kind() == io::ErrorKind::NotFound {
            return unresolved(&self.given, source);
        }
        ReadError::Open { path: self.given.clone(), source }
    }

    pub(super) fn read_error(&self, source: io::Error) -> ReadError {
        ReadError::Read { path: self.given.clone(), source }
    }

    pub(super) fn missing(&self) -> ReadError {
        self.open_error(io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error()))
    }
}

/// The log, if its current file is missing but older ones are there.
fn rotated_only(path: &Path) -> Option<LogPath> {
    let directory = fs::canonicalize(path.parent()?).ok()?;
    let path = LogPath::new(&directory.join(path.file_name()?));
    let listing = path.list().ok()?;
    (!listing.rotated.is_empty()).then_some(path)
}

/// Names the first part of the path that cannot be reached.
fn unresolved(path: &Path, source: io::Error) -> ReadError {
    let component = unreachable_part(path, MAX_LINKS).unwrap_or_else(|| path.to_owned());
    ReadError::Resolve { path: path.to_owned(), component, source }
}

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

fn unreachable_part(path: &Path, links: u32) -> Option<PathBuf> {
    let mut parts: Vec<&Path> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    parts.reverse();
    for part in parts {
        match fs::read_link(part) {
            Ok(target) if links > 0 => {
                let target = part.parent().unwrap_or(Path::new("")).join(target);
                if let Some(missing) = unreachable_part(&target, links - 1) {
                    return Some(missing);
                }
            }
            Ok(_) => return Some(part.to_owned()),
            // It is no link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(_) => return Some(part.to_owned()),
        }
    }
    None
}
