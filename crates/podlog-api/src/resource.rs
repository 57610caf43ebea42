//! One row per kind: the table that drives routes, discovery, OpenAPI, printing, selectors and validation.

/// A kind that the API serves.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version, e.g. `v1`.
    pub version: &'static str,
    /// Kind, e.g. `Pod`.
    pub kind: &'static str,
    /// Plural name in paths, e.g. `pods`.
    pub plural: &'static str,
    /// Singular name, e.g. `pod`.
    pub singular: &'static str,
    /// Names that kubectl accepts too, e.g. `po`.
    pub short_names: &'static [&'static str],
    /// Categories, e.g. `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs offered on the resource; `create` alone for reviews, which are answered and never stored.
    pub verbs: &'static [&'static str],
    /// Subresources, e.g. `log` and `status` of pods.
    pub subresources: &'static [Subresource],
    /// Name of the kind's schema, e.g. `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
}

/// A subresource of a [`Resource`].
#[derive(Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Last part of the path, e.g. `log`.
    pub name: &'static str,
    /// Kind that is read and written there, e.g. `Scale`; its own group and version in `group_version`.
    pub kind: &'static str,
    /// `(group, version)` of that kind where it is not the parent's, e.g. `("autoscaling", "v1")`.
    pub group_version: Option<(&'static str, &'static str)>,
    /// Verbs offered.
    pub verbs: &'static [&'static str],
    /// Name of the schema of what is read and written, e.g. `io.k8s.api.autoscaling.v1.Scale`.
    pub schema: &'static str,
}

/// Every kind that the API serves: core first, then the groups in the order in which kube-apiserver lists them.
pub fn all() -> &'static [Resource] {
    RESOURCES
}

/// The kind behind a path's group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The row of a group, version and kind, as a manifest names them.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The row of a manifest's `apiVersion` and `kind`.
pub fn by_api_version(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = split_api_version(api_version);
    by_kind(group, version, kind)
}

/// `("apps", "v1")` of `apps/v1`, `("", "v1")` of `v1`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// `apps/v1`, or `v1` for the core group.
pub fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Every `(group, version)` served, in the order of [`all`].
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    for resource in RESOURCES {
        let pair = (resource.group, resource.version);
        if !found.contains(&pair) {
            found.push(pair);
        }
    }
    found
}

impl Resource {
    /// `v1`, or `apps/v1`.
    pub fn api_version(&self) -> String {
        join_api_version(self.group, self.version)
    }

    /// `pods`, or `deployments.apps`: how error texts name the resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Kind of a list of these, e.g. `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Whether the verb is offered on the resource itself.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects are stored: reviews are only answered.
    pub fn is_stored(&self) -> bool {
        self.has_verb("get")
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// `/api/v1`, or `/apis/apps/v1`.
    pub fn root_path(&self) -> String {
        let prefix = if self.group.is_empty() { "/api" } else { "/apis" };
        format!("{prefix}/{}", self.api_version())
    }

    /// Path of the collection; `namespace` empty means all namespaces, or a cluster-scoped kind.
    pub fn collection_path(&self, namespace: &str) -> String {
        let root = self.root_path();
        if namespace.is_empty() || !self.namespaced {
            format!("{root}/{}", self.plural)
        } else {
            format!("{root}/namespaces/{namespace}/{}", self.plural)
        }
    }

    /// Path of one object.
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection_path(namespace))
    }

    const fn new(
        (group, version): (&'static str, &'static str),
        kind: &'static str,
        (plural, singular): (&'static str, &'static str),
        schema: &'static str,
    ) -> Self {
        Resource {
            group,
            version,
            kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: true,
            verbs: ALL_VERBS,
            subresources: &[],
            schema,
        }
    }

    const fn cluster_scoped(mut self) -> Self {
        self.namespaced = false;
        self
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    const fn in_all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    const fn with(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }
}

const fn sub(
    name: &'static str,
    kind: &'static str,
    schema: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, kind, group_version: None, verbs, schema }
}

const fn foreign(
    name: &'static str,
    kind: &'static str,
    group_version: (&'static str, &'static str),
    schema: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, kind, group_version: Some(group_version), verbs, schema }
}

const fn status(kind: &'static str, schema: &'static str) -> Subresource {
    sub("status", kind, schema, READ_WRITE)
}

const fn scale() -> Subresource {
    foreign("scale", "Scale", ("autoscaling", "v1"), "io.k8s.api.autoscaling.v1.Scale", READ_WRITE)
}

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
/// By POST, or by GET where the client is a WebSocket.
const CONNECT: &[&str] = &["create", "get"];
const READ_ONLY: &[&str] = &["get", "list", "watch"];
const READ_WRITE: &[&str] = &["get", "patch", "update"];

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const EVENTS: (&str, &str) = ("events.k8s.io", "v1");
const AUTHENTICATION: (&str, &str) = ("authentication.k8s.io", "v1");
const AUTHORIZATION: (&str, &str) = ("authorization.k8s.io", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const CERTIFICATES: (&str, &str) = ("certificates.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");
const COORDINATION: (&str, &str) = ("coordination.k8s.io", "v1");
const DISCOVERY: (&str, &str) = ("discovery.k8s.io", "v1");
const EXTENSIONS: (&str, &str) = ("apiextensions.k8s.io", "v1");

const POD: &str = "io.k8s.api.core.v1.Pod";
const NODE: &str = "io.k8s.api.core.v1.Node";
const NAMESPACE: &str = "io.k8s.api.core.v1.Namespace";
const SERVICE: &str = "io.k8s.api.core.v1.Service";
const DAEMON_SET: &str = "io.k8s.api.apps.v1.DaemonSet";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const REPLICA_SET: &str = "io.k8s.api.apps.v1.ReplicaSet";
const STATEFUL_SET: &str = "io.k8s.api.apps.v1.StatefulSet";
const JOB: &str = "io.k8s.api.batch.v1.Job";
const CERTIFICATE_REQUEST: &str = "io.k8s.api.certificates.v1.CertificateSigningRequest";
const TOKEN_REQUEST: &str = "io.k8s.api.authentication.v1.TokenRequest";

/// Names, scopes, verbs and subresources as the `rest.Storage` of each kind declares them in `pkg/registry`.
static RESOURCES: &[Resource] = &[
    Resource::new(CORE, "ConfigMap", ("configmaps", "configmap"), "io.k8s.api.core.v1.ConfigMap")
        .short(&["cm"]),
    Resource::new(CORE, "Event", ("events", "event"), "io.k8s.api.core.v1.Event").short(&["ev"]),
    Resource::new(CORE, "Namespace", ("namespaces", "namespace"), NAMESPACE)
        .cluster_scoped()
        .short(&["ns"])
        .verbs(NO_COLLECTION)
        .with(&[sub("finalize", "Namespace", NAMESPACE, &["update"]), status("Namespace", NAMESPACE)]),
    Resource::new(CORE, "Node", ("nodes", "node"), NODE).cluster_scoped().short(&["no"]).with(&[
        sub("proxy", "NodeProxyOptions", NODE, &["create", "delete", "get", "patch", "update"]),
        status("Node", NODE),
    ]),
    Resource::new(CORE, "Pod", ("pods", "pod"), POD).short(&["po"]).in_all().with(&[
        sub("attach", "PodAttachOptions", POD, CONNECT),
        sub("binding", "Binding", "io.k8s.api.core.v1.Binding", CREATE),
        foreign("eviction", "Eviction", ("policy", "v1"), "io.k8s.api.policy.v1.Eviction", CREATE),
        sub("ephemeralcontainers", "Pod", POD, &["get", "patch", "update"]),
        sub("exec", "PodExecOptions", POD, CONNECT),
        sub("log", "Pod", POD, &["get"]),
        sub("portforward", "PodPortForwardOptions", POD, CONNECT),
        status("Pod", POD),
    ]),
    Resource::new(CORE, "Secret", ("secrets", "secret"), "io.k8s.api.core.v1.Secret"),
    Resource::new(
        CORE,
        "ServiceAccount",
        ("serviceaccounts", "serviceaccount"),
        "io.k8s.api.core.v1.ServiceAccount",
    )
    .short(&["sa"])
    .with(&[foreign("token", "TokenRequest", AUTHENTICATION, TOKEN_REQUEST, CREATE)]),
    Resource::new(CORE, "Service", ("services", "service"), SERVICE)
        .short(&["svc"])
        .in_all()
        .with(&[status("Service", SERVICE)]),
    Resource::new(
        APPS,
        "ControllerRevision",
        ("controllerrevisions", "controllerrevision"),
        "io.k8s.api.apps.v1.ControllerRevision",
    ),
    Resource::new(APPS, "DaemonSet", ("daemonsets", "daemonset"), DAEMON_SET)
        .short(&["ds"])
        .in_all()
        .with(&[status("DaemonSet", DAEMON_SET)]),
    Resource::new(APPS, "Deployment", ("deployments", "deployment"), DEPLOYMENT)
        .short(&["deploy"])
        .in_all()
        .with(&[scale(), status("Deployment", DEPLOYMENT)]),
    Resource::new(APPS, "ReplicaSet", ("replicasets", "replicaset"), REPLICA_SET)
        .short(&["rs"])
        .in_all()
        .with(&[scale(), status("ReplicaSet", REPLICA_SET)]),
    Resource::new(APPS, "StatefulSet", ("statefulsets", "statefulset"), STATEFUL_SET)
        .short(&["sts"])
        .in_all()
        .with(&[scale(), status("StatefulSet", STATEFUL_SET)]),
    Resource::new(EVENTS, "Event", ("events", "event"), "io.k8s.api.events.v1.Event").short(&["ev"]),
    Resource::new(
        AUTHENTICATION,
        "SelfSubjectReview",
        ("selfsubjectreviews", "selfsubjectreview"),
        "io.k8s.api.authentication.v1.SelfSubjectReview",
    )
    .cluster_scoped()
    .verbs(CREATE),
    Resource::new(
        AUTHENTICATION,
        "TokenReview",
        ("tokenreviews", "tokenreview"),
        "io.k8s.api.authentication.v1.TokenReview",
    )
    .cluster_scoped()
    .verbs(CREATE),
    Resource::new(
        AUTHORIZATION,
        "LocalSubjectAccessReview",
        ("localsubjectaccessreviews", "localsubjectaccessreview"),
        "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    )
    .verbs(CREATE),
    Resource::new(
        AUTHORIZATION,
        "SelfSubjectAccessReview",
        ("selfsubjectaccessreviews", "selfsubjectaccessreview"),
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    )
    .cluster_scoped()
    .verbs(CREATE),
    Resource::new(
        AUTHORIZATION,
        "SelfSubjectRulesReview",
        ("selfsubjectrulesreviews", "selfsubjectrulesreview"),
        "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    )
    .cluster_scoped()
    .verbs(CREATE),
    Resource::new(
        AUTHORIZATION,
        "SubjectAccessReview",
        ("subjectaccessreviews", "subjectaccessreview"),
        "io.k8s.api.authorization.v1.SubjectAccessReview",
    )
    .cluster_scoped()
    .verbs(CREATE),
    Resource::new(BATCH, "Job", ("jobs", "job"), JOB).in_all().with(&[status("Job", JOB)]),
    Resource::new(
        CERTIFICATES,
        "CertificateSigningRequest",
        ("certificatesigningrequests", "certificatesigningrequest"),
        CERTIFICATE_REQUEST,
    )
    .cluster_scoped()
    .short(&["csr"])
    .with(&[
        sub("approval", "CertificateSigningRequest", CERTIFICATE_REQUEST, READ_WRITE),
        status("CertificateSigningRequest", CERTIFICATE_REQUEST),
    ]),
    Resource::new(
        RBAC,
        "ClusterRoleBinding",
        ("clusterrolebindings", "clusterrolebinding"),
        "io.k8s.api.rbac.v1.ClusterRoleBinding",
    )
    .cluster_scoped(),
    Resource::new(RBAC, "ClusterRole", ("clusterroles", "clusterrole"), "io.k8s.api.rbac.v1.ClusterRole")
        .cluster_scoped(),
    Resource::new(RBAC, "RoleBinding", ("rolebindings", "rolebinding"), "io.k8s.api.rbac.v1.RoleBinding"),
    Resource::new(RBAC, "Role", ("roles", "role"), "io.k8s.api.rbac.v1.Role"),
    // There are none and none can be made; clients look here when they meet a kind that they do not know.
    Resource::new(
        EXTENSIONS,
        "CustomResourceDefinition",
        ("customresourcedefinitions", "customresourcedefinition"),
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    )
    .cluster_scoped()
    .short(&["crd", "crds"])
    .verbs(READ_ONLY),
    Resource::new(COORDINATION, "Lease", ("leases", "lease"), "io.k8s.api.coordination.v1.Lease"),
    Resource::new(
        DISCOVERY,
        "EndpointSlice",
        ("endpointslices", "endpointslice"),
        "io.k8s.api.discovery.v1.EndpointSlice",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_path_and_by_kind() {
        for row in all() {
            assert_eq!(find(row.group, row.version, row.plural), Some(row));
            assert_eq!(by_api_version(&row.api_version(), row.kind), Some(row));
            assert_eq!(row.singular, row.kind.to_lowercase());
        }
        assert_eq!(find("apps", "v1", "pods"), None);
        assert_eq!(by_kind("", "v2", "Pod"), None);
    }

    #[test]
    fn groups_are_contiguous() {
        let mut pairs: Vec<_> = all().iter().map(|r| (r.group, r.version)).collect();
        pairs.dedup();
        assert_eq!(pairs, group_versions());
    }

    #[test]
    fn paths() {
        let rows = [
            ("v1", "Pod", "prod", "web", "/api/v1/namespaces/prod/pods/web"),
            ("v1", "Node", "", "n1", "/api/v1/nodes/n1"),
            ("apps/v1", "Deployment", "prod", "web", "/apis/apps/v1/namespaces/prod/deployments/web"),
        ];
        for (api_version, kind, namespace, name, path) in rows {
            let row = by_api_version(api_version, kind).expect(kind);
            assert_eq!(row.object_path(namespace, name), path);
        }
        let pods = find("", "v1", "pods").expect("pods");
        assert_eq!(pods.collection_path(""), "/api/v1/pods");
    }
}
