//! Field ownership: who set which field of an object, and server-side apply, which is built on it.
//!
//! `metadata.managedFields` names for each writer the fields that it has set (`FieldsV1`). A create, update or patch
//! takes over the fields that it changes ([`track`]). An apply patch sets the fields that it names, removes those that
//! the same applier had named before and nobody else owns, and is refused when it would change a field of somebody
//! else's ([`apply`]).
//!
//! Behaviour as `sigs.k8s.io/structured-merge-diff` (`merge/update.go`, `typed/`) and
//! `k8s.io/apimachinery/pkg/util/managedfields`.

mod field_set;
mod managers;
mod merge;
mod position;
#[cfg(test)]
mod tests;
mod walk;

use serde_json::json;

use crate::resource::Resource;
use crate::{ApiError, Cause, Details, Object, Reason};
use managers::{Entry, Managers, Operation};
use position::Position;

/// Who writes, as `managedFields` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// `fieldManager`, or the first part of the client's user agent.
    pub manager: String,
    /// The subresource that is written; empty for the object itself.
    pub subresource: String,
    /// The time of the write, RFC 3339 in whole seconds.
    pub time: String,
}

/// What an apply patch does with fields of others that it would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflicts {
    /// It is refused.
    Refuse,
    /// It takes them over (`force=true`).
    TakeOver,
}

/// The longest name of a manager, in bytes (`ValidateFieldManager`).
pub const MAX_MANAGER_LENGTH: usize = 128;
/// Who had set the fields of an object before anybody kept account of it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The name of a writer that gives none: what stands before the first `/` of its user agent.
pub fn manager_of_user_agent(user_agent: &str) -> String {
    let product = user_agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for character in product.chars().filter(|character| !character.is_control()) {
        if name.len() + character.len_utf8() > MAX_MANAGER_LENGTH {
            break;
        }
        name.push(character);
    }
    name
}

/// Notes in `new` what `writer` has changed against `old`, or has created. What `new` says about owners is believed (a
/// client may edit it); when it says nothing, what `old` says still holds.
pub fn track(resource: &Resource, old: Option<&Object>, new: &mut Object, writer: &Writer) {
    let mut managers = Managers::of_update(new, old);
    let root = Position::root(resource.schema);
    let nothing = json!({});
    let before = old.map_or(&nothing, |old| &old.0);
    let mut changes = walk::compare(Some(before), Some(&new.0), &root);
    for set in [&mut changes.added, &mut changes.modified, &mut changes.removed] {
        set.strip(resource, &writer.subresource);
    }
    let changed = changes.added.clone().union(&changes.modified);
    let entry = Entry::new(resource, writer, Operation::Update);
    managers.disown_all_but(&entry, &changed);
    managers.disown_all_but(&entry, &changes.removed);
    managers.change(entry, |set| set.difference(&changes.removed).union(&changed));
    managers.limit_updaters();
    managers.write(new);
}

/// The object that results when `config` is applied to `live` (an object with nothing but its name when there is none).
///
/// # Errors
/// 409 with a cause for each field that somebody else owns and `config` would change; 500 (as upstream) when `config` does
/// not fit the kind; 400 when it brings `managedFields` along.
pub fn apply(
    resource: &Resource,
    live: &Object,
    config: &Object,
    writer: &Writer,
    conflicts: Conflicts,
) -> Result<Object, ApiError> {
    if !config.array("/metadata/managedFields").is_empty() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let root = Position::root(resource.schema);
    let mut named = walk::fields_of(&config.0, &root).map_err(|problem| unfit(resource, config, &problem))?;
    named.strip(resource, &writer.subresource);
    let mut managers = Managers::of(live);
    if managers.is_empty() && !live.uid().is_empty() {
        let mut all = walk::compare(Some(&json!({})), Some(&live.0), &root).added;
        all.strip(resource, "");
        let first =
            Writer { manager: BEFORE_FIRST_APPLY.into(), subresource: String::new(), ..writer.clone() };
        managers.change(Entry::new(resource, &first, Operation::Update), |_| all);
    }
    let entry = Entry::new(resource, writer, Operation::Apply);
    let before = managers.set_of(&entry);
    let mut new = merge::merge(&live.0, &config.0, &root);
    managers.change(entry.clone(), |_| named);
    merge::prune(&mut new, &before, &managers.union(), &root);

    let mut changes = walk::compare(Some(&live.0), Some(&new), &root);
    changes.removed.strip(resource, &writer.subresource);
    let changed = changes.added.union(&changes.modified);
    let found = managers.conflicts(&entry, &changed);
    if conflicts == Conflicts::Refuse && !found.is_empty() {
        return Err(conflict_error(&found));
    }
    managers.disown_all_but(&entry, &changed);
    managers.disown_all_but(&entry, &changes.removed);
    let mut new = Object::new(new);
    managers.write(&mut new);
    Ok(new)
}

/// A field that somebody else owns.
struct Conflict {
    /// As the message names the owner.
    owner: String,
    /// e.g. `.spec.replicas`.
    path: String,
}

fn conflict_error(conflicts: &[Conflict]) -> ApiError {
    let causes = conflicts.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with {}", conflict.owner),
        field: conflict.path.clone(),
    });
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.owner, one.path),
        many => {
            let mut lines: Vec<String> = Vec::new();
            let mut owner = None;
            for conflict in many {
                if owner.replace(&conflict.owner) != Some(&conflict.owner) {
                    lines.push(format!("conflicts with {}:", conflict.owner));
                }
                lines.push(format!("- {}", conflict.path));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let details = Details { causes: causes.collect(), ..Details::default() };
    ApiError::new(409, Reason::Conflict, message).with_details(details)
}

fn unfit(resource: &Resource, config: &Object, problem: &walk::Unfit) -> ApiError {
    let (namespace, name) = (config.namespace(), config.name());
    let kind = format!("{}, Kind={}", resource.api_version(), resource.kind);
    let kind = if resource.group.is_empty() { format!("/{kind}") } else { kind };
    ApiError::new(
        500,
        Reason::Unknown,
        format!("failed to create typed patch object ({namespace}/{name}; {kind}): {problem}"),
    )
}
