//! A place in a file of a log.

use std::{io, os::unix::fs::FileExt};

use memchr::memchr;

use super::files::LogFile;
use crate::generations::FileId;

/// So many bytes are remembered.
const CHECK_LENGTH: usize = 32;

/// Where reading is in a file.
#[derive(Debug)]
pub(super) struct Position {
    file: LogFile,
    offset: u64,
    /// Where the log ended when reading began, for one who does not follow.
    end: Option<u64>,
    /// The last read came to the end of the file.
    is_at_end: bool,
    /// The last bytes that were rendered, to notice that the file was written anew.
    rendered: Vec<u8>,
}

impl Position {
    pub(super) fn new(mut file: LogFile, offset: u64) -> io::Result<Position> {
        file.plain()?;
        Ok(Position { file, offset, end: None, is_at_end: false, rendered: Vec::new() })
    }

    /// The same place once more.
    pub(super) fn try_clone(&self) -> io::Result<Position> {
        let (rendered, file) = (self.rendered.clone(), self.file.try_clone()?);
        Ok(Position { file, offset: self.offset, end: self.end, is_at_end: self.is_at_end, rendered })
    }

    /// The file, and what was read of it but for the last `held` bytes.
    pub(super) fn point(&self, held: usize) -> (FileId, u64) {
        (self.id(), self.offset - held as u64)
    }

    pub(super) fn id(&self) -> FileId {
        self.file.id()
    }

    /// Whether its writer leaves word when it is done with a file, and is not done with this one.
    pub(super) fn is_unfinished(&self) -> bool {
        self.file.is_unfinished()
    }

    pub(super) fn damage(&self) -> Option<&str> {
        self.file.damage()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
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
        let room = if left == 0 {
            buffer.len()
        } else {
            buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX))
        };
        let mut count = self.read_at(&mut buffer[..room])?;
        self.is_at_end = count < room;
        if left == 0
            && let Some(last) = memchr(b'\n', &buffer[..count])
        {
            count = last + 1;
        }
        self.offset += count as u64;
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

    /// Takes note of what was rendered.
    pub(super) fn rendered(&mut self, bytes: &[u8]) {
        self.rendered.extend_from_slice(&bytes[bytes.len().saturating_sub(CHECK_LENGTH)..]);
        self.rendered.drain(..self.rendered.len().saturating_sub(CHECK_LENGTH));
    }

    /// The last `count` bytes are to be read again.
    pub(super) fn step_back(&mut self, count: usize) {
        self.offset -= count as u64;
    }

    /// Whether there is more in the file than was read.
    pub(super) fn has_more(&mut self) -> io::Result<bool> {
        let offset = self.offset;
        Ok(self.file.plain()?.metadata()?.len() > offset)
    }

    /// Whether the file has been cut off, or cut off and written anew. The last `held` bytes that were read are not
    /// looked at: a record that did not fit on the disk is cut off by its writer.
    pub(super) fn was_truncated(&mut self, held: usize) -> io::Result<bool> {
        let rendered_to = self.offset - held as u64;
        let file = self.file.plain()?;
        if file.metadata()?.len() < rendered_to {
            return Ok(true);
        }
        let mut found = [0; CHECK_LENGTH];
        let found = &mut found[..self.rendered.len()];
        match file.read_exact_at(found, rendered_to - self.rendered.len() as u64) {
            Ok(()) => Ok(*found != self.rendered[..]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) fn rewind(&mut self) {
        self.offset = 0;
        self.rendered.clear();
    }

    pub(super) fn file_mut(&mut self) -> &mut LogFile {
        &mut self.file
    }
}
