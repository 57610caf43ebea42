//! Takes pods off nodes with taints that they do not bear, or no longer: as `pkg/controller/tainteviction`.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::{Value, json};

use super::{
    action::{Action, Event, Severity},
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
    tolerations::{NO_EXECUTE, taints, tolerating},
};
use crate::registry::Part;

const COMPONENT: &str = "taint-eviction-controller";

/// The taint eviction controller.
#[derive(Default)]
pub(crate) struct TaintEviction {
    /// Taints that do not say since when they are there, as kubectl makes them, and since when they have been seen; by the uid of
    /// their node.
    seen: Mutex<HashMap<String, Vec<(Value, Timestamp)>>>,
}

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::pods(), kinds::nodes()]
    }

    fn keys(&self, change: &Change<'_>, objects: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        if change.is_deletion {
            self.seen.lock().remove(change.object.uid());
            return Ok(Vec::new());
        }
        if change.resource.kind == "Pod" {
            let bound = !change.object.text("/spec/nodeName").is_empty();
            let newly =
                change.previous.is_none_or(|previous| previous.at("/spec") != change.object.at("/spec"));
            return Ok(if bound && newly { vec![Key::of(change.object)] } else { Vec::new() });
        }
        if change.previous.is_some_and(|previous| taints(previous) == taints(change.object)) {
            return Ok(Vec::new());
        }
        self.note(change.object, Timestamp::now());
        pods_on(objects, change.object.name())
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(pod) = objects.find(kinds::pods(), &key.namespace, &key.name)? else {
            return Ok(Vec::new());
        };
        let Some(node) = objects.find(kinds::nodes(), "", pod.text("/spec/nodeName"))? else {
            return Ok(Vec::new());
        };
        Ok(decide(&pod, &self.dated(node), now))
    }
}

impl TaintEviction {
    /// Remembers what the node's taints do not say.
    fn note(&self, node: &Object, now: Timestamp) {
        let mut seen = self.seen.lock();
        let before = seen.remove(node.uid()).unwrap_or_default();
        let since =
            |taint: &Value| before.iter().find(|(known, _)| known == taint).map_or(now, |(_, since)| *since);
        let undated = taints(node).iter().filter(|taint| taint["effect"] == NO_EXECUTE && !is_dated(taint));
        let found: Vec<_> = undated.map(|taint| (taint.clone(), since(taint))).collect();
        if !found.is_empty() {
            seen.insert(node.uid().to_owned(), found);
        }
    }

    /// The node with taints that all say since when they are there, as far as that is known.
    fn dated(&self, mut node: Object) -> Object {
        let seen = self.seen.lock();
        let Some(known) = seen.get(node.uid()) else { return node };
        let taints = node.0.pointer_mut("/spec/taints").and_then(Value::as_array_mut);
        for taint in taints.into_iter().flatten() {
            if let Some((_, since)) = known.iter().find(|(known, _)| known == taint) {
                taint["timeAdded"] = json!(since.to_string());
            }
        }
        node
    }
}

fn is_dated(taint: &Value) -> bool {
    taint["timeAdded"].is_string()
}

/// When the pod has to leave the node.
#[derive(Debug, PartialEq)]
enum Stay {
    ForEver,
    Until(Timestamp),
}

fn decide(pod: &Object, node: &Object, now: Timestamp) -> Vec<Action> {
    if pod.is_deleting() {
        return Vec::new();
    }
    match stay(pod, node, now) {
        Stay::ForEver => Vec::new(),
        Stay::Until(time) if time > now => vec![Action::Requeue(until(time, now))],
        Stay::Until(_) => evict(pod, now),
    }
}

fn stay(pod: &Object, node: &Object, now: Timestamp) -> Stay {
    let mut end: Option<Timestamp> = None;
    for taint in taints(node).iter().filter(|taint| taint["effect"] == NO_EXECUTE) {
        let added = taint["timeAdded"].as_str().and_then(|text| text.parse().ok()).unwrap_or(now);
        let mut tolerations = tolerating(pod, taint).peekable();
        let this_end = if tolerations.peek().is_none() {
            Some(now)
        } else {
            // The shortest patience counts; one without a limit limits nothing.
            let limits = tolerations.filter_map(|toleration| toleration["tolerationSeconds"].as_i64());
            limits.min().map(|seconds| plus_seconds(added.max(came(pod)), seconds.max(0)))
        };
        end = [end, this_end].into_iter().flatten().min();
    }
    end.map_or(Stay::ForEver, Stay::Until)
}

/// When the pod was given to its node: whoever comes later is patient from then on.
fn came(pod: &Object) -> Timestamp {
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled["status"] == "True");
    let since = scheduled.and_then(|scheduled| scheduled["lastTransitionTime"].as_str()?.parse().ok());
    since.unwrap_or_else(|| created(pod))
}

fn evict(pod: &Object, now: Timestamp) -> Vec<Action> {
    let mut marked = pod.clone();
    set_condition(
        &mut marked,
        json!({
            "type": "DisruptionTarget",
            "status": "True",
            "lastTransitionTime": time_text(now),
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
        }),
    );
    let event = Event {
        regarding: pod.clone(),
        severity: Severity::Normal,
        reason: "TaintManagerEviction",
        message: format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name()),
        component: COMPONENT,
    };
    let mut actions = vec![Action::Event(event)];
    let status = pod.at("/status/phase").is_some_and(Value::is_string).then_some(marked);
    actions.extend(status.and_then(|marked| Action::update(kinds::pods(), Part::Status, pod, marked)));
    actions.push(Action::delete(kinds::pods(), pod));
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_stay_as_long_as_they_bear_it() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let at = |text: &str| Stay::Until(text.parse().unwrap());
        let lost = json!([{"key": "lost", "effect": "NoExecute", "timeAdded": "2026-01-01T00:09:00Z"}]);
        let bears =
            |seconds: Value| json!([{"key": "lost", "operator": "Exists", "tolerationSeconds": seconds}]);
        let rows = [
            (json!([]), json!([]), Stay::ForEver),
            (json!([{"key": "x", "effect": "NoSchedule"}]), json!([]), Stay::ForEver),
            (lost.clone(), json!([]), Stay::Until(now)),
            (lost.clone(), json!([{"operator": "Exists"}]), Stay::ForEver),
            (lost.clone(), bears(json!(300)), at("2026-01-01T00:14:00Z")),
            (lost.clone(), bears(json!(30)), at("2026-01-01T00:09:30Z")),
            (lost.clone(), bears(json!(-5)), at("2026-01-01T00:09:00Z")),
            (json!([lost[0], {"key": "other", "effect": "NoExecute"}]), bears(json!(300)), Stay::Until(now)),
        ];
        for (taints, tolerations, expected) in rows {
            let node = Object::new(json!({"spec": {"taints": taints}}));
            let pod = Object::new(json!({"spec": {"tolerations": tolerations}}));
            assert_eq!(stay(&pod, &node, now), expected, "{taints} {tolerations}");
        }
    }

    #[test]
    fn patience_begins_when_the_pod_comes() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let taint = json!({"key": "lost", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"});
        let node = Object::new(json!({"spec": {"taints": [taint]}}));
        let bears = json!([{"key": "lost", "operator": "Exists", "tolerationSeconds": 60}]);
        let scheduled =
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:09:30Z"}]);
        for (created, conditions, expected) in [
            ("2025-12-31T00:00:00Z", json!([]), "2026-01-01T00:01:00Z"),
            ("2026-01-01T00:09:00Z", json!([]), "2026-01-01T00:10:00Z"),
            ("2026-01-01T00:09:00Z", scheduled, "2026-01-01T00:10:30Z"),
        ] {
            let pod = json!({"metadata": {"creationTimestamp": created}, "spec": {"tolerations": bears},
                "status": {"conditions": conditions}});
            assert_eq!(stay(&Object::new(pod), &node, now), Stay::Until(expected.parse().unwrap()));
        }
    }

    #[test]
    fn patience_with_a_taint_that_has_no_date_ends() {
        let taint = json!({"key": "lost", "effect": "NoExecute"});
        let bears = json!([{"key": "lost", "operator": "Exists", "tolerationSeconds": 60}]);
        let pod = Object::new(json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": "n", "tolerations": bears}}));
        let node = Object::new(
            json!({"kind": "Node", "metadata": {"name": "n", "uid": "u"}, "spec": {"taints": [taint]}}),
        );
        let (controller, listed) = (TaintEviction::default(), Listed(vec![pod, node.clone()]));
        let change = Change { resource: kinds::nodes(), object: &node, previous: None, is_deletion: false };
        let [key] = &controller.keys(&change, &listed).unwrap()[..] else { panic!("one pod") };
        let waits = |seconds| {
            let now = plus_seconds(Timestamp::now(), seconds);
            matches!(controller.reconcile(key, &listed, now).unwrap()[..], [Action::Requeue(_)])
        };
        assert!(waits(0) && waits(30));
        // The same taint is seen again, with another.
        let mut more = node.clone();
        more.0["spec"]["taints"] = json!([taint, {"key": "x", "effect": "NoSchedule"}]);
        controller.keys(&Change { object: &more, ..change }, &listed).unwrap();
        assert!(!waits(61));
    }

    #[test]
    fn eviction_says_why() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let node = Object::new(json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}));
        let pod = Object::new(
            json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}, "status": {"phase": "Running"}}),
        );
        let actions = decide(&pod, &node, now);
        let [Action::Event(event), Action::Update { object, .. }, Action::Delete { .. }] = &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!(event.message, "Marking for deletion Pod ns/p");
        assert_eq!(condition(object, "DisruptionTarget").unwrap()["reason"], "DeletionByTaintManager");
    }
}
