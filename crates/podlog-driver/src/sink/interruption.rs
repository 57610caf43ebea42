//! A log whose writer, a container runtime, ended while it was writing: what it had in its hands is lost, and the log says so.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, SystemTime},
};

use podlog_line::{GAP_TAG, Gap, GapReason, RecordParser, Stream, Timestamp};

use crate::attributes;

/// How much of the end of a file is looked at for the last record of each stream.
const END_BYTES: u64 = 64 << 10;

/// Which process writes a log, as an attribute of its current file.
///
/// What the text means is the caller's business; it is at most 64 bytes long. Where the file system has no attributes, nobody
/// remembers it.
#[derive(Debug, Clone, Copy)]
pub struct LogWriterMark;

impl LogWriterMark {
    /// The mark of the log whose current file is at `path`; `None` when it has none.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn read(path: &Path) -> io::Result<Option<String>> {
        Ok(attributes::writer(File::open(path)?))
    }

    /// Marks the log. Files that follow by rotation inherit it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn write(path: &Path, writer: &str) -> io::Result<()> {
        attributes::mark_writer(File::open(path)?, writer);
        Ok(())
    }
}

/// Says at the end of the log at `path` that its writer ended at `at`: a marker ([`GapReason::RuntimeEnded`]) in each stream
/// that is found there, from its last record on. How much is missing nobody knows; it may be nothing.
///
/// Returns `false`, and says nothing, if nothing was written for `silence`: whoever writes each line at once had none then.
///
/// # Errors
/// When the file cannot be read or written to.
pub fn declare_interruption(path: &Path, at: Timestamp, silence: Option<Duration>) -> io::Result<bool> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let metadata = file.metadata()?;
    let idle = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    if silence.is_some_and(|silence| idle > silence) {
        return Ok(false);
    }
    let begin = metadata.len().saturating_sub(END_BYTES);
    let mut end = vec![0; usize::try_from(metadata.len() - begin).unwrap_or(0)];
    file.read_exact_at(&mut end, begin)?;
    // One call: another writer that appends at the same time does so before or after it.
    file.write_all(&markers(&end, at))?;
    Ok(true)
}

/// The markers behind the end of a file.
fn markers(end: &[u8], at: Timestamp) -> Vec<u8> {
    let mut out = Vec::new();
    if end.last().is_some_and(|last| *last != b'\n') {
        // A record that was cut off.
        out.push(b'\n');
    }
    let mut last = last_records(end);
    if last == [None, None] {
        last[Stream::Stdout.index()] = Some(None);
    }
    for (stream, from) in Stream::ALL.into_iter().zip(last) {
        let Some(from) = from else { continue };
        let gap = Gap { stream: Some(stream), from, to: Some(at), ..Gap::new(GapReason::RuntimeEnded) };
        out.extend_from_slice(format!("{at} {stream} F:{GAP_TAG} ").as_bytes());
        gap.append_content(&mut out);
        out.push(b'\n');
    }
    out
}

/// Of each stream that has records here: the time of the last one.
fn last_records(end: &[u8]) -> [Option<Option<Timestamp>>; 2] {
    let (mut parser, mut last) = (RecordParser::default(), [None; 2]);
    for line in end.split(|byte| *byte == b'\n') {
        if let Some(record) = parser.parse_cri(line) {
            last[record.stream.index()] = Some(Some(record.time.timestamp()));
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(content: &str, expected: &str) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        fs::write(&path, content).expect("a file");
        let at = Timestamp::from_seconds(1_767_225_600, 0);
        assert!(declare_interruption(&path, at, Some(Duration::from_secs(60))).expect("declared"));
        let found = fs::read_to_string(&path).expect("a file");
        assert_eq!(found.strip_prefix(content), Some(expected), "{content:?}");
    }

    #[test]
    fn what_a_writer_had_in_its_hands_is_declared_behind_its_last_record() {
        let (out, err) = ("2025-12-31T23:59:58Z stdout F a\n", "2025-12-31T23:59:59Z stderr P b\n");
        let marker = |stream: &str, from: &str| {
            format!(
                "2026-01-01T00:00:00Z {stream} F:podlog-gap {{\"podlog.gap\":{{\"reason\":\"runtime-ended\",\"stream\":\"{stream}\"{from},\"to\":\"2026-01-01T00:00:00Z\"}}}}\n"
            )
        };
        let (of_out, of_err) = (
            marker("stdout", ",\"from\":\"2025-12-31T23:59:58Z\""),
            marker("stderr", ",\"from\":\"2025-12-31T23:59:59Z\""),
        );
        check("", &marker("stdout", ""));
        check(out, &of_out);
        check(&[err, out].concat(), &[&of_out[..], &of_err].concat());
        check(&format!("{out}2025-12-31T23:59:59Z std"), &format!("\n{of_out}"));
        check(&format!("{}\n{err}", "x".repeat(100_000)), &of_err);
    }

    #[test]
    fn a_log_at_rest_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let file = File::create(&path).expect("a file");
        file.set_modified(SystemTime::now() - Duration::from_secs(10)).expect("a time");
        let at = Timestamp::from_seconds(1_767_225_600, 0);
        assert!(!declare_interruption(&path, at, Some(Duration::from_secs(5))).expect("nothing to say"));
        assert_eq!(fs::metadata(&path).expect("a file").len(), 0);
        assert!(declare_interruption(&path, at, None).expect("declared"));
    }
}
