//! Which template a pod was made from: the label `controller-revision-hash`.
//!
//! Kubernetes keeps a ControllerRevision for each template, for `kubectl rollout undo`. Here the label alone tells pods of
//! different templates apart.

use podlog_api::Object;
use serde_json::json;

use super::deployment::template_hash;

/// The label's key.
pub(crate) const LABEL: &str = "controller-revision-hash";

/// The revision of a workload's template.
pub(crate) fn of(workload: &Object) -> String {
    template_hash(&workload.0["spec"]["template"], 0)
}

/// Marks a new pod with its revision.
pub(crate) fn mark(pod: &mut Object, revision: &str) {
    let labels = pod.metadata_mut().entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(LABEL.into(), json!(revision));
    }
}

/// Whether a pod was made from this revision.
pub(crate) fn is_of(pod: &Object, revision: &str) -> bool {
    pod.label(LABEL) == Some(revision)
}
