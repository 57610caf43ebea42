//! Objects to bytes and back.

use bytes::Bytes;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, Reason, protobuf};
use serde_json::{Value, json};

use super::events;
use crate::store::StoreError;

/// What is stored: everything but the resource version, which is the store's own revision.
pub(super) fn encode(resource: &Resource, object: &Object) -> Bytes {
    let mut object = events::to_stored(resource, object.clone());
    let metadata = object.metadata_mut();
    metadata.remove("resourceVersion");
    metadata.remove("selfLink");
    Bytes::from(serde_json::to_vec(&object.0).unwrap_or_default())
}

/// An object as clients see it, from JSON, or from protobuf as Kubernetes' own API server writes it by default.
///
/// # Errors
/// When the stored bytes are neither: the store is damaged, or encrypted by Kubernetes' own API server.
pub(super) fn decode(resource: &Resource, value: &[u8], revision: u64) -> Result<Object, ApiError> {
    let mut object = parse(value).map_err(|error| {
        tracing::error!(kind = resource.kind, revision, error, "stored object cannot be read");
        ApiError::internal(format!("stored {} at revision {revision} is damaged: {error}", resource.kind))
    })?;
    object.metadata_mut().insert("resourceVersion".into(), json!(revision.to_string()));
    Ok(events::from_stored(resource, object))
}

fn parse(value: &[u8]) -> Result<Object, String> {
    if value.starts_with(&protobuf::PREFIX) {
        return protobuf::decode(value).map_err(|error| error.message);
    }
    serde_json::from_slice::<Value>(value).map(Object::new).map_err(|error| error.to_string())
}

/// What a client is told when the store fails.
pub(super) fn store_error(error: StoreError) -> ApiError {
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
