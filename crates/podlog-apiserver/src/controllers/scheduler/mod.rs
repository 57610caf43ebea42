//! Gives pods to nodes: as kube-scheduler with its default plugins, as far as single machines and small clusters need them.

mod filters;
mod resources;

pub(crate) use filters::{may_hold, may_keep};

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::json;

use super::{
    action::{Action, Event, Severity},
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
};
use crate::registry::Part;

const COMPONENT: &str = "default-scheduler";
/// Pods that found no node are looked at again after this time even when nothing was seen to change.
const RETRY: Duration = Duration::from_secs(300);

/// The scheduler.
pub(crate) struct Scheduler;

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::pods(), kinds::nodes()]
    }

    fn keys(&self, change: &Change<'_>, objects: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        if change.resource.kind == "Pod" && !change.is_deletion && is_waiting(change.object) {
            return Ok(vec![Key::of(change.object)]);
        }
        if !may_make_room(change) {
            return Ok(Vec::new());
        }
        let pods = objects.list(kinds::pods(), None)?;
        Ok(pods.iter().filter(|pod| is_waiting(pod)).map(Key::of).collect())
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(pod) = objects.find(kinds::pods(), &key.namespace, &key.name)? else {
            return Ok(Vec::new());
        };
        if !is_waiting(&pod) {
            return Ok(Vec::new());
        }
        let nodes = objects.list(kinds::nodes(), None)?;
        let pods = objects.list(kinds::pods(), None)?;
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
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut feasible = Vec::new();
    for node in nodes {
        let on_node: Vec<&Object> = pods
            .iter()
            .filter(|other| other.text("/spec/nodeName") == node.name() && !is_pod_finished(other))
            .collect();
        match filters::why_not(pod, node, &on_node) {
            whys if whys.is_empty() => feasible.push((score(pod, node, &on_node), node.name())),
            whys => whys.into_iter().for_each(|why| *reasons.entry(why).or_default() += 1),
        }
    }
    match feasible.into_iter().min() {
        Some((_, name)) => Ok(name),
        None => Err(explain(&reasons, nodes.len())),
    }
}

/// Nodes with a lower score are better: not avoided, preferred by affinity, few pods, much room.
fn score(pod: &Object, node: &Object, on_node: &[&Object]) -> (usize, i64, usize, i64) {
    let avoided = filters::avoided_taints(pod, node);
    let preference = filters::preference(pod, node);
    (avoided, -preference, on_node.len(), resources::load_percent(node, on_node))
}

fn explain(reasons: &BTreeMap<String, usize>, nodes: usize) -> String {
    let mut parts: Vec<String> = reasons.iter().map(|(why, count)| format!("{count} {why}")).collect();
    parts.sort();
    format!(
        "0/{nodes} nodes are available: {}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for \
         scheduling.",
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests;
