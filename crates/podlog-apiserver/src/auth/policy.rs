//! Keeps the RBAC policy in force in step with the stored roles and bindings.

use std::time::Duration;

use futures_util::future::select_all;
use podlog_api::rbac::Policy;
use podlog_api::resource::{Resource, find};
use podlog_api::{ApiError, Object};
use tokio_util::sync::CancellationToken;

use crate::registry::{Registry, Watch};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Changes that come together take effect together: a role is mostly followed by its binding.
const SETTLE: Duration = Duration::from_millis(20);
/// Pause after a store that could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// The kinds that a policy is made of.
fn kinds() -> impl Iterator<Item = &'static Resource> {
    ["clusterroles", "clusterrolebindings", "roles", "rolebindings"]
        .into_iter()
        .filter_map(|plural| find(GROUP, "v1", plural))
}

/// Rebuilds the policy whenever a role or binding changes.
pub(crate) struct PolicyKeeper {
    registry: Registry,
    watches: Vec<Watch>,
}

impl PolicyKeeper {
    /// Puts the stored policy in force.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn start(registry: Registry) -> Result<Self, ApiError> {
        let watches = load(&registry)?;
        Ok(PolicyKeeper { registry, watches })
    }

    /// Works until shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let work = async {
            loop {
                self.change().await;
                tokio::time::sleep(SETTLE).await;
                self.reload().await;
            }
        };
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Waits for a change; a watch that broke is a reason to read anew too.
    async fn change(&mut self) {
        let _ = select_all(self.watches.iter_mut().map(|watch| Box::pin(watch.next()))).await;
    }

    /// Puts in force what is stored by now, however many changes that were.
    async fn reload(&mut self) {
        loop {
            let registry = self.registry.clone();
            let loaded = tokio::task::spawn_blocking(move || load(&registry)).await;
            match loaded.map_err(ApiError::internal).flatten() {
                Ok(watches) => return self.watches = watches,
                Err(error) => {
                    tracing::error!(%error, "cannot load roles and bindings; the policy stays as it was");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Reads and publishes the policy; the watches start where it was read.
fn load(registry: &Registry) -> Result<Vec<Watch>, ApiError> {
    let mut objects: Vec<Object> = Vec::new();
    let mut watches = Vec::new();
    for kind in kinds() {
        let (found, revision) = registry.list(kind, None)?;
        objects.extend(found);
        watches.push(registry.watch(kind, revision));
    }
    registry.publish_policy(Policy::new(&objects));
    Ok(watches)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use serde_json::json;

    use super::*;
    use crate::store::RedbStore;

    #[tokio::test]
    async fn a_burst_of_changes_is_one_reload() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        let mut keeper = PolicyKeeper::start(registry.clone()).unwrap();
        let roles = find(GROUP, "v1", "clusterroles").unwrap();
        let role = |i| Object::new(json!({"metadata": {"name": format!("r{i}")}}));
        let made = (0..50).map(|i| registry.create(roles, "", role(i)));
        join_all(made).await.into_iter().for_each(|made| assert!(made.is_ok()));
        keeper.change().await;
        keeper.reload().await;
        assert!(keeper.change().now_or_never().is_none(), "everything has been read");
    }
}
