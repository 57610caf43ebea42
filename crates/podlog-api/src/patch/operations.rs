//! JSON patch and merge patch.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;

use super::Problem;
use crate::{ApiError, Reason, go};

const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations of one patch may add together: they can double the object each time.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// How deep what `serde_json` reads can be.
const MAX_BODY_DEPTH: usize = 128;
/// No object becomes deeper than this on the way through a patch: `copy` and `move` could nest it until the stack is full.
const MAX_DEPTH: usize = 3 * MAX_BODY_DEPTH;

pub(super) fn apply(original: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let operations = operations(patch)?;
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
    let mut depth = MAX_BODY_DEPTH;
    for operation in operations {
        let operation: PatchOperation =
            serde_json::from_value(operation).map_err(|_| Problem::Unprocessable)?;
        depth = depth.max(depth_after(&operation, depth));
        if depth > MAX_DEPTH {
            return Err(Problem::Unprocessable.into());
        }
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

/// The most levels that there can be after an operation.
fn depth_after(operation: &PatchOperation, before: usize) -> usize {
    let levels = |pointer: &Pointer| pointer.as_str().matches('/').count();
    match operation {
        PatchOperation::Add(add) => levels(&add.path) + MAX_BODY_DEPTH,
        PatchOperation::Replace(replace) => levels(&replace.path) + MAX_BODY_DEPTH,
        PatchOperation::Copy(copy) => (before + levels(&copy.path)).saturating_sub(levels(&copy.from)),
        PatchOperation::Move(step) => (before + levels(&step.path)).saturating_sub(levels(&step.from)),
        PatchOperation::Test(_) | PatchOperation::Remove(_) => before,
    }
}

pub(super) fn merge(original: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let patch = decode(patch, super::GO_MAP, |value| match value {
        Value::Object(_) => Ok(value),
        other => Err(other),
    })?;
    let mut patched = original.clone();
    json_patch::merge(&mut patched, &patch);
    Ok(patched)
}

/// The patch as JSON of the type that it must have, with Go's name of that type for the failure.
fn decode<T>(patch: &[u8], go_type: &str, of: impl FnOnce(Value) -> Result<T, Value>) -> Result<T, ApiError> {
    let failed = |why: String| ApiError::bad_request(format!("error decoding patch: {why}"));
    let value: Value =
        serde_json::from_slice(patch).map_err(|error| failed(go::json_error(patch, &error)))?;
    of(value).map_err(|odd| failed(super::wrong_type(&odd, go_type)))
}

fn operations(patch: &[u8]) -> Result<Vec<Value>, ApiError> {
    let operations = decode(patch, "[]handlers.jsonPatchOp", |value| match value {
        Value::Array(operations) => Ok(operations),
        other => Err(other),
    })?;
    match operations.iter().find(|operation| !operation.is_object()) {
        Some(odd) => {
            let why = super::wrong_type(odd, "handlers.jsonPatchOp");
            Err(ApiError::bad_request(format!("error decoding patch: {why}")))
        }
        None => Ok(operations),
    }
}
