//! The end of a pod, and of single containers.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use tokio::time::Instant;

use super::{LONGEST_BETWEEN_ATTEMPTS, Next, Worker};
use crate::events::Level;
use crate::pods::decide::{FailedProbe, Why};
use crate::pods::kill::{Kill, kill, kill_failure};
use crate::pods::retries::Retries;
use crate::pods::spec::{self, Role};
use crate::pods::start::full;
use crate::pods::view::PodView;
use crate::runtime::{ContainerId, RuntimeError, SandboxId, SandboxState};
use crate::volumes::remove_volumes;

/// How much shorter a new grace period must be to count.
const SLACK: Duration = Duration::from_secs(1);

impl Worker {
    /// Cleans up after a pod of which nothing runs any more.
    pub(super) async fn finish(&mut self, view: &PodView) -> Next {
        if !self.cleaned {
            let directory = self.context.layout.pod(&self.id.uid);
            let removed = tokio::task::spawn_blocking(move || remove_volumes(&directory)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(pod = %self.id, error = error.full(), "cannot remove the pod's volumes yet");
                return Next::Wait(self.end_later());
            }
            self.cleaned = true;
            // Once more, with the deletion that had to wait for the volumes.
            return Next::Wait(Instant::now());
        }
        if !self.removed {
            return Next::Wait(Instant::now() + self.context.config.sync_frequency);
        }
        if let Err(due) = self.remove_sandboxes(view).await {
            return Next::Wait(due);
        }
        let (context, id) = (self.context.clone(), self.id.clone());
        let remove = move || {
            context.layout.remove_pod(&id);
            context.retained.keep(&id);
        };
        let removed = tokio::task::spawn_blocking(remove).await;
        if let Err(error) = removed {
            tracing::error!(pod = %self.id, %error, "removal task failed");
        }
        self.context.statuses.forget(&self.id);
        Next::Done
    }

    /// Removes what is left of a pod that has ended. Sandboxes are stopped before, ended or not: a runtime may hold something for one
    /// that never came about.
    ///
    /// # Errors
    /// When to try again.
    async fn remove_sandboxes(&mut self, view: &PodView) -> Result<(), Instant> {
        if let Some(due) = self.ends.pending(Instant::now()) {
            return Err(due);
        }
        for sandbox in &view.sandboxes {
            self.stop_sandbox(&sandbox.id).await?;
            if let Err(error) = self.context.runtime.remove_pod_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %self.id, error = full(&error), "cannot remove the sandbox yet");
                return Err(self.end_later());
            }
        }
        self.ends.succeeded();
        Ok(())
    }

    /// Ends what runs: regular containers, then sidecars, then the sandbox. Called again and again until all is over.
    pub(super) async fn stop_pod(&mut self, view: &PodView) {
        self.cancel_start.cancel();
        let own = spec::grace_period(&self.pod);
        let grace = self.ending.as_ref().and_then(|ending| ending.grace).map_or(own, |most| own.min(most));
        let is_sidecar =
            |name: &str| spec::find_container(&self.pod, name).is_some_and(|(_, role)| role == Role::Sidecar);
        let (sidecars, others): (Vec<_>, Vec<_>) =
            view.alive().partition(|status| is_sidecar(&status.container.name));
        let turn = if others.is_empty() { sidecars } else { others };
        for status in &turn {
            self.stop_container(&status.container.id, &status.container.name, grace);
        }
        if !turn.is_empty() || self.starting.is_some() || !self.killing.is_empty() {
            return;
        }
        if self.ends.pending(Instant::now()).is_some() {
            return;
        }
        for sandbox in view.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready) {
            if self.stop_sandbox(&sandbox.id).await.is_err() {
                return;
            }
        }
        self.ends.succeeded();
        self.wake.notify_one();
    }

    /// # Errors
    /// When to try again.
    async fn stop_sandbox(&mut self, id: &SandboxId) -> Result<(), Instant> {
        let Err(error) = self.context.runtime.stop_pod_sandbox(id).await else { return Ok(()) };
        self.cannot_end("KillPodSandbox", &self.id.uid, &error);
        Err(self.end_later())
    }

    fn stop_container(&mut self, id: &ContainerId, name: &str, grace: Duration) {
        let again = match self.kills.get(id) {
            Some(deadline) if *deadline <= Instant::now() + grace + SLACK => return,
            Some(_) => true,
            None => false,
        };
        let known = spec::find_container(&self.pod, name).map(|(container, _)| container.into_owned());
        let container = known.unwrap_or_else(|| Container { name: name.to_owned(), ..Container::default() });
        let message = (!again).then(|| format!("Stopping container {name}"));
        self.spawn_kill(Kill { pod: (*self.pod).clone(), container, id: id.clone(), message, grace });
    }

    pub(super) fn kill_one(&mut self, id: &ContainerId, name: &str, why: Why) {
        let Some((container, _)) = spec::find_container(&self.pod, name) else { return };
        if self.kills.contains_key(id) {
            return;
        }
        let restarted = |again: bool| if again { ", will be restarted" } else { "" };
        let message = match why {
            Why::DefinitionChanged => format!("Container {name} definition changed{}", restarted(true)),
            Why::Probe(FailedProbe::Liveness, again) => {
                format!("Container {name} failed liveness probe{}", restarted(again))
            }
            Why::Probe(FailedProbe::Startup, again) => {
                format!("Container {name} failed startup probe{}", restarted(again))
            }
            Why::SandboxChanged => format!("Stopping container {name}"),
        };
        let mut kill = Kill::new(&self.pod, &container, id.clone(), message);
        let probe = match why {
            Why::Probe(FailedProbe::Liveness, _) => container.liveness_probe.as_ref(),
            Why::Probe(FailedProbe::Startup, _) => container.startup_probe.as_ref(),
            _ => None,
        };
        if let Some(seconds) = probe.and_then(|probe| probe.termination_grace_period_seconds) {
            kill.grace = Duration::from_secs(seconds.max(1).unsigned_abs());
        }
        self.spawn_kill(kill);
    }

    fn spawn_kill(&mut self, mut order: Kill) {
        if let Some(failed) = self.failed_kills.get(&order.id) {
            if failed.pending(Instant::now()).is_some() {
                return;
            }
            // It was said, and its hook has run.
            order.message = None;
        }
        self.kills.insert(order.id.clone(), Instant::now() + order.grace);
        let context = self.context.clone();
        self.killing.spawn(async move {
            let result = kill(&context, &order).await;
            (order, result)
        });
    }

    /// Takes in whether a container has ended.
    pub(super) fn killed(&mut self, order: &Kill, result: Result<(), RuntimeError>) {
        self.kills.remove(&order.id);
        let Err(error) = result else {
            self.failed_kills.remove(&order.id);
            return;
        };
        self.cannot_end("KillContainer", &order.container.name, &error);
        let retries = self.failed_kills.entry(order.id.clone());
        retries.or_insert(Retries::new(LONGEST_BETWEEN_ATTEMPTS)).failed(Instant::now());
    }

    /// Says that something of the pod cannot be ended.
    fn cannot_end(&self, action: &str, target: &str, error: &RuntimeError) {
        let error = full(error);
        tracing::warn!(pod = %self.id, action, target, error, "cannot end a part of the pod yet");
        if self.is_stopping() {
            let message = kill_failure(action, target, &error);
            self.context.events.pod(&self.pod, Level::Warning, "FailedKillPod", message);
        }
    }

    /// When to try again to end the pod, or to remove what it left.
    fn end_later(&mut self) -> Instant {
        let now = Instant::now();
        now + self.ends.failed(now)
    }
}
