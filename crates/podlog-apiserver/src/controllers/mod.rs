//! Controllers: what brings objects from what they are to what they should be.
//!
//! Each decides in pure functions, from objects and a time to actions; one loop for all of them watches, queues, acts and
//! tries again. Behaviour as kube-controller-manager's and kube-scheduler's.

mod action;
mod aggregation;
mod claim;
mod deployment;
mod election;
mod event_ttl;
mod executor;
mod garbage;
mod job;
mod kinds;
mod namespace;
mod namespace_defaults;
mod node_lifecycle;
mod objects;
mod pod_gc;
mod queue;
mod recorder;
mod replica_set;
mod runner;
mod scheduler;
mod taint_eviction;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tolerations;

pub use election::run_elected;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

/// What controllers have to know of their surroundings.
#[derive(Clone, Debug, Default)]
pub struct ControllerConfig {
    /// Certificate authority that service accounts are told to trust the API server by (`kube-root-ca.crt`), PEM.
    pub root_ca_pem: String,
}

/// Starts all controllers. They end when `shutdown` is cancelled; wait for that with [`JoinSet::join_all`].
pub fn spawn_all(registry: &Registry, config: ControllerConfig, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut controllers: Vec<Box<dyn runner::Controller>> = vec![
        Box::new(scheduler::Scheduler),
        Box::new(deployment::Deployments),
        Box::new(replica_set::ReplicaSets),
        Box::new(job::Jobs),
        Box::new(garbage::GarbageCollector::default()),
        Box::new(namespace::Namespaces),
        Box::new(namespace_defaults::NamespaceDefaults { root_ca_pem: config.root_ca_pem }),
        Box::new(node_lifecycle::NodeLifecycle::default()),
        Box::new(taint_eviction::TaintEviction),
        Box::new(pod_gc::PodGc::default()),
        Box::new(aggregation::RoleAggregation),
    ];
    if !registry.store().expires_keys() {
        controllers.push(Box::new(event_ttl::EventTtl));
    }
    runner::spawn(registry, controllers, shutdown)
}
