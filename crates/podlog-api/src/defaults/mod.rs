//! What the API fills in where a manifest says nothing.
//!
//! Values as the `SetDefaults_*` functions in `pkg/apis/*/v1/defaults.go` of Kubernetes. What admission or a kind's
//! strategy adds (service account, tolerations, finalizers, generation) is not defaulting and not done here.

mod pod;
mod workload;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::{Object, child_map};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Fills in the defaults of an object of this kind.
pub fn apply(resource: &Resource, object: &mut Object) {
    apply_schema(resource.schema, object);
}

/// Fills in the defaults of an object of this schema, e.g. of a subresource's `io.k8s.api.authentication.v1.TokenRequest`.
pub fn apply_schema(schema: &str, object: &mut Object) {
    match schema.trim_start_matches("io.k8s.api.") {
        "core.v1.Pod" => pod::pod(object),
        "core.v1.Secret" => secret(object),
        "core.v1.Service" => service(object),
        "core.v1.Namespace" => namespace(object),
        "core.v1.Node" => node(object),
        "apps.v1.Deployment" => workload::deployment(object),
        "apps.v1.ReplicaSet" => workload::replica_set(object),
        "apps.v1.StatefulSet" => workload::stateful_set(object),
        "apps.v1.DaemonSet" => workload::daemon_set(object),
        "batch.v1.Job" => workload::job(object),
        "rbac.v1.RoleBinding" | "rbac.v1.ClusterRoleBinding" => binding(object),
        "discovery.v1.EndpointSlice" => endpoint_slice(object),
        "authentication.v1.TokenRequest" => {
            default(object.map_mut("spec"), "expirationSeconds", json!(3600));
        }
        _ => {}
    }
}

/// Sets a field that is missing, or that has Go's zero value, which upstream cannot tell from missing.
fn default(map: &mut Map<String, Value>, key: &str, value: Value) {
    let is_set = match map.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    };
    if !is_set {
        map.insert(key.to_owned(), value);
    }
}

/// As [`default`], for numbers where 0 means "not set".
fn default_number(map: &mut Map<String, Value>, key: &str, value: i64) {
    if map.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
        map.insert(key.to_owned(), json!(value));
    }
}

/// The maps in the list at `key`.
fn maps_in<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The map at `key`, if there is one.
fn map_in<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_object_mut)
}

fn secret(object: &mut Object) {
    let Value::Object(fields) = &mut object.0 else { return };
    default(fields, "type", json!("Opaque"));
    // `stringData` is write-only: it ends up in `data` (pkg/apis/core/v1/conversion.go).
    if let Some(Value::Object(plain)) = fields.remove("stringData") {
        let data = child_map(&mut object.0, "data");
        for (key, value) in plain {
            data.insert(key, json!(STANDARD.encode(value.as_str().unwrap_or_default())));
        }
    }
}

fn service(object: &mut Object) {
    let spec = object.map_mut("spec");
    default(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "None" {
        spec.remove("sessionAffinityConfig");
    } else if spec.get("sessionAffinityConfig").and_then(|c| c.pointer("/clientIP/timeoutSeconds")).is_none()
    {
        spec.insert("sessionAffinityConfig".into(), json!({"clientIP": {"timeoutSeconds": 10_800}}));
    }
    default(spec, "type", json!("ClusterIP"));
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    for port in maps_in(spec, "ports") {
        default(port, "protocol", json!("TCP"));
        let number = port.get("port").cloned().unwrap_or(json!(0));
        if port.get("targetPort").is_none_or(|target| *target == json!(0) || *target == json!("")) {
            port.insert("targetPort".into(), number);
        }
    }
}

fn namespace(object: &mut Object) {
    let name = object.name().to_owned();
    if !name.is_empty() {
        let labels = child_map(&mut object.0["metadata"], "labels");
        labels.insert("kubernetes.io/metadata.name".into(), json!(name));
    }
    default(object.map_mut("status"), "phase", json!("Active"));
}

fn node(object: &mut Object) {
    let Some(status) = object.0.get_mut("status").and_then(Value::as_object_mut) else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        default(status, "allocatable", capacity);
    }
}

fn binding(object: &mut Object) {
    default(object.map_mut("roleRef"), "apiGroup", json!(RBAC_GROUP));
    let Value::Object(fields) = &mut object.0 else { return };
    for subject in maps_in(fields, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            default(subject, "apiGroup", json!(RBAC_GROUP));
        }
    }
}

fn endpoint_slice(object: &mut Object) {
    let Value::Object(fields) = &mut object.0 else { return };
    for port in maps_in(fields, "ports") {
        port.entry("name").or_insert_with(|| json!(""));
        default(port, "protocol", json!("TCP"));
    }
}

#[cfg(test)]
mod tests;
