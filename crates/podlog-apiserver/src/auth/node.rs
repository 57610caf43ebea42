//! What a kubelet may do: its node, the pods on it, and what these pods need.
//!
//! As `plugin/pkg/auth/authorizer/node`. Logs are not among it.

use podlog_api::resource::find;
use podlog_api::{Attributes, Decision, Object, UserInfo};
use serde_json::Value;

use crate::registry::Registry;
use crate::registry::admission::node_restriction::node_of;

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
            related(node, name, pods_of(registry, node, namespace), |pod| refers_to(pod, kind, name))
        }
        ("", "serviceaccounts", "token") if verb == "create" => {
            related(node, name, pods_of(registry, node, namespace), |pod| {
                pod.text("/spec/serviceAccountName") == name
            })
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
    related(node, name, pods_of(registry, node, namespace), |pod| pod.name() == name)
}

fn related(node: &str, name: &str, pods: Vec<Object>, relates: impl Fn(&Object) -> bool) -> Decision {
    if !name.is_empty() && pods.iter().any(relates) {
        return Decision::Allow(String::new());
    }
    Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
}

fn pods_of(registry: &Registry, node: &str, namespace: &str) -> Vec<Object> {
    let Some(pods) = find("", "v1", "pods") else { return Vec::new() };
    let (mut objects, _) = registry.list(pods, Some(namespace)).unwrap_or_default();
    objects.retain(|pod| pod.text("/spec/nodeName") == node);
    objects
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
    use serde_json::json;

    use super::*;

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
