//! Pauses between attempts at what the runtime cannot do, as long as it cannot.
//!
//! Upstream tries a pod again every 10 to 15 seconds (`backOffPeriod` of `pkg/kubelet/kubelet.go`). What is over soon is tried
//! again sooner here, and what is not is tried less often.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause; each is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(1);

/// Attempts that have failed, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retries {
    longest: Duration,
    failures: u32,
    due: Option<Instant>,
}

impl Retries {
    /// With the longest pause.
    pub(super) const fn new(longest: Duration) -> Self {
        Retries { longest, failures: 0, due: None }
    }

    /// An attempt has failed. Returns the pause until the next one.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures += 1;
        self.due = Some(now + pause);
        pause
    }

    /// An attempt has succeeded: the next failure is the first one.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.due) = (0, None);
    }

    /// Until when to wait; `None` when it is time.
    pub(super) fn pending(&self, now: Instant) -> Option<Instant> {
        self.due.filter(|due| now < *due)
    }

    /// Whether the last attempt has failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_something_succeeds() {
        let mut retries = Retries::new(Duration::from_secs(30));
        let mut now = Instant::now();
        assert!(retries.pending(now).is_none() && !retries.is_failing());
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(retries.failed(now), Duration::from_secs(expected));
            let due = retries.pending(now).expect("a pause");
            assert_eq!(due, now + Duration::from_secs(expected));
            now = due;
            assert!(retries.pending(now).is_none() && retries.is_failing());
        }
        retries.succeeded();
        assert!(!retries.is_failing());
        assert_eq!(retries.failed(now), Duration::from_secs(1));
        for _ in 0..100 {
            retries.failed(now);
        }
        assert_eq!(retries.failed(now), Duration::from_secs(30), "however often");
    }
}
