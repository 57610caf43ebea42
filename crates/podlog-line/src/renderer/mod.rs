//! From the raw bytes of a log to the bytes a client sees.

mod budget;
mod exact;
mod filter;
mod template;
mod upstream;

use memchr::memchr;

use crate::{
    Cursor, FileMark, Gap, LineEnd, Mode, Record, RecordParser, Rfc3339, SecondCache, Selection, Stream,
    Timestamp, TimestampFormatter, line_match::Hit, quote,
};
use budget::{Budget, Room};
pub use exact::MAX_HELD;
use exact::{Exact, LetGo, Span, Step};
use filter::Filter;
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
    /// Where the output was cut by the limit, if inside that of a record.
    cut: Option<Cursor>,
    /// Where the output stood when it was resumed, and the position of that place.
    resumed: Option<(Cursor, u64)>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact(Box<Exact>),
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

/// Input of which the first `done` bytes are rendered.
#[derive(Debug)]
struct Block<'a> {
    input: &'a [u8],
    done: usize,
    room: Room,
    hit: Hit,
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

impl Renderer {
    /// A renderer for a log that is fed from where `tail` begins; `tail` itself is the business of the one who feeds it,
    /// but for the record limit of [`Mode::Upstream`].
    pub fn new(selection: &Selection) -> Renderer {
        let filter = Filter::new(selection);
        Renderer {
            budget: Budget::new(selection.limit_bytes),
            parser: RecordParser::default(),
            stats: RenderStats::default(),
            position: 0,
            overlong: None,
            cut: None,
            resumed: None,
            kind: match selection.mode {
                Mode::Exact => Kind::Exact(Box::new(Exact::new(filter))),
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
            exact.begin_inside_line(inside, self.position);
        }
    }

    /// Says that the input that comes next stands at `offset` of that file: cursors name it, and
    /// [`Renderer::is_past_until`] is about what comes from now on.
    pub fn begin_file(&mut self, file: FileMark, offset: u64) {
        if let Kind::Exact(exact) = &mut self.kind {
            exact.begin_file(file, offset, self.position);
        }
    }

    /// Goes on at a place where an earlier renderer of the same selection stood. The input will begin `back` bytes before
    /// it, no less than [`Place::back`](crate::Place::back); otherwise what was begun there and is not given is missing. To
    /// be called before any input. [`Mode::Exact`] only.
    pub fn resume(&mut self, cursor: Cursor, back: u64) {
        if let Kind::Exact(exact) = &mut self.kind {
            exact.resume(&cursor, back);
            self.budget.skip(cursor.place.skip);
            self.resumed = Some((cursor, back));
        }
    }

    /// The place behind everything that was delivered, also when `limit_bytes` has cut it inside a line. `None` in
    /// [`Mode::Upstream`].
    pub fn cursor(&self) -> Option<Cursor> {
        let Kind::Exact(exact) = &self.kind else { return None };
        let cursor = match (self.cut, self.resumed) {
            (Some(cut), _) => cut,
            // What comes before that place, comes behind it.
            (None, Some((mut cursor, at))) if self.position < at => {
                cursor.place.skip = cursor.place.skip.max(self.budget.made());
                cursor
            }
            _ => {
                let mut cursor = exact.cursor(self.position);
                cursor.place.skip += self.budget.skip_left();
                cursor
            }
        };
        Some(cursor)
    }

    /// Whether a line later than `until` was met in the file, and no line that began before it is unfinished. If the records that
    /// follow are in the order of their times, none of them is wanted.
    pub fn is_past_until(&self) -> bool {
        matches!(&self.kind, Kind::Exact(exact) if exact.is_past_until())
    }

    /// Appends the output of all whole records in `input`.
    pub fn render(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Rendered, RenderError> {
        let room = self.budget.begin(out);
        let mut block = Block { input, done: 0, room, hit: Hit::default() };
        let mut result = Ok(());
        out.reserve(input.len().min(room.left(out)));
        while !self.is_done(out, room) && result.is_ok() {
            self.usual_lines(&mut block, out);
            let rest = &input[block.done..];
            let Some(length) = memchr(b'\n', rest) else { break };
            result = self.limited_line(&rest[..length], Terminator::LineFeed, length + 1, room, out);
            block.done += length + 1;
        }
        let state = self.settle(out, room);
        result.map(|()| Rendered { consumed: block.done, state })
    }

    /// Appends the output of `rest`, a last record without a line feed: the log ends there.
    pub fn render_rest(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Result<RenderState, RenderError> {
        self.last_record(rest, Terminator::EndOfFile, out)
    }

    /// Appends the output of `rest`, a last record without a line feed, as if it had one: the file ends there, and the
    /// log goes on in another. Nothing is glued to a record that was torn.
    pub fn end_file(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Result<RenderState, RenderError> {
        self.last_record(rest, Terminator::LineFeed, out)
    }

    fn last_record(
        &mut self,
        rest: &[u8],
        terminator: Terminator,
        out: &mut Vec<u8>,
    ) -> Result<RenderState, RenderError> {
        let room = self.budget.begin(out);
        let mut result = Ok(());
        let has_rest = !rest.is_empty() || self.overlong.is_some();
        if has_rest && !self.is_done(out, room) {
            result = self.limited_line(rest, terminator, rest.len(), room, out);
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
            let before = self.place_in(out, room);
            result = self.piece(piece, out);
            self.position += piece.len() as u64;
            self.note_cut(before, out, room);
        }
        let state = self.settle(out, room);
        result.map(|()| state)
    }

    /// Nothing was logged for a while: shows what there is of an unfinished line, and lines that waited for its end.
    /// An unfinished line is not shown where lines are matched; where they carry cursors, what is shown of it is a line.
    pub fn idle(&mut self, out: &mut Vec<u8>) -> RenderState {
        self.let_go(LetGo::Idle, out)
    }

    /// The log has ended: shows unfinished lines.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<RenderState, RenderError> {
        self.check_format()?;
        Ok(self.let_go(LetGo::End, out))
    }

    fn let_go(&mut self, why: LetGo, out: &mut Vec<u8>) -> RenderState {
        let room = self.budget.begin(out);
        while !self.is_done(out, room)
            && let Kind::Exact(exact) = &mut self.kind
            && let Some(step) = exact.next_step(why)
        {
            let (mut cursor, length) = (exact.cursor(self.position), out.len());
            exact.take_step(step, why, self.position, out);
            if let (Step::Open(stream), Some(_)) = (step, exact.cursor(self.position).place.open) {
                // The line is open, however much of it was shown.
                cursor.place.open = Some(stream);
            }
            self.note_cut(Some((cursor, length)), out, room);
        }
        self.settle(out, room)
    }

    /// The lines that are unfinished will not be finished: what there is of them is ended by line feeds.
    /// [`Mode::Exact`] only.
    pub fn end_lines(&mut self, out: &mut Vec<u8>) -> RenderState {
        let room = self.budget.begin(out);
        let before = self.place_in(out, room);
        if let Kind::Exact(exact) = &mut self.kind {
            exact.end_lines(self.position, out);
        }
        self.note_cut(before, out, room);
        self.settle(out, room)
    }

    /// Something is missing here: [`Renderer::end_lines`], and the marker of `gap` as a line of that time, whatever was
    /// selected. The place behind the marker is where the input goes on, at that offset of the file `next`; if that is not
    /// known it is the place before, with one marker more ([`Place::markers`](crate::Place::markers)). [`Mode::Exact`] only.
    pub fn gap(
        &mut self,
        gap: &Gap,
        at: Timestamp,
        next: Option<(FileMark, u64)>,
        out: &mut Vec<u8>,
    ) -> RenderState {
        if self.end_lines(out) == RenderState::LimitReached {
            return RenderState::LimitReached;
        }
        let room = self.budget.begin(out);
        let before = self.place_in(out, room);
        if let Kind::Exact(exact) = &mut self.kind {
            match next {
                Some((file, offset)) => exact.begin_file(file, offset, self.position),
                None => exact.mark(self.position),
            }
            append_gap(exact, gap, at, self.position, out);
        }
        self.note_cut(before, out, room);
        self.settle(out, room)
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
        matches!(&self.kind, Kind::Exact(exact) if exact.is_between_lines(self.position))
            && self.overlong.is_none()
            && self.budget.skip_left() == 0
    }

    /// What was counted so far.
    pub fn stats(&self) -> RenderStats {
        self.stats
    }

    /// The next lines of the block, as far as they need no second look.
    #[inline]
    fn usual_lines(&mut self, block: &mut Block<'_>, out: &mut Vec<u8>) {
        if let (Kind::Exact(exact), None) = (&mut self.kind, &self.overlong) {
            let begin = block.done;
            exact.usual_lines(block, self.position, &mut self.stats, out);
            self.position += (block.done - begin) as u64;
        }
    }

    /// A record and its place in the input, of which it takes `length` bytes.
    fn limited_line(
        &mut self,
        line: &[u8],
        terminator: Terminator,
        length: usize,
        room: Room,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        let before = self.place_in(out, room);
        let end = self.position + length as u64;
        let result = self.line(line, terminator, Span { start: self.position, end }, out);
        self.position = end;
        self.note_cut(before, out, room);
        result
    }

    #[inline]
    fn line(
        &mut self,
        line: &[u8],
        terminator: Terminator,
        span: Span,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        if self.overlong.is_some() {
            return self.last_piece(line, terminator, span, out);
        }
        match &mut self.kind {
            Kind::Exact(exact) => match self.parser.parse(line) {
                Some(record) => {
                    self.stats.records += 1;
                    if line.first() != Some(&b'{') {
                        exact.learn(&record);
                    }
                    exact.record(&record, terminator, span, out);
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
        let span = Span { start: self.position, end: self.position + piece.len() as u64 };
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
            self.content_piece(&header, content, None, span, out)?;
            self.overlong = Some(Overlong::Record { header });
            return Ok(());
        };
        if let Overlong::Record { header } = &overlong {
            self.content_piece(header, piece, None, span, out)?;
        }
        self.overlong = Some(overlong);
        Ok(())
    }

    fn last_piece(
        &mut self,
        piece: &[u8],
        terminator: Terminator,
        span: Span,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        match self.overlong.take() {
            Some(Overlong::Record { header }) => {
                self.content_piece(&header, piece, Some(terminator), span, out)
            }
            Some(Overlong::Malformed) | None => Ok(()),
        }
    }

    /// Content of an overlong record; `end` when it is the last of it.
    fn content_piece(
        &mut self,
        header: &[u8],
        content: &[u8],
        end: Option<Terminator>,
        span: Span,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        let Some(mut record) = self.parser.parse_cri(header) else { return Ok(()) };
        record.content = content;
        if end.is_none() {
            record.end = LineEnd::Partial;
        }
        match &mut self.kind {
            Kind::Exact(exact) => {
                exact.record(&record, end.unwrap_or(Terminator::LineFeed), span, out);
            }
            Kind::Upstream(upstream) => upstream.piece(&record, end, out),
        }
        Ok(())
    }

    #[inline]
    fn is_done(&self, out: &[u8], room: Room) -> bool {
        room.is_full(out) || matches!(&self.kind, Kind::Upstream(upstream) if upstream.is_done())
    }

    fn settle(&mut self, out: &mut Vec<u8>, room: Room) -> RenderState {
        let done = self.is_done(out, room);
        self.budget.settle(out, room);
        if done { RenderState::LimitReached } else { RenderState::More }
    }

    /// Where the output stands and its length, if it may be cut.
    fn place_in(&self, out: &[u8], room: Room) -> Option<(Cursor, usize)> {
        if !room.is_limited() {
            return None;
        }
        let Kind::Exact(exact) = &self.kind else { return None };
        let cursor = match self.resumed {
            Some((mut cursor, at)) if self.position < at => {
                cursor.place.skip = self.budget.made() + room.made(out);
                cursor
            }
            _ => exact.cursor(self.position),
        };
        Some((cursor, out.len()))
    }

    /// Remembers where the output was cut, if what came after `before` did not fit.
    fn note_cut(&mut self, before: Option<(Cursor, usize)>, out: &[u8], room: Room) {
        if let Some((mut cursor, length)) = before
            && let Some(fitting) = room.cuts(length, out)
        {
            cursor.place.skip += fitting;
            self.cut = Some(cursor);
        }
    }
}

fn append_gap(exact: &mut Exact, gap: &Gap, at: Timestamp, position: u64, out: &mut Vec<u8>) {
    let mut content = Vec::new();
    gap.append_content(&mut content);
    let mut formatter = TimestampFormatter::default();
    let text = formatter.format(at);
    if let Some(time) = Rfc3339::parse_prefix(text, &mut SecondCache::default()) {
        let stream = gap.stream.unwrap_or(Stream::Stdout);
        let record = Record { time, stream, end: LineEnd::Full, content: &content, is_gap: true };
        exact.append_marker(&record, position, out);
    }
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
