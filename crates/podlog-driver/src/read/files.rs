//! The generations of a log, opened together so that rotation cannot take one away.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    time::Duration,
};

use podlog_line::{FileMark, RecordParser, Timestamp};

use super::{
    mark,
    unpack::{self, Unpacker},
};
use crate::{
    attributes::{self, FileEnd},
    generations::{Age, FileId, LogPath, Packing},
};

/// A log that is rotated while it is being opened is tried again so often.
const MAX_ATTEMPTS: u32 = 1000;
/// The first record of a file is looked for in so many bytes.
const HEAD: usize = 64 * 1024;

/// A file that its writer is said to be leaving has been left when nothing was written to it for so long.
const LONGEST_LEAVING: Duration = Duration::from_secs(5);

/// What the kernel adds to the path of a file that has been deleted.
const DELETED: &[u8] = b" (deleted)";

/// One generation, open.
#[derive(Debug)]
pub(super) struct LogFile {
    id: FileId,
    /// The age in its name; `None` for the current file.
    age: Option<Age>,
    content: Content,
    /// Why it could not be decompressed to its end.
    damage: Option<String>,
    /// Where reading begins, if that is settled.
    pub(super) start: Option<u64>,
    /// Nothing from here on is wanted.
    pub(super) limit: Option<u64>,
}

/// The state of a file that nobody writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileStamp {
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

#[derive(Debug)]
enum Content {
    Plain(File),
    Compressed(File, Packing),
}

impl LogFile {
    fn new(id: FileId, age: Option<Age>, content: Content) -> LogFile {
        LogFile { id, age, content, damage: None, start: None, limit: None }
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn age(&self) -> Option<&Age> {
        self.age.as_ref()
    }

    /// Why the end of its content is missing, if it is; known once it has been decompressed. Told once.
    pub(super) fn take_damage(&mut self) -> Option<String> {
        self.damage.take()
    }

    /// How the file ends, when its writer has left word.
    pub(super) fn end(&self) -> Option<FileEnd> {
        self.age.as_ref().and_then(|_| attributes::file_end(self.descriptor()))
    }

    /// How the file ends, when all of it is older than `since` and its writer has left word of that.
    pub(super) fn end_before(&self, since: Timestamp) -> Option<FileEnd> {
        self.end().filter(|end| end.last < since && self.is_ordered())
    }

    /// When its last record was logged, when there is one and its writer has left word before it went on to another file.
    pub(super) fn last_time(&self) -> Option<Timestamp> {
        let last = attributes::file_end(self.descriptor()).map(|end| end.last);
        last.filter(|last| *last > Timestamp::MIN)
    }

    /// Whether its writer leaves word when it is done with a file, and is not done with this one.
    pub(super) fn is_unfinished(&self) -> bool {
        self.is_ordered() && attributes::file_end(self.descriptor()).is_none()
    }

    /// Whether somebody else's file had this name to its end. Else it was rotated away before: who does that renames it, or leaves word
    /// in it.
    pub(super) fn kept_name(&self, name: &OsStr) -> bool {
        let link = fs::read_link(format!("/proc/self/fd/{}", self.descriptor().as_raw_fd()));
        let last = link.as_deref().map(|path| path.file_name().unwrap_or_default().as_encoded_bytes());
        let is_named =
            last.is_ok_and(|last| last.strip_suffix(DELETED).unwrap_or(last) == name.as_encoded_bytes());
        is_named && !self.is_ordered() && !attributes::is_rotated(self.descriptor())
    }

    /// Whether its writer may still append to it although another file has taken its place. Nobody takes that back where
    /// whoever rotates was killed: then a file that has not changed for a while is as good as left.
    pub(super) fn is_being_left(&self) -> io::Result<bool> {
        if !attributes::is_being_left(self.descriptor()) {
            return Ok(false);
        }
        let age = self.descriptor().metadata()?.modified()?.elapsed();
        Ok(age.is_ok_and(|age| age < LONGEST_LEAVING))
    }

    /// The number its writer has given it, and with it the promise that its records are in order.
    pub(super) fn generation(&self) -> Option<u64> {
        attributes::generation(self.descriptor())
    }

    /// Whether its writer has promised that its records are in order.
    pub(super) fn is_ordered(&self) -> bool {
        self.generation().is_some()
    }

    /// How many bytes were written to the log before this file, when its writer has left word.
    pub(super) fn base(&self) -> Option<u64> {
        attributes::base(self.descriptor())
    }

    /// How long the content is, as far as that is known without decompressing it.
    pub(super) fn length(&self) -> io::Result<Option<u64>> {
        match &self.content {
            Content::Plain(file) => Ok(Some(file.metadata()?.len())),
            Content::Compressed(..) => Ok(None),
        }
    }

    /// What changes when it is written anew.
    pub(super) fn stamp(&self) -> io::Result<FileStamp> {
        let metadata = self.descriptor().metadata()?;
        Ok(FileStamp { length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }

    /// What tells this file from others, whatever its name and form. `None` when there is nothing in it yet.
    pub(super) fn mark(&self) -> io::Result<Option<FileMark>> {
        let mut head = [0; mark::HEAD];
        let length = self.read_head(&mut head)?;
        let fingerprint = (length > 0).then(|| mark::fingerprint(&head[..length]));
        Ok(fingerprint.map(|fingerprint| FileMark { base: self.base(), fingerprint }))
    }

    /// When its first record was logged; `None` when it has none near its beginning.
    pub(super) fn first_time(&self) -> io::Result<Option<Timestamp>> {
        let mut head = vec![0; HEAD];
        let length = self.read_head(&mut head)?;
        let mut parser = RecordParser::default();
        let mut lines = head[..length].split_inclusive(|byte| *byte == b'\n');
        Ok(lines
            .find_map(|line| parser.parse(line.strip_suffix(b"\n")?).map(|record| record.time.timestamp())))
    }

    fn read_head(&self, head: &mut [u8]) -> io::Result<usize> {
        match &self.content {
            Content::Plain(file) => read_up_to(file, head, 0),
            Content::Compressed(file, packing) => Ok(Unpacker::new(file, *packing)?.fill(head)),
        }
    }

    /// Its content from the beginning on, without making room for it.
    pub(super) fn unpacker(&self) -> io::Result<Unpacker> {
        match &self.content {
            Content::Plain(file) => Unpacker::new(file, Packing::Plain),
            Content::Compressed(file, packing) => Unpacker::new(file, *packing),
        }
    }

    /// The content, to be read anywhere; decompressed at the first call.
    pub(super) fn plain(&mut self) -> io::Result<&File> {
        if let Content::Compressed(compressed, packing) = &self.content {
            let unpacked = unpack::unpack(compressed, *packing)?;
            self.damage = unpacked.damage;
            // The compressed file is not needed any more, but what its attributes say is.
            attributes::copy(compressed, &unpacked.file);
            self.content = Content::Plain(unpacked.file);
        }
        Ok(self.descriptor())
    }

    /// The same file once more, without opening it by name: it may have none any more.
    pub(super) fn try_clone(&self) -> io::Result<LogFile> {
        let content = match &self.content {
            Content::Plain(file) => Content::Plain(file.try_clone()?),
            Content::Compressed(file, packing) => Content::Compressed(file.try_clone()?, *packing),
        };
        let (age, damage) = (self.age.clone(), self.damage.clone());
        Ok(LogFile { id: self.id, age, content, damage, start: self.start, limit: self.limit })
    }

    /// The content, if it is not compressed.
    pub(super) fn uncompressed(&self) -> Option<&File> {
        match &self.content {
            Content::Plain(file) => Some(file),
            Content::Compressed(..) => None,
        }
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self.content, Content::Compressed(..))
    }

    fn descriptor(&self) -> &File {
        match &self.content {
            Content::Plain(file) | Content::Compressed(file, _) => file,
        }
    }
}

/// Whether two files hold the same.
pub(super) fn have_same_content(left: &LogFile, right: &LogFile) -> io::Result<bool> {
    if let (Some(left), Some(right)) = (left.length()?, right.length()?)
        && left != right
    {
        return Ok(false);
    }
    let (mut left, mut right) = (left.unpacker()?, right.unpacker()?);
    let (mut left_block, mut right_block) = (vec![0; HEAD], vec![0; HEAD]);
    loop {
        let (count, other) = (left.fill(&mut left_block), right.fill(&mut right_block));
        let is_same = left_block[..count] == right_block[..other];
        if !is_same || count == 0 {
            return Ok(is_same && left.damage().is_none() && right.damage().is_none());
        }
    }
}

/// Opens the current file. `None` when there is none at the moment.
fn open_current(path: &LogPath) -> io::Result<Option<LogFile>> {
    let Some(file) = found(File::open(path.current()))? else { return Ok(None) };
    let id = FileId::of(&file.metadata()?);
    Ok(Some(LogFile::new(id, None, Content::Plain(file))))
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
    let unchanged = opened.eq(ages(path)?.iter()) && stat_current(path)?.map(|(id, _)| id) == current_id;
    // While the writer rotates, the current file has two names.
    files.retain(|file| Some(file.id) != current_id);
    files.extend(current);
    Ok(unchanged.then_some(files))
}

/// `None` when one has been compressed or deleted since it was listed.
fn open_rotated(path: &LogPath) -> io::Result<Option<Vec<LogFile>>> {
    let mut files: Vec<LogFile> = Vec::new();
    for old in path.old_files()? {
        // The plain twin comes first, and is as good.
        if files.last().is_some_and(|last| last.age.as_ref() == Some(&old.age)) {
            continue;
        }
        let Some(file) = found(File::open(&old.path))? else { return Ok(None) };
        let id = FileId::of(&file.metadata()?);
        let content = match old.packing {
            Packing::Plain => Content::Plain(file),
            packing => Content::Compressed(file, packing),
        };
        files.push(LogFile::new(id, Some(old.age), content));
    }
    Ok(Some(files))
}

fn ages(path: &LogPath) -> io::Result<Vec<Age>> {
    let mut ages: Vec<Age> = path.old_files()?.into_iter().map(|file| file.age).collect();
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

/// Reads at `offset` until the buffer is full or the file ends.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
