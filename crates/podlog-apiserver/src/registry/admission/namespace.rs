//! Nothing is created in a namespace that is not there, or that is going
//! (`k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`).

use podlog_api::resource::{self, Resource};
use podlog_api::{ApiError, Cause, Object};

use crate::registry::{Registry, codec};
use crate::store::KeyValue;

/// Namespaces without which a cluster does not work.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// The namespace that a new object is to be in, as it is stored.
pub(in crate::registry) fn namespace_of(
    registry: &Registry,
    kind: &Resource,
    object: &Object,
) -> Result<Option<KeyValue>, ApiError> {
    let name = object.namespace();
    if !kind.namespaced {
        return Ok(None);
    }
    let namespaces = resource::find("", "v1", "namespaces").ok_or_else(ApiError::no_such_path)?;
    let stored = registry.find_stored(namespaces, "", name)?;
    let stored = stored.ok_or_else(|| ApiError::not_found(namespaces.group, namespaces.plural, name))?;
    let namespace = codec::decode(namespaces, &stored.value, stored.mod_revision)?;
    let terminating = namespace.is_deleting() || namespace.text("/status/phase") == "Terminating";
    if !terminating {
        return Ok(Some(stored));
    }
    let mut error = ApiError::forbidden(
        kind.group,
        kind.plural,
        object.name(),
        format_args!("unable to create new content in namespace {name} because it is being terminated"),
    );
    if let Some(details) = &mut error.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".into(),
        });
    }
    Err(error)
}

pub(super) fn may_go(kind: &Resource, object: &Object) -> Result<(), ApiError> {
    if kind.kind == "Namespace" && IMMORTAL.contains(&object.name()) {
        return Err(ApiError::forbidden(
            kind.group,
            kind.plural,
            object.name(),
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}
