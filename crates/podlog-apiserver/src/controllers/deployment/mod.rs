//! Rolls out the template of a Deployment through ReplicaSets: as `pkg/controller/deployment`.

mod hash;
mod history;
mod rolling;
mod scaling;
mod status;

pub(crate) use hash::template_hash;

use jiff::Timestamp;
use podlog_api::{ApiError, Object, child_map, resource::Resource};
use serde_json::{Value, json};

use super::{
    action::{Action, Event, Severity},
    claim::claim,
    kinds,
    objects::*,
    runner::{Change, Controller, Key, owner_key},
};
use crate::registry::Part;

const COMPONENT: &str = "deployment-controller";
const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// The Deployment controller.
pub(crate) struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::deployments(), kinds::replica_sets(), kinds::pods()]
    }

    fn keys(&self, change: &Change<'_>, objects: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        Ok(match change.resource.kind {
            "Deployment" => vec![Key::of(change.object)],
            "ReplicaSet" => owner_key(change.object, "Deployment").into_iter().collect(),
            // Recreating waits until the last old pod is gone.
            _ if change.is_deletion => {
                let Some(set) = owner_key(change.object, "ReplicaSet") else { return Ok(Vec::new()) };
                let set = objects.find(kinds::replica_sets(), &set.namespace, &set.name)?;
                set.and_then(|set| owner_key(&set, "Deployment")).into_iter().collect()
            }
            _ => Vec::new(),
        })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(deployment) = objects.find(kinds::deployments(), &key.namespace, &key.name)? else {
            return Ok(Vec::new());
        };
        let namespace = Some(key.namespace.as_str());
        let all_sets = objects.list(kinds::replica_sets(), namespace)?;
        let claimed = claim(&deployment, kinds::replica_sets(), all_sets.clone());
        if !claimed.actions.is_empty() {
            // Adopted sets come back with their owner.
            return Ok(claimed.actions);
        }
        let pods = pods_of(&claimed.owned, namespace, objects)?;
        Ok(reconcile(&deployment, claimed.owned, &all_sets, &pods, now))
    }
}

fn pods_of(sets: &[Object], namespace: Option<&str>, objects: &dyn Objects) -> Result<Vec<Object>, ApiError> {
    let is_of: Vec<_> = sets.iter().map(|set| mentions(set.uid())).collect();
    let may = |text: &[u8]| is_of.iter().any(|is_of| is_of(text));
    let keep = |pod: Object| sets.iter().any(|set| is_controlled_by(&pod, set)).then_some(pod);
    objects.select(kinds::pods(), namespace, &may, &keep)
}

/// What to do next. `sets` are the ReplicaSets of the deployment, `all_sets` those of the namespace, whose names are taken.
fn reconcile(
    deployment: &Object,
    sets: Vec<Object>,
    all_sets: &[Object],
    pods: &[Object],
    now: Timestamp,
) -> Vec<Action> {
    let mut rollout = Rollout::new(deployment, sets, now);
    if deployment.is_deleting() {
        rollout.sync_status();
        return rollout.into_actions();
    }
    status::note_pause(&mut rollout);
    if is_paused(deployment) || scaling::is_scaling(&rollout) {
        rollout.adopt_newest_revision();
        scaling::scale(&mut rollout);
        if is_paused(deployment) {
            rollout.clean_up_history();
        }
        rollout.sync_status();
    } else if is_recreate(deployment) {
        recreate(&mut rollout, all_sets, pods);
    } else {
        roll(&mut rollout, all_sets);
    }
    rollout.into_actions()
}

fn recreate(rollout: &mut Rollout, all_sets: &[Object], pods: &[Object]) {
    rollout.adopt_newest_revision();
    let mut stopped = false;
    for index in rollout.old_indexes() {
        stopped |= rollout.scale_set(index, 0);
    }
    let old_pods_run = rollout.old_indexes().into_iter().any(|index| {
        let set = &rollout.sets[index];
        pods.iter().any(|pod| is_controlled_by(pod, set) && !is_pod_finished(pod))
    });
    if stopped || old_pods_run {
        return rollout.sync_rollout_status();
    }
    rollout.ensure_newest(all_sets);
    if let Some(newest) = rollout.newest {
        rollout.scale_set(newest, replicas(&rollout.deployment));
    }
    if status::is_complete(&rollout.deployment) {
        rollout.clean_up_history();
    }
    rollout.sync_rollout_status();
}

fn roll(rollout: &mut Rollout, all_sets: &[Object]) {
    rollout.ensure_newest(all_sets);
    if !rolling::scale_newest(rollout)
        && !rolling::scale_old(rollout)
        && status::is_complete(&rollout.deployment)
    {
        rollout.clean_up_history();
    }
    rollout.sync_rollout_status();
}

fn is_paused(deployment: &Object) -> bool {
    deployment.at("/spec/paused") == Some(&Value::Bool(true))
}

fn is_recreate(deployment: &Object) -> bool {
    deployment.text("/spec/strategy/type") == "Recreate"
}

/// A deployment and its ReplicaSets while it is decided what becomes of them: working copies, and what led to them.
struct Rollout {
    deployment: Object,
    deployment_before: Object,
    sets: Vec<Object>,
    sets_before: Vec<Object>,
    /// Index of the set of the present template.
    newest: Option<usize>,
    actions: Vec<Action>,
    now: Timestamp,
}

impl Rollout {
    fn new(deployment: &Object, mut sets: Vec<Object>, now: Timestamp) -> Self {
        sets.sort_by_key(|set| (created(set), set.name().to_owned()));
        let newest = sets.iter().position(|set| has_template_of(set, deployment));
        Rollout {
            deployment: deployment.clone(),
            deployment_before: deployment.clone(),
            sets_before: sets.clone(),
            sets,
            newest,
            actions: Vec::new(),
            now,
        }
    }

    fn old_indexes(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| Some(*index) != self.newest).collect()
    }

    /// Pods that all sets are to have.
    fn wanted_total(&self) -> i64 {
        self.sets.iter().map(replicas).sum()
    }

    fn status_total(&self, key: &str) -> i64 {
        self.sets.iter().map(|set| status_count(set, key)).sum()
    }

    /// Sets the size of a ReplicaSet, and what it says of the deployment's; says whether the size changed.
    fn scale_set(&mut self, index: usize, size: i64) -> bool {
        let before = replicas(&self.sets[index]);
        let set = &mut self.sets[index];
        set.map_mut("spec").insert("replicas".into(), json!(size));
        annotate_size(set, &self.deployment);
        if before != size {
            self.tell_scaling(index, before, size);
        }
        before != size
    }

    fn tell_scaling(&mut self, index: usize, before: i64, size: i64) {
        let direction = if size > before { "up" } else { "down" };
        let name = self.sets[index].name();
        let message = format!("Scaled {direction} replica set {name} from {before} to {size}");
        self.tell(Severity::Normal, "ScalingReplicaSet", message);
    }

    fn tell(&mut self, severity: Severity, reason: &'static str, message: String) {
        let regarding = self.deployment_before.clone();
        self.actions.push(Action::Event(Event {
            regarding,
            severity,
            reason,
            message,
            component: COMPONENT,
        }));
    }

    /// Finds or makes the ReplicaSet of the present template, with the next revision.
    fn ensure_newest(&mut self, all_sets: &[Object]) {
        if self.newest.is_some() {
            return self.adopt_newest_revision();
        }
        let set = history::new_set(&self.deployment, self.next_revision(), self.wanted_total());
        if let Some(taken) = all_sets.iter().find(|known| known.name() == set.name()) {
            if !is_controlled_by(taken, &self.deployment) || !has_template_of(taken, &self.deployment) {
                let collisions = status_count(&self.deployment, "collisionCount") + 1;
                set_count(self.deployment.map_mut("status"), "collisionCount", collisions);
            }
            return;
        }
        let revision = set.annotation(REVISION).unwrap_or_default().to_owned();
        self.note_revision(&revision);
        status::note_created(self, set.name());
        self.actions.push(Action::Create {
            resource: kinds::replica_sets(),
            object: set.clone(),
            told: None,
        });
        let size = replicas(&set);
        self.newest = Some(self.sets.len());
        self.sets_before.push(set.clone());
        self.sets.push(set);
        if size > 0 {
            self.tell_scaling(self.sets.len() - 1, 0, size);
        }
    }

    /// Gives the set of the present template the newest revision, if there is one and an older template had it.
    fn adopt_newest_revision(&mut self) {
        let Some(index) = self.newest else { return };
        let revision = self.next_revision();
        let set = &mut self.sets[index];
        history::update_annotations(set, &self.deployment, revision);
        let min_ready = self.deployment.at("/spec/minReadySeconds").cloned();
        match min_ready {
            Some(seconds) => set.map_mut("spec").insert("minReadySeconds".into(), seconds),
            None => set.map_mut("spec").remove("minReadySeconds"),
        };
        let (name, revision) =
            (set.name().to_owned(), set.annotation(REVISION).unwrap_or_default().to_owned());
        self.note_revision(&revision);
        status::note_found(self, &name);
    }

    fn next_revision(&self) -> i64 {
        self.old_indexes().into_iter().map(|index| history::revision(&self.sets[index])).max().unwrap_or(0)
            + 1
    }

    fn note_revision(&mut self, revision: &str) {
        if self.deployment.annotation(REVISION) != Some(revision) {
            annotate(&mut self.deployment, REVISION, revision);
        }
    }

    fn clean_up_history(&mut self) {
        let limit = self.deployment.integer("/spec/revisionHistoryLimit").unwrap_or(10);
        let old: Vec<&Object> = self.old_indexes().into_iter().map(|index| &self.sets[index]).collect();
        let surplus = history::surplus(&old, usize::try_from(limit).unwrap_or(0));
        let deletions: Vec<Action> =
            surplus.into_iter().map(|set| Action::delete(kinds::replica_sets(), set)).collect();
        self.actions.extend(deletions);
    }

    fn sync_status(&mut self) {
        status::count(self);
    }

    fn sync_rollout_status(&mut self) {
        status::count_and_judge(self);
    }

    /// What changed, in an order that is safe to stop in: sets, the deployment itself, its status; then telling about it.
    fn into_actions(self) -> Vec<Action> {
        let (told, mut actions): (Vec<Action>, Vec<Action>) =
            self.actions.into_iter().partition(|action| matches!(action, Action::Event(_)));
        for (before, after) in self.sets_before.iter().zip(&self.sets) {
            // A set that was just made has its size already.
            let is_new = before.resource_version().is_empty();
            let change = Action::update(kinds::replica_sets(), Part::Main, before, after.clone());
            actions.extend(change.filter(|_| !is_new));
        }
        let (before, after) = (&self.deployment_before, &self.deployment);
        let mut main = before.clone();
        main.0["metadata"] = after.0["metadata"].clone();
        let mut status = main.clone();
        actions.extend(Action::update(kinds::deployments(), Part::Main, before, main));
        if before.at("/status") != after.at("/status") {
            status.0["status"] = after.0["status"].clone();
            actions.push(Action::Update {
                resource: kinds::deployments(),
                part: Part::Status,
                object: status,
            });
        }
        actions.extend(told);
        actions
    }
}

/// Whether the set was made of the deployment's present template.
fn has_template_of(set: &Object, deployment: &Object) -> bool {
    let mut template = set.0["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    without_empty(&template) == without_empty(&deployment.0["spec"]["template"])
}

/// Go's types do not tell an empty list or map, or null, from none.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept =
                map.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), without_empty(v)));
            // An empty struct can mean something (`emptyDir: {}`), so only template metadata is cut: see `is_blank`.
            Value::Object(kept.filter(|(key, value)| !is_blank(key, value)).collect())
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

fn is_blank(key: &str, value: &Value) -> bool {
    let map = matches!(key, "labels" | "annotations" | "nodeSelector")
        && value.as_object().is_some_and(|m| m.is_empty());
    map || key == "creationTimestamp" || value.as_array().is_some_and(Vec::is_empty)
}

fn annotate(object: &mut Object, key: &str, value: &str) {
    object.metadata_mut();
    child_map(&mut object.0["metadata"], "annotations").insert(key.into(), json!(value));
}

/// Tells a set how large the deployment is, from which later changes of that are seen.
fn annotate_size(set: &mut Object, deployment: &Object) {
    let wanted = replicas(deployment);
    annotate(set, DESIRED_REPLICAS, &wanted.to_string());
    annotate(set, MAX_REPLICAS, &(wanted + rolling::max_surge(deployment)).to_string());
}

#[cfg(test)]
mod tests;
