//! Following a log: what may happen to its files while they are read.
//!
//! Who rotates the files of another writer says so in an attribute, and takes it back when that writer has left the file
//! ([`crate::LogRotator`]): so long nobody goes on to the next one. Without such word, the writer is expected to move to a new file once it is at the path, so the old one is read to its end again after
//! the new one was seen. Every generation between the two is read, too. A writer that appends to the old file even
//! later (containerd flushes an unfinished record when it closes a log) is heard as well.

use std::io;

use podlog_line::Mode;

use super::{
    LogReader,
    buffer::Buffer,
    files::{self, LogFile},
    position::Position,
    segment,
};
use crate::{
    ReadError,
    generations::{Age, FileId},
};

/// What a follower remembers of the rotated files it has seen, to know newer ones from them when its own file is gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    newest: Option<Age>,
    /// Of files whose numbers change with each rotation.
    fingerprints: Vec<u64>,
}

impl Seen {
    pub(super) fn new<'a>(files: impl Iterator<Item = &'a LogFile>) -> io::Result<Seen> {
        let mut seen = Seen::default();
        for file in files {
            seen.newest = file.age().cloned().or(seen.newest);
            if let Some(Age::Numbered(_)) = file.age() {
                seen.fingerprints.extend(file.mark()?.map(|mark| mark.fingerprint));
            }
        }
        Ok(seen)
    }

    fn is_newer(&self, file: &LogFile) -> io::Result<bool> {
        match file.age() {
            None => Ok(true),
            Some(age @ Age::Stamped(_)) => Ok(Some(age) > self.newest.as_ref()),
            Some(Age::Numbered(_)) => {
                let mark = file.mark()?;
                Ok(mark.is_none_or(|mark| !self.fingerprints.contains(&mark.fingerprint)))
            }
        }
    }
}

/// Where a follower stands that has read everything there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The file, and how much of it was delivered.
    at: (FileId, u64),
    /// The file before it, to which a writer may still append; `None` when reading began behind it.
    previous: Option<(FileId, u64)>,
}

impl Place {
    /// Behind so many entries of a file of the journal.
    pub(crate) fn of_entries(at: (FileId, u64)) -> Place {
        Place { at, previous: None }
    }

    /// Whether a follower that stands here delivers from here on what one does that stands at `other` and has the same
    /// selection (but for `since` and `tail`, which chose where they began).
    pub fn covers(&self, other: &Place) -> bool {
        self.at == other.at && (other.previous.is_none() || self.previous == other.previous)
    }
}

impl LogReader {
    /// Where this follower stands; `None` while there is more to read, or a line has begun whose rest is to come.
    pub fn place(&self) -> Option<Place> {
        let is_settled = self.upcoming.is_empty() && !self.is_rotated && !self.is_done;
        let at = self.at.as_ref().filter(|_| is_settled && self.renderer.is_between_lines())?;
        let previous = self.previous.as_ref().map(|previous| previous.point(0));
        Some(Place { at: at.point(self.buffer.rest().len()), previous })
    }

    /// At the end of the newest file that is open: whether there is more, in it or in newer ones (which are then
    /// upcoming).
    pub(super) fn notice_rotation(&mut self) -> Result<bool, ReadError> {
        self.try_notice_rotation().map_err(|error| self.source.read_error(error))
    }

    fn try_notice_rotation(&mut self) -> io::Result<bool> {
        let current = files::stat_current(&self.source.path)?;
        let ours = self.at.as_ref().map(Position::id);
        if ours.is_some() && current.map(|(id, _)| id) == ours {
            return self.at.as_mut().map_or(Ok(false), Position::has_more);
        }
        let current = current.map(|(id, _)| id);
        let is_news = !self.is_rotated || self.seen_current != current;
        if ours.is_some() && is_news {
            (self.is_rotated, self.seen_current) = (true, current);
            return Ok(true);
        }
        if let Some(has_more) = self.try_stay()? {
            self.is_rotated = false;
            return Ok(has_more);
        }
        let newer = self.newer_files()?;
        let before = self.at.as_ref().map(Position::file);
        self.upcoming = segment::segments(before, newer)?.into();
        Ok(!self.upcoming.is_empty())
    }

    /// Whether to stay in the file that was read to its end, because its writer may still append to it: then, and once
    /// after that, whether there is more in it.
    pub(super) fn stay(&mut self) -> Result<Option<bool>, ReadError> {
        self.try_stay().map_err(|error| self.source.read_error(error))
    }

    fn try_stay(&mut self) -> io::Result<Option<bool>> {
        let Some(at) = self.at.as_mut().filter(|_| self.follow) else { return Ok(None) };
        if at.file().is_being_left()? {
            self.was_being_left = true;
            return at.has_more().map(Some);
        }
        // What was written before word came is read before anything else.
        if std::mem::take(&mut self.was_being_left) {
            at.has_more().map(|more| more.then_some(true))
        } else {
            Ok(None)
        }
    }

    /// All generations that are newer than the one being read, oldest first.
    fn newer_files(&mut self) -> io::Result<Vec<LogFile>> {
        let mut files = match files::open_all(&self.source.path) {
            // The log was removed with its directory, and nothing of it is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_in_last_file() => Vec::new(),
            opened => opened?,
        };
        let seen = std::mem::replace(&mut self.seen, Seen::new(files.iter())?);
        if let Some(index) = self.find_ours(&files)? {
            files.drain(..=index);
            return Ok(files);
        }
        // Ours has been deleted.
        let mut newer = Vec::with_capacity(files.len());
        for file in files {
            if seen.is_newer(&file)? {
                newer.push(file);
            }
        }
        Ok(newer)
    }

    /// Which of these is the file being read: it may have been compressed meanwhile.
    fn find_ours(&self, files: &[LogFile]) -> io::Result<Option<usize>> {
        let Some(ours) = self.at.as_ref().map(Position::file) else { return Ok(None) };
        if let Some(index) = files.iter().position(|file| file.id() == ours.id()) {
            return Ok(Some(index));
        }
        let (mark, generation) = (ours.mark()?, ours.generation());
        for (index, file) in files.iter().enumerate().rev() {
            // Of files in which nothing was written only their numbers differ.
            let may_be_ours = file.is_compressed()
                && generation.zip(file.generation()).is_none_or(|(ours, other)| ours == other);
            if may_be_ours && file.mark()? == mark && files::have_same_content(ours, file)? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Whether our writer has not gone on to another file before all were deleted.
    fn is_in_last_file(&self) -> bool {
        let file = self.at.as_ref().map(Position::file);
        file.is_some_and(|file| file.is_unfinished() || file.kept_name(self.source.path.name()))
    }

    /// A log that was copied and then cut off in place begins anew.
    pub(super) fn notice_truncation(&mut self) -> Result<(), ReadError> {
        let Some(at) = &mut self.at else { return Ok(()) };
        if at.was_truncated(self.buffer.rest().len()).map_err(|error| self.source.read_error(error))? {
            at.rewind();
            self.is_marked = false;
            self.buffer.clear();
            self.stats.truncations += 1;
        }
        Ok(())
    }

    /// Renders what was appended to the file before this one after we had left it.
    pub(super) fn read_late_records(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let Some(previous) = &mut self.previous else { return Ok(()) };
        if !previous.has_more().map_err(|error| self.source.read_error(error))? {
            return Ok(());
        }
        self.is_marked = false;
        if let (Mode::Exact, Some(mark)) =
            (self.mode, previous.file().mark().map_err(|error| self.source.read_error(error))?)
        {
            self.renderer.begin_file(mark, previous.offset());
        }
        let mut late = Buffer::default();
        loop {
            let count = previous.read(late.room(), true).map_err(|error| self.source.read_error(error))?;
            if count == 0 {
                break;
            }
            late.filled(count);
            let rendered = self.renderer.render(late.rest(), out)?;
            late.consume(rendered.consumed);
        }
        self.renderer.end_file(late.rest(), out)?;
        Ok(())
    }
}
