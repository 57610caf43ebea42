//! Wrong fields, in the words of `k8s.io/apimachinery/pkg/util/validation/field`.

use serde_json::{Map, Value};

use crate::{Cause, Object, go};

/// What is said of a value that must not change.
pub(super) const IMMUTABLE: &str = "field is immutable";
/// What is said of a negative number.
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Collects what is wrong with an object.
#[derive(Debug, Default)]
pub(super) struct Errors {
    list: Vec<Cause>,
    message_bytes: usize,
}

/// What all messages about one object may be long together. One list can be wrong as often as it has elements, and be shown
/// each time.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

impl Errors {
    pub(super) fn into_causes(self) -> Vec<Cause> {
        self.list
    }

    fn is_full(&self) -> bool {
        self.message_bytes > MAX_MESSAGE_BYTES
    }

    fn add(&mut self, reason: &str, field: impl Into<String>, kind: &str, parts: &[&str]) {
        if self.is_full() {
            return;
        }
        let mut message = kind.to_owned();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            message.push_str(": ");
            message.push_str(part);
        }
        let field = field.into();
        self.message_bytes += message.len() + field.len();
        self.list.push(Cause { reason: reason.to_owned(), message, field });
    }

    pub(super) fn required(&mut self, field: impl Into<String>, detail: &str) {
        self.add("FieldValueRequired", field, "Required value", &[detail]);
    }

    pub(super) fn invalid<'v>(
        &mut self,
        field: impl Into<String>,
        value: impl Into<Shown<'v>>,
        detail: &str,
    ) {
        if !self.is_full() {
            self.add("FieldValueInvalid", field, "Invalid value", &[&value.into().text(), detail]);
        }
    }

    /// One [`Errors::invalid`] for each detail.
    pub(super) fn invalid_all(&mut self, field: &str, value: &str, details: Vec<String>) {
        for detail in details {
            self.invalid(field, value, &detail);
        }
    }

    pub(super) fn duplicate<'v>(&mut self, field: impl Into<String>, value: impl Into<Shown<'v>>) {
        self.add("FieldValueDuplicate", field, "Duplicate value", &[&value.into().text()]);
    }

    pub(super) fn not_found(&mut self, field: impl Into<String>, value: &str) {
        self.add("FieldValueNotFound", field, "Not found", &[&Shown::Text(value).text()]);
    }

    pub(super) fn unsupported<'v>(
        &mut self,
        field: impl Into<String>,
        value: impl Into<Shown<'v>>,
        supported: &[&str],
    ) {
        let quoted: Vec<String> = supported.iter().map(|value| Shown::Text(value).text()).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.add("FieldValueNotSupported", field, "Unsupported value", &[&value.into().text(), &detail]);
    }

    pub(super) fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.add("FieldValueForbidden", field, "Forbidden", &[detail]);
    }

    pub(super) fn too_long(&mut self, field: impl Into<String>, max_bytes: usize) {
        let detail = format!("may not be more than {max_bytes} bytes");
        self.add("FieldValueTooLong", field, "Too long", &[&detail]);
    }

    /// A required field that must hold one of a few words.
    pub(super) fn one_of(&mut self, field: &str, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(field, "");
        } else if !supported.contains(&value) {
            self.unsupported(field, value, supported);
        }
    }

    /// A number that must not be negative, if it is there.
    pub(super) fn not_negative(&mut self, parent: &Value, path: &str, field: &str) {
        if let Some(value) = parent[field].as_i64().filter(|value| *value < 0) {
            self.invalid(child(path, field), value, NOT_NEGATIVE);
        }
    }

    /// A field that must be as it was.
    pub(super) fn immutable(&mut self, field: &str, new: &Value, old: &Value) {
        if !same(new, old) {
            self.invalid(field, new, IMMUTABLE);
        }
    }
}

/// A wrong value as an error shows it: text in quotes, numbers bare, structures as JSON.
#[derive(Clone, Copy)]
pub(super) enum Shown<'v> {
    Text(&'v str),
    Integer(i64),
    Json(&'v Value),
}

impl Shown<'_> {
    fn text(self) -> String {
        match self {
            Shown::Text(text) => go::quote(text),
            Shown::Integer(value) => value.to_string(),
            Shown::Json(Value::String(text)) => go::quote(text),
            Shown::Json(Value::Null) => "\"null\"".into(),
            Shown::Json(value) => value.to_string(),
        }
    }
}

impl<'v> From<&'v str> for Shown<'v> {
    fn from(text: &'v str) -> Self {
        Shown::Text(text)
    }
}

impl From<i64> for Shown<'_> {
    fn from(value: i64) -> Self {
        Shown::Integer(value)
    }
}

impl<'v> From<&'v Value> for Shown<'v> {
    fn from(value: &'v Value) -> Self {
        Shown::Json(value)
    }
}

/// `path.field`, or `field` at the top.
pub(super) fn child(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// `path[index]`.
pub(super) fn index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// The text at a field, or empty.
pub(super) fn text<'v>(parent: &'v Value, field: &str) -> &'v str {
    parent[field].as_str().unwrap_or_default()
}

/// The list at a field, or an empty one.
pub(super) fn list<'v>(parent: &'v Value, field: &str) -> &'v [Value] {
    parent[field].as_array().map_or(&[], Vec::as_slice)
}

/// The entries of the map at a field.
pub(super) fn entries<'v>(parent: &'v Value, field: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    parent[field].as_object().into_iter().flatten()
}

/// The value at a JSON pointer, or null.
pub(super) fn at<'o>(object: &'o Object, pointer: &str) -> &'o Value {
    object.at(pointer).unwrap_or(&Value::Null)
}

/// Equality as Go's `equality.Semantic.DeepEqual` sees it: what encodes as nothing equals nothing.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter().all(|key| same_field(key, a, b))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || (is_nothing(a) && is_nothing(b)),
    }
}

/// Fields whose Go type is a plain `bool`: `false` is the same as missing.
const PLAIN_BOOLS: [&str; 7] = ["hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly"];

fn same_field(key: &str, a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let value = |map: &Map<String, Value>| match map.get(key) {
        Some(Value::Bool(false)) if PLAIN_BOOLS.contains(&key) => Value::Null,
        other => other.cloned().unwrap_or_default(),
    };
    same(&value(a), &value(b))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages() {
        let mut errors = Errors::default();
        errors.required("a", "");
        errors.required("a", "why");
        errors.invalid("a", "x\"y", "bad");
        errors.invalid("a", -1, NOT_NEGATIVE);
        errors.invalid("a", &json!({"b": 1}), "bad");
        errors.invalid("a", &Value::Null, "bad");
        errors.duplicate("a", "x");
        errors.not_found("a", "x");
        errors.unsupported("a", "x", &["b", "c"]);
        errors.forbidden("a", "no");
        errors.too_long("a", 3);
        let messages: Vec<String> = errors.into_causes().into_iter().map(|cause| cause.message).collect();
        let expected = [
            "Required value",
            "Required value: why",
            r#"Invalid value: "x\"y": bad"#,
            "Invalid value: -1: must be greater than or equal to 0",
            r#"Invalid value: {"b":1}: bad"#,
            r#"Invalid value: "null": bad"#,
            r#"Duplicate value: "x""#,
            r#"Not found: "x""#,
            r#"Unsupported value: "x": supported values: "b", "c""#,
            "Forbidden: no",
            "Too long: may not be more than 3 bytes",
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn sameness() {
        let rows = [
            (json!({"a": []}), json!({}), true),
            (json!({"a": {"b": ""}}), json!({}), true),
            (json!({"hostNetwork": false}), json!({}), true),
            (json!({"enableServiceLinks": false}), json!({}), false),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!([1]), json!([1, 2]), false),
            (json!([{"a": null}]), json!([{}]), true),
        ];
        for (a, b, expected) in rows {
            assert_eq!(same(&a, &b), expected, "{a} {b}");
            assert_eq!(same(&b, &a), expected, "{b} {a}");
        }
    }
}
