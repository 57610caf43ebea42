//! Letting output gather.
//!
//! A program that writes line by line, as fast as it can, is slower than its copier: each time the copier looks there are a few
//! lines, and what it costs to look is paid for each of them. While that goes on the copier rests between two looks, for
//! as long as it takes the program to write [`WORTHWHILE`]. A slow program is never kept waiting, and neither is a fast one whose
//! pipe has more than that.

use std::time::{Duration, Instant};

/// What makes looking worth its cost, in bytes.
const WORTHWHILE: u64 = 64 * 1024;
/// Slower output, in bytes a second, is written as it comes.
const FAST: u64 = 20_000_000;
/// The longest rest.
const MAX_REST: Duration = Duration::from_millis(1);

/// How fast output has come lately.
#[derive(Debug)]
pub(crate) struct Pace {
    last: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// How long to rest after `bytes` were found, which had come since the last call.
    pub(crate) fn rest(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        let elapsed = now.duration_since(std::mem::replace(&mut self.last, now));
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(1);
        let is_fast = bytes.saturating_mul(1_000_000_000) / nanoseconds >= FAST;
        if bytes == 0 || bytes >= WORTHWHILE || !is_fast {
            return None;
        }
        let rest = Duration::from_nanos(WORTHWHILE * nanoseconds / bytes);
        Some(rest.min(MAX_REST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fast_programs_that_write_little_at_a_time_are_let_gather() {
        let ms = Duration::from_millis;
        for (bytes, elapsed, rest) in [
            (0, ms(0), None),
            (100, ms(1), None),
            (10_000, ms(1), None),
            (19_999, ms(1), None),
            (20_000, ms(1), Some(MAX_REST)),
            (65_535, ms(1), Some(MAX_REST)),
            (65_536, ms(1), None),
            (1 << 20, ms(0), None),
            (4096, Duration::from_micros(10), Some(Duration::from_micros(160))),
            (100, ms(1000), None),
        ] {
            let start = Instant::now();
            let mut pace = Pace::new(start);
            assert_eq!(pace.rest(bytes, start + elapsed), rest, "{bytes} bytes in {elapsed:?}");
        }
    }
}
