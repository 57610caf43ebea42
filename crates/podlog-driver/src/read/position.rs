//! A place in a file of a log.

use std::{io, os::unix::fs::FileExt};

use memchr::memchr;

use super::{
    files::LogFile,
    index::{IndexCache, Learner},
    unpack::Unpacker,
};
use crate::generations::FileId;

/// So many bytes are remembered.
const CHECK_LENGTH: usize = 32;

/// Where reading is in a file.
#[derive(Debug)]
pub(super) struct Position {
    file: LogFile,
    /// Where its content comes from when it is compressed.
    unpacker: Option<Unpacker>,
    /// Learns what is in it, if nobody knows.
    learner: Option<Learner>,
    offset: u64,
    /// Where the part of the file that is of interest ends.
    end: Option<u64>,
    /// Its writer has promised that its records are in order.
    is_ordered: bool,
    /// The last read came to the end of the file.
    is_at_end: bool,
    /// The last bytes that were rendered, to notice that the file was written anew.
    rendered: Vec<u8>,
}

impl Position {
    /// Where reading of the file begins, its beginning if nothing else was settled. A file that is compressed is
    /// decompressed while it is read.
    pub(super) fn new(file: LogFile) -> io::Result<Position> {
        let (offset, end, is_ordered) = (file.start.unwrap_or(0), file.limit, file.is_ordered());
        let rendered = Vec::new();
        let (unpacker, learner) = (None, None);
        Position { file, unpacker, learner, offset, end, is_ordered, is_at_end: false, rendered }
            .with_unpacker()
    }

    /// The same place once more.
    pub(super) fn try_clone(&self) -> io::Result<Position> {
        let (rendered, file) = (self.rendered.clone(), self.file.try_clone()?);
        Position { file, rendered, unpacker: None, learner: None, ..*self }.with_unpacker()
    }

    fn with_unpacker(mut self) -> io::Result<Position> {
        if self.file.is_compressed() {
            let mut unpacker = self.file.unpacker()?;
            unpacker.skip(self.offset);
            self.unpacker = Some(unpacker);
        }
        Ok(self)
    }

    /// Others shall know what is in a compressed file that is read from its beginning.
    pub(super) fn learn(&mut self, indexes: &IndexCache) -> io::Result<()> {
        if self.unpacker.is_some() && self.offset == 0 {
            self.learner = indexes.learner(&self.file)?;
        }
        Ok(())
    }

    /// The file, and what was read of it but for the last `held` bytes.
    pub(super) fn point(&self, held: usize) -> (FileId, u64) {
        (self.id(), self.offset - held as u64)
    }

    pub(super) fn id(&self) -> FileId {
        self.file.id()
    }

    /// Why the end of the file is missing, if it is. Told once.
    pub(super) fn take_damage(&mut self) -> Option<String> {
        let damage = self.unpacker.as_mut().and_then(Unpacker::take_damage);
        damage.or_else(|| self.file.take_damage())
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
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
        // What is compressed does not change any more.
        self.is_at_end = count < room && self.unpacker.is_none();
        if left == 0
            && let Some(last) = memchr(b'\n', &buffer[..count])
        {
            count = last + 1;
        }
        self.offset += count as u64;
        Ok(count)
    }

    fn read_at(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(unpacker) = &mut self.unpacker {
            let count = unpacker.fill(buffer);
            if let Some(learner) = &mut self.learner {
                learner.look_at(&buffer[..count]);
            }
            let is_end = count < buffer.len();
            let learner = self.learner.take_if(|_| is_end);
            if unpacker.damage().is_none() {
                learner.into_iter().for_each(Learner::finish);
            }
            return Ok(count);
        }
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
        if self.unpacker.is_some() {
            return Ok(false);
        }
        let offset = self.offset;
        Ok(self.file.plain()?.metadata()?.len() > offset)
    }

    /// Whether the file has been cut off, or cut off and written anew. The last `held` bytes that were read are not
    /// looked at: a record that did not fit on the disk is cut off by its writer.
    pub(super) fn was_truncated(&mut self, held: usize) -> io::Result<bool> {
        if self.unpacker.is_some() {
            return Ok(false);
        }
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

    pub(super) fn file(&self) -> &LogFile {
        &self.file
    }

    /// Where in the file reading is: behind the last byte that was read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether there is more in the file that is not wanted.
    pub(super) fn is_cut(&self) -> io::Result<bool> {
        let is_over = self.end.is_some_and(|end| self.offset >= end);
        Ok(is_over && self.file.length()?.is_none_or(|length| length > self.offset))
    }

    /// Nothing more of the file is wanted.
    pub(super) fn skip_rest(&mut self) {
        self.end = Some(self.offset);
    }
}
