//! Values of messages as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::messages::{Field, Kind, Messages, Shape};
use super::wire::{Fields, WireError, WireValue, varint};

/// The JSON object of a message. Fields that the table does not have are skipped.
///
/// How deep messages nest is bounded: no message of the table contains itself.
pub(super) fn message(
    messages: &Messages,
    name: &str,
    bytes: &[u8],
) -> Result<Map<String, Value>, WireError> {
    let fields = messages.fields(name);
    let mut object = Map::new();
    for field in Fields::of(bytes) {
        let (number, value) = field?;
        if let Some(field) = fields.iter().find(|field| field.number == number) {
            insert(messages, &mut object, field, value)?;
        }
    }
    Ok(object)
}

fn insert(
    messages: &Messages,
    object: &mut Map<String, Value>,
    field: &Field,
    value: WireValue<'_>,
) -> Result<(), WireError> {
    if let (Kind::Message(inlined), "") = (field.kind, field.name) {
        object.extend(message(messages, inlined, value.bytes()?)?);
        return Ok(());
    }
    match field.shape {
        Shape::One | Shape::Pointer => {
            if let Some(value) = convert(messages, field.kind, value)?
                && (field.shape == Shape::Pointer || !is_zero(&value))
            {
                object.insert(field.name.into(), value);
            }
        }
        Shape::List => {
            let list = object.entry(field.name).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.extend(elements(messages, field.kind, value)?);
            }
        }
        Shape::Map => {
            let (key, value) = entry(messages, field.kind, value.bytes()?)?;
            object.entry(field.name).or_insert_with(|| json!({}))[key] = value;
        }
    }
    Ok(())
}

/// Numbers of a list may come packed into one field.
fn elements(messages: &Messages, kind: Kind, value: WireValue<'_>) -> Result<Vec<Value>, WireError> {
    if let (Kind::Integer | Kind::Bool, WireValue::Bytes(mut packed)) = (kind, value) {
        let mut numbers = Vec::new();
        while !packed.is_empty() {
            numbers.extend(convert(messages, kind, WireValue::Varint(varint(&mut packed)?))?);
        }
        return Ok(numbers);
    }
    Ok(vec![convert(messages, kind, value)?.unwrap_or(Value::Null)])
}

/// One entry of a map: a message with key 1 and value 2, either of which may be missing.
fn entry(messages: &Messages, kind: Kind, bytes: &[u8]) -> Result<(String, Value), WireError> {
    let (mut key, mut value) = (String::new(), None);
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => key = field.text()?,
            (2, field) => value = convert(messages, kind, field)?,
            _ => {}
        }
    }
    let empty = || convert(messages, kind, WireValue::Bytes(&[]));
    let value = match value {
        Some(value) => value,
        None => empty()?.unwrap_or(Value::Null),
    };
    Ok((key, value))
}

/// `None` for the zero time, which JSON leaves out.
fn convert(messages: &Messages, kind: Kind, value: WireValue<'_>) -> Result<Option<Value>, WireError> {
    Ok(Some(match kind {
        Kind::String => json!(value.text()?),
        Kind::Bool => json!(value.integer()? != 0),
        Kind::Integer => json!(value.integer()?),
        Kind::Double => json!(value.double()?),
        Kind::Bytes => json!(STANDARD.encode(value.bytes()?)),
        Kind::Time => return time(value.bytes()?, |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        Kind::MicroTime => {
            return time(value.bytes()?, |time| time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
        }
        Kind::Quantity => json!(only(value.bytes()?)?.map_or(Ok(String::new()), WireValue::text)?),
        Kind::IntOrString => int_or_string(value.bytes()?)?,
        Kind::Raw => {
            let raw = only(value.bytes()?)?.map_or(Ok(&b"null"[..]), WireValue::bytes)?;
            serde_json::from_slice(raw).map_err(|_| WireError::Json)?
        }
        Kind::Items => {
            let items: Result<Vec<String>, WireError> =
                Fields::of(value.bytes()?).map(|field| field?.1.text()).collect();
            json!(items?)
        }
        Kind::Message(name) => Value::Object(message(messages, name, value.bytes()?)?),
    }))
}

/// The value of field 1, which is all that some messages have.
fn only(bytes: &[u8]) -> Result<Option<WireValue<'_>>, WireError> {
    let mut found = None;
    for field in Fields::of(bytes) {
        if let (1, value) = field? {
            found = Some(value);
        }
    }
    Ok(found)
}

fn time(bytes: &[u8], show: impl Fn(Timestamp) -> String) -> Result<Option<Value>, WireError> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => seconds = value.integer()?,
            (2, value) => nanoseconds = value.integer()?,
            _ => {}
        }
    }
    if (seconds, nanoseconds) == (0, 0) {
        return Ok(None);
    }
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| WireError::Time)?;
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| WireError::Time)?;
    Ok(Some(json!(show(time))))
}

/// Type 0 is a number, type 1 a string.
fn int_or_string(bytes: &[u8]) -> Result<Value, WireError> {
    let (mut is_string, mut number, mut string) = (false, 0, String::new());
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => is_string = value.integer()? != 0,
            (2, value) => number = value.integer()?,
            (3, value) => string = value.text()?,
            _ => {}
        }
    }
    Ok(if is_string { json!(string) } else { json!(number) })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}
