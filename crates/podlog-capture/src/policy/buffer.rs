//! A bounded buffer that drops lines rather than let the program wait.

use std::collections::VecDeque;

use memchr::memrchr;
use podlog_line::{Gap, GapReason, Stream, Timestamp};

use super::losses::{Losses, lines, merge};

/// The least a buffer holds.
const MIN_CAPACITY: usize = 64 * 1024;
/// Nothing longer comes out of a buffer at once, in bytes.
pub const MAX_POPPED: usize = 2 * PIECE;
/// Lines are kept and dropped in pieces of about this size; a longer line is several pieces.
const PIECE: usize = 16 * 1024;
/// What a piece takes beside its bytes.
const PIECE_COST: usize = size_of::<Entry>();
/// After something was dropped, so much of the capacity (an eighth) is free before it is declared and before more is taken
/// in: no more than one marker for each eighth of the buffer.
const STEP: usize = 8;

/// What is dropped when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// What comes. The log shows how the flood began.
    DropNewest,
    /// What has waited longest. The log shows how it ended.
    DropOldest,
}

/// Output on its way to the log. Both streams share the room; their order is kept.
///
/// Lines are dropped as a whole; only what is longer than 16 KiB, and unfinished lines after [`Buffer::settle`], is dropped
/// by pieces, each of which counts as a line.
#[derive(Debug)]
pub struct Buffer {
    overflow: Overflow,
    capacity: usize,
    /// What is in `entries`, one after the other.
    bytes: VecDeque<u8>,
    entries: VecDeque<Entry>,
    /// Lines of each stream that have not ended.
    unfinished: [Vec<u8>; 2],
    /// What is missing before the first entry ([`Overflow::DropOldest`]) or behind the last ([`Overflow::DropNewest`]).
    losses: Losses,
    dropped_bytes: u64,
}

#[derive(Debug)]
enum Entry {
    Piece { stream: Stream, at: Timestamp, length: usize },
    Gap(Gap),
}

/// What comes out of a [`Buffer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Popped {
    /// The bytes that were asked for.
    Chunk {
        /// Their stream.
        stream: Stream,
        /// When they were read.
        at: Timestamp,
    },
    /// Something is missing here.
    Gap(Gap),
}

impl Buffer {
    /// A buffer for `capacity` bytes, book-keeping included; for 64 KiB if it is less.
    pub fn new(overflow: Overflow, capacity: usize) -> Buffer {
        Buffer {
            overflow,
            capacity: capacity.max(MIN_CAPACITY),
            bytes: VecDeque::new(),
            entries: VecDeque::new(),
            unfinished: [Vec::new(), Vec::new()],
            losses: Losses::default(),
            dropped_bytes: 0,
        }
    }

    /// Takes what was read from a stream `at` a time.
    pub fn push(&mut self, stream: Stream, chunk: &[u8], at: Timestamp) {
        for part in chunk.chunks(PIECE) {
            let whole = memrchr(b'\n', part).map_or(0, |last| last + 1);
            let mut begun = std::mem::take(&mut self.unfinished[stream.index()]);
            if whole > 0 {
                self.enqueue(stream, &[&begun, &part[..whole]], at);
                begun.clear();
            }
            if begun.len() + part.len() - whole > PIECE {
                self.enqueue(stream, &[&begun], at);
                begun.clear();
            }
            begun.extend_from_slice(&part[whole..]);
            self.unfinished[stream.index()] = begun;
        }
    }

    /// Something is missing behind what was pushed so far, for another reason than this buffer.
    pub fn push_gap(&mut self, gap: Gap) {
        // What is declared later must not stand before what is declared now: both are.
        if self.is_dropping() || (self.overflow == Overflow::DropNewest && !self.fits(0)) {
            return self.losses.add(gap);
        }
        if !self.fits(0) {
            self.evict(self.capacity / STEP);
        }
        let is_same = |last: &Gap| (last.stream, last.reason) == (gap.stream, gap.reason);
        match self.entries.back_mut() {
            Some(Entry::Gap(last)) if is_same(last) => merge(last, gap),
            _ => self.entries.push_back(Entry::Gap(gap)),
        }
    }

    /// Takes unfinished lines for whole pieces: they have waited long enough, or their stream has ended.
    pub fn settle(&mut self, at: Timestamp) {
        for stream in Stream::ALL {
            let begun = std::mem::take(&mut self.unfinished[stream.index()]);
            if !begun.is_empty() {
                self.enqueue(stream, &[&begun], at);
            }
        }
    }

    /// The next to be written. `bytes` are replaced by those of a chunk.
    pub fn pop(&mut self, bytes: &mut Vec<u8>) -> Option<Popped> {
        match self.overflow {
            Overflow::DropOldest => {
                if let Some(gap) = self.losses.pop() {
                    return Some(Popped::Gap(gap));
                }
            }
            Overflow::DropNewest => self.resume(),
        }
        match self.entries.pop_front()? {
            Entry::Gap(gap) => Some(Popped::Gap(gap)),
            Entry::Piece { stream, at, length } => {
                bytes.clear();
                bytes.extend(self.bytes.range(..length));
                self.bytes.drain(..length);
                Some(Popped::Chunk { stream, at })
            }
        }
    }

    /// Whether [`Buffer::pop`] has nothing; unfinished lines may be left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.losses.is_empty()
    }

    /// Whether there is something for [`Buffer::settle`].
    pub fn has_unfinished(&self) -> bool {
        self.unfinished.iter().any(|line| !line.is_empty())
    }

    /// Bytes that were dropped so far.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Bytes that wait, unfinished lines and book-keeping included: at most the capacity and two unfinished lines.
    pub fn len(&self) -> usize {
        self.used() + self.unfinished.iter().map(Vec::len).sum::<usize>()
    }

    fn enqueue(&mut self, stream: Stream, parts: &[&[u8]], at: Timestamp) {
        let length = parts.iter().map(|part| part.len()).sum();
        let has_room = match self.overflow {
            Overflow::DropNewest => {
                self.resume();
                !self.is_dropping() && self.fits(length)
            }
            Overflow::DropOldest => {
                if !self.fits(length) {
                    self.evict(length + self.capacity / STEP);
                }
                true
            }
        };
        if has_room {
            parts.iter().for_each(|part| self.bytes.extend(*part));
            self.entries.push_back(Entry::Piece { stream, at, length });
        } else {
            // Only the first part may be empty, and only the last one ends a line.
            let lines = parts.iter().rev().find(|part| !part.is_empty()).map_or(0, |part| lines(part));
            self.lose(GapReason::DropNewest, stream, lines, length, at);
        }
    }

    fn lose(&mut self, reason: GapReason, stream: Stream, lines: u64, length: usize, at: Timestamp) {
        self.dropped_bytes += length as u64;
        self.losses.note(reason, stream, lines, length as u64, at);
    }

    /// Drops what has waited longest, until so much fits.
    fn evict(&mut self, length: usize) {
        while !self.fits(length) {
            match self.entries.pop_front() {
                None => return,
                Some(Entry::Gap(gap)) => self.losses.add(gap),
                Some(Entry::Piece { stream, at, length }) => {
                    let lines = self.count_lines(length);
                    self.bytes.drain(..length);
                    self.lose(GapReason::DropOldest, stream, lines, length, at);
                }
            }
        }
    }

    /// The lines in the first so many bytes.
    fn count_lines(&self, length: usize) -> u64 {
        let (first, second) = self.bytes.as_slices();
        let (first, second) = match first.split_at_checked(length) {
            Some((first, _)) => (first, &[][..]),
            None => (first, &second[..length - first.len()]),
        };
        let split =
            if second.is_empty() { 0 } else { u64::from(first.last().is_some_and(|last| *last != b'\n')) };
        lines(first) + lines(second) - split
    }

    /// Declares what was dropped, when there is room again.
    fn resume(&mut self) {
        if self.fits(self.capacity / STEP) {
            while let Some(gap) = self.losses.pop() {
                self.entries.push_back(Entry::Gap(gap));
            }
        }
    }

    fn is_dropping(&self) -> bool {
        self.overflow == Overflow::DropNewest && !self.losses.is_empty()
    }

    fn fits(&self, length: usize) -> bool {
        self.used() + length + PIECE_COST <= self.capacity
    }

    fn used(&self) -> usize {
        self.bytes.len() + self.entries.len() * PIECE_COST
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: usize) -> Timestamp {
        Timestamp::from_seconds(second as i64, 0)
    }

    /// What came out of each stream: lines by their numbers, and how many were declared missing between them.
    #[derive(Default)]
    struct Reader {
        bytes: Vec<u8>,
        next: [u64; 2],
        missing: [(u64, u64); 2],
        bytes_out: u64,
        declared: u64,
        gaps: usize,
    }

    impl Reader {
        fn read(&mut self, popped: Popped, line: impl Fn(Stream, u64) -> String) {
            match popped {
                Popped::Gap(gap) => {
                    let missing = &mut self.missing[gap.stream.expect("a stream").index()];
                    let (lines, bytes) = (gap.lines.expect("counted"), gap.bytes.expect("counted"));
                    *missing = (missing.0 + lines, missing.1 + bytes);
                    assert!(gap.from <= gap.to && gap.from.is_some());
                    self.declared += bytes;
                    self.gaps += 1;
                }
                Popped::Chunk { stream, .. } => {
                    let index = stream.index();
                    let text = std::str::from_utf8(&self.bytes).expect("text");
                    for found in text.split_inclusive('\n') {
                        let number: u64 =
                            found.split(' ').next().expect("a number").parse().expect("a number");
                        assert_eq!(found, line(stream, number), "a whole line");
                        let lost = (self.next[index]..number).map(|number| line(stream, number).len() as u64);
                        assert_eq!(
                            (number - self.next[index], lost.sum()),
                            self.missing[index],
                            "declared here"
                        );
                        (self.next[index], self.missing[index]) = (number + 1, (0, 0));
                    }
                    self.bytes_out += self.bytes.len() as u64;
                }
            }
        }

        fn drain(&mut self, buffer: &mut Buffer, count: usize, line: impl Fn(Stream, u64) -> String + Copy) {
            for _ in 0..count {
                let Some(popped) = buffer.pop(&mut self.bytes) else { return };
                self.read(popped, line);
            }
        }
    }

    #[test]
    fn what_fits_comes_out_as_it_went_in() {
        for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
            let mut buffer = Buffer::new(overflow, 0);
            let mut bytes = Vec::new();
            buffer.push(Stream::Stdout, b"a\nb", at(1));
            buffer.push(Stream::Stderr, b"c\n", at(2));
            assert_eq!(buffer.pop(&mut bytes), Some(Popped::Chunk { stream: Stream::Stdout, at: at(1) }));
            assert_eq!(bytes, b"a\n");
            buffer.push(Stream::Stdout, b"d\n> ", at(3));
            assert_eq!(buffer.pop(&mut bytes), Some(Popped::Chunk { stream: Stream::Stderr, at: at(2) }));
            assert_eq!(buffer.pop(&mut bytes), Some(Popped::Chunk { stream: Stream::Stdout, at: at(3) }));
            assert_eq!(bytes, b"bd\n");
            assert_eq!((buffer.pop(&mut bytes), buffer.has_unfinished()), (None, true));
            buffer.settle(at(4));
            assert_eq!(buffer.pop(&mut bytes), Some(Popped::Chunk { stream: Stream::Stdout, at: at(4) }));
            assert_eq!((&bytes[..], buffer.len(), buffer.dropped_bytes()), (&b"> "[..], 0, 0));
        }
    }

    #[test]
    fn each_policy_drops_its_own_end() {
        let line = |_, number| format!("{number} {}\n", "x".repeat(1000));
        for (overflow, first) in [(Overflow::DropNewest, 0), (Overflow::DropOldest, 145)] {
            let mut buffer = Buffer::new(overflow, 64 * 1024);
            (0..200).for_each(|number| {
                buffer.push(Stream::Stdout, line(Stream::Stdout, number).as_bytes(), at(1))
            });
            let mut reader = Reader::default();
            let mut numbers = Vec::new();
            while let Some(popped) = buffer.pop(&mut reader.bytes) {
                reader.read(popped, line);
                numbers.push(reader.next[0]);
            }
            let gone = if overflow == Overflow::DropNewest { reader.missing[0].0 } else { 0 };
            assert_eq!(reader.next[0] + gone, 200, "all lines are there or declared");
            assert_eq!(reader.gaps, 1, "one marker for one overflow");
            let begins_at = numbers.iter().find(|number| **number > 0).expect("lines") - 1;
            assert!(begins_at.abs_diff(first) < 10, "{begins_at}");
        }
    }

    #[test]
    fn gaps_of_others_are_kept_in_their_place() {
        let gap = Gap {
            stream: Some(Stream::Stdout),
            lines: Some(3),
            bytes: Some(9),
            ..Gap::new(GapReason::RateLimit)
        };
        for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
            let mut buffer = Buffer::new(overflow, 0);
            let mut bytes = Vec::new();
            buffer.push(Stream::Stdout, b"a\n", at(1));
            (0..100).for_each(|_| buffer.push_gap(gap));
            buffer.push(Stream::Stdout, b"b\n", at(1));
            assert!(matches!(buffer.pop(&mut bytes), Some(Popped::Chunk { .. })));
            let all = Gap { lines: Some(300), bytes: Some(900), ..gap };
            assert_eq!(buffer.pop(&mut bytes), Some(Popped::Gap(all)));
            assert!(matches!(buffer.pop(&mut bytes), Some(Popped::Chunk { .. })));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_writer_that_stands_still_costs_no_more_than_the_capacity() {
        let gap = Gap {
            stream: Some(Stream::Stdout),
            lines: Some(1),
            bytes: Some(1),
            ..Gap::new(GapReason::RateLimit)
        };
        for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
            let mut buffer = Buffer::new(overflow, 100_000);
            let mut rate_limited = 0;
            for number in 0..20_000 {
                buffer.push(Stream::ALL[number % 2], b"\n", at(number));
                if number % 3 == 0 {
                    buffer.push_gap(gap);
                    rate_limited += 1;
                }
                assert!(buffer.len() <= 100_000, "{}", buffer.len());
            }
            let (mut bytes, mut declared, mut out) = (Vec::new(), 0, 0);
            while let Some(popped) = buffer.pop(&mut bytes) {
                match popped {
                    Popped::Gap(gap) if gap.reason == GapReason::RateLimit => {
                        rate_limited -= gap.lines.expect("counted")
                    }
                    Popped::Gap(gap) => declared += gap.lines.expect("counted"),
                    Popped::Chunk { .. } => out += lines(&bytes),
                }
            }
            assert_eq!((declared + out, rate_limited), (20_000, 0));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push { stderr: bool, lines: u64, cut: usize },
        Pop(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let push = (any::<bool>(), 0..400_u64, any::<usize>()).prop_map(|(stderr, lines, cut)| Step::Push {
            stderr,
            lines,
            cut,
        });
        prop::collection::vec(prop_oneof![3 => push, 2 => (0..6_usize).prop_map(Step::Pop)], 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_line_is_there_or_declared_in_its_place(steps in steps(), oldest: bool, capacity in 60_000..200_000_usize) {
            let line = |stream: Stream, number: u64| {
                format!("{number} {}\n", "x".repeat((number as usize * 37 + stream.index()) % 700))
            };
            let overflow = if oldest { Overflow::DropOldest } else { Overflow::DropNewest };
            let mut buffer = Buffer::new(overflow, capacity);
            let (mut reader, mut written, mut bytes_in) = (Reader::default(), [0_u64; 2], 0);
            for (second, step) in steps.iter().enumerate() {
                match step {
                    Step::Pop(count) => reader.drain(&mut buffer, *count, line),
                    Step::Push { stderr, lines, cut } => {
                        let stream = Stream::ALL[usize::from(*stderr)];
                        let first = written[stream.index()];
                        let text: String = (first..first + lines).map(|number| line(stream, number)).collect();
                        let (begin, end) = text.split_at(cut % (text.len() + 1));
                        buffer.push(stream, begin.as_bytes(), at(second));
                        buffer.push(stream, end.as_bytes(), at(second));
                        written[stream.index()] += lines;
                        bytes_in += text.len() as u64;
                    }
                }
                prop_assert!(buffer.len() <= buffer.capacity + 2 * PIECE);
            }
            reader.drain(&mut buffer, usize::MAX, line);
            prop_assert_eq!((buffer.is_empty(), buffer.len()), (true, 0));
            for (next, (missing, written)) in reader.next.iter().zip(reader.missing.iter().zip(written)) {
                prop_assert_eq!(next + missing.0, written);
            }
            prop_assert_eq!(reader.bytes_out + reader.declared, bytes_in);
            prop_assert_eq!(reader.declared, buffer.dropped_bytes());
        }

        #[test]
        fn no_byte_is_lost_or_changed_while_there_is_room(
            chunks in prop::collection::vec((any::<bool>(), 0..40_000_usize, 1..30_000_usize), 0..8),
            oldest: bool,
        ) {
            let overflow = if oldest { Overflow::DropOldest } else { Overflow::DropNewest };
            let mut buffer = Buffer::new(overflow, 1 << 20);
            let (mut expected, mut found) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
            for (stderr, length, line) in &chunks {
                let stream = Stream::ALL[usize::from(*stderr)];
                let chunk: Vec<u8> =
                    (1..=*length).map(|index| if index % line == 0 { b'\n' } else { index as u8 }).collect();
                expected[stream.index()].extend_from_slice(&chunk);
                buffer.push(stream, &chunk, at(1));
            }
            buffer.settle(at(2));
            let mut bytes = Vec::new();
            while let Some(popped) = buffer.pop(&mut bytes) {
                let Popped::Chunk { stream, .. } = popped else { panic!("{popped:?}") };
                found[stream.index()].extend_from_slice(&bytes);
            }
            prop_assert_eq!(found, expected);
        }
    }
}
