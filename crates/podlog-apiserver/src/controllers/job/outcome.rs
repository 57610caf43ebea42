//! When a job has succeeded or failed, and the conditions that say so.

use jiff::Timestamp;
use podlog_api::Object;
use serde_json::json;

use super::tracking::Tally;
use crate::controllers::objects::*;

/// Why a job succeeds: reason and message.
pub(super) const COMPLETIONS_REACHED: (&str, &str) =
    ("CompletionsReached", "Reached expected number of succeeded pods");
const BACKOFF: &str = "BackoffLimitExceeded";
const DEADLINE: &str = "DeadlineExceeded";

/// Whether the job has ended for good.
pub(super) fn is_over(job: &Object) -> bool {
    holds(job, "Complete") || holds(job, "Failed")
}

/// Whether it is clear how the job ends, though pods may still have to.
pub(super) fn is_decided(job: &Object) -> bool {
    holds(job, "SuccessCriteriaMet") || holds(job, "FailureTarget")
}

/// When the job ended.
pub(super) fn ended(job: &Object) -> Option<Timestamp> {
    let over = ["Complete", "Failed"].into_iter().filter(|name| holds(job, name));
    let mut times =
        over.filter_map(|name| condition(job, name)?["lastTransitionTime"].as_str()?.parse().ok());
    times.next()
}

/// When the job will have taken too long.
pub(super) fn deadline(job: &Object) -> Option<Timestamp> {
    let seconds = job.integer("/spec/activeDeadlineSeconds")?;
    Some(plus_seconds(time_at(job, "/status/startTime")?, seconds))
}

/// Why the job fails now, if it does: reason and message.
pub(super) fn failure(
    job: &Object,
    pods: &[Object],
    tally: &Tally,
    now: Timestamp,
) -> Option<(&'static str, &'static str)> {
    let limit = job.integer("/spec/backoffLimit").unwrap_or(6);
    if tally.failed > limit || restarts_too_often(job, pods, limit) {
        return Some((BACKOFF, "Job has reached the specified backoff limit"));
    }
    let late = deadline(job).is_some_and(|deadline| deadline <= now);
    late.then_some((DEADLINE, "Job was active longer than specified deadline"))
}

/// With `restartPolicy: OnFailure` pods do not fail, their containers restart: those count.
fn restarts_too_often(job: &Object, pods: &[Object], limit: i64) -> bool {
    if job.text("/spec/template/spec/restartPolicy") != "OnFailure" {
        return false;
    }
    let running = pods.iter().filter(|pod| matches!(pod.text("/status/phase"), "Running" | "Pending"));
    let statuses = running.flat_map(|pod| {
        pod.array("/status/initContainerStatuses").iter().chain(pod.array("/status/containerStatuses"))
    });
    let restarts: i64 = statuses.filter_map(|status| status["restartCount"].as_i64()).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// Whether enough pods have succeeded. Without a number of completions, one success is enough once all pods have ended.
pub(super) fn succeeds(job: &Object, tally: &Tally, active: usize) -> bool {
    match job.integer("/spec/completions") {
        Some(completions) => tally.succeeded >= completions,
        None => tally.succeeded > 0 && active == 0,
    }
}

/// The reason of the event that tells about a failure.
pub(super) fn failure_reason(reason: &str) -> &'static str {
    if reason == DEADLINE { DEADLINE } else { BACKOFF }
}

pub(super) fn set(job: &mut Object, name: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
    let time = time_text(now);
    set_condition(
        job,
        json!({"type": name, "status": status, "lastProbeTime": time, "lastTransitionTime": time, "reason": reason, "message": message}),
    );
}
