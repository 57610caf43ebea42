//! From the options of a request to the part of a log that the reader delivers.

use jiff::{SignedDuration, Timestamp};
use podlog_api::{Compatibility, LogExtensions, PodLogOptions};
use podlog_line::{CursorError, LineMatch, Mode, PatternError, PatternSyntax, Patterns, Selection, Streams};

/// Why options cannot be honoured. `Display` is the body of a 400.
#[derive(Debug, thiserror::Error)]
pub(super) enum OptionError {
    #[error("invalid pattern: {0}")]
    Pattern(#[from] PatternError),
    #[error("invalid cursor")]
    Cursor(#[from] CursorError),
}

/// The part of the log that the options ask for.
///
/// # Errors
/// When a pattern or a cursor is none.
pub(super) fn selection(
    options: &PodLogOptions,
    compatibility: Compatibility,
    now: Timestamp,
) -> Result<Selection, OptionError> {
    let extensions = &options.extensions;
    let since = ago(now, options.since_seconds).into_iter().chain(options.since_time).max();
    let until = ago(now, extensions.until_seconds).or(extensions.until_time);
    Ok(Selection {
        since: since.map(nanoseconds),
        until: until.map(nanoseconds),
        line_match: line_match(extensions)?,
        tail: options.tail_lines.and_then(|lines| u64::try_from(lines).ok()),
        limit_bytes: options.limit_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        timestamps: options.timestamps,
        cursors: extensions.cursors,
        after: extensions.cursor.as_deref().map(str::parse).transpose()?,
        streams: match options.stream.as_deref() {
            Some("Stdout") => Streams::Stdout,
            Some("Stderr") => Streams::Stderr,
            _ => Streams::Both,
        },
        mode: match compatibility {
            Compatibility::Exact => Mode::Exact,
            Compatibility::Upstream => Mode::Upstream,
        },
        follow: options.follow,
    })
}

fn ago(now: Timestamp, seconds: Option<i64>) -> Option<Timestamp> {
    now.checked_sub(SignedDuration::from_secs(seconds?)).ok()
}

/// A moment as podlog-line knows it.
pub(super) fn nanoseconds(at: Timestamp) -> podlog_line::Timestamp {
    let nanoseconds = at.as_nanosecond().clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    podlog_line::Timestamp::from_nanoseconds(nanoseconds as i64)
}

/// Which lines are wanted by what is in them; `None` is all.
pub(super) fn line_match(extensions: &LogExtensions) -> Result<Option<LineMatch>, PatternError> {
    if !extensions.has_patterns() {
        return Ok(None);
    }
    let syntax = if extensions.fixed_strings { PatternSyntax::Fixed } else { PatternSyntax::Regex };
    let patterns =
        Patterns { include: extensions.include.clone(), exclude: extensions.exclude.clone(), syntax };
    LineMatch::new(patterns).map(Some)
}
