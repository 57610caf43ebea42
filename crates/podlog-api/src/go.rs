//! Texts that clients know from Kubernetes' Go code, byte for byte: quoting, number and time errors.

mod duration;
mod json;
mod time;

pub use duration::GoDuration;
pub use json::json_error;
pub(crate) use json::json_type;
pub use time::{ParseTimeError, parse_rfc3339};

/// A string as Go's `%q` and `strconv.Quote` write it.
///
/// ```
/// assert_eq!(podlog_api::go::quote("a\"b\n"), r#""a\"b\n""#);
/// ```
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        push_quoted(&mut quoted, character);
    }
    quoted.push('"');
    quoted
}

/// A slice of strings as Go's `%q` writes it: `["a" "b"]`.
pub fn quote_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.into_iter().map(quote).collect();
    format!("[{}]", quoted.join(" "))
}

/// The text as no markup: an answer that echoes what a client sent must not be taken for a document by a browser
/// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`).
pub fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A base-10 `int64` as Go's `strconv.ParseInt` reads it.
///
/// # Errors
/// Go's own text, e.g. `strconv.ParseInt: parsing "x": invalid syntax`.
pub fn parse_int(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error| parse_error("ParseInt", text, &error))
}

/// A base-10 `uint64` as Go's `strconv.ParseUint` reads it: without any sign.
///
/// # Errors
/// Go's own text, e.g. `strconv.ParseUint: parsing "-1": invalid syntax`.
pub fn parse_uint(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('+').map_or(text, |_| "");
    digits.parse().map_err(|error| parse_error("ParseUint", text, &error))
}

fn parse_error(function: &str, text: &str, error: &std::num::ParseIntError) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let why = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {}: {why}", quote(text))
}

/// A truth value, as `strconv.ParseBool` reads it.
///
/// # Errors
/// The text of `strconv.ParseBool` for anything else.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text))),
    }
}

/// The text of several errors as `k8s.io/apimachinery/pkg/util/errors.Aggregate` prints it: distinct ones, in
/// brackets when there are several. `None` when there are none.
pub fn aggregate<'a>(errors: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut distinct: Vec<&str> = Vec::new();
    for error in errors {
        if !distinct.contains(&error) {
            distinct.push(error);
        }
    }
    match distinct.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

fn push_quoted(quoted: &mut String, character: char) {
    match character {
        '"' => quoted.push_str("\\\""),
        '\\' => quoted.push_str("\\\\"),
        '\x07' => quoted.push_str("\\a"),
        '\x08' => quoted.push_str("\\b"),
        '\x0c' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\x0b' => quoted.push_str("\\v"),
        c if is_printable(c) => quoted.push(c),
        c if c.is_ascii() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x10000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

/// Go's `unicode.IsPrint`.
///
/// Rust's debug escaping draws the same line; the leading letter keeps combining marks, which Go prints, from being escaped.
pub fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return character == ' ' || character.is_ascii_graphic();
    }
    let mut text = [b'a'; 5];
    let length = character.encode_utf8(&mut text[1..]).len();
    match std::str::from_utf8(&text[..=length]) {
        Ok(text) => text.escape_debug().count() == 2,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        // Right-hand sides are Go's strconv.Quote.
        for (text, expected) in [
            ("", r#""""#),
            ("web", r#""web""#),
            ("a\"b", r#""a\"b""#),
            ("back\\slash", r#""back\\slash""#),
            ("\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            ("\x00\x1b\x7f", r#""\x00\x1b\x7f""#),
            ("grün 日本", "\"grün 日本\""),
            ("e\u{301}", "\"e\u{301}\""),
            ("\u{a0}\u{200b}\u{feff}", r#""\u00a0\u200b\ufeff""#),
            ("\u{2028}", r#""\u2028""#),
            ("😀", "\"😀\""),
            ("\u{e0001}", r#""\U000e0001""#),
            ("'<&>'", "\"'<&>'\""),
        ] {
            assert_eq!(quote(text), expected, "{text:?}");
        }
    }

    #[test]
    fn reads_integers_as_go_does() {
        let syntax = |text: &str| Err(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(text)));
        let range =
            |text: &str| Err(format!("strconv.ParseInt: parsing {}: value out of range", quote(text)));
        for (text, expected) in [
            ("0", Ok(0)),
            ("-5", Ok(-5)),
            ("+7", Ok(7)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("9223372036854775808", range("9223372036854775808")),
            ("-9223372036854775809", range("-9223372036854775809")),
            ("", syntax("")),
            ("1.5", syntax("1.5")),
            ("1_000", syntax("1_000")),
            (" 1", syntax(" 1")),
            ("0x10", syntax("0x10")),
            ("ten\"", syntax("ten\"")),
        ] {
            assert_eq!(parse_int(text), expected, "{text:?}");
        }
    }

    #[test]
    fn aggregates_distinct_errors() {
        for (errors, expected) in [
            (vec![], None),
            (vec!["a"], Some("a")),
            (vec!["a", "a"], Some("a")),
            (vec!["a", "b", "a"], Some("[a, b]")),
        ] {
            assert_eq!(aggregate(errors).as_deref(), expected);
        }
    }
}
