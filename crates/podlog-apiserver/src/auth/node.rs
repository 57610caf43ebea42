//! What a kubelet may do: its node, the pods on it, and what these pods need.
//!
//! As `plugin/pkg/auth/authorizer/node`. Logs are not among it.

use podlog_api::{Attributes, Decision, Object, UserInfo};
use serde_json::Value;

use crate::registry::Registry;
use crate::registry::admission::node_restriction::node_of;
use crate::registry::binding::pods as pods_kind;

/// `(group, resource, subresource, verbs)` that every node has (`NodeRules` of `bootstrappolicy/policy.go`); admission limits the
/// writes among them to what belongs to the node.
const ALWAYS: &[(&str, &str, &str, &[&str])] = &[
    ("", "nodes", "", &["create", "get", "list", "watch", "update", "patch", "delete"]),
    ("", "nodes", "status", &["update", "patch"]),
    ("", "pods", "", &["create", "delete"]),
    ("", "pods", "status", &["update", "patch"]),
    ("", "pods", "eviction", &["create"]),
    ("", "services", "", &["get", "list", "watch"]),
    ("", "events", "", &["create", "update", "patch"]),
    ("events.k8s.io", "events", "", &["create", "update", "patch"]),
    ("certificates.k8s.io", "certificatesigningrequests", "", &["create", "get", "list", "watch"]),
    ("coordination.k8s.io", "leases", "", &["get", "create", "update", "patch", "delete"]),
    ("authentication.k8s.io", "tokenreviews", "", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", "", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", "", &["create"]),
];

pub(super) fn authorize(
    registry: &Registry,
    user: &UserInfo,
    attributes: &Attributes,
    field_selector: &str,
) -> Decision {
    let (Some(node), Attributes::Resource { verb, group, resource, subresource, namespace, name, .. }) =
        (node_of(user), attributes)
    else {
        return Decision::NoOpinion(String::new());
    };
    let always = ALWAYS.iter().any(|(g, r, s, verbs)| {
        g == group && r == resource && s == subresource && verbs.contains(&verb.as_str())
    });
    if always {
        return Decision::Allow(String::new());
    }
    let reads = matches!(verb.as_str(), "get" | "list" | "watch");
    match (group.as_str(), resource.as_str(), subresource.as_str()) {
        ("", "pods", "") if reads => pods(registry, node, verb, namespace, name, field_selector),
        ("", kind @ ("configmaps" | "secrets"), "") if reads => {
            related(registry, node, namespace, name, |pod| refers_to(pod, kind, name))
        }
        ("", "serviceaccounts", "token") if verb == "create" => {
            related(registry, node, namespace, name, |pod| pod.text("/spec/serviceAccountName") == name)
        }
        _ => Decision::NoOpinion(String::new()),
    }
}

fn pods(
    registry: &Registry,
    node: &str,
    verb: &str,
    namespace: &str,
    name: &str,
    selector: &str,
) -> Decision {
    let own = format!("spec.nodeName={node}");
    if verb != "get" {
        return match selector.split(',').any(|term| term == own) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(format!(
                "can only list/watch pods with spec.nodeName field selector, node '{node}'"
            )),
        };
    }
    let pod = registry.find(pods_kind(), namespace, name).ok().flatten();
    relationship(node, pod.is_some_and(|pod| runs_on(&pod, node)))
}

/// Whether a pod of the node relates to what is asked for by name.
fn related(
    registry: &Registry,
    node: &str,
    namespace: &str,
    name: &str,
    relates: impl Fn(&Object) -> bool,
) -> Decision {
    // Names of objects are written in JSON as they are.
    let pods = match name {
        "" => Vec::new(),
        name => registry.mentioning(pods_kind(), namespace, &[node, name]).unwrap_or_default(),
    };
    relationship(node, pods.iter().any(|pod| runs_on(pod, node) && relates(pod)))
}

fn relationship(node: &str, found: bool) -> Decision {
    if found {
        return Decision::Allow(String::new());
    }
    Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
}

fn runs_on(pod: &Object, node: &str) -> bool {
    pod.text("/spec/nodeName") == node
}

/// Whether a pod mounts a config map or secret, reads its environment from it, or pulls images with it.
fn refers_to(pod: &Object, kind: &str, name: &str) -> bool {
    let keys: &[(&str, &str)] = match kind {
        "configmaps" => &[("configMap", "name"), ("configMapRef", "name"), ("configMapKeyRef", "name")],
        _ => &[
            ("secret", "secretName"),
            ("secret", "name"),
            ("secretRef", "name"),
            ("secretKeyRef", "name"),
            ("imagePullSecrets", "name"),
        ],
    };
    pod.at("/spec").is_some_and(|spec| mentions(spec, keys, name))
}

fn mentions(value: &Value, keys: &[(&str, &str)], name: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, inner)| {
            let named = |value: &Value| {
                keys.iter().any(|(outer, field)| outer == key && value.get(field).is_some_and(|n| n == name))
            };
            let listed = inner.as_array().is_some_and(|list| list.iter().any(named));
            named(inner) || listed || mentions(inner, keys, name)
        }),
        Value::Array(list) => list.iter().any(|inner| mentions(inner, keys, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podlog_api::resource::find;
    use serde_json::json;

    use super::*;
    use crate::store::RedbStore;

    #[tokio::test]
    async fn a_node_sees_what_its_pods_need() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        crate::bootstrap::ensure(&registry).await.unwrap();
        let create = async |plural: &str, object: Value| {
            let kind = find("", "v1", plural).unwrap();
            registry.create(kind, "default", Object::new(object)).await.unwrap();
        };
        create("serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        create("serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
        for (node, secret) in [("n1", "mine"), ("n2", "theirs")] {
            let spec = json!({"nodeName": node, "serviceAccountName": if node == "n1" { "robot" } else { "default" },
                "volumes": [{"name": "v", "secret": {"secretName": secret}}],
                "containers": [{"name": "mention-theirs", "image": "i"}]});
            create("pods", json!({"metadata": {"name": format!("on-{node}")}, "spec": spec})).await;
        }
        let user = UserInfo {
            username: "system:node:n1".into(),
            groups: vec!["system:nodes".into()],
            ..UserInfo::default()
        };
        let rows = [
            ("get", "secrets", "", "mine", true),
            ("watch", "secrets", "", "mine", true),
            ("get", "secrets", "", "min", false),
            ("get", "secrets", "", "theirs", false),
            ("list", "secrets", "", "", false),
            ("get", "configmaps", "", "kube-root-ca.crt", true),
            ("get", "configmaps", "", "mine", false),
            ("get", "pods", "", "on-n1", true),
            ("get", "pods", "", "on-n2", false),
            ("get", "pods", "", "on-n3", false),
            ("create", "serviceaccounts", "token", "robot", true),
            ("create", "serviceaccounts", "token", "default", false),
            ("update", "secrets", "", "mine", false),
            ("get", "pods", "log", "on-n1", false),
        ];
        for (verb, resource, subresource, name, allowed) in rows {
            let attributes = Attributes::Resource {
                verb: verb.into(),
                group: String::new(),
                version: "v1".into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: "default".into(),
                name: name.into(),
            };
            let decision = authorize(&registry, &user, &attributes, "");
            assert_eq!(
                matches!(decision, Decision::Allow(_)),
                allowed,
                "{verb} {resource}/{subresource} {name}"
            );
        }
    }

    #[test]
    fn references_are_found_wherever_they_are() {
        let pod = Object::new(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"configMap": {"name": "files"}}, {"secret": {"secretName": "keys"}},
                {"projected": {"sources": [{"configMap": {"name": "ca"}}, {"secret": {"name": "part"}}]}}],
            "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}}],
                "envFrom": [{"secretRef": {"name": "all"}}]}]
        }}));
        let rows = [
            ("configmaps", "files", true),
            ("configmaps", "ca", true),
            ("configmaps", "one", true),
            ("configmaps", "keys", false),
            ("secrets", "keys", true),
            ("secrets", "part", true),
            ("secrets", "all", true),
            ("secrets", "pull", true),
            ("secrets", "files", false),
        ];
        for (kind, name, expected) in rows {
            assert_eq!(refers_to(&pod, kind, name), expected, "{kind} {name}");
        }
    }
}
