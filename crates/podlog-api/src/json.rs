//! JSON text as Go's `encoding/json` writes it, so that bodies are what Kubernetes clients and their users know.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// How a body is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// One line, ending in a newline.
    #[default]
    Compact,
    /// Indented by two spaces, without a newline at the end, as Go's `MarshalIndent`.
    Indented,
}

/// One line of JSON without a newline. `kind`, `apiVersion` and `metadata` of the outermost object come first.
///
/// `<`, `>`, `&`, U+2028 and U+2029 are escaped, and floats written as Go does.
pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    write(&mut out, &TypeMetaFirst(value), CompactFormatter);
    out
}

/// One line of JSON without a newline, every key in its sorted place, as Go writes maps.
pub fn to_sorted_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    write(&mut out, value, CompactFormatter);
    out
}

/// A response body in the layout asked for.
pub fn to_body(value: &Value, layout: Layout) -> Vec<u8> {
    body(&TypeMetaFirst(value), layout)
}

/// One frame of a watch: `{"type":"ADDED","object":{…}}` and a newline.
pub fn watch_event(event_type: &str, object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"type\":");
    write(&mut out, &event_type, CompactFormatter);
    out.extend_from_slice(b",\"object\":");
    write(&mut out, &TypeMetaFirst(object), CompactFormatter);
    out.extend_from_slice(b"}\n");
    out
}

/// How deep objects may be. Clients that read JSON up to 128 levels have to read them within lists and watch events.
pub(crate) const MAX_DEPTH: usize = 120;

/// Whether lists and maps are within each other more than `levels` times.
pub(crate) fn is_deeper_than(value: &Value, levels: usize) -> bool {
    let deeper = |value| is_deeper_than(value, levels - 1);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(deeper),
        Value::Object(map) => levels == 0 || map.values().any(deeper),
        _ => false,
    }
}

/// Any serialisable value in the layout asked for, keys in the order of its type.
pub(crate) fn body(value: &impl Serialize, layout: Layout) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    match layout {
        Layout::Compact => {
            write(&mut out, value, CompactFormatter);
            out.push(b'\n');
        }
        Layout::Indented => write(&mut out, value, PrettyFormatter::new()),
    }
    out
}

fn write(out: &mut Vec<u8>, value: &impl Serialize, layout: impl Formatter) {
    let mut serializer = serde_json::Serializer::with_formatter(out, GoFormatter { layout });
    value.serialize(&mut serializer).expect("JSON values and a Vec cannot fail");
}

/// The members of an object that come before all others.
pub const FIRST: [&str; 3] = ["kind", "apiVersion", "metadata"];

/// Go writes struct fields in declaration order, and every API type starts with its `TypeMeta` and `ObjectMeta`.
struct TypeMetaFirst<'a>(&'a Value);

impl Serialize for TypeMetaFirst<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(map) = self.0 else { return self.0.serialize(serializer) };
        let mut out = serializer.serialize_map(Some(map.len()))?;
        for key in FIRST {
            if let Some(value) = map.get(key) {
                out.serialize_entry(key, value)?;
            }
        }
        for (key, value) in map.iter().filter(|(key, _)| !FIRST.contains(&key.as_str())) {
            out.serialize_entry(key, value)?;
        }
        out.end()
    }
}

/// Go's escapes and numbers over any layout.
struct GoFormatter<F> {
    layout: F,
}

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, escape, length)) = next_escape(rest) {
            out.write_all(&rest.as_bytes()[..at])?;
            out.write_all(escape)?;
            rest = &rest[at + length..];
        }
        out.write_all(rest.as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        let size = value.abs();
        if size != 0.0 && !(1e-6..1e21).contains(&size) {
            let text = format!("{value:e}");
            // Go writes the sign of a positive exponent.
            let signed = if text.contains("e-") { text } else { text.replace('e', "e+") };
            out.write_all(signed.as_bytes())
        } else {
            write!(out, "{value}")
        }
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.layout.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.layout.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.layout.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.layout.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.layout.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.layout.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.layout.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.layout.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.layout.end_object_value(out)
    }
}

/// Where the next character is that Go escapes and serde_json does not, its escape, and its length in UTF-8.
fn next_escape(text: &str) -> Option<(usize, &'static [u8], usize)> {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' => return Some((at, b"\\u003c", 1)),
            b'>' => return Some((at, b"\\u003e", 1)),
            b'&' => return Some((at, b"\\u0026", 1)),
            0xe2 if bytes[at..].starts_with("\u{2028}".as_bytes()) => return Some((at, b"\\u2028", 3)),
            0xe2 if bytes[at..].starts_with("\u{2029}".as_bytes()) => return Some((at, b"\\u2029", 3)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text(value: &Value) -> String {
        String::from_utf8(to_vec(value)).expect("UTF-8")
    }

    #[test]
    fn escapes_as_go_does() {
        // Right-hand sides are Go's json.Marshal.
        for (value, expected) in [
            ("plain", r#""plain""#),
            ("a<b>&c", r#""a\u003cb\u003e\u0026c""#),
            ("\u{2028}\u{2029}\u{2027}", "\"\\u2028\\u2029\u{2027}\""),
            ("\"\\/", r#""\"\\/""#),
            ("\x08\x0c\n\r\t", r#""\b\f\n\r\t""#),
            ("\x00\x1f\x7f", "\"\\u0000\\u001f\x7f\""),
            ("grün ∞ 😀", "\"grün ∞ 😀\""),
            ("<", r#""\u003c""#),
            ("", r#""""#),
        ] {
            assert_eq!(text(&json!(value)), expected);
        }
        assert_eq!(text(&json!({"a<": 1})), r#"{"a\u003c":1}"#);
    }

    #[test]
    fn writes_numbers_as_go_does() {
        for (value, expected) in [
            (json!(0), "0"),
            (json!(-1), "-1"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(1.0), "1"),
            (json!(0.1), "0.1"),
            (json!(-2.5), "-2.5"),
            (json!(0.0), "0"),
            (json!(1e20), "100000000000000000000"),
            (json!(1e21), "1e+21"),
            (json!(-1.5e300), "-1.5e+300"),
            (json!(0.000001), "0.000001"),
            (json!(0.0000001), "1e-7"),
            (json!(1.25e-10), "1.25e-10"),
        ] {
            assert_eq!(text(&value), expected);
        }
    }

    #[test]
    fn type_and_metadata_come_first() {
        let value = json!({"spec": {"kind": "x", "apiVersion": "y"}, "apiVersion": "v1", "metadata": {}, "kind": "Pod", "a": []});
        assert_eq!(
            text(&value),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{},"a":[],"spec":{"apiVersion":"y","kind":"x"}}"#
        );
    }

    #[test]
    fn layouts() {
        let value = json!({"kind": "A", "list": [1, {}], "empty": []});
        assert_eq!(to_body(&value, Layout::Compact), b"{\"kind\":\"A\",\"empty\":[],\"list\":[1,{}]}\n");
        let expected = "{\n  \"kind\": \"A\",\n  \"empty\": [],\n  \"list\": [\n    1,\n    {}\n  ]\n}";
        assert_eq!(to_body(&value, Layout::Indented), expected.as_bytes());
    }

    #[test]
    fn watch_frames() {
        let frame = watch_event("ADDED", &json!({"metadata": {"name": "<"}, "kind": "Pod"}));
        assert_eq!(
            frame,
            b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\",\"metadata\":{\"name\":\"\\u003c\"}}}\n"
        );
    }

    proptest! {
        #[test]
        fn every_string_survives(string in any::<String>()) {
            let back: Value = serde_json::from_slice(&to_vec(&json!(string))).expect("valid JSON");
            prop_assert_eq!(back, json!(string));
        }

        #[test]
        fn every_float_survives(float in any::<f64>().prop_filter("JSON has no others", |f| f.is_finite())) {
            let written = text(&json!(float));
            prop_assert_eq!(written.parse::<f64>().expect("a number"), float);
        }
    }
}
