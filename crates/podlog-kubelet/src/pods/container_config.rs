//! A container's configuration for the runtime, from its spec.
//!
//! Follows `generateContainerConfig` of `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use podlog_api::quantity::Quantity;

use super::context::Context;
use super::labels;
use super::resources::resources;
use super::security;
use super::spec::{PodId, all_containers, is_in_host_network};
use crate::env::{self, Environment};
use crate::events::Level;
use crate::go;
use crate::layout::Layout;
use crate::runtime::{ContainerConfig, Dns, Image, Mount, PodSandboxConfig, PortMapping, Propagation};
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
        host_network: is_in_host_network(pod),
        host_pid: spec.and_then(|spec| spec.host_pid).unwrap_or(false),
        host_ipc: spec.and_then(|spec| spec.host_ipc).unwrap_or(false),
        share_process_namespace: spec.and_then(|spec| spec.share_process_namespace).unwrap_or(false),
        privileged: all_containers(pod).any(|(container, _)| security::is_privileged(container)),
        dns: dns(pod),
        port_mappings: all_containers(pod).flat_map(|(container, _)| host_ports(container)).collect(),
        sysctls: sysctls(pod),
        name: id.name,
        namespace: id.namespace,
        uid: id.uid,
    }
}

/// The pod's own name resolution (`dnsPolicy: None`); any other policy is the host's, for lack of a cluster's.
fn dns(pod: &Pod) -> Option<Dns> {
    let spec = pod.spec.as_ref().filter(|spec| spec.dns_policy.as_deref() == Some("None"))?;
    let config = spec.dns_config.clone()?;
    let option = |option: k8s_openapi::api::core::v1::PodDNSConfigOption| {
        let name = option.name.unwrap_or_default();
        option.value.map_or(name.clone(), |value| format!("{name}:{value}"))
    };
    Some(Dns {
        servers: config.nameservers.unwrap_or_default(),
        searches: config.searches.unwrap_or_default(),
        options: config.options.unwrap_or_default().into_iter().map(option).collect(),
    })
}

fn host_ports(container: &Container) -> Vec<PortMapping> {
    let port = |number: i32| u16::try_from(number).ok().filter(|port| *port != 0);
    let mappings = container.ports.iter().flatten().filter_map(|own| {
        Some(PortMapping {
            protocol: own.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            container_port: port(own.container_port)?,
            host_port: port(own.host_port?)?,
            host_ip: own.host_ip.clone().unwrap_or_default(),
        })
    });
    mappings.collect()
}

fn sysctls(pod: &Pod) -> std::collections::BTreeMap<String, String> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let all = context.and_then(|context| context.sysctls.clone()).unwrap_or_default();
    all.into_iter().map(|sysctl| (sysctl.name, sysctl.value)).collect()
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
    image: Image,
    volumes: &VolumePaths,
) -> Result<ContainerConfig, String> {
    let environment = env::environment(pod, container, &context.node, &*context.objects)
        .await
        .map_err(|error| error.to_string())?;
    for warning in &environment.warnings {
        let reason = "InvalidEnvironmentVariableNames";
        context.events.pod(pod, Level::Warning, reason, warning.clone());
    }
    let security = security::of(context, pod, container, &image)?;
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
        image: image.reference,
        user_specified_image: container.image.clone().unwrap_or_default(),
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
        stdin_once: container.stdin_once.unwrap_or(false),
        resources: resources(pod, container, node_memory_bytes(context)),
        target: None,
    })
}

fn node_memory_bytes(context: &Context) -> i64 {
    let memory = context.node.allocatable.get("memory").and_then(|text| Quantity::parse(text));
    memory.map_or(0, Quantity::value)
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
