//! Certificate signing requests (`pkg/apis/certificates/validation`), but for what needs the certificate or request parsed.

use std::collections::HashSet;

use serde_json::Value;

use super::field::{Errors, at, child, index, list, text};
use crate::{Object, names};

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const MIN_SECONDS: i64 = 600;
const MAX_DOMAIN: usize = 253;
const MAX_SIGNER_NAME: usize = 571;
/// Conditions that stay once they are there, and are never false.
const FINAL: &[&str] = &["Approved", "Denied", "Failed"];

/// What an update may do besides changing metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Add the certificate, once.
    Certificate,
    /// Approve or deny.
    Approval,
}

/// What holds for a request by itself.
pub(super) fn request(request: &Object, errors: &mut Errors) {
    let spec = at(request, "/spec");
    usages(list(spec, "usages"), errors);
    signer_name(text(spec, "signerName"), errors);
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|seconds| *seconds < MIN_SECONDS) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid("spec.expirationSeconds", seconds, detail);
    }
    conditions(request.array("/status/conditions"), errors);
}

/// What may not change.
pub(super) fn update(new: &Object, old: &Object, allowed: &[Change], errors: &mut Errors) {
    let count = |object: &Object, kind: &str| {
        object.array("/status/conditions").iter().filter(|condition| condition["type"] == kind).count()
    };
    for kind in FINAL {
        if count(new, kind) < count(old, kind) {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.forbidden("status.conditions", &detail);
        }
    }
    for kind in ["Approved", "Denied"] {
        if !allowed.contains(&Change::Approval) && count(new, kind) > count(old, kind) {
            let detail = format!("updates may not add a condition of type {kind:?}");
            errors.forbidden("status.conditions", &detail);
        }
    }
    let (before, after) = (old.text("/status/certificate"), new.text("/status/certificate"));
    if before == after {
        return;
    }
    if !allowed.contains(&Change::Certificate) {
        errors.forbidden("status.certificate", "updates may not set certificate content");
    } else if !before.is_empty() {
        errors.forbidden("status.certificate", "updates may not modify existing certificate content");
    }
}

fn usages(usages: &[Value], errors: &mut Errors) {
    let path = "spec.usages";
    if usages.is_empty() {
        errors.required(path, "");
    }
    let mut seen = HashSet::new();
    for (i, usage) in usages.iter().enumerate() {
        let usage = usage.as_str().unwrap_or_default();
        if !USAGES.contains(&usage) {
            errors.unsupported(index(path, i), usage, USAGES);
        }
        if !seen.insert(usage) {
            errors.duplicate(index(path, i), usage);
        }
    }
}

/// `apivalidation.ValidateSignerName`: a domain and a path.
fn signer_name(name: &str, errors: &mut Errors) {
    let path = "spec.signerName";
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name == LEGACY_SIGNER {
        return errors.invalid(path, name, "the legacy signerName is not allowed via this API version");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, name, detail);
    };
    if domain.len() > MAX_DOMAIN {
        errors.too_long(path, MAX_DOMAIN);
    }
    for label in domain.split('.') {
        for error in names::dns_label(label) {
            errors.invalid(path, domain, &format!("validating label {label:?}: {error}"));
        }
    }
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    for label in rest.split('.') {
        for error in names::dns_subdomain(label) {
            errors.invalid(path, rest, &format!("validating label {label:?}: {error}"));
        }
    }
    if name.len() > MAX_SIGNER_NAME {
        errors.too_long(path, MAX_SIGNER_NAME);
    }
}

fn conditions(conditions: &[Value], errors: &mut Errors) {
    let has = |kind: &str| conditions.iter().any(|condition| condition["type"] == kind);
    let contradiction = has("Approved") && has("Denied");
    let mut seen = HashSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = index("status.conditions", i);
        let kind = text(condition, "type");
        if kind.is_empty() {
            errors.required(child(&path, "type"), "");
        }
        let states: &[&str] = if FINAL.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        errors.one_of(&child(&path, "status"), text(condition, "status"), states);
        if contradiction && kind == "Denied" {
            errors.invalid(
                child(&path, "type"),
                kind,
                "Approved and Denied conditions are mutually exclusive",
            );
        }
        if !seen.insert(kind) {
            errors.duplicate(child(&path, "type"), kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({"spec": {"signerName": "example.com/a.b", "usages": ["client auth", "any"], "expirationSeconds": 600}})
    }

    fn with(pointer: &str, value: Value) -> Object {
        let mut request = good();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = parent.strip_prefix('/').unwrap();
        request[parent][key] = value;
        Object::new(request)
    }

    fn texts(check: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn requests_say_what_they_want() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let rows = [
            (Object::new(good()), ""),
            (with("/spec/usages", json!([])), "spec.usages: Required value"),
            (with("/spec/usages", json!(["any", "any"])), "spec.usages[1]: Duplicate value: \"any\""),
            (
                with("/spec/usages", json!(["rule"])),
                "spec.usages[0]: Unsupported value: \"rule\": supported values: \"any\",",
            ),
            (
                with("/spec/expirationSeconds", json!(599)),
                "spec.expirationSeconds: Invalid value: 599: may not",
            ),
            (with("/spec/signerName", json!("")), "spec.signerName: Required value"),
            (
                with("/spec/signerName", json!("a.b/c/d")),
                "spec.signerName: Invalid value: \"a.b/c/d\": must be a fully",
            ),
            (
                with("/spec/signerName", json!("com/c")),
                "spec.signerName: Invalid value: \"com\": should be a domain",
            ),
            (
                with("/spec/signerName", json!("a.B/c")),
                "spec.signerName: Invalid value: \"a.B\": validating label \"B\": ",
            ),
            (
                with("/spec/signerName", json!("a.b/_")),
                "spec.signerName: Invalid value: \"_\": validating label \"_\": ",
            ),
            (
                with("/spec/signerName", json!("kubernetes.io/legacy-unknown")),
                "the legacy signerName is not allowed",
            ),
            (
                with("/status/conditions", json!([condition("Approved", "True"), condition("x", "Unknown")])),
                "",
            ),
            (
                with("/status/conditions", json!([condition("Failed", "False")])),
                "status.conditions[0].status: Unsupported",
            ),
            (
                with("/status/conditions", json!([condition("", "True")])),
                "status.conditions[0].type: Required value",
            ),
            (
                with(
                    "/status/conditions",
                    json!([condition("Denied", "True"), condition("Approved", "True")]),
                ),
                "status.conditions[0].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually",
            ),
            (
                with("/status/conditions", json!([condition("x", "True"), condition("x", "True")])),
                "status.conditions[1].type: Duplicate value: \"x\"",
            ),
        ];
        for (object, expected) in rows {
            let found = texts(|errors| request(&object, errors)).join("\n");
            assert!(
                found.contains(expected) && expected.is_empty() == found.is_empty(),
                "{found}\n{expected}"
            );
        }
    }

    #[test]
    fn decisions_and_certificates_are_final() {
        let approved = with("/status/conditions", json!([{"type": "Approved", "status": "True"}]));
        let issued = with("/status/certificate", json!("eA=="));
        let other = with("/status/certificate", json!("eQ=="));
        let none = Object::new(good());
        let rows = [
            (
                &approved,
                &none,
                &[][..],
                "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"",
            ),
            (
                &none,
                &approved,
                &[Change::Certificate],
                "status.conditions: Forbidden: updates may not add a condition",
            ),
            (&none, &approved, &[Change::Approval], ""),
            (
                &none,
                &issued,
                &[Change::Approval],
                "status.certificate: Forbidden: updates may not set certificate content",
            ),
            (&none, &issued, &[Change::Certificate], ""),
            (&issued, &other, &[Change::Certificate], "updates may not modify existing certificate content"),
        ];
        for (old, new, allowed, expected) in rows {
            let found = texts(|errors| update(new, old, allowed, errors)).join("\n");
            assert!(
                found.contains(expected) && expected.is_empty() == found.is_empty(),
                "{found}\n{expected}"
            );
        }
    }
}
