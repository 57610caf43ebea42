//! So many lines and bytes a second.

use std::time::{Duration, Instant};

use memchr::memchr;
use podlog_line::{Gap, GapReason, Stream, Timestamp};

use super::losses::{Losses, lines};

/// What a container may print in this time, it may print at once; a limit that was exceeded lets nothing through for at
/// least as long.
const BURST: Duration = Duration::from_secs(1);

/// Lets a container print so many lines and bytes a second, both streams together.
///
/// A container that has exceeded a limit is silenced until it has saved up for a second again: so there is at most one
/// marker a second in a stream, it stands exactly where lines are missing, and what is let through are lines in a row. The
/// line that uses up the bytes is let through as a whole and paid for later.
#[derive(Debug)]
pub struct RateLimit {
    lines: Bucket,
    bytes: Bucket,
    /// When it was refilled last.
    refilled: Option<Instant>,
    /// Since when nothing is let through.
    silent_since: Option<Instant>,
    states: [State; 2],
    losses: Losses,
    dropped_bytes: u64,
}

/// Where a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// At the beginning of a line.
    #[default]
    LineStart,
    /// Inside a line that is let through.
    Admitting,
    /// Inside a line that is dropped.
    Dropping,
}

/// What of a chunk is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted<'a> {
    /// What is missing before it.
    pub gap: Option<Gap>,
    /// Bytes of the chunk before those: the rest of a line that was dropped.
    pub skipped: usize,
    /// The beginning of the chunk, or what follows a line that was dropped.
    pub bytes: &'a [u8],
}

impl RateLimit {
    /// A limit in lines and in bytes a second; 0 is none.
    pub fn new(lines_per_second: u64, bytes_per_second: u64) -> RateLimit {
        RateLimit {
            lines: Bucket::new(lines_per_second),
            bytes: Bucket::new(bytes_per_second),
            refilled: None,
            silent_since: None,
            states: [State::LineStart; 2],
            losses: Losses::default(),
            dropped_bytes: 0,
        }
    }

    /// What of `chunk` may be logged. It was read `at` a time; `now` is the same moment on a clock that is never set.
    pub fn admit<'a>(
        &mut self,
        stream: Stream,
        chunk: &'a [u8],
        at: Timestamp,
        now: Instant,
    ) -> Admitted<'a> {
        self.refill(now);
        let whole = chunk.len();
        let chunk = self.skip_dropped_line(stream, chunk, at);
        let skipped = whole - chunk.len();
        let length = self.affordable(stream, chunk);
        let (bytes, dropped) = chunk.split_at(length);
        // Before what is dropped now: that is missing behind.
        let gap = if bytes.is_empty() { None } else { self.losses.take(stream) };
        if !dropped.is_empty() {
            self.silent_since.get_or_insert(now);
            self.lose(stream, lines(dropped), dropped, at);
        }
        Admitted { gap, skipped, bytes }
    }

    /// What is missing at the end of a stream that says nothing more just now; `None` while it is silenced. The rest of a
    /// line that was dropped is let through, if it ever comes.
    pub fn settle(&mut self, now: Instant) -> Option<Gap> {
        self.refill(now);
        if self.silent_since.is_some() { None } else { self.finish() }
    }

    /// What is missing at the end of the streams: to be called until there is nothing.
    pub fn finish(&mut self) -> Option<Gap> {
        for state in self.states.iter_mut().filter(|state| **state == State::Dropping) {
            *state = State::LineStart;
        }
        self.losses.pop()
    }

    /// Whether something was dropped and not yet declared.
    pub fn has_losses(&self) -> bool {
        !self.losses.is_empty()
    }

    /// Bytes that were dropped so far.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled.unwrap_or(now));
        self.refilled = Some(now);
        self.lines.refill(elapsed);
        self.bytes.refill(elapsed);
        let is_over = |since| now.saturating_duration_since(since) >= BURST;
        if self.silent_since.is_some_and(is_over) && self.lines.is_full() && self.bytes.is_full() {
            self.silent_since = None;
        }
    }

    /// The rest of a line whose beginning was dropped is dropped, too, unless its end is not in sight.
    fn skip_dropped_line<'a>(&mut self, stream: Stream, chunk: &'a [u8], at: Timestamp) -> &'a [u8] {
        if self.states[stream.index()] != State::Dropping {
            return chunk;
        }
        let (rest, chunk) = match memchr(b'\n', chunk) {
            Some(end) => chunk.split_at(end + 1),
            None if self.silent_since.is_none() => (&[][..], chunk),
            None => (chunk, &[][..]),
        };
        if rest.is_empty() {
            self.states[stream.index()] = State::LineStart;
        } else {
            self.lose(stream, 0, rest, at);
        }
        chunk
    }

    /// How many bytes of `chunk` may be let through; they are paid for.
    fn affordable(&mut self, stream: Stream, chunk: &[u8]) -> usize {
        let mut admitted = 0;
        while admitted < chunk.len() && self.silent_since.is_none() {
            let rest = &chunk[admitted..];
            let end = memchr(b'\n', rest);
            let length = end.map_or(rest.len(), |end| end + 1);
            let state = &mut self.states[stream.index()];
            let begun = u64::from(*state != State::Admitting);
            if !self.bytes.has(1) || !self.lines.has(begun) {
                break;
            }
            self.lines.pay(begun);
            self.bytes.pay(length as u64);
            *state = if end.is_some() { State::LineStart } else { State::Admitting };
            admitted += length;
        }
        admitted
    }

    fn lose(&mut self, stream: Stream, lines: u64, bytes: &[u8], at: Timestamp) {
        let has_ended = bytes.last() == Some(&b'\n');
        self.states[stream.index()] = if has_ended { State::LineStart } else { State::Dropping };
        self.dropped_bytes += bytes.len() as u64;
        self.losses.note(GapReason::RateLimit, stream, lines, bytes.len() as u64, at);
    }
}

/// What is saved up, in billionths, so that no time is too short to count. Below zero when more was taken than there was.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    saved: i128,
}

const UNIT: i128 = 1_000_000_000;

impl Bucket {
    fn new(rate: u64) -> Bucket {
        Bucket { rate, saved: i128::from(rate) * UNIT }
    }

    fn full(&self) -> i128 {
        i128::from(self.rate) * UNIT * i128::from(BURST.as_secs())
    }

    fn refill(&mut self, elapsed: Duration) {
        let nanoseconds = i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX);
        let earned = i128::from(self.rate).saturating_mul(nanoseconds);
        self.saved = self.saved.saturating_add(earned).min(self.full());
    }

    fn is_full(&self) -> bool {
        self.saved >= self.full()
    }

    fn has(&self, count: u64) -> bool {
        self.rate == 0 || self.saved >= i128::from(count) * UNIT
    }

    fn pay(&mut self, count: u64) {
        if self.rate > 0 {
            self.saved -= i128::from(count) * UNIT;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: Timestamp = Timestamp::from_nanoseconds(1);

    fn admit(limit: &mut RateLimit, chunk: &str, now: Instant) -> (Option<(u64, u64)>, String) {
        let admitted = limit.admit(Stream::Stdout, chunk.as_bytes(), AT, now);
        let counts = |gap: Gap| Some((gap.lines?, gap.bytes?));
        (admitted.gap.and_then(counts), String::from_utf8(admitted.bytes.to_vec()).expect("text"))
    }

    #[test]
    fn what_exceeds_the_limit_is_declared_when_lines_are_let_through_again() {
        let start = Instant::now();
        let seconds = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut limit = RateLimit::new(2, 0);
        for (now, chunk, gap, expected) in [
            (0.0, "a\nb\nc\nd", None, "a\nb\n"),
            (0.1, "d\ne", None, ""),
            (0.9, "ee\nf\n", None, ""),
            (1.1, "gg", Some((4, 11)), "gg"),
            (1.2, "g\nh\n", None, "g\nh\n"),
            (1.3, "i", None, ""),
            (5.0, "i\nj\n", Some((1, 3)), "j\n"),
            (9.0, "k\n", None, "k\n"),
        ] {
            assert_eq!(admit(&mut limit, chunk, seconds(now)), (gap, expected.to_owned()), "{chunk:?}");
        }
    }

    #[test]
    fn no_limit_limits_nothing() {
        let now = Instant::now();
        let mut limit = RateLimit::new(0, 0);
        for _ in 0..1000 {
            assert_eq!(admit(&mut limit, "line\nbegin", now), (None, "line\nbegin".to_owned()));
        }
        assert_eq!((limit.finish(), limit.dropped_bytes()), (None, 0));
    }

    #[test]
    fn a_line_larger_than_the_limit_is_let_through_and_paid_for() {
        let start = Instant::now();
        let mut limit = RateLimit::new(0, 10);
        let line = format!("{}\n", "x".repeat(99));
        assert_eq!(admit(&mut limit, &line, start).1, line);
        assert_eq!(admit(&mut limit, "next\n", start + Duration::from_secs(1)).1, "");
        assert_eq!(admit(&mut limit, "later\n", start + Duration::from_secs(9)).1, "");
        assert_eq!(
            admit(&mut limit, "at last\n", start + Duration::from_secs(10)),
            (Some((2, 11)), "at last\n".to_owned())
        );
    }

    #[test]
    fn output_without_line_feeds_is_limited_and_not_lost_for_ever() {
        let start = Instant::now();
        let mut limit = RateLimit::new(0, 10);
        let mut passed = 0;
        for tenth in 0..100_u32 {
            passed += admit(&mut limit, "12345", start + Duration::from_millis(100) * tenth).1.len();
        }
        assert!((80..=120).contains(&passed), "{passed} bytes in 10 s of 10 bytes a second");
    }

    #[test]
    fn silence_is_declared_when_nothing_more_comes() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1, 0);
        assert_eq!(admit(&mut limit, "a\nb\nc", start).1, "a\n");
        assert_eq!(limit.settle(start + Duration::from_millis(999)), None);
        assert!(limit.has_losses());
        let gap = limit.settle(start + Duration::from_secs(1)).expect("a gap");
        assert_eq!((gap.lines, gap.bytes, gap.stream), (Some(2), Some(3), Some(Stream::Stdout)));
        assert_eq!(limit.settle(start + Duration::from_secs(1)), None);
        assert_eq!(admit(&mut limit, "c\n", start + Duration::from_secs(2)), (None, "c\n".to_owned()));
    }

    proptest! {
        #[test]
        fn limits_hold_and_everything_is_counted(
            chunks in prop::collection::vec((any::<bool>(), "[a-z\n]{0,60}", 0..700_u64), 0..80),
            lines_per_second in 0..20_u64,
            bytes_per_second in 0..200_u64,
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut limit = RateLimit::new(lines_per_second, bytes_per_second);
            let (mut bytes_in, mut bytes_out, mut lines_out, mut declared) = (0, 0, 0, 0);
            let mut last_gap = [None::<Instant>; 2];
            for (stderr, chunk, milliseconds) in &chunks {
                now += Duration::from_millis(*milliseconds);
                let stream = Stream::ALL[usize::from(*stderr)];
                let admitted = limit.admit(stream, chunk.as_bytes(), AT, now);
                let end = admitted.skipped + admitted.bytes.len();
                prop_assert_eq!(&chunk.as_bytes()[admitted.skipped..end], admitted.bytes);
                bytes_in += chunk.len() as u64;
                bytes_out += admitted.bytes.len() as u64;
                lines_out += admitted.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                if let Some(gap) = admitted.gap {
                    declared += gap.bytes.expect("counted");
                    let last = last_gap[stream.index()].replace(now);
                    prop_assert!(last.is_none_or(|last| now - last >= BURST), "more than one marker a second");
                }
                let seconds = (now - start).as_secs_f64() + 1.0;
                prop_assert!(lines_per_second == 0 || lines_out as f64 <= lines_per_second as f64 * seconds + 2.0);
                prop_assert!(bytes_per_second == 0 || bytes_out as f64 <= bytes_per_second as f64 * seconds + 61.0);
            }
            while let Some(gap) = limit.finish() {
                declared += gap.bytes.expect("counted");
            }
            prop_assert_eq!(bytes_out + declared, bytes_in);
            prop_assert_eq!(declared, limit.dropped_bytes());
        }
    }
}
