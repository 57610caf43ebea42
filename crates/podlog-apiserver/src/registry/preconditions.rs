//! What a client wants to be true of the object that it changes.

use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object};

/// Conditions on an object's identity and state; empty ones always hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// `metadata.resourceVersion`.
    pub resource_version: Option<String>,
}

impl Preconditions {
    /// Checks them; texts as `Preconditions.Check` of `k8s.io/apiserver/pkg/storage`.
    pub(super) fn check(&self, resource: &Resource, object: &Object) -> Result<(), ApiError> {
        let rows = [
            ("UID", &self.uid, object.uid()),
            ("ResourceVersion", &self.resource_version, object.resource_version()),
        ];
        for (what, wanted, actual) in rows {
            if let Some(wanted) = wanted
                && wanted != actual
            {
                return Err(ApiError::conflict(
                    resource.group,
                    resource.plural,
                    object.name(),
                    format_args!(
                        "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}"
                    ),
                ));
            }
        }
        Ok(())
    }
}
