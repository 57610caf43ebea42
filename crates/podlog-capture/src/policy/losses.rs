//! Counting what was dropped and not yet declared.

use podlog_line::{Gap, GapReason, Stream, Timestamp};

/// Gaps that end up in one place: one for each stream and reason.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Gap>);

impl Losses {
    /// These bytes were dropped, which arrived `at` a time.
    pub(super) fn note(&mut self, reason: GapReason, stream: Stream, lines: u64, bytes: u64, at: Timestamp) {
        self.add(Gap {
            reason,
            stream: Some(stream),
            lines: Some(lines),
            bytes: Some(bytes),
            from: Some(at),
            to: Some(at),
        });
    }

    /// What is missing here, too.
    pub(super) fn add(&mut self, gap: Gap) {
        let is_same = |other: &&mut Gap| (other.stream, other.reason) == (gap.stream, gap.reason);
        match self.0.iter_mut().find(is_same) {
            Some(known) => merge(known, gap),
            None => self.0.push(gap),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next one to declare.
    pub(super) fn pop(&mut self) -> Option<Gap> {
        self.0.pop()
    }

    /// What is to be declared in a stream.
    pub(super) fn take(&mut self, stream: Stream) -> Option<Gap> {
        let index = self.0.iter().position(|gap| gap.stream == Some(stream))?;
        Some(self.0.swap_remove(index))
    }
}

/// What nobody knows of one of them is not known of both.
pub(super) fn merge(known: &mut Gap, gap: Gap) {
    let sum = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.saturating_add(b));
    known.lines = sum(known.lines, gap.lines);
    known.bytes = sum(known.bytes, gap.bytes);
    known.from = known.from.zip(gap.from).map(|(a, b)| a.min(b));
    known.to = known.to.zip(gap.to).map(|(a, b)| a.max(b));
}

/// The lines in `bytes`, one that does not end in them included.
pub(super) fn lines(bytes: &[u8]) -> u64 {
    let ended = memchr::memchr_iter(b'\n', bytes).count() as u64;
    ended + u64::from(bytes.last().is_some_and(|last| *last != b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_a_stream_and_reason_are_one_gap() {
        let mut losses = Losses::default();
        let at = |second| Timestamp::from_seconds(second, 0);
        losses.note(GapReason::RateLimit, Stream::Stdout, 1, 10, at(2));
        losses.note(GapReason::RateLimit, Stream::Stderr, 7, 70, at(3));
        losses.note(GapReason::RateLimit, Stream::Stdout, 2, 20, at(4));
        let gap = losses.take(Stream::Stdout).expect("a gap");
        assert_eq!((gap.lines, gap.bytes), (Some(3), Some(30)));
        assert_eq!((gap.from, gap.to), (Some(at(2)), Some(at(4))));
        losses.add(Gap::new(GapReason::CaptureKilled));
        losses.add(Gap { lines: Some(1), ..Gap::new(GapReason::CaptureKilled) });
        assert_eq!(losses.pop(), Some(Gap::new(GapReason::CaptureKilled)), "not known of both");
        assert_eq!(losses.pop().and_then(|gap| gap.lines), Some(7));
        assert!(losses.is_empty());
    }

    #[test]
    fn begun_lines_are_lines() {
        for (text, expected) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            assert_eq!(lines(text.as_bytes()), expected, "{text:?}");
        }
    }
}
