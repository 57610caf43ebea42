//! The schemas of a group version, in the dialect that `k8s.io/kube-openapi` writes.

use serde_json::{Map, Value, json};

use crate::patch::{self, Lists, Strategy};
use crate::resource::{self, Resource};
use crate::schema::{REFERENCE_PREFIX, generate};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// `{"$ref": …}` to a schema.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE_PREFIX}{name}")})
}

/// Name of the schema of a list of these.
pub(super) fn list_schema(resource: &Resource) -> String {
    format!("{}List", resource.schema)
}

/// The `components.schemas` object of a group version's document.
pub(super) fn of(group: &str, version: &str) -> Value {
    let rows: Vec<&Resource> =
        resource::all().iter().filter(|r| r.group == group && r.version == version).collect();
    let mut schemas = generate(|name| {
        let common = ["DeleteOptions", "ListMeta", "Patch", "Status"];
        rows.iter().any(|r| r.schema == name || r.subresources.iter().any(|s| s.schema == name))
            || name.strip_prefix(META).is_some_and(|name| common.contains(&name))
    });
    for (name, schema) in &mut schemas {
        translate(name, schema);
    }
    for row in rows {
        if row.has_verb("list") {
            schemas.insert(list_schema(row), list(row));
        }
        mark(&mut schemas, row.schema, row.group, row.version, row.kind);
        for sub in row.subresources.iter().filter(|sub| sub.schema != row.schema) {
            let (group, version) = sub.group_version.unwrap_or((row.group, row.version));
            mark(&mut schemas, sub.schema, group, version, sub.kind);
        }
    }
    mark(&mut schemas, &format!("{META}Status"), "", "v1", "Status");
    for (group, version) in resource::group_versions() {
        mark(&mut schemas, &format!("{META}DeleteOptions"), group, version, "DeleteOptions");
    }
    Value::Object(schemas)
}

/// Adds a kind to a schema's `x-kubernetes-group-version-kind`.
fn mark(schemas: &mut Map<String, Value>, schema: &str, group: &str, version: &str, kind: &str) {
    let Some(schema) = schemas.get_mut(schema).and_then(Value::as_object_mut) else { return };
    let marks = schema.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([]));
    let mark = json!({"group": group, "version": version, "kind": kind});
    if let Some(marks) = marks.as_array_mut().filter(|marks| !marks.contains(&mark)) {
        marks.push(mark);
    }
}

fn list(row: &Resource) -> Value {
    let mut items = reference(row.schema);
    describe_reference(&mut items, None);
    let mut metadata = reference(&format!("{META}ListMeta"));
    describe_reference(&mut metadata, Some(json!("Standard list metadata.")));
    json!({
        "description": format!("{} is a list of {} objects.", row.list_kind(), row.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this representation of an object."},
            "kind": {"type": "string", "description": "The kind of this object."},
            "metadata": metadata,
            "items": {"type": "array", "description": "The objects.", "items": items},
        },
        "x-kubernetes-group-version-kind":
            [{"group": row.group, "version": row.version, "kind": row.list_kind()}],
    })
}

/// Brings a generated schema into kube-openapi's form.
fn translate(name: &str, schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => {
            object.remove("x-kubernetes-int-or-string");
            object.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
        }
        "IntOrString" => {
            object.remove("x-kubernetes-int-or-string");
            object.insert("format".into(), json!("int-or-string"));
            object.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
        }
        _ => {}
    }
    let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, property) in properties {
        translate_property(property);
        if let Some(strategy) = patch::merge_key(name, field) {
            mark_strategy(property, strategy, field);
        }
    }
    // Go structures are never null, so a reference that has to be there has a default, and is not required.
    if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field != "metadata" || !name.contains(".api."));
        if required.is_empty() {
            object.remove("required");
        }
    }
}

/// How patches merge a list: by which key, or as a set.
fn mark_strategy(property: &mut Value, strategy: Strategy, field: &str) {
    let mut words = Vec::new();
    match strategy.lists {
        Lists::Replace => {}
        Lists::ByKey(key) => {
            words.push("merge");
            property["x-kubernetes-patch-merge-key"] = json!(key);
            property["x-kubernetes-list-type"] = json!("map");
            // A port is told apart by its protocol too, which the older patch format cannot say.
            let keys = if field == "ports" { vec![key, "protocol"] } else { vec![key] };
            property["x-kubernetes-list-map-keys"] = json!(keys);
        }
        Lists::Union => {
            words.push("merge");
            property["x-kubernetes-list-type"] = json!("set");
        }
    }
    if strategy.retain_keys {
        words.push("retainKeys");
    }
    if !words.is_empty() {
        property["x-kubernetes-patch-strategy"] = json!(words.join(","));
    }
}

fn translate_property(property: &mut Value) {
    if property.get("$ref").is_some() {
        let description = property.as_object_mut().and_then(|object| object.remove("description"));
        describe_reference(property, description);
        return;
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = property.get_mut(inner) {
            translate_property(inner);
        }
    }
}

/// OpenAPI 3.0 ignores what stands next to a `$ref`, hence the `allOf` of one.
fn describe_reference(property: &mut Value, description: Option<Value>) {
    let is_structure = !["Time", "MicroTime", "Quantity", "IntOrString"].iter().any(|scalar| {
        property["$ref"].as_str().is_some_and(|target| target.ends_with(&format!(".{scalar}")))
    });
    let mut described = json!({"allOf": [property.take()]});
    if is_structure {
        described["default"] = json!({});
    }
    if let Some(description) = description {
        described["description"] = description;
    }
    *property = described;
}
