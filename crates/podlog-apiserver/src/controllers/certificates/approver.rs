//! Approves requests of kubelets that may have what they ask for (`approver/sarapprove.go`), and, other than upstream, those
//! for the certificate a kubelet serves with, where it names nothing but the addresses of its node.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Attributes, Object, Selectors, UserInfo};
use podlog_serving::pki::SigningRequest;
use podlog_serving::{Authorizer, authorize};
use tokio::runtime::Handle;

use super::super::action::Action;
use super::super::kinds;
use super::super::objects::{Objects, condition, created, plus_seconds};
use super::super::runner::{Change, Controller, Key};
use super::{add_condition, has, is_issued, rules, usages};
use crate::registry::Part;
use crate::registry::certificates::{KUBELET_CLIENT, KUBELET_SERVING, parse};

/// A kubelet asks for its serving certificate before its node has addresses: these are looked for so often,
const RETRY: Duration = Duration::from_secs(5);
/// and for so long.
const PATIENCE_SECONDS: i64 = 60 * 60;

/// The controller that approves.
pub(in super::super) struct Approver {
    pub(in super::super) authorizer: Arc<dyn Authorizer>,
}

/// Subresource of certificate requests that the requester must be allowed to create, and what is said then.
type Permission = (&'static str, &'static str);

const SELF_CLIENT: Permission =
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const CLIENT: Permission =
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
const SELF_SERVING: Permission =
    ("selfnodeserver", "Auto approving self kubelet server certificate after SubjectAccessReview.");

impl Controller for Approver {
    fn name(&self) -> &'static str {
        "csrapproving"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::certificate_requests()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        Ok(if change.is_deletion { Vec::new() } else { vec![Key::of(change.object)] })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(request) = objects.find(kinds::certificate_requests(), "", &key.name)? else {
            return Ok(Vec::new());
        };
        if is_issued(&request) || has(&request, "Approved") || has(&request, "Denied") {
            return Ok(Vec::new());
        }
        // Validation lets no other in.
        let Ok(asked) = parse(&request) else { return Ok(Vec::new()) };
        let user = UserInfo::described(&request, "username");
        for (subresource, message) in permissions(&request, &asked, objects)? {
            if Handle::current().block_on(self.may_create(&user, subresource)) {
                let mut approved = request.clone();
                add_condition(&mut approved, "Approved", "AutoApproved", message);
                let kind = kinds::certificate_requests();
                return Ok(Action::update(kind, Part::Approval, &request, approved).into_iter().collect());
            }
        }
        let waits = request.text("/spec/signerName") == KUBELET_SERVING
            && now < plus_seconds(created(&request), PATIENCE_SECONDS);
        Ok(if waits { vec![Action::Requeue(RETRY)] } else { Vec::new() })
    }
}

impl Approver {
    async fn may_create(&self, user: &UserInfo, subresource: &str) -> bool {
        let kind = kinds::certificate_requests();
        let attributes = Attributes::Resource {
            verb: "create".into(),
            group: kind.group.into(),
            version: String::new(),
            resource: kind.plural.into(),
            subresource: subresource.into(),
            namespace: String::new(),
            name: String::new(),
            selectors: Selectors::default(),
        };
        authorize(self.authorizer.as_ref(), user, &attributes).await.is_ok()
    }
}

/// Any of these is enough for the request to be approved.
fn permissions(
    request: &Object,
    asked: &SigningRequest,
    objects: &dyn Objects,
) -> Result<Vec<Permission>, ApiError> {
    let by_itself = request.text("/spec/username") == asked.common_name;
    let usages = usages(request);
    let mut permissions = Vec::new();
    match request.text("/spec/signerName") {
        KUBELET_CLIENT if rules::kubelet_client(asked, &usages).is_ok() => {
            permissions.extend(by_itself.then_some(SELF_CLIENT));
            permissions.push(CLIENT);
        }
        KUBELET_SERVING if by_itself && rules::kubelet_serving(asked, &usages).is_ok() => {
            let name = asked.common_name.trim_start_matches("system:node:");
            let nodes = objects.list(kinds::nodes(), None)?;
            let (own, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node.name() == name);
            let is_its_own =
                own.iter().any(|node| is_at(node, asked)) && !others.iter().any(|node| has_one(node, asked));
            permissions.extend(is_its_own.then_some(SELF_SERVING));
        }
        _ => {}
    }
    Ok(permissions)
}

/// Whether the node has every address and name that is asked for, and none is one of the API server's names.
fn is_at(node: &Object, asked: &SigningRequest) -> bool {
    let known: Vec<&str> = addresses(node).collect();
    let addresses = asked.addresses.iter().map(ToString::to_string);
    let is_of_the_server = |name: &String| name.split('.').next() == Some("kubernetes");
    asked.dns_names.iter().cloned().chain(addresses).all(|wanted| known.contains(&wanted.as_str()))
        && !asked.dns_names.iter().any(is_of_the_server)
}

/// Whether a name or address that is asked for is another's: a node says itself which it has. Nobody answers for a node that is not
/// ready, and loopback is where several may be.
fn has_one(other: &Object, asked: &SigningRequest) -> bool {
    let is_ready = condition(other, "Ready").is_some_and(|ready| ready["status"] == "True");
    let known: Vec<&str> = addresses(other).filter(|_| is_ready).collect();
    let addresses = asked.addresses.iter().filter(|address| !address.is_loopback());
    asked.dns_names.iter().any(|wanted| other.name() == wanted || known.contains(&wanted.as_str()))
        || addresses.map(ToString::to_string).any(|wanted| known.contains(&wanted.as_str()))
}

fn addresses(node: &Object) -> impl Iterator<Item = &str> {
    node.array("/status/addresses").iter().filter_map(|address| address["address"].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::objects::Listed;
    use super::*;

    #[test]
    fn a_kubelet_may_have_what_is_its_own() {
        let node = |addresses: &[&str]| {
            let addresses: Vec<Value> =
                addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
            Listed(vec![Object::new(
                json!({"kind": "Node", "metadata": {"name": "n1"}, "status": {"addresses": addresses}}),
            )])
        };
        let here = node(&["10.0.0.1", "n1"]);
        let beside = |name: &str, addresses: &[&str], ready: &str| {
            let addresses: Vec<Value> =
                addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let other = Object::new(json!({"kind": "Node", "metadata": {"name": name},
                "status": {"addresses": addresses, "conditions": conditions}}));
            Listed(vec![
                node(&["10.0.0.1", "127.0.0.1", "n1", "kubernetes.default", "n3"]).0.remove(0),
                other,
            ])
        };
        let client = ["digital signature", "client auth"];
        let server = ["digital signature", "server auth"];
        let request = |user: &str, signer: &str, usages: [&str; 2]| {
            Object::new(json!({"spec": {"username": user, "signerName": signer, "usages": usages}}))
        };
        let mut asked = SigningRequest::default();
        asked.common_name = "system:node:n1".into();
        asked.organizations = vec!["system:nodes".into()];
        let mut serving = asked.clone();
        serving.addresses = vec!["10.0.0.1".parse().unwrap()];
        serving.dns_names = vec!["n1".into()];
        let with = |address: &str, name: &str| {
            let mut asked = serving.clone();
            asked.addresses = vec![address.parse().unwrap()];
            asked.dns_names = vec![name.into()];
            asked
        };
        let rows = [
            (
                "system:node:n1",
                KUBELET_SERVING,
                server,
                &serving,
                &beside("n2", &["10.0.0.2"], "True"),
                vec![SELF_SERVING],
            ),
            (
                "system:node:n1",
                KUBELET_SERVING,
                server,
                &serving,
                &beside("n2", &["10.0.0.1"], "True"),
                vec![],
            ),
            ("system:node:n1", KUBELET_SERVING, server, &serving, &beside("n2", &["n1"], "True"), vec![]),
            (
                "system:node:n1",
                KUBELET_SERVING,
                server,
                &serving,
                &beside("n2", &["10.0.0.1"], "Unknown"),
                vec![SELF_SERVING],
            ),
            (
                "system:node:n1",
                KUBELET_SERVING,
                server,
                &with("127.0.0.1", "n1"),
                &beside("n2", &["127.0.0.1"], "True"),
                vec![SELF_SERVING],
            ),
            (
                "system:node:n1",
                KUBELET_SERVING,
                server,
                &with("10.0.0.1", "n3"),
                &beside("n3", &[], "Unknown"),
                vec![],
            ),
            (
                "system:node:n1",
                KUBELET_SERVING,
                server,
                &with("10.0.0.1", "kubernetes.default"),
                &beside("n2", &[], "True"),
                vec![],
            ),
            ("system:node:n1", KUBELET_CLIENT, client, &asked, &here, vec![SELF_CLIENT, CLIENT]),
            ("system:bootstrap:x", KUBELET_CLIENT, client, &asked, &here, vec![CLIENT]),
            ("system:bootstrap:x", KUBELET_CLIENT, server, &asked, &here, vec![]),
            ("system:node:n1", "kubernetes.io/kube-apiserver-client", client, &asked, &here, vec![]),
            ("system:node:n1", KUBELET_SERVING, server, &serving, &here, vec![SELF_SERVING]),
            ("system:node:n2", KUBELET_SERVING, server, &serving, &here, vec![]),
            ("system:node:n1", KUBELET_SERVING, server, &serving, &node(&["10.0.0.1"]), vec![]),
            ("system:node:n1", KUBELET_SERVING, server, &serving, &Listed(vec![]), vec![]),
        ];
        for (user, signer, usages, asked, objects, expected) in rows {
            let found = permissions(&request(user, signer, usages), asked, objects).unwrap();
            assert_eq!(found, expected, "{user} {signer}");
        }
    }
}
