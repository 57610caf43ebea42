//! Making and deleting the pods of a job.

use std::time::Duration;

use jiff::Timestamp;
use podlog_api::{Object, child_map};
use serde_json::{Value, json};

use super::{
    COMPONENT, indexes,
    tracking::{FINALIZER, Tally},
    without_finalizer,
};
use crate::controllers::{
    action::{Action, Told},
    kinds,
    objects::*,
};

/// Pods made in one go; the rest follows with the next look.
const BURST: usize = 500;
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

/// Brings the number of running pods to what the job wants now.
pub(super) fn scale(
    job: &Object,
    active: &[&Object],
    pods: &[Object],
    tally: &Tally,
    now: Timestamp,
) -> Vec<Action> {
    let wanted = wanted(job, active.len(), tally);
    if active.len() > wanted {
        let mut surplus = active.to_vec();
        surplus.sort_by_key(|pod| (holds(pod, "Ready"), std::cmp::Reverse(created(pod))));
        surplus.truncate(active.len() - wanted);
        return delete(job, &surplus);
    }
    // With the policy `Failed`, a pod is replaced only when it has really ended.
    let ending = pods.iter().filter(|pod| pod.is_deleting() && !is_pod_finished(pod)).count();
    let held_back = if job.text("/spec/podReplacementPolicy") == "Failed" { ending } else { 0 };
    let missing = (wanted - active.len()).saturating_sub(held_back).min(BURST);
    if missing == 0 {
        return Vec::new();
    }
    let wait = backoff(pods, now);
    if !wait.is_zero() {
        return vec![Action::Requeue(wait)];
    }
    if indexes::is_indexed(job) {
        let numbers = indexes::missing(job, active, pods).into_iter().take(missing);
        return numbers.map(|number| create(job, Some(number))).collect();
    }
    vec![create(job, None); missing]
}

fn wanted(job: &Object, active: usize, tally: &Tally) -> usize {
    let parallelism = job.integer("/spec/parallelism").unwrap_or(1);
    let wanted = match job.integer("/spec/completions") {
        Some(completions) => (completions - tally.succeeded).min(parallelism),
        // A work queue: once a pod has found it empty, no new ones.
        None if tally.succeeded > 0 => return active.min(usize::try_from(parallelism).unwrap_or(0)),
        None => parallelism,
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// How long to wait before the next pod: doubled with each failure since the last success.
fn backoff(pods: &[Object], now: Timestamp) -> Duration {
    let last_success = finish_times(pods, "Succeeded").max();
    let failures: Vec<Timestamp> = finish_times(pods, "Failed")
        .filter(|time| last_success.is_none_or(|success| *time > success))
        .collect();
    let Some(last) = failures.iter().max() else { return Duration::ZERO };
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(16);
    let delay = FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF);
    let seconds = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
    until(plus_seconds(*last, seconds), now)
}

fn finish_times<'a>(pods: &'a [Object], phase: &'a str) -> impl Iterator<Item = Timestamp> + 'a {
    pods.iter().filter(move |pod| pod.text("/status/phase") == phase).map(|pod| {
        let statuses = pod.array("/status/containerStatuses").iter();
        let ends = statuses.filter_map(|s| s["state"]["terminated"]["finishedAt"].as_str()?.parse().ok());
        ends.max().unwrap_or_else(|| created(pod))
    })
}

/// Deletes running pods, which then do not count as failed.
pub(super) fn delete(job: &Object, pods: &[&Object]) -> Vec<Action> {
    let told = || Told { regarding: job.clone(), component: COMPONENT };
    let delete = |pod| without_finalizer(pod).into_iter().chain([Action::delete_pod(pod, told())]);
    pods.iter().flat_map(|pod| delete(pod)).collect()
}

fn create(job: &Object, number: Option<i64>) -> Action {
    let mut pod = pod_from_template(&job.0["spec"]["template"], job);
    let finalizers = pod.metadata_mut().entry("finalizers").or_insert_with(|| json!([]));
    if let Value::Array(finalizers) = finalizers {
        finalizers.push(json!(FINALIZER));
    }
    if let Some(number) = number {
        give_number(&mut pod, job, number);
    }
    let told = Some(Told { regarding: job.clone(), component: COMPONENT });
    Action::Create { resource: kinds::pods(), object: pod, told }
}

/// The pod knows its number by label, annotation, host name and environment.
fn give_number(pod: &mut Object, job: &Object, number: i64) {
    let text = json!(number.to_string());
    let name = format!("{}-{number}", job.name());
    pod.metadata_mut().insert("generateName".into(), json!(format!("{name}-")));
    for map in ["labels", "annotations"] {
        child_map(&mut pod.0["metadata"], map).insert(indexes::INDEX.into(), text.clone());
    }
    let spec = pod.map_mut("spec");
    spec.entry("hostname").or_insert(json!(name));
    let variable = json!({
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.labels['{}']", indexes::INDEX)}},
    });
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers {
            let environment = container["env"].as_array().cloned().unwrap_or_default();
            let known = environment.iter().any(|known| known["name"] == variable["name"]);
            if !known {
                let environment: Vec<Value> = environment.into_iter().chain([variable.clone()]).collect();
                container["env"] = json!(environment);
            }
        }
    }
}
