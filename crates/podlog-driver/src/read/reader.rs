//! Reading a log forwards, through its generations and rotations.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt, thread, time::Duration};

use memchr::memchr;
use podlog_line::{Mode, RenderState, Renderer, Selection, Timestamp};

use super::{
    LogSource,
    buffer::Buffer,
    files::{self, LogFile},
    hole::Hole,
    position::Position,
    since, tail,
};
use crate::{ReadError, attributes::FileEnd, generations::FileId};

/// A call returns when it has made so much output,
const MAX_OUTPUT: usize = 128 * 1024;
/// or read so much.
const MAX_INPUT: usize = 8 * 1024 * 1024;
/// How often, and how long each time, the end of a record is waited for.
const SETTLE_ATTEMPTS: u32 = 5;
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// Whether there is more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadState {
    /// Yes: call again at once.
    More,
    /// Everything that can be read has been read. A follower waits for a change and calls again; everybody else, and a
    /// follower whose writer has ended, calls [`LogReader::finish`].
    CaughtUp,
    /// The limit of the selection is reached; there will never be more.
    LimitReached,
}

/// What a reader has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadStats {
    /// Records that were read, wanted or not.
    pub records: u64,
    /// Lines of the files that are no record, and are therefore missing in the output.
    pub malformed: u64,
    /// Compressed files that could not be decompressed to their end.
    pub damaged_files: u64,
    /// Files that were deleted before they were read. Known only of logs that [`crate::CriFileSink`] has written, on
    /// file systems with extended attributes.
    pub missing_files: u64,
    /// How often the current file was cut off while it was read.
    pub truncations: u64,
}

/// Reads a log. Blocking; its memory does not depend on the size of the log.
#[derive(Debug)]
pub struct LogReader {
    pub(super) source: LogSource,
    pub(super) mode: Mode,
    follow: bool,
    since: Option<Timestamp>,
    pub(super) renderer: Renderer,
    /// The file being read.
    pub(super) at: Option<Position>,
    /// Newer files.
    pub(super) upcoming: VecDeque<LogFile>,
    /// The file before this one: its writer may still have had something to say.
    pub(super) previous: Option<Position>,
    /// The newest rotated file when the current one was opened.
    pub(super) newest_age: Option<String>,
    /// The file that was seen to be current instead of ours; ours has been read to its end since then.
    pub(super) seen_current: Option<FileId>,
    /// Whether anything at all was seen in the place of ours.
    pub(super) is_rotated: bool,
    /// Where the log ended when reading began, for one who does not follow.
    end: Option<u64>,
    /// The number of the file being read, or of the last one that was skipped.
    generation: Option<u64>,
    pub(super) buffer: Buffer,
    pub(super) is_done: bool,
    /// What is missing next.
    hole: Option<Hole>,
    /// The last call has found everything read.
    was_caught_up: bool,
    pub(super) stats: ReadStats,
}

impl LogReader {
    pub(super) fn new(source: LogSource, selection: &Selection) -> Result<LogReader, ReadError> {
        let mut files = files::open_all(&source.path).map_err(|error| source.open_error(error))?;
        let newest_age = newest_age(&files);
        if selection.mode == Mode::Upstream {
            files.retain(|file| file.age().is_none());
        }
        if files.is_empty() {
            return Err(source.missing());
        }
        let mut reader = LogReader {
            mode: selection.mode,
            follow: selection.follow,
            // After `tail`, the renderer judges each record by itself.
            since: selection.since.filter(|_| selection.mode == Mode::Exact && selection.tail.is_none()),
            renderer: Renderer::new(selection),
            at: None,
            upcoming: VecDeque::new(),
            previous: None,
            newest_age,
            seen_current: None,
            is_rotated: false,
            end: None,
            generation: None,
            buffer: Buffer::default(),
            is_done: selection.tail == Some(0) && !selection.follow,
            hole: None,
            was_caught_up: false,
            stats: ReadStats::default(),
            source,
        };
        reader.begin(&mut files, selection)?;
        Ok(reader)
    }

    /// Appends up to about 256 KiB of output.
    ///
    /// Without `follow` the log ends where it ended when the reader was made, so that this comes to
    /// [`ReadState::CaughtUp`] however fast the writer is. Everything that a follower has not read yet is either held
    /// open or found again by name, unless the writer deletes it for its age in the meantime.
    ///
    /// A part of the log that is gone or damaged is an error of the first call that has nothing else to
    /// deliver, and of every later one; [`LogReader::finish`] returns it, too. A file in which nothing
    /// is a record is an error before any output.
    pub fn read_chunk(&mut self, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
        if self.is_done {
            return Ok(ReadState::LimitReached);
        }
        self.check_hole()?;
        let output_before = out.len();
        let mut input = 0;
        if std::mem::take(&mut self.was_caught_up) && self.follow {
            self.notice_truncation()?;
            self.read_late_records(out)?;
        }
        while out.len() - output_before < MAX_OUTPUT && input < MAX_INPUT {
            let count = self.fill()?;
            input += count;
            if count > 0 {
                self.render(out)?;
            } else if !self.next_file(out)? {
                return self.caught_up(input, out);
            }
            if self.is_done {
                return Ok(ReadState::LimitReached);
            }
            if self.hole.is_some() {
                return self.stop_at_hole(out);
            }
        }
        Ok(ReadState::More)
    }

    /// The writer has ended and everything was read: appends what there is of unfinished lines.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        if self.is_done {
            return Ok(());
        }
        self.check_hole()?;
        let discards_rest = self.mode == Mode::Upstream && self.follow;
        if !discards_rest {
            let state = self.renderer.render_rest(self.buffer.rest(), out)?;
            if state == RenderState::More {
                self.renderer.finish(out)?;
            }
        }
        self.is_done = true;
        Ok(())
    }

    fn check_hole(&self) -> Result<(), ReadError> {
        self.hole.as_ref().map_or(Ok(()), |hole| Err(hole.error(&self.source.given)))
    }

    /// Delivers what there is of lines that the hole has cut off.
    fn stop_at_hole(&mut self, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
        if self.renderer.finish(out)? == RenderState::LimitReached {
            self.is_done = true;
            return Ok(ReadState::LimitReached);
        }
        if out.is_empty() {
            self.check_hole()?;
        }
        Ok(ReadState::CaughtUp)
    }

    /// A second reader at the same place: both deliver the same from here on. It keeps the files open that this one
    /// holds open.
    ///
    /// # Errors
    /// When the process may not open more files.
    pub fn try_clone(&self) -> io::Result<LogReader> {
        let clone = |position: &Option<Position>| position.as_ref().map(Position::try_clone).transpose();
        Ok(LogReader {
            source: self.source.clone(),
            renderer: self.renderer.clone(),
            at: clone(&self.at)?,
            upcoming: self.upcoming.iter().map(LogFile::try_clone).collect::<io::Result<_>>()?,
            previous: clone(&self.previous)?,
            newest_age: self.newest_age.clone(),
            buffer: self.buffer.rest_only(),
            hole: self.hole.clone(),
            ..*self
        })
    }

    /// What was met so far.
    pub fn stats(&self) -> ReadStats {
        let rendered = self.renderer.stats();
        ReadStats { records: rendered.records, malformed: rendered.malformed, ..self.stats }
    }

    /// Goes to where the selection begins.
    fn begin(&mut self, files: &mut Vec<LogFile>, selection: &Selection) -> Result<(), ReadError> {
        let last = files.last_mut().expect("there is a file");
        let length = last.plain().and_then(settled_length).map_err(|error| self.source.read_error(error))?;
        let (first, offset) = match selection.tail {
            Some(lines) => self
                .find_tail(files, length, lines, selection)
                .map_err(|source| ReadError::Tail { lines, path: self.source.given.clone(), source })?,
            None => (0, None),
        };
        self.upcoming = files.drain(..).skip(first).collect();
        self.end = Some(length).filter(|_| !self.follow);
        self.next_upcoming(offset)?;
        Ok(())
    }

    fn find_tail(
        &mut self,
        files: &mut [LogFile],
        length: u64,
        lines: u64,
        selection: &Selection,
    ) -> io::Result<(usize, Option<u64>)> {
        let last = files.len() - 1;
        if selection.mode == Mode::Upstream {
            return Ok((last, Some(tail::find_raw(&mut files[last], length, lines)?)));
        }
        let wanted = tail::Wanted { lines, streams: selection.streams, follow: selection.follow };
        let start = tail::find(files, length, wanted)?;
        self.renderer.ignore_before(start.ignore_before);
        Ok((start.file, Some(start.offset)))
    }

    /// Goes on with the next of the files that are open. `offset`: where in it, if that is settled.
    pub(super) fn next_upcoming(&mut self, offset: Option<u64>) -> Result<bool, ReadError> {
        while let Some(mut file) = self.upcoming.pop_front() {
            let missing = self.count_missing(file.generation());
            if let Some(end) = self.is_too_old(&file) {
                self.renderer.begin_inside_line(end.inside_line);
                continue;
            }
            if missing > 0 && self.at.is_some() {
                self.hole = Some(Hole::Deleted(missing));
                return Ok(true);
            }
            let offset = offset.map_or_else(|| self.find_since(&mut file), Ok);
            let next = offset.and_then(|offset| Position::new(file, offset));
            let mut next = next.map_err(|error| self.source.read_error(error))?;
            if let (Some(end), true) = (self.end, self.upcoming.is_empty()) {
                next.end_at(end);
            }
            self.stats.damaged_files += u64::from(next.damage().is_some());
            self.previous = self.at.replace(next);
            self.is_rotated = false;
            return Ok(true);
        }
        Ok(false)
    }

    /// How many files between the last one and this one are gone.
    fn count_missing(&mut self, generation: Option<u64>) -> u64 {
        let last = std::mem::replace(&mut self.generation, generation);
        let missing = last.zip(generation).map_or(0, |(last, next)| next.saturating_sub(last + 1));
        self.stats.missing_files += missing;
        missing
    }

    fn is_too_old(&self, file: &LogFile) -> Option<FileEnd> {
        let since = self.since?;
        file.end().filter(|end| file.is_ordered() && end.last < since)
    }

    fn find_since(&self, file: &mut LogFile) -> io::Result<u64> {
        match self.since {
            Some(since) if file.is_ordered() => since::find(file.plain()?, since),
            _ => Ok(0),
        }
    }

    /// Reads more of the file. 0 at its end.
    fn fill(&mut self) -> Result<usize, ReadError> {
        let Some(at) = &mut self.at else { return Ok(0) };
        let held = self.buffer.rest().len();
        // The beginning of a record at the end of a file may have been cut off and written anew since it was read.
        let reads_again = self.follow && at.is_at_end();
        if reads_again {
            at.step_back(held);
            self.buffer.clear();
        }
        let count = at.read(self.buffer.room(), held > 0);
        let count = count.map_err(|error| self.source.read_error(error))?;
        self.buffer.filled(count);
        let is_nothing_new = reads_again && count <= held && memchr(b'\n', self.buffer.rest()).is_none();
        Ok(if is_nothing_new { 0 } else { count })
    }

    /// Renders the whole records in the buffer.
    fn render(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let rendered = self.renderer.render(self.buffer.rest(), out)?;
        let mut state = rendered.state;
        self.consume(rendered.consumed);
        if self.buffer.is_full() && state == RenderState::More {
            state = self.renderer.render_piece(self.buffer.rest(), out)?;
            self.consume(self.buffer.rest().len());
        }
        self.is_done |= state == RenderState::LimitReached;
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        if let Some(at) = &mut self.at {
            at.rendered(&self.buffer.rest()[..count]);
        }
        self.buffer.consume(count);
    }

    /// At the end of a file: whether there is something new to read, in it or in the next one.
    fn next_file(&mut self, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        if let Some(why) = self.at.as_ref().and_then(Position::damage) {
            self.hole = Some(Hole::Damaged(why.to_owned()));
            self.end_torn_record(out)?;
            return Ok(true);
        }
        if self.upcoming.is_empty() && !(self.follow && self.notice_rotation()?) {
            return Ok(false);
        }
        if self.upcoming.is_empty() {
            return Ok(true);
        }
        self.end_torn_record(out)?;
        self.next_upcoming(None)
    }

    /// A file ends without a line feed and others follow: its writer was killed. Nothing may be glued to the record.
    fn end_torn_record(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        if self.mode == Mode::Exact && self.buffer.terminate() {
            self.render(out)?;
        }
        self.buffer.clear();
        Ok(())
    }

    fn caught_up(&mut self, input: usize, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
        self.was_caught_up = true;
        if !self.follow {
            // Whoever reads the first output knows whether this is a log.
            self.finish(out)?;
            return Ok(ReadState::CaughtUp);
        }
        self.renderer.check_format()?;
        if input == 0 {
            self.buffer.shrink();
            if self.renderer.idle(out) == RenderState::LimitReached {
                self.is_done = true;
                return Ok(ReadState::LimitReached);
            }
        }
        Ok(ReadState::CaughtUp)
    }
}

/// The length of a file that may be written to at this moment: a large write becomes visible piece by piece, and the
/// log should not seem to end inside a record. A file that really does costs a few milliseconds.
fn settled_length(file: &File) -> io::Result<u64> {
    let mut attempts = 0;
    loop {
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.read_at(&mut last, length - 1)?;
        }
        if last == *b"\n" || attempts == SETTLE_ATTEMPTS {
            return Ok(length);
        }
        attempts += 1;
        thread::sleep(SETTLE_PAUSE);
    }
}

/// The age of the newest rotated file.
pub(super) fn newest_age(files: &[LogFile]) -> Option<String> {
    files.iter().filter_map(LogFile::age).next_back().map(str::to_owned)
}
