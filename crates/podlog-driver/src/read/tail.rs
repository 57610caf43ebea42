//! Where the last N lines of a log begin.

use std::{collections::VecDeque, io};

use memchr::memrchr;
use podlog_line::{LineEnd, MAX_HELD, Record, RecordParser, Selection, Stream, Timestamp};

use super::{
    backward::Backward,
    files::LogFile,
    segment::{Break, Segment},
    until,
};

/// The beginning of a line that the wanted ones overlap with is looked for in so many bytes before its earliest known
/// part. Only a line whose records are further apart than that, with the other stream between them, can lose its
/// beginning.
const LOOK_BACK: u64 = 512 * 1024;

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailStart {
    /// Index of the segment.
    pub(super) segment: usize,
    /// Where in it, if it is a file.
    pub(crate) offset: u64,
    /// Bytes from there on in which records of a stream are to be ignored.
    pub(crate) ignore_before: [u64; 2],
}

/// [`find`] for a log that is given piece by piece, from its end on, each of whole records.
#[derive(Debug)]
pub(crate) struct TailSearch<'a>(Search<'a>);

impl<'a> TailSearch<'a> {
    pub(crate) fn new(selection: &'a Selection) -> TailSearch<'a> {
        TailSearch(Search::new(selection.tail.unwrap_or(u64::MAX), selection))
    }

    /// Whether nothing that comes before has to be known.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over()
    }

    /// Walks back through the piece before all that were given.
    pub(crate) fn walk(&mut self, text: &[u8]) {
        let mut parser = RecordParser::default();
        let after = self.0.place;
        let mut end = text.len();
        while let Some(line) = text[..end].strip_suffix(b"\n") {
            let start = memrchr(b'\n', line).map_or(0, |before| before + 1);
            let (begin, behind) = (after + (text.len() - start) as u64, after + (text.len() - end) as u64);
            self.0.place = begin;
            if let Some(record) = parser.parse(&line[start..]) {
                self.0.record(&record, begin, behind);
            }
            end = start;
        }
        self.0.place = after + text.len() as u64;
    }

    /// Where to begin, in all that was walked through as one piece.
    pub(crate) fn start(mut self) -> TailStart {
        self.0.end();
        let walked = self.0.place;
        self.0.start(&[(0, walked)], 1)
    }
}

/// Finds the last `count` lines of `segments` (oldest first) that are selected; `None` when there are fewer behind those that are
/// too old, which are not looked at: then `since` alone says what is shown. A file that turns out to be damaged is followed by a
/// break from then on.
pub(super) fn find(
    segments: &mut Vec<Segment>,
    count: u64,
    selection: &Selection,
) -> io::Result<Option<TailStart>> {
    let mut search = Search::new(count, selection);
    // What was walked through, newest first: index, and bytes.
    let mut walked = Vec::new();
    let mut index = segments.len();
    let too_old = count_too_old(segments, selection);
    while index > 0 && !search.is_over() {
        if index == too_old && search.left > 0 {
            search.leave_out(segments[index - 1].inside_at_end());
            if search.left > 0 {
                return Ok(None);
            }
        }
        index -= 1;
        let damage = match &mut segments[index] {
            Segment::Break(here) => {
                search.pass(here, index);
                continue;
            }
            Segment::File(file) => unpacked(file, selection)?,
        };
        if let (Some(why), Some(file)) = (damage, segments[index].as_file()) {
            let here = Break::damaged(file, &why, segments.get(index + 1))?;
            walked.iter_mut().for_each(|(walked, _)| *walked += 1);
            search.shift();
            search.pass(&here, index + 1);
            segments.insert(index + 1, Segment::Break(here));
        }
        if let Segment::File(file) = &mut segments[index] {
            walked.push((index, search.walk(file)?));
        }
    }
    search.end();
    Ok(Some(search.start(&walked, segments.len())))
}

/// How many segments at the beginning hold nothing that `since` lets through.
fn count_too_old(segments: &[Segment], selection: &Selection) -> usize {
    let Some(since) = selection.since else { return 0 };
    let is_too_old = |segment: &&Segment| match segment {
        Segment::File(file) => file.end_before(since).is_some(),
        Segment::Break(here) => here.shown(Some(since), None).is_none(),
    };
    segments.iter().take_while(is_too_old).count()
}

/// Makes it possible to read the file backwards. Why that was not possible to its end.
fn unpacked(file: &mut LogFile, selection: &Selection) -> io::Result<Option<String>> {
    if file.is_compressed() {
        file.plain()?;
        if let (Some(until), false) = (selection.until, selection.follow) {
            until::limit(file, until)?;
        }
    }
    Ok(file.take_damage())
}

/// Where the last `count` terminated lines of a file begin, whatever is in them.
pub(super) fn find_raw(file: &mut LogFile, count: u64) -> io::Result<u64> {
    let length = end_of(file)?;
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

fn end_of(file: &mut LogFile) -> io::Result<u64> {
    let length = file.plain()?.metadata()?.len();
    Ok(file.limit.map_or(length, |limit| limit.min(length)))
}

/// Places are bytes to the end of what is searched: the greater, the earlier.
#[derive(Debug)]
struct Search<'a> {
    selection: &'a Selection,
    /// Lines that are still to be found.
    left: u64,
    /// The earliest line that is wanted: its stream, and where it ends. Once all are found.
    last_found: Option<(Stream, u64)>,
    streams: [StreamSearch; 2],
    /// The earliest break that is one of the lines.
    found_break: Option<(usize, u64)>,
    /// Whether anything that was seen is a record.
    has_records: bool,
    /// Whether a line may go on behind the end of what is searched.
    may_go_on: bool,
    /// How much was walked through.
    place: u64,
    /// Where the last line was found.
    complete_at: u64,
}

#[derive(Debug, Default)]
struct StreamSearch {
    /// The line whose beginning is not known yet.
    pending: Option<Pending>,
    /// Where the earliest wanted line begins.
    start: Option<u64>,
    /// Where the one after it begins.
    next_start: Option<u64>,
    /// Where the latest line ends that is not wanted.
    unwanted_end: Option<u64>,
    /// Whether any record was seen.
    is_seen: bool,
}

/// A line on the way to its beginning.
#[derive(Debug)]
struct Pending {
    start: u64,
    end: u64,
    begun: Timestamp,
    is_gap: bool,
    /// It goes on behind the end.
    is_unfinished: bool,
    /// As much of its parts as is needed to judge it.
    parts: VecDeque<Vec<u8>>,
    held: usize,
}

impl<'a> Search<'a> {
    fn new(count: u64, selection: &'a Selection) -> Search<'a> {
        Search {
            selection,
            left: count,
            last_found: None,
            streams: Default::default(),
            found_break: None,
            has_records: false,
            may_go_on: true,
            place: 0,
            complete_at: 0,
        }
    }

    /// Walks back through a file. Its length.
    fn walk(&mut self, file: &mut LogFile) -> io::Result<u64> {
        let length = end_of(file)?;
        let after = self.place;
        let is_newest = after == 0 && self.may_go_on;
        if !is_newest && file.length()? > Some(length) {
            self.leave_out(until::left_inside(file)?);
        }
        let mut parser = RecordParser::default();
        let mut lines = Backward::new(file.plain()?, length);
        while !self.is_over()
            && let Some(line) = lines.next()?
        {
            self.place = after + length - line.start;
            let Some(record) = parser.parse(line.text) else { continue };
            // A torn record is ended by what comes after it; only the last one of the log may still go on.
            let goes_on = is_newest && !line.is_terminated;
            let end = if goes_on { LineEnd::Partial } else { record.end };
            self.record(&Record { end, ..record }, self.place, after + length - line.end);
        }
        self.place = after + length;
        Ok(length)
    }

    fn record(&mut self, record: &Record<'_>, start: u64, end: u64) {
        self.has_records = true;
        if !self.selection.streams.contains(record.stream) {
            return;
        }
        let needs_content = self.selection.line_match.is_some();
        let search = &mut self.streams[record.stream.index()];
        let is_first = !std::mem::replace(&mut search.is_seen, true);
        if let (Some(pending), LineEnd::Partial, false) = (&mut search.pending, record.end, record.is_gap) {
            pending.extend(record, start, needs_content);
            return;
        }
        self.settle(record.stream);
        let is_unfinished = record.end == LineEnd::Partial && is_first && self.may_go_on;
        let mut pending = Pending::new(end, is_unfinished, record.is_gap);
        pending.extend(record, start, needs_content);
        self.streams[record.stream.index()].pending = Some(pending);
        if record.is_gap {
            self.settle(record.stream);
        }
    }

    /// The beginning of the stream's line is known.
    fn settle(&mut self, stream: Stream) {
        let search = &mut self.streams[stream.index()];
        let Some(pending) = search.pending.take() else { return };
        if pending.is_unfinished && self.selection.follow {
            search.start = Some(pending.start);
            return;
        }
        let content = Vec::from(pending.parts).concat();
        let is_selected = self.selection.wants(stream, pending.begun, pending.is_gap, &content);
        if is_selected && self.left > 0 {
            search.next_start = search.start.replace(pending.start);
            self.last_found = Some((stream, pending.end));
            self.found_one();
        } else if is_selected && self.last_found.is_some_and(|(_, end)| pending.end < end) {
            // It ends later than the earliest that was found, which is one too many now.
            search.next_start = search.start.replace(pending.start);
            self.give_up_last(pending.end, stream);
        } else {
            search.give_up(pending.end);
        }
    }

    fn found_one(&mut self) {
        self.left -= 1;
        self.complete_at = self.place;
    }

    fn give_up_last(&mut self, end: u64, stream: Stream) {
        if let Some((last, last_end)) = self.last_found.replace((stream, end)) {
            let search = &mut self.streams[last.index()];
            search.start = search.next_start.take();
            search.give_up(last_end);
        }
    }

    /// Lines do not go on across a break. It may be a line itself.
    fn pass(&mut self, here: &Break, index: usize) {
        self.end();
        self.may_go_on = false;
        if self.left > 0 && here.shown(None, self.selection.until).is_some() {
            self.found_break = Some((index, self.place));
            self.found_one();
        }
    }

    /// A segment is put in before all that was walked through.
    fn shift(&mut self) {
        if let Some((found, _)) = &mut self.found_break {
            *found += 1;
        }
    }

    /// A part comes before that is left out. The lines of these streams began in it, all others behind it.
    fn leave_out(&mut self, inside: [bool; 2]) {
        for stream in Stream::ALL.into_iter().filter(|stream| inside[stream.index()]) {
            let search = &mut self.streams[stream.index()];
            if let Some(pending) = search.pending.take() {
                search.give_up(pending.end);
            }
        }
        self.end();
    }

    /// Nothing comes before: what is known of lines is all there is.
    fn end(&mut self) {
        Stream::ALL.into_iter().for_each(|stream| self.settle(stream));
    }

    fn is_over(&self) -> bool {
        self.left == 0 && Stream::ALL.into_iter().all(|stream| self.is_known(stream))
    }

    /// Whether nothing more has to be known of a stream, or it would take too long.
    fn is_known(&self, stream: Stream) -> bool {
        let search = &self.streams[stream.index()];
        let last_end = self.last_found.map_or(0, |(_, end)| end);
        let known_to = match &search.pending {
            Some(pending) if !pending.is_unfinished && pending.end >= last_end => return true,
            Some(pending) => pending.start,
            // A follower will see the end of a line that began before all that is wanted.
            None if self.selection.follow && !search.is_seen => 0,
            None => return true,
        };
        let is_wanted = self.selection.streams.contains(stream);
        !is_wanted || self.place > self.complete_at.max(known_to) + LOOK_BACK
    }

    fn start(&self, walked: &[(usize, u64)], segments: usize) -> TailStart {
        let unread = if self.has_records || self.selection.tail == Some(0) { 0 } else { self.place };
        let starts = self.streams.iter().filter_map(|search| search.start);
        let found_break = self.found_break.map(|(_, place)| place);
        let begin = starts.chain(found_break).max().unwrap_or(unread);
        let ignore_before = self.streams.each_ref().map(|search| {
            let from = search.start.or(search.unwanted_end);
            from.map_or(0, |from| begin.saturating_sub(from))
        });
        if let Some((segment, place)) = self.found_break
            && place == begin
        {
            return TailStart { segment, offset: 0, ignore_before };
        }
        let mut after = 0;
        for (index, length) in walked {
            if begin <= after + length {
                return TailStart { segment: *index, offset: after + length - begin, ignore_before };
            }
            after += length;
        }
        TailStart { segment: segments, offset: 0, ignore_before }
    }
}

impl StreamSearch {
    /// A line that ends there is not wanted.
    fn give_up(&mut self, end: u64) {
        self.unwanted_end = Some(self.unwanted_end.map_or(end, |latest| latest.min(end)));
    }
}

impl Pending {
    fn new(end: u64, is_unfinished: bool, is_gap: bool) -> Pending {
        let begun = Timestamp::MIN;
        Pending { start: end, end, begun, is_gap, is_unfinished, parts: VecDeque::new(), held: 0 }
    }

    /// A part before those that are known.
    fn extend(&mut self, record: &Record<'_>, start: u64, needs_content: bool) {
        self.start = start;
        self.begun = record.time.timestamp();
        if !needs_content {
            return;
        }
        self.held += record.content.len();
        self.parts.push_front(record.content.to_vec());
        // A line is judged by its beginning.
        while let Some(last) = self.parts.back()
            && self.held - last.len() >= MAX_HELD
        {
            self.held -= last.len();
            self.parts.pop_back();
        }
    }
}
