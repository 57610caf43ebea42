//! Pod specs, in pods and in templates (`pkg/apis/core/validation/validation.go`).

use std::collections::HashSet;

use serde_json::Value;

use super::container::{self, Role};
use super::field::{Errors, at, child, index, list, text};
use super::{metadata, volume};
use crate::Object;
use crate::names;

const MAX_ID: i64 = i32::MAX as i64;
const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";
/// Marks the API's copy of a static pod.
pub(super) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Whether a spec is a pod's own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Pod,
    Template,
}

pub(super) fn create(pod: &Object, errors: &mut Errors) {
    let spec_value = at(pod, "/spec");
    if pod.annotation(MIRROR_ANNOTATION).is_some() && text(spec_value, "nodeName").is_empty() {
        let value = pod.annotation(MIRROR_ANNOTATION).unwrap_or_default();
        let field = format!("metadata.annotations[{MIRROR_ANNOTATION}]");
        errors.invalid(field, value, "must set spec.nodeName if mirror pod annotation is set");
    }
    spec(spec_value, "spec", Place::Pod, errors);
    if !list(spec_value, "ephemeralContainers").is_empty() {
        errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
}

/// A pod template: its metadata and its spec.
pub(super) fn template(template: &Value, path: &str, errors: &mut Errors) {
    metadata::labels(&template["metadata"], "labels", &child(path, "labels"), errors);
    metadata::annotations(&template["metadata"], &child(path, "annotations"), errors);
    let spec_path = child(path, "spec");
    spec(&template["spec"], &spec_path, Place::Template, errors);
    if !list(&template["spec"], "ephemeralContainers").is_empty() {
        errors.forbidden(
            child(&spec_path, "ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

pub(super) fn spec(spec: &Value, path: &str, place: Place, errors: &mut Errors) {
    let volumes = volume::volumes(list(spec, "volumes"), &child(path, "volumes"), errors);
    containers(spec, path, &volumes, errors);
    errors.one_of(
        &child(path, "restartPolicy"),
        text(spec, "restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    errors.one_of(
        &child(path, "dnsPolicy"),
        text(spec, "dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    metadata::labels(spec, "nodeSelector", &child(path, "nodeSelector"), errors);
    if place == Place::Pod && spec["hostNetwork"] == Value::Bool(true) {
        host_ports_match(spec, path, errors);
    }
    security_context(&spec["securityContext"], &child(path, "securityContext"), errors);
    names_of(spec, path, errors);
    deadline(spec, path, errors);
    tolerations(list(spec, "tolerations"), &child(path, "tolerations"), errors);
}

fn containers(spec: &Value, path: &str, volumes: &HashSet<&str>, errors: &mut Errors) {
    let regular = list(spec, "containers");
    let containers_path = child(path, "containers");
    if regular.is_empty() {
        errors.required(&containers_path, "");
    }
    let mut taken: HashSet<&str> = HashSet::new();
    let mut host_ports = HashSet::new();
    for (i, container) in regular.iter().enumerate() {
        let at = index(&containers_path, i);
        container::check(container, &at, Role::Regular, volumes, errors);
        unique_name(container, &at, &mut taken, errors);
        container::host_port_conflicts(container, &at, &mut host_ports, errors);
    }
    for (field, role) in [("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)] {
        for (i, container) in list(spec, field).iter().enumerate() {
            let at = index(&child(path, field), i);
            container::check(container, &at, role, volumes, errors);
            unique_name(container, &at, &mut taken, errors);
        }
    }
}

fn unique_name<'v>(container: &'v Value, path: &str, taken: &mut HashSet<&'v str>, errors: &mut Errors) {
    let name = text(container, "name");
    if !name.is_empty() && !taken.insert(name) {
        errors.duplicate(child(path, "name"), name);
    }
}

/// With the host's network a container's port is the host's.
fn host_ports_match(spec: &Value, path: &str, errors: &mut Errors) {
    for field in ["containers", "initContainers"] {
        for (i, container) in list(spec, field).iter().enumerate() {
            for (j, port) in list(container, "ports").iter().enumerate() {
                if port["hostPort"] != port["containerPort"] {
                    let at = index(&child(&index(&child(path, field), i), "ports"), j);
                    errors.invalid(child(&at, "hostPort"), &port["hostPort"], "must match `containerPort`");
                }
            }
        }
    }
}

/// User and group ids, of a pod or a container.
pub(super) fn security_context(context: &Value, path: &str, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = context[field].as_i64().filter(|id| !(0..=MAX_ID).contains(id)) {
            errors.invalid(child(path, field), id, ID_RANGE);
        }
    }
    for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
        if let Some(id) = group.as_i64().filter(|id| !(0..=MAX_ID).contains(id)) {
            errors.invalid(index(&child(path, "supplementalGroups"), i), id, ID_RANGE);
        }
    }
}

fn names_of(spec: &Value, path: &str, errors: &mut Errors) {
    type Rule = fn(&str) -> Vec<String>;
    let rules: [(&str, Rule); 6] = [
        ("serviceAccountName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
    ];
    for (field, rule) in rules {
        let value = text(spec, field);
        if !value.is_empty() {
            errors.invalid_all(&child(path, field), value, rule(value));
        }
    }
}

fn deadline(spec: &Value, path: &str, errors: &mut Errors) {
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|s| !(1..=MAX_ID).contains(s)) {
        errors.invalid(
            child(path, "activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
}

fn tolerations(tolerations: &[Value], path: &str, errors: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = index(path, i);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        if key.is_empty() {
            if operator != "Exists" {
                errors.invalid(
                    child(&at, "operator"),
                    operator,
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                );
            }
        } else {
            errors.invalid_all(&child(&at, "key"), key, names::qualified_name(key));
        }
        match operator {
            "" | "Equal" => {
                let value = text(toleration, "value");
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    errors.invalid(child(&at, "operator"), value, &wrong.join(";"));
                }
            }
            "Exists" if !text(toleration, "value").is_empty() => {
                errors.invalid(&at, toleration, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            other => errors.unsupported(child(&at, "operator"), other, &["Equal", "Exists"]),
        }
        let effect = text(toleration, "effect");
        if !effect.is_empty() {
            errors.one_of(&child(&at, "effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            errors.invalid(
                child(&at, "effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
    }
}
