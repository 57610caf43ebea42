//! Keys that wait to be looked at: each at most once, with a time before which it is not due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::runner::Key;

const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// A queue of keys without duplicates; its size is bounded by the number of objects.
#[derive(Default)]
pub(crate) struct WorkQueue {
    schedule: Mutex<Schedule>,
    changed: Notify,
}

impl WorkQueue {
    /// Asks for a look at the key now.
    pub(crate) fn add(&self, key: Key) {
        self.add_after(key, Duration::ZERO);
    }

    /// Asks for a look at the key after `delay`, or before if it is due before.
    pub(crate) fn add_after(&self, key: Key, delay: Duration) {
        self.schedule.lock().add(key, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// Asks for another look at a key that failed, later each time.
    pub(crate) fn add_failed(&self, key: Key) {
        self.schedule.lock().add_failed(key, Instant::now());
        self.changed.notify_one();
    }

    /// The key went well: its next failure counts as the first.
    pub(crate) fn forget_failures(&self, key: &Key) {
        self.schedule.lock().failures.remove(key);
    }

    /// Waits for the next key that is due, and takes it out.
    pub(crate) async fn next(&self) -> Key {
        loop {
            let next = self.schedule.lock().take(Instant::now());
            match next {
                Next::Key(key) => return key,
                Next::Idle => self.changed.notified().await,
                Next::At(time) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(time.into()) => {}
                    }
                }
            }
        }
    }

    /// The next key, if one is due already.
    pub(crate) fn next_due(&self) -> Option<Key> {
        match self.schedule.lock().take(Instant::now()) {
            Next::Key(key) => Some(key),
            Next::Idle | Next::At(_) => None,
        }
    }
}

#[derive(Default)]
struct Schedule {
    due: BTreeMap<Key, Instant>,
    /// The same by time: there may be as many keys as there are objects.
    by_time: BTreeSet<(Instant, Key)>,
    /// How often each key has failed in a row.
    failures: BTreeMap<Key, u32>,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Key(Key),
    At(Instant),
    Idle,
}

impl Schedule {
    fn add(&mut self, key: Key, time: Instant) {
        if let Some(known) = self.due.get_mut(&key) {
            if *known <= time {
                return;
            }
            self.by_time.remove(&(*known, key.clone()));
            *known = time;
        } else {
            self.due.insert(key.clone(), time);
        }
        self.by_time.insert((time, key));
    }

    fn add_failed(&mut self, key: Key, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_default();
        let delay = FIRST_DELAY.saturating_mul(1 << (*failures).min(16)).min(LONGEST_DELAY);
        *failures += 1;
        self.add(key, now + delay);
    }

    /// Takes the key that has been due for longest.
    fn take(&mut self, now: Instant) -> Next {
        let Some((time, _)) = self.by_time.first() else { return Next::Idle };
        if *time > now {
            return Next::At(*time);
        }
        let Some((_, key)) = self.by_time.pop_first() else { return Next::Idle };
        self.due.remove(&key);
        Next::Key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::named("ns", name)
    }

    #[test]
    fn keys_come_once_and_in_time() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        schedule.add(key("late"), after(5));
        schedule.add(key("a"), after(1));
        schedule.add(key("a"), start);
        schedule.add(key("a"), after(9));
        assert_eq!(schedule.take(start), Next::Key(key("a")));
        assert_eq!(schedule.take(start), Next::At(after(5)));
        assert_eq!(schedule.take(after(5)), Next::Key(key("late")));
        assert_eq!(schedule.take(after(60)), Next::Idle);
        assert!(schedule.due.is_empty() && schedule.by_time.is_empty());
    }

    #[test]
    fn failures_wait_longer_each_time() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        let mut wait = || {
            schedule.add_failed(key("a"), start);
            let Next::At(time) = schedule.take(start) else { panic!("due at once") };
            (schedule.due, schedule.by_time) = Default::default();
            time - start
        };
        let waits: Vec<Duration> = (0..40).map(|_| wait()).collect();
        assert!(waits.is_sorted());
        assert_eq!((waits[0], waits[39]), (FIRST_DELAY, LONGEST_DELAY));
        schedule.failures.remove(&key("a"));
        schedule.add_failed(key("a"), start);
        assert_eq!(schedule.take(start), Next::At(start + FIRST_DELAY));
    }

    #[tokio::test]
    async fn waiting_ends_when_a_key_comes() {
        let queue = std::sync::Arc::new(WorkQueue::default());
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        queue.add_after(key("later"), Duration::from_secs(3600));
        queue.add(key("now"));
        assert_eq!(waiting.await.unwrap(), key("now"));
    }
}
