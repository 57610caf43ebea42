//! The newest events in memory, so that the many watchers of one write do not all read the file for it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Event, EventPage};

const MAX_EVENTS: usize = 1024;
const MAX_BYTES: usize = 2 << 20;
/// A page ends with the event that makes it so large: watchers whose clients do not read hold one each.
const PAGE_BYTES: usize = 8 << 10;

/// A bounded run of consecutive events that ends at the newest revision.
#[derive(Debug, Default)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

impl History {
    /// Appends; forgets the oldest beyond the bounds.
    pub(super) fn extend(&mut self, events: impl IntoIterator<Item = Arc<Event>>) {
        for event in events {
            self.bytes += size(&event);
            self.events.push_back(event);
        }
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= size(&oldest);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = History::default();
    }

    /// The events after `after`, or `None` when they are not all here.
    pub(super) fn page(&self, prefix: &str, after: u64, limit: usize) -> Option<EventPage> {
        let (oldest, newest) = (self.events.front()?.revision, self.events.back()?.revision);
        if after + 1 < oldest || after >= newest {
            return None;
        }
        let skip = usize::try_from(after + 1 - oldest).ok()?;
        let mut page = EventPage { events: Vec::new(), through: newest };
        let mut bytes = 0;
        for event in self.events.iter().skip(skip).filter(|event| event.key.starts_with(prefix)) {
            page.events.push(event.clone());
            bytes += size(event);
            if is_full(&page, bytes, limit) {
                page.through = event.revision;
                break;
            }
        }
        Some(page)
    }
}

/// Whether a page of so many bytes ends.
pub(super) fn is_full(page: &EventPage, bytes: usize, limit: usize) -> bool {
    page.events.len() >= limit || bytes >= PAGE_BYTES
}

/// Bytes of an event.
pub(super) fn size(event: &Event) -> usize {
    // A previous value is mostly shared with the event that stored it, but that one may be forgotten first.
    event.key.len()
        + event.value.as_ref().map_or(0, |v| v.len())
        + event.previous.as_ref().map_or(0, |v| v.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, key: &str, size: usize) -> Arc<Event> {
        Arc::new(Event { revision, key: key.into(), value: Some(vec![0; size].into()), previous: None })
    }

    #[test]
    fn pages_are_complete_or_none() {
        let mut history = History::default();
        history.extend((10..=20).map(|r| event(r, if r % 2 == 0 { "a/x" } else { "b/x" }, 1)));
        let revisions = |prefix: &str, after, limit| {
            history
                .page(prefix, after, limit)
                .map(|p| (p.events.iter().map(|e| e.revision).collect::<Vec<_>>(), p.through))
        };
        assert_eq!(revisions("a/", 8, 9), None, "revision 9 is missing");
        assert_eq!(revisions("a/", 20, 9), None, "nothing new");
        assert_eq!(revisions("a/", 9, 2), Some((vec![10, 12], 12)));
        assert_eq!(revisions("a/", 12, 9), Some((vec![14, 16, 18, 20], 20)));
        assert_eq!(revisions("c/", 12, 9), Some((vec![], 20)));
    }

    #[test]
    fn pages_of_large_events_are_short() {
        let mut history = History::default();
        history.extend((1..=9).map(|revision| event(revision, "a", PAGE_BYTES / 3)));
        let page = |after| history.page("a", after, 100).unwrap();
        assert_eq!((page(0).events.len(), page(0).through), (3, 3));
        assert_eq!((page(7).events.len(), page(7).through), (2, 9));
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = History::default();
        history.extend((1..=5000).map(|r| event(r, "a", 1)));
        assert_eq!(history.events.len(), MAX_EVENTS);
        history.extend((5001..=5010).map(|r| event(r, "a", 1 << 20)));
        assert!(history.bytes <= MAX_BYTES);
    }
}
