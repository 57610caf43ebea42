//! The format of Docker's json-file logging driver: one object a line with the keys `log`, `stream` and `time`.
//!
//! A `log` that does not end in a line feed is part of a longer line. Other keys are skipped.

use memchr::{memchr, memchr2};

use crate::{LineEnd, Record, Rfc3339, SecondCache, Stream, timestamp};

/// The fields of a record beside its content. `stream` is as it stands in the file, empty when missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    /// When it was captured.
    pub time: Rfc3339<'a>,
    /// The name of the stream.
    pub stream: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The record of these fields and their unescaped `log`; `None` when the stream has no name that we know.
    pub(crate) fn into_record(self, log: &'a [u8]) -> Option<Record<'a>> {
        let stream = Stream::from_name(self.stream)?;
        let (content, end) = match log {
            [content @ .., b'\n'] => (content, LineEnd::Full),
            content => (content, LineEnd::Partial),
        };
        Some(Record { time: self.time, stream, end, content, is_gap: false })
    }
}

/// Reads the object in `line` and leaves its unescaped `log` in `log`. `None` when it is not such an object.
///
/// Bytes that are not UTF-8 are kept as they are.
pub fn parse<'a>(line: &'a [u8], log: &mut Vec<u8>) -> Option<Fields<'a>> {
    log.clear();
    let mut fields = Fields { time: timestamp::ZERO_TIME, stream: b"" };
    let mut text = Text { rest: line };
    text.expect(b'{')?;
    if !text.skip_if(b'}') {
        loop {
            let key = text.string()?;
            text.expect(b':')?;
            match Key::of(key) {
                Key::Log => text.nullable(|text| unescape(text.string()?, log))?.unwrap_or_default(),
                Key::Stream => text
                    .nullable(|text| {
                        fields.stream = text.string()?;
                        Some(())
                    })?
                    .unwrap_or_default(),
                Key::Time => text
                    .nullable(|text| {
                        fields.time = whole_time(text.string()?)?;
                        Some(())
                    })?
                    .unwrap_or_default(),
                Key::Other => text.skip_value()?,
            }
            if text.skip_if(b',') {
                continue;
            }
            text.expect(b'}')?;
            break;
        }
    }
    text.skip_space();
    text.rest.is_empty().then_some(fields)
}

/// The record in `line` if it looks just as Docker writes one, with no escapes but that of the line feed at its end:
/// then nothing has to be copied. Every other line is for [`parse`].
pub(crate) fn parse_usual<'a>(line: &'a [u8], seconds: &mut SecondCache) -> Option<Record<'a>> {
    let rest = line.strip_prefix(br#"{"log":""#)?;
    let (content, rest) = rest.split_at(memchr2(b'"', b'\\', rest)?);
    let (end, rest) = match rest.strip_prefix(br"\n") {
        Some(rest) => (LineEnd::Full, rest),
        None => (LineEnd::Partial, rest),
    };
    let (stream, rest) = rest.strip_prefix(br#"","stream":"std"#)?.split_at_checked(3)?;
    let stream = match stream {
        b"out" => Stream::Stdout,
        b"err" => Stream::Stderr,
        _ => return None,
    };
    let rest = rest.strip_prefix(br#"","time":""#)?;
    let time = Rfc3339::parse_prefix(rest, seconds)?;
    let is_valid = rest[time.text().len()..] == *br#""}"# && !has_control(content);
    is_valid.then_some(Record { time, stream, end, content, is_gap: false })
}

/// Whether there are bytes that JSON allows only as escapes. All bytes are looked at, many at once.
fn has_control(text: &[u8]) -> bool {
    text.iter().fold(false, |found, byte| found | (*byte < 0x20))
}

enum Key {
    Log,
    Stream,
    Time,
    Other,
}

impl Key {
    /// Letter case is ignored, as Go's JSON decoder does it.
    fn of(name: &[u8]) -> Key {
        match name {
            _ if name.eq_ignore_ascii_case(b"log") => Key::Log,
            _ if name.eq_ignore_ascii_case(b"stream") => Key::Stream,
            _ if name.eq_ignore_ascii_case(b"time") => Key::Time,
            _ => Key::Other,
        }
    }
}

fn whole_time(text: &[u8]) -> Option<Rfc3339<'_>> {
    Rfc3339::parse_prefix(text, &mut SecondCache::default()).filter(|time| time.text().len() == text.len())
}

/// What is left of the JSON text.
struct Text<'a> {
    rest: &'a [u8],
}

impl<'a> Text<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn skip_if(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.rest.first() == Some(&byte);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_if(byte).then_some(())
    }

    /// The raw text between two quotes, escapes still in it.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let mut end = 0;
        loop {
            end += memchr2(b'"', b'\\', self.rest.get(end..)?)?;
            if self.rest[end] == b'"' {
                break;
            }
            end += 2;
        }
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        (!has_control(text)).then_some(text)
    }

    /// `null` is as good as a missing key.
    fn nullable<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        self.skip_space();
        if let Some(rest) = self.rest.strip_prefix(b"null") {
            self.rest = rest;
            return Some(None);
        }
        read(self).map(Some)
    }

    /// Any value, nested ones by counting brackets.
    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.skip_space();
            match self.rest.first()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.rest = &self.rest[1..];
                    continue;
                }
                b'}' | b']' | b',' | b':' if depth > 0 => {
                    depth -= usize::from(matches!(self.rest[0], b'}' | b']'));
                    self.rest = &self.rest[1..];
                }
                _ => {
                    let length = self.rest.iter().take_while(|byte| is_scalar(**byte)).count();
                    if length == 0 {
                        return None;
                    }
                    self.rest = &self.rest[length..];
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Appends `text` with its escapes resolved. A surrogate without its partner becomes U+FFFD, as in Go.
fn unescape(mut text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while let Some(plain) = memchr(b'\\', text) {
        out.extend_from_slice(&text[..plain]);
        let (escape, rest) = text[plain + 1..].split_first()?;
        text = rest;
        match escape {
            b'"' | b'\\' | b'/' => out.push(*escape),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => text = unescape_code(text, out)?,
            _ => return None,
        }
    }
    out.extend_from_slice(text);
    Some(())
}

fn unescape_code<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (first, rest) = code_unit(text)?;
    let pair = rest.strip_prefix(b"\\u").and_then(code_unit).filter(|(second, _)| is_pair(first, *second));
    let (code, rest) = match pair {
        Some((second, rest)) => (0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff), rest),
        None => (first, rest),
    };
    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Some(rest)
}

fn code_unit(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let unit =
        digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))?;
    Some((unit, rest))
}

fn is_pair(first: u32, second: u32) -> bool {
    (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(&second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
        let mut log = Vec::new();
        let fields = parse(line, &mut log)?;
        Some((log, fields.stream.to_vec(), fields.time.text().to_vec()))
    }

    #[test]
    fn reads_records() {
        for (line, log, stream, time) in [
            (
                &br#"{"log":"hi\n","stream":"stdout","time":"2026-01-01T00:00:00.123Z"}"#[..],
                &b"hi\n"[..],
                "stdout",
                "2026-01-01T00:00:00.123Z",
            ),
            (
                br#" { "time" : "2026-01-01T00:00:00Z" , "attrs":{"a":["b",{"c":null}],"d":-1.5e3}, "LOG":"x" } "#,
                b"x",
                "",
                "2026-01-01T00:00:00Z",
            ),
            (
                br#"{"log":"\u003ca\u003e\t\u0009\"\\\/\b\f\r\u2028"}"#,
                "<a>\t\t\"\\/\x08\x0c\r\u{2028}".as_bytes(),
                "",
                "0001-01-01T00:00:00Z",
            ),
            (br#"{"log":"\ud83d\ude00\ud83d\ufffd"}"#, "😀\u{fffd}\u{fffd}".as_bytes(), "", "0001-01-01T00:00:00Z"),
            (b"{\"log\":\"\xff\xfe\"}", b"\xff\xfe", "", "0001-01-01T00:00:00Z"),
            (br#"{"log":null,"stream":null,"time":null}"#, b"", "", "0001-01-01T00:00:00Z"),
            (b"{}", b"", "", "0001-01-01T00:00:00Z"),
        ] {
            let expected = Some((log.to_vec(), stream.as_bytes().to_vec(), time.as_bytes().to_vec()));
            assert_eq!(read(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn the_usual_is_not_copied() {
        for (log, is_usual) in [
            (r"a line\n", true),
            (r"part of a line", true),
            (r"", true),
            (r"a\tb\n", false),
            (r"a\n\n", false),
            ("a\tb", false),
        ] {
            let line = format!(r#"{{"log":"{log}","stream":"stderr","time":"2026-01-01T00:00:01.5Z"}}"#);
            assert_eq!(
                parse_usual(line.as_bytes(), &mut SecondCache::default()).is_some(),
                is_usual,
                "{log}"
            );
        }
    }

    #[test]
    fn refuses_damage() {
        for line in [
            &b""[..],
            b"{",
            b"{\"log\"",
            b"{\"log\":\"x",
            b"{\"log\":\"x\\",
            b"{\"log\":\"x\\\"",
            b"{\"log\":\"x\"",
            b"{\"log\":\"x\"}{",
            b"{\"log\":\"x\",}",
            b"{\"log\":1}",
            b"{\"log\":\"\\q\"}",
            b"{\"log\":\"\\u12g4\"}",
            b"{\"log\":\"a\x01b\"}",
            b"{\"time\":\"yesterday\"}",
            b"{\"a\":}",
            b"{\"a\":[1}",
            b"[]",
            b"null",
        ] {
            assert_eq!(read(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn the_usual_is_read_as_everything_is(
            log in "[a-z\\\\\"\t\u{e9}]{0,8}(\\\\n|\\\\\\\\n|)",
            stream in "stdout|stderr|stdin|",
            time in "2026-01-01T00:00:01([.][0-9]{1,9}|)(Z|[+]02:00|)",
            rest in "\"}|\"} |\",\"x\":1}",
        ) {
            let line = format!(r#"{{"log":"{log}","stream":"{stream}","time":"{time}{rest}"#).into_bytes();
            if let Some(usual) = parse_usual(&line, &mut SecondCache::default()) {
                let mut unescaped = Vec::new();
                let fields = parse(&line, &mut unescaped);
                prop_assert_eq!(fields.and_then(|fields| fields.into_record(&unescaped)), Some(usual));
            }
        }

        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            read(&line);
            read(&[b"{\"log\":\"".as_slice(), &line].concat());
            read(&[b"{\"x\":".as_slice(), &line].concat());
        }
    }
}
