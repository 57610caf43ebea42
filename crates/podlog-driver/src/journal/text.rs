//! Entries of the journal as the records that a runtime would have written into a log file.

use std::io;

use memchr::memchr;
use podlog_line::{GAP_TAG, Gap, GapReason, LineEnd, Stream, Timestamp, TimestampFormatter, cri};

use super::entries::Entry;
use super::file::{JournalFile, Part};

/// Makes records of entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    formatter: TimestampFormatter,
    /// Besides root, who may say what a container has printed: whoever runs it.
    user: u32,
}

impl Texts {
    pub(super) fn of_user(user: u32) -> Texts {
        Texts { user, ..Texts::default() }
    }

    /// Appends the records of an entry: one for each line of its message, or a declared gap where the message cannot be read. An
    /// entry without a message, or of a user who could be anybody, has none. The same entry always has the same records.
    pub(super) fn append(
        &mut self,
        file: &mut JournalFile,
        entry: &Entry,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let (mut message, mut unreadable) = (None, None);
        let (mut stream, mut end, mut is_trusted) = (Stream::Stdout, LineEnd::Full, true);
        for item in &entry.items {
            let part = match file.part(*item) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    Part::Unreadable(error.to_string())
                }
                part => part?,
            };
            match part {
                Part::Message(content) => message = message.or(Some(content)),
                Part::Stderr => stream = Stream::Stderr,
                Part::Partial => end = LineEnd::Partial,
                Part::User(user) => is_trusted = user == 0 || user == self.user,
                Part::Unreadable(why) => unreadable = Some(why),
                Part::Other => {}
            }
        }
        let time = self.formatter.format(time_of(entry));
        match (message, unreadable) {
            _ if !is_trusted => {}
            (Some(message), _) => append_lines(out, time, stream, end, &message),
            (None, Some(why)) => {
                tracing::warn!(path = %file.path().display(), seqnum = entry.seqnum, why, "a message in the journal cannot be read");
                append_gap(out, time, stream);
            }
            (None, None) => {}
        }
        Ok(())
    }
}

pub(super) fn time_of(entry: &Entry) -> Timestamp {
    let nanoseconds = entry.realtime.saturating_mul(1000);
    Timestamp::from_nanoseconds(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
}

/// conmon leaves the line feed at the end of a message, Docker does not.
fn append_lines(out: &mut Vec<u8>, time: &[u8], stream: Stream, end: LineEnd, message: &[u8]) {
    let mut rest = message;
    while let Some(length) = memchr(b'\n', rest) {
        cri::append_record(out, time, stream, LineEnd::Full, &rest[..length]);
        rest = &rest[length + 1..];
        if rest.is_empty() {
            return;
        }
    }
    cri::append_record(out, time, stream, end, rest);
}

fn append_gap(out: &mut Vec<u8>, time: &[u8], stream: Stream) {
    out.extend_from_slice(time);
    out.extend_from_slice(format!(" {stream} F:{GAP_TAG} ").as_bytes());
    Gap { stream: Some(stream), ..Gap::new(GapReason::Damaged) }.append_content(out);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_records() {
        use LineEnd::{Full, Partial};
        for (message, end, expected) in [
            (&b"a\n"[..], Full, &b"T stdout F a\n"[..]),
            (b"a", Full, b"T stdout F a\n"),
            (b"a", Partial, b"T stdout P a\n"),
            (b"", Full, b"T stdout F \n"),
            (b"\n", Full, b"T stdout F \n"),
            (b"a\r\n", Full, b"T stdout F a\r\n"),
            (b"\xff\0b\n", Full, b"T stdout F \xff\0b\n"),
            (b"a\nb", Full, b"T stdout F a\nT stdout F b\n"),
            (b"a\nb", Partial, b"T stdout F a\nT stdout P b\n"),
        ] {
            let mut out = Vec::new();
            append_lines(&mut out, b"T", Stream::Stdout, end, message);
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(expected));
        }
    }

    #[test]
    fn a_gap_is_a_record() {
        let mut out = Vec::new();
        append_gap(&mut out, b"2026-01-01T00:00:01Z", Stream::Stderr);
        let line = out.strip_suffix(b"\n").expect("a line");
        let record = cri::parse(line, &mut podlog_line::SecondCache::default()).expect("a record");
        assert!(record.is_gap && record.stream == Stream::Stderr);
    }
}
