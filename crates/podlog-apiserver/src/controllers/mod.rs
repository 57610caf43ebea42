//! Controllers: what brings objects from what they are to what they should be.
//!
//! Each decides in pure functions, from objects and a time to actions; one loop for all of them watches, queues, acts and
//! tries again. Behaviour as kube-controller-manager's and kube-scheduler's.

mod action;
mod aggregation;
mod certificates;
mod claim;
mod daemon_set;
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
mod revision;
mod runner;
mod scheduler;
mod stateful_set;
mod taint_eviction;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tolerations;
mod turns;

use std::sync::Arc;
use std::time::Duration;

pub use election::run_elected;
use podlog_serving::Authorizer;
use podlog_serving::pki::Signer;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

/// What controllers have to know of their surroundings.
#[derive(Clone, Default)]
pub struct ControllerConfig {
    /// Certificate authority that service accounts are told to trust the API server by (`kube-root-ca.crt`), PEM.
    pub root_ca_pem: String,
    /// Says whose requests for certificates are approved unseen. Without it, none are.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// Signs requests for certificates that are approved. Without it, they wait for a signer from elsewhere.
    pub signing: Option<CertificateSigning>,
}

/// How requests for certificates are signed.
#[derive(Clone)]
pub struct CertificateSigning {
    /// With which authority (`--cluster-signing-cert-file`, `--cluster-signing-key-file`).
    pub signer: Arc<Signer>,
    /// How long certificates are valid, unless their request wants less (`--cluster-signing-duration`).
    pub duration: Duration,
}

impl CertificateSigning {
    /// Default of [`CertificateSigning::duration`]: a year.
    pub const DEFAULT_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
}

/// Starts all controllers. They end when `shutdown` is cancelled; wait for that with [`JoinSet::join_all`].
pub fn spawn_all(registry: &Registry, config: ControllerConfig, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut controllers: Vec<Box<dyn runner::Controller>> = vec![
        Box::new(scheduler::Scheduler::default()),
        Box::new(deployment::Deployments),
        Box::new(replica_set::ReplicaSets),
        Box::new(daemon_set::DaemonSets),
        Box::new(stateful_set::StatefulSets),
        Box::new(job::Jobs),
        Box::new(garbage::GarbageCollector::default()),
        Box::new(namespace::Namespaces),
        Box::new(namespace_defaults::NamespaceDefaults { root_ca_pem: config.root_ca_pem }),
        Box::new(node_lifecycle::NodeLifecycle::default()),
        Box::new(taint_eviction::TaintEviction::default()),
        Box::new(pod_gc::PodGc::default()),
        Box::new(aggregation::RoleAggregation),
        Box::new(certificates::Cleaner),
    ];
    if let Some(authorizer) = config.authorizer {
        controllers.push(Box::new(certificates::Approver { authorizer }));
    }
    if let Some(signing) = config.signing {
        controllers.push(Box::new(certificates::Signing(signing)));
    }
    if !registry.store().expires_keys() {
        controllers.push(Box::new(event_ttl::EventTtl));
    }
    runner::spawn(registry, controllers, shutdown)
}
