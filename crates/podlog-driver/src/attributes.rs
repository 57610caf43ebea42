//! What the writer of a log file tells its readers: extended attributes, which follow the file when it is renamed.
//!
//! They only make reading faster. Where the file system has none, readers scan.

use std::os::fd::AsFd;

use podlog_line::{Stream, Timestamp};
use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};

/// Present when no record is older than one before it; counts the files of the log.
const GENERATION: &str = "user.podlog.generation";
/// Bytes of all earlier files of the log, those included that have been deleted.
const BASE: &str = "user.podlog.base";
/// Present when the file is complete: nanoseconds of its last record, and in which streams it ends inside a line.
const END: &str = "user.podlog.end";

/// Present while the writer is about to go on in another file: it may still have something to say in this one.
const LEAVING: &str = "user.podlog.leaving";

/// Present when whoever rotates a foreign log has put another file in this one's place.
const ROTATED: &str = "user.podlog.rotated";

/// Which process writes the file: whoever rotates a foreign log remembers it here.
const WRITER: &str = "user.podlog.writer";

/// How a complete file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileEnd {
    /// No record of the file is younger.
    pub(crate) last: Timestamp,
    /// Whether the line of a stream goes on in the next file.
    pub(crate) inside_line: [bool; 2],
}

/// The file is the writer's so-manieth of this log, and its records will be in order.
pub(crate) fn mark_generation(file: impl AsFd, number: u64) {
    set(file, GENERATION, number.to_string().as_bytes());
}

/// The number of a file whose records are in order.
pub(crate) fn generation(file: impl AsFd) -> Option<u64> {
    std::str::from_utf8(&get(file, GENERATION)?).ok()?.parse().ok()
}

/// So many bytes are in the files before this one.
pub(crate) fn mark_base(file: impl AsFd, bytes: u64) {
    set(file, BASE, bytes.to_string().as_bytes());
}

/// How many bytes were written to the log before this file was begun.
pub(crate) fn base(file: impl AsFd) -> Option<u64> {
    std::str::from_utf8(&get(file, BASE)?).ok()?.parse().ok()
}

pub(crate) fn mark_end(file: impl AsFd, end: FileEnd) {
    let streams: String =
        Stream::ALL.iter().map(|stream| if end.inside_line[stream.index()] { 'P' } else { 'F' }).collect();
    set(file, END, format!("{} {streams}", end.last.as_nanoseconds()).as_bytes());
}

/// The file is written to again.
pub(crate) fn clear_end(file: impl AsFd) {
    // It is mostly not there.
    let _ = fremovexattr(file, END);
}

pub(crate) fn file_end(file: impl AsFd) -> Option<FileEnd> {
    let value = get(file, END)?;
    let (nanoseconds, streams) = std::str::from_utf8(&value).ok()?.split_once(' ')?;
    let streams: &[u8; 2] = streams.as_bytes().try_into().ok()?;
    Some(FileEnd {
        last: Timestamp::from_nanoseconds(nanoseconds.parse().ok()?),
        inside_line: streams.map(|end| end == b'P'),
    })
}

/// The writer has been told, or is about to be, to go on in another file.
pub(crate) fn mark_leaving(file: impl AsFd) {
    set(file, LEAVING, b"1");
}

/// The writer has left the file, or stays in it.
pub(crate) fn clear_leaving(file: impl AsFd) {
    // It is not there where there are no attributes.
    let _ = fremovexattr(file, LEAVING);
}

pub(crate) fn is_being_left(file: impl AsFd) -> bool {
    get(file, LEAVING).is_some()
}

/// Another file is in the file's place, and its writer is told to go on in that.
pub(crate) fn mark_rotated(file: impl AsFd) {
    set(file, ROTATED, b"1");
}

/// The file has its place back.
pub(crate) fn clear_rotated(file: impl AsFd) {
    let _ = fremovexattr(file, ROTATED);
}

pub(crate) fn is_rotated(file: impl AsFd) -> bool {
    get(file, ROTATED).is_some()
}

/// Remembers who writes the file.
pub(crate) fn mark_writer(file: impl AsFd, writer: &str) {
    set(file, WRITER, writer.as_bytes());
}

/// Who was remembered as the file's writer.
pub(crate) fn writer(file: impl AsFd) -> Option<String> {
    String::from_utf8(get(file, WRITER)?).ok()
}

/// Gives `to` what is known of `from`.
pub(crate) fn copy(from: impl AsFd, to: impl AsFd) {
    for name in [GENERATION, BASE, END] {
        if let Some(value) = get(&from, name) {
            set(&to, name, &value);
        }
    }
}

fn set(file: impl AsFd, name: &str, value: &[u8]) {
    if let Err(error) = fsetxattr(file, name, value, XattrFlags::empty()) {
        tracing::trace!(%error, name, "no extended attribute was set");
    }
}

fn get(file: impl AsFd, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let length = fgetxattr(file, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}
