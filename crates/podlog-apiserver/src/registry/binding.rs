//! Giving a pod to a node, and taking it away.

use podlog_api::resource::{self, Resource};
use podlog_api::{ApiError, Object};
use serde_json::{Value, json};

use super::{DeleteOptions, Deleted, Part, Preconditions, Registry, WriteContext, metadata};

/// Pods, which every API server has.
pub(crate) fn pods() -> &'static Resource {
    resource::find("", "v1", "pods").expect("the table of kinds holds pods")
}

impl Registry {
    /// Gives a pod to a node, as a scheduler does through `pods/binding`, if it is the one that was `meant`.
    ///
    /// # Errors
    /// 404 when there is no such pod, 409 when it is another one, has a node, waits behind a gate or is being deleted.
    pub async fn bind(
        &self,
        context: &WriteContext,
        namespace: &str,
        pod: &str,
        node: &str,
        meant: &Preconditions,
    ) -> Result<Object, ApiError> {
        let assign = |object: &mut Object| {
            meant.check(pods(), object)?;
            assign(object, node)
        };
        self.update_as(context, pods(), namespace, pod, Part::Binding, assign).await
    }

    /// Deletes a pod as `pods/eviction` does. There are no disruption budgets to keep.
    ///
    /// # Errors
    /// 404 when there is no such pod.
    pub async fn evict(
        &self,
        context: &WriteContext,
        namespace: &str,
        pod: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        self.delete_as(context, pods(), namespace, pod, options).await
    }
}

fn assign(pod: &mut Object, node: &str) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::conflict("", "pods/binding", pod.name(), why));
    if pod.is_deleting() {
        return refuse(format!("pod {} is being deleted, cannot be assigned to a host", pod.name()));
    }
    let taken = pod.text("/spec/nodeName");
    if !taken.is_empty() {
        return refuse(format!("pod {} is already assigned to node {taken:?}", pod.name()));
    }
    if !pod.array("/spec/schedulingGates").is_empty() {
        return refuse(format!("pod {} has non-empty .spec.schedulingGates", pod.name()));
    }
    pod.map_mut("spec").insert("nodeName".into(), json!(node));
    let now = metadata::time(jiff::Timestamp::now());
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let mut conditions: Vec<Value> =
        pod.array("/status/conditions").iter().filter(|c| c["type"] != "PodScheduled").cloned().collect();
    conditions.push(condition);
    pod.map_mut("status").insert("conditions".into(), Value::Array(conditions));
    Ok(())
}
