//! Writing a container log in CRI format.

mod append;
mod compress;
mod rotate;
mod start;

use std::{io, path::PathBuf};

use memchr::memchr;
use podlog_line::{LineEnd, Stream, Timestamp, TimestampFormatter, cri};

use crate::{
    SinkError,
    attributes::{self, FileEnd},
    error::reason,
    generations::{FileId, LogPath},
};
use append::{Appender, Written};
use compress::Compressor;

/// The longest content of a record; longer lines are split into `P` records, as containerd does by default.
pub const MAX_CONTENT: usize = 16 * 1024;
/// A batch of records is written when it has this size, or when the chunk ends.
const FLUSH_AT: usize = 256 * 1024;
/// So many bytes of records are kept for later when the disk is full; what comes then is dropped,
const MAX_BACKLOG: usize = 1024 * 1024;
/// until no more than this is left of them.
const RESUME_AT: usize = MAX_BACKLOG / 2;
/// A clock that was set back by no more than this stands still until it has caught up; after a bigger step the log
/// begins a new file.
const MAX_CLOCK_HOLD: std::time::Duration = std::time::Duration::from_secs(60);

/// How large a log may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// A file is rotated before it would exceed this; only a single record can be larger. `u64::MAX`: never rotated.
    pub max_bytes: u64,
    /// Files that are kept, the current one included.
    pub max_files: u32,
}

/// The kubelet's: 10 MiB, 5 files.
impl Default for FileLimits {
    fn default() -> FileLimits {
        FileLimits { max_bytes: 10 * 1024 * 1024, max_files: 5 }
    }
}

/// What a sink counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SinkStats {
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Bytes that are in files, headers included.
    pub bytes_written: u64,
    /// Records that were dropped because they could not be written.
    pub dropped_records: u64,
    /// Bytes of content in those.
    pub dropped_bytes: u64,
    /// Bytes of records that wait until they can be written.
    pub backlog_bytes: u64,
    /// How often the file was rotated.
    pub rotations: u64,
}

/// Writes the output of one container to its log file, and rotates it.
///
/// Everything that is a whole record after a call has been handed to the kernel, or waits because the disk is full, or
/// is counted as dropped; nothing blocks. The time of records never goes back within a file.
#[derive(Debug)]
pub struct CriFileSink {
    path: LogPath,
    limits: FileLimits,
    file: Appender<std::fs::File>,
    compressor: Compressor,
    formatter: TimestampFormatter,
    /// The time of the last record.
    last: Timestamp,
    headers: Headers,
    lines: [Line; 2],
    /// The number of the file.
    generation: u64,
    /// Set while writing fails.
    failing: bool,
    failure: String,
    stats: SinkStats,
}

/// The headers of the chunk that is being written: records of a chunk differ only in their tag.
#[derive(Debug, Default)]
struct Headers {
    full: Vec<u8>,
    partial: Vec<u8>,
}

/// The line a stream is in.
#[derive(Debug, Default)]
struct Line {
    /// Its end so far, not yet in a record.
    held: Vec<u8>,
    /// Whether the last record was a partial one.
    inside: bool,
    dropped: Dropped,
}

/// What a stream has lost since its last marker.
#[derive(Debug, Default)]
struct Dropped {
    records: u64,
    bytes: u64,
}

impl CriFileSink {
    /// Opens the log for appending, makes it (mode 0640) and its directory if they are missing, and repairs what an
    /// interrupted writer left: a torn last record gets its line feed, unfinished rotations and compressions are
    /// undone or finished.
    pub fn open(path: impl Into<PathBuf>, limits: FileLimits) -> Result<CriFileSink, SinkError> {
        let path = path.into();
        let name = LogPath::new(&path);
        let open_error = |source| SinkError::Open { path: path.clone(), source };
        let opened = start::open(&name).map_err(open_error)?;
        let mut sink = CriFileSink {
            compressor: Compressor::new(name.clone()),
            path: name,
            limits,
            file: opened.file,
            formatter: TimestampFormatter::default(),
            last: opened.last,
            headers: Headers::default(),
            lines: [Line::default(), Line::default()],
            generation: opened.generation,
            failing: false,
            failure: String::new(),
            stats: SinkStats::default(),
        };
        for (line, inside) in sink.lines.iter_mut().zip(sink.file.inside_line) {
            line.inside = inside;
        }
        sink.compressor.start();
        Ok(sink)
    }

    /// Takes a chunk of a stream that was read `at` a time. What follows its last line feed is held back, up to
    /// [`MAX_CONTENT`].
    ///
    /// An error says that writing has begun to fail: it is news, not a request to repeat the call. The records wait;
    /// when too many do, they are dropped and counted, and a record says so as soon as there is room again.
    pub fn write(&mut self, stream: Stream, chunk: &[u8], at: Timestamp) -> Result<(), SinkError> {
        self.stats.bytes_in += chunk.len() as u64;
        let mut result = Ok(());
        self.stamp(stream, at);
        let mut rest = chunk;
        while let Some(length) = memchr(b'\n', rest) {
            self.line(stream, &rest[..length]);
            rest = &rest[length + 1..];
            if self.file.batch.len() >= FLUSH_AT && !self.failing {
                result = result.and(self.flush());
            }
        }
        self.hold(stream, rest);
        result.and(self.flush())
    }

    /// Writes what is held back of unfinished lines as partial records, so that a prompt becomes visible.
    pub fn flush_partial(&mut self, at: Timestamp) -> Result<(), SinkError> {
        let stdout = self.end(Stream::Stdout, at);
        let stderr = self.end(Stream::Stderr, at);
        stdout.and(stderr)
    }

    /// The stream has ended: what is held back of its last line becomes a partial record.
    pub fn end(&mut self, stream: Stream, at: Timestamp) -> Result<(), SinkError> {
        if !self.lines[stream.index()].held.is_empty() {
            self.stamp(stream, at);
            self.push(stream, LineEnd::Partial, b"");
        }
        self.flush()
    }

    /// Whether something is held back that [`CriFileSink::flush_partial`] would write.
    pub fn has_partial(&self) -> bool {
        self.lines.iter().any(|line| !line.held.is_empty())
    }

    /// Goes on in the file that is now at the path; it is made if it is missing. Called after somebody else has renamed
    /// the log. On failure the old file stays in use.
    pub fn reopen(&mut self) -> Result<(), SinkError> {
        let flushed = self.flush();
        let open_error = |source| SinkError::Open { path: self.path.current(), source };
        let opened = start::open_current(&self.path, self.generation).map_err(open_error)?;
        if FileId::of_open(opened.file.raw()).map_err(open_error)?
            == FileId::of_open(self.file.raw()).map_err(open_error)?
        {
            return flushed;
        }
        self.mark_end();
        let old = std::mem::replace(&mut self.file, opened.file);
        self.file.batch = old.batch;
        self.file.inside_line = old.inside_line;
        self.last = opened.last;
        self.generation = opened.generation;
        flushed
    }

    /// What was counted so far.
    pub fn stats(&self) -> SinkStats {
        let backlog_bytes = if self.failing { self.file.batch.len() as u64 } else { 0 };
        SinkStats { backlog_bytes, ..self.stats }
    }

    /// Prepares the headers of a chunk.
    fn stamp(&mut self, stream: Stream, at: Timestamp) {
        let was_set_back = at.saturating_add(MAX_CLOCK_HOLD) < self.last;
        if was_set_back && self.file.length > 0 && !self.failing && self.rotate_or_warn() {
            self.last = at;
        }
        self.last = self.last.max(at);
        let time = self.formatter.format(self.last);
        for (header, end) in
            [(&mut self.headers.full, LineEnd::Full), (&mut self.headers.partial, LineEnd::Partial)]
        {
            header.clear();
            cri::append_header(header, time, stream, end);
        }
    }

    /// The end of a line, without its line feed.
    #[inline]
    fn line(&mut self, stream: Stream, content: &[u8]) {
        let content = self.split(stream, content);
        self.push(stream, LineEnd::Full, content);
    }

    fn hold(&mut self, stream: Stream, content: &[u8]) {
        let content = self.split(stream, content);
        self.lines[stream.index()].held.extend_from_slice(content);
    }

    /// Writes partial records while there is too much for one; returns what is left of `content`.
    #[inline]
    fn split<'a>(&mut self, stream: Stream, mut content: &'a [u8]) -> &'a [u8] {
        loop {
            let held = self.lines[stream.index()].held.len();
            if held + content.len() <= MAX_CONTENT {
                return content;
            }
            let (part, rest) = content.split_at(MAX_CONTENT - held);
            self.push(stream, LineEnd::Partial, part);
            content = rest;
        }
    }

    /// Adds a record of what is held and `content` to the batch.
    #[inline]
    fn push(&mut self, stream: Stream, end: LineEnd, content: &[u8]) {
        if self.failing && !self.make_room(stream, content.len()) {
            return;
        }
        let line = &mut self.lines[stream.index()];
        let header = if end == LineEnd::Full { &self.headers.full } else { &self.headers.partial };
        self.file.push(header, &line.held, content);
        line.inside = end == LineEnd::Partial;
        line.held.clear();
    }

    /// While writing fails: whether a record may wait for better times. If not, it is dropped. Where something was dropped, the
    /// first thing that waits again says so.
    #[cold]
    fn make_room(&mut self, stream: Stream, content: usize) -> bool {
        let is_dropping = self.lines.iter().any(|line| line.dropped.records > 0);
        if self.file.batch.len() < if is_dropping { RESUME_AT } else { MAX_BACKLOG } {
            self.mark_missing();
            return true;
        }
        let line = &mut self.lines[stream.index()];
        let bytes = (line.held.len() + content) as u64;
        line.held.clear();
        line.dropped.records += 1;
        line.dropped.bytes += bytes;
        self.stats.dropped_records += 1;
        self.stats.dropped_bytes += bytes;
        false
    }

    /// Writes the batch, into as many files as it needs. Reports only the beginning of a failure.
    fn flush(&mut self) -> Result<(), SinkError> {
        let result = self.try_flush();
        let was_failing = std::mem::replace(&mut self.failing, result.is_err());
        match result {
            Ok(()) if was_failing => self.recovered(),
            Ok(()) => Ok(()),
            Err(error) => {
                self.failure = reason(&error);
                if was_failing { Ok(()) } else { Err(self.write_error(error)) }
            }
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let mut max_bytes = self.limits.max_bytes;
        loop {
            let written = self.file.flush(max_bytes, &mut self.stats.bytes_written)?;
            if written == Written::All {
                self.file.inside_line = [self.lines[0].inside, self.lines[1].inside];
                return Ok(());
            }
            // A file that is too large is better than records that are lost.
            if !self.rotate_or_warn() {
                max_bytes = u64::MAX;
            }
        }
    }

    /// There is room again.
    fn recovered(&mut self) -> Result<(), SinkError> {
        self.file.batch.shrink_to(FLUSH_AT);
        self.mark_missing();
        self.flush()
    }

    /// Says in each stream what is missing. A line that was cut off is ended first.
    fn mark_missing(&mut self) {
        for stream in Stream::ALL {
            let dropped = std::mem::take(&mut self.lines[stream.index()].dropped);
            if dropped.records > 0 {
                self.marker(stream, &dropped);
            }
        }
    }

    fn marker(&mut self, stream: Stream, dropped: &Dropped) {
        let text = format!(
            "podlog: {} records ({} bytes) are missing here: {}",
            dropped.records, dropped.bytes, self.failure
        );
        let time = self.formatter.format(self.last);
        let line = &mut self.lines[stream.index()];
        if std::mem::take(&mut line.inside) {
            cri::append_record(&mut self.file.batch, time, stream, LineEnd::Full, b"");
        }
        cri::append_record(&mut self.file.batch, time, stream, LineEnd::Full, text.as_bytes());
    }

    /// Whether there is a new file now.
    fn rotate_or_warn(&mut self) -> bool {
        let result = self.rotate();
        if let Err(error) = &result {
            tracing::warn!(%error, path = %self.path.current().display(), "the log could not be rotated");
        }
        result.is_ok()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.mark_end();
        let file = rotate::rotate(&self.path, self.last, self.generation + 1)?;
        self.file.replace(file);
        self.generation += 1;
        self.stats.rotations += 1;
        self.compressor.retain(self.limits.max_files);
        self.compressor.start();
        Ok(())
    }

    fn mark_end(&mut self) {
        self.file.update_inside_line();
        let end = FileEnd { last: self.last, inside_line: self.file.inside_line };
        attributes::mark_end(self.file.raw(), end);
    }

    fn write_error(&self, source: io::Error) -> SinkError {
        SinkError::Write { path: self.path.current(), source }
    }
}

#[cfg(test)]
mod tests;
