//! Pauses between attempts that fail again and again: 10 s, doubling up to 5 min, forgotten after twice that long
//! without failure (`client-go/util/flowcontrol/backoff.go`).

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const INITIAL: Duration = Duration::from_secs(10);

/// Longest pause before an image is asked for again (`MaxImageBackOff` of `pkg/kubelet/kubelet.go`).
pub(super) const LONGEST_FOR_IMAGES: Duration = Duration::from_secs(300);

/// Pauses by key.
#[derive(Clone, Debug)]
pub(crate) struct Backoffs {
    longest: Duration,
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    pause: Duration,
    updated: Timestamp,
}

impl Backoffs {
    /// With the longest pause.
    pub(crate) fn new(longest: Duration) -> Self {
        Backoffs { longest, entries: HashMap::new() }
    }

    /// The pause after a failure at `since`, and when it ends; `None` when it is over or none is due.
    pub(crate) fn pending(
        &self,
        key: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<(Duration, Timestamp)> {
        let entry = self.entries.get(key).filter(|entry| !self.is_forgotten(entry, since))?;
        let until = since.saturating_add(signed(entry.pause)).ok()?;
        (now < until).then_some((entry.pause, until))
    }

    /// Notes an attempt after a failure at `since`: the next pause is twice as long.
    pub(crate) fn next(&mut self, key: &str, since: Timestamp, now: Timestamp) {
        let pause = match self.entries.get(key) {
            Some(entry) if !self.is_forgotten(entry, since) => (entry.pause * 2).min(self.longest),
            _ => INITIAL.min(self.longest),
        };
        self.entries.insert(key.to_owned(), Entry { pause, updated: now });
    }

    /// Forgets a key: whatever it stands for succeeded.
    pub(crate) fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }

    fn is_forgotten(&self, entry: &Entry, since: Timestamp) -> bool {
        since.duration_since(entry.updated) > signed(self.longest * 2)
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoffs = Backoffs::new(Duration::from_secs(300));
        assert_eq!(backoffs.pending("c", at(0), at(0)), None);
        let mut now = 0;
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            backoffs.next("c", at(now), at(now));
            assert_eq!(
                backoffs.pending("c", at(now), at(now)),
                Some((Duration::from_secs(seconds), at(now + seconds as i64)))
            );
            now += seconds as i64;
            assert_eq!(backoffs.pending("c", at(now - seconds as i64), at(now)), None);
        }
    }

    #[test]
    fn a_long_run_starts_over() {
        let mut backoffs = Backoffs::new(Duration::from_secs(300));
        backoffs.next("c", at(0), at(0));
        backoffs.next("c", at(10), at(10));
        assert_eq!(backoffs.pending("c", at(611), at(611)), None, "ran for more than ten minutes");
        backoffs.next("c", at(611), at(611));
        assert_eq!(backoffs.pending("c", at(612), at(612)).unwrap().0, Duration::from_secs(10));
        backoffs.reset("c");
        assert_eq!(backoffs.pending("c", at(612), at(612)), None);
    }

    #[test]
    fn the_longest_pause_bounds_the_first() {
        let mut backoffs = Backoffs::new(Duration::from_secs(1));
        backoffs.next("c", at(0), at(0));
        assert_eq!(backoffs.pending("c", at(0), at(0)).unwrap().0, Duration::from_secs(1));
    }
}
