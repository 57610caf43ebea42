//! How many ended instances of containers the runtime keeps (`pkg/kubelet/container/container_gc.go`).

use std::time::Duration;

/// How many ended instances of containers the runtime keeps. The newest instance of a container stays in any case: what it did says what
/// is to be done next. Logs of those that go stay as long as the files of their container allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadContainers {
    /// Of each container; `None` keeps all. Default 1. A flag of Kubernetes' kubelet; podlog's own as a field:
    /// `maximumDeadContainersPerContainer`.
    pub per_container: Option<usize>,
    /// Of all containers of the node; `None` (the default) is no limit. As a field: `maximumDeadContainers`.
    pub total: Option<usize>,
    /// Those that were created less long ago stay. Default 0. As a field: `minimumContainerTTLDuration`.
    pub minimum_age: Duration,
}

impl Default for DeadContainers {
    fn default() -> Self {
        DeadContainers { per_container: Some(1), total: None, minimum_age: Duration::ZERO }
    }
}
