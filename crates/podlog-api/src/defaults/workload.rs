//! Kinds that make pods from a template.

use serde_json::{Value, json};

use super::pod::template;
use super::{default, map_in};
use crate::Object;

pub(super) fn deployment(object: &mut Object) {
    template(object);
    let spec = object.map_mut("spec");
    default(spec, "replicas", json!(1));
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "progressDeadlineSeconds", json!(600));
    default(spec, "strategy", json!({}));
    let Some(strategy) = map_in(spec, "strategy") else { return };
    default(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        if let Some(rolling) = map_in(strategy, "rollingUpdate") {
            default(rolling, "maxUnavailable", json!("25%"));
            default(rolling, "maxSurge", json!("25%"));
        }
    }
}

pub(super) fn replica_set(object: &mut Object) {
    template(object);
    default(object.map_mut("spec"), "replicas", json!(1));
}

pub(super) fn daemon_set(object: &mut Object) {
    template(object);
    let spec = object.map_mut("spec");
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "updateStrategy", json!({}));
    let Some(strategy) = map_in(spec, "updateStrategy") else { return };
    default(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        if let Some(rolling) = map_in(strategy, "rollingUpdate") {
            default(rolling, "maxUnavailable", json!(1));
            default(rolling, "maxSurge", json!(0));
        }
    }
}

pub(super) fn stateful_set(object: &mut Object) {
    template(object);
    let spec = object.map_mut("spec");
    default(spec, "podManagementPolicy", json!("OrderedReady"));
    default(spec, "replicas", json!(1));
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    if let Some(policy) = map_in(spec, "persistentVolumeClaimRetentionPolicy") {
        default(policy, "whenDeleted", json!("Retain"));
        default(policy, "whenScaled", json!("Retain"));
    }
    default(spec, "updateStrategy", json!({}));
    let Some(strategy) = map_in(spec, "updateStrategy") else { return };
    if strategy.get("type").is_none() {
        default(strategy, "rollingUpdate", json!({}));
    }
    default(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate"
        && let Some(rolling) = map_in(strategy, "rollingUpdate")
    {
        default(rolling, "partition", json!(0));
    }
}

pub(super) fn job(object: &mut Object) {
    template(object);
    let labels = object.at("/spec/template/metadata/labels").cloned();
    let spec = object.map_mut("spec");
    if spec.get("parallelism").is_none() {
        default(spec, "completions", json!(1));
    }
    default(spec, "parallelism", json!(1));
    default(spec, "backoffLimit", json!(6));
    default(spec, "completionMode", json!("NonIndexed"));
    default(spec, "suspend", json!(false));
    default(spec, "manualSelector", json!(false));
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    default(spec, "podReplacementPolicy", json!(replacement));
    let own_labels = object.at("/metadata/labels").and_then(Value::as_object);
    if own_labels.is_none_or(serde_json::Map::is_empty)
        && let Some(labels) = labels
    {
        object.metadata_mut().insert("labels".into(), labels);
    }
}
