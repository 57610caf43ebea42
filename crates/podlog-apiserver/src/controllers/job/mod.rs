//! Runs pods to completion: as `pkg/controller/job`.

mod indexes;
mod outcome;
mod pods;
mod tracking;

use jiff::Timestamp;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::{Value, json};

use super::{
    action::{Action, Event, Severity},
    claim::claimed,
    kinds,
    objects::*,
    runner::{Change, Controller, Key, owner_key},
};
use crate::registry::Part;
use tracking::{FINALIZER, Tally};

const COMPONENT: &str = "job-controller";

/// The Job controller.
pub(crate) struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::jobs(), kinds::pods()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        Ok(match change.resource.kind {
            "Job" => vec![Key::of(change.object)],
            _ => owner_key(change.object, "Job").into_iter().collect(),
        })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        match objects.find(kinds::jobs(), &key.namespace, &key.name)? {
            Some(job) => {
                let claimed = claimed(&job, kinds::pods(), objects)?;
                let mut actions = claimed.actions;
                actions.extend(reconcile(&job, &claimed.owned, now));
                Ok(actions)
            }
            None => {
                let keep = |pod: Object| (owner_key(&pod, "Job").as_ref() == Some(key)).then_some(pod);
                let may = mentions(&key.name);
                Ok(release(&objects.select(kinds::pods(), Some(&key.namespace), &may, &keep)?))
            }
        }
    }
}

/// What to do about a job and its pods.
fn reconcile(job: &Object, pods: &[Object], now: Timestamp) -> Vec<Action> {
    if outcome::is_over(job) {
        let mut actions = release(pods);
        actions.extend(expire(job, now));
        return actions;
    }
    if job.is_deleting() {
        return release(pods);
    }
    let mut run = Run::new(job, pods, now);
    run.note_start();
    run.judge();
    let work = run.work();
    run.count_pods();
    run.finish();
    run.into_actions(work)
}

/// A job and its pods while it is decided what comes next.
struct Run<'a> {
    before: &'a Object,
    /// The job as it will be.
    job: Object,
    pods: &'a [Object],
    tally: Tally,
    told: Vec<Action>,
    now: Timestamp,
}

impl<'a> Run<'a> {
    fn new(before: &'a Object, pods: &'a [Object], now: Timestamp) -> Self {
        let mut job = before.clone();
        let tally = tracking::count(&mut job, pods);
        Run { before, job, pods, tally, told: Vec::new(), now }
    }

    fn active(&self) -> Vec<&'a Object> {
        self.pods.iter().filter(|pod| is_pod_active(pod)).collect()
    }

    fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| pod.is_deleting() && !is_pod_finished(pod)).count()
    }

    fn is_suspended(&self) -> bool {
        self.job.at("/spec/suspend") == Some(&Value::Bool(true))
    }

    fn note_start(&mut self) {
        let started = self.job.at("/status/startTime").is_some();
        let now = json!(time_text(self.now));
        let known = condition(&self.job, "Suspended").is_some();
        if self.is_suspended() {
            self.job.map_mut("status").remove("startTime");
            if !holds(&self.job, "Suspended") {
                outcome::set(&mut self.job, "Suspended", "True", "JobSuspended", "Job suspended", self.now);
                self.tell(Severity::Normal, "Suspended", "Job suspended".into());
            }
            return;
        }
        if known && holds(&self.job, "Suspended") {
            outcome::set(&mut self.job, "Suspended", "False", "JobResumed", "Job resumed", self.now);
            self.tell(Severity::Normal, "Resumed", "Job resumed".into());
        }
        if !started {
            self.job.map_mut("status").insert("startTime".into(), now);
        }
    }

    /// Decides whether the job has succeeded or failed, if that is not decided yet.
    fn judge(&mut self) {
        if outcome::is_decided(&self.job) || self.is_suspended() {
            return;
        }
        if let Some((reason, message)) = outcome::failure(&self.job, self.pods, &self.tally, self.now) {
            outcome::set(&mut self.job, "FailureTarget", "True", reason, message, self.now);
        } else if outcome::succeeds(&self.job, &self.tally, self.active().len()) {
            let (reason, message) = outcome::COMPLETIONS_REACHED;
            outcome::set(&mut self.job, "SuccessCriteriaMet", "True", reason, message, self.now);
        }
    }

    /// Pods to make and to delete.
    fn work(&self) -> Vec<Action> {
        if self.is_suspended() || outcome::is_decided(&self.job) {
            return pods::delete(&self.job, &self.active());
        }
        pods::scale(&self.job, &self.active(), self.pods, &self.tally, self.now)
    }

    fn count_pods(&mut self) {
        let active = self.active();
        let ready = active.iter().filter(|pod| holds(pod, "Ready")).count();
        let terminating = self.terminating();
        let counts = [("active", active.len()), ("ready", ready), ("terminating", terminating)];
        let status = self.job.map_mut("status");
        for (key, count) in counts {
            // Present even when zero, as upstream's pointers are.
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            if key == "active" {
                set_count(status, key, count);
            } else {
                status.insert(key.into(), json!(count));
            }
        }
    }

    /// Says that it is over, once no pod runs any more and all are counted.
    fn finish(&mut self) {
        let settled = self.active().is_empty() && self.terminating() == 0 && self.tally.is_settled();
        if !settled {
            return;
        }
        if let Some(condition) = condition(&self.job, "FailureTarget").cloned() {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            outcome::set(&mut self.job, "Failed", "True", &text("reason"), &text("message"), self.now);
            self.told.push(Action::Event(Event {
                regarding: self.before.clone(),
                severity: Severity::Warning,
                reason: outcome::failure_reason(&text("reason")),
                message: text("message"),
                component: COMPONENT,
            }));
        } else if holds(&self.job, "SuccessCriteriaMet") {
            let (reason, message) = outcome::COMPLETIONS_REACHED;
            outcome::set(&mut self.job, "Complete", "True", reason, message, self.now);
            self.job.map_mut("status").insert("completionTime".into(), json!(time_text(self.now)));
            self.tell(Severity::Normal, "Completed", "Job completed".into());
        }
    }

    fn tell(&mut self, severity: Severity, reason: &'static str, message: String) {
        let regarding = self.before.clone();
        self.told.push(Action::Event(Event { regarding, severity, reason, message, component: COMPONENT }));
    }

    /// First what was counted, then letting go of the pods that were, then new work: so that no pod counts twice or never.
    fn into_actions(self, work: Vec<Action>) -> Vec<Action> {
        let mut actions: Vec<Action> =
            Action::update(kinds::jobs(), Part::Status, self.before, self.job.clone()).into_iter().collect();
        actions.extend(release(self.pods.iter().filter(|pod| self.tally.frees(pod))));
        actions.extend(work);
        actions.extend(self.told);
        if let Some(end) = outcome::deadline(&self.job)
            && end > self.now
            && !outcome::is_decided(&self.job)
        {
            actions.push(Action::Requeue(until(end, self.now)));
        }
        actions
    }
}

/// Lets pods go: they are counted, or nobody counts them any more.
fn release<'a>(pods: impl IntoIterator<Item = &'a Object>) -> Vec<Action> {
    pods.into_iter().filter_map(without_finalizer).collect()
}

fn without_finalizer(pod: &Object) -> Option<Action> {
    let mut finalizers = pod.array("/metadata/finalizers").to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    let mut released = pod.clone();
    if finalizers.is_empty() {
        released.metadata_mut().remove("finalizers");
    } else {
        released.metadata_mut().insert("finalizers".into(), json!(finalizers));
    }
    Action::update(kinds::pods(), Part::Main, pod, released)
}

/// Deletes a job some time after its end: as `pkg/controller/ttlafterfinished`.
fn expire(job: &Object, now: Timestamp) -> Option<Action> {
    let seconds = job.integer("/spec/ttlSecondsAfterFinished").filter(|_| !job.is_deleting())?;
    let end = outcome::ended(job)?;
    let time = plus_seconds(end, seconds);
    if time > now {
        return Some(Action::Requeue(until(time, now)));
    }
    Some(Action::Delete {
        resource: kinds::jobs(),
        object: job.clone(),
        grace_period_seconds: None,
        propagation: Some(crate::registry::Propagation::Foreground),
        told: None,
    })
}

#[cfg(test)]
mod tests;
