//! Certificate signing requests: who asked, what may change, what needs their content read
//! (`pkg/registry/certificates/certificates`, `pkg/apis/certificates/validation`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{Cause, Object, UserInfo};
use podlog_serving::pki::{SigningRequest, UnreadableRequest, certificate_end};
use serde_json::{Value, json};

use super::{Part, metadata};

/// Signs clients of the API server.
pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs kubelets as clients of the API server.
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs kubelets as servers.
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// Conditions that only the approval subresource writes.
const DECISIONS: &[&str] = &["Approved", "Denied"];

/// Whether the kind is the one that this module is about.
pub(crate) fn is_request(resource: &Resource) -> bool {
    resource.kind == "CertificateSigningRequest"
}

/// What is requested, in the PEM of `spec.request`.
///
/// # Errors
/// When that is not a request, or its signature is not its own.
pub(crate) fn parse(request: &Object) -> Result<SigningRequest, UnreadableRequest> {
    SigningRequest::parse(&bytes(request, "/spec/request"))
}

/// When the certificate that was issued ends; `None` without one, or with one that cannot be read.
pub(crate) fn issued_until(request: &Object) -> Option<Timestamp> {
    let end = certificate_end(&bytes(request, "/status/certificate")).ok()?;
    Timestamp::try_from(end).ok()
}

/// Who asks is not for them to say, and neither is what becomes of it.
pub(super) fn prepare_create(user: Option<&UserInfo>, request: &mut Object) {
    let spec = request.map_mut("spec");
    for key in ["username", "uid", "groups", "extra"] {
        spec.remove(key);
    }
    if let Some(user) = user {
        spec.insert("username".into(), json!(user.username));
        let known = [
            ("uid", json!(user.uid), user.uid.is_empty()),
            ("groups", json!(user.groups), user.groups.is_empty()),
            ("extra", json!(user.extra), user.extra.is_empty()),
        ];
        spec.extend(
            known.into_iter().filter(|(_, _, empty)| !empty).map(|(key, value, _)| (key.into(), value)),
        );
    }
    request.0["status"] = json!({});
}

/// Everything but the status stays; who approves does not issue, and who issues does not approve.
pub(super) fn prepare_update(part: Part, new: &mut Object, old: &Object, now: Timestamp) {
    new.0["spec"] = old.at("/spec").cloned().unwrap_or_else(|| json!({}));
    match part {
        Part::Approval => keep_certificate(new, old),
        Part::Status => keep_decisions(new, old),
        _ => return,
    }
    stamp(new, old, now);
}

fn keep_certificate(new: &mut Object, old: &Object) {
    let certificate = old.at("/status/certificate").cloned();
    let status = new.map_mut("status");
    match certificate {
        Some(certificate) => status.insert("certificate".into(), certificate),
        None => status.remove("certificate"),
    };
}

fn keep_decisions(new: &mut Object, old: &Object) {
    for condition in conditions(new) {
        let kind = condition["type"].as_str().unwrap_or_default();
        if DECISIONS.contains(&kind)
            && let Some(before) = before(old, |known| known["type"] == kind)
        {
            *condition = before.clone();
        }
    }
}

fn stamp(new: &mut Object, old: &Object, now: Timestamp) {
    let now = json!(metadata::time(now));
    for condition in conditions(new) {
        if is_unset(&condition["lastUpdateTime"]) {
            condition["lastUpdateTime"] = now.clone();
        }
        if is_unset(&condition["lastTransitionTime"]) {
            let same = |known: &Value| {
                known["type"] == condition["type"]
                    && known["status"] == condition["status"]
                    && !is_unset(&known["lastTransitionTime"])
            };
            let since = before(old, same).map(|known| known["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.clone());
        }
    }
}

fn is_unset(time: &Value) -> bool {
    time.as_str().unwrap_or_default().is_empty()
}

fn before(old: &Object, wanted: impl Fn(&Value) -> bool) -> Option<&Value> {
    old.array("/status/conditions").iter().find(|condition| wanted(condition))
}

/// The conditions that are objects.
fn conditions(request: &mut Object) -> impl Iterator<Item = &mut Value> {
    let list = request.0.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    list.into_iter().flatten().filter(|condition| condition.is_object())
}

/// What is wrong with the request or the certificate inside.
pub(super) fn causes(request: &Object) -> Vec<Cause> {
    let wrong = |field: &str, shown: &str, error: &UnreadableRequest| Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {shown:?}: {error}"),
        field: field.into(),
    };
    let mut causes = Vec::new();
    if let Err(error) = parse(request) {
        causes.push(wrong("spec.request", request.text("/spec/request"), &error));
    }
    let certificate = bytes(request, "/status/certificate");
    if !certificate.is_empty()
        && let Err(error) = certificate_end(&certificate)
    {
        causes.push(wrong("status.certificate", "<certificate data>", &error));
    }
    causes
}

fn bytes(request: &Object, pointer: &str) -> Vec<u8> {
    STANDARD.decode(request.text(pointer)).unwrap_or_default()
}
