//! What the runtime knows about one pod.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::labels;
use crate::runtime::{
    ContainerId, ContainerRuntime, ContainerState, ContainerStatus, PodSandbox, RuntimeError, SandboxState,
};

/// A pod's sandboxes and containers, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodView {
    pub(crate) sandboxes: Vec<PodSandbox>,
    pub(crate) containers: Vec<ContainerStatus>,
    /// Addresses of the pod, the first one first; `None` when they are the node's.
    pub(crate) ips: Option<Vec<IpAddr>>,
}

impl PodView {
    /// Asks the runtime. What disappears while it is asked counts as gone.
    pub(crate) async fn read(runtime: &dyn ContainerRuntime, uid: &str) -> Result<Self, RuntimeError> {
        let of_pod = Some((labels::POD_UID, uid));
        let sandboxes = runtime.list_pod_sandboxes(of_pod).await?;
        let mut containers = Vec::new();
        for container in runtime.list_containers(of_pod).await? {
            match runtime.container_status(&container.id).await {
                Ok(status) => containers.push(status),
                Err(RuntimeError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let view = PodView::new(sandboxes, containers);
        let ips = match view.ready_sandbox() {
            Some(sandbox) => runtime.pod_sandbox_ips(&sandbox.id).await,
            None => Ok(Some(Vec::new())),
        };
        match ips {
            Ok(ips) => Ok(PodView { ips, ..view }),
            Err(RuntimeError::NotFound { .. }) => Ok(PodView { ips: Some(Vec::new()), ..view }),
            Err(error) => Err(error),
        }
    }

    /// Sorts what was found: by number, since clocks may be set back.
    pub(crate) fn new(mut sandboxes: Vec<PodSandbox>, mut containers: Vec<ContainerStatus>) -> Self {
        sandboxes.sort_by_key(|sandbox| Reverse((sandbox.config.attempt, sandbox.created_at)));
        containers.sort_by_key(|status| Reverse((status.container.attempt, status.container.created_at)));
        PodView { sandboxes, containers, ips: None }
    }

    /// The sandbox that containers are started in: the newest, if it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&PodSandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// Instances of a container, newest first.
    pub(crate) fn instances(&self, name: &str) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(move |status| status.container.name == name)
    }

    /// The newest instance of a container.
    pub(crate) fn newest(&self, name: &str) -> Option<&ContainerStatus> {
        self.instances(name).next()
    }

    /// Everything that runs or might.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|status| {
            matches!(status.container.state, ContainerState::Running | ContainerState::Unknown)
        })
    }

    /// A container by id.
    pub(crate) fn by_id(&self, id: &ContainerId) -> Option<&ContainerStatus> {
        self.containers.iter().find(|status| status.container.id == *id)
    }

    /// Whether nothing runs and no sandbox is ready.
    pub(crate) fn is_stopped(&self) -> bool {
        self.alive().next().is_none()
            && self.sandboxes.iter().all(|sandbox| sandbox.state == SandboxState::NotReady)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::pods::testing::{ended, running};

    #[test]
    fn the_newest_has_the_highest_number_whatever_the_clock_says() {
        let mut containers = vec![running("c", 2), ended("c", 0, 1), ended("c", 1, 1)];
        for (container, second) in containers.iter_mut().zip([10, 30, 20]) {
            container.container.created_at = Timestamp::from_second(second).expect("a time");
        }
        let view = PodView::new(Vec::new(), containers);
        let attempts: Vec<u32> = view.instances("c").map(|status| status.container.attempt).collect();
        assert_eq!(attempts, [2, 1, 0]);
    }
}
