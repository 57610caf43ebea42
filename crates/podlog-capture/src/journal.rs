//! What a copier has in its hands, noted where its successor finds it.
//!
//! Bytes are always in exactly one of these places: the program's pipe, the *work pipe*, the [`Journal`]'s buffer, the log.
//! Each step between two places is one system call of which the journal can tell afterwards whether it was done:
//!
//! 1. `splice` moves a chunk from the program's pipe to the work pipe. What is there before a note was made is simply next.
//! 2. The note says how long the chunk is, and where the log ends. Then `read` moves it to the buffer: what is missing in
//!    the work pipe is in the buffer.
//! 3. The sink writes to the log: what stands behind the noted end is there.
//! 4. The next note says that the chunk is done, and what of its last line is held back.
//!
//! A note is never changed, only replaced by another: the number of the valid one is stored last.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use podlog_driver::FilePosition;
use podlog_line::Stream;

use crate::shared::{self, Shared};

/// Bytes moved at once.
pub(crate) const CHUNK: usize = 128 * 1024;

/// Which note is valid: 0 or 1.
const VALID: usize = 0;
/// What is about to come out of the program: a stream's number, or [`TERMINAL`].
const MOVING: usize = 1;
/// Records and bytes that were dropped by this copier and those before.
const LOST: [usize; 2] = [2, 3];
/// Where the two notes begin.
const NOTES: [usize; 2] = [8, 32];

/// Nothing is about to come.
const NOTHING: u64 = 0;
/// Something is being read from a terminal, which tells nobody how much that was.
const TERMINAL: u64 = 3;

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
            Self::Chunk { stream, .. } | Self::Flush { stream } => Some(stream),
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
    /// Where the held part of each stream's last line is.
    held: [Held; 2],
}

/// A part of the journal: the beginning of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Held {
    /// 0 or 1: the place that is not written to.
    place: usize,
    length: usize,
}

/// What came out of the program before a note was made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moving {
    Nothing,
    /// It is in the work pipe, if there is anything.
    Stream(Stream),
    /// It is gone, if there was anything.
    Terminal,
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

    /// Something is about to come out of the program.
    pub(crate) fn moving(&self, what: Moving) {
        let number = match what {
            Moving::Nothing => NOTHING,
            Moving::Stream(stream) => 1 + stream.index() as u64,
            Moving::Terminal => TERMINAL,
        };
        self.store(MOVING, number);
    }

    /// What [`moving`](Self::moving) was called with last.
    pub(crate) fn was_moving(&self) -> Moving {
        match self.load(MOVING) {
            1 => Moving::Stream(Stream::ALL[0]),
            2 => Moving::Stream(Stream::ALL[1]),
            TERMINAL => Moving::Terminal,
            _ => Moving::Nothing,
        }
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
        self.shared.number(index).load(Ordering::Acquire)
    }

    fn store(&self, index: usize, number: u64) {
        self.shared.number(index).store(number, Ordering::Release);
    }
}

const WORK_CHUNK: u64 = 1;
const WORK_FLUSH: u64 = 2;

impl Note {
    fn to_numbers(self) -> [u64; 11] {
        let stream = self.work.stream().map_or(0, |stream| stream.index() as u64);
        let [kind, filled, from] = match self.work {
            Work::None => [0, 0, 0],
            Work::Chunk { filled, from, .. } => [WORK_CHUNK, filled as u64, from as u64],
            Work::Flush { .. } => [WORK_FLUSH, 0, 0],
        };
        let [out, err] = self.held;
        let FilePosition { device, inode, length } = self.end;
        let held = [out.place, out.length, err.place, err.length].map(|number| number as u64);
        [kind, stream, filled, from, device, inode, length, held[0], held[1], held[2], held[3]]
    }

    /// Numbers that nobody can have stored are taken for the largest that make sense.
    fn from_numbers(numbers: [u64; 11], max_held: usize) -> Self {
        let [kind, stream, filled, from, device, inode, length, held @ ..] = numbers;
        let at_most = |number: u64, limit: usize| usize::try_from(number).map_or(limit, |n| n.min(limit));
        let stream = Stream::ALL[at_most(stream, 1)];
        let filled = at_most(filled, CHUNK);
        let work = match kind {
            WORK_CHUNK => Work::Chunk { stream, filled, from: at_most(from, filled) },
            WORK_FLUSH => Work::Flush { stream },
            _ => Work::None,
        };
        let held = |index: usize| Held {
            place: at_most(held[index], 1),
            length: at_most(held[index + 1], max_held),
        };
        Self { work, end: FilePosition { device, inode, length }, held: [held(0), held(2)] }
    }
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
            (journal.note(), journal.was_moving(), journal.lost()),
            (Note::default(), Moving::Nothing, [0, 0])
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
        ] {
            let other = Stream::ALL[1 - stream.index()];
            let untouched = journal.held(other).to_vec();
            journal.moving(Moving::Stream(stream));
            journal.advance(work, end, stream, held);
            let successor = Journal::open(&memory, MAX_HELD).expect("a journal");
            assert_eq!((successor.note().work, successor.note().end), (work, end));
            assert_eq!((successor.held(stream), successor.held(other)), (held, &untouched[..]));
            assert_eq!(
                (successor.was_moving(), &successor.buffer()[..3]),
                (Moving::Stream(stream), &b"abc"[..])
            );
        }
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
        for kind in 0..4 {
            (0..64).for_each(|index| journal.store(index, u64::MAX));
            journal.store(VALID, 1);
            journal.store(NOTES[1], kind);
            let successor = Journal::open(&memory, MAX_HELD).expect("a journal");
            assert_eq!(successor.held(Stream::Stderr).len(), MAX_HELD);
            assert_eq!(successor.was_moving(), Moving::Nothing);
        }
    }
}
