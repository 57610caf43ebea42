//! Record by record, as Kubernetes 1.36 does it: `ReadLogs` and `logWriter` in `k8s.io/cri-client/pkg/logs/logs.go`.

use crate::{Format, LineEnd, Record, RecordParser, Selection};

use super::{RenderError, RenderStats, Terminator, filter::Filter};

#[derive(Debug, Clone)]
pub(super) struct Upstream {
    filter: Filter,
    /// Chosen by the first line, for good.
    format: Option<Format>,
    /// Whether the last record ended its line; shared by both streams.
    at_line_start: bool,
    /// Records that may still be read. Counted only when the reader does not follow.
    records_left: Option<u64>,
}

impl Upstream {
    pub(super) fn new(filter: Filter, selection: &Selection) -> Upstream {
        let records_left = selection.tail.filter(|_| !selection.follow);
        Upstream { filter, format: None, at_line_start: true, records_left }
    }

    pub(super) fn is_done(&self) -> bool {
        self.records_left == Some(0)
    }

    pub(super) fn line(
        &mut self,
        line: &[u8],
        terminator: Terminator,
        parser: &mut RecordParser,
        stats: &mut RenderStats,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        let format = self.format(line, terminator, parser)?;
        let record = match format {
            Format::Cri => parser.parse_cri(line).map(Parsed::of_cri),
            Format::JsonFile => parser.parse_json_file(line).map(|(fields, log)| Parsed {
                record: fields.into_record(log).ok_or(fields),
                too_old: self.filter.since.is_some_and(|since| fields.time.timestamp() < since),
            }),
        };
        let Some(parsed) = record else {
            stats.malformed += 1;
            return Ok(());
        };
        stats.records += 1;
        self.records_left = self.records_left.map(|left| left - 1);
        // A json-file record holds its own line feed; one that stands at the end of the file is as good as any.
        let terminator = if format == Format::JsonFile { Terminator::LineFeed } else { terminator };
        match parsed.record {
            Ok(record) => self.record(&record, terminator, out),
            Err(_) if parsed.too_old => self.at_line_start = false,
            Err(fields) => return Err(RenderError::UnexpectedStream { stream: fields.stream.to_vec() }),
        }
        Ok(())
    }

    /// A piece of a record that did not fit the reader's buffer.
    pub(super) fn piece(&mut self, record: &Record<'_>, end: Option<Terminator>, out: &mut Vec<u8>) {
        if end.is_some() {
            self.records_left = self.records_left.map(|left| left.saturating_sub(1));
        }
        self.format = Some(Format::Cri);
        self.record(record, end.unwrap_or(Terminator::LineFeed), out);
    }

    fn record(&mut self, record: &Record<'_>, terminator: Terminator, out: &mut Vec<u8>) {
        let ending = match record.end {
            LineEnd::Full => terminator.bytes(),
            LineEnd::Partial => b"",
        };
        if !self.filter.is_too_old(record) && self.filter.streams.contains(record.stream) {
            if self.at_line_start {
                self.filter.append_time(record, out);
            }
            out.extend_from_slice(record.content);
            out.extend_from_slice(ending);
        }
        let is_empty = record.content.is_empty() && ending.is_empty();
        self.at_line_start = is_empty || !ending.is_empty();
    }

    fn format(
        &mut self,
        line: &[u8],
        terminator: Terminator,
        parser: &mut RecordParser,
    ) -> Result<Format, RenderError> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let format = if parser.parse_cri(line).is_some() {
            Format::Cri
        } else if parser.parse_json_file(line).is_some() {
            Format::JsonFile
        } else {
            return Err(RenderError::UnsupportedFormat { line: [line, terminator.bytes()].concat() });
        };
        self.format = Some(format);
        Ok(format)
    }
}

/// A record, or the fields of one whose stream is unknown.
struct Parsed<'a> {
    record: Result<Record<'a>, crate::json_file::Fields<'a>>,
    too_old: bool,
}

impl<'a> Parsed<'a> {
    fn of_cri(record: Record<'a>) -> Parsed<'a> {
        Parsed { record: Ok(record), too_old: false }
    }
}
