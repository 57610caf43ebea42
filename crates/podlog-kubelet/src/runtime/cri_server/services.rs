//! The calls: from CRI's to those of the seam.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use jiff::Timestamp;
use podlog_proto::cri;
use podlog_proto::cri::image_service_server::ImageService;
use podlog_proto::cri::runtime_service_server::RuntimeService;
use serde_json::json;
use tonic::{Request, Response, Status};

use super::words;
use crate::runtime::{
    Container, ContainerId, ContainerRuntime, ContainerStatus, PodSandbox, RuntimeError, SandboxId, Streams,
};

type Answer<T> = Result<Response<T>, Status>;

/// Both services of a runtime. Cheap to clone.
#[derive(Clone)]
pub(super) struct Services {
    runtime: Arc<dyn ContainerRuntime>,
    pod_ip: IpAddr,
    root: PathBuf,
}

impl Services {
    pub(super) fn new(runtime: Arc<dyn ContainerRuntime>, pod_ip: IpAddr, root: PathBuf) -> Self {
        Services { runtime, pod_ip, root }
    }

    async fn sandbox(&self, id: &str) -> Result<PodSandbox, Status> {
        let all = self.runtime.list_pod_sandboxes(None).await.map_err(|error| words::refusal(&error))?;
        let found = all.into_iter().find(|sandbox| sandbox.id.0 == id);
        found.ok_or_else(|| Status::not_found(format!("sandbox {id:?} not found")))
    }

    async fn status_of(&self, id: &ContainerId) -> Result<ContainerStatus, Status> {
        self.runtime.container_status(id).await.map_err(|error| words::refusal(&error))
    }

    /// A container as listed; `None` when it has gone meanwhile.
    async fn listed(&self, container: Container) -> Option<cri::Container> {
        let status = self.runtime.container_status(&container.id).await.ok()?;
        Some(words::container(container, status.image))
    }
}

impl Services {
    /// What running containers use.
    async fn stats(&self, filter: &cri::ContainerStatsFilter) -> Result<Vec<cri::ContainerStats>, Status> {
        let mut containers: HashMap<_, _> = done(self.runtime.list_containers(None).await)?
            .into_iter()
            .filter(|container| words::stats_match(filter, container))
            .map(|container| (container.id.clone(), container))
            .collect();
        let stats = done(self.runtime.container_stats().await)?.into_iter();
        Ok(stats
            .filter_map(|stats| Some(words::container_stats(containers.remove(&stats.id)?, stats)))
            .collect())
    }
}

fn done<T>(answer: Result<T, RuntimeError>) -> Result<T, Status> {
    answer.map_err(|error| words::refusal(&error))
}

fn unoffered<T>(what: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("the process runtime has no {what}")))
}

/// CRI's whole seconds; what is below zero is none.
fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

#[tonic::async_trait]
impl RuntimeService for Services {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        let version = done(self.runtime.version().await)?;
        Ok(Response::new(cri::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: version.name,
            runtime_version: version.version,
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let config =
            request.into_inner().config.ok_or_else(|| Status::invalid_argument("no sandbox config"))?;
        let id = done(self.runtime.run_pod_sandbox(&words::sandbox_config(config)).await)?;
        Ok(Response::new(cri::RunPodSandboxResponse { pod_sandbox_id: id.0 }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        done(self.runtime.stop_pod_sandbox(&SandboxId(request.into_inner().pod_sandbox_id)).await)?;
        Ok(Response::new(cri::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        done(self.runtime.remove_pod_sandbox(&SandboxId(request.into_inner().pod_sandbox_id)).await)?;
        Ok(Response::new(cri::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let sandbox = self.sandbox(&request.into_inner().pod_sandbox_id).await?;
        let status = Some(words::sandbox_status(sandbox, self.pod_ip));
        Ok(Response::new(cri::PodSandboxStatusResponse { status, ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let all = done(self.runtime.list_pod_sandboxes(None).await)?;
        let items =
            all.into_iter().map(words::sandbox).filter(|sandbox| words::sandbox_matches(&filter, sandbox));
        Ok(Response::new(cri::ListPodSandboxResponse { items: items.collect() }))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let cri::CreateContainerRequest { pod_sandbox_id, config, .. } = request.into_inner();
        let config = config.ok_or_else(|| Status::invalid_argument("no container config"))?;
        let created =
            self.runtime.create_container(&SandboxId(pod_sandbox_id), &words::container_config(config)).await;
        Ok(Response::new(cri::CreateContainerResponse { container_id: done(created)?.0 }))
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        done(self.runtime.start_container(&ContainerId(request.into_inner().container_id)).await)?;
        Ok(Response::new(cri::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let cri::StopContainerRequest { container_id, timeout } = request.into_inner();
        done(self.runtime.stop_container(&ContainerId(container_id), seconds(timeout)).await)?;
        Ok(Response::new(cri::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        done(self.runtime.remove_container(&ContainerId(request.into_inner().container_id)).await)?;
        Ok(Response::new(cri::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut containers = Vec::new();
        for container in done(self.runtime.list_containers(None).await)? {
            if words::container_matches(&filter, &container) {
                containers.extend(self.listed(container).await);
            }
        }
        Ok(Response::new(cri::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let cri::ContainerStatusRequest { container_id, verbose } = request.into_inner();
        let id = ContainerId(container_id);
        let status = self.status_of(&id).await?;
        let mut info = HashMap::new();
        if verbose && let Ok(Some(pid)) = self.runtime.container_process(&id).await {
            // As containerd and CRI-O say it.
            info.insert("info".to_owned(), json!({ "pid": pid }).to_string());
        }
        Ok(Response::new(cri::ContainerStatusResponse {
            status: Some(words::container_status(status)),
            info,
        }))
    }

    async fn update_container_resources(
        &self,
        _: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        unoffered("limits of resources")
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        done(self.runtime.reopen_container_log(&ContainerId(request.into_inner().container_id)).await)?;
        Ok(Response::new(cri::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let cri::ExecSyncRequest { container_id, cmd, timeout } = request.into_inner();
        let result = done(self.runtime.exec_sync(&ContainerId(container_id), &cmd, seconds(timeout)).await)?;
        Ok(Response::new(cri::ExecSyncResponse {
            stdout: result.stdout.into(),
            stderr: result.stderr.into(),
            exit_code: result.exit_code,
        }))
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request.into_inner();
        let streams = words::streams(&container_id, Streams { stdin, stdout, stderr, tty })?;
        let url = done(self.runtime.exec(&ContainerId(container_id), &cmd, streams).await)?;
        Ok(Response::new(cri::ExecResponse { url: url.to_string() }))
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let cri::AttachRequest { container_id, stdin, tty, stdout, stderr } = request.into_inner();
        let streams = words::streams(&container_id, Streams { stdin, stdout, stderr, tty })?;
        let url = done(self.runtime.attach(&ContainerId(container_id), streams).await)?;
        Ok(Response::new(cri::AttachResponse { url: url.to_string() }))
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        let cri::PortForwardRequest { pod_sandbox_id, port } = request.into_inner();
        let ports: Result<Vec<u16>, _> = port.into_iter().map(u16::try_from).collect();
        let ports = ports.map_err(|_| Status::invalid_argument("there is no such port"))?;
        let url = done(self.runtime.port_forward(&SandboxId(pod_sandbox_id), &ports).await)?;
        Ok(Response::new(cri::PortForwardResponse { url: url.to_string() }))
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let id = request.into_inner().container_id;
        let filter = cri::ContainerStatsFilter { id: id.clone(), ..Default::default() };
        let stats = self.stats(&filter).await?.pop();
        let stats = stats.ok_or_else(|| Status::not_found(format!("container {id:?} not found")))?;
        Ok(Response::new(cri::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let stats = self.stats(&request.into_inner().filter.unwrap_or_default()).await?;
        Ok(Response::new(cri::ListContainerStatsResponse { stats }))
    }

    /// Tells the pods' network range, which is of no interest: pods use the host's.
    async fn update_runtime_config(
        &self,
        _: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, _: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let ready = |kind: &str| cri::RuntimeCondition {
            r#type: kind.to_owned(),
            status: true,
            ..Default::default()
        };
        let status = cri::RuntimeStatus { conditions: vec![ready("RuntimeReady"), ready("NetworkReady")] };
        Ok(Response::new(cri::StatusResponse { status: Some(status), ..Default::default() }))
    }

    type GetContainerEventsStream =
        Pin<Box<dyn Stream<Item = Result<cri::ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let events = stream::unfold(self.runtime.events(), |mut events| async move {
            let event = events.recv().await?;
            Some((Ok(words::event(event, Timestamp::now())), events))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: cri::CgroupDriver::Cgroupfs.into() };
        Ok(Response::new(cri::RuntimeConfigResponse { linux: Some(linux) }))
    }
}

/// Images are names: each of them is there, and none takes room.
#[tonic::async_trait]
impl ImageService for Services {
    async fn list_images(&self, request: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        let asked = request.into_inner().filter.and_then(|filter| filter.image);
        let images = asked.into_iter().map(|spec| words::image(spec.image)).collect();
        Ok(Response::new(cri::ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Answer<cri::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let found = done(self.runtime.image_status(&name).await)?;
        let image = found.map(|image| words::image(image.reference));
        Ok(Response::new(cri::ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, request: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let image_ref = done(self.runtime.pull_image(&name, None).await)?;
        Ok(Response::new(cri::PullImageResponse { image_ref }))
    }

    async fn remove_image(&self, _: Request<cri::RemoveImageRequest>) -> Answer<cri::RemoveImageResponse> {
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<cri::ImageFsInfoRequest>) -> Answer<cri::ImageFsInfoResponse> {
        let usage = words::no_usage(&self.root, Timestamp::now());
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}
