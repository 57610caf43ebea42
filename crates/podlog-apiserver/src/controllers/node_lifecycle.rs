//! Watches over nodes: one whose kubelet falls silent becomes unknown and tainted, so that its pods can leave.
//!
//! As `pkg/controller/nodelifecycle`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::{Value, json};

use super::{
    action::{Action, Event, Severity},
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
    tolerations::{NO_EXECUTE, NO_SCHEDULE},
};
use crate::registry::Part;

const COMPONENT: &str = "node-controller";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Silence after which a node counts as lost.
const GRACE: Duration = Duration::from_secs(40);
/// How often silence is measured.
const PERIOD: Duration = Duration::from_secs(5);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that nobody vouches for any more when the kubelet is silent.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const PRESSURES: [(&str, &str); 3] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// The node lifecycle controller.
#[derive(Default)]
pub(crate) struct NodeLifecycle {
    /// The last sign of life of each node, and when it was seen by our own clock: clocks of nodes differ, and ours can jump.
    seen: Mutex<HashMap<String, (String, Instant)>>,
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::nodes()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        if change.is_deletion {
            self.seen.lock().remove(change.object.name());
            return Ok(Vec::new());
        }
        Ok(vec![Key::of(change.object)])
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(node) = objects.find(kinds::nodes(), "", &key.name)? else { return Ok(Vec::new()) };
        let lease = objects.find(kinds::leases(), LEASE_NAMESPACE, &key.name)?;
        let (silence, is_new) = self.silence(&node, lease.as_ref());
        let pods = if silence < GRACE { Vec::new() } else { whole_pods_on(objects, &key.name)? };
        let mut actions = decide(&node, silence, &pods, now);
        if is_new {
            let message = format!("Node {0} event: Registered Node {0} in Controller", node.name());
            actions.push(tell(&node, "RegisteredNode", message));
        }
        actions.push(Action::Requeue(PERIOD));
        Ok(actions)
    }
}

impl NodeLifecycle {
    /// How long the node has given no new sign of life, and whether it is seen for the first time.
    fn silence(&self, node: &Object, lease: Option<&Object>) -> (Duration, bool) {
        let heartbeat = condition(node, "Ready").and_then(|ready| ready["lastHeartbeatTime"].as_str());
        let renewed = lease.map(|lease| lease.text("/spec/renewTime"));
        let sign = format!("{heartbeat:?} {renewed:?}");
        let mut seen = self.seen.lock();
        match seen.get(node.name()) {
            Some((known, since)) if *known == sign => (since.elapsed(), false),
            known => {
                let is_new = known.is_none();
                seen.insert(node.name().to_owned(), (sign, Instant::now()));
                (Duration::ZERO, is_new)
            }
        }
    }
}

fn decide(node: &Object, silence: Duration, pods: &[Object], now: Timestamp) -> Vec<Action> {
    let mut judged = node.clone();
    if silence >= GRACE {
        for name in CONDITIONS {
            set_unknown(&mut judged, name, now);
        }
    }
    let mut actions = Vec::new();
    let lost = status_of(&judged, "Ready") != status_of(node, "Ready");
    let tainted = with_taints(node, &judged, now);
    actions.extend(Action::update(kinds::nodes(), Part::Main, node, tainted));
    actions.extend(Action::update(kinds::nodes(), Part::Status, node, judged));
    if lost {
        let message = format!("Node {} status is now: NodeNotReady", node.name());
        actions.push(tell(node, "NodeNotReady", message));
        let on_node = pods.iter().filter(|pod| pod.text("/spec/nodeName") == node.name());
        actions.extend(on_node.filter_map(|pod| mark_not_ready(pod, now)));
    }
    actions
}

fn tell(node: &Object, reason: &'static str, message: String) -> Action {
    let event =
        Event { regarding: node.clone(), severity: Severity::Normal, reason, message, component: COMPONENT };
    Action::Event(event)
}

fn status_of<'a>(node: &'a Object, name: &str) -> &'a str {
    condition(node, name).and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

fn set_unknown(node: &mut Object, name: &str, now: Timestamp) {
    let known = condition(node, name).cloned();
    if known.as_ref().is_some_and(|known| known["status"] == "Unknown") {
        return;
    }
    let (reason, message) = match known {
        Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
    };
    let mut unknown = json!({"type": name, "status": "Unknown", "reason": reason, "message": message});
    unknown["lastTransitionTime"] = json!(time_text(now));
    let heartbeat = known
        .map_or(node.0["metadata"]["creationTimestamp"].clone(), |known| known["lastHeartbeatTime"].clone());
    unknown["lastHeartbeatTime"] = heartbeat;
    set_condition(node, unknown);
}

/// The taints that follow from the node's conditions, beside those that others gave it.
fn with_taints(node: &Object, judged: &Object, now: Timestamp) -> Object {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match status_of(judged, "Ready") {
        "True" => {}
        "Unknown" => wanted.extend([(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
        _ => wanted.extend([(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
    }
    for (name, taint) in PRESSURES {
        if status_of(judged, name) == "True" {
            wanted.push((taint, NO_SCHEDULE));
        }
    }
    if node.at("/spec/unschedulable") == Some(&Value::Bool(true)) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is = |taint: &Value, (key, effect): (&str, &str)| taint["key"] == key && taint["effect"] == effect;
    let present = node.array("/spec/taints");
    let kept = present.iter().filter(|taint| !is_ours(taint) || wanted.iter().any(|pair| is(taint, *pair)));
    let mut taints: Vec<Value> = kept.cloned().collect();
    for pair in wanted {
        if !present.iter().any(|taint| is(taint, pair)) {
            taints.push(json!({"key": pair.0, "effect": pair.1, "timeAdded": time_text(now)}));
        }
    }
    let mut tainted = node.clone();
    if taints.is_empty() {
        tainted.map_mut("spec").remove("taints");
    } else {
        tainted.map_mut("spec").insert("taints".into(), json!(taints));
    }
    tainted
}

fn is_ours(taint: &Value) -> bool {
    let key = taint["key"].as_str().unwrap_or_default();
    matches!(key, NOT_READY | UNREACHABLE | UNSCHEDULABLE)
        || PRESSURES.iter().any(|(_, pressure)| *pressure == key)
}

/// Nobody can say that the pods of a lost node are ready.
fn mark_not_ready(pod: &Object, now: Timestamp) -> Option<Action> {
    let mut ready = condition(pod, "Ready").filter(|ready| ready["status"] == "True")?.clone();
    ready["status"] = json!("False");
    ready["lastTransitionTime"] = json!(time_text(now));
    let mut marked = pod.clone();
    set_condition(&mut marked, ready);
    Action::update(kinds::pods(), Part::Status, pod, marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: Option<&str>, spec: Value) -> Object {
        let conditions =
            ready.map(|status| json!([{"type": "Ready", "status": status, "lastHeartbeatTime": "t"}]));
        Object::new(
            json!({"kind": "Node", "metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}),
        )
    }

    /// Taints as `key:effect` without the common prefix, and the Ready condition, after the controller has looked.
    fn after(node: &Object, silence: Duration) -> (Vec<String>, String) {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (mut main, mut status) = (node.clone(), node.clone());
        for action in decide(node, silence, &[], now) {
            match action {
                Action::Update { part: Part::Main, object, .. } => main = object,
                Action::Update { part: Part::Status, object, .. } => status = object,
                _ => {}
            }
        }
        let taint = |taint: &Value| {
            let key = taint["key"].as_str().unwrap().trim_start_matches("node.kubernetes.io/");
            format!("{key}:{}", taint["effect"].as_str().unwrap())
        };
        (main.array("/spec/taints").iter().map(taint).collect(), status_of(&status, "Ready").to_owned())
    }

    #[test]
    fn nodes_are_judged() {
        let quiet = Duration::from_secs(39);
        let silent = GRACE;
        let unreachable = ["unreachable:NoSchedule", "unreachable:NoExecute"];
        let not_ready = ["not-ready:NoSchedule", "not-ready:NoExecute"];
        let own = json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]});
        let was_lost = json!({"taints": [{"key": UNREACHABLE, "effect": NO_EXECUTE}, {"key": UNREACHABLE, "effect": NO_SCHEDULE}]});
        let rows: [(Object, Duration, &[&str], &str); 8] = [
            (node(Some("True"), json!({})), quiet, &[], "True"),
            (node(Some("True"), json!({})), silent, &unreachable, "Unknown"),
            (node(Some("False"), json!({})), quiet, &not_ready, "False"),
            (node(None, json!({})), quiet, &not_ready, ""),
            (node(None, json!({})), silent, &unreachable, "Unknown"),
            (node(Some("True"), own), quiet, &["mine:NoSchedule"], "True"),
            (node(Some("True"), was_lost), quiet, &[], "True"),
            (
                node(Some("True"), json!({"unschedulable": true})),
                quiet,
                &["unschedulable:NoSchedule"],
                "True",
            ),
        ];
        for (node, silence, taints, ready) in rows {
            let (found, status) = after(&node, silence);
            assert_eq!(found, taints, "{node:?}");
            assert_eq!(status, ready, "{node:?}");
        }
    }

    #[test]
    fn pods_of_lost_nodes_are_not_ready() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let pod = |name: &str, node: &str| {
            Object::new(json!({"kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
        };
        let actions = decide(&node(Some("True"), json!({})), GRACE, &[pod("a", "n"), pod("b", "other")], now);
        let marked: Vec<&str> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Update { object, .. } if object.kind() == "Pod" => Some(object.name()),
                _ => None,
            })
            .collect();
        assert_eq!(marked, ["a"]);
    }

    #[test]
    fn silence_is_measured_by_our_own_clock() {
        let lifecycle = NodeLifecycle::default();
        let old = node(Some("True"), json!({}));
        assert_eq!(lifecycle.silence(&old, None), (Duration::ZERO, true));
        let (silence, is_new) = lifecycle.silence(&old, None);
        assert!(silence < GRACE && !is_new);
        let lease = Object::new(json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}));
        assert_eq!(lifecycle.silence(&old, Some(&lease)), (Duration::ZERO, false));
    }
}
