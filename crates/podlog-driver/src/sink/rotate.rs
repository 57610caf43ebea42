//! Rotation by the writer.
//!
//! There is a current file at every moment: a new one is prepared beside it, the old one gets its second name, and the
//! new one takes the first. A crash in between leaves a file with two names, which start-up and readers see through.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use podlog_line::Timestamp;

use super::crash;
use crate::{
    attributes,
    generations::{FileId, LogPath, next_age},
};

/// Owner reads and writes, group reads, whatever the umask.
pub(super) const FILE_MODE: u32 = 0o640;
/// Somebody else may take the name we chose; more often than this it is not chance.
const MAX_ATTEMPTS: u32 = 100;

/// Where a file stands among those of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number.
    pub(super) generation: u64,
    /// Bytes in all files before it; `None` when nobody knows, since somebody else has written some of them.
    pub(super) base: Option<u64>,
}

impl Place {
    /// That of the next file, when this one has `length` bytes.
    pub(super) fn after(self, length: u64) -> Place {
        Place { generation: self.generation + 1, base: self.base.and_then(|base| base.checked_add(length)) }
    }

    /// Tells readers.
    pub(super) fn mark(self, file: &File) {
        attributes::mark_generation(file, self.generation);
        if let Some(base) = self.base {
            attributes::mark_base(file, base);
        }
    }
}

/// Gives the current file a name by its age, and makes and returns a new one.
pub(super) fn rotate(path: &LogPath, at: Timestamp, place: Place) -> io::Result<File> {
    let prepared = path.prepared();
    let file = prepare(&prepared, place)?;
    let result = name_by_age(path, at)
        .and_then(|()| crash::step())
        .and_then(|()| fs::rename(&prepared, path.current()));
    if let Err(error) = result {
        let _ = fs::remove_file(&prepared);
        return Err(error);
    }
    Ok(file)
}

/// A new, empty file for records in order.
fn prepare(path: &Path, place: Place) -> io::Result<File> {
    crash::step()?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    crash::step()?;
    let file = OpenOptions::new().read(true).append(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    crash::step()?;
    place.mark(&file);
    Ok(file)
}

/// Gives the current file its second name, unless it has one from a rotation that failed behind this: a third one would be one
/// file more for whoever reads or counts them.
pub(super) fn name_by_age(path: &LogPath, at: Timestamp) -> io::Result<()> {
    let newest = path.list()?.rotated.pop();
    if newest.as_ref().is_some_and(|newest| is_same_file(&newest.path, &path.current())) {
        return Ok(());
    }
    let mut newest = newest.map(|file| file.age);
    for _ in 0..MAX_ATTEMPTS {
        let age = next_age(at, newest.as_deref());
        crash::step()?;
        match fs::hard_link(path.current(), path.with_suffix(&age)) {
            // Somebody else has renamed the file: it has its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => newest = Some(age),
            Err(error) if has_no_links(&error) => return fs::rename(path.current(), path.with_suffix(&age)),
            result => return result,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn is_same_file(left: &Path, right: &Path) -> bool {
    let id = |path| fs::metadata(path).ok().map(|metadata| FileId::of(&metadata));
    id(left).is_some_and(|left| Some(left) == id(right))
}

/// Some file systems have no hard links. There the log is without a current file for a moment.
fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::TooManyLinks
    )
}
