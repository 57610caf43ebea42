//! Following the objects of a kind.

use std::sync::Arc;

use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object};

use super::{Registry, codec, keys};
use crate::store::{Event, StoreError, Watcher};

/// What happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// It is new.
    Added(Object),
    /// It changed.
    Modified {
        /// As it is now.
        object: Object,
        /// As it was before, for watchers that only want to see some objects.
        previous: Box<Object>,
    },
    /// It is gone; this is its last state, with the resource version of the deletion.
    Deleted(Object),
}

impl WatchEvent {
    /// What is stored, decoded.
    ///
    /// # Errors
    /// When it is damaged.
    pub(crate) fn of(resource: &Resource, event: &Event) -> Result<Self, ApiError> {
        let object = |bytes| codec::decode(resource, bytes, event.revision);
        Ok(match (&event.value, &event.previous) {
            (Some(value), None) => WatchEvent::Added(object(value)?),
            (Some(value), Some(previous)) => {
                WatchEvent::Modified { object: object(value)?, previous: Box::new(object(previous)?) }
            }
            (None, Some(previous)) => WatchEvent::Deleted(object(previous)?),
            (None, None) => return Err(ApiError::internal("a removal without anything to remove")),
        })
    }

    /// The object, as it is now or was last.
    pub fn object(&self) -> &Object {
        match self {
            WatchEvent::Added(object) | WatchEvent::Deleted(object) | WatchEvent::Modified { object, .. } => {
                object
            }
        }
    }
}

/// Follows the objects of a kind.
pub struct Watch {
    resource: &'static Resource,
    watcher: Watcher,
}

impl Watch {
    /// The next event. Safe to cancel: nothing is lost.
    ///
    /// # Errors
    /// 410 `Expired` when it fell too far behind and has to list again.
    pub async fn next(&mut self) -> Result<WatchEvent, ApiError> {
        WatchEvent::of(self.resource, &*self.next_event().await?)
    }

    /// [`Watch::next`] as it is stored.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn next_event(&mut self) -> Result<Arc<Event>, ApiError> {
        self.watcher.next().await.map_err(|error| match error {
            StoreError::Closed => ApiError::internal("the server is shutting down"),
            other => codec::store_error(other),
        })
    }

    /// Everything up to this revision has been handed out.
    pub fn progress(&self) -> u64 {
        self.watcher.progress()
    }
}

impl Registry {
    /// Follows a kind in all namespaces, after revision `from`.
    pub fn watch(&self, resource: &'static Resource, from: u64) -> Watch {
        self.watch_in(resource, None, from)
    }

    /// Follows a kind in one namespace (`None`: in all), after revision `from`.
    pub fn watch_in(&self, resource: &'static Resource, namespace: Option<&str>, from: u64) -> Watch {
        Watch { resource, watcher: Watcher::new(self.store.clone(), keys::prefix(resource, namespace), from) }
    }
}
