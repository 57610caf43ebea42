//! Nobody grants more than they have (`pkg/registry/rbac/*/policybased/storage.go`).

use podlog_api::rbac::{check_binding, check_role};
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, UserInfo};

use crate::registry::Registry;

pub(super) fn check(
    registry: &Registry,
    user: &UserInfo,
    resource: &Resource,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), ApiError> {
    match resource.kind {
        "Role" | "ClusterRole" => check_role(&registry.policy(), user, new, old),
        "RoleBinding" | "ClusterRoleBinding" => check_binding(&registry.policy(), user, new, old),
        _ => Ok(()),
    }
}
