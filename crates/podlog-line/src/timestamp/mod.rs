//! The times of records: RFC 3339 with up to nine fraction digits.

mod civil;
mod format;
mod parse;

use std::{fmt, time::Duration};

pub use format::TimestampFormatter;
pub(crate) use parse::ZERO_TIME;
pub use parse::{Rfc3339, SecondCache};

const NANOSECONDS: i64 = 1_000_000_000;

/// A moment: nanoseconds since 1970-01-01T00:00:00Z. Times before 1677 or after 2262 are held at the ends of that range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The text is not a time as RFC 3339 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time")]
pub struct TimestampError;

impl Timestamp {
    /// The earliest time.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The latest time.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// From nanoseconds since the epoch.
    pub const fn from_nanoseconds(nanoseconds: i64) -> Timestamp {
        Timestamp(nanoseconds)
    }

    /// From seconds since the epoch and nanoseconds of that second.
    pub const fn from_seconds(seconds: i64, nanoseconds: u32) -> Timestamp {
        let nanoseconds = nanoseconds as i64;
        if seconds < 0 {
            // Up to the next second and back: the first second of all begins before what can be said.
            let next = seconds.saturating_add(1).saturating_mul(NANOSECONDS);
            return Timestamp(next.saturating_add(nanoseconds - NANOSECONDS));
        }
        Timestamp(seconds.saturating_mul(NANOSECONDS).saturating_add(nanoseconds))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanoseconds(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(NANOSECONDS)
    }

    /// Nanoseconds of the second, 0 to 999,999,999.
    pub const fn subsecond_nanoseconds(self) -> u32 {
        self.0.rem_euclid(NANOSECONDS) as u32
    }

    /// Reads any RFC 3339 time: no fraction or one of any length (digits after the ninth are ignored), `Z` or an offset.
    pub fn parse(text: &[u8]) -> Result<Timestamp, TimestampError> {
        let time = Rfc3339::parse_prefix(text, &mut SecondCache::default()).ok_or(TimestampError)?;
        if time.text().len() == text.len() { Ok(time.timestamp()) } else { Err(TimestampError) }
    }

    /// This time minus `duration`.
    pub fn saturating_sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// This time plus `duration`.
    pub fn saturating_add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// As Go's `RFC3339Nano` in UTC: trailing zeros of the fraction are left out.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut formatter = TimestampFormatter::default();
        f.write_str(formatter.format_str(*self))
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Timestamp, TimestampError> {
        Timestamp::parse(text.as_bytes())
    }
}
