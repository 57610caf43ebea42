//! Whole lines: partial records are joined per stream, and lines of the two streams are never glued.
//!
//! An unfinished line is held until it ends, so that lines of the other stream can pass. It is shown early when the log
//! is idle (a prompt has no line feed) or when it grows too long to be held: then the output stands inside it, and
//! finished lines of the other stream wait. They wait until the line ends, the log is idle, or there are too many; in
//! the latter two cases the line is broken by a line feed.
//!
//! Where lines are matched, an idle log shows nothing early; a line that is too long to be held is judged by what is held. With
//! cursors a line that is shown early is broken at once, so that each part can have its own.

mod usual;

use crate::{Cursor, FileMark, LineEnd, LinePlace, Place, Record, Stream, cursor::CursorsBetweenLines};

use super::{RenderError, RenderStats, Terminator, filter::Filter};
use usual::Usual;

/// Of an unfinished line, and of lines that wait for its end, so many bytes are held back.
pub const MAX_HELD: usize = 1 << 20;
/// A line that no parser understands is remembered up to this length, for the error message.
const MAX_QUOTED: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct Exact {
    filter: Filter,
    lines: [Line; 2],
    /// The stream in whose line the output stands.
    open: Option<Stream>,
    /// How much of the open line is in the output.
    open_length: u64,
    /// Whole lines of the other stream that wait for the end of the open one.
    waiting: Vec<u8>,
    /// Where the first of them began, and their stream.
    waiting_start: u64,
    waiting_stream: Stream,
    /// Input positions before which records of a stream are ignored.
    ignore_before: [u64; 2],
    /// What the headers of the records that come next may look like.
    usual: Option<Usual>,
    file: FileStart,
    /// The texts of its places between lines.
    between_lines: CursorsBetweenLines,
    /// Markers of gaps that stand at a place which is not left yet.
    markers: Markers,
    /// A line later than `until` was met in this file.
    met_later: bool,
    first_malformed: Option<Vec<u8>>,
    /// Files of this log were left out unread, or are missing.
    has_skipped: bool,
}

/// Input positions: where a record, or a piece of one, begins and what follows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The file that the input is from.
#[derive(Debug, Clone, Copy, Default)]
struct FileStart {
    mark: FileMark,
    /// An offset in it and the input position of that offset.
    offset: u64,
    position: u64,
}

/// Markers that were shown, and the place at which they stand.
#[derive(Debug, Clone, Copy, Default)]
struct Markers {
    count: u8,
    mark: FileMark,
    position: u64,
}

/// The line that a stream is writing.
#[derive(Debug, Default, Clone)]
struct Line {
    state: LineState,
    held: Vec<u8>,
    /// Where its content begins in `held`, behind its time.
    content_at: usize,
    /// Where its first record begins.
    start: u64,
    /// It is wanted whatever comes: a gap, or the rest of a line of which something was shown.
    is_wanted: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LineState {
    /// The next record begins a line.
    #[default]
    Start,
    /// Its parts so far are held.
    Held,
    /// As `Start`, and the line is to be shown at once.
    Opening,
    /// Its parts so far are in the output, nothing came after them.
    Open,
    /// Its parts so far are in the output, followed by a line feed that is not in the log.
    Broken,
    /// It is left out to its end. `start` is known if it began in the input.
    Ignored { is_start_known: bool },
}

/// Why unfinished lines are let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LetGo {
    /// Nothing was logged for a while.
    Idle,
    /// The log has ended.
    End,
}

/// Something to do when unfinished lines are let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ends the open line by a line feed.
    Break,
    /// Shows the lines that wait.
    ShowWaiting,
    /// Shows an unfinished line if it is wanted.
    Open(Stream),
}

impl Exact {
    pub(super) fn new(filter: Filter) -> Exact {
        Exact {
            filter,
            lines: [Line::default(), Line::default()],
            open: None,
            open_length: 0,
            waiting: Vec::new(),
            waiting_start: 0,
            waiting_stream: Stream::Stdout,
            ignore_before: [0; 2],
            usual: None,
            file: FileStart::default(),
            between_lines: CursorsBetweenLines::new(FileMark::default()),
            markers: Markers::default(),
            met_later: false,
            first_malformed: None,
            has_skipped: false,
        }
    }

    pub(super) fn ignore_before(&mut self, positions: [u64; 2]) {
        self.ignore_before = positions;
    }

    pub(super) fn begin_file(&mut self, mark: FileMark, offset: u64, position: u64) {
        self.file = FileStart { mark, offset, position };
        self.between_lines = CursorsBetweenLines::new(mark);
        self.met_later = false;
    }

    /// The input begins `back` bytes before `place`.
    pub(super) fn resume(&mut self, cursor: &Cursor, back: u64) {
        let place = &cursor.place;
        self.has_skipped = true;
        self.markers = Markers { count: place.markers, mark: cursor.file, position: back };
        self.open = place.open;
        for stream in Stream::ALL {
            let (state, line_back) = match place.lines[stream.index()] {
                LinePlace::Between => (LineState::Start, 0),
                LinePlace::Begun { back } => (LineState::Start, back),
                LinePlace::Broken => (LineState::Broken, 0),
                LinePlace::Ignored => (LineState::Ignored { is_start_known: false }, 0),
            };
            let line = &mut self.lines[stream.index()];
            line.state = if place.open == Some(stream) { LineState::Opening } else { state };
            line.is_wanted = state == LineState::Broken;
            self.ignore_before[stream.index()] = back.saturating_sub(line_back);
        }
    }

    pub(super) fn begin_inside_line(&mut self, inside: [bool; 2], position: u64) {
        self.has_skipped = true;
        // Where records are ignored, the ends of lines are not seen, and are not waited for.
        let inside = Stream::ALL
            .map(|stream| inside[stream.index()] && self.ignore_before[stream.index()] <= position);
        for (line, inside) in self.lines.iter_mut().zip(inside) {
            if matches!(line.state, LineState::Start | LineState::Ignored { .. }) {
                let ignored = LineState::Ignored { is_start_known: false };
                line.state = if inside { ignored } else { LineState::Start };
            }
        }
    }

    /// Whether every line that has begun has ended.
    pub(super) fn is_between_lines(&self, position: u64) -> bool {
        self.ignore_before.iter().all(|before| *before <= position)
            && self.open.is_none()
            && self.waiting.is_empty()
            && self.lines.iter().all(|line| line.state == LineState::Start)
    }

    pub(super) fn remember_malformed(&mut self, line: &[u8], terminator: Terminator, stats: &RenderStats) {
        if stats.records == 0 && self.first_malformed.is_none() {
            let quoted = &line[..line.len().min(MAX_QUOTED)];
            self.first_malformed = Some([quoted, terminator.bytes()].concat());
        }
    }

    /// A file in which nothing is a record is not a log.
    pub(super) fn check_format(&self, stats: &RenderStats) -> Result<(), RenderError> {
        match &self.first_malformed {
            Some(line) if stats.records == 0 && !self.has_skipped => {
                Err(RenderError::UnsupportedFormat { line: line.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A line later than `until` was met in this file, and no line that began before it is unfinished.
    pub(super) fn is_past_until(&self) -> bool {
        self.met_later && !self.lines.iter().any(Line::is_unfinished)
    }

    /// The offset in the file of an input position.
    fn offset_of(&self, position: u64) -> u64 {
        (self.file.offset + position).saturating_sub(self.file.position)
    }

    /// One more marker is shown whose place is the same as that of what came before it.
    pub(super) fn mark(&mut self, position: u64) {
        let count = self.markers_at(position).saturating_add(1);
        self.markers = Markers { count, mark: self.file.mark, position };
    }

    fn markers_at(&self, position: u64) -> u8 {
        let is_here = self.markers.position == position && self.markers.mark == self.file.mark;
        if is_here { self.markers.count } else { 0 }
    }

    /// Where the output stands when all input before `position` was rendered.
    pub(super) fn cursor(&self, position: u64) -> Cursor {
        let open = self.open.filter(|_| !self.filter.cursors);
        let place = Place {
            offset: self.offset_of(position),
            lines: Stream::ALL.map(|stream| self.line_place(stream, position)),
            open,
            skip: if open.is_some() { self.open_length } else { 0 },
            markers: self.markers_at(position),
        };
        Cursor { file: self.file.mark, place }
    }

    fn line_place(&self, stream: Stream, position: u64) -> LinePlace {
        let begun = |start: u64| LinePlace::Begun { back: position.saturating_sub(start) };
        let line = &self.lines[stream.index()];
        match line.state {
            _ if !self.waiting.is_empty() && self.waiting_stream == stream => begun(self.waiting_start),
            LineState::Open if self.filter.cursors => LinePlace::Broken,
            LineState::Held | LineState::Open | LineState::Ignored { is_start_known: true } => {
                begun(line.start)
            }
            LineState::Start | LineState::Opening => LinePlace::Between,
            LineState::Broken => LinePlace::Broken,
            LineState::Ignored { is_start_known: false } => LinePlace::Ignored,
        }
    }

    #[inline]
    pub(super) fn record(
        &mut self,
        record: &Record<'_>,
        terminator: Terminator,
        span: Span,
        out: &mut Vec<u8>,
    ) {
        let index = record.stream.index();
        if !self.filter.streams.contains(record.stream) || span.start < self.ignore_before[index] {
            return;
        }
        if record.is_gap {
            self.end_line(record.stream, span.start, out);
        }
        let starts = self.lines[index].state == LineState::Start;
        let is_whole = starts && record.end == LineEnd::Full && terminator == Terminator::LineFeed;
        if is_whole && self.open.is_none() {
            self.whole_line(record, span, out);
            return;
        }
        // Whatever its tag says, a record that the end of the file cuts off does not end its line.
        let end = if terminator == Terminator::EndOfFile { LineEnd::Partial } else { record.end };
        self.part(&Record { end, ..*record }, span, out);
    }

    #[inline]
    fn whole_line(&mut self, record: &Record<'_>, span: Span, out: &mut Vec<u8>) {
        if self.is_out_of_time(record) || !(record.is_gap || self.filter.is_match(record.content)) {
            return;
        }
        self.append_cursor(span.end, out);
        self.filter.append_time(record, out);
        append_content(record, out);
    }

    /// A record that is not a whole line by itself, or comes while the output stands inside another line.
    fn part(&mut self, record: &Record<'_>, span: Span, out: &mut Vec<u8>) {
        let index = record.stream.index();
        let state = self.lines[index].state;
        let is_unwanted = state == LineState::Start && self.is_out_of_time(record);
        match state {
            LineState::Ignored { .. } => {
                self.lines[index].end_if_full(record);
                return;
            }
            LineState::Start if is_unwanted => {
                let line = &mut self.lines[index];
                line.start = span.start;
                line.state = LineState::Ignored { is_start_known: true };
                line.end_if_full(record);
                return;
            }
            // The line feed that broke the line has ended it, too.
            LineState::Broken if record.end == LineEnd::Full && record.content.is_empty() => {
                self.lines[index].end();
                return;
            }
            LineState::Start | LineState::Broken => self.begin_held(record, span),
            LineState::Opening => self.begin_open(record, span, out),
            LineState::Held | LineState::Open => {}
        }
        if self.lines[index].state == LineState::Open {
            let before = out.len();
            append_content(record, out);
            self.open_length += (out.len() - before) as u64;
            if record.end == LineEnd::Full {
                self.close(out);
            }
        } else {
            append_content(record, &mut self.lines[index].held);
            self.hold(record, span, out);
        }
    }

    fn begin_held(&mut self, record: &Record<'_>, span: Span) {
        let line = &mut self.lines[record.stream.index()];
        line.held.clear();
        self.filter.append_time(record, &mut line.held);
        line.content_at = line.held.len();
        line.start = span.start;
        line.is_wanted |= record.is_gap;
        line.state = LineState::Held;
    }

    fn begin_open(&mut self, record: &Record<'_>, span: Span, out: &mut Vec<u8>) {
        let before = out.len();
        self.filter.append_time(record, out);
        self.open_length = (out.len() - before) as u64;
        let line = &mut self.lines[record.stream.index()];
        line.start = span.start;
        line.state = LineState::Open;
    }

    /// Decides where a held line goes that has just grown.
    fn hold(&mut self, record: &Record<'_>, span: Span, out: &mut Vec<u8>) {
        let line = &self.lines[record.stream.index()];
        if record.end == LineEnd::Full {
            self.emit(record.stream, span.end, out);
        } else if line.content().len() > MAX_HELD {
            self.show_long(record.stream, span.end, out);
        }
    }

    /// A held line has ended. `position` is behind it.
    fn emit(&mut self, stream: Stream, position: u64, out: &mut Vec<u8>) {
        let is_wanted = self.is_wanted(stream);
        let line = &mut self.lines[stream.index()];
        line.end();
        if !is_wanted {
            line.held.clear();
        } else if self.open.is_none() {
            self.append_cursor(position, out);
            out.append(&mut self.lines[stream.index()].held);
        } else {
            if self.waiting.is_empty() {
                self.waiting_start = line.start;
                self.waiting_stream = stream;
            }
            self.waiting.append(&mut line.held);
            if self.waiting.len() > MAX_HELD {
                self.break_open_line(out);
            }
        }
    }

    /// A held line is too long.
    fn show_long(&mut self, stream: Stream, position: u64, out: &mut Vec<u8>) {
        if !self.is_wanted(stream) {
            self.leave_out(stream);
            return;
        }
        self.break_open_line(out);
        self.show(stream, position, out);
        if self.filter.cursors {
            self.break_open_line(out);
        }
    }

    fn leave_out(&mut self, stream: Stream) {
        let line = &mut self.lines[stream.index()];
        line.held.clear();
        line.state = LineState::Ignored { is_start_known: true };
    }

    /// What is to be done next when unfinished lines are let go; `None` when there is nothing.
    pub(super) fn next_step(&self, why: LetGo) -> Option<Step> {
        let unfinished = Stream::ALL.into_iter().find(|stream| self.lines[stream.index()].is_held());
        let is_shown = match why {
            LetGo::Idle => self.filter.shows_unfinished() && self.open.is_none(),
            LetGo::End => true,
        };
        match (self.open, unfinished.filter(|_| is_shown)) {
            _ if !self.waiting.is_empty() => {
                Some(if self.open.is_some() { Step::Break } else { Step::ShowWaiting })
            }
            (Some(_), Some(stream)) if self.is_wanted(stream) => Some(Step::Break),
            (_, Some(stream)) => Some(Step::Open(stream)),
            (_, None) => None,
        }
    }

    pub(super) fn take_step(&mut self, step: Step, why: LetGo, position: u64, out: &mut Vec<u8>) {
        match step {
            Step::Break => self.end_open_line(out),
            Step::ShowWaiting => out.append(&mut self.waiting),
            Step::Open(stream) if self.is_wanted(stream) => self.show(stream, position, out),
            Step::Open(stream) => self.leave_out(stream),
        }
        if why == LetGo::Idle && self.filter.cursors {
            self.end_open_line(out);
        }
    }

    /// Ends the unfinished line of a stream by a line feed: what is missing of it will not come.
    pub(super) fn end_line(&mut self, stream: Stream, position: u64, out: &mut Vec<u8>) {
        let line = &mut self.lines[stream.index()];
        match line.state {
            LineState::Start => {}
            LineState::Held => {
                line.held.push(b'\n');
                self.emit(stream, position, out);
            }
            LineState::Opening | LineState::Open => {
                out.push(b'\n');
                self.close(out);
            }
            LineState::Broken | LineState::Ignored { .. } => line.end(),
        }
    }

    /// Ends every unfinished line.
    pub(super) fn end_lines(&mut self, position: u64, out: &mut Vec<u8>) {
        if let Some(stream) = self.open {
            self.end_line(stream, position, out);
        }
        for stream in Stream::ALL {
            self.end_line(stream, position, out);
        }
    }

    /// Appends a marker that is not in the log: a part of it is missing here. No line is unfinished.
    pub(super) fn append_marker(&mut self, record: &Record<'_>, position: u64, out: &mut Vec<u8>) {
        self.has_skipped = true;
        self.append_cursor(position, out);
        self.filter.append_time(record, out);
        append_content(record, out);
    }

    fn is_wanted(&self, stream: Stream) -> bool {
        let line = &self.lines[stream.index()];
        line.is_wanted || self.filter.is_match(line.content())
    }

    #[inline]
    fn is_out_of_time(&mut self, record: &Record<'_>) -> bool {
        let is_too_late = self.filter.is_too_late(record);
        self.met_later |= is_too_late;
        is_too_late || self.filter.is_too_old(record)
    }

    #[inline]
    fn append_cursor(&self, position: u64, out: &mut Vec<u8>) {
        if self.filter.cursors {
            self.cursor(position).append_to(out);
            out.push(b' ');
        }
    }

    /// Puts what is held of a line into the output, which then stands inside it.
    fn show(&mut self, stream: Stream, position: u64, out: &mut Vec<u8>) {
        let line = &mut self.lines[stream.index()];
        line.state = LineState::Open;
        line.is_wanted = true;
        self.open = Some(stream);
        self.open_length = line.held.len() as u64;
        self.append_cursor(position, out);
        out.append(&mut self.lines[stream.index()].held);
    }

    /// The open line has ended.
    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(stream) = self.open.take() {
            self.lines[stream.index()].end();
            out.append(&mut self.waiting);
        }
    }

    fn break_open_line(&mut self, out: &mut Vec<u8>) {
        self.end_open_line(out);
        out.append(&mut self.waiting);
    }

    fn end_open_line(&mut self, out: &mut Vec<u8>) {
        if let Some(stream) = self.open.take() {
            self.lines[stream.index()].state = LineState::Broken;
            out.push(b'\n');
        }
    }
}

impl Line {
    fn content(&self) -> &[u8] {
        // The line feed that ends it is no part of it.
        let content = &self.held[self.content_at.min(self.held.len())..];
        content.strip_suffix(b"\n").unwrap_or(content)
    }

    /// There is something to show early.
    fn is_held(&self) -> bool {
        self.state == LineState::Held && !self.held.is_empty()
    }

    fn is_unfinished(&self) -> bool {
        matches!(self.state, LineState::Held | LineState::Opening | LineState::Open)
    }

    fn end(&mut self) {
        self.state = LineState::Start;
        self.is_wanted = false;
    }

    fn end_if_full(&mut self, record: &Record<'_>) {
        if record.end == LineEnd::Full {
            self.end();
        }
    }
}

#[inline]
fn append_content(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(record.content);
    if record.end == LineEnd::Full {
        out.push(b'\n');
    }
}
