//! What a kubelet may do: its node, the pods on it, and what these pods need.
//!
//! As `plugin/pkg/auth/authorizer/node`. Logs are not among it.

use std::collections::HashMap;

use parking_lot::Mutex;
use podlog_api::selector::SelectorOperator;
use podlog_api::{Attributes, Decision, Object, Selectors, UserInfo, go};

use crate::registry::Registry;
use crate::registry::admission::node_restriction::{LEASE_NAMESPACE, MIRROR, node_of};
use crate::registry::binding::pods as pods_kind;
use crate::registry::references;

/// `(group, resource, verbs)` that every node has (`NodeRules` of `bootstrappolicy/policy.go`).
const ALWAYS: &[(&str, &str, &[&str])] = &[
    ("", "services", &["get", "list", "watch"]),
    ("", "events", &["create", "update", "patch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
];

/// Said of a question about no object in particular.
const NO_NAME: &str = "No Object name found";

/// Relations that are remembered; then all are forgotten.
const MAX_PROOFS: usize = 1 << 14;

/// Which pod has proved last that a node needs an object. It is asked first: with very many pods, looking at all takes long.
#[derive(Default)]
pub(super) struct Proofs(Mutex<HashMap<Need, String>>);

/// Node, kind, namespace and name.
type Need = [String; 4];

/// One question of a node.
struct Asked<'a> {
    node: &'a str,
    verb: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    /// Empty when it is about no single object.
    name: &'a str,
}

pub(super) fn authorize(
    registry: &Registry,
    proofs: &Proofs,
    user: &UserInfo,
    attributes: &Attributes,
) -> Decision {
    let (
        Some(node),
        Attributes::Resource { verb, group, resource, subresource, namespace, name, selectors, .. },
    ) = (node_of(user), attributes)
    else {
        return no_opinion("");
    };
    // Pods that wait for a node are on no node, not on one without a name.
    if node.is_empty() {
        return no_opinion(format!("unknown node for user {}", go::quote(&user.username)));
    }
    let asked = Asked { node, verb, subresource, namespace, name };
    match (group.as_str(), resource.as_str()) {
        ("", "nodes") => nodes(&asked),
        ("", "pods") => pods(registry, &asked, selectors),
        ("", kind @ ("configmaps" | "secrets")) => needed_by_pods(registry, proofs, &asked, kind),
        ("", "serviceaccounts") => tokens(registry, proofs, &asked),
        ("coordination.k8s.io", "leases") => leases(&asked),
        (group, resource) => {
            let mine = |rule: &&(&str, &str, &[&str])| rule.0 == group && rule.1 == resource;
            let rule = ALWAYS.iter().find(mine).filter(|_| subresource.is_empty());
            allow_if(rule.is_some_and(|rule| rule.2.contains(&verb.as_str())))
        }
    }
}

fn no_opinion(why: impl Into<String>) -> Decision {
    Decision::NoOpinion(why.into())
}

fn allow_if(allowed: bool) -> Decision {
    if allowed { Decision::Allow(String::new()) } else { no_opinion("") }
}

/// A node reads its own object; admission sees to it that it writes no other.
fn nodes(asked: &Asked<'_>) -> Decision {
    let node = asked.node;
    match (asked.subresource, asked.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => allow_if(true),
        ("", "get" | "list" | "watch") if asked.name == node => allow_if(true),
        ("", "get" | "list" | "watch") if asked.name.is_empty() => {
            no_opinion(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            no_opinion(format!("node '{node}' cannot read '{}', only its own Node object", asked.name))
        }
        _ => no_opinion(""),
    }
}

/// A node reads the pods on it; admission sees to it that it writes no other, and creates mirror pods only.
fn pods(registry: &Registry, asked: &Asked<'_>, selectors: &Selectors) -> Decision {
    let on_node = || {
        let pod = registry.find(pods_kind(), asked.namespace, asked.name).ok().flatten();
        relationship(asked.node, pod.is_some_and(|pod| runs_on(&pod, asked.node)))
    };
    match (asked.subresource, asked.verb) {
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => allow_if(true),
        ("", "list" | "watch") if selects_node(selectors, asked.node) => allow_if(true),
        ("", "list" | "watch") if asked.name.is_empty() => {
            no_opinion("can only list/watch pods with spec.nodeName field selector")
        }
        ("", "get") if asked.name.is_empty() => no_opinion(NO_NAME),
        ("", "get" | "list" | "watch") => on_node(),
        _ => no_opinion(""),
    }
}

fn selects_node(selectors: &Selectors, node: &str) -> bool {
    selectors.fields.iter().any(|field| {
        field.key == "spec.nodeName" && field.operator == SelectorOperator::In && field.values == [node]
    })
}

fn needed_by_pods(registry: &Registry, proofs: &Proofs, asked: &Asked<'_>, kind: &str) -> Decision {
    match (asked.subresource, asked.verb) {
        (_, verb) if !matches!(verb, "get" | "list" | "watch") => {
            no_opinion("can only read resources of this type")
        }
        ("", _) if asked.namespace.is_empty() => no_opinion("can only read namespaced object of this type"),
        ("", _) if asked.name.is_empty() => no_opinion(NO_NAME),
        ("", _) => {
            related(registry, proofs, asked, kind, |pod| references::to(pod, kind, |name| name == asked.name))
        }
        _ => no_opinion("cannot read subresource"),
    }
}

fn tokens(registry: &Registry, proofs: &Proofs, asked: &Asked<'_>) -> Decision {
    if asked.verb != "create" || asked.name.is_empty() {
        return no_opinion("can only create tokens for individual service accounts");
    }
    if asked.subresource != "token" {
        return no_opinion("can only create token subresource of serviceaccount");
    }
    let uses = |pod: &Object| pod.text("/spec/serviceAccountName") == asked.name;
    related(registry, proofs, asked, "serviceaccounts", uses)
}

/// The lease that says that the node lives. Its name is not known on create: admission looks at it.
fn leases(asked: &Asked<'_>) -> Decision {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no_opinion("can only get, create, update, patch, or delete a node lease");
    }
    if asked.namespace != LEASE_NAMESPACE {
        return no_opinion(format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"));
    }
    if asked.verb != "create" && asked.name != asked.node {
        return no_opinion("can only access node lease with the same name as the requesting node");
    }
    allow_if(true)
}

/// Whether a pod of the node relates to the object of a kind that is asked for by name.
fn related(
    registry: &Registry,
    proofs: &Proofs,
    asked: &Asked<'_>,
    kind: &str,
    relates: impl Fn(&Object) -> bool,
) -> Decision {
    // Mirrors are made by nodes, so they prove nothing.
    let proves = |pod: &Object| runs_on(pod, asked.node) && pod.annotation(MIRROR).is_none() && relates(pod);
    let need = [asked.node, kind, asked.namespace, asked.name].map(str::to_owned);
    let known = proofs.0.lock().get(&need).cloned();
    let known = known.and_then(|pod| registry.find(pods_kind(), asked.namespace, &pod).ok().flatten());
    if known.is_some_and(|pod| proves(&pod)) {
        return relationship(asked.node, true);
    }
    // Names of objects are written in JSON as they are.
    let words = [asked.node, asked.name];
    let pods = registry.mentioning(pods_kind(), asked.namespace, &words).unwrap_or_default();
    let proof = pods.iter().find(|pod| proves(pod));
    let mut proofs = proofs.0.lock();
    if proofs.len() >= MAX_PROOFS {
        proofs.clear();
    }
    match proof {
        Some(pod) => proofs.insert(need, pod.name().to_owned()),
        None => proofs.remove(&need),
    };
    relationship(asked.node, proof.is_some())
}

fn relationship(node: &str, found: bool) -> Decision {
    if found {
        return allow_if(true);
    }
    no_opinion(format!("no relationship found between node '{node}' and this object"))
}

fn runs_on(pod: &Object, node: &str) -> bool {
    pod.text("/spec/nodeName") == node
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podlog_api::resource::find;
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::DeleteOptions;
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
        let proofs = Proofs::default();
        let everything = "kubernetes.io/x=y";
        let related = "no relationship found between node 'n1' and this object";
        let rows = [
            ("get secrets default mine", "", "yes"),
            ("watch secrets default mine", "", "yes"),
            ("get secrets default min", "", related),
            ("get secrets default theirs", "", related),
            ("list secrets default -", "", "No Object name found"),
            ("list secrets - -", "", "can only read namespaced object of this type"),
            ("update secrets default mine", "", "can only read resources of this type"),
            ("get configmaps default kube-root-ca.crt", "", "yes"),
            ("get configmaps default mine", "", related),
            ("get pods default on-n1", "", "yes"),
            ("get pods default on-n2", "", related),
            ("get pods default on-n3", "", related),
            ("get pods default -", "", "No Object name found"),
            ("get pods/log default on-n1", "", ""),
            ("list pods default on-n1", "", "yes"),
            ("list pods - -", "spec.nodeName=n1,status.phase=Running", "yes"),
            ("watch pods - -", "spec.nodeName==n1", "yes"),
            (
                "list pods - -",
                "spec.nodeName!=n1",
                "can only list/watch pods with spec.nodeName field selector",
            ),
            (
                "list pods - -",
                "spec.nodeName=n2",
                "can only list/watch pods with spec.nodeName field selector",
            ),
            ("list pods - -", everything, "can only list/watch pods with spec.nodeName field selector"),
            ("deletecollection pods default -", "", ""),
            ("create pods/eviction default on-n2", "", "yes"),
            ("update pods/ephemeralcontainers default on-n1", "", ""),
            ("create serviceaccounts/token default robot", "", "yes"),
            ("create serviceaccounts/token default default", "", related),
            (
                "create serviceaccounts default -",
                "",
                "can only create tokens for individual service accounts",
            ),
            (
                "get serviceaccounts default robot",
                "",
                "can only create tokens for individual service accounts",
            ),
            ("get nodes - n1", "", "yes"),
            ("get nodes - n2", "", "node 'n1' cannot read 'n2', only its own Node object"),
            ("list nodes - -", "", "node 'n1' cannot read all nodes, only its own Node object"),
            ("watch nodes - n1", "", "yes"),
            ("patch nodes/status - n2", "", "yes"),
            ("delete nodes - n1", "", ""),
            ("get nodes/proxy - n1", "", ""),
            ("update leases.coordination.k8s.io kube-node-lease n1", "", "yes"),
            ("create leases.coordination.k8s.io kube-node-lease -", "", "yes"),
            (
                "update leases.coordination.k8s.io kube-node-lease n2",
                "",
                "can only access node lease with the same name as the requesting node",
            ),
            (
                "update leases.coordination.k8s.io kube-system podlog-controllers",
                "",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            (
                "list leases.coordination.k8s.io kube-node-lease -",
                "",
                "can only get, create, update, patch, or delete a node lease",
            ),
            ("list services - -", "", "yes"),
            ("update services default s", "", ""),
            ("create events default -", "", "yes"),
            ("create subjectaccessreviews.authorization.k8s.io - -", "", "yes"),
        ];
        for (question, selector, expected) in rows {
            assert_eq!(says(&registry, &proofs, question, selector), expected, "{question} {selector}");
        }
    }

    #[tokio::test]
    async fn who_has_the_name_of_no_node_and_who_makes_up_pods_sees_nothing() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        crate::bootstrap::ensure(&registry).await.unwrap();
        let accounts = find("", "v1", "serviceaccounts").unwrap();
        let account = Object::new(json!({"metadata": {"name": "default"}}));
        registry.create(accounts, "default", account).await.unwrap();
        let volumes = json!([{"name": "v", "secret": {"secretName": "s"}}]);
        let containers = json!([{"name": "c", "image": "i"}]);
        let waiting =
            json!({"metadata": {"name": "waiting"}, "spec": {"containers": containers, "volumes": volumes}});
        let mirror = json!({"metadata": {"name": "mirror", "annotations": {MIRROR: "x"}},
            "spec": {"nodeName": "n1", "containers": containers, "volumes": volumes}});
        for pod in [waiting, mirror] {
            registry.create(pods_kind(), "default", Object::new(pod)).await.unwrap();
        }
        let proofs = Proofs::default();
        let nameless = UserInfo {
            username: "system:node:".into(),
            groups: vec!["system:nodes".into()],
            ..UserInfo::default()
        };
        for question in ["get secrets default s", "get pods default waiting", "patch nodes/status - n1"] {
            let decision = authorize(&registry, &proofs, &nameless, &attributes(question, ""));
            assert_eq!(decision, Decision::NoOpinion("unknown node for user \"system:node:\"".into()));
        }
        let said = says(&registry, &proofs, "get secrets default s", "");
        assert_eq!(said, "no relationship found between node 'n1' and this object");
    }

    #[tokio::test]
    async fn what_proved_a_need_proves_it_only_while_it_is_there() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        crate::bootstrap::ensure(&registry).await.unwrap();
        let (accounts, pods) = (find("", "v1", "serviceaccounts").unwrap(), pods_kind());
        let account = Object::new(json!({"metadata": {"name": "default"}}));
        registry.create(accounts, "default", account).await.unwrap();
        let run = async |name: &str| {
            let spec = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "v", "secret": {"secretName": "mine"}}]});
            let pod = Object::new(json!({"metadata": {"name": name}, "spec": spec}));
            registry.create(pods, "default", pod).await.unwrap();
        };
        let end = async |name: &str| {
            let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            registry.delete(pods, "default", name, options).await.unwrap();
        };
        let proofs = Proofs::default();
        let may = || says(&registry, &proofs, "get secrets default mine", "") == "yes";
        assert!(!may());
        run("first").await;
        assert!(may() && may());
        run("second").await;
        end("first").await;
        assert!(may());
        end("second").await;
        assert!(!may());
        run("first").await;
        assert!(may());
    }

    /// What node `n1` hears.
    fn says(registry: &Registry, proofs: &Proofs, question: &str, selector: &str) -> String {
        let user = UserInfo {
            username: "system:node:n1".into(),
            groups: vec!["system:nodes".into()],
            ..UserInfo::default()
        };
        match authorize(registry, proofs, &user, &attributes(question, selector)) {
            Decision::Allow(_) => "yes".to_owned(),
            Decision::NoOpinion(why) => why,
            Decision::Deny(why) => format!("denied: {why}"),
        }
    }

    /// `verb resource[.group][/subresource] namespace name`; `-` is empty.
    fn attributes(question: &str, selector: &str) -> Attributes {
        let words: Vec<&str> = question.split(' ').map(|word| word.trim_matches('-')).collect();
        let [verb, resource, namespace, name] = words[..] else { panic!("{question}") };
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        Attributes::Resource {
            verb: verb.into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            selectors: Selectors::of_query(selector, ""),
        }
    }
}
