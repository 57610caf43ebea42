//! The node's conditions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::eviction::Pressure;

/// The conditions of this machine now; `complaint` is what keeps it from being ready.
pub(super) fn now(
    old: Option<&NodeStatus>,
    at: Timestamp,
    pressure: Pressure,
    complaint: Option<&str>,
) -> Vec<NodeCondition> {
    let pressures = [
        (
            "MemoryPressure",
            pressure.memory,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "memory",
        ),
        ("DiskPressure", pressure.disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk"),
        ("PIDPressure", pressure.pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID"),
    ];
    let mut conditions = Vec::new();
    for (kind, pressed, bad, good, what) in pressures {
        let message = match (pressed, kind) {
            (true, "DiskPressure") => "kubelet has disk pressure".to_owned(),
            (false, "DiskPressure") => "kubelet has no disk pressure".to_owned(),
            (true, _) => format!("kubelet has insufficient {what} available"),
            (false, _) => format!("kubelet has sufficient {what} available"),
        };
        let reason = if pressed { bad } else { good };
        conditions.push(condition(old, at, kind, pressed, reason, message));
    }
    let reason = if complaint.is_none() { "KubeletReady" } else { "KubeletNotReady" };
    let message = complaint.unwrap_or("kubelet is posting ready status").to_owned();
    conditions.push(condition(old, at, "Ready", complaint.is_none(), reason, message));
    conditions
}

fn condition(
    old: Option<&NodeStatus>,
    at: Timestamp,
    kind: &str,
    is_true: bool,
    reason: &str,
    message: String,
) -> NodeCondition {
    let status = if is_true { "True" } else { "False" };
    let before = old.and_then(|old| find(old, kind)).filter(|condition| condition.status == status);
    NodeCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_heartbeat_time: Some(Time(at)),
        last_transition_time: before.and_then(|old| old.last_transition_time.clone()).or(Some(Time(at))),
    }
}

fn find<'a>(status: &'a NodeStatus, kind: &str) -> Option<&'a NodeCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Whether the node is ready.
pub(super) fn is_ready(status: &NodeStatus) -> bool {
    find(status, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether two statuses are the same but for heartbeats.
pub(super) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let quiet = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    quiet(a) == quiet(b)
}
