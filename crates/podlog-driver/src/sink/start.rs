//! Opening a log for writing, whatever state it was left in.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
};

use memchr::memrchr;
use podlog_line::{LineEnd, RecordParser, Stream, Timestamp};

use super::{
    append::Appender,
    crash,
    rotate::{FILE_MODE, Place},
};
use crate::{
    attributes,
    generations::{FileId, LogPath},
};

/// The last records of a file are looked for in so many of its bytes: more than two records of ordinary size,
const END_BYTES: u64 = 64 * 1024;
/// and where there is none in those, in so many: more than two records of the largest size.
const LONG_END_BYTES: u64 = 1024 * 1024;

/// A log that is ready to be appended to.
pub(super) struct Opened {
    pub(super) file: Appender<File>,
    /// The time of its last record.
    pub(super) last: Timestamp,
    pub(super) place: Place,
}

/// Opens the log and cleans up behind a writer that was interrupted.
pub(super) fn open(path: &LogPath) -> io::Result<Opened> {
    DirBuilder::new().recursive(true).mode(0o755).create(path.directory())?;
    clean_up(path)?;
    open_current(path, None)
}

/// Opens or makes the current file. `expected` is the place of a new one, as far as that is known.
pub(super) fn open_current(path: &LogPath, expected: Option<Place>) -> io::Result<Opened> {
    let file =
        OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path.current())?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let length = metadata.len();
    let place = place(path, &file, length, expected)?;
    if length == 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        crash::step()?;
        place.mark(&file);
    } else {
        attributes::clear_end(&file);
    }
    let (end, last, inside_line) = read_end(&file, length)?;
    let torn = end.last().is_some_and(|byte| *byte != b'\n');
    Ok(Opened { file: Appender::new(file, length, torn, inside_line), last, place })
}

/// What the file says of itself; if it is empty and says nothing, what follows from the file before it.
fn place(path: &LogPath, file: &File, length: u64, expected: Option<Place>) -> io::Result<Place> {
    let before = place_after_newest(path)?;
    let next = expected.map_or(before, |expected| Place {
        generation: expected.generation.max(before.generation),
        ..expected
    });
    Ok(Place {
        generation: attributes::generation(file).unwrap_or(next.generation),
        base: attributes::base(file).or(next.base.filter(|_| length == 0)),
    })
}

/// Removes files that are not finished, files that exist compressed as well, and the second name of the current file.
pub(super) fn clean_up(path: &LogPath) -> io::Result<()> {
    let listing = path.list()?;
    let current = fs::metadata(path.current()).ok().map(|metadata| FileId::of(&metadata));
    for file in &listing.temporary {
        crash::step()?;
        fs::remove_file(file)?;
    }
    for file in listing.rotated.iter().filter(|file| !file.compressed) {
        let id = FileId::of(&fs::metadata(&file.path)?);
        if Some(id) == current || file.compressed_path().exists() {
            crash::step()?;
            fs::remove_file(&file.path)?;
        }
    }
    Ok(())
}

/// The place behind the newest file that was rotated away. How long a compressed file was is not known.
fn place_after_newest(path: &LogPath) -> io::Result<Place> {
    let Some(newest) = path.list()?.rotated.pop() else {
        return Ok(Place { generation: 1, base: Some(0) });
    };
    let Ok(file) = File::open(&newest.path) else { return Ok(Place { generation: 1, base: None }) };
    let base = if newest.compressed { None } else { attributes::base(&file) };
    let place = Place { generation: attributes::generation(&file).unwrap_or(0), base };
    Ok(place.after(file.metadata()?.len()))
}

/// The end of a file and what its last records say.
fn read_end(file: &File, length: u64) -> io::Result<(Vec<u8>, Timestamp, [bool; 2])> {
    let mut end = read_last(file, length, END_BYTES)?;
    let mut found = last_records(&end);
    if found.0 == Timestamp::MIN && length > END_BYTES {
        end = read_last(file, length, LONG_END_BYTES)?;
        found = last_records(&end);
    }
    Ok((end, found.0, found.1))
}

fn read_last(file: &File, length: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let start = length.saturating_sub(bytes);
    let mut end = vec![0; usize::try_from(length - start).unwrap_or(usize::MAX)];
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
