//! JSON patch and merge patch.

use json_patch::PatchOperation;
use serde_json::Value;

use super::Problem;
use crate::{ApiError, Reason};

const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations of one patch may add together: they can double the object each time.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

pub(super) fn apply(original: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let operations = decode(patch)?;
    if operations.len() > MAX_OPERATIONS {
        let text = format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        );
        let message = format!("Request entity is too large: {text}");
        return Err(ApiError::new(413, Reason::RequestEntityTooLarge, message));
    }
    let mut patched = original.clone();
    let mut copied_bytes = 0;
    for operation in operations {
        let operation: PatchOperation =
            serde_json::from_value(operation).map_err(|_| Problem::Unprocessable)?;
        if let PatchOperation::Copy(copy) = &operation {
            copied_bytes += patched.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied_bytes > MAX_COPIED_BYTES {
                return Err(Problem::Unprocessable.into());
            }
        }
        json_patch::patch(&mut patched, &[operation]).map_err(|_| Problem::Unprocessable)?;
    }
    Ok(patched)
}

pub(super) fn merge(original: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let patch: Value = serde_json::from_slice(patch)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| ApiError::bad_request("invalid JSON Patch"))?;
    let mut patched = original.clone();
    json_patch::merge(&mut patched, &patch);
    Ok(patched)
}

fn decode(patch: &[u8]) -> Result<Vec<Value>, ApiError> {
    let value: Value =
        serde_json::from_slice(patch).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let wrong = |value: &Value, go_type: &str| {
        let kind = json_type(value);
        ApiError::bad_request(format!("json: cannot unmarshal {kind} into Go value of type {go_type}"))
    };
    match value {
        Value::Array(operations) => match operations.iter().find(|operation| !operation.is_object()) {
            Some(odd) => Err(wrong(odd, "jsonpatch.Operation")),
            None => Ok(operations),
        },
        other => Err(wrong(&other, "jsonpatch.Patch")),
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
