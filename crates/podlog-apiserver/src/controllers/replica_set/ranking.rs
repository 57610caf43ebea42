//! Which pods go first when there are too many: as `ActivePodsWithRanks` of `pkg/controller/controller_utils.go`.

use std::cmp::Reverse;

use jiff::Timestamp;
use podlog_api::Object;

use crate::controllers::objects::*;

/// The pods, most expendable first: without node, not running, not ready, cheap to delete, on crowded nodes, ready for a short
/// time, often restarted, young.
pub(super) fn by_expendability<'a>(pods: &[&'a Object], now: Timestamp) -> Vec<&'a Object> {
    let neighbours = |pod: &Object| {
        let node = pod.text("/spec/nodeName");
        pods.iter().filter(|other| !node.is_empty() && other.text("/spec/nodeName") == node).count()
    };
    let mut ranked = pods.to_vec();
    ranked.sort_by_cached_key(|pod| {
        let ready_since = available_from(pod, 0);
        (
            !pod.text("/spec/nodeName").is_empty(),
            phase_rank(pod),
            ready_since.is_some(),
            deletion_cost(pod),
            Reverse(neighbours(pod)),
            // Ages count by magnitude only, so that long-lived pods are not told apart by seconds.
            ready_since.map(|time| magnitude(time, now)),
            Reverse(restarts(pod)),
            magnitude(created(pod), now),
            pod.name().to_owned(),
        )
    });
    ranked
}

fn phase_rank(pod: &Object) -> u8 {
    match pod.text("/status/phase") {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

fn deletion_cost(pod: &Object) -> i32 {
    let cost = pod.annotation("controller.kubernetes.io/pod-deletion-cost");
    cost.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Object) -> i64 {
    let statuses = pod.array("/status/containerStatuses").iter();
    statuses.filter_map(|status| status["restartCount"].as_i64()).max().unwrap_or(0)
}

fn magnitude(time: Timestamp, now: Timestamp) -> u32 {
    let seconds = now.duration_since(time).as_secs();
    u64::try_from(seconds).map_or(0, |seconds| u64::BITS - seconds.leading_zeros())
}
