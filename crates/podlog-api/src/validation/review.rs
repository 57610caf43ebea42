//! Bodies that are answered and not stored: access reviews, bindings, token requests.

use serde_json::Value;

use super::field::{Errors, at, same, text};
use crate::Object;

/// Reviews carry no metadata of their own.
pub(super) fn no_metadata(review: &Object, errors: &mut Errors) {
    if has_metadata_besides(&["managedFields"], review) {
        errors.invalid("metadata", at(review, "/metadata"), "must be empty");
    }
}

fn has_metadata_besides(known: &[&str], review: &Object) -> bool {
    let mut metadata = at(review, "/metadata").clone();
    if let Value::Object(map) = &mut metadata {
        map.retain(|key, _| !known.contains(&key.as_str()));
    }
    !same(&metadata, &Value::Null)
}

/// Exactly one of the two kinds of question.
pub(super) fn question(review: &Object, errors: &mut Errors) {
    let spec = at(review, "/spec");
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, true) => errors.invalid(
            "spec.nonResourceAttributes",
            &spec["nonResourceAttributes"],
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => errors.invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
}

/// Whom the question is about.
pub(super) fn subject(review: &Object, errors: &mut Errors) {
    if review.text("/spec/user").is_empty() && review.array("/spec/groups").is_empty() {
        errors.invalid("spec.user", "", "at least one of user or group must be specified");
    }
}

/// What a review in a namespace may say, besides what is true of all.
pub(super) fn local(review: &Object, errors: &mut Errors) {
    if has_metadata_besides(&["managedFields", "namespace"], review) {
        errors.invalid("metadata", at(review, "/metadata"), "must be empty except for namespace");
    }
    let attributes = at(review, "/spec/resourceAttributes");
    if attributes.is_object() && text(attributes, "namespace") != review.namespace() {
        errors.invalid(
            "spec.resourceAttributes.namespace",
            text(attributes, "namespace"),
            "must match metadata.namespace",
        );
    }
    let paths = at(review, "/spec/nonResourceAttributes");
    if paths.is_object() {
        errors.invalid("spec.nonResourceAttributes", paths, "disallowed on this kind of request");
    }
}

pub(super) fn token_request(request: &Object, errors: &mut Errors) {
    let Some(seconds) = request.integer("/spec/expirationSeconds") else { return };
    if seconds < 600 {
        errors.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
}

pub(super) fn binding(binding: &Object, errors: &mut Errors) {
    let target = at(binding, "/target");
    if !matches!(text(target, "kind"), "" | "Node") {
        errors.unsupported("target.kind", text(target, "kind"), &["Node", "<empty>"]);
    }
    if text(target, "name").is_empty() {
        errors.required("target.name", "");
    }
}

pub(super) fn scale(scale: &Object, errors: &mut Errors) {
    errors.not_negative(at(scale, "/spec"), "spec", "replicas");
}
