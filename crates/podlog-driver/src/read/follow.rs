//! Following a log: what may happen to its files while they are read.
//!
//! The writer is expected to move to a new file once it is at the path, so the old one is read to its end again after
//! the new one was seen. Every generation between the two is read, too. A writer that appends to the old file even
//! later (containerd flushes an unfinished record when it closes a log) is heard as well.

use std::{io, os::unix::fs::FileExt};

use super::{
    LogReader,
    buffer::Buffer,
    files::{self, LogFile},
    position::Position,
    reader::newest_age,
};
use crate::{ReadError, generations::FileId};

const COMPARE_BLOCK: usize = 64 * 1024;

/// Where a follower stands that has read everything there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The file, and how much of it was delivered.
    at: (FileId, u64),
    /// The file before it, to which a writer may still append; `None` when reading began behind it.
    previous: Option<(FileId, u64)>,
}

impl Place {
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
        self.upcoming = self.newer_files()?.into();
        Ok(!self.upcoming.is_empty())
    }

    /// All generations that are newer than the one being read, oldest first.
    fn newer_files(&mut self) -> io::Result<Vec<LogFile>> {
        let mut files = match files::open_all(&self.source.path) {
            // The log was removed with its directory, and nothing of it is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_in_last_file() => Vec::new(),
            opened => opened?,
        };
        let seen_age = std::mem::replace(&mut self.newest_age, newest_age(&files));
        let ours = self.at.as_ref().map(Position::id);
        if let Some(index) = files.iter().position(|file| Some(file.id()) == ours) {
            files.drain(..=index);
            return Ok(files);
        }
        files.retain(|file| file.age().is_none() || file.age() > seen_age.as_deref());
        // Ours has been compressed, or deleted.
        if let (Some(at), Some(oldest)) = (&mut self.at, files.first_mut())
            && oldest.is_compressed()
            && has_same_content(at.file_mut(), oldest)?
        {
            files.remove(0);
        }
        Ok(files)
    }

    /// Whether our writer has not gone on to another file, which it says before it does.
    fn is_in_last_file(&self) -> bool {
        self.at.as_ref().is_some_and(Position::is_unfinished)
    }

    /// A log that was copied and then cut off in place begins anew.
    pub(super) fn notice_truncation(&mut self) -> Result<(), ReadError> {
        let Some(at) = &mut self.at else { return Ok(()) };
        if at.was_truncated(self.buffer.rest().len()).map_err(|error| self.source.read_error(error))? {
            at.rewind();
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
        if late.terminate() {
            self.renderer.render(late.rest(), out)?;
        }
        Ok(())
    }
}

fn has_same_content(ours: &mut LogFile, other: &mut LogFile) -> io::Result<bool> {
    let (ours, other) = (ours.plain()?, other.plain()?);
    let length = ours.metadata()?.len();
    if length != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; COMPARE_BLOCK], vec![0; COMPARE_BLOCK]);
    let mut offset = 0;
    while offset < length {
        let size = usize::try_from(length - offset).unwrap_or(usize::MAX).min(COMPARE_BLOCK);
        ours.read_exact_at(&mut left[..size], offset)?;
        other.read_exact_at(&mut right[..size], offset)?;
        if left[..size] != right[..size] {
            return Ok(false);
        }
        offset += size as u64;
    }
    Ok(true)
}
