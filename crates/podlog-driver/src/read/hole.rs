//! Parts of a log that are not there to be read.

use std::{io, path::Path};

use super::segment::Break;
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
    /// What is missing here, if anything is.
    pub(super) fn of(here: &Break) -> Option<Hole> {
        let deleted = (here.missing_files > 0).then_some(Hole::Deleted(here.missing_files));
        here.damage.clone().map(Hole::Damaged).or(deleted)
    }

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
