//! Container statuses as the API shows them, from what the runtime knows.
//!
//! Follows `convertToAPIContainerStatuses` of `pkg/kubelet/kubelet_pods.go`.

use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus as ApiStatus, ContainerUser as ApiUser, LinuxContainerUser,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::Health;
use super::spec::{self, Role};
use super::status::Report;
use crate::runtime::{ContainerState, ContainerStatus, ContainerUser};

/// Bytes of termination messages of all containers of a pod, each of which has an equal part.
const MAX_MESSAGE_BYTES: usize = 12 * 1024;

/// Statuses of init containers, in the order of the spec; `None` when the pod has none.
pub(super) fn init(report: &Report<'_>) -> Option<Vec<ApiStatus>> {
    let old = report.old.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let statuses: Vec<_> = spec::init_containers(report.pod)
        .map(|(container, role)| status(report, container, role, find(old, &container.name)))
        .collect();
    (!statuses.is_empty()).then_some(statuses)
}

/// Statuses of regular containers, sorted by name as upstream does.
pub(super) fn regular(report: &Report<'_>) -> Vec<ApiStatus> {
    let old = report.old.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let mut statuses: Vec<_> = spec::regular_containers(report.pod)
        .iter()
        .map(|container| status(report, container, Role::Regular, find(old, &container.name)))
        .collect();
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    statuses
}

/// Statuses of ephemeral containers; `None` when the pod has none.
pub(super) fn ephemeral(report: &Report<'_>) -> Option<Vec<ApiStatus>> {
    let old = report.old.and_then(|status| status.ephemeral_container_statuses.as_deref());
    let old = old.unwrap_or_default();
    let statuses: Vec<_> = spec::ephemeral_containers(report.pod)
        .map(|container| status(report, &container, Role::Ephemeral, find(old, &container.name)))
        .collect();
    (!statuses.is_empty()).then_some(statuses)
}

fn find<'a>(statuses: &'a [ApiStatus], name: &str) -> Option<&'a ApiStatus> {
    statuses.iter().find(|status| status.name == name)
}

fn status(report: &Report<'_>, container: &Container, role: Role, old: Option<&ApiStatus>) -> ApiStatus {
    let mut instances = report.view.instances(&container.name);
    let newest = instances.next();
    let mut status = match newest {
        Some(instance) => from_runtime(report, container, instance),
        None => without_instance(report, container, role, old),
    };
    if let Some(previous) = instances.next() {
        status.last_state = Some(state(report, previous));
    } else if newest.is_some() {
        status.last_state = old.filter(|old| continues(old, &status)).and_then(|old| old.last_state.clone());
    }
    wait_for_start(report, container, role, newest, &mut status);
    set_readiness(report, role, newest, &mut status);
    // It is no pointer upstream: there is always one.
    status.last_state.get_or_insert_default();
    status
}

/// Gives all containers an end once the pod has ended: what nobody knows of has failed (`TerminatePod` of
/// `pkg/kubelet/status/status_manager.go`). What never had its turn goes on waiting.
pub(super) fn conclude(init: &mut [ApiStatus], regular: &mut [ApiStatus]) {
    let has_begun = |status: &ApiStatus| !is_waiting(status) || ended_before(status);
    let init_succeeded =
        init.last().is_none_or(|last| [&last.state, &last.last_state].into_iter().any(succeeded));
    if init_succeeded || regular.iter().any(has_begun) {
        regular.iter_mut().for_each(lose);
    }
    let last_begun = init.iter().rposition(has_begun).unwrap_or(0);
    init.iter_mut().take(last_begun + 1).for_each(lose);
}

fn is_waiting(status: &ApiStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.waiting.is_some())
}

fn ended_before(status: &ApiStatus) -> bool {
    status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
}

fn succeeded(state: &Option<ApiState>) -> bool {
    let ended = state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code == 0)
}

fn lose(status: &mut ApiStatus) {
    if status.state.as_ref().is_none_or(|state| state.terminated.is_none()) {
        status.state =
            Some(unknown_end("The container could not be located when the pod was terminated", None));
    }
}

/// How a container is shown to have ended of which only that is known.
fn unknown_end(message: &str, container_id: Option<String>) -> ApiState {
    terminated(ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some(message.into()),
        container_id,
        ..ContainerStateTerminated::default()
    })
}

/// Whether an older status is about the same instance, so that what it says about the one before still holds.
fn continues(old: &ApiStatus, status: &ApiStatus) -> bool {
    old.restart_count == status.restart_count
}

fn from_runtime(report: &Report<'_>, container: &Container, instance: &ContainerStatus) -> ApiStatus {
    ApiStatus {
        name: container.name.clone(),
        image: non_empty(&instance.image_name).or_else(|| container.image.clone()).unwrap_or_default(),
        image_id: instance.image.clone(),
        container_id: Some(report.container_id(instance)),
        restart_count: i32::try_from(instance.container.attempt).unwrap_or(i32::MAX),
        state: Some(state(report, instance)),
        volume_mounts: volume_mounts(container),
        resources: Some(container.resources.clone().unwrap_or_default()),
        allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
        user: instance.user.as_ref().map(user),
        ..ApiStatus::default()
    }
}

fn user(user: &ContainerUser) -> ApiUser {
    let groups = &user.supplemental_groups;
    let linux = LinuxContainerUser {
        uid: user.uid,
        gid: user.gid,
        supplemental_groups: (!groups.is_empty()).then(|| groups.clone()),
    };
    ApiUser { linux: Some(linux) }
}

fn state(report: &Report<'_>, instance: &ContainerStatus) -> ApiState {
    match instance.container.state {
        ContainerState::Running => ApiState {
            running: Some(ContainerStateRunning { started_at: instance.started_at.map(Time) }),
            ..ApiState::default()
        },
        ContainerState::Exited => terminated(ContainerStateTerminated {
            exit_code: instance.exit_code,
            reason: non_empty(&instance.reason),
            message: non_empty(cut(
                report.messages.get(&instance.container.id).unwrap_or(&instance.message),
                MAX_MESSAGE_BYTES / spec::all_containers(report.pod).count().max(1),
            )),
            started_at: instance.started_at.map(Time),
            finished_at: instance.finished_at.map(Time),
            container_id: Some(report.container_id(instance)),
            ..ContainerStateTerminated::default()
        }),
        ContainerState::Created | ContainerState::Unknown => waiting("", ""),
    }
}

fn terminated(terminated: ContainerStateTerminated) -> ApiState {
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

fn waiting(reason: &str, message: &str) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting { reason: non_empty(reason), message: non_empty(message) }),
        ..ApiState::default()
    }
}

/// The beginning of a text, in whole characters.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The status of a container of which the runtime knows nothing: not started yet, or its record is gone.
fn without_instance(
    report: &Report<'_>,
    container: &Container,
    role: Role,
    old: Option<&ApiStatus>,
) -> ApiStatus {
    let old_state = old.and_then(|old| old.state.as_ref());
    if let (Some(old), Some(true)) = (old, old_state.map(|state| state.terminated.is_some())) {
        return old.clone();
    }
    let has_init = spec::init_containers(report.pod).next().is_some();
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut status = ApiStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, "")),
        volume_mounts: volume_mounts(container),
        ..ApiStatus::default()
    };
    if role == Role::Init && any_regular_instance(report) {
        status.state = Some(forgotten_success());
    }
    let Some(old) = old else { return status };
    status.restart_count = old.restart_count;
    status.last_state.clone_from(&old.last_state);
    if old_state.is_some_and(|state| state.running.is_some()) && !ended_before(&status) {
        // Upstream does not say which instance it was; its log can be read all the same.
        let message =
            "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(unknown_end(message, old.container_id.clone()));
        status.restart_count += i32::from(!spec::is_deleting(report.pod));
    }
    status
}

fn any_regular_instance(report: &Report<'_>) -> bool {
    spec::regular_containers(report.pod).iter().any(|container| report.view.newest(&container.name).is_some())
}

/// Of an init container whose record is gone while later ones are there: they would not be, had it failed.
fn forgotten_success() -> ApiState {
    terminated(ContainerStateTerminated {
        exit_code: 0,
        reason: Some("Completed".into()),
        message: Some(
            "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
                .into(),
        ),
        ..ContainerStateTerminated::default()
    })
}

/// Turns the status of a container that is to run again into a waiting one, with the reason why it does not run yet.
fn wait_for_start(
    report: &Report<'_>,
    container: &Container,
    role: Role,
    newest: Option<&ContainerStatus>,
    status: &mut ApiStatus,
) {
    let Some((reason, message)) = report.reasons.get(&container.name) else { return };
    let runs_again = !report.terminal
        && !spec::is_deleting(report.pod)
        && newest.is_none_or(|instance| match instance.container.state {
            ContainerState::Running => false,
            ContainerState::Exited => {
                spec::container_restart_policy(report.pod, role).restarts(instance.exit_code)
            }
            ContainerState::Created | ContainerState::Unknown => true,
        });
    if !runs_again {
        return;
    }
    if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(reason, message));
}

fn set_readiness(report: &Report<'_>, role: Role, newest: Option<&ContainerStatus>, status: &mut ApiStatus) {
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let health = newest
        .filter(|_| running)
        .and_then(|instance| report.health.get(&instance.container.id))
        .copied()
        .unwrap_or_default();
    let Health { started, ready, .. } = health;
    status.started = (role != Role::Ephemeral).then_some(started);
    status.ready = match role {
        Role::Ephemeral => false,
        Role::Init => {
            let terminated = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            terminated.is_some_and(|terminated| terminated.exit_code == 0)
        }
        Role::Sidecar | Role::Regular => started && ready,
    };
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let statuses = mounts.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.filter(|read_only| *read_only).map(|_| "Disabled".into()),
        ..VolumeMountStatus::default()
    });
    Some(statuses.collect())
}
