//! A kubelet changes its own node and the pods on it, nothing else (`plugin/pkg/admission/noderestriction`).

use std::collections::BTreeSet;

use podlog_api::node_labels::is_for_kubelets;
use podlog_api::resource::{self, Resource};
use podlog_api::{ApiError, Object, UserInfo};
use serde_json::Value;

use crate::registry::{Part, Registry, references};

/// The annotation of a pod that a kubelet has from a file.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
/// Which claims a pod has devices by.
const CLAIMS: &str = "/status/resourceClaimStatuses";
/// Where the leases of nodes are.
pub(crate) const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user is the kubelet of.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    if user.is_in("system:nodes") { user.username.strip_prefix("system:node:") } else { None }
}

pub(super) fn create(
    registry: &Registry,
    user: &UserInfo,
    resource: &Resource,
    object: &Object,
) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let refuse = |why: String| Err(ApiError::forbidden(resource.group, resource.plural, object.name(), why));
    match resource.kind {
        "Pod" => {
            mirror(node, object).or_else(refuse)?;
            let uid = own_uid(registry, node)?;
            match object.text("/metadata/ownerReferences/0/uid") {
                owner if owner == uid => Ok(()),
                owner => refuse(format!("node {node} UID mismatch: expected {owner} got {uid}")),
            }
        }
        "Node" if object.name() != node => {
            refuse(format!("node \"{node}\" is not allowed to modify node \"{}\"", object.name()))
        }
        "Node" if !object.array("/metadata/ownerReferences").is_empty() => {
            refuse(format!("node \"{node}\" is not allowed to modify ownerReferences"))
        }
        "Node" => match forbidden_labels(object, None).as_str() {
            "" => Ok(()),
            labels => refuse(format!("node \"{node}\" is not allowed to set the following labels: {labels}")),
        },
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
        "Pod" if part == Part::Main => refuse(format!(
            "unexpected operation \"UPDATE\", node \"{node}\" can only create and delete mirror pods"
        )),
        "Pod" if part != Part::Status => {
            refuse("unexpected pod subresource, only 'status' and 'eviction' are allowed".into())
        }
        "Pod" if old.text("/spec/nodeName") != node => refuse(format!(
            "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
        )),
        "Pod" if new.at("/metadata/labels") != old.at("/metadata/labels") => {
            refuse(format!("node \"{node}\" cannot update labels through pod status"))
        }
        "Pod" if new.at(CLAIMS) != old.at(CLAIMS) => {
            refuse(format!("node \"{node}\" cannot update resource claim statues"))
        }
        "Node" if old.name() != node => {
            refuse(format!("node \"{node}\" is not allowed to modify node \"{}\"", old.name()))
        }
        "Node" if new.at("/spec/taints") != old.at("/spec/taints") => {
            refuse(format!("node \"{node}\" is not allowed to modify taints"))
        }
        // Garbage collection would delete it, and the next of its name has no taints.
        "Node" if new.at("/metadata/ownerReferences") != old.at("/metadata/ownerReferences") => {
            refuse(format!("node \"{node}\" is not allowed to modify ownerReferences"))
        }
        "Node" => match forbidden_labels(new, Some(old)).as_str() {
            "" => Ok(()),
            labels => refuse(format!("is not allowed to modify labels: {labels}")),
        },
        "Lease" => lease(node, resource, old),
        _ => Ok(()),
    }
}

/// A token that a kubelet asks for is bound to a pod on its node, and for an audience that this pod asks for.
pub(crate) fn token(
    registry: &Registry,
    user: &UserInfo,
    account: &Object,
    request: &Object,
) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let refuse = |why: &str| Err(ApiError::forbidden("", "serviceaccounts", account.name(), why));
    let bound = |key: &str| request.text(&format!("/spec/boundObjectRef/{key}"));
    if bound("apiVersion") != "v1" || bound("kind") != "Pod" || bound("name").is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = bound("uid");
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pods = resource::find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let pod = registry.get(pods, account.namespace(), bound("name"))?;
    if pod.uid() != uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod.text("/spec/nodeName") != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    match request.array("/spec/audiences") {
        [] => refuse_unless_mounted(&pod, "").or_else(|why| refuse(&why)),
        [Value::String(audience)] => refuse_unless_mounted(&pod, audience).or_else(|why| refuse(&why)),
        _ => refuse("node may only request 0 or 1 audiences"),
    }
}

fn refuse_unless_mounted(pod: &Object, audience: &str) -> Result<(), String> {
    let sources = pod
        .array("/spec/volumes")
        .iter()
        .filter_map(|volume| volume.pointer("/projected/sources")?.as_array());
    let mut tokens = sources.flatten().filter_map(|source| source.get("serviceAccountToken"));
    if tokens.any(|token| token["audience"].as_str().unwrap_or_default() == audience) {
        return Ok(());
    }
    Err(format!("audience \"{audience}\" not found in pod spec volume"))
}

/// What kubelets create are mirrors of pods that they have from files: such pods refer to no other object.
fn mirror(node: &str, pod: &Object) -> Result<(), String> {
    let by_itself = |what: &str| Err(format!("node \"{node}\" can only create pods with {what}"));
    if pod.annotation(MIRROR).is_none() {
        return Err(format!(
            "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
        ));
    }
    if pod.text("/spec/nodeName") != node {
        return by_itself("spec.nodeName set to itself");
    }
    let owner = match pod.array("/metadata/ownerReferences") {
        [owner] => owner,
        [] => return by_itself("an owner reference set to itself"),
        _ => return by_itself("a single owner reference set to itself"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return by_itself("an owner reference set to itself");
    }
    if owner["controller"] != true {
        return by_itself("a controller owner reference set to itself");
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node \"{node}\" must not set blockOwnerDeletion on an owner reference"));
    }
    match reference(pod) {
        Some(what) => Err(format!("node \"{node}\" can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// A kind of object that the pod refers to.
fn reference(pod: &Object) -> Option<&'static str> {
    let volumes = pod.array("/spec/volumes");
    let trusts = |source: &Value| source.get("clusterTrustBundle").is_some();
    let projects = |volume: &Value| {
        volume
            .pointer("/projected/sources")
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(trusts))
    };
    if !pod.text("/spec/serviceAccountName").is_empty() {
        return Some("a service account");
    }
    if references::to(pod, "secrets", |_| true) {
        return Some("secrets");
    }
    if references::to(pod, "configmaps", |_| true) {
        return Some("configmaps");
    }
    if volumes.iter().any(projects) {
        return Some("clustertrustbundles");
    }
    if volumes.iter().any(|volume| volume.get("persistentVolumeClaim").is_some()) {
        return Some("persistentvolumeclaims");
    }
    (!pod.array("/spec/resourceClaims").is_empty()).then_some("resourceclaims")
}

fn own_uid(registry: &Registry, node: &str) -> Result<String, ApiError> {
    let nodes = resource::find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
    registry.get(nodes, "", node).map(|node| node.uid().to_owned())
}

/// Labels that a node adds, removes or changes and may not, in order, with commas between them.
fn forbidden_labels(new: &Object, old: Option<&Object>) -> String {
    let labels = |object: &Object| {
        object.at("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (new, old) = (labels(new), old.map(labels).unwrap_or_default());
    let changed: BTreeSet<&str> = new
        .keys()
        .chain(old.keys())
        .filter(|key| new.get(*key) != old.get(*key))
        .map(String::as_str)
        .collect();
    let forbidden: Vec<&str> = changed.into_iter().filter(|label| !is_for_kubelets(label)).collect();
    forbidden.join(", ")
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
    use std::sync::Arc;

    use podlog_api::resource::find;
    use serde_json::json;

    use super::*;
    use crate::store::RedbStore;

    fn kubelet() -> UserInfo {
        UserInfo {
            username: "system:node:n1".into(),
            groups: vec!["system:nodes".into()],
            ..UserInfo::default()
        }
    }

    /// A cluster whose nodes are `n1` and `n2`, and the uid of `n1`.
    async fn cluster() -> (Registry, String) {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        crate::bootstrap::ensure(&registry).await.unwrap();
        let nodes = find("", "v1", "nodes").unwrap();
        let node =
            registry.create(nodes, "", Object::new(json!({"metadata": {"name": "n1"}}))).await.unwrap();
        (registry, node.uid().to_owned())
    }

    fn said(result: Result<(), ApiError>) -> String {
        let message = result.err().map(|error| error.message).unwrap_or_default();
        message.split_once("is forbidden: ").map_or(message.clone(), |(_, why)| why.to_owned())
    }

    #[tokio::test]
    async fn a_kubelet_stays_at_home() {
        let (user, (registry, _)) = (kubelet(), cluster().await);
        let create = |user: &UserInfo, kind, object: &Object| create(&registry, user, kind, object);
        let nodes = find("", "v1", "nodes").unwrap();
        let pods = find("", "v1", "pods").unwrap();
        let leases = find("coordination.k8s.io", "v1", "leases").unwrap();
        let node = |name: &str| Object::new(json!({"metadata": {"name": name}}));
        let pod = |on: &str| Object::new(json!({"metadata": {"name": "p"}, "spec": {"nodeName": on}}));
        let lease = |ns: &str, name: &str| Object::new(json!({"metadata": {"name": name, "namespace": ns}}));
        assert!(create(&user, nodes, &node("n1")).is_ok());
        assert!(create(&user, nodes, &node("n2")).is_err());
        assert!(update(&user, pods, Part::Status, &pod("n1"), &pod("n1")).is_ok());
        assert!(update(&user, pods, Part::Main, &pod("n1"), &pod("n1")).is_err());
        assert!(update(&user, pods, Part::EphemeralContainers, &pod("n1"), &pod("n1")).is_err());
        assert!(update(&user, pods, Part::Status, &pod("n2"), &pod("n2")).is_err());
        let mut claimed = pod("n1");
        claimed.0["status"] =
            json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "theirs"}]});
        assert!(update(&user, pods, Part::Status, &claimed, &pod("n1")).is_err());
        assert!(update(&user, pods, Part::Status, &claimed, &claimed).is_ok());
        let mut owned = node("n1");
        owned
            .metadata_mut()
            .insert("ownerReferences".into(), json!([{"kind": "Node", "name": "none", "uid": "u"}]));
        for part in [Part::Main, Part::Status] {
            let why = said(update(&user, nodes, part, &owned, &node("n1")));
            assert_eq!(why, "node \"n1\" is not allowed to modify ownerReferences");
            assert!(update(&user, nodes, part, &owned, &owned).is_ok());
        }
        assert!(create(&user, nodes, &owned).is_err());
        assert!(delete(&user, pods, &pod("n1")).is_ok());
        assert!(delete(&user, pods, &pod("n2")).is_err());
        assert!(create(&user, leases, &lease("kube-node-lease", "n1")).is_ok());
        assert!(create(&user, leases, &lease("kube-node-lease", "n2")).is_err());
        assert!(create(&user, leases, &lease("default", "n1")).is_err());
        let somebody = UserInfo { username: "bob".into(), ..UserInfo::default() };
        assert!(create(&somebody, nodes, &node("n2")).is_ok());
    }

    #[tokio::test]
    async fn what_a_kubelet_creates_are_mirrors() {
        let (registry, uid) = cluster().await;
        let pods = find("", "v1", "pods").unwrap();
        let good = json!({
            "metadata": {"name": "p", "annotations": {MIRROR: "x"}, "ownerReferences":
                [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true}]},
            "spec": {"nodeName": "n1", "volumes": [{"name": "v", "emptyDir": {}}]},
        });
        let with = |path: &str, value: Value| {
            let mut pod = good.clone();
            let (parent, key) = path.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value;
            Object::new(pod)
        };
        let owner = good["metadata"]["ownerReferences"][0].clone();
        let refers = |what: &str| format!("node \"n1\" can not create pods that reference {what}");
        let only = |what: &str| format!("node \"n1\" can only create pods with {what}");
        let rows = [
            (Object::new(good.clone()), String::new()),
            (
                with("/metadata/annotations", json!({})),
                format!("pod does not have \"{MIRROR}\" annotation, node \"n1\" can only create mirror pods"),
            ),
            (with("/spec/nodeName", json!("n2")), only("spec.nodeName set to itself")),
            (with("/metadata/ownerReferences", json!([])), only("an owner reference set to itself")),
            (
                with("/metadata/ownerReferences", json!([owner, owner])),
                only("a single owner reference set to itself"),
            ),
            (with("/metadata/ownerReferences/0/name", json!("n2")), only("an owner reference set to itself")),
            (
                with("/metadata/ownerReferences/0/controller", json!(false)),
                only("a controller owner reference set to itself"),
            ),
            (
                with("/metadata/ownerReferences/0/blockOwnerDeletion", json!(true)),
                "node \"n1\" must not set blockOwnerDeletion on an owner reference".into(),
            ),
            (
                with("/metadata/ownerReferences/0/uid", json!("other")),
                format!("node n1 UID mismatch: expected other got {uid}"),
            ),
            (with("/spec/serviceAccountName", json!("sa")), refers("a service account")),
            (with("/spec/imagePullSecrets", json!([{"name": "s"}])), refers("secrets")),
            (
                with("/spec/containers", json!([{"envFrom": [{"configMapRef": {"name": "c"}}]}])),
                refers("configmaps"),
            ),
            (
                with("/spec/volumes", json!([{"persistentVolumeClaim": {"claimName": "c"}}])),
                refers("persistentvolumeclaims"),
            ),
            (
                with("/spec/resourceClaims", json!([{"name": "gpu", "resourceClaimName": "theirs"}])),
                refers("resourceclaims"),
            ),
            (
                with("/spec/volumes", json!([{"projected": {"sources": [{"clusterTrustBundle": {}}]}}])),
                refers("clustertrustbundles"),
            ),
        ];
        for (pod, expected) in rows {
            assert_eq!(said(create(&registry, &kubelet(), pods, &pod)), expected, "{pod:?}");
        }
    }

    #[tokio::test]
    async fn a_kubelet_sets_few_labels() {
        let (registry, _) = cluster().await;
        let nodes = find("", "v1", "nodes").unwrap();
        let rows = [
            ("kubernetes.io/hostname", true),
            ("topology.kubernetes.io/zone", true),
            ("node.kubernetes.io/anything", true),
            ("sub.kubelet.kubernetes.io/anything", true),
            ("example.com/anything", true),
            ("notkubernetes.io/anything", true),
            ("plain", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("kubernetes.io/anything", false),
            ("a.k8s.io/anything", false),
            ("node-restriction.kubernetes.io/pci", false),
            ("a.node-restriction.kubernetes.io/pci", false),
        ];
        for (label, allowed) in rows {
            let bare = Object::new(json!({"metadata": {"name": "n1"}}));
            let node = Object::new(json!({"metadata": {"name": "n1", "labels": {label: "x"}}}));
            let (created, changed) = if allowed {
                (String::new(), String::new())
            } else {
                (
                    format!("node \"n1\" is not allowed to set the following labels: {label}"),
                    format!("is not allowed to modify labels: {label}"),
                )
            };
            let update = |new, old| said(update(&kubelet(), nodes, Part::Status, new, old));
            assert_eq!(said(create(&registry, &kubelet(), nodes, &node)), created, "{label}");
            assert_eq!(update(&node, &bare), changed, "{label}");
            assert_eq!(update(&bare, &node), changed, "{label}");
            assert_eq!(update(&node, &node), "", "{label}: as it was");
        }
    }

    #[tokio::test]
    async fn a_kubelet_asks_for_tokens_of_its_pods() {
        let (registry, _) = cluster().await;
        let (pods, accounts) = (find("", "v1", "pods").unwrap(), find("", "v1", "serviceaccounts").unwrap());
        let account = Object::new(json!({"metadata": {"name": "default"}}));
        let account = registry.create(accounts, "default", account).await.unwrap();
        let mut uids = Vec::new();
        for node in ["n1", "n2"] {
            let volume = json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}});
            let pod =
                Object::new(json!({"metadata": {"name": format!("on-{node}")}, "spec": {"nodeName": node,
                "volumes": [volume], "containers": [{"name": "c", "image": "i"}]}}));
            uids.push(registry.create(pods, "default", pod).await.unwrap().uid().to_owned());
        }
        let bound =
            |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
        let unbound = "node requested token not bound to a pod";
        let rows = [
            (bound("on-n1", &uids[0]), json!([]), ""),
            (bound("on-n1", &uids[0]), json!(["vault"]), ""),
            (bound("on-n1", &uids[0]), json!(["other"]), "audience \"other\" not found in pod spec volume"),
            (bound("on-n1", &uids[0]), json!(["vault", "vault"]), "node may only request 0 or 1 audiences"),
            (bound("on-n1", ""), json!([]), "node requested token with a pod binding without a uid"),
            (
                bound("on-n1", "other"),
                json!([]),
                "the UID in the bound object reference (other) does not match the UID in record. The object might have been deleted and then recreated",
            ),
            (
                bound("on-n2", &uids[1]),
                json!([]),
                "node requested token bound to a pod scheduled on a different node",
            ),
            (bound("gone", "x"), json!([]), "pods \"gone\" not found"),
            (json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "x"}), json!([]), unbound),
            (json!(null), json!([]), unbound),
        ];
        for (reference, audiences, expected) in rows {
            let request = Object::new(json!({"spec": {"boundObjectRef": reference, "audiences": audiences}}));
            assert_eq!(said(token(&registry, &kubelet(), &account, &request)), expected, "{request:?}");
        }
        let administrator = UserInfo { username: "bob".into(), ..UserInfo::default() };
        assert_eq!(token(&registry, &administrator, &account, &Object::new(json!({}))), Ok(()));
    }
}
