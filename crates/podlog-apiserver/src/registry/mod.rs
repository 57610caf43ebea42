//! Objects and the rules of their life: what REST handlers, the scheduler and the controllers share.
//!
//! [`Registry`] is the only way to storage. A write goes defaulting → admission → preparation (what a client may not set) →
//! validation → store, as `k8s.io/apiserver/pkg/registry/generic/registry` does it.

pub(crate) mod admission;
pub(crate) mod binding;
pub(crate) mod codec;
mod create;
mod delete;
mod events;
mod job;
mod keys;
pub(crate) mod metadata;
mod preconditions;
mod qos;
mod read;
pub(crate) mod scale;
mod strategy;
#[cfg(test)]
mod tests;
mod update;
mod watch;

use std::sync::Arc;

use podlog_api::UserInfo;
use podlog_api::rbac::Policy;

use crate::store::Store;

pub use delete::{DeleteOptions, Deleted, Propagation};
pub use preconditions::Preconditions;
pub use read::{ListOptions, ListPage};
pub use update::Part;
pub use watch::{Watch, WatchEvent};

/// Who writes, and how seriously.
#[derive(Clone, Debug, Default)]
pub struct WriteContext {
    /// On whose behalf; `None` for the control plane itself, which admission does not restrict.
    pub user: Option<UserInfo>,
    /// Do everything but the write (`dryRun=All`).
    pub dry_run: bool,
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
