//! Which instance of a container is meant, by what the runtime has.

use std::cmp::Reverse;

use super::super::choose::nth;
use crate::pods::{PodId, labels};
use crate::runtime::{Container, ContainerId, ContainerRuntime, ContainerState, RuntimeError, SandboxState};

/// The newest pod of a name that the runtime has.
pub(super) struct Found {
    pub(super) uid: String,
    /// Whether its sandbox is still there: if not, one of the same name may have taken its place.
    pub(super) is_alive: bool,
    containers: Vec<Container>,
}

/// The outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one.
    Instance(ContainerId),
    /// It depends on whether the container will run again, which its pod's status tells.
    StatusKnows,
    /// There is none.
    Unknown,
}

impl Found {
    /// Asks the runtime. `None` when it has no such pod.
    pub(super) async fn read(
        runtime: &dyn ContainerRuntime,
        pod: &PodId,
    ) -> Result<Option<Self>, RuntimeError> {
        let is_of = |owner: &PodId| owner.namespace == pod.namespace && owner.name == pod.name;
        let sandboxes = runtime.list_pod_sandboxes(Some((labels::POD_NAME, &pod.name))).await?.into_iter();
        let owned = sandboxes
            .filter_map(|sandbox| Some((labels::owner(&sandbox.config.labels)?, sandbox)))
            .filter(|(owner, _)| is_of(owner));
        let Some((owner, sandbox)) = owned.max_by_key(|(_, sandbox)| sandbox.created_at) else {
            return Ok(None);
        };
        let containers = runtime.list_containers(Some((labels::POD_UID, &owner.uid))).await?;
        Ok(Some(Found { uid: owner.uid, is_alive: sandbox.state == SandboxState::Ready, containers }))
    }
}

/// Chooses. What was only created has not said anything yet.
pub(super) fn choose(found: &Found, container: &str, previous: bool) -> Choice {
    let mut instances: Vec<&Container> = found
        .containers
        .iter()
        .filter(|instance| instance.name == container && instance.state != ContainerState::Created)
        .collect();
    instances.sort_by_key(|instance| Reverse((instance.attempt, instance.created_at)));
    match (instances.as_slice(), previous) {
        ([], _) => Choice::Unknown,
        ([newest, ..], _) if newest.state == ContainerState::Unknown => Choice::Unknown,
        ([newest, ..], false) => Choice::Instance(newest.id.clone()),
        ([newest, rest @ ..], true) if newest.state == ContainerState::Running => {
            rest.first().map_or(Choice::Unknown, |previous| Choice::Instance(previous.id.clone()))
        }
        (_, true) => Choice::StatusKnows,
    }
}

/// Chooses by number among those that the runtime knows.
pub(super) fn choose_instance(found: &Found, container: &str, asked: i64) -> Choice {
    let instances: Vec<&Container> = found
        .containers
        .iter()
        .filter(|instance| instance.name == container && instance.state != ContainerState::Created)
        .collect();
    let numbers = instances.iter().map(|instance| instance.attempt).collect();
    let number = nth(&numbers, asked);
    let chosen = instances.into_iter().find(|instance| Some(instance.attempt) == number);
    chosen.map_or(Choice::Unknown, |chosen| Choice::Instance(chosen.id.clone()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::runtime::SandboxId;
    use ContainerState::{Created, Exited, Running, Unknown};

    #[test]
    fn the_newest_that_has_run_is_meant() {
        let check = |states: &[ContainerState], previous, expected: Choice| {
            let instances = states.iter().enumerate().map(|(number, state)| Container {
                id: ContainerId(number.to_string()),
                sandbox: SandboxId("s".into()),
                name: "c".into(),
                attempt: number as u32,
                state: *state,
                // The clock is set back again and again.
                created_at: Timestamp::from_second(-(number as i64)).unwrap(),
                labels: [].into(),
                annotations: [].into(),
            });
            let found = Found { uid: "u".into(), is_alive: true, containers: instances.collect() };
            assert_eq!(choose(&found, "c", previous), expected, "{states:?} {previous}");
            assert_eq!(choose(&found, "other", previous), Choice::Unknown);
            let last = states.iter().rposition(|state| *state != Created);
            let by_number =
                last.map_or(Choice::Unknown, |last| Choice::Instance(ContainerId(last.to_string())));
            assert_eq!(choose_instance(&found, "c", last.unwrap_or(0) as i64), by_number, "{states:?}");
            assert_eq!(choose_instance(&found, "c", -9), Choice::Unknown);
        };
        let instance = |number: u32| Choice::Instance(ContainerId(number.to_string()));
        check(&[], false, Choice::Unknown);
        check(&[Running], false, instance(0));
        check(&[Running], true, Choice::Unknown);
        check(&[Exited, Running], false, instance(1));
        check(&[Exited, Running], true, instance(0));
        check(&[Exited, Exited, Created], false, instance(1));
        check(&[Exited, Exited], true, Choice::StatusKnows);
        check(&[Created], false, Choice::Unknown);
        check(&[Exited, Unknown], false, Choice::Unknown);
    }
}
