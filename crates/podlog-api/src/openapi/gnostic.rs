//! Version 2 of OpenAPI in the protobuf encoding that kubectl before 1.29 insists on.
//!
//! Messages and field numbers as `github.com/google/gnostic/openapiv2/OpenAPIv2.proto`; extensions travel as YAML text,
//! which JSON is. Written are the parts that those clients read: schemas, and which parameters a PATCH takes.

use serde_json::Value;

/// Encodes a version 2 document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    let mut paths = Message::default();
    for (path, item) in fields(&document["paths"]) {
        paths.message(2, &named(path, &path_item(item)));
    }
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, &info);
    out.message(8, &paths);
    out.message(9, &schemas(&document["definitions"]));
    out.0
}

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, number: u64, message: &Message) {
        self.bytes(number, &message.0);
    }

    /// Text, if the value is some.
    fn text(&mut self, number: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn boolean(&mut self, number: u64, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(number << 3);
            self.varint(1);
        }
    }

    /// Every `x-…` field, as name and YAML.
    fn extensions(&mut self, number: u64, owner: &Value) {
        for (name, value) in fields(owner).filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Message::default();
            any.bytes(2, format!("{value}\n").as_bytes());
            self.message(number, &named(name, &any));
        }
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// One entry of what is a map in JSON.
fn named(name: &str, value: &Message) -> Message {
    let mut entry = Message::default();
    entry.bytes(1, name.as_bytes());
    entry.message(2, value);
    entry
}

/// `Definitions` and `Properties` alike.
fn schemas(owner: &Value) -> Message {
    let mut out = Message::default();
    for (name, schema) in fields(owner) {
        out.message(1, &named(name, &self::schema(schema)));
    }
    out
}

fn schema(schema: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &schema["$ref"]);
    out.text(2, &schema["format"]);
    out.text(4, &schema["description"]);
    for field in elements(&schema["required"]) {
        out.text(19, field);
    }
    if schema["additionalProperties"].is_object() {
        let mut item = Message::default();
        item.message(1, &self::schema(&schema["additionalProperties"]));
        out.message(21, &item);
    }
    if schema["type"].is_string() {
        let mut item = Message::default();
        item.text(1, &schema["type"]);
        out.message(22, &item);
    }
    if schema["items"].is_object() {
        let mut item = Message::default();
        item.message(1, &self::schema(&schema["items"]));
        out.message(23, &item);
    }
    if schema["properties"].is_object() {
        out.message(25, &schemas(&schema["properties"]));
    }
    out.extensions(31, schema);
    out
}

fn path_item(item: &Value) -> Message {
    const METHODS: [(&str, u64); 5] = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)];
    let mut out = Message::default();
    for (method, number) in METHODS {
        if item[method].is_object() {
            out.message(number, &operation(&item[method]));
        }
    }
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    for parameter in elements(&operation["parameters"]).iter().filter(|p| p["in"] == "query") {
        let mut item = Message::default();
        item.message(1, &query_parameter(parameter));
        out.message(8, &item);
    }
    // A message that is required, empty as it is.
    out.message(9, &Message::default());
    out.extensions(13, operation);
    out
}

/// `Parameter` ⊃ `NonBodyParameter` ⊃ `QueryParameterSubSchema`.
fn query_parameter(parameter: &Value) -> Message {
    let mut query = Message::default();
    query.text(2, &parameter["in"]);
    query.text(3, &parameter["description"]);
    query.text(4, &parameter["name"]);
    query.text(6, &parameter["type"]);
    query.boolean(20, &parameter["uniqueItems"]);
    let mut non_body = Message::default();
    non_body.message(3, &query);
    let mut out = Message::default();
    out.message(2, &non_body);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_of_a_small_document() {
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "T", "version": "V"},
            "definitions": {"A": {"type": "string", "x-b": true}},
        });
        let type_item = [0xb2, 0x01, 8, 0x0a, 6, b's', b't', b'r', b'i', b'n', b'g'];
        let extension = [&[0xfa, 0x01, 14, 0x0a, 3][..], b"x-b", &[0x12, 7, 0x12, 5], b"true\n"].concat();
        let schema = [&type_item[..], &extension].concat();
        let entry = [&[0x0a, 1, b'A', 0x12, schema.len() as u8][..], &schema].concat();
        let definitions = [&[0x0a, entry.len() as u8][..], &entry].concat();
        let expected = [
            &[0x0a, 3][..],
            b"2.0",
            &[0x12, 6, 0x0a, 1, b'T', 0x12, 1, b'V'],
            &[0x42, 0],
            &[0x4a, definitions.len() as u8],
            &definitions,
        ]
        .concat();
        assert_eq!(encode(&document), expected);
    }

    #[test]
    fn long_lengths_take_more_bytes() {
        let mut message = Message::default();
        message.bytes(1, &[0; 300]);
        assert_eq!(message.0[..3], [0x0a, 0xac, 0x02]);
    }
}
