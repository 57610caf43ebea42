//! What to do next for a pod: a pure function of what it asks for and what there is.
//!
//! Follows `computePodActions` of `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff::Backoffs;
use super::labels;
use super::spec::{self, RestartPolicy, Role};
use super::view::PodView;
use crate::config::DeadContainers;
use crate::runtime::{ContainerId, ContainerState, ContainerStatus, PodSandbox, SandboxId, SandboxState};

/// What probes and hooks found out about a running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Its postStart hook is done and its startup probe, if any, has succeeded.
    pub(crate) started: bool,
    /// Its readiness probe, if any, has succeeded last.
    pub(crate) ready: bool,
    /// A probe that asks for a restart has failed.
    pub(crate) failed: Option<FailedProbe>,
}

/// A probe whose failure restarts the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailedProbe {
    Liveness,
    Startup,
}

/// Everything that a decision depends on.
pub(crate) struct Situation<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) view: &'a PodView,
    pub(crate) now: Timestamp,
    pub(crate) health: &'a HashMap<ContainerId, Health>,
    pub(crate) backoffs: &'a Backoffs,
    /// Containers that are not to be tried again before a time; under the empty name, anything of the pod.
    pub(crate) held: &'a BTreeMap<String, Timestamp>,
    /// Containers that are being started right now.
    pub(crate) starting: &'a BTreeSet<String>,
    /// The pod is to end: it is being deleted, it has ended before, or its time is up.
    pub(crate) stopping: bool,
    /// How many ended instances are kept.
    pub(crate) dead: &'a DeadContainers,
    /// Those that are too many on the node.
    pub(crate) surplus: &'a HashSet<ContainerId>,
}

/// One step towards what the pod asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make a sandbox.
    CreateSandbox { attempt: u32 },
    /// Start a new instance of a container.
    Start { container: String },
    /// A container waits for its next attempt.
    BackOff { container: String, pause: Duration },
    /// End an instance that runs.
    Kill { id: ContainerId, container: String, why: Why },
    /// Remove an ended instance that is no longer of interest.
    Remove { id: ContainerId, container: String },
    /// Remove a sandbox in whose place there is another one.
    RemoveSandbox { id: SandboxId },
    /// End everything that runs, then the sandbox.
    StopPod,
}

/// Why a running container is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    DefinitionChanged,
    Probe(FailedProbe, /* will be restarted */ bool),
    SandboxChanged,
}

/// What to do, and when to decide again if nothing happens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) wake: Option<Timestamp>,
    /// The pod is to end, or has run to its end.
    pub(crate) ended: bool,
}

impl Plan {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Decides.
pub(crate) fn decide(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    if situation.stopping || has_ended(situation) {
        plan.ended = true;
        if !situation.view.is_stopped() {
            plan.act(Action::StopPod);
        }
        return plan;
    }
    match situation.view.ready_sandbox() {
        Some(_) => containers(situation, &mut plan),
        None => sandbox(situation, &mut plan),
    }
    remove_old_instances(situation, &mut plan);
    remove_old_sandboxes(situation.view, &mut plan);
    plan
}

fn sandbox(situation: &Situation<'_>, plan: &mut Plan) {
    let left: Vec<_> = situation.view.alive().collect();
    for status in &left {
        plan.act(Action::Kill {
            id: status.container.id.clone(),
            container: status.container.name.clone(),
            why: Why::SandboxChanged,
        });
    }
    if !left.is_empty() {
        return;
    }
    let attempt = situation.view.sandboxes.first().map_or(0, |sandbox| sandbox.config.attempt + 1);
    match situation.held.get("") {
        Some(until) if situation.now < *until => plan.wake_at(*until),
        _ => plan.act(Action::CreateSandbox { attempt }),
    }
}

/// Whether every container has run for the last time.
fn has_ended(situation: &Situation<'_>) -> bool {
    let view = situation.view;
    let restartable_pod = spec::restart_policy(situation.pod) != RestartPolicy::Never;
    if !restartable_pod && init_failed(situation) {
        return true;
    }
    let sandbox_lost = view.sandboxes.first().is_some_and(|sandbox| sandbox.state == SandboxState::NotReady);
    if !restartable_pod && sandbox_lost && !view.containers.is_empty() && view.alive().next().is_none() {
        return true;
    }
    let regular = spec::regular_containers(situation.pod);
    !regular.is_empty()
        && regular.iter().all(|container| {
            view.newest(&container.name).is_some_and(|status| {
                status.container.state == ContainerState::Exited
                    && !restarts(situation.pod, container, Role::Regular, status)
            })
        })
}

fn init_failed(situation: &Situation<'_>) -> bool {
    spec::init_containers(situation.pod).filter(|(_, role)| *role == Role::Init).any(|(container, _)| {
        situation
            .view
            .newest(&container.name)
            .is_some_and(|status| status.container.state == ContainerState::Exited && status.exit_code != 0)
    })
}

fn restarts(pod: &Pod, container: &Container, role: Role, status: &ContainerStatus) -> bool {
    spec::container_restart_policy(pod, role).restarts(status.exit_code) || is_changed(container, status)
}

fn is_changed(container: &Container, status: &ContainerStatus) -> bool {
    let hash = status.container.annotations.get(labels::CONTAINER_HASH);
    hash.is_some_and(|hash| *hash != spec::container_hash(container))
}

fn containers(situation: &Situation<'_>, plan: &mut Plan) {
    ephemeral(situation, plan);
    if !init(situation, plan) {
        return;
    }
    for container in spec::regular_containers(situation.pod) {
        match situation.view.newest(&container.name) {
            None => start(situation, plan, container, None),
            Some(status) => match status.container.state {
                ContainerState::Running => check_running(situation, plan, container, Role::Regular, status),
                ContainerState::Created => start(situation, plan, container, None),
                ContainerState::Exited | ContainerState::Unknown => {
                    if restarts(situation.pod, container, Role::Regular, status) {
                        start(situation, plan, container, Some(status));
                    }
                }
            },
        }
    }
}

/// Ephemeral containers run once, and do not wait for the others.
fn ephemeral(situation: &Situation<'_>, plan: &mut Plan) {
    for container in spec::ephemeral_containers(situation.pod) {
        if situation.view.newest(&container.name).is_none() {
            start(situation, plan, &container, None);
        }
    }
}

/// Goes through the init containers. Returns whether regular containers may run.
fn init(situation: &Situation<'_>, plan: &mut Plan) -> bool {
    let initialized = has_initialized(situation);
    let all: Vec<_> = spec::init_containers(situation.pod).collect();
    // An init container whose record is gone has succeeded if a later one was started.
    let progress = all.iter().rposition(|(container, _)| in_sandbox(situation, &container.name).is_some());
    for (index, (container, role)) in all.iter().enumerate() {
        let status = in_sandbox(situation, &container.name);
        let done = match role {
            Role::Sidecar => sidecar(situation, plan, container, status),
            _ if initialized => true,
            _ => {
                init_container(situation, plan, container, status, progress.is_some_and(|last| index < last))
            }
        };
        if !done && !initialized {
            return false;
        }
    }
    true
}

/// Whether a regular container has been started in the current sandbox: init containers are then history.
fn has_initialized(situation: &Situation<'_>) -> bool {
    spec::regular_containers(situation.pod).iter().any(|container| {
        in_sandbox(situation, &container.name)
            .is_some_and(|status| status.container.state != ContainerState::Created)
    })
}

fn in_sandbox<'a>(situation: &Situation<'a>, name: &str) -> Option<&'a ContainerStatus> {
    let sandbox = situation.view.ready_sandbox()?;
    situation.view.newest(name).filter(|status| status.container.sandbox == sandbox.id)
}

fn init_container(
    situation: &Situation<'_>,
    plan: &mut Plan,
    container: &Container,
    status: Option<&ContainerStatus>,
    passed: bool,
) -> bool {
    let Some(status) = status else {
        if !passed {
            start(situation, plan, container, None);
        }
        return passed;
    };
    match status.container.state {
        ContainerState::Exited if status.exit_code == 0 => true,
        ContainerState::Running => {
            check_running(situation, plan, container, Role::Init, status);
            false
        }
        ContainerState::Created => {
            start(situation, plan, container, None);
            false
        }
        ContainerState::Exited | ContainerState::Unknown => {
            if restarts(situation.pod, container, Role::Init, status) {
                start(situation, plan, container, Some(status));
            }
            false
        }
    }
}

/// Keeps a sidecar running. Returns whether the next init container may start.
fn sidecar(
    situation: &Situation<'_>,
    plan: &mut Plan,
    container: &Container,
    status: Option<&ContainerStatus>,
) -> bool {
    match status {
        Some(status) if status.container.state == ContainerState::Running => {
            check_running(situation, plan, container, Role::Sidecar, status);
            situation.health.get(&status.container.id).is_some_and(|health| health.started)
        }
        Some(status) if status.container.state == ContainerState::Exited => {
            start(situation, plan, container, Some(status));
            false
        }
        _ => {
            start(situation, plan, container, None);
            false
        }
    }
}

fn check_running(
    situation: &Situation<'_>,
    plan: &mut Plan,
    container: &Container,
    role: Role,
    status: &ContainerStatus,
) {
    let failed = situation.health.get(&status.container.id).and_then(|health| health.failed);
    let why = if is_changed(container, status) {
        Why::DefinitionChanged
    } else if let Some(probe) = failed {
        Why::Probe(probe, spec::container_restart_policy(situation.pod, role) != RestartPolicy::Never)
    } else {
        return;
    };
    plan.act(Action::Kill { id: status.container.id.clone(), container: container.name.clone(), why });
}

/// Starts a container, unless it is to wait: after the end of `previous`, or after a start that failed.
fn start(
    situation: &Situation<'_>,
    plan: &mut Plan,
    container: &Container,
    previous: Option<&ContainerStatus>,
) {
    let name = &container.name;
    if situation.starting.contains(name) {
        return;
    }
    if let Some(previous) = previous {
        let ended = previous.finished_at.unwrap_or(previous.container.created_at);
        if let Some((pause, until)) = situation.backoffs.pending(name, ended, situation.now) {
            plan.wake_at(until);
            plan.act(Action::BackOff { container: name.clone(), pause });
            return;
        }
    }
    let held = [name.as_str(), ""].into_iter().filter_map(|key| situation.held.get(key)).max();
    match held {
        Some(until) if situation.now < *until => plan.wake_at(*until),
        _ => plan.act(Action::Start { container: name.clone() }),
    }
}

/// The newest instance stays: what it did says what is to be done next.
fn remove_old_instances(situation: &Situation<'_>, plan: &mut Plan) {
    let DeadContainers { per_container, minimum_age, .. } = *situation.dead;
    let is_old = |status: &ContainerStatus| {
        let due = status.container.created_at.saturating_add(minimum_age);
        due.is_ok_and(|due| due <= situation.now)
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for status in &situation.view.containers {
        let newer = seen.entry(&status.container.name).or_default();
        let is_surplus = *newer > 0 && situation.surplus.contains(&status.container.id);
        let is_beyond = per_container.is_some_and(|kept| *newer > kept);
        *newer += 1;
        if status.container.state == ContainerState::Exited && (is_surplus || is_beyond) && is_old(status) {
            plan.act(Action::Remove {
                id: status.container.id.clone(),
                container: status.container.name.clone(),
            });
        }
    }
}

/// Those that nothing was started in, or of whose containers nothing is left (`evictSandboxes` of
/// `pkg/kubelet/kuberuntime/kuberuntime_gc.go`). The newest one says how many there were.
fn remove_old_sandboxes(view: &PodView, plan: &mut Plan) {
    let is_empty =
        |sandbox: &&PodSandbox| !view.containers.iter().any(|status| status.container.sandbox == sandbox.id);
    let old = view.sandboxes.iter().skip(1).filter(|sandbox| sandbox.state == SandboxState::NotReady);
    for sandbox in old.filter(is_empty) {
        plan.act(Action::RemoveSandbox { id: sandbox.id.clone() });
    }
}

#[cfg(test)]
mod tests;
