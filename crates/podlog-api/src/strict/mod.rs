//! Bodies into objects, with the checks and the texts of Kubernetes' own decoders.
//!
//! Fields are matched by exact name. A field that the kind does not have is dropped and, depending on
//! [`FieldValidation`], reported; a value of the wrong type is always an error. What counts and how it is worded follows
//! `sigs.k8s.io/json` and `transformDecodeError` in `k8s.io/apiserver/pkg/endpoints/handlers/rest.go`.

mod scalar;
mod walk;

use std::fmt::Write as _;

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::resource::{self, Resource, Subresource};
use crate::{ApiError, Object, go, json};
use walk::{Outcome, TypeMeta};

/// What happens to unknown and duplicate fields (`fieldValidation` of a request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped in silence.
    Ignore,
    /// Dropped, and reported in `Warning` headers.
    #[default]
    Warn,
    /// The request fails.
    Strict,
}

impl FieldValidation {
    /// The value of the query parameter; empty means the default. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(FieldValidation::Warn),
            "Ignore" => Some(FieldValidation::Ignore),
            "Strict" => Some(FieldValidation::Strict),
            _ => None,
        }
    }
}

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl MediaType {
    /// The format that a `Content-Type` names; no content type means JSON. `None` for one that the API does not read.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "" | "application/json" => Some(MediaType::Json),
            "application/yaml" => Some(MediaType::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(MediaType::Protobuf),
            _ => None,
        }
    }
}

/// The kind that a request expects in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// API group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name of its schema.
    pub schema: &'static str,
}

impl Target {
    /// The body of a DELETE. Every group version knows it, so any `apiVersion` will do.
    pub const DELETE_OPTIONS: Target = Target {
        group: "",
        version: "v1",
        kind: "DeleteOptions",
        schema: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    };

    /// Objects of a kind.
    pub fn of(resource: &Resource) -> Self {
        Target {
            group: resource.group,
            version: resource.version,
            kind: resource.kind,
            schema: resource.schema,
        }
    }

    /// What is written to a subresource, e.g. a `Binding` or a `Scale`.
    pub fn of_subresource(resource: &Resource, subresource: &Subresource) -> Self {
        let (group, version) = subresource.group_version.unwrap_or((resource.group, resource.version));
        Target { group, version, kind: subresource.kind, schema: subresource.schema }
    }

    fn api_version(&self) -> String {
        resource::join_api_version(self.group, self.version)
    }
}

/// Decodes the body of a create or update.
///
/// `apiVersion` and `kind` are filled in where the body leaves them out. Nulls and unknown fields are gone, times and
/// quantities in canonical form. The second part are warnings, filled for [`FieldValidation::Warn`].
///
/// # Errors
/// 400 when the body cannot be read as the kind.
pub fn decode(
    resource: &Resource,
    body: &[u8],
    media_type: MediaType,
    validation: FieldValidation,
) -> Result<(Object, Vec<String>), ApiError> {
    decode_as(Target::of(resource), body, media_type, validation)
}

/// Decodes a body that is not the resource's own kind: a subresource's, or delete options.
///
/// # Errors
/// As [`decode`].
pub fn decode_as(
    target: Target,
    body: &[u8],
    media_type: MediaType,
    validation: FieldValidation,
) -> Result<(Object, Vec<String>), ApiError> {
    let (found, outcome) = match media_type {
        MediaType::Json => read(target, body, |seed| from_json(body, seed), |seed| from_json(body, seed)),
        MediaType::Yaml => read(target, body, |seed| from_yaml(body, seed), |seed| from_yaml(body, seed)),
        MediaType::Protobuf => {
            let object = crate::protobuf::decode(body)?;
            read(target, body, |seed| from_value(&object.0, seed), |seed| from_value(&object.0, seed))
        }
    }?;
    conclude(target, &found, outcome, validation)
}

/// Checks an object that was put together here, e.g. by a patch, as [`decode`] checks a body.
///
/// # Errors
/// As [`decode`].
pub fn check(
    target: Target,
    object: &Value,
    validation: FieldValidation,
) -> Result<(Object, Vec<String>), ApiError> {
    let (found, outcome) =
        read(target, b"", |seed| from_value(object, seed), |seed| from_value(object, seed))?;
    conclude(target, &found, outcome, validation)
}

/// A problem of a kind's fields: `Pod in version "v1" cannot be handled as a Pod: …`.
fn cannot_handle(found: &TypeMeta, target: Target, why: impl std::fmt::Display) -> ApiError {
    let (_, version) = resource::split_api_version(&found.api_version);
    ApiError::bad_request(format!(
        "{} in version \"{version}\" cannot be handled as a {}: {why}",
        found.kind, target.kind
    ))
}

/// A body that does not even say what it is.
fn unrecognized(target: Target, body: &[u8], why: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        target.kind,
        summary(body)
    ))
}

/// The beginning of a body for an error text: as it is when it looks like JSON, in hexadecimal otherwise.
fn summary(body: &[u8]) -> String {
    const SHOWN_BYTES: usize = 30;
    let (shown, more) = match body {
        [] => return "<empty>".into(),
        _ if body.len() > SHOWN_BYTES => (&body[..SHOWN_BYTES], " ..."),
        _ => (body, ""),
    };
    if shown[0] == b'{' {
        return format!("{}{more}", String::from_utf8_lossy(shown));
    }
    let mut text = String::new();
    for byte in shown {
        let _ = write!(text, "{byte:02x}");
    }
    text + more
}

/// Why a body could not be walked to its end.
enum ReadError {
    Json(String),
    Yaml(String),
}

fn from_json<'de, S: DeserializeSeed<'de>>(body: &'de [u8], seed: S) -> Result<S::Value, ReadError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    seed.deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| ReadError::Json(go::json_error(body, &error)))
}

fn from_yaml<'de, S: DeserializeSeed<'de>>(body: &'de [u8], seed: S) -> Result<S::Value, ReadError> {
    let text =
        str::from_utf8(body).map_err(|_| ReadError::Yaml("yaml: invalid leading UTF-8 octet".into()))?;
    serde_saphyr::with_deserializer_from_str_with_options(text, yaml_options(), |deserializer| {
        seed.deserialize(deserializer)
    })
    .map_err(|error| ReadError::Yaml(format!("yaml: {error}")))
}

fn from_value<'de, S: DeserializeSeed<'de>>(value: &'de Value, seed: S) -> Result<S::Value, ReadError> {
    seed.deserialize(value).map_err(|error| ReadError::Json(error.to_string()))
}

/// YAML 1.1 as `sigs.k8s.io/yaml` reads it. The depth keeps the stack of one thread safe; the size of a body is limited
/// elsewhere.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: 5_000_000,
            max_events: 20_000_000,
            max_total_scalar_bytes: 256 * 1024 * 1024,
            max_depth: 64,
        },
    }
}

/// Two passes: the first finds out what the body says it is, the second reads it as such.
fn read(
    target: Target,
    body: &[u8],
    first: impl FnOnce(walk::TypeMetaSeed) -> Result<TypeMeta, ReadError>,
    second: impl FnOnce(walk::Walk) -> Result<Outcome, ReadError>,
) -> Result<(TypeMeta, Outcome), ApiError> {
    let mut found = first(walk::TypeMetaSeed).map_err(|error| {
        unrecognized(
            target,
            body,
            match error {
                ReadError::Json(why) => format!("couldn't get version/kind; json parse error: {why}"),
                ReadError::Yaml(why) => why,
            },
        )
    })?;
    if let Some(why) = found.wrong_type.take() {
        let why = format!("couldn't get version/kind; json parse error: {why}");
        return Err(unrecognized(target, body, why));
    }
    found.fill_from(target);
    agree(target, &found)?;
    let outcome = second(walk::Walk::new(target.schema)).map_err(|error| match error {
        ReadError::Json(why) | ReadError::Yaml(why) => cannot_handle(&found, target, why),
    })?;
    Ok((found, outcome))
}

/// The kind of the body must be the one that the request is about.
fn agree(target: Target, found: &TypeMeta) -> Result<(), ApiError> {
    let same_kind = found.kind == target.kind;
    if same_kind && (target == Target::DELETE_OPTIONS || found.api_version == target.api_version()) {
        return Ok(());
    }
    let why = match resource::by_api_version(&found.api_version, &found.kind) {
        Some(other) => format!(
            "converting ({}.{}) to ({}.{}): unknown conversion",
            other.version,
            other.kind,
            internal_package(target.group),
            target.kind
        ),
        None => {
            format!("no kind \"{}\" is registered for version \"{}\"", found.kind, found.api_version)
        }
    };
    Err(cannot_handle(found, target, why))
}

/// Name of the package of a group's internal types: its first label, `core` for the core group.
fn internal_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" | "events" => "core",
        first => first,
    }
}

fn conclude(
    target: Target,
    found: &TypeMeta,
    outcome: Outcome,
    validation: FieldValidation,
) -> Result<(Object, Vec<String>), ApiError> {
    if let Some(why) = outcome.type_error {
        return Err(cannot_handle(found, target, why));
    }
    if json::is_deeper_than(&outcome.value, json::MAX_DEPTH) {
        return Err(cannot_handle(found, target, "exceeded max depth"));
    }
    let mut object = Object::new(outcome.value);
    object.0["apiVersion"] = Value::from(found.api_version.as_str());
    object.0["kind"] = Value::from(found.kind.as_str());
    match validation {
        FieldValidation::Ignore => Ok((object, Vec::new())),
        FieldValidation::Warn => Ok((object, outcome.strict_errors)),
        FieldValidation::Strict if outcome.strict_errors.is_empty() => Ok((object, Vec::new())),
        FieldValidation::Strict => {
            let why = format!("strict decoding error: {}", outcome.strict_errors.join(", "));
            Err(cannot_handle(found, target, why))
        }
    }
}

#[cfg(test)]
mod tests;
