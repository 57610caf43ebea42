//! What may change in a pod that exists (`ValidatePodUpdate` in `pkg/apis/core/validation/validation.go`).

use serde_json::Value;

use super::field::{Errors, at, child, list, same, text};
use super::pod;
use crate::Object;

const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// No more differences than this are named.
const MAX_SHOWN: usize = 10;

pub(super) fn update(new: &Object, old: &Object, errors: &mut Errors) {
    let (new_spec, old_spec) = (at(new, "/spec"), at(old, "/spec"));
    pod::spec(new_spec, "spec", pod::Place::Pod, errors);
    for field in ["containers", "initContainers"] {
        if list(new_spec, field).len() != list(old_spec, field).len() {
            errors.forbidden(child("spec", field), "pod updates may not add or remove containers");
            return;
        }
    }
    if !deadline(new_spec, old_spec, errors) {
        return;
    }
    tolerations(list(new_spec, "tolerations"), list(old_spec, "tolerations"), errors);
    gates(list(new_spec, "schedulingGates"), list(old_spec, "schedulingGates"), errors);
    let unchanged = with_changeable_fields_of(new_spec, old_spec);
    if !same(&unchanged, old_spec) {
        let mut differences = Vec::new();
        differ("spec", old_spec, &unchanged, &mut differences);
        differences.truncate(MAX_SHOWN);
        errors.forbidden("spec", &format!("{CHANGEABLE}\n{}", differences.join("\n")));
    }
}

/// As `ValidatePodEphemeralContainersUpdate`.
pub(super) fn ephemeral_containers(new: &Object, old: &Object, errors: &mut Errors) {
    let field = "spec.ephemeralContainers";
    pod::spec(at(new, "/spec"), "spec", pod::Place::Pod, errors);
    let new = list(at(new, "/spec"), "ephemeralContainers");
    for old in list(at(old, "/spec"), "ephemeralContainers") {
        let name = text(old, "name");
        match new.iter().find(|new| text(new, "name") == name) {
            None => errors
                .forbidden(field, &format!("existing ephemeral containers \"{name}\" may not be removed\n")),
            Some(new) if !same(new, old) => {
                errors.forbidden(
                    field,
                    &format!("existing ephemeral containers \"{name}\" may not be changed\n"),
                );
            }
            Some(_) => {}
        }
    }
}

/// `false` when there is nothing more to say.
fn deadline(new: &Value, old: &Value, errors: &mut Errors) -> bool {
    let field = "spec.activeDeadlineSeconds";
    match (new["activeDeadlineSeconds"].as_i64(), old["activeDeadlineSeconds"].as_i64()) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(field, new, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(field, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(field, &Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn tolerations(new: &[Value], old: &[Value], errors: &mut Errors) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(toleration) = toleration.as_object_mut() {
            toleration.remove("tolerationSeconds");
        }
        toleration
    };
    let kept = old.iter().all(|old| new.iter().any(|new| same(&without_seconds(new), &without_seconds(old))));
    if !kept {
        errors.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn gates(new: &[Value], old: &[Value], errors: &mut Errors) {
    for (i, gate) in new.iter().enumerate() {
        if !old.contains(gate) {
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
            errors.forbidden(format!("spec.schedulingGates[{i}].name"), &detail);
        }
    }
}

/// The new spec with the old one's values where a change is allowed.
fn with_changeable_fields_of(new: &Value, old: &Value) -> Value {
    let mut spec = new.clone();
    for field in ["containers", "initContainers"] {
        let containers = spec[field].as_array_mut().into_iter().flatten();
        for (container, old) in containers.zip(list(old, field)) {
            container["image"] = old["image"].clone();
        }
    }
    let shortened = old["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0)
        && new["terminationGracePeriodSeconds"] == 1;
    let fields = ["activeDeadlineSeconds", "tolerations", "schedulingGates", "terminationGracePeriodSeconds"];
    for field in fields.into_iter().filter(|field| shortened || *field != "terminationGracePeriodSeconds") {
        spec[field] = old[field].clone();
    }
    spec
}

/// One line for every value that differs.
fn differ(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    if same(old, new) || out.len() > MAX_SHOWN {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
            for key in keys {
                differ(&child(path, key), &old[key], &new[key], out);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                differ(&format!("{path}[{i}]"), before, after, out);
            }
        }
        _ => out.push(format!("  {path}: {old} → {new}")),
    }
}
