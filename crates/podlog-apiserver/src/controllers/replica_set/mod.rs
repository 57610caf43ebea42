//! Keeps as many pods as a ReplicaSet wants: as `pkg/controller/replicaset`.

mod ranking;

use jiff::Timestamp;
use podlog_api::{ApiError, Object, resource::Resource, selector::LabelSelector};
use serde_json::{Map, Value, json};

use super::{
    action::{Action, Told},
    claim::claimed,
    kinds,
    objects::*,
    runner::{Change, Controller, Key, owner_key},
};
use crate::registry::Part;

const COMPONENT: &str = "replicaset-controller";
/// Pods made or deleted in one go; the rest follows with the next look.
const BURST: usize = 500;

/// The ReplicaSet controller.
pub(crate) struct ReplicaSets;

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::replica_sets(), kinds::pods()]
    }

    fn keys(&self, change: &Change<'_>, objects: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        if change.resource.kind == "ReplicaSet" {
            return Ok(vec![Key::of(change.object)]);
        }
        match owner_key(change.object, "ReplicaSet") {
            Some(key) => Ok(vec![key]),
            None if controller_of(change.object).is_some() => Ok(Vec::new()),
            None => matching(change.object, objects),
        }
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(set) = objects.find(kinds::replica_sets(), &key.namespace, &key.name)? else {
            return Ok(Vec::new());
        };
        let claimed = claimed(&set, kinds::pods(), objects)?;
        let mut actions = claimed.actions;
        actions.extend(reconcile(&set, &claimed.owned, now));
        Ok(actions)
    }
}

/// The ReplicaSets that may want to adopt a pod without owner.
fn matching(pod: &Object, objects: &dyn Objects) -> Result<Vec<Key>, ApiError> {
    let selects = |set: &Object| {
        let selector = LabelSelector::from_value(set.at("/spec/selector").unwrap_or(&Value::Null));
        selector.is_ok_and(|selector| !selector.is_empty() && selector.matches_object(pod))
    };
    let sets = objects.list(kinds::replica_sets(), Some(pod.namespace()))?;
    Ok(sets.iter().filter(|set| selects(set)).map(Key::of).collect())
}

/// What it takes to get from `pods` (those that the set owns) to the pods that the set wants.
fn reconcile(set: &Object, pods: &[Object], now: Timestamp) -> Vec<Action> {
    let active: Vec<&Object> = pods.iter().filter(|pod| is_pod_active(pod)).collect();
    let mut actions = if set.is_deleting() { Vec::new() } else { scale(set, &active, now) };
    actions.extend(Action::update(kinds::replica_sets(), Part::Status, set, with_status(set, &active, now)));
    actions.extend(next_available(set, active, now).map(Action::Requeue));
    actions
}

fn scale(set: &Object, active: &[&Object], now: Timestamp) -> Vec<Action> {
    let wanted = usize::try_from(replicas(set)).unwrap_or(0);
    let told = || Told { regarding: set.clone(), component: COMPONENT };
    if active.len() < wanted {
        let missing = (wanted - active.len()).min(BURST);
        let object = pod_from_template(&set.0["spec"]["template"], set);
        return vec![Action::create_pod(object, told()); missing];
    }
    let surplus = (active.len() - wanted).min(BURST);
    let ranked = ranking::by_expendability(active, now);
    ranked.into_iter().take(surplus).map(|pod| Action::delete_pod(pod, told())).collect()
}

fn with_status(set: &Object, active: &[&Object], now: Timestamp) -> Object {
    let template = set.at("/spec/template/metadata/labels").and_then(Value::as_object);
    let count = |holds: &dyn Fn(&Object) -> bool| active.iter().filter(|pod| holds(pod)).count() as i64;
    let labeled = count(&|pod| has_labels(pod, template));
    let ready = count(&|pod| holds(pod, "Ready"));
    let available = count(&|pod| is_available(set, pod, now));

    let mut updated = set.clone();
    let status = updated.map_mut("status");
    status.insert("replicas".into(), json!(active.len()));
    set_count(status, "fullyLabeledReplicas", labeled);
    set_count(status, "readyReplicas", ready);
    set_count(status, "availableReplicas", available);
    set_count(status, "observedGeneration", set.integer("/metadata/generation").unwrap_or(0));
    updated
}

fn has_labels(pod: &Object, labels: Option<&Map<String, Value>>) -> bool {
    labels.into_iter().flatten().all(|(key, value)| pod.label(key) == value.as_str())
}

#[cfg(test)]
mod tests;
