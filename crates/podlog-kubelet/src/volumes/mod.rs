//! A pod's volumes on this node: made before its containers start, kept up to date, removed after the pod.
//!
//! Layout below the pod's directory: `volumes/kubernetes.io~<plugin>/<name>`.

mod atomic;
mod cleanup;
mod host_path;
mod ownership;
mod payload;
mod sub_path;

pub(crate) use cleanup::remove_volumes;
pub(crate) use sub_path::resolve as resolve_sub_path;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};

use crate::env::NodeFacts;
use crate::objects::{Kind, ObjectError, ObjectName, ObjectSource, Token, TokenQuery};
use crate::pods::PodId;
use payload::Payload;

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("{0}")]
    Spec(String),
    #[error("{step} {}", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
        let path = path.to_owned();
        move |source| VolumeError::Io { step, path, source }
    }

    /// The text with its cause, for events.
    pub(crate) fn full(&self) -> String {
        match self {
            VolumeError::Io { source, .. } => format!("{self}: {source}"),
            other => other.to_string(),
        }
    }
}

/// Where the pod's volumes are on the host, by name.
pub(crate) type VolumePaths = BTreeMap<String, PathBuf>;

/// The volumes of one pod.
pub(crate) struct PodVolumes {
    directory: PathBuf,
    tokens: HashMap<TokenQuery, Token>,
}

/// What volumes are made from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) node: &'a NodeFacts,
    pub(crate) objects: &'a dyn ObjectSource,
    pub(crate) now: Timestamp,
}

impl PodVolumes {
    /// For the pod whose directory this is.
    pub(crate) fn new(directory: PathBuf) -> Self {
        PodVolumes { directory, tokens: HashMap::new() }
    }

    /// Makes all volumes, or brings them up to date.
    ///
    /// # Errors
    /// The name of the first volume that could not be had, and why.
    pub(crate) async fn set_up(
        &mut self,
        sources: &Sources<'_>,
    ) -> Result<VolumePaths, (String, VolumeError)> {
        let mut paths = VolumePaths::new();
        for volume in volumes_of(sources.pod) {
            let path = self.one(sources, volume).await.map_err(|error| (volume.name.clone(), error))?;
            paths.insert(volume.name.clone(), path);
        }
        Ok(paths)
    }

    /// Whether any volume has contents that change after it was made.
    pub(crate) fn are_live(pod: &Pod) -> bool {
        volumes_of(pod).iter().any(|volume| payload::plugin(volume).is_some())
    }

    /// The objects with which files change.
    pub(crate) fn references(pod: &Pod) -> BTreeSet<ObjectName> {
        let namespace = PodId::of(pod).namespace;
        let references = volumes_of(pod).iter().flat_map(payload::references);
        let name = |(kind, name): (Kind, &str)| ObjectName {
            kind,
            namespace: namespace.clone(),
            name: name.to_owned(),
        };
        references.filter(|(_, name)| !name.is_empty()).map(name).collect()
    }

    /// When the first of its tokens has to be renewed; `None` when it has none.
    pub(crate) fn renewal(&self) -> Option<Timestamp> {
        self.tokens.values().map(Token::renewal).min()
    }

    async fn one(&mut self, sources: &Sources<'_>, volume: &Volume) -> Result<PathBuf, VolumeError> {
        if let Some(host_path) = &volume.host_path {
            let (path, kind) = (PathBuf::from(&host_path.path), host_path.type_.clone().unwrap_or_default());
            let checked = path.clone();
            blocking(move || host_path::check(&checked, &kind)).await?;
            return Ok(path);
        }
        if let Some(empty_dir) = &volume.empty_dir {
            return self.empty_dir(sources.pod, volume, empty_dir).await;
        }
        let Some(plugin) = payload::plugin(volume) else {
            return Err(VolumeError::Spec(format!("no volume plugin matched name: {}", volume.name)));
        };
        let payload = payload::build(sources, volume, &mut self.tokens).await?;
        self.write(sources.pod, plugin, volume, payload).await
    }

    async fn write(
        &self,
        pod: &Pod,
        plugin: &str,
        volume: &Volume,
        payload: Payload,
    ) -> Result<PathBuf, VolumeError> {
        let path = self.volume_path(plugin, volume);
        let (target, stamp) = (path.clone(), Timestamp::now());
        let group = ownership::fs_group(pod);
        blocking(move || {
            make_volume_directory(&target, 0o755)?;
            atomic::write(&target, &payload, group, stamp)
        })
        .await?;
        Ok(path)
    }

    async fn empty_dir(
        &self,
        pod: &Pod,
        volume: &Volume,
        source: &EmptyDirVolumeSource,
    ) -> Result<PathBuf, VolumeError> {
        let path = self.volume_path("empty-dir", volume);
        let (target, group) = (path.clone(), ownership::fs_group(pod));
        let in_memory = source.medium.as_deref() == Some("Memory");
        let limit = source.size_limit.as_ref().map(|quantity| quantity.0.clone());
        blocking(move || {
            if target.is_dir() {
                return Ok(());
            }
            make_volume_directory(&target, 0o777)?;
            if in_memory {
                ownership::mount_tmpfs(&target, limit.as_deref());
            }
            group.map_or(Ok(()), |group| ownership::share_directory(&target, group))
        })
        .await?;
        Ok(path)
    }

    fn volume_path(&self, plugin: &str, volume: &Volume) -> PathBuf {
        self.directory.join("volumes").join(format!("kubernetes.io~{plugin}")).join(&volume.name)
    }
}

fn volumes_of(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

/// Makes the volume's directory; those above it are for the kubelet alone, so that nobody else on the host gets to what
/// is inside.
fn make_volume_directory(path: &Path, mode: u32) -> Result<(), VolumeError> {
    let parent = path.parent().unwrap_or(path);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(parent).map_err(VolumeError::io("cannot create", parent))?;
    builder.create(path).map_err(VolumeError::io("cannot create", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(VolumeError::io("cannot set the mode of", path))
}

async fn blocking(
    work: impl FnOnce() -> Result<(), VolumeError> + Send + 'static,
) -> Result<(), VolumeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(VolumeError::Spec(format!("volume task failed: {error}"))))
}

#[cfg(test)]
mod tests;
