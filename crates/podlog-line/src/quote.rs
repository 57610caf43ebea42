//! Go's `%q`, for messages that Kubernetes users know.

use std::fmt::Write;

/// `bytes` in double quotes, escaped as Go's `strconv.Quote` does it.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_escaped(&mut out, c));
        chunk.invalid().iter().for_each(|byte| push_hex(&mut out, *byte));
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if c.is_ascii_control() => push_hex(out, c as u8),
        c if is_printable(c) => out.push(c),
        c if c as u32 > 0xffff => push_code(out, format_args!("\\U{:08x}", c as u32)),
        c => push_code(out, format_args!("\\u{:04x}", c as u32)),
    }
}

/// Close to Go's `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..))
}

fn push_hex(out: &mut String, byte: u8) {
    push_code(out, format_args!("\\x{byte:02x}"));
}

fn push_code(out: &mut String, code: std::fmt::Arguments<'_>) {
    out.write_fmt(code).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_as_go_does() {
        for (input, expected) in [
            (&b"garbage line\n"[..], r#""garbage line\n""#),
            (b"", r#""""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x00\x7f\t\x1b[0m", r#""\x00\x7f\t\x1b[0m""#),
            ("é✓".as_bytes(), r#""é✓""#),
            (b"\xff\xfe", r#""\xff\xfe""#),
            ("\u{2028}\u{a0}\u{feff}".as_bytes(), r#""\u2028\u00a0\ufeff""#),
        ] {
            assert_eq!(quote(input), expected);
        }
    }
}
