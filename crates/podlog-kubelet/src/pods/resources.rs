//! What a container may use, as its runtime is told.
//!
//! Rules as `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go` and `pkg/kubelet/qos/policy.go`.

use k8s_openapi::api::core::v1::{Container, Pod};
use podlog_api::quantity::Quantity;

use super::spec::qos_class;
use crate::runtime::Resources;

/// The kernel's least share of the processor.
const MIN_SHARES: i64 = 2;
/// Least processor time in 100 ms that the kernel allows, in microseconds.
const MIN_QUOTA: i64 = 1000;

/// What `container` may use on a node with so much memory.
pub(super) fn resources(pod: &Pod, container: &Container, node_memory_bytes: i64) -> Resources {
    let millicores = |of| amount(container, of, "cpu").map(millis);
    let request = millicores(Of::Requests).or_else(|| millicores(Of::Limits)).unwrap_or(0);
    let limit = millicores(Of::Limits).unwrap_or(0);
    let memory = amount(container, Of::Limits, "memory").map_or(0, |memory| memory.value());
    Resources {
        cpu_shares: (request.saturating_mul(1024) / 1000).max(MIN_SHARES),
        cpu_quota: if limit == 0 { 0 } else { limit.saturating_mul(100).max(MIN_QUOTA) },
        memory_limit_bytes: memory,
        oom_score_adj: oom_score_adj(pod, container, node_memory_bytes),
    }
}

/// Who goes first when memory is short: pods without requests, then those that use more than they asked for.
fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = amount(container, Of::Requests, "memory")
                .or_else(|| amount(container, Of::Limits, "memory"))
                .map_or(0, |memory| memory.value());
            let share = request.saturating_mul(1000) / node_memory_bytes.max(1);
            (1000 - share).clamp(3, 999)
        }
    }
}

/// Thousandths, rounded up.
fn millis(quantity: Quantity) -> i64 {
    i64::try_from((quantity.nanos() + 999_999) / 1_000_000).unwrap_or(i64::MAX)
}

#[derive(Clone, Copy)]
enum Of {
    Requests,
    Limits,
}

fn amount(container: &Container, of: Of, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let map = match of {
        Of::Requests => resources.requests.as_ref(),
        Of::Limits => resources.limits.as_ref(),
    };
    Quantity::parse(&map?.get(resource)?.0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::pods::testing::pod;

    #[test]
    fn quantities_become_the_kernels_numbers() {
        let check = |resources: Value, expected: [i64; 4]| {
            let pod = pod(json!({"containers": [{"name": "c", "resources": resources}]}));
            let container = &pod.spec.as_ref().unwrap().containers[0];
            let own = super::resources(&pod, container, 1 << 30);
            let found = [own.cpu_shares, own.cpu_quota, own.memory_limit_bytes, own.oom_score_adj];
            assert_eq!(found, expected, "{resources}");
        };
        check(json!({}), [2, 0, 0, 1000]);
        check(json!({"requests": {"cpu": "500m"}}), [512, 0, 0, 999]);
        check(json!({"limits": {"cpu": "2"}}), [2048, 200_000, 0, 999]);
        check(json!({"limits": {"cpu": "1m", "memory": "64Mi"}}), [2, 1000, 64 << 20, -997]);
        check(
            json!({"requests": {"memory": "512Mi"}, "limits": {"memory": "768Mi"}}),
            [2, 0, 768 << 20, 500],
        );
    }
}
