//! Declared gaps: what stands in a log where something is missing.
//!
//! A gap is a record of its own, told from the program's own lines by a second tag: `<time> <stream> F:podlog-gap <content>`.
//! Readers that know nothing of it show the content as a line; no program can forge it, since tags are not content. The
//! content is one JSON object with the only key `podlog.gap`:
//!
//! ```text
//! {"podlog.gap":{"reason":"drop-oldest","stream":"stdout","lines":12,"bytes":1200,"from":"2026-01-01T00:00:01Z","to":"2026-01-01T00:00:02Z"}}
//! ```
//!
//! Keys whose value is not known are left out.

use std::fmt::Write as _;

use crate::{Stream, Timestamp};

/// The tag, behind `F:`.
pub const GAP_TAG: &str = "podlog-gap";

const OPENING: &str = r#"{"podlog.gap":{"#;

/// Why something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The policy `drop-newest`: the buffer was full, what came was dropped.
    DropNewest,
    /// The policy `drop-oldest`: the buffer was full, what waited longest was dropped.
    DropOldest,
    /// The rate limit of the container.
    RateLimit,
    /// The log could not be written: the disk was full or failed.
    WriteFailed,
    /// Capture was killed with bytes in its hands.
    CaptureKilled,
    /// Files were deleted for their age before they were read.
    Retention,
    /// A file is damaged: it cannot be decompressed to its end.
    Damaged,
    /// The container runtime that wrote the log ended, with what it had in its hands.
    RuntimeEnded,
    /// A reason that this version does not know.
    Other,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [GapReason; 9] = [
        GapReason::DropNewest,
        GapReason::DropOldest,
        GapReason::RateLimit,
        GapReason::WriteFailed,
        GapReason::CaptureKilled,
        GapReason::Retention,
        GapReason::Damaged,
        GapReason::RuntimeEnded,
        GapReason::Other,
    ];

    /// The name used in markers, options and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            GapReason::DropNewest => "drop-newest",
            GapReason::DropOldest => "drop-oldest",
            GapReason::RateLimit => "rate-limit",
            GapReason::WriteFailed => "write-failed",
            GapReason::CaptureKilled => "capture-killed",
            GapReason::Retention => "retention",
            GapReason::Damaged => "damaged",
            GapReason::RuntimeEnded => "runtime-ended",
            GapReason::Other => "other",
        }
    }

    /// The reason of that name; [`GapReason::Other`] if there is none.
    pub fn from_name(name: &str) -> GapReason {
        GapReason::ALL.into_iter().find(|reason| reason.as_str() == name).unwrap_or(GapReason::Other)
    }
}

/// What is missing in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// In which stream; `None` when it may be both.
    pub stream: Option<Stream>,
    /// Lines that are missing, begun ones included; `None` when nobody knows.
    pub lines: Option<u64>,
    /// Bytes that are missing: of content, line feeds included, or, for [`GapReason::Retention`], of log files.
    pub bytes: Option<u64>,
    /// When the first of it was logged.
    pub from: Option<Timestamp>,
    /// When the last of it was logged.
    pub to: Option<Timestamp>,
}

impl Gap {
    /// A gap of which only the reason is known.
    pub const fn new(reason: GapReason) -> Gap {
        Gap { reason, stream: None, lines: None, bytes: None, from: None, to: None }
    }

    /// Appends the content of the marker, without a line feed.
    pub fn append_content(&self, out: &mut Vec<u8>) {
        let mut text = format!(r#"{OPENING}"reason":"{}""#, self.reason.as_str());
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let quoted = |value: Option<Timestamp>| value.map(|value| format!("\"{value}\""));
        for (name, value) in [
            ("stream", self.stream.map(|stream| format!("\"{stream}\""))),
            ("lines", number(self.lines)),
            ("bytes", number(self.bytes)),
            ("from", quoted(self.from)),
            ("to", quoted(self.to)),
        ] {
            if let Some(value) = value {
                let _ = write!(text, r#","{name}":{value}"#);
            }
        }
        text.push_str("}}");
        out.extend_from_slice(text.as_bytes());
    }

    /// Reads the content of a marker; `None` when it is none. Unknown keys are skipped.
    pub fn parse_content(content: &[u8]) -> Option<Gap> {
        let text = std::str::from_utf8(content).ok()?;
        let mut rest = text.strip_prefix(OPENING)?.strip_suffix("}}")?;
        let mut gap = Gap::new(GapReason::Other);
        while !rest.is_empty() {
            let (name, after) = rest.strip_prefix('"')?.split_once("\":")?;
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            gap.set(name, value)?;
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        Some(gap)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "reason" => self.reason = GapReason::from_name(value),
            "stream" => self.stream = Some(Stream::from_name(value.as_bytes())?),
            "lines" => self.lines = Some(value.parse().ok()?),
            "bytes" => self.bytes = Some(value.parse().ok()?),
            "from" => self.from = Some(Timestamp::parse(value.as_bytes()).ok()?),
            "to" => self.to = Some(Timestamp::parse(value.as_bytes()).ok()?),
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content(gap: Gap) -> String {
        let mut out = Vec::new();
        gap.append_content(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_marker_is_one_json_object() {
        let gap = Gap {
            stream: Some(Stream::Stdout),
            lines: Some(12),
            bytes: Some(1200),
            from: Some(Timestamp::from_seconds(1_767_225_601, 0)),
            to: Some(Timestamp::from_seconds(1_767_225_602, 0)),
            ..Gap::new(GapReason::DropOldest)
        };
        let expected = r#"{"podlog.gap":{"reason":"drop-oldest","stream":"stdout","lines":12,"bytes":1200,"from":"2026-01-01T00:00:01Z","to":"2026-01-01T00:00:02Z"}}"#;
        assert_eq!(content(gap), expected);
        assert_eq!(content(Gap::new(GapReason::Damaged)), r#"{"podlog.gap":{"reason":"damaged"}}"#);
    }

    #[test]
    fn later_versions_are_understood() {
        let newer = br#"{"podlog.gap":{"reason":"flood","colour":"red","lines":3}}"#;
        let expected = Gap { lines: Some(3), ..Gap::new(GapReason::Other) };
        assert_eq!(Gap::parse_content(newer), Some(expected));
        for other in
            [&b"{}"[..], br#"{"podlog.gap":{"lines":x}}"#, br#"{"podlog.gap":{"stream":"stdin"}}"#, b"\xff"]
        {
            assert_eq!(Gap::parse_content(other), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            reason in 0..GapReason::ALL.len(),
            stream: Option<bool>,
            lines: Option<u64>,
            bytes: Option<u64>,
            from in prop::option::of(0..i64::MAX),
        ) {
            let gap = Gap {
                reason: GapReason::ALL[reason],
                stream: stream.map(|stream| Stream::ALL[usize::from(stream)]),
                lines,
                bytes,
                from: from.map(Timestamp::from_nanoseconds),
                to: None,
            };
            prop_assert_eq!(Gap::parse_content(content(gap).as_bytes()), Some(gap));
        }

        #[test]
        fn no_bytes_panic(content: Vec<u8>) {
            let _ = Gap::parse_content(&content);
            let _ = Gap::parse_content(&[OPENING.as_bytes(), &content, b"}}"].concat());
        }
    }
}
