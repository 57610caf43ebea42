//! The ClusterRoles and ClusterRoleBindings that a cluster starts with.
//!
//! Names, labels and rules as `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`, without the roles of
//! components that do not exist here.

use serde_json::{Map, Value, json};

use crate::rbac::{GROUP, aggregated_rules};
use crate::{Object, UserInfo};

/// User name in the certificate with which the API server calls kubelets (kubeadm's name for it).
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// Group of kubelets that have no certificate yet: it comes with bootstrap tokens.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
const NODES: &str = "system:nodes";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const READ_WRITE: &[&str] =
    &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const ANY: &[&str] = &["*"];

const APPS: &str = "apps";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTOSCALING: &str = "autoscaling";
const BATCH: &str = "batch";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const CORE: &str = "";
const DISCOVERY: &str = "discovery.k8s.io";
const EVENTS: &str = "events.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const POLICY: &str = "policy";

/// Every default role and binding. Create what is missing; `admin`, `edit` and `view` already carry the rules that
/// their aggregation comes to.
pub fn objects() -> Vec<Object> {
    let mut roles = plain_roles();
    // From the inside out: `edit` includes `view`, and `admin` includes `edit`.
    for name in ["view", "edit", "admin"] {
        let mut role = aggregating_role(name);
        let rules = aggregated_rules(&role, &roles).expect("the selectors are valid");
        role.0["rules"] = Value::Array(rules.unwrap_or_default());
        roles.push(role);
    }
    roles.extend(bindings());
    roles
}

fn plain_roles() -> Vec<Object> {
    vec![
        role("cluster-admin", vec![rule(ANY, "*", ANY), paths(ANY, ANY)]),
        role(
            "system:discovery",
            vec![paths(
                &["get"],
                &[
                    "/livez",
                    "/readyz",
                    "/healthz",
                    "/version",
                    "/version/",
                    "/openapi",
                    "/openapi/*",
                    "/api",
                    "/api/*",
                    "/apis",
                    "/apis/*",
                ],
            )],
        ),
        role(
            "system:monitoring",
            vec![paths(
                &["get"],
                &[
                    "/metrics",
                    "/metrics/slis",
                    "/livez",
                    "/readyz",
                    "/healthz",
                    "/livez/*",
                    "/readyz/*",
                    "/healthz/*",
                ],
            )],
        ),
        role(
            "system:basic-user",
            vec![
                rule(&["create"], AUTHORIZATION, &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                rule(&["create"], AUTHENTICATION, &["selfsubjectreviews"]),
            ],
        ),
        role(
            "system:public-info-viewer",
            vec![paths(&["get"], &["/livez", "/readyz", "/healthz", "/version", "/version/"])],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![paths(
                &["get"],
                &[
                    "/.well-known/openid-configuration",
                    "/.well-known/openid-configuration/",
                    "/openid/v1/jwks",
                    "/openid/v1/jwks/",
                ],
            )],
        ),
        role(
            "system:auth-delegator",
            vec![
                rule(&["create"], AUTHENTICATION, &["tokenreviews"]),
                rule(&["create"], AUTHORIZATION, &["subjectaccessreviews"]),
            ],
        ),
        role("system:node", node_rules()),
        role(
            "system:node-bootstrapper",
            vec![rule(&["create", "get", "list", "watch"], CERTIFICATES, &["certificatesigningrequests"])],
        ),
        request_role("nodeclient"),
        request_role("selfnodeclient"),
        request_role("selfnodeserver"),
        approver_role("kube-apiserver-client"),
        approver_role("kube-apiserver-client-kubelet"),
        approver_role("kubelet-serving"),
        role(
            "system:kubelet-api-admin",
            vec![
                rule(READ, CORE, &["nodes"]),
                rule(&["proxy"], CORE, &["nodes"]),
                rule(
                    ANY,
                    CORE,
                    &[
                        "nodes/proxy",
                        "nodes/metrics",
                        "nodes/stats",
                        "nodes/log",
                        "nodes/pods",
                        "nodes/healthz",
                        "nodes/configz",
                    ],
                ),
            ],
        ),
        part_of("admin", admin_rules()),
        part_of("edit", edit_rules()),
        part_of("view", view_rules()),
    ]
}

/// Whose requests are approved without being asked: `nodeclient` those for the client certificate of any node,
/// `selfnodeclient` those of a node for its own, `selfnodeserver` those of a node for the certificate that it serves with.
fn request_role(part: &str) -> Object {
    role(
        &format!("system:certificates.k8s.io:certificatesigningrequests:{part}"),
        vec![rule(&["create"], CERTIFICATES, &[&format!("certificatesigningrequests/{part}")])],
    )
}

/// May approve requests for one of Kubernetes' own signers.
fn approver_role(signer: &str) -> Object {
    let mut approve = rule(&["approve"], CERTIFICATES, &["signers"]);
    approve["resourceNames"] = json!([format!("kubernetes.io/{signer}")]);
    role(&format!("system:certificates.k8s.io:{signer}-approver"), vec![approve])
}

fn node_rules() -> Vec<Value> {
    vec![
        rule(&["create"], AUTHENTICATION, &["tokenreviews"]),
        rule(&["create"], AUTHORIZATION, &["subjectaccessreviews", "localsubjectaccessreviews"]),
        rule(READ, CORE, &["services"]),
        rule(&["create", "get", "list", "watch"], CORE, &["nodes"]),
        rule(&["update", "patch"], CORE, &["nodes/status"]),
        rule(&["update", "patch"], CORE, &["nodes"]),
        rule(&["create", "update", "patch"], CORE, &["events"]),
        rule(&["create", "update", "patch"], EVENTS, &["events"]),
        rule(READ, CORE, &["pods"]),
        rule(&["create", "delete"], CORE, &["pods"]),
        rule(&["update", "patch"], CORE, &["pods/status"]),
        rule(&["create"], CORE, &["pods/eviction"]),
        rule(READ, CORE, &["secrets", "configmaps"]),
        rule(&["get"], CORE, &["persistentvolumeclaims", "persistentvolumes"]),
        rule(&["get"], CORE, &["endpoints"]),
        rule(&["create", "get", "list", "watch"], CERTIFICATES, &["certificatesigningrequests"]),
        rule(&["get", "create", "update", "patch", "delete"], COORDINATION, &["leases"]),
        rule(&["create"], CORE, &["serviceaccounts/token"]),
    ]
}

fn admin_rules() -> Vec<Value> {
    vec![
        rule(&["create"], AUTHORIZATION, &["localsubjectaccessreviews"]),
        rule(READ_WRITE, GROUP, &["roles", "rolebindings"]),
    ]
}

fn edit_rules() -> Vec<Value> {
    let streams = &["pods", "pods/attach", "pods/proxy", "pods/exec", "pods/portforward"];
    vec![
        rule(
            READ,
            CORE,
            &["pods/attach", "pods/proxy", "pods/exec", "pods/portforward", "secrets", "services/proxy"],
        ),
        rule(&["impersonate"], CORE, &["serviceaccounts"]),
        rule(WRITE, CORE, streams),
        rule(&["create"], CORE, &["pods/eviction"]),
        rule(
            WRITE,
            CORE,
            &[
                "replicationcontrollers",
                "replicationcontrollers/scale",
                "serviceaccounts",
                "services",
                "services/proxy",
                "persistentvolumeclaims",
                "configmaps",
                "secrets",
                "events",
            ],
        ),
        rule(&["create"], CORE, &["serviceaccounts/token"]),
        rule(
            WRITE,
            APPS,
            &[
                "statefulsets",
                "statefulsets/scale",
                "daemonsets",
                "deployments",
                "deployments/scale",
                "deployments/rollback",
                "replicasets",
                "replicasets/scale",
            ],
        ),
        rule(WRITE, AUTOSCALING, &["horizontalpodautoscalers"]),
        rule(WRITE, BATCH, &["jobs", "cronjobs"]),
        rule(WRITE, POLICY, &["poddisruptionbudgets"]),
        rule(WRITE, NETWORKING, &["networkpolicies", "ingresses"]),
        rule(READ_WRITE, COORDINATION, &["leases"]),
    ]
}

fn view_rules() -> Vec<Value> {
    vec![
        rule(
            READ,
            CORE,
            &[
                "pods",
                "replicationcontrollers",
                "replicationcontrollers/scale",
                "serviceaccounts",
                "services",
                "services/status",
                "endpoints",
                "persistentvolumeclaims",
                "persistentvolumeclaims/status",
                "configmaps",
            ],
        ),
        rule(
            READ,
            CORE,
            &[
                "limitranges",
                "resourcequotas",
                "bindings",
                "events",
                "pods/status",
                "resourcequotas/status",
                "namespaces/status",
                "replicationcontrollers/status",
                "pods/log",
            ],
        ),
        rule(READ, CORE, &["namespaces"]),
        rule(READ, DISCOVERY, &["endpointslices"]),
        rule(
            READ,
            APPS,
            &[
                "controllerrevisions",
                "statefulsets",
                "statefulsets/status",
                "statefulsets/scale",
                "daemonsets",
                "daemonsets/status",
                "deployments",
                "deployments/status",
                "deployments/scale",
                "replicasets",
                "replicasets/status",
                "replicasets/scale",
            ],
        ),
        rule(READ, AUTOSCALING, &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
        rule(READ, BATCH, &["jobs", "cronjobs", "cronjobs/status", "jobs/status"]),
        rule(READ, POLICY, &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
        rule(READ, NETWORKING, &["networkpolicies", "ingresses", "ingresses/status"]),
    ]
}

fn bindings() -> Vec<Object> {
    let group = |name: &str| json!({"kind": "Group", "apiGroup": GROUP, "name": name});
    let user = |name: &str| json!({"kind": "User", "apiGroup": GROUP, "name": name});
    let everyone = || vec![group(UserInfo::AUTHENTICATED), group(UserInfo::UNAUTHENTICATED)];
    vec![
        binding("cluster-admin", vec![group(UserInfo::MASTERS)]),
        binding("system:monitoring", vec![group("system:monitoring")]),
        binding("system:discovery", vec![group(UserInfo::AUTHENTICATED)]),
        binding("system:basic-user", vec![group(UserInfo::AUTHENTICATED)]),
        binding("system:public-info-viewer", everyone()),
        binding("system:service-account-issuer-discovery", vec![group("system:serviceaccounts")]),
        // Bound to nobody: the Node authorizer gives a node less, what concerns its own pods.
        binding("system:node", Vec::new()),
        // As `kubeadm init` binds them, but for all bootstrap tokens, and the last one, which upstream leaves to people.
        named_binding("podlog:kubelet-bootstrap", "system:node-bootstrapper", vec![group(BOOTSTRAPPERS)]),
        requests_of("podlog:node-autoapprove-bootstrap", "nodeclient", BOOTSTRAPPERS),
        requests_of("podlog:node-autoapprove-certificate-rotation", "selfnodeclient", NODES),
        requests_of("podlog:node-autoapprove-serving", "selfnodeserver", NODES),
        // Upstream gives the API server's client certificate a privileged group instead.
        binding("system:kubelet-api-admin", vec![user(KUBELET_CLIENT)]),
    ]
}

fn role(name: &str, rules: Vec<Value>) -> Object {
    Object::new(json!({
        "kind": "ClusterRole",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": metadata(name),
        "rules": rules,
    }))
}

/// The role whose rules are added to `admin`, `edit` or `view`.
fn part_of(sum: &str, rules: Vec<Value>) -> Object {
    let mut role = role(&format!("system:aggregate-to-{sum}"), rules);
    role.0["metadata"]["labels"][aggregate_label(sum)] = json!("true");
    role
}

fn aggregating_role(name: &str) -> Object {
    let mut role = role(name, Vec::new());
    let part = Map::from_iter([(aggregate_label(name), json!("true"))]);
    role.0["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": part}]});
    let included_in = match name {
        "view" => Some("edit"),
        "edit" => Some("admin"),
        _ => None,
    };
    if let Some(sum) = included_in {
        role.0["metadata"]["labels"][aggregate_label(sum)] = json!("true");
    }
    role
}

/// Lets requests of a group be approved without being asked.
fn requests_of(name: &str, part: &str, group: &str) -> Object {
    let subject = json!({"kind": "Group", "apiGroup": GROUP, "name": group});
    named_binding(
        name,
        &format!("system:certificates.k8s.io:certificatesigningrequests:{part}"),
        vec![subject],
    )
}

/// Binds the ClusterRole of the same name.
fn binding(name: &str, subjects: Vec<Value>) -> Object {
    named_binding(name, name, subjects)
}

fn named_binding(name: &str, role: &str, subjects: Vec<Value>) -> Object {
    Object::new(json!({
        "kind": "ClusterRoleBinding",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": metadata(name),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    }))
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn aggregate_label(sum: &str) -> String {
    format!("{GROUP}/aggregate-to-{sum}")
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn paths(verbs: &[&str], urls: &[&str]) -> Value {
    json!({"verbs": verbs, "nonResourceURLs": urls})
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::rbac::Policy;
    use crate::{Attributes, Decision, Selectors};

    #[test]
    fn every_object_is_marked_and_every_binding_has_its_role() {
        let objects = objects();
        let named = |kind: &str, name: &str| objects.iter().any(|o| o.kind() == kind && o.name() == name);
        for object in &objects {
            assert_eq!(
                object.label("kubernetes.io/bootstrapping"),
                Some("rbac-defaults"),
                "{}",
                object.name()
            );
            let update = object.annotation("rbac.authorization.kubernetes.io/autoupdate");
            assert_eq!(update, Some("true"), "{}", object.name());
            if object.kind() == "ClusterRoleBinding" {
                assert!(named("ClusterRole", object.text("/roleRef/name")), "{}", object.name());
            } else {
                assert!(!object.array("/rules").is_empty(), "{}", object.name());
            }
        }
    }

    #[test]
    fn aggregated_roles_are_stable() {
        let objects = objects();
        for name in ["view", "edit", "admin"] {
            let role = objects.iter().find(|o| o.kind() == "ClusterRole" && o.name() == name).expect(name);
            let roles = objects.iter().filter(|o| o.kind() == "ClusterRole");
            let again = aggregated_rules(role, roles).expect("valid").expect("aggregates");
            assert_eq!(Value::Array(again), role.0["rules"], "{name}");
        }
    }

    #[test]
    fn who_may_do_what() {
        let expected = include_str!("bootstrap_roles/matrix.txt");
        assert_eq!(matrix(), expected, "\n{}", matrix());
    }

    /// Users × resources; the letters are the verbs allowed.
    fn matrix() -> String {
        const VERBS: [(char, &str); 8] = [
            ('g', "get"),
            ('l', "list"),
            ('w', "watch"),
            ('c', "create"),
            ('u', "update"),
            ('p', "patch"),
            ('d', "delete"),
            ('D', "deletecollection"),
        ];
        let policy = policy_with_bindings();
        let mut table = String::new();
        for (who, user) in users() {
            let _ = writeln!(table, "{who}");
            for question in QUESTIONS {
                let allowed: String = VERBS
                    .iter()
                    .filter(|(_, verb)| {
                        matches!(policy.authorize(&user, &attributes(verb, question)), Decision::Allow(_))
                    })
                    .map(|(letter, _)| *letter)
                    .collect();
                if !allowed.is_empty() {
                    let _ = writeln!(table, "  {question:<52} {allowed}");
                }
            }
        }
        table
    }

    const QUESTIONS: [&str; 33] = [
        "prod pods",
        "prod pods/log",
        "prod pods/status",
        "prod pods/exec",
        "prod pods/eviction",
        "prod secrets",
        "prod configmaps",
        "prod events",
        "prod serviceaccounts",
        "prod serviceaccounts/token",
        "prod deployments.apps",
        "prod deployments.apps/scale",
        "prod roles.rbac.authorization.k8s.io",
        "prod rolebindings.rbac.authorization.k8s.io",
        "prod localsubjectaccessreviews.authorization.k8s.io",
        "prod leases.coordination.k8s.io",
        "prod namespaces",
        "test pods/log",
        "- nodes",
        "- nodes/status",
        "- nodes/proxy",
        "- nodes/log",
        "- namespaces",
        "- clusterroles.rbac.authorization.k8s.io",
        "- selfsubjectaccessreviews.authorization.k8s.io",
        "- subjectaccessreviews.authorization.k8s.io",
        "- selfsubjectreviews.authentication.k8s.io",
        "- tokenreviews.authentication.k8s.io",
        "/version",
        "/healthz",
        "/metrics",
        "/api/v1",
        "/openapi/v3",
    ];

    /// `namespace resource[.group][/subresource]`, or a path.
    fn attributes(verb: &str, question: &str) -> Attributes {
        let Some((namespace, resource)) = question.split_once(' ') else {
            return Attributes::NonResource { verb: verb.into(), path: question.into() };
        };
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        Attributes::Resource {
            verb: verb.into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.trim_matches('-').into(),
            name: "x".into(),
            selectors: Selectors::default(),
        }
    }

    fn users() -> Vec<(&'static str, UserInfo)> {
        let user = |name: &str, groups: &[&str]| UserInfo {
            username: name.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..UserInfo::default()
        };
        let authenticated = UserInfo::AUTHENTICATED;
        vec![
            ("anonymous", user(UserInfo::ANONYMOUS, &[UserInfo::UNAUTHENTICATED])),
            ("authenticated", user("someone", &[authenticated])),
            ("administrator", user("admin", &[UserInfo::MASTERS, authenticated])),
            ("API server's kubelet client", user(KUBELET_CLIENT, &[authenticated])),
            ("kubelet without Node authorizer", user("system:node:n1", &["system:nodes", authenticated])),
            ("bound to system:node", user("node", &[authenticated])),
            ("view in prod", user("viewer", &[authenticated])),
            ("edit in prod", user("editor", &[authenticated])),
            ("admin in prod", user("owner", &[authenticated])),
            ("log reader in prod", user("system:serviceaccount:prod:ci-bot", &[authenticated])),
        ]
    }

    fn policy_with_bindings() -> Policy {
        let mut objects = objects();
        let local = |role: &str, kind: &str, subject: Value| {
            Object::new(json!({
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": "prod"},
                "roleRef": {"kind": kind, "name": role},
                "subjects": [subject],
            }))
        };
        for (role, name) in [("view", "viewer"), ("edit", "editor"), ("admin", "owner")] {
            objects.push(local(role, "ClusterRole", json!({"kind": "User", "name": name})));
        }
        objects.push(Object::new(json!({
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "test:node"},
            "roleRef": {"kind": "ClusterRole", "name": "system:node"},
            "subjects": [{"kind": "User", "name": "node"}],
        })));
        objects.push(local("log-reader", "Role", json!({"kind": "ServiceAccount", "name": "ci-bot"})));
        objects.push(Object::new(json!({
            "kind": "Role",
            "metadata": {"name": "log-reader", "namespace": "prod"},
            "rules": [{"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}],
        })));
        Policy::new(&objects)
    }
}
