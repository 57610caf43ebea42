//! `metadata`: names, labels, annotations, owners (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::Value;

use super::field::{Errors, at, child, entries, index, list, text};
use crate::Object;
use crate::names;
use crate::resource::Resource;

const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// The rule that a kind's names follow.
fn name_rule(resource: &Resource) -> fn(&str) -> Vec<String> {
    match (resource.group, resource.kind) {
        ("", "Namespace") | ("apps", "StatefulSet") => names::dns_label,
        ("", "Service") => names::dns_1035_label,
        ("rbac.authorization.k8s.io", _) | (_, "Event") => names::path_segment,
        _ => names::dns_subdomain,
    }
}

pub(super) fn create(resource: &Resource, object: &Object, errors: &mut Errors) {
    let rule = name_rule(resource);
    let metadata = at(object, "/metadata");
    let prefix = text(metadata, "generateName");
    if !prefix.is_empty() {
        // A dash at the end is fine: something follows.
        let end = prefix.strip_suffix('-').map_or(prefix.to_owned(), |prefix| format!("{prefix}a"));
        errors.invalid_all("metadata.generateName", prefix, rule(&end));
    }
    match object.name() {
        "" => errors.required("metadata.name", "name or generateName is required"),
        name => errors.invalid_all("metadata.name", name, rule(name)),
    }
    namespace(resource, object.namespace(), errors);
    common(metadata, errors);
}

fn namespace(resource: &Resource, namespace: &str, errors: &mut Errors) {
    match (resource.namespaced, namespace) {
        (true, "") => errors.required("metadata.namespace", ""),
        (true, namespace) => {
            errors.invalid_all("metadata.namespace", namespace, names::dns_label(namespace));
        }
        (false, "") => {}
        (false, _) => errors.forbidden("metadata.namespace", "not allowed on this type"),
    }
}

pub(super) fn update(new: &Object, old: &Object, errors: &mut Errors) {
    if old.is_deleting() {
        no_new_finalizers(new, old, errors);
    }
    for field in ["name", "namespace"] {
        let pointer = format!("/metadata/{field}");
        errors.immutable(&format!("metadata.{field}"), at(new, &pointer), at(old, &pointer));
    }
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let pointer = format!("/metadata/{field}");
        // What the client leaves out is filled in from the stored object.
        if let Some(value) = new.at(&pointer) {
            errors.immutable(&format!("metadata.{field}"), value, at(old, &pointer));
        }
    }
    common(at(new, "/metadata"), errors);
}

fn no_new_finalizers(new: &Object, old: &Object, errors: &mut Errors) {
    let before = old.array("/metadata/finalizers");
    let added: Vec<&str> = new
        .array("/metadata/finalizers")
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .filter_map(Value::as_str)
        .collect();
    if !added.is_empty() {
        let quoted: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            quoted.join(", ")
        );
        errors.forbidden("metadata.finalizers", &detail);
    }
}

/// What creates and updates check alike.
fn common(metadata: &Value, errors: &mut Errors) {
    errors.not_negative(metadata, "metadata", "generation");
    labels(metadata, "labels", "metadata.labels", errors);
    annotations(metadata, "metadata.annotations", errors);
    owners(&metadata["ownerReferences"], errors);
    let finalizers = list(metadata, "finalizers").iter().filter_map(Value::as_str);
    for finalizer in finalizers {
        errors.invalid_all("metadata.finalizers", finalizer, names::qualified_name(finalizer));
    }
}

/// A map of labels, wherever it is.
pub(super) fn labels(parent: &Value, field: &str, path: &str, errors: &mut Errors) {
    for (key, value) in entries(parent, field) {
        errors.invalid_all(path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        errors.invalid_all(path, value, names::label_value(value));
    }
}

/// A map of annotations, wherever it is.
pub(super) fn annotations(parent: &Value, path: &str, errors: &mut Errors) {
    let mut total_bytes = 0;
    for (key, value) in entries(parent, "annotations") {
        errors.invalid_all(path, key, names::qualified_name(&key.to_lowercase()));
        total_bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if total_bytes > MAX_ANNOTATION_BYTES {
        errors.too_long(path, MAX_ANNOTATION_BYTES);
    }
}

fn owners(owners: &Value, errors: &mut Errors) {
    let path = "metadata.ownerReferences";
    let mut controller = String::new();
    for (i, owner) in owners.as_array().into_iter().flatten().enumerate() {
        let at = index(path, i);
        let must_not_be_empty = [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ];
        for (field, detail) in must_not_be_empty {
            if text(owner, field).is_empty() {
                errors.invalid(child(&at, field), "", detail);
            }
        }
        if text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Event" {
            errors.invalid(&at, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == Value::Bool(true) {
            let name = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            if controller.is_empty() {
                controller = name;
            } else {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for \
                     {controller} and {name}"
                );
                errors.invalid(path, owners, &detail);
            }
        }
    }
}
