//! Walks a document along a schema, in the document's own order, and collects what is wrong with it.

use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::scalar::{self, Scalar};
use super::{Target, scalar::go_type};
use crate::schema::{Definition, FieldType, Schemas};
use crate::{go, resource};

/// No more findings than this are kept, as in `sigs.k8s.io/json`.
const MAX_STRICT_ERRORS: usize = 100;
/// Nor are more looked at when their paths together are longer than this: paths can be nearly as long as the body.
const MAX_STRICT_BYTES: usize = 1024 * 1024;

/// What a body says it is.
#[derive(Debug, Default)]
pub(super) struct TypeMeta {
    pub(super) api_version: String,
    pub(super) kind: String,
    /// Go's text when it is not an object, or one of the two is not text.
    pub(super) wrong_type: Option<String>,
}

impl TypeMeta {
    /// A body may leave out what the request's path says anyway.
    pub(super) fn fill_from(&mut self, target: Target) {
        if self.kind.is_empty() {
            self.kind = target.kind.to_owned();
        }
        if self.api_version.is_empty() {
            self.api_version = resource::join_api_version(target.group, target.version);
        }
    }

    fn take(&mut self, name: &str, value: Option<&Value>) {
        let slot = if name == "kind" { &mut self.kind } else { &mut self.api_version };
        match value {
            Some(Value::String(text)) => slot.clone_from(text),
            None => {}
            Some(other) => {
                let what = go::json_type(other);
                self.wrong_type.get_or_insert_with(|| {
                    format!("json: cannot unmarshal {what} into Go struct field .{name} of type string")
                });
            }
        }
    }
}

/// Reads `apiVersion` and `kind`, skipping all else.
pub(super) struct TypeMetaSeed;

impl<'de> DeserializeSeed<'de> for TypeMetaSeed {
    type Value = TypeMeta;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TypeMeta, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Go's name of the structure that its decoder looks into.
const TYPE_META_TYPE: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

fn not_an_object(what: &str) -> TypeMeta {
    let wrong_type = Some(format!("json: cannot unmarshal {what} into Go value of type {TYPE_META_TYPE}"));
    TypeMeta { wrong_type, ..TypeMeta::default() }
}

impl<'de> Visitor<'de> for TypeMetaSeed {
    type Value = TypeMeta;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TypeMeta, A::Error> {
        let mut found = TypeMeta::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "kind" | "apiVersion" => found.take(&key, map.next_value::<Option<Value>>()?.as_ref()),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TypeMeta, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(not_an_object("array"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<TypeMeta, E> {
        Ok(not_an_object("bool"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<TypeMeta, E> {
        Ok(not_an_object("number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<TypeMeta, E> {
        Ok(not_an_object("number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<TypeMeta, E> {
        Ok(not_an_object("number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<TypeMeta, E> {
        Ok(not_an_object("string"))
    }

    fn visit_unit<E>(self) -> Result<TypeMeta, E> {
        Ok(TypeMeta::default())
    }
}

/// Where we are and what was found so far.
#[derive(Default)]
struct Findings {
    /// Path with indices, as strict errors name it.
    path: String,
    /// Field names alone, as type errors name them.
    fields: Vec<String>,
    /// Go name of the innermost structure.
    owner: String,
    strict_errors: Vec<String>,
    /// Bytes of the paths of all strict errors so far, repeated ones too.
    strict_bytes: usize,
    seen: HashSet<String>,
    /// The first value of a wrong type.
    type_error: Option<String>,
    /// The first value that its own decoder refused; Go gives up there, so it outranks the others.
    scalar_error: Option<String>,
}

impl Findings {
    fn strict(&mut self, what: &str) {
        if self.strict_errors.len() >= MAX_STRICT_ERRORS || self.strict_bytes > MAX_STRICT_BYTES {
            return;
        }
        self.strict_bytes += self.path.len();
        let text = format!("{what} field \"{}\"", self.path);
        if self.seen.insert(text.clone()) {
            self.strict_errors.push(text);
        }
    }

    fn wrong_type(&mut self, value: &str, expected: &FieldType) {
        if self.type_error.is_some() {
            return;
        }
        let field = self.fields.last().map(String::as_str).unwrap_or_default();
        let go_type = go_type(expected, &self.owner, field);
        let text = self.type_text(value, &go_type);
        self.type_error = Some(text);
    }

    fn type_text(&self, value: &str, go_type: &str) -> String {
        format!(
            "json: cannot unmarshal {value} into Go struct field {}.{} of type {go_type}",
            self.owner,
            self.fields.join(".")
        )
    }

    fn refused(&mut self, refusal: scalar::Refusal) {
        if self.scalar_error.is_some() {
            return;
        }
        let text = match refusal {
            scalar::Refusal::Text(text) => text,
            scalar::Refusal::Type { value, go_type } => self.type_text(&value, go_type),
        };
        self.scalar_error = Some(text);
    }

    /// Runs `step` one level deeper: `key` is appended to the path and taken off afterwards.
    fn below<T>(&mut self, key: &str, step: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 && !key.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(key);
        let result = step(self);
        self.path.truncate(length);
        result
    }
}

/// The result of a walk.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The document without unknown fields and nulls.
    pub(super) value: Value,
    /// Unknown and duplicate fields.
    pub(super) strict_errors: Vec<String>,
    /// Go's text for the value of a wrong type that decides.
    pub(super) type_error: Option<String>,
}

/// A walk along the schema of one kind.
pub(super) struct Walk {
    schema: FieldType,
}

impl Walk {
    pub(super) fn new(schema: &str) -> Self {
        Walk { schema: FieldType::Ref(schema.into()) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = Outcome;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Outcome, D::Error> {
        let mut findings = Findings::default();
        let node = Node { expected: &self.schema, findings: &mut findings };
        let value = node.deserialize(deserializer)?.unwrap_or_else(|| Value::Object(Map::new()));
        let type_error = findings.scalar_error.or(findings.type_error);
        Ok(Outcome { value, strict_errors: findings.strict_errors, type_error })
    }
}

/// One value and what it should be. Becomes `None` when it is null or of a wrong type.
struct Node<'a> {
    expected: &'a FieldType,
    findings: &'a mut Findings,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Node<'_> {
    fn scalar(self, value: Scalar<'_>) -> Option<Value> {
        match scalar::convert(value, self.expected) {
            Ok(Some(value)) => Some(value),
            Ok(None) => {
                self.findings.wrong_type(&value.go_word(self.expected), self.expected);
                None
            }
            Err(refusal) => {
                self.findings.refused(refusal);
                None
            }
        }
    }

    fn structure<'de, A: MapAccess<'de>>(
        self,
        name: &str,
        definition: &Definition,
        mut map: A,
    ) -> Result<Map<String, Value>, A::Error> {
        let findings = self.findings;
        let short = name.rsplit('.').next().unwrap_or_default().to_owned();
        let outer = std::mem::replace(&mut findings.owner, short);
        let mut fields = Map::new();
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = findings.below(&key, |findings| {
                let Some(expected) = definition.field(&key) else {
                    findings.strict("unknown");
                    return map.next_value::<IgnoredAny>().map(|_| None);
                };
                if !seen.insert(key.clone()) {
                    findings.strict("duplicate");
                }
                findings.fields.push(key.clone());
                let value = map.next_value_seed(Node { expected, findings });
                findings.fields.pop();
                value
            })?;
            if let Some(value) = value {
                fields.insert(key, value);
            }
        }
        findings.owner = outer;
        Ok(fields)
    }

    fn entries<'de, A: MapAccess<'de>>(
        self,
        of: &FieldType,
        mut map: A,
    ) -> Result<Map<String, Value>, A::Error> {
        let findings = self.findings;
        let mut entries = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = findings.below(&key, |findings| {
                if entries.contains_key(&key) && *of != FieldType::Any {
                    findings.strict("duplicate");
                }
                map.next_value_seed(Node { expected: of, findings })
            })?;
            entries.insert(key, value.unwrap_or_else(|| scalar::zero(of)));
        }
        Ok(entries)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        match self.expected {
            FieldType::Ref(name) => {
                let definition = Schemas::shared()
                    .definition(name)
                    .ok_or_else(|| A::Error::custom(format!("no schema for {name}")))?;
                self.structure(name, definition, map).map(|fields| Some(Value::Object(fields)))
            }
            FieldType::Map(of) => self.entries(of, map).map(|fields| Some(Value::Object(fields))),
            FieldType::Any => self.entries(&FieldType::Any, map).map(|fields| Some(Value::Object(fields))),
            _ => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(self.scalar(Scalar::Object))
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Value>, A::Error> {
        let of = match self.expected {
            FieldType::Array(of) => of,
            FieldType::Any => &FieldType::Any,
            _ => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(self.scalar(Scalar::Array));
            }
        };
        let findings = self.findings;
        let mut elements = Vec::new();
        loop {
            let index = format!("[{}]", elements.len());
            let step = |findings: &mut Findings| list.next_element_seed(Node { expected: of, findings });
            match findings.below(&index, step)? {
                Some(element) => elements.push(element.unwrap_or_else(|| scalar::zero(of))),
                None => return Ok(Some(Value::Array(elements))),
            }
        }
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Value>, E> {
        Ok(self.scalar(Scalar::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Value>, E> {
        Ok(self.scalar(Scalar::Number(&Number::from(value))))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Value>, E> {
        Ok(self.scalar(Scalar::Number(&Number::from(value))))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Option<Value>, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number is not finite"))?;
        Ok(self.scalar(Scalar::Number(&number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Option<Value>, E> {
        Ok(self.scalar(Scalar::Text(value)))
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        self.deserialize(deserializer)
    }
}
