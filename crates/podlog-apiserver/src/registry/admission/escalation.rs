//! Nobody grants more than they have (`pkg/registry/rbac/*/policybased/storage.go`).

use podlog_api::rbac::{check_grant, right_to_grant};
use podlog_api::{ApiError, Object};
use podlog_serving::authorize;

use crate::registry::{Registry, WriteContext};

/// Everybody who decides is asked whether the user may grant whatever they want; only where nobody says so do the rules count
/// that the user holds.
pub(super) async fn check(
    registry: &Registry,
    context: &WriteContext,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), ApiError> {
    let (Some(user), Some(right)) = (&context.user, right_to_grant(new, old)) else { return Ok(()) };
    if let Some(authorizer) = &context.authorizer
        && authorize(authorizer.as_ref(), user, &right).await.is_ok()
    {
        return Ok(());
    }
    check_grant(&registry.policy(), user, new, old)
}
