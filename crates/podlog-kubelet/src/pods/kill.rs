//! Ending a container: preStop hook, SIGTERM, grace period, SIGKILL.
//!
//! Follows `killContainer` of `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::context::Context;
use super::hooks;
use super::spec::{self, PodId};
use crate::events::Level;
use crate::go;
use crate::runtime::{ContainerId, RuntimeError};

/// What a container gets at least to end by itself, whatever its hook used up.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);

/// Which container to end, and why.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub(super) pod: Pod,
    pub(super) container: Container,
    pub(super) id: ContainerId,
    /// The text of the `Killing` event; none for a container of which it was said before: its hook has run, too.
    pub(super) message: Option<String>,
    pub(super) grace: Duration,
}

impl Kill {
    /// With the grace period that the pod asks for.
    pub(super) fn new(pod: &Pod, container: &Container, id: ContainerId, message: String) -> Self {
        let grace = spec::grace_period(pod);
        Kill { pod: pod.clone(), container: container.clone(), id, message: Some(message), grace }
    }
}

/// Ends the container; returns when it has ended.
///
/// # Errors
/// When the runtime cannot end it now.
pub(super) async fn kill(context: &Context, kill: &Kill) -> Result<(), RuntimeError> {
    let mut left = kill.grace;
    if let Some(message) = &kill.message {
        let name = &kill.container.name;
        context.events.container(&kill.pod, name, Level::Normal, "Killing", message.clone());
        left = left.saturating_sub(pre_stop(context, kill).await).max(SHORTEST_GRACE.min(left));
    }
    context.runtime.stop_container(&kill.id, left).await
}

/// The text of a `FailedKillPod` event, in the words of `SyncResult.Error` of `pkg/kubelet/container`.
pub(super) fn kill_failure(action: &str, target: &str, error: &str) -> String {
    let [quoted, target, error] = [action, target, error].map(go::quote);
    format!("error killing pod: failed to {quoted} for {target} with {action}Error: {error}")
}

/// Runs the container's hook, if it has one. Returns how long that took.
async fn pre_stop(context: &Context, kill: &Kill) -> Duration {
    let hook = kill.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let Some(hook) = hook else { return Duration::ZERO };
    let begun = Instant::now();
    if let Err(message) = hooks::run(context, &kill.pod, &kill.container, &kill.id, hook, kill.grace).await {
        let (pod, name) = (PodId::of(&kill.pod), &kill.container.name);
        tracing::warn!(%pod, container = name, message, "preStop hook failed");
        context.events.container(&kill.pod, name, Level::Warning, "FailedPreStopHook", "PreStopHook failed");
    }
    begun.elapsed()
}
