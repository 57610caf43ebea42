//! Counting pods that have ended, each exactly once.
//!
//! A pod keeps a finalizer until it is counted. First its uid is noted in the status, then the finalizer goes, then the noted
//! uid becomes part of the count: whenever this stops in between, it goes on without counting twice. As
//! `trackJobStatusAndRemoveFinalizers` of `pkg/controller/job`.

use podlog_api::Object;
use serde_json::{Value, json};

use super::indexes;
use crate::controllers::objects::*;

/// What keeps a pod until it is counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Pods noted in one go, which bounds the status.
const MAX_UNCOUNTED: usize = 500;

/// Pods that have ended.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) succeeded: i64,
    pub(super) failed: i64,
    /// Uids noted, but not yet part of the count.
    uncounted: usize,
    /// Ended pods that are not even noted.
    unseen: usize,
    /// Uids of pods that may go once the status is written.
    free: Vec<String>,
}

impl Tally {
    /// Whether the pod may go once the status is written.
    pub(super) fn frees(&self, pod: &Object) -> bool {
        self.free.iter().any(|uid| uid == pod.uid())
    }

    /// Whether every pod that has ended is part of the count.
    pub(super) fn is_settled(&self) -> bool {
        self.uncounted == 0 && self.unseen == 0
    }
}

/// Brings the counts in the job's status up to date.
pub(super) fn count(job: &mut Object, pods: &[Object]) -> Tally {
    let mut tally = Tally {
        succeeded: status_count(job, "succeeded"),
        failed: status_count(job, "failed"),
        ..Tally::default()
    };
    let mut noted = Noted::read(job);
    let still_held = |uid: &Value| pods.iter().any(|pod| *uid == pod.uid() && is_held(pod));
    tally.succeeded += noted.settle(|noted| &mut noted.succeeded, still_held);
    tally.failed += noted.settle(|noted| &mut noted.failed, still_held);
    let indexed = indexes::is_indexed(job);
    for pod in pods.iter().filter(|pod| is_held(pod)) {
        let Some(success) = outcome(job, pod) else { continue };
        if noted.has(pod) || (success && indexed) {
            // Noted before, or remembered by its number.
        } else if noted.len() >= MAX_UNCOUNTED {
            tally.unseen += 1;
            continue;
        } else if success {
            noted.succeeded.push(json!(pod.uid()));
        } else {
            noted.failed.push(json!(pod.uid()));
        }
        tally.free.push(pod.uid().to_owned());
    }
    write_counts(job, &tally, &noted);
    if indexed {
        let completed = indexes::completed(job, pods);
        tally.succeeded = i64::try_from(completed.len()).unwrap_or(i64::MAX);
        indexes::write(job, &completed);
    } else {
        tally.succeeded += noted.succeeded.len() as i64;
    }
    tally.failed += noted.failed.len() as i64;
    tally.uncounted = noted.len();
    tally
}

fn write_counts(job: &mut Object, tally: &Tally, noted: &Noted) {
    let status = job.map_mut("status");
    set_count(status, "succeeded", tally.succeeded);
    set_count(status, "failed", tally.failed);
    let mut uncounted = serde_json::Map::new();
    for (key, uids) in [("succeeded", &noted.succeeded), ("failed", &noted.failed)] {
        if !uids.is_empty() {
            uncounted.insert(key.into(), json!(uids));
        }
    }
    status.insert("uncountedTerminatedPods".into(), Value::Object(uncounted));
}

/// Uids in the status that are not part of the count yet.
#[derive(Default)]
struct Noted {
    succeeded: Vec<Value>,
    failed: Vec<Value>,
}

impl Noted {
    fn read(job: &Object) -> Self {
        let list = |key: &str| job.array(&format!("/status/uncountedTerminatedPods/{key}")).to_vec();
        Noted { succeeded: list("succeeded"), failed: list("failed") }
    }

    /// Takes out the uids of pods that have been let go; how many.
    fn settle(
        &mut self,
        list: fn(&mut Noted) -> &mut Vec<Value>,
        still_held: impl Fn(&Value) -> bool,
    ) -> i64 {
        let uids = list(self);
        let before = uids.len();
        uids.retain(|uid| still_held(uid));
        (before - uids.len()) as i64
    }

    fn has(&self, pod: &Object) -> bool {
        self.succeeded.iter().chain(&self.failed).any(|uid| *uid == pod.uid())
    }

    fn len(&self) -> usize {
        self.succeeded.len() + self.failed.len()
    }
}

fn is_held(pod: &Object) -> bool {
    pod.array("/metadata/finalizers").iter().any(|finalizer| finalizer == FINALIZER)
}

/// Whether the pod ended well; `None` while it runs. A deleted pod has failed, unless only failed ones are replaced.
fn outcome(job: &Object, pod: &Object) -> Option<bool> {
    match pod.text("/status/phase") {
        "Succeeded" => Some(true),
        "Failed" => Some(false),
        _ if pod.is_deleting() && job.text("/spec/podReplacementPolicy") != "Failed" => Some(false),
        _ => None,
    }
}
