//! Appending batches of records to a file: whole records or nothing.

use std::{
    fs::File,
    io::{self, Write},
};

use memchr::{memchr, memrchr};
use podlog_line::{LineEnd, SecondCache, cri};

use super::{batch::Batch, crash};

/// The two things that are done to a log file.
pub(super) trait RawFile {
    /// As `write(2)` on a file opened for appending.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Takes its last bytes away, however long somebody else has made it meanwhile.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

impl RawFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        crash::step()?;
        let is_cut_short = crash::is_next();
        let count = self.write(if is_cut_short { &bytes[..bytes.len() / 2] } else { bytes })?;
        // A part is there when a kill comes here, or the disk is full now.
        let _ = crash::step();
        Ok(count)
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        crash::step()?;
        self.set_len(self.metadata()?.len().saturating_sub(bytes))
    }
}

/// A file, and the records that are to be appended to it.
#[derive(Debug)]
pub(super) struct Appender<F> {
    file: F,
    /// Bytes in the file.
    pub(super) length: u64,
    /// What is to be written.
    pub(super) batch: Batch,
    /// Bytes of the batch that are in the file already.
    written: usize,
    /// The file ends in a torn record that could not be cut off.
    torn: bool,
    /// In which streams the file ends inside a line. Behind while a batch is being written to several files.
    pub(super) inside_line: [bool; 2],
}

/// How much of a batch was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    All,
    /// The next record does not fit into the file.
    FileIsFull,
}

impl<F: RawFile> Appender<F> {
    /// `torn`: the file does not end in a line feed.
    pub(super) fn new(file: F, length: u64, torn: bool, inside_line: [bool; 2]) -> Appender<F> {
        Appender { file, length, batch: Batch::default(), written: 0, torn, inside_line }
    }

    pub(super) fn raw(&self) -> &F {
        &self.file
    }

    /// Goes on in a new file.
    pub(super) fn replace(&mut self, file: F) {
        self.drop_written();
        self.file = file;
        self.length = 0;
        self.torn = false;
    }

    /// Writes records while the file has no more than `max_bytes` bytes. On failure what was not written stays in the
    /// batch, and the file ends with a whole record.
    pub(super) fn flush(&mut self, max_bytes: u64, bytes_written: &mut u64) -> io::Result<Written> {
        self.repair()?;
        let end = self.written + self.fitting(max_bytes);
        let result = self.write_up_to(end, bytes_written);
        if result.is_err() {
            self.update_inside_line();
            self.drop_written();
        }
        result?;
        if self.written < self.batch.len() {
            return Ok(Written::FileIsFull);
        }
        self.batch.clear();
        self.written = 0;
        Ok(Written::All)
    }

    /// Takes note of the records that were written since the batch was begun: whether the last of each stream was
    /// partial.
    pub(super) fn update_inside_line(&mut self) {
        let mut seconds = SecondCache::default();
        let mut found = [false; 2];
        let mut end = self.written;
        while end > 0 && found != [true; 2] {
            let start = memrchr(b'\n', &self.batch[..end - 1]).map_or(0, |position| position + 1);
            if let Some(record) = cri::parse(&self.batch[start..end - 1], &mut seconds) {
                let index = record.stream.index();
                if !std::mem::replace(&mut found[index], true) {
                    self.inside_line[index] = record.end == LineEnd::Partial;
                }
            }
            end = start;
        }
    }

    /// How many bytes of whole records may be added. A record that is larger than a file gets a file of its own.
    fn fitting(&self, max_bytes: u64) -> usize {
        let rest = &self.batch[self.written..];
        let room = usize::try_from(max_bytes.saturating_sub(self.length)).unwrap_or(usize::MAX);
        if rest.len() <= room {
            return rest.len();
        }
        match memrchr(b'\n', &rest[..room]) {
            Some(last) => last + 1,
            None if self.length == 0 => memchr(b'\n', rest).map_or(rest.len(), |first| first + 1),
            None => 0,
        }
    }

    fn write_up_to(&mut self, end: usize, bytes_written: &mut u64) -> io::Result<()> {
        let begin = self.written;
        let mut at = begin;
        let mut result = Ok(());
        while at < end && result.is_ok() {
            match self.file.append(&self.batch[at..end]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => at += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        let whole = if at == end { end } else { begin + whole_records(&self.batch[begin..at]) };
        self.written = whole;
        self.length += (whole - begin) as u64;
        *bytes_written += (whole - begin) as u64;
        let rest = (at - whole) as u64;
        self.torn = rest > 0 && self.file.cut(rest).is_err();
        if self.torn {
            self.length += rest;
        }
        result
    }

    /// Ends a torn record, so that the next one is not glued to it.
    fn repair(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.append(b"\n").and_then(|count| match count {
                0 => Err(io::ErrorKind::WriteZero.into()),
                _ => Ok(()),
            })?;
            self.length += 1;
            self.torn = false;
        }
        Ok(())
    }

    fn drop_written(&mut self) {
        self.batch.drop_first(self.written);
        self.written = 0;
    }
}

/// The length of the whole records at the start of `bytes`.
fn whole_records(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk with so much room.
    struct SmallDisk {
        content: Vec<u8>,
        room: usize,
        can_cut: bool,
    }

    impl RawFile for SmallDisk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room - self.content.len());
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn cut(&mut self, bytes: u64) -> io::Result<()> {
            if !self.can_cut {
                return Err(io::ErrorKind::Other.into());
            }
            self.content.truncate(self.content.len() - bytes as usize);
            Ok(())
        }
    }

    fn appender(room: usize, can_cut: bool) -> Appender<SmallDisk> {
        Appender::new(SmallDisk { content: Vec::new(), room, can_cut }, 0, false, [false; 2])
    }

    #[test]
    fn a_full_disk_leaves_no_torn_record() {
        let mut file = appender(10, true);
        for text in ["one", "two", "three"] {
            file.batch.push(&[text.as_bytes()]);
        }
        let mut written = 0;
        assert!(file.flush(u64::MAX, &mut written).is_err());
        assert_eq!(file.raw().content, b"one\ntwo\n");
        assert_eq!((file.length, written, &file.batch[..]), (8, 8, &b"three\n"[..]));
        assert!(file.flush(u64::MAX, &mut written).is_err());
        assert_eq!(file.raw().content, b"one\ntwo\n");
        file.file.room = 14;
        assert_eq!(file.flush(u64::MAX, &mut written).expect("room"), Written::All);
        assert_eq!(file.raw().content, b"one\ntwo\nthree\n");
        assert_eq!((file.length, written), (14, 14));
    }

    #[test]
    fn what_was_written_before_the_disk_was_full_is_remembered() {
        let records = ["T stdout P a", "T stderr F b", "T stdout F c"]
            .map(|text| text.replace('T', "2026-01-01T00:00:01Z"));
        let mut file = appender(70, true);
        records.iter().for_each(|record| file.batch.push(&[record.as_bytes()]));
        assert!(file.flush(u64::MAX, &mut 0).is_err());
        assert_eq!((file.inside_line, file.batch.len()), ([true, false], records[2].len() + 1));
    }

    #[test]
    fn a_torn_record_that_cannot_be_cut_off_gets_its_line_feed() {
        let mut file = appender(6, false);
        file.batch.push(&[b"one"]);
        file.batch.push(&[b"two"]);
        assert!(file.flush(u64::MAX, &mut 0).is_err());
        assert_eq!(file.raw().content, b"one\ntw");
        file.file.room = 100;
        assert_eq!(file.flush(u64::MAX, &mut 0).expect("room"), Written::All);
        assert_eq!(file.raw().content, b"one\ntw\ntwo\n");
        assert_eq!(file.length, 11);
    }

    proptest! {
        #[test]
        fn files_are_cut_at_records(lengths in prop::collection::vec(0..30usize, 0..40), max_bytes in 0..100u64) {
            let mut file = appender(usize::MAX, true);
            lengths.iter().for_each(|length| file.batch.push(&[&vec![b'x'; *length]]));
            let expected = file.batch.to_vec();
            let (mut files, mut written) = (Vec::new(), 0);
            while file.flush(max_bytes, &mut written).expect("a big disk") == Written::FileIsFull {
                files.push(file.raw().content.clone());
                file.replace(SmallDisk { content: Vec::new(), room: usize::MAX, can_cut: true });
            }
            files.push(file.raw().content.clone());
            prop_assert_eq!(files.concat(), expected);
            prop_assert_eq!(written as usize, files.concat().len());
            for (index, content) in files.iter().enumerate() {
                let records = content.iter().filter(|byte| **byte == b'\n').count();
                prop_assert!(content.len() as u64 <= max_bytes || records == 1);
                prop_assert!(records > 0 || (files.len() == 1 && lengths.is_empty()), "file {index} is empty");
                if let Some(next) = files.get(index + 1) {
                    let first = whole_records(&next[..next.iter().position(|b| *b == b'\n').map_or(0, |p| p + 1)]);
                    prop_assert!((content.len() + first) as u64 > max_bytes, "file {index} had room");
                }
            }
        }
    }
}
