//! The entries of a container in all files of the journal, as one sequence.
//!
//! journald numbers entries over all its files. A file that is rotated away is not written to any more; what is deleted for its age
//! can be read on while it is open.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use super::entries::{Entries, Entry};
use super::file::JournalFile;
use super::layout::Header;
use super::source::{CONTAINER, JournalSource};
use super::text::Texts;
use crate::generations::FileId;

/// Files that have a series of numbers in common.
type SeriesId = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct Merge {
    parts: Vec<Part>,
    series: Vec<Series>,
    /// Archived files in which there is nothing of this container, and files that are no journals.
    ruled_out: HashSet<FileId>,
    /// Entries from here on are behind some that were deleted before anybody knew what they were.
    hole: Option<(usize, u64)>,
}

/// What is known of a series.
#[derive(Clone, Debug)]
struct Series {
    id: SeriesId,
    /// The last number that was seen in any file.
    tail: u64,
    /// Entries up to this one were there at the last look.
    bound: u64,
}

/// A file with entries of the container.
#[derive(Debug)]
struct Part {
    file: JournalFile,
    entries: Entries,
    series: usize,
    /// What is before this entry cannot be read backwards.
    floor: u64,
    /// Index of the entry that comes next.
    next: u64,
    /// That entry.
    ahead: Option<Entry>,
    /// The one before it.
    behind: Option<Entry>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    Entry(Found),
    /// The rest of this file cannot be read.
    Damaged,
    /// Nothing, as far as is known.
    End,
}

/// An entry, and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    part: usize,
    pub(super) series: usize,
    pub(super) entry: Entry,
    /// Whether entries before it were deleted that may have been of this container.
    pub(super) is_behind_hole: bool,
}

impl Merge {
    /// Looks for new files and new entries.
    pub(super) fn refresh(&mut self, source: &JournalSource) -> io::Result<()> {
        self.open_new(source)?;
        for series in &mut self.series {
            series.bound = 0;
        }
        // Entries with smaller numbers than the one that was seen first are all there when they are counted afterwards, whatever
        // file they are in.
        for part in &mut self.parts {
            let Some(header) = undamaged(part.file.header())? else { continue };
            let series = &mut self.series[part.series];
            series.bound = series.bound.max(header.tail_seqnum);
            series.tail = series.tail.max(header.tail_seqnum);
        }
        for part in &mut self.parts {
            undamaged(part.entries.refresh(&mut part.file))?;
        }
        Ok(())
    }

    fn open_new(&mut self, source: &JournalSource) -> io::Result<()> {
        let is_first = self.series.is_empty();
        let known: HashSet<FileId> = self.parts.iter().map(|part| part.file.id()).collect();
        let mut new = Vec::new();
        for (path, id) in source.files()? {
            if known.contains(&id) || self.ruled_out.contains(&id) {
                continue;
            }
            match JournalFile::open(&path) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                // It may have been made this moment.
                opened => new.extend(undamaged(opened)?),
            }
        }
        new.sort_by_key(|(_, header)| (header.head_realtime, header.head_seqnum));
        for (file, header) in new {
            let series = self.series_of(&file, &header);
            if !is_first {
                self.notice_hole(series, header.head_seqnum)?;
            }
            self.series[series].tail = self.series[series].tail.max(header.tail_seqnum);
            self.add(file, &header, series, source)?;
        }
        Ok(())
    }

    fn series_of(&mut self, file: &JournalFile, header: &Header) -> usize {
        let id = file.seqnum_id();
        self.series.iter().position(|series| series.id == id).unwrap_or_else(|| {
            // What is before its first file is not missed.
            self.series.push(Series { id, tail: header.head_seqnum, bound: 0 });
            self.series.len() - 1
        })
    }

    /// Where numbers are missing between what was seen and a new file, and what was read has been deleted since, files in between
    /// have come and gone.
    fn notice_hole(&mut self, series: usize, head: u64) -> io::Result<()> {
        let mut ours = self.parts.iter().filter(|part| part.series == series).peekable();
        if ours.peek().is_none() || head <= self.series[series].tail + 1 {
            return Ok(());
        }
        for part in ours {
            if !part.file.is_deleted()? {
                return Ok(());
            }
        }
        self.hole = self.hole.or(Some((series, head)));
        Ok(())
    }

    fn add(
        &mut self,
        mut file: JournalFile,
        header: &Header,
        series: usize,
        source: &JournalSource,
    ) -> io::Result<()> {
        let found = undamaged(file.find_data(CONTAINER, source.container().as_bytes()))?.flatten();
        let entries = found.map(|data| undamaged(Entries::open(&mut file, data))).transpose()?.flatten();
        match entries {
            Some(entries) => {
                self.parts.push(Part { file, entries, series, floor: 0, next: 0, ahead: None, behind: None })
            }
            None if header.is_archived => drop(self.ruled_out.insert(file.id())),
            None => {}
        }
        Ok(())
    }

    /// Whether there is anything of the container.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn series_id(&self, series: usize) -> SeriesId {
        self.series[series].id
    }

    /// The directory in which something will change when there is more.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        let newest = self.parts.last()?;
        newest.file.path().parent().map(ToOwned::to_owned)
    }

    /// The entry that comes next.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let mut first: Option<(usize, (usize, u64))> = None;
        for (index, part) in self.parts.iter_mut().enumerate() {
            let bound = self.series[part.series].bound;
            let Some(seqnum) = undamaged(part.peek(bound))? else {
                part.seek(part.entries.count());
                return Ok(Step::Damaged);
            };
            let Some(seqnum) = seqnum else { continue };
            let key = (part.series, seqnum);
            if first.is_none_or(|(_, least)| key < least) {
                first = Some((index, key));
            }
        }
        let Some((index, key)) = first else { return Ok(Step::End) };
        let part = &mut self.parts[index];
        let Some(entry) = part.ahead.take() else { return Ok(Step::End) };
        part.next += 1;
        part.behind = Some(entry.clone());
        let is_behind_hole = self.hole.take_if(|hole| *hole <= key).is_some();
        Ok(Step::Entry(Found { part: index, series: part.series, entry, is_behind_hole }))
    }

    /// The entry before: it comes next again. In a damaged file there is none before the damage ([`Merge::is_cut_off`]).
    pub(super) fn step_back(&mut self) -> io::Result<Option<Found>> {
        let mut last: Option<(usize, (usize, u64))> = None;
        for (index, part) in self.parts.iter_mut().enumerate() {
            let Some(seqnum) = undamaged(part.peek_back())? else {
                part.floor = part.next;
                continue;
            };
            let Some(seqnum) = seqnum else { continue };
            let key = (part.series, seqnum);
            // Of entries with one number, in copies of a file, the last comes first: forwards it comes last.
            if last.is_none_or(|(_, greatest)| key >= greatest) {
                last = Some((index, key));
            }
        }
        let Some((index, _)) = last else { return Ok(None) };
        let part = &mut self.parts[index];
        let Some(entry) = part.behind.take() else { return Ok(None) };
        part.next -= 1;
        part.ahead = Some(entry.clone());
        Ok(Some(Found { part: index, series: part.series, entry, is_behind_hole: false }))
    }

    /// Whether some entries cannot be come to from behind.
    pub(super) fn is_cut_off(&self) -> bool {
        self.parts.iter().any(|part| part.floor > 0)
    }

    /// Appends the records of an entry.
    pub(super) fn append_text(
        &mut self,
        found: &Found,
        texts: &mut Texts,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        texts.append(&mut self.parts[found.part].file, &found.entry, out)
    }

    /// Goes behind all entries.
    pub(super) fn seek_to_end(&mut self) {
        for part in &mut self.parts {
            part.seek(part.entries.count());
        }
    }

    /// What is left of the file that this entry is from is not wanted.
    pub(super) fn skip_rest(&mut self, found: &Found) {
        let part = &mut self.parts[found.part];
        part.seek(part.entries.count());
    }

    /// Goes to the first entries of that time or later: in each file entries are in the order of their times, as journald begins
    /// another when the clock is set back.
    pub(super) fn seek_to_time(&mut self, realtime: u64) -> io::Result<()> {
        for part in &mut self.parts {
            let next = part.entries.partition_point(&mut part.file, |(_, time)| time < realtime)?;
            part.seek(next);
        }
        Ok(())
    }

    /// Goes behind the entry of that number. Whether it is there.
    pub(super) fn seek_behind(&mut self, series: usize, seqnum: u64) -> io::Result<bool> {
        let mut is_there = false;
        for part in &mut self.parts {
            let next = match part.series.cmp(&series) {
                std::cmp::Ordering::Less => part.entries.count(),
                std::cmp::Ordering::Greater => 0,
                std::cmp::Ordering::Equal => {
                    part.entries.partition_point(&mut part.file, |(number, _)| number <= seqnum)?
                }
            };
            if part.series == series && next > 0 {
                is_there |= part.entries.head(&mut part.file, next - 1)?.0 == seqnum;
            }
            part.seek(next);
        }
        Ok(is_there)
    }

    /// The series for which that holds.
    pub(super) fn find_series(&self, is_it: impl Fn(SeriesId) -> bool) -> Option<usize> {
        self.series.iter().position(|series| is_it(series.id))
    }

    /// The newest file, and how many of its entries were read; `None` while older ones have more.
    pub(super) fn place(&self) -> Option<(FileId, u64)> {
        let (newest, older) = self.parts.split_last()?;
        let is_over = |part: &Part| part.next == part.entries.count();
        older.iter().all(is_over).then(|| (newest.file.id(), newest.next))
    }

    pub(super) fn try_clone(&self) -> io::Result<Merge> {
        let clone = |part: &Part| {
            let (entries, ahead, behind) = (part.entries.clone(), part.ahead.clone(), part.behind.clone());
            Ok(Part { file: part.file.try_clone()?, entries, ahead, behind, ..*part })
        };
        Ok(Merge {
            parts: self.parts.iter().map(clone).collect::<io::Result<_>>()?,
            series: self.series.clone(),
            ruled_out: self.ruled_out.clone(),
            hole: self.hole,
        })
    }
}

/// `None`, and a warning, where a file is damaged.
fn undamaged<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%error, "a journal file is damaged");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Part {
    fn seek(&mut self, next: u64) {
        (self.next, self.ahead, self.behind) = (next, None, None);
    }

    /// The number of the entry that comes next, if it was there when the last look began.
    fn peek(&mut self, bound: u64) -> io::Result<Option<u64>> {
        if self.ahead.is_none() && self.next < self.entries.count() {
            self.ahead = Some(self.entries.entry(&mut self.file, self.next)?);
        }
        let Some(seqnum) = self.ahead.as_ref().map(|entry| entry.seqnum) else { return Ok(None) };
        let is_in_order = self.behind.as_ref().is_none_or(|behind| behind.seqnum < seqnum);
        if !is_in_order || (seqnum > bound && seqnum > self.file.header()?.tail_seqnum) {
            return Err(self.out_of_order());
        }
        Ok(Some(seqnum).filter(|seqnum| *seqnum <= bound))
    }

    fn peek_back(&mut self) -> io::Result<Option<u64>> {
        if self.behind.is_none() && self.next > self.floor {
            let behind = self.entries.entry(&mut self.file, self.next - 1)?;
            if self.ahead.as_ref().is_some_and(|ahead| ahead.seqnum <= behind.seqnum) {
                return Err(self.out_of_order());
            }
            self.behind = Some(behind);
        }
        Ok(self.behind.as_ref().map(|entry| entry.seqnum))
    }

    fn out_of_order(&self) -> io::Error {
        let text = format!("{}: entries are out of order", self.file.path().display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}
