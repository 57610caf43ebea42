//! The row of a node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age::since, cells::text_or};
use crate::Object;

pub(super) fn cells(node: &Object, now: Timestamp) -> Vec<Value> {
    vec![
        json!(node.name()),
        json!(status(node)),
        json!(roles(node)),
        json!(since(node.at("/metadata/creationTimestamp"), now)),
        json!(node.text("/status/nodeInfo/kubeletVersion")),
        json!(address(node, "InternalIP")),
        json!(address(node, "ExternalIP")),
        text_or(node.text("/status/nodeInfo/osImage"), "<unknown>"),
        json!(kernel(node)),
        text_or(node.text("/status/nodeInfo/containerRuntimeVersion"), "<unknown>"),
    ]
}

fn status(node: &Object) -> String {
    let ready = node.array("/status/conditions").iter().rfind(|condition| condition["type"] == "Ready");
    let status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let unschedulable = node.at("/spec/unschedulable") == Some(&Value::Bool(true));
    if unschedulable { format!("{status},SchedulingDisabled") } else { status.into() }
}

fn roles(node: &Object) -> String {
    let labels = node.at("/metadata/labels").and_then(Value::as_object);
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".into() } else { Vec::from_iter(roles).join(",") }
}

fn address<'a>(node: &'a Object, kind: &str) -> &'a str {
    let found = node.array("/status/addresses").iter().find(|address| address["type"] == kind);
    found.and_then(|address| address["address"].as_str()).unwrap_or("<none>")
}

fn kernel(node: &Object) -> String {
    let (version, architecture) =
        (node.text("/status/nodeInfo/kernelVersion"), node.text("/status/nodeInfo/architecture"));
    match (version, architecture) {
        ("", _) => "<unknown>".into(),
        (version, "") => version.into(),
        (version, architecture) => format!("{version} ({architecture})"),
    }
}
