//! The small kinds: config maps, secrets, services, events, leases.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::container::port;
use super::field::{Errors, at, child, entries, index, list, same, text};
use super::metadata;
use crate::Object;
use crate::names;

/// What a config map or a secret may hold at most (1 MiB).
const MAX_DATA_BYTES: usize = 1024 * 1024;

pub(super) fn config_map(object: &Object, errors: &mut Errors) {
    let mut total_bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in entries(&object.0, field) {
            let at = format!("{field}[{key}]");
            errors.invalid_all(&at, key, names::config_key(key));
            let size = value.as_str().map_or(0, str::len);
            total_bytes += if field == "data" { size } else { size / 4 * 3 };
            if field == "binaryData" && !object.0["data"][key].is_null() {
                errors.invalid(at, key.as_str(), "duplicate of key present in data");
            }
        }
    }
    if total_bytes > MAX_DATA_BYTES {
        errors.too_long("", MAX_DATA_BYTES);
    }
}

pub(super) fn secret(object: &Object, errors: &mut Errors) {
    let mut total_bytes = 0;
    for (key, value) in entries(&object.0, "data") {
        errors.invalid_all(&format!("data[{key}]"), key, names::config_key(key));
        total_bytes += value.as_str().map_or(0, |value| value.len() / 4 * 3);
    }
    if total_bytes > MAX_DATA_BYTES {
        errors.too_long("data", MAX_DATA_BYTES);
    }
    let needed: &[&str] = match object.text("/type") {
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            if object.annotation(name).unwrap_or_default().is_empty() {
                errors.required(format!("metadata.annotations[{name}]"), "");
            }
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in needed {
        match object.0["data"][*key].as_str() {
            None => errors.required(format!("data[{key}]"), ""),
            Some(value) if key.starts_with(".docker") => {
                let decoded = STANDARD.decode(value).unwrap_or_default();
                if serde_json::from_slice::<Value>(&decoded).is_err() {
                    errors.invalid(format!("data[{key}]"), "<secret contents redacted>", "invalid JSON");
                }
            }
            Some(_) => {}
        }
    }
}

pub(super) fn secret_update(new: &Object, old: &Object, errors: &mut Errors) {
    errors.immutable("type", at(new, "/type"), at(old, "/type"));
    data_update(new, old, &["data"], errors);
}

/// What is marked `immutable` stays as it is, the mark included.
pub(super) fn data_update(new: &Object, old: &Object, fields: &[&str], errors: &mut Errors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if old.0["immutable"] != Value::Bool(true) {
        return;
    }
    if new.0["immutable"] != Value::Bool(true) {
        errors.forbidden("immutable", DETAIL);
    }
    for field in fields {
        if !same(&new.0[*field], &old.0[*field]) {
            errors.forbidden(*field, DETAIL);
        }
    }
}

pub(super) fn service(object: &Object, errors: &mut Errors) {
    let spec = at(object, "/spec");
    let kind = text(spec, "type");
    let ports = list(spec, "ports");
    if ports.is_empty() && text(spec, "clusterIP") != "None" && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    errors.one_of("spec.type", kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    errors.one_of("spec.sessionAffinity", text(spec, "sessionAffinity"), &["ClientIP", "None"]);
    metadata::labels(spec, "selector", "spec.selector", errors);
    let mut taken = HashSet::new();
    for (i, service_port) in ports.iter().enumerate() {
        let at = index("spec.ports", i);
        match text(service_port, "name") {
            "" if ports.len() > 1 => errors.required(child(&at, "name"), ""),
            "" => {}
            name => {
                errors.invalid_all(&child(&at, "name"), name, names::dns_label(name));
                if !taken.insert(name) {
                    errors.duplicate(child(&at, "name"), name);
                }
            }
        }
        port(&Value::from(service_port["port"].as_i64().unwrap_or(0)), &child(&at, "port"), errors);
        errors.one_of(&child(&at, "protocol"), text(service_port, "protocol"), &["SCTP", "TCP", "UDP"]);
        port(&service_port["targetPort"], &child(&at, "targetPort"), errors);
    }
}

/// An event lives where the object that it is about lives.
pub(super) fn event(object: &Object, subject: &str, errors: &mut Errors) {
    let about = object.text(&format!("/{subject}/namespace"));
    let agrees = match about {
        "" => object.namespace() == "default",
        about => about == object.namespace(),
    };
    if !agrees {
        errors.invalid(format!("{subject}.namespace"), about, "does not match event.namespace");
    }
}

pub(super) fn lease(object: &Object, errors: &mut Errors) {
    let spec = at(object, "/spec");
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        errors.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0");
    }
    errors.not_negative(spec, "spec", "leaseTransitions");
}

pub(super) fn node(object: &Object, errors: &mut Errors) {
    let mut taken = HashSet::new();
    for (i, taint) in object.array("/spec/taints").iter().enumerate() {
        let at = index("spec.taints", i);
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        errors.invalid_all(&child(&at, "key"), key, names::qualified_name(key));
        errors.invalid_all(
            &child(&at, "value"),
            text(taint, "value"),
            names::label_value(text(taint, "value")),
        );
        errors.one_of(&child(&at, "effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !taken.insert((key, effect)) {
            errors.duplicate(&at, taint);
        }
    }
}
