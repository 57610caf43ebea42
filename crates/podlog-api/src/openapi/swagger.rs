//! Version 2 of OpenAPI, made from documents of version 3.

use serde_json::{Map, Value, json};

use crate::schema::REFERENCE_PREFIX;

const DEFINITIONS_PREFIX: &str = "#/definitions/";

/// One version 2 document of many of version 3.
pub(super) fn merge(info: Value, documents: impl Iterator<Item = Value>) -> Value {
    let mut paths = Map::new();
    let mut definitions = Map::new();
    for mut document in documents {
        for (path, item) in taken(&mut document["paths"]) {
            paths.insert(path, path_item(item));
        }
        for (name, mut schema) in taken(&mut document["components"]["schemas"]) {
            simplify(&mut schema);
            definitions.insert(name, schema);
        }
    }
    json!({
        "swagger": "2.0",
        "info": info,
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "in": "header", "name": "authorization",
            "description": "Bearer Token authentication",
        }},
        "security": [{"BearerToken": []}],
    })
}

fn taken(value: &mut Value) -> Map<String, Value> {
    match value.take() {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn path_item(mut item: Value) -> Value {
    for (key, value) in item.as_object_mut().into_iter().flatten() {
        match key.as_str() {
            "parameters" => flatten_parameters(value),
            _ => operation(value),
        }
    }
    item
}

fn operation(operation: &mut Value) {
    let Some(object) = operation.as_object_mut() else { return };
    if let Some(parameters) = object.get_mut("parameters") {
        flatten_parameters(parameters);
    }
    if let Some(mut body) = object.remove("requestBody") {
        let consumes: Vec<String> =
            body["content"].as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
        let mut parameter = json!({"name": "body", "in": "body", "schema": first_schema(&mut body)});
        if body["required"] == json!(true) {
            parameter["required"] = json!(true);
        }
        object.insert("consumes".into(), json!(consumes));
        if let Some(parameters) = object.get_mut("parameters").and_then(Value::as_array_mut) {
            parameters.insert(0, parameter);
        }
    }
    for response in
        object.get_mut("responses").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
    {
        if response.get("content").is_some() {
            response["schema"] = first_schema(response);
            if let Some(response) = response.as_object_mut() {
                response.remove("content");
            }
        }
    }
    object.insert("produces".into(), json!(["application/json"]));
    object.insert("schemes".into(), json!(["https"]));
}

/// The schema of the first media type of a body.
fn first_schema(body: &mut Value) -> Value {
    let content = body["content"].as_object_mut().and_then(|content| content.values_mut().next());
    let mut schema = content.map_or(Value::Null, |content| content["schema"].take());
    simplify(&mut schema);
    schema
}

/// Version 2 has a parameter's type in the parameter itself.
fn flatten_parameters(parameters: &mut Value) {
    for parameter in parameters.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(Value::Object(schema)) = parameter.remove("schema") {
            parameter.extend(schema);
        }
    }
}

/// References into `definitions`, without `allOf`, `oneOf` and defaults, none of which version 2 clients know.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(parts)) = object.remove("allOf")
                && let Some(Value::Object(part)) = parts.into_iter().next()
            {
                object.extend(part);
            }
            if object.remove("oneOf").is_some() {
                object.insert("type".into(), json!("string"));
            }
            object.remove("default");
            if let Some(Value::String(target)) = object.get_mut("$ref") {
                *target = target.replacen(REFERENCE_PREFIX, DEFINITIONS_PREFIX, 1);
            }
            object.values_mut().for_each(simplify);
        }
        Value::Array(parts) => parts.iter_mut().for_each(simplify),
        _ => {}
    }
}
