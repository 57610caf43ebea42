//! What the tests of reading share.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use podlog_line::{LineEnd, Mode, Selection, Stream, Streams, Timestamp, cri};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{CriFileSink, FileLimits, ReadError, generations::Packing};

mod cursors;
mod damage;
mod follow;
mod lines;
mod naive;
mod races;
mod since;
mod tail;
mod upstream;

/// A directory with a log in it.
struct Log {
    directory: TempDir,
}

impl Log {
    fn new() -> Log {
        Log { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    fn generation(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("0.log.20260101-0000{number:02}"))
    }

    fn write(&self, bytes: &[u8]) {
        fs::write(self.path(), bytes).expect("room");
    }

    fn append(&self, bytes: &[u8]) {
        append(&self.path(), bytes);
    }

    fn sink(&self, max_bytes: u64) -> CriFileSink {
        CriFileSink::open(self.path(), FileLimits { max_bytes, max_files: 1000 }).expect("a sink")
    }

    fn reader(&self, selection: &Selection) -> LogReader {
        LogSource::open(self.path()).expect("a log").read(selection).expect("a log")
    }

    fn try_read(&self, selection: &Selection) -> (Vec<u8>, Result<(), ReadError>) {
        let mut out = Vec::new();
        let result = LogSource::open(self.path())
            .and_then(|source| source.read(selection))
            .and_then(|mut reader| drain(&mut reader, &mut out).and_then(|_| reader.finish(&mut out)));
        (out, result)
    }

    fn read(&self, selection: &Selection) -> Vec<u8> {
        let (out, result) = self.try_read(selection);
        result.expect("a log");
        out
    }

    fn text(&self, selection: &Selection) -> String {
        String::from_utf8(self.read(selection)).expect("text")
    }
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).expect("a file");
    file.write_all(bytes).expect("room");
}

fn compress(path: &Path) {
    pack(path, Packing::Gzip);
}

/// Where the compressed file is.
fn pack(path: &Path, packing: Packing) -> PathBuf {
    let content = fs::read(path).expect("a file");
    let packed = match packing {
        Packing::Plain => content,
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&content).expect("memory");
            encoder.finish().expect("memory")
        }
        Packing::Zstd => zstd::encode_all(&*content, 1).expect("memory"),
    };
    fs::remove_file(path).expect("a file");
    let path = PathBuf::from(format!("{}{}", path.display(), packing.suffix()));
    fs::write(&path, packed).expect("room");
    path
}

/// Reads until everything that is there was read.
fn drain(reader: &mut LogReader, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
    loop {
        match reader.read_chunk(out)? {
            ReadState::More => {}
            state => return Ok(state),
        }
    }
}

fn drained(reader: &mut LogReader) -> String {
    let mut out = Vec::new();
    drain(reader, &mut out).expect("a log");
    String::from_utf8(out).expect("text")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(1_767_225_600 + second, 0)
}

/// `o1P x` is `2026-01-01T00:00:01Z stdout P x` and a line feed, `e` is stderr; anything else stands for itself.
fn log(records: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let shorthand = record.strip_prefix(['o', 'e']).and_then(|rest| rest.split_at_checked(1));
        match shorthand {
            Some((second, rest)) if second.as_bytes()[0].is_ascii_digit() => {
                let stream = if record.starts_with('o') { "stdout" } else { "stderr" };
                out.extend_from_slice(format!("2026-01-01T00:00:0{second}Z {stream} {rest}\n").as_bytes());
            }
            _ => out.extend_from_slice(record.as_bytes()),
        }
    }
    out
}

fn selection(mode: Mode, options: &str) -> Selection {
    let mut selection = Selection { mode, ..Selection::default() };
    for option in options.split_whitespace() {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "ts" => selection.timestamps = true,
            "follow" => selection.follow = true,
            "stdout" => selection.streams = Streams::Stdout,
            "stderr" => selection.streams = Streams::Stderr,
            "until" => selection.until = Some(at(value.parse().expect("a number"))),
            "since" => selection.since = Some(at(value.parse().expect("a number"))),
            "limit" => selection.limit_bytes = Some(value.parse().expect("a number")),
            "tail" => selection.tail = Some(value.parse().expect("a number")),
            _ => panic!("unknown option {option}"),
        }
    }
    selection
}

const ABC: &[&str] = &["o1F a", "e2F b", "o3F c"];
const PARTS: &[&str] = &["o1P x1", "o2P x2", "o3F x3", "o4F y"];
const MIXED: &[&str] = &["o1P abc", "e2F ERR", "o3F def"];
const TORN: &[&str] = &["o1F a", "o2F b", "2026-01-01T00:00:03Z stdout F partial-no-eol"];
const GARBAGE: &[&str] = &["o1F a", "garbage line\n", "o3F c"];
const JSON: &[&str] = &[
    "{\"log\":\"hi\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00.123Z\"}\n",
    "{\"log\":\"part\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:01Z\"}\n",
    "{\"log\":\"ial\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:02Z\"}\n",
];
