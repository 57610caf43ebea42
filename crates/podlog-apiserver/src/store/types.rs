//! The seam between the API and whatever keeps its bytes.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

/// A value and the revisions of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, e.g. `/registry/pods/default/web`.
    pub key: String,
    /// What was stored.
    pub value: Bytes,
    /// Revision of the write that created the key.
    pub create_revision: u64,
    /// Revision of the write that stored this value.
    pub mod_revision: u64,
}

impl KeyValue {
    /// The same without a copy.
    pub fn stored(&self) -> Stored<'_> {
        let KeyValue { key, value, create_revision, mod_revision } = self;
        Stored { key, value, create_revision: *create_revision, mod_revision: *mod_revision }
    }
}

/// A [`KeyValue`] where it lies, for as long as it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The key.
    pub key: &'a str,
    /// What was stored.
    pub value: &'a [u8],
    /// Revision of the write that created the key.
    pub create_revision: u64,
    /// Revision of the write that stored this value.
    pub mod_revision: u64,
}

impl Stored<'_> {
    /// A copy.
    pub fn to_key_value(&self) -> KeyValue {
        KeyValue {
            key: self.key.to_owned(),
            value: Bytes::copy_from_slice(self.value),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }
}

/// Which keys to read, in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Keys that start with this.
    pub prefix: String,
    /// Only keys after this one, where a page before ended.
    pub after: Option<String>,
    /// Read as of this revision; `None` for the newest.
    pub at: Option<u64>,
    /// At most so many; 0 for all.
    pub limit: usize,
}

/// One page of a [`Range`].
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Found, ascending by key.
    pub items: Vec<KeyValue>,
    /// The revision at which they were read.
    pub revision: u64,
    /// Keys of the range that the limit cut off.
    pub remaining: usize,
}

/// What must be true of the key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is no such key.
    Absent,
    /// The key's `mod_revision` is this.
    ModRevision(u64),
}

impl Expected {
    /// Whether it is true of what is there.
    pub(super) fn holds(self, current: Option<&KeyValue>) -> bool {
        match self {
            Expected::Absent => current.is_none(),
            Expected::ModRevision(revision) => current.is_some_and(|kv| kv.mod_revision == revision),
        }
    }
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a value.
    Put(Bytes),
    /// Removes the key.
    Delete,
}

/// Another key that must not have changed since it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchanged {
    /// The key.
    pub key: String,
    /// Its `mod_revision` when it was read.
    pub mod_revision: u64,
}

/// One compare-and-swap.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: String,
    /// What must be true before.
    pub expected: Expected,
    /// What must be true besides, e.g. that the namespace of a new object is as it was.
    pub beside: Option<Unchanged>,
    /// What happens then.
    pub change: Change,
    /// How long the key stays unless it is written again; `None` for as long as nobody removes it. A hint to stores that
    /// [expire keys](Store::expires_keys).
    pub ttl: Option<Duration>,
}

/// One write as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Revision of the write.
    pub revision: u64,
    /// The key.
    pub key: String,
    /// The new value; `None` when the key was removed.
    pub value: Option<Bytes>,
    /// The value before; `None` when the key was created.
    pub previous: Option<Bytes>,
}

/// Consecutive events, and how far the history has been looked through.
#[derive(Clone, Debug, Default)]
pub struct EventPage {
    /// Events whose keys match, ascending by revision.
    pub events: Vec<Arc<Event>>,
    /// Everything up to and including this revision has been looked at.
    pub through: u64,
}

/// Why a store did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Caused by another writer: [`Expected`] did not hold; carries what is there instead.
    #[error("the key is not as expected")]
    Conflict(Option<KeyValue>),
    /// Caused by another writer: the key [beside](Write::beside) has changed.
    #[error("what was written beside has changed")]
    Overtaken,
    /// Caused by a reader that was away for too long.
    #[error("revision {requested} is older than {oldest}, the oldest that is kept")]
    Compacted {
        /// What was asked for.
        requested: u64,
        /// The oldest revision that can be asked for.
        oldest: u64,
    },
    /// Caused by a reader that has seen another store.
    #[error("revision {requested} is ahead of {current}, the newest")]
    Future {
        /// What was asked for.
        requested: u64,
        /// The newest revision.
        current: u64,
    },
    /// The disk is full: nothing is written until there is room again; reads go on.
    #[error("no space left on the device that holds {0}: free some, then repeat the request")]
    Full(String),
    /// The storage below is away for the moment, e.g. while its members elect a leader.
    #[error("{0}")]
    Unavailable(String),
    /// The storage below failed.
    #[error("{0}")]
    Failed(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// A key-value store with etcd's meaning.
///
/// Reads are answered at once, from what this process knows. Where other processes write to the same storage too,
/// [`Store::catch_up`] first makes sure that this is all there is.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest acknowledged revision. The first write of a new store makes revision 2, as in etcd.
    fn revision(&self) -> u64;

    /// Changes whenever [`Store::revision`] does.
    fn revisions(&self) -> watch::Receiver<u64>;

    /// The newest value of a key.
    ///
    /// # Errors
    /// When the storage below failed.
    fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError>;

    /// One page of keys, all as of the same revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] or [`StoreError::Future`] for a revision that is not known, or when the storage below failed.
    fn range(&self, range: &Range) -> Result<Page, StoreError>;

    /// Shows the keys of a range to `look` one after the other, without a copy of them all, until it has seen enough; the
    /// range's limit does not count. Answers with the revision at which they were read. What was shown before an error is
    /// not to be used. `look` must not use the store.
    ///
    /// # Errors
    /// As [`Store::range`].
    fn scan(
        &self,
        range: &Range,
        look: &mut dyn FnMut(Stored<'_>) -> ControlFlow<()>,
    ) -> Result<u64, StoreError>;

    /// Events of keys that start with `prefix`, after revision `after`, at most `limit`; fewer where they are large.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `after` is no longer kept, or when the storage below failed.
    fn events(&self, prefix: &str, after: u64, limit: usize) -> Result<EventPage, StoreError>;

    /// Waits until reads show whatever anybody had written, and was told so, before this call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the storage below cannot be asked.
    async fn catch_up(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Carries out one write and answers with its revision once it is durable and reads show it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] or [`StoreError::Overtaken`] when it was not as expected, [`StoreError::Full`], or when the storage below failed. After
    /// anything but a conflict it is unknown whether the write happened.
    async fn write(&self, write: Write) -> Result<u64, StoreError>;

    /// Forgets what was before `revision`: ranges at an earlier one and events up to it.
    ///
    /// # Errors
    /// When it is ahead of the newest revision, or when the storage below failed.
    async fn compact(&self, revision: u64) -> Result<(), StoreError>;

    /// Whether keys go by themselves when their [`Write::ttl`] is over; otherwise somebody has to remove them.
    fn expires_keys(&self) -> bool {
        false
    }

    /// Whether the storage below can be read and written.
    ///
    /// # Errors
    /// Why not.
    fn health(&self) -> Result<(), StoreError>;

    /// Finishes what was accepted and lets go of the storage.
    async fn close(&self);
}
