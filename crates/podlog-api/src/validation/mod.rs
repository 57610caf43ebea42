//! What makes an object wrong, in upstream's words.
//!
//! Objects are expected decoded ([`crate::strict`]) and with their defaults ([`crate::defaults`]). The result is a list
//! of causes for [`crate::ApiError::invalid`]; an empty list means that the object is right.

mod certificate;
mod container;
mod core;
mod field;
mod metadata;
mod pod;
mod pod_update;
mod rbac;
mod review;
mod selector;
mod volume;
mod warnings;
mod workload;

use certificate::Change;
use field::Errors;
use rbac::Scope;

use crate::resource::Resource;
use crate::{Cause, Object};

/// Checks an object that is about to be created. Its name must have been generated, its namespace filled in.
pub fn create(resource: &Resource, object: &Object) -> Vec<Cause> {
    let mut errors = Errors::default();
    if resource.is_stored() {
        metadata::create(resource, object, &mut errors);
    }
    if is_pod(resource) {
        pod::create(object, &mut errors);
    } else {
        content(resource, object, &mut errors);
    }
    errors.into_causes()
}

/// Checks a change of an object: the new one by itself, and what may not change.
///
/// `uid`, `creationTimestamp` and the like may be missing from the new one.
pub fn update(resource: &Resource, new: &Object, old: &Object) -> Vec<Cause> {
    let mut errors = Errors::default();
    metadata::update(new, old, &mut errors);
    match (resource.group, resource.kind) {
        ("", "Pod") => pod_update::update(new, old, &mut errors),
        ("apps", "ControllerRevision") => workload::revision_update(new, old, &mut errors),
        ("apps", _) => workload::update(resource, new, old, &mut errors),
        ("batch", "Job") => workload::job_update(new, old, &mut errors),
        _ => content(resource, new, &mut errors),
    }
    match (resource.group, resource.kind) {
        ("", "Secret") => core::secret_update(new, old, &mut errors),
        ("", "ConfigMap") => core::data_update(new, old, &["data", "binaryData"], &mut errors),
        ("certificates.k8s.io", _) => certificate::update(new, old, &[], &mut errors),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            rbac::binding_update(new, old, &mut errors);
        }
        _ => {}
    }
    errors.into_causes()
}

/// Checks a change of an object's `status` (and of its metadata, which may come with it).
pub fn update_status(resource: &Resource, new: &Object, old: &Object) -> Vec<Cause> {
    let mut errors = Errors::default();
    metadata::update(new, old, &mut errors);
    if is_pod(resource) {
        if new.text("/spec/nodeName") != old.text("/spec/nodeName") {
            errors.forbidden("status.nodeName", "may not be changed directly");
        }
        pod_states(new, old, &mut errors);
    }
    if resource.group == "certificates.k8s.io" {
        certificate::request(new, &mut errors);
        certificate::update(new, old, &[Change::Certificate], &mut errors);
    }
    errors.into_causes()
}

/// Checks a change through the `approval` subresource of a certificate signing request.
pub fn update_approval(new: &Object, old: &Object) -> Vec<Cause> {
    let mut errors = Errors::default();
    metadata::update(new, old, &mut errors);
    certificate::request(new, &mut errors);
    certificate::update(new, old, &[Change::Approval], &mut errors);
    errors.into_causes()
}

/// Checks a change of a pod's ephemeral containers, and of nothing else: they can only become more.
pub fn update_ephemeral_containers(new: &Object, old: &Object) -> Vec<Cause> {
    let mut errors = Errors::default();
    metadata::update(new, old, &mut errors);
    pod_update::ephemeral_containers(new, old, &mut errors);
    errors.into_causes()
}

/// What is allowed and probably not meant, for `Warning` headers of creates and updates.
pub fn warnings(resource: &Resource, object: &Object) -> Vec<String> {
    warnings::of(resource, object)
}

/// Checks what is written to a subresource that has a kind of its own, by its schema, e.g.
/// `io.k8s.api.core.v1.Binding`.
pub fn subresource(schema: &str, object: &Object) -> Vec<Cause> {
    let mut errors = Errors::default();
    match schema {
        "io.k8s.api.core.v1.Binding" => review::binding(object, &mut errors),
        "io.k8s.api.authentication.v1.TokenRequest" => review::token_request(object, &mut errors),
        "io.k8s.api.autoscaling.v1.Scale" => review::scale(object, &mut errors),
        _ => {}
    }
    errors.into_causes()
}

fn is_pod(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.kind == "Pod"
}

/// What holds for an object by itself, new or changed.
fn content(resource: &Resource, object: &Object, errors: &mut Errors) {
    match (resource.group, resource.kind) {
        ("", "ConfigMap") => core::config_map(object, errors),
        ("", "Secret") => core::secret(object, errors),
        ("", "Service") => core::service(object, errors),
        ("", "Node") => core::node(object, errors),
        ("", "Event") => core::event(object, "involvedObject", errors),
        ("events.k8s.io", "Event") => core::event(object, "regarding", errors),
        ("coordination.k8s.io", "Lease") => core::lease(object, errors),
        ("apps", "ControllerRevision") => workload::revision(object, errors),
        ("apps", _) => workload::create(resource, object, errors),
        ("batch", "Job") => workload::job(object, errors),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(object, Scope::Namespace, errors),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::role(object, Scope::Cluster, errors),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(object, Scope::Namespace, errors),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
            rbac::binding(object, Scope::Cluster, errors);
        }
        ("authorization.k8s.io", kind) => access_review(kind, object, errors),
        ("certificates.k8s.io", _) => certificate::request(object, errors),
        _ => {}
    }
}

fn access_review(kind: &str, review: &Object, errors: &mut Errors) {
    match kind {
        "SelfSubjectAccessReview" => {
            review::question(review, errors);
            selector::of_review(review, errors);
        }
        "SubjectAccessReview" => {
            review::question(review, errors);
            review::subject(review, errors);
            selector::of_review(review, errors);
        }
        "LocalSubjectAccessReview" => {
            review::question(review, errors);
            review::subject(review, errors);
            selector::of_review(review, errors);
            review::local(review, errors);
            return;
        }
        _ => return,
    }
    review::no_metadata(review, errors);
}

/// A container that has ended stays ended unless the pod restarts it.
fn pod_states(new: &Object, old: &Object, errors: &mut Errors) {
    let policy = old.text("/spec/restartPolicy");
    if policy == "Always" {
        return;
    }
    let new_statuses = new.array("/status/containerStatuses");
    for (i, before) in old.array("/status/containerStatuses").iter().enumerate() {
        let ended = &before["state"]["terminated"];
        if ended.is_null() || (policy == "OnFailure" && ended["exitCode"] != 0) {
            continue;
        }
        let after = new_statuses.iter().find(|status| status["name"] == before["name"]);
        if after.is_some_and(|status| status["state"]["terminated"].is_null()) {
            errors.forbidden(
                format!("status.containerStatuses[{i}].state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

#[cfg(test)]
mod tests;
