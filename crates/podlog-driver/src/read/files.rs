//! The generations of a log, opened together so that rotation cannot take one away.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::PathBuf,
};

use super::inflate;
use crate::{
    attributes::{self, FileEnd},
    generations::{FileId, LogPath},
};

/// A log that is rotated while it is being opened is tried again so often.
const MAX_ATTEMPTS: u32 = 1000;

/// One generation, open.
#[derive(Debug)]
pub(super) struct LogFile {
    id: FileId,
    /// The age in its name; `None` for the current file.
    age: Option<String>,
    content: Content,
    /// Why it could not be decompressed to its end.
    damage: Option<String>,
}

#[derive(Debug)]
enum Content {
    Plain(File),
    Compressed(File),
}

impl LogFile {
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn age(&self) -> Option<&str> {
        self.age.as_deref()
    }

    /// Why the end of its content is missing, if it is; known once it has been decompressed.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// How the file ends, when its writer has left word.
    pub(super) fn end(&self) -> Option<FileEnd> {
        self.age.as_ref().and_then(|_| attributes::file_end(self.descriptor()))
    }

    /// Whether its writer leaves word when it is done with a file, and is not done with this one.
    pub(super) fn is_unfinished(&self) -> bool {
        self.is_ordered() && attributes::file_end(self.descriptor()).is_none()
    }

    /// The number its writer has given it, and with it the promise that its records are in order.
    pub(super) fn generation(&self) -> Option<u64> {
        attributes::generation(self.descriptor())
    }

    /// Whether its writer has promised that its records are in order.
    pub(super) fn is_ordered(&self) -> bool {
        self.generation().is_some()
    }

    /// The content; decompressed at the first call.
    pub(super) fn plain(&mut self) -> io::Result<&File> {
        if let Content::Compressed(compressed) = &self.content {
            let inflated = inflate::inflate(compressed)?;
            if let Some(error) = inflated.damage {
                tracing::warn!(%error, age = self.age, "a compressed log is damaged");
                self.damage = Some(format!("{}.gz: {error}", self.age.as_deref().unwrap_or_default()));
            }
            // The compressed file is not needed any more, but what its attributes say is.
            attributes::copy(compressed, &inflated.file);
            self.content = Content::Plain(inflated.file);
        }
        Ok(self.descriptor())
    }

    /// The same file once more, without opening it by name: it may have none any more.
    pub(super) fn try_clone(&self) -> io::Result<LogFile> {
        let content = match &self.content {
            Content::Plain(file) => Content::Plain(file.try_clone()?),
            // A descriptor of its own: decompressing moves the file's position.
            Content::Compressed(file) => Content::Compressed(File::open(descriptor_path(file))?),
        };
        Ok(LogFile { id: self.id, age: self.age.clone(), content, damage: self.damage.clone() })
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self.content, Content::Compressed(_))
    }

    fn descriptor(&self) -> &File {
        match &self.content {
            Content::Plain(file) | Content::Compressed(file) => file,
        }
    }
}

fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens the current file. `None` when there is none at the moment.
fn open_current(path: &LogPath) -> io::Result<Option<LogFile>> {
    let Some(file) = found(File::open(path.current()))? else { return Ok(None) };
    let id = FileId::of(&file.metadata()?);
    Ok(Some(LogFile { id, age: None, content: Content::Plain(file), damage: None }))
}

/// The identity and length of the file that is current now.
pub(super) fn stat_current(path: &LogPath) -> io::Result<Option<(FileId, u64)>> {
    let metadata = found(fs::metadata(path.current()))?;
    Ok(metadata.map(|metadata| (FileId::of(&metadata), metadata.len())))
}

/// Opens all generations, oldest first, the current file last if there is one. They belong together: nothing was
/// rotated while they were opened.
pub(super) fn open_all(path: &LogPath) -> io::Result<Vec<LogFile>> {
    for _ in 0..MAX_ATTEMPTS {
        if let Some(files) = try_open_all(path)? {
            return Ok(files);
        }
    }
    Err(io::Error::other("the log is rotated faster than its files can be opened"))
}

/// `None` when something changed meanwhile.
fn try_open_all(path: &LogPath) -> io::Result<Option<Vec<LogFile>>> {
    let current = open_current(path)?;
    let current_id = current.as_ref().map(LogFile::id);
    let Some(mut files) = open_rotated(path)? else { return Ok(None) };
    // A file that changes its name while a directory is listed may not be listed at all.
    let opened = files.iter().filter_map(LogFile::age);
    let unchanged = opened.eq(ages(path)?.iter().map(String::as_str))
        && stat_current(path)?.map(|(id, _)| id) == current_id;
    // While the writer rotates, the current file has two names.
    files.retain(|file| Some(file.id) != current_id);
    files.extend(current);
    Ok(unchanged.then_some(files))
}

/// `None` when one has been compressed or deleted since it was listed.
fn open_rotated(path: &LogPath) -> io::Result<Option<Vec<LogFile>>> {
    let mut files: Vec<LogFile> = Vec::new();
    for rotated in path.list()?.rotated {
        // The plain twin comes first, and is as good.
        if files.last().is_some_and(|last| last.age.as_ref() == Some(&rotated.age)) {
            continue;
        }
        let Some(file) = found(File::open(&rotated.path))? else { return Ok(None) };
        let id = FileId::of(&file.metadata()?);
        let content = if rotated.compressed { Content::Compressed(file) } else { Content::Plain(file) };
        files.push(LogFile { id, age: Some(rotated.age), content, damage: None });
    }
    Ok(Some(files))
}

fn ages(path: &LogPath) -> io::Result<Vec<String>> {
    let mut ages: Vec<String> = path.list()?.rotated.into_iter().map(|file| file.age).collect();
    ages.dedup();
    Ok(ages)
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
