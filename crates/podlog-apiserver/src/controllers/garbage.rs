//! Deletes what deleted objects owned: as `pkg/controller/garbagecollector`.
//!
//! After a background deletion, dependents are found by an index of owner references. Orphaning and foreground deletion, which
//! must not miss any, look through all objects.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{
    ApiError, Object,
    resource::{self, Resource},
};
use serde_json::{Value, json};

use super::{
    action::Action,
    objects::*,
    runner::{Change, Controller, Key},
};
use crate::registry::{Part, Propagation};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The garbage collector.
#[derive(Default)]
pub(crate) struct GarbageCollector {
    /// Keys of objects by the uid of an owner. Entries may be stale: a look tells.
    dependents: Mutex<HashMap<String, BTreeSet<Key>>>,
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        collected().collect()
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        let object = change.object;
        let key = key_of(change.resource, object);
        self.index(change, &key);
        let mut keys = Vec::new();
        if change.is_deletion {
            keys.extend(self.dependents.lock().remove(object.uid()).unwrap_or_default());
            keys.extend(owners(object).filter_map(|owner| owner_key(object, owner)));
            return Ok(keys);
        }
        let refers = change.previous.map(references) != Some(references(object));
        let waits =
            object.is_deleting() && (has_finalizer(object, ORPHAN) || has_finalizer(object, FOREGROUND));
        if waits || (refers && !references(object).is_empty()) {
            keys.push(key);
        }
        Ok(keys)
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, _: Timestamp) -> Result<Vec<Action>, ApiError> {
        let Some(resource) = resource_of(key) else { return Ok(Vec::new()) };
        let Some(object) = objects.find(resource, &key.namespace, &key.name)? else { return Ok(Vec::new()) };
        if !object.is_deleting() {
            return release_or_delete(resource, &object, objects);
        }
        if has_finalizer(&object, ORPHAN) {
            return orphan(resource, &object, &dependents_of(&object, objects)?);
        }
        if has_finalizer(&object, FOREGROUND) {
            return delete_dependents(resource, &object, &dependents_of(&object, objects)?, objects);
        }
        Ok(Vec::new())
    }
}

impl GarbageCollector {
    fn index(&self, change: &Change<'_>, key: &Key) {
        let mut dependents = self.dependents.lock();
        let old = change.previous.into_iter().chain(change.is_deletion.then_some(change.object));
        for uid in old.flat_map(owner_uids) {
            if let Some(known) = dependents.get_mut(uid) {
                known.remove(key);
                if known.is_empty() {
                    dependents.remove(uid);
                }
            }
        }
        if !change.is_deletion {
            for uid in owner_uids(change.object) {
                dependents.entry(uid.to_owned()).or_default().insert(key.clone());
            }
        }
    }
}

/// Kinds that can own or be owned; events are neither, and too many.
fn collected() -> impl Iterator<Item = &'static Resource> {
    resource::all().iter().filter(|resource| resource.is_stored() && resource.kind != "Event")
}

fn key_of(resource: &'static Resource, object: &Object) -> Key {
    Key { kind: Some(resource.schema), ..Key::of(object) }
}

fn resource_of(key: &Key) -> Option<&'static Resource> {
    resource::all().iter().find(|resource| Some(resource.schema) == key.kind)
}

fn references(object: &Object) -> &[Value] {
    object.array("/metadata/ownerReferences")
}

fn owners(object: &Object) -> impl Iterator<Item = &Value> {
    references(object).iter()
}

fn owner_uids(object: &Object) -> impl Iterator<Item = &str> {
    owners(object).filter_map(|reference| reference["uid"].as_str())
}

fn has_finalizer(object: &Object, finalizer: &str) -> bool {
    object.array("/metadata/finalizers").iter().any(|known| known == finalizer)
}

/// The key of an owner, if its kind is served. What is in no namespace cannot say in which its owner is.
fn owner_key(object: &Object, owner: &Value) -> Option<Key> {
    let text = |key: &str| owner[key].as_str().unwrap_or_default();
    let resource = resource::by_api_version(text("apiVersion"), text("kind"))?;
    let namespace = if resource.namespaced { object.namespace() } else { "" };
    if resource.namespaced && namespace.is_empty() {
        return None;
    }
    Some(Key { kind: Some(resource.schema), ..Key::named(namespace, text("name")) })
}

/// What an owner reference points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is there.
    Solid,
    /// It is gone, or another object has its name.
    Gone,
    /// It waits for its dependents to go first.
    Waiting,
}

fn look_up(object: &Object, owner: &Value, objects: &dyn Objects) -> Result<Owner, ApiError> {
    let Some(key) = owner_key(object, owner) else {
        // Of what cannot be looked up nothing can be said, so nothing is deleted.
        return Ok(Owner::Solid);
    };
    let found = match resource_of(&key) {
        Some(resource) => objects.find(resource, &key.namespace, &key.name)?,
        None => None,
    };
    Ok(match found.filter(|found| owner["uid"] == found.uid()) {
        None => Owner::Gone,
        Some(found) if found.is_deleting() && has_finalizer(&found, FOREGROUND) => Owner::Waiting,
        Some(_) => Owner::Solid,
    })
}

/// Deletes an object without any owner left; takes off references to owners that are gone if others remain.
fn release_or_delete(
    resource: &'static Resource,
    object: &Object,
    objects: &dyn Objects,
) -> Result<Vec<Action>, ApiError> {
    let mut solid = Vec::new();
    let mut gone = 0;
    let mut waiting = false;
    for reference in owners(object) {
        match look_up(object, reference, objects)? {
            Owner::Solid => solid.push(reference.clone()),
            Owner::Gone => gone += 1,
            Owner::Waiting => {
                waiting = true;
                gone += 1;
            }
        }
    }
    if gone == 0 {
        return Ok(Vec::new());
    }
    if !solid.is_empty() {
        return Ok(with_references(resource, object, solid).into_iter().collect());
    }
    let has_dependents = waiting && !dependents_of(object, objects)?.is_empty();
    Ok(vec![Action::Delete {
        resource,
        object: object.clone(),
        grace_period_seconds: None,
        propagation: has_dependents.then_some(Propagation::Foreground),
        told: None,
    }])
}

fn with_references(resource: &'static Resource, object: &Object, kept: Vec<Value>) -> Option<Action> {
    let mut changed = object.clone();
    if kept.is_empty() {
        changed.metadata_mut().remove("ownerReferences");
    } else {
        changed.metadata_mut().insert("ownerReferences".into(), json!(kept));
    }
    Action::update(resource, Part::Main, object, changed)
}

type Dependent = (&'static Resource, Object);

fn dependents_of(owner: &Object, objects: &dyn Objects) -> Result<Vec<Dependent>, ApiError> {
    let namespace = Some(owner.namespace()).filter(|namespace| !namespace.is_empty());
    let mut found = Vec::new();
    for resource in collected().filter(|resource| namespace.is_none() || resource.namespaced) {
        let is_owned = |object: &Object| owner_uids(object).any(|uid| uid == owner.uid());
        let keep = |object| Some(object).filter(is_owned);
        let owned = objects.select(resource, namespace, &mentions(owner.uid()), &keep)?;
        found.extend(owned.into_iter().map(|object| (resource, object)));
    }
    Ok(found)
}

fn orphan(
    resource: &'static Resource,
    owner: &Object,
    dependents: &[Dependent],
) -> Result<Vec<Action>, ApiError> {
    let mut actions = Vec::new();
    for (resource, dependent) in dependents {
        let others = owners(dependent).filter(|reference| reference["uid"] != owner.uid()).cloned().collect();
        actions.extend(with_references(resource, dependent, others));
    }
    actions.extend(without_finalizer(resource, owner, ORPHAN));
    Ok(actions)
}

fn delete_dependents(
    resource: &'static Resource,
    owner: &Object,
    dependents: &[Dependent],
    objects: &dyn Objects,
) -> Result<Vec<Action>, ApiError> {
    let blocks = |(_, dependent): &&Dependent| {
        owners(dependent)
            .any(|reference| reference["uid"] == owner.uid() && reference["blockOwnerDeletion"] == true)
    };
    let mut actions = Vec::new();
    for (resource, dependent) in dependents.iter().filter(|(_, dependent)| !dependent.is_deleting()) {
        actions.extend(release_or_delete(resource, dependent, objects)?);
    }
    if dependents.iter().find(blocks).is_none() {
        actions.extend(without_finalizer(resource, owner, FOREGROUND));
    }
    Ok(actions)
}

fn without_finalizer(resource: &'static Resource, object: &Object, finalizer: &str) -> Option<Action> {
    let mut changed = object.clone();
    let mut finalizers = object.array("/metadata/finalizers").to_vec();
    finalizers.retain(|known| known != finalizer);
    if finalizers.is_empty() {
        changed.metadata_mut().remove("finalizers");
    } else {
        changed.metadata_mut().insert("finalizers".into(), json!(finalizers));
    }
    Action::update(resource, Part::Main, object, changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::kinds;

    fn object(kind: &str, name: &str, owners: Value, finalizers: Value) -> Object {
        let mut object =
            Object::new(json!({"kind": kind, "metadata": {"name": name, "namespace": "ns", "uid": name,
            "ownerReferences": owners}}));
        if finalizers.is_array() {
            object.metadata_mut().insert("finalizers".into(), finalizers);
            object.metadata_mut().insert("deletionTimestamp".into(), json!("x"));
        }
        object
    }

    fn owner(name: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": name, "blockOwnerDeletion": true})
    }

    /// What happens to an object, in words.
    fn look(kind: &'static Resource, name: &str, objects: Vec<Object>) -> Vec<String> {
        let key = Key { kind: Some(kind.schema), ..Key::named("ns", name) };
        let actions =
            GarbageCollector::default().reconcile(&key, &Listed(objects), Timestamp::UNIX_EPOCH).unwrap();
        let words = |action: Action| match action {
            Action::Delete { object, propagation, .. } => format!("delete {} {propagation:?}", object.name()),
            Action::Update { object, .. } => {
                let owners: Vec<&str> = owner_uids(&object).collect();
                format!(
                    "{} owners {owners:?} finalizers {}",
                    object.name(),
                    object.array("/metadata/finalizers").len()
                )
            }
            other => format!("{other:?}"),
        };
        actions.into_iter().map(words).collect()
    }

    #[test]
    fn dependents_follow_their_owners() {
        let none = Value::Null;
        let set = |name: &str, finalizers: Value| object("ReplicaSet", name, json!([]), finalizers);
        let pod = |owners: Value| object("Pod", "p", owners, Value::Null);
        let waiting = json!([FOREGROUND]);
        let replaced = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "older"});
        let unknown = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "t"});
        let rows: Vec<(&str, Vec<Object>, Vec<&str>)> = vec![
            ("p", vec![pod(json!([owner("a")])), set("a", none.clone())], vec![]),
            ("p", vec![pod(json!([owner("a")]))], vec!["delete p None"]),
            ("p", vec![pod(json!([replaced])), set("a", none.clone())], vec!["delete p None"]),
            ("p", vec![pod(json!([unknown]))], vec![]),
            (
                "p",
                vec![pod(json!([owner("a"), owner("b")])), set("b", none.clone())],
                vec!["p owners [\"b\"] finalizers 0"],
            ),
            ("p", vec![pod(json!([owner("a")])), set("a", waiting.clone())], vec!["delete p None"]),
            ("p", vec![], vec![]),
        ];
        for (name, objects, expected) in rows {
            assert_eq!(look(kinds::pods(), name, objects.clone()), expected, "{objects:?}");
        }
        let rows: Vec<(Vec<Object>, Vec<&str>)> = vec![
            (vec![set("a", waiting.clone())], vec!["a owners [] finalizers 0"]),
            (vec![set("a", waiting.clone()), pod(json!([owner("a")]))], vec!["delete p None"]),
            (
                vec![set("a", json!([ORPHAN])), pod(json!([owner("a")]))],
                vec!["p owners [] finalizers 0", "a owners [] finalizers 0"],
            ),
            (
                vec![
                    set("a", json!([FOREGROUND, "other"])),
                    object("Pod", "p", json!([owner("a")]), json!(["held"])),
                ],
                vec![],
            ),
        ];
        for (objects, expected) in rows {
            assert_eq!(look(kinds::replica_sets(), "a", objects.clone()), expected, "{objects:?}");
        }
    }

    #[test]
    fn what_is_in_no_namespace_does_not_go_with_an_owner_that_is_in_one() {
        let mut node = object("Node", "n", json!([owner("a")]), Value::Null);
        node.metadata_mut().remove("namespace");
        let key = Key { kind: Some(kinds::nodes().schema), ..Key::named("", "n") };
        for owners in [vec![], vec![object("ReplicaSet", "a", json!([]), Value::Null)]] {
            let listed = Listed([vec![node.clone()], owners].concat());
            let collector = GarbageCollector::default();
            assert_eq!(collector.reconcile(&key, &listed, Timestamp::UNIX_EPOCH).unwrap(), []);
        }
    }

    #[test]
    fn the_index_knows_dependents() {
        let collector = GarbageCollector::default();
        let pod = object("Pod", "p", json!([owner("a")]), Value::Null);
        let set = object("ReplicaSet", "a", json!([]), Value::Null);
        let listed = Listed(vec![]);
        let keys = |resource, object, previous, is_deletion| {
            collector.keys(&Change { resource, object, previous, is_deletion }, &listed).unwrap()
        };
        let pod_key = key_of(kinds::pods(), &pod);
        assert_eq!(keys(kinds::pods(), &pod, None, false).first(), Some(&pod_key));
        assert_eq!(keys(kinds::pods(), &pod, Some(&pod), false), []);
        assert_eq!(keys(kinds::replica_sets(), &set, None, false), []);
        assert_eq!(keys(kinds::replica_sets(), &set, None, true), [pod_key]);
        // Its owner may be waiting for it.
        assert_eq!(keys(kinds::pods(), &pod, None, true), [key_of(kinds::replica_sets(), &set)]);
        assert!(collector.dependents.lock().is_empty());
    }
}
