//! Why a pod was evicted, in upstream's words (`evictionMessage` of `pkg/kubelet/eviction/helpers.go`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::pressure::Observations;
use super::rank::Resource;
use crate::config::{EvictionThreshold, Threshold};
use crate::pods::{Amount, all_containers};
use crate::usage::{ContainerUsage, PodUsage};

/// The message, and annotations of its event.
pub(super) fn message(
    resource: Resource,
    pod: &Pod,
    usage: Option<&PodUsage>,
    due: &[EvictionThreshold],
    observations: &Observations,
) -> (String, BTreeMap<String, String>) {
    let mut text = format!("The node was low on resource: {}. ", resource.name());
    text.extend(threshold(resource, due, observations));
    let Some(usage) = usage else { return (text, BTreeMap::new()) };
    let (mut names, mut amounts) = (Vec::new(), Vec::new());
    for (container, used, request) in exceeding(resource, pod, usage) {
        let used = binary(used);
        text += &format!(
            "Container {container} was using {used}, request is {}, has larger consumption of {}. ",
            binary(request),
            resource.name()
        );
        names.push(container);
        amounts.push(used);
    }
    let annotations = [
        ("offending_containers", names.join(",")),
        ("offending_containers_usage", amounts.join(",")),
        ("starved_resource", resource.name().to_owned()),
    ];
    (text, annotations.map(|(key, value)| (key.to_owned(), value)).into())
}

fn threshold(resource: Resource, due: &[EvictionThreshold], observations: &Observations) -> Option<String> {
    let (threshold, seen) = due
        .iter()
        .filter(|threshold| Resource::of(threshold.signal) == resource)
        .find_map(|threshold| Some((threshold, observations.get(&threshold.signal)?)))?;
    let left = if matches!(resource, Resource::Inodes | Resource::Pids) {
        decimal(seen.left)
    } else {
        binary(seen.left)
    };
    let wanted = threshold.value.of(seen.all);
    let wanted = match (threshold.value, resource) {
        (Threshold::Amount(_), Resource::Inodes | Resource::Pids) => decimal(wanted),
        _ => binary(wanted),
    };
    Some(format!("Threshold quantity: {wanted}, available: {left}. "))
}

/// Containers that use more than they asked for: name, use and request.
fn exceeding(resource: Resource, pod: &Pod, usage: &PodUsage) -> Vec<(String, u64, u64)> {
    let used = |container: &ContainerUsage| match resource {
        Resource::Memory => container.working_set(),
        Resource::EphemeralStorage => {
            let layer = container.writable_layer().unwrap_or_default();
            Some(container.logs.bytes + layer.bytes)
        }
        Resource::Inodes | Resource::Pids => None,
    };
    let request = |name: &str| {
        let container = all_containers(pod).find(|(container, _)| container.name == name)?.0;
        let request = Amount::Request.of_container(container, resource.name());
        Some(request.map_or(0, |request| request.value().max(0).unsigned_abs()))
    };
    let exceeds = |container: &ContainerUsage| {
        let (used, request) = (used(container)?, request(&container.name)?);
        (used > request).then(|| (container.name.clone(), used, request))
    };
    usage.containers.iter().filter_map(exceeds).collect()
}

/// A number as a quantity in powers of 1024: `100Mi`, `1025`.
pub(super) fn binary(number: u64) -> String {
    suffixed(number, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

/// A number as a quantity in powers of a thousand: `10k`, `1025`.
fn decimal(number: u64) -> String {
    suffixed(number, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

fn suffixed(mut number: u64, base: u64, suffixes: &[&str]) -> String {
    let mut place = 0;
    while number > 0 && number.is_multiple_of(base) && place + 1 < suffixes.len() {
        number /= base;
        place += 1;
    }
    format!("{number}{}", suffixes[place])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::config::Signal;
    use crate::eviction::pressure::Observation;
    use crate::runtime::Space;

    #[test]
    fn messages_are_upstreams() {
        let pod = crate::pods::testing::pod(json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a", "resources": {"requests": {"ephemeral-storage": "1Mi"}}}, {"name": "b"}],
        }));
        let container = |name: &str, bytes| ContainerUsage {
            name: name.into(),
            logs: Space { bytes, inodes: 1 },
            ..ContainerUsage::default()
        };
        let usage = PodUsage {
            containers: vec![container("i", 0), container("a", 2 << 20), container("b", 12345)],
            volumes: Vec::new(),
        };
        let threshold =
            |signal, value| EvictionThreshold { signal, value, grace: Duration::ZERO, min_reclaim: None };
        let due = [
            threshold(Signal::NodefsAvailable, Threshold::Amount(100 << 20)),
            threshold(Signal::NodefsInodesFree, Threshold::Percent(5.0)),
        ];
        let seen = Observations::from([
            (Signal::NodefsAvailable, Observation { left: 90 << 20, all: 1 << 30 }),
            (Signal::NodefsInodesFree, Observation { left: 20_000, all: 1 << 20 }),
        ]);
        let (text, annotations) = message(Resource::EphemeralStorage, &pod, Some(&usage), &due, &seen);
        assert_eq!(
            text,
            "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: 90Mi. \
             Container a was using 2Mi, request is 1Mi, has larger consumption of ephemeral-storage. \
             Container b was using 12345, request is 0, has larger consumption of ephemeral-storage. "
        );
        assert_eq!(annotations["offending_containers"], "a,b");
        assert_eq!(annotations["offending_containers_usage"], "2Mi,12345");
        assert_eq!(annotations["starved_resource"], "ephemeral-storage");
        let (text, _) = message(Resource::Inodes, &pod, Some(&usage), &due, &seen);
        assert_eq!(text, "The node was low on resource: inodes. Threshold quantity: 52428, available: 20k. ");
        let (text, annotations) = message(Resource::Memory, &pod, None, &due, &seen);
        assert_eq!((text.as_str(), annotations.len()), ("The node was low on resource: memory. ", 0));
    }
}
