//! Events: one object per thing that happens, counted up when it happens again.
//!
//! Form and aggregation as `k8s.io/client-go/tools/record`.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{Object, Reason};
use serde_json::{Value, json};

use super::{action::Event, kinds, objects::time_text};
use crate::registry::{Part, Registry};

/// Events that are remembered for counting up; when there are more, all are forgotten and written anew.
const MAX_REMEMBERED: usize = 4096;

/// Writes events.
pub(crate) struct Recorder {
    registry: Registry,
    /// Names of events by what they say.
    remembered: Mutex<HashMap<String, String>>,
}

impl Recorder {
    pub(crate) fn new(registry: Registry) -> Self {
        Recorder { registry, remembered: Mutex::default() }
    }

    /// Writes an event. What cannot be written is only logged: events tell, nothing depends on them.
    pub(crate) async fn record(&self, event: Event) {
        let now = Timestamp::now();
        let identity = identity(&event);
        let known = self.remembered.lock().get(&identity).cloned();
        if let Some(name) = known
            && self.count_up(&event, &name, now).await
        {
            return;
        }
        let object = object(&event, now);
        let name = object.name().to_owned();
        match self.registry.create(kinds::events(), namespace(&event.regarding), object).await {
            Ok(_) => {
                let mut remembered = self.remembered.lock();
                if remembered.len() >= MAX_REMEMBERED {
                    remembered.clear();
                }
                remembered.insert(identity, name);
            }
            // Nothing is told any more in a namespace that goes.
            Err(error) if matches!(error.reason, Reason::Forbidden | Reason::NotFound) => {}
            Err(error) => tracing::warn!(%error, reason = event.reason, "cannot write event"),
        }
    }

    async fn count_up(&self, event: &Event, name: &str, now: Timestamp) -> bool {
        let time = time_text(now);
        let is_series = action(event).is_some();
        let change = |object: &mut Object| {
            if is_series {
                let count = object.integer("/series/count").unwrap_or(1) + 1;
                object.0["series"] = json!({"count": count, "lastObservedTime": micro_time(now)});
            } else {
                let count = object.integer("/count").unwrap_or(1) + 1;
                object.0["count"] = json!(count);
                object.0["lastTimestamp"] = json!(time);
            }
            Ok(())
        };
        let namespace = namespace(&event.regarding);
        self.registry.update_with(kinds::events(), namespace, name, Part::Main, change).await.is_ok()
    }
}

/// Events of cluster-scoped objects live in `default`.
fn namespace(regarding: &Object) -> &str {
    if regarding.namespace().is_empty() { "default" } else { regarding.namespace() }
}

/// What the component was doing, where it tells so: such events are of the new kind, and form series
/// (`k8s.io/client-go/tools/events`), as the scheduler's do.
fn action(event: &Event) -> Option<&'static str> {
    match (event.component, event.reason) {
        ("default-scheduler", "Scheduled") => Some("Binding"),
        ("default-scheduler", _) => Some("Scheduling"),
        _ => None,
    }
}

fn micro_time(now: Timestamp) -> String {
    format!("{now:.6}")
}

fn identity(event: &Event) -> String {
    let about = &event.regarding;
    // A series goes on while its words change.
    let message = if action(event).is_some() { "" } else { &event.message };
    [about.kind(), about.namespace(), about.name(), about.uid(), event.component, event.reason, message]
        .join("\0")
}

fn object(event: &Event, now: Timestamp) -> Object {
    let about = &event.regarding;
    let mut involved = json!({
        "apiVersion": about.api_version(),
        "kind": about.kind(),
        "name": about.name(),
        "namespace": about.namespace(),
        "uid": about.uid(),
        "resourceVersion": about.resource_version(),
    });
    if let Value::Object(map) = &mut involved {
        map.retain(|_, value| value != "");
    }
    let mut object = Object::new(json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{:x}", about.name(), now.as_nanosecond()),
            "namespace": namespace(about),
        },
        "involvedObject": involved,
        "reason": event.reason,
        "message": event.message,
        "type": event.severity.as_str(),
        "reportingComponent": event.component,
    }));
    let time = time_text(now);
    let form = match action(event) {
        Some(action) => json!({
            "source": {},
            "action": action,
            "reportingInstance": event.component,
            "firstTimestamp": null,
            "lastTimestamp": null,
            "eventTime": micro_time(now),
        }),
        None => json!({
            "source": {"component": event.component},
            "reportingInstance": "",
            "firstTimestamp": time,
            "lastTimestamp": time,
            "eventTime": null,
            "count": 1,
        }),
    };
    if let (Value::Object(object), Value::Object(form)) = (&mut object.0, form) {
        object.extend(form);
    }
    object
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::controllers::action::Severity;
    use crate::store::RedbStore;

    #[tokio::test]
    async fn what_happens_again_is_counted_or_continues_a_series() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        crate::bootstrap::ensure(&registry).await.unwrap();
        let recorder = Recorder::new(registry.clone());
        let pod = Object::new(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "uid": "u"}}),
        );
        let tell = async |component, reason, message: &str| {
            let (regarding, severity, message) = (pod.clone(), Severity::Warning, message.to_owned());
            recorder.record(Event { regarding, severity, reason, message, component }).await;
        };
        for node in 1..=3 {
            tell("default-scheduler", "FailedScheduling", &format!("0/{node} nodes are available")).await;
        }
        tell("replicaset-controller", "FailedCreate", "no").await;
        tell("replicaset-controller", "FailedCreate", "no").await;
        tell("replicaset-controller", "FailedCreate", "still no").await;
        let mut events = registry.list(kinds::events(), Some("default")).unwrap().0;
        events.sort_by_key(|event| (event.text("/reason").to_owned(), event.text("/message").to_owned()));
        let told: Vec<_> = events
            .iter()
            .map(|event| (event.text("/message"), event.integer("/count"), event.integer("/series/count")))
            .collect();
        assert_eq!(
            told,
            [("no", Some(2), None), ("still no", Some(1), None), ("0/1 nodes are available", None, Some(3))]
        );
        let series = &events[2];
        assert_eq!(
            (series.text("/action"), series.text("/reportingComponent")),
            ("Scheduling", "default-scheduler")
        );
        assert_eq!(series.0["firstTimestamp"], Value::Null);
        let (begin, last) = (series.text("/eventTime"), series.text("/series/lastObservedTime"));
        assert!(begin.parse::<Timestamp>().unwrap() < last.parse().unwrap(), "{begin} {last}");
        assert_eq!(
            (begin.len(), last.len()),
            ("2026-01-01T00:00:00.000000Z".len(), begin.len()),
            "microseconds"
        );
        let new = podlog_api::resource::find("events.k8s.io", "v1", "events").unwrap();
        let shown = registry.get(new, "default", series.name()).unwrap();
        assert_eq!(
            (shown.text("/note"), shown.integer("/series/count")),
            ("0/1 nodes are available", Some(3))
        );
        assert_eq!(shown.text("/reportingController"), "default-scheduler");
    }
}
