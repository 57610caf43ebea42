//! What stands between a write that is allowed and a write that happens.
//!
//! The plugins that kube-apiserver has on by default and that matter here, in its order
//! (`pkg/kubeapiserver/options/plugins.go`).

mod certificates;
mod escalation;
mod namespace;
pub(crate) mod node_restriction;
mod pod;
mod service_account;

use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object};

use super::{Part, Registry, WriteContext};

pub(super) use namespace::namespace_of;

/// May refuse a new object, or complete it.
pub(super) async fn create(
    registry: &Registry,
    context: &WriteContext,
    resource: &'static Resource,
    object: &mut Object,
) -> Result<(), ApiError> {
    if let Some(user) = &context.user {
        node_restriction::create(registry, user, resource, object)?;
    }
    escalation::check(registry, context, object, None).await?;
    if super::certificates::is_request(resource) {
        certificates::create(context.user.as_ref(), resource, object)?;
    }
    if resource.kind == "Pod" {
        service_account::arrival(registry, object).await?;
        service_account::complete(registry, resource, object)?;
        pod::complete(object);
    }
    Ok(())
}

/// May refuse whoever writes to the object, whether or not anything changes. It is asked again when another state of the object, or
/// another object of its name, is to be changed.
pub(super) async fn decide(
    context: &WriteContext,
    resource: &'static Resource,
    part: Part,
    old: &Object,
) -> Result<(), ApiError> {
    match super::certificates::is_request(resource) {
        true => certificates::may_decide(context, resource, part, old).await,
        false => Ok(()),
    }
}

/// May refuse a change.
pub(super) async fn update(
    registry: &Registry,
    context: &WriteContext,
    resource: &'static Resource,
    part: Part,
    new: &Object,
    old: &Object,
) -> Result<(), ApiError> {
    if let Some(user) = &context.user {
        node_restriction::update(user, resource, part, new, old)?;
    }
    escalation::check(registry, context, new, Some(old)).await
}

/// May protect an object.
pub(super) fn delete(
    context: &WriteContext,
    resource: &'static Resource,
    object: &Object,
) -> Result<(), ApiError> {
    namespace::may_go(resource, object)?;
    match &context.user {
        Some(user) => node_restriction::delete(user, resource, object),
        None => Ok(()),
    }
}
