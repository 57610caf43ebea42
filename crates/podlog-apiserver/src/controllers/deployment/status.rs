//! The status of a deployment: counts, and the conditions that `kubectl rollout status` and `kubectl wait` read.

use jiff::Timestamp;
use podlog_api::Object;
use serde_json::{Value, json};

use super::{Rollout, is_paused, rolling::max_unavailable};
use crate::controllers::{action::Action, objects::*};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

/// Counts pods, and says whether enough are available.
pub(super) fn count(rollout: &mut Rollout) {
    let total = rollout.wanted_total();
    let available = rollout.status_total("availableReplicas");
    let updated = rollout.newest.map_or(0, |index| status_count(&rollout.sets[index], "replicas"));
    let counts = [
        ("observedGeneration", rollout.deployment.integer("/metadata/generation").unwrap_or(0)),
        ("replicas", rollout.status_total("replicas")),
        ("updatedReplicas", updated),
        ("readyReplicas", rollout.status_total("readyReplicas")),
        ("availableReplicas", available),
        ("unavailableReplicas", (total - available).max(0)),
    ];
    let status = rollout.deployment.map_mut("status");
    for (key, value) in counts {
        set_count(status, key, value);
    }
    if available >= replicas(&rollout.deployment) - max_unavailable(&rollout.deployment) {
        let message = "Deployment has minimum availability.";
        set(rollout, AVAILABLE, "True", "MinimumReplicasAvailable", message.into());
    } else {
        let message = "Deployment does not have minimum availability.";
        set(rollout, AVAILABLE, "False", "MinimumReplicasUnavailable", message.into());
    }
}

/// Counts pods, and says whether the rollout is done, goes on, or has taken too long.
pub(super) fn count_and_judge(rollout: &mut Rollout) {
    let before = rollout.deployment_before.clone();
    count(rollout);
    let Some(deadline_seconds) = deadline_seconds(&rollout.deployment) else {
        remove(&mut rollout.deployment, PROGRESSING);
        return;
    };
    let reason = condition(&rollout.deployment, PROGRESSING).map(|c| c["reason"].clone());
    let counted = |key: &str| status_count(&rollout.deployment, key);
    if counted("replicas") == counted("updatedReplicas") && reason == Some(json!(NEW_SET_AVAILABLE)) {
        return;
    }
    let subject = match rollout.newest {
        Some(index) => format!("ReplicaSet {:?}", rollout.sets[index].name()),
        None => format!("Deployment {:?}", rollout.deployment.name()),
    };
    if is_complete(&rollout.deployment) {
        let message = format!("{subject} has successfully progressed.");
        set(rollout, PROGRESSING, "True", NEW_SET_AVAILABLE, message);
    } else if has_progressed(&before, &rollout.deployment) {
        touch(rollout, format!("{subject} is progressing."));
    } else if let Some(time) = deadline(&rollout.deployment, deadline_seconds) {
        if time < rollout.now {
            let message = format!("{subject} has timed out progressing.");
            set(rollout, PROGRESSING, "False", DEADLINE_EXCEEDED, message);
        } else {
            let wait = until(plus_seconds(time, 1), rollout.now);
            rollout.actions.push(Action::Requeue(wait));
        }
    }
}

/// Whether all pods are of the present template and available, and none is left over.
pub(super) fn is_complete(deployment: &Object) -> bool {
    let wanted = replicas(deployment);
    let observed = status_count(deployment, "observedGeneration");
    ["updatedReplicas", "replicas", "availableReplicas"]
        .iter()
        .all(|key| status_count(deployment, key) == wanted)
        && observed >= deployment.integer("/metadata/generation").unwrap_or(0)
}

/// A set was made for the present template.
pub(super) fn note_created(rollout: &mut Rollout, set_name: &str) {
    if deadline_seconds(&rollout.deployment).is_some() {
        let message = format!("Created new replica set {set_name:?}");
        set(rollout, PROGRESSING, "True", "NewReplicaSetCreated", message);
    }
}

/// The set of the present template existed before.
pub(super) fn note_found(rollout: &mut Rollout, set_name: &str) {
    let known = condition(&rollout.deployment, PROGRESSING).is_some();
    if !known && deadline_seconds(&rollout.deployment).is_some() {
        let message = format!("Found new replica set {set_name:?}");
        set(rollout, PROGRESSING, "True", "FoundNewReplicaSet", message);
    }
}

/// Pausing and resuming restart the clock of the deadline.
pub(super) fn note_pause(rollout: &mut Rollout) {
    let Some(reason) = condition(&rollout.deployment, PROGRESSING).map(|c| c["reason"].clone()) else {
        return;
    };
    if deadline_seconds(&rollout.deployment).is_none() || reason == DEADLINE_EXCEEDED {
        return;
    }
    let was_paused = reason == "DeploymentPaused";
    match (is_paused(&rollout.deployment), was_paused) {
        (true, false) => {
            set(rollout, PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".into());
        }
        (false, true) => {
            set(rollout, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into());
        }
        _ => {}
    }
}

/// `None` when there is none: no value, or the largest.
fn deadline_seconds(deployment: &Object) -> Option<i64> {
    deployment.integer("/spec/progressDeadlineSeconds").filter(|seconds| *seconds < i64::from(i32::MAX))
}

/// When a rollout that goes on now will have taken too long.
fn deadline(deployment: &Object, seconds: i64) -> Option<Timestamp> {
    let progressing = condition(deployment, PROGRESSING)?;
    let reason = progressing["reason"].as_str()?;
    if matches!(reason, NEW_SET_AVAILABLE | DEADLINE_EXCEEDED) || is_paused(deployment) {
        return None;
    }
    let since: Timestamp = progressing["lastUpdateTime"].as_str()?.parse().ok()?;
    Some(plus_seconds(since, seconds))
}

fn has_progressed(before: &Object, after: &Object) -> bool {
    let old_pods =
        |object: &Object| status_count(object, "replicas") - status_count(object, "updatedReplicas");
    let more = |key: &str| status_count(after, key) > status_count(before, key);
    more("updatedReplicas")
        || more("readyReplicas")
        || more("availableReplicas")
        || old_pods(after) < old_pods(before)
}

/// Sets a condition, unless it says the same already; the time of the transition stays when the status does.
fn set(rollout: &mut Rollout, name: &str, status: &str, reason: &str, message: String) {
    if let Some(known) = condition(&rollout.deployment, name)
        && known["status"] == status
        && known["reason"] == reason
    {
        return;
    }
    replace(rollout, name, status, reason, message);
}

/// Notes progress even where the condition stays: the deadline counts from here.
fn touch(rollout: &mut Rollout, message: String) {
    replace(rollout, PROGRESSING, "True", "ReplicaSetUpdated", message);
}

fn replace(rollout: &mut Rollout, name: &str, status: &str, reason: &str, message: String) {
    let now = json!(time_text(rollout.now));
    let known = condition(&rollout.deployment, name).filter(|known| known["status"] == status);
    let transition = known.map_or(now.clone(), |known| known["lastTransitionTime"].clone());
    let condition = json!({
        "type": name,
        "status": status,
        "lastUpdateTime": now,
        "lastTransitionTime": transition,
        "reason": reason,
        "message": message,
    });
    // The one that changed last stands last, as upstream leaves them.
    remove(&mut rollout.deployment, name);
    set_condition(&mut rollout.deployment, condition);
}

fn remove(deployment: &mut Object, name: &str) {
    if let Some(Value::Array(conditions)) = deployment.map_mut("status").get_mut("conditions") {
        conditions.retain(|condition| condition["type"] != name);
    }
}
