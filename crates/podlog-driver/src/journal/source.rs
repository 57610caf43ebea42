//! Where the entries of a container are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podlog_line::Selection;
use rustix::process::geteuid;

use super::reader::JournalReader;
use crate::ReadError;
use crate::generations::FileId;

/// The log of one container, kept by the journal.
#[derive(Debug, Clone)]
pub struct JournalSource {
    directories: Vec<PathBuf>,
    container: String,
    pub(super) user: u32,
}

/// The field by which the entries of a container are found.
pub(super) const CONTAINER: &[u8] = b"CONTAINER_ID_FULL";

impl JournalSource {
    /// The log of the container with this id, in journals below these directories (journald's are `/var/log/journal` and
    /// `/run/log/journal`): in themselves, and in those of machines and namespaces in them. Only entries of root and of the user
    /// of this process count: anybody else may write into a journal, too.
    pub fn new(directories: Vec<PathBuf>, container: impl Into<String>) -> JournalSource {
        JournalSource { directories, container: container.into(), user: geteuid().as_raw() }
    }

    /// A reader of the part that `selection` wants, positioned at its beginning; `None` when the journal has nothing of this
    /// container. [`podlog_line::Mode::Upstream`] reads as [`podlog_line::Mode::Exact`]: Kubernetes reads no journals.
    ///
    /// # Errors
    /// When the directories cannot be listed, or files in them cannot be read.
    pub fn read(&self, selection: &Selection) -> Result<Option<JournalReader>, ReadError> {
        JournalReader::open(self.clone(), selection)
    }

    /// Its id.
    pub(super) fn container(&self) -> &str {
        &self.container
    }

    /// All journal files, and what each of them is known by.
    pub(super) fn files(&self) -> io::Result<Vec<(PathBuf, FileId)>> {
        let mut files = Vec::new();
        for directory in &self.directories {
            for path in entries_of(directory)? {
                if is_journal(&path) {
                    files.push(path);
                } else if is_of_machine(&path) {
                    files.extend(entries_of(&path)?.into_iter().filter(|path| is_journal(path)));
                }
            }
        }
        let known = |path: PathBuf| match fs::metadata(&path) {
            Ok(metadata) => Ok(Some((path, FileId::of(&metadata)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        files.into_iter().filter_map(|path| known(path).transpose()).collect()
    }

    pub(super) fn error(&self, source: io::Error) -> ReadError {
        let path = self.directories.first().cloned().unwrap_or_default();
        ReadError::Read { path, source }
    }
}

/// What is in a directory that may not be there.
fn entries_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) => match error.kind() {
            // Who may not read the journal has none.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied => {
                Ok(Vec::new())
            }
            _ => Err(error),
        },
    }
}

/// `….journal`, and `….journal~` where journald found a file unfit to be written to.
fn is_journal(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("journal" | "journal~"))
}

/// `<machine id>`, or `<machine id>.<namespace>`.
fn is_of_machine(path: &Path) -> bool {
    const MACHINE_ID: usize = 32;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let machine = name.split('.').next().unwrap_or_default();
    machine.len() == MACHINE_ID && machine.bytes().all(|byte| byte.is_ascii_hexdigit())
}
