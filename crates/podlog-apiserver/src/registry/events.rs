//! Events are one stored kind that two API groups show: `v1` and `events.k8s.io/v1`.
//!
//! Field pairs as `pkg/apis/events/v1/conversion.go`.

use podlog_api::Object;
use podlog_api::resource::Resource;
use serde_json::{Map, Value, json};

/// `(core v1, events.k8s.io/v1)` names of the same field.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Core form, which is what is stored.
pub(super) fn to_stored(resource: &Resource, object: Object) -> Object {
    if is_new_form(resource) { convert(object, "v1", |(core, new)| (new, core)) } else { object }
}

/// The form of the group that was asked.
pub(super) fn from_stored(resource: &Resource, object: Object) -> Object {
    if is_new_form(resource) { convert(object, "events.k8s.io/v1", |pair| pair) } else { object }
}

pub(super) fn is_new_form(resource: &Resource) -> bool {
    resource.kind == "Event" && resource.group == "events.k8s.io"
}

fn convert(
    object: Object,
    api_version: &str,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Object {
    let Value::Object(map) = object.0 else { return object };
    let rename = |key: String| {
        let found = RENAMED.iter().map(|pair| direction(*pair)).find(|(from, _)| *from == key);
        found.map_or(key, |(_, to)| to.to_owned())
    };
    let mut converted: Map<String, Value> =
        map.into_iter().map(|(key, value)| (rename(key), value)).collect();
    converted.insert("apiVersion".into(), json!(api_version));
    Object::new(Value::Object(converted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_the_same() {
        let new = podlog_api::resource::find("events.k8s.io", "v1", "events").unwrap();
        let core = podlog_api::resource::find("", "v1", "events").unwrap();
        let sent = Object::new(json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"kind": "Pod"}, "reason": "r",
            "reportingController": "c", "reportingInstance": "i", "deprecatedCount": 2, "eventTime": "t", "type": "Normal"
        }));
        let stored = to_stored(new, sent.clone());
        assert_eq!(
            stored.0,
            json!({"apiVersion": "v1", "kind": "Event", "message": "n", "involvedObject": {"kind": "Pod"}, "reason": "r",
                "reportingComponent": "c", "reportingInstance": "i", "count": 2, "eventTime": "t", "type": "Normal"})
        );
        assert_eq!(from_stored(new, stored.clone()), sent);
        assert_eq!(from_stored(core, stored.clone()), stored);
    }
}
