//! Places in a log: where a reader stands, as a text that it can come back with.
//!
//! ```text
//! c1.<base>.<fingerprint>.<offset>.<stdout>.<stderr>.<skip>[x|y][w<markers>]
//! ```
//!
//! Numbers are in base 32 (`0`–`9`, `a`–`v`). `base` is `-` when it is not known. Where a stream's line stands is `-` between
//! lines, a number of bytes back to where an unfinished one begins, `x` when it was broken, `z` when it is left out. `x` or `y`
//! behind the last number: the output stands inside a line of stdout or stderr. `w` and a number: markers of gaps that stand at the
//! place and were delivered.

use std::{fmt, str::FromStr};

use crate::Stream;

/// A place behind a line of a log, or behind all that a reader was given. Its text is opaque to everybody else: at most
/// [`Cursor::MAX_LENGTH`] bytes of `[a-z0-9.-]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// In which file.
    pub file: FileMark,
    /// Where in it.
    pub place: Place,
}

/// What a file is known by, wherever it is moved to and however it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FileMark {
    /// Bytes in all earlier files of the log, where the writer has noted them.
    pub base: Option<u64>,
    /// A hash of its first record.
    pub fingerprint: u64,
}

/// A place in a file: all output that comes from the bytes before it was delivered, except as `lines` and `skip` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Place {
    /// Bytes of the file before the place.
    pub offset: u64,
    /// Where the line of each stream stands, by [`Stream::index`].
    pub lines: [LinePlace; 2],
    /// The stream in whose unfinished line the output stands.
    pub open: Option<Stream>,
    /// So many bytes of the output that comes next were delivered already.
    pub skip: u64,
    /// So many markers of gaps were delivered that stand here, where what is behind them has no place yet.
    pub markers: u8,
}

/// Where the line of a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LinePlace {
    /// The next record begins a line.
    #[default]
    Between,
    /// Something that was not delivered as a whole begins so many bytes before the place, maybe in an earlier file.
    Begun {
        /// Bytes of log files.
        back: u64,
    },
    /// An unfinished line was delivered and ended by a line feed that is not in the log.
    Broken,
    /// The line is left out to its end.
    Ignored,
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct CursorError;

const VERSION: &str = "c1";
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
/// A number of 64 bits has at most so many digits.
const MAX_DIGITS: usize = 13;

impl Place {
    /// How far before the place reading has to begin again.
    pub fn back(&self) -> u64 {
        let back = |line: &LinePlace| if let LinePlace::Begun { back } = line { *back } else { 0 };
        self.lines.iter().map(back).max().unwrap_or(0)
    }
}

impl Cursor {
    /// No text is longer.
    pub const MAX_LENGTH: usize = VERSION.len() + 6 * (1 + MAX_DIGITS) + 1 + 3;

    /// Appends the text.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(VERSION.as_bytes());
        append_field(out, self.file.base);
        append_field(out, Some(self.file.fingerprint));
        append_field(out, Some(self.place.offset));
        for line in self.place.lines {
            match line {
                LinePlace::Between => append_field(out, None),
                LinePlace::Begun { back } => append_field(out, Some(back)),
                LinePlace::Broken => out.extend_from_slice(b".x"),
                LinePlace::Ignored => out.extend_from_slice(b".z"),
            }
        }
        append_field(out, Some(self.place.skip));
        match self.place.open {
            Some(Stream::Stdout) => out.push(b'x'),
            Some(Stream::Stderr) => out.push(b'y'),
            None => {}
        }
        if self.place.markers > 0 {
            out.push(b'w');
            append_number(out, u64::from(self.place.markers));
        }
    }
}

/// The texts of the places between lines of a file: only their offsets differ.
#[derive(Debug, Clone)]
pub(crate) struct CursorsBetweenLines {
    text: [u8; Cursor::MAX_LENGTH],
    /// The offset begins here.
    offset_at: usize,
}

/// What is behind the offset, and the space that parts a cursor from its line.
const BETWEEN_LINES: &[u8; 7] = b".-.-.0 ";

impl CursorsBetweenLines {
    /// No text is longer, its space included.
    pub(crate) const MAX_LENGTH: usize = VERSION.len() + 3 * (1 + MAX_DIGITS) + BETWEEN_LINES.len();

    pub(crate) fn new(file: FileMark) -> Self {
        let mut head = VERSION.as_bytes().to_vec();
        append_field(&mut head, file.base);
        append_field(&mut head, Some(file.fingerprint));
        head.push(b'.');
        let mut text = [0; Cursor::MAX_LENGTH];
        text[..head.len()].copy_from_slice(&head);
        CursorsBetweenLines { text, offset_at: head.len() }
    }

    /// Appends the cursor of the place at `offset`, and a space.
    #[inline]
    pub(crate) fn append(&mut self, offset: u64, out: &mut Vec<u8>) {
        let count = digits_of(offset);
        let (digits, rest) = self.text[self.offset_at..].split_at_mut(count);
        let mut left = offset;
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[left as usize % DIGITS.len()];
            left /= DIGITS.len() as u64;
        }
        rest[..BETWEEN_LINES.len()].copy_from_slice(BETWEEN_LINES);
        out.extend_from_slice(&self.text[..self.offset_at + count + BETWEEN_LINES.len()]);
    }
}

#[inline]
fn digits_of(number: u64) -> usize {
    let bits = u64::BITS - number.leading_zeros();
    bits.div_ceil(5).max(1) as usize
}

fn append_field(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(b'.');
    match number {
        Some(number) => append_number(out, number),
        None => out.push(b'-'),
    }
}

fn append_number(out: &mut Vec<u8>, number: u64) {
    for position in (0..digits_of(number)).rev() {
        out.push(DIGITS[(number >> (5 * position)) as usize % DIGITS.len()]);
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(Cursor::MAX_LENGTH);
        self.append_to(&mut text);
        f.write_str(std::str::from_utf8(&text).expect("only ASCII is written"))
    }
}

/// Exactly the texts that are written are read: two cursors are the same place only if their texts are the same.
impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        parse(text).ok_or(CursorError)
    }
}

fn parse(text: &str) -> Option<Cursor> {
    let mut fields = text.strip_prefix(VERSION)?.strip_prefix('.')?.split('.');
    let base = optional_number(fields.next()?)?;
    let file = FileMark { base, fingerprint: number(fields.next()?)? };
    let offset = number(fields.next()?)?;
    let lines = [line_place(fields.next()?)?, line_place(fields.next()?)?];
    let last = fields.next()?;
    let (last, markers) = match last.split_once('w') {
        Some((last, markers)) => (last, u8::try_from(number(markers)?).ok().filter(|markers| *markers > 0)?),
        None => (last, 0),
    };
    let (skip, open) = match (last.strip_suffix('x'), last.strip_suffix('y')) {
        (Some(skip), _) => (skip, Some(Stream::Stdout)),
        (_, Some(skip)) => (skip, Some(Stream::Stderr)),
        _ => (last, None),
    };
    let place = Place { offset, lines, open, skip: number(skip)?, markers };
    fields.next().is_none().then_some(Cursor { file, place })
}

fn line_place(field: &str) -> Option<LinePlace> {
    Some(match field {
        "x" => LinePlace::Broken,
        "z" => LinePlace::Ignored,
        field => optional_number(field)?.map_or(LinePlace::Between, |back| LinePlace::Begun { back }),
    })
}

fn optional_number(field: &str) -> Option<Option<u64>> {
    if field == "-" { Some(None) } else { number(field).map(Some) }
}

/// Neither signs nor capitals nor leading zeros.
fn number(field: &str) -> Option<u64> {
    let is_written_so = !field.is_empty()
        && (field == "0" || !field.starts_with('0'))
        && field.bytes().all(|byte| DIGITS.contains(&byte));
    if is_written_so { u64::from_str_radix(field, DIGITS.len() as u32).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arbitrary_line_place() -> impl Strategy<Value = LinePlace> {
        prop_oneof![
            Just(LinePlace::Between),
            any::<u64>().prop_map(|back| LinePlace::Begun { back }),
            Just(LinePlace::Broken),
            Just(LinePlace::Ignored),
        ]
    }

    fn arbitrary_cursor() -> impl Strategy<Value = Cursor> {
        let lines = [arbitrary_line_place(), arbitrary_line_place()];
        let open = prop::option::of(any::<bool>().prop_map(|stderr| Stream::ALL[usize::from(stderr)]));
        let file = (any::<Option<u64>>(), any::<u64>());
        let output = (any::<u64>(), prop_oneof![Just(0), any::<u8>()]);
        (file, any::<u64>(), lines, open, output).prop_map(
            |((base, fingerprint), offset, lines, open, (skip, markers))| Cursor {
                file: FileMark { base, fingerprint },
                place: Place { offset, lines, open, skip, markers },
            },
        )
    }

    #[test]
    fn a_cursor_is_a_short_text() {
        let file = FileMark { base: Some(10_485_760), fingerprint: u64::MAX };
        let lines = [LinePlace::Begun { back: 31 }, LinePlace::Broken];
        let place = Place { offset: 32, lines, open: Some(Stream::Stdout), skip: 7, markers: 0 };
        assert_eq!(Cursor { file, place }.to_string(), "c1.a0000.fvvvvvvvvvvvv.10.v.x.7x");
        let place = Place { markers: 33, ..place };
        assert_eq!(Cursor { file, place }.to_string(), "c1.a0000.fvvvvvvvvvvvv.10.v.x.7xw11");
        let beginning = Cursor { file: FileMark::default(), place: Place::default() };
        assert_eq!(beginning.to_string(), "c1.-.0.0.-.-.0");
    }

    #[test]
    fn garbage_is_refused() {
        for text in [
            "",
            "c1",
            "c2.-.0.0.-.-.0",
            "c1.-.0.0.-.-",
            "c1.-.0.0.-.-.",
            "c1.-.0.0.-.-.0.",
            "c1.-.0.0.-.-.0.0",
            "c1.-.0.0.-.-.x",
            "c1.-.0.0.-.-.0z",
            "c1.-.0.0.-.-.0xy",
            "c1.-.0.0.-.-.0w",
            "c1.-.0.0.-.-.0w0",
            "c1.-.0.0.-.-.0w80",
            "c1.-.0.0.-.-.0wx",
            "c1.-.0.0.-.-.0w1x",
            "c1.-.00.0.-.-.0",
            "c1.-.-.0.-.-.0",
            "c1.x.0.0.-.-.0",
            "c1.-.0.+1.-.-.0",
            "c1.-.0.A.-.-.0",
            "c1.-.0.0.-.y.0",
            "c1.-.g000000000000.0.-.-.0",
            " c1.-.0.0.-.-.0",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cursor in arbitrary_cursor()) {
            let text = cursor.to_string();
            prop_assert!(text.len() <= Cursor::MAX_LENGTH && Cursor::MAX_LENGTH <= 100);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
            prop_assert_eq!(text.parse(), Ok(cursor));
        }

        #[test]
        fn places_between_lines_have_the_same_texts(base: Option<u64>, fingerprint: u64, offsets: Vec<u64>) {
            let file = FileMark { base, fingerprint };
            let mut cursors = CursorsBetweenLines::new(file);
            for offset in offsets.into_iter().chain([0, 31, 32, u64::MAX]) {
                let mut text = Vec::new();
                cursors.append(offset, &mut text);
                let cursor = Cursor { file, place: Place { offset, ..Place::default() } };
                prop_assert_eq!(String::from_utf8_lossy(&text), format!("{cursor} "));
                prop_assert!(text.len() <= CursorsBetweenLines::MAX_LENGTH);
            }
        }

        #[test]
        fn what_is_read_is_written_back(text in "c1(\\.([-xyz]|[0-9a-w]{1,14})){6}[xy]?(w[0-9a-w]{1,2})?|.{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
