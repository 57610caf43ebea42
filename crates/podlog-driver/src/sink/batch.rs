//! Records that are about to be written, one after the other in memory.
//!
//! Making a record is two copies, of a header of fixed size (three moves of 16 bytes) and of the line with its line feed:
//! the buffer always has room behind its end, so that too much may be copied and overwritten by what follows.

use std::ops::Deref;

use podlog_line::{LineEnd, Stream};

/// No header is longer: 30 bytes of time, 8 of stream, 2 of tag.
const MAX_HEADER: usize = 48;
/// What the memory is given back to, when it was more for a while.
const ORDINARY_CAPACITY: usize = 512 * 1024;

/// What stands before the content of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    text: [u8; MAX_HEADER],
    length: usize,
}

impl Default for Header {
    fn default() -> Header {
        Header { text: [0; MAX_HEADER], length: 0 }
    }
}

impl Header {
    /// `time` is RFC 3339 text in UTC.
    pub(super) fn new(time: &[u8], stream: Stream, end: LineEnd) -> Header {
        let tag = match end {
            LineEnd::Partial => b" P ",
            LineEnd::Full => b" F ",
        };
        let mut header = Header::default();
        for part in [time, b" ", stream.as_str().as_bytes(), tag] {
            header.text[header.length..header.length + part.len()].copy_from_slice(part);
            header.length += part.len();
        }
        header
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

/// Records, each with its line feed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Everything behind `end` is room.
    bytes: Vec<u8>,
    end: usize,
}

impl Batch {
    /// A record whose content is `line` but for the line feed at its end.
    #[inline]
    pub(super) fn push_line(&mut self, header: &Header, line: &[u8]) {
        self.reserve(line.len());
        let begin = self.end + header.length;
        self.bytes[self.end..self.end + MAX_HEADER].copy_from_slice(&header.text);
        self.bytes[begin..begin + line.len()].copy_from_slice(line);
        self.end = begin + line.len();
    }

    /// A record of any parts and a line feed.
    pub(super) fn push(&mut self, parts: &[&[u8]]) {
        self.reserve(parts.iter().map(|part| part.len()).sum());
        for part in parts.iter().chain(&[&b"\n"[..]]) {
            self.bytes[self.end..self.end + part.len()].copy_from_slice(part);
            self.end += part.len();
        }
    }

    /// Forgets the first so many bytes.
    pub(super) fn drop_first(&mut self, count: usize) {
        self.bytes.copy_within(count..self.end, 0);
        self.end -= count;
    }

    pub(super) fn clear(&mut self) {
        self.end = 0;
        self.bytes.truncate(ORDINARY_CAPACITY);
        self.bytes.shrink_to(ORDINARY_CAPACITY);
    }

    #[inline]
    fn reserve(&mut self, content: usize) {
        let needed = self.end + MAX_HEADER + content + 1;
        if needed > self.bytes.len() {
            self.grow(needed);
        }
    }

    #[cold]
    fn grow(&mut self, needed: usize) {
        self.bytes.resize(needed.next_power_of_two(), 0);
    }
}

impl Deref for Batch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_each_other() {
        let time = b"2026-01-01T00:00:01.123456789Z";
        let header = Header::new(time, Stream::Stderr, LineEnd::Partial);
        let mut text = Vec::new();
        podlog_line::cri::append_header(&mut text, time, Stream::Stderr, LineEnd::Partial);
        assert_eq!(header.text(), text);
        let mut batch = Batch::default();
        let mut expected = Vec::new();
        for length in [0, 1, 7, 8, 47, 48, 49, 100, 5000, 3] {
            let line = [vec![b'x'; length], vec![b'\n']].concat();
            batch.push_line(&header, &line);
            batch.push(&[header.text(), &line[..length]]);
            let record = [header.text(), &line].concat();
            expected.extend_from_slice(&record.repeat(2));
        }
        assert_eq!(batch[..], expected[..]);
        batch.drop_first(90);
        assert_eq!(batch[..], expected[90..]);
        batch.clear();
        assert!(batch.is_empty());
    }

    #[test]
    fn memory_of_a_bad_time_is_given_back() {
        let mut batch = Batch::default();
        batch.push(&[&vec![b'x'; 4 << 20]]);
        batch.clear();
        assert!(batch.bytes.capacity() <= ORDINARY_CAPACITY);
    }
}
