//! How far a writer came before it was killed.
//!
//! Who takes a log over knows where it ended before the last write of its predecessor ([`FilePosition`]), and what was to
//! be written. What stands behind that position tells how much of it is there.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use memchr::memrchr;
use podlog_line::{GAP_TAG, LineEnd, SecondCache, Stream, cri};

use crate::generations::LogPath;

/// A place in a log file: everything before it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FilePosition {
    /// The file system of the file.
    pub device: u64,
    /// The number of the file in it.
    pub inode: u64,
    /// Bytes before the place.
    pub length: u64,
}

impl FilePosition {
    /// The beginning of a file; that of no file when the system cannot tell which it is.
    pub(super) fn start_of(file: &File) -> FilePosition {
        let position = |metadata: fs::Metadata| FilePosition {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: 0,
        };
        file.metadata().map_or_else(|_| FilePosition::default(), position)
    }

    fn is_in(&self, metadata: &fs::Metadata) -> bool {
        (metadata.dev(), metadata.ino()) == (self.device, self.inode)
    }
}

/// What stands in a log behind a [`FilePosition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content {
    /// Bytes of a stream as the program wrote them: line feeds count, headers and gap markers do not.
    pub bytes: u64,
    /// Gap markers in that stream.
    pub markers: u64,
}

/// Counts what stands of a stream in the log behind a position. A record that was torn by the writer's death is cut off
/// first.
///
/// The writer may have rotated the log since, but so little that nothing was compressed: once, unless files hold less than
/// a record. `None`: the file of that position is gone, and nobody can tell.
///
/// # Errors
/// When a file cannot be read, or cut off.
pub fn content_since(path: &Path, position: &FilePosition, stream: Stream) -> io::Result<Option<Content>> {
    let path = LogPath::new(path);
    let Some(found) = find(&path, position)? else { return Ok(None) };
    let mut count = Count { stream, content: Content::default(), last: None };
    count.add(&records_since(&found, position.length)?);
    for newer in newer_files(&path, position)? {
        count.add(&records_since(&open(&newer)?, 0)?);
    }
    Ok(Some(count.content))
}

/// How often the file is looked for. While somebody else renames it, it may be listed under no name, or stand under the next one by the
/// time it is opened.
const MAX_LOOKS: u32 = 10;

/// The file, whatever its name is now.
fn find(path: &LogPath, position: &FilePosition) -> io::Result<Option<File>> {
    for _ in 0..MAX_LOOKS {
        for entry in fs::read_dir(path.directory())? {
            let entry = entry?;
            // What goes away meanwhile was not it: nobody else removes the newest files.
            if entry.metadata().is_ok_and(|metadata| metadata.is_file() && position.is_in(&metadata))
                && let Ok(file) = open(&entry.path())
                && position.is_in(&file.metadata()?)
            {
                return Ok(Some(file));
            }
        }
    }
    Ok(None)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Files that were begun since: those rotated away behind the one that was found, and the current one, when it is another.
fn newer_files(path: &LogPath, position: &FilePosition) -> io::Result<Vec<PathBuf>> {
    let rotated = path.list()?.rotated;
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|metadata| position.is_in(&metadata));
    let known = rotated.iter().position(|file| is_it(&file.path)).map_or(rotated.len(), |index| index + 1);
    let mut newer: Vec<PathBuf> = rotated.into_iter().skip(known).map(|file| file.path).collect();
    let current = path.current();
    match fs::metadata(&current) {
        // The second name of the current file, which a rotation had just given to it.
        Ok(metadata) if position.is_in(&metadata) => newer.clear(),
        Ok(_) => newer.push(current),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(newer)
}

/// All whole records behind `start`; a torn one is cut off.
fn records_since(file: &File, start: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().saturating_sub(start);
    let mut records = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut records, start)?;
    let whole = memrchr(b'\n', &records).map_or(0, |last| last + 1);
    if whole < records.len() {
        file.set_len(start + whole as u64)?;
        records.truncate(whole);
    }
    Ok(records)
}

/// Adds up the content of one stream.
struct Count {
    stream: Stream,
    content: Content,
    /// How the last record of the stream ended.
    last: Option<LineEnd>,
}

impl Count {
    fn add(&mut self, records: &[u8]) {
        let mut seconds = SecondCache::default();
        let mut cut_off = false;
        for line in records.split_inclusive(|byte| *byte == b'\n') {
            let line = &line[..line.len() - 1];
            let Some(record) = cri::parse(line, &mut seconds).filter(|record| record.stream == self.stream)
            else {
                continue;
            };
            if is_marker(&line[..line.len() - record.content.len()]) {
                // A marker inside a line stands behind an empty record that ends the line.
                self.content.bytes -= u64::from(cut_off);
                self.content.markers += 1;
                cut_off = false;
                continue;
            }
            self.content.bytes += record.content.len() as u64 + u64::from(record.end == LineEnd::Full);
            let is_empty_end = record.end == LineEnd::Full && record.content.is_empty();
            cut_off = is_empty_end && self.last.is_none_or(|end| end == LineEnd::Partial);
            self.last = Some(record.end);
        }
    }
}

fn is_marker(header: &[u8]) -> bool {
    let tag = header.strip_suffix(b" ").and_then(|header| header.strip_suffix(GAP_TAG.as_bytes()));
    tag.is_some_and(|header| header.ends_with(b" F:"))
}

#[cfg(test)]
mod tests {
    use podlog_line::Timestamp;

    use super::*;
    use crate::{CriFileSink, FileLimits};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second, 0)
    }

    /// A log with something in it already, whose writer goes on.
    fn sink(path: &Path, max_bytes: u64) -> CriFileSink {
        let mut sink = CriFileSink::open(path, FileLimits { max_bytes, max_files: 5 }).expect("a log");
        sink.write(Stream::Stdout, b"before\n", at(1)).expect("a disk");
        sink
    }

    #[test]
    fn what_was_written_is_counted_as_it_came() {
        for (chunk, max_bytes) in [
            (&b""[..], u64::MAX),
            (b"\n", u64::MAX),
            (b"one\ntwo\n\nthree", u64::MAX),
            (b"one\ntwo\n\nthree", 110),
            (&[b'x'; 40_000], u64::MAX),
            (&[b'\n'; 3], 130),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("0.log");
            let mut sink = sink(&path, max_bytes);
            let position = sink.position();
            sink.write(Stream::Stdout, chunk, at(2)).expect("a disk");
            sink.write(Stream::Stderr, b"of another stream\n", at(2)).expect("a disk");
            let expected = chunk.len() - sink.held(Stream::Stdout).len();
            drop(sink);
            let found = content_since(&path, &position, Stream::Stdout).expect("a log");
            assert_eq!(
                found.map(|found| found.bytes),
                Some(expected as u64),
                "{}",
                String::from_utf8_lossy(chunk)
            );
        }
    }

    #[test]
    fn a_torn_record_is_cut_off_wherever_it_was_torn() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let mut sink = sink(&path, u64::MAX);
        let position = sink.position();
        sink.write(Stream::Stdout, b"one\ntwo\n", at(2)).expect("a disk");
        drop(sink);
        let whole = fs::read(&path).expect("a log");
        let record = (whole.len() - position.length as usize) / 2;
        for length in position.length as usize..=whole.len() {
            fs::write(&path, &whole[..length]).expect("a file");
            let records = (length - position.length as usize) / record;
            let found = content_since(&path, &position, Stream::Stdout).expect("a log");
            assert_eq!(found.map(|found| found.bytes), Some(4 * records as u64), "torn at {length}");
            assert_eq!(
                fs::metadata(&path).expect("a file").len(),
                position.length + (records * record) as u64
            );
        }
    }

    #[test]
    fn a_file_is_found_while_somebody_renames_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let mut sink = sink(&path, u64::MAX);
        let position = sink.position();
        sink.write(Stream::Stdout, b"one\n", at(2)).expect("room");
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let names = [path.clone(), path.with_extension("log.20260101-000000")];
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    for (from, to) in [(0, 1), (1, 0)] {
                        fs::rename(&names[from], &names[to]).expect("a rename");
                        std::thread::sleep(std::time::Duration::from_micros(50));
                    }
                }
            });
            let found: Vec<_> = (0..2000).map(|_| content_since(&path, &position, Stream::Stdout)).collect();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            for found in found {
                assert_eq!(found.expect("a log"), Some(Content { bytes: 4, markers: 0 }));
            }
        });
    }

    #[test]
    fn a_file_is_found_under_any_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let mut sink = sink(&path, u64::MAX);
        let position = sink.position();
        fs::rename(&path, path.with_extension("old")).expect("rename");
        sink.write(Stream::Stdout, b"one\n", at(2)).expect("a disk");
        let expected = Content { bytes: 4, markers: 0 };
        assert_eq!(content_since(&path, &position, Stream::Stdout).expect("a log"), Some(expected));
        fs::remove_file(path.with_extension("old")).expect("remove");
        assert_eq!(content_since(&path, &position, Stream::Stdout).expect("a log"), None);
    }

    #[test]
    fn markers_are_nobody_s_output() {
        let marker = "2026-01-01T00:00:01Z stdout F:podlog-gap {\"podlog.gap\":{\"reason\":\"other\"}}\n";
        let record = |end, text: &str| format!("2026-01-01T00:00:01Z stdout {end} {text}\n");
        for (records, bytes, markers) in [
            (record("F", "a") + marker, 2, 1),
            (record("P", "a") + &record("F", "") + marker, 1, 1),
            (record("F", "a") + &record("F", "") + marker, 3, 1),
            (record("P", "a") + &record("F", "") + &record("F", "b"), 4, 0),
            (marker.to_owned() + &record("F", "F:podlog-gap ") + marker, 14, 2),
        ] {
            let mut count = Count { stream: Stream::Stdout, content: Content::default(), last: None };
            count.add(records.as_bytes());
            assert_eq!(count.content, Content { bytes, markers }, "{records}");
        }
    }
}
