//! What the pods of each node take of it, kept by what is reported of them: there may be very many, and whoever waits is measured
//! against all.

use std::collections::BTreeMap;

use podlog_api::Object;
use serde_json::{Map, Value};

use super::resources::{self, Amounts};
use crate::controllers::{objects::is_pod_finished, runner::Key};

/// A node nobody is on.
static NOBODY: OnNode = OnNode { pods: BTreeMap::new(), requested: BTreeMap::new() };

/// All nodes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    nodes: BTreeMap<String, OnNode>,
    /// The node of each pod.
    homes: BTreeMap<Key, String>,
}

/// One node.
#[derive(Debug, Default)]
pub(super) struct OnNode {
    pods: BTreeMap<Key, Claim>,
    requested: Amounts,
}

/// What one pod takes.
#[derive(Debug)]
pub(super) struct Claim {
    labels: Map<String, Value>,
    ports: Vec<HostPort>,
    requests: Amounts,
}

/// A port of the node's own.
#[derive(Debug)]
pub(super) struct HostPort {
    ip: String,
    port: i64,
    protocol: String,
}

impl Claims {
    /// A pod as it was seen last. One without a node may have been given one since.
    pub(super) fn note(&mut self, key: &Key, pod: &Object) {
        let node = pod.text("/spec/nodeName");
        if is_pod_finished(pod) {
            self.remove(key);
        } else if !node.is_empty() {
            self.insert(key, node, pod);
        }
    }

    /// The pod is on the node, or soon will be.
    pub(super) fn insert(&mut self, key: &Key, node: &str, pod: &Object) {
        self.remove(key);
        let claim = Claim::of(pod);
        let on = self.nodes.entry(node.to_owned()).or_default();
        resources::add(&mut on.requested, &claim.requests);
        on.pods.insert(key.clone(), claim);
        self.homes.insert(key.clone(), node.to_owned());
    }

    /// The pod is on no node any more.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(node) = self.homes.remove(key) else { return };
        let Some(on) = self.nodes.get_mut(&node) else { return };
        if let Some(claim) = on.pods.remove(key) {
            resources::subtract(&mut on.requested, &claim.requests);
        }
        if on.pods.is_empty() {
            self.nodes.remove(&node);
        }
    }

    /// Whether the pod is known to be on a node.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.homes.contains_key(key)
    }

    pub(super) fn on(&self, node: &str) -> &OnNode {
        self.nodes.get(node).unwrap_or(&NOBODY)
    }
}

impl OnNode {
    /// How many pods there are.
    pub(super) fn count(&self) -> usize {
        self.pods.len()
    }

    /// How much of a resource is asked for, in billionths.
    pub(super) fn requested(&self, resource: &str) -> i128 {
        self.requested.get(resource).copied().unwrap_or(0)
    }

    /// The pods' namespaces and labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.pods.iter().map(|(key, claim)| (key.namespace.as_str(), &claim.labels))
    }

    /// Whether a pod there has the port.
    pub(super) fn has(&self, port: &HostPort) -> bool {
        self.pods.values().flat_map(|claim| &claim.ports).any(|taken| taken.excludes(port))
    }
}

impl Claim {
    fn of(pod: &Object) -> Self {
        let labels = pod.at("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
        Claim { labels, ports: host_ports(pod), requests: resources::requests(pod) }
    }
}

impl HostPort {
    fn excludes(&self, other: &HostPort) -> bool {
        let is_any = |ip: &str| matches!(ip, "" | "0.0.0.0");
        let same_ip = self.ip == other.ip || is_any(&self.ip) || is_any(&other.ip);
        same_ip && self.port == other.port && self.protocol == other.protocol
    }
}

/// The ports of the node that a pod asks for.
pub(super) fn host_ports(pod: &Object) -> Vec<HostPort> {
    let containers = pod.array("/spec/containers").iter();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports
        .filter_map(|port| {
            let number = port["hostPort"].as_i64().filter(|number| *number > 0)?;
            Some(HostPort {
                ip: port["hostIP"].as_str().unwrap_or_default().to_owned(),
                port: number,
                protocol: port["protocol"].as_str().unwrap_or("TCP").to_owned(),
            })
        })
        .collect()
}
