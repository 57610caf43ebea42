//! Numbers for metrics servers: `/metrics/resource`, and what `/metrics/cadvisor` says of the machine.
//!
//! Names as `pkg/kubelet/metrics/collectors/resource_metrics.go` and cAdvisor's.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::summary::{cpu_nanos, memory_bytes};
use crate::pods::PodId;
use crate::runtime::ContainerStats;
use crate::usage::PodUsage;

/// What node, pods and containers use; `None` of `usage` is an error.
pub(super) fn resource(pods: &[Arc<Pod>], usage: Option<&HashMap<String, PodUsage>>) -> String {
    let mut text = String::new();
    let (mut cpu, mut memory) = (Family::default(), Family::default());
    let (mut pod_cpu, mut pod_memory) = (Family::default(), Family::default());
    for pod in pods {
        let id = PodId::of(pod);
        let Some(used) = usage.and_then(|usage| usage.get(&id.uid)) else { continue };
        let of_pod = format!("namespace={:?},pod={:?}", id.namespace, id.name);
        for (name, stats) in used.containers.iter().filter_map(|own| Some((&own.name, own.stats.as_ref()?))) {
            let labels = format!("container={name:?},{of_pod}");
            cpu.add(&labels, stats, cores(stats));
            memory.add(&labels, stats, stats.working_set_bytes.map(|bytes| bytes as f64));
        }
        let known = || used.containers.iter().filter_map(|own| own.stats.as_ref());
        if let Some(latest) = known().max_by_key(|stats| stats.at) {
            pod_cpu.add(&of_pod, latest, known().filter_map(cores).reduce(|sum, one| sum + one));
            pod_memory.add(&of_pod, latest, used.memory().map(|bytes| bytes as f64));
        }
    }
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    cpu.write(&mut text, "container_cpu_usage_seconds_total", "counter", help);
    let help = "Current working set of the container in bytes";
    memory.write(&mut text, "container_memory_working_set_bytes", "gauge", help);
    let mut starts = Family::default();
    starts
        .0
        .extend(pods.iter().flat_map(|pod| started(pod)).map(|(labels, at)| format!("{{{labels}}} {at}")));
    let help = "Start time of the container since unix epoch in seconds";
    starts.write(&mut text, "container_start_time_seconds", "gauge", help);
    node(&mut text);
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    pod_cpu.write(&mut text, "pod_cpu_usage_seconds_total", "counter", help);
    let help = "Current working set of the pod in bytes";
    pod_memory.write(&mut text, "pod_memory_working_set_bytes", "gauge", help);
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    let error = Family(vec![format!(" {}", u8::from(usage.is_none()))]);
    error.write(&mut text, "resource_scrape_error", "gauge", help);
    text
}

fn node(text: &mut String) {
    let (total, available) = memory_bytes();
    let cpu = Family(vec![format!(" {}", cpu_nanos().unwrap_or_default() as f64 / 1e9)]);
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    cpu.write(text, "node_cpu_usage_seconds_total", "counter", help);
    let memory = Family(vec![format!(" {}", total.saturating_sub(available))]);
    let help = "Current working set of the node in bytes";
    memory.write(text, "node_memory_working_set_bytes", "gauge", help);
}

fn cores(stats: &ContainerStats) -> Option<f64> {
    stats.cpu_nanos.map(|nanos| nanos as f64 / 1e9)
}

/// The lines of a metric, without its name.
#[derive(Default)]
struct Family(Vec<String>);

impl Family {
    fn add(&mut self, labels: &str, stats: &ContainerStats, value: Option<f64>) {
        self.0.extend(value.map(|value| format!("{{{labels}}} {value} {}", stats.at.as_millisecond())));
    }

    fn write(&self, text: &mut String, name: &str, kind: &str, help: &str) {
        let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for line in &self.0 {
            let _ = writeln!(text, "{name}{line}");
        }
    }
}

/// Labels and start of every container that runs.
fn started(pod: &Pod) -> Vec<(String, f64)> {
    let id = PodId::of(pod);
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .filter_map(|status| {
            let started = status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0;
            let labels =
                format!("container={:?},namespace={:?},pod={:?}", status.name, id.namespace, id.name);
            Some((labels, started.as_millisecond() as f64 / 1e3))
        })
        .collect()
}

/// What the machine has.
pub(super) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (total, _) = memory_bytes();
    format!(
        "# HELP machine_cpu_cores Number of logical CPU cores.\n# TYPE machine_cpu_cores gauge\nmachine_cpu_cores {cores}\n\
         # HELP machine_memory_bytes Amount of memory installed on the machine.\n# TYPE machine_memory_bytes gauge\n\
         machine_memory_bytes {total}\n"
    )
}

/// The checks of `/healthz`, as numbers.
pub(super) fn health() -> String {
    let mut text =
        "# HELP kubernetes_healthcheck [STABLE] This metric records the result of a single healthcheck.\n\
                    # TYPE kubernetes_healthcheck gauge\n"
            .to_owned();
    for name in ["log", "ping", "syncloop"] {
        let _ = writeln!(text, "kubernetes_healthcheck{{name=\"{name}\",type=\"healthz\"}} 1");
    }
    text
}
