//! Where an object lies in the store: `/registry/<resource>/[<namespace>/]<name>`, as Kubernetes' own API server lays it out.

use podlog_api::resource::Resource;

/// Prefix of all objects of a kind, or of those in one namespace.
pub(super) fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    let kind = storage_name(resource);
    match namespace {
        Some(namespace) if resource.namespaced => format!("/registry/{kind}/{namespace}/"),
        _ => format!("/registry/{kind}/"),
    }
}

/// Key of one object. Names were validated as DNS names before they got here, so they hold no slash.
pub(super) fn object(resource: &Resource, namespace: &str, name: &str) -> String {
    format!("{}{name}", prefix(resource, Some(namespace)))
}

/// Mostly the plural, whatever the group, so that events are one under their two groups; the others are
/// `SpecialDefaultResourcePrefixes` of `pkg/kubeapiserver/default_storage_factory_builder.go`.
fn storage_name(resource: &Resource) -> &'static str {
    match resource.plural {
        "nodes" => "minions",
        "services" => "services/specs",
        "endpoints" => "services/endpoints",
        "replicationcontrollers" => "controllers",
        "ingresses" => "ingress",
        plural => plural,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podlog_api::resource;

    #[test]
    fn keys_are_those_of_kubernetes() {
        let rows = [
            ("", "pods", "default", "web", "/registry/pods/default/web"),
            ("", "nodes", "", "n1", "/registry/minions/n1"),
            ("", "services", "default", "web", "/registry/services/specs/default/web"),
            ("apps", "deployments", "default", "web", "/registry/deployments/default/web"),
            ("coordination.k8s.io", "leases", "kube-node-lease", "n1", "/registry/leases/kube-node-lease/n1"),
            ("events.k8s.io", "events", "default", "web.1", "/registry/events/default/web.1"),
            ("rbac.authorization.k8s.io", "clusterroles", "", "view", "/registry/clusterroles/view"),
        ];
        for (group, plural, namespace, name, expected) in rows {
            let resource = resource::find(group, "v1", plural).unwrap();
            assert_eq!(object(resource, namespace, name), expected);
        }
    }

    #[test]
    fn no_two_kinds_share_a_place() {
        let mut taken = std::collections::BTreeMap::new();
        for resource in resource::all().iter().filter(|resource| resource.is_stored()) {
            let earlier = taken.insert(prefix(resource, None), resource);
            assert!(earlier.is_none_or(|earlier| earlier.kind == "Event"), "{}", resource.plural);
        }
    }
}
