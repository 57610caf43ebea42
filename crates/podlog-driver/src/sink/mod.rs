//! Writing a container log in CRI format.

mod append;
mod batch;
mod compress;
mod crash;
mod interruption;
mod options;
mod resume;
mod rotate;
mod rotator;
mod start;

use std::{io, path::PathBuf};

use memchr::{memchr, memchr_iter};
use podlog_line::{GAP_TAG, Gap, GapReason, LineEnd, Stream, Timestamp, TimestampFormatter};

use crate::{
    SinkError,
    attributes::{self, FileEnd},
    generations::{FileId, LogPath},
};
use append::{Appender, Written};
use batch::Header;
use compress::Compressor;
pub use interruption::{LogWriterMark, declare_interruption};
pub use options::{FileLimits, MAX_CONTENT, SinkOptions, SinkStats, WhenFull};
pub use resume::{Content, FilePosition, content_since};
use rotate::Place;
pub use rotator::{LogRetention, LogRotator};

/// A batch of records is written when it has this size, or when the chunk ends.
const FLUSH_AT: usize = 256 * 1024;
/// With [`WhenFull::Drop`] so many bytes of records are kept for later; what comes then is dropped,
const MAX_BACKLOG: usize = 1024 * 1024;
/// until no more than this is left of them.
const RESUME_AT: usize = MAX_BACKLOG / 2;
/// A clock that was set back by no more than this stands still until it has caught up; after a bigger step the log
/// begins a new file.
const MAX_CLOCK_HOLD: std::time::Duration = std::time::Duration::from_secs(60);

/// Writes the output of one container to its log file, and rotates it.
///
/// Everything that is a whole record after [`CriFileSink::write`] has been handed to the kernel, or waits because the disk
/// is full, or is counted as dropped ([`WhenFull`]); nothing waits for room on the disk. The time of records never goes back
/// within a file.
#[derive(Debug)]
pub struct CriFileSink {
    path: LogPath,
    limits: FileLimits,
    max_content: usize,
    when_full: WhenFull,
    file: Appender<std::fs::File>,
    /// Which file that is.
    identity: FilePosition,
    compressor: Compressor,
    formatter: TimestampFormatter,
    /// The time of the last record.
    last: Timestamp,
    headers: Headers,
    lines: [Line; 2],
    place: Place,
    /// Set while writing fails.
    failing: bool,
    stats: SinkStats,
}

/// The headers of the chunk that is being written: records of a chunk differ only in their tag.
#[derive(Debug, Default)]
struct Headers {
    full: Header,
    partial: Header,
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
    /// Lines that ended in what was dropped.
    lines: u64,
    /// Whether the last record that was dropped did not end its line.
    begun: bool,
    bytes: u64,
    between: Option<(Timestamp, Timestamp)>,
}

impl Dropped {
    fn add(&mut self, end: LineEnd, content: u64, at: Timestamp) -> u64 {
        let line_feed = u64::from(end == LineEnd::Full);
        self.lines += line_feed;
        self.begun = end == LineEnd::Partial;
        self.bytes += content + line_feed;
        self.between = Some((self.between.map_or(at, |(from, _)| from), at));
        content + line_feed
    }

    fn gap(&self, stream: Stream) -> Option<Gap> {
        let (from, to) = self.between?;
        Some(Gap {
            reason: GapReason::WriteFailed,
            stream: Some(stream),
            lines: Some(self.lines + u64::from(self.begun)),
            bytes: Some(self.bytes),
            from: Some(from),
            to: Some(to),
        })
    }
}

impl CriFileSink {
    /// As [`CriFileSink::open_with`], and otherwise as options are by default.
    pub fn open(path: impl Into<PathBuf>, limits: FileLimits) -> Result<CriFileSink, SinkError> {
        CriFileSink::open_with(path, SinkOptions { limits, ..SinkOptions::default() })
    }

    /// Opens the log for appending, makes it (mode 0640) and its directory if they are missing, and repairs what an
    /// interrupted writer left: a torn last record gets its line feed, unfinished rotations and compressions are
    /// undone or finished.
    pub fn open_with(path: impl Into<PathBuf>, options: SinkOptions) -> Result<CriFileSink, SinkError> {
        let path = path.into();
        let name = LogPath::new(&path);
        let open_error = |source| SinkError::Open { path: path.clone(), source };
        let opened = start::open(&name).map_err(open_error)?;
        let mut sink = CriFileSink {
            compressor: Compressor::new(name.clone(), options.limits),
            path: name,
            limits: options.limits,
            max_content: options.max_content(),
            when_full: options.when_full,
            identity: FilePosition::start_of(opened.file.raw()),
            file: opened.file,
            formatter: TimestampFormatter::default(),
            last: opened.last,
            headers: Headers::default(),
            lines: [Line::default(), Line::default()],
            place: opened.place,
            failing: false,
            stats: SinkStats::default(),
        };
        for (line, inside) in sink.lines.iter_mut().zip(sink.file.inside_line) {
            line.inside = inside;
        }
        sink.compressor.rotated();
        Ok(sink)
    }

    /// Takes a chunk of a stream that was read `at` a time, and writes it. What follows its last line feed is held back, up
    /// to the size of a record.
    ///
    /// An error says that writing has begun to fail: it is news, not a request to repeat the call. What was taken waits:
    /// see [`WhenFull`].
    pub fn write(&mut self, stream: Stream, chunk: &[u8], at: Timestamp) -> Result<(), SinkError> {
        let added = self.add(stream, chunk, at);
        added.and(self.flush())
    }

    /// As [`CriFileSink::write`], but leaves the writing to [`CriFileSink::flush`] until there is enough for a large one:
    /// for many small chunks that are at hand at once.
    pub fn add(&mut self, stream: Stream, chunk: &[u8], at: Timestamp) -> Result<(), SinkError> {
        self.stats.bytes_in += chunk.len() as u64;
        let mut result = Ok(());
        self.stamp(stream, at);
        let mut rest = chunk;
        while let Some(length) = memchr(b'\n', rest) {
            if self.is_plain(stream, length) {
                rest = self.plain_lines(stream, rest);
            } else {
                self.line(stream, &rest[..length]);
                rest = &rest[length + 1..];
            }
            if self.file.batch.len() >= FLUSH_AT && !self.failing {
                result = result.and(self.flush());
            }
        }
        self.hold(stream, rest);
        result
    }

    /// Declares that something is missing here: a record with the tag `F:podlog-gap` in the stream of `gap`, in stdout if
    /// that is not known. A line of this stream that has begun is ended first: what is held back of it becomes a partial
    /// record, then an empty one follows.
    pub fn gap(&mut self, gap: Gap, at: Timestamp) -> Result<(), SinkError> {
        let stream = gap.stream.unwrap_or(Stream::Stdout);
        self.stamp(stream, at);
        if !self.lines[stream.index()].held.is_empty() {
            self.push(stream, LineEnd::Partial, b"");
        }
        self.marker(stream, &gap);
        self.flush()
    }

    /// Whether writing fails just now, so that what was taken waits: [`CriFileSink::flush`] tries again.
    pub fn is_stalled(&self) -> bool {
        self.failing
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

    /// What is held back of the last line of a stream, not yet in a record.
    pub fn held(&self, stream: Stream) -> &[u8] {
        &self.lines[stream.index()].held
    }

    /// Where the log ends now. What is written next stands behind it, in this file or the next.
    pub fn position(&self) -> FilePosition {
        FilePosition { length: self.file.length, ..self.identity }
    }

    /// Goes on in the file that is now at the path; it is made if it is missing. Called after somebody else has renamed
    /// the log. On failure the old file stays in use.
    pub fn reopen(&mut self) -> Result<(), SinkError> {
        let flushed = self.flush();
        let open_error = |source| SinkError::Open { path: self.path.current(), source };
        let length = self.file.raw().metadata().map_err(open_error)?.len();
        let opened = start::open_current(&self.path, Some(self.place.after(length))).map_err(open_error)?;
        if FileId::of_open(opened.file.raw()).map_err(open_error)?
            == FileId::of_open(self.file.raw()).map_err(open_error)?
        {
            return flushed;
        }
        self.mark_end();
        let old = std::mem::replace(&mut self.file, opened.file);
        self.identity = FilePosition::start_of(self.file.raw());
        self.file.batch = old.batch;
        self.file.inside_line = old.inside_line;
        self.last = opened.last;
        self.place = opened.place;
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
        // What waits was stamped before: it belongs into the old file.
        let is_written = !was_set_back || self.file.batch.is_empty() || self.flush().is_ok();
        if was_set_back && is_written && self.file.length > 0 && !self.failing && self.rotate_or_warn() {
            self.last = at;
        }
        self.last = self.last.max(at);
        let time = self.formatter.format(self.last);
        self.headers.full = Header::new(time, stream, LineEnd::Full);
        self.headers.partial = Header::new(time, stream, LineEnd::Partial);
    }

    /// Whether a line of such a length is a record of its own, made of nothing else.
    #[inline]
    fn is_plain(&self, stream: Stream, length: usize) -> bool {
        length <= self.max_content
            && self.file.batch.len() < FLUSH_AT
            && !self.failing
            && self.lines[stream.index()].held.is_empty()
    }

    /// Makes records of lines until one is not plain, or until there is enough to be written; returns the rest. The first
    /// line is plain. Nearly everything that is ever logged passes here.
    fn plain_lines<'a>(&mut self, stream: Stream, chunk: &'a [u8]) -> &'a [u8] {
        let header = self.headers.full;
        let batch = &mut self.file.batch;
        let mut begin = 0;
        for end in memchr_iter(b'\n', chunk) {
            if end - begin > self.max_content || batch.len() >= FLUSH_AT {
                break;
            }
            batch.push_line(&header, &chunk[begin..=end]);
            begin = end + 1;
        }
        self.lines[stream.index()].inside = false;
        &chunk[begin..]
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
            if held + content.len() <= self.max_content {
                return content;
            }
            let (part, rest) = content.split_at(self.max_content - held);
            self.push(stream, LineEnd::Partial, part);
            content = rest;
        }
    }

    /// Adds a record of what is held and `content` to the batch.
    fn push(&mut self, stream: Stream, end: LineEnd, content: &[u8]) {
        if self.failing && !self.make_room(stream, end, content.len()) {
            return;
        }
        let line = &mut self.lines[stream.index()];
        let header = if end == LineEnd::Full { &self.headers.full } else { &self.headers.partial };
        self.file.batch.push(&[header.text(), &line.held, content]);
        line.inside = end == LineEnd::Partial;
        line.held.clear();
    }

    /// While writing fails: whether a record may wait for better times. If not, it is dropped. Where something was dropped,
    /// the first thing that waits again says so.
    #[cold]
    fn make_room(&mut self, stream: Stream, end: LineEnd, content: usize) -> bool {
        let is_dropping = self.lines.iter().any(|line| line.dropped.between.is_some());
        let limit = if is_dropping { RESUME_AT } else { MAX_BACKLOG };
        if self.when_full == WhenFull::Wait || self.file.batch.len() < limit {
            self.mark_missing();
            return true;
        }
        let line = &mut self.lines[stream.index()];
        let bytes = line.dropped.add(end, (line.held.len() + content) as u64, self.last);
        line.held.clear();
        self.stats.dropped_records += 1;
        self.stats.dropped_bytes += bytes;
        false
    }

    /// Writes what waits, into as many files as it needs. An error says that writing has begun to fail; that it still does
    /// says [`CriFileSink::is_stalled`].
    pub fn flush(&mut self) -> Result<(), SinkError> {
        let result = self.try_flush();
        let was_failing = std::mem::replace(&mut self.failing, result.is_err());
        match result {
            Ok(()) if was_failing => self.recovered(),
            Ok(()) => Ok(()),
            Err(error) => {
                if was_failing {
                    Ok(())
                } else {
                    Err(self.write_error(error))
                }
            }
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let mut max_bytes = self.limits.max_bytes;
        loop {
            let length = self.file.length.saturating_add(self.file.batch.len() as u64);
            self.compressor.make_room(length.min(max_bytes));
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
        self.mark_missing();
        self.flush()
    }

    /// Says in each stream what was dropped.
    fn mark_missing(&mut self) {
        for stream in Stream::ALL {
            let dropped = std::mem::take(&mut self.lines[stream.index()].dropped);
            if let Some(gap) = dropped.gap(stream) {
                self.marker(stream, &gap);
            }
        }
    }

    /// A line that was cut off is ended first.
    fn marker(&mut self, stream: Stream, gap: &Gap) {
        let time = self.formatter.format(self.last);
        if std::mem::take(&mut self.lines[stream.index()].inside) {
            self.file.batch.push(&[Header::new(time, stream, LineEnd::Full).text()]);
        }
        let mut content = Vec::new();
        gap.append_content(&mut content);
        let header = [b" ", stream.as_str().as_bytes(), b" F:", GAP_TAG.as_bytes(), b" "].concat();
        self.file.batch.push(&[time, &header, &content]);
    }

    /// Whether there is a new file now.
    fn rotate_or_warn(&mut self) -> bool {
        let result = self.rotate();
        if let Err(error) = &result {
            tracing::warn!(%error, path = %self.path.current().display(), "the log could not be rotated");
            // It goes on, and what was said of its end does not hold.
            attributes::clear_end(self.file.raw());
        }
        result.is_ok()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.mark_end();
        let place = self.place.after(self.file.raw().metadata()?.len());
        let file = rotate::rotate(&self.path, self.last, place)?;
        self.identity = FilePosition::start_of(&file);
        self.file.replace(file);
        self.place = place;
        self.stats.rotations += 1;
        self.compressor.rotated();
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
