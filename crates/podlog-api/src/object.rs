//! A Kubernetes object as JSON, with the few accessors that everybody needs.

use serde_json::{Map, Value, json};

/// A Kubernetes object of any kind, kept as JSON so that no field is ever lost.
///
/// Typed views come from `k8s-openapi` where code needs them: [`Object::parse`].
#[derive(Clone, Debug, PartialEq)]
pub struct Object(pub Value);

impl Object {
    /// Wraps JSON; anything but a JSON object becomes an empty object.
    pub fn new(value: Value) -> Self {
        if value.is_object() { Object(value) } else { Object(json!({})) }
    }

    /// `kind`, or empty.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `apiVersion`, e.g. `apps/v1`, or empty.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `metadata.name`, or empty.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, or empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// `metadata.uid`, or empty.
    pub fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// `metadata.resourceVersion`, or empty.
    pub fn resource_version(&self) -> &str {
        self.text("/metadata/resourceVersion")
    }

    /// Whether a deletion has been asked for (`metadata.deletionTimestamp` is set).
    pub fn is_deleting(&self) -> bool {
        !self.text("/metadata/deletionTimestamp").is_empty()
    }

    /// The string at a JSON pointer (RFC 6901), or empty.
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The integer at a JSON pointer.
    pub fn integer(&self, pointer: &str) -> Option<i64> {
        self.0.pointer(pointer).and_then(Value::as_i64)
    }

    /// The array at a JSON pointer; empty where there is none.
    pub fn array(&self, pointer: &str) -> &[Value] {
        self.0.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The value at a JSON pointer.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.0.get("metadata")?.get("labels")?.get(key)?.as_str()
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0.get("metadata")?.get("annotations")?.get(key)?.as_str()
    }

    /// `metadata` for writing; created where missing.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        self.map_mut("metadata")
    }

    /// A top-level map such as `spec` or `status` for writing; created where missing.
    pub fn map_mut(&mut self, key: &str) -> &mut Map<String, Value> {
        if !self.0.is_object() {
            self.0 = json!({});
        }
        child_map(&mut self.0, key)
    }

    /// A typed view, e.g. `object.parse::<k8s_openapi::api::core::v1::Pod>()`.
    ///
    /// # Errors
    /// When the JSON does not have the type's shape.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.0)
    }
}

/// The map at `parent[key]`, created (or put in place of something that is not a map) where needed.
///
/// # Panics
/// When `parent` is neither a map nor null.
pub fn child_map<'a>(parent: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = &mut parent[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("just made a map of it"),
    }
}
