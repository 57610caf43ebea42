//! What each kind does to an object before it is validated: which part a request may write, and what follows from it.
//!
//! As `PrepareForCreate` and `PrepareForUpdate` of the strategies in `pkg/registry`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use podlog_api::resource::Resource;
use podlog_api::{Object, child_map};
use serde_json::{Value, json};

use super::update::Part;
use super::{certificates, job, metadata, qos};

/// How long events are kept after they were last written.
pub(crate) const EVENT_TTL: Duration = Duration::from_secs(3600);
/// Kinds whose `metadata.generation` counts changes of `spec`.
const GENERATION: &[&str] = &["Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"];
/// Kinds whose status a client may not bring along when it creates them.
const STATUS_IS_OURS: &[&str] = &["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "Service"];

/// How long an object of the kind stays unless it is written again (`--event-ttl`).
pub(super) fn ttl(resource: &Resource) -> Option<Duration> {
    (resource.kind == "Event").then_some(EVENT_TTL)
}

/// What a new object of the kind starts with.
pub(super) fn prepare_create(resource: &Resource, object: &mut Object) {
    if GENERATION.contains(&resource.kind) {
        object.metadata_mut().insert("generation".into(), json!(1));
    } else {
        object.metadata_mut().remove("generation");
    }
    object.metadata_mut().retain(|_, value| !value.is_null());
    if STATUS_IS_OURS.contains(&resource.kind) {
        object.0["status"] = json!({});
    }
    match resource.kind {
        "Pod" => {
            let class = qos::class(object);
            object.0["status"] = json!({"phase": "Pending", "qosClass": class});
        }
        "Namespace" => {
            let name = object.name().to_owned();
            child_map(&mut object.0["metadata"], "labels")
                .insert("kubernetes.io/metadata.name".into(), json!(name));
            object.0["spec"] = json!({"finalizers": ["kubernetes"]});
            object.0["status"] = json!({"phase": "Active"});
        }
        "Service" => object.0["status"] = json!({"loadBalancer": {}}),
        "Secret" => merge_string_data(object),
        "Job" => job::select_own_pods(object),
        _ => {}
    }
}

/// Limits a change to the part that it is about, and counts it.
pub(super) fn prepare_update(resource: &Resource, part: Part, new: &mut Object, old: &Object) {
    match part {
        Part::Main => keep_status(resource, new, old),
        Part::Status => keep_all_but_status(resource, new, old),
        Part::Finalize => keep_all_but(new, old, "/spec/finalizers"),
        Part::EphemeralContainers => keep_all_but(new, old, "/spec/ephemeralContainers"),
        Part::Binding => {}
        Part::Approval => keep_all_but_status(resource, new, old),
    }
    if certificates::is_request(resource) {
        certificates::prepare_update(part, new, old, jiff::Timestamp::now());
    }
    if resource.kind == "Secret" {
        merge_string_data(new);
    }
    let bumped = GENERATION.contains(&resource.kind) && part != Part::Binding && spec(new) != spec(old);
    if bumped {
        let generation = old.integer("/metadata/generation").unwrap_or(0) + 1;
        new.metadata_mut().insert("generation".into(), json!(generation));
    }
}

fn spec(object: &Object) -> Option<&Value> {
    object.at("/spec")
}

fn keep_status(resource: &Resource, new: &mut Object, old: &Object) {
    if resource.subresource("status").is_some() {
        copy(new, old, "status");
    }
    if resource.kind == "Namespace" {
        copy(new, old, "spec");
    }
}

fn keep_all_but_status(resource: &Resource, new: &mut Object, old: &Object) {
    let status = new.at("/status").cloned();
    let metadata = new.at("/metadata").cloned();
    *new = old.clone();
    if let Some(metadata) = metadata {
        new.0["metadata"] = metadata;
        keep_own_metadata(resource, new, old);
    }
    match status {
        Some(status) => new.0["status"] = status,
        None => remove(new, "status"),
    }
}

/// Through `status`, owners are out of reach, and labels of workloads too.
fn keep_own_metadata(resource: &Resource, new: &mut Object, old: &Object) {
    let mut kept = vec!["ownerReferences"];
    if resource.group == "apps" {
        kept.push("labels");
    }
    for key in kept {
        match old.0["metadata"].get(key) {
            Some(value) => new.metadata_mut().insert(key.into(), value.clone()),
            None => new.metadata_mut().remove(key),
        };
    }
}

fn keep_all_but(new: &mut Object, old: &Object, pointer: &str) {
    let field = pointer.rsplit('/').next().unwrap_or_default();
    let value = new.at(pointer).cloned();
    let version = new.resource_version().to_owned();
    *new = old.clone();
    new.metadata_mut().insert("resourceVersion".into(), json!(version));
    match value {
        Some(value) => new.map_mut("spec").insert(field.into(), value),
        None => new.map_mut("spec").remove(field),
    };
}

fn copy(new: &mut Object, old: &Object, key: &str) {
    match old.0.get(key) {
        Some(value) => new.0[key] = value.clone(),
        None => remove(new, key),
    }
}

fn remove(object: &mut Object, key: &str) {
    if let Value::Object(map) = &mut object.0 {
        map.remove(key);
    }
}

/// `stringData` is a way to write `data`; it is never read back.
fn merge_string_data(secret: &mut Object) {
    let Value::Object(map) = &mut secret.0 else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    let data = secret.map_mut("data");
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        data.insert(key, json!(STANDARD.encode(text)));
    }
}

/// Whether an object that has just been changed has nothing left that keeps it.
pub(super) fn is_finished(resource: &Resource, new: &Object, old: &Object) -> bool {
    let graceful = old.integer("/metadata/deletionGracePeriodSeconds").is_some_and(|seconds| seconds > 0);
    let held = !new.array("/metadata/finalizers").is_empty()
        || (resource.kind == "Namespace" && !new.array("/spec/finalizers").is_empty());
    old.is_deleting() && !graceful && !held
}

/// Marks an object as being deleted.
pub(super) fn mark_deleted(object: &mut Object, at: jiff::Timestamp, grace_seconds: i64) {
    let metadata = object.metadata_mut();
    metadata.insert("deletionTimestamp".into(), json!(metadata::time(at)));
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace_seconds));
}
