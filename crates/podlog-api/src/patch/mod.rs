//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes' strategic merge patch.
//!
//! Semantics, limits and texts as `k8s.io/apiserver/pkg/endpoints/handlers/patch.go` and
//! `k8s.io/apimachinery/pkg/util/strategicpatch`. Server-side apply is something else and not here.

mod diff;
mod operations;
mod order;
mod strategic;
mod strategy;

use serde_json::{Map, Value};

pub(crate) use strategy::{Lists, Strategy, merge_key};

use crate::{ApiError, Object, Reason, go, json, resource::Resource};
use strategic::Mode;
use strategy::Position;

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// A list of operations, RFC 6902.
    Json,
    /// A partial object in which null deletes and lists replace, RFC 7386.
    Merge,
    /// A partial object whose lists merge by key where Kubernetes says so.
    Strategic,
}

impl PatchType {
    /// The type that a `Content-Type` (without parameters) names, if it is one of these.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            "application/strategic-merge-patch+json" => PatchType::Strategic,
            _ => return None,
        })
    }
}

/// The object that results from a patch. Whether it is valid is for the caller to check.
///
/// # Errors
/// 400 for a patch that cannot be read, 413 for one of too many operations, 422 for one that does not fit the object, and
/// 500 (as upstream) for lists whose elements lack their merge key.
pub fn apply(
    resource: &Resource,
    patch_type: PatchType,
    original: &Object,
    patch: &[u8],
) -> Result<Object, ApiError> {
    let mut patched = match patch_type {
        PatchType::Json => operations::apply(&original.0, patch)?,
        PatchType::Merge => operations::merge(&original.0, patch)?,
        PatchType::Strategic => strategic_merge(resource, &original.0, patch)?,
    };
    if json::is_deeper_than(&patched, json::MAX_DEPTH) {
        return Err(Problem::Unprocessable.into());
    }
    drop_nulls(&mut patched);
    match patched {
        Value::Object(_) => Ok(Object(patched)),
        _ => Err(Problem::Unprocessable.into()),
    }
}

/// The strategic merge patch that `kubectl apply` sends: what `modified` (the manifest) changes against `current` (the live
/// object), and deletes of what was in `last_applied` and is no longer in `modified`. An empty map when nothing changes.
///
/// # Errors
/// When a list that merges by key has elements without the key.
pub fn three_way(
    resource: &Resource,
    last_applied: &Value,
    modified: &Value,
    current: &Value,
) -> Result<Value, ApiError> {
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (original, modified, current) = (map(last_applied), map(modified), map(current));
    let position = Position::root(resource.schema);
    let delta = diff::maps(&current, &modified, &position, diff::Options::additions())?;
    let deletions = diff::maps(&original, &modified, &position, diff::Options::deletions())?;
    let patch = strategic::merge_map(deletions, delta, &position, Mode::Combine)?;
    Ok(Value::Object(patch))
}

fn strategic_merge(resource: &Resource, original: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let patch: Value = serde_json::from_slice(patch)
        .map_err(|error| ApiError::bad_request(go::json_error(patch, &error)))?;
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Null => Map::new(),
        other => return Err(ApiError::bad_request(wrong_type(&other, GO_MAP))),
    };
    let original = original.as_object().cloned().unwrap_or_default();
    let merged = strategic::merge_map(original, patch, &Position::root(resource.schema), Mode::Apply)?;
    Ok(Value::Object(merged))
}

/// Go's name of the type of a JSON object.
const GO_MAP: &str = "map[string]interface {}";

fn wrong_type(value: &Value, go_type: &str) -> String {
    format!("json: cannot unmarshal {} into Go value of type {go_type}", go::json_type(value))
}

/// Null stands for "not set" everywhere in Kubernetes' types: it does not survive decoding there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Why a patch does not work, by what upstream makes of it.
#[derive(Debug)]
enum Problem {
    /// The patch has not the form it must have: 400.
    Malformed(String),
    /// It cannot be done to this object: 422, without saying why.
    Unprocessable,
    /// Upstream fails with a plain error here: 500.
    Failed(String),
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Malformed(text) => ApiError::bad_request(text),
            Problem::Unprocessable => {
                let text = "the server rejected our request due to an error in our request";
                ApiError::new(422, Reason::Invalid, text).with_details(crate::Details::default())
            }
            Problem::Failed(text) => ApiError::new(500, Reason::Unknown, text),
        }
    }
}

impl Problem {
    fn no_merge_key(map: &Value, key: &str) -> Self {
        Problem::Failed(format!("map: {} does not contain declared merge key: {key}", go_text(map)))
    }
}

/// A value as Go's `%v` prints it, which is what upstream's texts show.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
