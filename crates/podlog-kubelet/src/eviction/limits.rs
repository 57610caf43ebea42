//! Pods that use more local storage than they may. Pure.

use k8s_openapi::api::core::v1::Pod;
use podlog_api::quantity::Quantity;

use super::message::binary;
use crate::pods::{Amount, all_containers};
use crate::usage::{Parts, PodUsage};

const STORAGE: &str = "ephemeral-storage";

/// A limit that a pod has crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crossed {
    /// Label of the metric.
    pub(super) signal: &'static str,
    pub(super) message: String,
}

/// Whether the pod has any limit of local storage.
pub(super) fn has_any(pod: &Pod) -> bool {
    Amount::Limit.of_pod(pod, STORAGE).is_some() || size_limits(pod).next().is_some()
}

/// The first limit that the pod has crossed. `with_layers`: root file systems of containers count, because they are where
/// everything else is.
pub(super) fn crossed(pod: &Pod, usage: &PodUsage, with_layers: bool) -> Option<Crossed> {
    volume(pod, usage).or_else(|| whole(pod, usage)).or_else(|| container(pod, usage, with_layers))
}

/// Names and limits of volumes that have one, as it is written.
fn size_limits(pod: &Pod) -> impl Iterator<Item = (&str, &str, u64)> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|volume| {
        let text = volume.empty_dir.as_ref()?.size_limit.as_ref()?.0.as_str();
        let limit = u64::try_from(Quantity::parse(text)?.value()).ok().filter(|limit| *limit > 0)?;
        Some((volume.name.as_str(), text, limit))
    })
}

fn volume(pod: &Pod, usage: &PodUsage) -> Option<Crossed> {
    let used = |name: &str| {
        let volume = usage.volumes.iter().find(|volume| volume.name == name);
        volume.map_or(0, |volume| volume.used.bytes)
    };
    let (name, text, _) = size_limits(pod).find(|(name, _, limit)| used(name) > *limit)?;
    let message = format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\". ");
    Some(Crossed { signal: "emptydirfs.limit", message })
}

fn whole(pod: &Pod, usage: &PodUsage) -> Option<Crossed> {
    let limit = u64::try_from(Amount::Limit.of_pod(pod, STORAGE)?).ok()?;
    let message = format!(
        "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
        binary(limit)
    );
    (usage.disk(Parts::All).bytes > limit).then_some(Crossed { signal: "ephemeralpodfs.limit", message })
}

fn container(pod: &Pod, usage: &PodUsage, with_layers: bool) -> Option<Crossed> {
    for (container, _) in all_containers(pod) {
        let limit = Amount::Limit.of_container(container, STORAGE).map_or(0, Quantity::value);
        let Some(limit) = u64::try_from(limit).ok().filter(|limit| *limit > 0) else { continue };
        let Some(own) = usage.containers.iter().find(|own| own.name == container.name) else { continue };
        let layer = own.writable_layer().filter(|_| with_layers).unwrap_or_default();
        if own.logs.bytes + layer.bytes > limit {
            let message = format!(
                "Container {} exceeded its local ephemeral storage limit \"{}\". ",
                container.name,
                binary(limit)
            );
            return Some(Crossed { signal: "ephemeralcontainerfs.limit", message });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::testing::pod;
    use crate::runtime::Space;
    use crate::usage::{ContainerUsage, VolumeUsage};

    #[test]
    fn limits_are_those_of_volumes_pods_and_containers() {
        let limited =
            |limit: &str| json!({"name": "c", "resources": {"limits": {"ephemeral-storage": limit}}});
        let space = |bytes| Space { bytes, inodes: 1 };
        let usage = PodUsage {
            containers: vec![
                ContainerUsage { name: "c".into(), logs: space(3 << 20), ..ContainerUsage::default() },
                ContainerUsage { name: "d".into(), logs: space(1 << 20), ..ContainerUsage::default() },
            ],
            volumes: vec![VolumeUsage { name: "v".into(), used: space(2 << 20), in_memory: false }],
        };
        let check = |spec: Value, any: bool, expected: Option<&str>| {
            let pod = pod(spec.clone());
            assert_eq!(has_any(&pod), any, "{spec}");
            let found = crossed(&pod, &usage, true);
            assert_eq!(found.map(|crossed| crossed.message).as_deref(), expected, "{spec}");
        };
        check(json!({"containers": [{"name": "c"}]}), false, None);
        check(
            json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}),
            true,
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        );
        check(
            json!({"containers": [limited("10Mi")], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "0"}}]}),
            true,
            None,
        );
        check(
            json!({"containers": [limited("5Mi")]}),
            true,
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. "),
        );
        let mut other = limited("10Mi");
        other["name"] = json!("d");
        check(
            json!({"containers": [limited("2Mi"), other]}),
            true,
            Some("Container c exceeded its local ephemeral storage limit \"2Mi\". "),
        );
    }
}
