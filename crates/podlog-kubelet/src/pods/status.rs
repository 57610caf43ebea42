//! A pod's status from what there is: phase, conditions, addresses. Pure.
//!
//! Follows `pkg/kubelet/kubelet_pods.go` (`generateAPIPodStatus`, `getPhase`) and `pkg/kubelet/status/generate.go`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus as ApiStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::Health;
use super::ending::Ending;
use super::spec::{self, RestartPolicy, Role};
use super::view::PodView;
use super::{conditions, container_status};
use crate::runtime::{ContainerId, ContainerStatus};

/// Everything that a status depends on.
pub(crate) struct Report<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) view: &'a PodView,
    pub(crate) now: Timestamp,
    /// The status reported last.
    pub(crate) old: Option<&'a PodStatus>,
    pub(crate) health: &'a HashMap<ContainerId, Health>,
    /// Why containers do not run yet, by name: reason and message.
    pub(crate) reasons: &'a BTreeMap<String, (String, String)>,
    /// Termination messages of ended containers.
    pub(crate) messages: &'a HashMap<ContainerId, String>,
    /// `process`, `containerd`: the prefix of container ids.
    pub(crate) runtime: &'a str,
    pub(crate) node_ip: IpAddr,
    /// Nothing runs any more and nothing will.
    pub(crate) terminal: bool,
    /// The kubelet has decided to end the pod.
    pub(crate) ending: Option<&'a Ending>,
}

impl Report<'_> {
    /// `<runtime>://<id>`.
    pub(super) fn container_id(&self, status: &ContainerStatus) -> String {
        format!("{}://{}", self.runtime, status.container.id.0)
    }
}

/// Makes the status.
pub(crate) fn status(report: &Report<'_>) -> PodStatus {
    match report.ending {
        Some(ending) if ending.is_refusal => refused(report, ending),
        _ => full(report),
    }
}

/// Of a pod that never started: there is nothing to say about its containers (`rejectPod` of `pkg/kubelet/kubelet.go`).
fn refused(report: &Report<'_>, ending: &Ending) -> PodStatus {
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(ending.reason.to_owned()),
        message: Some(ending.message.clone()),
        start_time: start_time(report),
        qos_class: Some(qos_class(report)),
        observed_generation: report.pod.metadata.generation,
        conditions: report.old.and_then(|old| old.conditions.clone()),
        ..PodStatus::default()
    }
}

fn full(report: &Report<'_>) -> PodStatus {
    let init = container_status::init(report);
    let regular = container_status::regular(report);
    let phase = final_phase(report, phase(report, init.as_deref().unwrap_or_default(), &regular));
    let ips = pod_ips(report);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        init_container_statuses: init,
        container_statuses: Some(regular),
        ephemeral_container_statuses: container_status::ephemeral(report),
        start_time: start_time(report),
        host_ip: Some(report.node_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: report.node_ip.to_string() }]),
        pod_ip: ips.first().map(|first| first.ip.clone()),
        pod_ips: (!ips.is_empty()).then_some(ips),
        qos_class: Some(qos_class(report)),
        observed_generation: report.pod.metadata.generation,
        ..PodStatus::default()
    };
    if let Some(old) = report.old.filter(|_| spec::is_terminal(report.pod)) {
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    if let Some(ending) = report.ending.filter(|_| report.terminal) {
        status.reason = Some(ending.reason.to_owned());
        status.message = Some(ending.message.clone());
    }
    status.conditions = Some(all_conditions(report, &status));
    if report.terminal {
        let init = status.init_container_statuses.as_deref_mut().unwrap_or_default();
        container_status::conclude(init, status.container_statuses.as_deref_mut().unwrap_or_default());
    }
    status
}

/// The pod's addresses; those it had, when its sandbox has gone. In the host's network it has one from the first moment on.
fn pod_ips(report: &Report<'_>) -> Vec<PodIP> {
    let ips = match &report.view.ips {
        None => vec![report.node_ip],
        Some(ips) if ips.is_empty() && spec::is_in_host_network(report.pod) => vec![report.node_ip],
        Some(ips) if ips.is_empty() => {
            return report.old.and_then(|old| old.pod_ips.clone()).unwrap_or_default();
        }
        Some(ips) => ips.clone(),
    };
    ips.into_iter().map(|ip| PodIP { ip: ip.to_string() }).collect()
}

fn start_time(report: &Report<'_>) -> Option<Time> {
    report.old.and_then(|old| old.start_time.clone()).or(Some(Time(report.now)))
}

fn qos_class(report: &Report<'_>) -> String {
    let set = report.pod.status.as_ref().and_then(|status| status.qos_class.clone());
    set.unwrap_or_else(|| spec::qos_class(report.pod).to_owned())
}

/// A pod that has ended never comes back, and one that the kubelet ended has failed as soon as nothing of it runs.
fn final_phase(report: &Report<'_>, phase: &'static str) -> &'static str {
    let old = report.old.and_then(|old| old.phase.as_deref());
    match (report.ending, old) {
        (_, Some("Failed")) => "Failed",
        (_, Some("Succeeded")) => "Succeeded",
        (Some(_), _) if report.terminal => "Failed",
        (Some(_), Some("Pending") | None) => "Pending",
        (Some(_), _) => "Running",
        (None, _) => phase,
    }
}

#[derive(Default)]
struct Counts {
    pending_init: usize,
    failed_init: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

fn phase(report: &Report<'_>, init: &[ApiStatus], regular: &[ApiStatus]) -> &'static str {
    let counts = count(report, init, regular);
    let policy = spec::restart_policy(report.pod);
    let initialized = conditions::any_started(regular);
    if counts.failed_init > 0 && policy == RestartPolicy::Never {
        return "Failed";
    }
    if report.terminal && counts.running == 0 {
        return if counts.stopped > 0 && counts.stopped == counts.succeeded && counts.waiting == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if (counts.pending_init > 0 && !initialized) || counts.waiting > 0 {
        return "Pending";
    }
    if counts.running > 0 && counts.unknown == 0 {
        return "Running";
    }
    if counts.stopped == 0 || counts.unknown > 0 {
        return "Pending";
    }
    match policy {
        RestartPolicy::Always => "Running",
        _ if counts.stopped == counts.succeeded => "Succeeded",
        RestartPolicy::Never => "Failed",
        RestartPolicy::OnFailure => "Running",
    }
}

fn count(report: &Report<'_>, init: &[ApiStatus], regular: &[ApiStatus]) -> Counts {
    let mut counts = Counts::default();
    for ((_, role), status) in spec::init_containers(report.pod).zip(init) {
        count_init(&mut counts, role, status);
    }
    for status in regular {
        let state = status.state.clone().unwrap_or_default();
        let ended_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        if state.running.is_some() {
            counts.running += 1;
        } else if let Some(terminated) = &state.terminated {
            counts.stopped += 1;
            counts.succeeded += usize::from(terminated.exit_code == 0);
        } else if state.waiting.is_none() {
            counts.unknown += 1;
        } else if ended_before {
            counts.stopped += 1;
        } else {
            counts.waiting += 1;
        }
    }
    counts
}

fn count_init(counts: &mut Counts, role: Role, status: &ApiStatus) {
    let state = status.state.clone().unwrap_or_default();
    if role == Role::Sidecar {
        counts.pending_init += usize::from(status.started != Some(true));
        counts.running += usize::from(state.running.is_some());
        return;
    }
    let ended = state
        .terminated
        .or_else(|| state.waiting.as_ref().and_then(|_| status.last_state.as_ref()?.terminated.clone()));
    match ended {
        Some(terminated) => counts.failed_init += usize::from(terminated.exit_code != 0),
        None => counts.pending_init += 1,
    }
}

/// In upstream's order: others' first, as they are in the API, then ours.
fn all_conditions(report: &Report<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let old = report.old.and_then(|old| old.conditions.as_deref()).unwrap_or_default();
    let disruption = report.ending.filter(|_| report.terminal).and_then(|ending| ending.condition.clone());
    let disruption = disruption.map(|condition| with_transition(report, old, condition));
    let is_ours =
        |condition: &PodCondition| conditions::is_ours(&condition.type_, condition.reason.as_deref());
    let disruption = disruption
        .or_else(|| old.iter().find(|old| old.type_ == "DisruptionTarget" && is_ours(old)).cloned());
    let known = report.pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let is_others = |condition: &&PodCondition| {
        let is_replaced = disruption.as_ref().is_some_and(|own| own.type_ == condition.type_);
        !is_ours(condition) && !is_replaced
    };
    let mut all: Vec<PodCondition> = known.unwrap_or_default().iter().filter(is_others).cloned().collect();
    all.extend(disruption.clone());
    let ours = conditions::all(report, status).into_iter();
    all.extend(ours.map(|condition| with_transition(report, old, condition)));
    all
}

fn with_transition(report: &Report<'_>, old: &[PodCondition], mut condition: PodCondition) -> PodCondition {
    let before = old.iter().find(|old| old.type_ == condition.type_ && old.status == condition.status);
    condition.last_transition_time =
        before.and_then(|old| old.last_transition_time.clone()).or(Some(Time(report.now)));
    condition.observed_generation = report.pod.metadata.generation;
    condition
}

#[cfg(test)]
mod tests;
