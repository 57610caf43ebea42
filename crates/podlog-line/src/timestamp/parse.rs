//! Reading times, with the last second remembered: in a log most records share it with the one before.

use super::{Timestamp, civil};

const SECOND_LENGTH: usize = 19;
const FRACTION_DIGITS: usize = 9;

/// Remembers the last `YYYY-MM-DDTHH:MM:SS` and what it means.
#[derive(Debug, Clone, Default)]
pub struct SecondCache {
    text: [u8; SECOND_LENGTH],
    seconds: i64,
}

impl SecondCache {
    #[inline]
    fn lookup(&mut self, text: &[u8; SECOND_LENGTH]) -> Option<i64> {
        if *text != self.text {
            self.seconds = parse_second(text)?;
            self.text = *text;
        }
        Some(self.seconds)
    }
}

/// A time as it stands in a file: what it means, and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339<'a> {
    text: &'a [u8],
    fraction_length: usize,
    timestamp: Timestamp,
    zone: Zone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Utc,
    Offset,
}

/// What Go's zero `time.Time` prints: the time of a json-file record without one.
pub(crate) const ZERO_TIME: Rfc3339<'static> =
    Rfc3339 { text: b"0001-01-01T00:00:00Z", fraction_length: 0, timestamp: Timestamp::MIN, zone: Zone::Utc };

impl<'a> Rfc3339<'a> {
    /// Reads the time at the start of `text`; what follows it is not looked at.
    #[inline]
    pub fn parse_prefix(text: &'a [u8], cache: &mut SecondCache) -> Option<Rfc3339<'a>> {
        let (second, rest) = text.split_first_chunk::<SECOND_LENGTH>()?;
        let (fraction_length, nanoseconds) = parse_fraction(rest)?;
        let seconds = cache.lookup(second)?;
        let (zone_length, zone, offset) = parse_zone(&rest[fraction_length..])?;
        let timestamp = Timestamp::from_seconds(seconds - offset, nanoseconds as u32);
        Some(Rfc3339 {
            text: &text[..SECOND_LENGTH + fraction_length + zone_length],
            fraction_length,
            timestamp,
            zone,
        })
    }

    /// The moment.
    #[inline]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The text as it stands in the file.
    #[inline]
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Appends the time with exactly nine fraction digits and the zone it was stored with (an offset of zero is `Z`).
    pub fn append_nine_digits(&self, out: &mut Vec<u8>) {
        let (second, rest) = self.text.split_at(SECOND_LENGTH);
        let (fraction, zone) = rest.split_at(self.fraction_length);
        let digits = &fraction[fraction.len().min(1)..fraction.len().min(1 + FRACTION_DIGITS)];
        out.extend_from_slice(second);
        out.push(b'.');
        out.extend_from_slice(digits);
        out.extend_from_slice(&b"000000000"[digits.len()..]);
        out.extend_from_slice(if self.zone == Zone::Utc { b"Z" } else { zone });
    }

    /// The zone as it stands in the file, and as it is shown.
    pub(crate) fn zone(&self) -> (&'a [u8], &'a [u8]) {
        let zone = &self.text[SECOND_LENGTH + self.fraction_length..];
        (zone, if self.zone == Zone::Utc { b"Z" } else { zone })
    }
}

fn parse_second(text: &[u8; SECOND_LENGTH]) -> Option<i64> {
    let punctuation = [text[4], text[7], text[10], text[13], text[16]];
    if punctuation != *b"--T::" {
        return None;
    }
    let year = digits(&text[0..4])?;
    let (month, day) = (digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    let exists = (1..=12).contains(&month)
        && (1..=civil::days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    exists.then(|| civil::days_from_date(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Length including the point, and nanoseconds. A point needs a digit after it; a comma is as good, as in Go.
#[inline]
fn parse_fraction(text: &[u8]) -> Option<(usize, i64)> {
    if !matches!(text.first()?, b'.' | b',') {
        return Some((0, 0));
    }
    let mut nanoseconds = 0;
    let mut length = 1;
    while let Some(digit) = text.get(length).filter(|byte| byte.is_ascii_digit()) {
        if length <= FRACTION_DIGITS {
            nanoseconds = nanoseconds * 10 + i64::from(digit - b'0');
        }
        length += 1;
    }
    let missing = FRACTION_DIGITS.saturating_sub(length - 1);
    (length > 1).then(|| (length, nanoseconds * POWERS_OF_TEN[missing]))
}

const POWERS_OF_TEN: [i64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Length, kind and offset in seconds.
#[inline]
fn parse_zone(text: &[u8]) -> Option<(usize, Zone, i64)> {
    match *text {
        [b'Z', ..] => Some((1, Zone::Utc, 0)),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2, ..] => {
            let (hours, minutes) = (digits(&[h1, h2])?, digits(&[m1, m2])?);
            if hours > 24 || minutes > 60 {
                return None;
            }
            let offset = hours * 3600 + minutes * 60;
            let zone = if offset == 0 { Zone::Utc } else { Zone::Offset };
            Some((6, zone, if sign == b'-' { -offset } else { offset }))
        }
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_form() {
        for (text, nanoseconds, nine) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00.000000000Z"),
            ("1970-01-01T00:00:00.5Z", 500_000_000, "1970-01-01T00:00:00.500000000Z"),
            ("1970-01-01T00:00:00,5Z", 500_000_000, "1970-01-01T00:00:00.500000000Z"),
            ("1970-01-01T00:00:00.000000001Z", 1, "1970-01-01T00:00:00.000000001Z"),
            ("1970-01-01T00:00:00.0000000019Z", 1, "1970-01-01T00:00:00.000000001Z"),
            ("1970-01-01T02:00:00.5+02:00", 500_000_000, "1970-01-01T02:00:00.500000000+02:00"),
            ("1969-12-31T22:30:00-01:30", 0, "1969-12-31T22:30:00.000000000-01:30"),
            ("1970-01-01T00:00:01.120000000+00:00", 1_120_000_000, "1970-01-01T00:00:01.120000000Z"),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000, "2024-02-29T00:00:00.000000000Z"),
            ("0001-01-01T00:00:00Z", i64::MIN, "0001-01-01T00:00:00.000000000Z"),
            ("9999-12-31T23:59:59Z", i64::MAX, "9999-12-31T23:59:59.000000000Z"),
        ] {
            let time = Rfc3339::parse_prefix(text.as_bytes(), &mut SecondCache::default()).expect(text);
            assert_eq!(time.timestamp().as_nanoseconds(), nanoseconds, "{text}");
            assert_eq!(time.text(), text.as_bytes());
            let mut out = Vec::new();
            time.append_nine_digits(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), nine);
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "2026",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01t00:00:00z",
            "2026-01-01T00:00:00+0200",
            "2026-01-01T00:00:00+25:00",
            "2026-01-01T00:00:00Zx",
            "2026-01-01T00:00:0:Z",
        ] {
            assert!(Timestamp::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_ends_of_time_are_read_back() {
        for at in [Timestamp::MIN, Timestamp::from_nanoseconds(i64::MIN + 1), Timestamp::MAX] {
            assert_eq!(Timestamp::parse(at.to_string().as_bytes()), Ok(at));
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_is_read_back(nanoseconds: i64) {
            let at = Timestamp::from_nanoseconds(nanoseconds);
            prop_assert_eq!(Timestamp::parse(at.to_string().as_bytes()), Ok(at));
        }

        #[test]
        fn no_bytes_panic(text: Vec<u8>) {
            let _ = Timestamp::parse(&text);
        }
    }
}
