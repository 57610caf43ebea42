//! The row of a pod: its status is condensed from phase, conditions and every container.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age::since, cells::text_or};
use crate::Object;

pub(super) fn cells(pod: &Object, now: Timestamp) -> Vec<Value> {
    let view = summarize(pod);
    let restarts = match &view.last_restart {
        Some(last) if view.restarts != 0 => format!("{} ({} ago)", view.restarts, since(Some(last), now)),
        _ => view.restarts.to_string(),
    };
    vec![
        json!(pod.name()),
        json!(format!("{}/{}", view.ready, view.total)),
        json!(view.reason),
        json!(restarts),
        json!(since(pod.at("/metadata/creationTimestamp"), now)),
        text_or(pod.text("/status/podIPs/0/ip"), "<none>"),
        text_or(pod.text("/spec/nodeName"), "<none>"),
        text_or(pod.text("/status/nominatedNodeName"), "<none>"),
        json!(readiness_gates(pod)),
    ]
}

#[derive(Default)]
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Value>,
    reason: String,
}

impl Summary {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or_default();
        let finished = &container["lastState"]["terminated"]["finishedAt"];
        if finished.as_str() > self.last_restart.as_ref().and_then(Value::as_str) {
            self.last_restart = Some(finished.clone());
        }
    }
}

fn summarize(pod: &Object) -> Summary {
    let sidecars = pod.array("/spec/initContainers").iter().filter(|c| is_sidecar(c)).count();
    let mut view = Summary {
        total: pod.array("/spec/containers").len() + sidecars,
        reason: initial_reason(pod),
        ..Summary::default()
    };
    let init_reason = add_init_containers(pod, &mut view);
    if let Some(reason) = &init_reason {
        view.reason.clone_from(reason);
    }
    if init_reason.is_none() || has_condition(pod, "Initialized") {
        add_containers(pod, &mut view);
    }
    let finished = matches!(pod.text("/status/phase"), "Succeeded" | "Failed");
    if pod.is_deleting() && pod.text("/status/reason") == "NodeLost" {
        view.reason = "Unknown".into();
    } else if pod.is_deleting() && !finished {
        view.reason = "Terminating".into();
    }
    view
}

fn initial_reason(pod: &Object) -> String {
    let gated = |c: &Value| {
        c["type"].as_str() == Some("PodScheduled") && c["reason"].as_str() == Some("SchedulingGated")
    };
    if pod.array("/status/conditions").iter().any(gated) {
        return "SchedulingGated".into();
    }
    let reason = pod.text("/status/reason");
    if reason.is_empty() { pod.text("/status/phase").into() } else { reason.into() }
}

/// Counts init containers up to the first that is not done; says what the pod waits for, if it is still initializing.
fn add_init_containers(pod: &Object, view: &mut Summary) -> Option<String> {
    let specs = pod.array("/spec/initContainers");
    for (index, container) in pod.array("/status/initContainerStatuses").iter().enumerate() {
        view.count_restarts(container);
        let sidecar = specs.iter().any(|spec| spec["name"] == container["name"] && is_sidecar(spec));
        let terminated = container["state"].get("terminated").filter(|state| !state.is_null());
        if terminated.is_some_and(|state| exit_code(state) == 0) {
            continue;
        }
        if sidecar && container["started"] == true {
            view.ready += usize::from(container["ready"] == true);
            continue;
        }
        let waiting = container["state"]["waiting"]["reason"].as_str().unwrap_or_default();
        return Some(match terminated {
            Some(state) => format!("Init:{}", ended(state)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", specs.len()),
        });
    }
    None
}

fn add_containers(pod: &Object, view: &mut Summary) {
    // Once initialized, only sidecars among the init containers still count as restarting.
    let specs = pod.array("/spec/initContainers");
    (view.restarts, view.last_restart) = (0, None);
    for container in pod.array("/status/initContainerStatuses") {
        if specs.iter().any(|spec| spec["name"] == container["name"] && is_sidecar(spec)) {
            view.count_restarts(container);
        }
    }
    let mut running = false;
    for container in pod.array("/status/containerStatuses").iter().rev() {
        view.count_restarts(container);
        let state = &container["state"];
        let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
        if !waiting.is_empty() {
            view.reason = waiting.into();
        } else if state["terminated"].is_object() {
            view.reason = ended(&state["terminated"]);
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            view.ready += 1;
        }
    }
    if view.reason == "Completed" && running {
        view.reason = if has_condition(pod, "Ready") { "Running".into() } else { "NotReady".into() };
    }
}

/// Why a container ended: its reason, else its signal, else its exit code.
fn ended(terminated: &Value) -> String {
    let signal = terminated["signal"].as_i64().unwrap_or_default();
    match terminated["reason"].as_str().unwrap_or_default() {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", exit_code(terminated)),
        reason => reason.into(),
    }
}

fn exit_code(terminated: &Value) -> i64 {
    terminated["exitCode"].as_i64().unwrap_or_default()
}

fn is_sidecar(init_container: &Value) -> bool {
    init_container["restartPolicy"] == "Always"
}

fn has_condition(pod: &Object, name: &str) -> bool {
    pod.array("/status/conditions").iter().any(|c| c["type"] == name && c["status"] == "True")
}

fn readiness_gates(pod: &Object) -> String {
    let gates = pod.array("/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&Value| gate["conditionType"].as_str().is_some_and(|name| has_condition(pod, name));
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}
