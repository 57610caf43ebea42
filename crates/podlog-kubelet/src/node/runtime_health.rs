//! Whether the container runtime is well enough for the node to be ready (`updateRuntimeUp` of `pkg/kubelet/kubelet.go`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::runtime::{ContainerRuntime, RuntimeCondition};

/// A runtime that has not answered for so long is down.
const PATIENCE: Duration = Duration::from_secs(30);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What is known about the runtime.
pub(super) struct RuntimeHealth {
    runtime: Arc<dyn ContainerRuntime>,
    patience: Duration,
    /// When it answered last that it is well; at first when it was asked first.
    well: Instant,
    /// What it said last, if that was not good.
    complaint: Option<String>,
}

impl RuntimeHealth {
    /// `look` is how often it is asked.
    pub(super) fn new(runtime: Arc<dyn ContainerRuntime>, look: Duration) -> Self {
        RuntimeHealth { runtime, patience: PATIENCE.min(look * 3), well: Instant::now(), complaint: None }
    }

    /// Asks; what keeps the node from being ready, in upstream's words.
    pub(super) async fn complaint(&mut self) -> Option<String> {
        match timeout(ANSWER, self.runtime.conditions()).await {
            Ok(Ok(conditions)) => {
                self.complaint = not_ready(&conditions);
                if self.complaint.is_none() {
                    self.well = Instant::now();
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot ask the container runtime how it is"),
            Err(_) => tracing::warn!("the container runtime does not say how it is"),
        }
        if self.complaint.is_some() {
            return self.complaint.clone();
        }
        (self.well.elapsed() >= self.patience).then(|| "container runtime is down".to_owned())
    }
}

/// A pod network that is missing is no reason here: pods in the host's network run, and others say what is missing.
fn not_ready(conditions: &[RuntimeCondition]) -> Option<String> {
    let ready = conditions.iter().find(|condition| condition.kind == "RuntimeReady");
    let ready = ready.filter(|condition| !condition.is_true)?;
    let RuntimeCondition { kind, reason, message, .. } = ready;
    Some(format!("container runtime not ready: {kind}=false reason:{reason} message:{message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_runtime_itself_counts() {
        let condition = |kind: &str, is_true| RuntimeCondition {
            kind: kind.into(),
            is_true,
            reason: "R".into(),
            message: "m".into(),
        };
        let text = "container runtime not ready: RuntimeReady=false reason:R message:m";
        for (conditions, expected) in [
            (vec![], None),
            (vec![condition("RuntimeReady", true), condition("NetworkReady", false)], None),
            (vec![condition("NetworkReady", true), condition("RuntimeReady", false)], Some(text.to_owned())),
        ] {
            assert_eq!(not_ready(&conditions), expected);
        }
    }
}
