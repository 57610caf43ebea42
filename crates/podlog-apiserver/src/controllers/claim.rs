//! Which of the objects that a selector matches belong to a controller: as `pkg/controller/controller_ref_manager.go`.

use podlog_api::{ApiError, Object, resource::Resource, selector::LabelSelector};
use serde_json::{Value, json};

use super::{action::Action, objects::*};
use crate::registry::Part;

/// What belongs to an owner, and what has to be done to make it so.
pub(crate) struct Claimed {
    /// The objects that it manages.
    pub(crate) owned: Vec<Object>,
    /// Adoptions of objects without owner, and releases of objects that no longer match.
    pub(crate) actions: Vec<Action>,
}

/// The objects of kind `resource` that belong to `owner`, by `spec.selector`.
pub(crate) fn claimed(
    owner: &Object,
    resource: &'static Resource,
    objects: &dyn Objects,
) -> Result<Claimed, ApiError> {
    Ok(claim(owner, resource, candidates(owner, resource, objects)?))
}

/// The objects of a namespace that [`claim`] has to look at: those that `owner` manages, and those that nobody does.
fn candidates(
    owner: &Object,
    resource: &'static Resource,
    objects: &dyn Objects,
) -> Result<Vec<Object>, ApiError> {
    let (is_own, is_managed) = (mentions(owner.uid()), mentions("\"controller\":true"));
    let may = |text: &[u8]| is_own(text) || !is_managed(text);
    let keep = |object: Object| {
        (controller_of(&object).is_none() || is_controlled_by(&object, owner)).then_some(object)
    };
    objects.select(resource, Some(owner.namespace()), &may, &keep)
}

/// Sorts out which `candidates` of kind `resource` belong to `owner`, by `spec.selector`.
pub(crate) fn claim(owner: &Object, resource: &'static Resource, candidates: Vec<Object>) -> Claimed {
    let selector = owner.at("/spec/selector").unwrap_or(&Value::Null);
    let selector = LabelSelector::from_value(selector).unwrap_or_else(|_| LabelSelector::nothing());
    let mut claimed = Claimed { owned: Vec::new(), actions: Vec::new() };
    for object in candidates {
        let matches = selector.matches_object(&object) && !selector.is_empty();
        let free = controller_of(&object).is_none() && !object.is_deleting() && !owner.is_deleting();
        if is_controlled_by(&object, owner) {
            if matches {
                claimed.owned.push(object);
            } else if !owner.is_deleting() {
                claimed.actions.extend(change(resource, &object, |references| {
                    references.retain(|reference| reference["uid"] != owner.uid());
                }));
            }
        } else if free && matches && object.namespace() == owner.namespace() {
            let adopted = change(resource, &object, |references| references.push(owner_reference(owner)));
            claimed.actions.extend(adopted);
            claimed.owned.push(object);
        }
    }
    claimed
}

fn change(
    resource: &'static Resource,
    object: &Object,
    edit: impl FnOnce(&mut Vec<Value>),
) -> Option<Action> {
    let mut references = object.array("/metadata/ownerReferences").to_vec();
    edit(&mut references);
    let mut changed = object.clone();
    if references.is_empty() {
        changed.metadata_mut().remove("ownerReferences");
    } else {
        changed.metadata_mut().insert("ownerReferences".into(), json!(references));
    }
    Action::update(resource, Part::Main, object, changed)
}
