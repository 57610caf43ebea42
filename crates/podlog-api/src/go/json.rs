//! What `encoding/json` says of bodies that it cannot read, which is what users of the API know.

use serde_json::Value;
use serde_json::error::{Category, Error};

/// Go's word for the type of a value, as in `cannot unmarshal …`.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The text that Go's `encoding/json` has for a body that is not JSON.
pub fn json_error(body: &[u8], error: &Error) -> String {
    if error.classify() == Category::Eof || body.is_empty() {
        return "unexpected end of JSON input".into();
    }
    let what = error.to_string();
    match context(&what) {
        Some(context) => format!("invalid character {} {context}", quoted(at(body, error))),
        None => what,
    }
}

/// Where Go's scanner was when it met a character that `serde_json` complains about in its own words.
fn context(what: &str) -> Option<&'static str> {
    const CONTEXTS: &[(&str, &str)] = &[
        ("expected value", "looking for beginning of value"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("expected `:`", "after object key"),
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing comma", "looking for beginning of object key string"),
        ("trailing characters", "after top-level value"),
        ("control character", "in string literal"),
        ("invalid escape", "in string escape code"),
        ("expected ident", "in literal"),
        ("invalid number", "in numeric literal"),
    ];
    CONTEXTS.iter().find(|(ours, _)| what.starts_with(ours)).map(|(_, go)| *go)
}

/// The character that the error points at.
fn at(body: &[u8], error: &Error) -> char {
    let line = body.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    line.get(error.column().saturating_sub(1)).map_or('\n', |byte| char::from(*byte))
}

fn quoted(c: char) -> String {
    match c {
        '\'' => r"'\''".into(),
        '"' => r#"'"'"#.into(),
        c => format!("'{}'", super::quote(&c.to_string()).trim_matches('"')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let rows = [
            ("", "unexpected end of JSON input"),
            (r#"{"kind":"Pod""#, "unexpected end of JSON input"),
            ("hello", "invalid character 'h' looking for beginning of value"),
            ("\u{1f}", r"invalid character '\x1f' looking for beginning of value"),
            ("[1\t", "unexpected end of JSON input"),
            ("\\", r"invalid character '\\' looking for beginning of value"),
            (r#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{} x", "invalid character 'x' after top-level value"),
        ];
        for (body, expected) in rows {
            let error = serde_json::from_str::<serde_json::Value>(body).expect_err(body);
            assert_eq!(json_error(body.as_bytes(), &error), expected, "{body}");
        }
    }
}
