//! A pod's quality of service class, as `pkg/apis/core/v1/helper/qos`.

use podlog_api::{Object, quantity::Quantity};
use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(super) fn class(pod: &Object) -> &'static str {
    let containers = || pod.array("/spec/containers").iter().chain(pod.array("/spec/initContainers"));
    let stated = |c: &Value| {
        ["requests", "limits"]
            .iter()
            .any(|part| ["cpu", "memory"].iter().any(|r| amount(c, part, r) > Quantity::ZERO))
    };
    if !containers().any(stated) {
        return "BestEffort";
    }
    let guaranteed = |c: &Value| {
        ["cpu", "memory"].iter().all(|r| {
            let limit = amount(c, "limits", r);
            let request = amount(c, "requests", r);
            limit > Quantity::ZERO && (request == Quantity::ZERO || request == limit)
        })
    };
    if containers().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

/// 0 where it is not stated.
fn amount(container: &Value, part: &str, resource: &str) -> Quantity {
    let stated = container.pointer(&format!("/resources/{part}/{resource}"));
    stated.and_then(Quantity::from_json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let rows = [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"requests": {"cpu": "100m"}}), "Burstable"),
            (json!({"requests": {"cpu": "500000n"}}), "Burstable"),
            (json!({"limits": {"cpu": "1e1", "memory": "1Pi"}}), "Guaranteed"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "0.5", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                "Burstable",
            ),
        ];
        for (resources, expected) in rows {
            let pod = Object::new(json!({"spec": {"containers": [{"name": "a", "resources": resources}]}}));
            assert_eq!(class(&pod), expected, "{resources}");
        }
    }
}
