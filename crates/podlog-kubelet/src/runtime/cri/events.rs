//! What happens to containers: the runtime's own events where it has them, and a look at all of them every second.
//!
//! Follows `pkg/kubelet/pleg`: the list is the truth, events make it known sooner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use podlog_proto::cri;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::client::{Client, within};
use super::containers::state;
use super::error::Failure;
use super::runtime::CALL;
use crate::runtime::{ContainerEvent, ContainerId, ContainerState, SandboxId};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before the runtime's events are asked for again.
const RECONNECT: Duration = Duration::from_secs(5);
/// Events that wait for a receiver; one that is further behind loses some, and lists anew.
const QUEUE: usize = 1024;

/// Everybody who wants to know.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<Mutex<Vec<mpsc::Sender<ContainerEvent>>>>);

impl Events {
    /// Events from now on.
    pub(super) fn subscribe(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.0.lock().push(sender);
        receiver
    }

    /// Tells everybody who has room for it.
    pub(super) fn emit(&self, event: &ContainerEvent) {
        self.0.lock().retain(|sender| {
            !matches!(sender.try_send(event.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }
}

/// What is there: containers and sandboxes by id. A sandbox counts as a container of its own, as in CRI's events.
pub(super) type States = HashMap<String, (SandboxId, ContainerState)>;

/// Watches until shutdown.
pub(super) async fn watch(client: Client, events: Events, shutdown: CancellationToken) {
    let both = async { tokio::join!(look(&client, &events), listen(&client, &events)) };
    shutdown.run_until_cancelled(both).await;
}

/// Compares what there is with what there was. What cannot be asked is asked again.
async fn look(client: &Client, events: &Events) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: Option<States> = None;
    let mut is_reachable = true;
    loop {
        ticks.tick().await;
        let found = states(client).await;
        if is_reachable != found.is_ok() {
            is_reachable = found.is_ok();
            say(&found);
        }
        let Ok(found) = found else { continue };
        for event in changes(known.as_ref().unwrap_or(&found), &found) {
            events.emit(&event);
        }
        known = Some(found);
    }
}

fn say(found: &Result<States, Failure>) {
    match found {
        Ok(_) => tracing::info!("the container runtime answers again"),
        Err(Failure::Status(status)) => tracing::warn!(%status, "the container runtime does not answer"),
        Err(Failure::Deadline(limit)) => {
            tracing::warn!(?limit, "the container runtime does not answer in time")
        }
    }
}

async fn states(client: &Client) -> Result<States, Failure> {
    let mut runtime = client.runtime();
    let containers = within(CALL, runtime.list_containers(cri::ListContainersRequest::default())).await?;
    let containers = containers.containers.into_iter().map(|container| {
        let state = state(container.state());
        (container.id, (SandboxId(container.pod_sandbox_id), state))
    });
    let sandboxes = within(CALL, runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default())).await?;
    let sandboxes = sandboxes.items.into_iter().map(|sandbox| {
        let state = match sandbox.state() {
            cri::PodSandboxState::SandboxReady => ContainerState::Running,
            cri::PodSandboxState::SandboxNotready => ContainerState::Exited,
        };
        (sandbox.id.clone(), (SandboxId(sandbox.id), state))
    });
    Ok(containers.chain(sandboxes).collect())
}

/// What has happened between two looks. What has gone has ended.
pub(super) fn changes(before: &States, now: &States) -> Vec<ContainerEvent> {
    let event = |id: &String, (sandbox, state): &(SandboxId, ContainerState)| ContainerEvent {
        id: ContainerId(id.clone()),
        sandbox: sandbox.clone(),
        state: *state,
    };
    let changed = now.iter().filter(|(id, entry)| before.get(*id).is_none_or(|old| old.1 != entry.1));
    let gone = before
        .iter()
        .filter(|(id, entry)| !now.contains_key(*id) && !matches!(entry.1, ContainerState::Exited));
    let changed = changed.map(|(id, entry)| event(id, entry));
    changed
        .chain(gone.map(|(id, (sandbox, _))| event(id, &(sandbox.clone(), ContainerState::Exited))))
        .collect()
}

/// Passes on the runtime's own events; gives up when it has none (containerd before 1.7).
async fn listen(client: &Client, events: &Events) {
    loop {
        match receive(client, events).await {
            Err(failure) if failure.is_unimplemented() => {
                tracing::debug!("the container runtime has no events: it is asked every second");
                return;
            }
            _ => sleep(RECONNECT).await,
        }
    }
}

async fn receive(client: &Client, events: &Events) -> Result<(), Failure> {
    let request = cri::GetEventsRequest::default();
    // The answer begins with the first event: there is no telling how long that takes.
    let stream = client.runtime().get_container_events(request).await;
    let mut stream = stream.map_err(Failure::Status)?.into_inner();
    while let Some(event) = stream.message().await.map_err(Failure::Status)? {
        events.emit(&told(event));
    }
    Ok(())
}

/// An event in the seam's words.
pub(super) fn told(event: cri::ContainerEventResponse) -> ContainerEvent {
    let state = match event.container_event_type() {
        cri::ContainerEventType::ContainerCreatedEvent => ContainerState::Created,
        cri::ContainerEventType::ContainerStartedEvent => ContainerState::Running,
        cri::ContainerEventType::ContainerStoppedEvent | cri::ContainerEventType::ContainerDeletedEvent => {
            ContainerState::Exited
        }
    };
    let sandbox = event.pod_sandbox_status.map(|sandbox| sandbox.id);
    ContainerEvent {
        sandbox: SandboxId(sandbox.unwrap_or_else(|| event.container_id.clone())),
        id: ContainerId(event.container_id),
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_events() {
        use ContainerState::{Created, Exited, Running};
        let states = |entries: &[(&str, ContainerState)]| -> States {
            entries.iter().map(|(id, state)| ((*id).to_owned(), (SandboxId("s".into()), *state))).collect()
        };
        let check = |before: &[_], now: &[_], expected: &[(&str, ContainerState)]| {
            let mut found: Vec<_> = changes(&states(before), &states(now))
                .into_iter()
                .map(|event| (event.id.0, event.state))
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            let expected: Vec<_> = expected.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect();
            assert_eq!(found, expected);
        };
        check(&[("a", Running)], &[("a", Running)], &[]);
        check(&[], &[("a", Created)], &[("a", Created)]);
        check(&[("a", Running), ("b", Running)], &[("a", Exited), ("b", Running)], &[("a", Exited)]);
        check(&[("a", Running), ("b", Exited)], &[], &[("a", Exited)]);
    }
}
