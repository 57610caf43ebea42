//! The lines of a file from its end to its beginning, read in large blocks.

use std::{fs::File, io, os::unix::fs::FileExt};

use memchr::memrchr;

const FIRST_BLOCK: u64 = 64 * 1024;
const BLOCK: u64 = 1024 * 1024;
/// Of a line longer than a block only so many bytes are looked at.
const LONGEST_HEAD: usize = 4096;

/// Walks backwards through the lines of a file.
#[derive(Debug)]
pub(super) struct Backward<'a> {
    file: &'a File,
    /// What is loaded begins here in the file.
    base: u64,
    buffer: Vec<u8>,
    /// What is loaded from here on has been walked through.
    end: usize,
    /// Bytes at the end of the line in progress that were let go.
    forgotten: u64,
    block: u64,
}

/// A line of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Where it begins in the file.
    pub(super) start: u64,
    /// Where it ends, its line feed included.
    pub(super) end: u64,
    /// Without its line feed. Very long lines are cut off.
    pub(super) text: &'a [u8],
    /// Whether it has a line feed; only the last line of a file may have none.
    pub(super) is_terminated: bool,
}

impl<'a> Backward<'a> {
    /// Begins at `length`, the end of the file as far as it is of interest.
    pub(super) fn new(file: &'a File, length: u64) -> Backward<'a> {
        Backward { file, base: length, buffer: Vec::new(), end: 0, forgotten: 0, block: FIRST_BLOCK }
    }

    /// The line before the last one returned.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            let content_end = self.content_end();
            let start = match memrchr(b'\n', &self.buffer[..content_end]) {
                Some(before) => before + 1,
                None if self.base > 0 => {
                    self.load()?;
                    continue;
                }
                None if self.end == 0 => return Ok(None),
                None => 0,
            };
            let (begin, end) = (self.base + start as u64, self.base + self.end as u64 + self.forgotten);
            let is_terminated = content_end < self.end || self.forgotten > 0;
            self.end = start;
            self.forgotten = 0;
            let text = &self.buffer[start..content_end];
            return Ok(Some(Line { start: begin, end, text, is_terminated }));
        }
    }

    /// Where the line in progress ends, without its line feed.
    fn content_end(&self) -> usize {
        match self.buffer[..self.end].last() {
            Some(b'\n') if self.forgotten == 0 => self.end - 1,
            _ => self.end,
        }
    }

    /// Puts the block before in front of what is left.
    fn load(&mut self) -> io::Result<()> {
        if self.end > BLOCK as usize {
            self.forgotten += (self.end - LONGEST_HEAD) as u64;
            self.end = LONGEST_HEAD;
        }
        let size = self.block.min(self.base);
        let mut loaded = vec![0; usize::try_from(size).expect("a block fits into memory")];
        self.file.read_exact_at(&mut loaded, self.base - size)?;
        loaded.extend_from_slice(&self.buffer[..self.end]);
        self.base -= size;
        self.end = loaded.len();
        self.buffer = loaded;
        self.block = BLOCK;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn backward(content: &[u8]) -> Vec<(u64, u64, Vec<u8>, bool)> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("room");
        let mut lines = Vec::new();
        let mut walk = Backward::new(&file, content.len() as u64);
        while let Some(line) = walk.next().expect("a file") {
            lines.push((line.start, line.end, line.text.to_vec(), line.is_terminated));
        }
        lines.reverse();
        lines
    }

    fn forward(content: &[u8]) -> Vec<(u64, u64, Vec<u8>, bool)> {
        let mut at = 0;
        let convert = |line: &[u8]| {
            let start = at;
            at += line.len() as u64;
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            (start, at, text.to_vec(), text.len() < line.len())
        };
        content.split_inclusive(|byte| *byte == b'\n').map(convert).collect()
    }

    #[test]
    fn lines_across_blocks() {
        for length in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let content = [vec![b'a'; length], b"\nb\n".to_vec(), vec![b'c'; length]].concat();
            assert!(backward(&content) == forward(&content), "{length}");
        }
    }

    #[test]
    fn of_a_very_long_line_only_the_beginning_is_kept() {
        let long: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
        let content = [b"x\n", &long[..], b"\ny\n"].concat();
        let lines = backward(&content);
        let spans: Vec<(u64, u64, bool)> = lines.iter().map(|line| (line.0, line.1, line.3)).collect();
        assert_eq!(spans, [(0, 2, true), (2, 3_000_003, true), (3_000_003, 3_000_005, true)]);
        assert!(long.starts_with(&lines[1].2[..1000]));
    }

    proptest! {
        #[test]
        fn the_same_lines_as_forwards(content in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..2000)) {
            prop_assert_eq!(backward(&content), forward(&content));
        }
    }
}
