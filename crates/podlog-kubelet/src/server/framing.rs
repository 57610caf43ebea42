//! Whether a log goes out as it is, or in frames that say where they end.

use std::io;

use podlog_api::FrameHead;
use podlog_driver::{ReadError, ReadState};

use super::log::Log;

/// How a log goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As it is.
    Plain,
    /// In frames ([`FrameHead`]).
    Frames,
}

/// After so many records of which none was wanted, a frame without content says how far the reader has come: who takes up the log
/// again need not have them read again.
const UNWANTED: u64 = 10_000;

/// A log that is being read for somebody.
#[derive(Debug)]
pub(super) struct FramedReader {
    reader: Log,
    framing: Framing,
    /// How many records had been read when it was said last how far that was.
    placed: u64,
}

impl FramedReader {
    pub(super) fn new(reader: Log, framing: Framing) -> Self {
        FramedReader { reader, framing, placed: 0 }
    }

    /// The log itself.
    pub(super) fn reader(&self) -> &Log {
        &self.reader
    }

    /// A second one at the same place.
    ///
    /// # Errors
    /// When the process may not open more files.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(FramedReader { reader: self.reader.try_clone()?, ..*self })
    }

    /// Appends what the reader delivers next. A frame without content tells a reader that is behind how far it has come.
    pub(super) fn read(&mut self, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
        let begin = out.len();
        let state = self.reader.read_chunk(out)?;
        let is_long = self.reader.stats().records.saturating_sub(self.placed) >= UNWANTED;
        if out.len() > begin || state == ReadState::More || is_long {
            self.put_head(out, begin);
        }
        Ok(state)
    }

    /// Appends what there is of unfinished lines, the writer having ended.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let begin = out.len();
        self.reader.finish(out)?;
        if out.len() > begin {
            self.put_head(out, begin);
        }
        Ok(())
    }

    fn put_head(&mut self, out: &mut Vec<u8>, begin: usize) {
        self.placed = self.reader.stats().records;
        if self.framing == Framing::Frames {
            let cursor = self.reader.cursor().map(|cursor| cursor.to_string());
            let head = FrameHead { length: out.len() - begin, cursor }.to_string();
            out.splice(begin..begin, head.into_bytes());
        }
    }
}
