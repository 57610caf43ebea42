//! Single values: which Go types take them, in which form they are kept, and what Go says when they do not fit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value, json};

use crate::quantity;
use crate::schema::FieldType;

/// A value as it stands in the document; lists and objects only occur where a single value is expected.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Bool(bool),
    Number(&'a Number),
    Text(&'a str),
    Array,
    Object,
}

/// A value that its type's own decoder does not take.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The decoder's text.
    Text(String),
    /// The decoder expected another JSON type.
    Type { value: String, go_type: &'static str },
}

impl Scalar<'_> {
    /// Go's word for the value in `cannot unmarshal …`: numbers are quoted where a number was expected.
    pub(super) fn go_word(self, expected: &FieldType) -> String {
        match (self, expected) {
            (Scalar::Number(number), FieldType::Int32 | FieldType::Int64 | FieldType::Number) => {
                format!("number {number}")
            }
            (Scalar::Number(_), _) => "number".into(),
            (Scalar::Bool(_), _) => "bool".into(),
            (Scalar::Text(_), _) => "string".into(),
            (Scalar::Array, _) => "array".into(),
            (Scalar::Object, _) => "object".into(),
        }
    }
}

/// The value as it is kept; `None` when its JSON type is wrong.
pub(super) fn convert(value: Scalar<'_>, expected: &FieldType) -> Result<Option<Value>, Refusal> {
    Ok(match (expected, value) {
        (FieldType::Any, value) => keep(value),
        (FieldType::String, Scalar::Text(text)) => Some(json!(text)),
        (FieldType::Bytes, Scalar::Text(text)) => Some(base64_text(text)?),
        (FieldType::Boolean, Scalar::Bool(value)) => Some(json!(value)),
        (FieldType::Number, Scalar::Number(number)) => Some(Value::Number(number.clone())),
        (FieldType::Int64, Scalar::Number(number)) => number.as_i64().map(|value| json!(value)),
        (FieldType::Int32, Scalar::Number(number)) => int32(number).map(|value| json!(value)),
        (FieldType::IntOrString, Scalar::Text(text)) => Some(json!(text)),
        (FieldType::IntOrString, value) => Some(json!(int_or_refuse(value)?)),
        (FieldType::Quantity, value) => Some(quantity_text(value)?),
        (FieldType::Time, value) => Some(time(value, "2006-01-02T15:04:05Z07:00", "%Y-%m-%dT%H:%M:%SZ")?),
        (FieldType::MicroTime, value) => {
            Some(time(value, "2006-01-02T15:04:05.000000Z07:00", "%Y-%m-%dT%H:%M:%S.%6fZ")?)
        }
        _ => None,
    })
}

/// What Go leaves in a list or map where the document says null.
pub(super) fn zero(of: &FieldType) -> Value {
    match of {
        FieldType::String | FieldType::Bytes => json!(""),
        FieldType::Int32 | FieldType::Int64 | FieldType::Number | FieldType::IntOrString => json!(0),
        FieldType::Boolean => json!(false),
        FieldType::Quantity => json!("0"),
        FieldType::Ref(_) => json!({}),
        _ => Value::Null,
    }
}

/// Go's name of a type, e.g. `[]v1.Container`.
pub(super) fn go_type(of: &FieldType, owner: &str, field: &str) -> String {
    match of {
        FieldType::Ref(name) => {
            let mut parts = name.rsplit('.');
            let kind = parts.next().unwrap_or_default();
            format!("{}.{kind}", parts.next().unwrap_or_default())
        }
        FieldType::Array(of) => format!("[]{}", go_type(of, owner, field)),
        FieldType::Map(of) if **of == FieldType::Quantity => "v1.ResourceList".into(),
        FieldType::Map(of) => format!("map[string]{}", go_type(of, owner, "")),
        FieldType::String => string_type(owner, field).into(),
        FieldType::Bytes => "[]uint8".into(),
        FieldType::Int32 => "int32".into(),
        FieldType::Int64 => "int64".into(),
        FieldType::Number => "float64".into(),
        FieldType::Boolean => "bool".into(),
        FieldType::IntOrString => "intstr.IntOrString".into(),
        FieldType::Quantity => "resource.Quantity".into(),
        FieldType::Time => "v1.Time".into(),
        FieldType::MicroTime => "v1.MicroTime".into(),
        FieldType::Any => "runtime.RawExtension".into(),
    }
}

/// Enumerations are types of their own in `k8s.io/api`.
fn string_type(owner: &str, field: &str) -> &'static str {
    match (owner, field) {
        (_, "restartPolicy") => "v1.RestartPolicy",
        (_, "imagePullPolicy") => "v1.PullPolicy",
        (_, "terminationMessagePolicy") => "v1.TerminationMessagePolicy",
        (_, "dnsPolicy") => "v1.DNSPolicy",
        (_, "protocol") => "v1.Protocol",
        (_, "uid") => "types.UID",
        ("PodStatus", "phase") => "v1.PodPhase",
        ("NamespaceStatus", "phase") => "v1.NamespacePhase",
        ("Secret", "type") => "v1.SecretType",
        ("ServiceSpec", "type") => "v1.ServiceType",
        ("Taint", "effect") | ("Toleration", "effect") => "v1.TaintEffect",
        ("Toleration", "operator") => "v1.TolerationOperator",
        ("HTTPGetAction", "scheme") => "v1.URIScheme",
        ("DeploymentStrategy", "type") => "v1.DeploymentStrategyType",
        ("DeleteOptions", "propagationPolicy") => "v1.DeletionPropagation",
        ("JobSpec", "completionMode") => "v1.CompletionMode",
        _ => "string",
    }
}

fn keep(value: Scalar<'_>) -> Option<Value> {
    match value {
        Scalar::Bool(value) => Some(json!(value)),
        Scalar::Number(number) => Some(Value::Number(number.clone())),
        Scalar::Text(text) => Some(json!(text)),
        Scalar::Array | Scalar::Object => None,
    }
}

fn int32(number: &Number) -> Option<i32> {
    number.as_i64()?.try_into().ok()
}

fn int_or_refuse(value: Scalar<'_>) -> Result<i32, Refusal> {
    if let Scalar::Number(number) = value
        && let Some(value) = int32(number)
    {
        return Ok(value);
    }
    Err(Refusal::Type { value: value.go_word(&FieldType::Int32), go_type: "int32" })
}

fn base64_text(text: &str) -> Result<Value, Refusal> {
    let packed: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&packed) {
        Ok(bytes) => Ok(json!(STANDARD.encode(bytes))),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) => at,
                base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    packed.len() / 4 * 4
                }
            };
            Err(Refusal::Text(format!("illegal base64 data at input byte {at}")))
        }
    }
}

fn quantity_text(value: Scalar<'_>) -> Result<Value, Refusal> {
    let text = match value {
        Scalar::Text(text) => text.trim().to_owned(),
        Scalar::Number(number) => number.to_string(),
        _ => String::new(),
    };
    quantity::canonical(&text).map(|text| json!(text)).map_err(|why| Refusal::Text(why.into()))
}

fn time(value: Scalar<'_>, layout: &str, format: &str) -> Result<Value, Refusal> {
    let Scalar::Text(text) = value else {
        return Err(Refusal::Type { value: value.go_word(&FieldType::String), go_type: "string" });
    };
    match text.parse::<jiff::Timestamp>() {
        Ok(timestamp) => Ok(json!(timestamp.strftime(format).to_string())),
        Err(_) => Err(Refusal::Text(format!(
            "parsing time \"{text}\" as \"{layout}\": cannot parse \"{text}\" as \"2006\""
        ))),
    }
}
