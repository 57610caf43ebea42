//! Requests for certificates: those of kubelets are approved, approved ones signed, old ones removed. As
//! `pkg/controller/certificates`.

mod approver;
mod cleaner;
mod rules;
mod signing;

pub(super) use approver::Approver;
pub(super) use cleaner::Cleaner;
use podlog_api::Object;
pub(super) use signing::Signing;

/// Whether the request has a condition of the type.
fn has(request: &Object, kind: &str) -> bool {
    super::objects::condition(request, kind).is_some()
}

fn is_issued(request: &Object) -> bool {
    !request.text("/status/certificate").is_empty()
}

/// Adds a condition that holds from now on.
fn add_condition(request: &mut Object, kind: &str, reason: &str, message: &str) {
    let condition = serde_json::json!({"type": kind, "status": "True", "reason": reason, "message": message});
    super::objects::set_condition(request, condition);
}

/// `spec.usages`.
fn usages(request: &Object) -> Vec<&str> {
    request.array("/spec/usages").iter().filter_map(serde_json::Value::as_str).collect()
}
