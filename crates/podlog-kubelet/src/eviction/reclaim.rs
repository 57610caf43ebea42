//! What can be given back before any pod has to go.

use std::sync::Arc;

use crate::config::Signal;
use crate::pods::{Context, PodId, Pods, is_terminal};
use crate::runtime::{Container, ContainerState};

/// What can be given back, the least missed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Logs of pods that are deleted.
    DeletedPods,
    /// Containers of pods that have ended, and their logs.
    EndedPods,
    /// Images that no container is made from.
    UnusedImages,
}

/// What helps against a signal. With images on a file system of their own, each file system has what lies there.
pub(super) fn steps(signal: Signal, is_imagefs_dedicated: bool) -> &'static [Step] {
    match signal {
        Signal::MemoryAvailable | Signal::PidAvailable => &[],
        Signal::NodefsAvailable | Signal::NodefsInodesFree if is_imagefs_dedicated => {
            &[Step::DeletedPods, Step::EndedPods]
        }
        _ if is_imagefs_dedicated => &[Step::EndedPods, Step::UnusedImages],
        _ => &[Step::DeletedPods, Step::EndedPods, Step::UnusedImages],
    }
}

/// Gives up logs of deleted pods until so many bytes are free. Returns how many were.
pub(super) async fn deleted_pods(context: &Arc<Context>, bytes: u64) -> u64 {
    let retained = context.retained.clone();
    tokio::task::spawn_blocking(move || retained.give_up(bytes)).await.unwrap_or(0)
}

/// Removes what is left of pods that have ended but are still known: containers and log files. Returns of how many containers.
pub(super) async fn ended_pods(context: &Arc<Context>, pods: &Pods) -> usize {
    let mut removed = 0;
    for pod in pods.all().into_iter().filter(|pod| is_terminal(pod)) {
        removed += ended_pod(context, &PodId::of(&pod)).await;
    }
    removed
}

async fn ended_pod(context: &Arc<Context>, id: &PodId) -> usize {
    let label = (crate::pods::labels::POD_UID, id.uid.as_str());
    let containers = match context.runtime.list_containers(Some(label)).await {
        Ok(containers) => containers,
        Err(error) => {
            tracing::warn!(pod = %id, %error, "cannot list what is left of an ended pod");
            return 0;
        }
    };
    let mut removed = 0;
    for container in containers.into_iter().filter(|container| container.state == ContainerState::Exited) {
        removed += usize::from(remove(context, id, container).await);
    }
    removed
}

async fn remove(context: &Arc<Context>, id: &PodId, container: Container) -> bool {
    if let Err(error) = context.runtime.remove_container(&container.id).await {
        tracing::warn!(pod = %id, container = container.name, %error, "cannot remove an ended container");
        return false;
    }
    let (layout, id) = (context.layout.clone(), id.clone());
    let gone = tokio::task::spawn_blocking(move || {
        layout.forget_instance(&id, &container.name, &container.id, container.attempt, 0);
    });
    gone.await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_system_has_what_lies_there() {
        for (signal, is_dedicated, expected) in [
            (Signal::MemoryAvailable, false, &[][..]),
            (Signal::PidAvailable, true, &[]),
            (Signal::NodefsAvailable, false, &[Step::DeletedPods, Step::EndedPods, Step::UnusedImages]),
            (Signal::NodefsInodesFree, true, &[Step::DeletedPods, Step::EndedPods]),
            (Signal::ImagefsAvailable, true, &[Step::EndedPods, Step::UnusedImages]),
        ] {
            assert_eq!(steps(signal, is_dedicated), expected, "{signal:?} {is_dedicated}");
        }
    }
}
