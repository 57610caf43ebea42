//! The node's conditions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::capacity::{self, Room};

/// Memory below which the node has memory pressure (`memory.available<100Mi`, the default of `evictionHard`).
const LEAST_MEMORY_KIB: u64 = 100 * 1024;
/// Shares of file system and inodes below which it has disk pressure (`nodefs.available<10%`, `inodesFree<5%`).
const LEAST_SPACE_PERCENT: u64 = 10;
const LEAST_INODES_PERCENT: u64 = 5;
/// Space that is enough whatever its share: a machine that pulls no images can work with it.
const ENOUGH_BYTES: u64 = 1 << 30;

/// The conditions of this machine now.
pub(super) fn now(old: Option<&NodeStatus>, at: Timestamp) -> Vec<NodeCondition> {
    let memory = capacity::memory_available_kib().is_some_and(|kib| kib < LEAST_MEMORY_KIB);
    let disk = capacity::root_room().is_some_and(is_short);
    let pids = capacity::processes().is_some_and(|(now, limit)| now * 10 > limit * 9);
    let pressures = [
        ("MemoryPressure", memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory"),
        ("DiskPressure", disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk"),
        ("PIDPressure", pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID"),
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
    let message = "kubelet is posting ready status".to_owned();
    conditions.push(condition(old, at, "Ready", true, "KubeletReady", message));
    conditions
}

fn is_short(room: Room) -> bool {
    let is_space_short = room.free_percent < LEAST_SPACE_PERCENT && room.free_bytes < ENOUGH_BYTES;
    is_space_short || room.free_inodes_percent < LEAST_INODES_PERCENT
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_short_of_space_or_inodes() {
        let check = |free_bytes, free_percent, free_inodes_percent, expected| {
            let room = Room { free_bytes, free_percent, free_inodes_percent };
            assert_eq!(is_short(room), expected, "{room:?}");
        };
        check(20 << 30, 50, 90, false);
        check(20 << 30, 8, 90, false);
        check(1 << 29, 12, 90, false);
        check(1 << 29, 9, 90, true);
        check(20 << 30, 50, 4, true);
    }
}
