//! Keeps one pod of a DaemonSet on every node that it may run on: as `pkg/controller/daemon`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::{Value, json};

use super::{
    action::{Action, Event, Severity, Told},
    claim::claimed,
    kinds,
    objects::*,
    revision::{self, History, Revision},
    runner::{Change, Controller, Key, owner_key},
    scheduler,
};
use crate::registry::Part;

const COMPONENT: &str = "daemonset-controller";

/// What every daemon bears (`pkg/controller/daemon/util/daemonset_util.go`).
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The DaemonSet controller.
pub(crate) struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::daemon_sets(), kinds::pods(), kinds::nodes(), kinds::revisions()]
    }

    fn keys(&self, change: &Change<'_>, objects: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        match change.resource.kind {
            "DaemonSet" => Ok(vec![Key::of(change.object)]),
            "Pod" | "ControllerRevision" => Ok(owner_key(change.object, "DaemonSet").into_iter().collect()),
            // Heartbeats change nothing that a daemon depends on.
            _ if is_heartbeat(change) => Ok(Vec::new()),
            _ => Ok(objects.list(kinds::daemon_sets(), None)?.iter().map(Key::of).collect()),
        }
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(set) = objects.find(kinds::daemon_sets(), &key.namespace, &key.name)? else {
            return Ok(Vec::new());
        };
        let pods = claimed(&set, kinds::pods(), objects)?;
        let revisions = claimed(&set, kinds::revisions(), objects)?;
        let nodes = objects.list(kinds::nodes(), None)?;
        let history = History::of(&set, &revisions.owned);
        let mut actions = [pods.actions, revisions.actions].concat();
        if !set.is_deleting() {
            actions.extend(history.actions.clone());
        }
        actions.extend(reconcile(&set, &history.newest, &nodes, &pods.owned, now));
        actions.extend(history.trim(&set, &history.newest, &pods.owned));
        Ok(actions)
    }
}

fn is_heartbeat(change: &Change<'_>) -> bool {
    let same = |previous: &Object| {
        let labels = |node: &Object| node.at("/metadata/labels").cloned();
        previous.0["spec"] == change.object.0["spec"] && labels(previous) == labels(change.object)
    };
    !change.is_deletion && change.previous.is_some_and(same)
}

/// What is on the nodes, and should be.
struct Census<'a> {
    set: &'a Object,
    revision: &'a Revision,
    /// Nodes on which the daemon is to run.
    wanted: Vec<&'a Object>,
    /// Nodes on which it would not be started any more, and is left alone.
    tolerated: Vec<&'a Object>,
    /// The pods of each node, oldest first.
    on_node: BTreeMap<&'a str, Vec<&'a Object>>,
}

/// What it takes to get from `pods` (those that the set owns) to one on each node that wants one.
fn reconcile(
    set: &Object,
    revision: &Revision,
    nodes: &[Object],
    pods: &[Object],
    now: Timestamp,
) -> Vec<Action> {
    let template = daemon(set, "", revision);
    let mut on_node: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for pod in pods {
        on_node.entry(node_of(pod)).or_default().push(pod);
    }
    on_node.values_mut().for_each(|pods| pods.sort_by_key(|pod| (created(pod), pod.name().to_owned())));
    let (wanted, others): (Vec<&Object>, Vec<&Object>) =
        nodes.iter().partition(|node| scheduler::may_hold(&template, node));
    let tolerated = others.into_iter().filter(|node| scheduler::may_keep(&template, node)).collect();
    let census = Census { set, revision, wanted, tolerated, on_node };
    let mut actions = if set.is_deleting() { Vec::new() } else { census.actions(now) };
    actions.extend(Action::update(kinds::daemon_sets(), Part::Status, set, census.status(now)));
    actions.extend(next_available(set, pods, now).map(Action::Requeue));
    actions
}

impl<'a> Census<'a> {
    fn actions(&self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        for node in &self.wanted {
            let pods = self.pods(node.name());
            if pods.is_empty() {
                actions.push(self.create(node.name()));
            }
        }
        let staying = || self.wanted.iter().chain(&self.tolerated);
        for node in staying() {
            let pods = self.pods(node.name());
            for pod in pods.iter().filter(|pod| pod.text("/status/phase") == "Failed" && !pod.is_deleting()) {
                actions.push(self.told_of_failure(pod));
                actions.push(self.delete(pod));
            }
            let active = pods.iter().filter(|pod| is_pod_active(pod));
            actions.extend(active.skip(1).map(|pod| self.delete(pod)));
        }
        let may_stay = |name: &str| staying().any(|node| node.name() == name);
        let elsewhere = self.on_node.iter().filter(|(name, _)| !may_stay(name));
        let stray = elsewhere.flat_map(|(_, pods)| pods).filter(|pod| !pod.is_deleting());
        actions.extend(stray.map(|pod| self.delete(pod)));
        actions.extend(self.roll(now));
        actions
    }

    /// Deletes pods of older templates, as many as may be missing at once; new ones follow with the next look.
    fn roll(&self, now: Timestamp) -> Vec<Action> {
        if self.set.text("/spec/updateStrategy/type") == "OnDelete" {
            return Vec::new();
        }
        let allowed = max_unavailable(self.set, self.wanted.len());
        let first = |node: &&&Object| self.pods(node.name()).iter().find(|pod| is_pod_active(pod)).copied();
        let unavailable =
            self.wanted.iter().filter(|node| first(node).is_none_or(|pod| !is_available(self.set, pod, now)));
        let mut budget = allowed.saturating_sub(unavailable.count());
        let mut actions = Vec::new();
        for pod in self.wanted.iter().filter_map(|node| first(&node)) {
            if self.revision.made(pod) {
                continue;
            }
            // What does not serve anyway costs nothing.
            if !is_available(self.set, pod, now) {
                actions.push(self.delete(pod));
            } else if budget > 0 {
                budget -= 1;
                actions.push(self.delete(pod));
            }
        }
        actions
    }

    fn pods(&self, node: &str) -> &[&'a Object] {
        self.on_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn create(&self, node: &str) -> Action {
        Action::create_pod(daemon(self.set, node, self.revision), self.told())
    }

    fn delete(&self, pod: &Object) -> Action {
        Action::delete_pod(pod, self.told())
    }

    fn told(&self) -> Told {
        Told { regarding: self.set.clone(), component: COMPONENT }
    }

    fn told_of_failure(&self, pod: &Object) -> Action {
        Action::Event(Event {
            regarding: self.set.clone(),
            severity: Severity::Warning,
            reason: "FailedDaemonPod",
            message: format!(
                "Found failed daemon pod {}/{} on node {}, will try to kill it",
                pod.namespace(),
                pod.name(),
                node_of(pod)
            ),
            component: COMPONENT,
        })
    }

    fn status(&self, now: Timestamp) -> Object {
        let is_wanted = |name: &str| self.wanted.iter().any(|node| node.name() == name);
        let first = |node: &&&Object| self.pods(node.name()).iter().find(|pod| is_pod_active(pod)).copied();
        let running: Vec<&Object> = self.wanted.iter().filter_map(|node| first(&node)).collect();
        let count = |holds: &dyn Fn(&Object) -> bool| running.iter().filter(|pod| holds(pod)).count();
        let (desired, ready) = (self.wanted.len(), count(&|pod| holds(pod, "Ready")));
        let available = count(&|pod| is_available(self.set, pod, now));
        let updated = count(&|pod| self.revision.made(pod));
        let misplaced = self
            .on_node
            .iter()
            .filter(|(name, pods)| !is_wanted(name) && pods.iter().any(|p| is_pod_active(p)));
        let misplaced = misplaced.count();

        let mut object = self.set.clone();
        let status = object.map_mut("status");
        for (key, count) in [
            ("currentNumberScheduled", running.len()),
            ("numberMisscheduled", misplaced),
            ("desiredNumberScheduled", desired),
            ("numberReady", ready),
        ] {
            status.insert(key.into(), json!(count));
        }
        let generation = self.set.integer("/metadata/generation").unwrap_or(0);
        set_count(status, "observedGeneration", generation);
        set_count(status, "updatedNumberScheduled", updated as i64);
        set_count(status, "numberAvailable", available as i64);
        set_count(status, "numberUnavailable", desired.saturating_sub(available) as i64);
        object
    }
}

/// How many nodes may be without a daemon while templates change: a number or a share, rounded up; at least one.
fn max_unavailable(set: &Object, nodes: usize) -> usize {
    let value = set.at("/spec/updateStrategy/rollingUpdate/maxUnavailable").unwrap_or(&Value::Null);
    let share = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<usize>().ok());
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.or(share.map(|percent| (percent * nodes).div_ceil(100))).unwrap_or(1).max(1)
}

/// A daemon for a node; the scheduler binds it to that node and no other.
fn daemon(set: &Object, node: &str, revision: &Revision) -> Object {
    let mut pod = pod_from_template(&set.0["spec"]["template"], set);
    revision::mark(&mut pod, &revision.hash);
    let spec = pod.map_mut("spec");
    let on_host_network = spec.get("hostNetwork") == Some(&json!(true));
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let borne = BORNE
        .into_iter()
        .chain(on_host_network.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule")));
    if let Some(tolerations) = tolerations.as_array_mut() {
        tolerations
            .extend(borne.map(|(key, effect)| json!({"key": key, "operator": "Exists", "effect": effect})));
    }
    if !node.is_empty() {
        pin(&mut pod, node);
    }
    pod
}

/// Replaces what the template says of nodes by name (`ReplaceDaemonSetPodNodeNameNodeAffinity`).
fn pin(pod: &mut Object, node: &str) {
    let by_name = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let spec = &mut pod.0["spec"];
    if !spec["affinity"].is_object() {
        spec["affinity"] = json!({});
    }
    if !spec["affinity"]["nodeAffinity"].is_object() {
        spec["affinity"]["nodeAffinity"] = json!({});
    }
    let terms = &mut spec["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"];
    match terms.as_array_mut().filter(|terms| !terms.is_empty()) {
        Some(terms) => terms.iter_mut().for_each(|term| term["matchFields"] = by_name.clone()),
        None => *terms = json!([{"matchFields": by_name}]),
    }
}

/// The node that a pod is on, or is meant for.
fn node_of(pod: &Object) -> &str {
    let bound = pod.text("/spec/nodeName");
    if !bound.is_empty() {
        return bound;
    }
    let terms = pod.array(
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
    );
    let fields = terms.iter().flat_map(|term| term["matchFields"].as_array().into_iter().flatten());
    fields.filter_map(|field| field["values"][0].as_str()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
