//! A file that grows, is cut, or is written anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::SystemTime;

use super::select::Lines;

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;
/// Bytes before the place of the reader that tell whether the file is still the one that was read.
const MARK: usize = 64;

/// A file, whatever its name: its device and its number there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct FileId(u64, u64);

/// A place in a file.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    id: FileId,
    offset: u64,
    /// What was read last.
    mark: Vec<u8>,
}

impl Tail {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Tail { id: FileId(metadata.dev(), metadata.ino()), file, offset: 0, mark: Vec::new() })
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// When it was written to.
    pub(super) fn modified(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Goes to where the last `count` lines begin; where lines are chosen, `lines` leaves out those before.
    pub(super) fn seek_to_last(&mut self, count: u64, lines: &mut Lines) -> io::Result<()> {
        let end = self.length()?;
        if lines.chooses() && count > 0 {
            let mut counting = lines.counting();
            while let Some(chunk) = self.next(end)? {
                counting.choose(chunk);
            }
            counting.finish();
            lines.skip(counting.count().saturating_sub(count));
            (self.offset, self.mark) = (0, Vec::new());
            return Ok(());
        }
        self.offset = self.last_lines(count, end)?;
        let before = usize::try_from(self.offset).unwrap_or(MARK).min(MARK);
        self.mark = vec![0; before];
        self.file.read_exact_at(&mut self.mark, self.offset - before as u64)
    }

    /// Where the last `count` lines before `end` begin.
    fn last_lines(&self, count: u64, end: u64) -> io::Result<u64> {
        if count == 0 {
            return Ok(end);
        }
        let (mut position, mut found) = (end, 0);
        let mut block = vec![0; CHUNK];
        while position > 0 {
            let length = usize::try_from(position).unwrap_or(CHUNK).min(CHUNK);
            position -= length as u64;
            let read = &mut block[..length];
            self.file.read_exact_at(read, position)?;
            for (index, _) in read.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let after = position + index as u64 + 1;
                // The line feed at the very end ends the last line.
                if after == end {
                    continue;
                }
                found += 1;
                if found == count {
                    return Ok(after);
                }
            }
        }
        Ok(0)
    }

    /// What has been written before `end` and was not read yet. A file that has been cut or written anew begins again.
    pub(super) fn next(&mut self, end: u64) -> io::Result<Option<Vec<u8>>> {
        let length = self.length()?;
        if length < self.offset || !self.is_where_it_was()? {
            (self.offset, self.mark) = (0, Vec::new());
        }
        let left = length.min(end).saturating_sub(self.offset);
        let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        let bytes = self.file.read_at(&mut chunk, self.offset)?;
        chunk.truncate(bytes);
        if chunk.is_empty() {
            return Ok(None);
        }
        self.offset += bytes as u64;
        self.mark.extend_from_slice(&chunk[bytes.saturating_sub(MARK)..]);
        self.mark.drain(..self.mark.len().saturating_sub(MARK));
        Ok(Some(chunk))
    }

    fn is_where_it_was(&self) -> io::Result<bool> {
        let mut now = vec![0; self.mark.len()];
        match self.file.read_exact_at(&mut now, self.offset - self.mark.len() as u64) {
            Ok(()) => Ok(now == self.mark),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    use podlog_line::{LineMatch, Patterns};

    use super::*;

    struct Log(tempfile::TempDir);

    impl Log {
        fn new(text: &str) -> Self {
            let log = Log(tempfile::tempdir().unwrap());
            fs::write(log.path(), text).unwrap();
            log
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("a.log")
        }

        fn append(&self, text: &str) {
            fs::File::options().append(true).open(self.path()).unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn open(&self) -> Tail {
            Tail::new(File::open(self.path()).unwrap()).unwrap()
        }
    }

    fn rest(tail: &mut Tail) -> String {
        let mut text = Vec::new();
        while let Some(chunk) = tail.next(u64::MAX).unwrap() {
            text.extend(chunk);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let long = format!("{}\n{}\nz", "x".repeat(CHUNK), "y".repeat(CHUNK - 3));
        for (text, count, expected) in [
            ("", 3, ""),
            ("a\nb\nc\n", 0, ""),
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc", 1, "c"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc\n", 3, "a\nb\nc\n"),
            ("a\nb\nc\n", u64::MAX, "a\nb\nc\n"),
            ("\n\n\n", 2, "\n\n"),
            (&long, 2, &long[CHUNK + 1..]),
            (&long, 3, &long),
        ] {
            let mut tail = Log::new(text).open();
            tail.seek_to_last(count, &mut Lines::new(None)).unwrap();
            assert_eq!(rest(&mut tail), expected, "{} {count}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn the_last_lines_that_are_chosen_are_found() {
        let matching = |pattern: &str| {
            let patterns = Patterns { include: vec![pattern.into()], ..Patterns::default() };
            Lines::new(Some(LineMatch::new(patterns).unwrap()))
        };
        for (count, expected) in [(0, ""), (1, "a4"), (2, "a3\na4"), (9, "a1\na3\na4")] {
            let log = Log::new("a1\nb2\na3\nb3\na4");
            let (mut tail, mut lines) = (log.open(), matching("a"));
            tail.seek_to_last(count, &mut lines).unwrap();
            let mut text = Vec::new();
            while let Some(chunk) = tail.next(u64::MAX).unwrap() {
                text.extend(lines.choose(chunk));
            }
            text.extend(lines.finish());
            assert_eq!(String::from_utf8(text).unwrap(), expected, "{count}");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_written_anew_begins_again() {
        let log = Log::new("one\ntwo\n");
        let mut tail = log.open();
        assert_eq!(rest(&mut tail), "one\ntwo\n");
        log.append("three\n");
        assert_eq!((rest(&mut tail).as_str(), rest(&mut tail).as_str()), ("three\n", ""));
        fs::File::options().write(true).truncate(true).open(log.path()).unwrap();
        log.append("four\n");
        assert_eq!(rest(&mut tail), "four\n", "it is shorter");
        fs::File::options().write(true).truncate(true).open(log.path()).unwrap();
        log.append("five and more\n");
        assert_eq!(rest(&mut tail), "five and more\n", "it is longer, and another text");
        assert_eq!(tail.id(), log.open().id());
        fs::rename(log.path(), log.0.path().join("old")).unwrap();
        fs::write(log.path(), "six\n").unwrap();
        assert_ne!(tail.id(), log.open().id());
    }
}
