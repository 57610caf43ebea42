//! Headers of CRI records that look like the one before: same second, same zone, one tag.
//!
//! Most records do. Whether one does is seen by a few comparisons of fixed length; every other record goes to the parser,
//! so that both agree on what a record is. Writers that take the time once for all that they read write many headers that are
//! the same to the last byte: three comparisons tell.

use crate::{Rfc3339, Stream};

/// `YYYY-MM-DDTHH:MM:SS`
const SECOND: usize = 19;
/// The same with a point, which a fraction follows.
const POINT: usize = SECOND + 1;
const DIGITS: usize = 9;
/// A zone, the stream, and the tag: `+hh:mm stdout F ` is the longest.
const TAIL: usize = 6 + AFTER_ZONE;
/// ` stdout F `
const AFTER_ZONE: usize = 10;
const LONGEST: usize = POINT + DIGITS + TAIL;
/// `YYYY-MM-DDTHH:MM:SS.nnnnnnnnn`, before the zone.
const TIME: usize = POINT + DIGITS;

/// What headers are compared with.
#[derive(Debug, Clone)]
pub(super) struct Template {
    second: [u8; SECOND],
    /// Whether there is a fraction; writers leave it out where it is zero.
    fraction: Fraction,
    /// What stands behind it, and the bits of it that count, for each stream.
    tails: [u128; 2],
    mask: u128,
    tail_length: usize,
    /// The zone as it is shown, and a space.
    zone: [u8; 7],
    zone_length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fraction {
    None,
    Digits,
}

/// What stands before the content of a record that has the second and the zone of the template and ends its line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) stream: Stream,
    pub(super) length: usize,
    digits: usize,
}

impl Template {
    /// What the headers of records have in common that share the second and the zone of `time`, and have a fraction if it has one;
    /// `None` when something is written in no usual way.
    pub(super) fn of(time: &Rfc3339<'_>) -> Option<Template> {
        let (second, rest) = time.text().split_first_chunk::<SECOND>()?;
        let (zone, shown) = time.zone();
        let fraction = match rest.first()? {
            b'.' => Fraction::Digits,
            _ if rest == zone => Fraction::None,
            _ => return None,
        };
        let zone_length = shown.len() + 1;
        let mut template = Template {
            second: *second,
            fraction,
            tails: [tail(zone, b" stdout F "), tail(zone, b" stderr F ")],
            mask: u128::MAX >> (8 * (6 - zone.len().min(6))),
            tail_length: zone.len() + AFTER_ZONE,
            zone: [b' '; 7],
            zone_length,
        };
        template.zone.get_mut(..shown.len())?.copy_from_slice(shown);
        matches!(zone.len(), 1 | 6).then_some(template)
    }

    /// Whether `time` has this second and zone, and a fraction or none as well.
    pub(super) fn is_of(&self, time: &Rfc3339<'_>) -> bool {
        let zone = &self.tails[0].to_le_bytes()[..self.tail_length - AFTER_ZONE];
        let has_fraction = time.text().get(SECOND) == Some(&b'.');
        time.text().starts_with(&self.second)
            && time.zone().0 == zone
            && has_fraction == (self.fraction == Fraction::Digits)
    }

    /// The header at the beginning of `input`, which goes on behind it; `None` when it looks different.
    #[inline]
    pub(super) fn read(&self, input: &[u8]) -> Option<Header> {
        let head = input.first_chunk::<LONGEST>()?;
        let (second, rest) = head.split_first_chunk::<SECOND>()?;
        if *second != self.second {
            return None;
        }
        let (digits, behind) = match self.fraction {
            Fraction::None => (0, SECOND),
            Fraction::Digits => {
                let (point, rest) = rest.split_first()?;
                let digits = count_digits(rest.first_chunk()?);
                if *point != b'.' || digits == 0 {
                    return None;
                }
                (digits, POINT + digits)
            }
        };
        let tail = u128::from_le_bytes(*head[behind..].first_chunk::<TAIL>()?) & self.mask;
        let stream = if tail == self.tails[0] {
            Stream::Stdout
        } else if tail == self.tails[1] {
            Stream::Stderr
        } else {
            return None;
        };
        Some(Header { stream, length: behind + self.tail_length, digits })
    }

    /// Appends the time of the record at the beginning of `input` with nine digits, and a space.
    #[inline]
    pub(super) fn append_time(&self, header: Header, input: &[u8], out: &mut Vec<u8>) {
        let is_shown_as_it_stands = header.digits == DIGITS && self.tail_length == 1 + AFTER_ZONE;
        if is_shown_as_it_stands && let Some(time) = input.first_chunk::<{ TIME + 2 }>() {
            // What follows the `Z` in the record is a space, too.
            out.extend_from_slice(time);
            return;
        }
        out.extend_from_slice(&input[..SECOND]);
        match self.fraction {
            Fraction::None => out.push(b'.'),
            Fraction::Digits => out.extend_from_slice(&input[SECOND..POINT + header.digits]),
        }
        out.extend_from_slice(&b"000000000"[header.digits..]);
        out.extend_from_slice(&self.zone[..self.zone_length]);
    }
}

/// Headers of records one after another.
#[derive(Debug)]
pub(super) struct Headers<'a> {
    template: &'a Template,
    last: Option<Last>,
    /// How many in a row were not the same as the one before.
    misses: u8,
}

/// After so many, each is read by itself.
const MAX_MISSES: u8 = 2;

/// A header: its first bytes, and its last ones, which overlap with these.
#[derive(Debug, Clone, Copy)]
struct Last {
    begin: [u128; 2],
    end: u128,
    header: Header,
}

impl<'a> Headers<'a> {
    pub(super) fn new(template: &'a Template) -> Headers<'a> {
        Headers { template, last: None, misses: 0 }
    }

    /// As [`Template::read`].
    #[inline]
    pub(super) fn read(&mut self, input: &[u8]) -> Option<Header> {
        if let Some(last) = &self.last
            && last.is_at(input)
        {
            self.misses = 0;
            return Some(last.header);
        }
        let header = self.template.read(input)?;
        if self.misses <= MAX_MISSES {
            self.last = Last::of(header, input).filter(|_| self.misses < MAX_MISSES);
            self.misses += 1;
        }
        Some(header)
    }
}

impl Last {
    fn of(header: Header, input: &[u8]) -> Option<Last> {
        let begin = [word(input, 0)?, word(input, 16)?];
        // A header of less than 32 bytes takes something of the content with it, and is hardly ever the same.
        Some(Last { begin, end: word(input, header.length.checked_sub(16)?)?, header })
    }

    #[inline]
    fn is_at(&self, input: &[u8]) -> bool {
        let Some(head) = input.first_chunk::<LONGEST>() else { return false };
        word(head, 0) == Some(self.begin[0])
            && word(head, 16) == Some(self.begin[1])
            && word(head, self.header.length - 16) == Some(self.end)
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..)?.first_chunk().map(|chunk| u128::from_le_bytes(*chunk))
}

fn tail(zone: &[u8], rest: &[u8; AFTER_ZONE]) -> u128 {
    let mut tail = [0; TAIL];
    for (to, from) in tail.iter_mut().zip(zone.iter().chain(rest)) {
        *to = *from;
    }
    u128::from_le_bytes(tail)
}

/// How many of the bytes are digits before the first that is none.
#[inline]
fn count_digits(text: &[u8; DIGITS]) -> usize {
    const EVERY: u64 = 0x0101_0101_0101_0101;
    let Some(eight) = text.first_chunk::<8>() else { return 0 };
    // A digit becomes 0 to 9; adding 0x76 sets the high bit of what is more than that.
    let values = u64::from_le_bytes(*eight) ^ (0x30 * EVERY);
    let others = (((values & (0x7f * EVERY)) + 0x76 * EVERY) | values) & (0x80 * EVERY);
    match others.trailing_zeros() as usize / 8 {
        8 if text[8].is_ascii_digit() => 9,
        count => count,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{LineEnd, SecondCache, cri};

    fn template(time: &str) -> Option<Template> {
        Template::of(&Rfc3339::parse_prefix(time.as_bytes(), &mut SecondCache::default())?)
    }

    #[test]
    fn digits_are_counted() {
        for (text, expected) in [
            (b"123456789", 9),
            (b"12345678Z", 8),
            (b"1234567Z1", 7),
            (b"Z23456789", 0),
            (b"0/9:\xb0\xff123", 1),
        ] {
            assert_eq!(count_digits(text), expected);
        }
        for byte in 0..=255 {
            let text = [b'1', b'2', b'3', byte, b'5', b'6', b'7', b'8', b'9'];
            assert_eq!(count_digits(&text), if byte.is_ascii_digit() { 9 } else { 3 });
        }
    }

    #[test]
    fn only_usual_times_make_templates() {
        for (time, expected) in [
            ("2026-01-01T00:00:01.5Z", true),
            ("2026-01-01T00:00:01.123456789+02:00", true),
            ("2026-01-01T00:00:01.123456789+00:00", true),
            ("2026-01-01T00:00:01Z", true),
            ("2026-01-01T00:00:01+02:00", true),
            ("2026-01-01T00:00:01,5Z", false),
        ] {
            assert_eq!(template(time).is_some(), expected, "{time}");
        }
    }

    /// Whatever a template reads, the parser reads the same.
    fn agrees(learned: &str, record: &[u8]) -> bool {
        let Some(template) = template(learned) else { return true };
        let input = [record, &[b' '; LONGEST]].concat();
        let Some(header) = template.read(&input) else { return true };
        let mut headers = Headers::new(&template);
        let again = [headers.read(&input), headers.read(&input)];
        if again.iter().any(|again| again.is_none_or(|again| again.length != header.length)) {
            return false;
        }
        let Some(parsed) = cri::parse(&input, &mut SecondCache::default()) else { return false };
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        template.append_time(header, &input, &mut fast);
        parsed.time.append_nine_digits(&mut slow);
        slow.push(b' ');
        fast == slow
            && parsed.stream == header.stream
            && parsed.end == LineEnd::Full
            && !parsed.is_gap
            && parsed.content.len() == input.len() - header.length
            && template.is_of(&parsed.time)
    }

    proptest! {
        #[test]
        fn templates_and_the_parser_agree(
            learned in "2026-01-01T00:00:0[12](\\.[0-9]{1,10}|)(Z|[+-]0[0-2]:[03]0)",
            record in "2026-01-01T00:00:0[12]([.,]([0-9]{9}|[0-9]{0,10})|)(Z|[+-]0[0-2]:[03]0)? (stdout|stderr|stdin) [FPX:]{1,2} [a-z]{0,5}",
            change in prop::option::of((0..40usize, any::<u8>())),
        ) {
            let mut record = record.into_bytes();
            if let Some((at, byte)) = change {
                let at = at % record.len();
                record[at] = byte;
            }
            prop_assert!(agrees(&learned, &record), "{learned} {}", record.escape_ascii());
        }

        #[test]
        fn headers_are_read_as_by_themselves(
            learned in "2026-01-01T00:00:01(\\.5|)Z",
            times in prop::collection::vec("2026-01-01T00:00:01([.]([0-9]|[0-9]{9}|12[0-9])|)(Z|[+]00:30)", 1..10),
            rests in prop::collection::vec("(stdout|stderr) (F|F|F|P) [a-z]{0,5}", 10),
        ) {
            let template = template(&learned).expect("a template");
            let mut headers = Headers::new(&template);
            for record in times.iter().zip(rests).map(|(time, rest)| format!("{time} {rest}{}", " ".repeat(LONGEST))) {
                let key = |header: Header| (header.stream, header.length, header.digits);
                let expected = template.read(record.as_bytes()).map(key);
                // Twice, so that the second time it is the same as the one before.
                prop_assert_eq!(headers.read(record.as_bytes()).map(key), expected);
                prop_assert_eq!(headers.read(record.as_bytes()).map(key), expected);
            }
        }

        #[test]
        fn a_record_of_the_same_second_is_read(fraction in "(\\.[0-9]{1,9}|)", zone in "Z|[+-]0[0-9]:30", stderr: bool) {
            let stream = Stream::ALL[usize::from(stderr)];
            let time = format!("2026-01-01T00:00:01{fraction}{zone}");
            let input = format!("{time} {stream} F content that goes on");
            let like = if fraction.is_empty() { "" } else { ".5" };
            let header = template(&format!("2026-01-01T00:00:01{like}{zone}")).and_then(|t| t.read(input.as_bytes()));
            prop_assert_eq!(header.map(|header| (header.stream, header.length)), Some((stream, time.len() + 10)));
        }
    }
}
