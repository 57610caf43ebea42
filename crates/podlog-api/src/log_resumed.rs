//! Whether a log begins where the cursor stands that was asked for.

use std::fmt;
use std::str::FromStr;

/// The header of an answer to a request with a cursor: a [`LogResumed`].
pub const LOG_RESUMED_HEADER: &str = "podlog-log-resumed";

/// Where a log begins that was asked for from a cursor on: `exact`, `gone`, or `gone; bytes=<number>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogResumed {
    /// Exactly behind the cursor.
    #[default]
    Exact,
    /// The place has been deleted: at the oldest line that is left.
    Gone {
        /// Bytes of log files between the two; `None` when nobody knows.
        bytes: Option<u64>,
    },
}

/// The text is no [`LogResumed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("does not say where a log begins")]
pub struct LogResumedError;

impl fmt::Display for LogResumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogResumed::Exact => f.write_str("exact"),
            LogResumed::Gone { bytes: None } => f.write_str("gone"),
            LogResumed::Gone { bytes: Some(bytes) } => write!(f, "gone; bytes={bytes}"),
        }
    }
}

impl FromStr for LogResumed {
    type Err = LogResumedError;

    fn from_str(text: &str) -> Result<Self, LogResumedError> {
        match text {
            "exact" => Ok(LogResumed::Exact),
            "gone" => Ok(LogResumed::Gone { bytes: None }),
            _ => {
                let bytes = text.strip_prefix("gone; bytes=").ok_or(LogResumedError)?;
                bytes
                    .parse()
                    .map(|bytes| LogResumed::Gone { bytes: Some(bytes) })
                    .map_err(|_| LogResumedError)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (value, text) in [
            (LogResumed::Exact, "exact"),
            (LogResumed::Gone { bytes: None }, "gone"),
            (LogResumed::Gone { bytes: Some(u64::MAX) }, "gone; bytes=18446744073709551615"),
        ] {
            assert_eq!(value.to_string(), text);
            assert_eq!(text.parse(), Ok(value));
        }
        for text in ["", "Exact", "gone;", "gone; bytes=", "gone; bytes=-1", "gone; bytes=1 "] {
            assert_eq!(text.parse::<LogResumed>(), Err(LogResumedError), "{text}");
        }
    }
}
