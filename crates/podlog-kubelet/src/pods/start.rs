//! Starting: volumes, sandbox, image, container, postStart hook, one after the other.
//!
//! Follows `startContainer` of `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::container_config;
use super::context::Context;
use super::hooks;
use super::ignored;
use super::image;
use super::kill::{Kill, kill, kill_failure};
use super::spec::{PodId, find_container, is_in_host_network, target_of};
use super::view::PodView;
use crate::events::Level;
use crate::go;
use crate::layout::Layout;
use crate::runtime::{
    ContainerConfig, ContainerId, ContainerState, RuntimeCondition, RuntimeError, SandboxId,
};
use crate::volumes::{PodVolumes, Sources, VolumePaths};

/// Containers whose postStart hook still runs.
pub(super) type Hooked = Arc<Mutex<HashSet<ContainerId>>>;

/// One round of starting.
pub(super) struct Start {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) view: PodView,
    pub(super) volumes: Arc<tokio::sync::Mutex<PodVolumes>>,
    pub(super) hooked: Hooked,
    /// The pod is to end: start nothing more.
    pub(super) cancel: CancellationToken,
}

/// Why a container could not be started: the reason and message of its waiting state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What became of a round of starting.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Each container that was tried.
    Containers(Vec<(String, Result<(), Failure>)>),
    /// The sandbox is there.
    Sandbox,
    /// Volumes or sandbox could not be had.
    PodFailed,
}

impl Start {
    /// Makes the volumes and a sandbox.
    pub(super) async fn sandbox(self, attempt: u32) -> Outcome {
        let is_prepared =
            self.has_network().await && self.volumes().await.is_some() && self.old_sandboxes_stop().await;
        if !is_prepared {
            return Outcome::PodFailed;
        }
        let config = container_config::sandbox(&self.pod, &self.context.layout, attempt);
        match self.context.runtime.run_pod_sandbox(&config).await {
            Ok(_) => {
                self.warn_of_ignored_fields(attempt);
                Outcome::Sandbox
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {}", full(&error));
                self.context.events.pod(&self.pod, Level::Warning, "FailedCreatePodSandBox", message);
                Outcome::PodFailed
            }
        }
    }

    /// Whether the pod can have the network that it wants; else an event says why not. A runtime asked for one that it cannot make
    /// may keep half of it.
    async fn has_network(&self) -> bool {
        if is_in_host_network(&self.pod) {
            return true;
        }
        // What cannot be asked how it is says what is wrong when it is to make a sandbox.
        let conditions = self.context.runtime.conditions().await.unwrap_or_default();
        let mut missing =
            conditions.iter().filter(|condition| condition.kind == "NetworkReady" && !condition.is_true);
        let Some(condition) = missing.next() else { return true };
        let RuntimeCondition { kind, reason, message, .. } = condition;
        let text = format!(
            "network is not ready: container runtime network not ready: {kind}=false reason:{reason} message:{message}"
        );
        self.context.events.pod(&self.pod, Level::Warning, "NetworkNotReady", text);
        false
    }

    /// Stops what is left of earlier sandboxes, so that no pod has more of them than one; says in an event why that fails.
    async fn old_sandboxes_stop(&self) -> bool {
        for sandbox in &self.view.sandboxes {
            if let Err(error) = self.context.runtime.stop_pod_sandbox(&sandbox.id).await {
                let message = kill_failure("KillPodSandbox", &PodId::of(&self.pod).uid, &full(&error));
                self.context.events.pod(&self.pod, Level::Warning, "FailedKillPod", message);
                return false;
            }
        }
        true
    }

    /// Once a pod: with its first sandbox.
    fn warn_of_ignored_fields(&self, attempt: u32) {
        if attempt == 0
            && let Some(message) = ignored::warning(&self.pod, self.context.runtime.images())
        {
            self.context.events.pod(&self.pod, Level::Warning, "FieldsIgnored", message);
        }
    }

    /// Starts containers in their order.
    pub(super) async fn containers(self, sandbox: SandboxId, names: Vec<String>) -> Outcome {
        let Some(volumes) = self.volumes().await else { return Outcome::PodFailed };
        let mut results = Vec::new();
        for name in names {
            if self.cancel.is_cancelled() {
                break;
            }
            let Some((container, _)) = find_container(&self.pod, &name) else { continue };
            let result = self.container(&sandbox, &container, &volumes).await;
            results.push((name, result));
        }
        Outcome::Containers(results)
    }

    /// Makes the volumes; says in an event why that fails.
    async fn volumes(&self) -> Option<VolumePaths> {
        let sources = Sources {
            pod: &self.pod,
            node: &self.context.node,
            objects: &*self.context.objects,
            now: jiff::Timestamp::now(),
        };
        match self.volumes.lock().await.set_up(&sources).await {
            Ok(paths) => Some(paths),
            Err((volume, error)) => {
                let volume = go::quote(&volume);
                let message = format!("MountVolume.SetUp failed for volume {volume} : {}", error.full());
                self.context.events.pod(&self.pod, Level::Warning, "FailedMount", message);
                None
            }
        }
    }

    async fn container(
        &self,
        sandbox: &SandboxId,
        container: &Container,
        volumes: &VolumePaths,
    ) -> Result<(), Failure> {
        let image = image::ensure(&self.context, &self.pod, container).await?;
        let attempt = self.attempt(container);
        let config =
            container_config::container(&self.context, &self.pod, container, attempt, image, volumes)
                .await
                .map_err(|message| self.fail(container, "CreateContainerConfigError", message))?;
        let config = ContainerConfig { target: self.target(&container.name), ..config };
        let id = PodId::of(&self.pod);
        self.context.layout.create_container_logs(&id, &container.name).map_err(|error| {
            let message =
                format!("create container log directory for container {} failed: {error}", container.name);
            self.fail(container, "CreateContainerConfigError", message)
        })?;
        let (retained, pod) = (self.context.retained.clone(), self.pod.clone());
        if let Err(error) = tokio::task::spawn_blocking(move || retained.begin(&pod)).await {
            tracing::error!(pod = %id, %error, "writing down whose a log is failed");
        }
        let runtime = &self.context.runtime;
        let created = runtime.create_container(sandbox, &config).await;
        let instance = created.map_err(|error| self.fail(container, "CreateContainerError", full(&error)))?;
        self.event(container, Level::Normal, "Created", "Container created");
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        if hook.is_some() {
            self.hooked.lock().insert(instance.clone());
        }
        let started = runtime.start_container(&instance).await;
        if let Err(error) = started {
            self.hooked.lock().remove(&instance);
            return Err(self.fail(container, "RunContainerError", full(&error)));
        }
        self.event(container, Level::Normal, "Started", "Container started");
        let log = self.context.layout.pod_logs(&id).join(Layout::log_path(&container.name, attempt));
        self.context.layout.link(&id, &container.name, &instance, &log);
        match hook {
            Some(hook) => self.post_start(container, &instance, hook).await,
            None => Ok(()),
        }
    }

    async fn post_start(
        &self,
        container: &Container,
        instance: &ContainerId,
        hook: &k8s_openapi::api::core::v1::LifecycleHandler,
    ) -> Result<(), Failure> {
        let running = hooks::run(&self.context, &self.pod, container, instance, hook, Duration::MAX);
        let result = self.cancel.run_until_cancelled(running).await.unwrap_or(Ok(()));
        self.hooked.lock().remove(instance);
        let Err(message) = result else { return Ok(()) };
        tracing::warn!(pod = %PodId::of(&self.pod), container = container.name, message, "postStart hook failed");
        self.event(container, Level::Warning, "FailedPostStartHook", "PostStartHook failed");
        let why = "FailedPostStartHook".to_owned();
        let killed = kill(&self.context, &Kill::new(&self.pod, container, instance.clone(), why)).await;
        if let Err(error) = killed {
            tracing::warn!(pod = %PodId::of(&self.pod), container = container.name, error = full(&error),
                "cannot stop a container whose postStart hook failed");
        }
        Err(Failure { reason: "PostStartHookError", message })
    }

    /// The instance whose processes an ephemeral container is to see.
    fn target(&self, name: &str) -> Option<ContainerId> {
        let target = self.view.newest(target_of(&self.pod, name)?)?;
        (target.container.state == ContainerState::Running).then(|| target.container.id.clone())
    }

    /// Restart count of the next instance.
    fn attempt(&self, container: &Container) -> u32 {
        match self.view.newest(&container.name) {
            Some(status) => status.container.attempt.saturating_add(1),
            None => self.context.layout.next_attempt(&PodId::of(&self.pod), &container.name),
        }
    }

    fn fail(&self, container: &Container, reason: &'static str, message: String) -> Failure {
        self.event(container, Level::Warning, "Failed", format!("Error: {message}"));
        Failure { reason, message }
    }

    fn event(&self, container: &Container, level: Level, reason: &'static str, message: impl Into<String>) {
        self.context.events.container(&self.pod, &container.name, level, reason, message);
    }
}

/// A runtime's error with its causes on one line.
pub(crate) fn full(error: &RuntimeError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
