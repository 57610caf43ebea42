//! Empties namespaces that are to go, then lets them: as `pkg/controller/namespace`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use podlog_api::{
    ApiError, Object,
    resource::{self, Resource},
};
use serde_json::{Value, json};

use super::{
    action::Action,
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
};
use crate::registry::Part;

const FINALIZER: &str = "kubernetes";
/// Conditions that say that nothing went wrong, in upstream's words (`namespaced_resources_deleter.go`, `status_condition_utils.go`).
const GONE_WELL: &[(&str, &str, &str)] = &[
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
];
/// How soon to see whether what was deleted is gone: pods take their time.
const NEXT_LOOK: Duration = Duration::from_millis(250);

/// The namespace controller.
pub(crate) struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::namespaces()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        let going = change.object.is_deleting() && !change.is_deletion;
        Ok(if going { vec![Key::of(change.object)] } else { Vec::new() })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(namespace) = objects.find(kinds::namespaces(), "", &key.name)? else {
            return Ok(Vec::new());
        };
        if !namespace.is_deleting() {
            return Ok(Vec::new());
        }
        let mut contents = Vec::new();
        for resource in resource::all().iter().filter(|resource| is_content(resource)) {
            let found = objects.list(resource, Some(namespace.name()))?;
            contents.extend(found.into_iter().map(|object| (resource, object)));
        }
        Ok(empty(&namespace, &contents, now))
    }
}

/// Kinds that a namespace holds, each once: events are stored for two groups.
fn is_content(resource: &Resource) -> bool {
    resource.namespaced && resource.is_stored() && resource.group != "events.k8s.io"
}

fn empty(namespace: &Object, contents: &[(&'static Resource, Object)], now: Timestamp) -> Vec<Action> {
    if contents.is_empty() {
        let mut released = namespace.clone();
        if let Some(Value::Array(finalizers)) = released.map_mut("spec").get_mut("finalizers") {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        return Action::update(kinds::namespaces(), Part::Finalize, namespace, released)
            .into_iter()
            .collect();
    }
    let mut actions: Vec<Action> = contents
        .iter()
        .filter(|(_, object)| !object.is_deleting())
        .map(|(resource, object)| Action::delete(resource, object))
        .collect();
    // What goes at once is not worth telling about; what is left after that is.
    if actions.is_empty() {
        let told = with_remaining(namespace, contents, now);
        actions.extend(Action::update(kinds::namespaces(), Part::Status, namespace, told));
    }
    actions.push(Action::Requeue(NEXT_LOOK));
    actions
}

/// Conditions that say what keeps the namespace.
fn with_remaining(namespace: &Object, contents: &[(&'static Resource, Object)], now: Timestamp) -> Object {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    for (resource, object) in contents {
        *kinds.entry(format!("{}.{}", resource.plural, resource.group)).or_default() += 1;
        for finalizer in object.array("/metadata/finalizers").iter().filter_map(Value::as_str) {
            *finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }
    let kinds: Vec<String> =
        kinds.iter().map(|(kind, count)| format!("{kind} has {count} resource instances")).collect();
    let finalizers: Vec<String> =
        finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let mut told = namespace.clone();
    for (name, reason, message) in GONE_WELL {
        tell(&mut told, name, "False", (reason, (*message).to_owned()), now);
    }
    let some = format!("Some resources are remaining: {}", kinds.join(", "));
    tell(&mut told, "NamespaceContentRemaining", "True", ("SomeResourcesRemain", some), now);
    let held = format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", "));
    let (status, why) = match finalizers.is_empty() {
        true => {
            ("False", ("ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()))
        }
        false => ("True", ("SomeFinalizersRemain", held)),
    };
    tell(&mut told, "NamespaceFinalizersRemaining", status, why, now);
    told
}

/// Sets a condition, for a reason and with a message for people.
fn tell(namespace: &mut Object, name: &str, status: &str, (reason, message): (&str, String), now: Timestamp) {
    let known = condition(namespace, name).filter(|known| known["status"] == status);
    let since = known.map_or(json!(time_text(now)), |known| known["lastTransitionTime"].clone());
    set_condition(
        namespace,
        json!({"type": name, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_emptied_and_released() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let namespace =
            Object::new(json!({"kind": "Namespace", "metadata": {"name": "ns", "deletionTimestamp": "x"},
            "spec": {"finalizers": ["kubernetes", "other"]}, "status": {"phase": "Terminating"}}));
        let pod = |metadata: Value| Object::new(json!({"kind": "Pod", "metadata": metadata}));
        let fresh = pod(json!({"name": "a"}));
        let held = pod(json!({"name": "b", "deletionTimestamp": "x", "finalizers": ["f"]}));

        let both = [(kinds::pods(), fresh.clone()), (kinds::pods(), held.clone())];
        let expected = [Action::delete(kinds::pods(), &fresh), Action::Requeue(NEXT_LOOK)];
        assert_eq!(empty(&namespace, &both, now), expected);

        let actions = empty(&namespace, &[(kinds::pods(), held)], now);
        let Action::Update { part: Part::Status, object, .. } = &actions[0] else { panic!("{actions:?}") };
        let message = |name| condition(object, name).unwrap()["message"].as_str().unwrap().to_owned();
        assert_eq!(
            message("NamespaceContentRemaining"),
            "Some resources are remaining: pods. has 1 resource instances"
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: f in 1 resource instances"
        );

        let actions = empty(&namespace, &[], now);
        let [Action::Update { part: Part::Finalize, object, .. }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(object.0["spec"]["finalizers"], json!(["other"]));
    }
}
