//! Reading objects: where controllers get them from, and what all of them ask of them.

use jiff::{SignedDuration, Timestamp};
use memchr::memmem;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::{Map, Value, json};

use super::kinds;
use super::runner::Key;
use crate::registry::Registry;

/// Where controllers read objects: the registry, or a list in tests. Always the newest state, so that a controller sees what
/// it has just written.
pub(crate) trait Objects {
    /// An object, if it exists.
    fn find(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, ApiError>;
    /// All objects of a kind, in one namespace or (`None`) in all.
    fn list(&self, resource: &'static Resource, namespace: Option<&str>) -> Result<Vec<Object>, ApiError>;
    /// What `keep` keeps of them. `may` says of an object's stored text (JSON, or protobuf of somebody else's) whether it may be
    /// one that matters, so that not all have to be made into objects.
    fn select(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        may: &dyn Fn(&[u8]) -> bool,
        keep: &dyn Fn(Object) -> Option<Object>,
    ) -> Result<Vec<Object>, ApiError>;
}

impl Objects for Registry {
    fn find(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, ApiError> {
        Registry::find(self, resource, namespace, name)
    }

    fn list(&self, resource: &'static Resource, namespace: Option<&str>) -> Result<Vec<Object>, ApiError> {
        Registry::list(self, resource, namespace).map(|(objects, _)| objects)
    }

    fn select(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        may: &dyn Fn(&[u8]) -> bool,
        keep: &dyn Fn(Object) -> Option<Object>,
    ) -> Result<Vec<Object>, ApiError> {
        Registry::select(self, resource, namespace, may, keep)
    }
}

/// For [`Objects::select`]: objects in which this word occurs.
pub(crate) fn mentions(word: &str) -> impl Fn(&[u8]) -> bool {
    let finder = memmem::Finder::new(word.as_bytes()).into_owned();
    move |text| finder.find(text).is_some()
}

/// A time as objects carry it, in whole seconds.
pub(crate) fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time at a JSON pointer.
pub(crate) fn time_at(object: &Object, pointer: &str) -> Option<Timestamp> {
    object.text(pointer).parse().ok()
}

/// When the object was created; the epoch where it does not say.
pub(crate) fn created(object: &Object) -> Timestamp {
    time_at(object, "/metadata/creationTimestamp").unwrap_or_default()
}

/// `time` plus whole seconds, at most the end of time.
pub(crate) fn plus_seconds(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// How long until `time`; zero when it is over.
pub(crate) fn until(time: Timestamp, now: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(now.duration_until(time)).unwrap_or_default()
}

/// The reference by which a controller owns what it makes.
pub(crate) fn owner_reference(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.api_version(),
        "kind": owner.kind(),
        "name": owner.name(),
        "uid": owner.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The owner that manages the object.
pub(crate) fn controller_of(object: &Object) -> Option<&Value> {
    object.array("/metadata/ownerReferences").iter().find(|reference| reference["controller"] == true)
}

/// Whether `owner` manages the object.
pub(crate) fn is_controlled_by(object: &Object, owner: &Object) -> bool {
    controller_of(object).is_some_and(|reference| reference["uid"] == owner.uid())
}

/// A condition of the object's status.
pub(crate) fn condition<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.array("/status/conditions").iter().find(|condition| condition["type"] == name)
}

/// Whether a condition holds.
pub(crate) fn holds(object: &Object, name: &str) -> bool {
    condition(object, name).is_some_and(|condition| condition["status"] == "True")
}

/// Puts a condition in place of the one of its type, or at the end.
pub(crate) fn set_condition(object: &mut Object, condition: Value) {
    let conditions = object.map_mut("status").entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(conditions) = conditions else { return };
    match conditions.iter_mut().find(|known| known["type"] == condition["type"]) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// Sets a number of the status; zero is left out, as Kubernetes' types leave it out.
pub(crate) fn set_count(status: &mut Map<String, Value>, key: &str, count: i64) {
    if count == 0 {
        status.remove(key);
    } else {
        status.insert(key.into(), json!(count));
    }
}

/// `spec.replicas`, which defaults to 1.
pub(crate) fn replicas(object: &Object) -> i64 {
    object.integer("/spec/replicas").unwrap_or(1)
}

/// A number of the object's status.
pub(crate) fn status_count(object: &Object, key: &str) -> i64 {
    object.0["status"][key].as_i64().unwrap_or_default()
}

/// Whether all containers of the pod have ended for good.
pub(crate) fn is_pod_finished(pod: &Object) -> bool {
    matches!(pod.text("/status/phase"), "Succeeded" | "Failed")
}

/// Whether the pod runs, or will.
pub(crate) fn is_pod_active(pod: &Object) -> bool {
    !is_pod_finished(pod) && !pod.is_deleting()
}

/// When the pod becomes available: ready for `min_ready_seconds`. `None` while it is not ready.
pub(crate) fn available_from(pod: &Object, min_ready_seconds: i64) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition["status"] == "True")?;
    let since = ready["lastTransitionTime"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    Some(plus_seconds(since, min_ready_seconds))
}

/// Whether a pod of a workload is available: ready for as long as the workload wants (`spec.minReadySeconds`).
pub(crate) fn is_available(workload: &Object, pod: &Object, now: Timestamp) -> bool {
    available_from(pod, min_ready_seconds(workload)).is_some_and(|from| from <= now)
}

/// How long it takes until the next of a workload's pods is available; `None` when no other is ready.
pub(crate) fn next_available<'a>(
    workload: &Object,
    pods: impl IntoIterator<Item = &'a Object>,
    now: Timestamp,
) -> Option<std::time::Duration> {
    let seconds = min_ready_seconds(workload);
    let times = pods.into_iter().filter_map(|pod| available_from(pod, seconds));
    times.filter(|time| *time > now).min().map(|time| until(time, now))
}

fn min_ready_seconds(workload: &Object) -> i64 {
    workload.integer("/spec/minReadySeconds").unwrap_or(0)
}

/// A new pod of a template (`spec.template` of a workload), owned by `owner`.
pub(crate) fn pod_from_template(template: &Value, owner: &Object) -> Object {
    let mut metadata = Map::new();
    for key in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(key) {
            metadata.insert(key.into(), value.clone());
        }
    }
    metadata.insert("generateName".into(), json!(format!("{}-", owner.name())));
    metadata.insert("namespace".into(), json!(owner.namespace()));
    metadata.insert("ownerReferences".into(), json!([owner_reference(owner)]));
    Object::new(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}))
}

/// The pods of a node.
pub(crate) fn pods_on(objects: &dyn Objects, node: &str) -> Result<Vec<Key>, ApiError> {
    // No more is kept of each than its key needs: a node may have hundreds.
    let named =
        |pod: &Object| Object::new(json!({"metadata": {"namespace": pod.namespace(), "name": pod.name()}}));
    let keep = |pod: Object| (pod.text("/spec/nodeName") == node).then(|| named(&pod));
    let pods = objects.select(kinds::pods(), None, &mentions(node), &keep)?;
    Ok(pods.iter().map(Key::of).collect())
}

/// The pods of a node, in full.
pub(crate) fn whole_pods_on(objects: &dyn Objects, node: &str) -> Result<Vec<Object>, ApiError> {
    let keep = |pod: Object| (pod.text("/spec/nodeName") == node).then_some(pod);
    objects.select(kinds::pods(), None, &mentions(node), &keep)
}

/// Objects in a list, for tests of what controllers decide.
#[cfg(test)]
pub(crate) struct Listed(pub(crate) Vec<Object>);

#[cfg(test)]
impl Objects for Listed {
    fn find(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, ApiError> {
        Ok(self.list(resource, Some(namespace))?.into_iter().find(|object| object.name() == name))
    }

    fn list(&self, resource: &'static Resource, namespace: Option<&str>) -> Result<Vec<Object>, ApiError> {
        let wanted = |object: &&Object| {
            object.kind() == resource.kind
                && (!resource.namespaced || namespace.is_none_or(|namespace| object.namespace() == namespace))
        };
        Ok(self.0.iter().filter(wanted).cloned().collect())
    }

    fn select(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        may: &dyn Fn(&[u8]) -> bool,
        keep: &dyn Fn(Object) -> Option<Object>,
    ) -> Result<Vec<Object>, ApiError> {
        let all = self.list(resource, namespace)?.into_iter();
        let may = |object: &Object| may(&podlog_api::json::to_sorted_vec(&object.0));
        Ok(all.filter(may).filter_map(keep).collect())
    }
}
