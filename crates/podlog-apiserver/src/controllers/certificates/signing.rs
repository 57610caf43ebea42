//! Signs what is approved (`signer/signer.go`).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object};
use podlog_serving::pki::SigningRequest;
use serde_json::json;

use super::super::CertificateSigning;
use super::super::action::Action;
use super::super::kinds;
use super::super::objects::Objects;
use super::super::runner::{Change, Controller, Key};
use super::{add_condition, has, is_issued, rules, usages};
use crate::registry::Part;
use crate::registry::certificates::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, parse};

/// No certificate is valid for less.
const MIN_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The controller that signs.
pub(in super::super) struct Signing(pub(in super::super) CertificateSigning);

impl Controller for Signing {
    fn name(&self) -> &'static str {
        "csrsigning"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::certificate_requests()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        let due = !change.is_deletion && is_due(change.object);
        Ok(if due { vec![Key::of(change.object)] } else { Vec::new() })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, _: Timestamp) -> Result<Vec<Action>, ApiError> {
        let request = objects.find(kinds::certificate_requests(), "", &key.name)?.filter(is_due);
        let Some(request) = request else { return Ok(Vec::new()) };
        let Ok(asked) = parse(&request) else { return Ok(Vec::new()) };
        let Some(verdict) = verdict(&request, &asked) else { return Ok(Vec::new()) };
        let mut answered = request.clone();
        match verdict {
            Ok(()) => {
                let certificate = self.sign(&request, &asked)?;
                answered.map_mut("status").insert("certificate".into(), json!(STANDARD.encode(certificate)));
            }
            Err(why) => add_condition(&mut answered, "Failed", "SignerValidationFailure", &why),
        }
        let kind = kinds::certificate_requests();
        Ok(Action::update(kind, Part::Status, &request, answered).into_iter().collect())
    }
}

impl Signing {
    fn sign(&self, request: &Object, asked: &SigningRequest) -> Result<String, ApiError> {
        let lifetime = lifetime(request.integer("/spec/expirationSeconds"), self.0.duration);
        self.0.signer.sign(asked, &usages(request), lifetime).map_err(|error| {
            tracing::error!(request = request.name(), %error, "cannot sign a request for a certificate");
            ApiError::internal(error)
        })
    }
}

fn is_due(request: &Object) -> bool {
    has(request, "Approved") && !has(request, "Denied") && !has(request, "Failed") && !is_issued(request)
}

/// Whether the signer gives what is asked for, or why not. `None` for a signer that is not ours.
fn verdict(request: &Object, asked: &SigningRequest) -> Option<Result<(), String>> {
    let usages = usages(request);
    match request.text("/spec/signerName") {
        CLIENT => Some(rules::client(&usages)),
        KUBELET_CLIENT => Some(rules::kubelet_client(asked, &usages)),
        KUBELET_SERVING => Some(rules::kubelet_serving(asked, &usages)),
        _ => None,
    }
}

fn lifetime(asked_seconds: Option<i64>, most: Duration) -> Duration {
    let asked = asked_seconds.map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
    asked.map_or(most, |asked| asked.max(MIN_LIFETIME).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_certificate_lives_longer_than_allowed() {
        let hour = Duration::from_secs(3600);
        let rows = [
            (None, hour),
            (Some(600), Duration::from_secs(600)),
            (Some(1), MIN_LIFETIME),
            (Some(7200), hour),
        ];
        for (asked, expected) in rows {
            assert_eq!(lifetime(asked, hour), expected, "{asked:?}");
        }
    }

    #[test]
    fn only_what_is_approved_is_signed() {
        let request = |conditions: &[&str], certificate: &str| {
            let conditions: Vec<_> =
                conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
            Object::new(json!({"status": {"conditions": conditions, "certificate": certificate}}))
        };
        let rows: [(&[&str], &str, bool); 5] = [
            (&[], "", false),
            (&["Approved"], "", true),
            (&["Approved"], "eA==", false),
            (&["Approved", "Failed"], "", false),
            (&["Denied"], "", false),
        ];
        for (conditions, certificate, expected) in rows {
            assert_eq!(is_due(&request(conditions, certificate)), expected, "{conditions:?}");
        }
    }
}
