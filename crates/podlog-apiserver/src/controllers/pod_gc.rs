//! Removes pods whose node no longer exists: as `pkg/controller/podgc`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::json;

use super::{
    action::Action,
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
};
use crate::registry::Part;

/// A node may be registered anew; its pods are given this long.
const QUARANTINE: Duration = Duration::from_secs(40);

/// The pod garbage collector.
#[derive(Default)]
pub(crate) struct PodGc {
    /// Since when nodes have been seen missing, by name.
    missing: Mutex<HashMap<String, Instant>>,
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::pods(), kinds::nodes()]
    }

    fn keys(&self, change: &Change<'_>, objects: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        if change.resource.kind == "Pod" {
            let bound = !change.is_deletion && !change.object.text("/spec/nodeName").is_empty();
            let newly = change.previous.is_none_or(|previous| previous.text("/spec/nodeName").is_empty());
            return Ok(if bound && newly { vec![Key::of(change.object)] } else { Vec::new() });
        }
        let (name, mut missing) = (change.object.name(), self.missing.lock());
        if !change.is_deletion {
            missing.remove(name);
            return Ok(Vec::new());
        }
        // From now on, whatever became of one of its name before.
        missing.insert(name.to_owned(), Instant::now());
        drop(missing);
        pods_on(objects, name)
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(pod) = objects.find(kinds::pods(), &key.namespace, &key.name)? else {
            return Ok(Vec::new());
        };
        let node = pod.text("/spec/nodeName");
        if node.is_empty() || objects.find(kinds::nodes(), "", node)?.is_some() {
            self.missing.lock().remove(node);
            return Ok(Vec::new());
        }
        let since = *self.missing.lock().entry(node.to_owned()).or_insert_with(Instant::now);
        Ok(decide(&pod, since.elapsed(), now))
    }
}

fn decide(pod: &Object, missing_for: Duration, now: Timestamp) -> Vec<Action> {
    if missing_for < QUARANTINE {
        return vec![Action::Requeue(QUARANTINE - missing_for)];
    }
    let mut failed = pod.clone();
    if !is_pod_finished(pod) {
        failed.map_mut("status").insert("phase".into(), json!("Failed"));
        set_condition(
            &mut failed,
            json!({
                "type": "DisruptionTarget",
                "status": "True",
                "lastTransitionTime": time_text(now),
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
            }),
        );
    }
    let mut actions: Vec<Action> =
        Action::update(kinds::pods(), Part::Status, pod, failed).into_iter().collect();
    actions.push(Action::Delete {
        resource: kinds::pods(),
        object: pod.clone(),
        grace_period_seconds: Some(0),
        propagation: None,
        told: None,
    });
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_go_some_time_after_their_node() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pod =
            Object::new(json!({"kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": "Running"}}));
        let early = decide(&pod, Duration::from_secs(10), now);
        assert_eq!(early, [Action::Requeue(Duration::from_secs(30))]);
        let late = decide(&pod, QUARANTINE, now);
        let [Action::Update { object, .. }, Action::Delete { grace_period_seconds: Some(0), .. }] = &late[..]
        else {
            panic!("{late:?}")
        };
        assert_eq!(object.0["status"]["phase"], "Failed");
        let done =
            Object::new(json!({"metadata": {"name": "p"}, "kind": "Pod", "status": {"phase": "Succeeded"}}));
        assert_eq!(decide(&done, QUARANTINE, now).len(), 1);
    }

    #[test]
    fn a_node_that_came_back_is_missed_from_when_it_went_last() {
        let collector = PodGc::default();
        let pod =
            json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": "n"}});
        let pods = Listed(vec![Object::new(pod)]);
        let key = Key::named("ns", "p");
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let long_ago = Instant::now().checked_sub(QUARANTINE).unwrap();
        let node = Object::new(json!({"kind": "Node", "metadata": {"name": "n"}}));
        let happens = |is_deletion| {
            let (resource, object) = (kinds::nodes(), &node);
            collector.keys(&Change { resource, object, previous: None, is_deletion }, &pods).unwrap()
        };
        let waits = || matches!(collector.reconcile(&key, &pods, now).unwrap()[..], [Action::Requeue(_)]);
        collector.missing.lock().insert("n".into(), long_ago);
        assert!(!waits());
        assert_eq!(happens(false), []);
        assert!(waits());
        collector.missing.lock().insert("n".into(), long_ago);
        assert_eq!(happens(true), std::slice::from_ref(&key));
        assert!(waits());
    }
}
