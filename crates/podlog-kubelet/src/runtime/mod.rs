//! The container runtime seam: the part of CRI `runtime.v1` that a kubelet needs, so that containerd, CRI-O and plain
//! processes stand behind one trait.

pub mod cri;
pub mod cri_server;
pub(crate) mod log_policy;
pub mod process;
mod types;

pub use log_policy::LogPolicy;

pub use types::{
    Container, ContainerConfig, ContainerEvent, ContainerId, ContainerState, ContainerStats, ContainerStatus,
    ContainerUser, Dns, EnvVar, ExecResult, Image, ListedImage, Mount, PodSandbox, PodSandboxConfig,
    PortMapping, Propagation, RegistryAuth, Resources, RuntimeCondition, RuntimeError, RuntimeVersion,
    SandboxId, SandboxState, Seccomp, SecurityContext, Space, StreamUrl, Streams,
};

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use podlog_container::ProcessIdentity;
use tokio::sync::{mpsc, watch};

/// Who rotates the log files of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRotation {
    /// Whoever writes them: at the limit, not after it.
    ByRuntime,
    /// The kubelet: it watches their size.
    ByKubelet,
}

/// What a runtime does with images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// Containers run from them: they are looked for and pulled.
    Used,
    /// They are names that mean nothing.
    Unused,
}

/// A container runtime, shaped like CRI's `RuntimeService` and `ImageService`.
///
/// Every call may be repeated: stopping what is stopped and removing what is gone succeed.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + 'static {
    /// Name of the runtime as it prefixes container ids, e.g. `containerd` in `containerd://<id>`, and its version.
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError>;

    /// How the runtime is. Empty when there is nothing to say; then all is well.
    async fn conditions(&self) -> Result<Vec<RuntimeCondition>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Who rotates log files: the runtime itself, or the kubelet, by renaming them and asking for new ones.
    fn log_rotation(&self) -> LogRotation {
        LogRotation::ByRuntime
    }

    /// The runtime's process while there is one, where it writes the log files itself and so loses what it has not written
    /// when it ends; `None` where nothing is lost.
    async fn log_writer(&self) -> Result<Option<watch::Receiver<Option<ProcessIdentity>>>, RuntimeError> {
        Ok(None)
    }

    /// Whether containers run from images.
    fn images(&self) -> Images {
        Images::Unused
    }

    /// An image that is there already.
    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError>;

    /// Makes an image available and returns its reference; the `image` of a container's status.
    ///
    /// # Errors
    /// [`RuntimeError::Image`] when it cannot be had.
    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<String, RuntimeError>;

    /// All images that are there.
    async fn list_images(&self) -> Result<Vec<ListedImage>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Removes an image by its id.
    async fn remove_image(&self, _id: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// A directory on the file system that images and root file systems of containers are on; `None` where there are none.
    async fn image_directory(&self) -> Result<Option<PathBuf>, RuntimeError> {
        Ok(None)
    }

    /// What running containers use. Those about which nothing is known are left out.
    async fn container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Creates and starts the sandbox of a pod.
    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId, RuntimeError>;

    /// Addresses of a sandbox with a network of its own, the first one first; `None` when it uses the host's.
    async fn pod_sandbox_ips(&self, _id: &SandboxId) -> Result<Option<Vec<IpAddr>>, RuntimeError> {
        Ok(None)
    }

    /// Stops everything in a sandbox.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Removes a stopped sandbox and its containers. Their log files stay.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Sandboxes, running or not: all, or those that have a label with this value.
    async fn list_pod_sandboxes(&self, label: Option<(&str, &str)>) -> Result<Vec<PodSandbox>, RuntimeError>;

    /// Creates a container without starting it.
    ///
    /// # Errors
    /// [`RuntimeError::CreateContainer`] when its configuration cannot be run here.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError>;

    /// Starts a created container.
    ///
    /// # Errors
    /// [`RuntimeError::StartContainer`] when its program cannot be started (no such file, not executable); the container
    /// is then exited with code 128 and reason `StartError`.
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Asks the container to end (SIGTERM), waits for `grace`, then kills it. Returns when it has ended.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes an ended container. Its log files stay.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Containers in any state: all, or those that have a label with this value.
    async fn list_containers(&self, label: Option<(&str, &str)>) -> Result<Vec<Container>, RuntimeError>;

    /// The whole truth about one container.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when it does not exist.
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError>;

    /// The process id of a container's first process, on this machine; `None` when it does not run, or the runtime does not
    /// tell.
    async fn container_process(&self, _id: &ContainerId) -> Result<Option<i32>, RuntimeError> {
        Ok(None)
    }

    /// Makes the runtime open the container's log file anew after it was renamed.
    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Runs a command in a running container and returns its output and exit code (probes, hooks). A zero `timeout` is
    /// none.
    ///
    /// # Errors
    /// [`RuntimeError::ExecTimeout`] when it took longer; it has been killed then.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError>;

    /// Prepares a command to be run in a running container by whoever comes to the URL, with these streams.
    async fn exec(
        &self,
        _id: &ContainerId,
        _command: &[String],
        _streams: Streams,
    ) -> Result<StreamUrl, RuntimeError> {
        Err(unoffered("Exec"))
    }

    /// Prepares the streams of a running container's first process for whoever comes to the URL.
    async fn attach(&self, _id: &ContainerId, _streams: Streams) -> Result<StreamUrl, RuntimeError> {
        Err(unoffered("Attach"))
    }

    /// Prepares connections to ports of a pod for whoever comes to the URL. `ports` is what WebSockets are for; with SPDY each
    /// stream names its own.
    async fn port_forward(&self, _id: &SandboxId, _ports: &[u16]) -> Result<StreamUrl, RuntimeError> {
        Err(unoffered("PortForward"))
    }

    /// Events from now on. A hint, not the truth: a receiver that falls behind loses events and lists anew.
    fn events(&self) -> mpsc::Receiver<ContainerEvent>;
}

fn unoffered(call: &str) -> RuntimeError {
    RuntimeError::Rpc { code: "Unimplemented", message: format!("{call} is not offered by this runtime") }
}
