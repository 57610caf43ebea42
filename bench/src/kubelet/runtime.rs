//! A container runtime with nothing in it but a log that was there before.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use podlog_kubelet::runtime::*;
use tokio::sync::mpsc;

/// Whatever is made in it runs for ever, and its log is the one file.
pub(super) struct OneContainer {
    log: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sandbox: Option<PodSandbox>,
    container: Option<ContainerStatus>,
}

impl OneContainer {
    pub(super) fn new(log: PathBuf) -> Self {
        OneContainer { log, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn gone(id: &str) -> RuntimeError {
    RuntimeError::NotFound { what: "container", id: id.to_owned() }
}

#[async_trait]
impl ContainerRuntime for OneContainer {
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        Ok(RuntimeVersion { name: "bench".into(), version: "1".into() })
    }

    async fn image_status(&self, _: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(None)
    }

    async fn pull_image(&self, image: &str, _: Option<&RegistryAuth>) -> Result<String, RuntimeError> {
        Ok(image.to_owned())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId("sandbox".into());
        self.state().sandbox = Some(PodSandbox {
            id: id.clone(),
            config: config.clone(),
            state: SandboxState::Ready,
            created_at: Timestamp::now(),
        });
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, _: &SandboxId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_pod_sandbox(&self, _: &SandboxId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn list_pod_sandboxes(&self, _: Option<(&str, &str)>) -> Result<Vec<PodSandbox>, RuntimeError> {
        Ok(self.state().sandbox.iter().cloned().collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let id = ContainerId("container".into());
        self.state().container = Some(ContainerStatus {
            container: Container {
                id: id.clone(),
                sandbox: sandbox.clone(),
                name: config.name.clone(),
                attempt: config.attempt,
                state: ContainerState::Created,
                created_at: Timestamp::now(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            },
            image: config.image.clone(),
            image_name: String::new(),
            user: None,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            log_path: self.log.clone(),
        });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut state = self.state();
        let status = state.container.as_mut().ok_or_else(|| gone(&id.0))?;
        status.container.state = ContainerState::Running;
        status.started_at = Some(Timestamp::now());
        Ok(())
    }

    async fn stop_container(&self, _: &ContainerId, _: Duration) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_container(&self, _: &ContainerId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn list_containers(&self, _: Option<(&str, &str)>) -> Result<Vec<Container>, RuntimeError> {
        Ok(self.state().container.iter().map(|status| status.container.clone()).collect())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        self.state().container.clone().ok_or_else(|| gone(&id.0))
    }

    async fn reopen_container_log(&self, _: &ContainerId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        _: &[String],
        _: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        Err(gone(&id.0))
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        // Nothing ever happens.
        mpsc::channel(1).1
    }
}
