//! Finding the first record of a time in a file whose records are in order.

use std::{fs::File, io, os::unix::fs::FileExt};

use memchr::memchr;
use podlog_line::{RecordParser, Timestamp};

/// Enough for several records of the largest size.
const BLOCK: u64 = 128 * 1024;
/// So far before the first record of the time reading begins, so that it is known whether that record begins a line.
const BACK_OFF: u64 = 256 * 1024;

/// Where to begin to read: at a record, some way before the first one at or after `since`.
pub(super) fn find(file: &File, since: Timestamp) -> io::Result<u64> {
    // Records before `low` are too old.
    let (mut low, mut high) = (0, file.metadata()?.len());
    while high - low > BLOCK {
        let middle = low + (high - low) / 2;
        match record_after(file, middle)? {
            Some((start, time)) if time < since => low = start,
            // Not knowing is no reason to skip something.
            _ => high = middle,
        }
    }
    line_after(file, low.saturating_sub(BACK_OFF))
}

/// The first record that begins behind `offset`: where, and its time.
fn record_after(file: &File, offset: u64) -> io::Result<Option<(u64, Timestamp)>> {
    let mut block = vec![0; BLOCK as usize];
    let length = read_up_to(file, &mut block, offset)?;
    let block = &block[..length];
    let mut parser = RecordParser::default();
    let mut at = memchr(b'\n', block).map(|end| end + 1);
    while let Some(start) = at {
        let Some(length) = memchr(b'\n', &block[start..]) else { return Ok(None) };
        if let Some(record) = parser.parse(&block[start..start + length]) {
            return Ok(Some((offset + start as u64, record.time.timestamp())));
        }
        at = Some(start + length + 1);
    }
    Ok(None)
}

/// Where the first line begins at or behind `offset`; the beginning of the file if there is none near.
fn line_after(file: &File, offset: u64) -> io::Result<u64> {
    if offset == 0 {
        return Ok(0);
    }
    let mut block = vec![0; BLOCK as usize];
    let length = read_up_to(file, &mut block, offset - 1)?;
    Ok(memchr(b'\n', &block[..length]).map_or(0, |end| offset + end as u64))
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
