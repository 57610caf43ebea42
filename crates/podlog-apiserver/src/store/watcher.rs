//! Following the history of a prefix.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Event, Store, StoreError};

/// Events read from the history at a time: what one watcher may hold.
const PAGE: usize = 128;

/// Follows the events of a prefix.
///
/// It owns no queue that a slow reader could overflow: it is told that something happened and then reads the history, so
/// falling behind costs nothing until compaction overtakes it.
pub struct Watcher {
    store: Arc<dyn Store>,
    prefix: String,
    through: u64,
    pending: VecDeque<Arc<Event>>,
    revisions: watch::Receiver<u64>,
}

impl Watcher {
    /// Starts after revision `after`.
    pub fn new(store: Arc<dyn Store>, prefix: String, after: u64) -> Self {
        let revisions = store.revisions();
        Watcher { store, prefix, through: after, pending: VecDeque::new(), revisions }
    }

    /// The next event. Safe to cancel: nothing is lost.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when it fell too far behind, [`StoreError::Closed`] when the store was closed.
    pub async fn next(&mut self) -> Result<Arc<Event>, StoreError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            if *self.revisions.borrow_and_update() <= self.through {
                self.revisions.changed().await.map_err(|_| StoreError::Closed)?;
                continue;
            }
            let page = self.store.events(&self.prefix, self.through, PAGE)?;
            self.through = page.through;
            self.pending.extend(page.events);
        }
    }

    /// Everything up to this revision has been handed out by [`Watcher::next`].
    pub fn progress(&self) -> u64 {
        self.pending.front().map_or(self.through, |event| event.revision - 1)
    }
}
