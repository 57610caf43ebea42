//! Removes events an hour after they were last written, as the API server's `--event-ttl` does, from stores that do not do
//! so themselves.

use jiff::Timestamp;
use podlog_api::{ApiError, Object, resource::Resource};

use super::{
    action::Action,
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
};
use crate::registry::EVENT_TTL;

/// The controller of events' end.
pub(crate) struct EventTtl;

impl Controller for EventTtl {
    fn name(&self) -> &'static str {
        "event-ttl"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::events()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        // A key that waits is due at the earlier time, and looks when it is really over.
        Ok(if change.is_deletion || change.previous.is_some() {
            Vec::new()
        } else {
            vec![Key::of(change.object)]
        })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let event = objects.find(kinds::events(), &key.namespace, &key.name)?;
        Ok(event.map(|event| decide(&event, now)).into_iter().collect())
    }
}

fn decide(event: &Object, now: Timestamp) -> Action {
    let end = plus_seconds(last_written(event), EVENT_TTL.as_secs().cast_signed());
    if end <= now { Action::delete(kinds::events(), event) } else { Action::Requeue(until(end, now)) }
}

fn last_written(event: &Object) -> Timestamp {
    let pointers =
        ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    pointers.iter().filter_map(|pointer| time_at(event, pointer)).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn events_go_an_hour_after_they_happened_last() {
        let now: Timestamp = "2026-01-01T02:00:00Z".parse().unwrap();
        let minutes = |minutes: u64| Action::Requeue(Duration::from_secs(60 * minutes));
        let rows = [
            (json!({"lastTimestamp": "2026-01-01T01:30:00Z"}), Some(minutes(30))),
            (json!({"lastTimestamp": "2026-01-01T01:00:00Z"}), None),
            (json!({"eventTime": "2026-01-01T01:59:00.000000Z", "lastTimestamp": null}), Some(minutes(59))),
            (
                json!({"series": {"lastObservedTime": "2026-01-01T01:01:00.5Z"}, "lastTimestamp": "2026-01-01T00:01:00Z"}),
                Some(Action::Requeue(Duration::from_millis(60_500))),
            ),
            (json!({"metadata": {"creationTimestamp": "2026-01-01T00:01:00Z"}}), None),
            (json!({}), None),
        ];
        for (event, expected) in rows {
            let event = Object::new(event);
            let expected = expected.unwrap_or_else(|| Action::delete(kinds::events(), &event));
            assert_eq!(decide(&event, now), expected, "{event:?}");
        }
    }
}
