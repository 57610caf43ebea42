//! A place in a file of a log.

use std::{io, os::unix::fs::FileExt};

use memchr::memchr;

use super::files::LogFile;
use crate::generations::FileId;

/// So many bytes before the offset are remembered.
const CHECK_LENGTH: usize = 32;

/// Where reading is in a file.
#[derive(Debug)]
pub(super) struct Position {
    file: LogFile,
    offset: u64,
    /// Where the log ended when reading began, for one who does not follow.
    end: Option<u64>,
    /// The bytes before `offset`, to notice that the file was written anew.
    check: Vec<u8>,
}

impl Position {
    pub(super) fn new(mut file: LogFile, offset: u64) -> io::Result<Position> {
        file.plain()?;
        Ok(Position { file, offset, end: None, check: Vec::new() })
    }

    pub(super) fn id(&self) -> FileId {
        self.file.id()
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.file.is_damaged()
    }

    /// Reads no record that begins at `end` or behind it.
    pub(super) fn end_at(&mut self, end: u64) {
        self.end = Some(end);
    }

    /// Reads on. `is_inside_record`: what was read before ends inside a record, which is read to its end in any case.
    pub(super) fn read(&mut self, buffer: &mut [u8], is_inside_record: bool) -> io::Result<usize> {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.offset));
        if left == 0 && !is_inside_record {
            return Ok(0);
        }
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut count = self.read_at(if left == 0 { buffer } else { &mut buffer[..room] })?;
        if left == 0
            && let Some(last) = memchr(b'\n', &buffer[..count])
        {
            count = last + 1;
        }
        self.advance(&buffer[..count]);
        Ok(count)
    }

    fn read_at(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.plain()?.read_at(buffer, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn advance(&mut self, read: &[u8]) {
        self.offset += read.len() as u64;
        self.check.extend_from_slice(&read[read.len().saturating_sub(CHECK_LENGTH)..]);
        self.check.drain(..self.check.len().saturating_sub(CHECK_LENGTH));
    }

    /// Whether there is more in the file than was read.
    pub(super) fn has_more(&mut self) -> io::Result<bool> {
        let offset = self.offset;
        Ok(self.file.plain()?.metadata()?.len() > offset)
    }

    /// Whether the file has been cut off, or cut off and written anew, since it was read.
    pub(super) fn was_truncated(&mut self) -> io::Result<bool> {
        if self.file.plain()?.metadata()?.len() < self.offset {
            return Ok(true);
        }
        let mut found = [0; CHECK_LENGTH];
        let found = &mut found[..self.check.len()];
        let from = self.offset - self.check.len() as u64;
        match self.file.plain()?.read_exact_at(found, from) {
            Ok(()) => Ok(*found != self.check[..]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) fn rewind(&mut self) {
        self.offset = 0;
        self.check.clear();
    }

    pub(super) fn file_mut(&mut self) -> &mut LogFile {
        &mut self.file
    }
}
