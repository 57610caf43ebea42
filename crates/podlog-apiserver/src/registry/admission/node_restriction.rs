//! A kubelet changes its own node and the pods on it, nothing else (`plugin/pkg/admission/noderestriction`).

use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, UserInfo};

use crate::registry::Part;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user is the kubelet of.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    if user.is_in("system:nodes") { user.username.strip_prefix("system:node:") } else { None }
}

pub(super) fn create(user: &UserInfo, resource: &Resource, object: &Object) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let refuse = |why: String| Err(ApiError::forbidden(resource.group, resource.plural, object.name(), why));
    match resource.kind {
        "Pod" if object.annotation(MIRROR).is_none() => refuse(format!(
            "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
        )),
        "Pod" if object.text("/spec/nodeName") != node => {
            refuse(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"))
        }
        "Node" if object.name() != node => {
            refuse(format!("node \"{node}\" is not allowed to modify node \"{}\"", object.name()))
        }
        "Lease" => lease(node, resource, object),
        _ => Ok(()),
    }
}

pub(super) fn update(
    user: &UserInfo,
    resource: &Resource,
    part: Part,
    new: &Object,
    old: &Object,
) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let refuse = |why: String| Err(ApiError::forbidden(resource.group, resource.plural, old.name(), why));
    match resource.kind {
        "Pod" if part != Part::Status => {
            refuse(format!("unexpected operation \"UPDATE\" by node \"{node}\""))
        }
        "Pod" if old.text("/spec/nodeName") != node => refuse(format!(
            "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
        )),
        "Pod" if new.at("/metadata/labels") != old.at("/metadata/labels") => {
            refuse(format!("node \"{node}\" cannot update labels through pod status"))
        }
        "Node" if old.name() != node => {
            refuse(format!("node \"{node}\" is not allowed to modify node \"{}\"", old.name()))
        }
        "Node" if new.at("/spec/taints") != old.at("/spec/taints") => {
            refuse(format!("node \"{node}\" is not allowed to modify taints"))
        }
        "Lease" => lease(node, resource, old),
        _ => Ok(()),
    }
}

pub(super) fn delete(user: &UserInfo, resource: &Resource, object: &Object) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let refuse = |why: String| Err(ApiError::forbidden(resource.group, resource.plural, object.name(), why));
    match resource.kind {
        "Pod" if object.text("/spec/nodeName") != node => {
            refuse(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"))
        }
        "Node" if object.name() != node => {
            refuse(format!("node \"{node}\" is not allowed to modify node \"{}\"", object.name()))
        }
        "Lease" => lease(node, resource, object),
        _ => Ok(()),
    }
}

fn lease(node: &str, resource: &Resource, object: &Object) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::forbidden(resource.group, resource.plural, object.name(), why));
    if object.namespace() != LEASE_NAMESPACE {
        return refuse(format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"));
    }
    if object.name() != node {
        return refuse("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use podlog_api::resource::find;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kubelet_stays_at_home() {
        let user = UserInfo {
            username: "system:node:n1".into(),
            groups: vec!["system:nodes".into()],
            ..UserInfo::default()
        };
        let nodes = find("", "v1", "nodes").unwrap();
        let pods = find("", "v1", "pods").unwrap();
        let leases = find("coordination.k8s.io", "v1", "leases").unwrap();
        let node = |name: &str| Object::new(json!({"metadata": {"name": name}}));
        let pod = |on: &str| Object::new(json!({"metadata": {"name": "p"}, "spec": {"nodeName": on}}));
        let lease = |ns: &str, name: &str| Object::new(json!({"metadata": {"name": name, "namespace": ns}}));
        assert!(create(&user, nodes, &node("n1")).is_ok());
        assert!(create(&user, nodes, &node("n2")).is_err());
        assert!(create(&user, pods, &pod("n1")).is_err(), "not a mirror pod");
        assert!(update(&user, pods, Part::Status, &pod("n1"), &pod("n1")).is_ok());
        assert!(update(&user, pods, Part::Main, &pod("n1"), &pod("n1")).is_err());
        assert!(update(&user, pods, Part::Status, &pod("n2"), &pod("n2")).is_err());
        assert!(delete(&user, pods, &pod("n1")).is_ok());
        assert!(delete(&user, pods, &pod("n2")).is_err());
        assert!(create(&user, leases, &lease("kube-node-lease", "n1")).is_ok());
        assert!(create(&user, leases, &lease("kube-node-lease", "n2")).is_err());
        assert!(create(&user, leases, &lease("default", "n1")).is_err());
        let somebody = UserInfo { username: "bob".into(), ..UserInfo::default() };
        assert!(create(&somebody, nodes, &node("n2")).is_ok());
    }
}
