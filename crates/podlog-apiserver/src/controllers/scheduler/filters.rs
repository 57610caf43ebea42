//! Which nodes a pod may run on: taints, selectors, affinity, ports, resources.
//!
//! Texts as the plugins of `pkg/scheduler/framework/plugins`.

use podlog_api::{Object, selector::LabelSelector};
use serde_json::{Map, Value, json};

use super::{
    claims::{OnNode, host_ports},
    resources,
};
use crate::controllers::tolerations::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, is_tolerated, taints};

/// What keeps a pod from a node, in upstream's words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Obstacle {
    pub(super) reasons: Vec<String>,
    /// It would be there on an empty node, too.
    pub(super) is_of_the_node: bool,
}

impl Obstacle {
    fn of_the_node(reason: &str) -> Self {
        Obstacle { reasons: vec![reason.to_owned()], is_of_the_node: true }
    }

    fn of_other_pods(reason: &str) -> Self {
        Obstacle { reasons: vec![reason.to_owned()], is_of_the_node: false }
    }
}

/// Why the pod cannot run on the node; `None` when it can. The first kind of obstacle counts, as upstream stops there.
pub(super) fn obstacle(pod: &Object, node: &Object, on_node: &OnNode) -> Option<Obstacle> {
    if is_unschedulable(pod, node) {
        return Some(Obstacle::of_the_node("node(s) were unschedulable"));
    }
    if taints(node).iter().any(|taint| is_hard(taint) && !is_tolerated(pod, taint)) {
        return Some(Obstacle::of_the_node("node(s) had untolerated taint(s)"));
    }
    if !selects(pod, node) {
        return Some(Obstacle::of_the_node("node(s) didn't match Pod's node affinity/selector"));
    }
    if host_ports(pod).iter().any(|port| on_node.has(port)) {
        return Some(Obstacle::of_other_pods("node(s) didn't have free ports for the requested pod ports"));
    }
    resources::missing(pod, node, on_node).or_else(|| inter_pod_obstacle(pod, on_node))
}

/// Whether a daemon may run on the node at all, whatever else is there: selectors, and taints that keep it from starting or
/// drive it out (`pkg/controller/daemon`, `NodeShouldRunDaemonPod`).
pub(crate) fn may_hold(pod: &Object, node: &Object) -> bool {
    selects(pod, node) && taints(node).iter().all(|taint| !is_hard(taint) || is_tolerated(pod, taint))
}

/// Whether a daemon that runs on the node may go on: only taints that drive it out count (`NodeShouldRunDaemonPod`, too).
pub(crate) fn may_keep(pod: &Object, node: &Object) -> bool {
    let drives_out = |taint: &&Value| taint["effect"] == NO_EXECUTE && !is_tolerated(pod, taint);
    selects(pod, node) && !taints(node).iter().any(|taint| drives_out(&taint))
}

/// Taints that the pod should rather stay away from.
pub(super) fn avoided_taints(pod: &Object, node: &Object) -> usize {
    let soft = |taint: &&Value| taint["effect"] == PREFER_NO_SCHEDULE && !is_tolerated(pod, taint);
    taints(node).iter().filter(soft).count()
}

/// The weights of the pod's node preferences that the node meets.
pub(super) fn preference(pod: &Object, node: &Object) -> i64 {
    let preferences =
        pod.array("/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution").iter();
    let met = preferences.filter(|preference| term_matches(&preference["preference"], node));
    met.filter_map(|preference| preference["weight"].as_i64()).sum()
}

fn is_hard(taint: &Value) -> bool {
    taint["effect"] == NO_SCHEDULE || taint["effect"] == NO_EXECUTE
}

fn is_unschedulable(pod: &Object, node: &Object) -> bool {
    let taint = json!({"key": "node.kubernetes.io/unschedulable", "effect": NO_SCHEDULE});
    node.at("/spec/unschedulable") == Some(&Value::Bool(true)) && !is_tolerated(pod, &taint)
}

fn selects(pod: &Object, node: &Object) -> bool {
    let labels = node.at("/metadata/labels").and_then(Value::as_object);
    let selector = LabelSelector::from_labels(pod.at("/spec/nodeSelector").unwrap_or(&Value::Null));
    let required = pod.at("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    let affinity = required.filter(|required| required.is_object()).is_none_or(|required| {
        let terms = required["nodeSelectorTerms"].as_array();
        terms.into_iter().flatten().any(|term| term_matches(term, node))
    });
    selector.is_ok_and(|selector| selector.matches(labels)) && affinity
}

/// A term of node affinity: all its expressions hold. A term without any matches nothing.
fn term_matches(term: &Value, node: &Object) -> bool {
    let (labels, fields) = (&term["matchExpressions"], &term["matchFields"]);
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    if is_empty(labels) && is_empty(fields) {
        return false;
    }
    let node_labels = node.at("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let node_fields = Map::from_iter([("metadata.name".to_owned(), json!(node.name()))]);
    expressions_match(labels, &node_labels) && expressions_match(fields, &node_fields)
}

fn expressions_match(expressions: &Value, values: &Map<String, Value>) -> bool {
    if !expressions.is_array() {
        return true;
    }
    let selector = LabelSelector::from_value(&json!({"matchExpressions": expressions}));
    selector.is_ok_and(|selector| selector.matches(Some(values)))
}

/// Required affinity and anti-affinity between pods of the same host; other topologies count as met.
fn inter_pod_obstacle(pod: &Object, on_node: &OnNode) -> Option<Obstacle> {
    let required = |kind: &str| {
        let pointer = format!("/spec/affinity/{kind}/requiredDuringSchedulingIgnoredDuringExecution");
        pod.array(&pointer)
            .iter()
            .filter(|term| term["topologyKey"] == "kubernetes.io/hostname")
            .cloned()
            .collect::<Vec<_>>()
    };
    let near = |term: &Value, (namespace, labels): (&str, &Map<String, Value>)| {
        let namespaces = term["namespaces"].as_array();
        let in_namespace = match namespaces {
            Some(list) if !list.is_empty() => list.iter().any(|name| name == namespace),
            _ => namespace == pod.namespace(),
        };
        let selector = LabelSelector::from_value(&term["labelSelector"]);
        in_namespace && selector.is_ok_and(|selector| selector.matches(Some(labels)))
    };
    let nothing = Map::new();
    let own = pod.at("/metadata/labels").and_then(Value::as_object).unwrap_or(&nothing);
    let others = |term: &Value| on_node.labels().any(|other| near(term, other));
    let attracted = |term: &Value| near(term, (pod.namespace(), own)) || others(term);
    if !required("podAffinity").iter().all(attracted) {
        return Some(Obstacle::of_the_node("node(s) didn't match pod affinity rules"));
    }
    let is_repelled = required("podAntiAffinity").iter().any(others);
    is_repelled.then(|| Obstacle::of_other_pods("node(s) didn't match pod anti-affinity rules"))
}
