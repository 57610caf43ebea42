//! A pod's conditions: `PodReadyToStartContainers`, `Initialized`, `Ready`, `ContainersReady`, `PodScheduled`.
//!
//! Reasons and messages as `pkg/kubelet/status/generate.go`.

use k8s_openapi::api::core::v1::{ContainerStatus as ApiStatus, PodCondition, PodStatus};

use super::ending::TERMINATION_BY_KUBELET;
use super::spec::{self, Role};
use super::status::Report;
use crate::go;

/// All conditions that the kubelet owns, without transition times.
pub(super) fn all(report: &Report<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let containers_ready = containers_ready(report, status, phase);
    vec![
        condition("PodReadyToStartContainers", report.view.ready_sandbox().is_some()),
        initialized(report, status, phase),
        ready(report, &containers_ready),
        containers_ready,
        condition("PodScheduled", true),
    ]
}

/// What the kubelet alone says.
const OURS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Whether it is for the kubelet to say a condition of that type and reason: its own, and that it has ended the pod for the sake
/// of others.
pub(super) fn is_ours(kind: &str, reason: Option<&str>) -> bool {
    OURS.contains(&kind) || (kind == "DisruptionTarget" && reason == Some(TERMINATION_BY_KUBELET))
}

fn condition(kind: &str, is_true: bool) -> PodCondition {
    let status = if is_true { "True" } else { "False" };
    PodCondition { type_: kind.into(), status: status.into(), ..PodCondition::default() }
}

fn refused(kind: &str, reason: &str, message: String) -> PodCondition {
    let message = (!message.is_empty()).then_some(message);
    PodCondition { reason: Some(reason.into()), message, ..condition(kind, false) }
}

/// Whether a regular container runs or has run.
pub(super) fn any_started(regular: &[ApiStatus]) -> bool {
    regular.iter().any(|status| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
    })
}

fn initialized(report: &Report<'_>, status: &PodStatus, phase: &str) -> PodCondition {
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let incomplete: Vec<&str> = spec::init_containers(report.pod)
        .zip(init)
        .filter(|((_, role), status)| match role {
            Role::Sidecar => status.started != Some(true),
            _ => !status.ready,
        })
        .map(|((container, _), _)| container.name.as_str())
        .collect();
    if phase == "Succeeded" {
        return PodCondition { reason: Some("PodCompleted".into()), ..condition("Initialized", true) };
    }
    if incomplete.is_empty() || any_started(status.container_statuses.as_deref().unwrap_or_default()) {
        return condition("Initialized", true);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    refused("Initialized", "ContainersNotInitialized", message)
}

fn containers_ready(report: &Report<'_>, status: &PodStatus, phase: &str) -> PodCondition {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => return refused(kind, "PodCompleted", String::new()),
        "Failed" => return refused(kind, "PodFailed", String::new()),
        _ => {}
    }
    let find = |statuses: &Option<Vec<ApiStatus>>, name: &str| {
        statuses.iter().flatten().any(|status| status.name == name && status.ready)
    };
    let unready: Vec<&str> = spec::all_containers(report.pod)
        .filter(|(container, role)| match role {
            Role::Init | Role::Ephemeral => false,
            Role::Sidecar => !find(&status.init_container_statuses, &container.name),
            Role::Regular => !find(&status.container_statuses, &container.name),
        })
        .map(|(container, _)| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return condition(kind, true);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    refused(kind, "ContainersNotReady", message)
}

fn ready(report: &Report<'_>, containers_ready: &PodCondition) -> PodCondition {
    if containers_ready.status != "True" {
        return PodCondition { type_: "Ready".into(), ..containers_ready.clone() };
    }
    let messages = closed_gates(report);
    if messages.is_empty() {
        return condition("Ready", true);
    }
    refused("Ready", "ReadinessGatesNotReady", messages.join(", "))
}

fn closed_gates(report: &Report<'_>) -> Vec<String> {
    let gates = report.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref());
    let known = report.pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let mut messages = Vec::new();
    for gate in gates.unwrap_or_default() {
        let kind = &gate.condition_type;
        match known.unwrap_or_default().iter().find(|condition| condition.type_ == *kind) {
            None => messages.push(format!(
                "corresponding condition of pod readiness gate {} does not exist.",
                go::quote(kind)
            )),
            Some(condition) if condition.status != "True" => messages.push(format!(
                "the status of pod readiness gate {} is not \"True\", but {}",
                go::quote(kind),
                condition.status
            )),
            Some(_) => {}
        }
    }
    messages
}
