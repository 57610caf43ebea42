//! Logs to read, made by the engine itself.

use std::path::Path;

use podlog_driver::{CriFileSink, FileLimits};
use podlog_line::{Stream, Timestamp};

/// Bytes of a line, its line feed included.
pub(crate) const LINE: usize = 100;
/// One line in so many holds [`RARE`].
const RARITY: usize = 10_000;
/// What is searched for.
pub(crate) const RARE: &str = "status=503";
/// The same as a regular expression.
pub(crate) const RARE_EXPRESSION: &str = "status=5[0-9][0-9]";
/// Lines of one chunk.
const CHUNK: usize = 10 * RARITY;

/// The same as one without a literal, which is found in the time of every record.
pub(crate) const RARE_BUT_FOR_TIMES: &str = r"\d{4}-\d{2}|=[45]\d\d\b";

/// When the first line of a log was logged.
pub(crate) const BEGIN: Timestamp = Timestamp::from_seconds(1_767_225_600, 0);
/// Time between two chunks.
const STEP: std::time::Duration = std::time::Duration::from_millis(125);

/// A log of 100-byte lines whose files hold so many bytes in all, headers included.
pub(crate) struct MadeLog {
    /// When the last line was logged.
    pub(crate) end: Timestamp,
    /// How many lines.
    pub(crate) lines: u64,
}

/// Writes a log of at least `bytes` bytes.
pub(crate) fn make(path: &Path, bytes: u64, limits: FileLimits) -> anyhow::Result<MadeLog> {
    let mut sink = CriFileSink::open(path, limits)?;
    let chunk = chunk();
    let mut made = MadeLog { end: BEGIN, lines: 0 };
    while sink.stats().bytes_written < bytes {
        made.end = made.end.saturating_add(STEP);
        sink.write(Stream::Stdout, &chunk, made.end)?;
        made.lines += CHUNK as u64;
    }
    Ok(made)
}

/// Lines as a web server writes them.
fn chunk() -> Vec<u8> {
    let mut chunk = Vec::with_capacity(CHUNK * LINE);
    for number in 0..CHUNK {
        let status = if number % RARITY == RARITY / 2 { RARE } else { "status=200" };
        let line = format!(
            "GET /api/v1/namespaces/default/pods/web-{number:06} {status} bytes=1843 agent=kube-probe/1.36"
        );
        let width = LINE - 1;
        chunk.extend_from_slice(format!("{line:<width$.width$}\n").as_bytes());
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_long_as_they_say() {
        let chunk = chunk();
        assert!(chunk.chunks(LINE).all(|line| line.ends_with(b"\n") && !line[..LINE - 1].contains(&b'\n')));
        let rare = chunk
            .chunks(LINE)
            .filter(|line| line.windows(RARE.len()).any(|window| window == RARE.as_bytes()));
        assert_eq!(rare.count(), CHUNK / RARITY);
    }
}
