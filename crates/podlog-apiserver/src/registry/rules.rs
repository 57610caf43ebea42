//! Defaults and validation of kinds, as `podlog-api` knows them.

use podlog_api::resource::Resource;
use podlog_api::{Cause, Object};

pub(super) fn defaults(_resource: &Resource, _object: &mut Object) {}

pub(super) fn validate_create(_resource: &Resource, _object: &Object) -> Vec<Cause> {
    Vec::new()
}

pub(super) fn validate_update(_resource: &Resource, _new: &Object, _old: &Object) -> Vec<Cause> {
    Vec::new()
}
