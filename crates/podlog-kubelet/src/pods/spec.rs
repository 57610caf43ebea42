//! What a pod asks for, in the words that the rest of the kubelet uses.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodIP};
use serde_json::json;

/// Which pod. Displays as upstream's logs and messages name it: `web_default(uid)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PodId {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl PodId {
    pub(crate) fn of(pod: &Pod) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        PodId {
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
        }
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// What role a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that keeps running beside the regular ones (`restartPolicy: Always`).
    Sidecar,
    /// A regular container.
    Regular,
    /// A container that somebody added to look around; it runs once.
    Ephemeral,
}

/// What happens when a container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// Whether a container that ended with `exit_code` runs again.
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// The pod's restart policy.
pub(crate) fn restart_policy(pod: &Pod) -> RestartPolicy {
    match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// The restart policy of one container: sidecars always run, init containers do not run again once they succeeded.
pub(crate) fn container_restart_policy(pod: &Pod, role: Role) -> RestartPolicy {
    match (role, restart_policy(pod)) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        (Role::Ephemeral, _) => RestartPolicy::Never,
        (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    }
}

/// Init containers in their order, sidecars among them.
pub(crate) fn init_containers(pod: &Pod) -> impl Iterator<Item = (&Container, Role)> {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    containers.iter().map(|container| (container, init_role(container)))
}

fn init_role(container: &Container) -> Role {
    if container.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init }
}

/// Regular containers in their order.
pub(crate) fn regular_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
}

/// Every container that the pod was made with: init containers first.
pub(crate) fn all_containers(pod: &Pod) -> impl Iterator<Item = (&Container, Role)> {
    init_containers(pod).chain(regular_containers(pod).iter().map(|container| (container, Role::Regular)))
}

/// Ephemeral containers, in the shape of the others.
pub(crate) fn ephemeral_containers(pod: &Pod) -> impl Iterator<Item = Container> {
    let containers = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref());
    containers.unwrap_or_default().iter().cloned().map(as_container)
}

fn as_container(own: EphemeralContainer) -> Container {
    Container {
        args: own.args,
        command: own.command,
        env: own.env,
        env_from: own.env_from,
        image: own.image,
        image_pull_policy: own.image_pull_policy,
        name: own.name,
        security_context: own.security_context,
        stdin: own.stdin,
        stdin_once: own.stdin_once,
        termination_message_path: own.termination_message_path,
        termination_message_policy: own.termination_message_policy,
        tty: own.tty,
        volume_mounts: own.volume_mounts,
        working_dir: own.working_dir,
        ..Container::default()
    }
}

/// The container whose processes an ephemeral one is to see.
pub(crate) fn target_of<'a>(pod: &'a Pod, ephemeral: &str) -> Option<&'a str> {
    let containers = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref())?;
    let own = containers.iter().find(|container| container.name == ephemeral)?;
    own.target_container_name.as_deref().filter(|name| !name.is_empty())
}

/// A container by name.
pub(crate) fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<(Cow<'a, Container>, Role)> {
    let made_with = all_containers(pod).find(|(container, _)| container.name == name);
    made_with.map(|(container, role)| (Cow::Borrowed(container), role)).or_else(|| {
        let added = ephemeral_containers(pod).find(|container| container.name == name)?;
        Some((Cow::Owned(added), Role::Ephemeral))
    })
}

/// How long the pod's containers get to end: what the deletion asks for, else what the pod asks for; at least 1 s.
pub(crate) fn grace_period(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = asked.or(own).unwrap_or(30).max(1);
    Duration::from_secs(seconds.unsigned_abs())
}

/// The pod with the addresses that it has now; `None` leaves it as it is.
pub(crate) fn with_ips(pod: &Arc<Pod>, ips: Option<&[IpAddr]>) -> Arc<Pod> {
    let Some(ips) = ips else { return pod.clone() };
    let mut pod = Pod::clone(pod);
    let status = pod.status.get_or_insert_default();
    status.pod_ip = ips.first().map(IpAddr::to_string);
    status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
    Arc::new(pod)
}

/// Whether the pod has no network of its own.
pub(crate) fn is_in_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// Where the pod is reached: what its status says, else the node.
pub(crate) fn pod_ip(pod: &Pod, node: IpAddr) -> IpAddr {
    let own = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    own.and_then(|text| text.parse().ok()).unwrap_or(node)
}

/// Whether the API has been asked to delete the pod.
pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The phase in the pod's status.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has run to its end and must not run again.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The parts of a container's spec whose change asks for a new container, as one number (FNV-1a). Upstream takes name and
/// image, the only ones that can change (`pkg/kubelet/container/helpers.go`).
pub(crate) fn container_hash(container: &Container) -> String {
    let parts = json!({ "image": container.image, "name": container.name }).to_string();
    let hash = parts.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:x}")
}

/// The pod's quality of service, from its requests and limits (`pkg/apis/core/v1/helper/qos`).
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for (container, _) in all_containers(pod) {
        let resources = container.resources.as_ref();
        for resource in ["cpu", "memory"] {
            let amount = |map: Option<&std::collections::BTreeMap<String, _>>| {
                map.and_then(|map| map.get(resource))
                    .map(|q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| q.0.clone())
                    .filter(|text| podlog_api::quantity::Quantity::parse(text).is_none_or(|q| q.value() != 0))
            };
            let request = amount(resources.and_then(|r| r.requests.as_ref()));
            let limit = amount(resources.and_then(|r| r.limits.as_ref()));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
                "Burstable",
            ),
        ] {
            let pod = pod(json!({"containers": [{"name": "c", "resources": resources}]}));
            assert_eq!(qos_class(&pod), expected, "{resources}");
        }
    }

    #[test]
    fn the_grace_period_is_what_the_deletion_says() {
        for (deletion, own, seconds) in
            [(None, None, 30), (None, Some(5), 5), (Some(3), Some(60), 3), (Some(0), Some(60), 1)]
        {
            let mut pod = pod(json!({"containers": [], "terminationGracePeriodSeconds": own}));
            pod.metadata.deletion_grace_period_seconds = deletion;
            assert_eq!(grace_period(&pod), Duration::from_secs(seconds), "{deletion:?} {own:?}");
        }
    }

    #[test]
    fn the_hash_changes_with_the_image_only() {
        let hash = |image: &str, command: &str| {
            let pod = pod(json!({"containers": [{"name": "c", "image": image, "command": [command]}]}));
            container_hash(&regular_containers(&pod)[0])
        };
        assert_eq!(hash("a", "x"), hash("a", "y"));
        assert_ne!(hash("a", "x"), hash("b", "x"));
    }
}
