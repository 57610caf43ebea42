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
        let change = |object: &mut Object| {
            let count = object.integer("/count").unwrap_or(1) + 1;
            object.0["count"] = json!(count);
            object.0["lastTimestamp"] = json!(time);
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

fn identity(event: &Event) -> String {
    let about = &event.regarding;
    [
        about.kind(),
        about.namespace(),
        about.name(),
        about.uid(),
        event.component,
        event.reason,
        &event.message,
    ]
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
    let time = time_text(now);
    Object::new(json!({
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
        "source": {"component": event.component},
        "reportingComponent": event.component,
        "reportingInstance": "",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "eventTime": null,
        "count": 1,
    }))
}
