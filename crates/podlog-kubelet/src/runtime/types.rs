//! What goes over the runtime seam. Field names as in CRI `runtime.v1`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Opaque id of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub String);

/// Opaque id of a container, without the `<runtime>://` prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub String);

/// Name and version of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// E.g. `containerd`, `process`: the prefix of container ids in a pod's status.
    pub name: String,
    /// E.g. `2.0.1`.
    pub version: String,
}

/// What a pod's sandbox is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSandboxConfig {
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod uid.
    pub uid: String,
    /// How many sandboxes this pod had before.
    pub attempt: u32,
    /// Hostname inside the pod.
    pub hostname: String,
    /// Directory of the pod's log files, `<pod-logs-dir>/<namespace>_<pod>_<uid>`.
    pub log_directory: PathBuf,
    /// Labels, for finding it again.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether the pod shares the host's network.
    pub host_network: bool,
    /// Whether it shares the host's processes.
    pub host_pid: bool,
    /// Whether it shares the host's inter-process communication.
    pub host_ipc: bool,
    /// Whether its containers see each other's processes.
    pub share_process_namespace: bool,
    /// Whether one of its containers is privileged.
    pub privileged: bool,
    /// Name resolution; `None` is the host's.
    pub dns: Option<Dns>,
    /// Ports of the host that lead to ports of the pod.
    pub port_mappings: Vec<PortMapping>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
}

/// What a pod's `resolv.conf` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains that short names are looked for in.
    pub searches: Vec<String>,
    /// Options, e.g. `ndots:5`.
    pub options: Vec<String>,
}

/// A port of the host that leads to one of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port in the pod.
    pub container_port: u16,
    /// Port of the host.
    pub host_port: u16,
    /// Address of the host; empty for all.
    pub host_ip: String,
}

/// State of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// Can hold running containers.
    Ready,
    /// Stopped.
    NotReady,
}

/// A sandbox as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandbox {
    /// Its id.
    pub id: SandboxId,
    /// What it was made from.
    pub config: PodSandboxConfig,
    /// Its state.
    pub state: SandboxState,
    /// When it was created.
    pub created_at: Timestamp,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value, references already expanded.
    pub value: String,
}

/// How mounts propagate between container and host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A file or directory of the host that the container sees at another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path inside the container.
    pub container_path: PathBuf,
    /// Path on the host.
    pub host_path: PathBuf,
    /// Whether writing is refused.
    pub readonly: bool,
    /// Propagation.
    pub propagation: Propagation,
}

/// Who a container runs as. `None` leaves what the runtime or image says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityContext {
    /// User id.
    pub run_as_user: Option<u32>,
    /// Primary group id.
    pub run_as_group: Option<u32>,
    /// Supplementary groups (`supplementalGroups` and `fsGroup`).
    pub supplemental_groups: Vec<u32>,
    /// Refuse to gain privileges by exec (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
    /// All capabilities and devices of the host.
    pub privileged: bool,
    /// Root file system read-only.
    pub readonly_rootfs: bool,
    /// User name from the image, where neither the pod nor the image gives a number.
    pub run_as_username: String,
    /// Capabilities beyond the runtime's usual ones, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities taken away.
    pub drop_capabilities: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Whether the usual secrets of `/proc` and `/sys` are visible (`procMount: Unmasked`).
    pub unmasked_proc: bool,
}

/// System call filter of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// None: Kubernetes' default.
    #[default]
    Unconfined,
    /// The runtime's own profile.
    RuntimeDefault,
    /// A profile file on the node.
    Localhost(PathBuf),
}

/// What a container may use. Zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Share of the processor against others, 1024 a core.
    pub cpu_shares: i64,
    /// Processor time in microseconds for each 100 ms.
    pub cpu_quota: i64,
    /// Memory in bytes.
    pub memory_limit_bytes: i64,
    /// Who is killed first when memory is short, -1000 to 1000.
    pub oom_score_adj: i64,
}

/// An image that the runtime has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What `create_container` takes, and `imageID` in the pod's status.
    pub reference: String,
    /// User id that its programs run as.
    pub uid: Option<i64>,
    /// User name, where the image gives no number.
    pub username: String,
    /// Its size in bytes; zero when the runtime does not say.
    pub bytes: u64,
}

/// Credentials of an image registry. Prints without its secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// `user:password` in base64, as clients' configuration files have it.
    pub auth: String,
    /// The registry that these are for.
    pub server_address: String,
    /// Token that is exchanged for an access token.
    pub identity_token: String,
    /// Bearer token.
    pub registry_token: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

/// How the runtime is, e.g. `RuntimeReady`, `NetworkReady`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// Which.
    pub kind: String,
    /// Whether all is well.
    pub is_true: bool,
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What a container is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    /// Name inside the pod.
    pub name: String,
    /// Restart count; also the log file's number.
    pub attempt: u32,
    /// Image reference as returned by `pull_image`.
    pub image: String,
    /// Image as the pod's author wrote it.
    pub user_specified_image: String,
    /// Entry point; empty takes the image's.
    pub command: Vec<String>,
    /// Arguments; empty takes the image's when `command` is empty too.
    pub args: Vec<String>,
    /// Working directory; `None` takes the image's.
    pub working_dir: Option<PathBuf>,
    /// Environment.
    pub envs: Vec<EnvVar>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Path of the log file relative to the sandbox's `log_directory`: `<container>/<attempt>.log`.
    pub log_path: PathBuf,
    /// Labels, for finding it again.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Who it runs as.
    pub security: SecurityContext,
    /// Whether it has a terminal (one merged stream, stdout).
    pub tty: bool,
    /// Whether its stdin stays open.
    pub stdin: bool,
    /// Whether its stdin closes when the first client has left.
    pub stdin_once: bool,
    /// What it may use.
    pub resources: Resources,
    /// A running container of the same pod whose processes it sees as its own; `None` sees what the pod lets it see.
    pub target: Option<ContainerId>,
}

/// State of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// A container as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its pod's sandbox.
    pub sandbox: SandboxId,
    /// Name inside the pod.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// State.
    pub state: ContainerState,
    /// When it was created.
    pub created_at: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The whole truth about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// As listed.
    pub container: Container,
    /// Image reference.
    pub image: String,
    /// Name of the image as the runtime resolved it; empty when it does not say.
    pub image_name: String,
    /// Who its first process runs as; `None` when the runtime does not say.
    pub user: Option<ContainerUser>,
    /// When its program started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Exit code; 128 + signal number when a signal ended it.
    pub exit_code: i32,
    /// E.g. `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// Text for people.
    pub message: String,
    /// Absolute path of the current log file.
    pub log_path: PathBuf,
}

/// Who the first process of a container runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUser {
    /// User id.
    pub uid: i64,
    /// Primary group id.
    pub gid: i64,
    /// All groups that it is in.
    pub supplemental_groups: Vec<i64>,
}

/// Outcome of a command run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit code.
    pub exit_code: i32,
    /// What it wrote to stdout, cut at 16 MiB.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, cut at 16 MiB.
    pub stderr: Vec<u8>,
}

/// Which streams of a program somebody wants to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// What it reads.
    pub stdin: bool,
    /// What it prints.
    pub stdout: bool,
    /// What it complains; with a terminal that is a part of stdout.
    pub stderr: bool,
    /// Whether it has a terminal.
    pub tty: bool,
}

/// Where streams can be had, once and soon: a server that is spoken to without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUrl {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl StreamUrl {
    /// Reads what a runtime has told.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let refused = |why: &str| format!("cannot use the runtime's streaming URL {url:?}: {why}");
        let uri: http::Uri = url.parse().map_err(|error| refused(&format!("{error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(refused("it is spoken to without TLS here")),
            _ => return Err(refused("it is no address of a server")),
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(StreamUrl { host: host.to_owned(), port: uri.port_u16().unwrap_or(80), path })
    }
}

impl fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}{}", self.host, self.port, self.path),
            false => write!(f, "http://{}:{}{}", self.host, self.port, self.path),
        }
    }
}

/// Room that something takes on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl std::ops::Add for Space {
    type Output = Space;

    fn add(self, other: Space) -> Space {
        Space {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

impl std::iter::Sum for Space {
    fn sum<I: Iterator<Item = Space>>(parts: I) -> Space {
        parts.fold(Space::default(), |sum, part| sum + part)
    }
}

/// What a running container uses; `None` is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    /// Which container.
    pub id: ContainerId,
    /// When that was so.
    pub at: Timestamp,
    /// Processor time since its start, in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory that cannot be had back without hurting it, in bytes.
    pub working_set_bytes: Option<u64>,
    /// Memory that it holds, caches included, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory of its processes themselves, in bytes.
    pub rss_bytes: Option<u64>,
    /// Its processes and threads.
    pub processes: Option<u64>,
    /// What it has written into its root file system.
    pub writable_layer: Option<Space>,
}

/// An image as listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedImage {
    /// Its id.
    pub id: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the runtime itself needs it, as for sandboxes.
    pub is_pinned: bool,
    /// Everything that containers may call it: names, digests.
    pub names: Vec<String>,
}

/// Something happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Which.
    pub id: ContainerId,
    /// Its pod's sandbox.
    pub sandbox: SandboxId,
    /// Its new state.
    pub state: ContainerState,
}

/// What can go wrong with a runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No such sandbox or container.
    #[error("{what} {id:?} not found")]
    NotFound {
        /// `container` or `sandbox`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The container's configuration cannot be run here; caused by the pod's author.
    #[error("{0}")]
    CreateContainer(String),
    /// The container's program could not be started; caused by the pod's author.
    #[error("{0}")]
    StartContainer(String),
    /// A command did not end in time and was killed.
    #[error("command {command:?} timed out after {timeout:?}")]
    ExecTimeout {
        /// The command.
        command: Vec<String>,
        /// The time it had.
        timeout: Duration,
    },
    /// The runtime refused a call; caused by the pod's author or the machine.
    #[error("rpc error: code = {code} desc = {message}")]
    Rpc {
        /// gRPC's name of the code, e.g. `Unknown`.
        code: &'static str,
        /// The runtime's words.
        message: String,
    },
    /// The image cannot be had; caused by the pod's author or the registry.
    #[error("{0}")]
    Image(String),
    /// The runtime does not answer; worth another try.
    #[error("container runtime is not reachable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{step}")]
    Failed {
        /// What was being done, e.g. `cannot write /…/config.json`.
        step: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_streams_are_taken_apart() {
        let url = |host: &str, port, path: &str| StreamUrl { host: host.into(), port, path: path.into() };
        for (text, expected) in [
            ("http://127.0.0.1:41771/exec/tOkEn", Some(url("127.0.0.1", 41771, "/exec/tOkEn"))),
            ("http://[::1]:7/attach/x?y=1", Some(url("::1", 7, "/attach/x?y=1"))),
            ("http://node", Some(url("node", 80, "/"))),
            ("https://127.0.0.1:10010/exec/x", None),
            ("/exec/x", None),
            ("", None),
        ] {
            let parsed = StreamUrl::parse(text);
            assert_eq!(parsed.as_ref().ok(), expected.as_ref(), "{text}: {parsed:?}");
        }
        assert_eq!(url("::1", 7, "/x").to_string(), "http://[::1]:7/x");
    }
}
