//! What a copier has in its hands, noted where its successor finds it.
//!
//! Bytes are always in exactly one of these places: the program's pipe, the *work pipe*, the [`Journal`]'s buffer, the log.
//! Each step between two places is one system call of which the journal can tell afterwards whether it was done:
//!
//! 1. `splice` moves a chunk from the program's pipe to the work pipe. Each stream has its own: what is there before a note was
//!    made is simply that stream's next chunk.
//! 2. The note says how long the chunk is, and where the log ends. Then `read` moves it to the buffer: what is missing in
//!    the work pipe is in the buffer.
//! 3. The sink writes to the log: what stands behind the noted end is there.
//! 4. The next note says that the chunk is done, and what of its last line is held back.
//!
//! Gap markers are noted in the same way. What a container loses by its policy is in no such place any more, but the note has
//! its *balance*: what has left the program's pipe and is neither in the log, nor declared there, nor in the chunk.
//!
//! With a buffer ([`Buffer`](crate::policy::Buffer)) the balance includes what is in it. Two threads do the work then: one
//! takes chunks from the pipe and counts them in its [`Ledger`], the other makes all the notes.
//!
//! A note is never changed, only replaced by another: the number of the valid one is stored last.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use podlog_driver::FilePosition;
use podlog_line::{Gap, GapReason, Stream, Timestamp};

use crate::shared::{self, Shared};

/// Of where everything stands in the memory. Who moves or adds something counts it up: a new build takes over a running
/// container only from one whose journal it can read.
pub(crate) const LAYOUT: u32 = 2;
/// Bytes moved at once.
pub(crate) const CHUNK: usize = 128 * 1024;

/// Which note is valid: 0 or 1.
const VALID: usize = 0;
/// Whether something is being read from a terminal, which tells nobody how much that was: 0 or [`READING`].
const TERMINAL: usize = 1;
/// Records and bytes that were dropped by this copier and those before.
const LOST: [usize; 2] = [2, 3];
/// Bytes of each stream that a buffer has taken in,
const TAKEN: [usize; 2] = [4, 5];
/// and what they will be when the chunk is in memory that is in the work pipe now.
const COMING: [usize; 2] = [6, 7];
/// Where the two notes begin.
const NOTES: [usize; 2] = [8, 32];

const READING: u64 = 3;

/// What is being done with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Work {
    /// Nothing: the buffer is empty.
    #[default]
    None,
    /// The buffer holds `filled` bytes, or gets them from the work pipe; those before `from` are done.
    Chunk {
        /// Whose they are.
        stream: Stream,
        /// Bytes of the chunk.
        filled: usize,
        /// Bytes that are in the log or held.
        from: usize,
    },
    /// The buffer gets `filled` bytes from the work pipe, of which nobody has said yet how much the rate limit lets through: what
    /// it has dropped before stands before them.
    Raw {
        /// Whose they are.
        stream: Stream,
        /// Bytes of the chunk.
        filled: usize,
    },
    /// The held part of a line is being written as it is.
    Flush {
        /// Whose line.
        stream: Stream,
    },
}

impl Work {
    /// Whose bytes are on their way to the log.
    pub(crate) fn stream(self) -> Option<Stream> {
        match self {
            Self::None => None,
            Self::Chunk { stream, .. } | Self::Raw { stream, .. } | Self::Flush { stream } => Some(stream),
        }
    }
}

/// Where a copier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Note {
    /// What it does.
    pub(crate) work: Work,
    /// Where the log ended before that.
    pub(crate) end: FilePosition,
    /// The marker that is being written; the rest of the work follows it.
    pub(crate) gap: Option<Gap>,
    /// Where the held part of each stream's last line is.
    held: [Held; 2],
    /// Bytes of each stream that were dropped and not declared, less those that a [`Ledger`] has not counted as taken.
    balance: [u64; 2],
}

/// A part of the journal: the beginning of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Held {
    /// 0 or 1: the place that is not written to.
    place: usize,
    length: usize,
}

/// The notes, the buffer and the held parts of lines.
pub(crate) struct Journal {
    shared: Shared,
    note: Note,
    /// Longest part of a line that can be held.
    max_held: usize,
}

/// Makes the memory of a journal.
pub(crate) fn create(max_held: usize) -> io::Result<OwnedFd> {
    shared::create(size(max_held))
}

/// The buffer, and two places for each stream's held part.
fn size(max_held: usize) -> usize {
    CHUNK + 4 * max_held
}

impl Journal {
    /// Takes the journal over, with the last note that was made.
    pub(crate) fn open(memory: impl AsFd, max_held: usize) -> io::Result<Self> {
        let shared = Shared::map(memory, size(max_held))?;
        let mut journal = Self { shared, note: Note::default(), max_held };
        journal.note = journal.read_note();
        Ok(journal)
    }

    /// The last note.
    pub(crate) fn note(&self) -> Note {
        self.note
    }

    /// Something is about to be read from a terminal, or that has been noted.
    pub(crate) fn set_at_terminal(&self, is_reading: bool) {
        set_at_terminal(&self.shared, is_reading);
    }

    /// What [`set_at_terminal`](Self::set_at_terminal) was called with last. What was being read is gone, if it was anything.
    pub(crate) fn is_at_terminal(&self) -> bool {
        self.load(TERMINAL) == READING
    }

    /// Where a chunk goes.
    pub(crate) fn buffer_mut(&mut self) -> &mut [u8] {
        &mut self.shared.bytes_mut()[..CHUNK]
    }

    /// A part of the chunk.
    pub(crate) fn buffer(&self) -> &[u8] {
        &self.shared.bytes()[..CHUNK]
    }

    /// The beginning of a stream's last line, which is not in the log.
    pub(crate) fn held(&self, stream: Stream) -> &[u8] {
        let held = self.note.held[stream.index()];
        &self.shared.bytes()[self.place(stream, held.place)..][..held.length]
    }

    /// Where the held part of a stream stands.
    fn place(&self, stream: Stream, place: usize) -> usize {
        CHUNK + (2 * stream.index() + place) * self.max_held
    }

    /// Notes what is done next, from where the log ends.
    pub(crate) fn begin(&mut self, work: Work, end: FilePosition) {
        self.write_note(Note { work, end, ..self.note });
    }

    /// Notes how far the work has come, and what of a stream is held back now.
    pub(crate) fn advance(&mut self, work: Work, end: FilePosition, stream: Stream, held: &[u8]) {
        let place = 1 - self.note.held[stream.index()].place;
        let start = self.place(stream, place);
        let length = held.len().min(self.max_held);
        self.shared.bytes_mut()[start..start + length].copy_from_slice(&held[..length]);
        let mut note = Note { work, end, ..self.note };
        note.held[stream.index()] = Held { place, length };
        self.write_note(note);
    }

    /// Records and bytes that copiers have dropped.
    pub(crate) fn lost(&self) -> [u64; 2] {
        LOST.map(|index| self.load(index))
    }

    /// Sets what [`lost`](Self::lost) tells.
    pub(crate) fn set_lost(&self, lost: [u64; 2]) {
        LOST.into_iter().zip(lost).for_each(|(index, count)| self.store(index, count));
    }

    /// Notes that a marker is written next, from where the log ends.
    pub(crate) fn begin_gap(&mut self, gap: Gap, end: FilePosition) {
        self.write_note(Note { gap: Some(gap), end, ..self.note });
    }

    /// Notes that the marker is in the log, and that it has ended the line of its stream.
    pub(crate) fn declared(&mut self, end: FilePosition) {
        let mut note = Note { gap: None, end, ..self.note };
        if let Some(Gap { stream: Some(stream), bytes, .. }) = self.note.gap {
            note.held[stream.index()].length = 0;
            note.pass(stream, bytes.unwrap_or(0));
        }
        self.write_note(note);
    }

    /// Notes what a rate limit lets through of the chunk, behind a marker, and how much of the stream it drops.
    pub(crate) fn limit(&mut self, work: Work, gap: Option<Gap>, stream: Stream, dropped: u64) {
        let mut note = Note { work, gap, ..self.note };
        note.balance[stream.index()] = note.balance[stream.index()].wrapping_add(dropped);
        self.write_note(note);
    }

    /// Takes bytes out of a buffer: notes that they are the chunk.
    pub(crate) fn begin_buffered(&mut self, stream: Stream, bytes: &[u8], end: FilePosition) {
        self.buffer_mut()[..bytes.len()].copy_from_slice(bytes);
        let work = Work::Chunk { stream, filled: bytes.len(), from: 0 };
        let mut note = Note { work, end, ..self.note };
        note.pass(stream, bytes.len() as u64);
        self.write_note(note);
    }

    /// Bytes of a stream that are neither in the log, nor declared there, nor in the chunk, nor in any pipe.
    pub(crate) fn missing(&self, stream: Stream) -> u64 {
        self.load(TAKEN[stream.index()]).wrapping_add(self.note.balance[stream.index()])
    }

    /// Bytes that are neither in the log, nor declared there, nor in any pipe.
    pub(crate) fn unwritten(&self) -> u64 {
        let chunk = match self.note.work {
            Work::Chunk { filled, from, .. } => (filled - from) as u64,
            Work::Raw { filled, .. } => filled as u64,
            Work::None | Work::Flush { .. } => 0,
        };
        let missing: u64 = Stream::ALL.into_iter().map(|stream| self.missing(stream)).sum();
        let held: usize = Stream::ALL.into_iter().map(|stream| self.held(stream).len()).sum();
        missing + chunk + held as u64
    }

    fn write_note(&mut self, note: Note) {
        let next = 1 - self.valid();
        for (index, number) in note.to_numbers().into_iter().enumerate() {
            self.store(NOTES[next] + index, number);
        }
        self.store(VALID, next as u64);
        self.note = note;
    }

    fn read_note(&self) -> Note {
        let start = NOTES[self.valid()];
        Note::from_numbers(std::array::from_fn(|index| self.load(start + index)), self.max_held)
    }

    fn valid(&self) -> usize {
        usize::from(self.load(VALID) == 1)
    }

    fn load(&self, index: usize) -> u64 {
        load(&self.shared, index)
    }

    fn store(&self, index: usize, number: u64) {
        store(&self.shared, index, number);
    }
}

fn load(shared: &Shared, index: usize) -> u64 {
    shared.number(index).load(Ordering::Acquire)
}

fn set_at_terminal(shared: &Shared, is_reading: bool) {
    store(shared, TERMINAL, if is_reading { READING } else { 0 });
}

fn store(shared: &Shared, index: usize, number: u64) {
    shared.number(index).store(number, Ordering::Release);
}

/// The numbers of a journal that belong to who takes chunks from the pipe, when that is another thread.
pub(crate) struct Ledger {
    shared: Shared,
}

impl Ledger {
    /// Takes the numbers over; so many bytes of a stream are `in_work`, its work pipe.
    pub(crate) fn open(memory: impl AsFd, in_work: impl Fn(Stream) -> usize) -> io::Result<Self> {
        let ledger = Self { shared: Shared::map(memory, 0)? };
        for stream in Stream::ALL {
            let (taken, coming) = (TAKEN[stream.index()], COMING[stream.index()]);
            let target = load(&ledger.shared, coming);
            if target > load(&ledger.shared, taken) {
                // The chunk was on its way to memory; what has not left the pipe will be counted again.
                store(&ledger.shared, taken, target.saturating_sub(in_work(stream) as u64));
            }
            store(&ledger.shared, coming, load(&ledger.shared, taken));
        }
        Ok(ledger)
    }

    /// As [`Journal::set_at_terminal`].
    pub(crate) fn set_at_terminal(&self, is_reading: bool) {
        set_at_terminal(&self.shared, is_reading);
    }

    /// A chunk is in the work pipe, and about to leave it.
    pub(crate) fn coming(&self, stream: Stream, length: usize) {
        let taken = load(&self.shared, TAKEN[stream.index()]);
        store(&self.shared, COMING[stream.index()], taken.wrapping_add(length as u64));
    }

    /// The chunk is in memory.
    pub(crate) fn came(&self, stream: Stream) {
        store(&self.shared, TAKEN[stream.index()], load(&self.shared, COMING[stream.index()]));
    }
}

const WORK_CHUNK: u64 = 1;
const WORK_FLUSH: u64 = 2;
const WORK_RAW: u64 = 3;

/// Numbers of a note.
const NOTE: usize = 19;
/// Stands for a number that is not known.
const UNKNOWN: u64 = u64::MAX;

impl Note {
    /// Whose bytes are on their way to the log.
    pub(crate) fn stream(&self) -> Option<Stream> {
        self.gap.and_then(|gap| gap.stream).or(self.work.stream())
    }

    /// Bytes have left what the balance counts.
    fn pass(&mut self, stream: Stream, bytes: u64) {
        self.balance[stream.index()] = self.balance[stream.index()].wrapping_sub(bytes);
    }

    fn to_numbers(self) -> [u64; NOTE] {
        let stream = self.work.stream().map_or(0, |stream| stream.index() as u64);
        let [kind, filled, from] = match self.work {
            Work::None => [0, 0, 0],
            Work::Chunk { filled, from, .. } => [WORK_CHUNK, filled as u64, from as u64],
            Work::Raw { filled, .. } => [WORK_RAW, filled as u64, 0],
            Work::Flush { .. } => [WORK_FLUSH, 0, 0],
        };
        let [out, err] = self.held;
        let held = [out.place, out.length, err.place, err.length].map(|number| number as u64);
        let FilePosition { device, inode, length } = self.end;
        let work = [kind, stream, filled, from, device, inode, length];
        let gap = gap_to_numbers(self.gap);
        let mut numbers = work.into_iter().chain(held).chain(self.balance).chain(gap);
        std::array::from_fn(|_| numbers.next().unwrap_or(0))
    }

    /// Numbers that nobody can have stored are taken for the largest that make sense.
    fn from_numbers(numbers: [u64; NOTE], max_held: usize) -> Self {
        let [kind, stream, filled, from, device, inode, length, rest @ ..] = numbers;
        let [out_place, out_held, err_place, err_held, out_balance, err_balance, gap @ ..] = rest;
        let at_most = |number: u64, limit: usize| usize::try_from(number).map_or(limit, |n| n.min(limit));
        let stream = Stream::ALL[at_most(stream, 1)];
        let filled = at_most(filled, CHUNK);
        let work = match kind {
            WORK_CHUNK => Work::Chunk { stream, filled, from: at_most(from, filled) },
            WORK_RAW => Work::Raw { stream, filled },
            WORK_FLUSH => Work::Flush { stream },
            _ => Work::None,
        };
        let held = |place, length| Held { place: at_most(place, 1), length: at_most(length, max_held) };
        Self {
            work,
            end: FilePosition { device, inode, length },
            gap: gap_from_numbers(gap),
            held: [held(out_place, out_held), held(err_place, err_held)],
            balance: [out_balance, err_balance],
        }
    }
}

/// Its reason's place in the list, from 1; stream, counts and times.
fn gap_to_numbers(gap: Option<Gap>) -> [u64; 6] {
    let Some(gap) = gap else { return [0; 6] };
    let reason =
        GapReason::ALL.iter().position(|reason| *reason == gap.reason).unwrap_or(GapReason::ALL.len() - 1);
    let stream = gap.stream.map_or(UNKNOWN, |stream| stream.index() as u64);
    let time = |at: Option<Timestamp>| at.map_or(UNKNOWN, |at| at.as_nanoseconds().cast_unsigned());
    let count = |count: Option<u64>| count.unwrap_or(UNKNOWN);
    [1 + reason as u64, stream, count(gap.lines), count(gap.bytes), time(gap.from), time(gap.to)]
}

fn gap_from_numbers([reason, stream, lines, bytes, from, to]: [u64; 6]) -> Option<Gap> {
    let place = usize::try_from(reason).ok()?.checked_sub(1)?;
    let known = |number: u64| (number != UNKNOWN).then_some(number);
    let time = |number: u64| known(number).map(|number| Timestamp::from_nanoseconds(number.cast_signed()));
    Some(Gap {
        reason: GapReason::ALL.get(place).copied().unwrap_or(GapReason::Other),
        stream: known(stream).and_then(|stream| Stream::ALL.get(usize::try_from(stream).ok()?).copied()),
        lines: known(lines),
        bytes: known(bytes),
        from: time(from),
        to: time(to),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_HELD: usize = 100;

    #[test]
    fn a_successor_finds_the_last_note() {
        let memory = create(MAX_HELD).expect("memory");
        let end = FilePosition { device: 7, inode: 8, length: u64::MAX };
        let mut journal = Journal::open(&memory, MAX_HELD).expect("a journal");
        assert_eq!(
            (journal.note(), journal.is_at_terminal(), journal.lost()),
            (Note::default(), false, [0, 0])
        );
        journal.buffer_mut()[..3].copy_from_slice(b"abc");
        for (work, stream, held) in [
            (Work::None, Stream::Stdout, &b"out"[..]),
            (
                Work::Chunk { stream: Stream::Stderr, filled: CHUNK, from: 5 },
                Stream::Stderr,
                &[b'x'; MAX_HELD],
            ),
            (Work::Flush { stream: Stream::Stdout }, Stream::Stdout, b"longer than before"),
            (Work::Raw { stream: Stream::Stdout, filled: 7 }, Stream::Stdout, b"longer than before"),
        ] {
            let other = Stream::ALL[1 - stream.index()];
            let untouched = journal.held(other).to_vec();
            journal.set_at_terminal(stream == Stream::Stdout);
            journal.advance(work, end, stream, held);
            let successor = Journal::open(&memory, MAX_HELD).expect("a journal");
            assert_eq!((successor.note().work, successor.note().end), (work, end));
            assert_eq!((successor.held(stream), successor.held(other)), (held, &untouched[..]));
            assert_eq!(
                (successor.is_at_terminal(), &successor.buffer()[..3]),
                (stream == Stream::Stdout, &b"abc"[..])
            );
        }
    }

    #[test]
    fn a_successor_finds_the_marker_and_what_is_missing() {
        let memory = create(MAX_HELD).expect("memory");
        let end = FilePosition::default();
        let mut journal = Journal::open(&memory, MAX_HELD).expect("a journal");
        let bare =
            Gap { stream: Some(Stream::Stderr), bytes: Some(30), ..Gap::new(GapReason::CaptureKilled) };
        let at = Timestamp::from_nanoseconds;
        let full = Gap { lines: Some(0), from: Some(at(0)), to: Some(at(i64::MAX)), ..bare };
        let work = Work::Chunk { stream: Stream::Stderr, filled: 9, from: 2 };
        for gap in [bare, full] {
            journal.limit(work, Some(gap), Stream::Stderr, 40);
            let mut successor = Journal::open(&memory, MAX_HELD).expect("a journal");
            assert_eq!((successor.note().gap, successor.note().work), (Some(gap), work));
            assert_eq!((successor.missing(Stream::Stderr), successor.missing(Stream::Stdout)), (40, 0));
            successor.declared(end);
            assert_eq!((successor.note().gap, successor.missing(Stream::Stderr)), (None, 10));
            successor.limit(Work::None, None, Stream::Stderr, 10_u64.wrapping_neg());
            journal.note = successor.note;
        }
    }

    #[test]
    fn what_a_buffer_took_is_counted_wherever_its_owner_is_killed() {
        let memory = create(MAX_HELD).expect("memory");
        let mut journal = Journal::open(&memory, MAX_HELD).expect("a journal");
        let missing = || Journal::open(&memory, MAX_HELD).expect("a journal").missing(Stream::Stdout);
        let ledger = Ledger::open(&memory, |_| 0).expect("a ledger");
        ledger.coming(Stream::Stdout, 100);
        // 40 of 100 bytes have left the work pipe: the rest comes again.
        let ledger = {
            drop(ledger);
            Ledger::open(&memory, |_| 60).expect("a ledger")
        };
        assert_eq!(missing(), 40);
        ledger.coming(Stream::Stdout, 60);
        let ledger = {
            drop(ledger);
            Ledger::open(&memory, |_| 0).expect("a ledger")
        };
        assert_eq!(missing(), 100, "all of it had left");
        ledger.coming(Stream::Stdout, 5);
        ledger.came(Stream::Stdout);
        assert_eq!(missing(), 105);
        journal.begin_buffered(Stream::Stdout, &[b'x'; 25], FilePosition::default());
        assert_eq!((missing(), journal.buffer()[24]), (80, b'x'));
    }

    #[test]
    fn an_unfinished_note_is_none() {
        let memory = create(MAX_HELD).expect("memory");
        let mut journal = Journal::open(&memory, MAX_HELD).expect("a journal");
        let work = Work::Chunk { stream: Stream::Stdout, filled: 9, from: 0 };
        journal.begin(work, FilePosition::default());
        let before = journal.note();
        let next = NOTES[1 - journal.valid()];
        for index in 0..24 {
            journal.store(next + index, u64::MAX);
            assert_eq!(Journal::open(&memory, MAX_HELD).expect("a journal").note(), before);
        }
    }

    #[test]
    fn nonsense_does_no_harm() {
        let memory = create(MAX_HELD).expect("memory");
        let journal = Journal::open(&memory, MAX_HELD).expect("a journal");
        for kind in 0..5 {
            (0..64).for_each(|index| journal.store(index, u64::MAX));
            journal.store(VALID, 1);
            journal.store(NOTES[1], kind);
            let successor = Journal::open(&memory, MAX_HELD).expect("a journal");
            assert_eq!(successor.held(Stream::Stderr).len(), MAX_HELD);
            assert!(!successor.is_at_terminal());
        }
    }
}
