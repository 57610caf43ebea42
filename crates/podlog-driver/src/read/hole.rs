//! Parts of a log that are not there to be read.

use std::{io, path::Path};

use crate::ReadError;

/// Why reading cannot go on as if nothing were missing.
#[derive(Debug, Clone)]
pub(super) enum Hole {
    /// So many files were deleted between the last one that was read and the next one.
    Deleted(u64),
    /// The rest of a compressed file cannot be decompressed, and why.
    Damaged(String),
}

impl Hole {
    pub(super) fn error(&self, path: &Path) -> ReadError {
        let path = path.to_owned();
        match self {
            Hole::Deleted(files) => ReadError::Gone { path, files: *files },
            Hole::Damaged(why) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, why.clone());
                ReadError::Read { path, source }
            }
        }
    }
}
