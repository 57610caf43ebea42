//! Durations as Go writes them: `1h30m`, `500ms`, `-1.5s`.

use std::str::FromStr;
use std::time::Duration;

use super::quote;

/// A duration in Go's notation, which may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration {
    nanoseconds: i64,
}

impl GoDuration {
    /// So many whole seconds.
    pub const fn from_seconds(seconds: i64) -> Self {
        GoDuration { nanoseconds: seconds.saturating_mul(1_000_000_000) }
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nanoseconds == 0
    }

    /// The nearest whole second, halves away from zero (`Duration.Round`).
    pub fn rounded_seconds(self) -> i64 {
        let half = 500_000_000_i64 * self.nanoseconds.signum();
        self.nanoseconds.saturating_add(half) / 1_000_000_000
    }

    /// The same without a sign; `None` for zero and less.
    pub fn positive(self) -> Option<Duration> {
        u64::try_from(self.nanoseconds).ok().filter(|n| *n > 0).map(Duration::from_nanos)
    }
}

impl FromStr for GoDuration {
    type Err = String;

    /// Errors are those of Go's `time.ParseDuration`.
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("time: invalid duration {}", quote(text));
        let (sign, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (-1, &text[1..]),
            Some(b'+') => (1, &text[1..]),
            _ => (1, text),
        };
        if rest == "0" {
            return Ok(GoDuration::default());
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: f64 = 0.0;
        let mut whole: i64 = 0;
        while !rest.is_empty() {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(number_end);
            if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
                return Err(invalid());
            }
            let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_end);
            if unit.is_empty() {
                return Err(format!("time: missing unit in duration {}", quote(text)));
            }
            let scale = unit_nanoseconds(unit)
                .ok_or_else(|| format!("time: unknown unit {} in duration {}", quote(unit), quote(text)))?;
            match number.split_once('.') {
                None => {
                    let number: i64 = number.parse().map_err(|_| invalid())?;
                    let part = number.checked_mul(scale).ok_or_else(invalid)?;
                    whole = whole.checked_add(part).ok_or_else(invalid)?;
                }
                Some((integer, fraction)) => {
                    let integer: i64 =
                        if integer.is_empty() { 0 } else { integer.parse().map_err(|_| invalid())? };
                    let part = integer.checked_mul(scale).ok_or_else(invalid)?;
                    whole = whole.checked_add(part).ok_or_else(invalid)?;
                    let fraction: f64 = format!("0.{fraction}").parse().map_err(|_| invalid())?;
                    total += fraction * to_float(scale);
                }
            }
            rest = after;
        }
        let nanoseconds = whole.checked_add(to_integer(total)).ok_or_else(invalid)?;
        Ok(GoDuration { nanoseconds: sign * nanoseconds })
    }
}

/// At most an hour in nanoseconds: exact.
fn to_float(scale: i64) -> f64 {
    scale as f64
}

/// Less than an hour for each part of a duration.
fn to_integer(nanoseconds: f64) -> i64 {
    nanoseconds as i64
}

fn unit_nanoseconds(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let rows = [
            ("0", Ok(0)),
            ("0s", Ok(0)),
            ("10m", Ok(600)),
            ("1h2m3s", Ok(3723)),
            ("-5s", Ok(-5)),
            ("+5s", Ok(5)),
            ("1.4s", Ok(1)),
            ("1.5s", Ok(2)),
            ("-1.5s", Ok(-2)),
            (".5m", Ok(30)),
            ("499ms", Ok(0)),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("abc", Err("time: invalid duration \"abc\"")),
            ("", Err("time: invalid duration \"\"")),
            ("-", Err("time: invalid duration \"-\"")),
            ("5d", Err("time: unknown unit \"d\" in duration \"5d\"")),
            ("1.2.3s", Err("time: invalid duration \"1.2.3s\"")),
            ("9999999999h", Err("time: invalid duration \"9999999999h\"")),
        ];
        for (text, expected) in rows {
            let said = text.parse::<GoDuration>().map(GoDuration::rounded_seconds);
            assert_eq!(said, expected.map_err(str::to_owned), "{text:?}");
        }
    }
}
