//! A container's log that is being read, wherever it is kept.

use std::io;
use std::path::PathBuf;

use podlog_driver::{JournalReader, LogReader, Place, ReadError, ReadState, ReadStats, Resumed};
use podlog_line::Cursor;

/// A log, to be read chunk by chunk.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "what holds it is in a box, and most logs are in files")]
pub(super) enum Log {
    /// In files of its own.
    Files(LogReader),
    /// In the journal of the machine.
    Journal(JournalReader),
}

impl Log {
    pub(super) fn read_chunk(&mut self, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
        match self {
            Log::Files(reader) => reader.read_chunk(out),
            Log::Journal(reader) => reader.read_chunk(out),
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        match self {
            Log::Files(reader) => reader.finish(out),
            Log::Journal(reader) => reader.finish(out),
        }
    }

    /// A second one at the same place.
    pub(super) fn try_clone(&self) -> io::Result<Log> {
        Ok(match self {
            Log::Files(reader) => Log::Files(reader.try_clone()?),
            Log::Journal(reader) => Log::Journal(reader.try_clone()?),
        })
    }

    pub(super) fn stats(&self) -> ReadStats {
        match self {
            Log::Files(reader) => reader.stats(),
            Log::Journal(reader) => reader.stats(),
        }
    }

    pub(super) fn cursor(&self) -> Option<Cursor> {
        match self {
            Log::Files(reader) => reader.cursor(),
            Log::Journal(reader) => reader.cursor(),
        }
    }

    pub(super) fn resumed(&self) -> Resumed {
        match self {
            Log::Files(reader) => reader.resumed(),
            Log::Journal(reader) => reader.resumed(),
        }
    }

    pub(super) fn place(&self) -> Option<Place> {
        match self {
            Log::Files(reader) => reader.place(),
            Log::Journal(reader) => reader.place(),
        }
    }

    /// The directory of the journal, if that is where it is kept.
    pub(super) fn journal(&self) -> Option<PathBuf> {
        match self {
            Log::Files(_) => None,
            Log::Journal(reader) => reader.directory(),
        }
    }
}
