//! The kubelet's own decision to end a pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::PodCondition;

/// Why a pod has to end, and how. Its status says so once nothing of it runs any more.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    /// `status.reason`.
    pub(crate) reason: &'static str,
    /// `status.message`.
    pub(crate) message: String,
    /// How long its containers get at most; `None` is what the pod asks for.
    pub(crate) grace: Option<Duration>,
    /// A condition that says whose doing it was.
    pub(crate) condition: Option<PodCondition>,
    /// It never started.
    pub(crate) is_refusal: bool,
}

impl Ending {
    /// With the pod's own grace period.
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Ending { reason, message: message.into(), grace: None, condition: None, is_refusal: false }
    }

    /// Of a pod that may not start.
    pub(crate) fn refused(reason: &'static str, why: &str) -> Self {
        Ending { is_refusal: true, ..Ending::new(reason, format!("Pod was rejected: {why}")) }
    }

    /// Of a pod that makes room for others.
    pub(crate) fn evicted(message: String, grace: Duration, is_for_others: bool) -> Self {
        let condition = is_for_others.then(|| PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some(TERMINATION_BY_KUBELET.into()),
            message: Some(message.clone()),
            ..PodCondition::default()
        });
        Ending { grace: Some(grace), condition, ..Ending::new(EVICTED, message) }
    }
}

/// The reason of pods that were evicted, or refused for the same cause.
pub(crate) const EVICTED: &str = "Evicted";

/// The reason of the condition that says that a pod made room for others.
pub(crate) const TERMINATION_BY_KUBELET: &str = "TerminationByKubelet";
