//! From CRI's words to the seam's and back. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use podlog_proto::cri;
use tonic::Status;

use crate::runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerId, ContainerState, ContainerStats, ContainerStatus,
    Dns, EnvVar, Mount, PodSandbox, PodSandboxConfig, PortMapping, Propagation, Resources, RuntimeError,
    SandboxState, Seccomp, SecurityContext, Streams,
};

/// What a sandbox is made from.
pub(super) fn sandbox_config(config: cri::PodSandboxConfig) -> PodSandboxConfig {
    let metadata = config.metadata.unwrap_or_default();
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let namespaces = security.namespace_options.unwrap_or_default();
    PodSandboxConfig {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        hostname: config.hostname,
        log_directory: config.log_directory.into(),
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        host_network: namespaces.network() == cri::NamespaceMode::Node,
        host_pid: namespaces.pid() == cri::NamespaceMode::Node,
        host_ipc: namespaces.ipc() == cri::NamespaceMode::Node,
        share_process_namespace: namespaces.pid() == cri::NamespaceMode::Pod,
        privileged: security.privileged,
        dns: config.dns_config.map(|dns| Dns {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        port_mappings: config.port_mappings.iter().map(port_mapping).collect(),
        sysctls: linux.sysctls.into_iter().collect(),
    }
}

fn port_mapping(mapping: &cri::PortMapping) -> PortMapping {
    let port = |number: i32| u16::try_from(number).unwrap_or(0);
    PortMapping {
        protocol: mapping.protocol().as_str_name().to_owned(),
        container_port: port(mapping.container_port),
        host_port: port(mapping.host_port),
        host_ip: mapping.host_ip.clone(),
    }
}

/// What a container is made from.
pub(super) fn container_config(config: cri::ContainerConfig) -> ContainerConfig {
    let metadata = config.metadata.unwrap_or_default();
    let image = config.image.unwrap_or_default();
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let target = security.namespace_options.clone().unwrap_or_default().target_id;
    ContainerConfig {
        name: metadata.name,
        attempt: metadata.attempt,
        image: image.image,
        user_specified_image: image.user_specified_image,
        command: config.command,
        args: config.args,
        working_dir: (!config.working_dir.is_empty()).then(|| config.working_dir.into()),
        envs: config.envs.into_iter().map(|var| EnvVar { name: var.key, value: var.value }).collect(),
        mounts: config.mounts.iter().map(mount).collect(),
        log_path: config.log_path.into(),
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        security: security_context(security),
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        resources: linux.resources.map(resources).unwrap_or_default(),
        target: (!target.is_empty()).then_some(ContainerId(target)),
    }
}

fn mount(mount: &cri::Mount) -> Mount {
    let propagation = match mount.propagation() {
        cri::MountPropagation::PropagationPrivate => Propagation::Private,
        cri::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        cri::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    Mount {
        container_path: mount.container_path.clone().into(),
        host_path: mount.host_path.clone().into(),
        readonly: mount.readonly,
        propagation,
    }
}

fn security_context(own: cri::LinuxContainerSecurityContext) -> SecurityContext {
    let id = |id: Option<cri::Int64Value>| id.and_then(|id| u32::try_from(id.value).ok());
    let capabilities = own.capabilities.unwrap_or_default();
    SecurityContext {
        run_as_user: id(own.run_as_user),
        run_as_group: id(own.run_as_group),
        supplemental_groups: own
            .supplemental_groups
            .iter()
            .filter_map(|group| u32::try_from(*group).ok())
            .collect(),
        no_new_privileges: own.no_new_privs,
        privileged: own.privileged,
        readonly_rootfs: own.readonly_rootfs,
        run_as_username: own.run_as_username,
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        seccomp: own.seccomp.map(|profile| seccomp(&profile)).unwrap_or_default(),
        unmasked_proc: own.masked_paths.is_empty(),
    }
}

fn seccomp(profile: &cri::SecurityProfile) -> Seccomp {
    use cri::security_profile::ProfileType;
    match profile.profile_type() {
        ProfileType::RuntimeDefault => Seccomp::RuntimeDefault,
        ProfileType::Unconfined => Seccomp::Unconfined,
        ProfileType::Localhost => Seccomp::Localhost(profile.localhost_ref.clone().into()),
    }
}

fn resources(resources: cri::LinuxContainerResources) -> Resources {
    Resources {
        cpu_shares: resources.cpu_shares,
        cpu_quota: resources.cpu_quota,
        memory_limit_bytes: resources.memory_limit_in_bytes,
        oom_score_adj: resources.oom_score_adj,
    }
}

/// A sandbox as listed.
pub(super) fn sandbox(sandbox: PodSandbox) -> cri::PodSandbox {
    cri::PodSandbox {
        id: sandbox.id.0,
        metadata: Some(metadata(&sandbox.config)),
        state: sandbox_state(sandbox.state).into(),
        created_at: nanoseconds(Some(sandbox.created_at)),
        labels: map(sandbox.config.labels),
        annotations: map(sandbox.config.annotations),
        ..Default::default()
    }
}

/// A sandbox's status. All use the host's network; one that asked for its own is told to have got it, with the host's
/// address: Kubernetes' kubelet would make it anew otherwise.
pub(super) fn sandbox_status(sandbox: PodSandbox, ip: IpAddr) -> cri::PodSandboxStatus {
    let config = &sandbox.config;
    let of = |is_host: bool| if is_host { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
    let options = cri::NamespaceOption {
        network: of(config.host_network).into(),
        pid: of(config.host_pid).into(),
        ipc: of(config.host_ipc).into(),
        ..Default::default()
    };
    let ip = if config.host_network { String::new() } else { ip.to_string() };
    cri::PodSandboxStatus {
        metadata: Some(metadata(config)),
        state: sandbox_state(sandbox.state).into(),
        created_at: nanoseconds(Some(sandbox.created_at)),
        network: Some(cri::PodSandboxNetworkStatus { ip, ..Default::default() }),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace { options: Some(options) }),
        }),
        labels: map(sandbox.config.labels),
        annotations: map(sandbox.config.annotations),
        id: sandbox.id.0,
        ..Default::default()
    }
}

fn metadata(config: &PodSandboxConfig) -> cri::PodSandboxMetadata {
    cri::PodSandboxMetadata {
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        attempt: config.attempt,
    }
}

fn sandbox_state(state: SandboxState) -> cri::PodSandboxState {
    match state {
        SandboxState::Ready => cri::PodSandboxState::SandboxReady,
        SandboxState::NotReady => cri::PodSandboxState::SandboxNotready,
    }
}

/// Whether a sandbox is asked for.
pub(super) fn sandbox_matches(filter: &cri::PodSandboxFilter, sandbox: &cri::PodSandbox) -> bool {
    (filter.id.is_empty() || sandbox.id.starts_with(&filter.id))
        && filter.state.is_none_or(|wanted| wanted.state == sandbox.state)
        && filter.label_selector.iter().all(|(key, value)| sandbox.labels.get(key) == Some(value))
}

/// Whether a container is asked for. An id may be cut short, as people do.
pub(super) fn container_matches(filter: &cri::ContainerFilter, container: &Container) -> bool {
    (filter.id.is_empty() || container.id.0.starts_with(&filter.id))
        && filter.state.is_none_or(|wanted| wanted.state == i32::from(container_state(container.state)))
        && (filter.pod_sandbox_id.is_empty() || container.sandbox.0.starts_with(&filter.pod_sandbox_id))
        && filter.label_selector.iter().all(|(key, value)| container.labels.get(key) == Some(value))
}

/// A container as listed.
pub(super) fn container(container: Container, image: String) -> cri::Container {
    cri::Container {
        id: container.id.0,
        pod_sandbox_id: container.sandbox.0,
        metadata: Some(cri::ContainerMetadata { name: container.name, attempt: container.attempt }),
        image: Some(image_spec(&image)),
        image_id: image.clone(),
        image_ref: image,
        state: container_state(container.state).into(),
        created_at: nanoseconds(Some(container.created_at)),
        labels: map(container.labels),
        annotations: map(container.annotations),
    }
}

/// A container's status.
pub(super) fn container_status(status: ContainerStatus) -> cri::ContainerStatus {
    let container = status.container;
    cri::ContainerStatus {
        id: container.id.0,
        metadata: Some(cri::ContainerMetadata { name: container.name, attempt: container.attempt }),
        state: container_state(container.state).into(),
        created_at: nanoseconds(Some(container.created_at)),
        started_at: nanoseconds(status.started_at),
        finished_at: nanoseconds(status.finished_at),
        exit_code: status.exit_code,
        image: Some(image_spec(&status.image)),
        image_id: status.image.clone(),
        image_ref: status.image,
        reason: status.reason,
        message: status.message,
        labels: map(container.labels),
        annotations: map(container.annotations),
        log_path: status.log_path.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

fn container_state(state: ContainerState) -> cri::ContainerState {
    match state {
        ContainerState::Created => cri::ContainerState::ContainerCreated,
        ContainerState::Running => cri::ContainerState::ContainerRunning,
        ContainerState::Exited => cri::ContainerState::ContainerExited,
        ContainerState::Unknown => cri::ContainerState::ContainerUnknown,
    }
}

/// An image that is a name. Its programs run as whoever the runtime is.
pub(super) fn image(name: String) -> cri::Image {
    let uid = i64::from(rustix::process::geteuid().as_raw());
    cri::Image {
        spec: Some(image_spec(&name)),
        repo_tags: vec![name.clone()],
        id: name,
        uid: Some(cri::Int64Value { value: uid }),
        ..Default::default()
    }
}

fn image_spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: name.to_owned(), ..Default::default() }
}

/// Images take no room on the disk of `root`.
pub(super) fn no_usage(root: &Path, now: Timestamp) -> cri::FilesystemUsage {
    let nothing = Some(cri::UInt64Value { value: 0 });
    cri::FilesystemUsage {
        timestamp: nanoseconds(Some(now)),
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: root.to_string_lossy().into_owned() }),
        used_bytes: nothing,
        inodes_used: nothing,
    }
}

/// What a container uses.
pub(super) fn container_stats(container: Container, stats: ContainerStats) -> cri::ContainerStats {
    let timestamp = nanoseconds(Some(stats.at));
    let value = |number: Option<u64>| number.map(|value| cri::UInt64Value { value });
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: container.id.0,
            metadata: Some(cri::ContainerMetadata { name: container.name, attempt: container.attempt }),
            labels: container.labels.into_iter().collect(),
            annotations: container.annotations.into_iter().collect(),
        }),
        cpu: Some(cri::CpuUsage {
            timestamp,
            usage_core_nano_seconds: value(stats.cpu_nanos),
            ..Default::default()
        }),
        memory: Some(cri::MemoryUsage {
            timestamp,
            working_set_bytes: value(stats.working_set_bytes),
            usage_bytes: value(stats.memory_bytes),
            rss_bytes: value(stats.rss_bytes),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Whether a container is one of those whose use of the machine is asked for.
pub(super) fn stats_match(filter: &cri::ContainerStatsFilter, container: &Container) -> bool {
    let same = |asked: &str, own: &str| asked.is_empty() || asked == own;
    same(&filter.id, &container.id.0)
        && same(&filter.pod_sandbox_id, &container.sandbox.0)
        && filter.label_selector.iter().all(|(key, value)| container.labels.get(key) == Some(value))
}

/// Something happened to a container.
pub(super) fn event(event: ContainerEvent, now: Timestamp) -> cri::ContainerEventResponse {
    let kind = match event.state {
        ContainerState::Created => cri::ContainerEventType::ContainerCreatedEvent,
        ContainerState::Running => cri::ContainerEventType::ContainerStartedEvent,
        ContainerState::Exited | ContainerState::Unknown => cri::ContainerEventType::ContainerStoppedEvent,
    };
    cri::ContainerEventResponse {
        container_id: event.id.0,
        container_event_type: kind.into(),
        created_at: nanoseconds(Some(now)),
        pod_sandbox_status: Some(cri::PodSandboxStatus { id: event.sandbox.0, ..Default::default() }),
        ..Default::default()
    }
}

/// Nanoseconds since 1970; 0 is "not yet".
fn nanoseconds(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX))
}

fn map(map: std::collections::BTreeMap<String, String>) -> HashMap<String, String> {
    map.into_iter().collect()
}

/// The streams that somebody wants, if they can be had (`validateExecRequest` of `k8s.io/kubelet/pkg/cri/streaming`).
pub(super) fn streams(container_id: &str, wanted: Streams) -> Result<Streams, Status> {
    let refuse = |why: &str| Err(Status::invalid_argument(why));
    if container_id.is_empty() {
        refuse("missing required container_id")
    } else if wanted.tty && wanted.stderr {
        refuse("tty and stderr cannot both be true")
    } else if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        refuse("one of stdin, stdout, or stderr must be set")
    } else {
        Ok(wanted)
    }
}

/// An error as CRI's runtimes answer it.
pub(super) fn refusal(error: &RuntimeError) -> Status {
    let text = crate::pods::error_text(error);
    match error {
        RuntimeError::NotFound { .. } => Status::not_found(text),
        RuntimeError::ExecTimeout { .. } => Status::deadline_exceeded(text),
        RuntimeError::Unavailable(_) => Status::unavailable(text),
        RuntimeError::Rpc { code: "Unimplemented", message } => Status::unimplemented(message.clone()),
        RuntimeError::Rpc { code: "ResourceExhausted", message } => {
            Status::resource_exhausted(message.clone())
        }
        _ => Status::unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::SandboxId;

    fn listed() -> Container {
        Container {
            id: ContainerId("abcdef".into()),
            sandbox: SandboxId("s1".into()),
            name: "web".into(),
            attempt: 3,
            state: ContainerState::Running,
            created_at: Timestamp::from_second(1).unwrap(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            annotations: Default::default(),
        }
    }

    #[test]
    fn filters_choose_containers() {
        let filter = |change: fn(&mut cri::ContainerFilter)| {
            let mut filter = cri::ContainerFilter::default();
            change(&mut filter);
            container_matches(&filter, &listed())
        };
        assert!(filter(|_| {}));
        assert!(filter(|filter| filter.id = "abc".into()));
        assert!(!filter(|filter| filter.id = "bcd".into()));
        assert!(filter(|filter| filter.pod_sandbox_id = "s1".into()));
        assert!(!filter(|filter| filter.pod_sandbox_id = "s2".into()));
        let state = |state: cri::ContainerState| Some(cri::ContainerStateValue { state: state.into() });
        let (running, exited) =
            (state(cri::ContainerState::ContainerRunning), state(cri::ContainerState::ContainerExited));
        let by_state =
            |state| container_matches(&cri::ContainerFilter { state, ..Default::default() }, &listed());
        assert!(by_state(running) && !by_state(exited));
        assert!(!filter(|filter| drop(filter.label_selector.insert("app".into(), "db".into()))));
    }

    #[test]
    fn errors_have_the_codes_that_clients_expect() {
        for (error, code) in [
            (RuntimeError::NotFound { what: "container", id: "c".into() }, tonic::Code::NotFound),
            (RuntimeError::CreateContainer("no".into()), tonic::Code::Unknown),
            (
                RuntimeError::ExecTimeout { command: vec![], timeout: Default::default() },
                tonic::Code::DeadlineExceeded,
            ),
        ] {
            assert_eq!(refusal(&error).code(), code);
        }
    }
}
