//! The CRI log format: `<time> <stream> <tags> <content>` and a line feed.
//!
//! Writers differ in the time: containerd trims zeros of the fraction, conmon writes nine digits and an offset. The
//! first of the `:`-separated tags is `P` (the line goes on) or `F`; readers take everything but `P` for `F`. The tag
//! [`GAP_TAG`] behind `F` marks a declared [`Gap`](crate::Gap).

use memchr::memchr;

use crate::{GAP_TAG, LineEnd, Record, Rfc3339, SecondCache, Stream};

/// Reads the record in `line`, which has no line feed. `None` when it is damaged.
#[inline]
pub fn parse<'a>(line: &'a [u8], seconds: &mut SecondCache) -> Option<Record<'a>> {
    let time = Rfc3339::parse_prefix(line, seconds)?;
    let (stream, rest) = parse_stream(&line[time.text().len()..])?;
    let tags_length = match rest {
        [b' ', ..] => 0,
        [_, b' ', ..] => 1,
        _ => memchr(b' ', rest)?,
    };
    let (tags, content) = rest.split_at(tags_length);
    let end = if tags == b"P" || tags.starts_with(b"P:") { LineEnd::Partial } else { LineEnd::Full };
    Some(Record { time, stream, end, content: &content[1..], is_gap: tags.len() > 1 && is_gap(tags) })
}

fn is_gap(tags: &[u8]) -> bool {
    let mut tags = tags.split(|byte| *byte == b':');
    tags.next() == Some(b"F") && tags.any(|tag| tag == GAP_TAG.as_bytes())
}

#[inline]
fn parse_stream(text: &[u8]) -> Option<(Stream, &[u8])> {
    match text.split_first_chunk::<8>()? {
        (b" stdout ", rest) => Some((Stream::Stdout, rest)),
        (b" stderr ", rest) => Some((Stream::Stderr, rest)),
        _ => None,
    }
}

/// Appends what stands before the content of a record. `time` is its RFC 3339 text.
pub fn append_header(out: &mut Vec<u8>, time: &[u8], stream: Stream, end: LineEnd) {
    out.extend_from_slice(time);
    out.push(b' ');
    out.extend_from_slice(stream.as_str().as_bytes());
    out.extend_from_slice(match end {
        LineEnd::Partial => b" P ",
        LineEnd::Full => b" F ",
    });
}

/// Appends a whole record. `content` must not hold a line feed.
pub fn append_record(out: &mut Vec<u8>, time: &[u8], stream: Stream, end: LineEnd, content: &[u8]) {
    debug_assert!(memchr(b'\n', content).is_none(), "a record is one line");
    append_header(out, time, stream, end);
    out.extend_from_slice(content);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &[u8]) -> Option<(Stream, LineEnd, Vec<u8>)> {
        let record = parse(line, &mut SecondCache::default())?;
        Some((record.stream, record.end, record.content.to_vec()))
    }

    #[test]
    fn reads_records() {
        use LineEnd::{Full, Partial};
        use Stream::{Stderr, Stdout};
        for (line, expected) in [
            (&b"2026-01-01T00:00:01Z stdout F a"[..], Some((Stdout, Full, &b"a"[..]))),
            (b"2026-01-01T00:00:01.5+02:00 stderr P \xff\x00 x", Some((Stderr, Partial, b"\xff\x00 x"))),
            (b"2026-01-01T00:00:01Z stdout F ", Some((Stdout, Full, b""))),
            (b"2026-01-01T00:00:01Z stdout P:T1 a", Some((Stdout, Partial, b"a"))),
            (b"2026-01-01T00:00:01Z stdout F:T1:T2 b", Some((Stdout, Full, b"b"))),
            (b"2026-01-01T00:00:01Z stdout X c", Some((Stdout, Full, b"c"))),
            (b"2026-01-01T00:00:01Z stdout PX c", Some((Stdout, Full, b"c"))),
            (b"2026-01-01T00:00:01Z stdout  c", Some((Stdout, Full, b"c"))),
            (b"2026-01-01T00:00:01Z stdout   c", Some((Stdout, Full, b" c"))),
            (b"2026-01-01T00:00:01Z stdout F", None),
            (b"2026-01-01T00:00:01Z stdin F b", None),
            (b"2026-01-01T00:00:01Z  stdout F b", None),
            (b"2026-01-01T00:00:01Z", None),
            (b"2026-01-01T00:00:01Zstdout F b", None),
            (b"garbage line", None),
            (b"", None),
        ] {
            assert_eq!(
                read(line),
                expected.map(|(s, e, c)| (s, e, c.to_vec())),
                "{}",
                String::from_utf8_lossy(line)
            );
        }
    }

    #[test]
    fn gaps_are_known_by_their_tags_alone() {
        for (tags, expected) in [
            ("F:podlog-gap", true),
            ("F:new:podlog-gap", true),
            ("F:podlog-gap:new", true),
            ("F", false),
            ("F:podlog-gaps", false),
            ("P:podlog-gap", false),
            ("podlog-gap", false),
            ("F:", false),
        ] {
            let line = format!(r#"2026-01-01T00:00:01Z stdout {tags} {{"podlog.gap":{{}}}}"#);
            let record = parse(line.as_bytes(), &mut SecondCache::default()).expect("a record");
            assert_eq!(record.is_gap, expected, "{tags}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(content in prop::collection::vec(any::<u8>().prop_filter("line feed", |b| *b != b'\n'), 0..200), partial: bool, stderr: bool) {
            let stream = Stream::ALL[usize::from(stderr)];
            let end = if partial { LineEnd::Partial } else { LineEnd::Full };
            let mut out = Vec::new();
            append_record(&mut out, b"2026-01-01T00:00:01.25Z", stream, end, &content);
            prop_assert_eq!(out.pop(), Some(b'\n'));
            prop_assert_eq!(read(&out), Some((stream, end, content)));
        }

        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            read(&line);
        }
    }
}
