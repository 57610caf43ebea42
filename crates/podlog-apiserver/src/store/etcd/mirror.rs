//! All objects in memory, with their recent history: pure state, told what happened in the order of revisions.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::{Event, EventPage, KeyValue, Page, Range, StoreError, history};

/// History beyond this is forgotten, whatever the retention says.
const MAX_HISTORY_BYTES: usize = 32 << 20;

/// What happened to a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Happened {
    pub(super) key: String,
    /// `None` when it was removed.
    pub(super) value: Option<Bytes>,
}

/// One version of a key; no value is a removal.
#[derive(Clone, Debug, PartialEq)]
struct Version {
    created: u64,
    written: u64,
    value: Option<Bytes>,
}

/// Objects at every revision from `oldest` to `revision`.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// Versions ascending; never none.
    keys: BTreeMap<String, Vec<Version>>,
    /// All of `oldest < revision <= self.revision`, ascending.
    events: VecDeque<Arc<Event>>,
    history_bytes: usize,
    oldest: u64,
    revision: u64,
}

impl Mirror {
    /// Objects as they were at `revision`, without a past.
    pub(super) fn new(objects: impl IntoIterator<Item = KeyValue>, revision: u64) -> Self {
        let version = |kv: KeyValue| Version {
            created: kv.create_revision,
            written: kv.mod_revision,
            value: Some(kv.value),
        };
        let keys = objects.into_iter().map(|kv| (kv.key.clone(), vec![version(kv)])).collect();
        Mirror { keys, oldest: revision, revision, ..Mirror::default() }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Everything that happened at one revision. What is known already is passed over, so that nothing counts twice.
    pub(super) fn apply(&mut self, revision: u64, happened: impl IntoIterator<Item = Happened>) {
        if revision <= self.revision {
            return;
        }
        for Happened { key, value } in happened {
            self.change(revision, key, value);
        }
        self.revision = revision;
        while self.history_bytes > MAX_HISTORY_BYTES
            && let Some(event) = self.events.front()
        {
            self.forget(event.revision);
        }
    }

    /// Nothing happened up to `revision`.
    pub(super) fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Forgets what was before `revision`, and events up to it.
    pub(super) fn forget(&mut self, revision: u64) {
        let revision = revision.min(self.revision);
        self.oldest = self.oldest.max(revision);
        while let Some(event) = self.events.pop_front_if(|event| event.revision <= revision) {
            self.history_bytes -= size(&event);
            forget_versions(&mut self.keys, &event.key, revision);
        }
    }

    /// Keeps at most so many events.
    pub(super) fn keep_events(&mut self, count: usize) {
        let Some(excess) = self.events.len().checked_sub(count + 1) else { return };
        self.forget(self.events[excess].revision);
    }

    pub(super) fn find(&self, key: &str) -> Option<KeyValue> {
        key_value(key, self.keys.get(key)?.last()?)
    }

    pub(super) fn range(&self, range: &Range) -> Result<Page, StoreError> {
        let mut page = Page { revision: range.at.unwrap_or(self.revision), ..Page::default() };
        for found in self.items(range)? {
            if range.limit > 0 && page.items.len() == range.limit {
                page.remaining += 1;
            } else {
                page.items.push(found);
            }
        }
        Ok(page)
    }

    /// What is in a range, whatever its limit is.
    pub(super) fn items(&self, range: &Range) -> Result<impl Iterator<Item = KeyValue>, StoreError> {
        let revision = range.at.unwrap_or(self.revision);
        self.check_kept(revision)?;
        let start = match &range.after {
            Some(after) if *after >= range.prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(range.prefix.as_str()),
        };
        let keys = self.keys.range::<str, _>((start, Bound::Unbounded));
        let keys = keys.take_while(|(key, _)| key.starts_with(&range.prefix));
        Ok(keys.filter_map(move |(key, versions)| {
            key_value(key, versions.iter().rfind(|version| version.written <= revision)?)
        }))
    }

    pub(super) fn events(&self, prefix: &str, after: u64, limit: usize) -> Result<EventPage, StoreError> {
        self.check_kept(after)?;
        let mut page = EventPage { events: Vec::new(), through: self.revision };
        let mut bytes = 0;
        let begin = self.events.partition_point(|event| event.revision <= after);
        for event in self.events.range(begin..).filter(|event| event.key.starts_with(prefix)) {
            // One revision may hold several events: a page ends between revisions.
            if history::is_full(&page, bytes, limit)
                && let Some(last) = page.events.last()
                && last.revision < event.revision
            {
                page.through = last.revision;
                break;
            }
            bytes += history::size(event);
            page.events.push(event.clone());
        }
        Ok(page)
    }

    fn check_kept(&self, requested: u64) -> Result<(), StoreError> {
        if requested < self.oldest {
            return Err(StoreError::Compacted { requested, oldest: self.oldest });
        }
        if requested > self.revision {
            return Err(StoreError::Future { requested, current: self.revision });
        }
        Ok(())
    }

    fn change(&mut self, revision: u64, key: String, value: Option<Bytes>) {
        let versions = self.keys.entry(key.clone()).or_default();
        let before = versions.last().filter(|version| version.value.is_some());
        let created = before.map_or(revision, |version| version.created);
        let previous = before.and_then(|version| version.value.clone());
        versions.push(Version { created, written: revision, value: value.clone() });
        let event = Event { revision, key, value, previous };
        self.history_bytes += size(&event);
        self.events.push_back(Arc::new(event));
    }
}

/// Keeps the version that was current at `revision`, unless it is a removal, and later ones.
fn forget_versions(keys: &mut BTreeMap<String, Vec<Version>>, key: &str, revision: u64) {
    let Some(versions) = keys.get_mut(key) else { return };
    let known = versions.partition_point(|version| version.written <= revision);
    let current = known.checked_sub(1).filter(|&at| versions[at].value.is_some());
    versions.drain(..current.unwrap_or(known));
    if versions.is_empty() {
        keys.remove(key);
    } else {
        versions.shrink_to_fit();
    }
}

fn key_value(key: &str, version: &Version) -> Option<KeyValue> {
    Some(KeyValue {
        key: key.to_owned(),
        value: version.value.clone()?,
        create_revision: version.created,
        mod_revision: version.written,
    })
}

fn size(event: &Event) -> usize {
    // A value is either the present or another event's previous one: history is what was before.
    event.key.len() + event.previous.as_ref().map_or(0, Bytes::len) + size_of::<Event>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Happened {
        Happened { key: key.into(), value: Some(Bytes::copy_from_slice(value.as_bytes())) }
    }

    fn remove(key: &str) -> Happened {
        Happened { key: key.into(), value: None }
    }

    /// `key=value@created/written` of every object at a revision.
    fn shown(mirror: &Mirror, at: u64) -> Result<String, StoreError> {
        let page = mirror.range(&Range { at: Some(at), ..Range::default() })?;
        let show = |kv: &KeyValue| {
            format!(
                "{}={}@{}/{}",
                kv.key,
                String::from_utf8_lossy(&kv.value),
                kv.create_revision,
                kv.mod_revision
            )
        };
        Ok(page.items.iter().map(show).collect::<Vec<_>>().join(" "))
    }

    fn sample() -> Mirror {
        let kv = KeyValue { key: "a".into(), value: "1".into(), create_revision: 3, mod_revision: 5 };
        let mut mirror = Mirror::new([kv], 10);
        mirror.apply(11, [put("b", "1")]);
        mirror.apply(12, [put("a", "2"), remove("b")]);
        mirror.apply(14, [put("b", "2")]);
        mirror
    }

    #[test]
    fn every_revision_that_is_kept_can_be_read() {
        let mirror = sample();
        let rows = [
            (10, "a=1@3/5"),
            (11, "a=1@3/5 b=1@11/11"),
            (12, "a=2@3/12"),
            (13, "a=2@3/12"),
            (14, "a=2@3/12 b=2@14/14"),
        ];
        for (at, expected) in rows {
            assert_eq!(shown(&mirror, at), Ok(expected.into()), "revision {at}");
        }
        assert_eq!(shown(&mirror, 9), Err(StoreError::Compacted { requested: 9, oldest: 10 }));
        assert_eq!(shown(&mirror, 15), Err(StoreError::Future { requested: 15, current: 14 }));
    }

    #[test]
    fn what_is_told_twice_counts_once() {
        let mut mirror = sample();
        mirror.apply(12, [put("a", "x"), remove("b")]);
        mirror.apply(14, [put("b", "x")]);
        assert_eq!(shown(&mirror, 14), shown(&sample(), 14));
        assert_eq!(mirror.events("", 10, 99).unwrap().events.len(), 4);
    }

    #[test]
    fn pages_of_events_end_between_revisions() {
        let mirror = sample();
        let page = |prefix: &str, after, limit| {
            let page = mirror.events(prefix, after, limit).unwrap();
            let revisions: Vec<u64> = page.events.iter().map(|event| event.revision).collect();
            (revisions, page.through)
        };
        assert_eq!(page("", 10, 1), (vec![11], 11));
        assert_eq!(page("", 11, 1), (vec![12, 12], 12));
        assert_eq!(page("b", 11, 1), (vec![12], 12));
        assert_eq!(page("", 12, 9), (vec![14], 14));
        assert_eq!(page("c", 10, 9), (vec![], 14));
        let removal = &mirror.events("b", 11, 1).unwrap().events[0];
        assert_eq!((removal.value.as_deref(), removal.previous.as_deref()), (None, Some(&b"1"[..])));
    }

    #[test]
    fn forgetting_keeps_the_present() {
        let present = shown(&sample(), 14);
        for revision in 10..=99 {
            let mut mirror = sample();
            let at = revision.min(14);
            let then = shown(&mirror, at);
            mirror.forget(revision);
            assert_eq!((shown(&mirror, at), shown(&mirror, 14)), (then, present.clone()), "{revision}");
            assert!(at == 10 || shown(&mirror, at - 1).is_err(), "{revision}");
        }
        let mut mirror = sample();
        mirror.forget(14);
        let versions = mirror.keys.values().map(Vec::len).sum::<usize>();
        assert_eq!((versions, mirror.events.len(), mirror.history_bytes), (2, 0, 0));
    }

    #[test]
    fn history_is_bounded() {
        let mut mirror = sample();
        mirror.keep_events(4);
        assert_eq!(mirror.events.len(), 4);
        mirror.keep_events(2);
        assert_eq!(mirror.events.iter().map(|event| event.revision).collect::<Vec<_>>(), [14]);
        for revision in 15..115 {
            mirror.apply(revision, [put("big", &"x".repeat(1 << 20))]);
        }
        assert!(mirror.history_bytes <= MAX_HISTORY_BYTES);
        assert_eq!(mirror.revision(), 114);
    }
}
