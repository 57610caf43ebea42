//! Where the last N lines of a log begin.

use std::io;

use podlog_line::{LineEnd, RecordParser, Stream, Streams};

use super::{backward::Backward, files::LogFile};

/// The beginning of a line that the wanted ones overlap with is looked for in so many bytes. Only a line whose records
/// are further apart than that, with the other stream between them, can lose its beginning.
const LOOK_BACK: u64 = 1024 * 1024;

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TailStart {
    /// Index of the file.
    pub(super) file: usize,
    /// Where in that file.
    pub(super) offset: u64,
    /// Bytes from there on in which records of a stream are to be ignored.
    pub(super) ignore_before: [u64; 2],
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) lines: u64,
    pub(super) streams: Streams,
    /// Unfinished lines are new, and do not count.
    pub(super) follow: bool,
}

/// Finds the last lines of `files` (oldest first). The last of them ends at `last_length`.
pub(super) fn find(files: &mut [LogFile], last_length: u64, wanted: Wanted) -> io::Result<TailStart> {
    let mut search = Search::new(wanted);
    let mut parser = RecordParser::default();
    let mut lengths = Vec::new();
    let mut after = 0;
    for (index, file) in files.iter_mut().rev().enumerate() {
        let plain = file.plain()?;
        let length = if index == 0 { last_length } else { plain.metadata()?.len() };
        lengths.push(length);
        let mut lines = Backward::new(plain, length);
        while let Some(line) = lines.next()? {
            let Some(record) = parser.parse(line.text) else { continue };
            // A torn record is ended by what comes after it; only the last one of the log may still go on.
            let goes_on = index == 0 && !line.is_terminated;
            let end = if goes_on { LineEnd::Partial } else { record.end };
            let span = Span { start: after + length - line.start, end: after + length - line.end };
            search.record(record.stream, end, span);
            if search.is_over(span) {
                return Ok(search.start(&lengths, files.len()));
            }
        }
        after += length;
    }
    Ok(search.start(&lengths, files.len()))
}

/// Where the last `count` terminated lines of a file begin, whatever is in them.
pub(super) fn find_raw(file: &mut LogFile, length: u64, count: u64) -> io::Result<u64> {
    let mut lines = Backward::new(file.plain()?, length);
    let mut start = length;
    let mut found = 0;
    while let Some(line) = lines.next()? {
        if line.is_terminated {
            if found == count {
                return Ok(line.end);
            }
            found += 1;
        }
        start = line.start;
    }
    Ok(start)
}

/// Where a record is: bytes from its ends to the end of the log.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Search {
    wanted: Wanted,
    found: u64,
    /// Bytes from where the last line was found to the end of the log.
    complete_at: Option<u64>,
    streams: [StreamSearch; 2],
}

#[derive(Debug, Default, Clone, Copy)]
struct StreamSearch {
    /// Where the earliest wanted line begins, as far as is known.
    start: Option<u64>,
    /// It does not begin earlier.
    is_certain: bool,
}

impl Search {
    fn new(wanted: Wanted) -> Search {
        let complete_at = (wanted.lines == 0).then_some(0);
        Search { wanted, found: 0, complete_at, streams: Default::default() }
    }

    fn record(&mut self, stream: Stream, end: LineEnd, span: Span) {
        if !self.wanted.streams.contains(stream) {
            return;
        }
        let search = self.streams[stream.index()];
        match end {
            LineEnd::Full if self.complete_at.is_some() => self.close(stream, span),
            LineEnd::Full => self.count(stream, span),
            LineEnd::Partial if search.is_certain => {}
            LineEnd::Partial if search.start.is_some() => {
                self.streams[stream.index()].start = Some(span.start)
            }
            LineEnd::Partial if self.wanted.follow => self.streams[stream.index()].start = Some(span.start),
            LineEnd::Partial if self.complete_at.is_some() => self.close(stream, span),
            LineEnd::Partial => self.count(stream, span),
        }
    }

    /// The record ends a line that is wanted.
    fn count(&mut self, stream: Stream, span: Span) {
        self.streams[stream.index()] = StreamSearch { start: Some(span.start), is_certain: false };
        self.found += 1;
        if self.found == self.wanted.lines {
            self.complete_at = Some(span.start);
        }
    }

    /// The record ends a line that is not wanted any more.
    fn close(&mut self, stream: Stream, span: Span) {
        let search = &mut self.streams[stream.index()];
        search.start.get_or_insert(span.end);
        search.is_certain = true;
    }

    fn is_over(&self, span: Span) -> bool {
        let Some(complete_at) = self.complete_at else { return false };
        let is_known = |stream: Stream| {
            let search = &self.streams[stream.index()];
            // A follower will see the end of a line that began before all that is wanted.
            let is_absent = search.start.is_none() && !self.wanted.follow;
            search.is_certain || is_absent || !self.wanted.streams.contains(stream)
        };
        Stream::ALL.into_iter().all(is_known) || span.start > complete_at + LOOK_BACK
    }

    /// `lengths` are those of the files that were looked at, newest first.
    fn start(&self, lengths: &[u64], files: usize) -> TailStart {
        let total: u64 = lengths.iter().sum();
        let nothing = if self.wanted.lines == 0 { 0 } else { total };
        let begin = self.streams.iter().filter_map(|search| search.start).max().unwrap_or(nothing);
        let ignore_before = self.streams.map(|search| search.start.map_or(0, |start| begin - start));
        let mut after = 0;
        for (index, length) in lengths.iter().enumerate() {
            if begin <= after + length {
                let offset = after + length - begin;
                return TailStart { file: files - 1 - index, offset, ignore_before };
            }
            after += length;
        }
        TailStart { file: files.saturating_sub(lengths.len()), offset: 0, ignore_before }
    }
}
