//! What a new cluster starts with: system namespaces, default roles and bindings.

use podlog_api::resource::{self, Resource, find};
use podlog_api::{ApiError, Object, Reason, bootstrap_roles};
use serde_json::json;

use crate::registry::{Part, Registry};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Creates what is missing, and brings default roles up to date unless they say not to.
///
/// # Errors
/// When the store fails.
pub(crate) async fn ensure(registry: &Registry) -> Result<(), ApiError> {
    let namespaces = find("", "v1", "namespaces").ok_or_else(ApiError::no_such_path)?;
    for name in NAMESPACES {
        let namespace = Object::new(json!({"metadata": {"name": name}}));
        create_if_missing(registry, namespaces, namespace).await?;
    }
    for object in bootstrap_roles::objects() {
        let Some(resource) = resource::by_api_version(object.api_version(), object.kind()) else { continue };
        create_if_missing(registry, resource, object.clone()).await?;
        reconcile(registry, resource, &object).await?;
    }
    Ok(())
}

async fn create_if_missing(
    registry: &Registry,
    resource: &'static Resource,
    object: Object,
) -> Result<(), ApiError> {
    let namespace = object.namespace().to_owned();
    if registry.find(resource, &namespace, object.name())?.is_some() {
        return Ok(());
    }
    match registry.create(resource, &namespace, object).await {
        Err(error) if error.reason != Reason::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Rules and subjects of this version, where an earlier one had others. Aggregated roles get their rules elsewhere.
async fn reconcile(
    registry: &Registry,
    resource: &'static Resource,
    wanted: &Object,
) -> Result<(), ApiError> {
    let change = |stored: &mut Object| {
        if stored.annotation(AUTOUPDATE) == Some("false") {
            return Ok(());
        }
        for key in ["rules", "subjects", "aggregationRule"] {
            let aggregated = key == "rules" && wanted.at("/aggregationRule").is_some();
            if let (false, Some(value)) = (aggregated, wanted.0.get(key)) {
                stored.0[key] = value.clone();
            }
        }
        Ok(())
    };
    registry.update_with(resource, wanted.namespace(), wanted.name(), Part::Main, change).await.map(|_| ())
}
