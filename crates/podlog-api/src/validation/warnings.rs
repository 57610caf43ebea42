//! What is allowed and probably not meant (`pkg/api/pod/warnings.go`).

use std::collections::HashMap;

use serde_json::Value;

use super::field::{at, child, index, list, text};
use crate::resource::Resource;
use crate::{Object, go};

pub(super) fn of(resource: &Resource, object: &Object) -> Vec<String> {
    let (pointer, path) = match (resource.group, resource.kind) {
        ("", "Pod") => ("/spec", "spec"),
        ("apps", _) | ("batch", "Job") => ("/spec/template/spec", "spec.template.spec"),
        _ => return Vec::new(),
    };
    let spec = at(object, pointer);
    let mut out = Vec::new();
    for field in ["initContainers", "containers"] {
        for (i, container) in list(spec, field).iter().enumerate() {
            let path = index(&child(path, field), i);
            hidden_variables(container, &path, &mut out);
            duplicate_ports(container, &path, &mut out);
        }
    }
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            out.push(format!("{path}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        out.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    out
}

/// A variable that stands twice: the later one counts, unless it is made from the earlier one.
fn hidden_variables(container: &Value, path: &str, out: &mut Vec<String>) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (i, variable) in list(container, "env").iter().enumerate() {
        let name = text(variable, "name");
        let extends = text(variable, "value").contains(&format!("$({name})"));
        if seen.insert(name, i).is_some() && !extends {
            out.push(format!(
                "{path}.env[{i}]: hides previous definition of {}, which may be dropped when using apply",
                go::quote(name)
            ));
        }
    }
}

fn duplicate_ports(container: &Value, path: &str, out: &mut Vec<String>) {
    let mut seen = HashMap::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let key = (port["containerPort"].as_i64(), text(port, "protocol"));
        if let Some(first) = seen.get(&key) {
            out.push(format!("{path}.ports[{i}]: duplicate port definition with {path}.ports[{first}]"));
        }
        seen.entry(key).or_insert(i);
    }
}
