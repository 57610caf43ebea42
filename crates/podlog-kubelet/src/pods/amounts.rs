//! What a pod asks for and may use, all its containers together.
//!
//! Rules as `k8s.io/component-helpers/resource`: init containers run one after the other, beside the sidecars that started
//! before them.

use k8s_openapi::api::core::v1::{Container, Pod};
use podlog_api::quantity::Quantity;

use super::spec::{self, Role};

/// From which on a pod's priority makes it critical for the cluster.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Which column of a container's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Request,
    Limit,
}

impl Amount {
    /// Of one container.
    pub(crate) fn of_container(self, container: &Container, resource: &str) -> Option<Quantity> {
        let resources = container.resources.as_ref()?;
        let map = match self {
            Amount::Request => resources.requests.as_ref(),
            Amount::Limit => resources.limits.as_ref(),
        };
        Quantity::parse(&map?.get(resource)?.0)
    }

    /// Of the pod, in whole units; `None` when no container says anything.
    pub(crate) fn of_pod(self, pod: &Pod, resource: &str) -> Option<i64> {
        let amount = |container: &Container| self.of_container(container, resource).map(Quantity::value);
        let regular = spec::regular_containers(pod).iter().filter_map(&amount).reduce(i64::saturating_add);
        let (mut sidecars, mut most): (Option<i64>, Option<i64>) = (None, None);
        for (container, role) in spec::init_containers(pod) {
            let Some(own) = amount(container) else { continue };
            let together = sidecars.unwrap_or(0).saturating_add(own);
            most = most.max(Some(together));
            if role == Role::Sidecar {
                sidecars = Some(together);
            }
        }
        let beside = match (regular, sidecars) {
            (Some(regular), Some(sidecars)) => Some(regular.saturating_add(sidecars)),
            (one, other) => one.or(other),
        };
        beside.max(most)
    }
}

/// The pod's priority.
pub(crate) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// Whether the pod stays whatever happens: it is static, or the cluster cannot do without it.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    crate::static_pods::is_static(pod)
        || crate::static_pods::is_mirror(pod)
        || priority(pod) >= SYSTEM_CRITICAL
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::testing::pod;

    #[test]
    fn containers_that_run_together_add_up() {
        let container = |name: &str, amount: &str, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"memory": amount}}});
        let check = |init: Vec<Value>, regular: Vec<Value>, expected: Option<i64>| {
            let pod = pod(json!({"initContainers": init, "containers": regular}));
            assert_eq!(Amount::Request.of_pod(&pod, "memory"), expected);
            assert_eq!(Amount::Limit.of_pod(&pod, "memory"), None);
        };
        check(vec![], vec![json!({"name": "c"})], None);
        check(vec![], vec![container("a", "1Ki", None), container("b", "2Ki", None)], Some(3 << 10));
        check(vec![container("i", "5Ki", None)], vec![container("a", "1Ki", None)], Some(5 << 10));
        let sidecar = container("s", "2Ki", Some("Always"));
        check(
            vec![sidecar.clone(), container("i", "5Ki", None)],
            vec![container("a", "1Ki", None)],
            Some(7 << 10),
        );
        check(vec![sidecar], vec![container("a", "4Ki", None)], Some(6 << 10));
    }

    #[test]
    fn some_pods_stay() {
        for (priority, annotation, expected) in [
            (0, None, false),
            (1_999_999_999, None, false),
            (2_000_000_000, None, true),
            (0, Some("file"), true),
        ] {
            let mut pod = pod(json!({"containers": [], "priority": priority}));
            let source =
                annotation.map(|source| ("kubernetes.io/config.source".to_owned(), source.to_owned()));
            pod.metadata.annotations = Some(source.into_iter().collect());
            assert_eq!(is_critical(&pod), expected, "{priority} {annotation:?}");
        }
    }
}
