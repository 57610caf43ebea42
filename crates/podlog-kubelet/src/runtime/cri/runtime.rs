//! The runtime behind the seam.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use podlog_container::ProcessIdentity;
use podlog_proto::cri;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Client, within};
use super::error::Failure;
use super::events::{self, Events};
use super::{Endpoint, containers, images, process, sandboxes};
use crate::runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerId, ContainerRuntime, ContainerState,
    ContainerStats, ContainerStatus, ExecResult, Image, Images, ListedImage, LogRotation, PodSandbox,
    PodSandboxConfig, RegistryAuth, RuntimeCondition, RuntimeError, RuntimeVersion, SandboxId, StreamUrl,
    Streams,
};

/// The runtime that writes log files itself. With CRI-O each container has a process of its own for that.
const WRITES_LOGS: &str = "containerd";
/// Time for a call that only asks or removes, and for one that starts something (`runtimeRequestTimeout`).
pub(super) const CALL: Duration = Duration::from_secs(120);
/// Time for an image: upstream gives up when there is no progress for a minute, which CRI does not tell.
const PULL: Duration = Duration::from_secs(3600);
/// How long the end of a command may be later than its own limit.
const EXEC_SLACK: Duration = Duration::from_secs(5);
/// What a command without a limit gets.
const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 3600);

/// A runtime that speaks CRI v1. Container ids are `<its name>://<its id>`.
pub struct CriRuntime {
    endpoint: Endpoint,
    client: Client,
    /// For rotation alone, which has a thread of its own: a connection is worked on where it was first used.
    rotation_client: OnceLock<Client>,
    events: Events,
    /// In which sandbox a container is: its status does not say.
    homes: Mutex<HashMap<ContainerId, SandboxId>>,
    _guard: DropGuard,
}

impl CriRuntime {
    /// A runtime that may be reached now or later. Must be called within a tokio runtime.
    pub fn open(endpoint: &Endpoint) -> Arc<Self> {
        let client = Client::new(endpoint);
        let events = Events::default();
        let shutdown = CancellationToken::new();
        tokio::spawn(events::watch(client.clone(), events.clone(), shutdown.clone()));
        Arc::new(CriRuntime {
            endpoint: endpoint.clone(),
            client,
            rotation_client: OnceLock::new(),
            events,
            homes: Mutex::default(),
            _guard: shutdown.drop_guard(),
        })
    }

    async fn sandbox_status(&self, id: &SandboxId) -> Result<cri::PodSandboxStatus, RuntimeError> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.0.clone(), verbose: false };
        let answer = within(CALL, self.client.runtime().pod_sandbox_status(request)).await;
        let answer = answer.map_err(|failure| missing(failure, "sandbox", &id.0))?;
        answer.status.ok_or_else(|| not_found("sandbox", &id.0))
    }

    /// The image of sandboxes, where the runtime says it: containerd before 2.0 does not mark it among the others.
    async fn sandbox_image(&self) -> Result<Option<String>, RuntimeError> {
        let answer = within(CALL, self.client.runtime().status(cri::StatusRequest { verbose: true })).await?;
        Ok(answer.info.get("config").and_then(|config| images::sandbox_image(config)))
    }

    async fn home(&self, id: &ContainerId) -> Result<SandboxId, RuntimeError> {
        if let Some(home) = self.homes.lock().get(id) {
            return Ok(home.clone());
        }
        let filter = cri::ContainerFilter { id: id.0.clone(), ..Default::default() };
        let found = self.list(Some(filter)).await?.pop().ok_or_else(|| not_found("container", &id.0))?;
        Ok(found.sandbox)
    }

    async fn list(&self, filter: Option<cri::ContainerFilter>) -> Result<Vec<Container>, RuntimeError> {
        let is_complete = filter.is_none();
        let request = cri::ListContainersRequest { filter };
        let answer = within(CALL, self.client.runtime().list_containers(request)).await?;
        let found: Vec<_> = answer.containers.into_iter().map(containers::from_cri).collect();
        let mut homes = self.homes.lock();
        if is_complete {
            homes.clear();
        }
        homes.extend(found.iter().map(|container| (container.id.clone(), container.sandbox.clone())));
        Ok(found)
    }
}

fn not_found(what: &'static str, id: &str) -> RuntimeError {
    RuntimeError::NotFound { what, id: id.to_owned() }
}

fn missing(failure: Failure, what: &'static str, id: &str) -> RuntimeError {
    if failure.is_not_found() { not_found(what, id) } else { failure.into() }
}

/// The outcome of a call that may be repeated: what is gone is as wanted.
fn repeatable<T>(answer: Result<T, Failure>) -> Result<(), RuntimeError> {
    match answer {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_not_found() => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

fn stream_url(url: String) -> Result<StreamUrl, RuntimeError> {
    StreamUrl::parse(&url).map_err(RuntimeError::Unavailable)
}

/// Whole seconds, rounded up, as CRI counts them.
fn seconds(time: Duration) -> i64 {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn image_spec(image: &str) -> Option<cri::ImageSpec> {
    Some(cri::ImageSpec { image: image.to_owned(), ..Default::default() })
}

#[async_trait]
impl ContainerRuntime for CriRuntime {
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        let request = cri::VersionRequest { version: "0.1.0".to_owned() };
        let answer = within(CALL, self.client.runtime().version(request)).await?;
        Ok(RuntimeVersion { name: answer.runtime_name, version: answer.runtime_version })
    }

    async fn conditions(&self) -> Result<Vec<RuntimeCondition>, RuntimeError> {
        let answer = within(CALL, self.client.runtime().status(cri::StatusRequest::default())).await?;
        let conditions = answer.status.unwrap_or_default().conditions.into_iter();
        Ok(conditions
            .map(|condition| RuntimeCondition {
                kind: condition.r#type,
                is_true: condition.status,
                reason: condition.reason,
                message: condition.message,
            })
            .collect())
    }

    fn log_rotation(&self) -> LogRotation {
        LogRotation::ByKubelet
    }

    async fn log_writer(&self) -> Result<Option<watch::Receiver<Option<ProcessIdentity>>>, RuntimeError> {
        if self.version().await?.name != WRITES_LOGS {
            return Ok(None);
        }
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(process::follow(self.endpoint.clone(), sender));
        Ok(Some(receiver))
    }

    fn images(&self) -> Images {
        Images::Used
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        let request = cri::ImageStatusRequest { image: image_spec(image), verbose: false };
        let answer = within(CALL, self.client.images().image_status(request)).await?;
        Ok(answer.image.filter(|image| !image.id.is_empty()).map(|image| Image {
            reference: image.id,
            uid: image.uid.map(|uid| uid.value),
            username: image.username,
            bytes: image.size,
        }))
    }

    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<String, RuntimeError> {
        let auth = auth.map(|auth| cri::AuthConfig {
            username: auth.username.clone(),
            password: auth.password.clone(),
            auth: auth.auth.clone(),
            // Not told, as upstream: the credentials were chosen for this image, and containerd takes only URLs here.
            server_address: String::new(),
            identity_token: auth.identity_token.clone(),
            registry_token: auth.registry_token.clone(),
        });
        let request = cri::PullImageRequest { image: image_spec(image), auth, sandbox_config: None };
        let answer = within(PULL, self.client.images().pull_image(request)).await;
        match answer.map_err(RuntimeError::from) {
            Ok(answer) => Ok(answer.image_ref),
            Err(error @ RuntimeError::Rpc { .. }) => Err(RuntimeError::Image(error.to_string())),
            Err(error) => Err(error),
        }
    }

    async fn list_images(&self) -> Result<Vec<ListedImage>, RuntimeError> {
        let request = cri::ListImagesRequest::default();
        let answer = within(CALL, self.client.images().list_images(request)).await?;
        let own = self.sandbox_image().await?;
        let images = answer.images.into_iter().map(images::from_cri);
        Ok(images.map(|image| images::pinned_if_named(image, own.as_deref())).collect())
    }

    async fn remove_image(&self, id: &str) -> Result<(), RuntimeError> {
        let request = cri::RemoveImageRequest { image: image_spec(id) };
        repeatable(within(CALL, self.client.images().remove_image(request)).await)
    }

    async fn image_directory(&self) -> Result<Option<PathBuf>, RuntimeError> {
        let request = cri::ImageFsInfoRequest::default();
        let answer = within(CALL, self.client.images().image_fs_info(request)).await?;
        Ok(images::directory(answer))
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let request = cri::ListContainerStatsRequest::default();
        let answer = within(CALL, self.client.runtime().list_container_stats(request)).await?;
        Ok(answer.stats.into_iter().filter_map(containers::stats).collect())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId, RuntimeError> {
        let config = Some(sandboxes::to_cri(config));
        let request = cri::RunPodSandboxRequest { config, ..Default::default() };
        // Twice the time of other calls: an image for the sandbox may have to be fetched, and a network set up.
        let answer = within(CALL * 2, self.client.runtime().run_pod_sandbox(request)).await?;
        Ok(SandboxId(answer.pod_sandbox_id))
    }

    async fn pod_sandbox_ips(&self, id: &SandboxId) -> Result<Option<Vec<IpAddr>>, RuntimeError> {
        sandboxes::ips(&self.sandbox_status(id).await?)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.0.clone() };
        repeatable(within(CALL, self.client.runtime().stop_pod_sandbox(request)).await)
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.0.clone() };
        repeatable(within(CALL, self.client.runtime().remove_pod_sandbox(request)).await)
    }

    async fn list_pod_sandboxes(&self, label: Option<(&str, &str)>) -> Result<Vec<PodSandbox>, RuntimeError> {
        let filter = label.map(|(key, value)| cri::PodSandboxFilter {
            label_selector: [(key.to_owned(), value.to_owned())].into(),
            ..Default::default()
        });
        let request = cri::ListPodSandboxRequest { filter };
        let answer = within(CALL, self.client.runtime().list_pod_sandbox(request)).await?;
        Ok(answer.items.into_iter().map(sandboxes::from_cri).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let status = self.sandbox_status(sandbox).await?;
        let pod = sandboxes::config(status.metadata.unwrap_or_default(), status.labels, status.annotations);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(containers::to_cri(&pod, config)),
            sandbox_config: Some(sandboxes::to_cri(&pod)),
        };
        let created = within(CALL, self.client.runtime().create_container(request)).await;
        let id = match created {
            Ok(answer) => ContainerId(answer.container_id),
            Err(failure) => return Err(RuntimeError::CreateContainer(failure.into_message()?)),
        };
        self.homes.lock().insert(id.clone(), sandbox.clone());
        let created =
            ContainerEvent { id: id.clone(), sandbox: sandbox.clone(), state: ContainerState::Created };
        self.events.emit(&created);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = cri::StartContainerRequest { container_id: id.0.clone() };
        match within(CALL, self.client.runtime().start_container(request)).await {
            Ok(_) => {
                let sandbox = self.home(id).await?;
                self.events.emit(&ContainerEvent { id: id.clone(), sandbox, state: ContainerState::Running });
                Ok(())
            }
            Err(failure) => Err(RuntimeError::StartContainer(failure.into_message()?)),
        }
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let request = cri::StopContainerRequest { container_id: id.0.clone(), timeout: seconds(grace) };
        let limit = CALL.saturating_add(grace).min(UNLIMITED);
        repeatable(within(limit, self.client.runtime().stop_container(request)).await)
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = cri::RemoveContainerRequest { container_id: id.0.clone() };
        repeatable(within(CALL, self.client.runtime().remove_container(request)).await)?;
        self.homes.lock().remove(id);
        Ok(())
    }

    async fn list_containers(&self, label: Option<(&str, &str)>) -> Result<Vec<Container>, RuntimeError> {
        let filter = label.map(|(key, value)| cri::ContainerFilter {
            label_selector: [(key.to_owned(), value.to_owned())].into(),
            ..Default::default()
        });
        self.list(filter).await
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let home = self.home(id).await?;
        let request = cri::ContainerStatusRequest { container_id: id.0.clone(), verbose: false };
        let answer = within(CALL, self.client.runtime().container_status(request)).await;
        let answer = answer.map_err(|failure| missing(failure, "container", &id.0))?;
        let status = answer.status.ok_or_else(|| not_found("container", &id.0))?;
        Ok(containers::status(status, home))
    }

    async fn container_process(&self, id: &ContainerId) -> Result<Option<i32>, RuntimeError> {
        let request = cri::ContainerStatusRequest { container_id: id.0.clone(), verbose: true };
        let answer = within(CALL, self.client.runtime().container_status(request)).await;
        let answer = answer.map_err(|failure| missing(failure, "container", &id.0))?;
        Ok(containers::first_process(&answer))
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = cri::ReopenContainerLogRequest { container_id: id.0.clone() };
        let client = self.rotation_client.get_or_init(|| Client::new(&self.endpoint));
        let answer = within(CALL, client.runtime().reopen_container_log(request)).await;
        answer.map(drop).map_err(|failure| missing(failure, "container", &id.0))
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        let request = cri::ExecSyncRequest {
            container_id: id.0.clone(),
            cmd: command.to_owned(),
            timeout: seconds(timeout),
        };
        let limit =
            if timeout.is_zero() { UNLIMITED } else { timeout.saturating_add(EXEC_SLACK).min(UNLIMITED) };
        match within(limit, self.client.runtime().exec_sync(request)).await {
            Ok(answer) => Ok(ExecResult {
                exit_code: answer.exit_code,
                stdout: answer.stdout.into(),
                stderr: answer.stderr.into(),
            }),
            Err(failure) if failure.is_timeout() => {
                Err(RuntimeError::ExecTimeout { command: command.to_owned(), timeout })
            }
            Err(failure) => Err(missing(failure, "container", &id.0)),
        }
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        streams: Streams,
    ) -> Result<StreamUrl, RuntimeError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let (container_id, cmd) = (id.0.clone(), command.to_owned());
        let request = cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
        stream_url(within(CALL, self.client.runtime().exec(request)).await?.url)
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<StreamUrl, RuntimeError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let request = cri::AttachRequest { container_id: id.0.clone(), stdin, tty, stdout, stderr };
        stream_url(within(CALL, self.client.runtime().attach(request)).await?.url)
    }

    async fn port_forward(&self, id: &SandboxId, ports: &[u16]) -> Result<StreamUrl, RuntimeError> {
        let port = ports.iter().copied().map(i32::from).collect();
        let request = cri::PortForwardRequest { pod_sandbox_id: id.0.clone(), port };
        stream_url(within(CALL, self.client.runtime().port_forward(request)).await?.url)
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}
