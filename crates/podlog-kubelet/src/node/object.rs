//! The Node object itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{capacity, info};
use crate::config::KubeletConfiguration;
use crate::env::NodeFacts;
use crate::runtime::RuntimeVersion;

/// Labels that belong to the kubelet: its own, and those it was given.
pub(super) fn labels(facts: &NodeFacts) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), facts.name.clone())]);
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        labels.insert(format!("{prefix}/os"), "linux".into());
        labels.insert(format!("{prefix}/arch"), info::architecture().into());
    }
    labels.extend(facts.labels.clone());
    labels
}

/// A Node as it is registered, without its status.
pub(super) fn new(facts: &NodeFacts, config: &KubeletConfiguration) -> Node {
    let taints: Option<Vec<Taint>> =
        (!config.register_with_taints.is_empty()).then(|| config.register_with_taints.clone());
    let provider_id = (!config.provider_id.is_empty()).then(|| config.provider_id.clone());
    Node {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            labels: Some(labels(facts)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints, provider_id, ..NodeSpec::default() }),
        status: None,
    }
}

/// The node's status.
pub(super) fn status(
    facts: &NodeFacts,
    port: u16,
    runtime: &RuntimeVersion,
    config: &KubeletConfiguration,
    conditions: Vec<NodeCondition>,
) -> NodeStatus {
    let quantities = |map: BTreeMap<String, String>| -> BTreeMap<String, Quantity> {
        map.into_iter().map(|(name, amount)| (name, Quantity(amount))).collect()
    };
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    NodeStatus {
        capacity: Some(quantities(capacity::capacity(config.max_pods))),
        allocatable: Some(quantities(capacity::allocatable(config.max_pods))),
        conditions: Some(conditions),
        addresses: Some(vec![
            address("InternalIP", facts.ip.to_string()),
            address("Hostname", facts.name.clone()),
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        node_info: Some(info::system(runtime)),
        ..NodeStatus::default()
    }
}
