//! Which instance of a container a log request is about, from the pod's status.
//!
//! Follows `validateContainerLogStatus` of `pkg/kubelet/kubelet_pods.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use crate::go;

/// Chooses the container's id, `<runtime>://<id>`.
///
/// # Errors
/// The plain text of a 400.
pub(super) fn container_id(
    pod: &str,
    status: &PodStatus,
    container: &str,
    previous: bool,
) -> Result<String, String> {
    let (name, pod) = (go::quote(container), go::quote(pod));
    let Some(found) = find(status, container) else {
        return Err(format!("container {name} in pod {pod} is not available"));
    };
    let state = found.state.as_ref();
    let last_ended = found.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let last_id = last_ended.and_then(|ended| ended.container_id.clone()).filter(|id| !id.is_empty());
    if previous {
        return last_id.ok_or_else(|| format!("previous terminated container {name} in pod {pod} not found"));
    }
    if state.is_some_and(|state| state.running.is_some()) {
        return Ok(found.container_id.clone().unwrap_or_default());
    }
    let over = || format!("container {name} in pod {pod} is terminated");
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let own = ended.container_id.clone().filter(|id| !id.is_empty());
        return own.or(last_id).ok_or_else(over);
    }
    if last_ended.is_some() {
        return last_id.ok_or_else(over);
    }
    Err(match state.and_then(|state| state.waiting.as_ref()) {
        None => format!("container {name} in pod {pod} is waiting to start - no logs yet"),
        Some(waiting) => {
            let reason = match waiting.reason.as_deref().unwrap_or_default() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            format!("container {name} in pod {pod} is waiting to start: {reason}")
        }
    })
}

/// Asks [`nth`] for the newest instance. No restart count is that high.
pub(super) const NEWEST: i64 = i64::MAX;

/// The instance that is asked for by its restart count, or by how many before the newest it is, as a negative number.
pub(super) fn nth(there: &BTreeSet<u32>, asked: i64) -> Option<u32> {
    let newest = *there.last()?;
    let number = match asked {
        NEWEST => i64::from(newest),
        back if back < 0 => i64::from(newest).checked_add(back)?,
        number => number,
    };
    u32::try_from(number).ok().filter(|number| there.contains(number))
}

/// What is said when it is not there.
pub(super) fn unknown_instance(pod: &str, container: &str, asked: i64, there: &BTreeSet<u32>) -> String {
    let (name, pod) = (go::quote(container), go::quote(pod));
    if there.is_empty() {
        return format!("no log of container {name} in pod {pod} is here");
    }
    let all: Vec<String> = there.iter().map(u32::to_string).collect();
    format!("instance {asked} of container {name} in pod {pod} is not here; there are {}", all.join(", "))
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn choose(statuses: Value, previous: bool) -> Result<String, String> {
        let status: PodStatus = serde_json::from_value(json!({ "containerStatuses": statuses })).unwrap();
        container_id("web", &status, "c", previous)
    }

    fn row(state: Value, last: Value) -> Value {
        json!([{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "process://now", "state": state, "lastState": last,
        }])
    }

    #[test]
    fn instances_have_numbers_and_are_counted_back() {
        let there = BTreeSet::from([3, 5, 6]);
        for (asked, expected) in [
            (NEWEST, Some(6)),
            (3, Some(3)),
            (4, None),
            (7, None),
            (-1, Some(5)),
            (-2, None),
            (-3, Some(3)),
            (-7, None),
            (i64::MIN, None),
            (i64::from(u32::MAX) + 4, None),
        ] {
            assert_eq!(nth(&there, asked), expected, "{asked}");
        }
        assert_eq!(nth(&BTreeSet::new(), NEWEST), None);
        let text = unknown_instance("web", "c", 4, &there);
        assert_eq!(text, r#"instance 4 of container "c" in pod "web" is not here; there are 3, 5, 6"#);
    }

    #[test]
    fn the_first_match_wins() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let err = |text: &str| Err(format!(r#"container "c" in pod "web" is {text}"#));
        let ok = |id: &str| Ok(format!("process://{id}"));
        let gone = Err(r#"previous terminated container "c" in pod "web" not found"#.to_owned());
        for (statuses, previous, expected) in [
            (json!([]), false, err("not available")),
            (json!([]), true, err("not available")),
            (row(json!({"running": {}}), json!({})), false, ok("now")),
            (row(json!({"running": {}}), ended("process://old")), true, ok("old")),
            (row(json!({"running": {}}), json!({})), true, gone.clone()),
            (row(json!({"running": {}}), ended("")), true, gone.clone()),
            (row(ended("process://end"), json!({})), false, ok("end")),
            (row(ended(""), ended("process://old")), false, ok("old")),
            (row(ended(""), ended("")), false, err("terminated")),
            (row(ended(""), json!({})), false, err("terminated")),
            (row(waiting("CrashLoopBackOff"), ended("process://old")), false, ok("old")),
            (row(waiting("CrashLoopBackOff"), ended("process://old")), true, ok("old")),
            (row(waiting("CrashLoopBackOff"), ended("")), false, err("terminated")),
            (row(waiting("ErrImagePull"), json!({})), false, err("waiting to start: image can't be pulled")),
            (
                row(waiting("ImagePullBackOff"), json!({})),
                false,
                err("waiting to start: trying and failing to pull image"),
            ),
            (row(waiting("ContainerCreating"), json!({})), false, err("waiting to start: ContainerCreating")),
            (row(waiting("ContainerCreating"), json!({})), true, gone),
            (row(json!({}), json!({})), false, err("waiting to start - no logs yet")),
        ] {
            assert_eq!(choose(statuses.clone(), previous), expected, "{statuses} {previous}");
        }
    }
}
