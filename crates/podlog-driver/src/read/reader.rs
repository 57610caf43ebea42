//! Reading a log forwards, through its generations and rotations.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt, thread, time::Duration};

use memchr::memchr;
use podlog_line::{Cursor, FileMark, Mode, RenderState, Renderer, Selection, Timestamp};

use super::{
    LogSource,
    buffer::Buffer,
    follow::Seen,
    hole::Hole,
    position::Position,
    resume::{self, Resumed},
    segment::{Break, Segment},
    tail, until,
};
use crate::{ReadError, generations::FileId};

/// A call returns when it has made so much output: what is delivered together may have to be delivered again.
pub(crate) const MAX_OUTPUT: usize = 64 * 1024;
/// or read so much.
const MAX_INPUT: usize = 8 * 1024 * 1024;
/// A follower that finds less than this keeps no buffer until the next time: thousands of them wait for a line now and then.
const TRICKLE: usize = 16 * 1024;
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
    /// Gaps that were declared in the output because files are missing or damaged.
    pub gaps: u64,
    /// How often the current file was cut off while it was read.
    pub truncations: u64,
}

/// Reads a log. Blocking; its memory does not depend on the size of the log.
#[derive(Debug)]
pub struct LogReader {
    pub(super) source: LogSource,
    pub(super) mode: Mode,
    pub(super) follow: bool,
    /// What is older is skipped where that can be done; the renderer judges each record by itself.
    pub(super) since: Option<Timestamp>,
    /// The times of which gaps are shown.
    shown: (Option<Timestamp>, Option<Timestamp>),
    pub(super) renderer: Renderer,
    /// The file being read.
    pub(super) at: Option<Position>,
    /// Whether the renderer knows which file it is.
    pub(super) is_marked: bool,
    /// What comes after it.
    pub(super) upcoming: VecDeque<Segment>,
    /// The file before this one: its writer may still have had something to say.
    pub(super) previous: Option<Position>,
    /// The rotated files that were there when the current one was opened.
    pub(super) seen: Seen,
    /// The file that was seen to be current instead of ours; ours has been read to its end since then.
    pub(super) seen_current: Option<FileId>,
    /// Whether anything at all was seen in the place of ours.
    pub(super) is_rotated: bool,
    /// The writer had not left our file yet when it was asked last.
    pub(super) was_being_left: bool,
    pub(super) buffer: Buffer,
    pub(super) is_done: bool,
    /// What is missing next ([`Mode::Upstream`], which declares no gaps).
    hole: Option<Hole>,
    /// Where reading began again.
    after: Option<Cursor>,
    resumed: Resumed,
    /// Markers at the place where reading began again that were delivered before.
    known_markers: u8,
    /// Whether the renderer knows where it is.
    has_place: bool,
    /// The last call has found everything read.
    was_caught_up: bool,
    pub(super) stats: ReadStats,
}

impl LogReader {
    pub(super) fn new(source: LogSource, selection: &Selection) -> Result<LogReader, ReadError> {
        let mut segments = source.segments()?;
        let seen = if selection.follow { source.seen(&segments)? } else { Seen::default() };
        if selection.mode == Mode::Upstream {
            segments.retain(|segment| segment.as_file().is_some_and(|file| file.age().is_none()));
        }
        if segments.is_empty() {
            return Err(source.missing());
        }
        let is_exact = selection.mode == Mode::Exact;
        let mut reader = LogReader {
            mode: selection.mode,
            follow: selection.follow,
            // After `tail`, the renderer judges each record by itself.
            since: selection.since.filter(|_| is_exact && selection.tail.is_none()),
            shown: (selection.since, selection.until),
            renderer: Renderer::new(selection),
            at: None,
            is_marked: false,
            upcoming: VecDeque::new(),
            previous: None,
            seen,
            seen_current: None,
            is_rotated: false,
            was_being_left: false,
            buffer: Buffer::default(),
            is_done: selection.tail == Some(0) && !selection.follow,
            hole: None,
            after: selection.after.filter(|_| is_exact),
            resumed: Resumed::Exact,
            known_markers: 0,
            has_place: false,
            was_caught_up: false,
            stats: ReadStats::default(),
            source,
        };
        reader.begin(segments, selection)?;
        Ok(reader)
    }

    /// Appends about 64 KiB of output, more where lines are longer.
    ///
    /// Without `follow` the log ends where it ended when the reader was made, so that this comes to
    /// [`ReadState::CaughtUp`] however fast the writer is. Everything that a follower has not read yet is either held
    /// open or found again by name, unless the writer deletes it for its age in the meantime.
    ///
    /// Where a part of the log is gone or damaged, a line declares the gap ([`podlog_line::Gap`]) and reading goes on.
    /// [`Mode::Upstream`] declares nothing: there it is an error of the first call that has nothing else to deliver, and
    /// of every later one; [`LogReader::finish`] returns it, too. A file in which nothing is a record is an error before
    /// any output.
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
            self.mark_file()?;
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
            upcoming: self.upcoming.iter().map(Segment::try_clone).collect::<io::Result<_>>()?,
            previous: clone(&self.previous)?,
            seen: self.seen.clone(),
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

    /// The place behind everything that was delivered so far: [`Selection::after`] it is exactly the rest. `None` before
    /// anything was read, and in [`Mode::Upstream`].
    pub fn cursor(&self) -> Option<Cursor> {
        if self.has_place { self.renderer.cursor() } else { self.after }
    }

    /// Whether reading began exactly behind the cursor that was asked for.
    pub fn resumed(&self) -> Resumed {
        self.resumed
    }

    /// Goes to where the selection begins.
    fn begin(&mut self, mut segments: Vec<Segment>, selection: &Selection) -> Result<(), ReadError> {
        self.find_beginning(&mut segments, selection).map_err(|error| self.source.read_error(error))?;
        if let (Some(lines), None) = (selection.tail, self.after) {
            self.find_tail(&mut segments, lines, selection).map_err(|source| ReadError::Tail {
                lines,
                path: self.source.given.clone(),
                source,
            })?;
        }
        if let (Some(Segment::File(last)), true) = (segments.last_mut(), self.follow) {
            last.limit = None;
        }
        self.upcoming = segments.into();
        Ok(())
    }

    /// Leaves out what is before the cursor, later than wanted, or not written yet.
    fn find_beginning(&mut self, segments: &mut Vec<Segment>, selection: &Selection) -> io::Result<()> {
        if let Some(Segment::File(last)) = segments.last_mut()
            && !last.is_compressed()
        {
            last.limit = Some(settled_length(last.plain()?)?);
        }
        if let Some(cursor) = self.after {
            let found = resume::find(segments, &cursor, !self.source.has_earlier())?;
            self.resumed = found.resumed;
            self.known_markers = found.known_markers();
            self.has_place = found.has_place();
            found.prepare(&mut self.renderer);
        }
        match selection.until {
            Some(until) if self.mode == Mode::Exact && !self.follow => until::leave_out(segments, until),
            _ => Ok(()),
        }
    }

    /// Leaves what the last `lines` begin with.
    fn find_tail(
        &mut self,
        segments: &mut Vec<Segment>,
        lines: u64,
        selection: &Selection,
    ) -> io::Result<()> {
        if selection.mode == Mode::Upstream {
            if let Some(Segment::File(file)) = segments.last_mut() {
                file.start = Some(tail::find_raw(file, lines)?);
            }
            return Ok(());
        }
        let Some(start) = tail::find(segments, lines, selection)? else {
            self.since = selection.since;
            return Ok(());
        };
        self.renderer.ignore_before(start.ignore_before);
        segments.drain(..start.segment);
        if let Some(Segment::File(file)) = segments.first_mut() {
            file.start = Some(start.offset);
        }
        Ok(())
    }

    /// Goes on with the next file. Whether there is one, or something else to say.
    fn next_upcoming(&mut self, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        let mut has_passed = false;
        while let Some(segment) = self.upcoming.pop_front() {
            match segment {
                Segment::File(file) => {
                    if self.enter(*file)? {
                        return Ok(true);
                    }
                }
                Segment::Break(here) => {
                    has_passed = true;
                    self.pass(&here, out)?;
                    if self.is_done || self.hole.is_some() {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(has_passed)
    }

    /// Lines do not go on here, and it is said what is missing.
    fn pass(&mut self, here: &Break, out: &mut Vec<u8>) -> Result<(), ReadError> {
        self.stats.missing_files += here.missing_files;
        self.stats.damaged_files += u64::from(here.damage.is_some());
        if self.mode == Mode::Upstream {
            self.hole = Hole::of(here);
            return Ok(());
        }
        let state = match here.shown(self.shown.0, self.shown.1) {
            Some(_) if self.known_markers > 0 => {
                self.known_markers -= 1;
                self.renderer.end_lines(out)
            }
            Some((gap, at)) => {
                self.stats.gaps += 1;
                let next = self.next_place()?;
                self.has_place = true;
                self.renderer.gap(&gap, at, next, out)
            }
            None => self.renderer.end_lines(out),
        };
        self.is_done |= state == RenderState::LimitReached;
        Ok(())
    }

    /// Where reading goes on, if that is in a file in which something is written.
    fn next_place(&self) -> Result<Option<(FileMark, u64)>, ReadError> {
        let Some(file) = self.upcoming.front().and_then(Segment::as_file) else { return Ok(None) };
        let mark = file.mark().map_err(|error| self.source.read_error(error))?;
        Ok(mark.map(|mark| (mark, file.start.unwrap_or(0))))
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
        if !self.is_marked && memchr(b'\n', self.buffer.rest()).is_some() {
            self.mark_file()?;
        }
        self.known_markers = 0;
        let rendered = self.renderer.render(self.buffer.rest(), out)?;
        let mut state = rendered.state;
        self.consume(rendered.consumed);
        if self.buffer.is_full() && state == RenderState::More {
            self.mark_file()?;
            state = self.renderer.render_piece(self.buffer.rest(), out)?;
            self.consume(self.buffer.rest().len());
        }
        self.is_done |= state == RenderState::LimitReached;
        self.stop_past_until();
        Ok(())
    }

    /// Tells the renderer which file comes next, so that it can name places in it.
    pub(super) fn mark_file(&mut self) -> Result<(), ReadError> {
        let Some(at) = self.at.as_ref().filter(|_| !self.is_marked && self.mode == Mode::Exact) else {
            return Ok(());
        };
        if let Some(mark) = at.file().mark().map_err(|error| self.source.read_error(error))? {
            self.renderer.begin_file(mark, at.offset() - self.buffer.rest().len() as u64);
            self.is_marked = true;
            self.has_place = true;
        }
        Ok(())
    }

    /// What is later than wanted ends a file whose records are in order, and following.
    fn stop_past_until(&mut self) {
        let Some(at) = &mut self.at else { return };
        if !self.renderer.is_past_until() {
            return;
        }
        if self.follow {
            self.is_done |= self.upcoming.is_empty();
        } else if at.is_ordered() {
            at.skip_rest();
            self.buffer.clear();
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(at) = &mut self.at {
            at.rendered(&self.buffer.rest()[..count]);
        }
        self.buffer.consume(count);
    }

    /// At the end of a file: whether there is something new to read, in it or in the next one.
    fn next_file(&mut self, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        self.notice_damage()?;
        if self.upcoming.is_empty() && !(self.follow && self.notice_rotation()?) {
            return Ok(false);
        }
        if self.upcoming.is_empty() {
            return Ok(true);
        }
        if let Some(has_more) = self.stay()? {
            return Ok(has_more);
        }
        self.end_file(out)?;
        self.next_upcoming(out)
    }

    /// What is behind the damage of a compressed file is missing.
    fn notice_damage(&mut self) -> Result<(), ReadError> {
        if let Some(at) = &mut self.at
            && let Some(why) = at.take_damage()
        {
            let here = Break::damaged(at.file(), &why, self.upcoming.front());
            let here = here.map_err(|error| self.source.read_error(error))?;
            self.upcoming.push_front(Segment::Break(here));
        }
        Ok(())
    }

    /// A file that ends without a line feed while others follow: its writer was killed. Nothing may be glued to the
    /// record.
    fn end_file(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        if self.mode == Mode::Exact && !self.buffer.rest().is_empty() {
            self.mark_file()?;
            let state = self.renderer.end_file(self.buffer.rest(), out)?;
            self.is_done |= state == RenderState::LimitReached;
        }
        self.buffer.clear();
        self.leave_out_rest().map_err(|error| self.source.read_error(error))
    }

    /// What is later than wanted was left out, and with it the beginnings of lines that go on in the next file.
    fn leave_out_rest(&mut self) -> io::Result<()> {
        match &self.at {
            Some(at) if at.is_cut()? => self.renderer.begin_inside_line(until::left_inside(at.file())?),
            _ => {}
        }
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
        if input < TRICKLE {
            self.buffer.shrink();
        }
        if input == 0 && self.renderer.idle(out) == RenderState::LimitReached {
            self.is_done = true;
            return Ok(ReadState::LimitReached);
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
