//! The Node object of this machine: registered, kept up to date, and alive by its lease.
//!
//! Follows `pkg/kubelet/kubelet_node_status.go` and `pkg/kubelet/nodestatus/setters.go`.

pub(crate) mod capacity;
mod conditions;
mod info;
mod lease;
mod object;
mod runtime_health;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::KubeletConfiguration;
use crate::env::NodeFacts;
use crate::events::{Events, Level};
use crate::eviction::Pressures;
use crate::objects::api_message;
use crate::runtime::{ContainerRuntime, RuntimeVersion};
use runtime_health::RuntimeHealth;

/// Pauses between attempts to register: doubling from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(7);

/// The address under which the node is reached: the one it listens on, or, when it listens on all, the one from which the
/// API server is reached.
pub fn internal_ip(listen: SocketAddr, api_server: Option<SocketAddr>) -> IpAddr {
    let Some(api_server) = api_server.filter(|_| listen.ip().is_unspecified()) else { return listen.ip() };
    let any: IpAddr = if api_server.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    // Connecting a datagram socket sends nothing; it only picks the route.
    let socket = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(api_server)?;
        socket.local_addr()
    });
    socket.map_or(api_server.ip(), |address| address.ip())
}

/// Keeps the Node object.
pub(crate) struct NodeAgent {
    facts: NodeFacts,
    port: u16,
    runtime: RuntimeVersion,
    events: Events,
    config: KubeletConfiguration,
    health: Mutex<RuntimeHealth>,
    pressures: Pressures,
}

impl NodeAgent {
    pub(crate) fn new(
        config: &KubeletConfiguration,
        facts: NodeFacts,
        port: u16,
        runtime: (Arc<dyn ContainerRuntime>, RuntimeVersion),
        pressures: Pressures,
        events: Events,
    ) -> Self {
        let (runtime, version) = runtime;
        let health = Mutex::new(RuntimeHealth::new(runtime, config.node_status_update_frequency));
        NodeAgent { facts, port, runtime: version, events, config: config.clone(), health, pressures }
    }

    /// Registers the node, then keeps status and lease until shutdown.
    pub(crate) async fn run(self, client: kube::Client, shutdown: CancellationToken) {
        let lease = lease::keep(
            client.clone(),
            self.facts.name.clone(),
            self.config.node_lease_duration,
            shutdown.clone(),
        );
        let status = async {
            if shutdown.run_until_cancelled(self.register(&client)).await.is_some() {
                self.events.node(&self.facts.name, Level::Normal, "Starting", "Starting kubelet.");
                self.report(&client, &shutdown).await;
            }
        };
        tokio::join!(lease, status);
    }

    /// Creates the Node object or brings an older one up to date, until that works.
    async fn register(&self, client: &kube::Client) {
        let api = Api::<Node>::all(client.clone());
        let mut pause = FIRST_RETRY;
        loop {
            match self.register_once(&api).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(
                        node = self.facts.name,
                        error = api_message(&error),
                        "cannot register yet"
                    );
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    async fn register_once(&self, api: &Api<Node>) -> Result<(), kube::Error> {
        if let Some(node) = api.get_opt(&self.facts.name).await? {
            return self.reconcile(api, &node).await;
        }
        if !self.config.register_node {
            return Err(kube::Error::Api(Box::new(not_registered(&self.facts.name))));
        }
        let mut node = object::new(&self.facts, &self.config);
        node.status = Some(self.status(None).await);
        match api.create(&PostParams::default(), &node).await {
            Ok(_) => {
                tracing::info!(node = self.facts.name, "node registered");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Labels that belong to the kubelet, on a node that exists already.
    async fn reconcile(&self, api: &Api<Node>, node: &Node) -> Result<(), kube::Error> {
        let labels = object::labels(&self.facts);
        let present = node.metadata.labels.as_ref();
        if labels.iter().all(|(key, value)| present.and_then(|map| map.get(key)) == Some(value)) {
            return Ok(());
        }
        let patch = Patch::Strategic(json!({ "metadata": { "labels": labels } }));
        api.patch(&self.facts.name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Writes the status when it changes, and every few minutes when it does not.
    async fn report(&self, client: &kube::Client, shutdown: &CancellationToken) {
        let api = Api::<Node>::all(client.clone());
        let mut ticks = interval(self.config.node_status_update_frequency);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written: Option<(NodeStatus, Instant)> = None;
        let mut pressures = self.pressures.subscribe();
        loop {
            // What presses is known to the scheduler at once.
            let next = async {
                tokio::select! {
                    _ = ticks.tick() => {}
                    Ok(()) = pressures.changed() => {}
                }
            };
            if shutdown.run_until_cancelled(next).await.is_none() {
                return;
            }
            match shutdown.run_until_cancelled(self.write(&api, &mut written)).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(kube::Error::Api(status))) if status.code == 404 => {
                    if shutdown.run_until_cancelled(self.register(client)).await.is_none() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(
                        node = self.facts.name,
                        error = api_message(&error),
                        "cannot write node status"
                    );
                }
            }
        }
    }

    async fn write(
        &self,
        api: &Api<Node>,
        written: &mut Option<(NodeStatus, Instant)>,
    ) -> Result<(), kube::Error> {
        let old = match written {
            Some((status, _)) => Some(status.clone()),
            None => api.get(&self.facts.name).await?.status,
        };
        let status = self.status(old.as_ref()).await;
        let is_due =
            written.as_ref().is_none_or(|(_, at)| at.elapsed() >= self.config.node_status_report_frequency);
        if !is_due && old.as_ref().is_some_and(|old| conditions::same(old, &status)) {
            return Ok(());
        }
        if let Some(old) = &old {
            self.tell_readiness(old, &status);
        }
        let patch = Patch::Strategic(json!({ "status": status }));
        api.patch_status(&self.facts.name, &PatchParams::default(), &patch).await?;
        *written = Some((status, Instant::now()));
        Ok(())
    }

    fn tell_readiness(&self, old: &NodeStatus, new: &NodeStatus) {
        let name = &self.facts.name;
        match (conditions::is_ready(old), conditions::is_ready(new)) {
            (false, true) => {
                self.events.node(
                    name,
                    Level::Normal,
                    "NodeReady",
                    format!("Node {name} status is now: NodeReady"),
                );
            }
            (true, false) => {
                let message = format!("Node {name} status is now: NodeNotReady");
                self.events.node(name, Level::Normal, "NodeNotReady", message);
            }
            _ => {}
        }
    }

    async fn status(&self, old: Option<&NodeStatus>) -> NodeStatus {
        let mut health = self.health.lock().await;
        let complaint = health.complaint().await;
        let pressure = self.pressures.now();
        let conditions = conditions::now(old, Timestamp::now(), pressure, complaint.as_deref());
        object::status(&self.facts, self.port, &self.runtime, &self.config, conditions)
    }
}

fn not_registered(name: &str) -> kube::core::Status {
    kube::core::Status::failure(&format!("nodes \"{name}\" not found"), "NotFound").with_code(404)
}
