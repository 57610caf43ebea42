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
const LONGEST_REACTION: Duration = Duration::from_millis(250);
/// At least this part of a file is left free for what is written while it is rotated.
const LEAST_RESERVE: u64 = 32;
/// At most this part: a fast writer still gets files that are worth their name.
const MOST_RESERVE: u64 = 2;
/// The shortest time over which a speed is measured: writers write in bursts.
const MEASURE: Duration = Duration::from_millis(5);
/// What remains of an older, higher speed after a second.
const MEMORY_OF_SPEED: f64 = 0.5;
/// What remains of an older, slower reaction with every rotation.
const MEMORY_OF_REACTION: f64 = 0.98;
/// The next rotation may take so much longer than any before.
const CAUTION: f64 = 1.25;

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
    /// Size at the last look.
    seen: Option<u64>,
    /// Size and time from which the speed is measured.
    since: Option<(u64, Instant)>,
    bytes_per_second: f64,
    reaction: Duration,
    /// When the file that is being rotated had no more room than its reserve.
    was_due: Option<Instant>,
}

impl Pace {
    /// Of a file that may have so many bytes.
    pub(super) fn new(max_bytes: u64) -> Self {
        Pace {
            max_bytes,
            seen: None,
            since: None,
            bytes_per_second: LIKELY_BYTES_PER_SECOND,
            reaction: FIRST_REACTION,
            was_due: None,
        }
    }

    /// The file has so many bytes now.
    pub(super) fn look(&mut self, size: u64, now: Instant) -> Next {
        self.measure(size, now);
        let has_grown = self.seen.replace(size) != Some(size);
        let allowed = self.max_bytes.saturating_sub(self.reserve());
        if size >= allowed {
            // How late this is, since nobody looks all the time and the machine does other things as well.
            self.was_due = now.checked_sub(self.time_for(size - allowed).min(LONGEST_REACTION));
            return Next::Rotate;
        }
        if has_grown { Next::Look(self.pause(allowed - size)) } else { Next::Change }
    }

    /// The writer has left the file; a new one begins.
    pub(super) fn rotated(&mut self, now: Instant) {
        let took = self.was_due.take().map_or(FIRST_REACTION, |due| now.saturating_duration_since(due));
        self.reaction = took.max(self.reaction.mul_f64(MEMORY_OF_REACTION)).min(LONGEST_REACTION);
        (self.seen, self.since) = (Some(0), Some((0, now)));
    }

    fn measure(&mut self, size: u64, now: Instant) {
        let (before, at) = *self.since.get_or_insert((size, now));
        let passed = now.saturating_duration_since(at);
        if passed < MEASURE {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let measured = size.saturating_sub(before) as f64 / passed.as_secs_f64();
        let remembered = self.bytes_per_second * MEMORY_OF_SPEED.powf(passed.as_secs_f64());
        self.bytes_per_second = measured.max(remembered);
        self.since = Some((size, now));
    }

    /// What is written until the writer has left the file.
    fn reserve(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let written = (self.bytes_per_second * self.reaction.as_secs_f64() * CAUTION) as u64;
        written.clamp(self.max_bytes / LEAST_RESERVE, self.max_bytes / MOST_RESERVE)
    }

    /// Half the time in which so much is written, and no longer than the fastest writer needs for it.
    fn pause(&self, room: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let possible = Duration::try_from_secs_f64(room as f64 / FASTEST_BYTES_PER_SECOND as f64);
        let pause = (self.time_for(room) / 2).min(possible.unwrap_or(LONGEST_LOOK));
        pause.clamp(SHORTEST_LOOK, LONGEST_LOOK)
    }

    /// In which so much is written.
    fn time_for(&self, bytes: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = bytes as f64 / self.bytes_per_second.max(1.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_LOOK)
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
                    pace.rotated(now);
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

    /// As measured under containerd: most rotations are quick, some looks and answers come late.
    #[test]
    fn a_busy_machine_costs_room_and_no_limit() {
        const BYTES_PER_MICROSECOND: u64 = 60;
        let (limit, start) = (10 * MIB, Instant::now());
        let (mut pace, mut now, mut begun, mut looks) = (Pace::new(limit), start, start, 0);
        let mut sizes = Vec::new();
        while sizes.len() < 200 {
            looks += 1;
            let late = Duration::from_millis(if looks % 7 == 0 { 10 } else { 0 });
            match pace.look((now - begun).as_micros() as u64 * BYTES_PER_MICROSECOND, now) {
                Next::Change => now += Duration::from_millis(1),
                Next::Look(pause) => now += pause + late,
                Next::Rotate => {
                    now += Duration::from_millis(if sizes.len() % 5 == 4 { 30 } else { 2 });
                    sizes.push((now - begun).as_micros() as u64 * BYTES_PER_MICROSECOND);
                    begun = now;
                    pace.rotated(now);
                }
            }
        }
        let learned = &sizes[5..];
        assert!(learned.iter().all(|size| *size <= limit + limit / 20), "{sizes:?}");
        assert!(learned.iter().all(|size| *size >= limit * 2 / 3), "{sizes:?}");
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
