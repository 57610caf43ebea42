//! Labels and annotations with which sandboxes and containers are found again (`pkg/kubelet/kuberuntime/labels.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::spec::{PodId, container_hash};

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub(crate) const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub(crate) const TERMINATION_HOST_PATH: &str = "podlog.dev/termination-message-host-path";
/// Annotation of a container: its pod's grace period in seconds.
pub const POD_TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";

/// Labels of a pod's sandbox: the pod's own, and the three that identify it.
pub(crate) fn sandbox_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    labels
}

/// Labels of a container.
pub(crate) fn container_labels(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = identity(pod).into();
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    let id = PodId::of(pod);
    [(POD_NAME.into(), id.name), (POD_NAMESPACE.into(), id.namespace), (POD_UID.into(), id.uid)]
}

/// Annotations of a container: what a kubelet that has just started must know about it.
pub(crate) fn container_annotations(
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (CONTAINER_HASH.to_owned(), container_hash(container)),
        (CONTAINER_RESTART_COUNT.to_owned(), attempt.to_string()),
        (TERMINATION_PATH.to_owned(), container.termination_message_path.clone().unwrap_or_default()),
        (TERMINATION_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or_default()),
    ]);
    if let Some(seconds) = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds) {
        annotations.insert(POD_TERMINATION_GRACE.into(), seconds.to_string());
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        && let Ok(json) = serde_json::to_string(hook)
    {
        annotations.insert(PRE_STOP.into(), json);
    }
    annotations
}

/// The pod that a sandbox or container belongs to; `None` when nobody's kubelet made it.
pub(crate) fn owner(labels: &BTreeMap<String, String>) -> Option<PodId> {
    Some(PodId {
        namespace: labels.get(POD_NAMESPACE)?.clone(),
        name: labels.get(POD_NAME)?.clone(),
        uid: labels.get(POD_UID)?.clone(),
    })
}
