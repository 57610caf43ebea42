//! When a file must be rotated so that it is full, and not more than full, when its writer leaves it. Pure.

use std::time::{Duration, Instant};

/// Faster than this nobody writes: a file with room for so much more is not looked at before it could be full.
const FASTEST_BYTES_PER_SECOND: u64 = 400_000_000;
/// How fast a file may be growing of which nothing is known yet.
const LIKELY_BYTES_PER_SECOND: f64 = 20_000_000.0;
/// Shortest and longest time between two looks at a file that grows.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// How long the first rotation is taken to need.
const FIRST_REACTION: Duration = Duration::from_millis(8);
/// No rotation is taken to need longer: a runtime that was away for a while is not always.
const LONGEST_REACTION: Duration = Duration::from_millis(50);
/// At least this part of a file is left free for what is written while it is rotated.
const LEAST_RESERVE: u64 = 64;
/// At most this part: a fast writer still gets files that are worth their name.
const MOST_RESERVE: u64 = 2;
/// What remains of an older, higher estimate with every look or rotation.
const MEMORY: f64 = 0.9;

/// What to do about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait until it changes.
    Change,
    /// Look again after this time.
    Look(Duration),
    /// Rotate it now.
    Rotate,
}

/// How fast a file grows, and how long a rotation takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    max_bytes: u64,
    last: Option<(u64, Instant)>,
    bytes_per_second: f64,
    reaction: Duration,
}

impl Pace {
    /// Of a file that may have so many bytes.
    pub(super) fn new(max_bytes: u64) -> Self {
        Pace { max_bytes, last: None, bytes_per_second: LIKELY_BYTES_PER_SECOND, reaction: FIRST_REACTION }
    }

    /// The file has so many bytes now.
    pub(super) fn look(&mut self, size: u64, now: Instant) -> Next {
        let has_grown = self.learn(size, now);
        let room = self.max_bytes.saturating_sub(self.reserve()).saturating_sub(size);
        match (room, has_grown) {
            (0, _) => Next::Rotate,
            (_, false) => Next::Change,
            (room, true) => Next::Look(self.pause(room)),
        }
    }

    /// A rotation took so long; a new file begins.
    pub(super) fn rotated(&mut self, took: Duration, now: Instant) {
        self.reaction = took.max(self.reaction.mul_f64(MEMORY)).min(LONGEST_REACTION);
        self.last = Some((0, now));
    }

    fn learn(&mut self, size: u64, now: Instant) -> bool {
        let last = self.last.replace((size, now));
        let Some((before, at)) = last else { return true };
        let grown = size.saturating_sub(before);
        let seconds = now.duration_since(at).max(SHORTEST_LOOK / 2).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let measured = grown as f64 / seconds;
        self.bytes_per_second = measured.max(self.bytes_per_second * MEMORY);
        grown > 0
    }

    /// What is written until the writer has left the file.
    fn reserve(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let written = (self.bytes_per_second * self.reaction.as_secs_f64()) as u64;
        written.clamp(self.max_bytes / LEAST_RESERVE, self.max_bytes / MOST_RESERVE)
    }

    /// Half the time in which so much is written, and no longer than the fastest writer needs for it.
    fn pause(&self, room: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let room = room as f64;
        let expected = Duration::try_from_secs_f64(room / self.bytes_per_second.max(1.0) / 2.0);
        let possible = Duration::try_from_secs_f64(room / FASTEST_BYTES_PER_SECOND as f64);
        let pause = expected.unwrap_or(LONGEST_LOOK).min(possible.unwrap_or(LONGEST_LOOK));
        pause.clamp(SHORTEST_LOOK, LONGEST_LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Writes at a steady rate to files of 2 MiB, whose rotation takes some time; the sizes of full files.
    fn sizes(bytes_per_millisecond: u64, reaction: Duration) -> Vec<u64> {
        let (mut pace, start) = (Pace::new(2 * MIB), Instant::now());
        let (mut now, mut begun, mut sizes) = (start, start, Vec::new());
        while sizes.len() < 20 {
            let written =
                |from: Instant, now: Instant| (now - from).as_micros() as u64 * bytes_per_millisecond / 1000;
            match pace.look(written(begun, now), now) {
                Next::Change => now += Duration::from_millis(1),
                Next::Look(pause) => now += pause,
                Next::Rotate => {
                    now += reaction;
                    sizes.push(written(begun, now));
                    begun = now;
                    pace.rotated(reaction, now);
                }
            }
        }
        sizes
    }

    #[test]
    fn files_are_full_and_not_more_than_full() {
        for (rate, reaction) in [(1, 2), (1_000, 2), (10_000, 5), (75_000, 2), (75_000, 10), (100_000, 8)] {
            let sizes = sizes(rate, Duration::from_millis(reaction));
            let most = 2 * MIB + 2 * MIB / 20;
            let learned = &sizes[1..];
            assert!(learned.iter().all(|size| *size <= most), "{rate} {reaction}: {sizes:?}");
            assert!(learned.iter().all(|size| *size >= MIB), "{rate} {reaction}: {sizes:?}");
        }
    }

    #[test]
    fn a_slow_file_is_nearly_full() {
        let sizes = sizes(100, Duration::from_millis(5));
        assert!(sizes[1..].iter().all(|size| *size > 2 * MIB - MIB / 16), "{sizes:?}");
    }

    #[test]
    fn a_file_that_rests_is_left_alone() {
        let (mut pace, now) = (Pace::new(MIB), Instant::now());
        pace.look(100, now);
        assert_eq!(pace.look(100, now + Duration::from_secs(1)), Next::Change);
        assert!(matches!(pace.look(200, now + Duration::from_secs(2)), Next::Look(_)));
        assert_eq!(pace.look(MIB, now + Duration::from_secs(3)), Next::Rotate);
    }
}
