//! Reading the entries of a container as a log.

use std::io;
use std::path::PathBuf;

use podlog_line::{
    Cursor, FileMark, Gap, GapReason, LinePlace, Mode, Place as LinesPlace, RenderState, Renderer, Selection,
    Timestamp, cri,
};

use super::merge::{Found, Merge, Step};
use super::source::JournalSource;
use super::text::{Texts, time_of};
use crate::read::{Place, ReadState, ReadStats, Resumed, TailSearch, fingerprint};
use crate::{ReadError, read::MAX_OUTPUT};

/// A call returns when it has read so much.
const MAX_INPUT: usize = 8 * 1024 * 1024;
/// How far before the time that is wanted the beginnings of lines are looked for.
const LOOK_BACK: usize = 128;

/// Reads the log of a container from the journal. Blocking; its memory does not depend on the size of the journal.
#[derive(Debug)]
pub struct JournalReader {
    source: JournalSource,
    merge: Merge,
    texts: Texts,
    renderer: Renderer,
    follow: bool,
    /// So much of the records that come next is not wanted.
    skip: u64,
    /// The records of one entry.
    text: Vec<u8>,
    /// What is missing before what comes next.
    gap: Option<Gap>,
    /// What cursors call the series of the last entry.
    fingerprint: Option<(usize, u64)>,
    /// When the last entry was written.
    last: Option<Timestamp>,
    /// Where reading began again.
    after: Option<Cursor>,
    resumed: Resumed,
    /// Whether the renderer knows where it is.
    has_place: bool,
    was_caught_up: bool,
    is_done: bool,
    stats: ReadStats,
}

impl JournalReader {
    pub(super) fn open(
        source: JournalSource,
        selection: &Selection,
    ) -> Result<Option<JournalReader>, ReadError> {
        let selection = Selection { mode: Mode::Exact, ..selection.clone() };
        let mut merge = Merge::default();
        merge.refresh(&source).map_err(|error| source.error(error))?;
        if merge.is_empty() {
            return Ok(None);
        }
        let mut reader = JournalReader {
            texts: Texts::of_user(source.user),
            renderer: Renderer::new(&selection),
            follow: selection.follow,
            skip: 0,
            text: Vec::new(),
            gap: None,
            fingerprint: None,
            last: None,
            after: selection.after,
            resumed: Resumed::Exact,
            has_place: false,
            was_caught_up: false,
            is_done: selection.tail == Some(0) && !selection.follow,
            stats: ReadStats::default(),
            merge,
            source,
        };
        reader.begin(&selection).map_err(|error| reader.source.error(error))?;
        Ok(Some(reader))
    }

    /// Appends about 64 KiB of output, more where lines are longer.
    ///
    /// Without `follow` the log ends where it ended when the reader was made. Files that are open are read to their end also
    /// when the journal has deleted them; where others were deleted unseen, and where something cannot be read, a line declares
    /// the gap.
    pub fn read_chunk(&mut self, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
        if self.is_done {
            return Ok(ReadState::LimitReached);
        }
        let (begin, mut input) = (out.len(), 0);
        if std::mem::take(&mut self.was_caught_up) && self.follow {
            self.merge.refresh(&self.source).map_err(|error| self.source.error(error))?;
        }
        while out.len() - begin < MAX_OUTPUT && input < MAX_INPUT {
            match self.step(out).map_err(|error| self.source.error(error))? {
                Some(count) => input += count,
                None => return self.caught_up(input, out),
            }
            if self.is_done {
                return Ok(ReadState::LimitReached);
            }
        }
        Ok(ReadState::More)
    }

    /// The writer has ended and everything was read: appends what there is of unfinished lines.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        if self.is_done {
            return Ok(());
        }
        self.declare(None, out);
        if !self.is_done {
            self.renderer.finish(out)?;
        }
        self.is_done = true;
        Ok(())
    }

    /// A second reader at the same place.
    ///
    /// # Errors
    /// When the process may not open more files.
    pub fn try_clone(&self) -> io::Result<JournalReader> {
        Ok(JournalReader {
            source: self.source.clone(),
            merge: self.merge.try_clone()?,
            texts: self.texts.clone(),
            renderer: self.renderer.clone(),
            text: Vec::new(),
            ..*self
        })
    }

    /// What was met so far.
    pub fn stats(&self) -> ReadStats {
        let rendered = self.renderer.stats();
        ReadStats { records: rendered.records, malformed: rendered.malformed, ..self.stats }
    }

    /// The place behind everything that was delivered so far: [`Selection::after`] it is exactly the rest.
    pub fn cursor(&self) -> Option<Cursor> {
        if self.has_place { self.renderer.cursor() } else { self.after }
    }

    /// Whether reading began exactly behind the cursor that was asked for.
    pub fn resumed(&self) -> Resumed {
        self.resumed
    }

    /// Where this follower stands; `None` while there is more to read, or a line has begun whose rest is to come.
    pub fn place(&self) -> Option<Place> {
        let is_settled = self.was_caught_up && !self.is_done && self.gap.is_none();
        let place = self.merge.place().filter(|_| is_settled && self.renderer.is_between_lines());
        place.map(Place::of_entries)
    }

    /// The directory that changes when there is more.
    pub fn directory(&self) -> Option<PathBuf> {
        self.merge.directory()
    }

    /// Goes to where the selection begins.
    fn begin(&mut self, selection: &Selection) -> io::Result<()> {
        match (self.after, selection.tail, selection.since) {
            (Some(cursor), _, _) => self.resume(&cursor),
            (None, Some(_), _) => self.find_tail(selection),
            (None, None, Some(since)) => self.find_since(since),
            (None, None, None) => Ok(()),
        }
    }

    fn find_tail(&mut self, selection: &Selection) -> io::Result<()> {
        let mut search = TailSearch::new(selection);
        self.merge.seek_to_end();
        while !search.is_over() {
            let Some(found) = self.merge.step_back()? else { break };
            self.read_text(&found)?;
            search.walk(&self.text);
        }
        if !search.is_over() && self.merge.is_cut_off() {
            self.gap = Some(Gap::new(GapReason::Damaged));
        }
        let start = search.start();
        self.skip = start.offset;
        self.renderer.ignore_before(start.ignore_before);
        Ok(())
    }

    /// Lines that began before that time are left out, which shows by the records that they begin with.
    fn find_since(&mut self, since: Timestamp) -> io::Result<()> {
        let microseconds = since.as_nanoseconds().max(0) / 1000;
        self.merge.seek_to_time(microseconds as u64)?;
        let mut is_seen = [false; 2];
        for _ in 0..LOOK_BACK {
            let Some(found) = self.merge.step_back()? else { break };
            self.read_text(&found)?;
            let mut seconds = podlog_line::SecondCache::default();
            for line in self.text.split(|byte| *byte == b'\n') {
                if let Some(record) = cri::parse(line, &mut seconds) {
                    is_seen[record.stream.index()] = true;
                }
            }
            if is_seen == [true; 2] {
                break;
            }
        }
        Ok(())
    }

    fn resume(&mut self, cursor: &Cursor) -> io::Result<()> {
        let is_it = |id| self.mark_of(id) == cursor.file.fingerprint;
        let series = self.merge.find_series(is_it);
        let Some((series, seqnum)) = series.zip(cursor.file.base) else {
            // It is none of this journal: everything comes.
            self.gone(cursor);
            return Ok(());
        };
        if !self.merge.seek_behind(series, seqnum)? {
            // What is behind it is all there is left.
            self.gone(cursor);
            return Ok(());
        }
        let Some(back) = self.go_back(cursor)? else {
            self.merge.seek_behind(series, seqnum)?;
            return self.resume_inside(cursor);
        };
        self.renderer.resume(*cursor, back);
        Ok(())
    }

    /// From behind the entry of the cursor to where its unfinished lines begin. How many bytes before its place that is; `None`
    /// when that is gone.
    fn go_back(&mut self, cursor: &Cursor) -> io::Result<Option<u64>> {
        let place = &cursor.place;
        let (mut is_own, mut missing) = (true, place.back());
        while let Some(found) = self.merge.step_back()? {
            self.read_text(&found)?;
            let before = if is_own { place.offset } else { self.text.len() as u64 };
            is_own = false;
            match before.checked_sub(missing) {
                Some(offset) => {
                    self.skip = offset;
                    return Ok(Some(place.back()));
                }
                None => missing -= before,
            }
        }
        Ok(None)
    }

    /// The entry is there, and those with which its unfinished lines begin are not: their rest is a line of its own.
    fn resume_inside(&mut self, cursor: &Cursor) -> io::Result<()> {
        self.merge.step_back()?;
        self.skip = cursor.place.offset;
        let lines = cursor.place.lines.map(|line| match line {
            LinePlace::Begun { .. } => LinePlace::Between,
            line => line,
        });
        let place = LinesPlace { lines, skip: 0, markers: 0, ..cursor.place };
        self.renderer.resume(Cursor { place, ..*cursor }, 0);
        self.lose();
        Ok(())
    }

    /// What comes is behind a declared gap.
    fn gone(&mut self, cursor: &Cursor) {
        let place = LinesPlace { open: cursor.place.open, ..LinesPlace::default() };
        self.renderer.resume(Cursor { place, ..*cursor }, 0);
        self.lose();
    }

    fn lose(&mut self) {
        self.resumed = Resumed::Gone { bytes: None };
        self.gap = Some(Gap::new(GapReason::Retention));
    }

    fn read_text(&mut self, found: &Found) -> io::Result<()> {
        self.text.clear();
        self.merge.append_text(found, &mut self.texts, &mut self.text)
    }

    /// Renders the next entry. How long its records are; `None` when there is none.
    fn step(&mut self, out: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let found = match self.merge.step()? {
            Step::Entry(found) => found,
            Step::Damaged => {
                self.stats.damaged_files += 1;
                let from = self.last;
                self.gap = Some(Gap { from, ..Gap::new(GapReason::Damaged) });
                return Ok(Some(0));
            }
            Step::End => return Ok(None),
        };
        self.read_text(&found)?;
        let length = self.text.len();
        if self.skip > 0 && self.skip >= length as u64 {
            self.skip -= length as u64;
            return Ok(Some(length));
        }
        let offset = std::mem::take(&mut self.skip);
        if found.is_behind_hole {
            self.stats.missing_files += 1;
            self.gap = Some(Gap { from: self.last, ..Gap::new(GapReason::Retention) });
        }
        let mark = self.mark(&found);
        let at = time_of(&found.entry);
        self.declare(Some((mark, offset, at)), out);
        self.last = Some(at);
        if !self.is_done {
            self.render(&found, mark, offset, out)?;
        }
        Ok(Some(length))
    }

    fn render(&mut self, found: &Found, mark: FileMark, offset: u64, out: &mut Vec<u8>) -> io::Result<()> {
        self.renderer.begin_file(mark, offset);
        self.has_place = true;
        let text = &self.text[usize::try_from(offset).unwrap_or(usize::MAX).min(self.text.len())..];
        let rendered = self.renderer.render(text, out).map_err(io::Error::other)?;
        self.is_done |= rendered.state == RenderState::LimitReached;
        if self.renderer.is_past_until() {
            if self.follow {
                self.is_done = true;
            } else {
                self.merge.skip_rest(found);
            }
        }
        Ok(())
    }

    /// Says what is missing before an entry, or at the end.
    fn declare(&mut self, next: Option<(FileMark, u64, Timestamp)>, out: &mut Vec<u8>) {
        let Some(gap) = self.gap.take() else { return };
        let at = next.map(|(_, _, at)| at).or(self.last).unwrap_or(Timestamp::MIN);
        let gap = Gap { to: next.map(|(_, _, at)| at), ..gap };
        self.stats.gaps += 1;
        let state = self.renderer.gap(&gap, at, next.map(|(mark, offset, _)| (mark, offset)), out);
        self.has_place = true;
        self.is_done |= state == RenderState::LimitReached;
    }

    fn caught_up(&mut self, input: usize, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
        self.was_caught_up = true;
        if !self.follow {
            self.finish(out)?;
            return Ok(ReadState::CaughtUp);
        }
        if input == 0 && self.renderer.idle(out) == RenderState::LimitReached {
            self.is_done = true;
            return Ok(ReadState::LimitReached);
        }
        Ok(ReadState::CaughtUp)
    }

    /// An entry is to cursors what a file is.
    fn mark(&mut self, found: &Found) -> FileMark {
        let (_, fingerprint) = match self.fingerprint {
            Some(known) if known.0 == found.series => known,
            _ => (found.series, self.mark_of(self.merge.series_id(found.series))),
        };
        self.fingerprint = Some((found.series, fingerprint));
        FileMark { base: Some(found.entry.seqnum), fingerprint }
    }

    /// Numbers are those of a series, and places those of a container's records.
    fn mark_of(&self, series: [u8; 16]) -> u64 {
        let mut text = String::with_capacity(100);
        for byte in series {
            text.push_str(&format!("{byte:02x}"));
        }
        fingerprint((text + self.source.container()).as_bytes())
    }
}
