//! Whole lines: partial records are joined per stream, and lines of the two streams are never glued.
//!
//! An unfinished line is held until it ends, so that lines of the other stream can pass. It is shown early when the log
//! is idle (a prompt has no line feed) or when it grows too long to be held: then the output stands inside it, and
//! finished lines of the other stream wait. They wait until the line ends, the log is idle, or there are too many; in
//! the latter two cases the line is broken by a line feed.

use crate::{LineEnd, Record, Stream};

use super::{Filter, RenderError, RenderStats, Terminator};

/// An unfinished line longer than this is shown, and so many bytes may wait for its end.
const MAX_HELD: usize = 1 << 20;
/// A line that no parser understands is remembered up to this length, for the error message.
const MAX_QUOTED: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct Exact {
    filter: Filter,
    lines: [Line; 2],
    /// The stream in whose line the output stands.
    open: Option<Stream>,
    /// Whole lines of the other stream that wait for the end of the open one.
    waiting: Vec<u8>,
    /// Input positions before which records of a stream are ignored.
    ignore_before: [u64; 2],
    first_malformed: Option<Vec<u8>>,
    /// Files of this log were left out unread.
    has_skipped: bool,
}

/// The line that a stream is writing.
#[derive(Debug, Default, Clone)]
struct Line {
    state: LineState,
    held: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LineState {
    /// The next record begins a line.
    #[default]
    Start,
    /// Its parts so far are held.
    Held,
    /// Its parts so far are in the output, nothing came after them.
    Open,
    /// Its parts so far are in the output, followed by a line feed that is not in the log.
    Broken,
    /// It began too early and is left out to its end.
    Ignored,
}

impl Exact {
    pub(super) fn new(filter: Filter) -> Exact {
        Exact {
            filter,
            lines: [Line::default(), Line::default()],
            open: None,
            waiting: Vec::new(),
            ignore_before: [0; 2],
            first_malformed: None,
            has_skipped: false,
        }
    }

    pub(super) fn ignore_before(&mut self, positions: [u64; 2]) {
        self.ignore_before = positions;
    }

    pub(super) fn begin_inside_line(&mut self, inside: [bool; 2]) {
        self.has_skipped = true;
        for (line, inside) in self.lines.iter_mut().zip(inside) {
            if matches!(line.state, LineState::Start | LineState::Ignored) {
                line.state = if inside { LineState::Ignored } else { LineState::Start };
            }
        }
    }

    /// Whether every line that has begun has ended.
    pub(super) fn is_between_lines(&self) -> bool {
        self.open.is_none()
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

    #[inline]
    pub(super) fn record(
        &mut self,
        record: &Record<'_>,
        terminator: Terminator,
        position: u64,
        out: &mut Vec<u8>,
    ) {
        let index = record.stream.index();
        if !self.filter.streams.contains(record.stream) || position < self.ignore_before[index] {
            return;
        }
        let starts = self.lines[index].state == LineState::Start;
        let is_whole = starts && record.end == LineEnd::Full && terminator == Terminator::LineFeed;
        if is_whole && self.open.is_none() {
            if !self.filter.is_too_old(record) {
                self.filter.append_prefix(record, out);
                append_content(record, out);
            }
            return;
        }
        // Whatever its tag says, a record that the end of the file cuts off does not end its line.
        let end = if terminator == Terminator::EndOfFile { LineEnd::Partial } else { record.end };
        self.part(&Record { end, ..*record }, out);
    }

    /// A record that is not a whole line by itself, or comes while the output stands inside another line.
    fn part(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let line = &mut self.lines[record.stream.index()];
        match line.state {
            LineState::Ignored => {
                line.end_if_full(record);
                return;
            }
            LineState::Start if self.filter.is_too_old(record) => {
                line.state = LineState::Ignored;
                line.end_if_full(record);
                return;
            }
            // The line feed that broke the line has ended it, too.
            LineState::Broken if record.end == LineEnd::Full && record.content.is_empty() => {
                line.state = LineState::Start;
                return;
            }
            LineState::Start | LineState::Broken => {
                self.filter.append_prefix(record, &mut line.held);
                line.state = LineState::Held;
            }
            LineState::Held | LineState::Open => {}
        }
        if line.state == LineState::Open {
            append_content(record, out);
            if record.end == LineEnd::Full {
                self.close(record.stream, out);
            }
        } else {
            append_content(record, &mut line.held);
            self.hold(record, out);
        }
    }

    /// Decides where a held line goes that has just grown.
    fn hold(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let line = &mut self.lines[record.stream.index()];
        if record.end == LineEnd::Full {
            line.state = LineState::Start;
            out_or_waiting(self.open, out, &mut self.waiting).append(&mut line.held);
            if self.waiting.len() > MAX_HELD {
                self.break_open_line(out);
            }
        } else if line.held.len() > MAX_HELD {
            self.break_open_line(out);
            self.show(record.stream, out);
        }
    }

    pub(super) fn idle(&mut self, out: &mut Vec<u8>) {
        if !self.waiting.is_empty() {
            self.break_open_line(out);
        }
        let unfinished = Stream::ALL.into_iter().find(|stream| !self.lines[stream.index()].held.is_empty());
        if let (None, Some(stream)) = (self.open, unfinished) {
            self.show(stream, out);
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.waiting.is_empty() {
            self.break_open_line(out);
        }
        for stream in Stream::ALL {
            if !self.lines[stream.index()].held.is_empty() {
                self.break_open_line(out);
                self.show(stream, out);
            }
        }
    }

    /// Puts what is held of a line into the output, which then stands inside it.
    fn show(&mut self, stream: Stream, out: &mut Vec<u8>) {
        let line = &mut self.lines[stream.index()];
        out.append(&mut line.held);
        line.state = LineState::Open;
        self.open = Some(stream);
    }

    /// The open line has ended.
    fn close(&mut self, stream: Stream, out: &mut Vec<u8>) {
        self.lines[stream.index()].state = LineState::Start;
        self.open = None;
        out.append(&mut self.waiting);
    }

    fn break_open_line(&mut self, out: &mut Vec<u8>) {
        if let Some(stream) = self.open.take() {
            self.lines[stream.index()].state = LineState::Broken;
            out.push(b'\n');
            out.append(&mut self.waiting);
        }
    }
}

impl Line {
    fn end_if_full(&mut self, record: &Record<'_>) {
        if record.end == LineEnd::Full {
            self.state = LineState::Start;
        }
    }
}

fn out_or_waiting<'a>(
    open: Option<Stream>,
    out: &'a mut Vec<u8>,
    waiting: &'a mut Vec<u8>,
) -> &'a mut Vec<u8> {
    if open.is_some() { waiting } else { out }
}

#[inline]
fn append_content(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(record.content);
    if record.end == LineEnd::Full {
        out.push(b'\n');
    }
}
