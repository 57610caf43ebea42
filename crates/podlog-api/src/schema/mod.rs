//! The shape of every kind: which fields an object may have and of which type.
//!
//! Built at run time from `k8s-openapi`'s schemas and kept compact: names and types, no descriptions. Documents with
//! descriptions (OpenAPI) are generated when asked for, see [`crate::openapi`].

mod generate;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

pub(crate) use generate::{REFERENCE_PREFIX, generate};

/// The type of a field or an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FieldType {
    /// Another definition, by name, e.g. `io.k8s.api.core.v1.PodSpec`.
    Ref(Arc<str>),
    /// A list.
    Array(Box<FieldType>),
    /// A map from any key to values of one type.
    Map(Box<FieldType>),
    /// Text.
    String,
    /// Bytes, in base64.
    Bytes,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A number that may have a fraction.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A port or percentage: a number or text (`IntOrString`).
    IntOrString,
    /// An amount such as `500m` or `1Gi` (`resource.Quantity`).
    Quantity,
    /// RFC 3339 with whole seconds (`metav1.Time`).
    Time,
    /// RFC 3339 with microseconds (`metav1.MicroTime`).
    MicroTime,
    /// Anything: an embedded object of unknown kind.
    Any,
}

/// One structure: its fields, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Definition {
    /// Field names and their types, in the order of the names.
    pub(crate) fields: Box<[(Box<str>, FieldType)]>,
    /// Fields that are always present, in the order of the names.
    pub(crate) required: Box<[Box<str>]>,
}

impl Definition {
    /// The type of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&FieldType> {
        let at = self.fields.binary_search_by(|(field, _)| (**field).cmp(name)).ok()?;
        Some(&self.fields[at].1)
    }
}

/// All definitions that the served kinds reach.
#[derive(Debug)]
pub(crate) struct Schemas {
    definitions: BTreeMap<Arc<str>, Definition>,
}

impl Schemas {
    /// The one instance, built on first use (a few milliseconds).
    pub(crate) fn shared() -> &'static Schemas {
        static SHARED: OnceLock<Schemas> = OnceLock::new();
        SHARED.get_or_init(|| Schemas::compact(&generate(|_| true)))
    }

    /// A definition by its OpenAPI name, e.g. `io.k8s.api.core.v1.ContainerPort`.
    pub(crate) fn definition(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(name)
    }

    /// The names of all definitions.
    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.keys().map(|name| &**name)
    }

    /// The type at a path of field names below a definition; lists and maps are looked through, so that
    /// `spec.containers.ports` of a pod is the list of `ContainerPort`.
    #[cfg(test)]
    pub(crate) fn field_at(&self, definition: &str, path: &[&str]) -> Option<&FieldType> {
        let (field, rest) = path.split_first()?;
        let mut found = self.definition(definition)?.field(field)?;
        for field in rest {
            found = self.definition(element_definition(found)?)?.field(field)?;
        }
        Some(found)
    }

    fn compact(documents: &Map<String, Value>) -> Self {
        let names: BTreeMap<&str, Arc<str>> =
            documents.keys().map(|name| (name.as_str(), Arc::from(name.as_str()))).collect();
        let reader = Reader { documents, names: &names };
        let definitions = documents
            .iter()
            .filter(|(_, document)| document.get("properties").is_some())
            .map(|(name, document)| (Arc::clone(&names[name.as_str()]), reader.definition(document)))
            .collect();
        Schemas { definitions }
    }
}

/// The definition that a type refers to, directly or as the element of lists and maps.
#[cfg(test)]
pub(crate) fn element_definition(of: &FieldType) -> Option<&str> {
    match of {
        FieldType::Ref(name) => Some(name),
        FieldType::Array(inner) | FieldType::Map(inner) => element_definition(inner),
        _ => None,
    }
}

/// Reads JSON schema into the compact form.
struct Reader<'a> {
    documents: &'a Map<String, Value>,
    names: &'a BTreeMap<&'a str, Arc<str>>,
}

impl Reader<'_> {
    fn definition(&self, document: &Value) -> Definition {
        let fields = document["properties"].as_object().into_iter().flatten();
        let required = document["required"].as_array().into_iter().flatten();
        let mut required: Vec<Box<str>> = required.filter_map(Value::as_str).map(Box::from).collect();
        required.sort();
        Definition {
            fields: fields
                .map(|(name, schema)| (Box::from(name.as_str()), self.field_type(schema)))
                .collect(),
            required: required.into(),
        }
    }

    fn field_type(&self, schema: &Value) -> FieldType {
        if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix(REFERENCE_PREFIX)) {
            return self.named(name);
        }
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), Some("byte")) => FieldType::Bytes,
            (Some("string"), _) => FieldType::String,
            (Some("integer"), Some("int32")) => FieldType::Int32,
            (Some("integer"), _) => FieldType::Int64,
            (Some("number"), _) => FieldType::Number,
            (Some("boolean"), _) => FieldType::Boolean,
            (Some("array"), _) => FieldType::Array(Box::new(self.field_type(&schema["items"]))),
            (Some("object"), _) if schema["additionalProperties"].is_object() => {
                FieldType::Map(Box::new(self.field_type(&schema["additionalProperties"])))
            }
            _ => FieldType::Any,
        }
    }

    /// Structures stay references; the named scalars of apimachinery become types of their own.
    fn named(&self, name: &str) -> FieldType {
        match name.rsplit('.').next() {
            Some("Quantity") => FieldType::Quantity,
            Some("IntOrString") => FieldType::IntOrString,
            Some("Time") => FieldType::Time,
            Some("MicroTime") => FieldType::MicroTime,
            _ => match self.names.get(name) {
                Some(shared) if self.documents[name].get("properties").is_some() => {
                    FieldType::Ref(Arc::clone(shared))
                }
                _ => FieldType::Any,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;

    const POD: &str = "io.k8s.api.core.v1.Pod";

    #[test]
    fn every_kind_and_reference_is_defined() {
        let schemas = Schemas::shared();
        for row in resource::all() {
            assert!(schemas.definition(row.schema).is_some(), "{}", row.schema);
            for sub in row.subresources {
                assert!(schemas.definition(sub.schema).is_some(), "{}", sub.schema);
            }
        }
        for name in schemas.names() {
            for (field, kind) in schemas.definition(name).expect(name).fields.iter() {
                if let Some(target) = element_definition(kind) {
                    assert!(schemas.definition(target).is_some(), "{name}.{field} → {target}");
                }
            }
        }
    }

    #[test]
    fn field_types() {
        let string_map = FieldType::Map(Box::new(FieldType::String));
        let reference = |name: &str| FieldType::Ref(Arc::from(name));
        let rows: &[(&str, &str, FieldType)] = &[
            (POD, "metadata", reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")),
            (POD, "metadata.labels", string_map.clone()),
            (POD, "metadata.creationTimestamp", FieldType::Time),
            (POD, "metadata.managedFields.fieldsV1", FieldType::Any),
            (POD, "spec.containers", FieldType::Array(Box::new(reference("io.k8s.api.core.v1.Container")))),
            (POD, "spec.containers.ports.containerPort", FieldType::Int32),
            (POD, "spec.containers.livenessProbe.httpGet.port", FieldType::IntOrString),
            (POD, "spec.containers.resources.limits", FieldType::Map(Box::new(FieldType::Quantity))),
            (POD, "spec.terminationGracePeriodSeconds", FieldType::Int64),
            (POD, "spec.hostNetwork", FieldType::Boolean),
            ("io.k8s.api.core.v1.Secret", "data", FieldType::Map(Box::new(FieldType::Bytes))),
            ("io.k8s.api.coordination.v1.Lease", "spec.renewTime", FieldType::MicroTime),
        ];
        for (definition, path, expected) in rows {
            let path: Vec<&str> = path.split('.').collect();
            assert_eq!(Schemas::shared().field_at(definition, &path), Some(expected), "{path:?}");
        }
    }

    #[test]
    fn required_fields() {
        let pod_spec = Schemas::shared().definition("io.k8s.api.core.v1.PodSpec").expect("PodSpec");
        assert_eq!(*pod_spec.required, [Box::from("containers")]);
        assert_eq!(pod_spec.field("nope"), None);
    }
}
