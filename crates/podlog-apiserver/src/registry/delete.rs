//! Deleting objects: at once, gracefully, or when the last finalizer is gone.
//!
//! Decisions as `BeforeDelete` and `deletionFinalizersForGarbageCollection` of `k8s.io/apiserver/pkg/registry`.

use jiff::{SignedDuration, Timestamp};
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object};
use serde_json::{Value, json};

use super::{Preconditions, Registry, WriteContext, admission, codec, keys, strategy};
use crate::store::{Change, Expected, StoreError, Write};

const ATTEMPTS: usize = 32;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// What a pod gets that does not say.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What becomes of objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without owner.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted before.
    Foreground,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that a pod gets to stop; 0 removes it at once. Default: what the pod says.
    pub grace_period_seconds: Option<i64>,
    /// Only if the object is the one that was meant.
    pub preconditions: Preconditions,
    /// Default: what the object's finalizers already say, else background.
    pub propagation_policy: Option<Propagation>,
}

/// What a deletion came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Deleted {
    /// The object in its last or present state.
    pub object: Object,
    /// Whether it is gone; otherwise it is marked and goes later.
    pub gone: bool,
}

#[derive(Debug, PartialEq)]
enum Step {
    Remove,
    Mark(Box<Object>),
    Wait,
}

impl Registry {
    /// Deletes an object on behalf of the control plane; answers with its last or marked state.
    ///
    /// # Errors
    /// 404 when there is none, 409 when a precondition does not hold.
    pub async fn delete(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Object, ApiError> {
        let context = WriteContext::default();
        self.delete_as(&context, resource, namespace, name, &options).await.map(|deleted| deleted.object)
    }

    /// Deletes an object on behalf of somebody.
    ///
    /// # Errors
    /// As [`Registry::delete`], and 403 when admission protects it.
    pub async fn delete_as(
        &self,
        context: &WriteContext,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let key = keys::object(resource, namespace, name);
        for _ in 0..ATTEMPTS {
            let stored = self.store.get(&key).map_err(codec::store_error)?;
            let stored = stored.ok_or_else(|| ApiError::not_found(resource.group, resource.plural, name))?;
            let mut object = codec::decode(resource, &stored.value, stored.mod_revision)?;
            options.preconditions.check(resource, &object)?;
            admission::delete(context, resource, &object)?;
            let (change, gone) = match next_step(resource, &object, options, Timestamp::now())? {
                Step::Wait => return Ok(Deleted { object, gone: false }),
                Step::Remove => (Change::Delete, true),
                Step::Mark(marked) => {
                    object = *marked;
                    (Change::Put(codec::encode(resource, &object)), false)
                }
            };
            if context.dry_run {
                return Ok(Deleted { object, gone });
            }
            let expected = Expected::ModRevision(stored.mod_revision);
            let ttl = strategy::ttl(resource);
            let write = Write { key: key.clone(), expected, beside: None, change, ttl };
            match self.store.write(write).await {
                Ok(revision) => {
                    object.metadata_mut().insert("resourceVersion".into(), json!(revision.to_string()));
                    return Ok(Deleted { object, gone });
                }
                Err(StoreError::Conflict(_)) => {}
                Err(other) => return Err(codec::store_error(other)),
            }
        }
        Err(ApiError::modified(resource.group, resource.plural, name))
    }
}

fn next_step(
    resource: &Resource,
    object: &Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Step, ApiError> {
    if resource.kind == "Namespace" {
        return namespace_step(resource, object, now);
    }
    let mut marked = object.clone();
    set_finalizers(&mut marked, options.propagation_policy);
    match grace(resource, object, options) {
        Grace::Pending if marked == *object => Ok(Step::Wait),
        Grace::Pending => Ok(Step::Mark(Box::new(marked))),
        Grace::Seconds(0) if marked.array("/metadata/finalizers").is_empty() => Ok(Step::Remove),
        Grace::Seconds(0) if object.is_deleting() && !is_graceful(object) && marked == *object => {
            Ok(Step::Wait)
        }
        Grace::Seconds(seconds) => {
            let start = deletion_start(object).unwrap_or(now);
            let end = start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(start);
            strategy::mark_deleted(&mut marked, end, seconds);
            bump_generation(&mut marked);
            Ok(Step::Mark(Box::new(marked)))
        }
    }
}

fn namespace_step(resource: &Resource, object: &Object, now: Timestamp) -> Result<Step, ApiError> {
    if !object.is_deleting() {
        let mut marked = object.clone();
        strategy::mark_deleted(&mut marked, now, 0);
        // Namespaces have no grace period to tell about.
        marked.metadata_mut().remove("deletionGracePeriodSeconds");
        marked.map_mut("status").insert("phase".into(), json!("Terminating"));
        return Ok(Step::Mark(Box::new(marked)));
    }
    if !object.array("/spec/finalizers").is_empty() {
        return Err(ApiError::conflict(
            resource.group,
            resource.plural,
            object.name(),
            "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will \
             automatically be purged by the system.",
        ));
    }
    let held = !object.array("/metadata/finalizers").is_empty();
    Ok(if held { Step::Wait } else { Step::Remove })
}

enum Grace {
    /// It is already on its way, and not slower than asked for.
    Pending,
    Seconds(i64),
}

fn grace(resource: &Resource, object: &Object, options: &DeleteOptions) -> Grace {
    if resource.kind != "Pod" {
        return Grace::Seconds(0);
    }
    let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    if object.is_deleting() && is_graceful(object) {
        let running = object.integer("/metadata/deletionGracePeriodSeconds").unwrap_or(0);
        return match asked {
            Some(seconds) if seconds < running => Grace::Seconds(seconds),
            _ => Grace::Pending,
        };
    }
    let over = matches!(object.text("/status/phase"), "Succeeded" | "Failed");
    if object.text("/spec/nodeName").is_empty() || over {
        return Grace::Seconds(0);
    }
    let own = object.integer("/spec/terminationGracePeriodSeconds").unwrap_or(DEFAULT_GRACE_SECONDS);
    Grace::Seconds(asked.unwrap_or(if own < 0 { 1 } else { own }))
}

fn is_graceful(object: &Object) -> bool {
    object.integer("/metadata/deletionGracePeriodSeconds").is_some_and(|seconds| seconds > 0)
}

/// When the deletion was asked for: the timestamp in the object is when it is to be over.
fn deletion_start(object: &Object) -> Option<Timestamp> {
    let end: Timestamp = object.text("/metadata/deletionTimestamp").parse().ok()?;
    let running = object.integer("/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    end.checked_sub(SignedDuration::from_secs(running)).ok()
}

fn bump_generation(object: &mut Object) {
    if let Some(generation) = object.integer("/metadata/generation") {
        object.metadata_mut().insert("generation".into(), json!(generation + 1));
    }
}

fn set_finalizers(object: &mut Object, policy: Option<Propagation>) {
    let Some(policy) = policy else { return };
    let mut finalizers: Vec<Value> = object
        .array("/metadata/finalizers")
        .iter()
        .filter(|f| !matches!(f.as_str(), Some(ORPHAN | FOREGROUND)))
        .cloned()
        .collect();
    match policy {
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        object.metadata_mut().remove("finalizers");
    } else {
        object.metadata_mut().insert("finalizers".into(), Value::Array(finalizers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podlog_api::resource;

    fn pod(metadata: Value, spec: Value, phase: &str) -> Object {
        Object::new(json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}}))
    }

    /// Grace period and finalizers after the step, or what else happens.
    fn step(object: &Object, grace: Option<i64>, policy: Option<Propagation>) -> String {
        let pods = resource::find("", "v1", "pods").unwrap();
        let options = DeleteOptions {
            grace_period_seconds: grace,
            propagation_policy: policy,
            ..DeleteOptions::default()
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        match next_step(pods, object, &options, now).unwrap() {
            Step::Remove => "remove".into(),
            Step::Wait => "wait".into(),
            Step::Mark(marked) => format!(
                "{} {} {}",
                marked.text("/metadata/deletionTimestamp"),
                marked.integer("/metadata/deletionGracePeriodSeconds").unwrap_or(-1),
                marked.0["metadata"]["finalizers"]
            ),
        }
    }

    #[test]
    fn pods_go_gracefully_when_somebody_runs_them() {
        let node = json!({"nodeName": "n"});
        let slow = json!({"nodeName": "n", "terminationGracePeriodSeconds": 90});
        let dying = json!({"deletionTimestamp": "2026-01-01T00:00:20Z", "deletionGracePeriodSeconds": 30});
        let held = json!({"finalizers": ["x"]});
        let done = json!({"finalizers": ["x"], "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        let (none, fore) = (None, Some(Propagation::Foreground));
        let rows = [
            (pod(json!({}), json!({}), "Pending"), None, none, "remove"),
            (pod(json!({}), node.clone(), "Running"), None, none, "2026-01-01T00:00:30Z 30 null"),
            (pod(json!({}), slow.clone(), "Running"), None, none, "2026-01-01T00:01:30Z 90 null"),
            (pod(json!({}), slow.clone(), "Running"), Some(5), none, "2026-01-01T00:00:05Z 5 null"),
            (pod(json!({}), node.clone(), "Running"), Some(0), none, "remove"),
            (pod(json!({}), node.clone(), "Running"), Some(-7), none, "2026-01-01T00:00:01Z 1 null"),
            (pod(json!({}), node.clone(), "Failed"), None, none, "remove"),
            (pod(dying.clone(), node.clone(), "Running"), None, none, "wait"),
            (pod(dying.clone(), node.clone(), "Running"), Some(60), none, "wait"),
            (pod(dying.clone(), node.clone(), "Running"), Some(10), none, "2026-01-01T00:00:00Z 10 null"),
            (pod(dying.clone(), node.clone(), "Running"), Some(0), none, "remove"),
            (pod(held.clone(), node.clone(), "Running"), Some(0), none, "2026-01-01T00:00:00Z 0 [\"x\"]"),
            (
                pod(held.clone(), json!({}), "Pending"),
                None,
                fore,
                "2026-01-01T00:00:00Z 0 [\"x\",\"foregroundDeletion\"]",
            ),
            (pod(done.clone(), node.clone(), "Running"), Some(0), none, "wait"),
        ];
        for (object, grace, policy, expected) in rows {
            assert_eq!(step(&object, grace, policy), expected, "{} {grace:?} {policy:?}", object.0);
        }
    }
}
