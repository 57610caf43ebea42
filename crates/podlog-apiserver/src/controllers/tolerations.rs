//! Taints of nodes and what pods bear: as `k8s.io/component-helpers/scheduling/corev1`.

use podlog_api::Object;
use serde_json::Value;

/// No new pods.
pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
/// Rather no new pods.
pub(crate) const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// No new pods, and present ones leave.
pub(crate) const NO_EXECUTE: &str = "NoExecute";

/// The taints of a node.
pub(crate) fn taints(node: &Object) -> &[Value] {
    node.array("/spec/taints")
}

/// Whether a toleration of the pod covers the taint.
pub(crate) fn is_tolerated(pod: &Object, taint: &Value) -> bool {
    tolerating(pod, taint).next().is_some()
}

/// The tolerations of the pod that cover the taint.
pub(crate) fn tolerating<'a>(pod: &'a Object, taint: &'a Value) -> impl Iterator<Item = &'a Value> {
    pod.array("/spec/tolerations").iter().filter(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Value, taint: &Value) -> bool {
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let (effect, key) = (text(toleration, "effect"), text(toleration, "key"));
    if !effect.is_empty() && effect != text(taint, "effect") {
        return false;
    }
    if !key.is_empty() && key != text(taint, "key") {
        return false;
    }
    match text(toleration, "operator").as_str() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(toleration, "value") == text(taint, "value"),
        "Gt" => compare(toleration, taint).is_some_and(|(wanted, found)| found > wanted),
        "Lt" => compare(toleration, taint).is_some_and(|(wanted, found)| found < wanted),
        _ => false,
    }
}

fn compare(toleration: &Value, taint: &Value) -> Option<(i64, i64)> {
    let number = |of: &Value| of["value"].as_str()?.parse().ok();
    number(toleration).zip(number(taint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_cover_taints() {
        let taint = json!({"key": "gpu", "value": "a", "effect": NO_SCHEDULE});
        let rows = [
            (json!([]), false),
            (json!([{"key": "gpu", "operator": "Exists"}]), true),
            (json!([{"operator": "Exists"}]), true),
            (json!([{"key": "gpu", "value": "a"}]), true),
            (json!([{"key": "gpu", "operator": "Equal", "value": "b"}]), false),
            (json!([{"key": "gpu", "value": "a", "effect": NO_EXECUTE}]), false),
            (json!([{"key": "cpu", "operator": "Exists"}]), false),
            (json!([{"key": "gpu", "operator": "Near"}]), false),
            (json!([{"key": "x"}, {"key": "gpu", "operator": "Exists", "effect": NO_SCHEDULE}]), true),
        ];
        for (tolerations, expected) in rows {
            let pod = Object::new(json!({"spec": {"tolerations": tolerations}}));
            assert_eq!(is_tolerated(&pod, &taint), expected, "{tolerations}");
        }
    }
}
