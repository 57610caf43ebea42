//! Objects and the rules of their life: what REST handlers, the scheduler and the controllers share.
//!
//! [`Registry`] is the only way to storage. A write goes defaulting → admission → preparation (what a client may not set) →
//! validation → store, as `k8s.io/apiserver/pkg/registry/generic/registry` does it.

pub(crate) mod admission;
pub(crate) mod binding;
pub(crate) mod certificates;
pub(crate) mod codec;
mod create;
mod delete;
mod events;
mod job;
mod keys;
pub(crate) mod metadata;
pub(crate) mod migration;
mod preconditions;
mod qos;
mod read;
pub(crate) mod references;
pub(crate) mod scale;
mod strategy;
#[cfg(test)]
mod tests;
mod update;
mod watch;

use std::sync::Arc;

use podlog_api::ownership::Writer;
use podlog_api::rbac::Policy;
use podlog_api::{ApiError, UserInfo};
use podlog_serving::Authorizer;

use crate::store::Store;

pub(crate) use strategy::EVENT_TTL;

pub use delete::{DeleteOptions, Deleted, Propagation};
pub use preconditions::Preconditions;
pub(crate) use read::Place;
pub use update::Part;
pub use watch::{Watch, WatchEvent};

/// Who writes, and how seriously.
#[derive(Clone, Default)]
pub struct WriteContext {
    /// On whose behalf; `None` for the control plane itself, which admission does not restrict.
    pub user: Option<UserInfo>,
    /// Whom to ask what else the user may do: nobody grants rights that they do not have.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// Do everything but the write (`dryRun=All`).
    pub dry_run: bool,
    /// Who owns what is written: the field manager. Empty for the control plane itself.
    pub manager: String,
    /// The subresource through which is written; empty for the object itself.
    pub subresource: String,
    /// How owners are noted.
    pub ownership: Ownership,
}

/// Who sees to `metadata.managedFields` in a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// The registry: the writer owns what the write changes.
    #[default]
    Tracked,
    /// Whoever made the object, by server-side apply.
    Applied,
}

/// The field manager of the control plane.
const CONTROL_PLANE: &str = "podlog";

impl WriteContext {
    /// The writer as `managedFields` names it.
    pub(crate) fn writer(&self, part: Part, now: jiff::Timestamp) -> Writer {
        let subresource = if part == Part::Status { "status" } else { &self.subresource };
        let manager = if self.manager.is_empty() { CONTROL_PLANE } else { &self.manager };
        Writer { manager: manager.to_owned(), subresource: subresource.to_owned(), time: metadata::time(now) }
    }
}

/// Access to all objects. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    policy: Arc<arc_swap::ArcSwap<Policy>>,
}

impl Registry {
    /// Objects in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Registry { store, policy: Arc::new(arc_swap::ArcSwap::from_pointee(Policy::new([]))) }
    }

    /// Waits until reads show whatever any server had written, and said so, before this call.
    ///
    /// # Errors
    /// 503 when the storage cannot be asked.
    pub async fn catch_up(&self) -> Result<(), ApiError> {
        self.store.catch_up().await.map_err(codec::store_error)
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The roles and bindings in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Puts roles and bindings in force.
    pub fn publish_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }
}
