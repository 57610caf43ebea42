//! From the raw bytes of a log to the bytes a client sees.

mod exact;
mod upstream;

use memchr::memchr;

use crate::{Mode, Record, RecordParser, Selection, Timestamp, quote};
use exact::Exact;
use upstream::Upstream;

/// Turns raw log bytes into output, whole records at a time, by copying ranges of them.
///
/// Feed it a log from its beginning or from a record boundary; [`Rendered::consumed`] says how much was used, the
/// rest is to be given again with what follows it.
#[derive(Debug, Clone)]
pub struct Renderer {
    budget: Budget,
    parser: RecordParser,
    stats: RenderStats,
    /// Bytes consumed since the beginning.
    position: u64,
    /// The record in whose middle we are, when it did not fit the reader's buffer.
    overlong: Option<Overlong>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact(Exact),
    Upstream(Upstream),
}

/// What a call of [`Renderer::render`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rendered {
    /// Bytes of the input that are done with; they end behind a line feed.
    pub consumed: usize,
    /// Whether there can be more output.
    pub state: RenderState,
}

/// Whether there can be more output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenderState {
    /// Yes.
    More,
    /// No: the limit of bytes or records is reached.
    LimitReached,
}

/// What a renderer counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RenderStats {
    /// Records that were read, wanted or not.
    pub records: u64,
    /// Lines of the file that are no record. They are not in the output.
    pub malformed: u64,
}

/// Why a log cannot be rendered. The texts are those of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// Nothing in the file is a record.
    #[error("failed to get parse function: unsupported log format: {}", quote(.line))]
    UnsupportedFormat {
        /// The first line, as it stands in the file.
        line: Vec<u8>,
    },
    /// A json-file record of an unknown stream ([`Mode::Upstream`] only).
    #[error("unexpected stream type {}", quote(.stream))]
    UnexpectedStream {
        /// The name in the record.
        stream: Vec<u8>,
    },
}

/// How a stretch of the file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Terminator {
    LineFeed,
    EndOfFile,
}

impl Terminator {
    fn bytes(self) -> &'static [u8] {
        match self {
            Terminator::LineFeed => b"\n",
            Terminator::EndOfFile => b"",
        }
    }
}

/// A record that is longer than the reader's buffer: its header, parsed anew for each piece of content.
#[derive(Debug, Clone)]
enum Overlong {
    Record { header: Vec<u8> },
    Malformed,
}

/// What every record is judged by.
#[derive(Debug, Clone, Copy)]
struct Filter {
    streams: crate::Streams,
    since: Option<Timestamp>,
    timestamps: bool,
}

impl Filter {
    #[inline]
    fn is_too_old(&self, record: &Record<'_>) -> bool {
        self.since.is_some_and(|since| record.time.timestamp() < since)
    }

    #[inline]
    fn append_prefix(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        if self.timestamps {
            record.time.append_nine_digits(out);
            out.push(b' ');
        }
    }
}

impl Renderer {
    /// A renderer for a log that is fed from where `tail` begins; `tail` itself is the business of the one who feeds it,
    /// but for the record limit of [`Mode::Upstream`].
    pub fn new(selection: &Selection) -> Renderer {
        let filter =
            Filter { streams: selection.streams, since: selection.since, timestamps: selection.timestamps };
        Renderer {
            budget: Budget { left: selection.limit_bytes },
            parser: RecordParser::default(),
            stats: RenderStats::default(),
            position: 0,
            overlong: None,
            kind: match selection.mode {
                Mode::Exact => Kind::Exact(Exact::new(filter)),
                Mode::Upstream => Kind::Upstream(Upstream::new(filter, selection)),
            },
        }
    }

    /// Ignores records of a stream (by [`crate::Stream::index`]) that begin before that many bytes of input: lines of
    /// two streams overlap, so that the last N of them do not begin at one place. [`Mode::Exact`] only.
    pub fn ignore_before(&mut self, positions: [u64; 2]) {
        if let Kind::Exact(exact) = &mut self.kind {
            exact.ignore_before(positions);
        }
    }

    /// Says for each stream whether the input that comes next begins inside a line: the rest of that line is ignored.
    /// Nothing changes for a stream whose line was begun by earlier input. What was left out before was a log.
    /// [`Mode::Exact`] only.
    pub fn begin_inside_line(&mut self, inside: [bool; 2]) {
        if let Kind::Exact(exact) = &mut self.kind {
            exact.begin_inside_line(inside);
        }
    }

    /// Appends the output of all whole records in `input`.
    pub fn render(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Rendered, RenderError> {
        let room = self.budget.begin(out);
        let mut consumed = 0;
        let mut result = Ok(());
        out.reserve(input.len().min(room - out.len()));
        while !self.is_done(out, room)
            && let Some(length) = memchr(b'\n', &input[consumed..])
        {
            result = self.line(&input[consumed..consumed + length], Terminator::LineFeed, out);
            consumed += length + 1;
            self.position += length as u64 + 1;
            if result.is_err() {
                break;
            }
        }
        let state = self.settle(out, room);
        result.map(|()| Rendered { consumed, state })
    }

    /// Appends the output of `rest`, a last record without a line feed: the file ends there.
    pub fn render_rest(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Result<RenderState, RenderError> {
        let room = self.budget.begin(out);
        let mut result = Ok(());
        let has_rest = !rest.is_empty() || self.overlong.is_some();
        if has_rest && !self.is_done(out, room) {
            result = self.line(rest, Terminator::EndOfFile, out);
            self.position += rest.len() as u64;
        }
        let state = self.settle(out, room);
        result.map(|()| state)
    }

    /// Appends the output of `piece`, the beginning or middle of a record that is too long to be given whole. All of
    /// it is consumed.
    pub fn render_piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<RenderState, RenderError> {
        let room = self.budget.begin(out);
        let mut result = Ok(());
        if !self.is_done(out, room) {
            result = self.piece(piece, out);
            self.position += piece.len() as u64;
        }
        let state = self.settle(out, room);
        result.map(|()| state)
    }

    /// Nothing was logged for a while: shows what there is of an unfinished line, and lines that waited for its end.
    pub fn idle(&mut self, out: &mut Vec<u8>) -> RenderState {
        let room = self.budget.begin(out);
        if let Kind::Exact(exact) = &mut self.kind {
            exact.idle(out);
        }
        self.settle(out, room)
    }

    /// The log has ended: shows unfinished lines.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<RenderState, RenderError> {
        self.check_format()?;
        let room = self.budget.begin(out);
        if let Kind::Exact(exact) = &mut self.kind {
            exact.finish(out);
        }
        Ok(self.settle(out, room))
    }

    /// Fails when there was input and nothing of it was a record: it is no log. [`Mode::Upstream`] has judged it by its
    /// first line.
    pub fn check_format(&self) -> Result<(), RenderError> {
        match &self.kind {
            Kind::Exact(exact) => exact.check_format(&self.stats),
            Kind::Upstream(_) => Ok(()),
        }
    }

    /// Whether no line has begun whose rest is to come: two renderers of one selection that are between lines at the same
    /// place of a log have the same output from there on. Never in [`Mode::Upstream`].
    pub fn is_between_lines(&self) -> bool {
        matches!(&self.kind, Kind::Exact(exact) if exact.is_between_lines()) && self.overlong.is_none()
    }

    /// What was counted so far.
    pub fn stats(&self) -> RenderStats {
        self.stats
    }

    #[inline]
    fn line(&mut self, line: &[u8], terminator: Terminator, out: &mut Vec<u8>) -> Result<(), RenderError> {
        if self.overlong.is_some() {
            return self.last_piece(line, terminator, out);
        }
        match &mut self.kind {
            Kind::Exact(exact) => match self.parser.parse(line) {
                Some(record) => {
                    self.stats.records += 1;
                    exact.record(&record, terminator, self.position, out);
                }
                None => self.malformed(line, terminator),
            },
            Kind::Upstream(upstream) => {
                upstream.line(line, terminator, &mut self.parser, &mut self.stats, out)?
            }
        }
        Ok(())
    }

    fn malformed(&mut self, line: &[u8], terminator: Terminator) {
        self.stats.malformed += 1;
        if let Kind::Exact(exact) = &mut self.kind {
            exact.remember_malformed(line, terminator, &self.stats);
        }
    }

    fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), RenderError> {
        let Some(overlong) = self.overlong.take() else {
            let header = self
                .parser
                .parse_cri(piece)
                .map(|record| piece[..piece.len() - record.content.len()].to_vec());
            let Some(header) = header else {
                self.malformed(piece, Terminator::EndOfFile);
                self.overlong = Some(Overlong::Malformed);
                return Ok(());
            };
            let content = &piece[header.len()..];
            self.stats.records += 1;
            self.content_piece(&header, content, None, out)?;
            self.overlong = Some(Overlong::Record { header });
            return Ok(());
        };
        if let Overlong::Record { header } = &overlong {
            self.content_piece(header, piece, None, out)?;
        }
        self.overlong = Some(overlong);
        Ok(())
    }

    fn last_piece(
        &mut self,
        piece: &[u8],
        terminator: Terminator,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        match self.overlong.take() {
            Some(Overlong::Record { header }) => self.content_piece(&header, piece, Some(terminator), out),
            Some(Overlong::Malformed) | None => Ok(()),
        }
    }

    /// Content of an overlong record; `end` when it is the last of it.
    fn content_piece(
        &mut self,
        header: &[u8],
        content: &[u8],
        end: Option<Terminator>,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        let Some(mut record) = self.parser.parse_cri(header) else { return Ok(()) };
        record.content = content;
        if end.is_none() {
            record.end = crate::LineEnd::Partial;
        }
        match &mut self.kind {
            Kind::Exact(exact) => {
                exact.record(&record, end.unwrap_or(Terminator::LineFeed), self.position, out);
            }
            Kind::Upstream(upstream) => upstream.piece(&record, end, out),
        }
        Ok(())
    }

    #[inline]
    fn is_done(&self, out: &[u8], room: usize) -> bool {
        out.len() >= room || matches!(&self.kind, Kind::Upstream(upstream) if upstream.is_done())
    }

    fn settle(&mut self, out: &mut Vec<u8>, room: usize) -> RenderState {
        let done = self.is_done(out, room);
        self.budget.settle(out, room);
        if done { RenderState::LimitReached } else { RenderState::More }
    }
}

/// The bytes of output that are still allowed.
#[derive(Debug, Clone)]
struct Budget {
    left: Option<u64>,
}

impl Budget {
    /// The length at which `out` is full.
    fn begin(&self, out: &[u8]) -> usize {
        let left = self.left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        out.len().saturating_add(left)
    }

    /// Cuts what is too much, and pays for the rest.
    fn settle(&mut self, out: &mut Vec<u8>, room: usize) {
        out.truncate(room);
        if let Some(left) = &mut self.left {
            *left = (room - out.len()) as u64;
        }
    }
}

#[cfg(test)]
mod tests;
