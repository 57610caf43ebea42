//! Opening a log for writing, whatever state it was left in.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
};

use memchr::memrchr;
use podlog_line::{LineEnd, RecordParser, Stream, Timestamp};

use super::{append::Appender, rotate::FILE_MODE};
use crate::{
    attributes,
    generations::{FileId, LogPath},
};

/// The last records of a file are looked for in so many of its bytes: more than two records of the largest size.
const END_BYTES: u64 = 64 * 1024;

/// A log that is ready to be appended to.
pub(super) struct Opened {
    pub(super) file: Appender<File>,
    /// The time of its last record.
    pub(super) last: Timestamp,
    /// The number of the file among those of the log.
    pub(super) generation: u64,
}

/// Opens the log and cleans up behind a writer that was interrupted.
pub(super) fn open(path: &LogPath) -> io::Result<Opened> {
    DirBuilder::new().recursive(true).mode(0o755).create(path.directory())?;
    clean_up(path)?;
    open_current(path, 0)
}

/// Opens or makes the current file. `generation` is the number of the file that was written before, as far as is known.
pub(super) fn open_current(path: &LogPath, generation: u64) -> io::Result<Opened> {
    let file =
        OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path.current())?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let length = metadata.len();
    let generation = attributes::generation(&file).unwrap_or(generation.max(newest_generation(path)?) + 1);
    if length == 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        attributes::mark_generation(&file, generation);
    } else {
        attributes::clear_end(&file);
    }
    let end = read_end(&file, length)?;
    let torn = end.last().is_some_and(|byte| *byte != b'\n');
    let (last, inside_line) = last_records(&end);
    Ok(Opened { file: Appender::new(file, length, torn, inside_line), last, generation })
}

/// Removes files that are not finished, files that exist compressed as well, and the second name of the current file.
fn clean_up(path: &LogPath) -> io::Result<()> {
    let listing = path.list()?;
    let current = fs::metadata(path.current()).ok().map(|metadata| FileId::of(&metadata));
    for file in &listing.temporary {
        fs::remove_file(file)?;
    }
    for file in listing.rotated.iter().filter(|file| !file.compressed) {
        let id = FileId::of(&fs::metadata(&file.path)?);
        if Some(id) == current || file.compressed_path().exists() {
            fs::remove_file(&file.path)?;
        }
    }
    Ok(())
}

/// The number of the newest file that was rotated away; 0 if there is none.
fn newest_generation(path: &LogPath) -> io::Result<u64> {
    let newest = path.list()?.rotated.pop().and_then(|file| File::open(file.path).ok());
    Ok(newest.and_then(attributes::generation).unwrap_or(0))
}

fn read_end(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let start = length.saturating_sub(END_BYTES);
    let mut end = vec![0; usize::try_from(length - start).expect("64 KiB fit")];
    file.read_exact_at(&mut end, start)?;
    Ok(end)
}

/// The time of the last whole record, and of each stream whether its last one was partial.
fn last_records(end: &[u8]) -> (Timestamp, [bool; 2]) {
    let mut parser = RecordParser::default();
    let mut last = None;
    let mut inside_line = [None; 2];
    let mut lines = &end[..memrchr(b'\n', end).unwrap_or(0)];
    while !lines.is_empty() && inside_line.contains(&None) {
        let start = memrchr(b'\n', lines).map_or(0, |position| position + 1);
        if let Some(record) = parser.parse(&lines[start..]) {
            last.get_or_insert(record.time.timestamp());
            inside_line[record.stream.index()].get_or_insert(record.end == LineEnd::Partial);
        }
        lines = &lines[..start.saturating_sub(1)];
    }
    let inside = |stream: Stream| inside_line[stream.index()].unwrap_or(false);
    (last.unwrap_or(Timestamp::MIN), Stream::ALL.map(inside))
}
