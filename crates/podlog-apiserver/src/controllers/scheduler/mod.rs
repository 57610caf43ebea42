//! Gives pods to nodes: as kube-scheduler with its default plugins, as far as single machines and small clusters need them.

mod filters;
mod resources;

pub(crate) use filters::{may_hold, may_keep};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::{Value, json};

use super::{
    action::{Action, Event, Severity},
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
};
use crate::registry::Part;
use filters::Obstacle;

const COMPONENT: &str = "default-scheduler";
/// Pods that found no node are looked at again after this time even when nothing was seen to change.
const RETRY: Duration = Duration::from_secs(300);

/// The scheduler.
#[derive(Default)]
pub(crate) struct Scheduler {
    /// Pods that were without a node when last seen.
    waiting: Mutex<BTreeSet<Key>>,
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::pods(), kinds::nodes()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        let mut waiting = self.waiting.lock();
        if change.resource.kind == "Pod" {
            let key = Key::of(change.object);
            if !change.is_deletion && is_waiting(change.object) {
                waiting.insert(key.clone());
                return Ok(vec![key]);
            }
            waiting.remove(&key);
        }
        Ok(if may_make_room(change) { waiting.iter().cloned().collect() } else { Vec::new() })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let pod = objects.find(kinds::pods(), &key.namespace, &key.name)?.filter(is_waiting);
        let Some(pod) = pod else {
            self.waiting.lock().remove(key);
            return Ok(Vec::new());
        };
        self.waiting.lock().insert(key.clone());
        let nodes = objects.list(kinds::nodes(), None)?;
        let pods = objects.select(kinds::pods(), None, &|_| true, &claim_on_node)?;
        Ok(decide(&pod, &nodes, &pods, now))
    }
}

/// Whether the pod is ours to give to a node.
fn is_waiting(pod: &Object) -> bool {
    is_pod_active(pod)
        && pod.text("/spec/nodeName").is_empty()
        && pod.array("/spec/schedulingGates").is_empty()
        && matches!(pod.text("/spec/schedulerName"), "" | COMPONENT)
}

/// What a pod takes of its node, for [`choose`]; `None` when it takes nothing. There may be very many.
fn claim_on_node(mut pod: Object) -> Option<Object> {
    if pod.text("/spec/nodeName").is_empty() || is_pod_finished(&pod) {
        return None;
    }
    pod.metadata_mut().retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "labels"));
    let spec = pod.map_mut("spec");
    let keys = ["nodeName", "containers", "initContainers", "resources", "overhead"];
    spec.retain(|key, _| keys.contains(&key.as_str()));
    for key in ["containers", "initContainers"] {
        let containers = spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            container.retain(|key, _| matches!(key.as_str(), "resources" | "ports" | "restartPolicy"));
        }
    }
    Some(pod)
}

/// Whether pods that found no node may find one after the change.
fn may_make_room(change: &Change<'_>) -> bool {
    if change.resource.kind == "Pod" {
        let had_node = !change.object.text("/spec/nodeName").is_empty();
        return had_node && (change.is_deletion || is_pod_finished(change.object));
    }
    let relevant = |node: &Object| {
        let labels = node.at("/metadata/labels").cloned();
        (node.at("/spec").cloned(), labels, node.at("/status/allocatable").cloned())
    };
    // Heartbeats alone change nothing for pods.
    change.previous.is_none_or(|previous| relevant(previous) != relevant(change.object))
}

fn decide(pod: &Object, nodes: &[Object], pods: &[Object], now: Timestamp) -> Vec<Action> {
    match choose(pod, nodes, pods) {
        Ok(node) => {
            let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
            vec![
                Action::Bind { pod: pod.clone(), node: node.to_owned() },
                event(pod, Severity::Normal, "Scheduled", message),
            ]
        }
        Err(message) => {
            let mut actions = vec![Action::Requeue(RETRY)];
            let known = condition(pod, "PodScheduled").is_some_and(|known| known["message"] == message);
            if !known {
                let marked = with_unschedulable(pod, &message, now);
                actions.extend(Action::update(kinds::pods(), Part::Status, pod, marked));
                actions.push(event(pod, Severity::Warning, "FailedScheduling", message));
            }
            actions
        }
    }
}

fn event(pod: &Object, severity: Severity, reason: &'static str, message: String) -> Action {
    Action::Event(Event { regarding: pod.clone(), severity, reason, message, component: COMPONENT })
}

fn with_unschedulable(pod: &Object, message: &str, now: Timestamp) -> Object {
    let mut marked = pod.clone();
    let known = condition(pod, "PodScheduled").filter(|known| known["status"] == "False");
    let transition = known.map_or(json!(time_text(now)), |known| known["lastTransitionTime"].clone());
    set_condition(
        &mut marked,
        json!({
            "type": "PodScheduled",
            "status": "False",
            "observedGeneration": pod.at("/metadata/generation"),
            "lastProbeTime": null,
            "lastTransitionTime": transition,
            "reason": "Unschedulable",
            "message": message,
        }),
    );
    marked
}

/// The node for the pod, or why there is none. `pods` are all pods; those on nodes take room.
fn choose<'a>(pod: &Object, nodes: &'a [Object], pods: &[Object]) -> Result<&'a str, String> {
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".into());
    }
    let (mut obstacles, mut feasible) = (Vec::new(), Vec::new());
    for node in nodes {
        let on_node: Vec<&Object> = pods
            .iter()
            .filter(|other| other.text("/spec/nodeName") == node.name() && !is_pod_finished(other))
            .collect();
        match filters::obstacle(pod, node, &on_node) {
            None => feasible.push((score(pod, node, &on_node), node.name())),
            Some(obstacle) => obstacles.push(obstacle),
        }
    }
    match feasible.into_iter().min() {
        Some((_, name)) => Ok(name),
        None => Err(explain(pod, &obstacles)),
    }
}

/// Nodes with a lower score are better: not avoided, preferred by affinity, few pods, much room.
fn score(pod: &Object, node: &Object, on_node: &[&Object]) -> (usize, i64, usize, i64) {
    let avoided = filters::avoided_taints(pod, node);
    let preference = filters::preference(pod, node);
    (avoided, -preference, on_node.len(), resources::load_percent(node, on_node))
}

/// What kube-scheduler says with dynamic resources and preemption turned on, as they are by default; other pods are never evicted here.
fn explain(pod: &Object, obstacles: &[Obstacle]) -> String {
    let nodes = obstacles.len();
    let why = counted(obstacles.iter().flat_map(|obstacle| obstacle.reasons.iter().map(String::as_str)));
    let preemption = if pod.text("/spec/preemptionPolicy") == "Never" {
        "not eligible due to preemptionPolicy=Never.".to_owned()
    } else {
        let helps = |obstacle: &Obstacle| match obstacle.is_of_the_node {
            true => "Preemption is not helpful for scheduling",
            false => "No preemption victims found for incoming pod",
        };
        format!("0/{nodes} nodes are available: {}.", counted(obstacles.iter().map(helps)))
    };
    format!("0/{nodes} nodes are available: {why}. no new claims to deallocate, preemption: {preemption}")
}

/// Each reason with the number of nodes that it holds for, in the order of the text.
fn counted<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
    let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    parts.join(", ")
}

#[cfg(test)]
mod tests;
