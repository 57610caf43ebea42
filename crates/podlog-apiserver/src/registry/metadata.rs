//! `metadata`: what the server fills in and what a client may not change.
//!
//! As `BeforeCreate` and `BeforeUpdate` of `k8s.io/apiserver/pkg/registry/rest`.

use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Cause, Object, Reason};
use rand::Rng;
use serde_json::{Value, json};

/// Characters of generated suffixes: no vowels and nothing that looks like one.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const MAX_NAME_LENGTH: usize = 63;

/// RFC 3339 in whole seconds, as Kubernetes writes times.
pub(crate) fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// Five random characters for names.
pub(crate) fn suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LENGTH)
        .map(|_| char::from(SUFFIX_ALPHABET[random.random_range(0..SUFFIX_ALPHABET.len())]))
        .collect()
}

/// Fills in what the server decides for a new object.
pub(super) fn prepare_create(
    resource: &Resource,
    namespace: &str,
    object: &mut Object,
    now: Timestamp,
) -> Result<(), ApiError> {
    if !object.resource_version().is_empty() {
        return Err(ApiError::new(
            500,
            Reason::Unknown,
            "resourceVersion should not be set on objects to be created",
        ));
    }
    set_type(resource, object);
    set_namespace(resource, namespace, object)?;
    let metadata = object.metadata_mut();
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        metadata.remove(key);
    }
    metadata.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".into(), json!(time(now)));
    generate_name(object);
    check_name(resource, object)
}

fn set_type(resource: &Resource, object: &mut Object) {
    object.0["kind"] = json!(resource.kind);
    object.0["apiVersion"] = json!(resource.api_version());
}

/// Fills in the namespace of the request where the object has none.
pub(crate) fn set_namespace(
    resource: &Resource,
    namespace: &str,
    object: &mut Object,
) -> Result<(), ApiError> {
    if !resource.namespaced {
        object.metadata_mut().remove("namespace");
        return Ok(());
    }
    if !object.namespace().is_empty() && object.namespace() != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    object.metadata_mut().insert("namespace".into(), json!(namespace));
    Ok(())
}

fn generate_name(object: &mut Object) {
    if !object.name().is_empty() || object.text("/metadata/generateName").is_empty() {
        return;
    }
    let mut base = object.text("/metadata/generateName").to_owned();
    let mut end = base.len().min(MAX_NAME_LENGTH - SUFFIX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    base.truncate(end);
    object.metadata_mut().insert("name".into(), json!(base + &suffix()));
}

/// What every name must be, whatever its kind: a segment of a path (`pkg/api/validation/path`).
fn check_name(resource: &Resource, object: &Object) -> Result<(), ApiError> {
    let name = object.name();
    let (reason, message) = if name.is_empty() {
        ("FieldValueRequired", "Required value: name or generateName is required".to_owned())
    } else if name == "." || name == ".." {
        ("FieldValueInvalid", format!("Invalid value: {name:?}: may not be '{name}'"))
    } else if let Some(bad) = name.chars().find(|c| matches!(c, '/' | '%')) {
        ("FieldValueInvalid", format!("Invalid value: {name:?}: may not contain '{bad}'"))
    } else {
        return Ok(());
    };
    let cause = Cause { reason: reason.into(), message, field: "metadata.name".into() };
    Err(ApiError::invalid(resource.group, resource.kind, name, vec![cause]))
}

/// Keeps what a client may not change and refuses what it must not try to.
pub(super) fn prepare_update(resource: &Resource, new: &mut Object, old: &Object) -> Result<(), ApiError> {
    set_type(resource, new);
    set_namespace(resource, old.namespace(), new)?;
    if new.name().is_empty() {
        new.metadata_mut().insert("name".into(), json!(old.name()));
    }
    if new.name() != old.name() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            new.name(),
            old.name()
        )));
    }
    super::Preconditions { resource_version: None, ..super::Preconditions::of(new) }.check(resource, old)?;
    if !new.resource_version().is_empty() && new.resource_version() != old.resource_version() {
        return Err(ApiError::modified(resource.group, resource.plural, old.name()));
    }
    keep(new, old);
    Ok(())
}

const KEPT: &[&str] = &[
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "generation",
    "generateName",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

fn keep(new: &mut Object, old: &Object) {
    let metadata = new.metadata_mut();
    metadata.remove("selfLink");
    for key in KEPT {
        match old.0["metadata"].get(*key) {
            Some(value) => metadata.insert((*key).into(), value.clone()),
            None => metadata.remove(*key),
        };
    }
    // Empty maps and lists are left out, as Go's `omitempty` does: otherwise removing the last label would differ from
    // never having had one.
    metadata.retain(|_, value| !is_empty(value));
    // Whoever says nothing about owners changes nothing about them.
    if let (None, Some(owners)) = (metadata.get("managedFields"), old.at("/metadata/managedFields")) {
        metadata.insert("managedFields".into(), owners.clone());
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_path_segments() {
        let resource = podlog_api::resource::find("", "v1", "configmaps").unwrap();
        for (name, ok) in
            [("web", true), ("", false), (".", false), ("..", false), ("a/b", false), ("a%b", false)]
        {
            let mut object = Object::new(json!({"metadata": {"name": name}}));
            let result = prepare_create(resource, "default", &mut object, Timestamp::UNIX_EPOCH);
            assert_eq!(result.is_ok(), ok, "{name}: {result:?}");
        }
    }

    #[test]
    fn generated_names_are_short_enough() {
        for (base, length) in [("web-", 9), (&*"x".repeat(200), 63), (&*"ä".repeat(40), 63)] {
            let mut object = Object::new(json!({"metadata": {"generateName": base}}));
            generate_name(&mut object);
            assert_eq!(object.name().len(), length);
        }
    }

    #[test]
    fn times_are_whole_seconds() {
        let at: Timestamp = "2026-01-02T03:04:05.999Z".parse().unwrap();
        assert_eq!(time(at), "2026-01-02T03:04:05Z");
    }
}
