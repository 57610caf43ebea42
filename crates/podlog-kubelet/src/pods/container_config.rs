//! A container's configuration for the runtime, from its spec.
//!
//! Follows `generateContainerConfig` of `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

use super::context::Context;
use super::labels;
use super::spec::PodId;
use crate::env::{self, Environment};
use crate::events::Level;
use crate::go;
use crate::layout::Layout;
use crate::runtime::{ContainerConfig, Mount, PodSandboxConfig, Propagation, SecurityContext};
use crate::volumes::{VolumePaths, resolve_sub_path};

/// Where the application writes its last words unless it says otherwise.
const DEFAULT_TERMINATION_PATH: &str = "/dev/termination-log";

/// The sandbox's configuration.
pub(super) fn sandbox(pod: &Pod, layout: &Layout, attempt: u32) -> PodSandboxConfig {
    let id = PodId::of(pod);
    let spec = pod.spec.as_ref();
    PodSandboxConfig {
        attempt,
        hostname: hostname(pod),
        log_directory: layout.pod_logs(&id),
        labels: labels::sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        name: id.name,
        namespace: id.namespace,
        uid: id.uid,
    }
}

fn hostname(pod: &Pod) -> String {
    let asked = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = asked.unwrap_or_else(|| PodId::of(pod).name);
    // A Linux host name has at most 63 bytes; what is left must not end in a separator.
    name.truncate(name.floor_char_boundary(63));
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The container's configuration.
///
/// # Errors
/// The message of `CreateContainerConfigError`.
pub(super) async fn container(
    context: &Context,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: String,
    volumes: &VolumePaths,
) -> Result<ContainerConfig, String> {
    let environment = env::environment(pod, container, &context.node, &*context.objects)
        .await
        .map_err(|error| error.to_string())?;
    for warning in &environment.warnings {
        let reason = "InvalidEnvironmentVariableNames";
        context.events.pod(pod, Level::Warning, reason, warning.clone());
    }
    let security = security(pod, container);
    check_user(context, pod, container, &security)?;
    let mut annotations = labels::container_annotations(pod, container, attempt);
    let mut mounts = mounts(pod, container, &environment, volumes)?;
    let (mount, host_path) = termination_mount(context, pod, container, attempt)?;
    annotations.insert(labels::TERMINATION_HOST_PATH.into(), host_path.display().to_string());
    mounts.push(mount);
    let expanded = |texts: &Option<Vec<String>>| {
        texts.iter().flatten().map(|text| environment.expand(text)).collect::<Vec<_>>()
    };
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        image,
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()).map(PathBuf::from),
        envs: environment.vars,
        mounts,
        log_path: Layout::log_path(&container.name, attempt),
        labels: labels::container_labels(pod, container),
        annotations,
        security,
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
    })
}

fn mounts(
    pod: &Pod,
    container: &Container,
    environment: &Environment,
    volumes: &VolumePaths,
) -> Result<Vec<Mount>, String> {
    let all = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let one = |mount: &VolumeMount| {
        let volume = all.iter().find(|volume| volume.name == mount.name);
        let (Some(volume), Some(path)) = (volume, volumes.get(&mount.name)) else {
            let (volume, container) = (go::quote(&mount.name), go::quote(&container.name));
            return Err(format!("cannot find volume {volume} to mount into container {container}"));
        };
        let sub_path = match mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
            Some(expression) => environment.expand(expression),
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        let host_path = resolve_sub_path(path, &sub_path).map_err(|error| {
            let name = go::quote(&mount.name);
            format!("failed to prepare subPath for volumeMount {name}: {}", error.full())
        })?;
        Ok(Mount {
            container_path: Path::new("/").join(&mount.mount_path),
            host_path,
            readonly: mount.read_only.unwrap_or(false) || is_ours(volume),
            propagation: propagation(mount),
        })
    };
    container.volume_mounts.iter().flatten().map(one).collect()
}

/// Whether the volume's files are written by the kubelet: containers only read those.
fn is_ours(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

fn propagation(mount: &VolumeMount) -> Propagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") => Propagation::Bidirectional,
        _ => Propagation::Private,
    }
}

fn termination_mount(
    context: &Context,
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> Result<(Mount, PathBuf), String> {
    let asked = container.termination_message_path.clone().filter(|path| !path.is_empty());
    let container_path = PathBuf::from(asked.unwrap_or_else(|| DEFAULT_TERMINATION_PATH.into()));
    let host_path = context
        .layout
        .create_termination_file(&PodId::of(pod).uid, &container.name, attempt)
        .map_err(|error| format!("cannot create the termination message file: {error}"))?;
    let propagation = Propagation::Private;
    Ok((Mount { container_path, host_path: host_path.clone(), readonly: false, propagation }, host_path))
}

/// Who the container runs as: its own settings over the pod's.
fn security(pod: &Pod, container: &Container) -> SecurityContext {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let id = |own: Option<i64>, of_pod: Option<i64>| own.or(of_pod).and_then(|id| u32::try_from(id).ok());
    let groups = of_pod.and_then(|context| context.supplemental_groups.clone()).unwrap_or_default();
    let fs_group = of_pod.and_then(|context| context.fs_group);
    SecurityContext {
        run_as_user: id(own.and_then(|c| c.run_as_user), of_pod.and_then(|c| c.run_as_user)),
        run_as_group: id(own.and_then(|c| c.run_as_group), of_pod.and_then(|c| c.run_as_group)),
        supplemental_groups: groups
            .into_iter()
            .chain(fs_group)
            .filter_map(|group| u32::try_from(group).ok())
            .collect(),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        privileged: own.and_then(|c| c.privileged).unwrap_or(false),
        readonly_rootfs: own.and_then(|c| c.read_only_root_filesystem).unwrap_or(false),
    }
}

/// Holds `runAsNonRoot` (`pkg/kubelet/kuberuntime/security_context.go`). Processes without an image run as the kubelet's
/// user unless they say otherwise.
fn check_user(
    context: &Context,
    pod: &Pod,
    container: &Container,
    security: &SecurityContext,
) -> Result<(), String> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref().and_then(|context| context.run_as_non_root);
    if own.or(of_pod.and_then(|context| context.run_as_non_root)) != Some(true) {
        return Ok(());
    }
    let (pod, name) = (go::quote(&PodId::of(pod).to_string()), &container.name);
    let becomes_root = context.runtime_name == "process" && rustix::process::geteuid().is_root();
    match security.run_as_user {
        Some(0) => {
            Err(format!("container's runAsUser breaks non-root policy (pod: {pod}, container: {name})"))
        }
        None if becomes_root => Err(format!(
            "container has runAsNonRoot and image will run as root (pod: {pod}, container: {name})"
        )),
        _ => Ok(()),
    }
}
