//! One container.

use std::collections::HashSet;

use serde_json::Value;

use super::field::{Errors, NOT_NEGATIVE, child, entries, index, list, text};
use super::pod;
use crate::names;
use crate::quantity::Quantity;

/// Which of a pod's lists a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Regular,
    Init,
    Ephemeral,
}

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

pub(super) fn check(container: &Value, path: &str, role: Role, volumes: &HashSet<&str>, errors: &mut Errors) {
    match text(container, "name") {
        "" => errors.required(child(path, "name"), ""),
        name => errors.invalid_all(&child(path, "name"), name, names::dns_label(name)),
    }
    if text(container, "image").is_empty() {
        errors.required(child(path, "image"), "");
    }
    errors.one_of(
        &child(path, "terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(list(container, "ports"), &child(path, "ports"), errors);
    environment(container, path, errors);
    mounts(list(container, "volumeMounts"), &child(path, "volumeMounts"), volumes, errors);
    errors.one_of(
        &child(path, "imagePullPolicy"),
        text(container, "imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    resources(&container["resources"], &child(path, "resources"), errors);
    pod::security_context(&container["securityContext"], &child(path, "securityContext"), errors);
    by_role(container, path, role, errors);
}

fn by_role(container: &Value, path: &str, role: Role, errors: &mut Errors) {
    let restarts = text(container, "restartPolicy") == "Always";
    match role {
        Role::Init if !restarts => {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if !container[field].is_null() {
                    errors.forbidden(
                        child(path, field),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
        Role::Ephemeral => {
            for field in ["ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if !container[field].is_null() {
                    errors.forbidden(child(path, field), "cannot be set for an Ephemeral Container");
                }
            }
        }
        Role::Regular | Role::Init => {
            for field in PROBES.into_iter().filter(|field| container[*field].is_object()) {
                probe(&container[field], field, &child(path, field), errors);
            }
            for hook in ["postStart", "preStop"] {
                let handler = &container["lifecycle"][hook];
                if handler.is_object() {
                    self::handler(handler, &child(&child(path, "lifecycle"), hook), errors);
                }
            }
        }
    }
}

fn ports(ports: &[Value], path: &str, errors: &mut Errors) {
    let mut taken = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = index(path, i);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && !taken.insert(name) {
                errors.duplicate(child(&at, "name"), name);
            }
            errors.invalid_all(&child(&at, "name"), name, wrong);
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.required(child(&at, "containerPort"), ""),
            number => port_number(number, &child(&at, "containerPort"), errors),
        }
        if let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) {
            port_number(number, &child(&at, "hostPort"), errors);
        }
        errors.one_of(&child(&at, "protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn port_number(number: i64, path: &str, errors: &mut Errors) {
    if let Some(wrong) = names::port_number(number) {
        errors.invalid(path, number, wrong);
    }
}

/// No two containers of a pod may ask for the same port of the host.
pub(super) fn host_port_conflicts(
    container: &Value,
    path: &str,
    taken: &mut HashSet<String>,
    errors: &mut Errors,
) {
    for (i, port) in list(container, "ports").iter().enumerate() {
        let number = port["hostPort"].as_i64().unwrap_or(0);
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", text(port, "hostIP"), text(port, "protocol"));
        if taken.contains(&key) {
            errors.duplicate(child(&index(&child(path, "ports"), i), "hostPort"), key.as_str());
        }
        taken.insert(key);
    }
}

fn environment(container: &Value, path: &str, errors: &mut Errors) {
    for (i, variable) in list(container, "env").iter().enumerate() {
        let at = index(&child(path, "env"), i);
        match text(variable, "name") {
            "" => errors.required(child(&at, "name"), ""),
            name => errors.invalid_all(&child(&at, "name"), name, names::environment_variable(name)),
        }
        if variable["valueFrom"].is_object() {
            value_source(variable, &child(&at, "valueFrom"), errors);
        }
    }
    let from_path = child(path, "envFrom");
    for (i, source) in list(container, "envFrom").iter().enumerate() {
        let at = index(&from_path, i);
        let prefix = text(source, "prefix");
        errors.invalid_all(&child(&at, "prefix"), prefix, names::environment_variable(prefix));
        let kinds = ["configMapRef", "secretRef"];
        for kind in kinds.into_iter().filter(|kind| source[*kind].is_object()) {
            match text(&source[kind], "name") {
                "" => errors.required(child(&child(&at, kind), "name"), ""),
                name => {
                    errors.invalid_all(&child(&child(&at, kind), "name"), name, names::dns_subdomain(name))
                }
            }
        }
        match kinds.iter().filter(|kind| source[**kind].is_object()).count() {
            0 => errors.invalid(&from_path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&from_path, "", "may not have more than one field specified at a time"),
        }
    }
}

const FIELD_PATHS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

fn value_source(variable: &Value, path: &str, errors: &mut Errors) {
    let source = &variable["valueFrom"];
    if source["fieldRef"].is_object() {
        field_reference(&source["fieldRef"], &child(path, "fieldRef"), &FIELD_PATHS, errors);
    }
    if source["resourceFieldRef"].is_object() {
        let at = child(path, "resourceFieldRef");
        match text(&source["resourceFieldRef"], "resource") {
            "" => errors.required(child(&at, "resource"), ""),
            name if name.contains(".hugepages-") => {}
            name => errors.one_of(&child(&at, "resource"), name, &RESOURCE_FIELDS),
        }
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        if source[kind].is_object() {
            let at = child(path, kind);
            let name = text(&source[kind], "name");
            errors.invalid_all(&child(&at, "name"), name, names::dns_subdomain(name));
            match text(&source[kind], "key") {
                "" => errors.required(child(&at, "key"), ""),
                key => errors.invalid_all(&child(&at, "key"), key, names::config_key(key)),
            }
        }
    }
    let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    match sources.iter().filter(|kind| source[**kind].is_object()).count() {
        0 => errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ),
        _ if !text(variable, "value").is_empty() => {
            errors.invalid(path, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

/// A downward API field: one of the plain paths, or `metadata.labels['…']`, `metadata.annotations['…']`.
pub(super) fn field_reference(reference: &Value, path: &str, supported: &[&str], errors: &mut Errors) {
    let field_path = text(reference, "fieldPath");
    if field_path.is_empty() {
        errors.required(child(path, "fieldPath"), "");
        return;
    }
    let subscripted = field_path.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match subscripted {
        Some(("metadata.labels" | "metadata.annotations", key)) => {
            errors.invalid_all(path, key, names::qualified_name(&key.to_lowercase()));
        }
        Some((owner, _)) => errors.invalid(path, owner, "does not support subscript"),
        None => errors.one_of(&child(path, "fieldPath"), field_path, supported),
    }
}

fn mounts(mounts: &[Value], path: &str, volumes: &HashSet<&str>, errors: &mut Errors) {
    let mut taken = HashSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = index(path, i);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(child(&at, "name"), "");
        }
        if !volumes.contains(name) {
            errors.not_found(child(&at, "name"), name);
        }
        if target.is_empty() {
            errors.required(child(&at, "mountPath"), "");
        }
        if !taken.insert(target) {
            errors.invalid(child(&at, "mountPath"), target, "must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            local_path(text(mount, field), &child(path, field), errors);
        }
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            let expression = text(mount, "subPathExpr");
            errors.invalid(
                child(&at, "subPathExpr"),
                expression,
                "subPathExpr and subPath are mutually exclusive",
            );
        }
    }
}

/// A relative path that stays below where it starts.
pub(super) fn local_path(value: &str, path: &str, errors: &mut Errors) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}

fn resources(resources: &Value, path: &str, errors: &mut Errors) {
    for field in ["limits", "requests"] {
        for (name, amount) in entries(resources, field) {
            let at = format!("{}[{name}]", child(path, field));
            errors.invalid_all(&at, name, names::qualified_name(name));
            let amount = amount.as_str().unwrap_or_default();
            if Quantity::parse(amount).is_some_and(|amount| amount < Quantity::ZERO) {
                errors.invalid(&at, amount, NOT_NEGATIVE);
            }
        }
    }
    for (name, requested) in entries(resources, "requests") {
        let (requested, limit) = (requested.as_str().unwrap_or_default(), text(&resources["limits"], name));
        let exceeds = match (Quantity::parse(requested), Quantity::parse(limit)) {
            (Some(requested), Some(limit)) => requested > limit,
            _ => false,
        };
        if exceeds {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(child(path, "requests"), requested, &detail);
        }
    }
}

fn probe(probe: &Value, name: &str, path: &str, errors: &mut Errors) {
    handler(probe, path, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.not_negative(probe, path, field);
    }
    let successes = probe["successThreshold"].as_i64().unwrap_or(1);
    if name != "readinessProbe" && successes != 1 {
        errors.invalid(child(path, "successThreshold"), successes, "must be 1");
    }
}

/// What a probe or a lifecycle hook does: exactly one thing.
fn handler(handler: &Value, path: &str, errors: &mut Errors) {
    let mut count = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        if !handler[kind].is_object() {
            continue;
        }
        count += 1;
        let at = child(path, kind);
        if count > 1 {
            errors.forbidden(at, "may not specify more than 1 handler type");
            continue;
        }
        let action = &handler[kind];
        match kind {
            "exec" if list(action, "command").is_empty() => errors.required(child(&at, "command"), ""),
            "httpGet" => {
                if text(action, "path").is_empty() {
                    errors.required(child(&at, "path"), "");
                }
                port(&action["port"], &child(&at, "port"), errors);
                errors.one_of(&child(&at, "scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]);
            }
            "tcpSocket" | "grpc" => port(&action["port"], &child(&at, "port"), errors),
            _ => {}
        }
    }
    if count == 0 {
        errors.required(path, "must specify a handler type");
    }
}

/// A port by number or by name.
pub(super) fn port(value: &Value, path: &str, errors: &mut Errors) {
    match value {
        Value::String(name) => errors.invalid_all(path, name, names::port_name(name)),
        value => port_number(value.as_i64().unwrap_or(0), path, errors),
    }
}
