//! The node's numbers for metrics servers: `/metrics/resource`, and what `/metrics/cadvisor` says of the machine.
//!
//! Names as `pkg/kubelet/metrics/collectors/resource_metrics.go` and cAdvisor's. What single containers use is the runtime's to
//! know and is not asked for.

use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::summary::{cpu_nanos, memory_bytes};
use crate::pods::PodId;

/// What the node uses, and since when its containers run.
pub(super) fn resource(pods: &[Arc<Pod>]) -> String {
    let (total, available) = memory_bytes();
    let mut text = String::new();
    let cpu = cpu_nanos().unwrap_or_default() as f64 / 1e9;
    let gauge = |text: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
    };
    gauge(
        &mut text,
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    for (labels, started) in pods.iter().flat_map(|pod| started(pod)) {
        let _ = writeln!(text, "container_start_time_seconds{{{labels}}} {started}");
    }
    let name = "node_cpu_usage_seconds_total";
    gauge(&mut text, name, "counter", "Cumulative cpu time consumed by the node in core-seconds");
    let _ = writeln!(text, "{name} {cpu}");
    let name = "node_memory_working_set_bytes";
    gauge(&mut text, name, "gauge", "Current working set of the node in bytes");
    let _ = writeln!(text, "{name} {}", total.saturating_sub(available));
    let name = "resource_scrape_error";
    gauge(&mut text, name, "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    let _ = writeln!(text, "{name} 0");
    text
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
