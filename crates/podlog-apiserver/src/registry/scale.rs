//! The `scale` subresource: how many, without saying of what.

use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, validation};
use serde_json::{Value, json};

use super::Preconditions;

/// The `Scale` of a workload.
pub(crate) fn of(workload: &Object) -> Object {
    let metadata = workload.at("/metadata");
    let copied: serde_json::Map<String, Value> =
        ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), metadata?.get(*key)?.clone())))
            .collect();
    let mut status = json!({"replicas": workload.integer("/status/replicas").unwrap_or(0)});
    let selector = selector_text(workload);
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    Object::new(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": copied,
        "spec": spec(workload.integer("/spec/replicas").unwrap_or(0)),
        "status": status,
    }))
}

/// Go leaves a zero out.
fn spec(replicas: i64) -> Value {
    if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) }
}

/// Puts a changed `Scale` into its workload.
///
/// # Errors
/// 409 when it was made from another version, or another workload of the name, 422 when it asks for less than nothing.
pub(crate) fn apply(resource: &Resource, workload: &mut Object, scale: &Object) -> Result<(), ApiError> {
    if !scale.resource_version().is_empty() && scale.resource_version() != workload.resource_version() {
        return Err(ApiError::modified(resource.group, resource.plural, workload.name()));
    }
    Preconditions { resource_version: None, ..Preconditions::of(scale) }.check(resource, workload)?;
    let causes = validation::subresource("io.k8s.api.autoscaling.v1.Scale", scale);
    if !causes.is_empty() {
        return Err(ApiError::invalid("autoscaling", "Scale", scale.name(), causes));
    }
    let replicas = scale.integer("/spec/replicas").unwrap_or(0);
    workload.map_mut("spec").insert("replicas".into(), json!(replicas));
    Ok(())
}

/// A label selector as one writes it in a query.
fn selector_text(workload: &Object) -> String {
    let mut parts: Vec<String> = workload
        .at("/spec/selector/matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for requirement in workload.array("/spec/selector/matchExpressions") {
        let key = requirement["key"].as_str().unwrap_or_default();
        let values: Vec<&str> =
            requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match requirement["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.sort();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_says_what_its_workload_says() {
        let workload = Object::new(json!({
            "metadata": {"name": "web", "namespace": "prod", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}]}},
            "status": {"replicas": 2}
        }));
        let scale = of(&workload);
        assert_eq!(scale.0["spec"], json!({"replicas": 3}));
        assert_eq!(scale.0["status"], json!({"replicas": 2, "selector": "!x,app=web,tier in (a,b)"}));
        assert_eq!(
            scale.0["metadata"],
            json!({"name": "web", "namespace": "prod", "uid": "u", "resourceVersion": "7"})
        );
    }
}
