//! Objects in Kubernetes' protobuf encoding, turned into JSON.
//!
//! kubectl from 1.32 on and kubelets send `application/vnd.kubernetes.protobuf` and do not fall back to JSON. Answers
//! may be JSON, which those clients accept. The envelope is `k8s.io/apimachinery/pkg/runtime/generated.proto`'s
//! `Unknown`, the fields of every message are in `messages.txt`.

mod messages;
mod values;
mod wire;

#[cfg(test)]
mod tests;

use crate::{ApiError, Object, go, resource};
use messages::Messages;
use wire::{Fields, WireError};

/// The bytes that every object in this encoding starts with.
pub const PREFIX: [u8; 4] = *b"k8s\0";

/// Decodes an object.
///
/// Zeros that Go writes for fields which are not set are left out, as its JSON does.
///
/// # Errors
/// 400 when the body is not in this encoding, or its kind is none that clients send.
pub fn decode(body: &[u8]) -> Result<Object, ApiError> {
    let Some(envelope) = body.strip_prefix(&PREFIX) else {
        return Err(ApiError::bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ));
    };
    let unknown = Unknown::read(envelope).map_err(unreadable)?;
    let Some(message) = message_of(&unknown.api_version, &unknown.kind) else {
        return Err(ApiError::bad_request(format!(
            "no kind {} is registered for version {}",
            go::quote(&unknown.kind),
            go::quote(&unknown.api_version)
        )));
    };
    let mut object = values::message(Messages::shared(), message, unknown.raw).map_err(unreadable)?;
    object.insert("apiVersion".into(), unknown.api_version.into());
    object.insert("kind".into(), unknown.kind.into());
    Ok(Object::new(object.into()))
}

/// What wraps every object.
#[derive(Default)]
struct Unknown<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Unknown<'a> {
    fn read(envelope: &'a [u8]) -> Result<Unknown<'a>, WireError> {
        let mut unknown = Unknown::default();
        for field in Fields::of(envelope) {
            match field? {
                (1, value) => {
                    for field in Fields::of(value.bytes()?) {
                        match field? {
                            (1, value) => unknown.api_version = value.text()?,
                            (2, value) => unknown.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                (2, value) => unknown.raw = value.bytes()?,
                _ => {}
            }
        }
        Ok(unknown)
    }
}

/// The name in the table of a version's kind.
fn message_of(api_version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = resource::split_api_version(api_version);
    // Every group version has these; they belong to none.
    let package = match kind {
        "DeleteOptions" | "Status" => "meta",
        _ if version != "v1" => return None,
        _ if group.is_empty() => "core",
        _ => group.split('.').next().unwrap_or_default(),
    };
    Messages::shared().name(&format!("{package}.{kind}"))
}

fn unreadable(error: WireError) -> ApiError {
    ApiError::bad_request(format!("the body is not a valid protobuf message: {error}"))
}
