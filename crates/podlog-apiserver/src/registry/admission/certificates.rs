//! Whom a certificate may name, and who decides about it (`plugin/pkg/admission/certificates`, `.../noderestriction`).

use podlog_api::resource::Resource;
use podlog_api::{ApiError, Attributes, Object, Selectors, UserInfo};
use podlog_serving::authorize;

use super::node_restriction::node_of;
use crate::registry::certificates::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, parse};
use crate::registry::{Part, WriteContext};

/// Nobody becomes a master by certificate, and a node only itself.
pub(super) fn create(user: Option<&UserInfo>, resource: &Resource, request: &Object) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::forbidden(resource.group, resource.plural, request.name(), why));
    // What cannot be read is for validation to refuse.
    let Ok(asked) = parse(request) else { return Ok(()) };
    let signer = request.text("/spec/signerName");
    let masters = UserInfo::MASTERS;
    if signer == CLIENT && asked.organizations.iter().any(|organization| organization == masters) {
        return refuse(format!("use of {CLIENT} signer with {masters} group is not allowed"));
    }
    let Some(node) = user.and_then(node_of) else { return Ok(()) };
    let is_of_nodes = matches!(signer, KUBELET_CLIENT | KUBELET_SERVING);
    if is_of_nodes && asked.common_name.strip_prefix("system:node:") != Some(node) {
        return refuse(format!("can only create a node CSR with CN=system:node:{node}"));
    }
    Ok(())
}

/// Whoever approves or signs needs to be allowed to do so for the signer, by name or for all of the signer's domain.
pub(super) async fn may_decide(
    context: &WriteContext,
    resource: &Resource,
    part: Part,
    request: &Object,
) -> Result<(), ApiError> {
    let (Some(user), Some(verb)) = (&context.user, verb_of(part)) else { return Ok(()) };
    let signer = request.text("/spec/signerName");
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let right = Attributes::Resource {
            verb: verb.to_owned(),
            group: resource.group.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name,
            selectors: Selectors::default(),
        };
        if let Some(authorizer) = &context.authorizer
            && authorize(authorizer.as_ref(), user, &right).await.is_ok()
        {
            return Ok(());
        }
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(ApiError::forbidden(resource.group, resource.plural, request.name(), why))
}

/// What it takes to write a part of a request; `None` where that decides nothing.
fn verb_of(part: Part) -> Option<&'static str> {
    match part {
        Part::Approval => Some("approve"),
        Part::Status => Some("sign"),
        _ => None,
    }
}
