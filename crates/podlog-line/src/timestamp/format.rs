//! Writing times: the date and time of day are kept from call to call, since records mostly share their second.

use super::{Timestamp, civil};

/// `YYYY-MM-DDTHH:MM:SS` is 19 bytes, a full fraction 10, `Z` 1.
const LONGEST: usize = 30;
const SECOND_LENGTH: usize = 19;

/// Formats times as Go's `RFC3339Nano` in UTC: up to nine fraction digits without trailing zeros, no fraction when it is 0.
#[derive(Debug, Clone)]
pub struct TimestampFormatter {
    second: i64,
    text: [u8; LONGEST],
}

impl Default for TimestampFormatter {
    fn default() -> TimestampFormatter {
        // No timestamp has this second: they end at ±2^63 nanoseconds.
        TimestampFormatter { second: i64::MIN, text: [0; LONGEST] }
    }
}

impl TimestampFormatter {
    /// The text of `at`.
    pub fn format(&mut self, at: Timestamp) -> &[u8] {
        let second = at.as_seconds();
        if second != self.second {
            self.write_second(second);
        }
        let length = self.write_fraction(at.subsecond_nanoseconds());
        &self.text[..length]
    }

    pub(super) fn format_str(&mut self, at: Timestamp) -> &str {
        std::str::from_utf8(self.format(at)).expect("only ASCII is written")
    }

    fn write_second(&mut self, second: i64) {
        let (year, month, day) = civil::date_from_days(second.div_euclid(86_400));
        let of_day = second.rem_euclid(86_400);
        self.text[..SECOND_LENGTH].copy_from_slice(b"0000-00-00T00:00:00");
        self.write_digits(0..4, year);
        self.write_digits(5..7, month);
        self.write_digits(8..10, day);
        self.write_digits(11..13, of_day / 3600);
        self.write_digits(14..16, of_day / 60 % 60);
        self.write_digits(17..19, of_day % 60);
        self.second = second;
    }

    fn write_fraction(&mut self, nanoseconds: u32) -> usize {
        let mut end = SECOND_LENGTH;
        if nanoseconds != 0 {
            self.text[SECOND_LENGTH] = b'.';
            self.write_digits(20..29, i64::from(nanoseconds));
            end = 29;
            while self.text[end - 1] == b'0' {
                end -= 1;
            }
        }
        self.text[end] = b'Z';
        end + 1
    }

    fn write_digits(&mut self, range: std::ops::Range<usize>, mut value: i64) {
        for digit in self.text[range].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_go_does() {
        for (nanoseconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (1_795_281_897_973_080_733, "2026-11-21T17:24:57.973080733Z"),
            (1_795_281_897_500_000_000, "2026-11-21T17:24:57.5Z"),
            (1_709_164_800_120_000_000, "2024-02-29T00:00:00.12Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(Timestamp::from_nanoseconds(nanoseconds).to_string(), expected);
        }
    }

    #[test]
    fn one_formatter_serves_many_times() {
        let mut formatter = TimestampFormatter::default();
        for nanoseconds in [0, 1_000_000_000, 1_500_000_000, 1_000_000_000, 86_400_000_000_000, -5] {
            let at = Timestamp::from_nanoseconds(nanoseconds);
            assert_eq!(formatter.format(at), at.to_string().as_bytes());
        }
    }
}
