//! A second implementation of [`Mode::Exact`](crate::Mode::Exact) to compare with: record by record, with no thought of
//! speed. It holds every line to its end.

use crate::{LineEnd, RecordParser, Selection, Stream, Timestamp};

struct Line {
    begun: Timestamp,
    is_gap: bool,
    time: Vec<u8>,
    content: Vec<u8>,
}

impl Line {
    fn text(&self) -> Vec<u8> {
        [&self.time[..], &self.content].concat()
    }
}

/// The output of a whole file, its end included.
pub(super) fn render(selection: &Selection, file: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut unfinished: [Option<Line>; 2] = [None, None];
    for text in file.split_inclusive(|byte| *byte == b'\n') {
        let is_torn = !text.ends_with(b"\n");
        let mut parser = RecordParser::default();
        let Some(record) = parser.parse(text.strip_suffix(b"\n").unwrap_or(text)) else { continue };
        let line = &mut unfinished[record.stream.index()];
        if record.is_gap {
            out.extend(
                line.take().and_then(|line| ended(selection, record.stream, &line)).unwrap_or_default(),
            );
        }
        let mut time = Vec::new();
        if selection.timestamps {
            record.time.append_nine_digits(&mut time);
            time.push(b' ');
        }
        let begun = record.time.timestamp();
        let line = line.get_or_insert(Line { begun, is_gap: record.is_gap, time, content: Vec::new() });
        line.content.extend_from_slice(record.content);
        if record.end == LineEnd::Full && !is_torn {
            let line = unfinished[record.stream.index()].take();
            out.extend(line.and_then(|line| ended(selection, record.stream, &line)).unwrap_or_default());
        }
    }
    let rest = Stream::ALL.into_iter().zip(&unfinished).filter_map(|(stream, line)| {
        line.as_ref().filter(|line| is_wanted(selection, stream, line)).map(Line::text)
    });
    out.extend(rest.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(&b'\n'));
    out.truncate(selection.limit_bytes.map_or(usize::MAX, |limit| limit as usize));
    out
}

fn ended(selection: &Selection, stream: Stream, line: &Line) -> Option<Vec<u8>> {
    is_wanted(selection, stream, line).then(|| [line.text(), b"\n".to_vec()].concat())
}

fn is_wanted(selection: &Selection, stream: Stream, line: &Line) -> bool {
    selection.wants(stream, line.begun, line.is_gap, &line.content)
        && selection.since.is_none_or(|since| line.begun >= since)
}
