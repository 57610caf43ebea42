//! RFC 3339 as Go's `time.Parse(time.RFC3339, …)` reads it, with its error texts (Go `src/time/format.go`).

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";

/// Why a time could not be read; `Display` is Go's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseTimeError(String);

/// Reads an RFC 3339 time. As lenient as Go: a one-digit hour, a comma before the fraction, any number of digits in it.
///
/// # Errors
/// With Go's text, e.g. `parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"`.
pub fn parse_rfc3339(text: &str) -> Result<Timestamp, ParseTimeError> {
    let mut rest = Rest { whole: text, bytes: text.as_bytes() };
    let year = rest.year()?;
    rest.literal(b'-')?;
    let month = rest.number("01", Digits::Two)?;
    rest.in_range(month, 1..=12, "month")?;
    rest.literal(b'-')?;
    let day = rest.number("02", Digits::Two)?;
    rest.literal(b'T')?;
    let hour = rest.number("15", Digits::OneOrTwo)?;
    rest.in_range(hour, 0..=23, "hour")?;
    rest.literal(b':')?;
    let minute = rest.number("04", Digits::Two)?;
    rest.in_range(minute, 0..=59, "minute")?;
    rest.literal(b':')?;
    let second = rest.number("05", Digits::Two)?;
    rest.in_range(second, 0..=59, "second")?;
    let nanosecond = rest.fraction();
    let offset_seconds = rest.offset()?;
    rest.end()?;
    let date = Date::new(year, month, day).map_err(|_| rest.out_of_range("day"))?;
    let local = date.at(hour, minute, second, nanosecond);
    let as_utc = Offset::UTC.to_timestamp(local).unwrap_or(Timestamp::MAX);
    let shift = jiff::SignedDuration::from_secs(-offset_seconds);
    Ok(as_utc.checked_add(shift).unwrap_or(if year > 0 { Timestamp::MAX } else { Timestamp::MIN }))
}

#[derive(Clone, Copy, PartialEq)]
enum Digits {
    Two,
    OneOrTwo,
}

struct Rest<'a> {
    whole: &'a str,
    bytes: &'a [u8],
}

impl Rest<'_> {
    fn year(&mut self) -> Result<i16, ParseTimeError> {
        let parsed = self.bytes.first_chunk::<4>().filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let Some(digits) = parsed else { return Err(self.cannot_parse("2006", self.bytes)) };
        self.bytes = &self.bytes[4..];
        Ok(digits.iter().fold(0, |year, digit| year * 10 + i16::from(digit - b'0')))
    }

    fn number(&mut self, layout: &str, digits: Digits) -> Result<i8, ParseTimeError> {
        let (value, length) = match self.bytes {
            [a, b, ..] if a.is_ascii_digit() && b.is_ascii_digit() => ((a - b'0') * 10 + (b - b'0'), 2),
            [a, ..] if a.is_ascii_digit() && digits == Digits::OneOrTwo => (a - b'0', 1),
            _ => return Err(self.cannot_parse(layout, self.bytes)),
        };
        self.bytes = &self.bytes[length..];
        Ok(value as i8)
    }

    fn literal(&mut self, expected: u8) -> Result<(), ParseTimeError> {
        match self.bytes {
            [first, rest @ ..] if *first == expected => {
                self.bytes = rest;
                Ok(())
            }
            _ => Err(self.cannot_parse(&char::from(expected).to_string(), self.bytes)),
        }
    }

    fn in_range(
        &self,
        value: i8,
        range: std::ops::RangeInclusive<i8>,
        what: &str,
    ) -> Result<(), ParseTimeError> {
        if range.contains(&value) { Ok(()) } else { Err(self.out_of_range(what)) }
    }

    /// Nanoseconds; Go ignores digits after the ninth.
    fn fraction(&mut self) -> i32 {
        let [b'.' | b',', digits @ ..] = self.bytes else { return 0 };
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return 0;
        }
        self.bytes = &digits[length..];
        let nine = digits[..length].iter().map(|digit| i32::from(digit - b'0')).chain(std::iter::repeat(0));
        nine.take(9).fold(0, |nanoseconds, digit| nanoseconds * 10 + digit)
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Result<i64, ParseTimeError> {
        if let [b'Z', rest @ ..] = self.bytes {
            self.bytes = rest;
            return Ok(0);
        }
        let bad = self.cannot_parse("Z07:00", self.bytes);
        let [sign, h1, h2, b':', m1, m2, rest @ ..] = self.bytes else { return Err(bad) };
        if [h1, h2, m1, m2].iter().any(|digit| !digit.is_ascii_digit()) {
            return Err(bad);
        }
        let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
        let (hours, minutes) = (two(h1, h2), two(m1, m2));
        self.bytes = rest;
        match sign {
            _ if minutes > 60 => Err(self.out_of_range("time zone offset minute")),
            _ if hours > 24 => Err(self.out_of_range("time zone offset hour")),
            b'+' => Ok((hours * 60 + minutes) * 60),
            b'-' => Ok(-(hours * 60 + minutes) * 60),
            _ => Err(bad),
        }
    }

    fn end(&self) -> Result<(), ParseTimeError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(self.because(&format!(": extra text: {}", quote(self.bytes))))
    }

    fn cannot_parse(&self, layout: &str, at: &[u8]) -> ParseTimeError {
        self.because(&format!(" as \"{LAYOUT}\": cannot parse {} as \"{layout}\"", quote(at)))
    }

    fn out_of_range(&self, what: &str) -> ParseTimeError {
        self.because(&format!(": {what} out of range"))
    }

    fn because(&self, why: &str) -> ParseTimeError {
        ParseTimeError(format!("parsing time {}{why}", quote(self.whole.as_bytes())))
    }
}

/// Quoting of Go's `time` package, which is simpler than `strconv`'s.
fn quote(text: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for &byte in text {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=0x7f => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.5Z"),
            ("2026-01-01T00:00:00,25Z", "2026-01-01T00:00:00.25Z"),
            ("2026-01-01T00:00:00.1234567899Z", "2026-01-01T00:00:00.123456789Z"),
            ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
            ("2025-12-31T18:30:00-05:30", "2026-01-01T00:00:00Z"),
            ("2026-01-01T3:04:05Z", "2026-01-01T03:04:05Z"),
            ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00+24:60", "2025-12-30T23:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-30T22:00:00.999999999Z"),
        ] {
            assert_eq!(parse_rfc3339(text).map(|time| time.to_string()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_with_gos_words() {
        let layout = "as \"2006-01-02T15:04:05Z07:00\"";
        for (text, expected) in [
            ("abc", format!(r#"parsing time "abc" {layout}: cannot parse "abc" as "2006""#)),
            ("20-1", format!(r#"parsing time "20-1" {layout}: cannot parse "20-1" as "2006""#)),
            ("2026", format!(r#"parsing time "2026" {layout}: cannot parse "" as "-""#)),
            ("2026-1-1", format!(r#"parsing time "2026-1-1" {layout}: cannot parse "1-1" as "01""#)),
            ("2026-13-01T00:00:00Z", r#"parsing time "2026-13-01T00:00:00Z": month out of range"#.into()),
            ("2026-02-30T00:00:00Z", r#"parsing time "2026-02-30T00:00:00Z": day out of range"#.into()),
            ("2026-02-00T00:00:00Z", r#"parsing time "2026-02-00T00:00:00Z": day out of range"#.into()),
            ("2026-01-01 00:00:00Z", {
                format!(r#"parsing time "2026-01-01 00:00:00Z" {layout}: cannot parse " 00:00:00Z" as "T""#)
            }),
            ("2026-01-01T24:00:00Z", r#"parsing time "2026-01-01T24:00:00Z": hour out of range"#.into()),
            ("2026-01-01T00:60:00Z", r#"parsing time "2026-01-01T00:60:00Z": minute out of range"#.into()),
            ("2026-01-01T00:00:60Z", r#"parsing time "2026-01-01T00:00:60Z": second out of range"#.into()),
            (
                "2026-01-01T00:00:00",
                format!(r#"parsing time "2026-01-01T00:00:00" {layout}: cannot parse "" as "Z07:00""#),
            ),
            (
                "2026-01-01T00:00:00.Z",
                format!(r#"parsing time "2026-01-01T00:00:00.Z" {layout}: cannot parse ".Z" as "Z07:00""#),
            ),
            (
                "2026-01-01T00:00:00 02:00",
                format!(
                    r#"parsing time "2026-01-01T00:00:00 02:00" {layout}: cannot parse " 02:00" as "Z07:00""#
                ),
            ),
            (
                "2026-01-01T00:00:00+25:00",
                r#"parsing time "2026-01-01T00:00:00+25:00": time zone offset hour out of range"#.into(),
            ),
            (
                "2026-01-01T00:00:00Zulu",
                r#"parsing time "2026-01-01T00:00:00Zulu": extra text: "ulu""#.into(),
            ),
            (
                "ä\"\\",
                format!(r#"parsing time "\xc3\xa4\"\\" {layout}: cannot parse "\xc3\xa4\"\\" as "2006""#),
            ),
        ] {
            let error = parse_rfc3339(text).expect_err(text).to_string();
            assert_eq!(error, expected);
        }
    }
}
