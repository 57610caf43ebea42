//! Whether memory, disk or processes are running out.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::capacity::{self, Room};
use crate::config::EvictionThresholds;

/// Space that is enough whatever its share: a machine that pulls no images can work with it.
const ENOUGH_BYTES: u64 = 1 << 30;

/// What presses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pressure {
    pub(super) memory: bool,
    pub(super) disk: bool,
    pub(super) pids: bool,
}

/// Looks, and remembers: what presses goes on to for a while (`evictionPressureTransitionPeriod`), so that it does not come
/// and go.
pub(super) struct PressureGauge {
    thresholds: EvictionThresholds,
    /// On the file system that counts.
    path: PathBuf,
    transition: Duration,
    seen: [Option<Instant>; 3],
}

impl PressureGauge {
    pub(super) fn new(thresholds: EvictionThresholds, path: PathBuf, transition: Duration) -> Self {
        PressureGauge { thresholds, path, transition, seen: [None; 3] }
    }

    /// What presses, or did a moment ago.
    pub(super) fn look(&mut self) -> Pressure {
        let now = Instant::now();
        let Pressure { memory, disk, pids } = self.now();
        for (seen, presses) in self.seen.iter_mut().zip([memory, disk, pids]) {
            if presses {
                *seen = Some(now);
            }
        }
        let [memory, disk, pids] =
            self.seen.map(|seen| seen.is_some_and(|seen| seen == now || now - seen < self.transition));
        Pressure { memory, disk, pids }
    }

    fn now(&self) -> Pressure {
        let thresholds = &self.thresholds;
        let memory =
            thresholds.memory_available.zip(capacity::memory()).is_some_and(|(threshold, memory)| {
                let (left, all) = memory;
                threshold.is_crossed(left, all)
            });
        let pids = thresholds.pid_available.zip(capacity::processes()).is_some_and(|(threshold, now)| {
            let (used, all) = now;
            threshold.is_crossed(all.saturating_sub(used), all)
        });
        let disk = capacity::room(&self.path).is_some_and(|room| is_short(thresholds, room));
        Pressure { memory, disk, pids }
    }
}

fn is_short(thresholds: &EvictionThresholds, room: Room) -> bool {
    let has_enough = thresholds.is_gibibyte_enough && room.free_bytes >= ENOUGH_BYTES;
    let space = thresholds.nodefs_available.filter(|_| !has_enough);
    space.is_some_and(|threshold| threshold.is_crossed(room.free_bytes, room.bytes))
        || thresholds
            .nodefs_inodes_free
            .is_some_and(|threshold| threshold.is_crossed(room.free_inodes, room.inodes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Threshold;

    #[test]
    fn a_disk_is_short_of_space_or_inodes() {
        let gib = 1 << 30;
        let check = |thresholds: &EvictionThresholds, bytes, free_bytes, free_inodes, expected| {
            let room = Room { bytes, free_bytes, inodes: 100, free_inodes };
            assert_eq!(is_short(thresholds, room), expected, "{thresholds:?} {room:?}");
        };
        let usual = EvictionThresholds::default();
        check(&usual, 40 * gib, 20 * gib, 90, false);
        check(&usual, 400 * gib, 20 * gib, 90, false);
        check(&usual, 4 * gib, gib / 2, 90, false);
        check(&usual, 8 * gib, gib / 2, 90, true);
        check(&usual, 40 * gib, 20 * gib, 4, true);
        let strict = EvictionThresholds {
            nodefs_available: Some(Threshold::Amount(30 * gib)),
            nodefs_inodes_free: None,
            is_gibibyte_enough: false,
            ..EvictionThresholds::default()
        };
        check(&strict, 40 * gib, 20 * gib, 0, true);
        check(&strict, 40 * gib, 31 * gib, 0, false);
    }

    #[tokio::test]
    async fn pressure_goes_on_for_a_while() {
        let crossed = EvictionThresholds {
            memory_available: Some(Threshold::Percent(100.0)),
            nodefs_available: None,
            nodefs_inodes_free: None,
            pid_available: None,
            is_gibibyte_enough: false,
        };
        let mut gauge = PressureGauge::new(crossed, "/".into(), Duration::from_secs(300));
        let pressed = Pressure { memory: true, ..Pressure::default() };
        assert_eq!(gauge.look(), pressed);
        gauge.thresholds.memory_available = None;
        assert_eq!(gauge.look(), pressed);
        gauge.transition = Duration::ZERO;
        assert_eq!(gauge.look(), Pressure::default());
    }
}
