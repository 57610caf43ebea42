//! What pods use of this machine: processor, memory, and room on its disks.

mod disk;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::layout::Layout;
use crate::pods::{Context, PodId, all_containers, labels};
use crate::runtime::{ContainerStats, RuntimeError, Space};

/// What one pod uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodUsage {
    pub(crate) containers: Vec<ContainerUsage>,
    pub(crate) volumes: Vec<VolumeUsage>,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContainerUsage {
    pub(crate) name: String,
    /// What the runtime knows; `None` when it does not run.
    pub(crate) stats: Option<ContainerStats>,
    /// All its log files.
    pub(crate) logs: Space,
}

/// What is in a volume that lies in the pod's own directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VolumeUsage {
    pub(crate) name: String,
    pub(crate) used: Space,
    /// It takes memory, not room on a disk.
    pub(crate) in_memory: bool,
}

/// Whether directories are measured, which takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disks {
    Measured,
    Skipped,
}

/// Which parts of a pod count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Logs and volumes: what lies on the kubelet's file system.
    LogsAndVolumes,
    /// Root file systems of containers: what lies with images.
    WritableLayers,
    All,
}

impl ContainerUsage {
    pub(crate) fn working_set(&self) -> Option<u64> {
        self.stats.as_ref()?.working_set_bytes
    }

    pub(crate) fn writable_layer(&self) -> Option<Space> {
        self.stats.as_ref()?.writable_layer
    }
}

impl PodUsage {
    /// Memory of all containers; `None` when nothing is known of any.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.containers.iter().filter_map(ContainerUsage::working_set).reduce(u64::saturating_add)
    }

    /// Processes of all containers.
    pub(crate) fn processes(&self) -> u64 {
        self.containers.iter().filter_map(|container| container.stats.as_ref()?.processes).sum()
    }

    /// Room on disks.
    pub(crate) fn disk(&self, parts: Parts) -> Space {
        let logs = self.containers.iter().map(|container| container.logs);
        let layers = self.containers.iter().filter_map(ContainerUsage::writable_layer);
        let volumes = self.volumes.iter().filter(|volume| !volume.in_memory).map(|volume| volume.used);
        match parts {
            Parts::LogsAndVolumes => logs.chain(volumes).sum(),
            Parts::WritableLayers => layers.sum(),
            Parts::All => logs.chain(layers).chain(volumes).sum(),
        }
    }
}

/// What `pods` use, by uid.
///
/// # Errors
/// When the runtime does not answer.
pub(crate) async fn of_pods(
    context: &Context,
    pods: &[Arc<Pod>],
    disks: Disks,
) -> Result<HashMap<String, PodUsage>, RuntimeError> {
    let mut stats = by_container(context).await?;
    let (layout, pods) = (context.layout.clone(), pods.to_vec());
    let measure = move || {
        let measured = pods.iter().map(|pod| {
            let id = PodId::of(pod);
            let usage = one(&layout, pod, &id, &mut stats, disks);
            (id.uid, usage)
        });
        measured.collect()
    };
    tokio::task::spawn_blocking(measure)
        .await
        .map_err(|error| RuntimeError::Failed { step: "cannot measure pods".into(), source: error.into() })
}

/// What the runtime knows, by uid and name.
async fn by_container(context: &Context) -> Result<HashMap<(String, String), ContainerStats>, RuntimeError> {
    let mut found: HashMap<_, _> =
        context.runtime.container_stats().await?.into_iter().map(|stats| (stats.id.clone(), stats)).collect();
    let containers = context.runtime.list_containers(None).await?;
    let known = containers.into_iter().filter_map(|container| {
        let owner = labels::owner(&container.labels)?;
        Some(((owner.uid, container.name), found.remove(&container.id)?))
    });
    Ok(known.collect())
}

fn one(
    layout: &Layout,
    pod: &Pod,
    id: &PodId,
    stats: &mut HashMap<(String, String), ContainerStats>,
    disks: Disks,
) -> PodUsage {
    let logs = layout.pod_logs(id);
    let used = |path: &Path| match disks {
        Disks::Measured => disk::used(path),
        Disks::Skipped => Space::default(),
    };
    let containers = all_containers(pod).map(|(container, _)| ContainerUsage {
        name: container.name.clone(),
        stats: stats.remove(&(id.uid.clone(), container.name.clone())),
        logs: used(&logs.join(&container.name)),
    });
    let volumes = match disks {
        Disks::Measured => volumes(pod, &layout.pod(&id.uid)),
        Disks::Skipped => Vec::new(),
    };
    PodUsage { containers: containers.collect(), volumes }
}

fn volumes(pod: &Pod, directory: &Path) -> Vec<VolumeUsage> {
    let in_memory = |name: &str| {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let volume = volumes.iter().find(|volume| volume.name == name);
        let medium = volume.and_then(|volume| volume.empty_dir.as_ref()?.medium.as_deref());
        medium.is_some_and(|medium| !medium.is_empty())
    };
    let plugins = std::fs::read_dir(directory.join("volumes")).into_iter().flatten().flatten();
    let found = plugins.flat_map(|plugin| std::fs::read_dir(plugin.path()).into_iter().flatten().flatten());
    found
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            VolumeUsage { used: disk::used(&entry.path()), in_memory: in_memory(&name), name }
        })
        .collect()
}
