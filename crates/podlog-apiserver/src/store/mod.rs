//! Where objects are kept: a key-value store with etcd's meaning, bytes in and bytes out.
//!
//! There is one revision counter. Every acknowledged write raises it by one and is durable; ranges can be read as they
//! were at an earlier revision and changes can be followed from one, until [`Store::compact`] forgets it.

mod embedded;
pub mod etcd;
mod history;
mod shadow;
#[cfg(test)]
mod suite;
mod types;
mod watcher;
mod writer;

pub use embedded::{RedbStore, Retention};
pub use types::{
    Change, Event, EventPage, Expected, KeyValue, Page, Range, Store, StoreError, Stored, Unchanged, Write,
};
pub use watcher::Watcher;
