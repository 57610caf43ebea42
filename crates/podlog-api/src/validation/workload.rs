//! Deployments, replica sets, stateful sets, daemon sets and jobs (`pkg/apis/apps/validation`, `pkg/apis/batch/validation`).

use serde_json::Value;

use super::field::{Errors, at, child, text};
use super::pod;
use super::selector::label_selector;
use crate::Object;
use crate::resource::Resource;
use crate::selector::LabelSelector;

const TEMPLATE: &str = "spec.template";

pub(super) fn create(resource: &Resource, object: &Object, errors: &mut Errors) {
    let spec = at(object, "/spec");
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.not_negative(spec, "spec", field);
    }
    let noun = match resource.kind {
        "DaemonSet" => "daemonset",
        "StatefulSet" => "statefulset",
        _ => "deployment",
    };
    selector(spec, noun, errors);
    pod::template(&spec["template"], TEMPLATE, errors);
    always_restarts(resource, spec, errors);
    match resource.kind {
        "Deployment" => deployment(spec, errors),
        "StatefulSet" => {
            let supported = ["OrderedReady", "Parallel"];
            errors.one_of("spec.podManagementPolicy", text(spec, "podManagementPolicy"), &supported);
        }
        _ => {}
    }
}

pub(super) fn update(resource: &Resource, new: &Object, old: &Object, errors: &mut Errors) {
    create(resource, new, errors);
    if resource.kind == "StatefulSet" {
        return stateful_set_update(at(new, "/spec"), at(old, "/spec"), errors);
    }
    errors.immutable("spec.selector", at(new, "/spec/selector"), at(old, "/spec/selector"));
}

/// What a controller remembers of a template (`ValidateControllerRevision`).
pub(super) fn revision(object: &Object, errors: &mut Errors) {
    errors.not_negative(&object.0, "", "revision");
    if object.0["data"].is_null() {
        errors.required("data".to_owned(), "data is mandatory");
    }
}

pub(super) fn revision_update(new: &Object, old: &Object, errors: &mut Errors) {
    revision(new, errors);
    errors.immutable("data", &new.0["data"], &old.0["data"]);
}

fn stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    const CHANGEABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let mut fixed = new.clone();
    for field in CHANGEABLE {
        fixed[field] = old[field].clone();
    }
    if !super::field::same(&fixed, old) {
        errors.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

/// The selector must be there, say something, and match what the template makes.
fn selector(spec: &Value, noun: &str, errors: &mut Errors) {
    let selector = &spec["selector"];
    if !selector.is_object() {
        return errors.required("spec.selector", "");
    }
    label_selector(selector, "spec.selector", errors);
    let is_empty = |field: &str| match &selector[field] {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    if is_empty("matchLabels") && is_empty("matchExpressions") {
        let detail = format!("empty selector is invalid for {noun}");
        return errors.invalid("spec.selector", selector, &detail);
    }
    matches_template(spec, errors);
}

fn matches_template(spec: &Value, errors: &mut Errors) {
    // A selector that does not parse has been reported already.
    let Ok(selector) = LabelSelector::from_value(&spec["selector"]) else { return };
    let labels = &spec["template"]["metadata"]["labels"];
    if !selector.matches(labels.as_object()) {
        let shown = if labels.is_null() { &Value::Object(serde_json::Map::new()) } else { labels };
        errors.invalid("spec.template.metadata.labels", shown, "`selector` does not match template `labels`");
    }
}

/// Pods of these kinds are replaced when they end, so they have to be of the kind that goes on.
fn always_restarts(resource: &Resource, spec: &Value, errors: &mut Errors) {
    let pod = &spec["template"]["spec"];
    let policy = text(pod, "restartPolicy");
    if policy != "Always" {
        errors.unsupported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if !pod["activeDeadlineSeconds"].is_null() {
        let kind = if resource.kind == "Deployment" { "ReplicaSet" } else { resource.kind };
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden("spec.template.spec.activeDeadlineSeconds", &detail);
    }
}

fn deployment(spec: &Value, errors: &mut Errors) {
    let strategy = &spec["strategy"];
    match text(strategy, "type") {
        "Recreate" => {
            if !strategy["rollingUpdate"].is_null() {
                errors.forbidden(
                    "spec.strategy.rollingUpdate",
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => rolling_update(&strategy["rollingUpdate"], errors),
        other => errors.unsupported("spec.strategy.type", other, &["Recreate", "RollingUpdate"]),
    }
    let (deadline, ready) = (spec["progressDeadlineSeconds"].as_i64(), spec["minReadySeconds"].as_i64());
    if let Some(deadline) = deadline.filter(|deadline| *deadline <= ready.unwrap_or(0)) {
        errors.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
}

fn rolling_update(rolling: &Value, errors: &mut Errors) {
    let path = "spec.strategy.rollingUpdate";
    for field in ["maxUnavailable", "maxSurge"] {
        amount(&rolling[field], &child(path, field), errors);
    }
    let is_zero = |field: &str| rolling[field] == 0 || rolling[field] == "0%";
    if is_zero("maxUnavailable") && is_zero("maxSurge") {
        errors.invalid(
            child(path, "maxUnavailable"),
            &rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        );
    }
}

/// A number of pods, or a percentage of them.
fn amount(value: &Value, path: &str, errors: &mut Errors) {
    match value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                errors.invalid(
                    path,
                    text.as_str(),
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                     '93%', regex used for validation is '[0-9]+%')",
                );
            }
        }
        value => {
            if let Some(number) = value.as_i64().filter(|number| *number < 0) {
                errors.invalid(path, number, super::field::NOT_NEGATIVE);
            }
        }
    }
}

pub(super) fn job(object: &Object, errors: &mut Errors) {
    let spec = at(object, "/spec");
    for field in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
    {
        errors.not_negative(spec, "spec", field);
    }
    let mode = text(spec, "completionMode");
    if !mode.is_empty() {
        errors.one_of("spec.completionMode", mode, &["NonIndexed", "Indexed"]);
    }
    if mode == "Indexed" && spec["completions"].is_null() {
        errors.required("spec.completions", "when completion mode is Indexed");
    }
    pod::template(&spec["template"], TEMPLATE, errors);
    match text(&spec["template"]["spec"], "restartPolicy") {
        "Always" => {
            errors.required("spec.template.spec.restartPolicy", "valid values: \"OnFailure\", \"Never\"")
        }
        "OnFailure" | "Never" => {}
        other => errors.unsupported("spec.template.spec.restartPolicy", other, &["OnFailure", "Never"]),
    }
    if spec["selector"].is_object() {
        label_selector(&spec["selector"], "spec.selector", errors);
        matches_template(spec, errors);
    }
}

pub(super) fn job_update(new: &Object, old: &Object, errors: &mut Errors) {
    job(new, errors);
    for field in ["selector", "template", "completionMode", "completions"] {
        let pointer = format!("/spec/{field}");
        errors.immutable(&child("spec", field), at(new, &pointer), at(old, &pointer));
    }
}
