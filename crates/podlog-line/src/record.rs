//! One record of a log file, whichever format it is in.

use crate::{Rfc3339, SecondCache, Stream, cri, json_file};

/// Whether a record ends its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineEnd {
    /// The line goes on in the next record of the same stream (CRI tag `P`).
    Partial,
    /// The line ends here (CRI tag `F`).
    Full,
}

/// One record. `content` never holds the line feed that ends the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was captured.
    pub time: Rfc3339<'a>,
    /// Where it was written.
    pub stream: Stream,
    /// Whether its line ends here.
    pub end: LineEnd,
    /// The bytes the container wrote.
    pub content: &'a [u8],
    /// Whether it declares a [`Gap`](crate::Gap): then `content` is not the container's.
    pub is_gap: bool,
}

/// The formats of log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `<time> <stream> <tags> <content>`, see [`cri`].
    Cri,
    /// `{"log":…,"stream":…,"time":…}`, see [`json_file`].
    JsonFile,
}

/// Parses records of either format without allocating a record: it keeps the last second and a buffer for unescaping.
#[derive(Debug, Clone, Default)]
pub struct RecordParser {
    seconds: SecondCache,
    unescaped: Vec<u8>,
}

impl RecordParser {
    /// The record in `line` (without its line feed), whatever its format; `None` if it is damaged.
    ///
    /// Zero bytes before the record are skipped: some file systems leave them at the end of a file after a power loss.
    #[inline]
    pub fn parse<'a>(&'a mut self, line: &'a [u8]) -> Option<Record<'a>> {
        match line.first()? {
            b'{' => json_file::parse_usual(line, &mut self.seconds)
                .or_else(|| json_file::parse(line, &mut self.unescaped)?.into_record(&self.unescaped)),
            0 => self.parse(line.trim_prefix_zeros()),
            _ => cri::parse(line, &mut self.seconds),
        }
    }

    /// As [`RecordParser::parse`], when only CRI records are allowed.
    pub fn parse_cri<'a>(&mut self, line: &'a [u8]) -> Option<Record<'a>> {
        cri::parse(line, &mut self.seconds)
    }

    /// The fields of a json-file record and its unescaped content, the stream not yet judged.
    pub fn parse_json_file<'a>(&'a mut self, line: &'a [u8]) -> Option<(json_file::Fields<'a>, &'a [u8])> {
        let fields = json_file::parse(line, &mut self.unescaped)?;
        Some((fields, &self.unescaped))
    }
}

trait TrimZeros {
    fn trim_prefix_zeros(&self) -> &Self;
}

impl TrimZeros for [u8] {
    fn trim_prefix_zeros(&self) -> &[u8] {
        let zeros = self.iter().take_while(|byte| **byte == 0).count();
        &self[zeros..]
    }
}
