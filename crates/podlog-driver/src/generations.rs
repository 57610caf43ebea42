//! The files that make up a log: the current one and those rotated away.
//!
//! `<n>.log` is written to; `<n>.log.<YYYYMMDD-HHMMSS>` and its compressed forms `….gz` and `….zst` are older, as the
//! kubelet names them (`pkg/kubelet/logs/container_log_manager.go`). Docker counts instead
//! (`daemon/logger/loggerutils/logfile.go`): `<id>-json.log.1` is the newest, `<id>-json.log.2.gz` older.

use std::{
    cmp::Reverse,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use podlog_line::Timestamp;

const TEMPORARY: &str = "tmp";

/// Where a log is: its directory and the name of its current file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogPath {
    directory: PathBuf,
    name: OsString,
}

/// The identity of a file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &fs::Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }

    pub(crate) fn of_open(file: &fs::File) -> io::Result<FileId> {
        Ok(FileId::of(&file.metadata()?))
    }
}

/// How the content of a file is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Packing {
    /// As it is.
    Plain,
    /// gzip, of one or several members.
    Gzip,
    /// Zstandard, of one or several frames.
    Zstd,
}

impl Packing {
    const COMPRESSED: [Packing; 2] = [Packing::Gzip, Packing::Zstd];

    /// What the name of such a file ends with.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Packing::Plain => "",
            Packing::Gzip => ".gz",
            Packing::Zstd => ".zst",
        }
    }

    /// Tells it by the end of a name, and gives what is before.
    fn split(name: &str) -> (&str, Packing) {
        Packing::COMPRESSED
            .into_iter()
            .find_map(|packing| Some((name.strip_suffix(packing.suffix())?, packing)))
            .unwrap_or((name, Packing::Plain))
    }
}

/// How old a rotated file is among those of its log. Older is less.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Age {
    /// Docker's: the number grows with each rotation.
    Numbered(Reverse<u32>),
    /// When it was rotated away, as text.
    Stamped(String),
}

impl Age {
    fn parse(text: &str) -> Option<Age> {
        if is_stamp(text) {
            return Some(Age::Stamped(text.to_owned()));
        }
        let is_number = !text.starts_with(['0', '+']) && text.len() <= MAX_NUMBER_LENGTH;
        text.parse().ok().filter(|_| is_number).map(|number| Age::Numbered(Reverse(number)))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Age::Numbered(Reverse(number)) => number.fmt(f),
            Age::Stamped(stamp) => stamp.fmt(f),
        }
    }
}

/// A log has fewer numbered files than this many digits can count; a date is no number.
const MAX_NUMBER_LENGTH: usize = 5;

/// A file that was rotated away, whoever did it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OldFile {
    /// How old it is.
    pub(crate) age: Age,
    /// How it is stored.
    pub(crate) packing: Packing,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// A file that was rotated away as the kubelet does it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RotatedFile {
    /// The part of the name that tells its age.
    pub(crate) age: String,
    /// Whether it is compressed.
    pub(crate) compressed: bool,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// What a writer finds in the directory of its log besides the current file.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Rotated files, oldest first. Of a file and its compressed twin both are here, the plain one first.
    pub(crate) rotated: Vec<RotatedFile>,
    /// Left over from something that was interrupted.
    pub(crate) temporary: Vec<PathBuf>,
}

impl LogPath {
    pub(crate) fn new(path: &Path) -> LogPath {
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        LogPath {
            directory: directory.to_owned(),
            name: path.file_name().unwrap_or_else(|| OsStr::new("")).to_owned(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Name of the current file.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(crate) fn current(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// The path of `<name>.<suffix>`.
    pub(crate) fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.name.clone();
        name.push(".");
        name.push(suffix);
        self.directory.join(name)
    }

    /// Where a new current file is prepared.
    pub(crate) fn prepared(&self) -> PathBuf {
        self.with_suffix(TEMPORARY)
    }

    /// What the writer of the log takes care of: Docker's files are none of its business.
    pub(crate) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            match self.classify(&entry.file_name()) {
                Some(Kind::Temporary) => listing.temporary.push(entry.path()),
                Some(Kind::Old { age: Age::Stamped(age), packing }) => {
                    let compressed = packing != Packing::Plain;
                    listing.rotated.push(RotatedFile { age, compressed, path: entry.path() });
                }
                Some(Kind::Old { age: Age::Numbered(_), .. }) | None => {}
            }
        }
        listing.rotated.sort();
        Ok(listing)
    }

    /// All rotated files, whoever rotated them, oldest first. Of a file and its compressed twins all are here, the plain
    /// one first.
    pub(crate) fn old_files(&self) -> io::Result<Vec<OldFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let Some(Kind::Old { age, packing }) = self.classify(&entry.file_name()) {
                files.push(OldFile { age, packing, path: entry.path() });
            }
        }
        files.sort();
        Ok(files)
    }

    fn classify(&self, name: &OsStr) -> Option<Kind> {
        let suffix = name.as_bytes().strip_prefix(self.name.as_bytes())?.strip_prefix(b".")?;
        let suffix = std::str::from_utf8(suffix).ok()?;
        if suffix == TEMPORARY || suffix.strip_suffix(".tmp").is_some_and(is_stamp_or_compressed) {
            return Some(Kind::Temporary);
        }
        let (age, packing) = Packing::split(suffix);
        Age::parse(age).map(|age| Kind::Old { age, packing })
    }
}

enum Kind {
    Temporary,
    Old { age: Age, packing: Packing },
}

impl RotatedFile {
    /// Where its compressed form goes.
    pub(crate) fn compressed_path(&self) -> PathBuf {
        with_suffix(&self.path, Packing::Gzip.suffix())
    }

    /// Where that is prepared.
    pub(crate) fn temporary_path(&self) -> PathBuf {
        with_suffix(&self.path, ".tmp")
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn is_stamp_or_compressed(suffix: &str) -> bool {
    is_stamp(Packing::split(suffix).0)
}

/// `YYYYMMDD-HHMMSS`, with more digits behind it if need be.
fn is_stamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(stamp), Some(more)) = (bytes.get(..AGE_LENGTH), bytes.get(AGE_LENGTH..)) else { return false };
    stamp
        .iter()
        .enumerate()
        .all(|(index, byte)| if index == 8 { *byte == b'-' } else { byte.is_ascii_digit() })
        && more.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
}

const AGE_LENGTH: usize = 15;

/// The age to name a file by that is rotated away `at` a time (in UTC), so that it sorts behind `newest`.
///
/// Several rotations in a second, and a clock that was set back, take the next free second.
pub(crate) fn next_age(at: Timestamp, newest: Option<&str>) -> String {
    let after_newest = newest.and_then(age_to_seconds).map_or(i64::MIN, |seconds| seconds.saturating_add(1));
    seconds_to_age(at.as_seconds().max(after_newest))
}

fn seconds_to_age(seconds: i64) -> String {
    let text = Timestamp::from_seconds(seconds, 0).to_string();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    format!("{}-{}", &digits[..8], &digits[8..14])
}

fn age_to_seconds(age: &str) -> Option<i64> {
    let field = |from: usize, to: usize| age.get(from..to);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        field(0, 4)?,
        field(4, 6)?,
        field(6, 8)?,
        field(9, 11)?,
        field(11, 13)?,
        field(13, 15)?
    );
    Some(Timestamp::parse(text.as_bytes()).ok()?.as_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_told_from_others_and_sorted_by_age() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in [
            "0.log",
            "0.log.20260102-000000",
            "0.log.20260101-000000.gz",
            "0.log.20260101-000000",
            "0.log.20260102-000000.5",
            "0.log.20260102-000000.gz.tmp",
            "0.log.20260103-000000.tmp",
            "0.log.tmp",
            "0.log.bak",
            "0.log.2026-01-01",
            "1.log.20260102-000000",
            "10.log",
        ] {
            fs::write(directory.path().join(name), "").expect("a file");
        }
        let listing = LogPath::new(&directory.path().join("0.log")).list().expect("a directory");
        let rotated: Vec<(&str, bool)> =
            listing.rotated.iter().map(|file| (file.age.as_str(), file.compressed)).collect();
        assert_eq!(
            rotated,
            [
                ("20260101-000000", false),
                ("20260101-000000", true),
                ("20260102-000000", false),
                ("20260102-000000.5", false)
            ]
        );
        assert_eq!(listing.temporary.len(), 3);
    }

    #[test]
    fn readers_know_the_files_of_other_writers() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in [
            "c-json.log",
            "c-json.log.1",
            "c-json.log.2",
            "c-json.log.2.gz",
            "c-json.log.10.gz",
            "c-json.log.3.zst",
            "c-json.log.20260101-000000.zst",
            "c-json.log.0",
            "c-json.log.01",
            "c-json.log.+4",
            "c-json.log.20260101",
            "c-json.log.4.tmp",
            "c-json.log.5.gz.bak",
        ] {
            fs::write(directory.path().join(name), "").expect("a file");
        }
        let path = LogPath::new(&directory.path().join("c-json.log"));
        let files = path.old_files().expect("a directory");
        let names: Vec<String> =
            files.iter().map(|file| format!("{}{}", file.age, file.packing.suffix())).collect();
        assert_eq!(names, ["10.gz", "3.zst", "2", "2.gz", "1", "20260101-000000.zst"]);
        let listing = path.list().expect("a directory");
        assert_eq!(listing.rotated.len(), 1, "a writer leaves Docker's files alone");
        assert!(listing.temporary.is_empty());
    }

    #[test]
    fn ages_always_grow() {
        let at = |text: &str| Timestamp::parse(text.as_bytes()).expect("a time");
        for (time, newest, expected) in [
            ("2026-11-21T17:24:57.9Z", None, "20261121-172457"),
            ("2026-11-21T17:24:57Z", Some("20261121-172456"), "20261121-172457"),
            ("2026-11-21T17:24:57Z", Some("20261121-172457"), "20261121-172458"),
            ("2026-11-21T17:24:57Z", Some("20261121-172457.5"), "20261121-172458"),
            ("2025-01-01T00:00:00Z", Some("20261231-235959"), "20270101-000000"),
            ("2025-01-01T00:00:00Z", Some("20261399-000000"), "20250101-000000"),
        ] {
            assert_eq!(next_age(at(time), newest), expected);
        }
    }
}
