//! The rows of kinds that make pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    age::{human_duration, seconds_between, since},
    cells::{label_text, selector_text},
};
use crate::Object;
use crate::resource::split_api_version;

pub(super) fn deployment(object: &Object, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        json!(object.name()),
        json!(ready_of_wanted(object)),
        json!(count(object, "/status/updatedReplicas")),
        json!(count(object, "/status/availableReplicas")),
        age(object, now),
    ];
    cells.extend(template(object));
    cells.push(json!(selector_text(object.at("/spec/selector"))));
    cells
}

pub(super) fn replica_set(object: &Object, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        json!(object.name()),
        json!(count(object, "/spec/replicas")),
        json!(count(object, "/status/replicas")),
        json!(count(object, "/status/readyReplicas")),
        age(object, now),
    ];
    cells.extend(template(object));
    cells.push(json!(selector_text(object.at("/spec/selector"))));
    cells
}

pub(super) fn stateful_set(object: &Object, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![json!(object.name()), json!(ready_of_wanted(object)), age(object, now)];
    cells.extend(template(object));
    cells
}

pub(super) fn daemon_set(object: &Object, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        json!(object.name()),
        json!(count(object, "/status/desiredNumberScheduled")),
        json!(count(object, "/status/currentNumberScheduled")),
        json!(count(object, "/status/numberReady")),
        json!(count(object, "/status/updatedNumberScheduled")),
        json!(count(object, "/status/numberAvailable")),
        json!(label_text(object.at("/spec/template/spec/nodeSelector"))),
        age(object, now),
    ];
    cells.extend(template(object));
    cells.push(json!(selector_text(object.at("/spec/selector"))));
    cells
}

pub(super) fn revision(object: &Object, now: Timestamp) -> Vec<Value> {
    let owner = object.array("/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
    let owner = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let text = |key: &str| owner[key].as_str().unwrap_or_default();
            let (group, _) = split_api_version(text("apiVersion"));
            let kind = text("kind").to_lowercase();
            if group.is_empty() {
                format!("{kind}/{}", text("name"))
            } else {
                format!("{kind}.{group}/{}", text("name"))
            }
        },
    );
    vec![json!(object.name()), json!(owner), json!(count(object, "/revision")), age(object, now)]
}

pub(super) fn scale(object: &Object, now: Timestamp) -> Vec<Value> {
    let counts = ["/spec/replicas", "/status/replicas"].map(|path| json!(count(object, path)));
    [vec![json!(object.name())], counts.to_vec(), vec![age(object, now)]].concat()
}

pub(super) fn job(object: &Object, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        json!(object.name()),
        json!(job_status(object)),
        json!(job_completions(object)),
        json!(job_duration(object, now)),
        age(object, now),
    ];
    cells.extend(template(object));
    cells.push(json!(selector_text(object.at("/spec/selector"))));
    cells
}

fn job_status(job: &Object) -> &'static str {
    let holds = |name: &str| {
        let condition = job.array("/status/conditions").iter().find(|condition| condition["type"] == name);
        condition.is_some_and(|condition| condition["status"] == "True")
    };
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if job.is_deleting() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn job_completions(job: &Object) -> String {
    let succeeded = count(job, "/status/succeeded");
    let parallelism = count(job, "/spec/parallelism");
    match job.integer("/spec/completions") {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn job_duration(job: &Object, now: Timestamp) -> String {
    let time = |pointer| job.text(pointer).parse::<Timestamp>().ok();
    let Some(start) = time("/status/startTime") else { return String::new() };
    human_duration(seconds_between(start, time("/status/completionTime").unwrap_or(now)))
}

fn ready_of_wanted(object: &Object) -> String {
    format!("{}/{}", count(object, "/status/readyReplicas"), count(object, "/spec/replicas"))
}

/// Names and images of the template's containers.
fn template(object: &Object) -> [Value; 2] {
    let list = |key: &str| {
        let containers = object.array("/spec/template/spec/containers").iter();
        let texts: Vec<&str> = containers.map(|c| c[key].as_str().unwrap_or_default()).collect();
        json!(texts.join(","))
    };
    [list("name"), list("image")]
}

fn age(object: &Object, now: Timestamp) -> Value {
    json!(since(object.at("/metadata/creationTimestamp"), now))
}

fn count(object: &Object, pointer: &str) -> i64 {
    object.integer(pointer).unwrap_or_default()
}
