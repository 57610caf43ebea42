//! Containers: from the seam's words to CRI's and back. Pure.

use jiff::Timestamp;
use podlog_proto::cri;

use super::sandboxes::namespaces;
use crate::runtime::{
    Container, ContainerConfig, ContainerId, ContainerState, ContainerStats, ContainerStatus, ContainerUser,
    Mount, PodSandboxConfig, Propagation, Resources, SandboxId, Seccomp, SecurityContext, Space,
};

/// What a container does not see of `/proc` and `/sys`, and what it sees but cannot write
/// (`pkg/securitycontext/util.go`).
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Microseconds that [`Resources::cpu_quota`] is a part of.
const CPU_PERIOD: i64 = 100_000;

/// What the runtime is told to make.
pub(super) fn to_cri(pod: &PodSandboxConfig, config: &ContainerConfig) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: config.name.clone(), attempt: config.attempt }),
        image: Some(cri::ImageSpec {
            image: config.image.clone(),
            user_specified_image: config.user_specified_image.clone(),
            ..Default::default()
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.as_deref().map(text).unwrap_or_default(),
        envs: config.envs.iter().map(env).collect(),
        mounts: config.mounts.iter().map(mount).collect(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        log_path: text(&config.log_path),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(config.resources)),
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(own_namespaces(pod, config)),
                ..security(&config.security)
            }),
        }),
        ..Default::default()
    }
}

fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

fn env(var: &crate::runtime::EnvVar) -> cri::KeyValue {
    cri::KeyValue { key: var.name.clone(), value: var.value.clone() }
}

fn mount(mount: &Mount) -> cri::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => cri::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: text(&mount.container_path),
        host_path: text(&mount.host_path),
        readonly: mount.readonly,
        propagation: propagation.into(),
        ..Default::default()
    }
}

fn resources(resources: Resources) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_period: if resources.cpu_quota == 0 { 0 } else { CPU_PERIOD },
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit_bytes,
        oom_score_adj: resources.oom_score_adj,
        ..Default::default()
    }
}

/// Namespaces of the pod, and for some the processes of another container.
fn own_namespaces(pod: &PodSandboxConfig, config: &ContainerConfig) -> cri::NamespaceOption {
    match &config.target {
        None => namespaces(pod),
        Some(target) => cri::NamespaceOption {
            pid: cri::NamespaceMode::Target.into(),
            target_id: target.0.clone(),
            ..namespaces(pod)
        },
    }
}

/// The process id of a running container. CRI has no field for it; containerd and CRI-O say it where they say everything.
pub(super) fn first_process(answer: &cri::ContainerStatusResponse) -> Option<i32> {
    let running = cri::ContainerState::ContainerRunning as i32;
    answer.status.as_ref().filter(|status| status.state == running)?;
    let info: serde_json::Value = serde_json::from_str(answer.info.get("info")?).ok()?;
    let pid = i32::try_from(info.get("pid")?.as_i64()?).ok()?;
    (pid > 0).then_some(pid)
}

fn security(own: &SecurityContext) -> cri::LinuxContainerSecurityContext {
    let id = |id: Option<u32>| id.map(|id| cri::Int64Value { value: id.into() });
    let paths = |paths: &[&str]| match own.unmasked_proc || own.privileged {
        true => Vec::new(),
        false => paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: own.add_capabilities.clone(),
            drop_capabilities: own.drop_capabilities.clone(),
            ..Default::default()
        }),
        privileged: own.privileged,
        run_as_user: id(own.run_as_user),
        run_as_group: id(own.run_as_group),
        run_as_username: own.run_as_username.clone(),
        readonly_rootfs: own.readonly_rootfs,
        supplemental_groups: own.supplemental_groups.iter().map(|group| i64::from(*group)).collect(),
        no_new_privs: own.no_new_privileges,
        masked_paths: paths(MASKED_PATHS),
        readonly_paths: paths(READONLY_PATHS),
        seccomp: Some(seccomp(&own.seccomp)),
        ..Default::default()
    }
}

fn seccomp(seccomp: &Seccomp) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (profile, path) = match seccomp {
        Seccomp::Unconfined => (ProfileType::Unconfined, String::new()),
        Seccomp::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        Seccomp::Localhost(path) => (ProfileType::Localhost, text(path)),
    };
    cri::SecurityProfile { profile_type: profile.into(), localhost_ref: path }
}

/// A container as listed.
pub(super) fn from_cri(container: cri::Container) -> Container {
    let state = state(container.state());
    let metadata = container.metadata.unwrap_or_default();
    Container {
        id: ContainerId(container.id),
        sandbox: SandboxId(container.pod_sandbox_id),
        name: metadata.name,
        attempt: metadata.attempt,
        state,
        created_at: timestamp(container.created_at).unwrap_or_default(),
        labels: container.labels.into_iter().collect(),
        annotations: container.annotations.into_iter().collect(),
    }
}

/// A container's status. CRI does not say in it which sandbox the container is in.
pub(super) fn status(status: cri::ContainerStatus, sandbox: SandboxId) -> ContainerStatus {
    let state = state(status.state());
    let metadata = status.metadata.unwrap_or_default();
    ContainerStatus {
        container: Container {
            id: ContainerId(status.id),
            sandbox,
            name: metadata.name,
            attempt: metadata.attempt,
            state,
            created_at: timestamp(status.created_at).unwrap_or_default(),
            labels: status.labels.into_iter().collect(),
            annotations: status.annotations.into_iter().collect(),
        },
        image: status.image_ref,
        image_name: status.image.unwrap_or_default().image,
        user: status.user.and_then(|user| user.linux).map(|user| ContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups,
        }),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        log_path: status.log_path.into(),
    }
}

/// What a container uses; `None` for one that is not named.
pub(super) fn stats(stats: cri::ContainerStats) -> Option<ContainerStats> {
    let id = stats.attributes?.id;
    let value = |number: Option<cri::UInt64Value>| number.map(|number| number.value);
    let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
    Some(ContainerStats {
        id: ContainerId(id),
        at: timestamp(memory.timestamp).or_else(|| timestamp(cpu.timestamp)).unwrap_or_else(Timestamp::now),
        cpu_nanos: value(cpu.usage_core_nano_seconds),
        working_set_bytes: value(memory.working_set_bytes),
        memory_bytes: value(memory.usage_bytes),
        rss_bytes: value(memory.rss_bytes),
        processes: None,
        writable_layer: stats.writable_layer.map(|layer| Space {
            bytes: value(layer.used_bytes).unwrap_or_default(),
            inodes: value(layer.inodes_used).unwrap_or_default(),
        }),
    })
}

/// State of a container.
pub(super) fn state(state: cri::ContainerState) -> ContainerState {
    match state {
        cri::ContainerState::ContainerCreated => ContainerState::Created,
        cri::ContainerState::ContainerRunning => ContainerState::Running,
        cri::ContainerState::ContainerExited => ContainerState::Exited,
        cri::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

/// Nanoseconds since 1970; 0 and less is "not yet".
pub(super) fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}
