//! The refusal that a client sees (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`).

use crate::{ApiError, Attributes, UserInfo, go};

/// 403 for a request that no authorizer allowed; `reason` is theirs, empty for none.
pub fn forbidden(user: &UserInfo, attributes: &Attributes, reason: &str) -> ApiError {
    let cannot = go::escape_html(&cannot(user, attributes));
    let why = if reason.is_empty() { cannot } else { format!("{cannot}: {reason}") };
    match attributes {
        Attributes::Resource { group, resource, name, .. } => ApiError::forbidden(group, resource, name, why),
        Attributes::NonResource { .. } => ApiError::forbidden("", "", "", why),
    }
}

fn cannot(user: &UserInfo, attributes: &Attributes) -> String {
    let user = go::quote(&user.username);
    match attributes {
        Attributes::NonResource { verb, path } => {
            format!("User {user} cannot {verb} path {}", go::quote(path))
        }
        Attributes::Resource { verb, group, resource, subresource, namespace, .. } => {
            let resource = match subresource.as_str() {
                "" => go::quote(resource),
                subresource => go::quote(&format!("{resource}/{subresource}")),
            };
            let scope = match namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {}", go::quote(namespace)),
            };
            format!("User {user} cannot {verb} resource {resource} in API group {} {scope}", go::quote(group))
        }
    }
}
