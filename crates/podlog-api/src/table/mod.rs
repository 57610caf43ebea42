//! Tables: what `kubectl get` prints, as columns and cells that the server computes.
//!
//! Columns and cells as `pkg/printers/internalversion/printers.go`; kinds without a printer of their own get the generic
//! name and creation time of `k8s.io/apiserver/pkg/registry/rest/table.go`.

mod age;
mod cells;
mod columns;
mod node;
mod pod;
mod workloads;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

pub use age::human_duration;

use crate::{Object, resource::Resource};
use columns::Column;

/// What each row carries of its object (`includeObject=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, as `PartialObjectMetadata`: the default.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query value; empty is the default, anything unknown `None`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "Metadata" => IncludeObject::Metadata,
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            _ => return None,
        })
    }
}

/// A `meta.k8s.io/v1` Table of `objects`, all of them of kind `resource`, or of the `Scale` of one.
///
/// `metadata` is the list's (`resourceVersion`, `continue`, `remainingItemCount`) or, for one object, its resource version.
/// `now` is what ages count to. In a watch, only the first event has column definitions: see [`drop_columns`].
pub fn render(
    resource: &Resource,
    objects: &[&Object],
    metadata: Value,
    now: Timestamp,
    include: IncludeObject,
) -> Value {
    let printer = match objects {
        [scale] if scale.kind() == "Scale" => Printer { columns: columns::SCALE, cells: workloads::scale },
        _ => Printer::of(resource),
    };
    let rows: Vec<Value> = objects.iter().map(|object| printer.row(object, now, include)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": printer.columns.iter().map(Column::to_value).collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// The row of one object, as [`render`] makes it.
pub fn row(resource: &Resource, object: &Object, now: Timestamp, include: IncludeObject) -> Value {
    Printer::of(resource).row(object, now, include)
}

/// Takes the column definitions out of a table, as from the second event of a watch on.
pub fn drop_columns(table: &mut Value) {
    table["columnDefinitions"] = Value::Null;
}

/// How objects of a kind are printed: columns, and as many cells for an object.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Object, Timestamp) -> Vec<Value>,
}

impl Printer {
    fn of(resource: &Resource) -> Printer {
        let (columns, cells): (_, fn(&Object, Timestamp) -> Vec<Value>) =
            match (resource.group, resource.kind) {
                ("", "Pod") => (columns::POD, pod::cells),
                ("", "Node") => (columns::NODE, node::cells),
                ("", "Namespace") => (columns::NAMESPACE, cells::namespace),
                ("", "ConfigMap") => (columns::CONFIG_MAP, cells::config_map),
                ("", "Secret") => (columns::SECRET, cells::secret),
                ("", "ServiceAccount") => (columns::SERVICE_ACCOUNT, cells::service_account),
                ("", "Service") => (columns::SERVICE, cells::service),
                ("" | "events.k8s.io", "Event") => (columns::EVENT, cells::event),
                ("apps", "ControllerRevision") => (columns::REVISION, workloads::revision),
                ("apps", "Deployment") => (columns::DEPLOYMENT, workloads::deployment),
                ("apps", "ReplicaSet") => (columns::REPLICA_SET, workloads::replica_set),
                ("apps", "StatefulSet") => (columns::STATEFUL_SET, workloads::stateful_set),
                ("apps", "DaemonSet") => (columns::DAEMON_SET, workloads::daemon_set),
                ("batch", "Job") => (columns::JOB, workloads::job),
                ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
                    (columns::ROLE_BINDING, cells::role_binding)
                }
                ("certificates.k8s.io", _) => (columns::CERTIFICATE_REQUEST, cells::certificate_request),
                ("coordination.k8s.io", "Lease") => (columns::LEASE, cells::lease),
                ("discovery.k8s.io", "EndpointSlice") => (columns::ENDPOINT_SLICE, cells::endpoint_slice),
                _ => (columns::GENERIC, cells::generic),
            };
        Printer { columns, cells }
    }

    fn row(&self, object: &Object, now: Timestamp, include: IncludeObject) -> Value {
        let mut row = Map::new();
        row.insert("cells".into(), (self.cells)(object, now).into());
        if let Some(conditions) = row_conditions(object) {
            row.insert("conditions".into(), conditions);
        }
        let object = match include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object.at("/metadata").cloned().unwrap_or_else(|| json!({})),
            }),
            IncludeObject::Object => object.0.clone(),
        };
        row.insert("object".into(), object);
        Value::Object(row)
    }
}

/// Finished pods are marked as such, so that clients can hide them.
fn row_conditions(object: &Object) -> Option<Value> {
    if object.kind() != "Pod" {
        return None;
    }
    let message = match object.text("/status/phase") {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    let reason = object.text("/status/phase");
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

#[cfg(test)]
mod tests;
