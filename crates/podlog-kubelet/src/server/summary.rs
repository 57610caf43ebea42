//! `/stats/summary`: what the node and its pods use of processor, memory and disks.
//!
//! Fields as `k8s.io/kubelet/pkg/apis/stats/v1alpha1`. What is not known is left out.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::node::capacity;
use crate::pods::PodId;
use crate::runtime::{ContainerStats, Space};
use crate::usage::{ContainerUsage, Parts, PodUsage};

/// File systems of the node.
pub(super) struct Disks<'a> {
    /// The kubelet's.
    pub(super) node: &'a Path,
    /// That of images.
    pub(super) images: Option<&'a Path>,
}

/// Reads `/proc` and makes the summary.
pub(super) fn summary(
    node: &str,
    pods: &[Arc<Pod>],
    usage: &HashMap<String, PodUsage>,
    disks: &Disks<'_>,
) -> Value {
    let now = rfc3339(Timestamp::now());
    let fs = file_system(&now, disks.node);
    let images = disks.images.map(|images| file_system(&now, images));
    let pods: Vec<Value> = pods
        .iter()
        .map(|pod| pod_stats(pod, usage.get(&PodId::of(pod).uid), &now, &fs, images.as_ref()))
        .collect();
    let processes = capacity::processes();
    pruned(json!({
        "node": {
            "nodeName": node,
            "startTime": boot_time().map(rfc3339),
            "cpu": { "time": now, "usageCoreNanoSeconds": cpu_nanos() },
            "memory": memory(&now),
            "fs": fs,
            "runtime": images.as_ref().map(|images| json!({ "imageFs": images, "containerFs": images })),
            "rlimit": processes.map(|(now_running, most)| json!({ "time": now, "maxpid": most, "curproc": now_running })),
        },
        "pods": pods,
    }))
}

fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn pod_stats(pod: &Pod, usage: Option<&PodUsage>, now: &str, fs: &Value, images: Option<&Value>) -> Value {
    let id = PodId::of(pod);
    let status = pod.status.as_ref();
    let start = status.and_then(|status| status.start_time.as_ref()).map(|time| rfc3339(time.0));
    let containers: Vec<Value> = status
        .into_iter()
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten())
        .filter_map(|container| {
            let running = container.state.as_ref()?.running.as_ref()?;
            let start = running.started_at.as_ref().map(|time| rfc3339(time.0));
            let used = usage?.containers.iter().find(|used| used.name == container.name);
            Some(container_stats(&container.name, start, used, fs, images.unwrap_or(fs)))
        })
        .collect();
    let mut stats = json!({
        "podRef": { "name": id.name, "namespace": id.namespace, "uid": id.uid },
        "startTime": start,
        "containers": containers,
    });
    let Some(usage) = usage else { return stats };
    let known = || usage.containers.iter().filter_map(|container| container.stats.as_ref());
    let at = known().map(|stats| stats.at).max().map(rfc3339);
    let sum =
        |field: fn(&ContainerStats) -> Option<u64>| known().filter_map(field).reduce(u64::saturating_add);
    stats["cpu"] = at.as_ref().map_or(Value::Null, |at| cpu(at, sum(|stats| stats.cpu_nanos)));
    stats["memory"] = at.as_ref().map_or(Value::Null, |at| {
        memory_stats(at, sum(|s| s.memory_bytes), sum(|s| s.working_set_bytes), sum(|s| s.rss_bytes))
    });
    stats["process_stats"] =
        sum(|stats| stats.processes).map_or(Value::Null, |count| json!({ "process_count": count }));
    stats["volume"] = usage
        .volumes
        .iter()
        .map(|volume| {
            let mut stats = part_of(fs, volume.used, now);
            stats["name"] = json!(volume.name);
            stats
        })
        .collect();
    stats["ephemeral-storage"] = part_of(fs, usage.disk(Parts::All), now);
    stats
}

fn container_stats(
    name: &str,
    start: Option<String>,
    used: Option<&ContainerUsage>,
    fs: &Value,
    images: &Value,
) -> Value {
    let mut stats = json!({ "name": name, "startTime": start });
    let Some(used) = used else { return stats };
    let now = rfc3339(Timestamp::now());
    stats["logs"] = part_of(fs, used.logs, &now);
    let Some(known) = &used.stats else { return stats };
    let at = rfc3339(known.at);
    stats["cpu"] = cpu(&at, known.cpu_nanos);
    stats["memory"] = memory_stats(&at, known.memory_bytes, known.working_set_bytes, known.rss_bytes);
    stats["rootfs"] = known.writable_layer.map_or(Value::Null, |layer| part_of(images, layer, &at));
    stats
}

fn cpu(at: &str, nanos: Option<u64>) -> Value {
    json!({ "time": at, "usageCoreNanoSeconds": nanos })
}

fn memory_stats(at: &str, usage: Option<u64>, working_set: Option<u64>, rss: Option<u64>) -> Value {
    json!({ "time": at, "usageBytes": usage, "workingSetBytes": working_set, "rssBytes": rss })
}

/// What something takes of a file system.
fn part_of(fs: &Value, used: Space, now: &str) -> Value {
    let mut part = fs.clone();
    if part.is_null() {
        part = json!({});
    }
    part["time"] = json!(now);
    part["usedBytes"] = json!(used.bytes);
    part["inodesUsed"] = json!(used.inodes);
    part
}

/// Without what is not known.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, pruned(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(pruned).collect(),
        other => other,
    }
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

fn file_system(now: &str, path: &Path) -> Value {
    let Ok(stat) = rustix::fs::statvfs(path) else { return Value::Null };
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
