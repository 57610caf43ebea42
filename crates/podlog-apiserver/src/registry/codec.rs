//! Objects to bytes and back.

use std::collections::BTreeMap;

use bytes::Bytes;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, Reason, json, protobuf};
use serde_json::Value;
use serde_json::value::RawValue;

use super::events;
use crate::store::StoreError;

/// What is stored: everything but the resource version, which is the store's own revision.
pub(crate) fn encode(resource: &Resource, object: &Object) -> Bytes {
    let mut object = events::to_stored(resource, object.clone());
    let metadata = object.metadata_mut();
    metadata.remove("resourceVersion");
    metadata.remove("selfLink");
    // As it will be shown: lists show what is stored (`item`).
    Bytes::from(json::to_sorted_vec(&object.0))
}

/// Appends an object as an item of its list, without making anything of most of its text: an item does not say what it is,
/// and has its resource version.
///
/// # Errors
/// As [`decode`].
pub(crate) fn item(
    out: &mut Vec<u8>,
    resource: &Resource,
    value: &[u8],
    revision: u64,
) -> Result<(), ApiError> {
    if let Some(text) = Text::of(resource, value, revision) {
        text.write(out, text.members.keys().copied().filter(|key| !is_type(key)));
        return Ok(());
    }
    let mut object = decode(resource, value, revision)?;
    if let Value::Object(map) = &mut object.0 {
        map.retain(|key, _| !is_type(key));
    }
    out.extend_from_slice(&json::to_sorted_vec(&object.0));
    Ok(())
}

/// Appends an object as [`json::to_body`] makes one line of it, in the same way.
///
/// # Errors
/// As [`decode`].
pub(crate) fn document(
    out: &mut Vec<u8>,
    resource: &Resource,
    value: &[u8],
    revision: u64,
) -> Result<(), ApiError> {
    if let Some(text) = Text::of(resource, value, revision) {
        let first = json::FIRST.into_iter().filter(|key| text.members.contains_key(key));
        let rest = text.members.keys().copied().filter(|key| !json::FIRST.contains(key));
        text.write(out, first.chain(rest));
        out.push(b'\n');
        return Ok(());
    }
    out.extend_from_slice(&json::to_body(&decode(resource, value, revision)?.0, json::Layout::Compact));
    Ok(())
}

/// An object whose members, and those of its metadata, are text.
struct Text<'a> {
    members: Members<'a>,
    metadata: Members<'a>,
    revision: String,
}

type Members<'a> = BTreeMap<&'a str, &'a RawValue>;

impl<'a> Text<'a> {
    /// `None` when the text is not what [`encode`] writes, or not what is shown.
    fn of(resource: &Resource, value: &'a [u8], revision: u64) -> Option<Self> {
        if events::is_new_form(resource) {
            return None;
        }
        let members: Members<'a> = serde_json::from_slice(value).ok()?;
        let metadata = serde_json::from_str(members.get("metadata")?.get()).ok()?;
        Some(Text { members, metadata, revision: format!("\"{revision}\"") })
    }

    /// Appends the members of these keys.
    fn write<'k>(&self, out: &mut Vec<u8>, keys: impl Iterator<Item = &'k str>) {
        write_object(out, keys, |out, key| match key {
            "metadata" => self.write_metadata(out),
            key => out.extend_from_slice(self.members[key].get().as_bytes()),
        });
    }

    fn write_metadata(&self, out: &mut Vec<u8>) {
        let before = self.metadata.range(..RESOURCE_VERSION).map(|(key, _)| *key);
        let after = self.metadata.range(RESOURCE_VERSION..).map(|(key, _)| *key);
        let after = after.filter(|key| *key != RESOURCE_VERSION);
        write_object(out, before.chain([RESOURCE_VERSION]).chain(after), |out, key| {
            let text = if key == RESOURCE_VERSION { &self.revision } else { self.metadata[key].get() };
            out.extend_from_slice(text.as_bytes());
        });
    }
}

const RESOURCE_VERSION: &str = "resourceVersion";

fn is_type(key: &str) -> bool {
    matches!(key, "kind" | "apiVersion")
}

fn write_object<'k>(
    out: &mut Vec<u8>,
    keys: impl Iterator<Item = &'k str>,
    mut write: impl FnMut(&mut Vec<u8>, &str),
) {
    out.push(b'{');
    for (number, key) in keys.enumerate() {
        out.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        write(out, key);
    }
    out.push(b'}');
}

/// An object as clients see it, from JSON, or from protobuf as Kubernetes' own API server writes it by default.
///
/// # Errors
/// When the stored bytes are neither: the store is damaged, or encrypted by Kubernetes' own API server.
pub(crate) fn decode(resource: &Resource, value: &[u8], revision: u64) -> Result<Object, ApiError> {
    let mut object = parse(value).map_err(|error| {
        tracing::error!(kind = resource.kind, revision, error, "stored object cannot be read");
        ApiError::internal(format!("stored {} at revision {revision} is damaged: {error}", resource.kind))
    })?;
    object.metadata_mut().insert("resourceVersion".into(), Value::from(revision.to_string()));
    Ok(events::from_stored(resource, object))
}

fn parse(value: &[u8]) -> Result<Object, String> {
    if value.starts_with(&protobuf::PREFIX) {
        return protobuf::decode(value).map_err(|error| error.message);
    }
    serde_json::from_slice::<Value>(value).map(Object::new).map_err(|error| error.to_string())
}

/// What a client is told when the store fails.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { requested, oldest } => {
            ApiError::expired(format!("too old resource version: {requested} ({})", oldest.saturating_sub(1)))
        }
        StoreError::Future { requested, current } => too_large_version(requested, current),
        StoreError::Conflict(_) => ApiError::new(409, Reason::Conflict, "the object has been modified"),
        StoreError::Unavailable(reason) => {
            tracing::warn!(reason, "the store is away");
            unavailable()
        }
        other => {
            tracing::error!(error = %other, "the store failed");
            ApiError::internal(other)
        }
    }
}

/// 503 that tells clients to ask again.
fn unavailable() -> ApiError {
    let text = "the server is currently unable to handle the request";
    let details = podlog_api::Details { retry_after_seconds: 1, ..podlog_api::Details::default() };
    ApiError::new(503, Reason::ServiceUnavailable, text).with_details(details)
}

/// 504 for a revision that is ahead of us, as `k8s.io/apiserver/pkg/storage` words it.
pub(crate) fn too_large_version(requested: u64, current: u64) -> ApiError {
    let cause = podlog_api::Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    ApiError::new(
        504,
        Reason::Timeout,
        format!("Timeout: Too large resource version: {requested}, current: {current}"),
    )
    .with_details(podlog_api::Details {
        causes: vec![cause],
        retry_after_seconds: 1,
        ..podlog_api::Details::default()
    })
}

#[cfg(test)]
mod tests {
    use podlog_api::resource;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_that_is_passed_on_is_what_decoding_and_encoding_makes_of_it() {
        let pods = resource::find("", "v1", "pods").unwrap();
        let maps = resource::find("", "v1", "configmaps").unwrap();
        let new_events = resource::find("events.k8s.io", "v1", "events").unwrap();
        let rows = [
            (
                pods,
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "u", "annotations": {"k": "<&>"}},
                "spec": {"x": 1.5}, "status": {}}),
            ),
            (
                maps,
                json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "\"metadata\":{"}, "metadata": {}}),
            ),
            (maps, json!({"metadata": {"na\nme": "escaped key"}})),
            (
                maps,
                json!({"metadata": {"a": 1, "resourceVersionX": 2, "resourceVersio": 3}, "aa": [], "z": null}),
            ),
            (new_events, json!({"kind": "Event", "metadata": {"name": "e"}, "note": "n"})),
        ];
        for (resource, object) in rows {
            let stored = encode(resource, &Object::new(object));
            let mut fast = Vec::new();
            item(&mut fast, resource, &stored, 7).unwrap();
            let mut slow = decode(resource, &stored, 7).unwrap().0;
            slow.as_object_mut().unwrap().retain(|key, _| !is_type(key));
            assert_eq!(
                String::from_utf8(fast).unwrap(),
                String::from_utf8(super::json::to_sorted_vec(&slow)).unwrap()
            );
            let mut fast = Vec::new();
            document(&mut fast, resource, &stored, 7).unwrap();
            let slow = decode(resource, &stored, 7).unwrap().0;
            assert_eq!(
                String::from_utf8(fast).unwrap(),
                String::from_utf8(super::json::to_body(&slow, super::json::Layout::Compact)).unwrap()
            );
        }
        assert!(item(&mut Vec::new(), pods, b"{damaged", 1).is_err());
        assert!(document(&mut Vec::new(), pods, b"{damaged", 1).is_err());
    }
}
