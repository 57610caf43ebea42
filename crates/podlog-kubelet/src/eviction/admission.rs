//! Whether a pod may start while something presses.

use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::Pressure;
use crate::pods::{is_critical, qos_class};

const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// Why a new pod is refused; `None` lets it in. When it is memory alone, only pods that ask for nothing are refused.
pub(crate) fn refusal(pod: &Pod, pressure: Pressure) -> Option<String> {
    let conditions = pressure.conditions();
    if conditions.is_empty() || is_critical(pod) {
        return None;
    }
    let is_memory_alone = conditions == ["MemoryPressure"];
    if is_memory_alone && (qos_class(pod) != "BestEffort" || tolerates_memory_pressure(pod)) {
        return None;
    }
    Some(format!("The node had condition: [{}]. ", conditions.join(" ")))
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    tolerations.iter().any(|toleration: &Toleration| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let effect_fits = matches!(text(&toleration.effect).as_str(), "" | "NoSchedule");
        let key_fits = key == MEMORY_TAINT || (key.is_empty() && operator == "Exists");
        // The taint has no value.
        let value_fits = operator == "Exists" || text(&toleration.value).is_empty();
        effect_fits && key_fits && value_fits
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::testing::pod;

    #[test]
    fn pressure_keeps_pods_out() {
        let (memory, disk) = (
            Pressure { memory: true, ..Pressure::default() },
            Pressure { disk: true, ..Pressure::default() },
        );
        let both = Pressure { pids: true, ..memory };
        let check = |pressure: Pressure, spec: Value, expected: Option<&str>| {
            let mut full = json!({"containers": [{"name": "c"}]});
            for (key, value) in spec.as_object().unwrap() {
                full[key] = value.clone();
            }
            assert_eq!(refusal(&pod(full), pressure).as_deref(), expected, "{spec} {pressure:?}");
        };
        let asks = json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]});
        let tolerates = |value: Value| json!({"tolerations": [value]});
        check(Pressure::default(), json!({}), None);
        check(memory, json!({}), Some("The node had condition: [MemoryPressure]. "));
        check(memory, asks.clone(), None);
        check(
            memory,
            tolerates(json!({"key": MEMORY_TAINT, "operator": "Exists", "effect": "NoSchedule"})),
            None,
        );
        check(memory, tolerates(json!({"operator": "Exists"})), None);
        let other = tolerates(json!({"key": MEMORY_TAINT, "operator": "Exists", "effect": "NoExecute"}));
        check(memory, other, Some("The node had condition: [MemoryPressure]. "));
        check(disk, asks, Some("The node had condition: [DiskPressure]. "));
        check(disk, json!({"priority": 2_000_000_000}), None);
        check(both, json!({}), Some("The node had condition: [MemoryPressure PIDPressure]. "));
    }
}
