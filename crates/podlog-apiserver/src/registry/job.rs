//! The selector of a Job: it finds its own pods by its uid, as `pkg/registry/batch/job/strategy.go`.

use podlog_api::{Object, child_map};
use serde_json::{Value, json};

/// The label that tells whose pod it is.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// Labels the template with the job's uid and name, and selects by the uid, unless the job selects by itself.
pub(super) fn select_own_pods(job: &mut Object) {
    if job.at("/spec/manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let (uid, name) = (json!(job.uid()), json!(job.name()));
    job.map_mut("spec");
    let labels = child_map(&mut job.0["spec"]["template"]["metadata"], "labels");
    for (key, value) in [
        (CONTROLLER_UID, &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
    ] {
        labels.entry(key).or_insert_with(|| value.clone());
    }
    let selector = child_map(&mut job.0["spec"], "selector");
    let matched = selector.entry("matchLabels").or_insert_with(|| json!({}));
    if let Value::Object(matched) = matched {
        matched.entry(CONTROLLER_UID).or_insert(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_select_their_own_pods() {
        let mut job = Object::new(json!({"metadata": {"name": "j", "uid": "u"},
            "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}}));
        select_own_pods(&mut job);
        assert_eq!(job.0["spec"]["selector"], json!({"matchLabels": {CONTROLLER_UID: "u"}}));
        let labels = &job.0["spec"]["template"]["metadata"]["labels"];
        assert_eq!(
            (&labels["a"], &labels["job-name"], &labels[CONTROLLER_UID]),
            (&json!("b"), &json!("j"), &json!("u"))
        );

        let by_hand = Object::new(json!({"metadata": {"uid": "u"}, "spec": {"manualSelector": true}}));
        let mut job = by_hand.clone();
        select_own_pods(&mut job);
        assert_eq!(job, by_hand);
    }
}
