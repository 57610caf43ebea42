//! Keeps the RBAC policy in force in step with the stored roles and bindings.

use futures_util::future::select_all;
use podlog_api::rbac::Policy;
use podlog_api::resource::{Resource, find};
use podlog_api::{ApiError, Object};
use tokio_util::sync::CancellationToken;

use crate::registry::{Registry, Watch};

const GROUP: &str = "rbac.authorization.k8s.io";

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
        loop {
            let changes = self.watches.iter_mut().map(|watch| Box::pin(watch.next()));
            tokio::select! {
                _ = select_all(changes) => {}
                () = shutdown.cancelled() => return,
            }
            match load(&self.registry) {
                Ok(watches) => self.watches = watches,
                Err(error) => {
                    tracing::error!(%error, "cannot load roles and bindings; the policy stays as it was");
                    tokio::select! {
                        () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                        () = shutdown.cancelled() => return,
                    }
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
