//! Which pod has to go first. Pure.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::config::Signal;
use crate::pods::{Amount, priority};
use crate::usage::{Parts, PodUsage};

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Memory,
    EphemeralStorage,
    Inodes,
    Pids,
}

impl Resource {
    pub(super) fn of(signal: Signal) -> Self {
        match signal {
            Signal::MemoryAvailable => Resource::Memory,
            Signal::NodefsAvailable | Signal::ImagefsAvailable => Resource::EphemeralStorage,
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => Resource::Inodes,
            Signal::PidAvailable => Resource::Pids,
        }
    }

    /// Its name in messages, and of requests for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::EphemeralStorage => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        }
    }
}

/// A pod that might go.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) pod: Arc<Pod>,
    /// `None` when nothing is known.
    pub(super) usage: Option<PodUsage>,
}

/// Puts those that have to go first in front: what uses more than it asked for, the less important, the larger. Of whom
/// nothing is known goes before all others.
pub(super) fn rank(candidates: &mut [Candidate], resource: Resource, parts: Parts) {
    candidates.sort_by(|a, b| compare(a, b, resource, parts));
}

fn compare(a: &Candidate, b: &Candidate, resource: Resource, parts: Parts) -> Ordering {
    let by_priority = priority(&a.pod).cmp(&priority(&b.pod));
    match (excess(a, resource, parts), excess(b, resource, parts)) {
        (Some(a), Some(b)) if resource == Resource::Pids => by_priority.then(b.cmp(&a)),
        (Some(a), Some(b)) => (a <= 0).cmp(&(b <= 0)).then(by_priority).then(b.cmp(&a)),
        (a, b) if resource == Resource::Pids => by_priority.then(a.is_some().cmp(&b.is_some())),
        (a, b) => Reverse(a.is_none()).cmp(&Reverse(b.is_none())).then(by_priority),
    }
}

/// How much more than it asked for a pod uses; of processes there is nothing to ask for.
fn excess(candidate: &Candidate, resource: Resource, parts: Parts) -> Option<i128> {
    let usage = candidate.usage.as_ref()?;
    let used = match resource {
        Resource::Memory => usage.memory().unwrap_or(0),
        Resource::EphemeralStorage => usage.disk(parts).bytes,
        Resource::Inodes => usage.disk(parts).inodes,
        Resource::Pids => usage.processes(),
    };
    let request = Amount::Request.of_pod(&candidate.pod, resource.name()).unwrap_or(0);
    Some(i128::from(used) - i128::from(request))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runtime::{ContainerId, ContainerStats, Space};
    use crate::usage::{ContainerUsage, VolumeUsage};

    /// A pod: name, priority, request; what it uses of memory and processes, in logs, in its root file system, in a volume.
    type Row = (&'static str, i32, &'static str, Option<[u64; 5]>);

    fn candidate((name, priority, request, used): Row) -> Candidate {
        let mut pod = crate::pods::testing::pod(json!({"priority": priority, "containers": [{"name": "c",
            "resources": {"requests": {"memory": request, "ephemeral-storage": request}}}]}));
        pod.metadata.name = Some(name.into());
        let space = |bytes| Space { bytes, inodes: bytes };
        let usage = used.map(|[memory, processes, logs, layer, volume]| PodUsage {
            containers: vec![ContainerUsage {
                name: "c".into(),
                stats: Some(ContainerStats {
                    id: ContainerId("c".into()),
                    at: jiff::Timestamp::UNIX_EPOCH,
                    cpu_nanos: None,
                    working_set_bytes: Some(memory),
                    memory_bytes: None,
                    rss_bytes: None,
                    processes: Some(processes),
                    writable_layer: Some(space(layer)),
                }),
                logs: space(logs),
            }],
            volumes: vec![VolumeUsage { name: "v".into(), used: space(volume), in_memory: false }],
        });
        Candidate { pod: Arc::new(pod), usage }
    }

    fn check(resource: Resource, parts: Parts, rows: &[Row], expected: &[&str]) {
        let mut candidates: Vec<_> = rows.iter().copied().map(candidate).collect();
        rank(&mut candidates, resource, parts);
        let names: Vec<_> = candidates.iter().map(|one| one.pod.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, expected, "{resource:?} {parts:?}");
    }

    #[test]
    fn pods_are_ranked_as_upstream_ranks_them() {
        let memory = |name, priority, request, used| (name, priority, request, Some([used, 0, 0, 0, 0]));
        check(
            Resource::Memory,
            Parts::All,
            &[
                memory("within", 0, "500", 400),
                memory("important", 10, "100", 900),
                memory("small", 0, "100", 200),
                memory("large", 0, "100", 300),
                ("unknown", 100, "0", None),
                memory("nothing", -1, "0", 0),
            ],
            &["unknown", "large", "small", "important", "nothing", "within"],
        );
        let disk: &[Row] = &[
            ("logs", 0, "0", Some([0, 0, 50, 0, 0])),
            ("layer", 0, "0", Some([0, 0, 1, 100, 0])),
            ("volume", 0, "0", Some([0, 0, 0, 2, 40])),
        ];
        check(Resource::EphemeralStorage, Parts::All, disk, &["layer", "logs", "volume"]);
        check(Resource::EphemeralStorage, Parts::LogsAndVolumes, disk, &["logs", "volume", "layer"]);
        check(Resource::Inodes, Parts::WritableLayers, disk, &["layer", "volume", "logs"]);
        check(
            Resource::Pids,
            Parts::All,
            &[
                ("many", 5, "0", Some([0, 900, 0, 0, 0])),
                ("few", 0, "0", Some([0, 1, 0, 0, 0])),
                ("some", 0, "0", Some([0, 7, 0, 0, 0])),
            ],
            &["some", "few", "many"],
        );
    }
}
