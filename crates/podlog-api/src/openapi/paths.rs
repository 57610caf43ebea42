//! The paths of a group version and what can be done on them.

use serde_json::{Map, Value, json};

use super::schemas::{list_schema, reference};
use crate::resource::{self, Resource, Subresource};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

/// One verb on a path: what OpenAPI calls an operation.
struct Operation {
    verb: &'static str,
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
}

const LIST: Operation = Operation { verb: "list", method: "get", action: "list" };
const CREATE: Operation = Operation { verb: "create", method: "post", action: "post" };
const DELETE_COLLECTION: Operation =
    Operation { verb: "deletecollection", method: "delete", action: "deletecollection" };
const GET: Operation = Operation { verb: "get", method: "get", action: "get" };
const UPDATE: Operation = Operation { verb: "update", method: "put", action: "put" };
const UPDATE_PATCH: Operation = Operation { verb: "patch", method: "patch", action: "patch" };
const DELETE: Operation = Operation { verb: "delete", method: "delete", action: "delete" };

/// What an operation works on.
struct Subject<'a> {
    resource: &'a Resource,
    subresource: Option<&'a Subresource>,
    /// Schema of what is sent and answered.
    schema: &'a str,
}

/// The `paths` object of a group version's document.
pub(super) fn of(group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    for resource in resource::all().iter().filter(|r| r.group == group && r.version == version) {
        add_resource(&mut paths, resource);
        for subresource in resource.subresources {
            add_subresource(&mut paths, resource, subresource);
        }
    }
    Value::Object(paths)
}

fn add_resource(paths: &mut Map<String, Value>, resource: &Resource) {
    let subject = Subject { resource, subresource: None, schema: resource.schema };
    let namespace = if resource.namespaced { "{namespace}" } else { "" };
    let everywhere = [LIST];
    let collection = [LIST, CREATE, DELETE_COLLECTION];
    let object = [GET, UPDATE, UPDATE_PATCH, DELETE];
    if resource.namespaced && resource.has_verb("list") {
        add_path(paths, resource.collection_path(""), &subject, resource.verbs, &everywhere);
    }
    add_path(paths, resource.collection_path(namespace), &subject, resource.verbs, &collection);
    if resource.is_stored() {
        add_path(paths, resource.object_path(namespace, "{name}"), &subject, resource.verbs, &object);
    }
}

fn add_subresource(paths: &mut Map<String, Value>, resource: &Resource, subresource: &Subresource) {
    let subject = Subject { resource, subresource: Some(subresource), schema: subresource.schema };
    let namespace = if resource.namespaced { "{namespace}" } else { "" };
    let path = format!("{}/{}", resource.object_path(namespace, "{name}"), subresource.name);
    add_path(paths, path, &subject, subresource.verbs, &[GET, UPDATE, UPDATE_PATCH, DELETE, CREATE]);
}

fn add_path(
    paths: &mut Map<String, Value>,
    path: String,
    subject: &Subject<'_>,
    verbs: &[&str],
    operations: &[Operation],
) {
    let mut item: Map<String, Value> = operations
        .iter()
        .filter(|operation| verbs.contains(&operation.verb))
        .map(|operation| (operation.method.to_owned(), operation_object(&path, subject, operation)))
        .collect();
    if item.is_empty() {
        return;
    }
    item.insert("parameters".into(), path_parameters(&path));
    paths.insert(path, Value::Object(item));
}

fn path_parameters(path: &str) -> Value {
    let mut parameters: Vec<Value> = ["name", "namespace"]
        .into_iter()
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| {
            let description = if name == "name" { "name of the object" } else { "namespace of the object" };
            json!({"name": name, "in": "path", "required": true, "description": description,
                "schema": {"type": "string", "uniqueItems": true}})
        })
        .collect();
    parameters.push(query("pretty", "string", "If 'true', then the output is pretty printed."));
    Value::Array(parameters)
}

fn operation_object(path: &str, subject: &Subject<'_>, operation: &Operation) -> Value {
    let resource = subject.resource;
    let sub = subject.subresource;
    let (group, version) = sub.and_then(|s| s.group_version).unwrap_or((resource.group, resource.version));
    let kind = sub.map_or(resource.kind, |s| s.kind);
    let mut object = json!({
        "tags": [format!("{}_{}", tag(resource.group), resource.version)],
        "operationId": operation_id(path, subject, operation),
        "description": description(subject, operation),
        "parameters": parameters(operation),
        "responses": responses(subject, operation),
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    if let Some(body) = request_body(subject, operation) {
        object["requestBody"] = body;
    }
    object
}

fn tag(group: &str) -> String {
    if group.is_empty() { "core".into() } else { camel(group.trim_end_matches(".k8s.io"), false) }
}

/// `authorization.k8s.io` → `AuthorizationK8sIo`, or with a small first letter.
fn camel(text: &str, first_upper: bool) -> String {
    let mut upper = first_upper;
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(if upper { c.to_ascii_uppercase() } else { c });
        }
        upper = !c.is_ascii_alphanumeric();
    }
    out
}

fn operation_id(path: &str, subject: &Subject<'_>, operation: &Operation) -> String {
    let verb = match operation.verb {
        "get" => "read",
        "update" => "replace",
        "deletecollection" => "deleteCollection",
        verb => verb,
    };
    let resource = subject.resource;
    let mut id = format!(
        "{verb}{}{}{}{}",
        camel(&tag(resource.group), true),
        camel(resource.version, true),
        if path.contains("{namespace}") { "Namespaced" } else { "" },
        resource.kind
    );
    if let Some(subresource) = subject.subresource {
        id += &camel(subresource.name, true);
    }
    if resource.namespaced && !path.contains("{namespace}") {
        id += "ForAllNamespaces";
    }
    id
}

fn description(subject: &Subject<'_>, operation: &Operation) -> String {
    let kind = subject.resource.kind;
    let what = match subject.subresource {
        Some(subresource) => format!("{} of the specified {kind}", subresource.name),
        None => format!("the specified {kind}"),
    };
    match operation.verb {
        "list" => format!("list or watch objects of kind {kind}"),
        "create" if subject.subresource.is_none() => format!("create a {kind}"),
        "create" => format!("create {what}"),
        "deletecollection" => format!("delete collection of {kind}"),
        "get" => format!("read {what}"),
        "update" => format!("replace {what}"),
        "patch" => format!("partially update {what}"),
        _ => format!("delete {what}"),
    }
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description,
        "schema": {"type": kind, "uniqueItems": true}})
}

fn parameters(operation: &Operation) -> Value {
    let mut found = Vec::new();
    let mut add = |name, kind, description| found.push(query(name, kind, description));
    if matches!(operation.verb, "list" | "deletecollection") {
        add("labelSelector", "string", "Restricts the list of returned objects by their labels.");
        add("fieldSelector", "string", "Restricts the list of returned objects by their fields.");
        add("limit", "integer", "The maximum number of objects to return; the rest follows with `continue`.");
        add("continue", "string", "Where the previous part of the list ended.");
        add("resourceVersion", "string", "Constrains what resource versions a request may be served from.");
        add("resourceVersionMatch", "string", "How resourceVersion is applied to list calls.");
        add("timeoutSeconds", "integer", "Timeout for the call, regardless of any activity.");
    }
    if operation.verb == "list" {
        add("watch", "boolean", "Watch for changes and return them as a stream of events.");
        add("allowWatchBookmarks", "boolean", "Asks for events of type BOOKMARK.");
        add("sendInitialEvents", "boolean", "Begin the stream with the objects that exist already.");
    }
    if matches!(operation.verb, "create" | "update" | "patch" | "delete" | "deletecollection") {
        add("dryRun", "string", "When present, modifications are not persisted. The one value is `All`.");
    }
    if matches!(operation.verb, "create" | "update" | "patch") {
        add("fieldManager", "string", "A name for the actor or entity that is making these changes.");
        add(
            "fieldValidation",
            "string",
            "What to do about unknown or duplicate fields: `Ignore`, `Warn` or `Strict`.",
        );
    }
    if operation.verb == "delete" {
        add("gracePeriodSeconds", "integer", "The duration before the object is deleted; 0 means at once.");
        add("propagationPolicy", "string", "Whether and how dependent objects are deleted.");
    }
    Value::Array(found)
}

fn request_body(subject: &Subject<'_>, operation: &Operation) -> Option<Value> {
    let (schema, media_types, required): (&str, &[&str], bool) = match operation.verb {
        "create" | "update" => (subject.schema, &["*/*"], true),
        "patch" => (PATCH, &PATCH_TYPES, true),
        "delete" | "deletecollection" => (DELETE_OPTIONS, &["*/*"], false),
        _ => return None,
    };
    let mut body = json!({ "content": content(schema, media_types) });
    if required {
        body["required"] = json!(true);
    }
    Some(body)
}

fn content(schema: &str, media_types: &[&str]) -> Value {
    let schema = reference(schema);
    media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({ "schema": schema }))).collect()
}

fn responses(subject: &Subject<'_>, operation: &Operation) -> Value {
    let list = list_schema(subject.resource);
    let pods_are_answered = subject.resource.kind == "Pod" && subject.resource.group.is_empty();
    let schema = match operation.verb {
        "list" => list.as_str(),
        "delete" if pods_are_answered => subject.schema,
        "delete" | "deletecollection" => STATUS,
        _ => subject.schema,
    };
    let is_text = subject.subresource.is_some_and(|s| s.name == "log");
    let content = if is_text {
        json!({"text/plain": {"schema": {"type": "string"}}})
    } else {
        content(schema, &["application/json"])
    };
    let codes: &[(&str, &str)] = match operation.verb {
        "create" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        "update" | "patch" => &[("200", "OK"), ("201", "Created")],
        "delete" => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    };
    let mut responses: Map<String, Value> = codes
        .iter()
        .map(|(code, text)| ((*code).to_owned(), json!({"description": text, "content": content})))
        .collect();
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    Value::Object(responses)
}
