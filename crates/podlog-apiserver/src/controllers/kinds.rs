//! The kinds that controllers work with.

use podlog_api::resource::{self, Resource};

fn kind(group: &str, plural: &str) -> &'static Resource {
    resource::find(group, "v1", plural)
        .expect("the table of kinds holds every kind that a controller works with")
}

pub(crate) fn pods() -> &'static Resource {
    kind("", "pods")
}

pub(crate) fn nodes() -> &'static Resource {
    kind("", "nodes")
}

pub(crate) fn namespaces() -> &'static Resource {
    kind("", "namespaces")
}

pub(crate) fn config_maps() -> &'static Resource {
    kind("", "configmaps")
}

pub(crate) fn service_accounts() -> &'static Resource {
    kind("", "serviceaccounts")
}

pub(crate) fn events() -> &'static Resource {
    kind("", "events")
}

pub(crate) fn leases() -> &'static Resource {
    kind("coordination.k8s.io", "leases")
}

pub(crate) fn deployments() -> &'static Resource {
    kind("apps", "deployments")
}

pub(crate) fn replica_sets() -> &'static Resource {
    kind("apps", "replicasets")
}

pub(crate) fn revisions() -> &'static Resource {
    kind("apps", "controllerrevisions")
}

pub(crate) fn daemon_sets() -> &'static Resource {
    kind("apps", "daemonsets")
}

pub(crate) fn stateful_sets() -> &'static Resource {
    kind("apps", "statefulsets")
}

pub(crate) fn jobs() -> &'static Resource {
    kind("batch", "jobs")
}

pub(crate) fn cluster_roles() -> &'static Resource {
    kind("rbac.authorization.k8s.io", "clusterroles")
}

pub(crate) fn certificate_requests() -> &'static Resource {
    kind("certificates.k8s.io", "certificatesigningrequests")
}
