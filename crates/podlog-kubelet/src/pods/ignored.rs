//! Fields of a pod that have no effect here, so that whoever wrote them is told.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::spec::all_containers;
use crate::runtime::Images;

/// Below `spec`.
const OF_POD: &[&str] = &[
    "dnsConfig",
    "hostAliases",
    "runtimeClassName",
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "securityContext.seccompProfile",
    "securityContext.sysctls",
    "shareProcessNamespace",
];

/// What of these has its effect where containers run from images.
const HELD_BY_CONTAINERS: &[&str] = &[
    "dnsConfig",
    "resources.limits",
    "securityContext.capabilities",
    "securityContext.privileged",
    "securityContext.procMount",
    "securityContext.seccompProfile",
    "securityContext.sysctls",
    "shareProcessNamespace",
];

/// Below a container.
const OF_CONTAINER: &[&str] = &[
    "lifecycle.stopSignal",
    "resources.claims",
    "resources.limits",
    "securityContext.appArmorProfile",
    "securityContext.capabilities",
    "securityContext.privileged",
    "securityContext.procMount",
    "securityContext.seLinuxOptions",
    "securityContext.seccompProfile",
    "volumeDevices",
];

/// The message about what `pod` asks for in vain; `None` when there is nothing of that kind.
pub(super) fn warning(pod: &Pod, images: Images) -> Option<String> {
    let spec = serde_json::to_value(pod.spec.as_ref()?).ok()?;
    let mut fields = asked(&spec, OF_POD, "spec", images);
    for (container, _) in all_containers(pod) {
        let value = serde_json::to_value(container).ok()?;
        fields.extend(asked(&value, OF_CONTAINER, &format!("container {}", container.name), images));
    }
    (!fields.is_empty()).then(|| format!("fields without effect on this node: {}", fields.join(", ")))
}

fn asked(value: &Value, fields: &[&str], place: &str, images: Images) -> Vec<String> {
    let is_held = |field: &str| images == Images::Used && HELD_BY_CONTAINERS.contains(&field);
    let asks = |field: &&&str| match value.pointer(&format!("/{}", field.replace('.', "/"))) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        // The kubelet itself sees to this one.
        Some(Value::Object(map)) => map.keys().any(|key| key != "ephemeral-storage"),
        Some(_) => true,
    };
    fields
        .iter()
        .filter(|field| !is_held(field))
        .filter(asks)
        .map(|field| format!("{place}: {field}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_ignored_is_named() {
        let rows = [
            (json!({"containers": [{"name": "c"}]}), None),
            (
                json!({"containers": [{"name": "c",
                    "resources": {"limits": {"ephemeral-storage": "1Gi"}, "requests": {"cpu": "1"}},
                    "securityContext": {"privileged": false, "runAsUser": 1}}]}),
                None,
            ),
            (
                json!({"hostAliases": [{"ip": "1.2.3.4"}], "initContainers": [{"name": "i",
                    "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}],
                    "containers": [{"name": "c", "volumeDevices": [{"name": "d", "devicePath": "/d"}],
                    "resources": {"limits": {"cpu": "1"}}, "securityContext": {"privileged": true}}]}),
                Some(
                    "fields without effect on this node: spec: hostAliases, \
                    container i: securityContext.capabilities, container c: resources.limits, \
                    container c: securityContext.privileged, container c: volumeDevices",
                ),
            ),
        ];
        for (spec, expected) in rows {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(warning(&pod, Images::Unused).as_deref(), expected);
            let in_containers = warning(&pod, Images::Used);
            let shorter = expected
                .map(|_| "fields without effect on this node: spec: hostAliases, container c: volumeDevices");
            assert_eq!(in_containers.as_deref(), shorter);
        }
    }
}
