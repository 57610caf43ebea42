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
    /// What an object that a client sends says about the one that it means.
    pub(crate) fn of(object: &Object) -> Self {
        let given = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
        Preconditions { uid: given(object.uid()), resource_version: given(object.resource_version()) }
    }

    /// Checks them; texts as `Preconditions.Check` of `k8s.io/apiserver/pkg/storage`.
    pub(crate) fn check(&self, resource: &Resource, object: &Object) -> Result<(), ApiError> {
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
