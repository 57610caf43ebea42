//! Whom a certificate may name (`plugin/pkg/admission/certificates/subjectrestriction`, `.../noderestriction`).

use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, UserInfo};

use super::node_restriction::node_of;
use crate::registry::certificates::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, parse};

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
