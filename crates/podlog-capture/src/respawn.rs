//! When to start a copier again.

use std::time::{Duration, Instant};

/// A copier that lived as long has not died of being started.
const HEALTHY: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_millis(1);
const MAX_DELAY: Duration = Duration::from_millis(100);

/// Starts come at once after a long life, and less and less often after short ones.
#[derive(Debug)]
pub(crate) struct Respawn {
    started: Instant,
    due: Instant,
    delay: Duration,
}

impl Respawn {
    pub(crate) fn new(now: Instant) -> Self {
        Self { started: now, due: now, delay: Duration::ZERO }
    }

    /// One was started, or could not be: the next attempt is not at once.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started = now;
        self.due = now + MAX_DELAY;
    }

    /// It has ended.
    pub(crate) fn ended(&mut self, now: Instant) {
        let is_healthy = now.duration_since(self.started) >= HEALTHY;
        let delay = if is_healthy { Duration::ZERO } else { self.delay };
        self.due = now + delay;
        self.delay = (delay * 2).clamp(FIRST_DELAY, MAX_DELAY);
    }

    /// Whether to start one now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// How long until then.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_are_followed_by_longer_and_longer_delays() {
        let mut now = Instant::now();
        let mut respawn = Respawn::new(now);
        assert!(respawn.is_due(now));
        for (life, delay) in [(0, 0), (0, 1), (5, 2), (0, 4), (999, 8), (1000, 0), (0, 1), (0, 2)] {
            respawn.started(now);
            now += Duration::from_millis(life);
            respawn.ended(now);
            let delay = Duration::from_millis(delay);
            assert_eq!(respawn.patience(now), delay, "after {life} ms");
            now += delay;
            assert!(respawn.is_due(now));
        }
        for _ in 0..20 {
            respawn.ended(now);
        }
        assert_eq!(respawn.patience(now), MAX_DELAY);
        respawn.started(now);
        assert!(!respawn.is_due(now), "a process that could not be made");
    }
}
