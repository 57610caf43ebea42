//! Letting output gather.
//!
//! A program that writes line by line, as fast as it can, is slower than its copier: each time the copier looks there are a few
//! lines, and what it costs to look is paid for each of them, by both: they share the pipe's lock, and its pages. While that goes on the
//! copier rests between two looks, for as long as it takes the program to write [`WORTHWHILE`]. A slow program is never kept
//! waiting, and neither is a fast one that has filled more than a chunk.

use std::time::{Duration, Instant};

use crate::journal::CHUNK;

/// What makes looking worth its cost, in bytes. Twice as much is gained by no program; half as much costs one that writes lines of
/// 100 bytes a twelfth of its speed.
const WORTHWHILE: u64 = 128 * 1024;
/// No more is left to gather than this part of what a pipe holds: the program is to find room while the copier rests and works.
const PART_OF_A_PIPE: u64 = 4;
/// Slower output, in bytes a second, is written as it comes.
const FAST: u64 = 20_000_000;
/// The longest rest.
const MAX_REST: Duration = Duration::from_millis(1);

/// How fast output has come lately.
#[derive(Debug)]
pub(crate) struct Pace {
    last: Instant,
    /// Bytes that were found since, a chunk at a time.
    gathered: u64,
    worthwhile: u64,
}

impl Pace {
    /// For pipes that hold so many bytes.
    pub(crate) fn new(now: Instant, pipe_bytes: u64) -> Self {
        Self { last: now, gathered: 0, worthwhile: WORTHWHILE.min(pipe_bytes / PART_OF_A_PIPE) }
    }

    /// How long to rest after `bytes` were found, which had come since the last call.
    pub(crate) fn rest(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        self.gathered += bytes;
        if bytes >= CHUNK as u64 {
            // There is more.
            return None;
        }
        let bytes = std::mem::take(&mut self.gathered);
        let elapsed = now.duration_since(std::mem::replace(&mut self.last, now));
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(1);
        let is_fast = bytes.saturating_mul(1_000_000_000) / nanoseconds >= FAST;
        if bytes == 0 || !is_fast {
            return None;
        }
        let rest = Duration::from_nanos(self.worthwhile.saturating_mul(nanoseconds) / bytes);
        Some(rest.min(MAX_REST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn only_fast_programs_that_write_little_at_a_time_are_let_gather() {
        let (ms, us) = (Duration::from_millis, Duration::from_micros);
        for (looks, elapsed, pipe, rest) in [
            (&[0][..], ms(0), MIB, None),
            (&[100], ms(1), MIB, None),
            (&[10_000], ms(1), MIB, None),
            (&[19_999], ms(1), MIB, None),
            (&[20_000], ms(1), MIB, Some(MAX_REST)),
            (&[131_071], ms(1), MIB, Some(MAX_REST)),
            (&[131_072], ms(1), MIB, None),
            (&[131_072, 131_072], us(1), MIB, None),
            (&[4096], us(10), MIB, Some(us(320))),
            (&[4096], us(10), 65_536, Some(us(40))),
            (&[131_072, 131_072], us(500), MIB, None),
            (&[131_072, 0], us(100), MIB, Some(us(100))),
            (&[100], ms(1000), MIB, None),
        ] {
            let start = Instant::now();
            let mut pace = Pace::new(start, pipe);
            let rests: Vec<_> = looks.iter().map(|bytes| pace.rest(*bytes, start + elapsed)).collect();
            assert_eq!(rests.last(), Some(&rest), "{looks:?} bytes in {elapsed:?}");
        }
    }
}
