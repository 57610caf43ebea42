//! `/stats/summary`: the node's CPU, memory and disk, and which pods there are.

use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::pods::PodId;

/// Reads `/proc` and makes the summary.
pub(super) fn summary(node: &str, pods: &[Arc<Pod>]) -> Value {
    let now = rfc3339(Timestamp::now());
    let pods: Vec<Value> = pods.iter().map(|pod| pod_stats(pod)).collect();
    json!({
        "node": {
            "nodeName": node,
            "startTime": boot_time().map(rfc3339),
            "cpu": { "time": now, "usageCoreNanoSeconds": cpu_nanos() },
            "memory": memory(&now),
            "fs": file_system(&now),
        },
        "pods": pods,
    })
}

fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn pod_stats(pod: &Pod) -> Value {
    let id = PodId::of(pod);
    let status = pod.status.as_ref();
    let start = status.and_then(|status| status.start_time.as_ref()).map(|time| rfc3339(time.0));
    let containers: Vec<Value> = status
        .into_iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .filter_map(|container| {
            let running = container.state.as_ref()?.running.as_ref()?;
            let start = running.started_at.as_ref().map(|time| rfc3339(time.0));
            Some(json!({ "name": container.name, "startTime": start }))
        })
        .collect();
    json!({
        "podRef": { "name": id.name, "namespace": id.namespace, "uid": id.uid },
        "startTime": start,
        "containers": containers,
    })
}

fn boot_time() -> Option<Timestamp> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// Processor time spent on anything but idling since boot.
pub(super) fn cpu_nanos() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal, in hundredths of a second
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index)).sum::<u64>();
    Some(busy * 10_000_000)
}

/// Memory of the machine, and what of it is free or can be made so, in bytes.
pub(super) fn memory_bytes() -> (u64, u64) {
    let field = |name: &str, text: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (field("MemTotal:", &text), field("MemAvailable:", &text))
}

fn memory(now: &str) -> Value {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let (total, available, free) = (field("MemTotal:"), field("MemAvailable:"), field("MemFree:"));
    json!({
        "time": now,
        "availableBytes": available,
        "usageBytes": total.saturating_sub(free),
        "workingSetBytes": total.saturating_sub(available),
    })
}

fn file_system(now: &str) -> Value {
    let Ok(stat) = rustix::fs::statvfs("/") else { return Value::Null };
    json!({
        "time": now,
        "availableBytes": stat.f_bavail * stat.f_frsize,
        "capacityBytes": stat.f_blocks * stat.f_frsize,
        "usedBytes": stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize,
        "inodesFree": stat.f_ffree,
        "inodes": stat.f_files,
        "inodesUsed": stat.f_files.saturating_sub(stat.f_ffree),
    })
}
