//! A pod's quality of service class, as `pkg/apis/core/v1/helper/qos`.

use podlog_api::Object;
use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(super) fn class(pod: &Object) -> &'static str {
    let containers = || pod.array("/spec/containers").iter().chain(pod.array("/spec/initContainers"));
    let stated = |c: &Value| {
        ["requests", "limits"].iter().any(|part| ["cpu", "memory"].iter().any(|r| amount(c, part, r) > 0))
    };
    if !containers().any(stated) {
        return "BestEffort";
    }
    let guaranteed = |c: &Value| {
        ["cpu", "memory"].iter().all(|r| {
            let limit = amount(c, "limits", r);
            let request = amount(c, "requests", r);
            limit > 0 && (request == 0 || request == limit)
        })
    };
    if containers().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

/// In thousandths of a unit; 0 where it is not stated.
fn amount(container: &Value, part: &str, resource: &str) -> i128 {
    match container.pointer(&format!("/resources/{part}/{resource}")) {
        Some(Value::String(text)) => thousandths(text).unwrap_or(0),
        Some(Value::Number(number)) => thousandths(&number.to_string()).unwrap_or(0),
        _ => 0,
    }
}

fn thousandths(quantity: &str) -> Option<i128> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(digits);
    let scale: i128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_i128.pow(2),
        "G" => 1000 * 1000_i128.pow(3),
        "T" => 1000 * 1000_i128.pow(4),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value = whole.parse::<i128>().ok()?.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        value += i128::from(digit - b'0') * place;
    }
    Some(value)
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
