//! Which of a workload's pods is looked at when only one is.

use std::cmp::Reverse;

use jiff::Timestamp;
use podlog_api::Object;

/// The best pod first. Order as `ByLogging` in `k8s.io/kubectl/pkg/util/podutils`, then by name.
pub(super) fn rank(pod: &Object) -> impl Ord + use<> {
    let ready = condition(pod, "Ready").filter(|ready| ready["status"] == "True");
    let ready_since = ready.and_then(|ready| time(ready["lastTransitionTime"].as_str()));
    (
        pod.text("/spec/nodeName").is_empty(),
        phase_rank(pod.text("/status/phase")),
        ready.is_none(),
        ready_since.map_or((1, Timestamp::MAX), |since| (0, since)),
        Reverse(restarts(pod)),
        time(Some(pod.text("/metadata/creationTimestamp"))).unwrap_or(Timestamp::MAX),
        pod.name().to_owned(),
    )
}

fn phase_rank(phase: &str) -> u8 {
    match phase {
        "Pending" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

fn condition<'a>(pod: &'a Object, kind: &str) -> Option<&'a serde_json::Value> {
    pod.array("/status/conditions").iter().find(|condition| condition["type"] == kind)
}

fn restarts(pod: &Object) -> i64 {
    let count = |status: &serde_json::Value| status["restartCount"].as_i64();
    pod.array("/status/containerStatuses").iter().filter_map(count).max().unwrap_or_default()
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready_since: &str, restarts: i64, created: &str) -> Object {
        let ready: Value = if ready_since.is_empty() {
            json!([])
        } else {
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": ready_since}])
        };
        Object(json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": ready, "containerStatuses": [{"restartCount": 0}, {"restartCount": restarts}]},
        }))
    }

    #[test]
    fn the_best_pod_comes_first() {
        let (early, late) = ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z");
        let in_order = [
            pod("ready longest", "n", "Running", early, 0, late),
            pod("restarted most", "n", "Running", late, 7, late),
            pod("older", "n", "Running", late, 0, early),
            pod("by name a", "n", "Running", late, 0, late),
            pod("by name b", "n", "Running", late, 0, late),
            pod("not ready", "n", "Running", "", 9, early),
            pod("not ready, ended", "n", "Succeeded", "", 0, early),
            pod("unknown", "n", "Unknown", early, 0, early),
            pod("pending", "n", "Pending", early, 0, early),
            pod("unassigned", "", "Running", early, 0, early),
        ];
        let mut pods: Vec<&Object> = in_order.iter().rev().collect();
        pods.sort_by_key(|pod| rank(pod));
        let names = |pods: Vec<&Object>| pods.iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(pods), names(in_order.iter().collect()));
    }
}
