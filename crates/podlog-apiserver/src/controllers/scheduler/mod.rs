//! Gives pods to nodes: as kube-scheduler with its default plugins, as far as single machines and small clusters need them.

mod claims;
mod filters;
mod resources;

pub(crate) use filters::{may_hold, may_keep};

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::json;

use super::{
    action::{Action, Event, Severity},
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
};
use crate::registry::Part;
use claims::{Claims, OnNode};
use filters::Obstacle;

const COMPONENT: &str = "default-scheduler";
/// Pods that found no node are looked at again after this time even when nothing was seen to change.
const RETRY: Duration = Duration::from_secs(300);

/// The scheduler.
#[derive(Default)]
pub(crate) struct Scheduler {
    /// Pods that were without a node when last seen.
    waiting: Mutex<BTreeSet<Key>>,
    /// What is on nodes; `None` until a pod waits, and when some of it may have been missed.
    claims: Mutex<Option<Claims>>,
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::pods(), kinds::nodes()]
    }

    fn begin(&self, resource: &'static Resource) {
        if resource.kind == "Pod" {
            *self.claims.lock() = None;
        }
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        if change.resource.kind == "Pod" {
            self.note(change);
        }
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
        let pod = objects.find(kinds::pods(), &key.namespace, &key.name)?;
        let mut claims = self.claims.lock();
        if let Some(claims) = claims.as_mut() {
            // Nor is it where it was to be put when that did not work out.
            claims.remove(key);
            pod.iter().for_each(|pod| claims.note(key, pod));
        }
        let Some(pod) = pod.filter(is_waiting) else {
            self.waiting.lock().remove(key);
            return Ok(Vec::new());
        };
        self.waiting.lock().insert(key.clone());
        let claims = match &mut *claims {
            Some(claims) => claims,
            none => none.insert(claims_of_all(objects)?),
        };
        let nodes = objects.list(kinds::nodes(), None)?;
        let actions = decide(&pod, &nodes, claims, now);
        if let Some(Action::Bind { node, .. }) = actions.first() {
            // The next pod is not to wait until this is reported.
            claims.insert(key, node, &pod);
        }
        Ok(actions)
    }
}

impl Scheduler {
    /// What a pod takes of its node now.
    fn note(&self, change: &Change<'_>) {
        let mut claims = self.claims.lock();
        let Some(claims) = claims.as_mut() else { return };
        let key = Key::of(change.object);
        let claims_the_same = |previous: &Object| {
            let at = |pointer| previous.at(pointer) == change.object.at(pointer);
            at("/spec") && at("/metadata/labels")
        };
        if change.is_deletion {
            claims.remove(&key);
        } else if is_pod_finished(change.object)
            || !claims.holds(&key)
            || !change.previous.is_some_and(claims_the_same)
        {
            claims.note(&key, change.object);
        }
    }
}

fn claims_of_all(objects: &dyn Objects) -> Result<Claims, ApiError> {
    let claims = RefCell::new(Claims::default());
    let note = |pod: Object| {
        claims.borrow_mut().note(&Key::of(&pod), &pod);
        None
    };
    objects.select(kinds::pods(), None, &mentions("nodeName"), &note)?;
    Ok(claims.into_inner())
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

fn decide(pod: &Object, nodes: &[Object], claims: &Claims, now: Timestamp) -> Vec<Action> {
    match choose(pod, nodes, claims) {
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

/// The node for the pod, or why there is none.
fn choose<'a>(pod: &Object, nodes: &'a [Object], claims: &Claims) -> Result<&'a str, String> {
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".into());
    }
    let (mut obstacles, mut feasible) = (Vec::new(), Vec::new());
    for node in nodes {
        let on_node = claims.on(node.name());
        match filters::obstacle(pod, node, on_node) {
            None => feasible.push((score(pod, node, on_node), node.name())),
            Some(obstacle) => obstacles.push(obstacle),
        }
    }
    match feasible.into_iter().min() {
        Some((_, name)) => Ok(name),
        None => Err(explain(pod, &obstacles)),
    }
}

/// Nodes with a lower score are better: not avoided, preferred by affinity, few pods, much room.
fn score(pod: &Object, node: &Object, on_node: &OnNode) -> (usize, i64, usize, i64) {
    let avoided = filters::avoided_taints(pod, node);
    let preference = filters::preference(pod, node);
    (avoided, -preference, on_node.count(), resources::load_percent(node, on_node))
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
