//! Pods and containers for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::labels;
use crate::runtime::{
    Container, ContainerId, ContainerState, ContainerStatus, PodSandbox, PodSandboxConfig, SandboxId,
    SandboxState,
};

/// A moment, in seconds after some other.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// The pod `web` in `prod` with uid `u-1`.
pub(crate) fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "prod", "uid": "u-1", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

/// A sandbox of that pod.
pub(crate) fn sandbox(id: &str, attempt: u32, state: SandboxState) -> PodSandbox {
    let config = PodSandboxConfig { uid: "u-1".into(), attempt, ..PodSandboxConfig::default() };
    PodSandbox { id: SandboxId(id.into()), config, state, created_at: at(i64::from(attempt)) }
}

/// A container of that pod in sandbox `s`, with id `<name>-<attempt>`.
pub(crate) fn container(name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    let created_at = at(i64::from(attempt) + 1);
    ContainerStatus {
        container: Container {
            id: ContainerId(format!("{name}-{attempt}")),
            sandbox: SandboxId("s".into()),
            name: name.into(),
            attempt,
            state,
            created_at,
            labels: BTreeMap::from([(labels::POD_UID.into(), "u-1".into())]),
            annotations: BTreeMap::new(),
        },
        image: "busybox".into(),
        image_name: String::new(),
        user: None,
        started_at: (state != ContainerState::Created).then(|| at(i64::from(attempt) + 2)),
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        log_path: PathBuf::new(),
    }
}

/// A container that runs.
pub(crate) fn running(name: &str, attempt: u32) -> ContainerStatus {
    container(name, attempt, ContainerState::Running)
}

/// A container that ended at 50 s.
pub(crate) fn ended(name: &str, attempt: u32, exit_code: i32) -> ContainerStatus {
    ContainerStatus {
        finished_at: Some(at(50)),
        exit_code,
        reason: if exit_code == 0 { "Completed".into() } else { "Error".into() },
        ..container(name, attempt, ContainerState::Exited)
    }
}
