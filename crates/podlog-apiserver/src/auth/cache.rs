//! Answers that are believed for a while, so many and no more.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Answers that are kept at once.
const MAX_ENTRIES: usize = 4096;

/// Answers by the hash of their question: questions hold secrets.
pub(super) struct Cache<T>(Mutex<HashMap<[u8; 32], (Instant, T)>>);

impl<T: Clone> Cache<T> {
    pub(super) fn new() -> Self {
        Cache(Mutex::new(HashMap::new()))
    }

    /// What was answered, unless that is over.
    pub(super) fn get(&self, question: &[u8], now: Instant) -> Option<T> {
        let entries = self.0.lock();
        let (until, answer) = entries.get(&key(question))?;
        (now < *until).then(|| answer.clone())
    }

    /// Believes an answer for `ttl`. When there are too many, those that are over go, or all.
    pub(super) fn keep(&self, question: &[u8], answer: T, ttl: Duration, now: Instant) {
        if ttl.is_zero() {
            return;
        }
        let mut entries = self.0.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, (until, _)| now < *until);
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key(question), (now + ttl, answer));
    }
}

fn key(question: &[u8]) -> [u8; 32] {
    Sha256::digest(question).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_and_are_bounded() {
        let (cache, now, second) = (Cache::new(), Instant::now(), Duration::from_secs(1));
        cache.keep(b"a", 1, second, now);
        cache.keep(b"never", 1, Duration::ZERO, now);
        assert_eq!((cache.get(b"a", now), cache.get(b"a", now + second)), (Some(1), None));
        assert_eq!((cache.get(b"b", now), cache.get(b"never", now)), (None, None));
        for i in 0..2 * MAX_ENTRIES {
            cache.keep(&i.to_le_bytes(), i, second, now);
        }
        assert!(cache.0.lock().len() <= MAX_ENTRIES);
        let last = 2 * MAX_ENTRIES - 1;
        assert_eq!(cache.get(&last.to_le_bytes(), now), Some(last));
    }
}
