//! Keeps the numbered pods of a StatefulSet: as `pkg/controller/statefulset`.
//!
//! Claims of volumes (`volumeClaimTemplates`) are not made: there are no volumes to claim.

use std::collections::BTreeMap;

use jiff::Timestamp;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::json;

use super::{
    action::{Action, Told},
    claim::claimed,
    kinds,
    objects::*,
    revision::{self, History, Revision},
    runner::{Change, Controller, Key, owner_key},
};
use crate::registry::Part;

const COMPONENT: &str = "statefulset-controller";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The StatefulSet controller.
pub(crate) struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::stateful_sets(), kinds::pods(), kinds::revisions()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        Ok(match change.resource.kind {
            "StatefulSet" => vec![Key::of(change.object)],
            _ => owner_key(change.object, "StatefulSet").into_iter().collect(),
        })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(set) = objects.find(kinds::stateful_sets(), &key.namespace, &key.name)? else {
            return Ok(Vec::new());
        };
        let pods = claimed(&set, kinds::pods(), objects)?;
        let revisions = claimed(&set, kinds::revisions(), objects)?;
        let mut actions = [pods.actions, revisions.actions].concat();
        let plan = Plan::of(&set, &pods.owned, &revisions.owned, now);
        if !set.is_deleting() {
            actions.extend(plan.history.actions.clone());
        }
        actions.extend(plan.actions());
        actions.extend(plan.history.trim(&set, &plan.current, &pods.owned));
        Ok(actions)
    }
}

/// The pods by their numbers, and what is wanted of them.
struct Plan<'a> {
    set: &'a Object,
    now: Timestamp,
    /// The first number.
    start: i64,
    /// Behind the last number.
    end: i64,
    history: History,
    /// Revision that pods below the partition keep; the others are of the newest.
    current: Revision,
    pods: BTreeMap<i64, &'a Object>,
}

impl<'a> Plan<'a> {
    fn of(set: &'a Object, owned: &'a [Object], revisions: &[Object], now: Timestamp) -> Self {
        let start = set.integer("/spec/ordinals/start").unwrap_or(0);
        let history = History::of(set, revisions);
        let current = history.named(set.text("/status/currentRevision"));
        let pods = owned.iter().filter_map(|pod| Some((ordinal(set, pod)?, pod))).collect();
        Plan { set, now, start, end: start + replicas(set), history, current, pods }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = match (self.set.is_deleting(), self.in_parallel()) {
            (true, _) => Vec::new(),
            (false, true) => [self.create_all(), self.delete_all(), self.roll()].concat(),
            (false, false) => self.next_step(),
        };
        actions.extend(Action::update(kinds::stateful_sets(), Part::Status, self.set, self.status()));
        let next = next_available(self.set, self.pods.values().copied(), self.now);
        actions.extend(next.map(Action::Requeue));
        actions
    }

    fn in_parallel(&self) -> bool {
        self.set.text("/spec/podManagementPolicy") == "Parallel"
    }

    /// One thing at a time, in order: whoever has ended is replaced, whoever is missing is made, surplus goes from the end, and
    /// then templates change from the end. Nothing while the one before is not available.
    fn next_step(&self) -> Vec<Action> {
        for number in self.start..self.end {
            match self.pods.get(&number) {
                None => return vec![self.create(number)],
                Some(pod) if is_pod_finished(pod) && !pod.is_deleting() => return vec![self.delete(pod)],
                Some(pod) if !self.is_available(pod) => return self.unstuck(pod),
                Some(_) => {}
            }
        }
        match self.surplus().next() {
            Some(pod) if pod.is_deleting() => Vec::new(),
            Some(pod) => vec![self.delete(pod)],
            None => self.roll(),
        }
    }

    /// A pod that does not become available holds everything up, but for its own replacement by a newer template.
    fn unstuck(&self, pod: &'a Object) -> Vec<Action> {
        let (number, rolls) = (ordinal(self.set, pod).unwrap_or_default(), self.rolls());
        let outdated = rolls && number >= self.partition() && !self.history.newest.made(pod);
        if outdated && !pod.is_deleting() { vec![self.delete(pod)] } else { Vec::new() }
    }

    fn create_all(&self) -> Vec<Action> {
        let wanted = self.start..self.end;
        let ended = |pod: &&&Object| is_pod_finished(pod) && !pod.is_deleting();
        let missing =
            wanted.clone().filter(|number| !self.pods.contains_key(number)).map(|number| self.create(number));
        let ended =
            wanted.filter_map(|number| self.pods.get(&number)).filter(ended).map(|pod| self.delete(pod));
        missing.chain(ended).collect()
    }

    fn delete_all(&self) -> Vec<Action> {
        self.surplus().filter(|pod| !pod.is_deleting()).map(|pod| self.delete(pod)).collect()
    }

    /// Pods beyond what is wanted, last first.
    fn surplus(&self) -> impl Iterator<Item = &'a Object> {
        let beyond = self.pods.iter().rev().filter(|(number, _)| !(self.start..self.end).contains(*number));
        beyond.map(|(_, pod)| *pod)
    }

    fn rolls(&self) -> bool {
        self.set.text("/spec/updateStrategy/type") != "OnDelete"
    }

    /// Pods from this number on are to be of the newest template.
    fn partition(&self) -> i64 {
        self.start + self.set.integer("/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0)
    }

    /// Deletes the last pod that is of an older template, once those behind it serve.
    fn roll(&self) -> Vec<Action> {
        if !self.rolls() {
            return Vec::new();
        }
        let from = self.partition();
        for (_, pod) in self.pods.range(from..self.end.max(from)).rev() {
            if !self.history.newest.made(pod) {
                return if pod.is_deleting() { Vec::new() } else { vec![self.delete(pod)] };
            }
            if !self.is_available(pod) {
                return Vec::new();
            }
        }
        Vec::new()
    }

    fn is_available(&self, pod: &Object) -> bool {
        !pod.is_deleting() && is_available(self.set, pod, self.now)
    }

    fn create(&self, number: i64) -> Action {
        let is_behind = self.rolls() && number < self.partition();
        let revision = if is_behind { &self.current } else { &self.history.newest };
        let mut object = pod_from_template(&revision.template, self.set);
        revision::mark(&mut object, &revision.name);
        let name = format!("{}-{number}", self.set.name());
        let metadata = object.metadata_mut();
        metadata.remove("generateName");
        metadata.insert("name".into(), json!(name));
        metadata["labels"][POD_NAME] = json!(name);
        metadata["labels"][POD_INDEX] = json!(number.to_string());
        let service = self.set.text("/spec/serviceName");
        let spec = object.map_mut("spec");
        spec.insert("hostname".into(), json!(name));
        if !service.is_empty() {
            spec.insert("subdomain".into(), json!(service));
        }
        Action::create_pod(object, self.told())
    }

    fn delete(&self, pod: &Object) -> Action {
        Action::delete_pod(pod, self.told())
    }

    fn told(&self) -> Told {
        Told { regarding: self.set.clone(), component: COMPONENT }
    }

    fn status(&self) -> Object {
        let count =
            |holds: &dyn Fn(&Object) -> bool| self.pods.values().filter(|pod| holds(pod)).count() as i64;
        let alive = |pod: &Object| is_pod_active(pod);
        let total = count(&|pod| !is_pod_finished(pod));
        let ready = count(&|pod| holds(pod, "Ready"));
        let available = count(&|pod| self.is_available(pod));
        let newest = &self.history.newest;
        let updated = count(&|pod| alive(pod) && newest.made(pod));
        let is_done = self.rolls() && updated == total && total == replicas(self.set) && ready == total;
        let current = if is_done { newest } else { &self.current };
        let of_current = count(&|pod| alive(pod) && current.made(pod));

        let mut object = self.set.clone();
        let status = object.map_mut("status");
        let generation = self.set.integer("/metadata/generation").unwrap_or(0);
        set_count(status, "observedGeneration", generation);
        status.insert("replicas".into(), json!(total));
        // Not left out at zero, unlike those below (`apps/v1` types).
        status.insert("availableReplicas".into(), json!(available));
        set_count(status, "readyReplicas", ready);
        set_count(status, "currentReplicas", of_current);
        set_count(status, "updatedReplicas", updated);
        status.insert("currentRevision".into(), json!(current.name));
        status.insert("updateRevision".into(), json!(newest.name));
        object
    }
}

/// The number of a pod of this set, by its name.
fn ordinal(set: &Object, pod: &Object) -> Option<i64> {
    let number = pod.name().strip_prefix(set.name())?.strip_prefix('-')?;
    let is_plain =
        number == "0" || !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests;
