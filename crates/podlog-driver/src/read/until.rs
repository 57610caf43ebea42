//! Where a file ends for one who wants nothing later than a time.

use std::{fs::File, io};

use memchr::memchr;
use podlog_line::{LineEnd, Record, RecordParser, Timestamp};

use super::{
    backward::Backward,
    files::{LogFile, read_up_to},
    segment::Segment,
    since,
};

const BLOCK: usize = 128 * 1024;
/// The state of the lines at the time is looked for in so many bytes before it, and their ends in so many behind it.
const LOOK_AROUND: u64 = 512 * 1024;

/// Leaves out what is later than `until` where that can be known without reading it.
pub(super) fn leave_out(segments: &mut Vec<Segment>, until: Timestamp) -> io::Result<()> {
    drop_later(segments, until)?;
    for segment in segments {
        if let Segment::File(file) = segment {
            limit(file, until)?;
        }
    }
    Ok(())
}

/// Drops the files, but the first, in which everything is later than `until`, without reading more of them than their
/// beginnings.
fn drop_later(segments: &mut Vec<Segment>, until: Timestamp) -> io::Result<()> {
    for index in (1..segments.len()).rev() {
        let (before, rest) = segments.split_at(index);
        let (Some(before), Some(file)) = (before.last(), rest[0].as_file()) else { continue };
        let is_last = index + 1 == segments.len();
        let is_later = file.is_ordered() && file.first_time()?.is_some_and(|first| first > until);
        if is_later && ends_between_lines(before) && (is_last || ends_between_lines(&segments[index])) {
            segments.remove(index);
        }
    }
    Ok(())
}

fn ends_between_lines(segment: &Segment) -> bool {
    match segment {
        Segment::File(file) => file.end().is_some_and(|end| end.inside_line == [false; 2]),
        Segment::Break(_) => true,
    }
}

/// In which streams a file ends inside a line whose beginning was left out.
pub(super) fn left_inside(file: &LogFile) -> io::Result<[bool; 2]> {
    match file.end() {
        Some(end) => Ok(end.inside_line),
        None => file.uncompressed().map_or(Ok([false; 2]), |plain| {
            let length = plain.metadata()?.len();
            Ok(last_tags(plain, length)?.map(|tag| tag == Some(LineEnd::Partial)))
        }),
    }
}

/// Leaves out the end of a file whose records are in order and that is not compressed.
pub(super) fn limit(file: &mut LogFile, until: Timestamp) -> io::Result<()> {
    let ends_before = file.end().is_some_and(|end| end.last <= until);
    if !file.is_ordered() || file.is_compressed() || ends_before {
        return Ok(());
    }
    let plain = file.plain()?;
    let length = plain.metadata()?.len();
    let end = find(plain, length, until)?;
    file.limit = Some(file.limit.map_or(end, |limit| limit.min(end)));
    Ok(())
}

/// Where every line has ended that began at `until` or before it.
fn find(file: &File, length: u64, until: Timestamp) -> io::Result<u64> {
    let early = since::last_before(file, length, |time| time <= until)?;
    let mut end = length;
    walk(file, early, length, |start, _, record| {
        let is_late = record.time.timestamp() > until;
        if is_late {
            end = start;
        }
        !is_late
    })?;
    let mut inside = lines_at(file, end)?;
    if inside == [false; 2] {
        return Ok(end);
    }
    let begin = end;
    walk(file, begin, length.min(begin + LOOK_AROUND), |_, record_end, record| {
        if record.end == LineEnd::Full {
            inside[record.stream.index()] = false;
        }
        end = record_end;
        inside != [false; 2]
    })?;
    Ok(end)
}

/// Which streams are, or may be, inside a line at `offset`.
fn lines_at(file: &File, offset: u64) -> io::Result<[bool; 2]> {
    Ok(last_tags(file, offset)?.map(|tag| tag != Some(LineEnd::Full)))
}

/// Whether the last record of each stream before `offset` ends its line; `None` if there is none near.
fn last_tags(file: &File, offset: u64) -> io::Result<[Option<LineEnd>; 2]> {
    let mut tags = [None; 2];
    let mut parser = RecordParser::default();
    let mut lines = Backward::new(file, offset);
    while tags.contains(&None)
        && let Some(line) = lines.next()?
        && line.start + LOOK_AROUND > offset
    {
        if let Some(record) = parser.parse(line.text) {
            tags[record.stream.index()].get_or_insert(record.end);
        }
    }
    Ok(tags)
}

/// Shows the records from `offset` up to `limit` to `visit`, with where they begin and end, until it has seen enough.
fn walk(
    file: &File,
    offset: u64,
    limit: u64,
    mut visit: impl FnMut(u64, u64, &Record<'_>) -> bool,
) -> io::Result<()> {
    let mut parser = RecordParser::default();
    let mut block = vec![0; BLOCK];
    let mut offset = offset;
    while offset < limit {
        let length = read_up_to(file, &mut block, offset)?;
        let mut start = 0;
        while let Some(count) = memchr(b'\n', &block[start..length]) {
            let line = &block[start..start + count];
            let span = (offset + start as u64, offset + (start + count + 1) as u64);
            if parser.parse(line).is_some_and(|record| !visit(span.0, span.1, &record)) {
                return Ok(());
            }
            start += count + 1;
        }
        // A record that is longer than any writer makes is passed over.
        let advance = if start == 0 { length } else { start };
        if advance == 0 {
            break;
        }
        offset += advance as u64;
    }
    Ok(())
}
