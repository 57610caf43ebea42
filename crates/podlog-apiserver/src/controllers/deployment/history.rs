//! Revisions: what a ReplicaSet remembers of its deployment, and how many of them are kept.

use podlog_api::{Object, child_map};
use serde_json::{Value, json};

use super::{HASH_LABEL, REVISION, REVISION_HISTORY, annotate, annotate_size, hash::template_hash, rolling};
use crate::controllers::objects::*;

/// Annotations that a deployment does not share with its sets.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    super::DESIRED_REPLICAS,
    super::MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The revision of a set; 0 where it has none.
pub(super) fn revision(set: &Object) -> i64 {
    set.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A new ReplicaSet of the deployment's template. `present` is how many pods the other sets are to have.
pub(super) fn new_set(deployment: &Object, revision: i64, present: i64) -> Object {
    let spec = &deployment.0["spec"];
    let hash = template_hash(&spec["template"], status_count(deployment, "collisionCount"));
    let mut template = spec["template"].clone();
    child_map(&mut template["metadata"], "labels").insert(HASH_LABEL.into(), json!(hash));
    let mut selector = spec["selector"].clone();
    child_map(&mut selector, "matchLabels").insert(HASH_LABEL.into(), json!(hash));
    let mut set = Object::new(json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", deployment.name()),
            "namespace": deployment.namespace(),
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": rolling::newest_size(deployment, present, 0),
            "selector": selector,
            "template": template,
        },
    }));
    if let Some(seconds) = spec.get("minReadySeconds") {
        set.map_mut("spec").insert("minReadySeconds".into(), seconds.clone());
    }
    copy_annotations(&mut set, deployment);
    annotate(&mut set, REVISION, &revision.to_string());
    annotate_size(&mut set, deployment);
    set
}

/// Brings the annotations of the newest set up to date; if its template is back from an older revision, that is remembered.
pub(super) fn update_annotations(set: &mut Object, deployment: &Object, next: i64) {
    copy_annotations(set, deployment);
    let present = revision(set);
    if present < next {
        if present > 0 {
            let history = set.annotation(REVISION_HISTORY).filter(|history| !history.is_empty());
            let history = history.map_or(present.to_string(), |history| format!("{history},{present}"));
            annotate(set, REVISION_HISTORY, &history);
        }
        annotate(set, REVISION, &next.to_string());
    }
}

fn copy_annotations(set: &mut Object, deployment: &Object) {
    let annotations = deployment.at("/metadata/annotations").and_then(Value::as_object);
    for (key, value) in annotations.into_iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotate(set, key, value.as_str().unwrap_or_default());
        }
    }
}

/// The old sets that are too many: oldest revisions first, none that still has pods.
pub(super) fn surplus<'a>(old: &[&'a Object], limit: usize) -> Vec<&'a Object> {
    let mut alive: Vec<&Object> = old.iter().copied().filter(|set| !set.is_deleting()).collect();
    let too_many = alive.len().saturating_sub(limit);
    alive.sort_by_key(|set| (revision(set), created(set)));
    let idle = |set: &&&Object| {
        let observed =
            status_count(set, "observedGeneration") >= set.integer("/metadata/generation").unwrap_or(0);
        replicas(set) == 0 && status_count(set, "replicas") == 0 && observed
    };
    alive.iter().take(too_many).filter(idle).copied().collect()
}
