//! Removes requests that nobody needs any more (`cleaner/cleaner.go`).

use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object};

use super::super::action::Action;
use super::super::kinds;
use super::super::objects::{Objects, condition, created, plus_seconds, until};
use super::super::runner::{Change, Controller, Key};
use super::{has, is_issued};
use crate::registry::certificates::issued_until;

/// Requests that are decided, issued or failed go an hour later,
const DECIDED_SECONDS: i64 = 60 * 60;
/// those that nobody has decided a day after they were made.
const PENDING_SECONDS: i64 = 24 * 60 * 60;

/// The controller that removes.
pub(in super::super) struct Cleaner;

impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "csrcleaner"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::certificate_requests()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        Ok(if change.is_deletion { Vec::new() } else { vec![Key::of(change.object)] })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let request = objects.find(kinds::certificate_requests(), "", &key.name)?;
        Ok(request.and_then(|request| decide(&request, now)).into_iter().collect())
    }
}

fn decide(request: &Object, now: Timestamp) -> Option<Action> {
    let end = end(request)?;
    Some(if end <= now {
        Action::delete(kinds::certificate_requests(), request)
    } else {
        Action::Requeue(until(end, now))
    })
}

/// When the request is to go; `None` while somebody may still sign it.
fn end(request: &Object) -> Option<Timestamp> {
    let decided = |kind: &str| {
        let since = condition(request, kind)?["lastUpdateTime"].as_str()?.parse().ok()?;
        Some(plus_seconds(since, DECIDED_SECONDS))
    };
    let pending = !has(request, "Approved") && !has(request, "Denied") && !has(request, "Failed");
    let issued = is_issued(request);
    let ends = [
        pending.then(|| plus_seconds(created(request), PENDING_SECONDS)),
        decided("Denied"),
        decided("Failed"),
        if issued { decided("Approved") } else { None },
        if issued { issued_until(request) } else { None },
    ];
    ends.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn requests_go_when_they_are_done() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let status = |kind: &str, certificate: &str| {
            json!({"certificate": certificate,
                "conditions": [{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T12:00:00Z"}]})
        };
        let rows: [(Value, Option<Timestamp>); 5] = [
            (json!({}), at("2026-01-02T00:00:00Z")),
            (status("Denied", ""), at("2026-01-01T13:00:00Z")),
            (status("Failed", ""), at("2026-01-01T13:00:00Z")),
            (status("Approved", ""), None),
            (status("Approved", "eA=="), at("2026-01-01T13:00:00Z")),
        ];
        for (status, expected) in rows {
            let request = Object::new(
                json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status}),
            );
            assert_eq!(end(&request), expected, "{request:?}");
        }
        let request = Object::new(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}));
        assert!(matches!(decide(&request, at("2026-01-01T23:00:00Z").unwrap()), Some(Action::Requeue(_))));
        assert!(matches!(decide(&request, at("2026-01-02T00:00:00Z").unwrap()), Some(Action::Delete { .. })));
    }
}
