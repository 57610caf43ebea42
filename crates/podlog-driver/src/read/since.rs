//! Finding the first record of a time in a file whose records are in order.

use std::{fs::File, io};

use memchr::memchr;
use podlog_line::{RecordParser, Timestamp};

use super::files::read_up_to;

/// The search ends when the record is known to be within so many bytes.
const NEAR: u64 = 16 * 1024;
/// A record is looked for in so many bytes, and when there is none,
const PROBE: usize = 4 * 1024;
/// in so many: enough for several of the largest size that writers make.
const LARGE_PROBE: usize = 128 * 1024;
/// So far before the first record of the time reading begins, so that it is known whether that record begins a line.
const BACK_OFF: u64 = 256 * 1024;

/// Where to begin to read: at a record, some way before the first one at or after `since`.
pub(super) fn find(file: &File, since: Timestamp) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let low = last_before(file, length, |time| time < since)?;
    line_after(file, low.saturating_sub(BACK_OFF))
}

/// Where a record begins before which all are early: near the last of them. Records are in order; the early ones come
/// first.
pub(super) fn last_before(file: &File, length: u64, is_early: impl Fn(Timestamp) -> bool) -> io::Result<u64> {
    // Records before `low` are early.
    let (mut low, mut high) = (0, length);
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        match record_after(file, middle, high)? {
            Some((start, time)) if is_early(time) => low = start,
            // Not knowing is no reason to skip something.
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first record that begins behind `offset` and before `limit`: where, and its time.
fn record_after(file: &File, offset: u64, limit: u64) -> io::Result<Option<(u64, Timestamp)>> {
    for size in [PROBE, LARGE_PROBE] {
        let mut block = vec![0; size];
        let length = read_up_to(file, &mut block, offset)?;
        let found = first_record(&block[..length]).map(|(start, time)| (offset + start as u64, time));
        if found.is_some() || length < size {
            return Ok(found.filter(|(start, _)| *start < limit));
        }
    }
    Ok(None)
}

/// The first whole record behind the first line feed.
fn first_record(block: &[u8]) -> Option<(usize, Timestamp)> {
    let mut parser = RecordParser::default();
    let mut start = memchr(b'\n', block)? + 1;
    loop {
        let length = memchr(b'\n', &block[start..])?;
        if let Some(record) = parser.parse(&block[start..start + length]) {
            return Some((start, record.time.timestamp()));
        }
        start += length + 1;
    }
}

/// Where the first line begins at or behind `offset`; the beginning of the file if there is none near.
fn line_after(file: &File, offset: u64) -> io::Result<u64> {
    if offset == 0 {
        return Ok(0);
    }
    let mut block = vec![0; LARGE_PROBE];
    let length = read_up_to(file, &mut block, offset - 1)?;
    Ok(memchr(b'\n', &block[..length]).map_or(0, |end| offset + end as u64))
}
